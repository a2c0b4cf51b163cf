//! Walks through the records of a segment.

use std::io;

use super::format::{Kind, RECORD_HEADER, RecordHeader, SEGMENT_HEADER};
use super::state::Segment;
use super::volume::VolumeFile;
use crate::crc32::{crc32, digest};
use crate::export::stats::Amount;
use crate::export::{MAX_REQUEST, Signal};

/// Headers that follow each other closely are read at once.
const WINDOW: usize = 4096;
/// What is read at once to check a body.
const CHUNK: usize = 64 << 10;

/// A record and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub header: RecordHeader,
    pub offset: u64,
}

impl Found {
    pub fn body_offset(&self) -> u64 {
        self.offset + RECORD_HEADER as u64
    }

    /// What is in a record of data.
    pub fn amount(&self) -> Option<(Signal, Amount)> {
        let Kind::Data { signal, items, .. } = self.header.kind else { return None };
        Some((signal, Amount { requests: 1, items, bytes: u64::from(self.header.length) }))
    }

    pub fn end(&self) -> u64 {
        self.offset + self.header.size()
    }
}

/// Reads headers of records, one after the other, and no bodies.
pub struct Scanner<'a> {
    file: &'a dyn VolumeFile,
    number: u64,
    offset: u64,
    end: u64,
    /// The sequence number that the next record of data must have.
    next: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Scanner<'a> {
    /// The records of segment `number` from `offset`, where one begins, to `end`. `next` is the sequence number of the
    /// first one with data.
    pub fn new(file: &'a dyn VolumeFile, number: u64, offset: u64, end: u64, next: u64) -> Self {
        Self { file, number, offset, end, next, window: Vec::new(), window_at: 0 }
    }

    /// All records of a segment.
    pub fn of_segment(file: &'a dyn VolumeFile, segment: &Segment) -> Self {
        Self::new(file, segment.number, SEGMENT_HEADER as u64, segment.bytes, segment.first)
    }

    /// The next record. `None` at the end, and at what is no record: all that follows is lost then.
    pub fn next(&mut self) -> io::Result<Option<Found>> {
        let Some(bytes) = self.header()? else { return Ok(None) };
        let Some(header) = RecordHeader::decode(&bytes, self.number) else { return Ok(None) };
        let found = Found { header, offset: self.offset };
        if header.length as usize > MAX_REQUEST || found.end() > self.end {
            return Ok(None);
        }
        // Requests have numbers without gaps, and only what was written before is acknowledged.
        let is_data = matches!(header.kind, Kind::Data { .. });
        let is_next = if is_data { header.sequence == self.next } else { header.sequence < self.next };
        if !is_next {
            return Ok(None);
        }
        self.next += u64::from(is_data);
        self.offset = found.end();
        Ok(Some(found))
    }

    fn header(&mut self) -> io::Result<Option<[u8; RECORD_HEADER]>> {
        if self.offset.saturating_add(RECORD_HEADER as u64) > self.end {
            return Ok(None);
        }
        if let Some(bytes) = self.in_window() {
            return Ok(Some(bytes));
        }
        let mut window = vec![0; WINDOW];
        let read = self.file.read_at(&mut window, self.offset)?;
        window.truncate(read);
        self.window = window;
        self.window_at = self.offset;
        Ok(self.in_window())
    }

    fn in_window(&self) -> Option<[u8; RECORD_HEADER]> {
        let from = usize::try_from(self.offset.checked_sub(self.window_at)?).ok()?;
        self.window.get(from..)?.first_chunk().copied()
    }
}

/// Whether the body of a record is what was written.
pub fn is_whole(file: &dyn VolumeFile, found: &Found) -> io::Result<bool> {
    let Kind::Data { crc, .. } = found.header.kind else { return Ok(true) };
    let mut hasher = digest();
    let mut chunk = vec![0; CHUNK.min(found.header.length as usize)];
    let mut offset = found.body_offset();
    while offset < found.end() {
        let wanted = usize::try_from(found.end() - offset).unwrap_or(CHUNK).min(CHUNK);
        chunk.truncate(wanted);
        if file.read_at(&mut chunk, offset)? < wanted {
            return Ok(false);
        }
        hasher.update(&chunk);
        offset += wanted as u64;
    }
    Ok(hasher.finalize() == crc)
}

/// The body of a record; `None` if it is not what was written.
pub fn read_body(file: &dyn VolumeFile, found: &Found) -> io::Result<Option<Vec<u8>>> {
    let Kind::Data { crc, .. } = found.header.kind else { return Ok(None) };
    let mut body = vec![0; found.header.length as usize];
    let read = file.read_at(&mut body, found.body_offset())?;
    Ok((read == body.len() && crc32(&body) == crc).then_some(body))
}
