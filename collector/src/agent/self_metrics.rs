//! What the agent tells about itself.

use otlp_encode::Value;

use super::report::{Report, TracerReport};
use crate::export::stats::{Amount, Stats};
use crate::pipeline::keep::show;
use crate::sorted::SortedMap;
use crate::telemetry::{Attribute, Definitions, Instrument, Metric, Owner, Point, PointValue, Sink, Subject};
use crate::tracer::Stats as TracerStats;

const fn metric(
    name: &'static str,
    unit: &'static str,
    instrument: Instrument,
    description: &'static str,
    attributes: &'static [&'static str],
    source: &'static str,
) -> Metric {
    Metric { name, unit, description, instrument, subject: Subject::Agent, attributes, source }
}

const TRACER: &[&str] = &["ebpf.tracer"];
const COUNTERS: &str = "the tracers' own counters";
const PROC: &str = "/proc/self";

/// CPU time.
pub static CPU_TIME: Metric =
    metric("ebpf.agent.cpu.time", "s", Instrument::Counter, "CPU time of the agent's process", &[], PROC);
/// Cost of tracing.
pub static COST: Metric = metric(
    "ebpf.agent.cost",
    "1",
    Instrument::Gauge,
    "What tracing costs as a share of one core: the agent's process, and its hooks in other processes",
    &[],
    "the governor",
);
/// Cost of a tracer.
pub static TRACER_COST: Metric = metric(
    "ebpf.agent.tracer.cost",
    "1",
    Instrument::Gauge,
    "What a tracer costs as a share of one core, in the agent's process and in others",
    TRACER,
    "the governor",
);
/// Resident memory.
pub static MEMORY: Metric = metric(
    "ebpf.agent.memory.usage",
    "By",
    Instrument::UpDownCounter,
    "Resident memory of the agent's process",
    &[],
    PROC,
);
/// Maps and rings.
pub static MAPS: Metric = metric(
    "ebpf.agent.map.memory",
    "By",
    Instrument::Gauge,
    "Kernel memory of a tracer's maps and rings",
    TRACER,
    "/proc/self/fdinfo",
);
/// The budget.
pub static MEMORY_LIMIT: Metric = metric(
    "ebpf.agent.memory.limit",
    "By",
    Instrument::UpDownCounter,
    "What resident memory, maps and rings may take together",
    &[],
    "the configuration",
);
/// Coverage.
pub static COVERAGE: Metric = metric(
    "ebpf.agent.coverage",
    "1",
    Instrument::Gauge,
    "Share of the time for which a tracer was attached: its counts are exact where it is 1",
    TRACER,
    "the governor",
);
/// Sampling.
pub static SAMPLING: Metric = metric(
    "ebpf.agent.sampling",
    "1",
    Instrument::Gauge,
    "Share that a tracer takes of what may be sampled; counts are exact all the same",
    TRACER,
    "the governor",
);
/// Hits.
pub static HITS: Metric = metric(
    "ebpf.agent.hits",
    "{hit}",
    Instrument::Counter,
    "Times that a tracer's programs had something to count or tell",
    TRACER,
    COUNTERS,
);
/// Events.
pub static EVENTS: Metric = metric(
    "ebpf.agent.events",
    "{event}",
    Instrument::Counter,
    "Events that a tracer's programs wanted to send",
    TRACER,
    COUNTERS,
);
/// Losses.
pub static DROPS: Metric = metric(
    "ebpf.agent.drops",
    "{event}",
    Instrument::Counter,
    "What is missing, by cause",
    &["ebpf.tracer", "ebpf.drop.cause"],
    COUNTERS,
);
/// Rungs.
pub static RUNG: Metric = metric(
    "ebpf.agent.rung",
    "1",
    Instrument::Gauge,
    "1 for the rung in use of each ladder; 0 with an empty name where the kernel has none that serves",
    &["ebpf.tracer", "ebpf.ladder", "ebpf.rung"],
    "the ladders",
);
/// Map fill.
pub static MAP_USAGE: Metric = metric(
    "ebpf.agent.map.usage",
    "{entry}",
    Instrument::Gauge,
    "Entries used of a map",
    &["ebpf.tracer", "ebpf.map"],
    COUNTERS,
);
/// Map size.
pub static MAP_LIMIT: Metric = metric(
    "ebpf.agent.map.limit",
    "{entry}",
    Instrument::Gauge,
    "Entries that there are of a map",
    &["ebpf.tracer", "ebpf.map"],
    COUNTERS,
);
/// High-water mark of rings.
pub static RING: Metric = metric(
    "ebpf.agent.ring.high_water",
    "1",
    Instrument::Gauge,
    "The fullest that a tracer's ring was before it was read, as a share of it, since the start",
    TRACER,
    COUNTERS,
);
/// What runs.
pub static RUNNING: Metric = metric(
    "ebpf.agent.running",
    "1",
    Instrument::Gauge,
    "1 for a tracer that runs, 0 for one that is enabled and cannot",
    TRACER,
    "the agent",
);
/// Exports.
pub static EXPORTED: Metric = metric(
    "ebpf.agent.export.items",
    "{item}",
    Instrument::Counter,
    "Data points, spans, log records and profiles, by what became of them at a destination: delivered, rejected, dropped",
    &["ebpf.signal", "ebpf.destination", "ebpf.outcome"],
    "the exporter",
);

