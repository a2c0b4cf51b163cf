//! Events between tracers and whoever wants them: a bounded buffer with filters and sinks of the caller's own.
//!
//! ```
//! use collector::event_buffer::{EventBuffer, EventFilter, EventKind};
//! use collector::telemetry::Recorder;
//!
//! let mut buffer = EventBuffer::new(1024);
//! let spans_of_7 = EventFilter { kinds: vec![EventKind::Span], pids: vec![7] };
//! let recorder = std::rc::Rc::new(std::cell::RefCell::new(Recorder::default()));
//! buffer.add_sink(spans_of_7, Box::new(recorder.clone()));
//! // `tracer.drain(&mut buffer)?` and `tracer.collect(&mut buffer)?` fill it.
//! buffer.flush();
//! assert_eq!(buffer.dropped(), 0);
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use bpf_programs::events::process::Lifecycle;
use otlp_encode::Value;

use crate::model::Profile;
use crate::telemetry::{
    Attribute, Exponential, LogDef, LogRecord, Metric, Owner, Point, PointValue, Sink, Span, SpanDef,
    SpanKind,
};

/// What sort of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A value of a metric.
    Point,
    /// A span.
    Span,
    /// A log record.
    Log,
    /// A profile of a window. It has processes of its own, and passes any filter of pids.
    Profile,
    /// The start or the end of a process, by which sinks name those that live only for a moment.
    Lifecycle,
}

/// Which events a sink gets. Conditions that are given must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of these kinds; empty: of all.
    pub kinds: Vec<EventKind>,
    /// Of these processes; empty: of all, and of the machine.
    pub pids: Vec<u32>,
}

/// Keeps events until they are flushed to the sinks, in the order in which they came. When it is full, the oldest goes, and is
/// counted.
#[derive(Default)]
pub struct EventBuffer {
    events: VecDeque<Event>,
    capacity: usize,
    dropped: u64,
    sinks: Vec<(EventFilter, Box<dyn Sink>)>,
}

/// An event that outlives its source.
pub(crate) enum Event {
    Point {
        metric: &'static Metric,
        owner: Owner,
        attributes: Attributes,
        value: Number,
    },
    Span {
        span: &'static SpanDef,
        kind: SpanKind,
        owner: Owner,
        boot_nanos: (u64, u64),
        attributes: Attributes,
        error: Option<String>,
    },
    Log {
        log: &'static LogDef,
        owner: Owner,
        boot_nanos: u64,
        body: String,
        attributes: Attributes,
    },
    Profile(Box<Profile>),
    Lifecycle(Box<Lifecycle>),
}

pub(crate) enum Number {
    Int(i64),
    Double(f64),
    Histogram(Box<Exponential>),
}

