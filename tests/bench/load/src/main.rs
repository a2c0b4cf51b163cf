//! Opening and loading BPF objects: this project's loader beside libbpf and aya, in one run.
//!
//! Each load is a process of its own, so that the kernel's BTF is cold for all. What counts is the CPU time outside
//! bpf(2), which costs all the same, and the most memory that the process had resident beyond one that loads nothing.
//! Needs root.
//!
//!     cargo run --release -- [--rounds N] OBJECT...     measure
//!     cargo run --release -- --scan OBJECT...           who loads what

mod meter;
mod peers;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;
use meter::Cost;
use peers::{Peer, Result};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--child", peer, object, hooks @ ..] => child(peer, Path::new(object), hooks),
        ["--scan", objects @ ..] => scan(objects),
        ["--rounds", rounds, objects @ ..] if !objects.is_empty() => compare(rounds.parse()?, objects),
        [first, ..] if !first.starts_with('-') => compare(21, &words),
        _ => Err("usage: bench-load [--scan | --rounds N] OBJECT...".into()),
    }
}

/// One load in this process; its cost on the standard output.
fn child(peer: &str, object: &Path, hooks: &[&str]) -> Result<()> {
    let peer = Peer::ALL.into_iter().find(|p| p.name() == peer).ok_or("no such loader")?;
    let hooks = hooks.iter().filter_map(|hook| hook.split_once('='));
    let hooks: Vec<_> = hooks.map(|(name, hook)| (name.to_owned(), hook.to_owned())).collect();
    let (result, cost) = meter::measure(|| peer.load(object, &hooks))?;
    result?;
    let Cost { own, kernel, calls, peak_kib, anonymous_kib } = cost;
    println!("{} {} {calls} {peak_kib} {anonymous_kib}", own.as_nanos(), kernel.as_nanos());
    Ok(())
}

/// Loads an object in a process of its own.
fn load_cold(peer: Peer, object: &Path) -> Result<Cost> {
    let bytes = std::fs::read(object)?;
    let spec = ObjectSpec::parse(&bytes)?;
    let hooks = spec.programs.iter().filter_map(|program| {
        let (_, hook) = program.section.split_once('/')?;
        Some(format!("{}={hook}", program.name))
    });
    let output = Command::new(std::env::current_exe()?)
        .args(["--child", peer.name()])
        .arg(object)
        .args(hooks)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().into());
    }
    let numbers: Vec<u64> = String::from_utf8(output.stdout)?
        .split_whitespace()
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    let &[own, kernel, calls, peak_kib, anonymous_kib] = numbers.as_slice() else {
        return Err("the child said nothing".into());
    };
    Ok(Cost {
        own: Duration::from_nanos(own),
        kernel: Duration::from_nanos(kernel),
        calls: calls as u32,
        peak_kib,
        anonymous_kib,
    })
}

/// Says of each object which loaders load it, and why the others do not.
fn scan(objects: &[&str]) -> Result<()> {
    for object in objects {
        let failed: Vec<String> = Peer::ALL
            .into_iter()
            .filter_map(|peer| {
                let error = load_cold(peer, Path::new(object)).err()?.to_string();
                Some(format!("{}: {}", peer.name(), error.lines().next().unwrap_or_default()))
            })
            .collect();
        println!("{object}: {}", if failed.is_empty() { "all load it".into() } else { failed.join("; ") });
    }
    Ok(())
}

fn median<T: PartialOrd + Copy>(samples: &mut [T]) -> T {
    samples.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    samples[samples.len() / 2]
}

fn compare(rounds: usize, objects: &[&str]) -> Result<()> {
    let objects: Vec<PathBuf> = objects.iter().map(PathBuf::from).collect();
    let rounds = rounds.max(1);
    let mut costs: Vec<[Vec<Cost>; 4]> = objects.iter().map(|_| Default::default()).collect();
    for round in 0..rounds {
        for (object, costs) in objects.iter().zip(&mut costs) {
            // Whoever comes first in a round has no advantage from it in the next.
            for turn in 0..Peer::ALL.len() {
                let who = (round + turn) % Peer::ALL.len();
                let cost = load_cold(Peer::ALL[who], object).map_err(|e| {
                    format!("{} does not load {}: {e}", Peer::ALL[who].name(), object.display())
                })?;
                costs[who].push(cost);
            }
        }
    }
    println!(
        "{rounds} rounds; medians: ms of CPU time outside bpf(2) (least to most), MiB resident at most beyond an idle \
         process, KiB anonymous in the end, calls of bpf(2), ms of CPU time in them"
    );
    let mut all = [[0.0; 2]; 3];
    for (object, costs) in objects.iter().zip(&mut costs) {
        println!("\n{}", object.display());
        let [idle, peers @ ..] = costs;
        let baseline = median(&mut idle.iter().map(|cost| cost.peak_kib).collect::<Vec<_>>());
        for ((peer, costs), all) in Peer::ALL[1..].iter().zip(peers).zip(&mut all) {
            let mut own: Vec<f64> = costs.iter().map(|cost| cost.own.as_secs_f64() * 1e3).collect();
            let own_median = median(&mut own);
            let kernel =
                median(&mut costs.iter().map(|cost| cost.kernel.as_secs_f64() * 1e3).collect::<Vec<_>>());
            let peak = median(&mut costs.iter().map(|cost| cost.peak_kib).collect::<Vec<_>>());
            let peak = (peak as f64 - baseline as f64) / 1024.0;
            let anonymous = median(&mut costs.iter().map(|cost| cost.anonymous_kib).collect::<Vec<_>>());
            println!(
                "  {:8}{own_median:8.3} ms ({:.3} to {:.3}) {peak:7.2} MiB {anonymous:6} KiB {:5} calls {kernel:8.3} ms",
                peer.name(),
                own[0],
                own[own.len() - 1],
                costs[0].calls,
            );
            all[0] += own_median / objects.len() as f64;
            all[1] = f64::max(all[1], peak);
        }
    }
    println!("\nall: mean of the medians, the most resident; ratio to ours");
    for (peer, [own, peak]) in Peer::ALL[1..].iter().zip(all) {
        println!(
            "  {:8}{own:8.3} ms  {:6.2}   {peak:7.2} MiB  {:6.2}",
            peer.name(),
            own / all[0][0],
            peak / all[0][1]
        );
    }
    warm(rounds, &objects)
}

/// All objects in this process, with one target: the kernel's BTF is mapped, and indexed, once.
fn warm(rounds: usize, objects: &[PathBuf]) -> Result<()> {
    let target = RunningTarget::new();
    peers::ours(&objects[0], &target)?;
    println!("\nours, with a target that has served an object before");
    for object in objects {
        let mut own = Vec::new();
        for _ in 0..rounds {
            let (result, cost) = meter::measure(|| peers::ours(object, &target))?;
            result?;
            own.push(cost.own.as_secs_f64() * 1e3);
        }
        println!("  {:8.3} ms  {}", median(&mut own), object.display());
    }
    Ok(())
}
