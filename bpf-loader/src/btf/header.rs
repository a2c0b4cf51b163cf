//! The header of `.BTF`.

use crate::bytes::{Bytes, Endian};
use crate::error::{Error, Result};

pub(super) const MAGIC: u16 = 0xeb9f;

/// Bytes of a header before Linux 7.1; files may have more and say so.
pub(super) const MIN_HEADER: usize = 24;

/// Bytes of a header with the layout section (Linux 7.1).
pub(super) const LAYOUT_HEADER: usize = 32;

/// Bytes of an element of the layout section: `u8 info_sz, elem_sz; u16 flags`.
pub(super) const LAYOUT_ENTRY: usize = 4;

/// A section, in bytes from the start of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub at: usize,
    pub len: usize,
}

#[derive(Debug)]
pub(super) struct Header {
    pub endian: Endian,
    pub types: Span,
    pub strings: Span,
    pub layout: Span,
}

/// What BTF and BTF.ext begin with: byte order and length of the header. Checks that the whole header is there and has
/// at least `min` bytes.
pub(super) fn preamble<'a>(data: &'a [u8], section: &'static str, min: usize) -> Result<(Bytes<'a>, usize)> {
    let short = || Error::BtfHeader { section, len: data.len() };
    let found: [u8; 2] = data.get(..2).and_then(|b| b.try_into().ok()).ok_or_else(short)?;
    let endian = if found == Endian::Little.put_u16(MAGIC) {
        Endian::Little
    } else if found == Endian::Big.put_u16(MAGIC) {
        Endian::Big
    } else {
        return Err(Box::new(Error::BtfMagic { found }));
    };
    let bytes = Bytes::new(data, endian);
    let version = bytes.u8(2).ok_or_else(short)?;
    if version != 1 {
        return Err(Box::new(Error::BtfVersion { found: version }));
    }
    let len = bytes.u32(4).ok_or_else(short)? as usize;
    if len < min || len > data.len() {
        return Err(Box::new(Error::BtfHeader { section, len }));
    }
    Ok((bytes, len))
}

impl Header {
    pub fn parse(data: &[u8], split: bool) -> Result<Self> {
        let (bytes, header) = preamble(data, ".BTF", MIN_HEADER)?;
        let span = |section: &'static str, at: usize, unit: usize| {
            let missing = || Error::BtfHeader { section: ".BTF", len: header };
            let (offset, len) = (bytes.u32(at), bytes.u32(at + 4));
            let (Some(offset), Some(len)) = (offset, len) else { return Err(missing()) };
            // Sums in u64: three 32-bit numbers cannot overflow it.
            let (start, end) =
                (header as u64 + u64::from(offset), header as u64 + u64::from(offset) + u64::from(len));
            let misplaced =
                end > data.len() as u64 || offset as usize % unit != 0 || len as usize % unit != 0;
            if misplaced {
                return Err(Error::BtfSection { section, offset, len });
            }
            Ok(Span { at: start as usize, len: len as usize })
        };
        let types = span("types", 8, 4)?;
        let strings = span("strings", 16, 1)?;
        let layout =
            if header >= LAYOUT_HEADER { span("layout", 24, LAYOUT_ENTRY)? } else { Span::default() };

        let text = data.get(strings.at..strings.at + strings.len).unwrap_or_default();
        let empty_is_fine = split && text.is_empty();
        let well_formed = text.last() == Some(&0) && (split || text.first() == Some(&0));
        if !empty_is_fine && !well_formed {
            return Err(Box::new(Error::BtfStrings));
        }
        Ok(Self { endian: bytes.endian, types, strings, layout })
    }
}
