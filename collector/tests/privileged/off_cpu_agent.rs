//! The agent with profiles of CPU time and of time off the CPU at once, against the clocks of those who work and wait.

use std::fs;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bpf_sys::clock::Clock;
use collector::model::{FrameIdx, Profile};
use collector::read::{Recording, Source};
use collector::telemetry::Recorder;
use collector::tracer::{Settings, Tracer, cause, off_cpu};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use prost::Message;

use super::helper::{Helper, agent, task};
use super::{is_emulated, is_root, pause, skip, start};

/// How long the helper is at it: some windows.
const RUN: Duration = Duration::from_secs(7);
const HERTZ: u64 = 99;

#[inline(never)]
fn waits_at_times() {
    thread::sleep(Duration::from_millis(20));
    black_box(());
}

#[inline(never)]
fn waits_over_windows() {
    thread::sleep(Duration::from_millis(2500));
    black_box(());
}

#[inline(never)]
fn waits_for_another(from: &mut UnixStream) {
    let mut byte = [0];
    black_box(from.read(&mut byte).unwrap());
}

#[inline(never)]
fn burns() {
    (0..100_000u64).for_each(|n| {
        black_box(n);
    });
}

/// Time by that clock in something that is done again and again.
fn measure(end: Instant, clock: Clock, mut what: impl FnMut()) -> Duration {
    let mut taken = Duration::ZERO;
    while Instant::now() < end {
        let before = clock.now();
        what();
        taken += clock.now().saturating_sub(before);
    }
    taken
}

#[test]
#[ignore = "what the others look at"]
fn helper() {
    let Some(what) = task() else { return };
    let end = Instant::now() + RUN;
    let mut threads: Vec<(&str, JoinHandle<Duration>)> = Vec::new();
    if what == "often" {
        // Until it is killed.
        let end = end + 10 * RUN;
        for _ in 0..8 {
            let sleep = || thread::sleep(Duration::from_micros(500));
            threads.push(("sleep", thread::spawn(move || measure(end, Clock::Monotonic, sleep))));
        }
    } else {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        // They wait more often than the agent ends windows.
        thread::spawn(move || {
            while there.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(30));
            }
        });
        let clock = Clock::Monotonic;
        let waits = move || waits_for_another(&mut here);
        threads.push(("waits_at_times", thread::spawn(move || measure(end, clock, waits_at_times))));
        threads.push(("waits_over_windows", thread::spawn(move || measure(end, clock, waits_over_windows))));
        threads.push(("waits_for_another", thread::spawn(move || measure(end, clock, waits))));
        threads.push(("burns", thread::spawn(move || measure(end, Clock::ThreadCpu, burns))));
    }
    for (name, thread) in threads {
        println!("{name} {}", thread.join().unwrap().as_nanos());
    }
    println!("READY");
    thread::sleep(Duration::from_secs(60));
}

