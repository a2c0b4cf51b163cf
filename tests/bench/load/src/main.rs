//! Opening and loading BPF objects: this project's loader beside libbpf and aya, in one run.
//!
//! Each load is a process of its own, of a program with one loader in it: the kernel's BTF is cold for all, and memory is
//! what a user of that loader has. What counts is the CPU time outside bpf(2), which costs all the same, and the most memory that
//! the process had resident. Needs root.
//!
//!     cargo build --release
//!     target/release/bench-load [--rounds N] OBJECT...     measure
//!     target/release/bench-load --scan OBJECT...           who loads what

#[path = "loaders/ours.rs"]
mod loader;
mod meter;

use std::path::{Path, PathBuf};
use std::process::Command;

use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;
use meter::{Cost, Result};

/// What is compared: `load-NAME` is a program beside this one. The first does nothing.
const PEERS: [&str; 4] = ["idle", "ours", "libbpf", "aya"];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--scan", objects @ ..] => scan(objects),
        ["--rounds", rounds, objects @ ..] if !objects.is_empty() => compare(rounds.parse()?, objects),
        [first, ..] if !first.starts_with('-') => compare(21, &words),
        _ => Err("usage: bench-load [--scan | --rounds N] OBJECT...".into()),
    }
}

/// Loads an object in a process of its own.
fn load_cold(peer: &str, object: &Path) -> Result<Cost> {
    let bytes = std::fs::read(object)?;
    let spec = ObjectSpec::parse(&bytes)?;
    let hooks = spec.programs.iter().filter_map(|program| {
        let (_, hook) = program.section.split_once('/')?;
        Some(format!("{}={hook}", program.name))
    });
    let program = std::env::current_exe()?.with_file_name(format!("load-{peer}"));
    let output = Command::new(&program).arg(object).args(hooks).output();
    let output = output.map_err(|e| format!("{}: {e}", program.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().into());
    }
    Cost::parse(&String::from_utf8(output.stdout)?).ok_or_else(|| "the child said nothing".into())
}

/// Says of each object which loaders load it, and why the others do not.
fn scan(objects: &[&str]) -> Result<()> {
    for object in objects {
        let failed: Vec<String> = PEERS
            .into_iter()
            .filter_map(|peer| {
                let error = load_cold(peer, Path::new(object)).err()?.to_string();
                Some(format!("{}: {}", peer, error.lines().next().unwrap_or_default()))
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
            for turn in 0..PEERS.len() {
                let who = (round + turn) % PEERS.len();
                let cost = load_cold(PEERS[who], object)
                    .map_err(|e| format!("{} does not load {}: {e}", PEERS[who], object.display()))?;
                costs[who].push(cost);
            }
        }
    }
    let idle =
        median(&mut costs.iter().flat_map(|costs| &costs[0]).map(|cost| cost.peak_kib).collect::<Vec<_>>());
    println!(
        "{rounds} rounds; medians: ms of CPU time outside bpf(2) (least to most), MiB resident at most ({:.2} in a process \
         that loads nothing), KiB anonymous in the end, calls of bpf(2), ms of CPU time in them",
        idle as f64 / 1024.0
    );
    let mut all = [[0.0; 2]; 3];
    for (object, costs) in objects.iter().zip(&mut costs) {
        println!("\n{}", object.display());
        let [_, peers @ ..] = costs;
        for ((peer, costs), all) in PEERS[1..].iter().zip(peers).zip(&mut all) {
            let mut own: Vec<f64> = costs.iter().map(|cost| cost.own.as_secs_f64() * 1e3).collect();
            let own_median = median(&mut own);
            let kernel =
                median(&mut costs.iter().map(|cost| cost.kernel.as_secs_f64() * 1e3).collect::<Vec<_>>());
            let peak = median(&mut costs.iter().map(|cost| cost.peak_kib).collect::<Vec<_>>());
            let peak = peak as f64 / 1024.0;
            let anonymous = median(&mut costs.iter().map(|cost| cost.anonymous_kib).collect::<Vec<_>>());
            println!(
                "  {:8}{own_median:8.3} ms ({:.3} to {:.3}) {peak:7.2} MiB {anonymous:6} KiB {:5} calls {kernel:8.3} ms",
                peer,
                own[0],
                own[own.len() - 1],
                costs[0].calls,
            );
            all[0] += own_median / objects.len() as f64;
            all[1] = f64::max(all[1], peak);
        }
    }
    println!("\nall: mean of the medians, the most resident; ratio to ours");
    for (peer, [own, peak]) in PEERS[1..].iter().zip(all) {
        println!(
            "  {:8}{own:8.3} ms  {:6.2}   {peak:7.2} MiB  {:6.2}",
            peer,
            own / all[0][0],
            peak / all[0][1]
        );
    }
    warm(rounds, &objects)
}

/// All objects in this process, with one target: the kernel's BTF is mapped, and indexed, once.
fn warm(rounds: usize, objects: &[PathBuf]) -> Result<()> {
    let target = RunningTarget::new();
    loader::load(&objects[0], &target)?;
    println!("\nours, with a target that has served an object before");
    for object in objects {
        let mut own = Vec::new();
        for _ in 0..rounds {
            let (result, cost) = meter::measure(|| loader::load(object, &target))?;
            result?;
            own.push(cost.own.as_secs_f64() * 1e3);
        }
        println!("  {:8.3} ms  {}", median(&mut own), object.display());
    }
    Ok(())
}
