//! Page faults.
//!
//! The kernel counts every thread's itself, so a window's are the difference of two looks: nothing runs when a fault happens.
//! Threads that live are looked at through an iterator; of threads that end, a program at their end leaves what they had.
//! Of a thread that has begun to end, the iterator tells only that it is there, and its end is told once: what is known of it is
//! kept until then, however long that takes.

use std::io::{self, BufRead, BufReader, Read};

use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::map::{Global, Hash};
use bpf_programs::events::memory::{ENDING, ThreadFaults, ThreadKey, WANTED};

use crate::error::{Error, Result};
use crate::sorted::SortedMap;

/// Threads that are followed at once.
const MAX_THREADS: usize = 1 << 18;
/// Threads that ended, read at a time.
const BATCH: usize = 1024;
/// Bytes of living threads, read at a time.
const READ_BYTES: usize = 16 << 10;

/// Page faults of a process in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessFaults {
    pub minor: u64,
    pub major: u64,
    pub comm: [u8; 16],
}

/// What each thread had when it was last looked at, by where the kernel has it and when it began.
#[derive(Debug, Default)]
struct Threads {
    known: SortedMap<(u64, u64), Seen>,
    /// Number of the look.
    look: u32,
    /// Whether what threads had before this look does not count: neither of those that are ending.
    begins: bool,
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
    fn advance(&mut self, faults: &ThreadFaults) -> Option<(u64, u64)> {
        let ThreadKey { task, started_ns } = ThreadKey::decode(&faults.thread)?;
        let before = self.take(task, started_ns, faults.ended_ns);
        if faults.ended_ns == 0 {
            let is_ending = faults.flags & ENDING != 0;
            if is_ending && before.is_none() && !self.begins {
                return None;
            }
            if before.is_none() && self.known.len() >= MAX_THREADS {
                self.not_followed += 1;
                return None;
            }
            let now = Seen { minor: faults.minor, major: faults.major, look: self.look };
            let kept = before.filter(|_| is_ending).map_or(now, |before| Seen { look: self.look, ..before });
            self.known.insert((task, started_ns), kept);
            if is_ending {
                return None;
            }
        }
        let (minor, major) = before.map_or((0, 0), |b| (b.minor, b.major));
        Some((faults.minor.saturating_sub(minor), faults.major.saturating_sub(major)))
    }

    /// Takes out what is known of a thread. One that execs takes over when its process began, which is before itself; no other
    /// can have begun in its place while it was there.
    fn take(&mut self, task: u64, started_ns: u64, ended_ns: u64) -> Option<Seen> {
        if let Some(seen) = self.known.remove(&(task, started_ns)) {
            return Some(seen);
        }
        let until = if ended_ns == 0 { u64::MAX } else { ended_ns.max(started_ns) };
        let (&key, _) =
            self.known.last_up_to(&(task, until)).filter(|(key, _)| **key > (task, started_ns))?;
        self.known.remove(&key)
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
}

impl Accounting {
    /// Looks at every thread for the first time: what they had before does not count. What ends from then on must be told of
    /// already.
    ///
    /// # Errors
    ///
    /// The kernel does not run the iterator.
    pub fn begin(object: &Object, iterator: Link) -> Result<Self> {
        let table = object.map("ended").map_err(Error::load)?;
        let mut all = Self {
            iterator,
            ended: Hash::new(table).map_err(Error::load)?,
            room: table.max_entries().into(),
            ended_count: object.global("threads_ended").map_err(Error::load)?,
            taken: 0,
            threads: Threads::default(),
        };
        all.skip()?;
        Ok(all)
    }

