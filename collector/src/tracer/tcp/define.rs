//! What the TCP tracer tells.

use super::ladders::{DROP_REASONS, LISTEN, LIVING, STATES};
use crate::telemetry::{Instrument, Metric, SpanDef, Subject};

pub(super) const ROLE: &str = "ebpf.tcp.role";
pub(super) const PEER_ADDRESS: &str = "network.peer.address";
pub(super) const PEER_PORT: &str = "network.peer.port";
pub(super) const LOCAL_ADDRESS: &str = "network.local.address";
pub(super) const LOCAL_PORT: &str = "network.local.port";
pub(super) const TRANSPORT: &str = "network.transport";
pub(super) const NETWORK_TYPE: &str = "network.type";
pub(super) const DIRECTION: &str = "network.io.direction";
pub(super) const ERROR_TYPE: &str = "error.type";
pub(super) const DROP_REASON: &str = "ebpf.tcp.drop.reason";
pub(super) const STATE: &str = "ebpf.tcp.state";
pub(super) const SENT: &str = "ebpf.tcp.bytes.sent";
pub(super) const RECEIVED: &str = "ebpf.tcp.bytes.received";
pub(super) const SEGMENTS_SENT: &str = "ebpf.tcp.segments.sent";
pub(super) const SEGMENTS_RECEIVED: &str = "ebpf.tcp.segments.received";
pub(super) const SEGMENTS_AGAIN: &str = "ebpf.tcp.segments.retransmitted";
pub(super) const SPAN_RTT: &str = "ebpf.tcp.rtt";
pub(super) const CONNECTED_AFTER: &str = "ebpf.tcp.connect.duration";
pub(super) const NETNS: &str = "ebpf.network.namespace";

/// Connections that ended.
pub static CONNECTIONS: Metric = Metric {
    name: "ebpf.tcp.connections",
    unit: "{connection}",
    description: "TCP connections that were closed or failed; ECONNABORTED stands for those that their own process cut off, while connecting or with a reset",
    instrument: Instrument::Counter,
    subject: Subject::Process,
    attributes: &[ROLE, PEER_ADDRESS, PEER_PORT, ERROR_TYPE],
    source: STATES.what,
};

/// From SYN to established.
pub static CONNECT_DURATION: Metric = Metric {
    name: "ebpf.tcp.connect.duration",
    unit: "s",
    description: "Time from a client's SYN to the established connection",
    instrument: Instrument::Histogram,
    subject: Subject::Process,
    attributes: &[ROLE, PEER_ADDRESS, PEER_PORT],
    source: STATES.what,
};

/// From established to closed.
pub static CONNECTION_DURATION: Metric = Metric {
    name: "ebpf.tcp.connection.duration",
    unit: "s",
    description: "How long connections were established, once they are closed",
    instrument: Instrument::Histogram,
    subject: Subject::Process,
    attributes: &[ROLE, PEER_ADDRESS, PEER_PORT],
    source: STATES.what,
};

/// Round-trip times.
pub static RTT: Metric = Metric {
    name: "ebpf.tcp.rtt",
    unit: "s",
    description: "The kernel's smoothed round-trip time of each connection, when it is closed and, while it lives, once a window",
    instrument: Instrument::Histogram,
    subject: Subject::Process,
    attributes: &[ROLE, PEER_ADDRESS, PEER_PORT],
    source: LIVING.what,
};

/// Segments that were sent again.
pub static RETRANSMITS: Metric = Metric {
    name: "ebpf.tcp.retransmits",
    unit: "{segment}",
    description: "Segments that were sent again, SYNs included",
    instrument: Instrument::Counter,
    subject: Subject::Process,
    attributes: &[ROLE, PEER_ADDRESS, PEER_PORT],
    source: LIVING.what,
};

/// Segments.
pub static SEGMENTS: Metric = Metric {
    name: "ebpf.tcp.segments",
    unit: "{segment}",
    description: "Segments, those without payload and those that were sent again included",
    instrument: Instrument::Counter,
    subject: Subject::Process,
    attributes: &[ROLE, DIRECTION, PEER_ADDRESS, PEER_PORT],
    source: LIVING.what,
};

/// Payload.
pub static NETWORK_IO: Metric = Metric {
    name: "process.network.io",
    unit: "By",
    description: "Payload: of TCP, what was received in order and what the peer acknowledged",
    instrument: Instrument::Counter,
    subject: Subject::Process,
    attributes: &[DIRECTION, TRANSPORT, PEER_ADDRESS, PEER_PORT],
    source: LIVING.what,
};

/// Connections for which a queue had no room.
pub static LISTEN_OVERFLOWS: Metric = Metric {
    name: "ebpf.tcp.listen.overflows",
    unit: "{connection}",
    description: "Connections, established by their clients, for which a listening socket's accept queue had no room",
    instrument: Instrument::Counter,
    subject: Subject::Host,
    attributes: &[],
    source: LISTEN.what,
};

/// Connections that listening sockets dropped.
pub static LISTEN_DROPS: Metric = Metric {
    name: "ebpf.tcp.listen.drops",
    unit: "{connection}",
    description: "SYNs and connections that listening sockets dropped, for want of room in the accept queue or for other reasons",
    instrument: Instrument::Counter,
    subject: Subject::Host,
    attributes: &[],
    source: LISTEN.what,
};

/// Packets that were dropped.
pub static DROPS: Metric = Metric {
    name: "ebpf.tcp.drops",
    unit: "{packet}",
    description: "TCP packets that the kernel dropped, by its own reason",
    instrument: Instrument::Counter,
    subject: Subject::Host,
    attributes: &[DROP_REASON],
    source: DROP_REASONS.what,
};

/// A connection.
pub static CONNECTION: SpanDef = SpanDef {
    name: "ebpf.tcp.connection",
    description: "A TCP connection from SYN (of servers: from established) to its end, for the client or for the server; there is a bound of spans in a second",
    attributes: &[
        TRANSPORT,
        NETWORK_TYPE,
        LOCAL_ADDRESS,
        LOCAL_PORT,
        PEER_ADDRESS,
        PEER_PORT,
        STATE,
        SENT,
        RECEIVED,
        SEGMENTS_SENT,
        SEGMENTS_RECEIVED,
        SEGMENTS_AGAIN,
        SPAN_RTT,
        CONNECTED_AFTER,
        NETNS,
        ERROR_TYPE,
    ],
    source: STATES.what,
};
