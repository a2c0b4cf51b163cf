//! Functions of a Python program: shares of a script that knows them by its own clock.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use collector::config::{Config, Filter};
use collector::error::Error;
use collector::model::{FrameKind, Profile};
use collector::tracer::profile::Session;

use super::{is_emulated, skip};

/// Works until it is told to end, and tells what each function took by the clock of its thread: by name, of each thread.
const SCRIPT: &str = r#"
import sys, threading, time, functools

taken = {}
ended = False

def work(who, seconds):
    start = time.thread_time()
    n = 0
    while time.thread_time() < start + seconds:
        for i in range(200):
            n ^= i
    taken[who] = taken.get(who, 0) + time.thread_time() - start

class Shop:
    def heavy(self):
        work("Shop.heavy", 0.07)

    def steps(self):
        yield 1
        medium()
        yield 2

def medium():
    work("medium", 0.02)

def größe():
    work("größe", 0.01)

def in_thread():
    work("in_thread", 0.01)

def deep(n):
    return größe() if n == 0 else deep(n - 1)

def key(x):
    deep(50) if x == 3 else None
    return x

def thread():
    while not ended:
        in_thread()
        time.sleep(0.09)

def main():
    shop = Shop()
    while not ended:
        shop.heavy()
        functools.reduce(lambda a, b: a, shop.steps())
        sorted([3, 2, 1], key=key)

threads = [threading.Thread(target=thread), threading.Thread(target=main)]
print("ready", flush=True)
sys.stdin.readline()
for each in threads:
    each.start()
sys.stdin.readline()
taken.clear()
sys.stdin.readline()
ended = True
for each in threads:
    each.join()
for who, seconds in taken.items():
    print(who, seconds, flush=True)
print("end", flush=True)
sys.stdin.readline()
"#;

/// An interpreter that ends with the test.
struct Interpreter(Child);

impl Interpreter {
    fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Functions of Python in a stack, leaf first, and how many of the interpreter's own are left.
fn functions<'p>(profile: &'p Profile, stack: &[collector::model::FrameIdx]) -> (Vec<&'p str>, usize) {
    let frames = || stack.iter().map(|frame| &profile.frames[frame.0 as usize]);
    let is_python = |kind| kind == FrameKind::Python;
    let python = frames().filter(|frame| is_python(frame.kind)).flat_map(|frame| &frame.lines);
    let evals =
        frames().flat_map(|frame| &frame.lines).filter(|line| &*line.function == "_PyEval_EvalFrameDefault");
    (python.map(|line| &*line.function).collect(), evals.count())
}

/// Profiles what an interpreter runs. `None`: there is no such interpreter, or not the right to.
fn shares(program: &str) -> Option<()> {
    let has_it = Command::new(program).args(["-c", "print(1)"]).stderr(Stdio::null()).output();
    if !has_it.is_ok_and(|output| output.status.success()) {
        return skip(&format!("there is no {program}"));
    }
    let mut child = Command::new(program);
    child.args(["-c", SCRIPT]).env("PYTHONIOENCODING", "utf-8").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut interpreter = Interpreter(child.spawn().unwrap());
    let mut output = BufReader::new(interpreter.0.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    let filter = Filter { pids: vec![interpreter.0.id()], ..Filter::default() };
    let config = Config { frequency: 999, filter, ..Config::default() };
    let mut session = match Session::start_within(config, 8 << 20, &RunningTarget::new()).map_err(|e| *e) {
        Ok(session) => session,
        Err(Error::Privileges(error)) => return skip(&error.to_string()),
        Err(error) => panic!("{error}"),
    };
    interpreter.go();
    // Until it is known what the process runs, which takes a slow machine a while, its stacks are native.
    let known = Instant::now() + Duration::from_secs(if is_emulated() { 5 } else { 1 });
    while Instant::now() < known {
        session.poll(known).unwrap();
    }
    session.pause().unwrap();
    session.finish_window().unwrap();
    interpreter.go();
    session.resume().unwrap();
    let before = session.counters().unwrap().samples;
    // A busy machine may take its time, and so many samples tell two points of a share.
    let enough = if is_emulated() { 1000 } else { 4000 };
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end && session.counters().unwrap().samples < before + enough {
        session.poll(Instant::now() + Duration::from_millis(100)).unwrap();
    }
    session.pause().unwrap();
    interpreter.go();
    let told: Vec<(String, f64)> = output
        .lines()
        .map_while(Result::ok)
        .take_while(|line| line != "end")
        .filter_map(|line| line.split_once(' ').map(|(who, took)| (who.to_owned(), took.parse().unwrap())))
        .collect();
    let profile = session.finish_window().unwrap();
    let samples: u64 = profile.samples.iter().map(|sample| sample.count).sum();
    let all: f64 = told.iter().map(|(_, took)| took).sum();
    assert_eq!(told.len(), 4, "{told:?}");
    let (mut evals_left, mut unread, mut native) = (0, 0, 0);
    let mut counts = vec![0; told.len()];
    for sample in &profile.samples {
        let (functions, evals) = functions(&profile, &profile.stacks[sample.stack.0 as usize]);
        // Of stacks that are too deep, either side lacks its outermost frames.
        let is_whole = profile.stacks[sample.stack.0 as usize].len() < 60;
        evals_left += if evals > 0 && is_whole { sample.count } else { 0 };
        native += if functions.is_empty() { sample.count } else { 0 };
        unread += if functions.contains(&"<python>") { sample.count } else { 0 };
        // Names are qualified from 3.11 on.
        let is = |who: &str, name: &str| name == who || who.rsplit('.').next() == Some(name);
        let Some(at) = told.iter().position(|(who, _)| functions.iter().any(|name| is(who, name))) else {
            continue;
        };
        counts[at] += sample.count;
        if told[at].0 == "größe" {
            let deep = functions.iter().filter(|name| **name == "deep").count();
            let callers: Vec<_> =
                functions.iter().filter(|name| is("key", name) || is("main", name)).collect();
            assert!(deep <= 51 && callers.len() <= 2, "{functions:?}");
        }
    }
    println!(
        "{program}: {samples} samples, {told:?} {counts:?}, interpreter in {evals_left}, {native} native, {unread} unread"
    );
    assert!(samples * 2 > enough, "{samples} samples");
    for ((who, took), count) in told.iter().zip(counts) {
        let (took, sampled) = (took / all, count as f64 / samples as f64);
        // Of an emulated machine, a share of few samples is wide.
        let within = if is_emulated() { 0.05 } else { 0.02 };
        assert!(
            (took - sampled).abs() < within,
            "{who} took {took:.3}, and has {sampled:.3} of {samples} samples"
        );
    }
    assert_eq!(unread, 0, "functions that were not read");
    assert!(evals_left * 50 <= samples, "the interpreter is in {evals_left} of {samples}");
    Some(())
}

#[test]
fn of_debian() {
    shares("python3");
}

#[test]
fn of_all_versions_that_are_there() {
    for minor in 9..=14 {
        shares(&format!("python3.{minor}"));
    }
}
