//! Logs.

use super::common::{
    any_value, key_value, resource, scope, write_any_value, write_key_value, write_resource, write_scope,
};
use super::*;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1 as proto;
use otlp_encode::logs as ours;
use otlp_encode::wire::Writer;
use proptest::option;

fn record() -> impl Strategy<Value = proto::LogRecord> {
    let times = (uint64(), uint64());
    let severity = (int32(), text(), text());
    let ids = (blob(), blob(), uint32());
    (times, severity, ids, option::of(any_value()), few(key_value()), uint32()).prop_map(
        |(times, severity, ids, body, attributes, dropped)| proto::LogRecord {
            time_unix_nano: times.0,
            observed_time_unix_nano: times.1,
            severity_number: severity.0,
            severity_text: severity.1,
            event_name: severity.2,
            trace_id: ids.0,
            span_id: ids.1,
            flags: ids.2,
            body,
            attributes,
            dropped_attributes_count: dropped,
        },
    )
}

pub fn request() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let scope_logs = (option::of(scope()), few(record()), text())
        .prop_map(|(scope, log_records, schema_url)| proto::ScopeLogs { scope, log_records, schema_url });
    let resource_logs =
        (option::of(resource()), few(scope_logs), text()).prop_map(|(resource, scope_logs, schema_url)| {
            proto::ResourceLogs { resource, scope_logs, schema_url }
        });
    few(resource_logs).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

pub fn encode<'w>(writer: &'w mut Writer, from: &ExportLogsServiceRequest) -> &'w [u8] {
    ours::ExportLogsServiceRequest::encode(writer, |to| {
        to.resource_logs(&from.resource_logs, |to, from| {
            to.schema_url(&from.schema_url);
            to.scope_logs(&from.scope_logs, |to, from| {
                to.schema_url(&from.schema_url);
                to.log_records(&from.log_records, write_record);
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

fn write_record(to: &mut ours::LogRecord<'_>, from: &proto::LogRecord) {
    to.event_name(&from.event_name);
    to.observed_time_unix_nano(from.observed_time_unix_nano);
    to.span_id(&from.span_id);
    to.trace_id(&from.trace_id);
    to.flags(from.flags);
    to.dropped_attributes_count(from.dropped_attributes_count);
    to.attributes(&from.attributes, write_key_value);
    if let Some(body) = &from.body {
        to.body(|to| write_any_value(to, body));
    }
    to.severity_text(&from.severity_text);
    to.severity_number(from.severity_number);
    to.time_unix_nano(from.time_unix_nano);
}
