//! System calls, of programs that make known numbers of them.

mod elf;
mod starts;

use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use collector::config::Filter;
use collector::sorted::SortedMap;
use collector::telemetry::Recorder;
use collector::tracer::ladder::Forced;
use collector::tracer::syscalls::{INFO, Settings};
use collector::tracer::{self, Start, Tracer, cause};
use elf::{Code, Reg, Running};

use super::{fewer_if_emulated, is_emulated, kernel_has, skip, start};

const GETPPID: i32 = 110;
const RUNGS: [(&str, (u8, u8)); 3] = [("tp_btf", (5, 11)), ("raw_tp", (5, 8)), ("tracepoint", (5, 8))];

fn settings(settings: Settings) -> tracer::Settings {
    tracer::Settings { syscalls: settings, ..tracer::Settings::default() }
}

/// How many nanoseconds programs sleep whose last call must not come before all others are made.
fn nap() -> u64 {
    if is_emulated() { 900_000_000 } else { 300_000_000 }
}

/// Every call is timed.
fn exact() -> tracer::Settings {
    settings(Settings { every_duration: true, ..Settings::default() })
}

/// A tracer of one process on a rung.
fn trace(pid: u32, settings: &tracer::Settings, (rung, since): (&str, (u8, u8))) -> Option<Box<dyn Tracer>> {
    let started = start(&INFO, pid, settings, &[("system calls", rung)])?;
    if !kernel_has(since) {
        assert!(started.is_err(), "{rung} works on a kernel that should not have it");
        return skip(&format!("{rung} needs Linux {}.{}", since.0, since.1));
    }
    let tracer = started.unwrap();
    assert_eq!(tracer.rungs()[0].rung, Some(rung));
    Some(tracer)
}

/// A tracer of one process on the rung that the kernel serves best.
fn trace_best(pid: u32) -> Option<Box<dyn Tracer>> {
    start(&INFO, pid, &exact(), &[]).map(|started| started.unwrap())
}

/// What is left of the calls of a process, by name.
fn calls(recorder: &Recorder, pid: u32) -> SortedMap<String, u64> {
    let of = recorder.numbers.iter().filter(|(s, _)| s.metric == "ebpf.syscall.calls" && s.pid == Some(pid));
    of.map(|(series, n)| (series.attributes[0].1.clone(), *n as u64)).collect()
}

/// Its errors, by name and error.
fn errors(recorder: &Recorder, pid: u32) -> SortedMap<(String, String), u64> {
    let of = recorder.numbers.iter().filter(|(s, _)| s.metric == "ebpf.syscall.errors" && s.pid == Some(pid));
    of.map(|(series, n)| ((series.attributes[0].1.clone(), series.attributes[1].1.clone()), *n as u64))
        .collect()
}

fn named<const N: usize>(calls: [(&str, u64); N]) -> SortedMap<String, u64> {
    calls.into_iter().map(|(name, n)| (name.to_owned(), n)).collect()
}

fn dropped(tracer: &mut dyn Tracer) -> SortedMap<&'static str, u64> {
    tracer.stats().unwrap().dropped.into_iter().filter(|(_, n)| *n > 0).collect()
}

fn collected(tracer: &mut dyn Tracer) -> Recorder {
    let mut recorder = Recorder::default();
    tracer.collect(&mut recorder).unwrap();
    recorder
}