/// Attributes with their texts.
pub(crate) struct Attributes(Vec<(&'static str, Owned)>);

enum Owned {
    Text(String),
    Other(Value<'static>),
}

impl Owned {
    fn lend(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::Str(text),
            Self::Other(value) => *value,
        }
    }
}

impl Attributes {
    fn keep(attributes: &[Attribute<'_>]) -> Self {
        let owned = |value: &Value<'_>| match *value {
            Value::Str(text) => Owned::Text(text.to_owned()),
            Value::Bool(b) => Owned::Other(Value::Bool(b)),
            Value::Int(n) => Owned::Other(Value::Int(n)),
            Value::Double(n) => Owned::Other(Value::Double(n)),
            // No tracer has attributes of other types.
            _ => Owned::Other(Value::Empty),
        };
        Self(attributes.iter().map(|(key, value)| (*key, owned(value))).collect())
    }

    fn lend(&self) -> Vec<Attribute<'_>> {
        self.0.iter().map(|(key, owned)| (*key, owned.lend())).collect()
    }
}

impl Event {
    fn kind(&self) -> EventKind {
        match self {
            Self::Point { .. } => EventKind::Point,
            Self::Span { .. } => EventKind::Span,
            Self::Log { .. } => EventKind::Log,
            Self::Profile(_) => EventKind::Profile,
            Self::Lifecycle(_) => EventKind::Lifecycle,
        }
    }

    /// The process, where it has one of its own.
    fn owner(&self) -> Option<Owner> {
        match self {
            Self::Point { owner, .. } | Self::Span { owner, .. } | Self::Log { owner, .. } => Some(*owner),
            Self::Profile(_) => None,
            Self::Lifecycle(event) => {
                let process = event.process();
                Some(Owner::Process { pid: process.tgid, comm: process.comm })
            }
        }
    }

    pub(crate) fn of_span(span: Span<'_>) -> Self {
        let attributes = Attributes::keep(span.attributes);
        let Span { span, kind, owner, boot_nanos, error, .. } = span;
        Self::Span { span, kind, owner, boot_nanos, attributes, error: error.map(str::to_owned) }
    }

    pub(crate) fn of_log(record: LogRecord<'_>) -> Self {
        let attributes = Attributes::keep(record.attributes);
        let LogRecord { log, owner, boot_nanos, body, .. } = record;
        Self::Log { log, owner, boot_nanos, body: body.to_owned(), attributes }
    }

    pub(crate) fn hand_to(&self, sink: &mut dyn Sink) {
        match self {
            Self::Point { metric, owner, attributes, value } => {
                let value = match value {
                    Number::Int(n) => PointValue::Int(*n),
                    Number::Double(n) => PointValue::Double(*n),
                    Number::Histogram(histogram) => PointValue::Histogram(histogram),
                };
                sink.point(Point { metric, owner: *owner, attributes: &attributes.lend(), value });
            }
            Self::Span { span, kind, owner, boot_nanos, attributes, error } => sink.span(Span {
                span,
                kind: *kind,
                owner: *owner,
                boot_nanos: *boot_nanos,
                attributes: &attributes.lend(),
                error: error.as_deref(),
            }),
            Self::Log { log, owner, boot_nanos, body, attributes } => sink.log(LogRecord {
                log,
                owner: *owner,
                boot_nanos: *boot_nanos,
                body,
                attributes: &attributes.lend(),
            }),
            Self::Profile(profile) => sink.profile(Profile::clone(profile)),
            Self::Lifecycle(event) => sink.lifecycle(event),
        }
    }
}

impl EventFilter {
    fn passes(&self, event: &Event) -> bool {
        let of_pid = |owner: Owner| matches!(owner, Owner::Process { pid, .. } if self.pids.contains(&pid));
        (self.kinds.is_empty() || self.kinds.contains(&event.kind()))
            && (self.pids.is_empty() || event.owner().is_none_or(of_pid))
    }
}

impl EventBuffer {
    /// For this many events at most, one at least.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), ..Self::default() }
    }

    /// Flushes go to this sink too, from now on.
    pub fn add_sink(&mut self, filter: EventFilter, sink: Box<dyn Sink>) {
        self.sinks.push((filter, sink));
    }

    /// Hands everything to the sinks; how many events that was.
    pub fn flush(&mut self) -> usize {
        let events = std::mem::take(&mut self.events);
        for event in &events {
            for (filter, sink) in &mut self.sinks {
                if filter.passes(event) {
                    event.hand_to(&mut **sink);
                }
            }
        }
        events.len()
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Events that had to make room, since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn push(&mut self, event: Event) {
        if self.events.len() >= self.capacity {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back(event);
    }
}

impl fmt::Debug for EventBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBuffer")
            .field("events", &self.events.len())
            .field("capacity", &self.capacity)
            .field("dropped", &self.dropped)
            .field("sinks", &self.sinks.len())
            .finish()
    }
}

impl Sink for EventBuffer {
    fn point(&mut self, point: Point<'_>) {
        let value = match point.value {
            PointValue::Int(n) => Number::Int(n),
            PointValue::Double(n) => Number::Double(n),
            PointValue::Histogram(histogram) => Number::Histogram(Box::new(histogram.clone())),
        };
        let attributes = Attributes::keep(point.attributes);
        self.push(Event::Point { metric: point.metric, owner: point.owner, attributes, value });
    }

    fn span(&mut self, span: Span<'_>) {
        self.push(Event::of_span(span));
    }

