//! What people see, beside the stacks.

use super::{ALLOCATED, OUTSTANDING};
use crate::telemetry::{Column, Show, View};

/// A row a process.
pub static PROCESSES: View = View {
    title: "Heap by process",
    rows: "processes",
    by_process: true,
    by: &[],
    columns: &[
        Column { heading: "NOT FREED", metric: &OUTSTANDING, only: &[], show: Show::Bytes },
        Column { heading: "ALLOCS", metric: &ALLOCATED, only: &[], show: Show::Number },
    ],
};
