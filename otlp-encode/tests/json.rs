//! OTLP JSON against the official bindings' own, and against the mapping's rules.

mod support;

use otlp_encode::wire::Writer;
use otlp_encode::{Error, common, json, profiles, resource};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::*;

/// The bindings print 64-bit integers of profiles as numbers and every default value. What remains when such
/// choices are levelled out: numbers become text, and what is empty goes.
fn level(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Bool(b) => b.then_some(Value::Bool(true)),
        Value::Number(n) if n.as_f64() == Some(0.0) => None,
        Value::Number(n) => Some(Value::String(n.to_string())),
        Value::String(s) => (!s.is_empty() && s != "0").then_some(Value::String(s)),
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
fn without_their_bytes(mut request: ProstRequest) -> ProstRequest {
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

type ProstRequest =
    opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;

fn request_line(request: &ProstRequest) -> String {
    let mut writer = Writer::new();
    let bytes = profiles::ExportProfilesServiceRequest::encode(&mut writer, |to| write_request(to, request));
    let mut line = String::new();
    json::transcode(profiles::ExportProfilesServiceRequest::descriptor(), bytes, &mut line).unwrap();
    line
}

proptest! {
    #[test]
    fn requests_equal_the_bindings_json(request in request().prop_map(without_their_bytes)) {
        let line = request_line(&request);
        prop_assert!(!line.contains('\n'));
        let ours: Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(level(ours), level(serde_json::to_value(&request).unwrap()));
    }

    #[test]
    fn resources_equal_the_bindings_json(message in resource()) {
        let mut writer = Writer::new();
        let bytes = resource::Resource::encode(&mut writer, |to| write_resource(to, &message));
        let mut line = String::new();
        json::transcode(resource::Resource::descriptor(), bytes, &mut line).unwrap();
        let ours: Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(level(ours), level(serde_json::to_value(&message).unwrap()));
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut line = String::from("kept");
        let descriptor = profiles::ExportProfilesServiceRequest::descriptor();
        if json::transcode(descriptor, &bytes, &mut line).is_err() {
            prop_assert_eq!(line, "kept");
        }
    }

    #[test]
    fn a_damaged_request_never_panics(request in request(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut writer = Writer::new();
        let encoded = profiles::ExportProfilesServiceRequest::encode(&mut writer, |to| write_request(to, &request));
        let mut bytes = encoded.to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut line = String::new();
        if json::transcode(profiles::ExportProfilesServiceRequest::descriptor(), &bytes, &mut line).is_ok() {
            serde_json::from_str::<Value>(&line).unwrap();
        }
    }
}

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
