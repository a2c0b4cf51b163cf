//! gzip of bodies.

#[cfg(feature = "gzip")]
use std::io::{self, Read};

use crate::built_in::GzipBuiltIn;

/// Compresses into `out`, whose allocation is used again.
#[cfg(feature = "gzip")]
pub(super) fn compress_into(bytes: &[u8], out: &mut Vec<u8>, _: GzipBuiltIn) {
    use miniz_oxide::deflate::core::{
        CompressorOxide, TDEFLFlush, compress_to_output, create_comp_flags_from_zip_params,
    };

    /// Level 6, the usual one, takes 5 to 13 times as long for OTLP.
    const LEVEL: i32 = 1;
    /// Magic, deflate, no flags, no time, fastest, an unknown system: RFC 1952.
    const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

    out.clear();
    out.extend_from_slice(&HEADER);
    // Negative bits of the window: without the frame of zlib.
    let mut compressor = CompressorOxide::new(create_comp_flags_from_zip_params(LEVEL, -15, 0));
    let mut take = |piece: &[u8]| {
        out.extend_from_slice(piece);
        true
    };
    // All of it, since `take` takes all.
    compress_to_output(&mut compressor, bytes, TDEFLFlush::Finish, &mut take);
    out.extend_from_slice(&crate::crc32::crc32(bytes).to_le_bytes());
    // Modulo 2^32, as the format has it.
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
}

/// Nobody has the proof that this needs.
#[cfg(not(feature = "gzip"))]
pub(super) fn compress_into(_: &[u8], _: &mut Vec<u8>, _: GzipBuiltIn) {}

/// Compresses.
#[cfg(all(test, feature = "grpc"))]
pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    compress_into(bytes, &mut out, GzipBuiltIn::HERE);
    out
}

/// Decompresses; `None` where that gives more than `limit` bytes.
///
/// # Errors
///
/// What is not gzip, or cut.
#[cfg(feature = "gzip")]
pub(super) fn decompress(bytes: &[u8], limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut decoded = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes).take(limit as u64 + 1).read_to_end(&mut decoded)?;
    Ok(Some(decoded).filter(|decoded| decoded.len() <= limit))
}

#[cfg(all(test, feature = "gzip"))]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_comes_back_up_to_a_limit() {
        let bytes = vec![7; 100_000];
        let mut compressed = vec![1, 2, 3];
        compress_into(&bytes, &mut compressed, GzipBuiltIn::HERE);
        assert!(compressed.len() < 1000);
        assert_eq!(decompress(&compressed, bytes.len()).unwrap().as_deref(), Some(&*bytes));
        assert_eq!(decompress(&compressed, bytes.len() - 1).unwrap(), None);
        let twice = compressed.repeat(2);
        assert_eq!(decompress(&twice, 1 << 20).unwrap().unwrap().len(), 200_000);
        assert!(decompress(b"message", 100).is_err());
        assert!(decompress(&compressed[..compressed.len() - 1], 1 << 20).is_err());
    }
}
