//! What people see.

use super::define::{
    CONNECT_DURATION, CONNECTION_DURATION, CONNECTIONS, LISTEN_DROPS, LISTEN_OVERFLOWS, NETWORK_IO,
    RETRANSMITS, RTT,
};
use crate::telemetry::{Column, Show, View};

/// A row for each process and role.
pub static PROCESSES: View = View {
    title: "TCP connections that ended, by process and role",
    rows: "processes",
    by_process: true,
    by: &[("ebpf.tcp.role", "ROLE")],
    columns: &[
        Column { heading: "ENDED", metric: &CONNECTIONS, only: &[], show: Show::Number },
        Column { heading: "CONNECT", metric: &CONNECT_DURATION, only: &[], show: Show::Percentile(50) },
        Column { heading: "LASTED", metric: &CONNECTION_DURATION, only: &[], show: Show::Percentile(50) },
        Column { heading: "RTT", metric: &RTT, only: &[], show: Show::Percentile(50) },
        Column { heading: "RETRANS", metric: &RETRANSMITS, only: &[], show: Show::Number },
        Column { heading: "FAILED", metric: &CONNECTIONS, only: &[], show: Show::Most("error.type") },
    ],
};

/// A row a process, living connections included.
pub static TRAFFIC: View = View {
    title: "TCP bytes by process",
    rows: "processes",
    by_process: true,
    by: &[],
    columns: &[
        Column {
            heading: "SENT",
            metric: &NETWORK_IO,
            only: &[("network.io.direction", "transmit"), ("network.transport", "tcp")],
            show: Show::Bytes,
        },
        Column {
            heading: "RECEIVED",
            metric: &NETWORK_IO,
            only: &[("network.io.direction", "receive"), ("network.transport", "tcp")],
            show: Show::Bytes,
        },
    ],
};

/// What the machine could not take.
pub static LISTENERS: View = View {
    title: "Connections that listeners lost",
    rows: "",
    by_process: false,
    by: &[],
    columns: &[
        Column { heading: "OVERFLOW", metric: &LISTEN_OVERFLOWS, only: &[], show: Show::Number },
        Column { heading: "DROPPED", metric: &LISTEN_DROPS, only: &[], show: Show::Number },
    ],
};
