//! One table of the dictionary: entries encoded once, found again by their bytes.
//!
//! Encoding is canonical, so entries are equal exactly where their bytes are, and one table serves all seven
//! messages. Entries are kept as they stand in the message, header included, so that writing a table is one
//! copy.

use crate::error::Table;
use crate::wire::{WireType, varint_len};
use alloc::vec;
use alloc::vec::Vec;

/// Entries in insertion order, without duplicates. Entry 0 is the empty message.
#[derive(Debug)]
pub(super) struct Entries {
    table: Table,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Open addressing, a power of two long; index 0 means free, as the empty message is not looked up.
    slots: Vec<Slot>,
    unreferenced: usize,
    seed: u64,
    /// What happened since [`mark`](Self::mark), in order.
    journal: Vec<Change>,
    /// Whether `slots` grew since then.
    grown: bool,
}

/// What can be undone.
#[derive(Debug, Clone, Copy)]
enum Change {
    Pushed,
    Referenced(u32),
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    end: u32,
    referenced: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u32,
    index: u32,
}

const MIN_SLOTS: usize = 64;

impl Entries {
    pub(super) fn new(table: Table, seed: u64) -> Self {
        let mut entries = Self {
            table,
            bytes: Vec::new(),
            entries: Vec::new(),
            slots: vec![Slot::default(); MIN_SLOTS],
            unreferenced: 0,
            seed,
            journal: Vec::new(),
            grown: false,
        };
        entries.clear();
        entries
    }

    /// Leaves entry 0 alone, and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.slots.fill(Slot::default());
        self.bytes.extend([self.header(), 0]);
        self.entries.push(Entry { start: 2, end: 2, referenced: true });
        self.unreferenced = 0;
        self.mark();
    }

    /// Starts over where `bytes` have more memory than `usual`; all else is in proportion to them.
    pub(super) fn trim(&mut self, usual: usize) {
        if self.bytes.capacity() > usual {
            *self = Self::new(self.table, self.seed);
        }
    }

    /// What follows can be taken back.
    pub(super) fn mark(&mut self) {
        self.journal.clear();
        self.grown = false;
    }

    /// Takes back what happened since [`mark`](Self::mark).
    pub(super) fn rollback(&mut self) {
        while let Some(change) = self.journal.pop() {
            match change {
                Change::Pushed => self.unpush(),
                Change::Referenced(index) => {
                    if let Some(entry) = self.entries.get_mut(index as usize) {
                        entry.referenced = false;
                        self.unreferenced += 1;
                    }
                }
            }
        }
        if core::mem::take(&mut self.grown) {
            self.rehash(self.slots.len());
        }
    }

    /// Removes the last entry, which nothing refers to.
    fn unpush(&mut self) {
        let last = self.entries.len() - 1;
        // Entries that came later are gone, so none was put behind this one, unless the slots were filled anew.
        if !self.grown {
            let hash = self.content(last as u32).map_or(0, |content| hash(self.seed, content));
            let mask = self.slots.len() - 1;
            let mut at = hash as usize & mask;
            while let Some(slot) = self.slots.get_mut(at).filter(|slot| slot.index != 0) {
                if slot.index as usize == last {
                    *slot = Slot::default();
                    break;
                }
                at = (at + 1) & mask;
            }
        }
        self.entries.pop();
        self.unreferenced -= 1;
        self.bytes.truncate(self.entries.last().map_or(0, |entry| entry.end as usize));
    }

    /// Which table this is.
    pub(super) fn table(&self) -> Table {
        self.table
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries as they stand in the dictionary message.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The index of the entry with this content, added if it is new. `None` when the table is full.
    pub(super) fn intern(&mut self, content: &[u8]) -> Option<u32> {
        if content.is_empty() {
            return Some(0);
        }
        let hash = hash(self.seed, content);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        // Ends at a free slot: a quarter of them is free at least.
        while let Some(slot) = self.slots.get(at).filter(|slot| slot.index != 0) {
            if slot.hash == hash && self.content(slot.index) == Some(content) {
                return Some(slot.index);
            }
            at = (at + 1) & mask;
        }
        let index = self.push(content)?;
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Slot { hash, index };
        }
        if self.entries.len() * 4 > self.slots.len() * 3 {
            self.grown = true;
            self.rehash(self.slots.len() * 2);
        }
        Some(index)
    }

    /// Notes that something refers to an entry; whether there is such an entry.
    pub(super) fn reference(&mut self, index: u32) -> bool {
        let Some(entry) = self.entries.get_mut(index as usize) else { return false };
        if !entry.referenced {
            entry.referenced = true;
            self.unreferenced -= 1;
            self.journal.push(Change::Referenced(index));
        }
        true
    }

    /// The first entry that nothing refers to.
    pub(super) fn first_unreferenced(&self) -> Option<u32> {
        if self.unreferenced == 0 {
            return None;
        }
        self.entries.iter().position(|entry| !entry.referenced).map(|index| index as u32)
    }

    #[cfg(test)]
    pub(super) fn capacities(&self) -> [usize; 4] {
        let Self { bytes, entries, slots, journal, .. } = self;
        [bytes.capacity(), entries.capacity(), slots.capacity(), journal.capacity()]
    }

    /// What precedes each entry in the message, with its length.
    fn header(&self) -> u8 {
        (self.table as u8) << 3 | WireType::Delimited as u8
    }

    fn content(&self, index: u32) -> Option<&[u8]> {
        let entry = self.entries.get(index as usize)?;
        self.bytes.get(entry.start as usize..entry.end as usize)
    }

    fn push(&mut self, content: &[u8]) -> Option<u32> {
        let index = i32::try_from(self.entries.len()).ok()? as u32;
        let start = self.bytes.len() + 1 + varint_len(content.len() as u64);
        let end = u32::try_from(start.checked_add(content.len())?).ok()?;
        self.bytes.push(self.header());
        let mut rest = content.len();
        while rest >= 0x80 {
            self.bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
        self.bytes.extend_from_slice(content);
        self.entries.push(Entry { start: start as u32, end, referenced: false });
        self.unreferenced += 1;
        self.journal.push(Change::Pushed);
        Some(index)
    }

    /// Fills the slots anew, without those of entries that are gone.
    fn rehash(&mut self, slots: usize) {
        let mut slots = vec![Slot::default(); slots];
        let mask = slots.len() - 1;
        for &slot in self.slots.iter().filter(|slot| (1..self.entries.len()).contains(&(slot.index as usize)))
        {
            let mut at = slot.hash as usize & mask;
            while slots[at].index != 0 {
                at = (at + 1) & mask;
            }
            slots[at] = slot;
        }
        self.slots = slots;
    }
}

