//! Settings that the specification has for SDKs: batches, metric readers, limits and the agent's own log.

use std::time::Duration;

use otlp_encode::{AttributeLimits, SpanLimits};

use super::env::Env;

/// When collected records become a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// Longest wait between two exports.
    pub delay: Duration,
    /// Most records that wait; what comes then is dropped and counted. 1 or more.
    pub max_queue_items: usize,
    /// Most records in a request; from 1 to `max_queue_items`.
    pub max_batch_items: usize,
}

impl BatchSettings {
    /// The defaults of `OTEL_BSP_*`.
    pub const SPANS: Self =
        Self { delay: Duration::from_secs(5), max_queue_items: 2048, max_batch_items: 512 };

    /// The defaults of `OTEL_BLRP_*`.
    pub const LOGS: Self = Self { delay: Duration::from_secs(1), ..Self::SPANS };

    fn read(env: &mut Env<'_>, prefix: &str, default: Self) -> Self {
        let name = |suffix: &str| [format!("{prefix}_{suffix}")];
        let positive = |number: &usize| *number > 0;
        let remedy = "use a number of 1 or more";
        let delay = env.duration(name("SCHEDULE_DELAY")).unwrap_or(default.delay);
        ignore_timeout(env, name("EXPORT_TIMEOUT"));
        let queue = env.number(name("MAX_QUEUE_SIZE"), remedy, positive);
        let max_queue_items = queue.unwrap_or(default.max_queue_items);
        let in_queue = |number: &usize| positive(number) && *number <= max_queue_items;
        let remedy = format!("use a number from 1 to the queue's size, {max_queue_items}");
        let batch = env.number(name("MAX_EXPORT_BATCH_SIZE"), &remedy, in_queue);
        let max_batch_items = batch.unwrap_or(default.max_batch_items.min(max_queue_items));
        Self { delay, max_queue_items, max_batch_items }
    }
}

/// When and how metrics are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricSettings {
    /// Time between the starts of two exports; a second or more.
    pub interval: Duration,
    /// What sums and histograms count from.
    pub temporality: Temporality,
}

impl Default for MetricSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(60), temporality: Temporality::default() }
    }
}

/// Least time between two exports of metrics, as of the agent's own `interval`: a window of less costs more than it tells.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// A time for an export with all its attempts would be one after which data is lost that a receiver may still take: what
/// waits has a bound in memory instead, and a spool. Each attempt has a time of its own.
fn ignore_timeout(env: &mut Env<'_>, name: [String; 1]) {
    if let Some((name, _)) = env.first(name) {
        env.warn(format!("ignoring {name}: data is kept until it is delivered; OTEL_EXPORTER_OTLP_TIMEOUT is for one attempt"));
    }
}

/// `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Temporality {
    /// Everything since the start.
    #[default]
    Cumulative,
    /// Counters and histograms since the last export, the rest since the start.
    Delta,
    /// Counters and histograms that are counted as things happen since the last export, the rest since the start.
    LowMemory,
}

/// Count limits where nothing says otherwise.
const DEFAULT_COUNT: usize = 128;

/// How much of a record is kept, as `otlp-encode`'s builders take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of a span.
    pub span: SpanLimits,
    /// Of a log record's attributes.
    pub log_record: AttributeLimits,
}

impl Default for Limits {
    fn default() -> Self {
        let attributes = AttributeLimits { count: DEFAULT_COUNT, value_length: None };
        let span = SpanLimits {
            attributes,
            events: DEFAULT_COUNT,
            links: DEFAULT_COUNT,
            event_attributes: DEFAULT_COUNT,
            link_attributes: DEFAULT_COUNT,
        };
        Self { span, log_record: attributes }
    }
}

impl Limits {
    fn read(env: &mut Env<'_>) -> Self {
        // A limit of a kind of record comes before that of all attributes.
        fn limit<const N: usize>(env: &mut Env<'_>, names: [&str; N]) -> Option<usize> {
            env.number(names.map(|name| format!("OTEL_{name}_LIMIT")), "use a number of 0 or more", |_| true)
        }
        let mut count = |names: [&str; 2]| limit(env, names).unwrap_or(DEFAULT_COUNT);
        let span = count(["SPAN_ATTRIBUTE_COUNT", "ATTRIBUTE_COUNT"]);
        let log_record = count(["LOGRECORD_ATTRIBUTE_COUNT", "ATTRIBUTE_COUNT"]);
        let event_attributes = count(["EVENT_ATTRIBUTE_COUNT", "ATTRIBUTE_COUNT"]);
        let link_attributes = count(["LINK_ATTRIBUTE_COUNT", "ATTRIBUTE_COUNT"]);
        let mut length = |name: &str| limit(env, [name, "ATTRIBUTE_VALUE_LENGTH"]);
        let span_length = length("SPAN_ATTRIBUTE_VALUE_LENGTH");
        let log_record_length = length("LOGRECORD_ATTRIBUTE_VALUE_LENGTH");
        let span = SpanLimits {
            attributes: AttributeLimits { count: span, value_length: span_length },
            events: limit(env, ["SPAN_EVENT_COUNT"]).unwrap_or(DEFAULT_COUNT),
            links: limit(env, ["SPAN_LINK_COUNT"]).unwrap_or(DEFAULT_COUNT),
            event_attributes,
            link_attributes,
        };
        let log_record = AttributeLimits { count: log_record, value_length: log_record_length };
        Self { span, log_record }
    }
}

