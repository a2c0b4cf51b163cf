//! What the configuration may say.

use std::time::Duration;

use crate::key::{Key, Value};
use crate::tracer::Settings;

/// Shortest and longest duration that can be asked for.
const SHORTEST: Duration = Duration::from_micros(1);
const LONGEST: Duration = Duration::from_secs(3600);

/// Keys of the system call tracer.
pub(super) static KEYS: &[Key<Settings>] = &Key::<Settings>::table([
    Key {
        name: "scale",
        doc: "Resolution of durations: a factor of two has 2^scale buckets. 0 to 3.",
        get: |settings| Value::Int(settings.syscalls.scale.into()),
        set: |settings, v| v.whole(0..=3u8).map(|scale| settings.syscalls.scale = scale),
    },
    Key {
        name: "calls",
        doc: "Only these calls, as [\"read\", \"write\"]; all if there are none.",
        get: |settings| Value::of_texts(&settings.syscalls.calls),
        set: |settings, v| v.texts().map(|calls| settings.syscalls.calls = calls),
    },
    Key {
        name: "minimum",
        doc: "Durations below are not recorded. Their calls and errors are counted all the same.",
        get: |settings| Value::of_duration(settings.syscalls.minimum),
        set: |settings, v| {
            v.duration(Duration::ZERO..=LONGEST).map(|least| settings.syscalls.minimum = least)
        },
    },
    Key {
        name: "span_threshold",
        doc: "Calls that take this long or longer become spans, as \"100ms\"; every call is timed then. \"\": none does.",
        get: |settings| Value::of_optional(settings.syscalls.span_threshold, Value::of_duration),
        set: |settings, v| {
            let threshold = v.optional(|v| v.duration(SHORTEST..=LONGEST))?;
            settings.syscalls.span_threshold = threshold;
            Ok(())
        },
    },
    Key {
        name: "every_duration",
        doc: "Whether every call is timed, at any rate. Otherwise, of more than 20,000 calls a second on a CPU, some are\n\
              timed, and each stands for those since the last one.",
        get: |settings| Value::Bool(settings.syscalls.every_duration),
        set: |settings, v| v.boolean().map(|every| settings.syscalls.every_duration = every),
    },
]);
