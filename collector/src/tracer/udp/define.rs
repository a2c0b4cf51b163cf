//! What the UDP tracer tells, and how it gets at it.

use crate::telemetry::{Column, Definitions, Instrument, Metric, Show, Subject, View};
use crate::tracer::ladder::{Ladder, Rung};
use crate::tracer::{Info, tcp};

pub(super) const DIRECTION: &str = "network.io.direction";
pub(super) const TRANSPORT: &str = "network.transport";

/// The UDP tracer.
pub static INFO: Info = Info {
    name: "udp",
    command: "network",
    about: "UDP: bytes, datagrams and drops by process",
    telemetry: Definitions { metrics: &[&NETWORK_IO, &DATAGRAMS, &DROPS], ..Definitions::NONE },
    views: &[&PROCESSES],
    ladders: &[&TRAFFIC, &FULL_SOCKETS],
    on_by_default: true,
    keys: &[],
    start: super::start,
};

/// Payload; the same metric as TCP's, told apart by the transport.
pub static NETWORK_IO: Metric = Metric {
    name: tcp::NETWORK_IO.name,
    unit: tcp::NETWORK_IO.unit,
    description: tcp::NETWORK_IO.description,
    instrument: Instrument::Counter,
    subject: Subject::Process,
    attributes: &[DIRECTION, TRANSPORT],
    source: TRAFFIC.what,
};

/// Sends and receives.
pub static DATAGRAMS: Metric = Metric {
    name: "ebpf.udp.datagrams",
    unit: "{datagram}",
    description: "UDP datagrams sent and received, as calls that succeeded; what one call splits or puts together (UDP_SEGMENT, UDP_GRO, MSG_MORE) counts by calls",
    instrument: Instrument::Counter,
    subject: Subject::Process,
    attributes: &[DIRECTION],
    source: TRAFFIC.what,
};

/// Receive buffers that were full.
pub static DROPS: Metric = Metric {
    name: "ebpf.udp.drops",
    unit: "{datagram}",
    description: "UDP datagrams for which a socket's receive buffer had no room, told once the process receives from the socket again, if it does within a minute",
    instrument: Instrument::Counter,
    subject: Subject::Process,
    attributes: &[],
    source: FULL_SOCKETS.what,
};

/// Where datagrams are sent and received.
pub static TRAFFIC: Ladder = Ladder {
    what: "UDP traffic",
    rungs: &[
        Rung {
            name: "fexit",
            programs: &["send_fexit", "send6_fexit", "receive_fexit", "receive6_fexit"],
            since: "5.13, 6.4 on arm64",
            drawback: "before 6.5, files sent by sendfile or splice are not counted",
        },
        Rung {
            name: "tp_btf",
            programs: &["send_btf", "receive_btf"],
            since: "6.3",
            drawback: "costs sends and receives of other sockets a little",
        },
        Rung { name: "raw_tp", programs: &["send_raw", "receive_raw"], since: "6.3", drawback: "as tp_btf" },
        Rung {
            name: "kprobe",
            programs: &[super::CONSUME, "send_kretprobe", "send6_kretprobe", "send_kprobe", "send6_kprobe"],
            since: "5.8",
            drawback: "as fexit; costs more; the kernel skips samples of the CPU profiler meanwhile",
        },
        Rung {
            name: "kretprobe",
            programs: &[
                "send_kretprobe",
                "send6_kretprobe",
                "receive_kretprobe",
                "receive6_kretprobe",
                "send_kprobe",
                "send6_kprobe",
                "receive_kprobe",
                "receive6_kprobe",
            ],
            since: "5.8",
            drawback: "as kprobe; receives are missed while more threads wait for datagrams than the kernel keeps returns for, on 5.10 one a CPU",
        },
    ],
    required: true,
};

/// Where datagrams are dropped.
pub static FULL_SOCKETS: Ladder = Ladder {
    what: "UDP drops",
    rungs: &[
        Rung { name: "tp_btf", programs: &["drop_btf"], since: "5.8", drawback: "" },
        Rung { name: "raw_tp", programs: &["drop_raw"], since: "5.8", drawback: "" },
    ],
    required: false,
};

/// A row a process.
static PROCESSES: View = View {
    title: "UDP by process",
    rows: "processes",
    by_process: true,
    by: &[],
    columns: &[
        Column {
            heading: "SENT",
            metric: &NETWORK_IO,
            only: &[(DIRECTION, "transmit"), (TRANSPORT, "udp")],
            show: Show::Bytes,
        },
        Column {
            heading: "RECEIVED",
            metric: &NETWORK_IO,
            only: &[(DIRECTION, "receive"), (TRANSPORT, "udp")],
            show: Show::Bytes,
        },
        Column { heading: "SENDS", metric: &DATAGRAMS, only: &[(DIRECTION, "transmit")], show: Show::Number },
        Column {
            heading: "RECEIVES",
            metric: &DATAGRAMS,
            only: &[(DIRECTION, "receive")],
            show: Show::Number,
        },
        Column { heading: "DROPS", metric: &DROPS, only: &[], show: Show::Number },
    ],
};
