//! What leaves the agent, read by programs that are not ours, and checked by the rules of `profcheck`.
//!
//! The foreign readers are Google's protobuf with the official bindings (`conformance/receiver.py`, run by the Python
//! that `CONFORMANCE_PYTHON` names, with `conformance/requirements.txt` installed) and Google's pprof (`go tool pprof`,
//! from Debian's package golang-go). A test whose reader is not installed says so and passes.

use collector::convert::pprof;
use collector::convert::profiles::{DEFAULT_MAX_REQUEST, ProfilesEncoder};
use collector::export::config::Temporality;
use collector::export::{Request, Signal};
use collector::model::*;
use collector::pipeline::{AboutAgent, Pipeline, Reading, Settings};
use collector::telemetry::{
    Exponential, Instrument, LogDef, LogRecord, Metric, Owner, Point, PointValue, Severity, Sink, Span,
    SpanDef, SpanKind, Subject,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use otlp_encode::{json, profiles};
use prost::Message;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use tests::profcheck;
use tests::receivers::{Bindings, TempDir, python};

/// A window of `samples` samples of four processes and the kernel, with shared callers.
fn window(samples: u32) -> Profile {
    let mut profile = Profile {
        start_unix_nanos: 1_790_000_000_000_000_000,
        duration_nanos: 10_000_000_000,
        period_nanos: 10_101_010,
        losses: Losses { skipped: 4, table_full: 0, no_stack: 2, sideband: 1 },
        ..Profile::default()
    };
    let line = |function: String| Line {
        function: function.into(),
        system_name: None,
        file: Some("src/server.rs".into()),
        line: 12,
    };
    for number in 0..5 {
        let path = format!("/opt/server-{number}");
        let is_kernel = number == 0;
        profile.processes.push(Process {
            pid: 100 * number,
            comm: Some(format!("server-{number}").into()),
            executable_path: (!is_kernel).then(|| path.as_str().into()),
            container_id: (number == 4).then(|| "0123456789abcdef".into()),
            service_name: (number == 1).then(|| "checkout".into()),
            ..Process::default()
        });
        profile.threads.push(Thread::new(100 * number, format!("worker-{number}")));
        profile.mappings.push(Mapping {
            path: if is_kernel { "[kernel]".into() } else { path.into() },
            build_id: Some(vec![number as u8; 20].into()),
            memory_start: if is_kernel { 0 } else { 0x1000 },
            memory_limit: if is_kernel { 0 } else { 0x100_0000 },
            file_offset: 0,
        });
        profile.frames.push(Frame {
            kind: if is_kernel { FrameKind::Kernel } else { FrameKind::Native },
            mapping: Some(MappingIdx(number)),
            address: 0x1000,
            lines: vec![line(format!("server_{number}::main"))],
        });
    }
    for number in 0..samples {
        let process = number % 5;
        let leaf = FrameIdx(profile.frames.len() as u32);
        profile.frames.push(Frame {
            kind: FrameKind::Native,
            mapping: Some(MappingIdx(process)),
            address: 0x2000 + u64::from(number),
            lines: vec![line(format!("inlined_{}", number % 7)), line(format!("handler_{number}"))],
        });
        profile.samples.push(Sample {
            process: ProcessIdx(process),
            thread: ThreadIdx(process),
            stack: StackIdx(number),
            count: 1 + u64::from(number % 3),
        });
        profile.stacks.push(vec![leaf, FrameIdx(process)]);
    }
    profile
}

fn requests(profile: &Profile, max_request: usize) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    let mut encoder = ProfilesEncoder::new(1, max_request);
    encoder.encode(profile, [3; 16], |request, _| requests.push(request.to_vec())).unwrap();
    requests
}

#[test]
fn requests_keep_the_rules_of_profcheck_split_or_not() {
    let profile = window(2_000);
    for limit in [DEFAULT_MAX_REQUEST, 50_000, 8_000, 1] {
        let requests = requests(&profile, limit);
        assert_eq!(requests.len() > 1, limit < DEFAULT_MAX_REQUEST);
        for request in requests {
            let decoded = ExportProfilesServiceRequest::decode(request.as_slice()).unwrap();
            let violations: Vec<String> =
                profcheck::check(&decoded).iter().map(ToString::to_string).collect();
            assert_eq!(violations, [""; 0], "limit {limit}");
        }
    }
}

