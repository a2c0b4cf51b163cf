//! Page faults.
//!
//! The kernel counts every thread's itself, so a window's are the difference of two looks: nothing runs when a fault happens.
//! Threads that live are looked at through an iterator; of threads that end, a program at their end leaves what they had.
//! The iterator leaves out threads that have begun to end, so a thread is told of by its end alone once that has been taken
//! out; while it is still in the table, the look before it counts as any other.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::map::{Global, Hash};
use bpf_programs::events::memory::{ThreadFaults, ThreadKey};

use crate::error::{Error, Result};

/// Threads that are followed at once.
const MAX_THREADS: usize = 1 << 18;
/// Threads that ended, read at a time.
const BATCH: usize = 1024;

/// Page faults of a process in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessFaults {
    pub minor: u64,
    pub major: u64,
    pub comm: [u8; 16],
}

/// What each thread had when it was last looked at.
#[derive(Debug, Default)]
struct Threads {
    known: HashMap<(u32, u64), Seen>,
    /// Number of the look.
    look: u32,
    /// Looks at threads that there was no room for.
    not_followed: u64,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    minor: u64,
    major: u64,
    look: u32,
}

impl Threads {
    /// What a thread had since it was looked at last, or since it began.
    fn advance(&mut self, faults: &ThreadFaults, ended: bool) -> Option<(u64, u64)> {
        let ThreadKey { pid, started_ns } = ThreadKey::decode(&faults.thread)?;
        let key = (pid, started_ns);
        let seen = Seen { minor: faults.minor, major: faults.major, look: self.look };
        let before = if ended {
            self.known.remove(&key)
        } else if self.known.len() < MAX_THREADS || self.known.contains_key(&key) {
            self.known.insert(key, seen)
        } else {
            self.not_followed += 1;
            return None;
        };
        let (minor, major) = before.map_or((0, 0), |b| (b.minor, b.major));
        Some((faults.minor.saturating_sub(minor), faults.major.saturating_sub(major)))
    }

    /// Forgets threads that two looks have not found: they ended, and the filter did not let that be told.
    fn end_look(&mut self) {
        let look = self.look;
        self.known.retain(|_, seen| look.wrapping_sub(seen.look) < 2);
        self.look = look.wrapping_add(1);
    }
}

/// Page faults from the kernel's own counters.
#[derive(Debug)]
pub struct Accounting {
    iterator: Link,
    ended: Hash<[u8; ThreadKey::SIZE], [u8; ThreadFaults::SIZE]>,
    /// Room for threads that ended, how many did since the start, and of how many that was told.
    room: u64,
    ended_count: Global<u64>,
    taken: u64,
    threads: Threads,
    bytes: Vec<u8>,
}

impl Accounting {
    /// Looks at every thread for the first time: what they had before does not count. What ends from then on must be told of
    /// already.
    ///
    /// # Errors
    ///
    /// The kernel does not run the iterator.
    pub fn begin(object: &Object, iterator: Link) -> Result<Self> {
        let table = object.map("ended").map_err(Error::Load)?;
        let mut all = Self {
            iterator,
            ended: Hash::new(table).map_err(Error::Load)?,
            room: table.max_entries().into(),
            ended_count: object.global("threads_ended").map_err(Error::Load)?,
            taken: 0,
            threads: Threads::default(),
            bytes: Vec::new(),
        };
        all.skip()?;
        Ok(all)
    }

    /// Adds what each process had since the last look.
    ///
    /// # Errors
    ///
    /// The kernel does not run the iterator, or the table cannot be read.
    pub fn collect(&mut self, to: &mut BTreeMap<u32, ProcessFaults>) -> Result<()> {
        // The living first: were one to end in between, its end would be counted from what the look found.
        self.look(|faults, (minor, major)| add(to, faults, minor, major))?;
        self.take_ended(|faults, (minor, major)| add(to, faults, minor, major))?;
        self.threads.end_look();
        Ok(())
    }