/// How much the agent says about itself, least first: `OTEL_LOG_LEVEL`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// `none` or `off`
    Off,
    /// `error` or `fatal`
    Error,
    /// `warn` or `warning`
    Warn,
    /// `info`
    #[default]
    Info,
    /// `debug` or `verbose`
    Debug,
    /// `trace` or `all`
    Trace,
}

impl LogLevel {
    /// The level, and what was ignored.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> (Self, Vec<String>) {
        let mut env = Env::new(env);
        // The specification names none but the default; these are what its SDKs take.
        let level =
            env.pick(["OTEL_LOG_LEVEL".to_owned()], "use none, error, warn, info, debug or trace", |name| {
                Some(match name {
                    "none" | "off" => Self::Off,
                    "error" | "fatal" => Self::Error,
                    "warn" | "warning" => Self::Warn,
                    "info" => Self::Info,
                    "debug" | "verbose" => Self::Debug,
                    "trace" | "all" => Self::Trace,
                    _ => return None,
                })
            });
        (level.map(|(_, level)| level).unwrap_or_default(), env.warnings)
    }
}

/// All of these settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SdkSettings {
    /// Spans.
    pub spans: BatchSettings,
    /// Log records.
    pub logs: BatchSettings,
    /// Metrics.
    pub metrics: MetricSettings,
    /// Spans and log records.
    pub limits: Limits,
    /// A line for each value that was ignored.
    pub warnings: Vec<String>,
}

impl SdkSettings {
    /// The settings that `env`, which looks up a variable, has; nothing in it is an error.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut env = Env::new(env);
        Self {
            spans: BatchSettings::read(&mut env, "OTEL_BSP", BatchSettings::SPANS),
            logs: BatchSettings::read(&mut env, "OTEL_BLRP", BatchSettings::LOGS),
            metrics: MetricSettings::read(&mut env),
            limits: Limits::read(&mut env),
            warnings: env.warnings,
        }
    }
}

