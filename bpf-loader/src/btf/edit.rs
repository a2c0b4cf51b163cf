//! A copy of BTF whose types are rewritten in place.

use super::encode::assemble;
use super::{Btf, BtfId};
use crate::bytes::{Bytes, Endian};
use crate::error::{Error, Result};

/// Kernels take no BTF beyond 16 MiB. Renamed sections that share one long name could grow far beyond.
const MAX_STRINGS: usize = 16 << 20;

/// Sections of a file, copied. Types keep their ids and sizes; types and strings may be added at the end.
pub(crate) struct Edit {
    endian: Endian,
    types: Vec<u8>,
    layout: Vec<u8>,
    strings: Vec<u8>,
    next_id: u32,
}

impl Edit {
    /// A copy of BTF that stands alone.
    pub fn new(btf: &Btf<'_>) -> Result<Self> {
        if btf.base.is_some() {
            return Err(Box::new(Error::BtfBase));
        }
        let copy = |span| btf.section(span).data.to_vec();
        let (types, layout, strings) = (copy(btf.types), copy(btf.layout), copy(btf.strings));
        Ok(Self { endian: btf.endian, types, layout, strings, next_id: btf.count })
    }

    /// The word at `at` in the type section.
    pub fn word(&self, at: usize) -> u32 {
        Bytes::new(&self.types, self.endian).u32(at).unwrap_or_default()
    }

    /// Overwrites the word at `at`, which a parsed type has.
    pub fn set(&mut self, at: usize, word: u32) {
        if let Some(place) = self.types.get_mut(at..at.saturating_add(4)) {
            place.copy_from_slice(&self.endian.put_u32(word));
        }
    }

    /// Adds a string and returns its offset. Existing ones may be shared, so they are never changed.
    pub fn add_string(&mut self, text: &[u8]) -> Result<u32> {
        if self.strings.len() + text.len() >= MAX_STRINGS {
            return Err(Box::new(Error::BtfTooLarge));
        }
        let offset = self.strings.len() as u32;
        self.strings.extend_from_slice(text);
        self.strings.push(0);
        Ok(offset)
    }

    /// Adds a type by its words and returns its id.
    pub fn add_type(&mut self, words: &[u32]) -> Result<BtfId> {
        let id = BtfId(self.next_id);
        self.next_id = self.next_id.checked_add(1).ok_or(Error::BtfTooLarge)?;
        for word in words {
            self.types.extend_from_slice(&self.endian.put_u32(*word));
        }
        Ok(id)
    }

    /// Leaves the layout section out.
    pub fn drop_layout(&mut self) {
        self.layout.clear();
    }

    /// The file, without gaps and without what its header had beyond the known fields: kernels refuse both.
    pub fn build(self) -> Result<Vec<u8>> {
        let total = self.types.len() as u64 + self.layout.len() as u64 + self.strings.len() as u64;
        u32::try_from(total).map_err(|_| Error::BtfTooLarge)?;
        Ok(assemble(self.endian, &self.types, &self.layout, &self.strings))
    }
}
