//! What tracers hand over.

use bpf_programs::events::process::Lifecycle;
use otlp_encode::Value;

use super::{Exponential, LogDef, Metric, SpanDef, SpanKind};
use crate::model::Profile;

/// An attribute: a key of the definition, and its value.
pub type Attribute<'a> = (&'static str, Value<'a>);

/// Whose it is. Names come later, from the cache of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The machine.
    Host,
    /// The agent itself.
    Agent,
    /// A process, by its number in the agent's pid namespace. 0 stands for all that cannot be seen from there.
    Process {
        /// The number.
        pid: u32,
        /// The name that the kernel had for the process or one of its threads, in case nobody ever gets to look at it; all
        /// zero where it is not known.
        comm: [u8; 16],
    },
}

/// What happened since the last point of the same metric, owner and attributes; of gauges and up-down counters, how things
/// are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point<'a> {
    /// Which metric.
    pub metric: &'static Metric,
    /// Whose.
    pub owner: Owner,
    /// In the order of the definition.
    pub attributes: &'a [Attribute<'a>],
    /// The value.
    pub value: PointValue<'a>,
}

/// A value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PointValue<'a> {
    /// Of counters, what to add; of up-down counters and gauges, what it is now.
    Int(i64),
    /// As `Int`.
    Double(f64),
    /// What to add.
    Histogram(&'a Exponential),
}

/// Something that took time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span<'a> {
    /// What sort.
    pub span: &'static SpanDef,
    /// Its role.
    pub kind: SpanKind,
    /// Whose.
    pub owner: Owner,
    /// Start and end in nanoseconds of `CLOCK_BOOTTIME`.
    pub boot_nanos: (u64, u64),
    /// In the order of the definition.
    pub attributes: &'a [Attribute<'a>],
    /// Why it failed, if it did: also the value of `error.type`.
    pub error: Option<&'a str>,
}

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogRecord<'a> {
    /// What sort.
    pub log: &'static LogDef,
    /// Whose.
    pub owner: Owner,
    /// When, in nanoseconds of `CLOCK_BOOTTIME`.
    pub boot_nanos: u64,
    /// In words.
    pub body: &'a str,
    /// In the order of the definition.
    pub attributes: &'a [Attribute<'a>],
}

/// Where tracers put what they find. Implemented by what exports, by what shows, and by tests.
pub trait Sink {
    /// A value.
    fn point(&mut self, point: Point<'_>);
    /// A span.
    fn span(&mut self, span: Span<'_>);
    /// A log record.
    fn log(&mut self, record: LogRecord<'_>);
    /// A profile of the window that ends.
    fn profile(&mut self, profile: Profile);
    /// What happened to a process, for whoever names processes. Told before the record of it; who passes on what it gets
    /// passes this on at once.
    fn lifecycle(&mut self, event: &Lifecycle) {
        let _ = event;
    }
}