/// Files for debuggers.
#[cfg(feature = "debuginfod")]
pub static DEBUGINFOD: Metric = metric(
    "ebpf.agent.debuginfod.files",
    "{file}",
    Instrument::Counter,
    "Files for debuggers that were wanted of debuginfod servers, by what became of them: fetched, not_found, failed, dropped",
    &["ebpf.outcome"],
    "the client of debuginfod",
);
/// What they take of the network.
#[cfg(feature = "debuginfod")]
pub static DEBUGINFOD_IO: Metric = metric(
    "ebpf.agent.debuginfod.io",
    "By",
    Instrument::Counter,
    "Bytes of files for debuggers that debuginfod servers sent, decompressed",
    &[],
    "the client of debuginfod",
);

/// All of them.
pub static DEFINITIONS: Definitions = Definitions {
    metrics: &[
        &CPU_TIME,
        &COST,
        &TRACER_COST,
        &MEMORY,
        &MEMORY_LIMIT,
        &MAPS,
        &COVERAGE,
        &SAMPLING,
        &HITS,
        &EVENTS,
        &DROPS,
        &RUNG,
        &MAP_USAGE,
        &MAP_LIMIT,
        &RING,
        &RUNNING,
        &EXPORTED,
        #[cfg(feature = "debuginfod")]
        &DEBUGINFOD,
        #[cfg(feature = "debuginfod")]
        &DEBUGINFOD_IO,
    ],
    ..Definitions::NONE
};

/// A counter and its attributes.
type Counter = (&'static str, Vec<String>);

/// Tells reports as points: totals become what is new.
#[derive(Debug, Default)]
pub struct SelfMetrics {
    told: SortedMap<Counter, f64>,
}

struct Teller<'t> {
    told: &'t mut SortedMap<Counter, f64>,
    sink: &'t mut dyn Sink,
}

impl Teller<'_> {
    fn point(&mut self, metric: &'static Metric, attributes: &[Attribute<'_>], value: f64) {
        self.sink.point(Point { metric, owner: Owner::Agent, attributes, value: number(metric, value) });
    }

    /// What is new of a total since the start, which does not fall.
    fn total(&mut self, metric: &'static Metric, attributes: &[Attribute<'_>], total: f64) {
        let texts = attributes.iter().map(|(_, value)| show(*value)).collect();
        let told = self.told.insert((metric.name, texts), total).unwrap_or(0.0);
        self.point(metric, attributes, (total - told).max(0.0));
    }
}

/// A metric's numbers are all of one type.
fn number(metric: &Metric, value: f64) -> PointValue<'static> {
    if matches!(metric.unit, "s" | "1") { PointValue::Double(value) } else { PointValue::Int(value as i64) }
}

impl SelfMetrics {
    /// Tells how the agent fares, and what became of what was exported.
    pub fn tell(&mut self, report: &Report, exports: &[Stats], sink: &mut dyn Sink) {
        let mut teller = Teller { told: &mut self.told, sink };
        teller.total(&CPU_TIME, &[], report.cpu_time.as_secs_f64());
        teller.point(&COST, &[], report.cost);
        teller.point(&MEMORY, &[], report.resident as f64);
        teller.point(&MEMORY_LIMIT, &[], report.budget as f64);
        report.tracers.iter().for_each(|tracer| teller.tracer(tracer));
        report.ended.iter().for_each(|(name, stats)| teller.counts(("ebpf.tracer", Value::Str(name)), stats));
        for failure in &report.failures {
            teller.point(&RUNNING, &[("ebpf.tracer", Value::Str(failure.name))], 0.0);
        }
        #[cfg(feature = "debuginfod")]
        if let Some(counts) = report.debuginfod {
            let outcomes = [
                ("fetched", counts.fetched),
                ("not_found", counts.not_found),
                ("failed", counts.failed),
                ("dropped", counts.dropped),
            ];
            for (outcome, files) in outcomes {
                teller.total(&DEBUGINFOD, &[("ebpf.outcome", Value::Str(outcome))], files as f64);
            }
            teller.total(&DEBUGINFOD_IO, &[], counts.bytes as f64);
        }
        for destination in exports {
            for (signal, stats) in destination.signals.iter() {
                let outcomes: [(&str, Amount); 3] = [
                    ("delivered", stats.delivered),
                    ("rejected", stats.rejected),
                    ("dropped", stats.dropped.total()),
                ];
                for (outcome, amount) in outcomes.into_iter().filter(|(_, amount)| amount.items > 0) {
                    let attributes = [
                        ("ebpf.signal", Value::Str(signal.noun())),
                        ("ebpf.destination", Value::Str(&destination.name)),
                        ("ebpf.outcome", Value::Str(outcome)),
                    ];
                    teller.total(&EXPORTED, &attributes, amount.items as f64);
                }
            }
        }
    }
}