    /// Adds what each process had since the last look.
    ///
    /// # Errors
    ///
    /// The kernel does not run the iterator, or the table cannot be read.
    pub fn collect(&mut self, to: &mut SortedMap<u32, ProcessFaults>) -> Result<()> {
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
    pub fn make_room(&mut self, to: &mut SortedMap<u32, ProcessFaults>) -> Result<()> {
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
        self.threads.begins = true;
        let skipped = self.collect(&mut SortedMap::new());
        self.threads.begins = false;
        skipped
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
        let Self { iterator, threads, .. } = self;
        let file = iterator.iter().map_err(Error::load)?;
        let read = read_records(file, |record| {
            if let Some((faults, since)) = ThreadFaults::decode(record)
                .and_then(|faults| threads.advance(&faults).map(|since| (faults, since)))
            {
                each(&faults, since);
            }
        });
        read.map_err(Error::io("the threads' page faults"))
    }

    fn take_ended(&mut self, mut each: impl FnMut(&ThreadFaults, (u64, u64))) -> Result<()> {
        let mut batches = self.ended.take_batches(BATCH);
        while let Some((_, values)) = batches.next().map_err(Error::kernel)? {
            self.taken += values.len() as u64;
            for faults in values.iter().filter_map(|value| ThreadFaults::decode(value)) {
                if let Some(since) = self.threads.advance(&faults) {
                    each(&faults, since);
                }
            }
        }
        Ok(())
    }
}

/// Hands over records as they come, so that not all of them are in memory at once.
fn read_records(from: impl Read, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut from = BufReader::with_capacity(READ_BYTES, from);
    let mut record = [0; ThreadFaults::SIZE];
    loop {
        match from.fill_buf() {
            Ok([]) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        from.read_exact(&mut record)?;
        each(&record);
    }
}

fn add(to: &mut SortedMap<u32, ProcessFaults>, faults: &ThreadFaults, minor: u64, major: u64) {
    if faults.flags & WANTED != 0 && minor + major > 0 {
        let process = to.entry(faults.tgid).or_default();
        process.minor += minor;
        process.major += major;
        process.comm = faults.comm;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A living thread.
    fn thread(task: u64, started_ns: u64, minor: u64, major: u64) -> ThreadFaults {
        let mut thread = [0; ThreadKey::SIZE];
        thread[..8].copy_from_slice(&task.to_ne_bytes());
        thread[8..].copy_from_slice(&started_ns.to_ne_bytes());
        ThreadFaults { thread, tgid: 1, flags: WANTED, minor, major, ended_ns: 0, comm: [0; 16] }
    }

    fn ended(ended_ns: u64, faults: ThreadFaults) -> ThreadFaults {
        ThreadFaults { ended_ns, ..faults }
    }

    fn ending(faults: ThreadFaults) -> ThreadFaults {
        ThreadFaults { flags: WANTED | ENDING, ..faults }
    }

    #[test]
    fn what_is_counted_is_the_difference_of_two_looks() {
        let mut threads = Threads::default();
        assert_eq!(threads.advance(&thread(1, 5, 10, 1)), Some((10, 1)));
        threads.end_look();
        assert_eq!(threads.advance(&thread(1, 5, 15, 1)), Some((5, 0)));
        let between = ended(9, thread(2, 6, 3, 0));
        assert_eq!(threads.advance(&between), Some((3, 0)), "born and ended between two looks");
        assert_eq!(threads.advance(&ended(9, thread(1, 5, 16, 2))), Some((1, 1)), "its end follows the look");
        assert!(threads.known.is_empty());
    }

    #[test]
    fn threads_that_take_long_to_end_are_told_once() {
        let mut threads = Threads::default();
        assert_eq!(threads.advance(&thread(1, 5, 10, 0)), Some((10, 0)));
        for _ in 0..5 {
            threads.end_look();
            assert_eq!(threads.advance(&ending(thread(1, 5, 12, 0))), None);
        }
        assert_eq!(threads.advance(&ended(9, thread(1, 5, 13, 0))), Some((3, 0)));
        assert_eq!(threads.advance(&ending(thread(1, 5, 13, 0))), None, "until its parent takes notice");
        assert!(threads.known.is_empty());
    }

    #[test]
    fn threads_that_were_ending_at_first_count_from_then() {
        let mut threads = Threads { begins: true, ..Threads::default() };
        assert_eq!(threads.advance(&ending(thread(1, 5, 10, 0))), None);
        threads.end_look();
        threads.begins = false;
        assert_eq!(threads.advance(&ended(9, thread(1, 5, 13, 0))), Some((3, 0)));
    }

    #[test]
    fn a_thread_that_execs_is_the_same_though_its_start_is_not() {
        let mut threads = Threads::default();
        assert_eq!(threads.advance(&thread(1, 5, 100, 0)), Some((100, 0)));
        assert_eq!(threads.advance(&thread(2, 7, 30, 0)), Some((30, 0)));
        threads.end_look();
        // The second execs: the first ends, and the second began when the first did from now on.
        assert_eq!(threads.advance(&thread(2, 5, 34, 0)), Some((4, 0)));
        assert_eq!(threads.advance(&ended(8, thread(1, 5, 101, 0))), Some((1, 0)));
        threads.end_look();
        assert_eq!(threads.advance(&ended(9, thread(2, 5, 35, 0))), Some((1, 0)));
        assert!(threads.known.is_empty());
    }

    #[test]
    fn a_thread_in_the_place_of_another_is_not_the_same() {
        let mut threads = Threads::default();
        assert_eq!(threads.advance(&thread(1, 20, 10, 0)), Some((10, 0)));
        assert_eq!(threads.advance(&ended(15, thread(1, 10, 7, 0))), Some((7, 0)), "it was there before");
        assert_eq!(threads.advance(&thread(1, 30, 3, 0)), Some((3, 0)), "and that is there since");
        assert_eq!(threads.advance(&ended(25, thread(1, 20, 11, 0))), Some((1, 0)));
    }

    #[test]
    fn threads_that_are_gone_are_forgotten() {
        let mut threads = Threads::default();
        threads.advance(&thread(1, 5, 10, 1));
        for _ in 0..2 {
            assert_eq!(threads.known.len(), 1);
            threads.end_look();
        }
        threads.end_look();
        assert!(threads.known.is_empty());
    }

    #[test]
    fn what_the_filter_keeps_out_is_followed_but_not_counted() {
        let mut to = SortedMap::new();
        add(&mut to, &ThreadFaults { flags: 0, ..thread(1, 5, 1, 1) }, 1, 1);
        add(&mut to, &thread(2, 5, 1, 1), 0, 0);
        assert!(to.is_empty());
        add(&mut to, &thread(2, 5, 1, 1), 1, 0);
        add(&mut to, &thread(3, 5, 1, 1), 1, 1);
        assert_eq!(to.get(&1), Some(&ProcessFaults { minor: 2, major: 1, comm: [0; 16] }));
    }

    /// Reads pieces of a size that no record has.
    struct Pieces<'a>(&'a [u8]);

    impl Read for Pieces<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let n = to.len().min(37);
            self.0.read(&mut to[..n])
        }
    }

    #[test]
    fn records_are_read_in_whatever_pieces_they_come() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000 * ThreadFaults::SIZE).collect();
        let mut read = Vec::new();
        read_records(Pieces(&bytes), |record| read.extend_from_slice(record)).unwrap();
        assert!(read == bytes);
        let cut = read_records(Pieces(&bytes[..100]), |_| {});
        assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
