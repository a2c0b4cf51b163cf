//! Requests of one destination on disk, until they are delivered.
//!
//! A spool is a log in a directory of its own, for one process at a time. Requests and acknowledgements are appended to
//! segment files and never rewritten; a segment whose requests are all acknowledged is deleted.
//!
//! # Guarantees
//!
//! * [`Spool::append`] returns when the whole group is on disk, by one fdatasync(2) (one more for every segment that the
//!   group fills). Whatever happens then, each of its requests is given back in order by [`Spool::oldest`] until it is
//!   acknowledged, or is counted as dropped or unreadable. What was under way may be given back after a crash too.
//! * An acknowledgement survives the end of the process, and a power cut from the next sync on: with the next group, at
//!   [`Spool::sync`], and by itself after 64. After an end that was not in order, so many requests may be sent again.
//! * All files together are never larger than `max_bytes`. The oldest segment is deleted to make room.
//! * Bytes that are no records are counted and passed over; every record and header has a checksum, and no length is
//!   believed before it is checked against the file.
//!
//! # Format
//!
//! Segment `n` is the file `<n as 16 hexadecimal digits>.spool`. Numbers are little-endian; checksums are CRC-32 as in gzip.
//!
//! | segment header, 36 bytes | |
//! |---|---|
//! | 0..7 | `otspool` |
//! | 7 | version, 1 |
//! | 8..16 | `n` |
//! | 16..24 | sequence number of the first request that goes there, from 1 |
//! | 24..32 | all requests up to this number were done with when the segment was made |
//! | 32..36 | checksum of bytes 0..32 |
//!
//! | record, 32 bytes and the body | |
//! |---|---|
//! | 0..4 | bytes of the body |
//! | 4..8 | checksum of the body |
//! | 8 | 1: request; 2: acknowledgement; 3: the process ended in order |
//! | 9 | 1: metrics, 2: traces, 3: logs, 4: profiles; else 0 |
//! | 10..12 | 0 |
//! | 12..20 | number of the request; all up to that are done with, in the other kinds |
//! | 20..28 | data points, spans, log records or profiles; else 0 |
//! | 28..32 | checksum of `n` as 8 bytes and bytes 0..28 |
//!
//! Requests of a segment have numbers without gaps. A process never appends to a segment of an earlier one. A segment
//! is begun when all before it is on disk, so that only the last one can be torn: there the bodies are checked at the
//! start, and what follows the last whole record is cut off. Elsewhere what is damaged is passed over, and so is the rest of
//! its segment if the damage is in a record's header.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Request;
use super::store::{AppendError, Appended, Held, RecordId, Store, StoreError};
use error::file_error;
use format::RecordHeader;
use state::{Segment, State};

pub use error::{Action, SpoolError};
pub use volume::{Directory, Volume, VolumeFile};

mod error;
mod format;
mod read;
mod recover;
mod scan;
mod state;
mod volume;
mod write;

/// Acknowledgements that a power cut can undo, at most.
const MAX_UNSYNCED: u64 = 64;
/// A segment may be so large although nothing waits in it, so that a spool that is filled and emptied again and again does
/// not make a file each time.
const MAX_IDLE: u64 = 64 << 10;
/// So many segments have room, so that the oldest can go without most of the rest.
const MIN_SEGMENTS: u64 = 8;

/// Where a spool is, and its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolConfig {
    /// The directory; it is made if it is missing.
    pub dir: PathBuf,
    /// Bytes of all files together, at most.
    pub max_bytes: u64,
    /// Bytes of one file after which another one is begun, at most an eighth of `max_bytes`. What is deleted at once to
    /// make room is about so large.
    pub segment_bytes: u64,
}

impl SpoolConfig {
    /// A spool in `dir` of 256 MiB in files of 8 MiB.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, max_bytes: 256 << 20, segment_bytes: 8 << 20 }
    }
}

/// What a spool found when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// What waits to be delivered, and what is lost. Damaged bytes are those that are not at the end.
    pub held: Held,
    /// Bytes at the end that were cut off: what was being written when the last process ended. Nothing that was accepted.
    pub torn_bytes: u64,
    /// Whether the last process ended in order, or nothing was there.
    pub is_clean: bool,
}

