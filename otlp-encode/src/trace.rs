//! `opentelemetry/proto/trace/v1/trace.proto` and its collector service (OTLP 1.11).
//!
//! These types write any fields, valid or not.

use crate::common::{InstrumentationScope, KeyValue};
use crate::message;
use crate::resource::Resource;

message! {
    /// The body of `POST /v1/traces`. `TracesData` has the same field.
    pub struct ExportTraceServiceRequest {
        /// Spans, by resource.
        resource_spans: repeated<ResourceSpans> = 1,
    }
}

message! {
    /// The spans of one resource.
    pub struct ResourceSpans {
        /// The resource.
        resource: message<Resource> = 1,
        /// Its spans, by scope.
        scope_spans: repeated<ScopeSpans> = 2,
        /// The schema that the resource's attributes follow.
        schema_url: string = 3,
    }
}

message! {
    /// The spans of one scope.
    pub struct ScopeSpans {
        /// What produced them.
        scope: message<InstrumentationScope> = 1,
        /// The spans.
        spans: repeated<Span> = 2,
        /// The schema that the spans follow.
        schema_url: string = 3,
    }
}

message! {
    /// One operation.
    pub struct Span {
        /// 16 bytes, not all zero.
        trace_id: id = 1,
        /// 8 bytes, not all zero.
        span_id: id = 2,
        /// As the header `tracestate` of W3C Trace Context.
        trace_state: string = 3,
        /// 8 bytes; none for a root span.
        parent_span_id: id = 4,
        /// What was done.
        name: string = 5,
        /// `SpanKind`: 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
        kind: int32 = 6,
        /// Nanoseconds since the Unix epoch.
        start_time_unix_nano: fixed64 = 7,
        /// Nanoseconds since the Unix epoch.
        end_time_unix_nano: fixed64 = 8,
        /// Attributes; keys are unique.
        attributes: repeated<KeyValue> = 9,
        /// How many attributes were discarded.
        dropped_attributes_count: uint32 = 10,
        /// What happened in between.
        events: repeated<Event> = 11,
        /// How many events were discarded.
        dropped_events_count: uint32 = 12,
        /// Spans that it has to do with.
        links: repeated<Link> = 13,
        /// How many links were discarded.
        dropped_links_count: uint32 = 14,
        /// How it ended.
        status: message<Status> = 15,
        /// The low 8 bits as W3C Trace Context has them; 0x100 and 0x200 say whether the parent is remote.
        flags: fixed32 = 16,
    }
}

message! {
    /// Something that happened during a span.
    pub struct Event {
        /// Nanoseconds since the Unix epoch.
        time_unix_nano: fixed64 = 1,
        /// What happened.
        name: string = 2,
        /// Attributes; keys are unique.
        attributes: repeated<KeyValue> = 3,
        /// How many attributes were discarded.
        dropped_attributes_count: uint32 = 4,
    }
}

message! {
    /// Another span.
    pub struct Link {
        /// 16 bytes, not all zero.
        trace_id: id = 1,
        /// 8 bytes, not all zero.
        span_id: id = 2,
        /// As the header `tracestate` of W3C Trace Context.
        trace_state: string = 3,
        /// Attributes; keys are unique.
        attributes: repeated<KeyValue> = 4,
        /// How many attributes were discarded.
        dropped_attributes_count: uint32 = 5,
        /// As [`Span::flags`].
        flags: fixed32 = 6,
    }
}

message! {
    /// How a span ended.
    pub struct Status {
        /// What went wrong.
        message: string = 2,
        /// `StatusCode`: 0 unset, 1 ok, 2 error.
        code: int32 = 3,
    }
}
