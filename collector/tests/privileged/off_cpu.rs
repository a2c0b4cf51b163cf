//! Time off the CPU against the clock of those who wait.

use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use collector::config::{Config, Filter, Stacks};
use collector::error::Error;
use collector::model::{Profile, SampleType};
use collector::tracer::profile::{Counters, Session};

use super::helper::{Helper, task};
use super::{is_emulated, skip};

/// How long the helper is at it: longer than the session leaves a window in the kernel.
const RUN: Duration = Duration::from_millis(3200);

type Waits = Box<dyn FnMut() + Send>;

/// What `short_waits_are_left_out` leaves out.
const SHORT: Duration = Duration::from_millis(10);

/// Calls something that waits, again and again, and returns how long it took by its own clock, and how many were short.
fn work(end: Instant, wait: &mut dyn FnMut()) -> (Duration, u64) {
    let (mut waited, mut short) = (Duration::ZERO, 0);
    while Instant::now() < end {
        let start = Instant::now();
        wait();
        let took = start.elapsed();
        waited += took;
        short += u64::from(took < SHORT);
        // Something that the next wait comes after.
        (0..1000u64).for_each(|n| {
            black_box(n);
        });
    }
    (waited, short)
}

#[inline(never)]
fn waits_at_times() {
    thread::sleep(Duration::from_millis(20));
    black_box(());
}

#[inline(never)]
fn waits_briefly() {
    thread::sleep(Duration::from_micros(200));
    black_box(());
}

#[inline(never)]
fn waits_long() {
    // The first ones meet code that the tables do not have yet, and may find no room to be finished.
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let is_first = CALLS.fetch_add(1, Ordering::Relaxed) < 2;
    thread::sleep(if is_first { RUN / 50 } else { RUN });
    black_box(());
}

#[inline(never)]
fn waits_for_another(from: &mut UnixStream) {
    let mut byte = [0];
    black_box(from.read(&mut byte).unwrap());
}

#[inline(never)]
fn never_waits() {
    (0..1000u64).for_each(|n| {
        black_box(n);
    });
}

#[test]
#[ignore = "what the others look at"]
fn helper() {
    let Some(_) = task() else { return };
    let end = Instant::now() + RUN;
    let (mut here, mut there) = UnixStream::pair().unwrap();
    let waker = thread::Builder::new().name("the-waker".into()).spawn(move || {
        while Instant::now() < end + Duration::from_millis(200) {
            thread::sleep(Duration::from_millis(30));
            there.write_all(b"x").unwrap();
        }
        there
    });
    let threads: Vec<(&str, Waits)> = vec![
        ("waits_at_times", Box::new(waits_at_times)),
        ("waits_briefly", Box::new(waits_briefly)),
        ("waits_long", Box::new(waits_long)),
        ("waits_for_another", Box::new(move || waits_for_another(&mut here))),
        ("never_waits", Box::new(never_waits)),
    ];
    let threads = threads
        .into_iter()
        .map(|(name, mut wait)| (name, thread::spawn(move || (work(end, &mut *wait), wait))));
    let mut kept = Vec::new();
    for (name, thread) in threads.collect::<Vec<_>>() {
        let ((waited, short), wait) = thread.join().unwrap();
        println!("{name} {}", waited.as_nanos());
        println!("short of {name}: {short}");
        kept.push(wait);
    }
    println!("READY");
    thread::sleep(Duration::from_secs(60));
    drop((waker, kept));
}

/// Nanoseconds under a function, and whether all of its stacks go on to `work` and the thread's beginning.
fn nanos_of(profile: &Profile, function: &str) -> (u64, Vec<Vec<String>>) {
    let mut nanos = 0;
    let mut stacks = Vec::new();
    for sample in &profile.samples {
        let frames =
            profile.stacks[sample.stack.0 as usize].iter().map(|frame| &profile.frames[frame.0 as usize]);
        let lines: Vec<_> =
            frames.flat_map(|frame| &frame.lines).map(|line| line.function.to_string()).collect();
        if lines.iter().any(|name| name.ends_with(function)) {
            nanos += sample.count;
            stacks.push(lines);
        }
    }
    (nanos, stacks)
}

/// Nanoseconds under a function that end by that waker, and all.
fn woken_by(profile: &Profile, function: &str, waker: &str) -> (u64, u64) {
    let mut by_that = profile.clone();
    by_that.samples.retain(|sample| {
        profile.threads[sample.thread.0 as usize].woken_by.as_deref().is_some_and(|name| name == waker)
    });
    (nanos_of(&by_that, function).0, nanos_of(profile, function).0)
}

/// A session, and what it samples.
fn start(stacks: Stacks, least: Duration) -> Option<(Session, Helper)> {
    let helper = Helper::start("off_cpu::helper", "wait");
    let config = Config { filter: only(&helper), stacks: Some(stacks), ..Config::default() };
    match Session::start_off_cpu(config, least, 8 << 20, &RunningTarget::new()).map_err(|e| *e) {
        Ok(session) => Some((session, helper)),
        Err(Error::Privileges(error)) => skip(&error.to_string()),
        Err(error @ (Error::NoRung { .. } | Error::NoBtf)) => skip(&error.to_string()),
        Err(error) => panic!("{error}"),
    }
}

fn only(helper: &Helper) -> Filter {
    Filter { pids: vec![helper.pid()], ..Filter::default() }
}

