//! Definitions: constants that name what is measured.

use crate::model::SampleType;

/// What sort of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instrument {
    /// A sum that only grows.
    Counter,
    /// A sum that grows and shrinks.
    UpDownCounter,
    /// The last value.
    Gauge,
    /// An exponential histogram of durations in seconds.
    Histogram,
}

/// Whose a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A process'.
    Process,
    /// The machine's.
    Host,
    /// The agent's own.
    Agent,
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name: of the OpenTelemetry semantic conventions, or with the prefix `ebpf.`
    pub name: &'static str,
    /// Unit, in UCUM.
    pub unit: &'static str,
    /// What it is, in a sentence without a full stop.
    pub description: &'static str,
    /// What sort of number.
    pub instrument: Instrument,
    /// Whose.
    pub subject: Subject,
    /// Keys that its points may have beside their resource's.
    pub attributes: &'static [&'static str],
    /// Where it comes from: the ladder ([`Ladder::what`](crate::tracer::ladder::Ladder)) that measures it, or a file.
    pub source: &'static str,
}

/// Role of a span, as OTLP numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Within a process.
    Internal,
    /// It serves a request.
    Server,
    /// It makes one.
    Client,
}

/// A sort of span.
#[derive(Debug, PartialEq, Eq)]
pub struct SpanDef {
    /// Its name.
    pub name: &'static str,
    /// What it stands for, in a sentence without a full stop.
    pub description: &'static str,
    /// Keys that it may have.
    pub attributes: &'static [&'static str],
    /// As [`Metric::source`].
    pub source: &'static str,
}

/// How serious a log record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// 9
    Info,
    /// 13
    Warn,
    /// 17
    Error,
}

/// A sort of log record.
#[derive(Debug, PartialEq, Eq)]
pub struct LogDef {
    /// Its event name.
    pub name: &'static str,
    /// What happened, in a sentence without a full stop.
    pub description: &'static str,
    /// How serious it is.
    pub severity: Severity,
    /// Keys that it may have.
    pub attributes: &'static [&'static str],
    /// As [`Metric::source`].
    pub source: &'static str,
}

/// A sort of profile: what its samples count.
#[derive(Debug, PartialEq, Eq)]
pub struct ProfileDef {
    /// Types and units.
    pub sample_type: SampleType,
    /// What it shows, in a sentence without a full stop.
    pub description: &'static str,
    /// As [`Metric::source`].
    pub source: &'static str,
}

/// Everything that one tracer tells.
#[derive(Debug)]
pub struct Definitions {
    /// Metrics.
    pub metrics: &'static [&'static Metric],
    /// Spans.
    pub spans: &'static [&'static SpanDef],
    /// Log records.
    pub logs: &'static [&'static LogDef],
    /// Profiles.
    pub profiles: &'static [&'static ProfileDef],
}

impl Definitions {
    /// Nothing.
    pub const NONE: Self = Self { metrics: &[], spans: &[], logs: &[], profiles: &[] };
}