#[test]
fn calls_errors_and_durations_are_those_of_the_program() {
    let mut code = Code::of_64_bits();
    code.gate();
    code.times(1000, |c| _ = c.call(GETPPID));
    // close and getpgid of nothing, and calls that do not exist.
    code.times(300, |c| _ = c.set(Reg::Di, -1).call(3)).times(20, |c| _ = c.set(Reg::Di, -1).call(121));
    code.times(7, |c| _ = c.call(1000)).times(3, |c| _ = c.call(-1));
    code.times(5, |c| _ = c.sleep()).exit(231);
    for rung in RUNGS {
        let mut program = Running::start(&code, 20_000_000).unwrap();
        program.wait_for_gate();
        let pid = program.pid();
        let Some(mut tracer) = trace(pid, &exact(), rung) else { continue };
        program.wait_until_asleep();
        let began = Instant::now();
        program.let_on();
        program.finish();
        let took = began.elapsed();
        let recorder = collected(&mut *tracer);
        let expected = [
            ("read", 1),
            ("getppid", 1000),
            ("close", 300),
            ("getpgid", 20),
            ("1000", 7),
            ("invalid", 3),
            ("nanosleep", 5),
            ("exit_group", 1),
        ];
        assert_eq!(calls(&recorder, pid), named(expected), "{rung:?}");
        let failed = [
            ("close", "EBADF", 300),
            ("getpgid", "ESRCH", 20),
            ("1000", "ENOSYS", 7),
            ("invalid", "ENOSYS", 3),
        ];
        let failed = failed.map(|(call, error, n)| ((call.to_owned(), error.to_owned()), n));
        assert_eq!(errors(&recorder, pid), SortedMap::from(failed), "{rung:?}");
        // The gate's read began before.
        assert_eq!(dropped(&mut *tracer), SortedMap::from([(cause::BEGIN_NOT_SEEN, 1)]), "{rung:?}");
        for (call, n) in [("getppid", 1000), ("close", 300), ("1000", 7), ("invalid", 3), ("nanosleep", 5)] {
            let durations = recorder.histogram("ebpf.syscall.duration", pid, &[("ebpf.syscall.name", call)]);
            assert_eq!(durations.count(), n, "{call} {rung:?}");
        }
        let slept = recorder.histogram("ebpf.syscall.duration", pid, &[("ebpf.syscall.name", "nanosleep")]);
        assert!((0.1..=took.as_secs_f64()).contains(&slept.sum_seconds()), "{slept:?} {took:?}");
        let first_ends = 2f64.powf(f64::from(slept.offset() + 1) / 4.0);
        assert!(
            (0.02..0.1).contains(&first_ends) && slept.quantile(1.0) / 2f64.powf(0.25) < took.as_secs_f64()
        );
        assert_eq!(recorder.names.get(&pid).unwrap().split(|b| *b == 0).next().unwrap()[..6], *b"calls-");
    }
}

#[test]
fn sampled_durations_leave_calls_exact() {
    let mut code = Code::of_64_bits();
    let made = fewer_if_emulated(400_000);
    code.gate().times(made, |c| _ = c.call(GETPPID)).exit(231);
    for rung in RUNGS {
        // One in ten, and by the rate.
        for one_in in [10, 1] {
            let mut program = Running::start(&code, 0).unwrap();
            program.wait_for_gate();
            let pid = program.pid();
            let settings = if one_in > 1 { exact() } else { tracer::Settings::default() };
            let Some(mut tracer) = trace(pid, &settings, rung) else { continue };
            tracer.set_sampling(one_in).unwrap();
            program.wait_until_asleep();
            program.let_on();
            program.finish();
            let recorder = collected(&mut *tracer);
            assert_eq!(
                calls(&recorder, pid),
                named([("read", 1), ("getppid", made.into()), ("exit_group", 1)]),
                "{rung:?}"
            );
            let durations = recorder.histogram("ebpf.syscall.duration", pid, &[]);
            let stand_for = durations.count() as f64 / f64::from(made);
            eprintln!("{rung:?} one in {one_in}: {:.1} % of the calls", stand_for * 100.0);
            assert!((0.8..1.2).contains(&stand_for), "{rung:?} {one_in} {stand_for}");
            assert_eq!(dropped(&mut *tracer), SortedMap::new(), "{rung:?}");
        }
    }
}

