//! Spans with six attributes and an event.

use crate::Variants;
use crate::source::*;
use opentelemetry::trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1 as proto;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use otlp_encode::trace as ours;
use otlp_encode::wire::Writer;
use otlp_encode::{Limits, ResourceBlob, ScopeBlob, TracesRequest};
use prost::Message;
use std::hint::black_box;

const SPANS: usize = 1_000;
const NAME: &str = "GET /api/v1/shops/:shop/items";
const EVENT: &str = "exception";
const SERVER: i32 = 2;
const OK: i32 = 1;
/// Sampled; whether the parent is remote is known, and it is not.
const FLAGS: u32 = 0x101;

struct Span {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    parent_span_id: [u8; 8],
    start: u64,
    end: u64,
    attributes: Attributes,
    event: u64,
    event_attributes: Attributes,
}

fn spans() -> Vec<Span> {
    let mut random = Random(1);
    let span = |number| Span {
        trace_id: random.bytes(),
        span_id: random.bytes(),
        parent_span_id: random.bytes(),
        start: START + random.below(1_000_000_000),
        end: START + 1_000_000_000 + random.below(1_000_000_000),
        attributes: vec![
            ("http.request.method", text("GET")),
            ("http.route", text("/api/v1/shops/:shop/items")),
            ("http.response.status_code", Value::Int(200 + random.below(300) as i64)),
            ("server.address", text(format!("shop-{}", number % 100))),
            ("server.port", Value::Int(8443)),
            ("client.address", text(format!("10.0.{}.{}", number % 7, number % 250))),
        ],
        event: START + 1_000_000_000,
        event_attributes: vec![
            ("exception.type", text("io::Error")),
            ("exception.message", text("timed out")),
        ],
    };
    (0..SPANS).map(span).collect()
}

fn with_prost(spans: &[Span]) -> ExportTraceServiceRequest {
    let span = |span: &Span| proto::Span {
        trace_id: span.trace_id.to_vec(),
        span_id: span.span_id.to_vec(),
        parent_span_id: span.parent_span_id.to_vec(),
        name: NAME.to_owned(),
        kind: SERVER,
        start_time_unix_nano: span.start,
        end_time_unix_nano: span.end,
        attributes: prost_attributes(&span.attributes),
        events: vec![proto::span::Event {
            time_unix_nano: span.event,
            name: EVENT.to_owned(),
            attributes: prost_attributes(&span.event_attributes),
            ..Default::default()
        }],
        status: Some(proto::Status { message: String::new(), code: OK }),
        flags: FLAGS,
        ..Default::default()
    };
    let scope_spans = proto::ScopeSpans {
        scope: prost_scope(),
        spans: spans.iter().map(span).collect(),
        ..Default::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![proto::ResourceSpans {
            resource: prost_resource(),
            scope_spans: vec![scope_spans],
            ..Default::default()
        }],
    }
}

fn with_messages<'w>(spans: &[Span], writer: &'w mut Writer) -> &'w [u8] {
    ours::ExportTraceServiceRequest::encode(writer, |to| {
        to.resource_spans([()], |to, ()| {
            to.scope_spans([()], |to, ()| {
                to.spans(spans, |to, span| {
                    to.flags(FLAGS);
                    to.status(|to| to.code(OK));
                    to.events([()], |to, ()| {
                        to.attributes(&span.event_attributes, write_attribute);
                        to.name(EVENT);
                        to.time_unix_nano(span.event);
                    });
                    to.attributes(&span.attributes, write_attribute);
                    to.end_time_unix_nano(span.end);
                    to.start_time_unix_nano(span.start);
                    to.kind(SERVER);
                    to.name(NAME);
                    to.parent_span_id(&span.parent_span_id);
                    to.span_id(&span.span_id);
                    to.trace_id(&span.trace_id);
                });
                to.scope(write_scope);
            });
            to.resource(write_resource);
        });
    })
}

fn sdk_spans(spans: &[Span]) -> Vec<SpanData> {
    let span = |span: &Span| {
        let mut events = SpanEvents::default();
        events.events.push(Event::new(EVENT, time(span.event), sdk_attributes(&span.event_attributes), 0));
        SpanData {
            span_context: SpanContext::new(
                TraceId::from_bytes(span.trace_id),
                SpanId::from_bytes(span.span_id),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: SpanId::from_bytes(span.parent_span_id),
            parent_span_is_remote: false,
            span_kind: SpanKind::Server,
            name: NAME.into(),
            start_time: time(span.start),
            end_time: time(span.end),
            attributes: sdk_attributes(&span.attributes),
            dropped_attributes_count: 0,
            events,
            links: SpanLinks::default(),
            status: Status::Ok,
            instrumentation_scope: sdk_scope(),
        }
    };
    spans.iter().map(span).collect()
}

/// The last span of a request is its first.
fn with_requests<R>(
    spans: &[Span],
    (resource, scope): &(ResourceBlob, ScopeBlob),
    request: &mut TracesRequest,
    sink: impl Fn(&[u8]) -> R,
) -> Option<R> {
    let mut result = None;
    let mut out = request.start(|batch| result = Some(sink(batch.bytes)));
    let mut scopes = out.resource(resource);
    let mut to = scopes.scope(scope);
    for span in spans.iter().rev() {
        let attributes = add_attributes(&span.event_attributes);
        let event =
            otlp_encode::Event { attributes: &attributes, ..otlp_encode::Event::new(span.event, EVENT) };
        let from = otlp_encode::Span {
            parent_span_id: Some(span.parent_span_id),
            trace_flags: 1,
            parent_is_remote: Some(false),
            kind: otlp_encode::SpanKind::Server,
            events: &[event],
            status: otlp_encode::Status::Ok,
            ..otlp_encode::Span::new(span.trace_id, span.span_id, NAME, span.start..span.end)
        };
        to.add(&from, &add_attributes(&span.attributes)).expect("it is valid");
    }
    out.finish();
    result
}

pub fn run() {
    let spans = spans();
    let request = with_prost(&spans);
    let bytes = request.encode_to_vec();
    let mut writer = Writer::new();
    let sdk = sdk_spans(&spans);
    let resource = ResourceAttributesWithSchema::from(&sdk_resource());
    // The exporter owns its batch.
    let with_sdk = |batch| {
        let resource_spans = group_spans_by_resource_and_scope(batch, &resource);
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    };
    assert_eq!(with_messages(&spans, &mut writer), bytes);
    let blobs = (resource_blob(), scope_blob());
    let mut requests = TracesRequest::new(Limits::default());
    assert_eq!(
        with_requests(&spans, &blobs, &mut requests, <[u8]>::to_vec).as_deref(),
        Some(bytes.as_slice())
    );
    assert_eq!(with_sdk(sdk.clone()), bytes);

    let mut variants = Variants::new("spans", SPANS, bytes.len());
    variants.add("prost, build and encode", || with_prost(black_box(&spans)).encode_to_vec());
    variants.add("prost, encode", || black_box(&request).encode_to_vec());
    variants.add_with("SDK, transform and encode", || sdk.clone(), with_sdk);
    variants.add("ours, messages", || with_messages(black_box(&spans), &mut writer).len());
    variants.add("ours, request", || with_requests(black_box(&spans), &blobs, &mut requests, <[u8]>::len));
    variants.add_memcpy(&bytes);
    variants.report();
}
