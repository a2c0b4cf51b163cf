//! Encoded bytes to JSON.

use otlp_encode::descriptor::Descriptor;
use otlp_encode::{common, json, logs, metrics, profiles, resource, trace};

/// What the bytes may be; the first one says which.
const MESSAGES: [fn() -> &'static Descriptor; 6] = [
    metrics::ExportMetricsServiceRequest::descriptor,
    trace::ExportTraceServiceRequest::descriptor,
    logs::ExportLogsServiceRequest::descriptor,
    profiles::ExportProfilesServiceRequest::descriptor,
    resource::Resource::descriptor,
    common::AnyValue::descriptor,
];

/// Bytes as a request, a resource or a value, to JSON: an error, or one line of JSON.
pub fn encode_json(bytes: &[u8]) {
    let Some((&which, message)) = bytes.split_first() else { return };
    let descriptor = MESSAGES[usize::from(which) % MESSAGES.len()];
    let mut line = "before".to_owned();
    match json::transcode(descriptor(), message, &mut line) {
        Ok(()) => {
            let json = line.strip_prefix("before").expect("what was there stays");
            assert!(!json.contains('\n'));
            // Nested as deeply as messages may be, this does not recurse.
            serde_json::from_str::<serde::de::IgnoredAny>(json).expect("it is JSON");
        }
        Err(_) => assert_eq!(line, "before", "an error changes nothing"),
    }
}