/// Multiply and fold, sixteen bytes at a time. Without the seed, names that collide cannot be made up.
fn hash(seed: u64, bytes: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    fn fold(a: u64, b: u64) -> u64 {
        let product = u128::from(a) * u128::from(b);
        (product >> 64) as u64 ^ product as u64
    }
    fn mix(state: u64, [a, b]: [u64; 2], seed: u64) -> u64 {
        fold(state ^ a, seed ^ b)
    }
    fn words(chunk: &[u8; 16]) -> [u64; 2] {
        let chunk = u128::from_le_bytes(*chunk);
        [chunk as u64, (chunk >> 64) as u64]
    }
    // A factor that is odd, and none that is 0 by chance.
    let seed = fold(seed ^ FACTOR, FACTOR) | 1;
    let mut state = fold(bytes.len() as u64 ^ FACTOR, seed);
    let mut rest = bytes;
    while let Some((chunk, after)) = rest.split_first_chunk() {
        state = mix(state, words(chunk), seed);
        rest = after;
    }
    // The last bytes, or all of a short text, some of them twice.
    let last = match (bytes.last_chunk(), bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(last), ..) => words(last),
        (None, Some(first), Some(last)) => [u64::from_le_bytes(*first), u64::from_le_bytes(*last)],
        _ => [bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)), 0],
    };
    let hash = fold(mix(state, last, seed), FACTOR);
    (hash >> 32) as u32 ^ hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn equal_content_is_one_entry_and_order_is_insertion() {
        let mut table = Entries::new(Table::String, 1);
        assert_eq!(table.intern(b""), Some(0));
        for round in 0..2 {
            for i in 0..5000u32 {
                assert_eq!(table.intern(format!("name {i}").as_bytes()), Some(i + 1), "round {round}");
            }
        }
        assert_eq!(table.content(77), Some(&b"name 76"[..]));
        assert_eq!(table.first_unreferenced(), Some(1));
        assert!(table.reference(1) && table.reference(1));
        assert_eq!(table.first_unreferenced(), Some(2));
        assert!(!table.reference(5001));
        table.clear();
        assert_eq!(table.bytes(), [5 << 3 | 2, 0]);
        assert_eq!(table.first_unreferenced(), None);
        assert_eq!(table.intern(b"name 9"), Some(1));
    }

    #[test]
    fn what_is_taken_back_was_never_there() {
        for (before, after) in [(10, 5), (40, 200), (0, 3), (47, 1)] {
            let name = |i: u32| format!("name {}", i.wrapping_mul(0x9e37_79b9) % 1000);
            let mut table = Entries::new(Table::String, 1);
            let mut other = Entries::new(Table::String, 1);
            for i in 0..before {
                for table in [&mut table, &mut other] {
                    let index = table.intern(name(i).as_bytes()).unwrap();
                    assert!(i % 2 == 0 || table.reference(index));
                }
            }
            for _ in 0..2 {
                table.mark();
                for i in before / 2..before + after {
                    let index = table.intern(name(i).as_bytes()).unwrap();
                    assert!(i % 3 == 0 || table.reference(index));
                }
                table.rollback();
                assert_eq!(table.bytes(), other.bytes());
                assert_eq!(table.first_unreferenced(), other.first_unreferenced());
                assert_eq!(table.unreferenced, other.unreferenced);
            }
            // What is there is found, and what is not is added.
            for i in 0..before + after {
                assert_eq!(table.intern(name(i).as_bytes()), other.intern(name(i).as_bytes()));
            }
            assert_eq!(table.bytes(), other.bytes());
        }
    }

    #[test]
    fn content_that_needs_a_longer_length_or_ends_in_zeros_is_kept_apart() {
        let mut table = Entries::new(Table::Mapping, 0);
        assert_eq!(table.intern(&[0; 1]), Some(1));
        assert_eq!(table.intern(&[0; 2]), Some(2));
        assert_eq!(table.intern(&[0; 300]), Some(3));
        assert_eq!(table.intern(&[0; 300]), Some(3));
        assert_eq!(table.bytes()[..12], [10, 0, 10, 1, 0, 10, 2, 0, 0, 10, 0xac, 0x02]);
        assert_eq!(table.bytes().len(), 12 + 300);
    }

    #[test]
    fn hashes_depend_on_seed_and_every_byte() {
        assert_ne!(hash(0, b"a"), hash(1, b"a"));
        assert_ne!(hash(0, b"0123456789abcdef"), hash(0, b"0123456789abcdeg"));
        assert_ne!(hash(0, b"0123456789abcdef"), hash(0, b"1123456789abcdef"));
    }
}
