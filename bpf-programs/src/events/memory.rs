//! What `memory.bpf.c` writes.

use super::record;

record! {
    /// What is summed up.
    pub struct SumKey = "sum_key", 8 {
        /// The process, by its number in the agent's pid namespace; 0 if it cannot be seen from there.
        tgid: u32 = 0,
        /// What it is of; see [`What`].
        what: u16 = 4,
        /// Of stalls, the bucket of `exponential.h` at [`STALL_SCALE`]; -1 for the zero bucket.
        slot: i16 = 6,
    }
}

record! {
    /// A sum.
    pub struct Sum = "sum", 32 {
        /// How often.
        count: u64 = 0,
        /// Bytes or nanoseconds.
        total: u64 = 8,
        /// Name of the thread that came first, zero-terminated.
        comm: [u8; 16] = 16,
    }
}

record! {
    /// A thread.
    pub struct ThreadKey = "thread_key", 16 {
        /// Where the kernel has it, which is another's once it is gone.
        task: u64 = 0,
        /// When it began; once it has taken over its process by an exec, when that began.
        started_ns: u64 = 8,
    }
}

record! {
    /// Page faults of a thread.
    pub struct ThreadFaults = "thread_faults", 64 {
        /// The thread, a [`ThreadKey`].
        thread: [u8; ThreadKey::SIZE] = 0,
        /// The process, by its number in the agent's pid namespace.
        tgid: u32 = 16,
        /// [`WANTED`] and [`ENDING`].
        flags: u32 = 20,
        /// Minor faults since it began.
        minor: u64 = 24,
        /// Major faults since it began.
        major: u64 = 32,
        /// When it ended, by the clock by which it began; 0 if it is still there.
        ended_ns: u64 = 40,
        /// Name of the process, zero-terminated.
        comm: [u8; 16] = 48,
    }
}

/// In [`ThreadFaults::flags`]: it passes the filter.
pub const WANTED: u32 = 1;
/// In [`ThreadFaults::flags`]: it has begun to end, and what it had is told by its end alone.
pub const ENDING: u32 = 2;

record! {
    /// A process that is killed for want of memory; follows the head of an event.
    pub struct OomKill = "oom_kill", 72 {
        /// Name of the process, zero-terminated.
        comm: [u8; 16] = 16,
        /// Pages of its address space.
        total_vm: u64 = 32,
        /// Resident pages that are anonymous.
        anon_rss: u64 = 40,
        /// Resident pages of files.
        file_rss: u64 = 48,
        /// Resident pages of shared memory.
        shmem_rss: u64 = 56,
        /// Its `oom_score_adj`.
        oom_score_adj: i32 = 64,
        /// Whether anything but the number is known.
        known: u32 = 68,
    }
}

record! {
    /// Counts of one CPU.
    pub struct MemoryStats = "memory_stats", 56 {
        /// Times that a program had something to count.
        hits: u64 = 0,
        /// Minor faults that the program of the perf event saw.
        minor_runs: u64 = 8,
        /// Major faults likewise.
        major_runs: u64 = 16,
        /// Sums that found no room.
        sums_full: u64 = 24,
        /// Threads that ended and found no room.
        ended_full: u64 = 32,
        /// Stalls that found no room.
        stalled_full: u64 = 40,
        /// Calls that found no room.
        in_call_full: u64 = 48,
    }
}

/// Kind of the event that an [`OomKill`] is.
pub const OOM_KILL: u32 = 1;

/// Scale of the histograms of stalls.
pub const STALL_SCALE: u8 = 2;

/// What a sum is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Minor page faults.
    MinorFault,
    /// Major page faults.
    MajorFault,
    /// Bytes mapped by `mmap`.
    Mapped,
    /// Bytes unmapped by `munmap`.
    Unmapped,
    /// Bytes that `brk` has added.
    BrkGrown,
    /// Bytes that `brk` has given back.
    BrkShrunk,
    /// Stalls for want of memory of the machine.
    MachineReclaim,
    /// Stalls at the limit of a cgroup.
    CgroupReclaim,
}

impl What {
    /// From [`SumKey::what`].
    pub fn decode(number: u16) -> Option<Self> {
        let all = [
            Self::MinorFault,
            Self::MajorFault,
            Self::Mapped,
            Self::Unmapped,
            Self::BrkGrown,
            Self::BrkShrunk,
            Self::MachineReclaim,
            Self::CgroupReclaim,
        ];
        all.get(usize::from(number).checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_numbered_from_one() {
        assert_eq!(What::decode(0), None);
        assert_eq!(What::decode(1), Some(What::MinorFault));
        assert_eq!(What::decode(8), Some(What::CgroupReclaim));
        assert_eq!(What::decode(9), None);
    }

    #[test]
    fn a_thread_is_told_from_the_next_in_its_place() {
        let mut bytes = [0; ThreadFaults::SIZE];
        (bytes[0], bytes[8], bytes[24]) = (7, 9, 3);
        let faults = ThreadFaults::decode(&bytes).unwrap();
        assert_eq!(ThreadKey::decode(&faults.thread), Some(ThreadKey { task: 7, started_ns: 9 }));
        assert_eq!((faults.minor, faults.major), (3, 0));
        assert_eq!(ThreadFaults::decode(&bytes[1..]), None);
    }
}
