//! Traces.

use super::common::{key_value, resource, scope, write_key_value, write_resource, write_scope};
use super::*;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1 as proto;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use otlp_encode::trace as ours;
use otlp_encode::wire::Writer;
use proptest::option;

fn event() -> impl Strategy<Value = Event> {
    (uint64(), text(), few(key_value()), uint32()).prop_map(|(time_unix_nano, name, attributes, dropped)| {
        Event { time_unix_nano, name, attributes, dropped_attributes_count: dropped }
    })
}

fn link() -> impl Strategy<Value = Link> {
    (blob(), blob(), text(), few(key_value()), uint32(), uint32()).prop_map(
        |(trace_id, span_id, trace_state, attributes, dropped, flags)| Link {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count: dropped,
            flags,
        },
    )
}

fn span() -> impl Strategy<Value = proto::Span> {
    let ids = (blob(), blob(), blob(), text(), uint32());
    let what = (text(), int32(), uint64(), uint64());
    let lists = (few(key_value()), few(event()), few(link()));
    let dropped = (uint32(), uint32(), uint32());
    let status = option::of((text(), int32()).prop_map(|(message, code)| proto::Status { message, code }));
    (ids, what, lists, dropped, status).prop_map(|(ids, what, lists, dropped, status)| proto::Span {
        trace_id: ids.0,
        span_id: ids.1,
        parent_span_id: ids.2,
        trace_state: ids.3,
        flags: ids.4,
        name: what.0,
        kind: what.1,
        start_time_unix_nano: what.2,
        end_time_unix_nano: what.3,
        attributes: lists.0,
        events: lists.1,
        links: lists.2,
        dropped_attributes_count: dropped.0,
        dropped_events_count: dropped.1,
        dropped_links_count: dropped.2,
        status,
    })
}

pub fn request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scope_spans = (option::of(scope()), few(span()), text())
        .prop_map(|(scope, spans, schema_url)| proto::ScopeSpans { scope, spans, schema_url });
    let resource_spans =
        (option::of(resource()), few(scope_spans), text()).prop_map(|(resource, scope_spans, schema_url)| {
            proto::ResourceSpans { resource, scope_spans, schema_url }
        });
    few(resource_spans).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

pub fn encode<'w>(writer: &'w mut Writer, from: &ExportTraceServiceRequest) -> &'w [u8] {
    ours::ExportTraceServiceRequest::encode(writer, |to| {
        to.resource_spans(&from.resource_spans, |to, from| {
            to.schema_url(&from.schema_url);
            to.scope_spans(&from.scope_spans, |to, from| {
                to.schema_url(&from.schema_url);
                to.spans(&from.spans, write_span);
                if let Some(scope) = &from.scope {
                    to.scope(|to| write_scope(to, scope));
                }
            });
            if let Some(resource) = &from.resource {
                to.resource(|to| write_resource(to, resource));
            }
        });
    })
}

fn write_span(to: &mut ours::Span<'_>, from: &proto::Span) {
    to.flags(from.flags);
    if let Some(status) = &from.status {
        to.status(|to| {
            to.code(status.code);
            to.message(&status.message);
        });
    }
    to.dropped_links_count(from.dropped_links_count);
    to.links(&from.links, |to, from| {
        to.flags(from.flags);
        to.dropped_attributes_count(from.dropped_attributes_count);
        to.attributes(&from.attributes, write_key_value);
        to.trace_state(&from.trace_state);
        to.span_id(&from.span_id);
        to.trace_id(&from.trace_id);
    });
    to.dropped_events_count(from.dropped_events_count);
    to.events(&from.events, |to, from| {
        to.dropped_attributes_count(from.dropped_attributes_count);
        to.attributes(&from.attributes, write_key_value);
        to.name(&from.name);
        to.time_unix_nano(from.time_unix_nano);
    });
    to.dropped_attributes_count(from.dropped_attributes_count);
    to.attributes(&from.attributes, write_key_value);
    to.end_time_unix_nano(from.end_time_unix_nano);
    to.start_time_unix_nano(from.start_time_unix_nano);
    to.kind(from.kind);
    to.name(&from.name);
    to.parent_span_id(&from.parent_span_id);
    to.trace_state(&from.trace_state);
    to.span_id(&from.span_id);
    to.trace_id(&from.trace_id);
}
