//! The heap tracer, against a program that knows what it allocated: `tests/workloads/leak.c`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use collector::config::Filter;
use collector::model::Profile;
use collector::telemetry::Recorder;
use collector::tracer::heap::{INFO, INUSE_OBJECTS, INUSE_SPACE, Settings as HeapSettings};
use collector::tracer::{Settings, Tracer};
use mio::unix::SourceFd;

use crate::helper::{self, Helper};
use crate::{kernel_has, skip, start};

/// Bytes and allocations by function, as the program or the tracer has them.
pub type Held = BTreeMap<String, (u64, u64)>;

const RUNGS: [(&str, (u8, u8)); 2] = [("session", (6, 13)), ("uprobe", (5, 8))];

/// The program, which waits for commands.
pub struct Leak {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    calls: u64,
    pub held: Held,
}

impl Leak {
    pub fn start(program: &Path, preload: Option<&str>) -> Self {
        let mut command = Command::new(program);
        if let Some(library) = preload {
            command.env("LD_PRELOAD", library);
        }
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = piped.spawn().unwrap();
        let (commands, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut leak = Self { child, commands, answers, calls: 0, held: Held::new() };
        leak.listen();
        leak
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn listen(&mut self) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
        self.calls = answer["calls"].as_u64().unwrap();
        let held = answer.as_object().unwrap().iter().filter_map(|(name, value)| {
            let value = value.as_array()?;
            let (bytes, count) = (value[0].as_u64()?, value[1].as_u64()?);
            Some((name.clone(), (bytes, count)))
        });
        self.held = held.filter(|(_, (_, count))| *count > 0).collect();
    }

    pub fn run(&mut self, commands: &str) {
        for command in commands.bytes() {
            self.commands.as_mut().unwrap().write_all(&[command]).unwrap();
            self.listen();
        }
    }
}

impl Drop for Leak {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.child.wait();
    }
}

/// The static program of virtual machines; here, it is compiled. A folder of the test's own goes with it.
pub struct Programs(Option<PathBuf>);