/// State and counts of a spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolStats {
    /// Segment files.
    pub segments: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// Requests that are not acknowledged.
    pub waiting: u64,
    /// Acknowledgements that a power cut would undo.
    pub unsynced_acknowledgements: u64,
    /// Requests that could not be read any more and were passed over, since the spool was opened.
    pub unreadable: u64,
    /// How often data was synced.
    pub syncs: u64,
}

/// A spool that this process uses.
///
/// Dropping it writes that the end was in order.
pub struct Spool {
    volume: Box<dyn Volume>,
    max_bytes: u64,
    segment_bytes: u64,
    /// Held while a group is appended, while files are made and synced. Always taken before `state`.
    writer: Mutex<()>,
    /// Held while a record is read. Always taken before `state`.
    reader: Mutex<()>,
    /// Held for moments, and never while something is synced.
    state: Mutex<State>,
}

/// A thread that panicked leaves what is on disk, and that is always in order.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spool {
    /// Opens the spool in a directory, and reads what is there.
    ///
    /// # Errors
    ///
    /// The directory cannot be used, or another process uses it, or it was written by another version; the feature `spool` is not
    /// built in.
    pub fn open(config: &SpoolConfig) -> Result<(Self, Recovered), Box<SpoolError>> {
        if !cfg!(feature = "spool") {
            return Err(Box::new(SpoolError::NotBuiltIn));
        }
        let volume = Box::new(Directory::open(&config.dir)?);
        Self::open_on(volume, config.max_bytes, config.segment_bytes)
    }

    /// Opens the spool on a volume. The bounds are those of [`SpoolConfig`].
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_on(
        volume: Box<dyn Volume>,
        max_bytes: u64,
        segment_bytes: u64,
    ) -> Result<(Self, Recovered), Box<SpoolError>> {
        Self::recover(volume, max_bytes, segment_bytes.min(max_bytes / MIN_SEGMENTS))
    }

    fn new(volume: Box<dyn Volume>, max_bytes: u64, segment_bytes: u64, state: State) -> Self {
        let (writer, reader, state) = (Mutex::new(()), Mutex::new(()), Mutex::new(state));
        Self { volume, max_bytes, segment_bytes, writer, reader, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn failed(&self, action: Action, number: u64, error: std::io::Error) -> Box<SpoolError> {
        file_error(&*self.volume, action, number, error)
    }

    /// Appends `requests` as one group, which is on disk when this returns. A request that is larger than the whole
    /// spool gets a record that is among the dropped ones at once.
    ///
    /// # Errors
    ///
    /// Nothing of the group is accepted, though after a crash some of it may be given back even so. What was
    /// dropped for its sake is told by the next call that succeeds.
    pub fn append(&self, requests: &[Request]) -> Result<Appended, Box<SpoolError>> {
        self.append_group(requests)
    }

    /// The oldest request that is not acknowledged. What cannot be read any more is passed over and counted.
    ///
    /// # Errors
    ///
    /// The disk gives nothing now. After three times that record is passed over.
    pub fn oldest(&self) -> Result<Option<(RecordId, Request)>, Box<SpoolError>> {
        self.read_oldest()
    }

    /// Marks the oldest record as done. Nothing happens if it is already, or was dropped.
    ///
    /// # Errors
    ///
    /// [`SpoolError::OutOfOrder`] if it is not the oldest. After any other error it is done with as far as this process
    /// is concerned, but may come again in the next one.
    pub fn acknowledge(&self, record: RecordId) -> Result<(), Box<SpoolError>> {
        let (logged, number, is_many) = {
            let mut state = self.state();
            if record.0 > state.acknowledged {
                if state.oldest().is_none_or(|(_, oldest)| oldest != record.0) {
                    return Err(Box::new(SpoolError::OutOfOrder {
                        record,
                        path: self.volume.path().to_owned(),
                    }));
                }
                state.acknowledged = record.0;
                state.unsynced += 1;
            }
            self.collect(&mut state);
            let number = state.active.as_ref().map_or(0, |active| active.number);
            (state.log(), number, state.unsynced >= MAX_UNSYNCED)
        };
        let logged = logged.map_err(|error| self.failed(Action::Append, number, error));
        let durable = logged.and_then(|()| {
            if number > 0 && !is_many {
                return Ok(());
            }
            let _writer = lock(&self.writer);
            self.make_durable()
        });
        match durable {
            // Deliveries go on, and make room.
            Err(error) if error.is_no_space() => {}
            result => result?,
        }
        // If someone appends, the spool is not idle.
        if let Ok(_writer) = self.writer.try_lock() {
            self.clear(MAX_IDLE)?;
        }
        Ok(())
    }

    /// Puts acknowledgements on disk, and which files are deleted.
    ///
    /// # Errors
    ///
    /// A power cut may undo what was acknowledged.
    pub fn sync(&self) -> Result<(), Box<SpoolError>> {
        let _writer = lock(&self.writer);
        self.make_durable()?;
        self.clear(MAX_IDLE)?;
        self.sync_names()?;
        let mut state = self.state();
        if state.segments.is_empty() {
            state.unsynced = 0;
        }
        Ok(())
    }

    /// What there is now.
    pub fn stats(&self) -> SpoolStats {
        let state = self.state();
        SpoolStats {
            segments: state.segments.len(),
            bytes: state.bytes(),
            waiting: state.waiting(),
            unsynced_acknowledgements: state.unsynced,
            unreadable: state.unreadable,
            syncs: state.syncs,
        }
    }

    /// Puts acknowledgements on disk; in a new segment, if the last one failed.
    fn make_durable(&self) -> Result<(), Box<SpoolError>> {
        {
            let mut state = self.state();
            if state.active.is_none() && state.waiting() > 0 {
                drop(state);
                return self.start_segment();
            }
            let number = state.active.as_ref().map_or(0, |active| active.number);
            state.log().map_err(|error| self.failed(Action::Append, number, error))?;
        }
        self.sync_newest()
    }

    /// Deletes segments in which nothing waits, but not the last one, which says what is acknowledged. What cannot be deleted
    /// is tried again next time.
    fn collect(&self, state: &mut State) {
        let Some(newest) = state.segments.back().map(|segment| segment.number) else { return };
        let done = |number: &u64, waiting| *number != newest && waiting == 0;
        let done: Vec<u64> = state
            .segments
            .iter()
            .map(|segment| (segment.number, segment.waiting(state.acknowledged)))
            .filter(|(number, waiting)| done(number, *waiting))
            .map(|(number, _)| number)
            .collect();
        for number in done {
            if self.remove(number).is_ok() {
                state.forget(number);
            }
        }
    }

    /// Deletes the last segment too, if nothing waits and it is larger than `most` or closed. The caller holds the writer's lock.
    fn clear(&self, most: u64) -> Result<(), Box<SpoolError>> {
        let newest = {
            let mut state = self.state();
            self.collect(&mut state);
            let newest = state.segments.back().copied();
            let may_go = |newest: &Segment| newest.bytes > most || state.active.is_none();
            newest.filter(|newest| may_go(newest) && state.segments.len() == 1 && state.waiting() == 0)
        };
        let Some(newest) = newest else { return Ok(()) };
        // The others must not come back without it.
        self.sync_names()?;
        let mut state = self.state();
        self.remove(newest.number)?;
        state.forget(newest.number);
        state.unsynced = 0;
        Ok(())
    }

    /// Writes that the end is in order.
    fn close(&self) -> Result<(), Box<SpoolError>> {
        let _writer = lock(&self.writer);
        self.clear(0)?;
        if self.state().segments.is_empty() {
            return self.sync_names();
        }
        if self.state().active.is_none() {
            self.start_segment()?;
        }
        {
            let mut state = self.state();
            let number = state.active.as_ref().map_or(0, |active| active.number);
            let mark = RecordHeader::clean(state.acknowledged).encode(number);
            state.write(&[&mark]).map_err(|error| self.failed(Action::Append, number, error))?;
        }
        self.sync_newest()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // Without the mark, the next start takes this end for a crash.
        let _ = self.close();
    }
}

impl Store for Spool {
    fn append(&self, requests: &[Request]) -> Result<Appended, AppendError> {
        self.append(requests)
            .map_err(|error| AppendError { error, dropped: std::mem::take(&mut self.state().unreported) })
    }

    fn oldest(&self) -> Result<Option<(RecordId, Request)>, StoreError> {
        self.oldest().map_err(|error| error as StoreError)
    }

    fn acknowledge(&self, record: RecordId) -> Result<(), StoreError> {
        self.acknowledge(record).map_err(|error| error as StoreError)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.sync().map_err(|error| error as StoreError)
    }
}
#[cfg(test)]
mod tests;
