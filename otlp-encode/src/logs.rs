//! `opentelemetry/proto/logs/v1/logs.proto` and its collector service (OTLP 1.11).
//!
//! These types write any fields, valid or not.

use crate::common::{AnyValue, InstrumentationScope, KeyValue};
use crate::message;
use crate::resource::Resource;

message! {
    /// The body of `POST /v1/logs`. `LogsData` has the same field.
    pub struct ExportLogsServiceRequest {
        /// Log records, by resource.
        resource_logs: repeated<ResourceLogs> = 1,
    }
}

message! {
    /// The log records of one resource.
    pub struct ResourceLogs {
        /// The resource.
        resource: message<Resource> = 1,
        /// Its log records, by scope.
        scope_logs: repeated<ScopeLogs> = 2,
        /// The schema that the resource's attributes follow.
        schema_url: string = 3,
    }
}

message! {
    /// The log records of one scope.
    pub struct ScopeLogs {
        /// What produced them.
        scope: message<InstrumentationScope> = 1,
        /// The log records.
        log_records: repeated<LogRecord> = 2,
        /// The schema that the log records follow.
        schema_url: string = 3,
    }
}

message! {
    /// Something that was logged.
    pub struct LogRecord {
        /// When it happened, nanoseconds since the Unix epoch; 0 if unknown.
        time_unix_nano: fixed64 = 1,
        /// `SeverityNumber`: 1 to 24, from trace to fatal; 0 if unknown.
        severity_number: int32 = 2,
        /// The severity as its source calls it.
        severity_text: string = 3,
        /// What was logged: text, or anything with structure.
        body: message<AnyValue> = 5,
        /// Attributes; keys are unique.
        attributes: repeated<KeyValue> = 6,
        /// How many attributes were discarded.
        dropped_attributes_count: uint32 = 7,
        /// The low 8 bits as W3C Trace Context has them.
        flags: fixed32 = 8,
        /// 16 bytes: the trace that was current.
        trace_id: id = 9,
        /// 8 bytes: the span that was current.
        span_id: id = 10,
        /// When it was seen, nanoseconds since the Unix epoch.
        observed_time_unix_nano: fixed64 = 11,
        /// Identifies the class of an event.
        event_name: string = 12,
    }
}