    fn log(&mut self, record: LogRecord<'_>) {
        self.push(Event::of_log(record));
    }

    fn profile(&mut self, profile: Profile) {
        self.push(Event::Profile(Box::new(profile)));
    }

    fn lifecycle(&mut self, event: &Lifecycle) {
        self.push(Event::Lifecycle(Box::new(*event)));
    }
}

/// So that the caller keeps a hand on a sink that it gave away.
impl<S: Sink> Sink for Rc<RefCell<S>> {
    fn point(&mut self, point: Point<'_>) {
        self.borrow_mut().point(point);
    }

    fn span(&mut self, span: Span<'_>) {
        self.borrow_mut().span(span);
    }

    fn log(&mut self, record: LogRecord<'_>) {
        self.borrow_mut().log(record);
    }

    fn profile(&mut self, profile: Profile) {
        self.borrow_mut().profile(profile);
    }

    fn lifecycle(&mut self, event: &Lifecycle) {
        self.borrow_mut().lifecycle(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Instrument, Recorder, Severity, Subject};

    static COUNT: Metric = Metric {
        name: "test.count",
        unit: "1",
        description: "",
        instrument: Instrument::Counter,
        subject: Subject::Process,
        attributes: &["name"],
        source: "",
    };
    static EXEC: LogDef =
        LogDef { name: "test.exec", description: "", severity: Severity::Info, attributes: &[], source: "" };

    fn owner(pid: u32) -> Owner {
        Owner::Process { pid, comm: [0; 16] }
    }

    fn fill(buffer: &mut EventBuffer, pid: u32, n: i64) {
        let name = format!("process {pid}");
        let attributes = [("name", Value::Str(&name))];
        let value = PointValue::Int(n);
        buffer.point(Point { metric: &COUNT, owner: owner(pid), attributes: &attributes, value });
        buffer.log(LogRecord { log: &EXEC, owner: owner(pid), boot_nanos: 1, body: &name, attributes: &[] });
    }

    #[test]
    fn sinks_get_what_their_filters_let_pass() {
        let mut buffer = EventBuffer::new(16);
        let sink = |kinds: &[EventKind], pids: &[u32], buffer: &mut EventBuffer| {
            let recorder = Rc::new(RefCell::new(Recorder::default()));
            let filter = EventFilter { kinds: kinds.to_vec(), pids: pids.to_vec() };
            buffer.add_sink(filter, Box::new(Rc::clone(&recorder)));
            recorder
        };
        let all = sink(&[], &[], &mut buffer);
        let points_of_8 = sink(&[EventKind::Point], &[8], &mut buffer);
        fill(&mut buffer, 7, 1);
        fill(&mut buffer, 8, 2);
        fill(&mut buffer, 8, 3);
        buffer.profile(Profile::default());
        assert_eq!((buffer.len(), all.borrow().logs.len()), (7, 0), "nothing before the flush");
        assert_eq!(buffer.flush(), 7);
        assert!(buffer.is_empty());
        let (all, some) = (all.borrow(), points_of_8.borrow());
        assert_eq!((all.logs.len(), all.profiles.len(), some.logs.len(), some.profiles.len()), (3, 1, 0, 0));
        assert_eq!(all.number("test.count", 7, &[("name", "process 7")]), 1.0);
        assert_eq!((some.number("test.count", 8, &[]), some.number("test.count", 7, &[])), (5.0, 0.0));
    }

    #[test]
    fn the_oldest_makes_room_and_is_counted() {
        let mut buffer = EventBuffer::new(3);
        let recorder = Rc::new(RefCell::new(Recorder::default()));
        buffer.add_sink(EventFilter::default(), Box::new(Rc::clone(&recorder)));
        (1..=3).for_each(|pid| fill(&mut buffer, pid, 1));
        assert_eq!((buffer.len(), buffer.dropped(), buffer.flush()), (3, 3, 3));
        let texts: Vec<_> = recorder.borrow().logs.iter().map(|log| log.pid).collect();
        assert_eq!(texts, [Some(2), Some(3)]);
    }
}