    /// Adds what threads had that have ended, if they take so much room that there may soon be none for more.
    ///
    /// # Errors
    ///
    /// The table cannot be read.
    pub fn make_room(&mut self, to: &mut BTreeMap<u32, ProcessFaults>) -> Result<()> {
        if self.waiting() < self.room / 4 {
            return Ok(());
        }
        self.take_ended(|faults, (minor, major)| add(to, faults, minor, major))
    }

    /// Lets what each process had since the last look go uncounted.
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect).
    pub fn skip(&mut self) -> Result<()> {
        self.collect(&mut BTreeMap::new())
    }

    /// Threads that ended and were not taken out yet; of how many there is room for.
    pub fn fill(&self) -> (u64, u64) {
        (self.waiting(), self.room)
    }

    fn waiting(&self) -> u64 {
        self.ended_count.get().saturating_sub(self.taken)
    }

    /// Looks at threads that there was no room for.
    pub fn not_followed(&self) -> u64 {
        self.threads.not_followed
    }

    fn look(&mut self, mut each: impl FnMut(&ThreadFaults, (u64, u64))) -> Result<()> {
        self.bytes.clear();
        let mut file = self.iterator.iter().map_err(Error::Load)?;
        file.read_to_end(&mut self.bytes).map_err(Error::io("the threads' page faults"))?;
        for faults in self.bytes.chunks_exact(ThreadFaults::SIZE).filter_map(ThreadFaults::decode) {
            if let Some(since) = self.threads.advance(&faults, false) {
                each(&faults, since);
            }
        }
        Ok(())
    }

    fn take_ended(&mut self, mut each: impl FnMut(&ThreadFaults, (u64, u64))) -> Result<()> {
        let mut batches = self.ended.take_batches(BATCH);
        while let Some((_, values)) = batches.next().map_err(Error::Kernel)? {
            self.taken += values.len() as u64;
            for faults in values.iter().filter_map(|value| ThreadFaults::decode(value)) {
                if let Some(since) = self.threads.advance(&faults, true) {
                    each(&faults, since);
                }
            }
        }
        Ok(())
    }
}

fn add(to: &mut BTreeMap<u32, ProcessFaults>, faults: &ThreadFaults, minor: u64, major: u64) {
    if faults.wanted != 0 && minor + major > 0 {
        let process = to.entry(faults.tgid).or_default();
        process.minor += minor;
        process.major += major;
        process.comm = faults.comm;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(pid: u8, minor: u64, major: u64) -> ThreadFaults {
        let mut thread = [0; ThreadKey::SIZE];
        thread[0] = pid;
        ThreadFaults { thread, tgid: 1, wanted: 1, minor, major, comm: [0; 16] }
    }

    #[test]
    fn what_is_counted_is_the_difference_of_two_looks() {
        let mut threads = Threads::default();
        assert_eq!(threads.advance(&thread(1, 10, 1), false), Some((10, 1)));
        threads.end_look();
        assert_eq!(threads.advance(&thread(1, 15, 1), false), Some((5, 0)));
        assert_eq!(threads.advance(&thread(2, 3, 0), true), Some((3, 0)), "born and ended between two looks");
        assert_eq!(threads.advance(&thread(1, 16, 2), true), Some((1, 1)), "its end follows the look");
        assert!(threads.known.is_empty());
    }

    #[test]
    fn threads_that_are_gone_are_forgotten() {
        let mut threads = Threads::default();
        threads.advance(&thread(1, 10, 1), false);
        for _ in 0..2 {
            assert_eq!(threads.known.len(), 1);
            threads.end_look();
        }
        threads.end_look();
        assert!(threads.known.is_empty());
    }

    #[test]
    fn what_the_filter_keeps_out_is_followed_but_not_counted() {
        let mut to = BTreeMap::new();
        add(&mut to, &ThreadFaults { wanted: 0, ..thread(1, 1, 1) }, 1, 1);
        add(&mut to, &thread(2, 1, 1), 0, 0);
        assert!(to.is_empty());
        add(&mut to, &thread(2, 1, 1), 1, 0);
        add(&mut to, &thread(3, 1, 1), 1, 1);
        assert_eq!(to[&1], ProcessFaults { minor: 2, major: 1, comm: [0; 16] });
    }
}
