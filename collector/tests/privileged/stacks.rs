//! Stacks of a process without frame pointers: this program, as release builds and the standard library are compiled.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use collector::config::{Config, Filter, Stacks};
use collector::error::Error;
use collector::model::Profile;
use collector::tracer::profile::{Counters, Session};

use super::helper::{Helper, task};
use super::{is_emulated, skip};

/// More frames than one BPF program walks, and fewer than are kept.
const DEPTH: u32 = 60;

#[inline(never)]
fn down(depth: u32, work: &mut dyn FnMut()) -> u32 {
    if depth == 0 {
        work();
        return 1;
    }
    black_box(down(black_box(depth) - 1, work)) + 1
}

/// A stack larger than the copy of it, with a frame that is larger than most.
#[inline(never)]
fn down_far(work: &mut dyn FnMut()) -> u8 {
    let mut room = [0u8; 600 << 10];
    black_box(&mut room);
    down(DEPTH, &mut || {
        let mut room = [0u8; 64 << 10];
        black_box(&mut room);
        // Most of the time, rather than what clears the room, also where that is slow.
        (0..60).for_each(|_| work());
        black_box(&room);
    });
    room[5]
}

#[inline(never)]
fn work_in_user_space() {
    for n in 0..200_000u64 {
        black_box(n);
    }
}

/// Most samples are in the kernel: the walk begins where it was entered.
#[inline(never)]
fn work_in_the_kernel() {
    let mut file = std::fs::File::open("/dev/zero").unwrap();
    let mut bytes = vec![0; 1 << 20];
    for _ in 0..20 {
        std::io::Read::read_exact(&mut file, &mut bytes).unwrap();
    }
}

#[test]
#[ignore = "what the others look at"]
fn helper() {
    let Some(what) = task() else { return };
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        match &*what {
            "user" => down(DEPTH, &mut work_in_user_space),
            "deep" => u32::from(down_far(&mut work_in_user_space)),
            _ => down(DEPTH, &mut work_in_the_kernel),
        };
    }
}

/// Functions of a stack, leaf first.
fn functions<'p>(profile: &'p Profile, stack: &[collector::model::FrameIdx]) -> Vec<&'p str> {
    let frames = stack.iter().map(|frame| &profile.frames[frame.0 as usize]);
    frames.flat_map(|frame| &frame.lines).map(|line| &*line.function).collect()
}

