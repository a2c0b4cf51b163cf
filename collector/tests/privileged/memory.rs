//! The memory tracer, against a workload whose page faults, mappings and end are known.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use collector::config::Filter;
use collector::error::Error;
use collector::telemetry::Recorder;
use collector::tracer::ladder::Forced;
use collector::tracer::memory::{FAULT_COUNTS, FAULT_PROFILE, FAULT_STACKS, INFO, MAPPINGS, OOM, STALLS};
use collector::tracer::{Settings, Start, Tracer};

use super::{kernel_has, skip, start};

/// The workload `memory` (tests/workloads): from the PATH, as in virtual machines, or compiled.
fn binary() -> PathBuf {
    let in_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|dir| dir.join("memory")).find(|file| file.is_file())
    });
    in_path.unwrap_or_else(|| {
        static COMPILED: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
        let compile = || {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/workloads/memory.c");
            let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("memory-workload");
            let done =
                Command::new("cc").args(["-O2", "-static", "-pthread", "-o"]).arg(&to).arg(source).status();
            assert!(done.is_ok_and(|status| status.success()), "the workload cannot be compiled");
            to
        };
        COMPILED.get_or_init(compile).clone()
    })
}

struct Workload {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Workload {
    fn start() -> Self {
        let mut child = Command::new(binary()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut workload = Self { child, to, from };
        assert_eq!(workload.answer(), "ready");
        // Whatever a first call brings into memory.
        workload.ask("touch 1");
        workload.ask("rusage");
        workload
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.to, "{command}").unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.answer()
    }

    /// Waits until threads that are joined are also gone, and their faults their process'.
    fn wait_for_threads(&self) {
        while fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().count() > 1 {
            std::thread::yield_now();
        }
    }

    /// Minor and major faults, by getrusage.
    fn rusage(&mut self) -> (u64, u64) {
        two_numbers(&self.ask("rusage"))
    }

