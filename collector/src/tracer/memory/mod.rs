//! Memory: page faults, what is mapped, what is resident, stalls in reclaim, and processes killed for want of memory.
//!
//! | file | what it does |
//! |---|---|
//! | `mod.rs` | what is measured, and the ways to get at it |
//! | `tracer.rs` | loads, attaches, collects |
//! | `faults.rs` | page faults, from the kernel's own counters of each thread |
//! | `perf_faults.rs` | page faults, from perf events |
//! | `sums.rs` | what the programs sum up, in two windows |
//! | `resident.rs` | sizes of processes, from `/proc` |
//! | `oom.rs` | log records of kills |
//! | `views.rs` | what people see |

mod faults;
mod oom;
mod perf_faults;
mod resident;
mod sums;
mod tracer;
mod views;

use crate::key::{Key, Value};
use crate::model::SampleType;
use crate::telemetry::{Definitions, Instrument, LogDef, Metric, ProfileDef, Severity, Subject};
use crate::tracer::ladder::{Ladder, Rung};
use crate::tracer::{Info, Settings as AllSettings};

/// Page faults by process.
pub static FAULTS: Metric = Metric {
    name: "process.paging.faults",
    unit: "{fault}",
    description: "Page faults: minor ones found the page in memory, major ones waited for a disk",
    instrument: Instrument::Counter,
    subject: Subject::Process,
    attributes: &["system.paging.fault.type"],
    source: FAULT_COUNTS.what,
};

/// Bytes mapped and unmapped.
pub static MAPPED: Metric = Metric {
    name: "ebpf.memory.mapped",
    unit: "By",
    description: "Address space that processes asked for and gave back, by how: mmap, munmap, brk (grown), brk_shrink; what the end of a process gives back and what mremap changes are not in it",
    instrument: Instrument::Counter,
    subject: Subject::Process,
    attributes: &["ebpf.memory.operation"],
    source: MAPPINGS.what,
};

/// Resident memory.
pub static USAGE: Metric = Metric {
    name: "process.memory.usage",
    unit: "By",
    description: "Resident memory of processes that had page faults or mapped something in the window, or that the filter names",
    instrument: Instrument::UpDownCounter,
    subject: Subject::Process,
    attributes: &[],
    source: "/proc/PID/statm",
};

/// Address space.
pub static VIRTUAL: Metric = Metric {
    name: "process.memory.virtual",
    unit: "By",
    description: "Address space of the same processes",
    instrument: Instrument::UpDownCounter,
    subject: Subject::Process,
    attributes: &[],
    source: "/proc/PID/statm",
};

/// Stalls in reclaim.
pub static RECLAIM: Metric = Metric {
    name: "ebpf.memory.reclaim.duration",
    unit: "s",
    description: "Time that threads spent freeing memory themselves before they got any, because the machine's was short or their cgroup's limit reached",
    instrument: Instrument::Histogram,
    subject: Subject::Process,
    attributes: &["ebpf.memory.reclaim.scope"],
    source: STALLS.what,
};

/// OOM kills.
pub static OOM_KILLS: Metric = Metric {
    name: "ebpf.oom.kills",
    unit: "{process}",
    description: "Processes that the kernel killed for want of memory, by victim",
    instrument: Instrument::Counter,
    subject: Subject::Process,
    attributes: &[],
    source: OOM.what,
};

/// An OOM kill.
pub static OOM_KILL: LogDef = LogDef {
    name: "ebpf.oom.kill",
    description: "The kernel killed a process for want of memory",
    severity: Severity::Error,
    attributes: &[
        "process.pid",
        "process.executable.name",
        "ebpf.oom.total_vm",
        "ebpf.oom.anon_rss",
        "ebpf.oom.file_rss",
        "ebpf.oom.shmem_rss",
        "ebpf.oom.score_adj",
        "process.linux.cgroup",
    ],
    source: OOM.what,
};

/// Where page faults happen.
pub static FAULT_PROFILE: ProfileDef = ProfileDef {
    sample_type: SampleType::PAGE_FAULTS,
    description: "Stacks of one page fault in so many, minor and major",
    source: FAULT_STACKS.what,
};

/// Ways to count page faults.
pub static FAULT_COUNTS: Ladder = Ladder {
    what: "page faults",
    rungs: &[
        Rung { name: "accounting", programs: &["thread_ends", "thread_faults"], since: "5.8", drawback: "" },
        Rung {
            name: "perf",
            programs: &["minor_fault", "major_fault"],
            since: "5.8",
            drawback: "a program runs at every fault; those within other programs are skipped, and counted as lost; those that the kernel takes for a process, as at an exec, are not seen",
        },
    ],
    required: false,
};

