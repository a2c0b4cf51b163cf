//! Stacks of allocations, of programs without frame pointers.

use std::collections::BTreeMap;

use collector::model::Profile;
use collector::telemetry::{Recorder, Series};
use collector::tracer::Tracer;
use collector::tracer::heap::{INFO, INUSE_SPACE};

use crate::heap::{Leak, Programs, look, of_type, on_every_rung, settings, start_as};
use crate::{is_emulated, skip, start, start_within};

/// How many walks of the tracer ended so, or at all.
fn walks(recorder: &Recorder, end: Option<&str>) -> f64 {
    let is_own = |series: &Series| {
        let is = |value: &str| series.attributes.iter().any(|(_, own)| own.as_str() == value);
        series.metric == "ebpf.profile.stacks" && is("heap") && end.is_none_or(is)
    };
    recorder.numbers.iter().filter(|(series, _)| is_own(series)).map(|(_, count)| count).sum()
}

/// Functions of a stack, the allocator's first.
fn functions(profile: &Profile, stack: usize) -> Vec<&str> {
    let frames = profile.stacks[stack].iter().map(|frame| &profile.frames[frame.0 as usize]);
    frames.flat_map(|frame| &frame.lines).map(|line| &*line.function).collect()
}

/// Lets the program allocate below its functions, while what walks miss is read as it comes, and looks at what it holds by these functions: bytes,
/// if their stack is whole.
fn whole_by_function(leak: &mut Leak, tracer: &mut dyn Tracer) -> (Recorder, BTreeMap<String, u64>) {
    std::thread::scope(|scope| {
        let work = scope.spawn(|| leak.run("d"));
        while !work.is_finished() {
            tracer.drain(&mut Recorder::default()).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    });
    let (recorder, _) = look(tracer);
    let mut held = BTreeMap::new();
    let profile = of_type(&recorder, INUSE_SPACE.sample_type.value.0).unwrap();
    for sample in &profile.samples {
        let functions = functions(profile, sample.stack.0 as usize);
        let Some(last) = functions.iter().rposition(|name| *name == "below") else { continue };
        let (below, outside) = functions.split_at(last + 1);
        let deep = below.iter().filter(|name| **name == "below").count();
        let by = outside.first().copied().unwrap_or_default();
        let is_whole = deep == 13 && outside.contains(&"main") && outside.last().unwrap().contains("start");
        if is_whole {
            *held.entry(by.to_owned()).or_insert(0) += sample.count;
        }
    }
    (recorder, held)
}

#[test]
fn stacks_without_frame_pointers_are_whole() {
    let programs = Programs::new("without");
    for options in [&["-fomit-frame-pointer"][..], &["-fomit-frame-pointer", "-static"]] {
        let Some(program) = programs.compile("gcc", options) else { return };
        on_every_rung(|rung, begin| {
            let mut leak = Leak::start(&program, None);
            let mut tracer = begin(leak.pid(), 0);
            assert_eq!(tracer.rungs()[1].rung, Some("tables"), "{:?}", tracer.rungs());
            let (recorder, held) = whole_by_function(&mut leak, &mut *tracer);
            let (all, whole) = (walks(&recorder, None), walks(&recorder, Some("whole")));
            println!("{rung} {options:?}: {whole} of {all} whole");
            // An emulated machine makes pages so slowly that most of the first ones find no room.
            let lost = if is_emulated() { walks(&recorder, Some("no room")) } else { 0.0 };
            assert!(all >= 20_000.0 && whole >= 0.99 * (all - lost), "{rung}: {:?}", recorder.numbers);
            for (name, (bytes, _)) in &leak.held {
                let found = held.get(name).copied().unwrap_or_default();
                let is_right = if lost > 0.0 { found <= *bytes } else { found == *bytes };
                assert!(is_right, "{rung} {options:?} {name}: {found} of {bytes}");
            }
            let stats = tracer.stats().unwrap();
            assert_eq!(stats.total_dropped(), 0, "{rung}: {:?}", stats.dropped);
            // Sums are right whichever way a stack was found.
            leak.run("f");
            let (recorder, _) = look(&mut *tracer);
            assert_eq!(recorder.number("ebpf.heap.outstanding", leak.pid(), &[]), 0.0, "{rung}");

            let mut leak = Leak::start(&program, None);
            let mut tracer = begin(leak.pid(), 1 << 10);
            let (_, held) = whole_by_function(&mut leak, &mut *tracer);
            let all: u64 = held.values().sum();
            for (name, share) in [("keep_seventy", 70.0), ("keep_twenty", 20.0), ("keep_ten", 10.0)] {
                let found = held[name] as f64 * 100.0 / all as f64;
                // Some 2000 samples: five times what is off in the mean.
                assert!((found - share).abs() < 5.2, "{rung} {name}: {found} %");
            }
        });
    }
}

/// What was not there when tracing began is missed, and found out from what was copied.
#[test]
fn stacks_of_code_that_is_loaded_later_are_whole() {
    let programs = Programs::new("late");
    let Some(program) = programs.loading("late") else { return };
    on_every_rung(|rung, begin| {
        let mut leak = Leak::start(&program, None);
        let mut tracer = begin(leak.pid(), 0);
        let (recorder, held) = whole_by_function(&mut leak, &mut *tracer);
        let (all, whole) = (walks(&recorder, None), walks(&recorder, Some("whole")));
        println!("{rung}: {whole} of {all} whole: {:?}", recorder.numbers);
        // The first ones come faster than anybody can read them.
        assert!(all >= 20_000.0 && whole >= 0.95 * all, "{rung}: {:?}", recorder.numbers);
        let (bytes, _) = leak.held["keep_late"];
        assert!(held["keep_late"] * 100 >= bytes * 95 && held["keep_late"] <= bytes, "{rung}: {held:?}");
        let pid = leak.pid();
        let stacks = |tracer: &mut dyn Tracer| {
            let (recorder, _) = look(tracer);
            let stats = tracer.stats().unwrap();
            assert_eq!(stats.total_dropped(), 0, "{rung}: {:?}", stats.dropped);
            (stats.map_fill[1].1, recorder.number("ebpf.heap.outstanding", pid, &[]))
        };
        let (before, outstanding) = stacks(&mut *tracer);
        assert!(outstanding >= bytes as f64, "{rung}");
        leak.run("f");
        // Those that only one allocation had make room for others.
        let [_, _, (after, outstanding)] = [(); 3].map(|()| stacks(&mut *tracer));
        assert!(after < before && outstanding < bytes as f64 / 10.0, "{rung}: {before} stacks, then {after}");
    });
}

fn outstanding(recorder: &Recorder, leak: &Leak) -> f64 {
    recorder.number("ebpf.heap.outstanding", leak.pid(), &[])
}

/// As many stacks as user space may keep, and still what is missed is missed once.
#[test]
fn pages_are_made_for_stacks_that_are_not_kept_too() {
    let programs = Programs::new("full");
    let Some(program) = programs.loading("allocator") else { return };
    let mut leak = Leak::start(&program, None);
    // The least there is: 64 stacks, of which 16 are found out in user space.
    let started = start_within(&INFO, leak.pid(), &settings(0), &[("user stacks", "tables")], 0);
    let mut tracer = started.expect("this test runs as root").unwrap();
    leak.run("l");
    let (recorder, _) = look(&mut *tracer);
    let before = outstanding(&recorder, &leak);
    for _ in 0..16 {
        leak.run("n");
        tracer.drain(&mut Recorder::default()).unwrap();
    }
    look(&mut *tracer);
    let mut ends = |command| {
        leak.run(command);
        tracer.drain(&mut Recorder::default()).unwrap();
        let (recorder, _) = look(&mut *tracer);
        let end = |end| walks(&recorder, Some(end));
        (walks(&recorder, None), end("no room"), end("whole"), outstanding(&recorder, &leak))
    };
    for _ in 0..3 {
        let (all, no_room, ..) = ends("n");
        assert_eq!((all, no_room), (1.0, 1.0), "there is new code, and no stack for it");
        let (all, no_room, whole, _) = ends("a");
        assert_eq!((all, no_room, whole), (1.0, 0.0, 1.0), "it is not new any more");
    }
    let (.., held) = ends("a");
    assert_eq!(held - before, leak.held["pages"].0 as f64);
}

/// While something is reallocated nothing is left of its stack, which goes; what cannot be reallocated is still there.
#[test]
fn what_fails_to_be_reallocated_for_long_is_held() {
    let programs = Programs::new("fails");
    let Some(program) = programs.loading("allocator") else { return };
    on_every_rung(|rung, begin| {
        let mut leak = Leak::start(&program, None);
        let mut tracer = begin(leak.pid(), 0);
        leak.run("l");
        look(&mut *tracer);
        leak.run("n");
        let (recorder, _) = look(&mut *tracer);
        let (held, stacks) = (outstanding(&recorder, &leak), tracer.stats().unwrap().map_fill[1].1);
        leak.run("r");
        let [_, _, now] = [(); 3].map(|()| outstanding(&look(&mut *tracer).0, &leak));
        assert_eq!(held - now, leak.held["pages"].0 as f64, "{rung}");
        let fewer = tracer.stats().unwrap().map_fill[1].1;
        assert!(fewer < stacks, "{rung}: {stacks} stacks, then {fewer}");
        leak.run("w");
        let [now, later] = [(); 2].map(|()| outstanding(&look(&mut *tracer).0, &leak));
        assert_eq!((now, later), (held, held), "{rung}");
    });
}

/// What a process has missed at its end is found out from what was its own.
#[test]
fn the_end_of_a_process_is_not_another_ones() {
    if !std::path::Path::new("/proc/sys/kernel/ns_last_pid").exists() {
        let _: Option<()> = skip("numbers of processes cannot be chosen");
        return;
    }
    let programs = Programs::new("end");
    let Some(program) = programs.loading("allocator") else { return };
    on_every_rung(|rung, begin| {
        let mut first = Leak::start(&program, None);
        let mut tracer = begin(first.pid(), 0);
        first.run("l");
        look(&mut *tracer);
        first.run("n");
        look(&mut *tracer);
        first.run("n");
        let pid = first.pid();
        drop(first);
        // Starts are told apart by clock ticks.
        std::thread::sleep(std::time::Duration::from_millis(30));
        let _second = start_as(pid, &program);
        let (_, held) = look(&mut *tracer);
        assert!(held.contains_key("page_0") && held.contains_key("page_1"), "{rung}: {held:?}");
    });
}

#[test]
fn frame_pointers_can_be_asked_for() {
    let programs = Programs::new("asked");
    let Some(program) = programs.usual() else { return };
    let mut leak = Leak::start(&program, None);
    let asked = |rung| {
        start(&INFO, leak.pid(), &settings(0), &[("user stacks", rung)]).expect("this test runs as root")
    };
    assert!(asked("copies").unwrap_err().to_string().contains("copies"));
    let mut tracer = asked("frame-pointers").unwrap();
    assert_eq!(tracer.rungs()[1].rung, Some("frame-pointers"));
    leak.run("b");
    let (recorder, held) = look(&mut *tracer);
    assert_eq!(held, leak.held);
    assert_eq!(walks(&recorder, None), 0.0);
}
