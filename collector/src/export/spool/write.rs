//! Appending, and making room for it.

use std::io;

use super::error::{Action, SpoolError};
use super::format::{RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader, file_name};
use super::scan::Scanner;
use super::state::{Active, Place, SLACK, Segment};
use super::{Spool, lock};
use crate::export::store::{Appended, DroppedRecord, RecordId};
use crate::export::{MAX_REQUEST, Request};

/// Names that are tried for a new segment, should others be taken by what is none of ours.
const NAMES: u32 = 16;

/// Where the log ended before a group.
struct Start {
    /// The last segment; 0 if there was none.
    number: u64,
    bytes: u64,
    last: u64,
    logged: u64,
    next: u64,
}

fn record_size(request: &Request) -> u64 {
    (RECORD_HEADER + request.body.len()) as u64
}

impl Spool {
    pub(super) fn append_group(&self, requests: &[Request]) -> Result<Appended, Box<SpoolError>> {
        let _writer = lock(&self.writer);
        let start = self.start();
        if let Err(error) = self.write_group(requests) {
            self.roll_back(&start);
            return Err(error);
        }
        let mut state = self.state();
        state.committed = state.next - 1;
        let records = (start.next..state.next).map(RecordId).collect();
        Ok(Appended { records, dropped: std::mem::take(&mut state.unreported) })
    }

    fn start(&self) -> Start {
        let state = self.state();
        let logged = state.active.as_ref().map_or(0, |active| active.logged);
        let (number, bytes, last) =
            state.segments.back().map_or((0, 0, 0), |newest| (newest.number, newest.bytes, newest.last));
        Start { number, bytes, last, logged, next: state.next }
    }

