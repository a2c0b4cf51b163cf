//! The command as a user runs it: outputs, exit codes, errors, and nothing left behind.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_ebpf-otlp");

fn run(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).env_remove("OTEL_EXPORTER_OTLP_ENDPOINT").output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether this process may sample; says so if not, and fails where it must be able to.
fn privileged(test: &str) -> bool {
    let check = run(&["check", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&check.stdout).unwrap();
    let usable = report["usable"] == true;
    if !usable {
        assert!(!ought_to_sample(), "`ebpf-otlp check` is wrong: {report:#}");
        eprintln!("skip: {test}: `ebpf-otlp check` says that profile cannot run here");
    }
    usable
}

/// Whether sampling must work, whatever `check` says: as root of the machine, on a kernel that can.
fn ought_to_sample() -> bool {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/self/status");
    let field =
        |name: &str, at: usize| status.lines().find(|l| l.starts_with(name))?.split_whitespace().nth(at);
    let capabilities = field("CapEff:", 1).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    const CAP_BPF: u64 = 1 << 39;
    let root = field("Uid:", 2) == Some("0") && capabilities & (CAP_SYS_ADMIN | CAP_BPF) != 0;
    let initial_namespace = read("/proc/self/uid_map").split_whitespace().eq(["0", "0", "4294967295"]);
    let release = read("/proc/sys/kernel/osrelease");
    let mut version = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let new = (version.next(), version.next()) >= (Some(5), Some(8));
    let perf_events = std::path::Path::new("/proc/sys/kernel/perf_event_paranoid").exists();
    root && initial_namespace && new && perf_events
}

/// A program that keeps one CPU busy, and is ended with the test.
struct Busy(Child);

impl Busy {
    fn start() -> Self {
        let child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        Self(child)
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// Waits until it has run for half a second more, however busy others are.
    fn run(&self) {
        let ticks = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
            let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        let until = ticks() + 50;
        while ticks() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ebpf-otlp-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn showing_and_exporting_at_once_is_wrong_usage() {
    let output = run(&["syscalls", "--json", "--endpoint", "http://127.0.0.1:9"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("leave out the receiver"), "{}", stderr(&output));
}

#[test]
fn wrong_values_are_wrong_usage() {
    for (args, part) in [
        (&["profile", "--frequency", "0"][..], "frequency 0 Hz is out of range"),
        (&["profile", "--frequency", "1001"], "must be 1 to 1000"),
        (&["profile", "--output", "x.png"], ".svg (flame graph)"),
        (&["profile", "--endpoint", "localhost:4318"], "must begin with http://"),
        (&["profile", "--duration", "soon"], "--duration"),
        (&["frobnicate"], "there is no command"),
        (&["load"], "at least one object"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = stderr(&output);
        assert!(text.contains(part) && text.lines().count() == 1, "{args:?}: {text}");
    }
    assert_eq!(run(&[]).status.code(), Some(2));
}

#[test]
fn a_file_without_end_is_no_configuration() {
    let output = run(&["run", "--config", "/dev/zero", "--duration", "1ms"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("/dev/zero") && text.contains("more than 1 MiB"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn failures_are_one_line_and_exit_1() {
    for (args, part) in [
        (&["profile", "--duration", "1s", "--output", "/nonexistent/x.svg"][..], "/nonexistent/x.svg"),
        (&["profile", "--duration", "1s", "--cgroup", "/nonexistent"], "cgroup /nonexistent"),
    ] {
        let output = run(args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        // Without privileges, that is what is said first.
        assert!(text.contains(part) || text.contains("may not sample"), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    }
}

#[test]
fn a_user_without_rights_is_told_what_to_do() {
    if !privileged("a_user_without_rights_is_told_what_to_do") {
        return;
    }
    let output = Command::new("setpriv")
        .args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            BINARY,
            "profile",
            "--duration",
            "1s",
        ])
        .output()
        .unwrap();
    // The build folder may be out of that user's reach.
    if stderr(&output).contains("failed to execute") {
        eprintln!("skip: a_user_without_rights_is_told_what_to_do: other users cannot run {BINARY}");
        return;
    }
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("CAP_BPF and CAP_PERFMON"), "{}", stderr(&output));
}

#[test]
fn every_output_is_written() {
    if !privileged("every_output_is_written") {
        return;
    }
    let (busy, folder) = (Busy::start(), Folder::new("outputs"));
    let names = ["x.svg", "x.folded", "x.pb.gz", "x.otlp", "x.jsonl"];
    let mut args = vec![
        "profile".to_owned(),
        "--duration=2s".into(),
        "--frequency=499".into(),
        "--json".into(),
        format!("--pid={}", busy.pid()),
    ];
    args.extend(names.iter().map(|name| format!("--output={}", folder.file(name))));
    let output = run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let samples = summary["samples"].as_u64().unwrap();
    assert!(samples > 20, "{summary}");
    let read = |name: &str| std::fs::read(folder.file(name)).unwrap();
    assert!(read("x.svg").starts_with(b"<?xml"));
    assert_eq!(read("x.pb.gz")[..2], [0x1f, 0x8b]);
    let folded = String::from_utf8(read("x.folded")).unwrap();
    let counted: u64 = folded.lines().map(|l| l.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(counted, samples);
    assert!(folded.lines().all(|l| l.starts_with("sh;")), "only the process that was asked for: {folded}");
    for line in String::from_utf8(read("x.jsonl")).unwrap().lines() {
        let request: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(request["resourceProfiles"].is_array());
    }
    assert!(read("x.otlp").len() > 100);
    let left: Vec<_> = std::fs::read_dir(&folder.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), names.len(), "no temporary files: {left:?}");
}

#[test]
fn a_refusing_endpoint_is_one_clear_line() {
    if !privileged("a_refusing_endpoint_is_one_clear_line") {
        return;
    }
    let busy = Busy::start();
    let output =
        run(&["profile", "--duration", "1s", "--pid", &busy.pid(), "--endpoint", "http://127.0.0.1:9"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("connection refused") && text.contains("is an OTLP receiver"), "{text}");
}

#[test]
fn a_refusing_endpoint_is_told_of_before_the_end() {
    if !privileged("a_refusing_endpoint_is_told_of_before_the_end") {
        return;
    }
    let busy = Busy::start();
    let mut child = Command::new(BINARY)
        .args(["profile", "--duration", "30s", "--interval", "1s", "--pid", &busy.pid()])
        .args(["--endpoint", "http://127.0.0.1:9"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (started, mut line) = (Instant::now(), String::new());
    let read = BufReader::new(child.stderr.take().unwrap()).read_line(&mut line);
    child.kill().unwrap();
    child.wait().unwrap();
    read.unwrap();
    assert!(line.contains("connection refused"), "{line}");
    assert!(started.elapsed() < Duration::from_secs(30), "at the end");
}

#[test]
fn a_terminal_that_is_gone_costs_nothing() {
    if !privileged("a_terminal_that_is_gone_costs_nothing") {
        return;
    }
    let (busy, folder) = (Busy::start(), Folder::new("gone"));
    let (url, svg) = (format!("file://{}/", folder.0.display()), folder.0.join("x.svg"));
    let output = Command::new(BINARY)
        .args([
            "profile",
            "--duration",
            "500ms",
            "--pid",
            &busy.pid(),
            "--json",
            "--endpoint",
            &url,
            "--output",
        ])
        .arg(&svg)
        .stderr(std::fs::File::options().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(summary["exports"][0]["delivered"].as_u64() > Some(0), "{summary}");
    assert!(svg.exists() && folder.0.join("profiles.jsonl").exists());
}

#[test]
fn secrets_are_in_no_output() {
    let busy = Busy::start();
    let receiver = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = receiver.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = receiver.accept().unwrap();
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").unwrap();
        std::io::copy(&mut stream, &mut std::io::sink())
    });
    let refusing = format!("http://{address}/?key=s3cret");
    let mut cases = vec![
        ("http://user:s3cret@localhost", "user name"),
        ("http://localhost:s3cret", "port"),
        ("s3cret", "must begin with"),
    ];
    if privileged("secrets_are_in_no_output") {
        cases.push((&refusing, "401 Unauthorized"));
    }
    for (url, part) in cases {
        let output = Command::new(BINARY)
            .args(["profile", "--duration", "300ms", "--pid", &busy.pid(), "--endpoint", url])
            .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=s3cret,s3cret,x y=s3cret")
            .env("OTEL_RESOURCE_ATTRIBUTES", "s3cret")
            .env("HTTPS_PROXY", "http://user:s3cret@proxy")
            .output()
            .unwrap();
        let text = format!("{}{}", stderr(&output), String::from_utf8_lossy(&output.stdout));
        assert!(text.contains(part) && !text.contains("s3cret"), "{url}: {text}");
    }
}

#[test]
fn lines_go_to_files_and_standard_output() {
    if !privileged("lines_go_to_files_and_standard_output") {
        return;
    }
    let (busy, folder) = (Busy::start(), Folder::new("lines"));
    let url = format!("file://{}/", folder.0.display());
    let output = Command::new(BINARY)
        .args(["profile", "--duration", "1s", "--pid", &busy.pid(), "--endpoint", &url])
        .env("OTEL_PROFILES_EXPORTER", "otlp,console,zipkin")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,service.name=agent")
        .env("OTEL_SERVICE_NAME", "agent")
        .output()
        .unwrap();
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("ignoring OTEL_PROFILES_EXPORTER=zipkin"), "{text}");
    let lines = std::fs::read_to_string(folder.file("profiles.jsonl")).unwrap();
    assert_eq!(lines.as_bytes(), output.stdout, "both get the same");
    for line in lines.lines() {
        let request: serde_json::Value = serde_json::from_str(line).unwrap();
        let attributes = request["resourceProfiles"][0]["resource"]["attributes"].to_string();
        assert!(attributes.contains(r#""stringValue":"prod""#), "{attributes}");
        assert!(!attributes.contains(r#""stringValue":"agent""#), "{attributes}");
    }

    // A limit of sizes ends no process, and leaves no part of a line.
    let limited =
        format!("ulimit -f 1; exec {BINARY} profile --duration 1s --pid {} --endpoint {url}", busy.pid());
    let output = Command::new("sh").args(["-c", &limited]).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("it cannot be written (File too large"), "{text}");
    assert_eq!(std::fs::read_to_string(folder.file("profiles.jsonl")).unwrap(), lines);
}

#[test]
fn a_signal_ends_the_profile_with_its_result() {
    if !privileged("a_signal_ends_the_profile_with_its_result") {
        return;
    }
    for signal in ["-INT", "-TERM"] {
        let (busy, folder) = (Busy::start(), Folder::new(signal));
        let path = folder.file("x.folded");
        let mut child = Command::new(BINARY)
            .args(["profile", "--pid", &busy.pid(), "--output", &path])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It samples once it holds perf events.
        let fds = format!("/proc/{}/fd", child.id());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !samples(&fds) {
            assert!(Instant::now() < deadline, "it does not begin to sample");
            std::thread::sleep(Duration::from_millis(50));
        }
        busy.run();
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        let status = child.wait().unwrap();
        let said: Vec<String> =
            BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok).collect();
        assert_eq!(status.code(), Some(0), "{said:?}");
        assert!(std::fs::read_to_string(&path).unwrap().lines().count() > 0, "{said:?}");
    }
}

/// A profiler of one process, once it samples.
fn start_profile(args: &[&str]) -> Child {
    let child =
        Command::new(BINARY).arg("profile").args(args).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let child = child.unwrap();
    let fds = format!("/proc/{}/fd", child.id());
    let deadline = Instant::now() + Duration::from_secs(20);
    while !samples(&fds) {
        assert!(Instant::now() < deadline, "it does not begin to sample");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(500));
    child
}

#[test]
fn what_ran_before_an_exec_is_not_named_by_what_runs_after() {
    if !privileged("what_ran_before_an_exec_is_not_named_by_what_runs_after") {
        return;
    }
    let folder = Folder::new("exec");
    let path = folder.file("x.folded");
    let script = "read go; i=0; while [ $i -lt 600000 ]; do i=$((i+1)); done; exec sleep 4";
    let mut busy = Busy(Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap());
    let child = start_profile(&["--pid", &busy.pid(), "--frequency", "499", "--output", &path]);
    use std::io::Write;
    busy.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
    // The profile ends with its only process.
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let folded = std::fs::read_to_string(&path).unwrap();
    let count = |name: &str| -> u64 {
        let lines = folded.lines().filter(|l| l.starts_with(name));
        lines.map(|l| l.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    assert!(count("sh;") > 20, "{folded}");
    assert!(count("sleep;") * 10 < count("sh;"), "{folded}");
}

#[test]
fn a_thread_is_no_process() {
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&done);
    let (sender, tid) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let own = std::fs::read_link("/proc/thread-self").unwrap();
        sender.send(own.file_name().unwrap().to_str().unwrap().to_owned()).unwrap();
        while !seen.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let output = run(&["profile", "--duration", "1s", "--pid", &tid.recv().unwrap()]);
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    thread.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let advice = format!("use --pid {}", std::process::id());
    assert!(
        stderr(&output).contains(&advice) || stderr(&output).contains("may not sample"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn one_output_that_fails_leaves_the_others() {
    if !privileged("one_output_that_fails_leaves_the_others") {
        return;
    }
    let (busy, folder) = (Busy::start(), Folder::new("full"));
    let (full, good) = (folder.file("full.svg"), folder.file("good.folded"));
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    let outputs = ["--output", &full, "--output", &good, "--endpoint", "http://127.0.0.1:9"];
    let pid = busy.pid();
    let args = [&["profile", "--duration", "1s", "--pid", &pid][..], &outputs].concat();
    let output = run(&args);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("full.svg")
            && text.contains(
                "sent 0 profiles in 0 requests to http://127.0.0.1:9/v1development/profiles; dropped"
            ),
        "{text}"
    );
    assert!(std::fs::read_to_string(&good).unwrap().lines().count() > 0);
}

fn samples(fds: &str) -> bool {
    let entries = std::fs::read_dir(fds).into_iter().flatten().flatten();
    entries
        .filter_map(|e| std::fs::read_link(e.path()).ok())
        .any(|l| l.to_string_lossy().contains("perf_event"))
}

#[test]
fn our_own_object_loads_and_a_text_file_does_not() {
    if !privileged("our_own_object_loads_and_a_text_file_does_not") {
        return;
    }
    let folder = Folder::new("load");
    let (good, bad) = (folder.file("profile.o"), folder.file("text.o"));
    std::fs::write(&good, bpf_programs::PROFILE).unwrap();
    std::fs::write(&bad, "no object").unwrap();
    let output = run(&["load", "--json", "--per-program", &good, &bad]);
    assert_eq!(output.status.code(), Some(1), "one of two failed");
    let lines: Vec<serde_json::Value> = output
        .stdout
        .split(|&b| b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!((lines.len(), &lines[0]["object"], &lines[1]["ok"]), (2, &good.into(), &false.into()));
    assert!(lines[1]["error"].as_str().unwrap().contains("ELF"));
    let programs = lines[0]["programs"].as_array().unwrap();
    assert_eq!(programs.len(), 4);
    for program in programs {
        // Kernels before 6.1 want the tables of perf programs allocated whole; the profiler asks for that, `load` does not
        // change an object.
        let refused = program["error"].as_str().unwrap_or_default();
        assert!(program["ok"] == true || refused.contains("preallocated"), "{program}");
    }
}

#[test]
fn an_object_is_inspected_without_a_kernel() {
    let object = concat!(env!("CARGO_MANIFEST_DIR"), "/../bpf-programs/prebuilt/profile.bpf.o");
    let output = run(&["inspect", object, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["ok"], &report["endian"]), (&true.into(), &"little".into()));
    let named = |list: &str, name: &str| {
        let mut all = report[list].as_array().unwrap().iter();
        let found = all.find(|entry| entry["name"] == name).cloned();
        found.unwrap_or_else(|| panic!("no {name} in {list}"))
    };
    // What the source says.
    let fork = named("programs", "follow_fork");
    assert_eq!(fork["kind"], "BPF_PROG_TYPE_RAW_TRACEPOINT");
    assert_eq!((&fork["target"], &fork["optional"]), (&"sched_process_fork".into(), &true.into()));
    assert!(fork["maps"].as_array().unwrap().contains(&"pids".into()), "{fork}");
    let relocations = fork["relocations"].as_array().unwrap();
    let tgid =
        |r: &&serde_json::Value| r["kind"] == "byte_off" && r["what"] == "struct task_struct.tgid (0:1)";
    assert_eq!(relocations.iter().filter(tgid).count(), 2, "{relocations:?}");
    let pids = named("maps", "pids");
    assert_eq!((&pids["type"], &pids["key_size"]), (&"BPF_MAP_TYPE_HASH".into(), &4.into()));
    assert_eq!(named("maps", "counts")["inner"]["type"], "BPF_MAP_TYPE_HASH");

    let text = run(&["inspect", object]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("relocation byte_off of struct task_struct.tgid (0:1), 2 times"), "{text}");

    let no_object = run(&["inspect", "--json", "/dev/null", object]);
    assert_eq!(no_object.status.code(), Some(1));
    assert_eq!(no_object.stdout.iter().filter(|&&b| b == b'\n').count(), 2, "one line for each");
}

/// A directory for pins, which goes with the test.
struct Pins(PathBuf);

impl Pins {
    /// `None`, with the reason printed, where there is no BPF file system.
    fn new(test: &str) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        if !mounts.lines().any(|l| l.split(' ').skip(1).take(2).eq(["/sys/fs/bpf", "bpf"])) {
            eprintln!("skip: {test}: no BPF file system is mounted at /sys/fs/bpf");
            return None;
        }
        Some(Self(PathBuf::from(format!("/sys/fs/bpf/ebpf-otlp-{test}-{}", std::process::id()))))
    }

    fn names(&self) -> Vec<String> {
        let folders = ["links", "maps", "programs"].iter().map(|f| self.0.join(f));
        let entries = folders.filter_map(|f| std::fs::read_dir(f).ok()).flatten();
        let names = entries.map(|e| e.unwrap().path().strip_prefix(&self.0).unwrap().display().to_string());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn programs_are_attached_and_pinned() {
    const TEST: &str = "programs_are_attached_and_pinned";
    let (true, Some(pins)) = (privileged(TEST), Pins::new(TEST)) else { return };
    let object = concat!(env!("CARGO_MANIFEST_DIR"), "/../bpf-loader/examples/bpf/prebuilt/tracepoint.bpf.o");
    let directory = pins.0.display().to_string();
    let output = run(&["load", object, "--attach", "--pin", &directory, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["programs"].as_array().unwrap().iter().all(|p| p["attached"] == true), "{report}");
    let names = pins.names();
    assert!(names.contains(&"maps/_bss".into()) && names.contains(&"links/count_start".into()), "{names:?}");

    // The command is gone; the attachment is not.
    let link = bpf_loader::link::Link::from_pin(&pins.0.join("links/count_start")).unwrap();
    assert!(link.fd().is_some());

    // The names are taken: nothing of the second is left, nothing of the first is gone.
    let again = run(&["load", object, "--pin", &directory, "--json"]);
    assert_eq!(again.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert!(report["pin_errors"][0].as_str().unwrap().contains("EEXIST"), "{report}");
    assert_eq!(pins.names(), names);

    // A map that is declared as pinned is there from the first run on, and nothing else of one that fails.
    let declared = concat!(env!("CARGO_MANIFEST_DIR"), "/../bpf-loader/tests/bpf/prebuilt/pinned.bpf.o");
    let other = Pins::new("declared").unwrap();
    let directory = other.0.display().to_string();
    let output = run(&["load", declared, "--pin", &directory]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(other.names().contains(&"maps/declared".into()), "{:?}", other.names());
    std::fs::remove_dir_all(&other.0).unwrap();
    let output = run(&["load", declared, "--attach", "--pin", &directory]);
    assert_eq!(output.status.code(), Some(1), "its programs cannot be attached by their sections");
    assert!(!other.0.exists(), "{:?}", other.names());

    // Attached for a while, with nothing left.
    let start = Instant::now();
    let output = run(&["load", object, "--attach", "--duration", "300ms"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(String::from_utf8_lossy(&output.stdout).contains("attached"));
}
