//! Switches and waits against what the kernel's own accounting says: `/proc/PID/task/TID/{schedstat,status}`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use collector::config::Filter;
use collector::telemetry::Recorder;
use collector::tracer::ladder::Forced;
use collector::tracer::sched::{self, CONTEXT_SWITCHES, OFF_CPU_TIME, RUN_QUEUE_DURATION};
use collector::tracer::{Settings, Start, Tracer, cause};

use crate::helper::{self, Helper};
use crate::process::Script;
use crate::{is_root, skip};

fn each_rung(test: impl Fn(&str)) {
    sched::SWITCHES.rungs.iter().for_each(|rung| test(rung.name));
}

fn start(pid: u32, rung: &str) -> Option<Box<dyn Tracer>> {
    let started = crate::start(&sched::INFO, pid, &Settings::default(), &[(sched::SWITCHES.what, rung)])?;
    // Every kernel from 5.8 on has all rungs.
    Some(started.unwrap_or_else(|error| panic!("{rung}: {error}")))
}

/// What the kernel has counted of a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Thread {
    voluntary: u64,
    involuntary: u64,
    waited_nanos: u64,
    ran: u64,
    /// Of sums: how many were not there from the beginning.
    born: u64,
}

/// All threads of a process, once they all sleep.
fn threads_asleep(pid: u32) -> BTreeMap<String, Thread> {
    let mut last = BTreeMap::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut asleep = true;
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let path = entry.unwrap().path();
            let status = fs::read_to_string(path.join("status")).unwrap();
            let field = |name: &str| {
                let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                value.split_whitespace().next().unwrap().to_owned()
            };
            asleep &= field("State:") == "S";
            let schedstat = fs::read_to_string(path.join("schedstat")).unwrap();
            let numbers: Vec<u64> = schedstat.split_whitespace().map(|n| n.parse().unwrap()).collect();
            let thread = Thread {
                voluntary: field("voluntary_ctxt_switches:").parse().unwrap(),
                involuntary: field("nonvoluntary_ctxt_switches:").parse().unwrap(),
                waited_nanos: numbers[1],
                ran: numbers[2],
                born: 0,
            };
            threads.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), thread);
        }
        if asleep && threads == last {
            return threads;
        }
        assert!(Instant::now() < deadline, "{pid} does not rest");
        last = threads;
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the tracer is to have counted between two rests: threads that moved have left the CPU once more than they came back,
/// and how those that were there already came to run for the first time was not seen from the beginning.
fn expected(before: &BTreeMap<String, Thread>, after: &BTreeMap<String, Thread>) -> Thread {
    let mut sum = Thread::default();
    for (tid, now) in after {
        let old = before.get(tid);
        let was = old.copied().unwrap_or_default();
        if *now != was {
            sum.voluntary += now.voluntary - was.voluntary - 1;
            sum.involuntary += now.involuntary - was.involuntary;
            sum.ran += now.ran - was.ran - u64::from(old.is_some());
            sum.born += u64::from(old.is_none());
            sum.waited_nanos += now.waited_nanos - was.waited_nanos;
        }
    }
    sum
}

/// Not a test of its own: what the others look at.
#[test]
#[ignore = "run by other tests"]
fn helper_that_waits() {
    let Some(what) = helper::task() else { return };
    // Two threads that wait for each other.
    let (mut here, mut there) = UnixStream::pair().unwrap();
    let rounds = if what == "sampled" { 2000 } else { 500 };
    let echo = move || {
        let mut byte = [0];
        while there.read_exact(&mut byte).is_ok() {
            there.write_all(&byte).unwrap();
        }
    };
    std::thread::spawn(echo);
    let mut byte = [7];
    for _ in 0..rounds {
        here.write_all(&byte).unwrap();
        here.read_exact(&mut byte).unwrap();
    }
    // More that want to run than there are CPUs.
    let busy = std::thread::available_parallelism().unwrap().get() + 2;
    for _ in 0..busy {
        std::thread::spawn(|| {
            let end = Instant::now() + Duration::from_millis(300);
            while Instant::now() < end {
                std::hint::black_box(0);
            }
            std::thread::park_timeout(Duration::from_secs(600));
        });
    }
    // Known sleeps, and waits that signals do not interrupt: for a child to execute.
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(20));
        Command::new("/bin/true").status().unwrap();
    }
    println!("READY");
    std::thread::sleep(Duration::from_secs(600));
}

/// Some kernels leave out a switch now and then: on one, those away from the threads of its first process, in its own trace
/// too. Then a test is repeated, for as long as what is counted is less than what there was, and hardly.
fn until_exact(rung: &str, run: impl Fn() -> Option<(f64, u64)>) {
    for _ in 0..8 {
        let Some((counted, expected)) = run() else { return };
        assert!(
            counted <= expected as f64 && counted > expected as f64 * 0.99,
            "{rung}: {counted} {expected}"
        );
        if counted == expected as f64 {
            return;
        }
        eprintln!("{rung}: {counted} of {expected} switches were traced");
    }
    panic!("{rung}: never exact");
}

#[test]
fn waits_and_switches_are_the_kernels_own() {
    each_rung(|rung| until_exact(rung, || exact(rung)));
}

