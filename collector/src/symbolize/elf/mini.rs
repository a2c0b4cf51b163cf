//! `.gnu_debugdata`: an ELF file in xz inside of the stripped one, with the local functions.

use xz4rust::{XzDecoder, XzNextBlockResult};

use super::super::error::SymbolizeError;
use super::super::read_at::{ReadAt, read_vec};
use super::Elf;

/// Compressed bytes that are read.
const MAX_INPUT: usize = 4 << 20;
/// Decompressed bytes that are accepted.
const MAX_OUTPUT: usize = 32 << 20;
/// Dictionary that the decoder may allocate; `xz` without options asks for 8 MiB.
const MAX_DICTIONARY: usize = 16 << 20;
/// Output that a decoding step has room for.
const STEP: usize = 64 * 1024;

/// The decompressed file, where there is one.
pub(super) fn read(elf: &Elf, source: &dyn ReadAt) -> Result<Option<Vec<u8>>, SymbolizeError> {
    let Some(section) = elf.section_named(b".gnu_debugdata") else { return Ok(None) };
    let input = read_vec(source, section.offset, section.size, MAX_INPUT, ".gnu_debugdata")?;
    decompress(&input).map(Some)
}

/// Decompresses a bounded amount.
pub(in crate::symbolize) fn decompress(mut input: &[u8]) -> Result<Vec<u8>, SymbolizeError> {
    let bad = |reason: String| SymbolizeError::BadCompression { reason };
    let mut decoder = XzDecoder::in_heap_with_alloc_dict_size(0, MAX_DICTIONARY);
    let mut output = Vec::new();
    let mut step = vec![0; STEP];
    loop {
        let result = decoder.decode(input, &mut step).map_err(|error| bad(format!("{error:?}")))?;
        output.extend_from_slice(step.get(..result.output_produced()).unwrap_or_default());
        input = input.get(result.input_consumed()..).unwrap_or_default();
        if output.len() > MAX_OUTPUT {
            return Err(SymbolizeError::TooLarge {
                what: ".gnu_debugdata",
                size: output.len() as u64,
                limit: MAX_OUTPUT as u64,
            });
        }
        match result {
            XzNextBlockResult::EndOfStream(..) => return Ok(output),
            _ if !result.made_progress() => return Err(bad("the stream is cut off".to_owned())),
            XzNextBlockResult::NeedMoreData(..) => {}
        }
    }
}
