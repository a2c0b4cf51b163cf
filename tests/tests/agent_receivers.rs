//! What `ebpf-otlp` sends of a workload with known numbers, taken by receivers that we did not write.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use collector::export::Signal;
use collector::export::destination::Protocol;
use tests::loop_device::LoopDevice;
use tests::received::{Received, map};
use tests::receivers::{Bindings, Rotel, TempDir, python};
use tests::strict;
use tests::work;

/// How often the workload does everything.
const ROUNDS: u64 = 2;

fn agent_binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("ebpf-otlp")
}

/// Whether the agent can trace here; says so if not.
fn can_trace() -> bool {
    let agent = agent_binary();
    if !agent.exists() {
        println!("skipped: {} is not built", agent.display());
        return false;
    }
    let usable = Command::new(agent).arg("check").output().unwrap().status.success();
    if !usable {
        println!("skipped: `ebpf-otlp check` says that nothing can be traced here");
    }
    usable
}

/// A process that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the kernel says of a process: minor and major faults, and switches to other tasks.
#[derive(Debug, Clone, Copy)]
struct Counters {
    minor: u64,
    major: u64,
    switches: u64,
}

impl Counters {
    fn read(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = fields.split(' ').collect();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let switches = status.lines().filter(|line| line.contains("ctxt_switches:"));
        let switches = switches.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap());
        Self {
            minor: fields[7].parse().unwrap(),
            major: fields[9].parse().unwrap(),
            switches: switches.sum(),
        }
    }
}

/// The workload, waiting for its next round.
struct Workload {
    process: Ended,
    answers: BufReader<std::process::ChildStdout>,
    has_names: bool,
    disk: Option<LoopDevice>,
    before: Counters,
}

