//! The oldest record.

use std::io;

use super::error::{Action, SpoolError};
use super::format::{Kind, SEGMENT_HEADER, file_name};
use super::scan::{Found, Scanner, read_body};
use super::state::{Reading, Segment};
use super::{Spool, lock};
use crate::export::Request;
use crate::export::store::RecordId;

/// Failed attempts to read a record after which it is passed over.
const READ_ATTEMPTS: u32 = 3;

/// What a look at the place of a record gave.
enum Look {
    Whole(Request),
    /// What is on disk is not what was written, up to this record: it alone, or all that follow in its segment.
    Damaged {
        up_to: u64,
    },
    /// The disk gives nothing.
    Failed {
        error: Box<SpoolError>,
        up_to: u64,
    },
}

impl Spool {
    pub(super) fn read_oldest(&self) -> Result<Option<(RecordId, Request)>, Box<SpoolError>> {
        let _reader = lock(&self.reader);
        loop {
            let Some((segment, sequence)) = self.state().oldest() else { return Ok(None) };
            let look = self.look(&segment, sequence)?;
            let mut state = self.state();
            // It may have been dropped meanwhile.
            if state.oldest().is_none_or(|(_, oldest)| oldest != sequence) {
                continue;
            }
            match look {
                Look::Whole(request) => {
                    state.read_failures = 0;
                    return Ok(Some((RecordId(sequence), request)));
                }
                Look::Damaged { up_to } => state.lose(up_to, up_to - sequence + 1),
                Look::Failed { error, up_to } => {
                    state.read_failures += 1;
                    if state.read_failures < READ_ATTEMPTS {
                        return Err(error);
                    }
                    state.lose(up_to, up_to - sequence + 1);
                }
            }
            self.collect(&mut state);
        }
    }

    fn look(&self, segment: &Segment, sequence: u64) -> Result<Look, Box<SpoolError>> {
        let known = self.state().reading.take();
        let known = known.filter(|known| known.number == segment.number && known.sequence <= sequence);
        let mut reading = match known {
            Some(reading) => reading,
            None => match self.volume.open(&file_name(segment.number)) {
                Ok(file) => Reading {
                    number: segment.number,
                    file,
                    offset: SEGMENT_HEADER as u64,
                    sequence: segment.first,
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(Look::Damaged { up_to: segment.last });
                }
                Err(error) => return Err(self.failed(Action::Open, segment.number, error)),
            },
        };
        let failed = |error, up_to| {
            let error = self.failed(Action::Read, segment.number, error);
            Look::Failed { error, up_to }
        };
        let found = match find(&mut reading, segment, sequence) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Look::Damaged { up_to: segment.last }),
            Err(error) => return Ok(failed(error, segment.last)),
        };
        let file = reading.file.clone();
        {
            let mut state = self.state();
            // Not if it is deleted: an open file keeps its room.
            if state.segments.iter().any(|known| known.number == segment.number) {
                state.reading = Some(reading);
            }
        }
        Ok(match (read_body(&*file, &found), found.header.kind) {
            (Ok(Some(body)), Kind::Data { signal, items, .. }) => {
                Look::Whole(Request { signal, items, body: body.into() })
            }
            (Err(error), _) => failed(error, sequence),
            _ => Look::Damaged { up_to: sequence },
        })
    }
}

/// Goes on to the record with the number `sequence`.
fn find(reading: &mut Reading, segment: &Segment, sequence: u64) -> io::Result<Option<Found>> {
    let file = reading.file.clone();
    let mut scanner = Scanner::new(&*file, segment.number, reading.offset, segment.bytes, reading.sequence);
    while let Some(found) = scanner.next()? {
        if let Kind::Data { .. } = found.header.kind {
            (reading.offset, reading.sequence) = (found.offset, found.header.sequence);
            if found.header.sequence == sequence {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}
