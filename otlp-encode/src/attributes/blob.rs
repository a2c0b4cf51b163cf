//! Attributes that are encoded once.

use super::value::{keys, seen, starts};
use super::{Attributes, write};
use crate::error::Error;
use crate::wire::Writer;
use alloc::vec::Vec;

/// Attributes, encoded once and copied from then on.
#[derive(Debug, Clone, Default)]
pub struct AttributesBlob {
    /// The list as field [`FIELD`](Self::FIELD).
    bytes: Vec<u8>,
    /// Where in `bytes` the elements' headers are.
    tags: Vec<u32>,
    seen: u64,
}

impl AttributesBlob {
    /// The attributes' number in spans and histogram points; where it is another, headers are changed.
    const FIELD: u32 = 9;

    /// Encodes `attributes`.
    ///
    /// Errors: [`Error::Empty`] for an empty key; [`Error::DuplicateAttribute`]; [`Error::ValueDepth`];
    /// [`Error::TooLarge`].
    pub fn new(attributes: &dyn Attributes) -> Result<Self, Error> {
        let mut writer = Writer::new();
        write(&mut writer.fields(), Self::FIELD, attributes)?;
        let bytes = writer.as_bytes().to_vec();
        if bytes.len() > crate::Limits::MAX_BYTES {
            return Err(Error::TooLarge { bytes: bytes.len() });
        }
        let tags = starts(&bytes).map(|start| start as u32).collect();
        let seen = seen(&bytes);
        Ok(Self { bytes, tags, seen })
    }

    /// How many attributes there are.
    pub fn len(&self) -> usize {
        self.tags.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// Whether there is an attribute with this key.
    pub fn has(&self, key: &str) -> bool {
        keys(&self.bytes).any(|known| known == key.as_bytes())
    }

    /// All of it.
    #[inline]
    pub(super) fn encoded(&self) -> Encoded<'_> {
        Encoded { bytes: &self.bytes, tags: &self.tags, seen: self.seen }
    }

    /// The first attributes.
    #[cold]
    pub(super) fn first(&self, count: usize) -> Encoded<'_> {
        let Some((tags, &[end, ..])) = self.tags.split_at_checked(count) else { return self.encoded() };
        let bytes = self.bytes.get(..end as usize).unwrap_or_default();
        Encoded { bytes, tags, seen: seen(bytes) }
    }
}

/// A list of attributes, encoded as field [`AttributesBlob::FIELD`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Encoded<'b> {
    pub(super) bytes: &'b [u8],
    tags: &'b [u32],
    pub(super) seen: u64,
}

impl Encoded<'_> {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.tags.len()
    }

    #[inline]
    pub(super) fn copy_to(&self, writer: &mut Writer, tag: u8) {
        let slot = writer.claim(self.bytes.len());
        slot.copy_from_slice(self.bytes);
        if tag != (AttributesBlob::FIELD << 3 | 2) as u8 {
            for &at in self.tags {
                if let Some(byte) = slot.get_mut(at as usize) {
                    *byte = tag;
                }
            }
        }
    }
}
