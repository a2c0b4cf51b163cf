//! What `ebpf-otlp` sends of a workload with known numbers, taken by receivers that we did not write.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use std::time::{Duration, Instant};

use collector::export::Signal;
use collector::export::destination::Protocol;
use known_work::received::Received;
use known_work::{ROUNDS, Workload, work};
use tests::agent;
use tests::receivers::{Bindings, Rotel, TempDir, python};
use tests::strict;

/// A process that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file of JSON lines, as Google's protobuf reads it, by way of an empty folder.
fn read_lines(file: &Path, folder: &Path) -> Received {
    fs::create_dir(folder).expect("a fresh folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/lines.py");
    let status = Command::new(python()).arg(script).arg(file).arg(folder).status().expect("Python runs");
    assert!(status.success(), "{} has a line that is no request", file.display());
    Received::read(folder)
}

/// The agent, or one of the other commands.
struct Agent {
    process: Ended,
    output: PathBuf,
}

impl Agent {
    /// Starts tracing the workload, writing to `output` too.
    fn start(arguments: &[&str], workload: &Workload, output: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(agent::binary());
        for (name, _) in
            std::env::vars().filter(|(name, _)| name.starts_with("OTEL_") || name.starts_with("EBPF_OTLP_"))
        {
            command.env_remove(name);
        }
        command.args(arguments).args(["--pid", &workload.pid().to_string(), "--output"]).arg(output);
        command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null());
        let process = Ended(command.stderr(Stdio::piped()).spawn().unwrap());
        Self { process, output: output.to_owned() }
    }

    /// Waits for the end of its first window.
    fn wait(&mut self) {
        let limit = Instant::now() + Duration::from_secs(60);
        while !fs::metadata(&self.output).is_ok_and(|file| file.len() > 0) {
            let ended = self.process.0.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < limit, "{ended:?}: {}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn said(&mut self) -> String {
        let _ = self.process.0.kill();
        let mut said = String::new();
        let stderr = self.process.0.stderr.as_mut().unwrap();
        std::io::Read::read_to_string(stderr, &mut said).unwrap();
        said
    }

    /// Ends it, and returns what it said.
    fn end(mut self) -> String {
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = self.process.0.wait().unwrap();
        let said = self.said();
        assert!(status.success(), "{status}: {said}");
        said
    }
}

/// Otherwise the count of durations is an estimate at high rates.
const EVERY: [&str; 2] = ["--set", "tracer.syscalls.every_duration=true"];
/// All that the workload is for, without the heap, whose tracer follows no children.
const WITH_CHILDREN: [&str; 9] =
    ["profile", "syscalls", "tcp", "udp", "dns", "memory", "sched", "disk", "process"];

