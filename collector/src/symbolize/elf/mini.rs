//! `.gnu_debugdata`: an ELF file in xz inside of the stripped one, with the local functions.

use super::super::error::SymbolizeError;
use super::super::read_at::{ReadAt, read_vec};
use super::Elf;
#[cfg(feature = "symbols")]
use crate::xz::{self, XzError};

/// Compressed bytes that are read.
const MAX_INPUT: usize = 4 << 20;
/// Decompressed bytes that are accepted.
#[cfg(feature = "symbols")]
const MAX_OUTPUT: usize = 32 << 20;
/// The decompressed file, where there is one.
pub(super) fn read(elf: &Elf, source: &dyn ReadAt) -> Result<Option<Vec<u8>>, Box<SymbolizeError>> {
    let Some(section) = elf.section_named(b".gnu_debugdata") else { return Ok(None) };
    let input = read_vec(source, section.offset, section.size, MAX_INPUT, ".gnu_debugdata")?;
    decompress(&input).map(Some)
}

/// Decompresses a bounded amount.
#[cfg(feature = "symbols")]
pub(in crate::symbolize) fn decompress(input: &[u8]) -> Result<Vec<u8>, Box<SymbolizeError>> {
    xz::decompress(input, MAX_OUTPUT).map_err(|error| match error {
        XzError::Bad(reason) => Box::new(SymbolizeError::BadCompression { reason }),
        XzError::TooLarge(size) => {
            let (size, limit) = (size as u64, MAX_OUTPUT as u64);
            Box::new(SymbolizeError::TooLarge { what: ".gnu_debugdata", size, limit })
        }
    })
}

/// A build that looks for no names has nothing that decompresses them.
#[cfg(not(feature = "symbols"))]
pub(in crate::symbolize) fn decompress(_: &[u8]) -> Result<Vec<u8>, Box<SymbolizeError>> {
    Err(Box::new(SymbolizeError::BadCompression {
        reason: "this build was made without the feature `symbols`".to_owned(),
    }))
}
