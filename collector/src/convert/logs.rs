//! Log records to OTLP requests of logs.

use otlp_encode::{Batch, LogRecord, LogsRequest, ResourceBlob, ScopeBlob, Severity, Value};

use crate::pipeline::resources::ResourceId;
use crate::telemetry::{self, LogDef};

/// A log record, as it is exported.
#[derive(Debug)]
pub struct LogItem<'a> {
    /// Whose.
    pub resource: ResourceId,
    /// What sort.
    pub log: &'static LogDef,
    /// When it happened, in nanoseconds since the epoch.
    pub unix_nanos: u64,
    /// In words.
    pub body: &'a str,
    /// Attributes, each of them once.
    pub attributes: Vec<(&'static str, Value<'a>)>,
}

/// Encodes log records in the order in which they come; those of one resource lie side by side. Returns how many were
/// refused.
pub fn encode<'a, 'b>(
    request: &mut LogsRequest,
    scope: &ScopeBlob,
    observed_unix_nanos: u64,
    items: impl DoubleEndedIterator<Item = LogItem<'b>>,
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
        let mut records = scopes.scope(scope);
        while let Some(item) = items.next_if(|item| item.resource == of) {
            let (severity, severity_text) = match item.log.severity {
                telemetry::Severity::Info => (Severity::INFO, "INFO"),
                telemetry::Severity::Warn => (Severity::WARN, "WARN"),
                telemetry::Severity::Error => (Severity::ERROR, "ERROR"),
            };
            let record = LogRecord {
                time_unix_nano: item.unix_nanos,
                observed_time_unix_nano: observed_unix_nanos,
                severity,
                severity_text,
                body: Some(item.body.into()),
                event_name: item.log.name,
                ..LogRecord::default()
            };
            refused += u64::from(records.add(&record, &item.attributes.as_slice()).is_err());
        }
    }
    out.finish();
    refused
}
