//! gzip of bodies.

use std::io::{self, Read, Write};
use std::mem;

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// Level 6, the usual one, takes 5 to 13 times as long for OTLP.
const LEVEL: u32 = 1;

/// Compresses into `out`, whose allocation is used again.
///
/// # Errors
///
/// None is known: memory takes everything.
pub(super) fn compress_into(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.clear();
    let mut encoder = GzEncoder::new(mem::take(out), flate2::Compression::new(LEVEL));
    encoder.write_all(bytes)?;
    *out = encoder.finish()?;
    Ok(())
}

/// Compresses.
#[cfg(test)]
pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    compress_into(bytes, &mut out).unwrap();
    out
}

/// Decompresses; `None` where that gives more than `limit` bytes.
///
/// # Errors
///
/// What is not gzip, or cut.
pub(super) fn decompress(bytes: &[u8], limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut decoded = Vec::new();
    MultiGzDecoder::new(bytes).take(limit as u64 + 1).read_to_end(&mut decoded)?;
    Ok(Some(decoded).filter(|decoded| decoded.len() <= limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_comes_back_up_to_a_limit() {
        let bytes = vec![7; 100_000];
        let mut compressed = vec![1, 2, 3];
        compress_into(&bytes, &mut compressed).unwrap();
        assert!(compressed.len() < 1000);
        assert_eq!(decompress(&compressed, bytes.len()).unwrap().as_deref(), Some(&*bytes));
        assert_eq!(decompress(&compressed, bytes.len() - 1).unwrap(), None);
        let twice = compressed.repeat(2);
        assert_eq!(decompress(&twice, 1 << 20).unwrap().unwrap().len(), 200_000);
        assert!(decompress(b"message", 100).is_err());
        assert!(decompress(&compressed[..compressed.len() - 1], 1 << 20).is_err());
    }
}
