//! How the TCP tracer gets at things.

use crate::tracer::ladder::{Ladder, Rung};

const NO_DRAWBACK: &str = "";
/// The rung of [`LIVING`] that needs no program.
pub(super) const SOCK_DIAG: &str = "sock_diag";

/// Where connections begin and end.
pub static STATES: Ladder = Ladder {
    what: "TCP states",
    rungs: &[
        Rung { name: "tp_btf", programs: &["states_btf"], since: "5.9", drawback: NO_DRAWBACK },
        Rung {
            name: "raw_tp",
            programs: &["states_raw"],
            since: "5.8",
            drawback: "costs more: reads the socket's fields one by one through a helper",
        },
        Rung {
            name: "tracepoint",
            programs: &["states_classic"],
            since: "5.8",
            drawback: "needs tracefs; the kernel skips samples of the CPU profiler meanwhile",
        },
    ],
    required: true,
};

/// Whose a connection is that was accepted: passive opens happen in the context of whatever is interrupted.
pub static ACCEPTING: Ladder = Ladder {
    what: "accepting process",
    rungs: &[
        Rung {
            name: "fexit",
            programs: &["accept_fexit"],
            since: "5.13, 6.4 on arm64",
            drawback: "connections from before the tracer, and those of accept calls in flight when it starts, show whose they are when they are closed",
        },
        Rung {
            name: "use",
            programs: &["receive_btf", "send_btf"],
            since: "6.4",
            drawback: "seen when the process first sends, receives or closes; costs each of those a little",
        },
        Rung {
            name: "kprobe",
            programs: &["accept_kprobe"],
            since: "5.8, with CONFIG_SECURITY_NETWORK",
            drawback: "as fexit, and the kernel skips samples of the CPU profiler meanwhile; of MPTCP, whose a connection is shows when it is used or closed",
        },
        Rung {
            name: "kretprobe",
            programs: &["accept_kretprobe"],
            since: "5.8",
            drawback: "as kprobe; not seen while more threads wait for connections than the kernel keeps returns for, on 5.10 one a CPU",
        },
        Rung {
            name: "receive",
            programs: &["receive_btf"],
            since: "5.8",
            drawback: "seen when the process first receives or closes; costs each receive a little",
        },
        Rung { name: "receive raw_tp", programs: &["receive_raw"], since: "5.8", drawback: "as receive" },
        Rung {
            name: "receive tracepoint",
            programs: &["receive_classic"],
            since: "5.8",
            drawback: "as receive; needs tracefs; the kernel skips samples of the CPU profiler meanwhile",
        },
        Rung {
            name: "accept exit",
            programs: &["accept_exit", "accept4_exit"],
            since: "5.8",
            drawback: "slows down every system call of the machine; needs tracefs; does not see 32-bit processes of a 64-bit kernel",
        },
    ],
    required: false,
};

/// What connections that live have done so far.
pub static LIVING: Ladder = Ladder {
    what: "living TCP connections",
    rungs: &[
        Rung {
            name: "iterator",
            programs: &["living_connections"],
            since: "5.9",
            drawback: "bytes show when the process is known",
        },
        Rung {
            name: SOCK_DIAG,
            programs: &[],
            since: "5.8",
            drawback: "as iterator; costs more, and namespaces without a process are not seen",
        },
    ],
    required: false,
};

/// Connections that are there before the tracer is.
pub static OLDER: Ladder = Ladder {
    what: "older TCP connections",
    rungs: &[Rung {
        name: "iterator",
        programs: &["older_connections"],
        since: "5.9",
        drawback: "namespaces without a process are not seen",
    }],
    required: false,
};

/// Connections that found no room in a queue.
pub static LISTEN: Ladder = Ladder {
    what: "listen overflows",
    rungs: &[Rung {
        name: "netstat",
        programs: &[],
        since: "5.8",
        drawback: "by machine, and not in namespaces without a process",
    }],
    required: false,
};

/// Why packets are dropped. Only where the settings ask for it.
pub static DROP_REASONS: Ladder = Ladder {
    what: "TCP drops",
    rungs: &[Rung {
        name: "tp_btf",
        programs: &["drop_reasons"],
        since: "5.17",
        drawback: "costs something for each packet dropped",
    }],
    required: false,
};
