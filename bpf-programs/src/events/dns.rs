//! What `dns.bpf.c` sends.

use super::record;

/// [`Event::kind`](super::ring::Event): a query that a client sends.
pub const QUERY: u32 = 1;
/// What a client receives from a server.
pub const RESPONSE: u32 = 2;
/// Most bytes of a message that are sent: its head and any question.
pub const MAX_MESSAGE: usize = 288;

record! {
    /// A DNS message, after the head of every event.
    pub struct Message = "dns_message", 352 {
        /// The socket's cookie.
        socket: u64 = 16,
        /// The server's address; IPv4 as IPv6 maps it.
        server: [u8; 16] = 24,
        /// Of queries, `comm` of the sender's thread, zero-terminated.
        comm: [u8; 16] = 40,
        /// How much of `bytes` there is.
        length: u16 = 56,
        /// `IPPROTO_TCP` or `IPPROTO_UDP`.
        transport: u8 = 58,
        /// The message's first bytes.
        bytes: [u8; MAX_MESSAGE] = 64,
    }
}

impl Message {
    /// What there is of the message.
    pub fn message(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or(&self.bytes)
    }
}

record! {
    /// What one CPU has seen, since the programs were loaded.
    pub struct Stats = "dns_stats", 24 {
        /// Packets of all kinds.
        packets: u64 = 0,
        /// Queries over TCP of which nobody knows whose they are.
        unknown_owners: u64 = 8,
        /// Queries that found too many waiting for their answers.
        asked_full: u64 = 16,
    }
}