    fn write_group(&self, requests: &[Request]) -> Result<(), Box<SpoolError>> {
        let mut rest = requests;
        let mut may_free = true;
        while let Some((request, others)) = rest.split_first() {
            match self.write_request(request) {
                Ok(()) => rest = others,
                Err(error) if may_free && error.is_no_space() => {
                    may_free = false;
                    if !self.free(rest.iter().map(record_size).sum())? {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        // What is told to be dropped does not come back.
        self.sync_names()?;
        self.sync_newest()
    }

    fn write_request(&self, request: &Request) -> Result<(), Box<SpoolError>> {
        let size = record_size(request);
        let alone = (SEGMENT_HEADER + RECORD_HEADER) as u64 + size + SLACK;
        let header = RecordHeader::data(request.signal, request.items, &request.body, 0)
            .filter(|_| request.body.len() <= MAX_REQUEST && alone <= self.max_bytes);
        let Some(mut header) = header else {
            self.state().drop_unwritten(request);
            return Ok(());
        };
        loop {
            // Deleted files must not come back beside what takes their room.
            self.sync_names()?;
            let mut state = self.state();
            if state.names_changed {
                continue;
            }
            match state.place(size, self.segment_bytes, self.max_bytes) {
                Place::NoRoom => {
                    drop(state);
                    self.drop_oldest()?;
                }
                Place::NewSegment => {
                    drop(state);
                    self.start_segment()?;
                }
                Place::Here => {
                    let next = state.next;
                    let number = state.active.as_ref().map_or(0, |active| active.number);
                    header.sequence = next;
                    let written = state.write(&[&header.encode(number), &request.body]);
                    written.map_err(|error| self.failed(Action::Append, number, error))?;
                    if let Some(segment) = state.segments.back_mut() {
                        segment.last = next;
                    }
                    state.next = next + 1;
                    return Ok(());
                }
            }
        }
    }

    /// Begins a segment. When this returns, it exists whatever happens, and what came before is on disk.
    pub(super) fn start_segment(&self) -> Result<(), Box<SpoolError>> {
        self.sync_newest()?;
        let mut tries = 0;
        let (header, unsynced, file) = loop {
            let (header, unsynced) = {
                let mut state = self.state();
                state.next_number += 1;
                let (number, acknowledged) = (state.next_number - 1, state.acknowledged);
                (SegmentHeader { number, first: state.next, acknowledged }, state.unsynced)
            };
            tries += 1;
            match self.volume.create(&file_name(header.number)) {
                Ok(file) => break (header, unsynced, file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < NAMES => {}
                Err(error) => return Err(self.failed(Action::Create, header.number, error)),
            }
        };
        let number = header.number;
        self.state().names_changed = true;
        let bytes = header.encode();
        let written = file
            .write_at(&bytes, 0)
            .map_err(|error| self.failed(Action::Append, number, error))
            .and_then(|()| file.sync().map_err(|error| self.failed(Action::Sync, number, error)))
            .and_then(|()| self.sync_names());
        if written.is_err() {
            // Without records it is of no use, and the next start would delete it.
            let _ = self.volume.remove(&file_name(number));
            return written;
        }
        let mut state = self.state();
        let (first, bytes) = (header.first, bytes.len() as u64);
        state.unsynced = state.unsynced.saturating_sub(unsynced);
        state.segments.push_back(Segment { number, first, last: first - 1, bytes });
        state.active = Some(Active { number, file, logged: header.acknowledged, synced: bytes });
        // What was acknowledged since the old segment was synced.
        let _ = state.log();
        self.collect(&mut state);
        Ok(())
    }

    /// Puts all that is written on disk. The caller holds the writer's lock, so that one thread sees a failure.
    pub(super) fn sync_newest(&self) -> Result<(), Box<SpoolError>> {
        let (file, number, bytes, unsynced) = {
            let mut state = self.state();
            let Some((file, number)) =
                state.active.as_ref().map(|active| (active.file.clone(), active.number))
            else {
                return Ok(());
            };
            // Failing that, it is still to be written.
            let _ = state.log();
            let bytes = state.segments.back().map_or(0, |segment| segment.bytes);
            if state.active.as_ref().is_some_and(|active| active.synced == bytes) {
                if state.is_logged() {
                    state.unsynced = 0;
                }
                return Ok(());
            }
            let unsynced = if state.is_logged() { state.unsynced } else { 0 };
            (file, number, bytes, unsynced)
        };
        let synced = file.sync();
        let mut state = self.state();
        match synced {
            Ok(()) => {
                state.unsynced = state.unsynced.saturating_sub(unsynced);
                state.syncs += 1;
                if let Some(active) = &mut state.active {
                    active.synced = bytes;
                }
                Ok(())
            }
            Err(error) => {
                // What the kernel could not write it may have forgotten: nothing more is appended behind it.
                state.active = None;
                Err(self.failed(Action::Sync, number, error))
            }
        }
    }

    /// Takes back what was written of a group that failed, as far as possible.
    fn roll_back(&self, start: &Start) {
        let mut state = self.state();
        state.unreported.retain(|dropped| dropped.record.0 < start.next);
        let active = state.active.take();
        let mut same = active.filter(|active| active.number == start.number);
        for segment in state.segments.iter_mut().filter(|segment| segment.number >= start.number) {
            let is_first = segment.number == start.number;
            let (bytes, last) =
                if is_first { (start.bytes, start.last) } else { (SEGMENT_HEADER as u64, segment.first - 1) };
            segment.last = last;
            let cut = match &same {
                Some(active) => active.file.truncate(bytes),
                None => self
                    .volume
                    .open(&file_name(segment.number))
                    .and_then(|file| file.truncate(bytes).and_then(|()| file.sync())),
            };
            match cut {
                Ok(()) => segment.bytes = bytes,
                Err(_) => same = None,
            }
        }
        let Some(mut active) = same else { return };
        // All is as it was; the numbers can be used again. Acknowledgements that were written meanwhile are cut, too.
        active.logged = start.logged;
        active.synced = active.synced.min(start.bytes);
        state.active = Some(active);
        state.next = start.next;
        let _ = state.log();
    }

    /// Deletes the oldest segments of earlier groups until `bytes` are free; whether any was.
    fn free(&self, bytes: u64) -> Result<bool, Box<SpoolError>> {
        let mut freed = 0;
        while freed < bytes {
            let oldest = {
                let state = self.state();
                let active = state.active.as_ref().map(|active| active.number);
                let may_go =
                    |segment: &&Segment| Some(segment.number) != active && segment.last <= state.committed;
                state.segments.front().filter(may_go).copied()
            };
            let Some(oldest) = oldest else { break };
            self.drop_oldest()?;
            freed += oldest.bytes;
        }
        Ok(freed > 0)
    }

    /// Deletes the oldest segment and counts what was still waiting in it.
    pub(super) fn drop_oldest(&self) -> Result<(), Box<SpoolError>> {
        let (oldest, acknowledged, is_newest) = {
            let state = self.state();
            let Some(oldest) = state.segments.front().copied() else { return Ok(()) };
            (oldest, state.acknowledged, state.segments.len() == 1)
        };
        let mut dropped = self.list_waiting(&oldest, acknowledged);
        if is_newest {
            // It says what was acknowledged in those that were deleted before it.
            self.sync_names()?;
        }
        let mut state = self.state();
        if state.segments.front().is_none_or(|front| front.number != oldest.number) {
            return Ok(());
        }
        self.remove(oldest.number)?;
        let unlisted = oldest.waiting(acknowledged).saturating_sub(dropped.len() as u64);
        dropped.retain(|dropped| dropped.record.0 > state.acknowledged);
        state.acknowledged = state.acknowledged.max(oldest.last);
        state.unreadable += unlisted;
        state.unreported.extend(dropped);
        state.forget(oldest.number);
        Ok(())
    }

    /// The records of a segment that are not acknowledged, as far as they can be read.
    fn list_waiting(&self, segment: &Segment, acknowledged: u64) -> Vec<DroppedRecord> {
        let mut waiting = Vec::new();
        if segment.waiting(acknowledged) == 0 {
            return waiting;
        }
        let Ok(file) = self.volume.open(&file_name(segment.number)) else { return waiting };
        let mut scanner = Scanner::of_segment(&*file, segment);
        while let Ok(Some(found)) = scanner.next() {
            let record = RecordId(found.header.sequence);
            if let Some((signal, amount)) = found.amount().filter(|_| record.0 > acknowledged) {
                waiting.push(DroppedRecord { record, signal, amount });
            }
        }
        waiting
    }

    /// Deletes a segment's file.
    pub(super) fn remove(&self, number: u64) -> Result<(), Box<SpoolError>> {
        match self.volume.remove(&file_name(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed(Action::Delete, number, error))
            }
            _ => Ok(()),
        }
    }

    /// Puts deletions on disk.
    pub(super) fn sync_names(&self) -> Result<(), Box<SpoolError>> {
        if !std::mem::take(&mut self.state().names_changed) {
            return Ok(());
        }
        self.volume.sync_names().map_err(|error| {
            self.state().names_changed = true;
            Box::new(SpoolError::Io {
                action: Action::SyncDirectory,
                path: self.volume.path().to_owned(),
                error,
            })
        })
    }
}
