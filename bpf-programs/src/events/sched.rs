//! What `sched.bpf.c` writes.

use super::record;

record! {
    /// Sums of a process in a window, on one CPU.
    pub struct Sums = "sums", 240 {
        /// Waits for a CPU: 44 counters of 32 bits, one a slot of `exponential.h` at scale 0.
        slots: [u8; 176] = 0,
        /// Waits too short for a slot.
        zero: u32 = 176,
        /// Times that a thread left the CPU by itself.
        voluntary: u32 = 180,
        /// Times that a thread was made to leave.
        involuntary: u32 = 184,
        /// Sum of the waits.
        run_queue_ns: u64 = 192,
        /// Time off the CPU after a thread was made to leave.
        preempted_ns: u64 = 200,
        /// Time off the CPU in waits that signals interrupt.
        sleeping_ns: u64 = 208,
        /// Time off the CPU in waits that signals do not interrupt.
        blocked_ns: u64 = 216,
        /// Name of the thread that was seen first, on the CPU that saw it; zeros on others.
        comm: [u8; 16] = 224,
    }
}

record! {
    /// What became of it all on one CPU, since the start.
    pub struct Counts = "cpu_counts", 24 {
        /// Times that there was something to count.
        hits: u64 = 0,
        /// Threads that found no room.
        threads_full: u64 = 8,
        /// Times that a process' sums found no room.
        processes_full: u64 = 16,
    }
}

impl Sums {
    /// The counters of the slots.
    pub fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.slots.chunks_exact(4).filter_map(|slot| Some(u32::from_ne_bytes(slot.try_into().ok()?)))
    }
}
