//! What is known of the segments, in a few words for each.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::format::{RECORD_HEADER, RecordHeader, SEGMENT_HEADER};
use super::volume::VolumeFile;
use crate::export::Request;
use crate::export::stats::Amount;
use crate::export::store::{DroppedRecord, RecordId};

/// Kept free for the headers and the marks of the next start and end.
pub(super) const SLACK: u64 = 256;

/// A segment file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub number: u64,
    /// Sequence number of its first record of data, whether or not that exists yet.
    pub first: u64,
    /// Sequence number of its last record of data; `first - 1` if it has none. There are no gaps in between.
    pub last: u64,
    pub bytes: u64,
}

impl Segment {
    /// The oldest record that is not acknowledged.
    pub fn oldest(&self, acknowledged: u64) -> Option<u64> {
        let oldest = self.first.max(acknowledged.saturating_add(1));
        (oldest <= self.last).then_some(oldest)
    }

    /// How many records are not acknowledged.
    pub fn waiting(&self, acknowledged: u64) -> u64 {
        self.oldest(acknowledged).map_or(0, |oldest| self.last - oldest + 1)
    }
}

/// The segment that is appended to: the last one.
pub(super) struct Active {
    pub number: u64,
    pub file: Arc<dyn VolumeFile>,
    /// The last acknowledgement that is written here.
    pub logged: u64,
    /// How much of it is on disk for sure.
    pub synced: u64,
}

/// Where the oldest record is.
pub(super) struct Reading {
    pub number: u64,
    pub file: Arc<dyn VolumeFile>,
    pub offset: u64,
    /// Sequence number of the next record of data there.
    pub sequence: u64,
}

/// Where a record can go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// To the end of the active segment.
    Here,
    /// Into a new segment.
    NewSegment,
    /// Nowhere before the oldest segment is gone.
    NoRoom,
}

/// What the spool knows and counts. Everything on disk can be found again from the files alone.
pub(super) struct State {
    /// Oldest first.
    pub segments: VecDeque<Segment>,
    pub active: Option<Active>,
    pub reading: Option<Reading>,
    /// Everything up to this sequence number is acknowledged, dropped or lost.
    pub acknowledged: u64,
    /// Everything up to this one is on disk. What comes later is of a group under way, or of one that failed.
    pub committed: u64,
    /// The next record's sequence number.
    pub next: u64,
    pub next_number: u64,
    /// Whether files were made or deleted since the directory was synced.
    pub names_changed: bool,
    /// Acknowledgements that are not on disk for sure.
    pub unsynced: u64,
    /// Dropped, and not yet told to the caller.
    pub unreported: Vec<DroppedRecord>,
    pub unreadable: u64,
    pub read_failures: u32,
    pub syncs: u64,
}

impl State {
    /// After recovery.
    pub fn new(segments: VecDeque<Segment>, acknowledged: u64, next: u64, next_number: u64) -> Self {
        Self {
            segments,
            active: None,
            reading: None,
            acknowledged,
            committed: next - 1,
            next,
            next_number,
            names_changed: true,
            unsynced: 0,
            unreported: Vec::new(),
            unreadable: 0,
            read_failures: 0,
            syncs: 0,
        }
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().fold(0, |sum: u64, segment| sum.saturating_add(segment.bytes))
    }

    /// Records that are not acknowledged.
    pub fn waiting(&self) -> u64 {
        self.segments.iter().map(|segment| segment.waiting(self.acknowledged)).sum()
    }

    /// The oldest record that is on disk and not acknowledged, and its segment.
    pub fn oldest(&self) -> Option<(Segment, u64)> {
        let oldest = |segment: &Segment| Some((*segment, segment.oldest(self.acknowledged)?));
        self.segments.iter().find_map(oldest).filter(|(_, sequence)| *sequence <= self.committed)
    }

    /// Bytes of the acknowledgements to come, which must always find room.
    pub fn acknowledgements(&self) -> u64 {
        self.waiting() * RECORD_HEADER as u64
    }

    /// Where a record of `size` bytes can go.
    pub fn place(&self, size: u64, segment_bytes: u64, max_bytes: u64) -> Place {
        let newest = self.segments.back().filter(|_| self.active.is_some());
        let fits = newest.is_some_and(|segment| {
            segment.last + 1 == self.next
                && (segment.bytes == SEGMENT_HEADER as u64 || segment.bytes + size <= segment_bytes)
        });
        let header = if fits { 0 } else { SEGMENT_HEADER as u64 };
        let more = self.acknowledgements() + header + size + RECORD_HEADER as u64 + SLACK;
        if self.bytes().saturating_add(more) > max_bytes {
            Place::NoRoom
        } else if fits {
            Place::Here
        } else {
            Place::NewSegment
        }
    }

    /// Appends to the active segment. After an error nothing of it is there any more, or the segment is closed.
    pub fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let (Some(active), Some(segment)) = (&self.active, self.segments.back_mut()) else { return Ok(()) };
        let mut end = segment.bytes;
        let written = parts.iter().try_for_each(|part| {
            let offset = end;
            end += part.len() as u64;
            active.file.write_at(part, offset)
        });
        if written.is_ok() {
            segment.bytes = end;
        } else if active.file.truncate(segment.bytes).is_err() {
            segment.bytes = end;
            self.active = None;
        }
        written
    }

    /// Writes what is acknowledged, unless the active segment says so already.
    pub fn log(&mut self) -> io::Result<()> {
        let Some(active) = self.active.as_ref().filter(|active| active.logged < self.acknowledged) else {
            return Ok(());
        };
        let record = RecordHeader::acknowledge(self.acknowledged).encode(active.number);
        self.write(&[&record])?;
        if let Some(active) = &mut self.active {
            active.logged = self.acknowledged;
        }
        Ok(())
    }

    /// Whether all that is acknowledged is written, if not on disk for sure.
    pub fn is_logged(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.logged >= self.acknowledged)
    }

    /// Takes the number of a request that no spool of this size can hold.
    pub fn drop_unwritten(&mut self, request: &Request) {
        let (signal, amount) = (request.signal, Amount::of(request));
        self.unreported.push(DroppedRecord { record: RecordId(self.next), signal, amount });
        self.next += 1;
    }

    /// Passes over records that cannot be read.
    pub fn lose(&mut self, up_to: u64, records: u64) {
        if up_to > self.acknowledged {
            self.acknowledged = up_to;
            self.unreadable += records;
        }
        self.read_failures = 0;
    }

    /// Forgets a segment whose file is deleted.
    pub fn forget(&mut self, number: u64) {
        self.segments.retain(|segment| segment.number != number);
        if self.active.as_ref().is_some_and(|active| active.number == number) {
            self.active = None;
        }
        if self.reading.as_ref().is_some_and(|reading| reading.number == number) {
            self.reading = None;
        }
        self.names_changed = true;
    }
}