/// A session that samples processes; `None`, with the reason printed, where it cannot be.
fn session(stacks: Stacks, pids: Vec<u32>) -> Option<Session> {
    // An emulated machine finishes a hundred copies a second or so.
    let frequency = if is_emulated() && stacks == Stacks::Copies { 29 } else { 199 };
    let filter = Filter { pids, ..Filter::default() };
    let config = Config { frequency, filter, stacks: Some(stacks), ..Config::default() };
    let session = match Session::start_within(config, 8 << 20, &RunningTarget::new()).map_err(|e| *e) {
        Ok(session) => session,
        Err(Error::Privileges(error)) => return skip(&error.to_string()),
        Err(Error::NoRung { what, .. }) if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) => {
            return skip(&format!("{what} by tables are walked on x86_64 and arm64 only"));
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!((session.stacks(), session.refused_stacks()), (stacks, &[][..]));
    Some(session)
}

fn poll(session: &mut Session) {
    let end = Instant::now() + Duration::from_secs(if is_emulated() { 8 } else { 3 });
    while Instant::now() < end {
        session.poll(end).unwrap();
    }
}

fn whole_stacks(what: &str, stacks: Stacks) {
    let mut helper = Helper::start("stacks::helper", what);
    let Some(mut session) = session(stacks, vec![helper.pid()]) else { return };
    helper.go();
    // Emulated, arm64 is too slow to make pages of code while samples come by the hundred: they are there in the second window.
    let before = if is_emulated() && cfg!(target_arch = "aarch64") {
        poll(&mut session);
        session.pause().unwrap();
        session.finish_window().unwrap();
        let before = session.counters().unwrap();
        session.resume().unwrap();
        before
    } else {
        Counters::default()
    };
    poll(&mut session);
    session.pause().unwrap();
    let profile = session.finish_window().unwrap();
    let mut counters = session.counters().unwrap();
    let mut walks = counters.walks.unwrap();
    assert!(walks.in_user_space > 0, "nothing was missed: {walks:?}");
    if let Some(before) = before.walks {
        walks.whole -= before.whole;
        walks.no_table -= before.no_table;
        walks.bad_cfa -= before.bad_cfa;
        walks.depth -= before.depth;
        walks.not_mapped -= before.not_mapped;
        walks.slice -= before.slice;
        walks.lost -= before.lost;
        walks.in_user_space -= before.in_user_space;
    }
    counters.samples -= before.samples;
    let samples: u64 = profile.samples.iter().map(|sample| sample.count).sum();
    assert_eq!((samples, walks.total()), (counters.samples, counters.samples), "{walks:?}");
    assert!(samples > 50, "{samples} samples");
    // An emulated machine may be too slow to finish all of the first ones.
    let lost = if is_emulated() { walks.lost } else { 0 };
    // Nor is a copy of the first of deep stacks enough there, before their pages are made.
    let least = if what == "deep" && is_emulated() { 95 } else { 99 };
    assert!(walks.whole * 100 >= (samples - lost) * least && lost * 2 < samples, "{walks:?}");
    if stacks == Stacks::Tables {
        assert!(walks.in_user_space * 2 < samples, "what was missed once is there: {walks:?}");
    }
    let work = match what {
        "kernel" => "work_in_the_kernel",
        _ => "work_in_user_space",
    };
    let mut at_work = 0;
    let mut cut = Vec::new();
    for sample in &profile.samples {
        let functions = functions(&profile, &profile.stacks[sample.stack.0 as usize]);
        let Some(place) = functions.iter().position(|name| name.ends_with(work)) else { continue };
        let deep = functions[place..].iter().filter(|name| name.ends_with("::down")).count();
        let last = functions.last().unwrap();
        if deep == DEPTH as usize + 1 && (last.contains("clone") || last.contains("start")) {
            at_work += sample.count;
        } else {
            cut.push(functions);
        }
    }
    assert!(cut.len() as u64 <= samples - walks.whole, "{walks:?}: {cut:?}");
    assert!(at_work * 10 > (samples - lost) * 8, "{at_work} of {samples} are at work, and whole");
}

#[test]
fn by_tables() {
    whole_stacks("user", Stacks::Tables);
}

#[test]
fn by_tables_from_within_the_kernel() {
    whole_stacks("kernel", Stacks::Tables);
}

#[test]
fn by_copies() {
    whole_stacks("user", Stacks::Copies);
}

#[test]
fn by_copies_from_within_the_kernel() {
    whole_stacks("kernel", Stacks::Copies);
}

#[test]
fn by_tables_beyond_what_is_copied() {
    whole_stacks("deep", Stacks::Tables);
}

/// How many pages there are once no more are made: an emulated machine takes its time.
fn pages_of_all(session: &mut Session) -> u64 {
    let mut before = 0;
    for _ in 0..if is_emulated() { 5 } else { 1 } {
        poll(session);
        let pages = session.counters().unwrap().walks.unwrap().pages;
        if pages == before {
            break;
        }
        before = pages;
    }
    before
}

#[test]
fn processes_share_the_pages_of_files() {
    let mut helpers = [Helper::start("stacks::helper", "user"), Helper::start("stacks::helper", "user")];
    let pids = helpers.iter().map(Helper::pid).collect();
    let Some(mut session) = session(Stacks::Tables, pids) else { return };
    let mut pages = Vec::new();
    for helper in &mut helpers {
        helper.go();
        pages.push(pages_of_all(&mut session));
    }
    session.pause().unwrap();
    let profile = session.finish_window().unwrap();
    assert!(profile.processes.len() >= 2, "both were sampled");
    // The second has met no code of its own but for what the first has not come upon: they are not twice as many.
    assert!(pages[0] > 5 && pages[1] * 3 <= pages[0] * 5, "{pages:?}");
}