fn deliver(protocol: Protocol, temporality: &str) {
    if !agent::can_trace() {
        return;
    }
    let directory = TempDir::new(&format!("delivered-{temporality}"));
    let bodies = directory.join("bodies");
    fs::create_dir(&bodies).unwrap();
    let Some(receiver) = Bindings::start(0, &[("--bodies", &bodies)]) else { return };
    let port = if protocol == Protocol::Grpc { receiver.grpc_port } else { receiver.http_port };
    let mut workload = Workload::start(Path::new(env!("CARGO_BIN_EXE_workload")));
    let variables = [
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", temporality),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.name()),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ];
    let file = directory.join("output.jsonl");
    let arguments =
        ["run", "--interval", "1s", "--cpu-limit", "0", "--children", EVERY[0], EVERY[1], "--endpoint"];
    let endpoint = format!("http://127.0.0.1:{port}");
    let mut arguments = arguments.to_vec();
    let only = WITH_CHILDREN.join(",");
    arguments.extend([&endpoint, "--only", &only]);
    let mut agent = Agent::start(&arguments, &workload, &file, &variables);
    agent.wait();
    workload.work();
    let said = agent.end();
    let (summary, content) = receiver.finish();
    assert!(content, "{summary}: {said}");
    let counts: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(
        (&counts["protobuf"], &counts["canonical"]),
        (&"upb".into(), &counts["requests"]),
        "{summary}"
    );
    for signal in Signal::ALL {
        assert!(counts["items"][signal.path()].as_u64() > Some(0), "no {signal:?}: {summary}");
    }

    let received = Received::read(&bodies);
    let differences = workload.differences(&received, &WITH_CHILDREN);
    assert!(differences.is_empty(), "{temporality}: {differences:#?}: {said}");
    let violations = strict::violations(&received, temporality == "delta", workload.pid());
    assert!(violations.is_empty(), "{temporality}: {violations:#?}");
    // The file says the same.
    let written = read_lines(&file, &directory.join("lines"));
    assert!(written == received, "{} and {}", written.points().len(), received.points().len());
}

#[test]
fn googles_protobuf_takes_every_signal_of_the_agent_cumulative_over_http() {
    deliver(Protocol::HttpProtobuf, "cumulative");
}

#[test]
fn googles_protobuf_takes_every_signal_of_the_agent_delta_over_grpc() {
    if Protocol::Grpc.is_built_in() {
        deliver(Protocol::Grpc, "delta");
    }
}

/// Every tracer alone, and every command, at the same time on the same workload.
#[test]
fn files_of_every_tracer_and_command_read_back_with_the_same_numbers() {
    if !agent::can_trace() {
        return;
    }
    let readable = Command::new(python()).args(["-c", "import opentelemetry.proto.collector"]).status();
    if !readable.is_ok_and(|status| status.success()) {
        println!("skipped: {:?} has not what conformance/requirements.txt lists", python());
        return;
    }
    let directory = TempDir::new("files");
    let mut workload = Workload::start(Path::new(env!("CARGO_BIN_EXE_workload")));
    let mut agents = Vec::new();
    let heap = ["--set", "tracer.heap.sample_bytes=0"];
    let run = ["run", "--interval", "1s", "--cpu-limit", "0", EVERY[0], EVERY[1], "--only"];
    for tracer in WITH_CHILDREN {
        agents.push((format!("run-{tracer}"), [&run[..], &[tracer, "--children"]].concat(), vec![tracer]));
    }
    agents.push(("run-heap".to_owned(), [&run[..], &["heap"], &heap].concat(), vec!["heap"]));
    for (command, tracers, more) in [
        ("network", &["tcp", "udp", "dns"][..], &["--children"][..]),
        ("syscalls", &["syscalls"], &EVERY),
        ("memory", &["memory", "heap"], &heap),
        ("sched", &["sched"], &["--children"]),
        ("disk", &["disk"], &[]),
    ] {
        let arguments = [&[command, "--interval", "1s"], more].concat();
        agents.push((command.to_owned(), arguments, tracers.to_vec()));
    }
    let mut running = Vec::new();
    for (name, arguments, _) in &agents {
        let output = directory.join(format!("{name}.jsonl"));
        running.push(Agent::start(arguments, &workload, &output, &[]));
    }
    running.iter_mut().for_each(Agent::wait);
    workload.work();
    let said: Vec<String> = running.into_iter().map(Agent::end).collect();
    for ((name, _, tracers), said) in agents.iter().zip(said) {
        let file = directory.join(format!("{name}.jsonl"));
        let received = read_lines(&file, &directory.join(name));
        let differences = workload.differences(&received, tracers);
        assert!(differences.is_empty(), "{name}: {differences:#?}: {said}");
        let violations = strict::violations(&received, false, workload.pid());
        assert!(violations.is_empty(), "{name}: {violations:#?}");
    }
}

#[test]
fn rotel_takes_what_the_agent_sends() {
    if !agent::can_trace() {
        return;
    }
    let Some(rotel) = Rotel::start("rotel-agent") else { return };
    let directory = TempDir::new("to-rotel");
    let mut workload = Workload::start(Path::new(env!("CARGO_BIN_EXE_workload")));
    let endpoint = format!("http://127.0.0.1:{}", rotel.http_port);
    // It takes no profiles.
    let only = "syscalls,tcp,udp,dns,memory,sched,disk,process";
    let arguments = [
        "run",
        "--interval",
        "1s",
        "--cpu-limit",
        "0",
        "--children",
        "--only",
        only,
        "--endpoint",
        &endpoint,
    ];
    let variables = [("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")];
    let mut agent = Agent::start(&arguments, &workload, &directory.join("output.jsonl"), &variables);
    agent.wait();
    workload.work();
    // All was delivered, or it would have failed.
    let said = agent.end();
    let spans = ROUNDS * (work::CONNECTIONS + work::REFUSED);
    let spans = spans as usize + if workload.has_names() { (ROUNDS * work::LOOKUPS) as usize } else { 0 };
    let printed = |output: &str| output.matches("Kind           : SPAN_KIND_CLIENT").count();
    let output = rotel.output_until(|output| printed(output) >= spans && output.contains("SeverityText"));
    assert_eq!(printed(&output), spans, "{said}");
    for expected in [
        "-> service.name: Str(known)",
        "-> Name: ebpf.syscall.errors",
        "-> Name: ebpf.tcp.connections",
        "-> Name: process.paging.faults",
        "-> process.exit.code: Int(7)",
        "SeverityText: INFO",
    ] {
        assert!(output.contains(expected), "{expected} in {output}");
    }
    assert!(!workload.has_disk() || output.contains("-> Name: system.disk.operations"), "{output}");
}