#[test]
fn sampled_calls_stand_for_wanted_calls_alone() {
    const ONE_IN: u32 = 10;
    const MADE: u64 = 300;
    let mut code = Code::of_64_bits();
    // sched_yield: between any two of its calls, others on the CPU make thousands.
    code.gate().times(MADE as u32, |c| _ = c.call(24)).exit(231);
    let mut others = Code::of_64_bits();
    others.gate().times(i32::MAX as u32, |c| _ = c.call(GETPPID)).exit(231);
    for rung in RUNGS {
        let mut program = Running::start(&code, 0).unwrap();
        program.wait_for_gate();
        let pid = program.pid();
        let Some(mut tracer) = trace(pid, &exact(), rung) else { continue };
        let mut noise = [0; 2].map(|_| Running::start(&others, 0).unwrap());
        noise.iter_mut().for_each(|other| {
            other.wait_for_gate();
            other.let_on();
        });
        tracer.set_sampling(ONE_IN).unwrap();
        program.wait_until_asleep();
        program.let_on();
        program.finish();
        drop(noise);
        let recorder = collected(&mut *tracer);
        if is_incomplete(&mut *tracer, rung.0) {
            continue;
        }
        assert_eq!(*calls(&recorder, pid).get("sched_yield").unwrap(), MADE, "{rung:?}");
        let stand_for = recorder.histogram("ebpf.syscall.duration", pid, &[]).count();
        // On each CPU, those since the last that was timed are not told of yet: less than two gaps.
        let untold = MADE.checked_sub(stand_for);
        let most = u64::from(2 * ONE_IN) * std::thread::available_parallelism().unwrap().get() as u64;
        eprintln!("{rung:?}: {untold:?} of {MADE}, at most {most}");
        assert!(untold.is_some_and(|untold| untold < most), "{rung:?}: {stand_for} of {MADE}");
    }
}

/// A tracer of a process and its children.
fn trace_family(pid: u32, memory: usize, settings: &tracer::Settings, rung: &str) -> Box<dyn Tracer> {
    let forced = Forced(SortedMap::from([("system calls".to_owned(), rung.to_owned())]));
    let filter = Filter { pids: vec![pid], children: true, ..Filter::default() };
    let start = Start { filter: &filter, settings, memory, forced: &forced, target: &RunningTarget::new() };
    (INFO.start)(&start).unwrap()
}

/// Forks so many children, that run `body` and end, and waits for each.
fn family(children: u32, body: impl Fn(&mut Code)) -> Code {
    let mut code = Code::of_64_bits();
    code.gate();
    for _ in 0..children {
        code.call(57).if_zero(|c| {
            body(c);
            c.exit(60);
        });
    }
    for _ in 0..children {
        code.set(Reg::Di, -1).set(Reg::Si, 0).set(Reg::D, 0);
        code.call(61);
    }
    code.exit(231);
    code
}

/// Whether the kernel has left out runs, which the tracer then says. From 7.2 on, programs at system calls can be preempted,
/// and what other threads call on that CPU meanwhile is not seen. A program at the classic tracepoint is not, but is left out while a
/// thread on that CPU is preempted within `bpf_disable_instrumentation`, in which user space changes maps: a few calls.
fn is_incomplete(tracer: &mut dyn Tracer, rung: &str) -> bool {
    let skipped = dropped(tracer).get(cause::SKIPPED).copied().unwrap_or(0);
    let is_possible = kernel_has((7, 2)) && (rung != "tracepoint" || skipped < 10);
    assert!(skipped == 0 || is_possible, "{rung}: {skipped} skipped");
    if skipped > 0 {
        eprintln!("{rung}: the kernel left out {skipped} runs");
    }
    skipped > 0
}

/// Sums over all processes.
fn all_calls(recorder: &Recorder) -> SortedMap<String, u64> {
    let mut sums = SortedMap::new();
    for (series, n) in recorder.numbers.iter().filter(|(s, _)| s.metric == "ebpf.syscall.calls") {
        *sums.entry(series.attributes[0].1.clone()).or_insert(0) += *n as u64;
    }
    sums
}