impl Teller<'_> {
    fn counts(&mut self, name: Attribute<'_>, stats: &TracerStats) {
        self.total(&HITS, &[name], stats.hits as f64);
        self.total(&EVENTS, &[name], stats.produced as f64);
        for (cause, count) in &stats.dropped {
            self.total(&DROPS, &[name, ("ebpf.drop.cause", Value::Str(cause))], *count as f64);
        }
    }

    fn tracer(&mut self, tracer: &TracerReport) {
        let name = ("ebpf.tracer", Value::Str(tracer.name));
        let stats = &tracer.stats;
        self.point(&RUNNING, &[name], 1.0);
        self.point(&TRACER_COST, &[name], tracer.cost);
        self.point(&MAPS, &[name], tracer.map_bytes as f64);
        self.point(&COVERAGE, &[name], tracer.coverage);
        self.point(&SAMPLING, &[name], 1.0 / f64::from(tracer.one_in.max(1)));
        self.counts(name, stats);
        for chosen in &tracer.rungs {
            let rung = Value::Str(chosen.rung.unwrap_or_default());
            let attributes = [name, ("ebpf.ladder", Value::Str(chosen.what)), ("ebpf.rung", rung)];
            self.point(&RUNG, &attributes, f64::from(u8::from(chosen.rung.is_some())));
        }
        for (map, used, size) in &stats.map_fill {
            let attributes = [name, ("ebpf.map", Value::Str(map))];
            self.point(&MAP_USAGE, &attributes, *used as f64);
            self.point(&MAP_LIMIT, &attributes, *size as f64);
        }
        if stats.ring_high_water.size > 0 {
            self.point(&RING, &[name], stats.ring_high_water.share());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::Recorder;
    use crate::tracer::Overhead;

    fn report(hits: u64, cpu: u64) -> Report {
        let tracer = TracerReport {
            name: "tcp",
            coverage: 0.5,
            one_in: 4,
            rungs: Vec::new(),
            stats: TracerStats { hits, dropped: vec![("ring full", 3)], ..TracerStats::default() },
            overhead: Overhead::default(),
            map_bytes: 4096,
            cost: 0.001,
        };
        Report { tracers: vec![tracer], cpu_time: Duration::from_secs(cpu), ..Report::default() }
    }

    fn of(recorder: &Recorder, name: &str) -> f64 {
        recorder.numbers.iter().filter(|(series, _)| series.metric == name).map(|(_, n)| n).sum()
    }

    #[test]
    fn totals_become_what_is_new() {
        let mut own = SelfMetrics::default();
        let told: Vec<(f64, f64)> = [(10, 1), (25, 3), (25, 4)]
            .into_iter()
            .map(|(hits, cpu)| {
                let mut window = Recorder::default();
                own.tell(&report(hits, cpu), &[], &mut window);
                (of(&window, "ebpf.agent.hits"), of(&window, "ebpf.agent.cpu.time"))
            })
            .collect();
        assert_eq!(told, [(10.0, 1.0), (15.0, 2.0), (0.0, 1.0)]);
        // What ended is told too.
        let stats = TracerStats { hits: 27, dropped: vec![("ring full", 8)], ..TracerStats::default() };
        let ended = Report { ended: vec![("tcp", stats)], ..Report::default() };
        let mut window = Recorder::default();
        own.tell(&ended, &[], &mut window);
        assert_eq!((of(&window, "ebpf.agent.hits"), of(&window, "ebpf.agent.drops")), (2.0, 5.0));
        assert_eq!(of(&window, "ebpf.agent.running"), 0.0);
    }

    #[test]
    #[cfg(feature = "debuginfod")]
    fn files_for_debuggers_are_told_where_they_are_fetched() {
        use crate::symbolize::debuginfod::Counts;
        let mut window = Recorder::default();
        let counts = Counts { fetched: 2, not_found: 3, failed: 1, dropped: 4, bytes: 1 << 20 };
        let report = Report { debuginfod: Some(counts), ..Report::default() };
        SelfMetrics::default().tell(&report, &[], &mut window);
        assert_eq!(of(&window, "ebpf.agent.debuginfod.files"), 10.0);
        assert_eq!(of(&window, "ebpf.agent.debuginfod.io"), f64::from(1 << 20));
        let mut window = Recorder::default();
        SelfMetrics::default().tell(&Report::default(), &[], &mut window);
        assert!(!window.numbers.keys().any(|series| series.metric.contains("debuginfod")));
    }

    #[test]
    fn exports_are_told_by_what_became_of_them() {
        let mut stats = Stats { name: "http://there/".to_owned(), ..Stats::default() };
        stats.signals.get_mut(crate::export::Signal::Logs).delivered =
            Amount { requests: 2, items: 7, bytes: 9 };
        let mut window = Recorder::default();
        SelfMetrics::default().tell(&Report::default(), &[stats], &mut window);
        assert_eq!(of(&window, "ebpf.agent.export.items"), 7.0);
    }
}
