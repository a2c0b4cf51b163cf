//! What is told about scheduling, and how it is got at.

use crate::telemetry::{Column, Definitions, Instrument, Metric, Show, Subject, View};
use crate::tracer::Info;
use crate::tracer::ladder::{Ladder, Rung};

/// Waits for a CPU.
pub static RUN_QUEUE_DURATION: Metric = Metric {
    name: "ebpf.sched.runqueue.duration",
    unit: "s",
    description: "Time from when a thread could run to when it ran: after it was woken, preempted or born",
    instrument: Instrument::Histogram,
    subject: Subject::Process,
    attributes: &[],
    source: SWITCHES.what,
};

/// Time off the CPU.
pub static OFF_CPU_TIME: Metric = Metric {
    name: "ebpf.sched.offcpu.time",
    unit: "s",
    description: "Time that threads were off the CPU, the wait for one included, counted when they are back; preempted: they could have run, sleeping: they waited for what signals interrupt, blocked: for what signals do not, mostly disks",
    instrument: Instrument::Counter,
    subject: Subject::Process,
    attributes: &["ebpf.sched.offcpu.reason"],
    source: SWITCHES.what,
};

/// Context switches.
pub static CONTEXT_SWITCHES: Metric = Metric {
    name: "process.context_switches",
    unit: "{context_switch}",
    description: "Times that a thread left the CPU by itself (voluntary) or was made to (involuntary), counted when it is back or has ended",
    instrument: Instrument::Counter,
    subject: Subject::Process,
    attributes: &["process.context_switch.type"],
    source: SWITCHES.what,
};

/// The ways to see threads come and go.
pub static SWITCHES: Ladder = Ladder {
    what: "context switches",
    rungs: &[
        Rung {
            name: "tp_btf",
            programs: &["wakeup_new_btf", "wakeup_btf", "switch_btf"],
            since: "5.8",
            drawback: "",
        },
        Rung {
            name: "raw_tp",
            programs: &["wakeup_new_raw", "wakeup_raw", "switch_raw"],
            since: "5.8",
            drawback: "a little slower",
        },
        Rung {
            name: "tracepoint",
            programs: &["newtask_classic", "wakeup_new_classic", "wakeup_classic", "switch_classic"],
            since: "5.8",
            drawback: "slower; keeps CPU samples from being taken meanwhile",
        },
    ],
    required: true,
};

/// Who waits for a CPU, and who is off it.
static WAITERS: View = View {
    title: "Waiting for a CPU",
    rows: "processes",
    by_process: true,
    by: &[],
    columns: &[
        Column { heading: "WAITED", metric: &RUN_QUEUE_DURATION, only: &[], show: Show::Time },
        Column { heading: "WAITS/S", metric: &RUN_QUEUE_DURATION, only: &[], show: Show::CountRate },
        Column { heading: "MEAN", metric: &RUN_QUEUE_DURATION, only: &[], show: Show::Mean },
        Column { heading: "P99", metric: &RUN_QUEUE_DURATION, only: &[], show: Show::Percentile(99) },
        Column {
            heading: "SWITCH/S",
            metric: &CONTEXT_SWITCHES,
            only: &[("process.context_switch.type", "voluntary")],
            show: Show::Rate,
        },
        Column {
            heading: "PREEMPT/S",
            metric: &CONTEXT_SWITCHES,
            only: &[("process.context_switch.type", "involuntary")],
            show: Show::Rate,
        },
        Column {
            heading: "BLOCKED S",
            metric: &OFF_CPU_TIME,
            only: &[("ebpf.sched.offcpu.reason", "blocked")],
            show: Show::Number,
        },
    ],
};

/// The scheduler.
pub static INFO: Info = Info {
    name: "sched",
    command: "sched",
    about: "waits for CPUs, time off them, context switches",
    telemetry: Definitions {
        metrics: &[&RUN_QUEUE_DURATION, &OFF_CPU_TIME, &CONTEXT_SWITCHES],
        ..Definitions::NONE
    },
    views: &[&WAITERS],
    ladders: &[&SWITCHES],
    on_by_default: true,
    keys: &[],
    start: super::start,
};
