//! Spans to OTLP requests of traces.

use otlp_encode::{Batch, ResourceBlob, ScopeBlob, Span, SpanKind, Status, TracesRequest, Value};

use crate::pipeline::resources::ResourceId;
use crate::telemetry::{self, SpanDef};

/// A span, as it is exported.
#[derive(Debug)]
pub struct SpanItem<'a> {
    /// Whose.
    pub resource: ResourceId,
    /// What sort.
    pub span: &'static SpanDef,
    /// Its role.
    pub kind: telemetry::SpanKind,
    /// Not zero.
    pub trace_id: [u8; 16],
    /// Not zero.
    pub span_id: [u8; 8],
    /// Start and end in nanoseconds since the epoch.
    pub unix_nanos: (u64, u64),
    /// Why it failed, if it did.
    pub error: Option<&'a str>,
    /// Attributes, each of them once.
    pub attributes: Vec<(&'static str, Value<'a>)>,
}

/// Encodes spans in the order in which they come; those of one resource lie side by side. Returns how many were refused.
pub fn encode<'a, 'b>(
    request: &mut TracesRequest,
    scope: &ScopeBlob,
    items: impl DoubleEndedIterator<Item = SpanItem<'b>>,
    resource: impl Fn(ResourceId) -> Option<&'a ResourceBlob>,
    each: impl FnMut(Batch<'_>),
) -> u64 {
    let mut refused = 0;
    let mut out = request.start(each);
    // From the end, as messages are written from their end.
    let mut items = items.rev().peekable();
    while let Some(of) = items.peek().map(|item| item.resource) {
        let Some(blob) = resource(of) else {
            refused += items.next().map_or(0, |_| 1);
            continue;
        };
        let mut scopes = out.resource(blob);
        let mut spans = scopes.scope(scope);
        while let Some(mut item) = items.next_if(|item| item.resource == of) {
            if let Some(error) = item.error {
                if !item.attributes.iter().any(|(key, _)| *key == "error.type") {
                    item.attributes.push(("error.type", Value::Str(error)));
                }
            }
            // Clocks of two CPUs may differ by some nanoseconds.
            let (start, end) = item.unix_nanos;
            let span = Span {
                kind: match item.kind {
                    telemetry::SpanKind::Internal => SpanKind::Internal,
                    telemetry::SpanKind::Server => SpanKind::Server,
                    telemetry::SpanKind::Client => SpanKind::Client,
                },
                status: item.error.map_or(Status::Unset, Status::Error),
                ..Span::new(item.trace_id, item.span_id, item.span.name, start..end.max(start))
            };
            refused += u64::from(spans.add(&span, &item.attributes.as_slice()).is_err());
        }
    }
    out.finish();
    refused
}
