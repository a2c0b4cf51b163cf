//! What people see.

use super::{FAULTS, MAPPED, OOM_KILLS, RECLAIM, USAGE};
use crate::telemetry::{Column, Show, View};

/// A row a process.
pub static PROCESSES: View = View {
    title: "Memory by process",
    rows: "processes",
    by_process: true,
    by: &[],
    columns: &[
        Column {
            heading: "MINOR",
            metric: &FAULTS,
            only: &[("system.paging.fault.type", "minor")],
            show: Show::Number,
        },
        Column {
            heading: "MAJOR",
            metric: &FAULTS,
            only: &[("system.paging.fault.type", "major")],
            show: Show::Number,
        },
        Column { heading: "RESIDENT", metric: &USAGE, only: &[], show: Show::Bytes },
        Column {
            heading: "MAPPED",
            metric: &MAPPED,
            only: &[("ebpf.memory.operation", "mmap")],
            show: Show::Bytes,
        },
        Column {
            heading: "UNMAPPED",
            metric: &MAPPED,
            only: &[("ebpf.memory.operation", "munmap")],
            show: Show::Bytes,
        },
        Column { heading: "STALLED", metric: &RECLAIM, only: &[], show: Show::Time },
        Column { heading: "OOM", metric: &OOM_KILLS, only: &[], show: Show::Number },
    ],
};
