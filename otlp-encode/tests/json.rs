//! OTLP JSON against the official bindings' own, and against the mapping's rules.

mod support;

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use otlp_encode::descriptor::Descriptor;
use otlp_encode::wire::Writer;
use otlp_encode::{Error, common, json, logs, metrics, profiles, resource, trace};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use serde_json::{Value, json};

/// The bindings print 64-bit integers of profiles as numbers, every default value, and most infinities and NaNs as
/// null, against the mapping's rules. What remains when such choices are levelled out: numbers become text, and what
/// is empty or no number goes.
fn level(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Bool(b) => b.then_some(Value::Bool(true)),
        Value::Number(n) if n.as_f64() == Some(0.0) => None,
        Value::Number(n) => Some(Value::String(n.to_string())),
        Value::String(s) if ["", "0", "NaN", "Infinity", "-Infinity"].contains(&s.as_str()) => None,
        Value::String(s) => Some(Value::String(s)),
        // An empty element keeps its place in a list.
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => {
            Some(Value::Array(items.into_iter().map(|item| level(item).unwrap_or_default()).collect()))
        }
        Value::Object(map) => {
            let map: serde_json::Map<_, _> =
                map.into_iter().filter_map(|(key, value)| Some((key, level(value)?))).collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
    }
}

/// Takes out what the bindings print against the mapping's rules: links and payloads as lists of numbers.
fn without_their_bytes(mut request: ExportProfilesServiceRequest) -> ExportProfilesServiceRequest {
    if let Some(dictionary) = &mut request.dictionary {
        dictionary.link_table.clear();
    }
    for profile in request
        .resource_profiles
        .iter_mut()
        .flat_map(|resource| &mut resource.scope_profiles)
        .flat_map(|scope| &mut scope.profiles)
    {
        profile.original_payload.clear();
    }
    request
}

fn line(descriptor: &Descriptor, bytes: &[u8]) -> String {
    let mut line = String::new();
    json::transcode(descriptor, bytes, &mut line).unwrap();
    assert!(!line.contains('\n'));
    line
}

fn check(descriptor: &Descriptor, bytes: &[u8], theirs: serde_json::Result<Value>) -> TestCaseResult {
    let ours: Value = serde_json::from_str(&line(descriptor, bytes)).unwrap();
    prop_assert_eq!(level(ours), level(theirs.unwrap()));
    Ok(())
}

