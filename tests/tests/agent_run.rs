//! `ebpf-otlp run` as a service manager runs it: what it sends, what it does when it is told to, and what it leaves behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use collector::export::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tests::agent;
use tests::faults::{Behaviour, Deaf, Options, Server};
use tests::prometheus::{Samples, parse, sum};
use tests::receivers::TempDir;

/// Connections that the workload makes.
const CONNECTIONS: usize = 20;
const SIGTERM: u32 = 15;
/// What service managers and users are promised.
const LAST: Duration = Duration::from_secs(5);

/// Tries for about so long. Whoever waits by them notices nothing where the whole machine stands still for a while.
fn tries(time: Duration) -> impl Iterator<Item = usize> {
    const PAUSE: Duration = Duration::from_millis(20);
    (0..time.div_duration_f64(PAUSE) as usize).inspect(|_| std::thread::sleep(PAUSE))
}

/// A process that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The agent, with what it says.
struct Agent {
    process: Ended,
    said: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Agent {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(agent::binary());
        command.arg("run").args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for (name, _) in
            std::env::vars().filter(|(name, _)| name.starts_with("OTEL_") || name.starts_with("EBPF_OTLP_"))
        {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied());
        let mut process = Ended(command.spawn().unwrap());
        let lines = BufReader::new(process.0.stderr.take().unwrap()).lines();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let into = Arc::clone(&said);
        let reader = std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| into.lock().unwrap().push(line))
        });
        Self { process, said, reader: Some(reader) }
    }

    fn signal(&self, name: &str) {
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    fn wait_said(&self, what: &str) {
        for _ in tries(Duration::from_secs(30)) {
            if self.said().contains(what) {
                return;
            }
        }
        panic!("no {what:?} in {}", self.said());
    }

    /// Identifiers of its programs and links in the kernel.
    fn in_kernel(&self) -> (BTreeSet<u32>, BTreeSet<u32>) {
        let mut ids = (BTreeSet::new(), BTreeSet::new());
        for entry in fs::read_dir(format!("/proc/{}/fdinfo", self.process.0.id())).unwrap().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let id =
                |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u32>().ok());
            match id("link_id:") {
                Some(link) => drop(ids.1.insert(link)),
                None => ids.0.extend(id("prog_id:")),
            }
        }
        ids
    }

    /// Ends it; its exit code, and how long that took.
    fn end(mut self) -> (Option<i32>, Duration, String) {
        let asked = Instant::now();
        self.signal("-TERM");
        let status = self.process.0.wait().unwrap();
        let took = asked.elapsed();
        self.reader.take().unwrap().join().unwrap();
        (status.code(), took, self.said())
    }
}

