//! The memory tracer, against a workload whose page faults, mappings and end are known.

mod bounds;
mod faults;
mod kills;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use collector::config::Filter;
use collector::error::Error;
use collector::sorted::SortedMap;
use collector::telemetry::Recorder;
use collector::tracer::ladder::Forced;
use collector::tracer::memory::{INFO, MAPPINGS};
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
        Self::start_program(&binary())
    }

    fn start_program(program: &Path) -> Self {
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
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
    let refused = match start(&INFO, pid, &Settings::default(), &forced)?.map_err(|e| *e) {
        Ok(tracer) => return Some(tracer),
        Err(Error::NoRung { refused, .. }) => format!("{what} by {rung}: {}", refused[0].reason),
        Err(error) => panic!("{what} by {rung}: {error}"),
    };
    assert!(may_lack(rung), "{refused}");
    skip(&refused)
}

/// Starts the tracer with any filter and memory, on these rungs and no other.
fn start_filtered(
    filter: Filter,
    memory: usize,
    rungs: &[(&'static str, &'static str)],
) -> Result<Box<dyn Tracer>, Box<Error>> {
    let mut forced: SortedMap<String, String> =
        INFO.ladders.iter().map(|ladder| (ladder.what.to_owned(), String::new())).collect();
    forced.extend(rungs.iter().map(|(what, rung)| ((*what).to_owned(), (*rung).to_owned())));
    (INFO.start)(&Start {
        filter: &filter,
        settings: &Settings::default(),
        memory,
        forced: &Forced(forced),
        target: &RunningTarget::new(),
    })
}

/// Kernels that have no trampolines or no kprobes are those that lock them away: the virtual machines' have both.
fn may_lack(rung: &str) -> bool {
    match rung {
        "fentry" => crate::is_locked_down() || !has_kprobes() || !kernel_has((5, 13)),
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
    recorder.profiles.extend(tracer.settle(None).unwrap());
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
fn bytes_mapped_are_those_asked_for() {
    let page = bpf_sys::page_size() as i64;
    for rung in MAPPINGS.rungs {
        let mut workload = Workload::start();
        let pid = workload.pid();
        let Some(mut tracer) = start_rung(pid, MAPPINGS.what, rung.name) else { continue };
        collect(&mut *tracer);
        workload.ask("map 1000001");
        let heap = [300_001, 0, -100_001].map(|bytes| two_numbers(&workload.ask(&format!("brk {bytes}"))));
        workload.ask("unmap");
        workload.ask("map 4096");
        let recorder = collect(&mut *tracer);
        let of = |kind| recorder.number("ebpf.memory.mapped", pid, &[("ebpf.memory.operation", kind)]) as i64;
        let whole = |bytes: i64| (bytes + page - 1) / page * page;
        assert_eq!(of("mmap"), whole(1_000_001) + whole(4096), "{}", rung.name);
        assert_eq!(of("munmap"), whole(1_000_001), "{}", rung.name);
        // Pages that the heap reaches into.
        let moved = heap.map(|(before, after)| whole(after as i64) - whole(before as i64));
        assert_eq!((of("brk"), of("brk_shrink")), (moved[0], -moved[2]), "{}", rung.name);
        assert!(moved[0] > 0 && moved[1] == 0 && moved[2] < 0, "{moved:?}");
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

fn dropped(tracer: &mut dyn Tracer, why: &str) -> u64 {
    let stats = tracer.stats().unwrap();
    stats.dropped.iter().filter(|(cause, _)| *cause == why).map(|(_, n)| n).sum()
}
