//! Samples of a window, added up before anything has a name.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Index into a [`StackTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId(pub u32);

/// Stacks, each stored once, end to end.
#[derive(Debug, Default)]
pub struct StackTable {
    words: Vec<u64>,
    /// End of each stack in `words`.
    ends: Vec<u32>,
    by_hash: HashMap<u64, StackId>,
    hasher: RandomState,
}

impl StackTable {
    /// The id of a stack, which is stored if it is new; `None` if the table is full (2^32 words).
    pub fn intern(&mut self, stack: &[u64]) -> Option<StackId> {
        let mut hash = self.hasher.hash_one(stack);
        // Two stacks with one hash lie side by side.
        while let Some(&id) = self.by_hash.get(&hash) {
            if self.get(id) == stack {
                return Some(id);
            }
            hash = hash.wrapping_add(1);
        }
        let id = StackId(u32::try_from(self.ends.len()).ok()?);
        let end = u32::try_from(self.words.len() + stack.len()).ok()?;
        self.words.extend_from_slice(stack);
        self.ends.push(end);
        self.by_hash.insert(hash, id);
        Some(id)
    }

    /// The stack of an id that this table gave out; empty for any other.
    pub fn get(&self, id: StackId) -> &[u64] {
        let i = id.0 as usize;
        let start = i.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(i).copied().unwrap_or(start);
        self.words.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Number of stacks.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no stacks.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn clear(&mut self) {
        self.words.clear();
        self.ends.clear();
        self.by_hash.clear();
    }
}

/// What samples are added up under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleKey {
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Kernel stack; `None` if the sample hit user code.
    pub kernel: Option<StackId>,
    /// User stack; `None` for kernel threads, or if it could not be read or stored.
    pub user: Option<StackId>,
}

/// The samples of one window.
#[derive(Debug, Default)]
pub struct Samples {
    /// Stacks that the keys name.
    pub stacks: StackTable,
    /// Periods under each key.
    pub counts: HashMap<SampleKey, u64>,
    /// Name of each thread when it was first seen.
    pub threads: HashMap<u32, [u8; 16]>,
}

impl Samples {
    /// Adds periods under a key.
    pub fn add(&mut self, key: SampleKey, comm: [u8; 16], count: u64) {
        *self.counts.entry(key).or_insert(0) += count;
        self.threads.entry(key.tid).or_insert(comm);
    }

    /// All periods.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Forgets everything but keeps the memory.
    pub fn clear(&mut self) {
        self.stacks.clear();
        self.counts.clear();
        self.threads.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_stored_once() {
        let mut table = StackTable::default();
        let a = table.intern(&[1, 2, 3]).unwrap();
        let b = table.intern(&[]).unwrap();
        let c = table.intern(&[1, 2]).unwrap();
        assert_eq!(table.intern(&[1, 2, 3]), Some(a));
        assert_eq!((table.get(a), table.get(b), table.get(c)), (&[1u64, 2, 3][..], &[][..], &[1u64, 2][..]));
        assert_eq!(table.len(), 3);
        assert_eq!(table.get(StackId(9)), &[] as &[u64]);
    }

    #[test]
    fn samples_of_one_key_add_up() {
        let mut samples = Samples::default();
        let kernel = samples.stacks.intern(&[0xffff]);
        let key = SampleKey { tgid: 1, tid: 2, kernel, user: None };
        samples.add(key, *b"first\0\0\0\0\0\0\0\0\0\0\0", 2);
        samples.add(key, *b"second\0\0\0\0\0\0\0\0\0\0", 3);
        assert_eq!(samples.counts[&key], 5);
        assert_eq!(&samples.threads[&2][..5], b"first");
        assert_eq!(samples.total(), 5);
        samples.clear();
        assert_eq!(samples.total(), 0);
    }
}
