//! Requests that are valid, split where they reach a limit.
//!
//! [`MetricsRequest`], [`TracesRequest`] and [`LogsRequest`] are buffers that are reused. [`Request::start`] takes where
//! finished requests go, and gives a [`Session`]; from there, each call gives the next level: a resource, a scope, a
//! metric, its points. Items (points, spans, log records) are written at once, and:
//!
//! - An item that is not valid is refused with an error, and all others stay.
//! - When an item would take the request over a limit, the request is finished without it, and the next one starts with
//!   the same resource, scope and metric around the item. Nothing is encoded twice.
//! - A resource, scope or metric without an item is not written, nor is a request without one.
//! - A guard may be dropped, forgotten or leaked at any time: what it opened is closed when the next one is opened, or
//!   when the session ends.
//!
//! Items stand in the message in the **reverse** of the order in which they were added, and so do metrics, scopes and
//! resources; the protocol gives their order no meaning.

mod blob;
mod frames;
mod logs;
mod metrics;
mod points;
mod profiles;
mod traces;

pub use blob::{EntityRef, MetricBlob, ResourceBlob, ResourceInfo, ScopeBlob, ScopeInfo};
pub use frames::{Batch, Limits};
pub use logs::{LogRecord, LogRecords, LogsRequest, LogsSignal, Severity};
pub use metrics::{
    ExponentialHistogramPoints, HistogramPoints, Metrics, MetricsRequest, MetricsSignal, NumberPoints,
    SummaryPoints, Temporality,
};
pub use points::{
    Bounds, Exemplar, ExponentialBuckets, ExponentialHistogramPoint, HistogramPoint, Number, NumberPoint,
    Quantile, SummaryPoint,
};
pub use profiles::{ProfileInfo, Profiles, ProfilesRequest, ProfilesScopes, ProfilesSession, Samples};
pub use traces::{Event, Link, Span, SpanKind, SpanLimits, Spans, Status, TracesRequest, TracesSignal};

use crate::descriptor::Descriptor;
use core::marker::PhantomData;
use frames::{Frames, Level, Output};

mod sealed {
    use super::{Descriptor, Output};

    /// What the signals' requests differ in.
    pub trait Signal {
        /// What a scope has.
        type Items<'s>;
        const DESCRIPTOR: fn() -> &'static Descriptor;
        fn items(out: Output<'_>) -> Self::Items<'_>;
    }
}
pub(crate) use sealed::Signal;

/// Builds requests of one signal, one after another in the same memory: [`MetricsRequest`], [`TracesRequest`],
/// [`LogsRequest`].
#[derive(Debug)]
pub struct Request<S> {
    frames: Frames,
    signal: PhantomData<S>,
}

impl<S: Signal> Request<S> {
    /// An empty buffer; allocates on first use.
    pub fn new(limits: Limits) -> Self {
        Self { frames: Frames::new(limits, S::DESCRIPTOR), signal: PhantomData }
    }

    /// Starts a request; `sink` gets it when it is finished, and those before it that reached a limit.
    pub fn start<F: FnMut(Batch<'_>)>(&mut self, sink: F) -> Session<'_, S, F> {
        self.frames.clear();
        Session { frames: &mut self.frames, sink, signal: PhantomData }
    }
}

/// A request that is being filled. Dropped or [finished](Self::finish), it hands out what it has.
///
/// If it is leaked, its items are lost.
pub struct Session<'r, S: Signal, F: FnMut(Batch<'_>)> {
    frames: &'r mut Frames,
    sink: F,
    signal: PhantomData<S>,
}

impl<S: Signal, F: FnMut(Batch<'_>)> Session<'_, S, F> {
    /// What follows is about this resource.
    pub fn resource(&mut self, resource: &ResourceBlob) -> Scopes<'_, S> {
        let mut out = Output { frames: self.frames, sink: &mut self.sink };
        out.set(Level::Resource, resource.head(), resource.tail());
        Scopes { out, signal: PhantomData }
    }

    /// Hands out what there is.
    pub fn finish(self) {}
}

impl<S: Signal, F: FnMut(Batch<'_>)> Drop for Session<'_, S, F> {
    fn drop(&mut self) {
        self.frames.flush(&mut self.sink);
    }
}

/// The scopes of a resource.
pub struct Scopes<'s, S> {
    out: Output<'s>,
    signal: PhantomData<S>,
}

impl<S: Signal> Scopes<'_, S> {
    /// What follows was produced by this scope.
    pub fn scope(&mut self, scope: &ScopeBlob) -> S::Items<'_> {
        let mut out = self.out.reborrow();
        out.set(Level::Scope, scope.head(), scope.tail());
        S::items(out)
    }
}

#[cfg(test)]
mod tests;