impl MetricSettings {
    fn read(env: &mut Env<'_>) -> Self {
        let default = Self::default();
        let interval: Option<u64> = env.number(
            ["OTEL_METRIC_EXPORT_INTERVAL".to_owned()],
            "use milliseconds, 1 or more",
            |milliseconds| *milliseconds > 0,
        );
        let temporality = env.pick(
            ["OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE".to_owned()],
            "use cumulative, delta or lowmemory",
            |name| match name {
                "cumulative" => Some(Temporality::Cumulative),
                "delta" => Some(Temporality::Delta),
                "lowmemory" => Some(Temporality::LowMemory),
                _ => None,
            },
        );
        ignore_timeout(env, ["OTEL_METRIC_EXPORT_TIMEOUT".to_owned()]);
        let interval = interval.map_or(default.interval, Duration::from_millis);
        if interval < MIN_INTERVAL {
            env.warn(format!(
                "OTEL_METRIC_EXPORT_INTERVAL={} counts as 1000, which is the least",
                interval.as_millis()
            ));
        }
        Self {
            interval: interval.max(MIN_INTERVAL),
            temporality: temporality.map(|(_, temporality)| temporality).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vars: &[(&str, &str)]) -> SdkSettings {
        SdkSettings::from_env(&|name| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn defaults_are_the_specifications() {
        let expected = SdkSettings {
            spans: BatchSettings::SPANS,
            logs: BatchSettings::LOGS,
            metrics: MetricSettings::default(),
            limits: Limits::default(),
            warnings: Vec::new(),
        };
        assert_eq!(settings(&[]), expected);
        assert_eq!(settings(&[("OTEL_BSP_MAX_QUEUE_SIZE", ""), ("OTEL_BSP_EXPORT_TIMEOUT", " ")]), expected);
    }

    #[test]
    fn batches() {
        let own = |vars: &[(&str, &str)]| {
            let SdkSettings { spans, warnings, .. } = settings(vars);
            let sizes = (spans.max_queue_items, spans.max_batch_items);
            (spans.delay.as_millis(), sizes, warnings.len())
        };
        let (delay, timeout) = ("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT");
        let (queue, batch) = ("OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE");
        for (vars, expected) in [
            (&[(delay, "7"), (timeout, "8")][..], (7, (2048, 512), 1)),
            (&[(delay, "0")], (0, (2048, 512), 0)),
            (&[(delay, "-1"), (timeout, "1s")], (5000, (2048, 512), 2)),
            (&[(queue, "100")], (5000, (100, 100), 0)),
            (&[(queue, "4096"), (batch, "4096")], (5000, (4096, 4096), 0)),
            (&[(batch, "2049")], (5000, (2048, 512), 1)),
            (&[(queue, "100"), (batch, "101")], (5000, (100, 100), 1)),
            (&[(queue, "0"), (batch, "0")], (5000, (2048, 512), 2)),
        ] {
            assert_eq!(own(vars), expected, "{vars:?}");
        }
        let logs = settings(&[("OTEL_BLRP_SCHEDULE_DELAY", "7"), (delay, "8")]).logs;
        assert_eq!(logs, BatchSettings { delay: Duration::from_millis(7), ..BatchSettings::LOGS });
    }

    #[test]
    fn metrics() {
        let own = |vars: &[(&str, &str)]| {
            let SdkSettings { metrics, warnings, .. } = settings(vars);
            (metrics.interval.as_millis(), metrics.temporality, warnings.len())
        };
        let (interval, timeout) = ("OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT");
        let temporality = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        for (vars, expected) in [
            (&[(interval, "7000"), (timeout, "0")][..], (7000, Temporality::Cumulative, 1)),
            (&[(interval, "1000")], (1000, Temporality::Cumulative, 0)),
            (&[(interval, "1")], (1000, Temporality::Cumulative, 1)),
            (&[(interval, "0"), (temporality, "DELTA")], (60_000, Temporality::Delta, 1)),
            (&[(temporality, "LowMemory")], (60_000, Temporality::LowMemory, 0)),
            (&[(temporality, "low")], (60_000, Temporality::Cumulative, 1)),
        ] {
            assert_eq!(own(vars), expected, "{vars:?}");
        }
    }

    #[test]
    fn limits_of_records_come_before_those_of_all_attributes() {
        let own = |vars: &[(&str, &str)]| {
            let SdkSettings { limits, warnings, .. } = settings(vars);
            let Limits { span, log_record } = limits;
            let SpanLimits { attributes, events, links, event_attributes, link_attributes } = span;
            let counts =
                [attributes.count, events, links, event_attributes, link_attributes, log_record.count];
            (counts, attributes.value_length, log_record.value_length, warnings.len())
        };
        let length = "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT";
        for (vars, expected) in [
            (&[("OTEL_ATTRIBUTE_COUNT_LIMIT", "1")][..], ([1, 128, 128, 1, 1, 1], None, None, 0)),
            (
                &[("OTEL_ATTRIBUTE_COUNT_LIMIT", "1"), ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "0")],
                ([0, 128, 128, 1, 1, 1], None, None, 0),
            ),
            (
                &[
                    ("OTEL_SPAN_EVENT_COUNT_LIMIT", "2"),
                    ("OTEL_SPAN_LINK_COUNT_LIMIT", "3"),
                    ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "4"),
                    ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "5"),
                    ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "6"),
                ],
                ([128, 2, 3, 4, 5, 6], None, None, 0),
            ),
            (
                &[(length, "7"), ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "8")],
                ([128; 6], Some(7), Some(8), 0),
            ),
            (
                &[(length, "-1"), ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "9")],
                ([128; 6], Some(9), None, 1),
            ),
        ] {
            assert_eq!(own(vars), expected, "{vars:?}");
        }
    }

    #[test]
    fn log_levels() {
        for (name, level) in [("NONE", LogLevel::Off), ("Warning", LogLevel::Warn), ("all", LogLevel::Trace)]
        {
            let own = LogLevel::from_env(&|_| Some(name.to_owned()));
            assert_eq!(own, (level, Vec::new()));
        }
        let (level, warnings) = LogLevel::from_env(&|_| Some("loud\n".to_owned()));
        assert_eq!(level, LogLevel::Info);
        assert_eq!(
            warnings,
            ["ignoring OTEL_LOG_LEVEL=loud; use none, error, warn, info, debug or trace".to_owned()]
        );
        assert!(LogLevel::Error < LogLevel::Warn);
    }
}
