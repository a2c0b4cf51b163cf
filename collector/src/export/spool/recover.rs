//! What a spool finds when it is opened.

use std::io;

use super::error::{Action, SpoolError, file_error};
use super::format::{BadHeader, Kind, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader, file_name, number_of};
use super::scan::{Found, Scanner, is_whole};
use super::state::{Segment, State};
use super::volume::{Volume, VolumeFile};
use super::{MAX_UNSYNCED, Recovered, Spool};
use crate::export::stats::{Amount, PerSignal};
use crate::export::store::Held;

/// What the files hold.
#[derive(Default)]
struct Survey {
    scanned: Vec<(Segment, PerSignal<Amount>)>,
    /// Files that hold nothing of use.
    useless: Vec<u64>,
    acknowledged: u64,
    /// The last sequence number that was seen.
    last: u64,
    last_number: u64,
    is_clean: bool,
    /// Bytes behind the last record of the last segment that was added.
    rest: u64,
    torn: u64,
    corrupt: u64,
}

/// How far a segment makes sense.
#[derive(Clone, Copy)]
struct Extent {
    last: u64,
    end: u64,
    acknowledged: u64,
    amounts: PerSignal<Amount>,
    is_clean: bool,
}

impl Extent {
    fn add(&mut self, found: &Found) {
        let header = &found.header;
        self.end = found.end();
        self.is_clean = header.kind == Kind::Clean;
        match header.kind {
            Kind::Data { .. } => self.last = header.sequence,
            Kind::Acknowledge | Kind::Clean => self.acknowledged = self.acknowledged.max(header.sequence),
        }
        if let Some((signal, amount)) = found.amount() {
            *self.amounts.get_mut(signal) += amount;
        }
    }
}

/// A place of the medium that cannot be read is as good as damaged; anything else may be better next time.
fn unless_bad_medium<T>(result: io::Result<T>, bad: T) -> io::Result<T> {
    const EIO: i32 = rustix::io::Errno::IO.raw_os_error();
    match result {
        Err(error) if error.raw_os_error() == Some(EIO) => Ok(bad),
        result => result,
    }
}

fn read_header(file: &dyn VolumeFile, number: u64) -> io::Result<Result<SegmentHeader, BadHeader>> {
    let mut bytes = [0; SEGMENT_HEADER];
    let read = unless_bad_medium(file.read_at(&mut bytes, 0), 0)?;
    Ok(if read < bytes.len() { Err(BadHeader::Damaged) } else { SegmentHeader::decode(&bytes, number) })
}

/// Walks through a segment. In the last one, which a power cut may have torn, bodies are checked too, and `end` is that of the
/// last record that is whole.
fn measure(file: &dyn VolumeFile, header: &SegmentHeader, size: u64, is_last: bool) -> io::Result<Extent> {
    let mut seen = Extent {
        last: header.first - 1,
        end: SEGMENT_HEADER as u64,
        acknowledged: header.acknowledged,
        amounts: PerSignal::default(),
        is_clean: false,
    };
    let mut whole = seen;
    let mut scanner = Scanner::new(file, header.number, seen.end, size, header.first);
    while let Some(found) = unless_bad_medium(scanner.next(), None)? {
        seen.add(&found);
        if !is_last || unless_bad_medium(is_whole(file, &found), false)? {
            whole = seen;
        }
    }
    Ok(whole)
}

impl Survey {
    fn new(volume: &dyn Volume) -> Result<Self, Box<SpoolError>> {
        let listing = |error| SpoolError::Io { action: Action::List, path: volume.path().to_owned(), error };
        let names = volume.names().map_err(listing)?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        numbers.sort_unstable();
        let mut headers = Vec::new();
        let mut damaged = Vec::new();
        for number in &numbers {
            let failed = |action| move |error| file_error(volume, action, *number, error);
            let file = volume.open(&file_name(*number)).map_err(failed(Action::Open))?;
            let size = file.size().map_err(failed(Action::Read))?;
            match read_header(&*file, *number).map_err(failed(Action::Read))? {
                Ok(header) => headers.push((header, size)),
                Err(BadHeader::Damaged) => damaged.push((*number, size)),
                Err(BadHeader::Version(version)) => {
                    let path = volume.path().join(file_name(*number));
                    return Err(Box::new(SpoolError::Version { path, version }));
                }
            }
        }
        let last = headers.last().map_or(0, |(header, _)| header.number);
        let last_number = numbers.last().copied().unwrap_or(0);
        let mut survey = Self { last_number, is_clean: true, ..Self::default() };
        for (header, size) in headers {
            survey.add(volume, &header, size, header.number == last)?;
        }
        for (number, size) in damaged {
            survey.useless.push(number);
            // The end may have come while the last one was made. Nothing else goes there before its header is on disk.
            let is_last = number > last;
            let is_torn = is_last && size <= SEGMENT_HEADER as u64;
            let count = if is_torn { &mut survey.torn } else { &mut survey.corrupt };
            *count = count.saturating_add(size);
            survey.is_clean &= !is_last;
        }
        Ok(survey)
    }