proptest! {
    // Requests are large.
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn profiles_equal_the_bindings_json(request in support::profiles::request().prop_map(without_their_bytes)) {
        let mut writer = Writer::new();
        let bytes = support::profiles::encode(&mut writer, &request);
        check(profiles::ExportProfilesServiceRequest::descriptor(), bytes, serde_json::to_value(&request))?;
    }

    #[test]
    fn metrics_equal_the_bindings_json(request in support::metrics::request()) {
        let mut writer = Writer::new();
        let bytes = support::metrics::encode(&mut writer, &request);
        check(metrics::ExportMetricsServiceRequest::descriptor(), bytes, serde_json::to_value(&request))?;
    }

    #[test]
    fn traces_equal_the_bindings_json(request in support::trace::request()) {
        let mut writer = Writer::new();
        let bytes = support::trace::encode(&mut writer, &request);
        check(trace::ExportTraceServiceRequest::descriptor(), bytes, serde_json::to_value(&request))?;
    }

    #[test]
    fn logs_equal_the_bindings_json(request in support::logs::request()) {
        let mut writer = Writer::new();
        let bytes = support::logs::encode(&mut writer, &request);
        check(logs::ExportLogsServiceRequest::descriptor(), bytes, serde_json::to_value(&request))?;
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for descriptor in DESCRIPTORS {
            let mut line = String::from("kept");
            if json::transcode(descriptor(), &bytes, &mut line).is_err() {
                prop_assert_eq!(line, "kept");
            }
        }
    }

    #[test]
    fn a_damaged_request_never_panics(
        request in support::metrics::request(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut writer = Writer::new();
        let mut bytes = support::metrics::encode(&mut writer, &request).to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for descriptor in DESCRIPTORS {
            let mut line = String::new();
            if json::transcode(descriptor(), &bytes, &mut line).is_ok() {
                serde_json::from_str::<Value>(&line).unwrap();
            }
        }
    }
}

/// Of the requests.
const DESCRIPTORS: [fn() -> &'static Descriptor; 4] = [
    metrics::ExportMetricsServiceRequest::descriptor,
    trace::ExportTraceServiceRequest::descriptor,
    logs::ExportLogsServiceRequest::descriptor,
    profiles::ExportProfilesServiceRequest::descriptor,
];

fn value_line(fill: impl FnOnce(&mut common::AnyValue<'_>)) -> String {
    let mut writer = Writer::new();
    let bytes = common::AnyValue::encode(&mut writer, fill);
    let mut line = String::new();
    json::transcode(common::AnyValue::descriptor(), bytes, &mut line).unwrap();
    line
}

#[test]
fn values_by_the_rules_of_the_mapping() {
    assert_eq!(value_line(|_| {}), "{}");
    assert_eq!(value_line(|v| v.int_value(-5)), r#"{"intValue":"-5"}"#);
    assert_eq!(value_line(|v| v.bool_value(false)), r#"{"boolValue":false}"#);
    assert_eq!(value_line(|v| v.double_value(0.1)), r#"{"doubleValue":0.1}"#);
    assert_eq!(value_line(|v| v.double_value(1e300)), r#"{"doubleValue":1e300}"#);
    assert_eq!(value_line(|v| v.double_value(f64::NAN)), r#"{"doubleValue":"NaN"}"#);
    assert_eq!(value_line(|v| v.double_value(f64::NEG_INFINITY)), r#"{"doubleValue":"-Infinity"}"#);
    assert_eq!(value_line(|v| v.string_value_strindex(-3)), r#"{"stringValueStrindex":-3}"#);
    for (bytes, base64) in
        [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (&[0xfb, 0xff], "+/8=")]
    {
        assert_eq!(value_line(|v| v.bytes_value(bytes)), format!(r#"{{"bytesValue":"{base64}"}}"#));
    }
    let text = "quote \" slash \\ line \n nul \0 ä 🦀";
    let line = value_line(|v| v.string_value(text));
    assert!(line.contains("quote \\\" slash \\\\ line \\n nul \\u0000 ä 🦀"), "{line}");
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), json!({ "stringValue": text }));
}

#[test]
fn a_profile_by_the_rules_of_the_mapping() {
    let mut writer = Writer::new();
    let bytes = profiles::ExportProfilesServiceRequest::encode(&mut writer, |request| {
        request.dictionary(|dictionary| {
            dictionary.string_table(["", "cpu"]);
            dictionary.link_table([(), ()], |link, ()| {
                link.span_id(&[0xab; 8]);
                link.trace_id(&[0x01; 16]);
            });
        });
        request.resource_profiles([()], |resource, ()| {
            resource.scope_profiles([()], |scope, ()| {
                scope.profiles([()], |profile, ()| {
                    profile.attribute_indices([1, 2]);
                    profile.original_payload(b"hi");
                    profile.profile_id(&[0xfe; 16]);
                    profile.period(-1);
                    profile.time_unix_nano(u64::MAX);
                    profile.samples([()], |sample, ()| {
                        sample.timestamps_unix_nano(&[7]);
                        sample.values([1, -1]);
                        sample.stack_index(3);
                    });
                });
            });
        });
    });
    let mut line = String::new();
    json::transcode(profiles::ExportProfilesServiceRequest::descriptor(), bytes, &mut line).unwrap();
    let link = json!({ "traceId": "01010101010101010101010101010101", "spanId": "abababababababab" });
    assert_eq!(
        serde_json::from_str::<Value>(&line).unwrap(),
        json!({
            "resourceProfiles": [{ "scopeProfiles": [{ "profiles": [{
                "samples": [{ "stackIndex": 3, "values": ["1", "-1"], "timestampsUnixNano": ["7"] }],
                "timeUnixNano": "18446744073709551615",
                "period": "-1",
                "profileId": "fefefefefefefefefefefefefefefefe",
                "originalPayload": "aGk=",
                "attributeIndices": [1, 2],
            }] }] }],
            "dictionary": { "linkTable": [link, link], "stringTable": ["", "cpu"] },
        })
    );
}

#[track_caller]
fn error(bytes: &[u8]) -> Error {
    json::transcode(resource::Resource::descriptor(), bytes, &mut String::new()).unwrap_err()
}

#[test]
fn errors_name_the_offset() {
    assert_eq!(error(&[0x10]), Error::Truncated { offset: 1 });
    assert_eq!(error(&[0x0a, 2, 0x0a]), Error::Truncated { offset: 3 });
    // The inner message ends before its field does, though bytes follow.
    assert_eq!(error(&[0x0a, 2, 0x0a, 1, 0x10, 1]), Error::Truncated { offset: 4 });
    assert_eq!(
        error(&[0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
        Error::Varint { offset: 1 }
    );
    assert_eq!(error(&[0x10, 1, 0x20, 1]), Error::UnknownField { offset: 2, field: 4 });
    assert_eq!(error(&[0x12, 0]), Error::WireType { offset: 0, field: 2 });
    assert_eq!(error(&[0x10, 1, 0x10, 1]), Error::FieldOrder { offset: 2, field: 2 });
    assert_eq!(error(&[0x10, 1, 0x0a, 0]), Error::FieldOrder { offset: 2, field: 1 });
    assert_eq!(error(&[0x0a, 4, 0x0a, 2, b'a', 0xff]), Error::Utf8 { offset: 5 });
    let huge = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    assert_eq!(error(&huge), Error::Truncated { offset: 11 });
}

#[test]
fn nesting_is_bounded() {
    let transcode = |depth| {
        let mut bytes = Vec::new();
        for _ in 0..depth {
            let mut writer = Writer::new();
            writer.fields().message(5, |mut list| list.bytes(1, &bytes));
            bytes = writer.as_bytes().to_vec();
        }
        json::transcode(common::AnyValue::descriptor(), &bytes, &mut String::new())
    };
    // Each level is two messages, and the outermost one counts.
    assert_eq!(transcode((json::MAX_DEPTH - 1) / 2), Ok(()));
    assert!(matches!(transcode(json::MAX_DEPTH / 2), Err(Error::Depth { .. })));
    assert!(matches!(transcode(5_000), Err(Error::Depth { .. })));
}

#[test]
fn a_metric_a_span_and_a_log_record_by_the_rules_of_the_mapping() {
    let mut writer = Writer::new();
    let bytes = metrics::ExportMetricsServiceRequest::encode(&mut writer, |request| {
        request.resource_metrics([()], |resource, ()| {
            resource.scope_metrics([()], |scope, ()| {
                scope.metrics([()], |metric, ()| {
                    metric.sum(|sum| {
                        sum.is_monotonic(true);
                        sum.aggregation_temporality(metrics::CUMULATIVE);
                        sum.data_points([()], |point, ()| {
                            point.exemplars([()], |exemplar, ()| {
                                exemplar.trace_id(&[0x5b; 16]);
                                exemplar.span_id(&[0xee; 8]);
                                exemplar.as_double(0.5);
                            });
                            point.as_int(-3);
                            point.time_unix_nano(1_544_712_660_300_000_000);
                        });
                    });
                    metric.unit("1");
                    metric.name("my.counter");
                });
            });
        });
    });
    let got: Value =
        serde_json::from_str(&line(metrics::ExportMetricsServiceRequest::descriptor(), bytes)).unwrap();
    let exemplar = json!({
        "asDouble": 0.5,
        "spanId": "eeeeeeeeeeeeeeee",
        "traceId": "5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b",
    });
    let point = json!({ "timeUnixNano": "1544712660300000000", "asInt": "-3", "exemplars": [exemplar] });
    let sum = json!({ "dataPoints": [point], "aggregationTemporality": 2, "isMonotonic": true });
    let metric = json!({ "name": "my.counter", "unit": "1", "sum": sum });
    assert_eq!(got, json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [metric] }] }] }));

    let bytes = trace::ExportTraceServiceRequest::encode(&mut writer, |request| {
        request.resource_spans([()], |resource, ()| {
            resource.scope_spans([()], |scope, ()| {
                scope.spans([()], |span, ()| {
                    span.flags(0x301);
                    span.status(|status| status.code(2));
                    span.kind(2);
                    span.name("GET /");
                    span.parent_span_id(&[0xab; 8]);
                    span.span_id(&[0xcd; 8]);
                    span.trace_id(&[0x01; 16]);
                });
            });
        });
    });
    let got: Value =
        serde_json::from_str(&line(trace::ExportTraceServiceRequest::descriptor(), bytes)).unwrap();
    let span = json!({
        "traceId": "01010101010101010101010101010101",
        "spanId": "cdcdcdcdcdcdcdcd",
        "parentSpanId": "abababababababab",
        "name": "GET /",
        "kind": 2,
        "status": { "code": 2 },
        "flags": 769,
    });
    assert_eq!(got, json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] }));

    let bytes = logs::ExportLogsServiceRequest::encode(&mut writer, |request| {
        request.resource_logs([()], |resource, ()| {
            resource.scope_logs([()], |scope, ()| {
                scope.log_records([()], |record, ()| {
                    record.observed_time_unix_nano(7);
                    record.flags(1);
                    record.body(|body| {
                        body.kvlist_value(|map| {
                            map.values([("n", 1), ("m", 2)], |kv, (key, n)| kv.int(key, n))
                        });
                    });
                    record.severity_number(10);
                });
            });
        });
    });
    let got: Value =
        serde_json::from_str(&line(logs::ExportLogsServiceRequest::descriptor(), bytes)).unwrap();
    let entries =
        json!([{ "key": "n", "value": { "intValue": "1" } }, { "key": "m", "value": { "intValue": "2" } }]);
    let record = json!({
        "severityNumber": 10,
        "body": { "kvlistValue": { "values": entries } },
        "flags": 1,
        "observedTimeUnixNano": "7",
    });
    assert_eq!(got, json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [record] }] }] }));
}

