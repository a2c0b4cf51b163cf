//! The types of all units, each once.
//!
//! A type is known by what it is made of: kind, name, size and the types that it refers to, which are known before it. Cycles
//! are cut where C cuts them, at names: behind a pointer, `struct s` is no type but a [`Slot`], which becomes the structure of
//! that name once all units are read, wherever it was defined. What holds a structure by value refers to just the one that
//! its unit has, so that different structures of one name stay apart.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use super::Converted;
use crate::btf::Kind;
use crate::btf::encode::{Builder, info};
use crate::bytes::{Endian, MAX_STRING};
use crate::error::{Error, Result};
use crate::hash::Keys;

/// Words of all members: a kernel with everything built in has 4 million.
const MAX_WORDS: usize = 32 << 20;
/// Types: a kernel with everything built in has 600,000.
const MAX_TYPES: usize = 8 << 20;
/// Bytes of names: of such a kernel 8 million.
const MAX_NAMES: usize = 128 << 20;
/// Passes that join what has become equal; two or three find all of it in what compilers write.
const MAX_PASSES: usize = 32;

/// Offset of a name in the strings; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Name(pub u32);

/// A type, a slot, or void (0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Ref(pub u32);

impl Ref {
    pub const VOID: Self = Self(0);
    const SLOT: u32 = 1 << 31;

    fn of_type(index: usize) -> Self {
        Self(index as u32 + 1)
    }

    fn of_slot(index: usize) -> Self {
        Self(index as u32 | Self::SLOT)
    }
}

/// A type without the words of its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub kind: Kind,
    pub flag: bool,
    pub name: Name,
    /// Size, or what it refers to.
    pub size_or_type: u32,
    /// Number of members.
    pub len: u32,
}

struct Record {
    head: Head,
    at: u32,
    words: u32,
}

/// What a name stands for behind a pointer.
struct Slot {
    kind: Kind,
    name: Name,
    definition: Option<u32>,
}

type Map<K, V> = HashMap<K, V, Keys>;

pub(super) struct Types {
    builder: Builder,
    keys: Keys,
    /// Steps that are left to read entries.
    steps: u64,
    all_steps: u64,
    left_out: u64,
    /// Names by their offset in `.debug_str`.
    known: Map<usize, Name>,
    records: Vec<Record>,
    words: Vec<u32>,
    by_content: Map<u64, u32>,
    slots: Vec<Slot>,
    slot_of: Map<(u8, u32), u32>,
}

/// For each reference among the words of a type: the header's, and those of its members.
fn replace(head: &mut Head, words: &mut [u32], mut with: impl FnMut(Ref) -> u32) {
    let mut set = |word: &mut u32| *word = with(Ref(*word));
    let (first, step) = match head.kind {
        Kind::Struct | Kind::Union => (1, 3),
        Kind::FuncProto => (1, 2),
        Kind::Array => (0, 1),
        _ => (0, usize::MAX),
    };
    let members = if step == usize::MAX { &mut [][..] } else { words };
    let members = if head.kind == Kind::Array { members.get_mut(..2).unwrap_or_default() } else { members };
    members.iter_mut().skip(first).step_by(step.max(1)).for_each(&mut set);
    let refers = matches!(
        head.kind,
        Kind::Ptr | Kind::Typedef | Kind::Const | Kind::Volatile | Kind::Restrict | Kind::FuncProto
    );
    if refers {
        set(&mut head.size_or_type);
    }
}

fn hash(keys: Keys, head: &Head, words: &[u32]) -> u64 {
    let mut mixer = keys.build_hasher();
    mixer.write_u64(u64::from(head.kind.number()) | u64::from(head.flag) << 8 | u64::from(head.len) << 32);
    mixer.write_u64(u64::from(head.name.0) | u64::from(head.size_or_type) << 32);
    let mut pairs = words.chunks_exact(2);
    for pair in &mut pairs {
        if let [low, high] = pair {
            mixer.write_u64(u64::from(*low) | u64::from(*high) << 32);
        }
    }
    pairs.remainder().iter().for_each(|word| mixer.write_u32(*word));
    mixer.finish()
}

impl Types {
    /// None yet. `steps`: what [`spend`](Self::spend) gives out.
    pub fn new(endian: Endian, steps: u64) -> Self {
        let keys = Keys::new();
        Self {
            builder: Builder::new(endian),
            keys,
            steps,
            all_steps: steps,
            left_out: 0,
            known: Map::with_hasher(keys),
            records: Vec::new(),
            words: Vec::new(),
            by_content: Map::with_hasher(keys),
            slots: Vec::new(),
            slot_of: Map::with_hasher(keys),
        }
    }