    fn add(
        &mut self,
        volume: &dyn Volume,
        header: &SegmentHeader,
        size: u64,
        is_last: bool,
    ) -> Result<(), Box<SpoolError>> {
        let number = header.number;
        let failed = |action| move |error| file_error(volume, action, number, error);
        // Numbers of records never go back.
        if header.first <= self.last {
            self.useless.push(number);
            self.corrupt = self.corrupt.saturating_add(size);
            self.is_clean &= !is_last;
            return Ok(());
        }
        // What is no record at the end of the segment before was none of a request, if none is missing: an
        // acknowledgement was being written when the end came.
        let rest = std::mem::take(&mut self.rest);
        let is_complete = header.first == self.last + 1;
        let count = if is_complete { &mut self.torn } else { &mut self.corrupt };
        *count = count.saturating_add(rest);
        let file = volume.open(&file_name(number)).map_err(failed(Action::Open))?;
        let extent = measure(&*file, header, size, is_last).map_err(failed(Action::Read))?;
        let mut bytes = size;
        if is_last {
            self.is_clean = extent.is_clean && extent.end == size;
            if extent.end < size {
                file.truncate(extent.end).map_err(failed(Action::Truncate))?;
                bytes = extent.end;
                self.torn = self.torn.saturating_add(size - extent.end);
            }
            // What a process wrote that was killed may be in memory alone.
            file.sync().map_err(failed(Action::Sync))?;
        } else {
            self.rest = size - extent.end;
        }
        self.last = extent.last;
        self.acknowledged = self.acknowledged.max(extent.acknowledged);
        let segment = Segment { number, first: header.first, last: extent.last, bytes };
        self.scanned.push((segment, extent.amounts));
        Ok(())
    }

    /// What is not acknowledged.
    fn waiting(&self, volume: &dyn Volume) -> Result<PerSignal<Amount>, Box<SpoolError>> {
        let mut waiting = PerSignal::<Amount>::default();
        for (segment, amounts) in &self.scanned {
            let Some(oldest) = segment.oldest(self.acknowledged) else { continue };
            let mut amounts = *amounts;
            if oldest > segment.first {
                let failed = |action| move |error| file_error(volume, action, segment.number, error);
                let file = volume.open(&file_name(segment.number)).map_err(failed(Action::Open))?;
                amounts = PerSignal::default();
                let mut scanner = Scanner::of_segment(&*file, segment);
                while let Some(found) =
                    unless_bad_medium(scanner.next(), None).map_err(failed(Action::Read))?
                {
                    if let Some((signal, amount)) = found.amount().filter(|_| found.header.sequence >= oldest)
                    {
                        *amounts.get_mut(signal) += amount;
                    }
                }
            }
            for (signal, amount) in amounts.iter() {
                *waiting.get_mut(signal) += *amount;
            }
        }
        Ok(waiting)
    }
}

impl Spool {
    /// Reads what is there, deletes what is of no use, and begins a segment if anything waits: it says that a process
    /// is at work, and no file of an earlier one is appended to.
    pub(super) fn recover(
        volume: Box<dyn Volume>,
        max_bytes: u64,
        segment_bytes: u64,
    ) -> Result<(Self, Recovered), Box<SpoolError>> {
        let survey = Survey::new(&*volume)?;
        let mut waiting = survey.waiting(&*volume)?;
        let next = survey.last.max(survey.acknowledged) + 1;
        let segments = survey.scanned.iter().map(|(segment, _)| *segment).collect();
        let state = State::new(segments, survey.acknowledged, next, survey.last_number + 1);
        let spool = Self::new(volume, max_bytes, segment_bytes, state);
        for number in &survey.useless {
            spool.remove(*number)?;
        }
        let mut dropped = PerSignal::<Amount>::default();
        if spool.state().waiting() > 0 {
            // The bound may be lower than last time.
            while spool.is_too_large() {
                spool.drop_oldest()?;
            }
            match spool.start_segment() {
                // Delivering what is there makes room.
                Err(error) if error.is_no_space() => {}
                result => result?,
            }
            for record in std::mem::take(&mut spool.state().unreported) {
                waiting.get_mut(record.signal).subtract(record.amount);
                *dropped.get_mut(record.signal) += record.amount;
            }
        } else {
            spool.clear(0)?;
        }
        let requests: u64 = waiting.iter().map(|(_, amount)| amount.requests).sum();
        let held = Held {
            waiting,
            unreadable: PerSignal::default(),
            dropped,
            // One more may have been delivered and not acknowledged yet.
            possible_duplicates: if survey.is_clean { 0 } else { requests.min(MAX_UNSYNCED + 1) },
            damaged_bytes: survey.corrupt,
        };
        let recovered = Recovered { held, torn_bytes: survey.torn, is_clean: survey.is_clean };
        Ok((spool, recovered))
    }

    /// Whether there are files, and no room for what is still written for them.
    fn is_too_large(&self) -> bool {
        let state = self.state();
        let marks = (SEGMENT_HEADER + RECORD_HEADER) as u64;
        !state.segments.is_empty()
            && state.bytes().saturating_add(state.acknowledgements() + marks) > self.max_bytes
    }
}
