use opentelemetry_proto::tonic::logs::v1::LogRecord as ProtoLog;
use opentelemetry_proto::tonic::trace::v1::Span as ProtoSpan;

use super::*;
use crate::convert::fixture;

static DIAL: SpanDef = SpanDef { name: "t.dial", description: "d", attributes: &["k"], source: "test" };
static DIED: LogDef =
    LogDef { name: "t.died", description: "d", severity: Severity::Warn, attributes: &["k"], source: "test" };

fn dial(pipeline: &mut Pipeline, owner: Owner, boot_nanos: (u64, u64), error: Option<&str>) {
    let attributes = [("k", "v".into())];
    let kind = SpanKind::Client;
    pipeline.span(Span { span: &DIAL, kind, owner, boot_nanos, attributes: &attributes, error });
}

fn died(pipeline: &mut Pipeline, owner: Owner, attributes: &[Attribute<'_>]) {
    let (log, body, boot_nanos) = (&DIED, "it died", 105 * SECOND);
    pipeline.log(LogRecord { log, owner, boot_nanos, body, attributes });
}

fn spans(requests: &[Request]) -> Vec<(String, ProtoSpan)> {
    let requests = requests.iter().filter(|request| request.signal == Signal::Traces);
    let mut all = Vec::new();
    for request in requests {
        let decoded = ExportTraceServiceRequest::decode(request.body.clone()).unwrap();
        for of in decoded.resource_spans {
            let service = texts(&of.resource.unwrap().attributes).remove("service.name").unwrap_or_default();
            all.extend(of.scope_spans.into_iter().flat_map(|s| s.spans).map(|span| (service.clone(), span)));
        }
    }
    all
}

fn logs(requests: &[Request]) -> Vec<(String, ProtoLog)> {
    let requests = requests.iter().filter(|request| request.signal == Signal::Logs);
    let mut all = Vec::new();
    for request in requests {
        let decoded = ExportLogsServiceRequest::decode(request.body.clone()).unwrap();
        for of in decoded.resource_logs {
            let service = texts(&of.resource.unwrap().attributes).remove("service.name").unwrap_or_default();
            all.extend(
                of.scope_logs.into_iter().flat_map(|s| s.log_records).map(|log| (service.clone(), log)),
            );
        }
    }
    all
}

#[test]
fn spans_and_log_records_say_whose_they_are() {
    let proc = FakeProc::new();
    proc.add(7, 500, "/usr/bin/shop", "/", "");
    proc.add(8, 500, "/usr/bin/cart", "/", "");
    let mut pipeline = Pipeline::new(settings(proc.host(), Temporality::Cumulative), at(100)).unwrap();
    dial(&mut pipeline, of(7), (101 * SECOND, 102 * SECOND), None);
    dial(&mut pipeline, of(8), (103 * SECOND, 103 * SECOND - 5), Some("ECONNREFUSED"));
    dial(&mut pipeline, of(7), (104 * SECOND, 105 * SECOND), None);
    died(&mut pipeline, of(8), &[("k", 1.into())]);
    died(&mut pipeline, of(8), &[("process.pid", 99.into())]);
    died(&mut pipeline, Owner::Host, &[]);
    // Both are gone before anything is sent.
    exited(&mut pipeline, 7, 5 * SECOND);
    exited(&mut pipeline, 8, 5 * SECOND);
    assert!({
        let mut requests = Vec::new();
        pipeline.flush(at(110), &[Signal::Metrics], &mut |request| requests.push(request));
        requests.is_empty()
    });
    let requests = flush(&mut pipeline, at(111));
    let got = spans(&requests);
    let services: Vec<_> = got.iter().map(|(service, _)| &**service).collect();
    assert_eq!(services, ["shop", "shop", "cart"]);
    let ids: BTreeSet<_> = got.iter().flat_map(|(_, span)| [&span.trace_id, &span.span_id]).collect();
    assert_eq!(ids.len(), 6);
    let first = &got[0].1;
    assert_eq!((first.name.as_str(), first.kind), ("t.dial", 3));
    assert_eq!(first.start_time_unix_nano, T0 + 101 * SECOND);
    assert_eq!(first.end_time_unix_nano, T0 + 102 * SECOND);
    assert_eq!(texts(&first.attributes), texts_of(&[("k", "v"), ("process.pid", "7")]));
    assert_eq!(first.status, None);
    let failed = &got[2].1;
    assert_eq!(failed.end_time_unix_nano, failed.start_time_unix_nano);
    assert_eq!(texts(&failed.attributes)["error.type"], "ECONNREFUSED");
    assert_eq!(failed.status.as_ref().map(|s| (s.code, &*s.message)), Some((2, "ECONNREFUSED")));

    let got = logs(&requests);
    let rows: Vec<_> = got.iter().map(|(service, log)| (&**service, texts(&log.attributes))).collect();
    assert_eq!(
        rows,
        [
            ("", texts_of(&[])),
            ("cart", texts_of(&[("k", "1"), ("process.pid", "8")])),
            ("cart", texts_of(&[("process.pid", "99")])),
        ]
    );
    let log = &got[1].1;
    assert_eq!(
        (log.event_name.as_str(), log.severity_number, log.severity_text.as_str()),
        ("t.died", 13, "WARN")
    );
    assert_eq!((text(&log.body), log.time_unix_nano), ("it died".to_owned(), T0 + 105 * SECOND));
    assert_eq!(log.observed_time_unix_nano, T0 + 111 * SECOND);
    // With the records, their resources are gone too.
    flush(&mut pipeline, at(120));
    assert_eq!(pipeline.stats().resources, 4);
}

fn texts_of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_specifications_limits() {
    let proc = FakeProc::new();
    let env = |name: &str| match name {
        "OTEL_BSP_MAX_QUEUE_SIZE" => Some("10".to_owned()),
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE" => Some("4".to_owned()),
        "OTEL_BLRP_SCHEDULE_DELAY" => Some("2000".to_owned()),
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT" => Some("1".to_owned()),
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT" => Some("3".to_owned()),
        _ => None,
    };
    let sdk = SdkSettings::from_env(&env);
    let settings = Settings { sdk, ..settings(proc.host(), Temporality::Cumulative) };
    let mut pipeline = Pipeline::new(settings, at(100)).unwrap();
    for n in 0..12 {
        assert_eq!(pipeline.due(101 * SECOND).contains(&Signal::Traces), n >= 4);
        dial(&mut pipeline, of(n), (n.into(), n.into()), None);
        died(&mut pipeline, Owner::Host, &[("k", "é234".into())]);
    }
    assert_eq!(pipeline.deadline(), 102 * SECOND);
    assert_eq!(pipeline.due(102 * SECOND), [Signal::Traces, Signal::Logs]);
    let requests = flush(&mut pipeline, at(102));
    let items = |signal| requests.iter().filter(|r| r.signal == signal).map(|r| r.items).collect::<Vec<_>>();
    assert_eq!((items(Signal::Traces), items(Signal::Logs)), (vec![4, 4, 2], vec![12]));
    for (_, span) in spans(&requests) {
        assert_eq!(span.attributes.len(), 1);
        assert!(span.dropped_attributes_count <= 1);
    }
    assert!(logs(&requests).iter().all(|(_, log)| texts(&log.attributes)["k"] == "é23"));
    assert!(pipeline.stats().dropped.contains(&(Signal::Traces, "queue full", 2)));
    assert_eq!(pipeline.deadline(), 162 * SECOND);
}

#[test]
fn records_stay_within_their_memory() {
    let proc = FakeProc::new();
    let memory = Memory { records: 40_000, ..Memory::split(1 << 20) };
    let settings = Settings { memory, ..settings(proc.host(), Temporality::Cumulative) };
    let mut pipeline = Pipeline::new(settings, at(100)).unwrap();
    let long = "x".repeat(5000);
    (0..10).for_each(|_| died(&mut pipeline, Owner::Host, &[("k", long.as_str().into())]));
    let kept = logs(&flush(&mut pipeline, at(110))).len() as u64;
    assert!((2..4).contains(&kept), "{kept}");
    assert!(pipeline.stats().dropped.contains(&(Signal::Logs, "memory full", 10 - kept)));
}

#[test]
fn profiles_pass_through() {
    let proc = FakeProc::new();
    let mut pipeline = Pipeline::new(settings(proc.host(), Temporality::Cumulative), at(100)).unwrap();
    pipeline.profile(fixture::profile());
    assert_eq!(pipeline.due(101 * SECOND), [Signal::Profiles]);
    let requests = flush(&mut pipeline, at(101));
    assert_eq!(requests.iter().map(|r| (r.signal, r.items)).collect::<Vec<_>>(), [(Signal::Profiles, 3)]);
    assert!(pipeline.due(102 * SECOND).is_empty());
    pipeline.max_profile_bytes = 10;
    (0..2).for_each(|_| pipeline.profile(fixture::profile()));
    assert_eq!(flush(&mut pipeline, at(103)).len(), 1);
    assert!(pipeline.stats().dropped.contains(&(Signal::Profiles, "memory full", 3)));
}
