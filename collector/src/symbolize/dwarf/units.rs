//! Which unit an address belongs to.

use gimli::Result;

use super::pages::{Section, Store};
use super::root::Root;

/// Units of a file.
const MAX_UNITS: usize = 1 << 17;
/// Ranges of all of them.
const MAX_RANGES: usize = 1 << 18;
/// Ranges that overlap an address and are looked at.
const MAX_OVERLAP: usize = 16;
/// Bytes between two pieces of a unit that are alignment.
const ALIGNMENT: u32 = 15;
/// Bytes of work that a unit's header takes, whatever it says.
const HEADER_WORK: u64 = 256;

/// Addresses of a unit, from the begin of the file's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    start: u32,
    end: u32,
    unit: u32,
}

/// Where the units are, and which code is theirs: 12 bytes for each piece of it.
#[derive(Debug, Default)]
pub(super) struct Units {
    /// Where each begins, in order.
    offsets: Vec<u64>,
    pieces: Vec<Piece>,
    /// Where the next one begins that was not looked at.
    next: u64,
    done: bool,
}

impl Units {
    /// Looks at all units, or at those that were not looked at when the work was too much the last time.
    ///
    /// # Errors
    /// The work was too much again.
    pub fn read(&mut self, store: &Store, code: (u64, u64)) -> Result<()> {
        let end = store.size(Section::Info);
        let mut sorted = 0;
        while !self.done {
            if self.next >= end || self.offsets.len() >= MAX_UNITS || self.pieces.len() >= MAX_RANGES {
                break;
            }
            store.charge(HEADER_WORK)?;
            // After a header that makes no sense, nobody knows where the next one is.
            let Ok(header) = Root::header(store, self.next) else {
                if store.fuel() == 0 {
                    return Err(gimli::Error::Io);
                }
                break;
            };
            let known = self.pieces.len();
            let read = self.read_unit(store, &header, code);
            if read.is_err() && store.fuel() == 0 {
                self.pieces.truncate(known);
                return read;
            }
            self.offsets.push(self.next);
            self.next = self.next.saturating_add(header.length_including_self());
            if self.pieces.len() > 2 * sorted + 4096 {
                self.merge(ALIGNMENT);
                sorted = self.pieces.len();
            }
        }
        if !self.done {
            // Nobody else has code between two neighbours.
            self.merge(u32::MAX);
            self.pieces.shrink_to_fit();
            self.offsets.shrink_to_fit();
            self.done = true;
        }
        Ok(())
    }

    fn read_unit(
        &mut self,
        store: &Store,
        header: &gimli::UnitHeader<super::pages::Bytes<'_>>,
        code: (u64, u64),
    ) -> Result<()> {
        let Some(root) = Root::read(store, header)? else { return Ok(()) };
        let unit = self.offsets.len() as u32;
        root.visit_code(store, &mut |range| {
            if let Some((start, end)) = in_code(code, range) {
                match self.pieces.last_mut().filter(|last| last.unit == unit && last.end == start) {
                    Some(last) => last.end = end,
                    None => self.pieces.push(Piece { start, end, unit }),
                }
            }
            self.pieces.len() < MAX_RANGES
        })
    }

    /// Sorts the pieces, and makes one of neighbours of a unit.
    fn merge(&mut self, gap: u32) {
        self.pieces.sort_unstable();
        self.pieces.dedup_by(|next, kept| {
            let joins = next.unit == kept.unit && next.start.saturating_sub(kept.end) <= gap;
            if joins {
                kept.end = kept.end.max(next.end);
            }
            joins
        });
    }

    /// Where the unit begins whose code holds an address.
    pub fn find(&self, code: (u64, u64), address: u64) -> Option<u64> {
        let at = u32::try_from(address.checked_sub(code.0)?).ok()?;
        let after = self.pieces.partition_point(|piece| piece.start <= at);
        let before = self.pieces.get(..after)?.iter().rev().take(MAX_OVERLAP);
        let found = before.filter(|piece| at < piece.end).min_by_key(|piece| piece.end - piece.start)?;
        self.offsets.get(found.unit as usize).copied()
    }

    /// Where the unit begins that holds an entry.
    pub fn holding(&self, entry: u64) -> Option<u64> {
        let after = self.offsets.partition_point(|offset| *offset <= entry);
        self.offsets.get(after.checked_sub(1)?).copied()
    }

    /// Heap memory, in bytes.
    pub fn memory(&self) -> usize {
        self.pieces.capacity() * size_of::<Piece>() + self.offsets.capacity() * size_of::<u64>()
    }
}

/// A range as distances from the begin of the file's code. What linkers threw away lies elsewhere.
pub(super) fn in_code(code: (u64, u64), range: (u64, u64)) -> Option<(u32, u32)> {
    let (start, end) = range;
    if start >= end || start < code.0 || end > code.1 {
        return None;
    }
    Some((u32::try_from(start - code.0).ok()?, u32::try_from(end - code.0).ok()?))
}