impl Workload {
    fn start() -> Self {
        let names = work::serve_names();
        let dns = names.map_or("0.0.0.0:0".to_owned(), |address| address.to_string());
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = format!("ebpf-otlp-known-work-{}-{number}", std::process::id());
        let disk = LoopDevice::new(std::env::temp_dir().join(file), 1 << 20);
        if disk.is_none() {
            let devices = fs::read_to_string("/proc/devices").unwrap();
            assert!(!devices.contains(" loop\n"), "there are loop devices");
            println!("SKIP disk: there are no loop devices");
        }
        let path = disk.as_ref().map_or(String::new(), |disk| disk.path().display().to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_known-work"));
        command.args([work::serve().to_string(), dns, path]).env("OTEL_SERVICE_NAME", "known");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let before = Counters { minor: 0, major: 0, switches: 0 };
        let mut workload = Self { process: Ended(child), answers, has_names: names.is_some(), disk, before };
        workload.wait("ready");
        workload.before = Counters::read(workload.pid());
        workload
    }

    fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Waits for an answer, and until the workload waits for the next line.
    fn wait(&mut self, wanted: &str) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), wanted);
        let limit = Instant::now() + Duration::from_secs(10);
        while !fs::read_to_string(format!("/proc/{}/wchan", self.pid())).unwrap().contains("pipe_read") {
            if Instant::now() > limit {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn round(&mut self) {
        self.process.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        self.wait("done");
    }

    /// Everything, in at least two windows of a second.
    fn work(&mut self) {
        for _ in 0..ROUNDS {
            self.round();
            std::thread::sleep(Duration::from_millis(1200));
        }
    }

    /// What does not say what happened, of the tracers named.
    fn differences(&self, received: &Received, tracers: &[&str]) -> Vec<String> {
        let after = Counters::read(self.pid());
        let pid = self.pid().to_string();
        let mut differences = Vec::new();
        for (tracer, metric, attributes, wanted, slack) in self.wanted(after) {
            if !tracers.contains(&tracer) {
                continue;
            }
            let total = received.total(metric, &[("process.pid", &pid)], attributes);
            if (total - wanted as f64).abs() > slack as f64 {
                differences.push(format!("{metric} {attributes:?}: {total}, not {wanted}"));
            }
        }
        differences.extend(self.of_disk(received, tracers));
        differences.extend(self.events(received, tracers));
        if !differences.is_empty() {
            let dropped = received
                .points()
                .into_iter()
                .filter(|point| point.metric.name == "ebpf.agent.drops" && point.value.amount() > 0.0);
            differences
                .extend(dropped.map(|p| format!("{} dropped: {:?}", p.value.amount(), map(p.attributes))));
        }
        differences
    }

    /// Metrics of the workload's own process by tracer: name, attributes, total, and by how much that may be wrong.
    #[allow(clippy::type_complexity)]
    fn wanted(
        &self,
        after: Counters,
    ) -> Vec<(&'static str, &'static str, &'static [(&'static str, &'static str)], u64, u64)> {
        let (sent, received) = (work::SENT as u64, work::ANSWERED as u64);
        let datagrams = work::DATAGRAMS + if self.has_names { work::LOOKUPS } else { 0 };
        let query = work::dns_query(0).len() as u64;
        let udp = |others: u64| others + if self.has_names { work::LOOKUPS * query } else { 0 };
        let mut wanted: Vec<(_, _, &[(_, _)], _, _)> = vec![
            ("syscalls", "ebpf.syscall.calls", &[("ebpf.syscall.name", "getppid")], work::GETPPID, 0),
            (
                "syscalls",
                "ebpf.syscall.calls",
                &[("ebpf.syscall.name", "rmdir")],
                work::RMDIR_ENOENT + work::RMDIR_ENOTDIR,
                0,
            ),
            (
                "syscalls",
                "ebpf.syscall.errors",
                &[("ebpf.syscall.name", "rmdir"), ("error.type", "ENOENT")],
                work::RMDIR_ENOENT,
                0,
            ),
            (
                "syscalls",
                "ebpf.syscall.errors",
                &[("ebpf.syscall.name", "rmdir"), ("error.type", "ENOTDIR")],
                work::RMDIR_ENOTDIR,
                0,
            ),
            ("syscalls", "ebpf.syscall.errors", &[("ebpf.syscall.name", "getppid")], 0, 0),
            (
                "syscalls",
                "ebpf.syscall.duration",
                &[("ebpf.syscall.name", "rmdir")],
                work::RMDIR_ENOENT + work::RMDIR_ENOTDIR,
                0,
            ),
            (
                "tcp",
                "ebpf.tcp.connections",
                &[("ebpf.tcp.role", "client")],
                work::CONNECTIONS + work::REFUSED,
                0,
            ),
            ("tcp", "ebpf.tcp.connections", &[("error.type", "ECONNREFUSED")], work::REFUSED, 0),
            ("tcp", "ebpf.tcp.connect.duration", &[("ebpf.tcp.role", "client")], work::CONNECTIONS, 0),
            ("tcp", "ebpf.tcp.connection.duration", &[("ebpf.tcp.role", "client")], work::CONNECTIONS, 0),
            (
                "tcp",
                "process.network.io",
                &[("network.transport", "tcp"), ("network.io.direction", "transmit")],
                work::CONNECTIONS * sent,
                0,
            ),
            (
                "tcp",
                "process.network.io",
                &[("network.transport", "tcp"), ("network.io.direction", "receive")],
                work::CONNECTIONS * received,
                0,
            ),
            ("udp", "ebpf.udp.datagrams", &[("network.io.direction", "transmit")], datagrams, 0),
            (
                "udp",
                "process.network.io",
                &[("network.transport", "udp"), ("network.io.direction", "transmit")],
                udp(work::DATAGRAMS * work::DATAGRAM as u64),
                0,
            ),
            (
                "udp",
                "process.network.io",
                &[("network.transport", "udp"), ("network.io.direction", "receive")],
                udp(0),
                0,
            ),
            // Beside what it keeps on purpose there are buffers.
            ("heap", "ebpf.heap.outstanding", &[], work::HELD * work::HELD_BYTES as u64, 1 << 16),
        ];
        if self.has_names {
            let lookup: &[_] = &[("dns.question.name", work::NAME), ("error.type", "NXDOMAIN")];
            wanted.push(("dns", "dns.lookup.duration", lookup, work::LOOKUPS, 0));
        }
        for row in &mut wanted {
            row.3 *= ROUNDS;
        }
        const MINOR: [(&str, &str); 1] = [("system.paging.fault.type", "minor")];
        const MAJOR: [(&str, &str); 1] = [("system.paging.fault.type", "major")];
        wanted.push(("memory", "process.paging.faults", &MINOR, after.minor - self.before.minor, 0));
        wanted.push(("memory", "process.paging.faults", &MAJOR, after.major - self.before.major, 0));
        // Waits that were under way when the tracer came and when it went are not in it, and on a busy machine a few more are
        // missing.
        let switches = after.switches - self.before.switches;
        wanted.push(("sched", "process.context_switches", &[], switches, 2 + switches / 50));
        wanted
    }

    /// The same for its block device, whose numbers are the machine's.
    fn of_disk(&self, received: &Received, tracers: &[&str]) -> Vec<String> {
        let Some(disk) = self.disk.as_ref().filter(|_| tracers.contains(&"disk")) else { return Vec::new() };
        let device = disk.name();
        let mut differences = Vec::new();
        for (direction, blocks) in [("write", work::BLOCKS_WRITTEN), ("read", work::BLOCKS_READ)] {
            let attributes = [("system.device", device.as_str()), ("disk.io.direction", direction)];
            let requests = ROUNDS * blocks;
            for (metric, wanted) in [
                ("system.disk.operations", requests),
                ("system.disk.io", requests * work::BLOCK as u64),
                ("ebpf.disk.request.duration", requests),
            ] {
                let total = received.total(metric, &[], &attributes);
                if total != wanted as f64 {
                    differences.push(format!("{metric} {attributes:?}: {total}, not {wanted}"));
                }
            }
        }
        differences
    }

    /// The same for spans, log records and profiles.
    fn events(&self, received: &Received, tracers: &[&str]) -> Vec<String> {
        let mut differences = Vec::new();
        let mut check = |tracer: &str, what: &str, found: u64, wanted: u64| {
            if tracers.contains(&tracer) && found != wanted {
                differences.push(format!("{what}: {found}, not {wanted}"));
            }
        };
        let spans = received.traces.iter().flat_map(|request| &request.resource_spans);
        let spans: Vec<_> =
            spans.flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans).collect();
        let of = |name: &str| spans.iter().filter(|span| span.name == name).count() as u64;
        let failed = |name: &str| {
            let has_failed = |status: &opentelemetry_proto::tonic::trace::v1::Status| status.code == 2;
            let spans = spans.iter().filter(|span| span.name == name);
            spans.filter(|span| span.status.as_ref().is_some_and(has_failed)).count() as u64
        };
        let connections = "ebpf.tcp.connection";
        check("tcp", connections, of(connections), ROUNDS * (work::CONNECTIONS + work::REFUSED));
        check("tcp", "failed connections", failed(connections), ROUNDS * work::REFUSED);
        if self.has_names {
            check("dns", "dns.lookup", of("dns.lookup"), ROUNDS * work::LOOKUPS);
        }
        let logs = received.logs.iter().flat_map(|request| &request.resource_logs);
        let logs = logs.flat_map(|resource| &resource.scope_logs).flat_map(|scope| &scope.log_records);
        let mut execs = 0;
        let mut exits = 0;
        for record in logs {
            let attributes = map(&record.attributes);
            let is_seven = attributes.get("process.exit.code").is_some_and(|code| code == "7");
            execs += u64::from(record.event_name == "ebpf.process.exec");
            exits += u64::from(record.event_name == "ebpf.process.exit" && is_seven);
        }
        check("process", "ebpf.process.exec", execs, ROUNDS * work::CHILDREN);
        check("process", "ebpf.process.exit", exits, ROUNDS * work::CHILDREN);
        let profiles = received.profiles.iter().flat_map(|request| &request.resource_profiles);
        let profiles = profiles.flat_map(|resource| &resource.scope_profiles);
        let samples = profiles.flat_map(|scope| &scope.profiles).flat_map(|profile| &profile.samples);
        check("profile", "whether it was sampled", u64::from(samples.count() > 0), 1);
        differences
    }
}