    /// Takes steps of reading entries.
    ///
    /// # Errors
    ///
    /// `TooComplex` if there are not that many left.
    pub fn spend(&mut self, steps: u64) -> Result<()> {
        let spent = Error::TooComplex { what: "attributes", limit: self.all_steps };
        self.steps = self.steps.checked_sub(steps).ok_or(spent)?;
        Ok(())
    }

    /// Counts what BTF cannot say.
    pub fn leave_out(&mut self, count: u64) {
        self.left_out += count;
    }

    /// The byte order that they are written in.
    pub fn endian(&self) -> Endian {
        self.builder.endian()
    }

    /// A name by its bytes.
    ///
    /// # Errors
    ///
    /// `TooComplex`.
    pub fn name(&mut self, text: &[u8]) -> Result<Name> {
        if text.len() > MAX_STRING {
            return Err(Box::new(Error::TooComplex { what: "bytes of a name", limit: MAX_STRING as u64 }));
        }
        let before = self.builder.strings_len();
        if before > MAX_NAMES {
            return Err(Box::new(Error::TooComplex { what: "bytes of names", limit: MAX_NAMES as u64 }));
        }
        Ok(Name(self.builder.string(&String::from_utf8_lossy(text))))
    }

    /// The name at an offset of `.debug_str`, which `text` gets.
    ///
    /// # Errors
    ///
    /// As [`name`](Self::name), and those of `text`.
    pub fn name_at<'t>(&mut self, offset: usize, text: impl FnOnce() -> Result<&'t [u8]>) -> Result<Name> {
        if let Some(name) = self.known.get(&offset) {
            return Ok(*name);
        }
        let name = self.name(text()?)?;
        self.known.insert(offset, name);
        Ok(name)
    }

    /// What `struct name` (or `union`, `enum`) is behind a pointer.
    pub fn slot(&mut self, kind: Kind, name: Name) -> Ref {
        Ref::of_slot(self.slot_index(kind, name))
    }

    fn slot_index(&mut self, kind: Kind, name: Name) -> usize {
        let next = self.slots.len() as u32;
        let index = *self.slot_of.entry((kind.number(), name.0)).or_insert(next);
        if index == next {
            self.slots.push(Slot { kind, name, definition: None });
        }
        index as usize
    }

    /// A structure, union or enumeration that is defined with a name.
    ///
    /// # Errors
    ///
    /// `TooComplex`.
    pub fn define(&mut self, class: Kind, head: Head, words: &[u32]) -> Result<Ref> {
        let found = self.add(head, words)?;
        let index = self.slot_index(class, head.name);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.definition.get_or_insert(found.0 - 1);
        }
        Ok(found)
    }

    /// A type, which is there already or new.
    ///
    /// # Errors
    ///
    /// `TooComplex`.
    pub fn add(&mut self, head: Head, words: &[u32]) -> Result<Ref> {
        let mut key = hash(self.keys, &head, words);
        while let Some(&index) = self.by_content.get(&key) {
            if self.is(index, &head, words) {
                return Ok(Ref::of_type(index as usize));
            }
            key = key.wrapping_add(1);
        }
        if self.words.len() + words.len() > MAX_WORDS || self.records.len() >= MAX_TYPES {
            return Err(Box::new(Error::TooComplex { what: "types", limit: MAX_TYPES as u64 }));
        }
        let index = self.records.len();
        self.records.push(Record { head, at: self.words.len() as u32, words: words.len() as u32 });
        self.words.extend_from_slice(words);
        self.by_content.insert(key, index as u32);
        Ok(Ref::of_type(index))
    }

    fn words_of(&self, record: &Record) -> &[u32] {
        let start = record.at as usize;
        self.words.get(start..start + record.words as usize).unwrap_or_default()
    }

    fn is(&self, index: u32, head: &Head, words: &[u32]) -> bool {
        self.records
            .get(index as usize)
            .is_some_and(|record| record.head == *head && self.words_of(record) == words)
    }

    /// All types as BTF.
    ///
    /// # Errors
    ///
    /// `NoDwarf` if there are none; `TooComplex`.
    pub fn finish(mut self) -> Result<Converted> {
        self.announce()?;
        if self.records.is_empty() {
            return Err(Box::new(Error::NoDwarf { reason: "no unit of C has types" }));
        }
        // By type: the first of those that are equal.
        let mut first: Vec<u32> = (0..self.records.len() as u32).collect();
        for _ in 0..MAX_PASSES {
            if !self.join(&mut first) {
                break;
            }
        }
        let left_out = self.left_out;
        Ok(Converted { btf: self.write(&first), left_out })
    }

    /// Names that nobody has defined become forward declarations.
    fn announce(&mut self) -> Result<()> {
        for index in 0..self.slots.len() {
            let Some(&Slot { kind, name, definition: None }) = self.slots.get(index) else { continue };
            let (kind, flag, size) = match kind {
                // Of an enumeration there is no forward declaration: one without enumerators says the same.
                Kind::Enum => (Kind::Enum, false, 4),
                kind => (Kind::Fwd, kind == Kind::Union, 0),
            };
            let added = self.add(Head { kind, flag, name, size_or_type: size, len: 0 }, &[])?;
            if let Some(slot) = self.slots.get_mut(index) {
                slot.definition = Some(added.0 - 1);
            }
        }
        Ok(())
    }

    /// The type that a reference means, `None` for void.
    fn meant(&self, to: Ref, first: &[u32]) -> Option<u32> {
        let index = match to {
            Ref::VOID => return None,
            Ref(slot) if slot & Ref::SLOT != 0 => self.slots.get((slot & !Ref::SLOT) as usize)?.definition?,
            Ref(index) => index - 1,
        };
        first.get(index as usize).copied()
    }

    /// Types that refer to the same become the same: now that names are resolved, what refers to a structure by its name and
    /// what refers to its definition are no longer different. Whether there were any.
    fn join(&self, first: &mut [u32]) -> bool {
        let mut by_content: Map<u64, u32> = Map::with_hasher(self.keys);
        let (mut scratch, mut joined) = (Vec::new(), false);
        let content = |index: u32, first: &[u32], scratch: &mut Vec<u32>| {
            let record = self.records.get(index as usize)?;
            let mut head = record.head;
            scratch.clear();
            scratch.extend_from_slice(self.words_of(record));
            replace(&mut head, scratch, |to| self.meant(to, first).map_or(0, |index| index + 1));
            Some(head)
        };
        let mut other = Vec::new();
        for index in 0..self.records.len() as u32 {
            if first.get(index as usize) != Some(&index) {
                // Joined before; what it was joined to may have been since.
                if let Some(&to) = first.get(index as usize).and_then(|to| first.get(*to as usize)) {
                    if let Some(place) = first.get_mut(index as usize) {
                        *place = to;
                    }
                }
                continue;
            }
            let Some(head) = content(index, first, &mut scratch) else { continue };
            let mut key = hash(self.keys, &head, &scratch);
            loop {
                let Some(&known) = by_content.get(&key) else {
                    by_content.insert(key, index);
                    break;
                };
                // Read as it was when it was put there, or with what has been joined since: either is the same type.
                if content(known, first, &mut other) == Some(head) && other == scratch {
                    if let Some(place) = first.get_mut(index as usize) {
                        *place = known;
                    }
                    joined = true;
                    break;
                }
                key = key.wrapping_add(1);
            }
        }
        joined
    }

    fn write(mut self, first: &[u32]) -> Vec<u8> {
        let mut ids = vec![0; self.records.len()];
        let mut next = 1;
        for ((index, to), id) in (0..).zip(first).zip(&mut ids) {
            if index == *to {
                *id = next;
                next += 1;
            }
        }
        let mut scratch = Vec::new();
        for (index, record) in (0..).zip(&self.records) {
            if first.get(index as usize) != Some(&index) {
                continue;
            }
            let mut head = record.head;
            scratch.clear();
            scratch.extend_from_slice(self.words_of(record));
            replace(&mut head, &mut scratch, |to| {
                self.meant(to, first).and_then(|index| ids.get(index as usize)).copied().unwrap_or(0)
            });
            let info = info(head.kind, head.len, head.flag);
            self.builder.record(head.name.0, info, head.size_or_type, &scratch);
        }
        self.builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each bit of one number and each of the next, changed together, give other hashes; and so does another run.
    #[test]
    fn nobody_can_choose_numbers_that_collide() {
        let head = Head { kind: Kind::Enum, flag: false, name: Name(1), size_or_type: 4, len: 2 };
        let keys = Keys::new();
        let hash_of = |keys, first: u64, next: u64| {
            let words = [first, next].map(|number| [number as u32, (number >> 32) as u32]);
            hash(keys, &head, words.as_flattened())
        };
        let plain = hash_of(keys, 7, 9);
        assert_eq!(plain, hash_of(keys, 7, 9));
        assert_ne!(plain, hash_of(Keys::new(), 7, 9));
        for (first, next) in (0..64).flat_map(|first| (0..64).map(move |next| (first, next))) {
            assert_ne!(plain, hash_of(keys, 7 ^ 1 << first, 9 ^ 1 << next), "bits {first} and {next}");
        }
    }
}
