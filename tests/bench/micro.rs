//! What small things cost: settings, and the headers of a BPF object.
//!
//!     cargo bench -p tests --bench micro
//!
//! Each line is the median of batches that take about a millisecond, with the fastest and the slowest, and the
//! cost that the project promises to stay under. Numbers, no verdict.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bpf_loader::object::ObjectSpec;
use collector::config::{Config, Environment};

const BATCHES: usize = 201;
const BATCH: Duration = Duration::from_millis(1);

fn main() {
    let valid = Config::default();
    println!("{:44}{:>12}{:>12}{:>12}{:>12}", "ns", "median", "fastest", "slowest", "promised");
    measure("create a config", 100, || black_box(Config::default()));
    measure("validate a config", 1_000, || black_box(&valid).validate());
    measure("recommend a config", 500, || Config::recommended(black_box(Environment::Production)));
    measure("parse the profiler's object", 10_000, || ObjectSpec::parse(black_box(bpf_programs::PROFILE)));
}

/// Times `act`, and what it returns being dropped.
fn measure<T>(what: &str, promised: u32, mut act: impl FnMut() -> T) {
    let mut time = |times: u32| {
        let start = Instant::now();
        for _ in 0..times {
            black_box(act());
        }
        start.elapsed()
    };
    let mut times = 1;
    while time(times) < BATCH {
        times *= 2;
    }
    let mut batches: Vec<f64> =
        (0..BATCHES).map(|_| time(times).as_nanos() as f64 / f64::from(times)).collect();
    batches.sort_by(f64::total_cmp);
    let [fastest, median, slowest] = [0, BATCHES / 2, BATCHES - 1].map(|at| batches[at]);
    println!("{what:44}{median:>12.1}{fastest:>12.1}{slowest:>12.1}{promised:>12}");
}
