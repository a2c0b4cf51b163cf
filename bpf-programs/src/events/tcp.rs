//! What `tcp.bpf.c` writes.

use super::record;

/// Scale of the histograms: two buckets an octave.
pub const SCALE: u8 = 1;
/// Slots of a histogram.
pub const SLOTS: usize = 44 << SCALE;

/// [`SeriesKey::role`] of who connects.
pub const CLIENT: u8 = 1;
/// [`SeriesKey::role`] of who accepts.
pub const SERVER: u8 = 2;

/// [`Followed::told_under`] of a connection that is told under its peer.
pub const OWN_PEER: u16 = 1;
/// [`Followed::told_under`] of a connection that is told among those of other peers.
pub const OTHER_PEERS: u16 = 2;

/// [`Event::kind`](super::ring::Event::kind) of a [`Connection`].
pub const CONNECTION: u32 = 1;

record! {
    /// A connection that is followed, by its socket.
    pub struct Followed = "connection", 72 {
        /// When it began.
        start_ns: u64 = 0,
        /// What its socket had counted before: payload that the peer acknowledged.
        base_acked: u64 = 16,
        /// Payload received.
        base_received: u64 = 24,
        /// Segments sent again.
        base_retransmits: u32 = 32,
        /// Segments sent.
        base_segments_sent: u32 = 36,
        /// Segments received.
        base_segments_received: u32 = 40,
        /// Process.
        tgid: u32 = 44,
        /// Name of a thread of the process, zero-terminated.
        comm: [u8; 16] = 48,
        /// [`CLIENT`] or [`SERVER`].
        role: u32 = 64,
        /// Not 0 where the process is known.
        owner_known: u16 = 68,
        /// [`OWN_PEER`] or [`OTHER_PEERS`]; 0 where that is not decided yet, and where peers are not told apart.
        told_under: u16 = 70,
    }
}

record! {
    /// The two ends of a connection.
    pub struct Endpoints = "endpoints", 44 {
        /// Inode number of its network namespace.
        netns: u32 = 0,
        /// In network order.
        local_port: u16 = 4,
        /// In network order.
        peer_port: u16 = 6,
        /// IPv6; IPv4 as IPv6 maps it.
        local: [u8; 16] = 8,
        /// IPv6; IPv4 as IPv6 maps it.
        peer: [u8; 16] = 24,
        /// Not 0 where peers are told apart.
        peer_known: u32 = 40,
    }
}

record! {
    /// What connections are counted under.
    pub struct SeriesKey = "series_key", 24 {
        /// Process; 0 where nobody was seen to use the connection.
        tgid: u32 = 0,
        /// [`CLIENT`] or [`SERVER`].
        role: u8 = 4,
        /// An errno, of connections that failed; 0 of others and of those that live.
        error: u8 = 5,
        /// In network order; 0 for servers, and where peers are not told apart.
        peer_port: u16 = 6,
        /// IPv6; IPv4 as IPv6 maps it; zeros where peers are not told apart, and for those beyond the bound.
        peer: [u8; 16] = 8,
    }
}

impl SeriesKey {
    /// The bytes that it decodes from.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let (tgid, rest) = bytes.split_at_mut(4);
        let (role, rest) = rest.split_at_mut(1);
        let (error, rest) = rest.split_at_mut(1);
        let (port, peer) = rest.split_at_mut(2);
        tgid.copy_from_slice(&self.tgid.to_ne_bytes());
        role.copy_from_slice(&[self.role]);
        error.copy_from_slice(&[self.error]);
        port.copy_from_slice(&self.peer_port.to_ne_bytes());
        peer.copy_from_slice(&self.peer);
        bytes
    }
}

record! {
    /// A histogram.
    pub struct Durations = "durations", 368 {
        /// Their sum.
        sum_ns: u64 = 0,
        /// Those of 2^-30 s or less.
        zero: u32 = 8,
        /// The slots, four bytes each.
        slots: [u8; SLOTS * 4] = 12,
    }
}

impl Durations {
    /// Counts by slot.
    pub fn counts(&self) -> impl Iterator<Item = u64> + '_ {
        self.slots.chunks_exact(4).map(|bytes| bytes.try_into().map_or(0, u32::from_ne_bytes).into())
    }
}