/// Ways to see what is mapped.
pub static MAPPINGS: Ladder = Ladder {
    what: "memory mappings",
    rungs: &[
        Rung {
            name: FENTRY,
            programs: &["mmap_fexit", "munmap_fexit", "brk_fentry", "brk_fexit"],
            since: "5.13, 6.4 on arm64",
            drawback: "",
        },
        Rung {
            name: "kprobe",
            programs: &[
                "mmap_kprobe",
                "mmap_kretprobe",
                "munmap_kprobe",
                "munmap_kretprobe",
                "brk_kprobe",
                "brk_kretprobe",
            ],
            since: "5.8",
            drawback: "a call costs more",
        },
        Rung {
            name: SYSCALLS,
            programs: &["brk_sys_enter", "calls_sys_exit"],
            since: "5.8",
            drawback: "slows every system call of the machine, so it is used only when asked for; leaves out 32-bit processes",
        },
    ],
    required: false,
};

/// The rung of [`MAPPINGS`] whose programs are loaded for the kernel's names of its functions.
const FENTRY: &str = "fentry";
/// The rung of [`MAPPINGS`] that is used only when asked for.
const SYSCALLS: &str = "syscalls";

/// Ways to see stalls in reclaim.
pub static STALLS: Ladder = Ladder {
    what: "reclaim stalls",
    rungs: &[
        Rung {
            name: "raw_tp",
            programs: &[
                "reclaim_begins_raw_tp",
                "reclaim_ends_raw_tp",
                "cgroup_reclaim_begins_raw_tp",
                "cgroup_reclaim_ends_raw_tp",
            ],
            since: "5.8",
            drawback: "",
        },
        Rung {
            name: "tracepoint",
            programs: &[
                "reclaim_begins_tracepoint",
                "reclaim_ends_tracepoint",
                "cgroup_reclaim_begins_tracepoint",
                "cgroup_reclaim_ends_tracepoint",
            ],
            since: "5.8",
            drawback: "a stall costs more; needs tracefs",
        },
    ],
    required: false,
};

/// Ways to see OOM kills.
pub static OOM: Ladder = Ladder {
    what: "OOM kills",
    rungs: &[
        Rung { name: "fentry", programs: &["oom_fentry"], since: "5.13; 6.0 on arm64", drawback: "" },
        Rung { name: "kprobe", programs: &["oom_kprobe"], since: "5.8", drawback: "" },
        Rung {
            name: "raw_tp",
            programs: &["oom_raw_tp"],
            since: "5.8",
            drawback: "before 6.8, of the victim only its number, and what can still be read of it",
        },
    ],
    required: false,
};

/// The way to stacks of page faults.
pub static FAULT_STACKS: Ladder = Ladder {
    what: "page-fault stacks",
    rungs: &[Rung {
        name: "perf",
        programs: &[],
        since: "5.8",
        drawback: "a program runs at one fault in so many; off unless that is set",
    }],
    required: false,
};

/// The ladders whose programs are in the tracer's own object.
const OWN_LADDERS: &[&Ladder] = &[&FAULT_COUNTS, &MAPPINGS, &STALLS, &OOM];

/// The memory tracer.
pub static INFO: Info = Info {
    name: "memory",
    command: "memory",
    about: "page faults, mappings, resident memory, reclaim stalls and OOM kills, by process",
    telemetry: Definitions {
        metrics: &[&FAULTS, &MAPPED, &USAGE, &VIRTUAL, &RECLAIM, &OOM_KILLS],
        logs: &[&OOM_KILL],
        profiles: &[&FAULT_PROFILE],
        ..Definitions::NONE
    },
    views: &[&views::PROCESSES],
    ladders: &[&FAULT_COUNTS, &MAPPINGS, &STALLS, &OOM, &FAULT_STACKS],
    on_by_default: true,
    keys: KEYS,
    start: tracer::start,
};

/// Settings of the memory tracer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Most processes whose sizes are read at the end of a window, those with the most page faults first.
    pub sizes_of: usize,
    /// Stacks are kept of one page fault in so many on each CPU; 0: of none.
    pub fault_stacks: u64,
}

impl Default for Settings {
    /// Sizes take some 10 µs each: a few milliseconds a window at worst. Stacks need names, and with them memory.
    fn default() -> Self {
        Self { sizes_of: 256, fault_stacks: 0 }
    }
}

/// Its keys of the configuration.
static KEYS: &[Key<AllSettings>] = &Key::<AllSettings>::table([
    Key {
        name: "sizes_of",
        doc: "Of how many processes sizes are read at the end of a window, those with most page faults first, 0 to 100000.",
        get: |settings| Value::Int(settings.memory.sizes_of as i64),
        set: |settings, v| v.whole(0..=100_000u32).map(|n| settings.memory.sizes_of = n as usize),
    },
    Key {
        name: "fault_stacks",
        doc: "Stacks are kept of one page fault in so many on each CPU, 0 (of none) to 1000000.",
        get: |settings| Value::Int(settings.memory.fault_stacks as i64),
        set: |settings, v| v.whole(0..=1_000_000u32).map(|n| settings.memory.fault_stacks = n.into()),
    },
]);
