//! TCP connections: who connects and accepts, how long it takes, what fails, bytes, retransmits and round-trip times.
//!
//! | file | what it does |
//! |---|---|
//! | `define.rs` | what it tells |
//! | `ladders.rs` | how it gets at it |
//! | `program.rs` | loads the BPF programs, sized for the memory there is; swaps their two windows; walks over sockets |
//! | `ledger.rs` | bytes of connections that live and of those that ended, each counted once |
//! | `listen.rs` | connections that found no room in a queue, from each network namespace's own counters |
//! | `living.rs` | what connections that live have done, where the kernel has no iterators |
//! | `tell.rs` | records to points and spans |
//! | `tracer.rs` | all of it as one tracer among others |
//!
//! Connections are followed from the SYN. Those that were there before the tracer are taken up when it starts, and counted from
//! then on; whose they are shows when their process uses them. What fails before a SYN (no route, say) is no connection.
//!
//! A kernel runs no program of ours while the same program runs on the same CPU, so a transition in an interrupt that hits a
//! program is missed; the kernel counts it, and so do [`Stats`](super::Stats), as `skipped by the kernel`.

mod define;
mod ladders;
mod ledger;
mod listen;
mod living;
mod program;
mod tell;
mod tracer;
mod views;

pub use define::{
    CONNECT_DURATION, CONNECTION, CONNECTION_DURATION, CONNECTIONS, DROPS, LISTEN_DROPS, LISTEN_OVERFLOWS,
    NETWORK_IO, RETRANSMITS, RTT, SEGMENTS,
};
pub use ladders::{ACCEPTING, DROP_REASONS, LISTEN, LIVING, OLDER, STATES};
pub use tracer::INFO;

use crate::key::{Key, Value};
use crate::tracer::Settings as AllSettings;

/// Settings of the TCP tracer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Most spans in a second; connections beyond are counted all the same.
    pub spans_per_second: u32,
    /// How many peers may have series of their own at once: the first that come, while they do something; all others share
    /// one. 0: peers are not told apart.
    pub peers: u32,
    /// Whether dropped packets are counted by reason. Off, as it costs something for every packet of any kind that the kernel
    /// drops: one of each ordinary connection, and most in a flood, when there is least to spare.
    pub drops: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { spans_per_second: 100, peers: 0, drops: false }
    }
}

/// Its keys of the configuration.
static KEYS: &[Key<AllSettings>] = &Key::<AllSettings>::table([
    Key {
        name: "spans_per_second",
        doc: "Most spans in a second; connections beyond are counted all the same.",
        get: |settings| Value::Int(settings.tcp.spans_per_second.into()),
        set: |settings, v| v.whole(0..=u32::MAX).map(|n| settings.tcp.spans_per_second = n),
    },
    Key {
        name: "peers",
        doc: "How many peers may have series of their own at once: the first that come, while they do something; all\n\
              others share one. 0: peers are not told apart.",
        get: |settings| Value::Int(settings.tcp.peers.into()),
        set: |settings, v| v.whole(0..=u32::MAX).map(|n| settings.tcp.peers = n),
    },
    Key {
        name: "drops",
        doc: "Whether dropped packets are counted by reason. Costs something for every packet that the kernel drops:\n\
              one of each ordinary connection, and all of a flood.",
        get: |settings| Value::Bool(settings.tcp.drops),
        set: |settings, v| v.boolean().map(|drops| settings.tcp.drops = drops),
    },
]);
