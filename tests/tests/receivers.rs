//! Requests of all signals, taken by receivers that we did not write.
//!
//! `conformance/requirements.txt` lists what is needed; a test whose receiver is not installed says so and passes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bpf_loader::target::RunningTarget;
use collector::check;
use collector::export::Signal;
use collector::export::destination::Protocol;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use prost::Message;
use tests::client::{Client, HEADERS, SECRET};
use tests::generate::Generator;
use tests::profcheck;
use tests::receivers::{Bindings, Rotel, TempDir};

/// What to speak, as far as it is built in, at which of a receiver's two ports.
fn endpoints(http_port: u16, grpc_port: u16) -> Vec<(&'static str, String)> {
    let protocols = [(Protocol::HttpProtobuf, http_port), (Protocol::Grpc, grpc_port)];
    let built_in = protocols.into_iter().filter(|(protocol, _)| protocol.is_built_in());
    built_in.map(|(protocol, port)| (protocol.name(), format!("http://127.0.0.1:{port}"))).collect()
}

#[test]
fn googles_protobuf_and_grpc_take_every_signal() {
    const ITEMS: u64 = 200;
    let wanted = 2 * endpoints(0, 0).len();
    let Some(receiver) = Bindings::start(4 * wanted, &[]) else { return };
    let mut generator = Generator::default();
    for (protocol, endpoint) in endpoints(receiver.http_port, receiver.grpc_port) {
        for compression in ["none", "gzip"] {
            let mut client = Client::new(&endpoint, &[("PROTOCOL", protocol), ("COMPRESSION", compression)]);
            for signal in Signal::ALL {
                let accepted = client.send(&generator.request(signal, 0..ITEMS)).unwrap();
                assert_eq!(accepted.rejected, 0);
            }
        }
    }
    let (summary, content) = receiver.finish();
    // So are all fields known, and none of its own encoder's bytes different.
    assert!(content, "{summary}");
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["protobuf"], "upb");
    assert_eq!((&summary["unknown_fields"], &summary["refused"]), (&0.into(), &0.into()));
    assert_eq!(summary["canonical"], 4 * wanted);
    // Of gRPC it does not know.
    assert_eq!(summary["gzipped"], 4, "{summary}");
    for signal in Signal::ALL {
        assert_eq!(summary["items"][signal.path()], ITEMS * wanted as u64, "{summary}");
    }
}

/// The numbers of all items that rotel printed, by signal.
fn numbers(output: &str) -> BTreeMap<&str, Vec<u64>> {
    let mut numbers: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    let mut section = "";
    for line in output.lines() {
        if line.starts_with("Resource") && line.contains('#') {
            section = line.split(' ').next().unwrap();
        }
        if let Some((_, number)) = line.split_once("-> test.number: Int(") {
            numbers.entry(section).or_default().push(number.trim_end_matches(')').parse().unwrap());
        }
    }
    numbers
}

#[test]
fn rotel_prints_what_was_sent() {
    const ITEMS: u64 = 50;
    let Some(rotel) = Rotel::start("rotel") else { return };
    let mut generator = Generator::default();
    let signals = [Signal::Metrics, Signal::Traces, Signal::Logs];
    let mut sent = 0;
    for (protocol, endpoint) in endpoints(rotel.http_port, rotel.grpc_port) {
        let mut client = Client::new(&endpoint, &[("PROTOCOL", protocol), ("COMPRESSION", "gzip")]);
        for signal in signals {
            client.send(&generator.request(signal, sent..sent + ITEMS)).unwrap();
        }
        sent += ITEMS;
    }
    let all = (sent * signals.len() as u64) as usize;
    let output = rotel.output_until(|output| output.matches("-> test.number: Int(").count() == all);
    let mut printed = numbers(&output);
    assert_eq!(
        printed.keys().copied().collect::<Vec<_>>(),
        ["ResourceLog", "ResourceMetrics", "ResourceSpans"]
    );
    for numbers in printed.values_mut() {
        numbers.sort_unstable();
        assert_eq!(*numbers, (0..sent).collect::<Vec<_>>());
    }
    for expected in [
        "-> service.name: Str(checkout)",
        "InstrumentationScope otlp-generate 1",
        // A point of each kind.
        "QuantileValue #1: Quantile 0.99, Value 1.98",
        "Bucket (0.42044820762685725, 0.4585020216023356], Count: 300",
        "ExplicitBounds #1: 1\nBuckets #0, Count: 4\nBuckets #1, Count: 5\nBuckets #2, Count: 6",
        "IsMonotonic: true",
        "     -> test.number: Int(8)\nStartTimestamp: 1790000000000000000\nTimestamp: 1790000001000000000\nValue: 8\n",
        "Value: 4.5\n",
        // A span.
        "Trace ID       : 0000000000000000000000000000002a",
        "Kind           : SPAN_KIND_SERVER",
        "Status message : deadline exceeded",
        "-> Name: cache.miss",
        // A log record.
        "SeverityText: WARN",
        "Body: Str(connection to 10.0.0.7:5432 was refused; trying again)",
    ] {
        assert!(output.contains(expected), "{expected} in {output}");
    }
}

/// A process that computes until it is dropped.
struct Busy(Child);

impl Busy {
    fn start() -> Self {
        Self(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn live_profiles_are_valid_over_every_protocol() {
    let mut facts = check::facts::read_files(Path::new("/"));
    facts.probes = check::probe::run(&RunningTarget::new());
    if !check::judge(&facts).usable() {
        println!("skipped: `ebpf-otlp check` says that profile cannot run here");
        return;
    }
    let test = std::env::current_exe().unwrap();
    let agent = test.ancestors().nth(2).unwrap().join("ebpf-otlp");
    if !agent.exists() {
        println!("skipped: {} is not built", agent.display());
        return;
    }
    let busy = Busy::start();
    for (protocol, _) in endpoints(0, 0) {
        let directory = TempDir::new("live");
        let Some(receiver) = Bindings::start(1, &[("--bodies", &directory.join(""))]) else { return };
        let endpoints = endpoints(receiver.http_port, receiver.grpc_port);
        let (_, endpoint) = endpoints.iter().find(|(own, _)| *own == protocol).unwrap();
        let output = Command::new(&agent)
            .args(["profile", "--duration", "1s", "--pid", &busy.0.id().to_string(), "--endpoint", endpoint])
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
            .env("OTEL_EXPORTER_OTLP_HEADERS", HEADERS)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && !said.contains(SECRET), "{protocol}: {said}");
        let (summary, content) = receiver.finish();
        assert!(content && summary.contains(r#""canonical": 1"#), "{protocol}: {summary}");
        let body = std::fs::read(directory.join("1-profiles")).unwrap();
        let request = ExportProfilesServiceRequest::decode(body.as_slice()).unwrap();
        let violations: Vec<String> = profcheck::check(&request).iter().map(ToString::to_string).collect();
        assert_eq!(violations, [""; 0], "{protocol}");
        let scopes = request.resource_profiles.iter().flat_map(|resource| &resource.scope_profiles);
        let samples: usize =
            scopes.flat_map(|scope| &scope.profiles).map(|profile| profile.samples.len()).sum();
        assert!(samples > 0, "{protocol}");
    }
}
