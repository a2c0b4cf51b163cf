//! Bytes of segment files.

use crate::crc32::{crc32, digest};
use crate::export::Signal;
use bytes::{Buf, BufMut};

/// The version that is written, and the only one that is read.
pub const VERSION: u8 = 1;
const MAGIC: &[u8; 7] = b"otspool";

/// Bytes of a segment's header.
pub const SEGMENT_HEADER: usize = 36;
/// Bytes of a record without its body.
pub const RECORD_HEADER: usize = 32;
/// More than any program can write, and still far from where adding overflows.
const MAX_SEQUENCE: u64 = u64::MAX >> 2;

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its number, which is its file's name too. Later segments have larger numbers.
    pub number: u64,
    /// The sequence number of its first record of data.
    pub first: u64,
    /// Everything up to this sequence number was done with when the segment was made.
    pub acknowledged: u64,
}

/// What is wrong with a segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHeader {
    /// It is none, or damaged.
    Damaged,
    /// It is of another version of the format.
    Version(u8),
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        let mut to = &mut bytes[..];
        to.put_slice(MAGIC);
        to.put_u8(VERSION);
        to.put_u64_le(self.number);
        to.put_u64_le(self.first);
        to.put_u64_le(self.acknowledged);
        let crc = crc32(&bytes[..SEGMENT_HEADER - 4]);
        bytes[SEGMENT_HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header of the segment that is in the file of `number`.
    pub fn decode(bytes: &[u8; SEGMENT_HEADER], number: u64) -> Result<Self, BadHeader> {
        let mut from = &bytes[..];
        let (mut magic, version) = ([0; MAGIC.len()], bytes[MAGIC.len()]);
        from.copy_to_slice(&mut magic);
        from.advance(1);
        let header =
            Self { number: from.get_u64_le(), first: from.get_u64_le(), acknowledged: from.get_u64_le() };
        if magic != *MAGIC {
            return Err(BadHeader::Damaged);
        }
        // Of another version even the place of the checksum may be another.
        if version != VERSION {
            return Err(BadHeader::Version(version));
        }
        let is_whole = from.get_u32_le() == crc32(&bytes[..SEGMENT_HEADER - 4]);
        let is_possible = header.number == number
            && (1..=MAX_SEQUENCE).contains(&header.first)
            && header.acknowledged < header.first;
        if is_whole && is_possible { Ok(header) } else { Err(BadHeader::Damaged) }
    }
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An export request.
    Data {
        signal: Signal,
        items: u64,
        /// Checksum of the body.
        crc: u32,
    },
    /// Everything up to the sequence number is done with.
    Acknowledge,
    /// The same, and nothing was under way when the process ended.
    Clean,
}

/// A record without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    pub kind: Kind,
    pub sequence: u64,
    /// Bytes of its body.
    pub length: u32,
}

impl RecordHeader {
    /// Of the record that holds `body`.
    pub fn data(signal: Signal, items: u64, body: &[u8], sequence: u64) -> Option<Self> {
        let length = u32::try_from(body.len()).ok()?;
        Some(Self { kind: Kind::Data { signal, items, crc: crc32(body) }, sequence, length })
    }

    /// Of the record that says what is done with.
    pub fn acknowledge(sequence: u64) -> Self {
        Self { kind: Kind::Acknowledge, sequence, length: 0 }
    }

    /// Of the last record of a process that ends in order.
    pub fn clean(sequence: u64) -> Self {
        Self { kind: Kind::Clean, sequence, length: 0 }
    }

    /// Bytes of the whole record.
    pub fn size(&self) -> u64 {
        RECORD_HEADER as u64 + u64::from(self.length)
    }

    /// The bytes in segment `number`, of which the checksum takes notice: what a file system shows again of a deleted
    /// segment is no record of this one.
    pub fn encode(&self, number: u64) -> [u8; RECORD_HEADER] {
        let (kind, signal, items, crc) = match self.kind {
            Kind::Data { signal, items, crc } => (1, signal_code(signal), items, crc),
            Kind::Acknowledge => (2, 0, 0, 0),
            Kind::Clean => (3, 0, 0, 0),
        };
        let mut bytes = [0; RECORD_HEADER];
        let mut to = &mut bytes[..];
        to.put_u32_le(self.length);
        to.put_u32_le(crc);
        to.put_u8(kind);
        to.put_u8(signal);
        to.put_u16_le(0);
        to.put_u64_le(self.sequence);
        to.put_u64_le(items);
        let crc = header_crc(&bytes, number);
        bytes[RECORD_HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if this is no record of segment `number`.
    pub fn decode(bytes: &[u8; RECORD_HEADER], number: u64) -> Option<Self> {
        let mut from = &bytes[..];
        let (length, crc) = (from.get_u32_le(), from.get_u32_le());
        let (kind, signal, reserved) = (from.get_u8(), from.get_u8(), from.get_u16_le());
        let (sequence, items) = (from.get_u64_le(), from.get_u64_le());
        if from.get_u32_le() != header_crc(bytes, number) || sequence > MAX_SEQUENCE {
            return None;
        }
        let kind = match (kind, length, crc, signal, reserved, items) {
            (1, _, _, _, 0, _) => Kind::Data { signal: signal_of(signal)?, items, crc },
            (2, 0, 0, 0, 0, 0) => Kind::Acknowledge,
            (3, 0, 0, 0, 0, 0) => Kind::Clean,
            _ => return None,
        };
        Some(Self { kind, sequence, length })
    }
}

fn header_crc(bytes: &[u8; RECORD_HEADER], number: u64) -> u32 {
    let mut hasher = digest();
    hasher.update(&number.to_le_bytes());
    hasher.update(&bytes[..RECORD_HEADER - 4]);
    hasher.finalize()
}

fn signal_code(signal: Signal) -> u8 {
    match signal {
        Signal::Metrics => 1,
        Signal::Traces => 2,
        Signal::Logs => 3,
        Signal::Profiles => 4,
    }
}

fn signal_of(code: u8) -> Option<Signal> {
    Signal::ALL.into_iter().find(|signal| signal_code(*signal) == code)
}

/// The name of the file of segment `number`.
pub fn file_name(number: u64) -> String {
    format!("{number:016x}.spool")
}

/// The number of the segment in a file; `None` of a file that is none of the spool's.
pub fn number_of(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_suffix(".spool")?, 16).ok()?;
    (number < u64::MAX >> 1 && file_name(number) == name).then_some(number)
}
