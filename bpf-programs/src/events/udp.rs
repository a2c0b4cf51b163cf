//! What `udp.bpf.c` counts.

use super::record;

record! {
    /// What a process did in a window.
    pub struct Sums = "udp_sums", 56 {
        /// Payload sent.
        sent_bytes: u64 = 0,
        /// Calls that sent it.
        sends: u64 = 8,
        /// Payload received.
        received_bytes: u64 = 16,
        /// Calls that received it.
        receives: u64 = 24,
        /// Datagrams dropped, of sockets that the process received from afterwards.
        drops: u64 = 32,
        /// `comm` of the thread seen first, zero-terminated.
        comm: [u8; 16] = 40,
    }
}

record! {
    /// What became of everything on one CPU, since the programs were loaded.
    pub struct Stats = "udp_stats", 40 {
        /// Sends and receives, whatever the filter.
        hits: u64 = 0,
        /// Of those that are looked at, these found no room in the table.
        processes_full: u64 = 8,
        /// Calls whose end could not be awaited.
        calls_full: u64 = 16,
        /// Datagrams dropped, whoever's.
        drops: u64 = 24,
        /// Of these, those whose socket found no room in the table.
        sockets_full: u64 = 32,
    }
}

record! {
    /// Datagrams dropped that wait for somebody to receive from their socket.
    pub struct WaitingDrops = "waiting_drops", 16 {
        /// How many.
        count: u64 = 0,
        /// When the last came (`CLOCK_BOOTTIME`).
        last: u64 = 8,
    }
}