/// What the helper says that took so long, all threads that say so together.
fn by_clock(told: &str, name: &str) -> u64 {
    let words = told.lines().filter_map(|line| line.rsplit_once(' '));
    words.filter(|(of, _)| of.ends_with(name)).map(|(_, nanos)| nanos.parse::<u64>().unwrap()).sum()
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ebpf-otlp-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The agent, with what it says.
struct Agent {
    process: Child,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Agent {
    fn start(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let said: Arc<Mutex<String>> = Arc::default();
        let to = Arc::clone(&said);
        let reader = thread::spawn(move || lines.for_each(|line| *to.lock().unwrap() += &(line + "\n")));
        Self { process, said, reader: Some(reader) }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn wait_said(&mut self, what: &str) {
        while !self.said().contains(what) {
            assert!(self.process.try_wait().unwrap().is_none(), "{}", self.said());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn end(&mut self) -> String {
        self.signal(rustix::process::Signal::TERM);
        let status = self.process.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        assert!(status.success(), "{status}: {}", self.said());
        self.said()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn value_below(profile: &Profile, function: &str) -> u64 {
    let is_below = |stack: &[FrameIdx]| {
        let lines = stack.iter().flat_map(|frame| &profile.frames[frame.0 as usize].lines);
        lines.into_iter().any(|line| line.function.ends_with(function))
    };
    let samples = profile.samples.iter().filter(|sample| is_below(&profile.stacks[sample.stack.0 as usize]));
    samples.map(|sample| sample.count).sum()
}

fn is_near(what: &str, counted: u64, expected: u64, more: u64) {
    eprintln!("{what}: {counted} of {expected}");
    let tolerance = if is_emulated() { 0.2 } else { 0.1 } * expected as f64 + more as f64;
    assert!((counted as f64 - expected as f64).abs() <= tolerance, "{what}: {counted} and not {expected}");
}

/// Requests behind their lengths.
fn messages<M: Message + Default>(path: &Path) -> Vec<M> {
    let bytes = fs::read(path).unwrap();
    let mut rest = &bytes[..];
    std::iter::from_fn(|| (!rest.is_empty()).then(|| M::decode_length_delimited(&mut rest).unwrap()))
        .collect()
}

/// Whether a point has these attributes.
fn has(point: &NumberDataPoint, wanted: &[(&str, &str)]) -> bool {
    let value = |key: &str| point.attributes.iter().find(|own| own.key == key)?.value.clone()?.value;
    wanted.iter().all(|(key, wanted)| value(key) == Some(any_value::Value::StringValue((*wanted).to_owned())))
}

/// What a cumulative counter has come to, over all points with these attributes.
fn total(requests: &[ExportMetricsServiceRequest], metric: &str, attributes: &[(&str, &str)]) -> i64 {
    let mut latest = 0;
    for request in requests {
        let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
        for found in scopes.flat_map(|scope| &scope.metrics).filter(|found| found.name == metric) {
            let Some(Data::Sum(sum)) = &found.data else { panic!("{metric} is no sum") };
            let points = sum.data_points.iter().filter(|point| has(point, attributes));
            let values = points.map(|point| match point.value {
                Some(Value::AsInt(n)) => n,
                other => panic!("{metric} is {other:?}"),
            });
            latest = latest.max(values.sum());
        }
    }
    latest
}

/// Tries it again, with more time before the agent ends, where names of functions came too late: for those of its last window it waits 5 s,
/// and a busy machine has less of a CPU left for the thread that looks for them than that takes.
fn until_names_are_in_time(is_in_time: impl Fn(Duration) -> bool) {
    let waits = [0, 10, 30].map(Duration::from_secs);
    assert!(waits.into_iter().any(is_in_time), "names came too late three times");
}

/// Compares what the agent has written of the helper with the helper's own account; `false`: names came too late.
fn check(folder: &Path, told: &str, said: &str) -> bool {
    let metrics: Vec<ExportMetricsServiceRequest> = messages(&folder.join("x.metrics.otlp"));
    let count = |metric: &str, attributes: &[(&str, &str)]| total(&metrics, metric, attributes);
    let late = count("ebpf.agent.drops", &[("ebpf.drop.cause", cause::LATE_NAMES)]);
    if late > 0 {
        eprintln!("names of {late} came too late");
        return false;
    }
    let bytes = fs::read(folder.join("x.profiles.otlp")).unwrap();
    let waits = Recording::parse(&bytes, Source::Otlp, Some("off_cpu")).unwrap();
    let cpu = Recording::parse(&bytes, Source::Otlp, Some("samples")).unwrap();
    let kinds = |recording: &Recording| (recording.value.unit.clone(), recording.others.len());
    assert_eq!((kinds(&waits), kinds(&cpu)), (("nanoseconds".into(), 1), ("count".into(), 1)));
    for function in ["waits_at_times", "waits_over_windows", "waits_for_another"] {
        let (waited, taken) = (value_below(&waits.profile, function), by_clock(told, function));
        let busy = value_below(&cpu.profile, function) * 1_000_000_000 / HERTZ;
        // To go to sleep takes an emulated machine a while, on its CPU.
        let (waited, most) = if is_emulated() { (waited + busy, taken) } else { (waited, taken / 20) };
        is_near(function, waited, taken, 0);
        assert!(busy < most, "{function} has used {busy} of a CPU");
    }
    let burnt = by_clock(told, "burns");
    let period = 1_000_000_000 / HERTZ;
    let lost = cpu.profile.losses.skipped + cpu.profile.losses.table_full;
    is_near("burns", value_below(&cpu.profile, "burns") * period, burnt, (lost + 2) * period);
    let waited = value_below(&waits.profile, "burns");
    assert!(waited < burnt / 20, "burns waited {waited}: preempted threads do not wait");

    // The same resources, whatever is profiled.
    let requests: Vec<ExportProfilesServiceRequest> = messages(&folder.join("x.profiles.otlp"));
    let resources = requests.iter().flat_map(|request| &request.resource_profiles);
    let resources = resources.map(|of| format!("{:?}", of.resource.as_ref().unwrap().attributes));
    let mut resources: Vec<String> = resources.collect();
    assert!(resources.len() > 2 && resources[0].contains("process.pid"), "{resources:?}");
    resources.dedup();
    assert_eq!(resources.len(), 1, "{resources:?}");

    let of = |tracer| ("ebpf.tracer", tracer);
    let [of_cpu, off_cpu] = ["profile", "off_cpu"].map(|tracer| count("ebpf.profile.stacks", &[of(tracer)]));
    // On a busy machine it gets a part of a CPU.
    assert!(
        of_cpu * 2 > (burnt / period) as i64 && off_cpu > 300,
        "{of_cpu} and {off_cpu} stacks have ended"
    );
    let counted = count("ebpf.off_cpu.waits", &[("ebpf.off_cpu.wait", "counted")]);
    let hits = count("ebpf.agent.hits", &[of("off_cpu")]);
    assert!(counted > 300 && hits >= counted, "{counted} waits of {hits}");
    let drops = count("ebpf.agent.drops", &[of("off_cpu")]);
    assert!(drops <= 2, "{drops} lost");
    assert!(!said.contains("off_cpu: "), "{said}");
    true
}

#[test]
fn both_profiles_are_right_and_apart() {
    if !is_root() {
        return skip("the agent needs the right to trace").unwrap_or(());
    }
    until_names_are_in_time(both_profiles);
}

fn both_profiles(wait: Duration) -> bool {
    let folder = Folder::new("off-cpu");
    let mut helper = Helper::start("off_cpu_agent::helper", "both");
    let mut command = agent();
    command.args(["--only", "profile,off_cpu", "--interval", "2s", "--cpu-limit", "0"]);
    command.args(["--pid", &helper.pid().to_string(), "--set", &format!("tracer.profile.frequency={HERTZ}")]);
    command.arg("--output").arg(folder.0.join("x.otlp"));
    let mut agent = Agent::start(&mut command);
    agent.wait_said(" memory: ");
    helper.go();
    let told = helper.wait_ready();
    thread::sleep(wait);
    let said = agent.end();
    check(&folder.0, &told, &said)
}

/// What a reload starts has no more privileges than were kept.
#[test]
fn a_reload_switches_it_on() {
    if !is_root() {
        return skip("the agent needs the right to trace").unwrap_or(());
    }
    until_names_are_in_time(reload_switches_it_on);
}

fn reload_switches_it_on(wait: Duration) -> bool {
    let folder = Folder::new("off-cpu-reload");
    let mut helper = Helper::start("off_cpu_agent::helper", "both");
    let config = folder.0.join("agent.toml");
    let write = |enabled: bool| {
        let mut text =
            format!("[agent]\ninterval = \"2s\"\ncpu_limit = 0\n[filter]\npids = [{}]\n", helper.pid());
        for tracer in ["syscalls", "tcp", "udp", "dns", "memory", "sched", "disk", "process"] {
            text += &format!("[tracer.{tracer}]\nenabled = false\n");
        }
        text += &format!(
            "[tracer.profile]\nfrequency = {HERTZ}\n[tracer.off_cpu]\nenabled = {enabled}\nminimum = \"100us\"\n"
        );
        fs::write(&config, text).unwrap();
    };
    write(false);
    let mut command = agent();
    command.arg("--config").arg(&config).arg("--output").arg(folder.0.join("x.otlp"));
    let mut agent = Agent::start(&mut command);
    agent.wait_said("privileges: only CAP_");
    write(true);
    agent.signal(rustix::process::Signal::HUP);
    agent.wait_said("started off_cpu");
    helper.go();
    let told = helper.wait_ready();
    thread::sleep(wait);
    let said = agent.end();
    check(&folder.0, &told, &said)
}

/// Threads that wait all the time, of whose waits few are looked at: in the mean they say the same.
#[test]
fn thinned_waits_stand_for_all() {
    let mut helper = Helper::start("off_cpu_agent::helper", "often");
    let mut settings = Settings::default();
    settings.off_cpu.minimum = Duration::from_micros(1);
    let Some(started) = start(&off_cpu::INFO, helper.pid(), &settings, &[]) else { return };
    let mut tracer = started.unwrap();
    let mut recorder = Recorder::default();
    helper.go();
    let mut wait = |tracer: &mut dyn Tracer, time| {
        let end = Instant::now() + time;
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(50));
            tracer.drain(&mut recorder).unwrap();
        }
        tracer.collect(&mut recorder).unwrap();
        recorder.profiles.extend(tracer.settle(None).unwrap());
        let (mut nanos, mut of) = (0, 0);
        for profile in recorder.profiles.drain(..) {
            nanos += profile.samples.iter().map(|sample| sample.count).sum::<u64>();
            // Of eight threads.
            of += 8 * profile.duration_nanos;
        }
        let waits = recorder.numbers.iter().filter(|(series, _)| series.metric == "ebpf.off_cpu.waits");
        let waits: f64 = waits.map(|(_, count)| count).sum();
        recorder = Recorder::default();
        (nanos as f64 / of.max(1) as f64, waits)
    };
    let part = RUN / 4;
    // What is new is met.
    wait(&mut *tracer, part / 4);
    let (all, noted) = wait(&mut *tracer, part);
    assert_eq!(tracer.set_sampling(4).unwrap(), 4);
    let before = tracer.overhead().unwrap().hits;
    let (thinned, fewer) = wait(&mut *tracer, part);
    let hits = tracer.overhead().unwrap().hits - before;
    eprintln!("{all} of the time by {noted} waits, {thinned} by {fewer}");
    let tolerance = if is_emulated() { 0.4 } else { 0.25 };
    for (what, share) in [("all", all), ("one in 4", thinned)] {
        assert!((share - 1.0).abs() < tolerance, "{what}: {share}");
    }
    // Where the machine falls behind there are fewer waits, which are longer.
    let least = if is_emulated() { 0.02 } else { 0.1 };
    assert!(fewer < noted * 0.4 && fewer > noted * least, "{fewer} of {noted} waits");
    assert!(hits as f64 > 10.0 * fewer, "what it costs is known");
    pause(&mut *tracer);
    wait(&mut *tracer, Duration::ZERO);
    let (share, _) = wait(&mut *tracer, part / 4);
    assert!(share == 0.0 && !tracer.is_running(), "{share}");
    tracer.resume().unwrap();
    assert_eq!(tracer.set_sampling(1 << 30).unwrap(), 1024);
    assert_eq!(tracer.set_sampling(1).unwrap(), 1);
    let (again, _) = wait(&mut *tracer, part / 4);
    assert!(again > 0.0);
}
