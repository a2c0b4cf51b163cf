//! The TCP tracer, against processes whose connections are known.

mod failures;
mod node;
mod rungs;
mod traffic;

use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use collector::config::Filter;
use collector::telemetry::{Item, Recorder};
use collector::tracer::ladder::Forced;
use collector::tracer::{Settings, Start, Tracer, tcp};

use super::kernel_has;

/// Starts the tracer for some processes.
fn trace(pids: &[u32], settings: tcp::Settings, memory: usize, rungs: &[(&str, &str)]) -> Box<dyn Tracer> {
    let forced = rungs.iter().map(|(what, rung)| ((*what).to_owned(), (*rung).to_owned())).collect();
    let started = (tcp::INFO.start)(&Start {
        filter: &Filter { pids: pids.to_vec(), ..Filter::default() },
        settings: &Settings { tcp: settings, ..Settings::default() },
        memory,
        forced: &Forced(forced),
        target: &RunningTarget::new(),
    });
    started.unwrap_or_else(|error| panic!("{error}"))
}

/// As [`trace`], as it is by default.
fn trace_all(pids: &[u32]) -> Box<dyn Tracer> {
    trace(pids, tcp::Settings { spans_per_second: u32::MAX, ..tcp::Settings::default() }, 8 << 20, &[])
}

/// Runs that the kernel left out, as the tracer says: from 6.13 on it may preempt a program, and leaves out those of other threads
/// on the CPU meanwhile. Each may cost a connection.
fn skipped(tracer: &mut dyn Tracer) -> u64 {
    let skipped = dropped(tracer, "skipped by the kernel");
    if kernel_has((6, 13)) { skipped } else { 0 }
}

/// What was lost for a cause.
fn dropped(tracer: &mut dyn Tracer, cause: &str) -> u64 {
    let dropped = tracer.stats().unwrap().dropped;
    dropped.iter().find(|(name, _)| *name == cause).map(|(_, n)| *n).unwrap()
}

/// Collects until so many connections of a process have ended. The kernel ends them when it likes.
fn collect_ends(tracer: &mut dyn Tracer, recorder: &mut Recorder, ends: &[(u32, u64)]) {
    let start = Instant::now();
    loop {
        tracer.collect(recorder).unwrap();
        let seen = |recorder: &Recorder, pid| recorder.number("ebpf.tcp.connections", pid, &[]);
        if ends.iter().all(|(pid, n)| seen(recorder, *pid) >= *n as f64) {
            break;
        }
        let left_out = skipped(tracer);
        let least = |n: u64| n.saturating_sub(left_out) as f64;
        if start.elapsed() > Duration::from_secs(10)
            && ends.iter().map(|(pid, n)| (*pid, least(*n))).all(|(pid, least)| seen(recorder, pid) >= least)
        {
            break;
        }
        let stats = tracer.stats().unwrap();
        assert!(start.elapsed() < Duration::from_secs(20), "{ends:?}: {stats:?} in {:#?}", recorder.numbers);
        std::thread::sleep(Duration::from_millis(20));
    }
    // What ended while the window was taken out.
    tracer.collect(recorder).unwrap();
    tracer.collect(recorder).unwrap();
    let skipped = skipped(tracer);
    for (pid, n) in ends {
        let seen = recorder.number("ebpf.tcp.connections", *pid, &[]) as u64;
        assert!((n.saturating_sub(skipped)..=*n).contains(&seen), "{seen} of {n} of {pid}");
    }
}

/// Bytes sent and received.
fn bytes(recorder: &Recorder, pid: u32) -> (u64, u64) {
    let of = |direction| {
        let attributes = [("network.io.direction", direction), ("network.transport", "tcp")];
        recorder.number("process.network.io", pid, &attributes) as u64
    };
    (of("transmit"), of("receive"))
}

/// Spans of a process.
fn spans(recorder: &Recorder, pid: u32) -> Vec<&Item> {
    recorder.spans.iter().filter(|span| span.pid == Some(pid)).collect()
}

/// One of the counters that the thread's network namespace keeps.
fn counter(file: &str, group: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(group)).collect();
    let at = lines[0].split_whitespace().position(|word| word == name).unwrap();
    lines[1].split_whitespace().nth(at).unwrap().parse().unwrap()
}