/// The waits of a helper, and what it says of them itself.
fn profile(session: &mut Session, mut helper: Helper) -> (Profile, String) {
    helper.go();
    // An emulated machine takes seconds to start the helper.
    let after = Duration::from_millis(if is_emulated() { 6000 } else { 1500 });
    let end = Instant::now() + RUN + after;
    let mut whole = Profile::default();
    let mut next = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        session.poll(end.min(next)).unwrap();
        if Instant::now() >= next {
            session.end_window().unwrap();
            session.named().into_iter().for_each(|window| whole.absorb(window));
            next += Duration::from_secs(1);
        }
    }
    session.pause().unwrap();
    session.end_window().unwrap();
    session.settle(None).unwrap().into_iter().for_each(|window| whole.absorb(window));
    (whole, helper.wait_ready())
}

fn told(told: &str, name: &str) -> u64 {
    let line = told.lines().find_map(|line| line.rsplit_once(' ').filter(|(of, _)| of.ends_with(name)));
    line.unwrap().1.parse().unwrap()
}

/// An emulated machine takes a while on the CPU to go to sleep and to look at its clock.
fn is_near(what: &str, counted: u64, expected: u64, tolerance: f64) {
    if is_emulated() && what == "waits_briefly" {
        return;
    }
    let tolerance = if is_emulated() { 0.2 } else { tolerance };
    let (counted, expected) = (counted as f64, expected as f64);
    assert!((counted - expected).abs() <= expected * tolerance, "{what}: {counted} and not {expected}");
}

/// As [`profile`], again where an emulated machine had no time to make pages of code while the waits lasted: the next time they are there.
/// With how many waits found no room, and how many short ones were counted.
fn profile_of_all(session: &mut Session, mut helper: Helper) -> (Profile, String, u64, u64) {
    let mut tries = if is_emulated() { 3 } else { 1 };
    let mut before = Counters::default();
    loop {
        let (profile, by_clock) = profile(session, helper);
        let counters = session.counters().unwrap();
        let [then, now] = [before, counters].map(|counters| counters.walks.unwrap_or_default());
        let (lost, all) = (now.lost - then.lost, now.total() - then.total());
        tries -= 1;
        if lost == 0 || tries == 0 {
            assert!(lost * 20 <= all, "{now:?}, before {then:?}");
            return (profile, by_clock, lost, counters.too_short - before.too_short);
        }
        before = counters;
        helper = Helper::start("off_cpu::helper", "wait");
        session.set_filter(only(&helper)).unwrap();
        session.resume().unwrap();
    }
}

fn waits_are_those_of_the_clock(stacks: Stacks) {
    let Some((mut session, helper)) = start(stacks, Duration::from_micros(1)) else { return };
    let (profile, by_clock, lost, _) = profile_of_all(&mut session, helper);
    assert_eq!(profile.sample_type, SampleType::OFF_CPU);
    // Of short ones, a few in a hundred are counted for all, and a busy machine makes some of them long.
    for (function, tolerance) in
        [("waits_at_times", 0.05), ("waits_long", 0.05), ("waits_for_another", 0.05), ("waits_briefly", 0.6)]
    {
        let (nanos, stacks) = nanos_of(&profile, function);
        eprintln!("{function}: {nanos} of {}", told(&by_clock, function));
        is_near(function, nanos, told(&by_clock, function), tolerance);
        for stack in stacks {
            assert!(stack.iter().any(|name| name.ends_with("::work")) || lost > 0, "{stack:?}");
            assert!(!stack[0].contains("bpf") && !stack[0].ends_with("schedule"), "{stack:?}");
        }
    }
    for (function, waker) in [("waits_for_another", "the-waker"), ("waits_at_times", "[interrupt]")] {
        let (of_waker, all) = woken_by(&profile, function, waker);
        assert!(of_waker * 100 >= all * 95 && all > 0, "{function}: {of_waker} of {all} by {waker}");
    }
    let (nanos, _) = nanos_of(&profile, "never_waits");
    assert!(nanos < told(&by_clock, "never_waits") / 100, "{nanos}");
    let counters = session.counters().unwrap();
    let losses = counters.losses;
    // Copies fill the ring, where the machine has something else to do.
    assert!(losses.no_stack == 0 && (losses.table_full == 0 || stacks == Stacks::Copies), "{counters:?}");
}

#[test]
fn by_tables() {
    waits_are_those_of_the_clock(Stacks::Tables);
}

#[test]
fn by_copies() {
    if is_emulated() {
        skip::<()>("an emulated machine finishes too few copies");
        return;
    }
    waits_are_those_of_the_clock(Stacks::Copies);
}

#[test]
fn short_waits_are_left_out() {
    let Some((mut session, helper)) = start(Stacks::Tables, SHORT) else { return };
    let (profile, by_clock, _, counted) = profile_of_all(&mut session, helper);
    let (nanos, _) = nanos_of(&profile, "waits_at_times");
    is_near("waits_at_times", nanos, told(&by_clock, "waits_at_times"), 0.05);
    let (brief, _) = nanos_of(&profile, "waits_briefly");
    assert!(brief < told(&by_clock, "waits_briefly") / 20 || is_emulated(), "{brief}");
    // What took a short time by the thread's clock was shorter still off the CPU. Of a thread's many, one each 10 ms is noted, by chance.
    let noted = told(&by_clock, "short of waits_briefly:").min(RUN.as_millis() as u64 / 10);
    // On an emulated machine many are long, and stand among those that are noted.
    let least = if is_emulated() { noted / 8 } else { noted / 2 };
    assert!(counted + 10 >= least && (noted > 100 || is_emulated()), "{counted} of {noted}");
    assert!(counted > 0 || noted < 10, "none of {noted}");
}