#[track_caller]
fn same(line: &str, example: &str) {
    let value = |text| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(value(line), value(example));
}

/// In the manner of the examples that come with the proto files: the bindings read them, and they come out as they were.
#[test]
fn examples_come_out_as_they_were() {
    use opentelemetry_proto::tonic::collector::{logs::v1 as l, metrics::v1 as m, trace::v1 as t};
    let example = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"my.service"}}]},
        "scopeSpans":[{"scope":{"name":"my.library","version":"1.0.0","attributes":[{"key":"my.scope.attribute",
        "value":{"stringValue":"some scope attribute"}}]},"spans":[{"traceId":"5b8efff798038103d269b633813fc60c",
        "spanId":"eee19b7ec3c1b174","parentSpanId":"eee19b7ec3c1b173","name":"I'm a server span",
        "startTimeUnixNano":"1544712660000000000","endTimeUnixNano":"1544712661000000000","kind":2,
        "attributes":[{"key":"my.span.attr","value":{"stringValue":"some value"}}]}]}]}]}"#;
    let mut writer = Writer::new();
    let request: t::ExportTraceServiceRequest = serde_json::from_str(example).unwrap();
    let bytes = support::trace::encode(&mut writer, &request);
    same(&line(trace::ExportTraceServiceRequest::descriptor(), bytes), example);

    let example = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"my.histogram","unit":"1",
        "description":"I am a Histogram","histogram":{"aggregationTemporality":1,"dataPoints":[{
        "startTimeUnixNano":"1544712660300000000","timeUnixNano":"1544712660300000000","count":"2","sum":2.0,
        "bucketCounts":["1","1"],"explicitBounds":[1.0],"min":0.5,"max":2.5,"attributes":[{"key":"my.histogram.attr",
        "value":{"stringValue":"some value"}}]}]}}]}]}]}"#;
    let request: m::ExportMetricsServiceRequest = serde_json::from_str(example).unwrap();
    let bytes = support::metrics::encode(&mut writer, &request);
    same(&line(metrics::ExportMetricsServiceRequest::descriptor(), bytes), example);

    let example = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1544712660300000000",
        "observedTimeUnixNano":"1544712660300000000","severityNumber":10,"severityText":"Information",
        "traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174",
        "body":{"stringValue":"Example log record"},"attributes":[{"key":"boolean.attribute","value":{"boolValue":true}},
        {"key":"int.attribute","value":{"intValue":"10"}},{"key":"double.attribute","value":{"doubleValue":637.704}},
        {"key":"array.attribute","value":{"arrayValue":{"values":[{"stringValue":"many"},{"stringValue":"values"}]}}}]}]}]}]}"#;
    let request: l::ExportLogsServiceRequest = serde_json::from_str(example).unwrap();
    let bytes = support::logs::encode(&mut writer, &request);
    same(&line(logs::ExportLogsServiceRequest::descriptor(), bytes), example);
}
