//! What is kept where the SDK's limits are set, and what is counted as dropped.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyKind;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::trace::v1 as trace;
use otlp_encode::*;
use prost::Message;

fn keys(attributes: &[KeyValue]) -> Vec<&str> {
    attributes.iter().map(|attribute| attribute.key.as_str()).collect()
}

/// The keys that remain of a log record's attributes, and how many were dropped.
fn kept(count: usize, attributes: &dyn Attributes) -> Result<(String, u32), Error> {
    let limits = AttributeLimits { count, ..AttributeLimits::default() };
    let mut request = LogsRequest::new(Limits::default()).with_attribute_limits(limits);
    let mut bytes = Vec::new();
    let mut out = request.start(|batch| bytes.extend_from_slice(batch.bytes));
    let record = LogRecord { dropped_attributes_count: 1, ..LogRecord::default() };
    let result = out.resource(&ResourceBlob::default()).scope(&ScopeBlob::default()).add(&record, attributes);
    out.finish();
    result?;
    let decoded = ExportLogsServiceRequest::decode(bytes.as_slice()).unwrap();
    assert_eq!(decoded.encode_to_vec(), bytes, "canonical");
    let record = &decoded.resource_logs[0].scope_logs[0].log_records[0];
    Ok((keys(&record.attributes).join(" "), record.dropped_attributes_count))
}

#[test]
fn the_first_attributes_are_kept() {
    let array = [("a", 1), ("b", 2), ("c", 3)];
    let blob = AttributesBlob::new(&array).unwrap();
    let closure = |to: &mut AttributeWriter<'_>| ["c", "b", "a"].into_iter().for_each(|key| to.add(key, 1));
    for (count, expected) in
        [(0, ("", 4)), (1, ("a", 3)), (2, ("a b", 2)), (3, ("a b c", 1)), (9, ("a b c", 1))]
    {
        let expected = Ok((expected.0.to_owned(), expected.1));
        assert_eq!(kept(count, &array), expected);
        assert_eq!(kept(count, &blob), expected);
    }
    // What was added first.
    assert_eq!(kept(2, &closure), Ok(("b c".to_owned(), 2)));
    let both = |to: &mut AttributeWriter<'_>| {
        to.add("z", 1);
        to.extend(&blob);
        to.extend(&[("y", 1)]);
    };
    assert_eq!(kept(4, &both), Ok(("a b c z".to_owned(), 2)));
    assert_eq!(kept(2, &both), Ok(("a z".to_owned(), 4)));
    assert_eq!(kept(1, &both), Ok(("z".to_owned(), 5)));
}

#[test]
fn a_key_that_is_dropped_is_not_there_twice() {
    let blob = AttributesBlob::new(&[("a", 1), ("b", 2)]).unwrap();
    let twice = |to: &mut AttributeWriter<'_>| {
        to.add("b", 1);
        to.extend(&blob);
    };
    assert_eq!(kept(3, &twice), Err(Error::DuplicateAttribute));
    assert_eq!(kept(2, &twice), Ok(("a b".to_owned(), 2)));
}

/// What remains of an attribute's value that may have so many characters.
fn shortened(length: usize, value: Value<'_>) -> AnyKind {
    let limits = AttributeLimits { value_length: Some(length), ..AttributeLimits::default() };
    let mut request = LogsRequest::new(Limits::default()).with_attribute_limits(limits);
    let mut bytes = Vec::new();
    let mut out = request.start(|batch| bytes.extend_from_slice(batch.bytes));
    let record = LogRecord { body: Some(value), ..LogRecord::default() };
    out.resource(&ResourceBlob::default())
        .scope(&ScopeBlob::default())
        .add(&record, &[("k", value)])
        .unwrap();
    out.finish();
    let decoded = ExportLogsServiceRequest::decode(bytes.as_slice()).unwrap();
    let record = &decoded.resource_logs[0].scope_logs[0].log_records[0];
    let kind = |value: &Option<AnyValue>| value.clone().unwrap().value.unwrap();
    if let Value::Str(text) = value {
        assert_eq!(kind(&record.body), AnyKind::StringValue(text.to_owned()), "bodies are kept whole");
    }
    kind(&record.attributes[0].value)
}

#[test]
fn values_are_shortened_by_characters() {
    let text = |text: &str| AnyKind::StringValue(text.to_owned());
    let long = "x".repeat(300);
    for (length, value, expected) in
        [(0, "ab", ""), (1, "ab", "a"), (2, "ab", "ab"), (2, "äöü", "äö"), (3, "äöü", "äöü")]
    {
        assert_eq!(shortened(length, Value::Str(value)), text(expected));
    }
    assert_eq!(shortened(299, Value::Str(&long)), text(&long[1..]));
    assert_eq!(shortened(1, Value::Bytes(&[0, 0, 0])), AnyKind::BytesValue(vec![0]));
    assert_eq!(shortened(1, Value::Int(12345)), AnyKind::IntValue(12345));
    let any = |value| AnyValue { value: Some(value) };
    let list =
        AnyKind::ArrayValue(ArrayValue { values: vec![any(text("a")), any(AnyKind::BoolValue(true))] });
    let entry = KeyValue { key: "key".to_owned(), value: Some(any(list)), ..KeyValue::default() };
    assert_eq!(
        shortened(1, Value::Map(&[("key", Value::Array(&[Value::Str("abc"), Value::Bool(true)]))])),
        AnyKind::KvlistValue(KeyValueList { values: vec![entry] })
    );
}

#[test]
fn events_and_links() {
    let limits = SpanLimits {
        attributes: AttributeLimits { count: 1, value_length: Some(2) },
        events: 2,
        links: 1,
        event_attributes: 0,
        link_attributes: 1,
    };
    let pairs = [("a", "one"), ("b", "two")];
    let event = |name| Event { attributes: &pairs, ..Event::new(1, name) };
    let link = |id| Link { attributes: &pairs, dropped_attributes_count: 7, ..Link::new([id; 16], [id; 8]) };
    let events = [event("first"), event("second"), event("third")];
    let links = [link(1), link(2), link(3)];
    let span = Span {
        events: &events,
        dropped_events_count: u32::MAX,
        links: &links,
        ..Span::new([1; 16], [1; 8], "span", 1..2)
    };
    let mut request = TracesRequest::new(Limits::default()).with_span_limits(limits);
    let mut spans: Vec<trace::Span> = Vec::new();
    let mut out = request.start(|batch| {
        let decoded = ExportTraceServiceRequest::decode(batch.bytes).unwrap();
        assert_eq!(decoded.encode_to_vec(), batch.bytes);
        spans.extend(decoded.resource_spans[0].scope_spans[0].spans.iter().cloned());
    });
    out.resource(&ResourceBlob::default()).scope(&ScopeBlob::default()).add(&span, &pairs).unwrap();
    out.finish();
    let span = &spans[0];
    assert_eq!((keys(&span.attributes), span.dropped_attributes_count), (vec!["a"], 1));
    let value = span.attributes[0].value.as_ref().unwrap().value.clone();
    assert_eq!(value, Some(AnyKind::StringValue("on".into())));
    let names: Vec<_> = span.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!((names, span.dropped_events_count), (vec!["first", "second"], u32::MAX));
    assert!(
        span.events.iter().all(|event| event.attributes.is_empty() && event.dropped_attributes_count == 2)
    );
    assert_eq!((span.links.len(), span.dropped_links_count), (1, 2));
    assert_eq!((keys(&span.links[0].attributes), span.links[0].dropped_attributes_count), (vec!["a"], 8));
}
