//! Samples and the spans that threads publish: shares of a program that knows for how long it has worked for each
//! (`tests/workloads/spans.c`).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use collector::config::{Config, Filter, Stacks};
use collector::error::Error;
use collector::model::Span;
use collector::tracer::profile::Session;

use super::{is_emulated, skip};

/// Where a virtual machine has it, compiled statically.
const IN_MACHINE: &str = "/bin/spans";
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/workloads/spans.c");

/// The program as it runs; it ends with the test.
struct Workload(Child);

impl Workload {
    fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("spans-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// Compiles the source. `None`, with the reason printed: there is no such compiler.
    fn compile(&self, compiler: &str, arguments: &[&str], output: &str) -> Option<PathBuf> {
        let path = self.0.join(output);
        let all = ["-std=gnu17", "-O2", "-pthread", SOURCE, "-o"];
        let mut command = Command::new(compiler);
        match command.current_dir(&self.0).args(all).arg(&path).args(arguments).status() {
            Ok(status) => assert!(status.success(), "{compiler} {arguments:?}"),
            Err(_) => return skip(&format!("there is no {compiler}")),
        }
        Some(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the program publishes, one after the other; of the second the record is not valid, and last, there is none.
fn published() -> [Option<Span>; 4] {
    let first = [0xa1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
    let mut third = [0; 16];
    (third[0], third[15]) = (0xa3, 7);
    let span = |trace_id, span_id| Some(Span { trace_id, span_id });
    [span(first, [0xb1, 1, 1, 1, 1, 1, 1, 2]), None, span(third, [0xb3, 0, 0, 0, 0, 0, 0, 9]), None]
}

/// Profiles a program, and compares shares of samples with its clock.
fn shares(program: &Path, argument: Option<&Path>, stacks: Stacks) -> Option<()> {
    let mut child = Command::new(program);
    child.args(argument).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut workload = Workload(child.spawn().unwrap());
    let mut output = BufReader::new(workload.0.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    // Where an emulator's CPUs take turns (tests/vm/boot), a turn is as long as a millisecond: timers that are nearer than that leave
    // one that waits for another's answer no time to see it.
    let frequency = match (is_emulated(), stacks) {
        (false, _) => 999,
        (true, Stacks::Copies) => 29,
        (true, _) => 199,
    };
    let filter = Filter { pids: vec![workload.0.id()], ..Filter::default() };
    let config = Config { frequency, filter, stacks: Some(stacks), ..Config::default() };
    let mut session = match Session::start_within(config, 8 << 20, &RunningTarget::new()).map_err(|e| *e) {
        Ok(session) => session,
        Err(Error::Privileges(error)) => return skip(&error.to_string()),
        Err(Error::NoRung { what, .. }) if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) => {
            return skip(&format!("{what} by tables are walked on x86_64 and arm64 only"));
        }
        Err(error) => panic!("{error}"),
    };
    workload.go();
    // When what was sampled is read, the process is looked at: what is sampled then has spans. A busy machine takes its time.
    let until = Instant::now() + Duration::from_secs(if is_emulated() { 60 } else { 10 });
    loop {
        let next = Instant::now() + Duration::from_millis(300);
        while Instant::now() < next {
            session.poll(next).unwrap();
        }
        let window = session.finish_window().unwrap();
        if window.threads.iter().any(|thread| thread.span.is_some()) {
            break;
        }
        assert!(Instant::now() < until, "{}: no spans", program.display());
    }
    session.pause().unwrap();
    session.finish_window().unwrap();
    workload.go();
    session.resume().unwrap();
    let before = session.counters().unwrap().samples;
    let enough = if is_emulated() { 300 } else { 1500 };
    let end = Instant::now() + Duration::from_secs(if is_emulated() { 20 } else { 10 });
    while Instant::now() < end && session.counters().unwrap().samples < before + enough {
        session.poll(Instant::now() + Duration::from_millis(100)).unwrap();
    }
    session.pause().unwrap();
    workload.go();
    let taken: Vec<f64> = output.lines().map_while(Result::ok).map(|line| line.parse().unwrap()).collect();
    assert_eq!(taken.len(), 4);
    let profile = session.finish_window().unwrap();
    let samples: u64 = profile.samples.iter().map(|sample| sample.count).sum();
    assert!(samples > 50, "{samples} samples");
    let count_of = |span: Option<Span>| -> u64 {
        let of = profile.samples.iter().filter(|s| profile.threads[s.thread.0 as usize].span == span);
        of.map(|sample| sample.count).sum()
    };
    let (all, within) = (taken.iter().sum::<f64>(), if is_emulated() { 0.10 } else { 0.04 });
    let mut counted = 0;
    for span in [published()[0], published()[2], None] {
        let took: f64 =
            taken.iter().zip(published()).filter(|(_, of)| *of == span).map(|(took, _)| took).sum();
        let (took, sampled) = (took / all, count_of(span) as f64 / samples as f64);
        println!("{}: {span:?} took {took:.3}, and has {sampled:.3} of {samples}", program.display());
        assert!(
            (took - sampled).abs() < within,
            "{span:?} took {took:.3}, and has {sampled:.3} of {samples}"
        );
        counted += count_of(span);
    }
    assert_eq!(counted, samples, "{:?}", profile.threads);
    // What stands behind the frames is none.
    let mut frames = profile.stacks.iter().flatten().map(|frame| &profile.frames[frame.0 as usize]);
    assert!(frames.all(|frame| frame.address >> 62 == 0 || frame.address >> 63 == 1));
    Some(())
}

/// What a program has itself, as in the virtual machines.
#[test]
fn of_a_program() {
    if Path::new(IN_MACHINE).exists() {
        shares(Path::new(IN_MACHINE), None, Stacks::Tables);
        return;
    }
    let folder = Folder::new("own");
    let own = ["-DVARIABLE", "-DPROGRAM", "-Wl,--export-dynamic-symbol=otel_thread_ctx_v1"];
    for (name, more) in [("pie", "-pie"), ("static", "-static-pie"), ("fixed", "-no-pie")] {
        let Some(program) = folder.compile("gcc", &[&own[..], &[more]].concat(), name) else { return };
        shares(&program, None, Stacks::Tables);
    }
}

#[test]
fn of_stacks_that_are_copied() {
    let folder = Folder::new("copied");
    let own = ["-DVARIABLE", "-DPROGRAM", "-Wl,--export-dynamic-symbol=otel_thread_ctx_v1"];
    let program = Path::new(IN_MACHINE).exists().then(|| PathBuf::from(IN_MACHINE));
    let Some(program) = program.or_else(|| folder.compile("gcc", &own, "own")) else { return };
    shares(&program, None, Stacks::Copies);
}

/// Libraries that are linked, and that are loaded, of both dialects, and of the model that takes a word.
#[test]
fn of_libraries() {
    let folder = Folder::new("libraries");
    let Some(loads) = folder.compile("gcc", &["-DPROGRAM"], "loads") else { return };
    let dialects = if cfg!(target_arch = "x86_64") { ["gnu", "gnu2"] } else { ["trad", "desc"] };
    let [traditional, descriptors] = dialects.map(|dialect| format!("-mtls-dialect={dialect}"));
    let library = ["-DVARIABLE", "-fPIC", "-shared"];
    for (name, model) in
        [("traditional", &*traditional), ("descriptors", &*descriptors), ("word", "-ftls-model=initial-exec")]
    {
        let file = format!("lib{name}.so");
        let file = folder.compile("gcc", &[&library[..], &[model]].concat(), &file).unwrap();
        println!("{name}, loaded");
        shares(&loads, Some(&file), Stacks::Tables);
        println!("{name}, linked");
        let linked = folder.compile(
            "gcc",
            &["-DPROGRAM", "-Wl,--no-as-needed", file.to_str().unwrap()],
            &format!("linked-{name}"),
        );
        shares(&linked.unwrap(), None, Stacks::Tables);
    }
    let Some(loads) = folder.compile("musl-gcc", &["-DPROGRAM"], "loads-other") else { return };
    let musl = [&library[..], &[&*traditional]].concat();
    let file = folder.compile("musl-gcc", &musl, "libother.so").unwrap();
    println!("musl, loaded");
    shares(&loads, Some(&file), Stacks::Tables);
}