    /// Minor and major faults, by /proc.
    fn stat(&self) -> (u64, u64) {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[7].parse().unwrap(), fields[9].parse().unwrap())
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn two_numbers(text: &str) -> (u64, u64) {
    let mut numbers = text.split(' ').map(|n| n.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Starts the tracer on this one rung of a ladder; `None` where the kernel may lack it and does.
fn start_rung(pid: u32, what: &'static str, rung: &'static str) -> Option<Box<dyn Tracer>> {
    let mut forced: Vec<(&str, &str)> = INFO.ladders.iter().map(|ladder| (ladder.what, "")).collect();
    forced.retain(|(other, _)| *other != what);
    forced.push((what, rung));
    let refused = match start(&INFO, pid, &Settings::default(), &forced)? {
        Ok(tracer) => return Some(tracer),
        Err(Error::NoRung { refused, .. }) => format!("{what} by {rung}: {}", refused[0].reason),
        Err(error) => panic!("{what} by {rung}: {error}"),
    };
    assert!(may_lack(rung), "{refused}");
    skip(&refused)
}

/// Kernels that have no trampolines or no kprobes are those that lock them away: the virtual machines' have both.
fn may_lack(rung: &str) -> bool {
    match rung {
        "fentry" => {
            fs::read_to_string("/sys/kernel/security/lockdown").is_ok_and(|text| !text.contains("[none]"))
                || !has_kprobes()
                || !kernel_has((5, 13))
        }
        "kprobe" => !has_kprobes(),
        "tracepoint" => !Path::new("/sys/kernel/tracing/events").exists(),
        _ => false,
    }
}

fn has_kprobes() -> bool {
    Path::new("/sys/bus/event_source/devices/kprobe").exists()
}

fn collect(tracer: &mut dyn Tracer) -> Recorder {
    let mut recorder = Recorder::default();
    tracer.collect(&mut recorder).unwrap();
    recorder
}

fn faults(recorder: &Recorder, pid: u32) -> (u64, u64) {
    let of =
        |kind| recorder.number("process.paging.faults", pid, &[("system.paging.fault.type", kind)]) as u64;
    (of("minor"), of("major"))
}

fn since(now: (u64, u64), before: (u64, u64)) -> (u64, u64) {
    (now.0 - before.0, now.1 - before.1)
}

fn nothing_lost(tracer: &mut dyn Tracer) {
    let stats = tracer.stats().unwrap();
    // Of the faults of other processes, perf events may lose some: those within other programs.
    let lost: Vec<_> =
        stats.dropped.iter().filter(|(why, n)| *n > 0 && *why != "skipped by the kernel").collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn page_faults_are_those_of_getrusage_and_proc() {
    for rung in FAULT_COUNTS.rungs {
        let mut workload = Workload::start();
        let pid = workload.pid();
        let Some(mut tracer) = start_rung(pid, FAULT_COUNTS.what, rung.name) else { continue };
        collect(&mut *tracer);
        let (before, usage_before) = (workload.stat(), workload.rusage());
        assert_eq!(before, usage_before);
        collect(&mut *tracer);
        workload.ask("touch 1000");
        workload.ask("threads 5 200");
        workload.wait_for_threads();
        let usage = since(workload.rusage(), usage_before);
        assert_eq!(usage, since(workload.stat(), before));
        let counted = faults(&collect(&mut *tracer), pid);
        assert_eq!(counted, usage, "{}", rung.name);
        assert!((2000..2200).contains(&usage.0), "{usage:?}");
        assert_eq!(faults(&collect(&mut *tracer), pid), (0, 0), "{}: nothing is counted twice", rung.name);

        // While it is paused, nothing counts; afterwards, as before.
        crate::pause(&mut *tracer);
        assert!(!tracer.is_running());
        workload.ask("touch 100");
        tracer.resume().unwrap();
        let before = workload.stat();
        workload.ask("touch 10");
        assert_eq!(faults(&collect(&mut *tracer), pid), since(workload.stat(), before), "{}", rung.name);

        // A filter that has another process only.
        let mut other = Workload::start();
        tracer.set_filter(&Filter { pids: vec![other.pid()], ..Filter::default() }).unwrap();
        collect(&mut *tracer);
        let before = other.stat();
        workload.ask("touch 100");
        other.ask("touch 50");
        let recorder = collect(&mut *tracer);
        assert_eq!(faults(&recorder, pid), (0, 0), "{}", rung.name);
        assert_eq!(faults(&recorder, other.pid()), since(other.stat(), before), "{}", rung.name);
        nothing_lost(&mut *tracer);
    }
}

#[test]
fn page_faults_are_filtered_by_cgroup_and_name() {
    let Some(group) = Cgroup::create("faults", 1 << 30) else { return };
    let name = binary().file_name().unwrap().to_string_lossy().chars().take(15).collect::<String>();
    let mut inside = Workload::start();
    let mut outside = Workload::start();
    group.set("cgroup.procs", u64::from(inside.pid()));
    let in_group = Filter { cgroup: Some(group.directory.clone()), ..Filter::default() };
    let by_name = Filter { comm: Some(name), ..Filter::default() };
    let by_other_name = Filter { comm: Some("no such name".into()), ..Filter::default() };
    for rung in FAULT_COUNTS.rungs {
        let Some(mut tracer) = start_rung(inside.pid(), FAULT_COUNTS.what, rung.name) else { continue };
        for (filter, takes) in
            [(&in_group, [true, false]), (&by_name, [true, true]), (&by_other_name, [false; 2])]
        {
            tracer.set_filter(filter).unwrap();
            collect(&mut *tracer);
            let before = (inside.stat(), outside.stat());
            inside.ask("touch 100");
            outside.ask("touch 100");
            let expected = [since(inside.stat(), before.0), since(outside.stat(), before.1)];
            let recorder = collect(&mut *tracer);
            for ((pid, counted), takes) in [inside.pid(), outside.pid()].into_iter().zip(expected).zip(takes)
            {
                let counted = if takes { counted } else { (0, 0) };
                assert_eq!(faults(&recorder, pid), counted, "{} {filter:?}", rung.name);
            }
        }
    }
    drop((inside, outside));
}

#[test]
fn page_faults_of_children_that_ended_are_those_of_wait4() {
    for rung in FAULT_COUNTS.rungs {
        let mut workload = Workload::start();
        let pid = workload.pid();
        let forced = [(FAULT_COUNTS.what.to_owned(), rung.name.to_owned())];
        let mut tracer = (INFO.start)(&Start {
            filter: &Filter { pids: vec![pid], children: true, ..Filter::default() },
            settings: &Settings::default(),
            memory: 8 << 20,
            forced: &Forced(BTreeMap::from(forced)),
            target: &RunningTarget::new(),
        })
        .unwrap();
        collect(&mut *tracer);
        let (minor, major) = two_numbers(&workload.ask("forks 20 300"));
        let recorder = collect(&mut *tracer);
        let mut counted = (0, 0);
        for series in
            recorder.numbers.keys().filter(|s| s.metric == "process.paging.faults" && s.pid != Some(pid))
        {
            let n = recorder.numbers[series] as u64;
            let minor = series.attributes.iter().any(|(_, kind)| kind == "minor");
            *(if minor { &mut counted.0 } else { &mut counted.1 }) += n;
        }
        assert_eq!(counted, (minor, major), "{}", rung.name);
        assert!(minor >= 20 * 300);
        nothing_lost(&mut *tracer);
    }
}

#[test]
fn major_faults_wait_for_a_disk() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("memory-file");
    if fs::create_dir_all(env!("CARGO_TARGET_TMPDIR")).is_err()
        || !Path::new(env!("CARGO_MANIFEST_DIR")).exists()
    {
        skip::<()>("major faults: this machine has no disk");
        return;
    }
    fs::write(&path, vec![7; 64 * 4096]).unwrap();
    for rung in FAULT_COUNTS.rungs {
        let mut workload = Workload::start();
        let Some(mut tracer) = start_rung(workload.pid(), FAULT_COUNTS.what, rung.name) else { continue };
        collect(&mut *tracer);
        let before = workload.stat();
        workload.ask(&format!("file {} 64", path.display()));
        let counted = faults(&collect(&mut *tracer), workload.pid());
        assert_eq!(counted, since(workload.stat(), before), "{}", rung.name);
        assert!(counted.1 > 0, "the page cache kept the file: {counted:?}");
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn bytes_mapped_are_those_asked_for() {
    let page = rustix::param::page_size() as i64;
    for rung in MAPPINGS.rungs {
        let mut workload = Workload::start();
        let pid = workload.pid();
        let Some(mut tracer) = start_rung(pid, MAPPINGS.what, rung.name) else { continue };
        collect(&mut *tracer);
        workload.ask("map 1000001");
        workload.ask("brk 300001");
        workload.ask("brk 0");
        workload.ask("brk -100001");
        workload.ask("unmap");
        workload.ask("map 4096");
        let recorder = collect(&mut *tracer);
        let of = |kind| recorder.number("ebpf.memory.mapped", pid, &[("ebpf.memory.operation", kind)]) as i64;
        let whole = |bytes: i64| (bytes + page - 1) / page * page;
        assert_eq!(of("mmap"), whole(1_000_001) + whole(4096), "{}", rung.name);
        assert_eq!(of("munmap"), whole(1_000_001), "{}", rung.name);
        // The heap may end anywhere in a page.
        let (grown, shrunk) = (of("brk"), of("brk_shrink"));
        assert!((grown - 300_001).abs() < page && grown % page == 0, "{}: {grown}", rung.name);
        assert!((shrunk - 100_001).abs() < page && shrunk % page == 0, "{}: {shrunk}", rung.name);
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
        let pages: Vec<f64> = statm.split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!(recorder.number("process.memory.virtual", pid, &[]), pages[0] * page as f64);
        assert_eq!(recorder.number("process.memory.usage", pid, &[]), pages[1] * page as f64);
        nothing_lost(&mut *tracer);
    }
}

#[test]
fn system_calls_are_left_alone_unless_asked_for() {
    let workload = Workload::start();
    let Some(started) = start(&INFO, workload.pid(), &Settings::default(), &[]) else { return };
    let tracer = started.unwrap();
    let mappings = tracer.rungs().iter().find(|chosen| chosen.what == MAPPINGS.what).unwrap();
    assert_ne!(mappings.rung, Some("syscalls"));
}

/// A memory cgroup of its own, of version 1 or 2. Removed when dropped.
struct Cgroup {
    directory: PathBuf,
    v2: bool,
}

impl Cgroup {
    fn create(name: &str, limit: u64) -> Option<Self> {
        let name = format!("ebpf-otlp-test-{name}-{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let v2 = !v1.join("memory.limit_in_bytes").exists();
        let root = if v2 { Path::new("/sys/fs/cgroup") } else { v1 };
        if v2 {
            let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
            if !controllers.contains("memory") {
                return skip("cgroups have no memory controller here");
            }
            fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
        }
        let group = Self { directory: root.join(name), v2 };
        fs::create_dir(&group.directory).unwrap();
        if v2 {
            group.set("memory.max", limit);
            let _ = fs::write(group.directory.join("memory.swap.max"), "0");
        } else {
            group.set("memory.limit_in_bytes", limit);
            let _ = fs::write(group.directory.join("memory.memsw.limit_in_bytes"), limit.to_string());
        }
        Some(group)
    }

    fn set(&self, file: &str, value: u64) {
        fs::write(self.directory.join(file), value.to_string()).unwrap();
    }

    /// Kills that the kernel itself counts.
    fn kills(&self) -> u64 {
        self.count(if self.v2 { "memory.events" } else { "memory.oom_control" }, "oom_kill ")
    }

    fn count(&self, file: &str, line: &str) -> u64 {
        let text = fs::read_to_string(self.directory.join(file)).unwrap();
        text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.directory).is_err() && Instant::now() < until {
            sleep(Duration::from_millis(20));
        }
    }
}

/// Lets a workload run into its cgroup's limit.
fn starve(workload: &mut Workload, group: &Cgroup, tracer: &mut dyn Tracer, recorder: &mut Recorder) {
    group.set("cgroup.procs", u64::from(workload.pid()));
    fs::write(format!("/proc/{}/oom_score_adj", workload.pid()), "77").unwrap();
    workload.tell("hog");
    let until = Instant::now() + Duration::from_secs(60);
    while group.kills() == 0 && Instant::now() < until {
        sleep(Duration::from_millis(1));
    }
    tracer.drain(recorder).unwrap();
    let status = workload.child.wait().unwrap();
    assert_eq!(status.signal(), Some(9));
    tracer.collect(recorder).unwrap();
}

#[test]
fn a_kill_for_want_of_memory_names_the_victim() {
    for rung in OOM.rungs {
        let limit = 16 << 20;
        let Some(group) = Cgroup::create("oom", limit) else { return };
        let mut workload = Workload::start();
        let pid = workload.pid();
        let Some(mut tracer) = start_rung(pid, OOM.what, rung.name) else { continue };
        let mut recorder = Recorder::default();
        starve(&mut workload, &group, &mut *tracer, &mut recorder);
        assert_eq!(group.kills(), 1);
        assert_eq!(recorder.number("ebpf.oom.kills", pid, &[]), 1.0, "{}", rung.name);
        assert_eq!(recorder.logs.len(), 1, "{}", rung.name);
        let kill = &recorder.logs[0];
        assert_eq!((kill.name, kill.pid), ("ebpf.oom.kill", Some(pid)));
        assert_eq!(kill.attribute("process.pid"), Some(pid.to_string().as_str()));
        let stats = tracer.stats().unwrap();
        assert_eq!((stats.produced, stats.received), (1, 1), "{}", rung.name);
        if rung.name == "raw_tp" && kill.attribute("ebpf.oom.score_adj").is_none() {
            assert!(!kernel_has((6, 8)), "the kernel gives the task to the tracepoint");
            skip::<()>("details of the victim by raw_tp: the kernel gives its number alone");
            continue;
        }
        let name = binary().file_name().unwrap().to_string_lossy()[..].chars().take(15).collect::<String>();
        assert_eq!(kill.attribute("process.executable.name"), Some(name.as_str()));
        assert_eq!(kill.attribute("ebpf.oom.score_adj"), Some("77"));
        let bytes = |key| kill.attribute(key).unwrap().parse::<u64>().unwrap();
        let anonymous = bytes("ebpf.oom.anon_rss");
        assert!((limit / 2..=limit).contains(&anonymous), "{}: {anonymous}", rung.name);
        assert!(bytes("ebpf.oom.total_vm") > limit, "{}", rung.name);
    }
}

#[test]
fn stalls_at_a_cgroups_limit_are_timed() {
    for rung in STALLS.rungs {
        let Some(group) = Cgroup::create("reclaim", 16 << 20) else { return };
        let mut workload = Workload::start();
        let pid = workload.pid();
        let Some(mut tracer) = start_rung(pid, STALLS.what, rung.name) else { continue };
        let mut recorder = Recorder::default();
        let began = Instant::now();
        starve(&mut workload, &group, &mut *tracer, &mut recorder);
        let stalls = recorder.histogram(
            "ebpf.memory.reclaim.duration",
            pid,
            &[("ebpf.memory.reclaim.scope", "cgroup")],
        );
        assert!(stalls.count() > 0, "{}", rung.name);
        if group.v2 {
            // The kernel counts each time that it reclaims because of the limit.
            assert_eq!(stalls.count(), group.count("memory.events", "max "), "{}", rung.name);
        }
        assert!(stalls.sum_nanos > 0 && u128::from(stalls.sum_nanos) < began.elapsed().as_nanos());
        nothing_lost(&mut *tracer);
    }
}

#[test]
fn stacks_of_page_faults_add_up() {
    let mut workload = Workload::start();
    let settings = Settings {
        memory: collector::tracer::memory::Settings { fault_stacks: 1, ..Default::default() },
        ..Settings::default()
    };
    let forced: Vec<(&str, &str)> = vec![(FAULT_COUNTS.what, "accounting")];
    let Some(started) = start(&INFO, workload.pid(), &settings, &forced) else { return };
    let mut tracer = started.unwrap();
    let stacks = tracer.rungs().iter().find(|chosen| chosen.what == FAULT_STACKS.what).unwrap();
    assert_eq!(stacks.rung, Some("perf"), "{:?}", stacks.refused);
    collect(&mut *tracer);
    let before = workload.stat();
    workload.ask("touch 2000");
    let counted = since(workload.stat(), before);
    let recorder = collect(&mut *tracer);
    assert_eq!(faults(&recorder, workload.pid()), counted);
    let profile = &recorder.profiles[0];
    assert_eq!((profile.sample_type, profile.period_nanos), (FAULT_PROFILE.sample_type, 1));
    let total: u64 = profile.samples.iter().map(|sample| sample.count).sum();
    let lost =
        dropped(&mut *tracer, "table of stacks full") + dropped(&mut *tracer, "stacks skipped by the kernel");
    assert!(
        total <= counted.0 + counted.1 && total + lost >= counted.0 + counted.1,
        "{total} and {lost} of {counted:?}"
    );
    let function =
        |frame: &collector::model::Frame| frame.lines.iter().any(|line| &*line.function == "touch");
    let of_touch = profile.samples.iter().filter(|sample| {
        let stack = &profile.stacks[sample.stack.0 as usize];
        stack.iter().any(|frame| function(&profile.frames[frame.0 as usize]))
    });
    let of_touch: u64 = of_touch.map(|sample| sample.count).sum();
    assert!(of_touch >= 2000, "{of_touch} of {total}");
}

fn dropped(tracer: &mut dyn Tracer, why: &str) -> u64 {
    let stats = tracer.stats().unwrap();
    stats.dropped.iter().filter(|(cause, _)| *cause == why).map(|(_, n)| n).sum()
}
