//! Decompressing xz, in bounded memory.

use xz4rust::{XzDecoder, XzNextBlockResult};

/// Dictionary that the decoder may allocate; `xz` without options asks for 8 MiB.
const MAX_DICTIONARY: usize = 16 << 20;
/// Output that a decoding step has room for.
const STEP: usize = 64 * 1024;

/// Why a stream cannot be decompressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum XzError {
    /// It is none, or is damaged.
    Bad(String),
    /// It is longer than asked for: this long, at least.
    TooLarge(usize),
}

/// Decompresses what is at most `limit` bytes long.
///
/// # Errors
///
/// The input is no whole stream, or a longer one.
pub(crate) fn decompress(mut input: &[u8], limit: usize) -> Result<Vec<u8>, XzError> {
    let mut decoder = XzDecoder::in_heap_with_alloc_dict_size(0, MAX_DICTIONARY);
    let mut output = Vec::new();
    let mut step = vec![0; STEP.min(limit)];
    loop {
        let result = decoder.decode(input, &mut step).map_err(|error| XzError::Bad(error.to_string()))?;
        output.extend_from_slice(step.get(..result.output_produced()).unwrap_or_default());
        input = input.get(result.input_consumed()..).unwrap_or_default();
        if output.len() > limit {
            return Err(XzError::TooLarge(output.len()));
        }
        match result {
            XzNextBlockResult::EndOfStream(..) => return Ok(output),
            _ if !result.made_progress() => return Err(XzError::Bad("the stream is cut off".to_owned())),
            XzNextBlockResult::NeedMoreData(..) => {}
        }
    }
}
