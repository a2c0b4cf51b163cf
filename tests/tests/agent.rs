//! The profiler as a library, on this kernel: what it says of a thread whose work is known.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use collector::check;
use collector::config::{Config, Filter};
use collector::convert::profiles::{DEFAULT_MAX_REQUEST, ProfilesEncoder};
use collector::error::Error;
use collector::model::Profile;
use collector::profiler::Profiler;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use prost::Message;
use tests::profcheck;

/// Whether this process may sample; says so if not, and fails where it must be able to.
fn privileged(test: &str) -> bool {
    let mut facts = check::facts::read_files(std::path::Path::new("/"));
    facts.probes = check::probe::run(&RunningTarget::new());
    let report = check::judge(&facts);
    let usable = report.usable();
    if !usable {
        assert!(!ought_to_sample(), "`ebpf-otlp check` is wrong: {report:#?}");
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

/// A thread of this process that computes until it is dropped.
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<u64>>,
}

impl Worker {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread =
            thread::Builder::new().name("known-worker".into()).spawn(move || known_work(&seen)).unwrap();
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

#[inline(never)]
fn known_work(stop: &AtomicBool) -> u64 {
    let mut sum = 0u64;
    while !stop.load(Ordering::Relaxed) {
        for i in 0..10_000u64 {
            sum = black_box(sum.wrapping_mul(31).wrapping_add(i));
        }
    }
    sum
}

fn own_config() -> Config {
    let filter = Filter { pids: vec![std::process::id()], ..Filter::default() };
    Config { frequency: 499, window: Duration::from_secs(1), filter, stacks: None }
}

fn count(profile: &Profile) -> u64 {
    profile.samples.iter().map(|s| s.count).sum()
}

#[test]
fn windows_of_a_known_thread_are_valid_and_pause_stops_them() {
    if !privileged("windows_of_a_known_thread_are_valid_and_pause_stops_them") {
        return;
    }
    let worker = Worker::start();
    let windows: Arc<Mutex<Vec<Profile>>> = Arc::default();
    let sink = Arc::clone(&windows);
    let profiler = Profiler::start(own_config(), move |p| sink.lock().unwrap().push(p)).unwrap();
    assert!(profiler.is_running());
    let deadline = Instant::now() + Duration::from_secs(30);
    while windows.lock().unwrap().len() < 3 {
        assert!(Instant::now() < deadline, "no windows");
        thread::sleep(Duration::from_millis(50));
    }
    profiler.pause().unwrap();
    assert!(!profiler.is_running());
    let overhead = profiler.overhead();
    assert!(
        overhead.resident_bytes > 0 && overhead.map_bytes > 0 && overhead.cpu_share < 1.0,
        "{overhead:?}"
    );

    // The window in which it was paused still has samples, the next ones do not.
    thread::sleep(Duration::from_millis(2200));
    let paused = windows.lock().unwrap().last().cloned().unwrap();
    assert_eq!(count(&paused), 0, "samples while paused");
    profiler.resume().unwrap();
    assert!(profiler.is_running());
    thread::sleep(Duration::from_millis(1500));
    profiler.stop().unwrap();
    drop(worker);

    let windows = windows.lock().unwrap();
    assert!(
        count(windows.last().unwrap()) + count(&windows[windows.len() - 2]) > 0,
        "no samples after resume"
    );
    let profile = &windows[1];
    assert_eq!(profile.processes.len(), 1);
    assert_eq!(profile.processes[0].pid, std::process::id());
    let thread_of = |s: &collector::model::Sample| &*profile.threads[s.thread.0 as usize].name;
    let known: u64 = profile.samples.iter().filter(|s| thread_of(s) == "known-worker").map(|s| s.count).sum();
    assert!(known * 10 > count(profile) * 5, "{known} of {} samples", count(profile));
    let named = profile.frames.iter().flat_map(|f| &f.lines).any(|l| l.function.contains("known_work"));
    assert!(named, "its function has no name");
    // A window is longer where the names of the one before took their time.
    let most = 499
        * thread::available_parallelism().unwrap().get() as u64
        * (profile.duration_nanos / 1_000_000_000 + 1);
    assert!(count(profile) <= most, "{} in {} ns", count(profile), profile.duration_nanos);

    let mut encoder = ProfilesEncoder::new(7, DEFAULT_MAX_REQUEST);
    for profile in windows.iter() {
        encoder
            .encode(profile, [1; 16], |bytes, _| {
                let request = ExportProfilesServiceRequest::decode(bytes).unwrap();
                assert_eq!(profcheck::check(&request), Vec::new());
            })
            .unwrap();
    }
}

#[test]
fn what_cannot_be_sampled_is_refused() {
    let wrong = Config { frequency: 0, ..Config::default() };
    assert!(matches!(Profiler::start(wrong, |_| {}).map_err(|e| *e), Err(Error::Config(_))));
    if !privileged("what_cannot_be_sampled_is_refused") {
        return;
    }
    let nobody = Filter { pids: vec![0x3fff_ffff], ..Filter::default() };
    let missing = Config { filter: nobody, ..Config::default() };
    assert!(matches!(
        Profiler::start(missing, |_| {}).map_err(|e| *e),
        Err(Error::NoSuchProcess(0x3fff_ffff))
    ));
}
