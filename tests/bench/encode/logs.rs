//! Log records with a text and four attributes.

use crate::Variants;
use crate::source::*;
use opentelemetry::InstrumentationScope;
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::logs::v1 as proto;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::logs::tonic::group_logs_by_resource_and_scope;
use opentelemetry_sdk::logs::{LogBatch, SdkLogRecord, SdkLoggerProvider};
use otlp_encode::logs as ours;
use otlp_encode::wire::Writer;
use otlp_encode::{Limits, LogRecord, LogsRequest, ResourceBlob, ScopeBlob};
use prost::Message;
use std::hint::black_box;

const RECORDS: usize = 1_000;
const WARN: i32 = 13;
const SAMPLED: u32 = 1;

struct Record {
    time: u64,
    observed: u64,
    body: String,
    attributes: Attributes,
    trace_id: [u8; 16],
    span_id: [u8; 8],
}

fn records() -> Vec<Record> {
    let mut random = Random(1);
    let record = |number| Record {
        time: START + random.below(1_000_000_000),
        observed: START + 1_000_000_000,
        body: format!(
            "request {number} took {} ms, more than the 500 ms that were allowed",
            random.below(5_000)
        ),
        attributes: vec![
            ("thread.id", Value::Int(1 + number as i64 % 64)),
            ("code.file.path", text("src/server/requests.rs")),
            ("code.line.number", Value::Int(random.below(2_000) as i64)),
            ("url.path", text(format!("/api/v1/shops/{}/items", number % 500))),
        ],
        trace_id: random.bytes(),
        span_id: random.bytes(),
    };
    (0..RECORDS).map(record).collect()
}

fn with_prost(records: &[Record]) -> ExportLogsServiceRequest {
    let record = |record: &Record| proto::LogRecord {
        time_unix_nano: record.time,
        observed_time_unix_nano: record.observed,
        severity_number: WARN,
        severity_text: "WARN".to_owned(),
        body: Some(common::AnyValue {
            value: Some(common::any_value::Value::StringValue(record.body.clone())),
        }),
        attributes: prost_attributes(&record.attributes),
        flags: SAMPLED,
        trace_id: record.trace_id.to_vec(),
        span_id: record.span_id.to_vec(),
        ..Default::default()
    };
    let scope_logs = proto::ScopeLogs {
        scope: prost_scope(),
        log_records: records.iter().map(record).collect(),
        ..Default::default()
    };
    ExportLogsServiceRequest {
        resource_logs: vec![proto::ResourceLogs {
            resource: prost_resource(),
            scope_logs: vec![scope_logs],
            ..Default::default()
        }],
    }
}

fn with_messages<'w>(records: &[Record], writer: &'w mut Writer) -> &'w [u8] {
    ours::ExportLogsServiceRequest::encode(writer, |to| {
        to.resource_logs([()], |to, ()| {
            to.scope_logs([()], |to, ()| {
                to.log_records(records, |to, record| {
                    to.observed_time_unix_nano(record.observed);
                    to.span_id(&record.span_id);
                    to.trace_id(&record.trace_id);
                    to.flags(SAMPLED);
                    to.attributes(&record.attributes, write_attribute);
                    to.body(|to| to.string_value(&record.body));
                    to.severity_text("WARN");
                    to.severity_number(WARN);
                    to.time_unix_nano(record.time);
                });
                to.scope(write_scope);
            });
            to.resource(write_resource);
        });
    })
}

fn sdk_records(records: &[Record]) -> Vec<SdkLogRecord> {
    let logger = SdkLoggerProvider::builder().build().logger(SCOPE);
    let record = |from: &Record| {
        let mut record = logger.create_log_record();
        record.set_timestamp(time(from.time));
        record.set_observed_timestamp(time(from.observed));
        record.set_severity_number(Severity::Warn);
        record.set_severity_text("WARN");
        record.set_body(AnyValue::from(from.body.clone()));
        for (key, value) in &from.attributes {
            match value {
                Value::Text(value) => record.add_attribute(*key, value.clone()),
                Value::Int(value) => record.add_attribute(*key, *value),
            }
        }
        let ids = (TraceId::from_bytes(from.trace_id), SpanId::from_bytes(from.span_id));
        record.set_trace_context(ids.0, ids.1, Some(TraceFlags::SAMPLED));
        record
    };
    records.iter().map(record).collect()
}

/// The last record of a request is its first.
fn with_requests<R>(
    records: &[Record],
    (resource, scope): &(ResourceBlob, ScopeBlob),
    request: &mut LogsRequest,
    sink: impl Fn(&[u8]) -> R,
) -> Option<R> {
    let mut result = None;
    let mut out = request.start(|batch| result = Some(sink(batch.bytes)));
    let mut scopes = out.resource(resource);
    let mut to = scopes.scope(scope);
    for record in records.iter().rev() {
        let from = LogRecord {
            time_unix_nano: record.time,
            observed_time_unix_nano: record.observed,
            severity: otlp_encode::Severity::WARN,
            severity_text: "WARN",
            body: Some(record.body.as_str().into()),
            trace_flags: 1,
            trace_id: Some(record.trace_id),
            span_id: Some(record.span_id),
            ..LogRecord::default()
        };
        to.add(&from, &add_attributes(&record.attributes)).expect("it is valid");
    }
    out.finish();
    result
}

pub fn run() {
    let records = records();
    let request = with_prost(&records);
    let bytes = request.encode_to_vec();
    let mut writer = Writer::new();
    let sdk = sdk_records(&records);
    let scope = sdk_scope();
    let batch: Vec<(&SdkLogRecord, &InstrumentationScope)> =
        sdk.iter().map(|record| (record, &scope)).collect();
    let resource = ResourceAttributesWithSchema::from(&sdk_resource());
    let with_sdk = || {
        let resource_logs = group_logs_by_resource_and_scope(&LogBatch::new(black_box(&batch)), &resource);
        ExportLogsServiceRequest { resource_logs }.encode_to_vec()
    };
    assert_eq!(with_messages(&records, &mut writer), bytes);
    let blobs = (resource_blob(), scope_blob());
    let mut requests = LogsRequest::new(Limits::default());
    assert_eq!(
        with_requests(&records, &blobs, &mut requests, <[u8]>::to_vec).as_deref(),
        Some(bytes.as_slice())
    );
    assert_eq!(with_sdk(), bytes);

    let mut variants = Variants::new("log records", RECORDS, bytes.len());
    variants.add("prost, build and encode", || with_prost(black_box(&records)).encode_to_vec());
    variants.add("prost, encode", || black_box(&request).encode_to_vec());
    variants.add("SDK, transform and encode", with_sdk);
    variants.add("ours, messages", || with_messages(black_box(&records), &mut writer).len());
    variants.add("ours, request", || with_requests(black_box(&records), &blobs, &mut requests, <[u8]>::len));
    variants.add_memcpy(&bytes);
    variants.report();
}
