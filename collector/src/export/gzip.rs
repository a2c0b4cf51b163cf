//! gzip of bodies.

use std::io::{self, Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// Level 6, the usual one, takes 5 to 13 times as long for OTLP.
const LEVEL: u32 = 1;

/// Compresses.
pub fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(LEVEL));
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to a Vec does not fail")
}

/// Decompresses; `None` where that gives more than `limit` bytes.
///
/// # Errors
///
/// What is not gzip, or cut.
pub fn decompress(bytes: &[u8], limit: usize) -> io::Result<Option<Vec<u8>>> {
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
        let compressed = compress(&bytes);
        assert!(compressed.len() < 1000);
        assert_eq!(decompress(&compressed, bytes.len()).unwrap().as_deref(), Some(&*bytes));
        assert_eq!(decompress(&compressed, bytes.len() - 1).unwrap(), None);
        let twice = [&*compressed, &*compressed].concat();
        assert_eq!(decompress(&twice, 1 << 20).unwrap().unwrap().len(), 200_000);
    }

    #[test]
    fn what_is_no_gzip_is_an_error() {
        let compressed = compress(b"message");
        assert!(decompress(b"message", 100).is_err());
        assert!(decompress(&compressed[..compressed.len() - 1], 100).is_err());
    }
}