/// A shell that makes connections once it is told to.
fn connector(port: u16) -> Ended {
    let script = format!(
        "read go; for i in $(seq {CONNECTIONS}); do exec 3<>/dev/tcp/127.0.0.1/{port}; exec 3>&-; done; echo done; read go"
    );
    let mut command = Command::new("bash");
    Ended(command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
}

/// Lets it make them.
fn connect(workload: &mut Ended, listener: &TcpListener) {
    workload.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let accepted: Vec<TcpStream> = (0..CONNECTIONS).map(|_| listener.accept().unwrap().0).collect();
    let mut done = String::new();
    BufReader::new(workload.0.stdout.as_mut().unwrap()).read_line(&mut done).unwrap();
    drop(accepted);
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// `/metrics`, which is as strict readers want it.
fn metrics_page(port: u16) -> Samples {
    let answer = get(port, "/metrics");
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("version=0.0.4"), "{head}");
    parse(page).unwrap_or_else(|error| panic!("{error}"))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The last value of `metric` with the attribute, in a file of JSON lines.
fn last_value(file: &PathBuf, metric: &str, attribute: (&str, &str)) -> Option<u64> {
    let text = fs::read_to_string(file).unwrap();
    let array = |value: &serde_json::Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let metrics = lines
        .flat_map(|line| array(&line, "resourceMetrics"))
        .flat_map(|resource| array(&resource, "scopeMetrics"))
        .flat_map(|scope| array(&scope, "metrics"));
    let points = metrics.filter(|m| m["name"] == metric).flat_map(|m| array(&m["sum"], "dataPoints"));
    let has = |point: &serde_json::Value| {
        let attributes = array(point, "attributes");
        attributes.iter().any(|a| a["key"] == attribute.0 && a["value"]["stringValue"] == attribute.1)
    };
    points.filter(has).filter_map(|point| point["asInt"].as_str()?.parse().ok()).next_back()
}

#[test]
fn it_exports_reloads_and_ends_as_it_is_told_and_leaves_nothing() {
    if !agent::can_trace() {
        return;
    }
    let directory = TempDir::new("agent-run");
    let (config, output) = (directory.join("agent.toml"), directory.join("out.jsonl"));
    fs::write(&config, "[agent]\ninterval = \"1s\"\ncpu_limit = 0\n").unwrap();
    // It takes whatever comes: what is in it is read from the file.
    let options = Options { unnumbered: true, ..Options::default() };
    let server = Server::with(options, |_| Behaviour::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().port();
    let mut workload = connector(target);
    let pid = workload.0.id().to_string();
    let port = free_port();
    let agent = Agent::start(&[
        "--config",
        config.to_str().unwrap(),
        "--endpoint",
        &server.url(),
        "--output",
        output.to_str().unwrap(),
        "--listen",
        &format!("127.0.0.1:{port}"),
        "--pid",
        &pid,
    ]);
    let metrics = |requests: &[tests::faults::Received]| {
        requests.iter().filter(|request| request.signal() == Some(Signal::Metrics)).count()
    };
    assert!(
        server.log().wait(Duration::from_secs(60), |requests| metrics(requests) >= 1),
        "{}",
        agent.said()
    );
    let (programs, links) = agent.in_kernel();
    assert!(!programs.is_empty(), "{}", agent.said());

    connect(&mut workload, &listener);

    assert!(get(port, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(get(port, "/readyz").starts_with("HTTP/1.1 200"), "{}", get(port, "/readyz"));
    assert_eq!(sum(&metrics_page(port), "ebpf_agent_running_ratio", &[("ebpf_tracer", "tcp")]), 1.0);
    let client = [("instance", pid.as_str()), ("ebpf_tcp_role", "client")];
    let all = |page: &Samples| sum(page, "ebpf_tcp_connections_total", &client) == CONNECTIONS as f64;
    let page = tries(Duration::from_secs(10)).map(|_| metrics_page(port)).find(all);
    let page = page.unwrap_or_else(|| panic!("{:?}: {}", metrics_page(port), agent.said()));
    let durations = sum(&page, "ebpf_tcp_connect_duration_seconds_count", &client);
    assert_eq!(durations, CONNECTIONS as f64, "{page:?}");
    assert_eq!(sum(&page, "target_info", &[("process_pid", pid.as_str())]), 1.0, "{page:?}");
    assert!(sum(&page, "ebpf_agent_export_items_total", &[("ebpf_outcome", "delivered")]) > 0.0);
    assert_eq!(sum(&page, "ebpf_agent_page_omitted", &[]), 0.0);

    fs::write(&config, "[agent]\ninterval = \"1s\"\ncpu_limit = 0\n[tracer.profile]\nenabled = false\n")
        .unwrap();
    agent.signal("-HUP");
    agent.wait_said("ebpf-otlp: stopped profile");
    agent.wait_said("ebpf-otlp: read the configuration again");
    fs::write(&config, "[agent]\nintervall = \"1s\"\n").unwrap();
    agent.signal("-HUP");
    agent.wait_said("going on with the old configuration");
    agent.wait_said("agent.toml:2: [agent]: there is no key \"intervall\": did you mean \"interval\"?");

    let sent = metrics(&server.log().requests());
    let (code, took, said) = agent.end();
    assert!(took < LAST, "{took:?}: {said}");
    assert_eq!(code, Some(0), "{said}");
    assert!(metrics(&server.log().requests()) > sent, "the last window is sent: {said}");
    assert_eq!(
        last_value(&output, "ebpf.tcp.connections", ("ebpf.tcp.role", "client")),
        Some(CONNECTIONS as u64),
        "{said}"
    );

    // The kernel frees what was let go of a moment later.
    let mut left = Vec::new();
    for _ in tries(Duration::from_secs(10)) {
        let there = |ids: bpf_sys::Ids| ids.filter_map(Result::ok).collect::<BTreeSet<u32>>();
        left = [(&programs, there(bpf_sys::prog::ids())), (&links, there(bpf_sys::link::ids()))]
            .iter()
            .flat_map(|(own, there)| own.intersection(there).copied().collect::<Vec<u32>>())
            .collect();
        if left.is_empty() {
            break;
        }
    }
    assert!(left.is_empty(), "programs or links {left:?} are still in the kernel");
}

#[test]
fn a_receiver_that_never_answers_does_not_keep_it() {
    if !agent::can_trace() {
        return;
    }
    let deaf = Deaf::start();
    let endpoint = format!("http://{}", deaf.address());
    let agent = Agent::start(&["--interval", "1s", "--only", "tcp", "--endpoint", &endpoint]);
    agent.wait_said("memory: 32M: ");
    std::thread::sleep(Duration::from_millis(2500));
    let (code, took, said) = agent.end();
    // It waits for nearly as long; what it does before and after takes its time too.
    assert!(took < LAST + Duration::from_secs(1), "{took:?}: {said}");
    assert_eq!(code, Some(1), "not all was delivered: {said}");
    assert!(said.contains("not delivered by the end"), "{said}");
}

#[test]
fn a_second_signal_does_not_wait_for_the_receiver() {
    if !agent::can_trace() {
        return;
    }
    let deaf = Deaf::start();
    let endpoint = format!("http://{}", deaf.address());
    let mut agent = Agent::start(&["--interval", "1s", "--only", "tcp", "--endpoint", &endpoint]);
    agent.wait_said("memory: 32M: ");
    std::thread::sleep(Duration::from_millis(1500));
    agent.signal("-INT");
    // It has seen the first, then.
    assert!(tries(LAST).any(|_| agent.in_kernel().0.is_empty()), "{}", agent.said());
    agent.signal("-INT");
    assert_eq!(agent.process.0.wait().unwrap().code(), Some(1));
    agent.reader.take().unwrap().join().unwrap();
    // Otherwise it had waited, and told of what was not delivered.
    assert!(!agent.said().contains("not delivered by the end"), "{}", agent.said());
}

#[test]
fn spans_without_room_are_said_and_a_failure() {
    if !agent::can_trace() {
        return;
    }
    let directory = TempDir::new("agent-lost");
    let output = directory.join("out.jsonl");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut workload = connector(listener.local_addr().unwrap().port());
    let pid = workload.0.id().to_string();
    let arguments =
        ["--interval", "1h", "--only", "tcp", "--pid", &pid, "--output", output.to_str().unwrap()];
    let agent = Agent::start_with(&arguments, &[("OTEL_BSP_MAX_QUEUE_SIZE", "1")]);
    agent.wait_said("memory: 32M: ");
    connect(&mut workload, &listener);
    let (code, took, said) = agent.end();
    assert!(took < LAST && code == Some(1), "{code:?} after {took:?}: {said}");
    let mut lost = said.lines().filter_map(|line| {
        line.strip_prefix("ebpf-otlp: lost ")?.strip_suffix(" spans: queue full")?.parse().ok()
    });
    let lost: usize = lost.next_back().unwrap();
    let text = fs::read_to_string(&output).unwrap();
    let sent = text.matches("\"name\":\"ebpf.tcp.connection\"").count();
    assert!(sent >= 1 && sent + lost == CONNECTIONS, "{sent} and {lost}: {said}");
}

/// The requests of a file, each behind its length.
fn delimited<M: Message + Default>(file: &Path) -> Vec<M> {
    let bytes = fs::read(file).unwrap();
    let mut rest = bytes.as_slice();
    let mut all = Vec::new();
    while !rest.is_empty() {
        let length = prost::decode_length_delimiter(&mut rest).unwrap();
        let (message, after) = rest.split_at(length);
        let decoded = M::decode(message).unwrap();
        assert_eq!(decoded.encode_to_vec(), message, "no field is unknown");
        all.push(decoded);
        rest = after;
    }
    all
}

#[test]
fn binary_files_have_the_same_requests_as_lines() {
    if !agent::can_trace() {
        return;
    }
    let directory = TempDir::new("agent-binary");
    let lines = directory.join("lines");
    fs::create_dir(&lines).unwrap();
    let output = directory.join("x.otlp");
    fs::write(directory.join("x.traces.otlp"), "what was there").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut workload = connector(listener.local_addr().unwrap().port());
    let pid = workload.0.id().to_string();
    let endpoint = format!("file://{}", lines.display());
    let mut arguments = vec!["--interval", "1s", "--only", "tcp,process,profile", "--pid", &pid];
    arguments.extend(["--endpoint", &endpoint, "--output", output.to_str().unwrap()]);
    // A slow machine's governor would pause tracers.
    let agent = Agent::start_with(&arguments, &[("EBPF_OTLP_CPU_LIMIT", "0")]);
    agent.wait_said("memory: 32M: ");
    connect(&mut workload, &listener);
    // Its end is a log record.
    workload.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    assert!(workload.0.wait().unwrap().success());
    std::thread::sleep(Duration::from_millis(1500));
    let (code, _, said) = agent.end();
    assert_eq!(code, Some(0), "{said}");

    let file = |signal: &str| directory.join(format!("x.{signal}.otlp"));
    let metrics: Vec<ExportMetricsServiceRequest> = delimited(&file("metrics"));
    let traces: Vec<ExportTraceServiceRequest> = delimited(&file("traces"));
    let logs: Vec<ExportLogsServiceRequest> = delimited(&file("logs"));
    let profiles: Vec<ExportProfilesServiceRequest> = delimited(&file("profiles"));
    assert!(profiles.iter().all(|request| !request.resource_profiles.is_empty()));
    let spans = traces.iter().flat_map(|request| &request.resource_spans).flat_map(|of| &of.scope_spans);
    assert_eq!(spans.map(|of| of.spans.len()).sum::<usize>(), CONNECTIONS, "{said}");
    let records = logs.iter().flat_map(|request| &request.resource_logs).flat_map(|of| &of.scope_logs);
    assert_eq!(records.map(|of| of.log_records.len()).sum::<usize>(), 1, "{said}");
    let requests = [
        ("metrics", metrics.len()),
        ("traces", traces.len()),
        ("logs", logs.len()),
        ("profiles", profiles.len()),
    ];
    for (signal, requests) in requests {
        let text = fs::read_to_string(lines.join(format!("{signal}.jsonl"))).unwrap_or_default();
        assert_eq!(text.lines().count(), requests, "{signal}");
    }
}

#[test]
fn as_much_is_said_as_the_environment_asks_for() {
    if !agent::can_trace() {
        return;
    }
    let run = |level: &str| {
        let mut command = Command::new(agent::binary());
        command.args(["run", "--duration", "1s", "--only", "process"]).env("OTEL_LOG_LEVEL", level);
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
            .env("OTEL_METRIC_EXPORT_INTERVAL", "1");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "nobody listens there");
        let said = String::from_utf8(output.stderr).unwrap();
        ["memory: 32M", "counts as 1000", "cannot send to"].map(|part| said.contains(part))
    };
    assert_eq!(run("info"), [true, true, true]);
    assert_eq!(run("warn"), [false, true, true]);
    assert_eq!(run("error"), [false, false, true]);
    assert_eq!(run("none"), [false, false, false]);
}

#[test]
fn a_signal_while_tracers_start_ends_it_at_once() {
    if !agent::can_trace() {
        return;
    }
    let agent = Agent::start(&["--interval", "1s"]);
    let limit = Instant::now() + Duration::from_secs(10);
    let catches = || {
        let status = fs::read_to_string(format!("/proc/{}/status", agent.process.0.id())).unwrap_or_default();
        let mask =
            status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:\t")?, 16).ok());
        mask.is_some_and(|mask| mask >> (SIGTERM - 1) & 1 == 1)
    };
    while !catches() {
        assert!(Instant::now() < limit, "it catches no SIGTERM: {}", agent.said());
    }
    // Tracers take a good part of a second to start.
    std::thread::sleep(Duration::from_millis(5));
    let (code, took, said) = agent.end();
    assert!(took < LAST, "{took:?}: {said}");
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("memory: "), "it did not wait until all had started: {said}");
}

#[test]
fn metrics_are_served_before_the_first_window_ends_and_without_a_receiver() {
    if !agent::can_trace() {
        return;
    }
    for (interval, ended) in [("1h", false), ("1s", true)] {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let own = std::process::id().to_string();
        let arguments = ["--interval", interval, "--only", "memory", "--pid", &own, "--listen", &listen];
        let agent = Agent::start(&arguments);
        agent.wait_said("memory: 32M: ");
        let limit = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < limit, "{}", agent.said());
        }
        let page = metrics_page(port);
        assert_eq!(sum(&page, "ebpf_agent_running_ratio", &[("ebpf_tracer", "memory")]), 1.0, "{page:?}");
        assert!(sum(&page, "ebpf_agent_memory_usage_bytes", &[]) > 1e6, "{page:?}");
        assert!(get(port, "/readyz").starts_with("HTTP/1.1 200"));
        let faults = |page: &Samples| sum(page, "process_paging_faults_total", &[("instance", &own)]);
        while ended && faults(&metrics_page(port)) == 0.0 {
            std::hint::black_box(vec![1u8; 8 << 20]);
            assert!(Instant::now() < limit, "{}", agent.said());
            std::thread::sleep(Duration::from_millis(100));
        }
        let (code, took, said) = agent.end();
        assert!(took < LAST && code == Some(0), "{code:?} after {took:?}: {said}");
    }
}

#[test]
fn without_a_receiver_it_shows_what_it_found() {
    if !agent::can_trace() {
        return;
    }
    let mut command = Command::new(agent::binary());
    command.args(["run", "--duration", "3s", "--interval", "1s", "--only", "profile,tcp"]);
    command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    let output = command.output().unwrap();
    let (text, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(text.matches("tracing costs").count() >= 2 && text.contains('▁'), "{text}");
    assert!(!text.contains('\x1b') && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(said.contains("memory: 32M: process "), "{said}");
    let wrong = Command::new(agent::binary()).args(["run", "--interval", "1d"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).starts_with("ebpf-otlp: --interval: interval: 1d is not"));
}
