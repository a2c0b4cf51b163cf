//! What the tracer tells, and how it gets at it.

use super::tracer::start;
use crate::telemetry::{Column, Definitions, Instrument, Metric, Show, SpanDef, Subject, View};
use crate::tracer::Info;
use crate::tracer::ladder::{Ladder, Rung};

/// The call's name, or its number if it has none here.
pub(super) const NAME: &str = "ebpf.syscall.name";
/// The error's name, or its number if it has none.
pub(super) const ERROR_TYPE: &str = "error.type";

/// How many.
pub static CALLS: Metric = Metric {
    name: "ebpf.syscall.calls",
    unit: "{call}",
    description: "System calls, each counted, those that never return too",
    instrument: Instrument::Counter,
    subject: Subject::Process,
    attributes: &[NAME],
    source: SYSTEM_CALLS.what,
};

/// How many failed.
pub static ERRORS: Metric = Metric {
    name: "ebpf.syscall.errors",
    unit: "{error}",
    description: "System calls that failed, each counted; one that the kernel starts again by itself has not failed",
    instrument: Instrument::Counter,
    subject: Subject::Process,
    attributes: &[NAME, ERROR_TYPE],
    source: SYSTEM_CALLS.what,
};

/// How long they took.
pub static DURATION: Metric = Metric {
    name: "ebpf.syscall.duration",
    unit: "s",
    description: "Time from the start of system calls to their return. Its count is the calls that returned, less those below the \
                  minimum that is set. At high rates some are timed, and each counts for those since the last: \
                  then the count is an estimate, and ebpf.syscall.calls is exact",
    instrument: Instrument::Histogram,
    subject: Subject::Process,
    attributes: &[NAME],
    source: SYSTEM_CALLS.what,
};

/// One that took long.
pub static SLOW_CALL: SpanDef = SpanDef {
    name: "ebpf.syscall",
    description: "A system call that took at least as long as the threshold that is set; there are none unless one is",
    attributes: &[NAME, "error.type"],
    source: SYSTEM_CALLS.what,
};

/// Where calls begin and return.
pub static SYSTEM_CALLS: Ladder = Ladder {
    what: "system calls",
    rungs: &[
        Rung {
            name: "tp_btf",
            programs: &["begins_btf", "returns_btf"],
            since: "5.11",
            drawback: "where the kernel preempts such programs, from 7.2 on, it leaves out calls that others make on the CPU meanwhile: \
                       the last resort there, and they are counted as skipped",
        },
        Rung {
            name: "raw_tp",
            programs: &["begins_raw", "returns_raw"],
            since: "5.8",
            drawback: "as tp_btf; costs more for each call",
        },
        Rung {
            name: "tracepoint",
            programs: &["begins_classic", "returns_classic"],
            since: "5.8",
            drawback: "costs more for each call; the kernel takes no CPU samples while its programs run",
        },
    ],
    required: true,
};

/// Programs at which a CPU is held even where the kernel preempts others.
pub(super) const HELD: &[&str] = &["begins_classic", "returns_classic"];

static BY_CALL: View = View {
    title: "System calls",
    rows: "calls of processes",
    by_process: true,
    by: &[(NAME, "CALL")],
    columns: &[
        Column { heading: "CALLS", metric: &CALLS, only: &[], show: Show::Number },
        Column { heading: "TIME", metric: &DURATION, only: &[], show: Show::Time },
        Column { heading: "MEAN", metric: &DURATION, only: &[], show: Show::Mean },
        Column { heading: "P99", metric: &DURATION, only: &[], show: Show::Percentile(99) },
        Column { heading: "ERRORS", metric: &ERRORS, only: &[], show: Show::Most(ERROR_TYPE) },
    ],
};

/// The system call tracer.
pub static INFO: Info = Info {
    name: "syscalls",
    command: "syscalls",
    about: "system calls: how often, how long, with which errors, by process",
    telemetry: Definitions {
        metrics: &[&CALLS, &ERRORS, &DURATION],
        spans: &[&SLOW_CALL],
        ..Definitions::NONE
    },
    views: &[&BY_CALL],
    ladders: &[&SYSTEM_CALLS],
    on_by_default: true,
    keys: super::keys::KEYS,
    start,
};