/// What was counted of the switches, and how many there were. Everything else is checked if that is the same.
fn exact(rung: &str) -> Option<(f64, u64)> {
    let mut helper = Helper::start("sched::helper_that_waits", "exact");
    let pid = helper.pid();
    let before = threads_asleep(pid);
    let mut tracer = start(pid, rung)?;
    let began = Instant::now();
    helper.go();
    // Windows may end at any time.
    let mut recorder = Recorder::default();
    (0..20).for_each(|_| tracer.collect(&mut recorder).unwrap());
    helper.wait_ready();
    let after = threads_asleep(pid);
    let wall = began.elapsed().as_secs_f64();
    tracer.collect(&mut recorder).unwrap();
    let expected = expected(&before, &after);
    let switches =
        |kind| recorder.number(CONTEXT_SWITCHES.name, pid, &[("process.context_switch.type", kind)]);
    let (counted, all) =
        (switches("voluntary") + switches("involuntary"), expected.voluntary + expected.involuntary);
    let waits = recorder.histogram(RUN_QUEUE_DURATION.name, pid, &[]);
    // Whoever is back has waited, and so have the newly born.
    let (counted, all) = (counted + waits.count() as f64, 2 * all + expected.born);
    if counted != all as f64 {
        return Some((counted, all));
    }
    assert_eq!(switches("voluntary"), expected.voluntary as f64, "{rung}");
    assert_eq!(switches("involuntary"), expected.involuntary as f64, "{rung}");
    assert!(expected.voluntary > 500 && expected.involuntary > 0, "{rung}: {expected:?}");
    assert_eq!(waits.count(), expected.voluntary + expected.involuntary + expected.born, "{rung}");
    // The kernel does not count waits of those who were made to wait just when they were about to sleep, from 5.13 on.
    assert!(waits.count() - waits.count() / 100 - 2 <= expected.ran, "{rung}: {waits:?} {expected:?}");
    assert!(expected.ran <= waits.count(), "{rung}: {waits:?} {expected:?}");
    // The kernel reads its clock at other places.
    let (own, kernels) = (waits.sum_nanos as f64, expected.waited_nanos as f64);
    let tolerance = kernels * 0.1 + expected.ran as f64 * 50_000.0;
    assert!((own - kernels).abs() < tolerance, "{rung}: {own} {kernels}");
    let off = |reason| recorder.number(OFF_CPU_TIME.name, pid, &[("ebpf.sched.offcpu.reason", reason)]);
    assert!(off("sleeping") > 0.2, "{rung}: {}", off("sleeping"));
    assert!(off("sleeping") < wall * after.len() as f64, "{rung}: {}", off("sleeping"));
    assert!(off("preempted") > 0.0 && off("preempted") <= own / 1e9 + 1e-6, "{rung}");
    assert!(off("blocked") > 0.0 && off("blocked") < wall, "{rung}: {}", off("blocked"));
    // Programs of classic tracepoints are left out, and counted, on a CPU whose task is in the midst of reading a map.
    let stats = tracer.stats().unwrap();
    let dropped = stats.dropped.iter().filter(|(cause, _)| rung != "tracepoint" || *cause != cause::SKIPPED);
    assert_eq!(dropped.map(|(_, count)| count).sum::<u64>(), 0, "{rung}: {stats:?}");
    assert!(recorder.numbers.keys().all(|series| series.pid == Some(pid)), "{rung}: others were counted");
    Some((counted, all))
}

#[test]
fn sampling_leaves_switches_exact_and_makes_up_for_waits() {
    each_rung(|rung| until_exact(rung, || sampled(rung)));
}

fn sampled(rung: &str) -> Option<(f64, u64)> {
    let mut helper = Helper::start("sched::helper_that_waits", "sampled");
    let pid = helper.pid();
    let before = threads_asleep(pid);
    let mut tracer = start(pid, rung)?;
    tracer.set_sampling(4).unwrap();
    helper.go();
    helper.wait_ready();
    let after = threads_asleep(pid);
    let mut recorder = Recorder::default();
    tracer.collect(&mut recorder).unwrap();
    let expected = expected(&before, &after);
    let switches = recorder.number(CONTEXT_SWITCHES.name, pid, &[]);
    let waits = recorder.histogram(RUN_QUEUE_DURATION.name, pid, &[]).count();
    assert_eq!(waits % 4, 0, "{rung}: each stands for four");
    // 4,000 waits, of which a quarter is drawn: five standard deviations are 14 %.
    assert!(waits.abs_diff(expected.ran) < expected.ran / 7, "{rung}: {waits} {expected:?}");
    Some((switches, expected.voluntary + expected.involuntary))
}

#[test]
fn what_happens_in_a_pause_is_not_counted() {
    each_rung(|rung| {
        let mut helper = Helper::start("sched::helper_that_waits", "exact");
        let pid = helper.pid();
        threads_asleep(pid);
        let Some(mut tracer) = start(pid, rung) else { return };
        crate::pause(&mut *tracer);
        helper.go();
        helper.wait_ready();
        threads_asleep(pid);
        tracer.resume().unwrap();
        assert!(tracer.is_running());
        let mut recorder = Recorder::default();
        tracer.collect(&mut recorder).unwrap();
        assert!(recorder.numbers.is_empty() && recorder.histograms.is_empty(), "{rung}: {recorder:?}");
    });
}

#[test]
fn more_processes_than_there_is_room_for_are_counted() {
    if !is_root() {
        return skip("sched: needs root").unwrap_or(());
    }
    let mut script = Script::start("i=0; while [ $i -lt 100 ]; do sleep 0.2 & i=$((i + 1)); done; wait");
    let started = (sched::INFO.start)(&Start {
        filter: &Filter { pids: vec![script.pid()], children: true, ..Filter::default() },
        settings: &Settings::default(),
        memory: 1,
        forced: &Forced::default(),
        target: &RunningTarget::new(),
    });
    let mut tracer = started.unwrap();
    script.run();
    let mut recorder = Recorder::default();
    tracer.collect(&mut recorder).unwrap();
    let stats = tracer.stats().unwrap();
    assert_eq!(stats.map_fill, [("processes", 64, 64)]);
    assert!(stats.dropped.iter().any(|(cause, n)| *cause == "table full" && *n >= 37), "{stats:?}");
}
