//! What `events.h` writes for every tracer.

use super::record;

record! {
    /// Head of every event.
    pub struct Event = "event", 16 {
        /// What it is; each program numbers its own from 1.
        kind: u32 = 0,
        /// The process, by its number in the agent's pid namespace; 0 if there is none.
        tgid: u32 = 4,
        /// When, in nanoseconds of `CLOCK_BOOTTIME`.
        boot_ns: u64 = 8,
    }
}

record! {
    /// Counts of one CPU.
    pub struct EventStats = "event_stats", 16 {
        /// Events that there were.
        produced: u64 = 0,
        /// Of these, events for which the ring had no room.
        dropped: u64 = 8,
    }
}
