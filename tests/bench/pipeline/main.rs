//! What it costs to make requests of what tracers tell: time a point, and memory a series.
//!
//!     cargo bench -p tests --bench pipeline
//!
//! A window of 2,000 processes of 200 services with 50 system calls each, 100,000 points, half histograms: handed over, added
//! up and encoded. Numbers, no verdict.

use std::time::{Duration, Instant};

use collector::enrich::host::HostFacts;
use collector::export::Signal;
use collector::export::config::{AgentResource, SdkSettings, Temporality};
use collector::pipeline::{Memory, Pipeline, Reading, Settings};
use collector::symbolize::Host;
use collector::telemetry::{Exponential, Instrument, Metric, Owner, Point, PointValue, Sink, Subject};

const PROCESSES: u32 = 2000;
const SERVICES: u32 = 200;
const CALLS: u32 = 50;
const ROUNDS: usize = 20;

static ERRORS: Metric = metric("bench.errors", "{error}", Instrument::Counter);
static DURATION: Metric = metric("bench.duration", "s", Instrument::Histogram);

const fn metric(name: &'static str, unit: &'static str, instrument: Instrument) -> Metric {
    let (description, subject) = ("A benchmark's", Subject::Process);
    Metric { name, unit, description, instrument, subject, attributes: &["ebpf.syscall.name"], source: "" }
}

fn pipeline(temporality: Temporality) -> Pipeline {
    let mut sdk = SdkSettings::from_env(&|_| None);
    sdk.metrics.temporality = temporality;
    // Nobody is there: names are the kernel's.
    let host = Host { proc: "/nonexistent".into(), ..Host::default() };
    let settings = Settings {
        sdk,
        host,
        facts: HostFacts::default(),
        agent: AgentResource::from_env(&|_| None, "bench", 0).0,
        own: Vec::new(),
        per_process: false,
        max_request: 4 << 20,
        memory: Memory::split(256 << 20),
    };
    Pipeline::new(settings, Reading::now()).expect("it is valid")
}

/// Hands over a window's points.
fn fill(pipeline: &mut Pipeline, histogram: &Exponential, names: &[String]) {
    for pid in 1..=PROCESSES {
        let mut comm = [0; 16];
        let name = format!("service-{}", pid % SERVICES);
        comm.iter_mut().zip(name.bytes()).for_each(|(to, byte)| *to = byte);
        let owner = Owner::Process { pid, comm };
        for (call, name) in names.iter().enumerate() {
            let attributes = [("ebpf.syscall.name", name.as_str().into())];
            let (metric, value) = if call % 2 == 0 {
                (&DURATION, PointValue::Histogram(histogram))
            } else {
                (&ERRORS, PointValue::Int(3))
            };
            pipeline.point(Point { metric, owner, attributes: &attributes, value });
        }
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}

fn main() {
    let names: Vec<String> = (0..CALLS).map(|n| format!("syscall_{n}")).collect();
    let mut histogram = Exponential::new(2);
    (60..90).for_each(|slot| histogram.add_slot(slot, slot.into()));
    let points = f64::from(PROCESSES * CALLS);
    for temporality in [Temporality::Cumulative, Temporality::Delta] {
        let before = resident();
        let mut pipeline = pipeline(temporality);
        let (mut hand_over, mut flush) = (Vec::new(), Vec::new());
        let (mut items, mut bytes, mut kept, mut after) = (0, 0, 0, 0);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            fill(&mut pipeline, &histogram, &names);
            hand_over.push(start.elapsed());
            (kept, after) = (pipeline.stats().series.series, resident());
            let start = Instant::now();
            (items, bytes) = (0, 0);
            pipeline.flush(Reading::now(), &[Signal::Metrics], &mut |request| {
                items += request.items;
                bytes += request.body.len();
            });
            flush.push(start.elapsed());
        }
        let median = |times: &mut Vec<Duration>| {
            times.sort();
            times[times.len() / 2].as_nanos() as f64
        };
        println!(
            "{temporality:?}: {points} points, {kept} series, requests of {items} points, {bytes} bytes"
        );
        println!("  to hand over: {:6.1} ns a point", median(&mut hand_over) / points);
        println!("  to flush:     {:6.1} ns a series exported", median(&mut flush) / items.max(1) as f64);
        println!(
            "  memory:       {:6.1} B a series resident, {:.1} B as counted",
            after.saturating_sub(before) as f64 / kept as f64,
            pipeline.stats().series.bytes as f64 / pipeline.stats().series.series.max(1) as f64,
        );
    }
}
