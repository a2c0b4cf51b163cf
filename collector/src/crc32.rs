//! The checksum of gzip and Ethernet.

use crc::{CRC_32_ISO_HDLC, Crc, Table};

static TABLE: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);

/// The checksum of one piece after the other.
pub(crate) type Digest = crc::Digest<'static, u32, Table<1>>;

/// Begins a checksum.
pub(crate) fn digest() -> Digest {
    TABLE.digest()
}

/// The checksum of bytes.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    TABLE.checksum(bytes)
}