/// The agent, or one of the other commands.
struct Agent {
    process: Ended,
    output: PathBuf,
}

impl Agent {
    /// Starts tracing the workload, writing to `output` too.
    fn start(arguments: &[&str], workload: &Workload, output: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(agent_binary());
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
    if !can_trace() {
        return;
    }
    let directory = TempDir::new(&format!("delivered-{temporality}"));
    let bodies = directory.join("bodies");
    fs::create_dir(&bodies).unwrap();
    let Some(receiver) = Bindings::start(0, &[("--bodies", &bodies)]) else { return };
    let port = if protocol == Protocol::Grpc { receiver.grpc_port } else { receiver.http_port };
    let mut workload = Workload::start();
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
    let written = Received::read_lines(&file, &directory.join("lines"));
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
    if !can_trace() {
        return;
    }
    let readable = Command::new(python()).args(["-c", "import opentelemetry.proto.collector"]).status();
    if !readable.is_ok_and(|status| status.success()) {
        println!("skipped: {:?} has not what conformance/requirements.txt lists", python());
        return;
    }
    let directory = TempDir::new("files");
    let mut workload = Workload::start();
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
        let received = Received::read_lines(&file, &directory.join(name));
        let differences = workload.differences(&received, tracers);
        assert!(differences.is_empty(), "{name}: {differences:#?}: {said}");
        let violations = strict::violations(&received, false, workload.pid());
        assert!(violations.is_empty(), "{name}: {violations:#?}");
    }
}

#[test]
fn rotel_takes_what_the_agent_sends() {
    if !can_trace() {
        return;
    }
    let Some(rotel) = Rotel::start("rotel-agent") else { return };
    let directory = TempDir::new("to-rotel");
    let mut workload = Workload::start();
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
    let spans = spans as usize + if workload.has_names { (ROUNDS * work::LOOKUPS) as usize } else { 0 };
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
    assert!(workload.disk.is_none() || output.contains("-> Name: system.disk.operations"), "{output}");
}
