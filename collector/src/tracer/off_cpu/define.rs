//! What is told about waits, how they are got at, and what can be set.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::key::{Key, Value};
use crate::model::SampleType;
use crate::telemetry::{Definitions, Instrument, Metric, ProfileDef, Subject};
use crate::tracer::ladder::{Ladder, Rung};
use crate::tracer::profile::stacks::{STACKS, USER_STACKS};
use crate::tracer::{Info, Settings as AllSettings};

/// Where time off the CPU goes.
pub static OFF_CPU_PROFILE: ProfileDef = ProfileDef {
    sample_type: SampleType::OFF_CPU,
    description: "Time that threads waited for something, off the CPU, by the stacks, kernel and user, that they went to sleep with; samples say \
                  who has ended the wait, `ebpf.off_cpu.woken_by`, where that is known",
    source: SCHEDULER.what,
};

/// What became of waits.
pub static WAITS: Metric = Metric {
    name: "ebpf.off_cpu.waits",
    unit: "{wait}",
    description: "Waits whose stacks were taken, and which have ended: `counted`, or `too short` for the minimum that is set",
    instrument: Instrument::Counter,
    subject: Subject::Agent,
    attributes: &["ebpf.off_cpu.wait"],
    source: SCHEDULER.what,
};

/// How threads are seen to leave the CPU and to come back.
pub(super) static SCHEDULER: Ladder = Ladder {
    what: "waits",
    rungs: &[Rung { name: "raw_tp", programs: &[], since: "5.8", drawback: "" }],
    required: true,
};

/// The off-CPU profiler.
pub static INFO: Info = Info {
    name: "off_cpu",
    command: "profile",
    about: "where threads wait, and how long, by function",
    telemetry: Definitions {
        metrics: &[&WAITS, &STACKS],
        profiles: &[&OFF_CPU_PROFILE],
        ..Definitions::NONE
    },
    views: &[],
    ladders: &[&SCHEDULER, &USER_STACKS],
    on_by_default: false,
    keys: KEYS,
    start: super::start,
};

/// Settings of the off-CPU profiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Shorter waits are not counted.
    pub minimum: Duration,
}

/// As long as `minimum` may be.
const MINIMA: RangeInclusive<Duration> = Duration::from_micros(1)..=Duration::from_secs(3600);

impl Default for Settings {
    /// What is shorter is mostly the scheduler's own.
    fn default() -> Self {
        Self { minimum: Duration::from_millis(1) }
    }
}

/// Its keys of the configuration.
static KEYS: &[Key<AllSettings>] = &Key::<AllSettings>::table([Key {
    name: "minimum",
    doc: "Shorter waits are not counted, 1us to 1h. It decides what is told, and hardly what that costs.",
    get: |settings| Value::of_duration(settings.off_cpu.minimum),
    set: |settings, v| v.duration(MINIMA).map(|minimum| settings.off_cpu.minimum = minimum),
}]);
