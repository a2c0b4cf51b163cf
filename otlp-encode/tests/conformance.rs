//! Requests of all signals and their JSON, read by Google's protobuf with the official bindings: no unknown field, and
//! the same bytes from its own encoder.
//!
//! `../tests/conformance/upb.py` does it, run by the Python that `CONFORMANCE_PYTHON` names, with what
//! `../tests/conformance/requirements.txt` lists; where that is missing, the test says so and passes.

mod support;

use otlp_encode::descriptor::Descriptor;
use otlp_encode::wire::Writer;
use otlp_encode::{json, logs, metrics, profiles, trace};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// Of each signal.
const REQUESTS: u64 = 75;

/// Appends requests in the form that `upb.py` reads. They are the same in every run.
fn cases<M: std::fmt::Debug>(
    out: &mut Vec<u8>,
    signal: u8,
    descriptor: &Descriptor,
    strategy: impl Strategy<Value = M>,
    encode: impl for<'w> Fn(&'w mut Writer, &M) -> &'w [u8],
) {
    let mut runner = TestRunner::deterministic();
    let mut writer = Writer::new();
    for _ in 0..REQUESTS {
        let message = strategy.new_tree(&mut runner).unwrap().current();
        let bytes = encode(&mut writer, &message);
        let mut line = String::new();
        json::transcode(descriptor, bytes, &mut line).unwrap();
        out.push(signal);
        out.extend((bytes.len() as u32).to_le_bytes());
        out.extend((line.len() as u32).to_le_bytes());
        out.extend(bytes);
        out.extend(line.as_bytes());
    }
}

#[test]
fn upb_reads_every_field_and_writes_the_same_bytes() {
    let python = std::env::var_os("CONFORMANCE_PYTHON").unwrap_or_else(|| "python3".into());
    let imports = "import opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2";
    let installed = Command::new(&python).args(["-c", imports]).stderr(Stdio::null()).status();
    if !installed.is_ok_and(|status| status.success()) {
        println!("skipped: {python:?} has not what conformance/requirements.txt lists");
        return;
    }

    let mut file = Vec::new();
    let descriptor = metrics::ExportMetricsServiceRequest::descriptor();
    cases(&mut file, b'm', descriptor, support::metrics::request(), support::metrics::encode);
    let descriptor = trace::ExportTraceServiceRequest::descriptor();
    cases(&mut file, b't', descriptor, support::trace::request(), support::trace::encode);
    let descriptor = logs::ExportLogsServiceRequest::descriptor();
    cases(&mut file, b'l', descriptor, support::logs::request(), support::logs::encode);
    let descriptor = profiles::ExportProfilesServiceRequest::descriptor();
    cases(&mut file, b'p', descriptor, support::profiles::request(), support::profiles::encode);

    let path = std::env::temp_dir().join(format!("otlp-encode-upb-{}", std::process::id()));
    std::fs::write(&path, &file).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/upb.py");
    let output = Command::new(&python).arg(script).arg(&path).output();
    std::fs::remove_file(&path).unwrap();
    let output = output.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"));
    println!("{summary}");
    assert!(output.status.success(), "{summary} {errors}");
    assert_eq!(summary["protobuf"], "upb");
    assert_eq!(summary["cases"], REQUESTS * 4);
    assert!(summary["same"].as_u64() > summary["oneof"].as_u64(), "{summary}");
}
