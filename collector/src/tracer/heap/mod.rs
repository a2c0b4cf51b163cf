//! The heap of chosen processes: what is allocated and not freed yet, by stack.
//!
//! | file | what it does |
//! |---|---|
//! | `functions.rs` | which functions allocate and free, by the names that libraries have for them |
//! | `site.rs`, `x86.rs` | where in a function a probe costs least |
//! | `files.rs` | the files that a process has mapped |
//! | `object.rs` | the object of one process |
//! | `process.rs` | its probes and symbols |
//! | `walks.rs` | their stacks, by tables |
//! | `tracer.rs` | all processes as one tracer |
//!
//! Allocators that take their memory from `mmap` and have no symbols are not seen here; the memory tracer counts what they map.

mod files;
pub mod functions;
mod object;
mod process;
mod site;
mod tracer;
mod views;
#[cfg(feature = "unwind")]
mod walks;

pub(crate) use self::object::try_rungs;

#[cfg(feature = "unwind")]
use crate::config::Stacks;
use crate::key::{Key, Value};
use crate::model::SampleType;
use crate::telemetry::{Definitions, Instrument, Metric, ProfileDef, Subject};
use crate::tracer::ladder::{Ladder, Rung};
#[cfg(feature = "unwind")]
use crate::tracer::profile::stacks::{STACKS, USER_STACKS};
use crate::tracer::{Info, Settings as AllSettings};

/// Bytes that are allocated and not freed.
pub static OUTSTANDING: Metric = Metric {
    name: "ebpf.heap.outstanding",
    unit: "By",
    description: "Memory that was allocated since the process is traced and is not freed yet",
    instrument: Instrument::UpDownCounter,
    subject: Subject::Process,
    attributes: &[],
    source: ALLOCATIONS.what,
};

/// Calls that allocated.
pub static ALLOCATED: Metric = Metric {
    name: "ebpf.heap.allocations",
    unit: "{allocation}",
    description: "Allocations, reallocations among them",
    instrument: Instrument::Counter,
    subject: Subject::Process,
    attributes: &[],
    source: ALLOCATIONS.what,
};

/// What is not freed yet, in bytes.
pub static INUSE_SPACE: ProfileDef = ProfileDef {
    sample_type: SampleType { value: ("inuse_space", "bytes"), period: ("space", "bytes") },
    description: "Bytes that were allocated and are not freed yet, by the stack that allocated them",
    source: ALLOCATIONS.what,
};

/// What is not freed yet, in numbers.
pub static INUSE_OBJECTS: ProfileDef = ProfileDef {
    sample_type: SampleType { value: ("inuse_objects", "count"), period: ("space", "bytes") },
    description: "Allocations that are not freed yet, by the stack that made them",
    source: ALLOCATIONS.what,
};

/// What was allocated in the window, freed or not.
pub static ALLOC_SPACE: ProfileDef = ProfileDef {
    sample_type: SampleType { value: ("alloc_space", "bytes"), period: ("space", "bytes") },
    description: "Bytes that were allocated in the window, freed or not, by the stack that allocated them",
    source: ALLOCATIONS.what,
};

/// The probes.
static ALLOCATIONS: Ladder = Ladder {
    what: "allocations",
    rungs: &[
        Rung { name: "session", programs: &["session"], since: "6.13", drawback: "" },
        Rung {
            name: "uprobe",
            programs: &[
                // Before the entries: a return without its entry is ignored, an entry without its return is lost.
                "leave",
                "enter_free",
                "enter_malloc",
                "enter_sized",
                "enter_array",
                "enter_realloc",
                "enter_rearray",
                "enter_aligned",
                "enter_memalign",
            ],
            since: "5.8",
            drawback: "allocations that are not sampled cost as much as those that are",
        },
    ],
    required: true,
};

/// How stacks are walked: as those of other profiles, but in the kernel only.
#[cfg(feature = "unwind")]
static OWN_STACKS: Ladder = Ladder {
    what: USER_STACKS.what,
    rungs: &[
        Rung { name: Stacks::Tables.as_str(), programs: &[], since: "5.8 on x86_64 and arm64", drawback: "" },
        Rung {
            name: Stacks::FramePointers.as_str(),
            programs: &[],
            since: "5.8",
            drawback: "short stacks where code has no frame pointers, as most has",
        },
    ],
    required: false,
};

/// The heap tracer.
pub static INFO: Info = Info {
    name: "heap",
    command: "memory",
    about: "what processes allocate and do not free, by function",
    telemetry: Definitions {
        metrics: &[
            &OUTSTANDING,
            &ALLOCATED,
            #[cfg(feature = "unwind")]
            &STACKS,
        ],
        profiles: &[&INUSE_SPACE, &INUSE_OBJECTS, &ALLOC_SPACE],
        ..Definitions::NONE
    },
    views: &[&views::PROCESSES],
    ladders: &[
        &ALLOCATIONS,
        #[cfg(feature = "unwind")]
        &OWN_STACKS,
    ],
    on_by_default: false,
    keys: KEYS,
    start: tracer::start,
};

/// Settings of the heap tracer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Allocations of so many bytes and more are all taken; smaller ones with a likelihood of their size to this, and then
    /// they stand for as many. 0: every allocation is taken.
    pub sample_bytes: u32,
}

impl Default for Settings {
    /// As tcmalloc's and Go's heap profiles.
    fn default() -> Self {
        Self { sample_bytes: 512 << 10 }
    }
}

/// Its keys of the configuration.
static KEYS: &[Key<AllSettings>] = &Key::<AllSettings>::table([Key {
    name: "sample_bytes",
    doc: "Allocations of so many bytes and more are all taken; smaller ones with a likelihood of their size to this,\n\
          and then they stand for as many. 0: every allocation is taken.",
    get: |settings| Value::Int(settings.heap.sample_bytes.into()),
    set: |settings, v| v.whole(0..=u32::MAX).map(|bytes| settings.heap.sample_bytes = bytes),
}]);
