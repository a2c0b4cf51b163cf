//! What the agent tells: every metric, span, log record and profile is defined once, beside the tracer that measures it,
//! and handed to a [`Sink`] as it happens or at the end of a window.
//!
//! `docs/telemetry.md` is generated from the definitions.

pub mod agent;
mod define;
mod document;
mod exponential;
mod recorder;
mod sink;
mod view;

pub use define::{Definitions, Instrument, LogDef, Metric, ProfileDef, Severity, SpanDef, SpanKind, Subject};
pub use document::document;
pub use exponential::{Exponential, OCTAVES};
pub use recorder::{Item, Recorder, Series};
pub use sink::{Attribute, LogRecord, Owner, Point, PointValue, Sink, Span};
pub use view::{Column, Show, View};
