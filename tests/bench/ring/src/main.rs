//! Reading a BPF ring buffer: this project's reader beside libbpf's and aya's, in one run.
//!
//! A program writes 64-byte records on another CPU; the time of the reader alone is taken. Needs root.
//!
//!     cargo run --release [ROUNDS]

mod peers;
mod program;

use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::{Duration, Instant};

use peers::{Aya, Libbpf, Ours, Peer, Read, Result, Wait};
use program::{FORCE_WAKEUP, NO_WAKEUP, Writer};

/// A way to use a ring.
struct Case {
    name: &'static str,
    /// Records that are written before each read, with the flags of their commit.
    batch: u64,
    flags: u64,
    /// How often that is done in a round.
    repeats: u32,
    wait: Wait,
}

const CASES: [Case; 6] = [
    Case {
        name: "timer: 1000 records, no wake-up",
        batch: 1000,
        flags: NO_WAKEUP,
        repeats: 100,
        wait: Wait::No,
    },
    Case { name: "epoll says readable: 64 records", batch: 64, flags: 0, repeats: 500, wait: Wait::Readable },
    Case {
        name: "epoll says readable: 1 record",
        batch: 1,
        flags: FORCE_WAKEUP,
        repeats: 2000,
        wait: Wait::Readable,
    },
    Case { name: "woken: 64 records", batch: 64, flags: 0, repeats: 500, wait: Wait::Asleep },
    Case { name: "woken: 1 record", batch: 1, flags: FORCE_WAKEUP, repeats: 1000, wait: Wait::Asleep },
    Case { name: "full ring of 256 KiB", batch: u64::MAX, flags: NO_WAKEUP, repeats: 30, wait: Wait::No },
];

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(15), |n| n.parse::<usize>())?.max(1);
    pin_to(0)?;
    let mut peers: [(Box<dyn Peer>, Writer); 3] = [
        Writer::new().and_then(|w| Ok((Box::new(Ours::new(w.ring())?) as Box<dyn Peer>, w)))?,
        Writer::new().and_then(|w| Ok((Box::new(Libbpf::new(w.ring())?) as Box<dyn Peer>, w)))?,
        Writer::new().and_then(|w| Ok((Box::new(Aya::new(w.ring())?) as Box<dyn Peer>, w)))?,
    ];
    let clock = clock_cost();
    println!("{rounds} rounds; ns a record, median (least to most); ratio to libbpf's median");
    for case in &CASES {
        let mut results = [const { Vec::new() }; 3];
        for round in 0..rounds {
            // Whoever comes first in a round has no advantage from it in the next.
            for turn in 0..peers.len() {
                let who = (round + turn) % peers.len();
                let (peer, writer) = &mut peers[who];
                let ns = if case.wait == Wait::Asleep {
                    measure_woken(case, peer.as_mut(), writer)?
                } else {
                    measure_alone(case, peer.as_mut(), writer, clock)?
                };
                results[who].push(ns);
            }
        }
        println!("\n{}", case.name);
        for samples in &mut results {
            samples.sort_by(f64::total_cmp);
        }
        let libbpf = results[1][rounds / 2];
        for ((peer, _), samples) in peers.iter().zip(&results) {
            let median = samples[rounds / 2];
            println!(
                "  {:8} {median:8.2} ns ({:.2} to {:.2})  {:6.1} M/s  ratio {:.2}",
                peer.name(),
                samples[0],
                samples[rounds - 1],
                1000.0 / median,
                median / libbpf,
            );
        }
    }
    Ok(())
}

/// Nanoseconds a record of the reader's time in one round: records are written, then read, so nobody sleeps.
fn measure_alone(case: &Case, peer: &mut dyn Peer, writer: &Writer, clock: Duration) -> Result<f64> {
    let (mut time, mut records) = (Duration::ZERO, 0);
    for _ in 0..case.repeats {
        writer.write(case.batch, case.flags)?;
        let start = Instant::now();
        if case.wait == Wait::Readable {
            peer.wait(case.wait)?;
        }
        let read = peer.drain(case.wait);
        time += start.elapsed().saturating_sub(clock);
        // The program runs to its end before the call returns, so all records are there.
        let wanted = if case.batch == u64::MAX { read.records } else { case.batch };
        read.check(peer.name(), wanted)?;
        records += read.records;
    }
    Ok(time.as_nanos() as f64 / records as f64)
}

/// Nanoseconds a record of the reader's CPU time in one round, with the kernel's part of falling asleep and waking: a thread on
/// another CPU writes the next batch once the last was read.
fn measure_woken(case: &Case, peer: &mut dyn Peer, writer: &Writer) -> Result<f64> {
    let batches_read = AtomicU32::new(0);
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            pin_to(writer.cpu())?;
            for batch in 0..case.repeats {
                while batches_read.load(Acquire) < batch {
                    if failed.load(Acquire) {
                        return Ok(());
                    }
                    std::hint::spin_loop();
                }
                writer.write(case.batch, case.flags)?;
            }
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        });
        let mut read_all = || -> Result<f64> {
            let start = cpu_time();
            for batch in 1..=case.repeats {
                let mut read = Read::default();
                while read.records < case.batch {
                    peer.wait(case.wait)?;
                    let part = peer.drain(case.wait);
                    read.records += part.records;
                    read.sum += part.sum;
                }
                read.check(peer.name(), case.batch)?;
                batches_read.store(batch, Release);
            }
            Ok((cpu_time() - start).as_nanos() as f64 / (u64::from(case.repeats) * case.batch) as f64)
        };
        let result = read_all();
        failed.store(result.is_err(), Release);
        thread.join().map_err(|_| "the writer panicked")?.map_err(|e| e.to_string())?;
        result
    })
}

/// CPU time of the calling thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The time that taking the time takes.
fn clock_cost() -> Duration {
    let mut costs: Vec<Duration> = (0..1001)
        .map(|_| {
            let start = Instant::now();
            start.elapsed()
        })
        .collect();
    costs.sort();
    costs[500]
}

fn pin_to(cpu: u32) -> rustix::io::Result<()> {
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(cpu as usize);
    rustix::thread::sched_setaffinity(None, &cpus)
}