#[test]
fn processes_that_live_shortly_and_threads_are_counted() {
    const CHILDREN: u32 = 40;
    let forks = family(CHILDREN, |c| _ = c.times(100, |c| _ = c.call(GETPPID)));
    // Threads need no stack. They are given time, as nobody waits for them.
    let mut threads = Code::of_64_bits();
    threads.gate();
    for _ in 0..CHILDREN {
        threads.set(Reg::Di, 0x5_0f00).set(Reg::Si, 0).set(Reg::D, 0).call(56);
        threads.if_zero(|c| _ = c.times(100, |c| _ = c.call(GETPPID)).exit(60));
    }
    threads.sleep().exit(231);
    let all = u64::from(CHILDREN);
    let of_forks = [
        ("read", 1),
        ("fork", all),
        ("wait4", all),
        ("getppid", all * 100),
        ("exit", all),
        ("exit_group", 1),
    ];
    let of_threads = [
        ("read", 1),
        ("clone", all),
        ("nanosleep", 1),
        ("getppid", all * 100),
        ("exit", all),
        ("exit_group", 1),
    ];
    for (rung, since) in RUNGS {
        for (code, expected) in [(&forks, of_forks), (&threads, of_threads)] {
            let mut program = Running::start(code, nap()).unwrap();
            program.wait_for_gate();
            if trace(program.pid(), &exact(), (rung, since)).is_none() {
                continue;
            }
            let mut tracer = trace_family(program.pid(), 8 << 20, &exact(), rung);
            program.wait_until_asleep();
            program.let_on();
            program.finish();
            let calls = all_calls(&collected(&mut *tracer));
            if is_incomplete(&mut *tracer, rung) {
                let most = named(expected);
                assert!(calls.iter().all(|(name, n)| most.get(name) >= Some(n)), "{rung}: {calls:?}");
                continue;
            }
            assert_eq!(calls, named(expected), "{rung}");
            assert_eq!(dropped(&mut *tracer), SortedMap::from([(cause::BEGIN_NOT_SEEN, 1)]), "{rung}");
        }
    }
}

#[test]
fn more_busy_processes_than_cpus_lose_no_call() {
    let made = fewer_if_emulated(1_000_000);
    let mut code = Code::of_64_bits();
    code.gate().times(made, |c| _ = c.call(GETPPID)).exit(231);
    let run = |trace: &dyn Fn(u32) -> Option<Box<dyn Tracer>>| {
        let mut programs: Vec<_> = (0..4).map(|_| Running::start(&code, 0).unwrap()).collect();
        programs.iter_mut().for_each(Running::wait_for_gate);
        let pids: Vec<u32> = programs.iter().map(Running::pid).collect();
        let mut tracer = trace(pids[0])?;
        let rung = tracer.rungs()[0].rung.unwrap();
        tracer.set_filter(&Filter { pids: pids.clone(), ..Filter::default() }).unwrap();
        programs.iter().for_each(Running::wait_until_asleep);
        programs.iter_mut().for_each(Running::let_on);
        programs.into_iter().for_each(Running::finish);
        let recorder = collected(&mut *tracer);
        let counted: Vec<u64> =
            pids.iter().map(|pid| *calls(&recorder, *pid).get("getppid").unwrap()).collect();
        let of_process = |pid: &u32| recorder.histogram("ebpf.syscall.duration", *pid, &[]).count();
        let timed: Vec<u64> = pids.iter().map(of_process).collect();
        Some((rung, is_incomplete(&mut *tracer, rung), counted, timed))
    };
    for rung in RUNGS {
        let Some((rung, incomplete, counted, _)) = run(&|pid| trace(pid, &exact(), rung)) else { continue };
        eprintln!("{rung}: {counted:?} of {made}");
        assert!(incomplete || counted == [u64::from(made); 4], "{rung}: {counted:?}");
    }
    // Whatever the kernel, the rung that is chosen misses none.
    let Some((rung, incomplete, counted, timed)) = run(&trace_best) else { return };
    assert_eq!((incomplete, &counted[..]), (false, &[u64::from(made); 4][..]), "{rung}");
    assert_eq!(timed, counted, "{rung}");
}

#[test]
fn what_finds_no_room_is_counted() {
    const CHILDREN: u32 = 16;
    let code = family(CHILDREN, |c| _ = c.call_all(600, 999));
    for (rung, since) in RUNGS {
        let mut program = Running::start(&code, 0).unwrap();
        program.wait_for_gate();
        if trace(program.pid(), &exact(), (rung, since)).is_none() {
            continue;
        }
        // The smallest table.
        let mut tracer = trace_family(program.pid(), 0, &exact(), rung);
        program.wait_until_asleep();
        program.let_on();
        program.finish();
        let recorder = collected(&mut *tracer);
        let counted: u64 = all_calls(&recorder).values().sum();
        let lost = dropped(&mut *tracer).get(cause::TABLE_FULL).copied().unwrap_or(0);
        let mut made = u64::from(CHILDREN) * (400 + 3) + 2;
        if is_incomplete(&mut *tracer, rung) {
            assert!(counted + lost <= made, "{rung}: {counted} counted, {lost} lost");
            made = counted + lost;
        } else {
            assert!(lost > 1000, "{rung}: {lost}");
        }
        assert_eq!(counted + lost, made, "{rung}: {counted} counted, {lost} lost");
        let stats = tracer.stats().unwrap();
        assert_eq!((stats.hits, stats.map_fill[0].1), (made, stats.map_fill[0].2));
    }
}

