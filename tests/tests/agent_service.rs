//! The agent as a service: what the service manager hears, and what privileges are left.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tests::agent;
use tests::receivers::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_BPF: u64 = 1 << 39;
/// CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE and CAP_SYSLOG.
const TO_READ: u64 = 1 << 1 | 1 << 2 | 1 << 19 | 1 << 34;

/// The agent below a service manager that is this test.
struct Service {
    process: Child,
    manager: UnixDatagram,
    folder: TempDir,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Service {
    fn start(test: &str, config: &str) -> Self {
        let name = format!("ebpf-otlp-service-{test}-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let folder = TempDir::new(&format!("service-{test}"));
        fs::write(folder.join("config.toml"), config).unwrap();
        let process = Command::new(agent::binary())
            .args(["run", "--interval", "1s", "--config"])
            .arg(folder.join("config.toml"))
            .arg("--output")
            .arg(folder.join("told.jsonl"))
            .env_clear()
            .env("NOTIFY_SOCKET", format!("@{name}"))
            .env("WATCHDOG_USEC", "1000000")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, manager, folder }
    }

    fn heard(&self) -> String {
        let mut buffer = [0; 1024];
        let len = self.manager.recv(&mut buffer).expect("the agent tells something");
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    /// The next message that begins so.
    fn wait(&self, beginning: &str) -> String {
        let limit = Instant::now() + PATIENCE;
        loop {
            let heard = self.heard();
            if heard.starts_with(beginning) {
                return heard;
            }
            assert!(Instant::now() < limit, "no {beginning:?}");
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// What every thread may do but the one that looks for names, and whether any could gain more.
    fn capabilities(&self) -> Vec<(u64, bool)> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let of = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).unwrap();
            let field = |name: &str| {
                status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
            };
            let permitted = u64::from_str_radix(&field("CapPrm:"), 16).unwrap();
            assert_eq!(u64::from_str_radix(&field("CapEff:"), 16).unwrap(), permitted);
            (field("Name:"), permitted, field("NoNewPrivs:") == "0")
        };
        let all: Vec<_> = tasks.flatten().map(of).collect();
        let (reads, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(name, ..)| name == "ebpf-names");
        // What it reads are files that anybody has written.
        assert!(
            reads.len() == 1 && reads.iter().all(|(_, held, more)| held & !TO_READ == 0 && !more),
            "{reads:x?}"
        );
        rest.into_iter().map(|(_, permitted, more)| (permitted, more)).collect()
    }

    /// Lines of profiles that were written so far.
    fn profiles(&self) -> usize {
        let text = |entry: fs::DirEntry| fs::read_to_string(entry.path()).unwrap_or_default();
        let files = fs::read_dir(self.folder.join(".")).unwrap().flatten().map(text);
        files.map(|text| text.lines().filter(|line| line.starts_with("{\"resourceProfiles\"")).count()).sum()
    }

    fn stop(mut self) {
        self.signal("-TERM");
        self.wait("STOPPING=1");
        assert!(self.process.wait().unwrap().success());
    }
}

/// A configuration with the profiler, and perhaps `sched`.
fn small(sched: bool) -> String {
    let off = ["syscalls", "tcp", "udp", "dns", "memory", "disk", "process"];
    let off: String = off.iter().map(|name| format!("[tracer.{name}]\nenabled = false\n")).collect();
    format!("{off}[tracer.sched]\nenabled = {sched}\n")
}

#[test]
fn a_service_manager_hears_how_the_agent_fares() {
    if !agent::can_trace() {
        return;
    }
    let service = Service::start("manager", &small(false));
    assert_eq!(service.wait("READY=1"), "READY=1\nSTATUS=traces profile");
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap();
    // Above that, some kernels open no perf events without.
    let needless = paranoid.trim().parse::<i32>().unwrap() <= 2;
    for thread in service.capabilities() {
        assert!((thread.0 & CAP_SYS_ADMIN == 0 || !needless) && !thread.1, "{thread:x?}");
    }
    assert!(service.capabilities().len() > 1, "the exporter has a thread");
    assert!(
        service
            .capabilities()
            .iter()
            .all(|(held, _)| held & CAP_BPF != 0 || !rustix::process::geteuid().is_root())
    );
    // Profiling goes on.
    let before = service.profiles();
    let limit = Instant::now() + PATIENCE;
    while service.profiles() < before + 2 {
        assert!(Instant::now() < limit, "no profile after {before}");
        service.heard();
    }
    service.wait("WATCHDOG=1");

    // What has less privileges now can still start another tracer.
    fs::write(service.folder.join("config.toml"), small(true)).unwrap();
    service.signal("-HUP");
    assert!(service.wait("RELOADING=1").contains("\nMONOTONIC_USEC="));
    let ready = service.wait("READY=1");
    assert!(ready.contains("profile") && ready.contains("sched") && !ready.contains("cannot"), "{ready}");

    // A loop that hangs feeds no watchdog.
    service.signal("-STOP");
    service.manager.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    let mut buffer = [0; 1024];
    while service.manager.recv(&mut buffer).is_ok() {}
    service.manager.set_read_timeout(Some(PATIENCE)).unwrap();
    service.signal("-CONT");
    service.wait("WATCHDOG=1");
    service.stop();
}

#[test]
fn privileges_are_kept_where_that_is_asked_for() {
    if !agent::can_trace() {
        return;
    }
    let service = Service::start("keep", &format!("[agent]\nprivileges = \"keep\"\n{}", small(false)));
    service.wait("READY=1");
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap().trim();
    let own = u64::from_str_radix(own, 16).unwrap();
    assert!(service.capabilities().iter().all(|(held, _)| *held == own));
    service.stop();
}