/// The status of a POST.
fn post(receiver: &Bindings, path: &str, encoding: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", receiver.http_port)).unwrap();
    let header = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n\
         Content-Encoding: {encoding}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(header.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn googles_protobuf_decodes_every_field() {
    let profile = window(2_000);
    let requests = requests(&profile, 100_000);
    let directory = TempDir::new("decoded");
    let output = directory.join("received.jsonl");
    let Some(receiver) = Bindings::start(requests.len(), &[("--output", &output)]) else { return };
    for (n, request) in requests.iter().enumerate() {
        let status = if n % 2 == 0 {
            post(&receiver, "/v1development/profiles", "identity", request)
        } else {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(request).unwrap();
            post(&receiver, "/v1development/profiles", "gzip", &gzip.finish().unwrap())
        };
        assert_eq!(status, "200");
    }
    let (summary, content) = receiver.finish();
    assert!(content, "{summary}");
    for expected in [
        r#""protobuf": "upb""#.to_owned(),
        r#""items": {"/v1development/profiles": 2000}"#.to_owned(),
        r#""unknown_fields": 0"#.to_owned(),
        // Google's encoder writes the same bytes.
        format!(r#""canonical": {}"#, requests.len()),
    ] {
        assert!(summary.contains(&expected), "{expected} in {summary}");
    }
    equal_json(&requests, &output, &directory.join("ours.jsonl"));
}

/// Requests of metrics, spans and log records, as the pipeline makes them of what tracers tell.
fn told(temporality: Temporality) -> Vec<Request> {
    static CALLS: Metric = Metric {
        name: "test.calls",
        unit: "{call}",
        description: "Calls",
        instrument: Instrument::Counter,
        subject: Subject::Process,
        attributes: &["call"],
        source: "",
    };
    static TIMES: Metric =
        Metric { name: "test.times", unit: "s", instrument: Instrument::Histogram, ..CALLS };
    static HELD: Metric =
        Metric { name: "test.held", unit: "By", instrument: Instrument::UpDownCounter, ..CALLS };
    static LOAD: Metric = Metric { name: "test.load", unit: "1", instrument: Instrument::Gauge, ..CALLS };
    static DIAL: SpanDef = SpanDef { name: "dial", description: "", attributes: &["call"], source: "" };
    static DIED: LogDef =
        LogDef { name: "died", description: "", severity: Severity::Warn, attributes: &["call"], source: "" };
    let env = |name: &str| (name == "OTEL_RESOURCE_ATTRIBUTES").then(|| "zone=a".to_owned());
    let (mut settings, warnings) = Settings::read(&env, "ebpf-otlp", 7, 8 << 20);
    assert_eq!(warnings, [""; 0]);
    settings.sdk.metrics.temporality = temporality;
    settings.max_request = 20_000;
    let mut pipeline = Pipeline::new(settings, Reading::now()).unwrap();
    let mut histogram = Exponential::new(3);
    histogram.zero = 1;
    (40..80).for_each(|slot| histogram.add_slot(slot, slot.into()));
    for pid in [std::process::id(), 0, u32::MAX] {
        let owner = Owner::Process { pid, comm: *b"short-lived\0\0\0\0\0" };
        for n in 0..40 {
            let name = format!("call {n}");
            let attributes = [("call", name.as_str().into())];
            for (metric, value) in [
                (&CALLS, PointValue::Int(n)),
                (&TIMES, PointValue::Histogram(&histogram)),
                (&HELD, PointValue::Int(-n)),
                (&LOAD, PointValue::Double(0.5)),
            ] {
                pipeline.point(Point { metric, owner, attributes: &attributes, value });
            }
            let (kind, boot_nanos) = (SpanKind::Client, (1_000, 2_000));
            let error = (n % 2 == 0).then_some("ECONNREFUSED");
            pipeline.span(Span { span: &DIAL, kind, owner, boot_nanos, attributes: &attributes, error });
            let (log, boot_nanos) = (&DIED, 3_000);
            pipeline.log(LogRecord { log, owner, boot_nanos, body: "é", attributes: &attributes });
        }
    }
    let stats = pipeline.stats();
    AboutAgent::default().pipeline(&mut pipeline, &stats);
    let mut requests = Vec::new();
    pipeline.flush(Reading::now(), &Signal::ALL, &mut |request| requests.push(request));
    requests
}

#[test]
fn googles_protobuf_decodes_what_tracers_tell() {
    for temporality in [Temporality::Cumulative, Temporality::Delta] {
        let requests = told(temporality);
        let items = |signal| requests.iter().filter(|r| r.signal == signal).map(|r| r.items).sum::<u64>();
        assert!(items(Signal::Metrics) > 480);
        assert_eq!((items(Signal::Traces), items(Signal::Logs)), (120, 120));
        let Some(receiver) = Bindings::start(requests.len(), &[]) else { return };
        for request in &requests {
            assert_eq!(post(&receiver, request.signal.path(), "identity", &request.body), "200");
        }
        let (summary, content) = receiver.finish();
        assert!(content, "{summary}");
        let canonical = format!(r#""canonical": {}"#, requests.len());
        for expected in [r#""protobuf": "upb""#, r#""unknown_fields": 0"#, &canonical] {
            assert!(summary.contains(expected), "{expected} in {summary}");
        }
    }
}

/// Our JSON says the same as what Google's mapping made of the requests, which has ids in base64.
fn equal_json(requests: &[Vec<u8>], googles: &Path, ours: &Path) {
    let mut lines = String::new();
    for request in requests {
        json::transcode(profiles::ExportProfilesServiceRequest::descriptor(), request, &mut lines).unwrap();
        lines.push('\n');
    }
    std::fs::write(ours, &lines).unwrap();
    let script = "
import base64, json, sys
ours, googles = ([json.loads(line) for line in open(path)] for path in sys.argv[1:])
for request in googles:
    for resource in request['resourceProfiles']:
        for profile in resource['scopeProfiles'][0]['profiles']:
            profile['profileId'] = base64.b64decode(profile['profileId']).hex()
assert len(ours) > 1 and ours == googles
";
    let status = Command::new(python()).args(["-c", script]).arg(ours).arg(googles).status().unwrap();
    assert!(status.success());
}

#[test]
fn the_receiver_refuses_what_is_no_request() {
    let Some(receiver) = Bindings::start(1, &[]) else { return };
    assert_eq!(post(&receiver, "/v1development/profiles", "identity", b"\x0a\xff"), "400");
    assert_eq!(post(&receiver, "/v1development/profiles", "gzip", b"not gzip"), "400");
    assert_eq!(post(&receiver, "/v1/profiles", "identity", b""), "404");
    // Field 99 is unknown: decoded, counted, and not content with it.
    assert_eq!(post(&receiver, "/v1development/profiles", "identity", b"\x98\x06\x01"), "200");
    let (summary, content) = receiver.finish();
    assert!(summary.contains(r#""refused": 3"#) && summary.contains(r#""unknown_fields": 1"#), "{summary}");
    assert!(!content);
}

#[test]
fn googles_pprof_reads_the_file() {
    let profile = window(500);
    let directory = TempDir::new("pprof");
    let file = directory.join("profile.pb.gz");
    pprof::write(&profile, std::fs::File::create(&file).unwrap()).unwrap();
    let pprof = |arguments: &[&str]| {
        let output = Command::new("go").args(["tool", "pprof"]).args(arguments).arg(&file).output().ok()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap())
    };
    let Some(raw) = pprof(&["-raw"]) else {
        println!("skipped: go tool pprof is not installed (Debian: golang-go)");
        return;
    };
    assert!(raw.contains("PeriodType: cpu nanoseconds"), "{raw}");
    assert!(raw.contains("Period: 10101010"), "{raw}");
    assert!(raw.contains("samples/count cpu/nanoseconds"), "{raw}");
    assert!(raw.contains("lost samples: 4"), "{raw}");
    for label in ["pid:[100]", "tid:[100]", "thread:[worker-1]", "process:[server-1]"] {
        assert!(raw.contains(label), "{label} in {raw}");
    }
    assert!(raw.contains("/opt/server-1 0101010101010101010101010101010101010101 [FN][FL][LN][IN]"), "{raw}");

    let total: u64 = profile.samples.iter().map(|sample| sample.count).sum();
    let top = pprof(&["-top", "-sample_index=samples", "-cum"]).unwrap();
    assert!(top.contains(&format!("of {total} total")), "{top}");
    let of_one: u64 =
        profile.samples.iter().filter(|sample| sample.process.0 == 1).map(|sample| sample.count).sum();
    let main = top.lines().find(|line| line.ends_with("server_1::main")).unwrap();
    assert_eq!(main.split_whitespace().nth(3), Some(of_one.to_string().as_str()), "{top}");
    let focused = pprof(&["-top", "-sample_index=samples", "-tagfocus=process=server-2"]).unwrap();
    assert!(!focused.contains("server_1::main") && focused.contains("server_2::main"), "{focused}");
}
