//! Samples of a window, added up before anything has a name.

use std::hash::{BuildHasher, Hasher};

use bpf_loader::hash::Keys;

use crate::sorted::SortedMap;

/// Index into a [`StackTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId(pub u32);

/// Most words of all stacks of a window: 32 MiB. What comes then has no stack, and is counted as such.
const MAX_WORDS: usize = 4 << 20;
/// Most keys of a window. Samples under further ones are lost, and counted as such.
const MAX_KEYS: usize = 512 << 10;

/// Stacks, each stored once, end to end.
#[derive(Debug, Default)]
pub struct StackTable {
    words: Vec<u64>,
    /// End of each stack in `words`.
    ends: Vec<u32>,
    by_hash: SortedMap<u64, StackId>,
    keys: Keys,
}

impl StackTable {
    /// The id of a stack, which is stored if it is new; `None` if the table is full.
    pub fn intern(&mut self, stack: &[u64]) -> Option<StackId> {
        let mut hasher = self.keys.build_hasher();
        stack.iter().for_each(|word| hasher.write_u64(*word));
        let mut hash = hasher.finish();
        // Two stacks with one hash lie side by side.
        while let Some(&id) = self.by_hash.get(&hash) {
            if self.get(id) == stack {
                return Some(id);
            }
            hash = hash.wrapping_add(1);
        }
        if self.words.len() + stack.len() > MAX_WORDS || self.ends.len() >= MAX_WORDS {
            return None;
        }
        // Both fit by far.
        let id = StackId(self.ends.len() as u32);
        let end = (self.words.len() + stack.len()) as u32;
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
}

/// A process between two execs: its number may have been another's, and its program another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    /// Number in the agent's pid namespace; 0 for all processes that cannot be seen from there.
    pub pid: u32,
    /// When its program started, in the clock of the process records; 0 if before the profiler.
    pub started: u64,
}

/// Who has ended a wait: a number of [`Samples::wakers`], or 0 where nobody knows.
#[cfg(feature = "unwind")]
pub type WakerId = u32;
/// No waits are profiled.
#[cfg(not(feature = "unwind"))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WakerId(());

/// Most names of wakers of a window; others are as if nobody knew.
#[cfg(feature = "unwind")]
const MAX_WAKERS: usize = 4096;

/// What samples are added up under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleKey {
    /// Process.
    pub process: ProcessId,
    /// Thread.
    pub tid: u32,
    /// Kernel stack; `None` if the sample hit user code.
    pub kernel: Option<StackId>,
    /// User stack; `None` for kernel threads, or if it could not be read or stored.
    pub user: Option<StackId>,
    /// Who has ended the wait.
    pub waker: WakerId,
}

/// Periods, or whatever else is counted, under each key.
pub type Counts = SortedMap<SampleKey, u64>;

/// The samples of one window.
#[derive(Debug, Default)]
pub struct Samples {
    /// Stacks that the keys name.
    pub stacks: StackTable,
    /// Periods under each key.
    pub counts: Counts,
    /// Name of each thread, under each program of its process, when it was first seen.
    pub threads: SortedMap<(ProcessId, u32), [u8; 16]>,
    /// Names of threads, or what stands for other wakers, by which they are numbered from 1 on.
    #[cfg(feature = "unwind")]
    pub wakers: SortedMap<[u8; 16], WakerId>,
}

impl Samples {
    /// Adds periods under a key; false if there is no room for it.
    pub fn add(&mut self, key: SampleKey, comm: [u8; 16], count: u64) -> bool {
        if self.counts.len() >= MAX_KEYS && !self.counts.contains_key(&key) {
            return false;
        }
        *self.counts.entry(key).or_insert(0) += count;
        self.threads.entry((key.process, key.tid)).or_insert(comm);
        true
    }

    /// The number of a waker; zeros are none.
    #[cfg(feature = "unwind")]
    pub fn waker(&mut self, name: [u8; 16]) -> WakerId {
        let number = self.wakers.len() as WakerId + 1;
        match self.wakers.get(&name) {
            Some(&known) => known,
            None if name == [0; 16] || self.wakers.len() >= MAX_WAKERS => 0,
            None => {
                self.wakers.insert(name, number);
                number
            }
        }
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
        assert_eq!(table.get(StackId(9)), &[] as &[u64]);
    }

    #[test]
    fn tables_are_bounded() {
        let mut table = StackTable::default();
        let deep = vec![7u64; 1 << 20];
        for i in 0..4u64 {
            let mut stack = deep.clone();
            stack[0] = i;
            assert!(table.intern(&stack).is_some());
        }
        assert_eq!(table.intern(&[1]), None, "full");
        assert!(
            table
                .intern(&{
                    let mut s = deep;
                    s[0] = 3;
                    s
                })
                .is_some(),
            "what is there is still found"
        );
    }

    #[test]
    fn samples_of_one_key_add_up() {
        let mut samples = Samples::default();
        let kernel = samples.stacks.intern(&[0xffff]);
        let process = ProcessId { pid: 1, started: 0 };
        let key = SampleKey { process, tid: 2, kernel, user: None, waker: WakerId::default() };
        assert!(samples.add(key, *b"first\0\0\0\0\0\0\0\0\0\0\0", 2));
        assert!(samples.add(key, *b"second\0\0\0\0\0\0\0\0\0\0", 3));
        assert_eq!(samples.counts.get(&key), Some(&5));
        assert_eq!(samples.threads.get(&(process, 2)), Some(b"first\0\0\0\0\0\0\0\0\0\0\0"));
    }
}