record! {
    /// Sums of a window.
    pub struct Series = "series", 1168 {
        /// Payload that the peers acknowledged, of connections that ended.
        sent: u64 = 0,
        /// Payload that was received, of connections that ended.
        received: u64 = 8,
        /// Segments sent again, of connections that ended.
        retransmits: u64 = 16,
        /// Segments sent, of connections that ended.
        segments_sent: u64 = 24,
        /// Segments received, of connections that ended.
        segments_received: u64 = 32,
        /// Connections that ended.
        ended: u64 = 40,
        /// Name of a thread of the process, zero-terminated.
        comm: [u8; 16] = 48,
        /// [`Durations`] from SYN to established.
        connect: [u8; 368] = 64,
        /// [`Durations`] from established to closed.
        connection: [u8; 368] = 432,
        /// [`Durations`]: round-trip times, at the end.
        rtt: [u8; 368] = 800,
    }
}

record! {
    /// A connection that is over.
    pub struct Connection = "connection_event", 128 {
        /// When its SYN was sent; of passive opens, when it was established. Later for those that were there before.
        start_ns: u64 = 16,
        /// When it was established; 0 if it never was.
        established_ns: u64 = 24,
        /// Payload that the peer acknowledged.
        sent: u64 = 32,
        /// Payload that was received.
        received: u64 = 40,
        /// Segments sent.
        segments_sent: u32 = 48,
        /// Segments received.
        segments_received: u32 = 52,
        /// Segments sent again.
        retransmits: u32 = 56,
        /// Smoothed round-trip time; 0 where none was measured.
        rtt_us: u32 = 60,
        /// Inode number of its network namespace.
        netns: u32 = 64,
        /// An errno; 0 where all went well.
        error: u32 = 68,
        /// [`CLIENT`] or [`SERVER`].
        role: u16 = 72,
        /// The state from which it was closed.
        state: u16 = 74,
        /// In network order.
        local_port: u16 = 76,
        /// In network order.
        peer_port: u16 = 78,
        /// IPv6; IPv4 as IPv6 maps it.
        local: [u8; 16] = 80,
        /// IPv6; IPv4 as IPv6 maps it.
        peer: [u8; 16] = 96,
        /// Name of a thread of the process, zero-terminated.
        comm: [u8; 16] = 112,
    }
}

record! {
    /// Growth since a connection is followed.
    pub struct Traffic = "traffic", 32 {
        /// Payload that the peer acknowledged.
        sent: u64 = 0,
        /// Payload that was received.
        received: u64 = 8,
        /// Segments sent again.
        retransmits: u32 = 16,
        /// Smoothed round-trip time; 0 where none was measured.
        rtt_us: u32 = 20,
        /// Segments sent.
        segments_sent: u32 = 24,
        /// Segments received.
        segments_received: u32 = 28,
    }
}

record! {
    /// A connection that lives.
    pub struct Living = "living", 88 {
        /// Tells it from others that live at the same time.
        socket: u64 = 0,
        /// Tells it from others of the same socket.
        start_ns: u64 = 8,
        /// A [`Traffic`].
        traffic: [u8; 32] = 16,
        /// A [`SeriesKey`].
        key: [u8; 24] = 48,
        /// Name of a thread of the process, zero-terminated.
        comm: [u8; 16] = 72,
    }
}

record! {
    /// Counts of one CPU.
    pub struct Stats = "tcp_stats", 56 {
        /// Runs of programs.
        runs: u64 = 0,
        /// Connections that were not followed, for want of room.
        connections_full: u64 = 8,
        /// Ends and measurements for which the window had no room.
        series_full: u64 = 16,
        /// Spans beyond the rate.
        span_rate: u64 = 24,
        /// Spans that sampling leaves out.
        span_sampling: u64 = 32,
        /// Dropped packets whose reason found no room.
        reasons_full: u64 = 40,
        /// Connections that are counted among those of other peers, for want of room.
        peers_full: u64 = 48,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_encoded_as_they_are_decoded() {
        let bytes: [u8; SeriesKey::SIZE] = std::array::from_fn(|at| at as u8);
        assert_eq!(SeriesKey::decode(&bytes).map(|key| key.encode()), Some(bytes));
    }

    #[test]
    fn histograms_are_counts_by_slot() {
        let mut bytes = [0; Durations::SIZE];
        bytes[8..12].copy_from_slice(&7u32.to_ne_bytes());
        bytes[12 + 4 * 20..][..4].copy_from_slice(&3u32.to_ne_bytes());
        let durations = Durations::decode(&bytes).unwrap();
        assert_eq!((durations.zero, durations.counts().count()), (7, SLOTS));
        assert_eq!(durations.counts().enumerate().find(|(_, n)| *n > 0), Some((20, 3)));
        assert_eq!(Durations::decode(&bytes[1..]), None);
    }
}