impl Drop for Programs {
    fn drop(&mut self) {
        if let Some(folder) = &self.0 {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

impl Programs {
    pub fn new(test: &str) -> Self {
        if Path::new("/bin/leak").exists() {
            // In a virtual machine, where it lies without frame pointers, too.
            return Self(None);
        }
        let folder = std::env::temp_dir().join(format!("heap-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(Some(folder))
    }

    /// The program as `compiler` makes it; `None`, with the reason printed, if that is not here.
    pub fn compile(&self, compiler: &str, options: &[&str]) -> Option<PathBuf> {
        let Some(folder) = &self.0 else {
            let without = options.contains(&"-fomit-frame-pointer");
            return Some(if without { "/bin/leak-without" } else { "/bin/leak" }.into());
        };
        let program = folder.join(format!("{compiler}{}", options.join("")));
        compile(compiler, "leak.c", options, &program)
    }

    pub fn usual(&self) -> Option<PathBuf> {
        self.compile("gcc", &[])
    }

    /// A program that allocates in code which it loads: `late` by the C library, `allocator` by what it loads.
    pub fn loading(&self, name: &str) -> Option<PathBuf> {
        let Some(folder) = &self.0 else { return skip("there is no compiler") };
        let (program, library) = (folder.join(name), folder.join(format!("{name}.so")));
        let (source, without) = (format!("{name}.c"), "-fomit-frame-pointer");
        compile("gcc", &source, &[without, "-shared", "-fPIC", "-Wl,-Bsymbolic", "-DLATE"], &library)?;
        compile("gcc", &source, &[without], &program)
    }
}

/// Compiles one of the workloads. `None`, with the reason printed, if there is no such compiler.
fn compile(compiler: &str, source: &str, options: &[&str], program: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/workloads").join(source);
    let usual = ["-O2", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread"];
    let compiled =
        Command::new(compiler).args(usual).args(options).arg(source).arg("-o").arg(program).status();
    match compiled {
        Ok(status) => {
            assert!(status.success(), "{compiler} {options:?}");
            Some(program.to_owned())
        }
        Err(error) => skip(&format!("{compiler}: {error}")),
    }
}

pub fn settings(sample_bytes: u32) -> Settings {
    Settings { heap: HeapSettings { sample_bytes }, ..Settings::default() }
}

/// A tracer of a process on each rung that this kernel has.
pub fn on_every_rung(mut each: impl FnMut(&str, &mut dyn FnMut(u32, u32) -> Box<dyn Tracer>)) {
    for (rung, since) in RUNGS {
        if !kernel_has(since) {
            let _: Option<()> = skip(&format!("rung {rung}: before Linux {}.{}", since.0, since.1));
            continue;
        }
        let mut begin = |pid: u32, sample_bytes: u32| {
            let started = start(&INFO, pid, &settings(sample_bytes), &[("allocations", rung)]);
            let tracer = started.expect("this test runs as root").unwrap();
            assert_eq!(tracer.rungs()[0].rung, Some(rung));
            tracer
        };
        each(rung, &mut begin);
    }
}

pub fn of_type<'r>(recorder: &'r Recorder, value: &str) -> Option<&'r Profile> {
    recorder.profiles.iter().rev().find(|profile| profile.sample_type.value.0 == value)
}

/// Values by the caller of the allocator, and by that one's caller where it is called `common`.
fn by_caller(profile: Option<&Profile>) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let Some(profile) = profile else { return found };
    for sample in &profile.samples {
        let frames = &profile.stacks[sample.stack.0 as usize];
        let name = |at: usize| -> String {
            let frame = frames.get(at).map(|frame| &profile.frames[frame.0 as usize]);
            let line = frame.and_then(|frame| frame.lines.last());
            line.map_or_else(|| "?".to_owned(), |line| line.function.to_string())
        };
        let caller = if name(1) == "common" { name(2) } else { name(1) };
        *found.entry(caller).or_insert(0) += sample.count;
    }
    found
}

/// What the tracer says now.
pub fn look(tracer: &mut dyn Tracer) -> (Recorder, Held) {
    let mut recorder = Recorder::default();
    tracer.collect(&mut recorder).unwrap();
    recorder.profiles.extend(tracer.settle(None).unwrap());
    let bytes = by_caller(of_type(&recorder, INUSE_SPACE.sample_type.value.0));
    let counts = by_caller(of_type(&recorder, INUSE_OBJECTS.sample_type.value.0));
    let held =
        counts.iter().map(|(name, &count)| (name.clone(), (bytes.get(name).copied().unwrap_or(0), count)));
    let held = held.collect();
    (recorder, held)
}

/// What functions of the program hold; what the C library holds for itself is not the program's to know.
fn own(held: &Held) -> Held {
    let is_own = |name: &str| name.starts_with("keep_") || name.starts_with("by_");
    held.iter().filter(|(name, _)| is_own(name)).map(|(name, value)| (name.clone(), *value)).collect()
}

fn check_exact(program: &Path, preload: Option<&str>) {
    on_every_rung(|rung, begin| {
        let what = format!("{} {preload:?} {rung}", program.display());
        let mut leak = Leak::start(program, preload);
        let mut tracer = begin(leak.pid(), 0);
        leak.run("b");
        let (recorder, held) = look(&mut *tracer);
        assert_eq!(held, leak.held, "{what}");
        let bytes: u64 = leak.held.values().map(|held| held.0).sum();
        assert_eq!(recorder.number("ebpf.heap.outstanding", leak.pid(), &[]), bytes as f64, "{what}");
        assert_eq!(recorder.number("ebpf.heap.allocations", leak.pid(), &[]), leak.calls as f64, "{what}");

        // A child that frees what it inherits; threads that free what others allocated.
        leak.run("ct");
        let (_, held) = look(&mut *tracer);
        assert_eq!(own(&held), leak.held, "{what}");

        let before = leak.calls;
        leak.run("mf");
        let (recorder, held) = look(&mut *tracer);
        assert_eq!(own(&held), leak.held, "{what}");
        let calls = recorder.number("ebpf.heap.allocations", leak.pid(), &[]);
        assert_eq!(calls, (leak.calls - before) as f64, "{what}");
        let stats = tracer.stats().unwrap();
        assert_eq!(stats.total_dropped(), 0, "{what}: {:?}", stats.dropped);
    });
}

#[test]
fn what_is_held_is_known_by_function() {
    let programs = Programs::new("exact");
    if let Some(program) = programs.usual() {
        check_exact(&program, None);
    }
}

#[test]
fn static_programs_are_read_too() {
    let programs = Programs::new("static");
    if let Some(program) = programs.compile("gcc", &["-static"]) {
        check_exact(&program, None);
    }
}

#[test]
fn musl_is_read_too() {
    let programs = Programs::new("musl");
    for options in [&["-static"][..], &[]] {
        if let Some(program) = programs.compile("musl-gcc", options) {
            check_exact(&program, None);
        }
    }
}

#[test]
fn other_allocators_are_read_too() {
    let programs = Programs::new("preload");
    let Some(program) = programs.usual() else { return };
    let folder = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    for library in ["libjemalloc.so.2", "libmimalloc.so.2", "libtcmalloc_minimal.so.4"] {
        let path = format!("{folder}/{library}");
        if Path::new(&path).exists() && programs.0.is_some() {
            check_exact(&program, Some(&path));
        } else {
            let _: Option<()> = skip(&format!("{library}: it is not installed"));
        }
    }
}

#[test]
fn allocators_that_are_loaded_later_are_read_too() {
    let programs = Programs::new("allocator");
    let Some(program) = programs.loading("allocator") else { return };
    on_every_rung(|rung, begin| {
        let mut leak = Leak::start(&program, None);
        let mut tracer = begin(leak.pid(), 0);
        leak.run("l");
        look(&mut *tracer);
        let pid = leak.pid();
        let outstanding = |recorder: &Recorder| recorder.number("ebpf.heap.outstanding", pid, &[]);
        let before = outstanding(&look(&mut *tracer).0);
        leak.run("b");
        let (recorder, held) = look(&mut *tracer);
        assert_eq!(own(&held), leak.held, "{rung}");
        assert_eq!(outstanding(&recorder) - before, leak.held["keep_own"].0 as f64, "{rung}");
        assert_eq!(recorder.number("ebpf.heap.allocations", leak.pid(), &[]), leak.calls as f64, "{rung}");
        let stats = tracer.stats().unwrap();
        assert_eq!(stats.total_dropped(), 0, "{rung}: {:?}", stats.dropped);
    });
}

#[test]
fn samples_stand_for_what_was_not_seen() {
    let programs = Programs::new("sampled");
    let Some(program) = programs.usual() else { return };
    on_every_rung(|rung, begin| {
        let mut leak = Leak::start(&program, None);
        let mut tracer = begin(leak.pid(), 8 << 10);
        leak.run("s");
        let (recorder, held) = look(&mut *tracer);
        for (name, &(bytes, count)) in &leak.held {
            let (seen_bytes, seen_count) = held.get(name).copied().unwrap_or_default();
            let size = bytes / count;
            // Of n allocations, each taken with likelihood p, the estimate is off by sqrt(n (1 - p) / p) of them in the mean;
            // five times that happens once in a million times.
            let likelihood = (size as f64 / f64::from(8 << 10)).min(1.0);
            let bound = 5.0 * (count as f64 * (1.0 - likelihood) / likelihood).sqrt() + 1.0;
            let off = |seen: u64, size: u64| (seen as f64 - (count * size) as f64).abs() / size as f64;
            assert!(off(seen_count, 1) <= bound, "{rung} {name}: {seen_count} of {count}, bound {bound}");
            assert!(off(seen_bytes, size) <= bound, "{rung} {name}: {seen_bytes} of {bytes}, bound {bound}");
        }
        // How many there were is counted all the same.
        assert_eq!(recorder.number("ebpf.heap.allocations", leak.pid(), &[]), leak.calls as f64);
        leak.run("f");
        let (recorder, _) = look(&mut *tracer);
        assert_eq!(recorder.number("ebpf.heap.outstanding", leak.pid(), &[]), 0.0, "{rung}");

        // All are taken again.
        tracer.set_sampling(1).unwrap();
        leak.run("b");
        tracer.set_sampling(1000).unwrap();
        leak.run("f");
        let (recorder, _) = look(&mut *tracer);
        assert_eq!(recorder.number("ebpf.heap.outstanding", leak.pid(), &[]), 0.0, "{rung}");
    });
}

#[test]
fn what_finds_no_room_is_counted() {
    let programs = Programs::new("overflow");
    let Some(program) = programs.usual() else { return };
    on_every_rung(|rung, begin| {
        let mut leak = Leak::start(&program, None);
        let mut tracer = begin(leak.pid(), 0);
        leak.run("s");
        let (recorder, held) = look(&mut *tracer);
        let stats = tracer.stats().unwrap();
        let dropped = |cause: &str| stats.dropped.iter().find(|(name, _)| *name == cause).unwrap().1;
        let seen: u64 = own(&held).values().map(|held| held.1).sum();
        let all: u64 = leak.held.values().map(|held| held.1).sum();
        assert!(dropped("table full") > 0, "{rung}: {stats:?}");
        assert_eq!(seen + dropped("table full"), all, "{rung}");
        let (_, used, capacity) = stats.map_fill[0];
        assert!(used <= capacity && used >= seen, "{rung}: {stats:?}");
        assert_eq!(recorder.number("ebpf.heap.allocations", leak.pid(), &[]), leak.calls as f64, "{rung}");
        // What is freed makes room again.
        leak.run("fb");
        let (_, held) = look(&mut *tracer);
        assert_eq!(own(&held), leak.held, "{rung}");
    });
}

/// Of more processes than the thread that names them has room for at once.
#[test]
fn profiles_of_all_processes_come_when_they_have_names() {
    let programs = Programs::new("several");
    let Some(program) = programs.usual() else { return };
    on_every_rung(|rung, begin| {
        let mut leaks: Vec<Leak> = (0..5).map(|_| Leak::start(&program, None)).collect();
        let pids: Vec<u32> = leaks.iter().map(Leak::pid).collect();
        let mut tracer = begin(pids[0], 0);
        tracer.set_filter(&Filter { pids: pids.clone(), ..Filter::default() }).unwrap();
        leaks.iter_mut().for_each(|leak| leak.run("b"));
        let held: Vec<Held> = leaks.iter().map(|leak| leak.held.clone()).collect();
        // What one has left when it ends is told, too.
        drop(leaks.pop());

        let mut events = mio::Poll::new().unwrap();
        let descriptor = tracer.event_loop().unwrap();
        let (token, interest) = (mio::Token(0), mio::Interest::READABLE);
        events.registry().register(&mut SourceFd(&descriptor), token, interest).unwrap();
        let mut recorder = Recorder::default();
        tracer.collect(&mut recorder).unwrap();
        let (mut ready, end) = (mio::Events::with_capacity(8), Instant::now() + Duration::from_secs(60));
        while recorder.profiles.len() < 3 * pids.len() {
            let left = end.saturating_duration_since(Instant::now());
            events.poll(&mut ready, Some(left)).unwrap();
            assert!(!ready.is_empty(), "{rung}: {} profiles", recorder.profiles.len());
            tracer.drain(&mut recorder).unwrap();
        }
        assert_eq!(tracer.settle(None).unwrap(), [], "{rung}: each comes once");
        for (pid, held) in pids.iter().zip(held) {
            let of = |value: &str| {
                let is_it = |p: &&Profile| p.processes[0].pid == *pid && p.sample_type.value.0 == value;
                by_caller(recorder.profiles.iter().find(is_it))
            };
            let [bytes, counts] =
                [&INUSE_SPACE, &INUSE_OBJECTS].map(|of_this| of(of_this.sample_type.value.0));
            let found: Held =
                counts.iter().map(|(name, &count)| (name.clone(), (bytes[name], count))).collect();
            assert_eq!(found, held, "{rung}");
        }
        let stats = tracer.stats().unwrap();
        assert_eq!(stats.total_dropped(), 0, "{rung}: {:?}", stats.dropped);
    });
}

#[test]
fn exec_and_exit_are_noticed() {
    let programs = Programs::new("exec");
    let Some(program) = programs.usual() else { return };
    let _times = bpf_sys::prog::enable_stats(bpf_sys::uapi::kinds::StatsType::RUN_TIME).unwrap();
    on_every_rung(|rung, begin| {
        let mut leak = Leak::start(&program, None);
        let mut tracer = begin(leak.pid(), 0);
        leak.run("b");
        leak.run("x");
        let (_, held) = look(&mut *tracer);
        assert_eq!(held, Held::new(), "{rung}: nothing is left of the program before");
        leak.run("b");
        let (_, held) = look(&mut *tracer);
        assert_eq!(held, leak.held, "{rung}");

        // Nothing is seen while it is paused, and nothing is known of what there was.
        crate::pause(&mut *tracer);
        assert!(!tracer.is_running());
        leak.run("f");
        tracer.resume().unwrap();
        assert!(tracer.is_running());
        leak.run("b");
        let (_, held) = look(&mut *tracer);
        assert_eq!(held, leak.held, "{rung}");

        let (pid, at_end) = (leak.pid(), leak.held.clone());
        let before = tracer.overhead().unwrap();
        assert!(before.hits > 0 && !before.program_time.is_zero(), "{rung}");
        drop(leak);
        let (recorder, held) = look(&mut *tracer);
        assert_eq!(held, at_end, "{rung}: what was never freed");
        assert_eq!(recorder.number("ebpf.heap.outstanding", pid, &[]), 0.0, "{rung}");
        let (recorder, _) = look(&mut *tracer);
        assert!(recorder.numbers.is_empty() && recorder.profiles.is_empty(), "{rung}");
        let after = tracer.overhead().unwrap();
        assert!(after.hits >= before.hits && after.program_time >= before.program_time, "{rung}: {after:?}");
    });
}

#[test]
#[ignore = "for another test"]
fn helper_that_runs_out_of_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Some(program) = helper::task() else { return };
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    on_every_rung(|rung, begin| {
        let mut leak = Leak::start(Path::new(&program), None);
        let mut tracer = begin(leak.pid(), 0);
        leak.run("b");
        tracer.pause().unwrap();
        let (hits, before) = (tracer.stats().unwrap().hits, descriptors());
        // Once with too few for the maps, and once with too few for the probes.
        let all = getrlimit(Resource::Nofile);
        for more in [2, 12] {
            let few = Rlimit { current: Some(before as u64 + more), maximum: all.maximum };
            setrlimit(Resource::Nofile, few).unwrap();
            let refused = tracer.resume().unwrap_err().to_string();
            setrlimit(Resource::Nofile, all).unwrap();
            assert!(!tracer.is_running(), "{rung}: {refused}");
            assert_eq!(descriptors(), before, "{rung}: {refused}");
            assert_eq!(tracer.stats().unwrap().hits, hits, "{rung}: {refused}");
        }
        leak.run("f");
        tracer.resume().unwrap();
        leak.run("b");
        let (_, held) = look(&mut *tracer);
        assert_eq!(held, leak.held, "{rung}");
        assert_eq!(tracer.stats().unwrap().hits, 2 * hits, "{rung}");
    });
    println!("READY");
}

#[test]
fn what_refuses_to_be_resumed_counts_nothing_twice() {
    let programs = Programs::new("refused");
    let Some(program) = programs.usual() else { return };
    let test = "heap::helper_that_runs_out_of_descriptors";
    let mut helper = Helper::start(test, program.to_str().unwrap());
    helper.go();
    helper.wait_ready();
}

/// Starts a process that has a number which another had.
pub fn start_as(pid: u32, program: &Path) -> Leak {
    for _ in 0..200 {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let leak = Leak::start(program, None);
        if leak.pid() == pid {
            return leak;
        }
    }
    panic!("others always take number {pid}");
}

#[test]
fn a_process_that_takes_over_a_number_is_left_alone() {
    if !Path::new("/proc/sys/kernel/ns_last_pid").exists() {
        let _: Option<()> = skip("numbers of processes cannot be chosen");
        return;
    }
    let programs = Programs::new("number");
    let Some(program) = programs.usual() else { return };
    let has_probes =
        |pid| std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().contains("[uprobes]");
    on_every_rung(|rung, begin| {
        for paused in [false, true] {
            let mut first = Leak::start(&program, None);
            let pid = first.pid();
            let mut tracer = begin(pid, 0);
            first.run("b");
            let at_end = first.held.clone();
            assert!(has_probes(pid), "{rung}");
            if paused {
                crate::pause(&mut *tracer);
            }
            drop(first);
            // Starts are told apart by clock ticks.
            std::thread::sleep(std::time::Duration::from_millis(30));
            let mut second = start_as(pid, &program);
            if paused {
                tracer.resume().unwrap();
            } else {
                let (recorder, held) = look(&mut *tracer);
                assert_eq!(held, at_end, "{rung}: what the first never freed");
                assert_eq!(recorder.number("ebpf.heap.outstanding", pid, &[]), 0.0, "{rung}");
            }
            let hits = tracer.stats().unwrap().hits;
            second.run("b");
            let (recorder, _) = look(&mut *tracer);
            assert!(recorder.numbers.is_empty() && recorder.profiles.is_empty(), "{rung}: {recorder:?}");
            assert!(!has_probes(pid), "{rung}");
            assert_eq!(tracer.stats().unwrap().hits, hits, "{rung}");
        }
    });
}

/// A process with probes makes a system call wherever a probed function returns, and knows nothing of it.
#[test]
#[cfg(target_arch = "x86_64")]
fn system_calls_of_probes_have_their_names() {
    use collector::tracer::syscalls;

    let programs = Programs::new("calls");
    let Some(program) = programs.usual() else { return };
    on_every_rung(|rung, begin| {
        let mut leak = Leak::start(&program, None);
        let _tracer = begin(leak.pid(), 0);
        let started = start(&syscalls::INFO, leak.pid(), &Settings::default(), &[]);
        let mut calls = started.expect("this test runs as root").unwrap();
        leak.run("b");
        let mut recorder = Recorder::default();
        calls.collect(&mut recorder).unwrap();
        let count = |name| recorder.number("ebpf.syscall.calls", leak.pid(), &[("ebpf.syscall.name", name)]);
        assert!(count("read") > 0.0 && count("invalid") == 0.0, "{rung}: {recorder:?}");
        // Such calls there are since 6.11.
        let returns = if kernel_has((6, 11)) { leak.calls as f64 } else { 0.0 };
        assert!(count("uretprobe") >= returns, "{rung}: {} of {returns}", count("uretprobe"));
    });
}

#[test]
fn only_processes_that_are_named_are_traced() {
    use collector::tracer::Start;
    use collector::tracer::ladder::Forced;

    let start = |filter: Filter| {
        let started = (INFO.start)(&Start {
            filter: &filter,
            settings: &Settings::default(),
            memory: 1 << 20,
            forced: &Forced::default(),
            target: &bpf_loader::target::RunningTarget::new(),
        });
        started.map(drop).unwrap_err().to_string()
    };
    let own = std::process::id();
    assert!(start(Filter::default()).contains("name some"));
    assert!(start(Filter { pids: vec![own], children: true, ..Filter::default() }).contains("children"));
    assert!(start(Filter { pids: vec![u32::MAX - 1], ..Filter::default() }).contains("there is no process"));
}