#[test]
fn calls_that_start_again_have_not_failed() {
    use rustix::process::Signal;
    let mut code = Code::of_64_bits();
    code.handle_usr1().gate().gate().sleep().exit(231);
    for rung in RUNGS {
        let mut program = Running::start(&code, nap()).unwrap();
        program.wait_for_gate();
        let pid = program.pid();
        let Some(mut tracer) = trace(pid, &exact(), rung) else { continue };
        program.wait_until_asleep();
        program.let_on();
        program.wait_for_gate();
        for _ in 0..3 {
            program.wait_until_asleep();
            program.signal(Signal::USR1);
            // The handler has run when its signal is no longer pending and the program waits again.
            std::thread::sleep(Duration::from_millis(30));
        }
        program.let_on();
        std::thread::sleep(Duration::from_nanos(nap() / 6));
        program.signal(Signal::STOP);
        program.wait_until("T");
        program.signal(Signal::CONT);
        program.finish();
        let recorder = collected(&mut *tracer);
        let mut calls = calls(&recorder, pid);
        let restarts = calls.remove("restart_syscall").unwrap_or(0);
        assert!((1..=2).contains(&restarts), "{rung:?}: {restarts}");
        let expected = [("read", 5), ("write", 1), ("rt_sigreturn", 3), ("nanosleep", 1), ("exit_group", 1)];
        assert_eq!(calls, named(expected), "{rung:?}");
        assert_eq!(errors(&recorder, pid), SortedMap::new(), "{rung:?}");
    }
}

#[test]
fn calls_of_32_bit_programs_have_their_names() {
    let mut code = Code::of_32_bits();
    // getppid, and close of nothing.
    code.gate().times(500, |c| _ = c.call(64)).times(20, |c| _ = c.set(Reg::B, -1).call(6)).exit(1);
    for rung in RUNGS {
        let Some(mut program) = Running::start(&code, 0) else {
            skip::<()>("this kernel runs no 32-bit programs");
            return;
        };
        program.wait_for_gate();
        let pid = program.pid();
        let Some(mut tracer) = trace(pid, &exact(), rung) else { continue };
        program.wait_until_asleep();
        program.let_on();
        program.finish();
        let recorder = collected(&mut *tracer);
        let expected = [("read", 1), ("getppid", 500), ("close", 20), ("exit", 1)];
        assert_eq!(calls(&recorder, pid), named(expected), "{rung:?}");
        let failed = (("close".to_owned(), "EBADF".to_owned()), 20);
        assert_eq!(errors(&recorder, pid), SortedMap::from([failed]), "{rung:?}");
    }
}

#[test]
fn calls_of_both_sorts_in_one_program_have_their_names() {
    if Running::start(Code::of_32_bits().exit(1), 0).is_none() {
        skip::<()>("this kernel runs no 32-bit programs");
        return;
    }
    let mut code = Code::of_64_bits();
    code.gate().times(300, |c| _ = c.call(GETPPID).call_compat(64));
    // The same number, 6, is lstat here and close there; close of nothing, and what is no call of either.
    code.times(20, |c| _ = c.set(Reg::B, -1).call_compat(6).set(Reg::Di, 0).call(6));
    code.times(7, |c| _ = c.call_compat(900)).exit(231);
    for rung in RUNGS {
        let mut program = Running::start(&code, 0).unwrap();
        program.wait_for_gate();
        let pid = program.pid();
        let Some(mut tracer) = trace(pid, &exact(), rung) else { continue };
        program.wait_until_asleep();
        program.let_on();
        program.finish();
        let recorder = collected(&mut *tracer);
        let expected =
            [("read", 1), ("getppid", 600), ("close", 20), ("lstat", 20), ("900", 7), ("exit_group", 1)];
        assert_eq!(calls(&recorder, pid), named(expected), "{rung:?}");
        let failed = [("close", "EBADF", 20), ("lstat", "EFAULT", 20), ("900", "ENOSYS", 7)];
        let failed = failed.map(|(call, error, n)| ((call.to_owned(), error.to_owned()), n));
        assert_eq!(errors(&recorder, pid), SortedMap::from(failed), "{rung:?}");
    }
}

#[test]
fn filters_change_and_pauses_pass_while_programs_run() {
    let mut code = Code::of_64_bits();
    for _ in 0..4 {
        code.gate().times(100, |c| _ = c.call(GETPPID));
    }
    code.gate().exit(231);
    for rung in RUNGS {
        let mut programs = [0; 2].map(|_| Running::start(&code, 0).unwrap());
        programs.iter_mut().for_each(Running::wait_for_gate);
        let pids = [programs[0].pid(), programs[1].pid()];
        let Some(mut tracer) = trace(pids[0], &exact(), rung) else { continue };
        let mut recorder = Recorder::default();
        let mut run = |tracer: &mut dyn Tracer| {
            for program in &mut programs {
                program.wait_until_asleep();
                program.let_on();
                program.wait_for_gate();
                program.wait_until_asleep();
            }
            tracer.collect(&mut recorder).unwrap();
            pids.map(|pid| calls(&recorder, pid).get("getppid").copied().unwrap_or(0))
        };
        assert_eq!(run(&mut *tracer), [100, 0], "{rung:?}");
        tracer.set_filter(&Filter { pids: vec![pids[1]], ..Filter::default() }).unwrap();
        assert_eq!(run(&mut *tracer), [100, 100], "{rung:?}");
        crate::pause(&mut *tracer);
        assert!(!tracer.is_running());
        assert_eq!(run(&mut *tracer), [100, 100], "{rung:?}");
        tracer.resume().unwrap();
        assert!(tracer.is_running());
        assert_eq!(run(&mut *tracer), [100, 200], "{rung:?}");
        drop(tracer);
    }
}

#[test]
fn only_chosen_calls_and_durations_are_recorded() {
    let mut code = Code::of_64_bits();
    code.gate().times(50, |c| _ = c.call(GETPPID)).times(2, |c| _ = c.sleep()).exit(231);
    let calls_only = Settings { calls: vec!["nanosleep".into(), "exit_group".into()], ..Settings::default() };
    let slow_only = Settings { minimum: Duration::from_millis(15), ..Settings::default() };
    for rung in RUNGS {
        for (chosen, expected) in [
            (calls_only.clone(), named([("nanosleep", 2), ("exit_group", 1)])),
            (slow_only.clone(), named([("read", 1), ("getppid", 50), ("nanosleep", 2), ("exit_group", 1)])),
        ] {
            let mut program = Running::start(&code, 20_000_000).unwrap();
            program.wait_for_gate();
            let pid = program.pid();
            let chosen = settings(Settings { every_duration: true, ..chosen });
            let Some(mut tracer) = trace(pid, &chosen, rung) else { continue };
            program.wait_until_asleep();
            program.let_on();
            program.finish();
            let recorder = collected(&mut *tracer);
            assert_eq!(calls(&recorder, pid), expected, "{rung:?}");
            let durations = recorder.histogram("ebpf.syscall.duration", pid, &[]);
            assert_eq!(durations.count(), 2, "{rung:?}");
        }
    }
}

#[test]
fn slow_calls_are_spans_and_those_that_find_no_room_are_counted() {
    let mut code = Code::of_64_bits();
    code.gate().times(100, |c| _ = c.call(GETPPID)).times(5, |c| _ = c.sleep());
    code.set(Reg::Di, -1).call(3).exit(231);
    let mut many = Code::of_64_bits();
    let made = fewer_if_emulated(100_000);
    many.gate().times(made, |c| _ = c.call(GETPPID)).exit(231);
    let above = |threshold| settings(Settings { span_threshold: Some(threshold), ..Settings::default() });
    for rung in RUNGS {
        let run = |code: &Code, threshold| {
            let mut program = Running::start(code, 20_000_000).unwrap();
            program.wait_for_gate();
            let mut tracer = trace(program.pid(), &above(threshold), rung)?;
            program.wait_until_asleep();
            program.let_on();
            let pid = program.pid();
            program.finish();
            let mut recorder = collected(&mut *tracer);
            tracer.drain(&mut recorder).unwrap();
            Some((pid, recorder, tracer.stats().unwrap()))
        };
        let Some((pid, recorder, stats)) = run(&code, Duration::from_millis(15)) else { continue };
        assert_eq!((recorder.spans.len(), stats.produced, stats.received), (5, 5, 5), "{rung:?}");
        for span in &recorder.spans {
            assert_eq!((span.name, span.pid, span.text.as_deref()), ("ebpf.syscall", Some(pid), None));
            assert_eq!(span.attribute("ebpf.syscall.name"), Some("nanosleep"));
            assert!((20_000_000..2_000_000_000).contains(&(span.boot_nanos.1 - span.boot_nanos.0)));
        }
        let (_, recorder, _) = run(&code, Duration::ZERO).unwrap();
        let closed =
            recorder.spans.iter().find(|s| s.attribute("ebpf.syscall.name") == Some("close")).unwrap();
        assert_eq!((recorder.spans.len(), closed.text.as_deref()), (106, Some("EBADF")), "{rung:?}");
        let (_, recorder, stats) = run(&many, Duration::ZERO).unwrap();
        let ring_full = stats.dropped.iter().find(|(name, _)| *name == cause::RING_FULL).unwrap().1;
        let made = u64::from(made);
        assert_eq!((stats.produced, stats.received + ring_full), (made, made), "{rung:?}");
        assert!(ring_full > 0 && recorder.spans.len() as u64 == stats.received);
        // What found no room had less than a record's bytes left.
        assert!(stats.ring_high_water.share() > 0.9 && stats.ring_high_water.share() <= 1.0, "{stats:?}");
    }
}

#[test]
fn threads_that_share_a_place_have_their_own_durations() {
    let mut waits = Code::of_64_bits();
    let made = fewer_if_emulated(2_000_000);
    let both = |code: &mut Code| _ = code.gate().times(made, |c| _ = c.call(GETPPID)).exit(231);
    both(waits.gate().gate());
    let mut sleeps = Code::of_64_bits();
    both(sleeps.gate().times(5, |c| _ = c.sleep()));
    let mut first = Running::start(&waits, 0).unwrap();
    first.wait_for_gate();
    // Numbers are given in turn, so one that is the same in its lowest twelve bits comes within 4096 processes, unless somebody
    // else gets it; sooner, where the kernel can be told where to go on.
    let _ = std::fs::write("/proc/sys/kernel/ns_last_pid", (first.pid() + 4090).to_string());
    let mut second = None;
    for _ in 0..3 * 4096 {
        let program = Running::start(&sleeps, 20_000_000).unwrap();
        if program.pid() % 4096 == first.pid() % 4096 {
            second = Some(program);
            break;
        }
    }
    let Some(mut second) = second else {
        skip::<()>("no two processes with numbers alike");
        return;
    };
    second.wait_for_gate();
    let Some(mut tracer) = trace_best(first.pid()) else { return };
    let pids = [first.pid(), second.pid()];
    tracer.set_filter(&Filter { pids: pids.to_vec(), ..Filter::default() }).unwrap();
    first.wait_until_asleep();
    second.wait_until_asleep();
    // The first waits at its second gate, and its place is taken.
    first.let_on();
    first.wait_for_gate();
    first.wait_until_asleep();
    second.let_on();
    second.wait_for_gate();
    first.let_on();
    first.wait_for_gate();
    // Both want the place at the same time, again and again.
    first.let_on();
    second.let_on();
    first.finish();
    second.finish();
    let recorder = collected(&mut *tracer);
    for pid in pids {
        let durations = recorder.histogram("ebpf.syscall.duration", pid, &[("ebpf.syscall.name", "getppid")]);
        assert_eq!(durations.count(), u64::from(made));
    }
    let slept = recorder.histogram("ebpf.syscall.duration", pids[1], &[("ebpf.syscall.name", "nanosleep")]);
    assert_eq!(slept.count(), 5);
    assert!((0.1..2.0).contains(&slept.sum_seconds()), "{slept:?}");
    let waited = recorder.histogram("ebpf.syscall.duration", pids[0], &[("ebpf.syscall.name", "read")]);
    assert!(waited.count() == 2 && waited.sum_seconds() > 0.1, "{waited:?}");
    assert_eq!(dropped(&mut *tracer), SortedMap::from([(cause::BEGIN_NOT_SEEN, 2)]));
}
