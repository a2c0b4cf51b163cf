//! The agent about itself: what it counts, as points.

use std::collections::BTreeMap;
use std::time::Duration;

use super::PipelineStats;
use crate::export::stats::{DropReason, Stats as ExportStats};
use crate::symbolize::{Host, read_limited};
use crate::telemetry::{Attribute, Instrument, Metric, Owner, Point, PointValue, Sink, agent};
use crate::tracer::ladder::Chosen;
use crate::tracer::{Overhead, Stats};

/// Bytes that are read of a file.
const MAX_FILE: usize = 4096;

/// A tracer at the end of a window.
#[derive(Debug, Clone, Copy)]
pub struct TracerState<'a> {
    /// Its name.
    pub name: &'static str,
    /// What became of its ladders.
    pub rungs: &'a [Chosen],
    /// What became of everything, since it was started.
    pub stats: &'a Stats,
    /// What it costs, since it was started.
    pub overhead: &'a Overhead,
    /// Share of the window for which it was attached.
    pub coverage: f64,
    /// One in so many is taken of what may be sampled.
    pub one_in: u32,
}

/// What the agent's own process costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessCost {
    /// CPU time in user mode since the start.
    pub user: Duration,
    /// CPU time in the kernel since the start.
    pub system: Duration,
    /// Resident memory in bytes.
    pub resident: u64,
}

impl ProcessCost {
    /// Of this process.
    pub fn read(host: &Host) -> Self {
        let read =
            |name: &str| read_limited(&host.proc.join("self").join(name), MAX_FILE).unwrap_or_default();
        Self::parse(&read("stat"), &read("statm"))
    }

    fn parse(stat: &[u8], statm: &[u8]) -> Self {
        let number = |text: &[u8], at: usize| -> u64 {
            let text = String::from_utf8_lossy(text);
            text.split_ascii_whitespace().nth(at).and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        // The name, which ends at the last parenthesis, is field 2 of proc_pid_stat(5); times are 14 and 15.
        let fields = stat.rsplit(|byte| *byte == b')').next().unwrap_or_default();
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let time = |at| Duration::from_nanos(number(fields, at).saturating_mul(1_000_000_000 / ticks));
        let page = rustix::param::page_size() as u64;
        Self { user: time(11), system: time(12), resident: number(statm, 1).saturating_mul(page) }
    }
}

/// Makes points of what is counted since the start: a point says what is new.
#[derive(Debug, Default)]
pub struct AboutAgent {
    /// By metric and attributes, what was told.
    told: BTreeMap<(&'static str, Vec<String>), f64>,
}

impl AboutAgent {
    /// Nothing is told yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn tell(&mut self, sink: &mut dyn Sink, metric: &'static Metric, values: &[&str], now: PointValue<'_>) {
        let attributes: Vec<Attribute<'_>> =
            metric.attributes.iter().zip(values).map(|(key, value)| (*key, (*value).into())).collect();
        let value = if metric.instrument == Instrument::Counter {
            let number = match now {
                PointValue::Int(n) => n as f64,
                PointValue::Double(n) => n,
                PointValue::Histogram(_) => return,
            };
            let key = (metric.name, values.iter().map(|value| (*value).to_owned()).collect());
            let before = self.told.insert(key, number).unwrap_or(0.0);
            // What was started anew counts anew.
            let new = if number < before { number } else { number - before };
            match now {
                PointValue::Int(_) => PointValue::Int(new as i64),
                _ => PointValue::Double(new),
            }
        } else {
            now
        };
        sink.point(Point { metric, owner: Owner::Agent, attributes: &attributes, value });
    }

    fn count(&mut self, sink: &mut dyn Sink, metric: &'static Metric, values: &[&str], now: u64) {
        self.tell(sink, metric, values, PointValue::Int(i64::try_from(now).unwrap_or(i64::MAX)));
    }

    /// Of a tracer.
    pub fn tracer(&mut self, sink: &mut dyn Sink, tracer: &TracerState<'_>) {
        let name = tracer.name;
        for chosen in tracer.rungs {
            let rung = chosen.rung.unwrap_or("unavailable");
            self.count(sink, &agent::RUNG, &[name, chosen.what, rung], 1);
        }
        self.tell(sink, &agent::COVERAGE, &[name], PointValue::Double(tracer.coverage));
        self.count(sink, &agent::SAMPLING, &[name], tracer.one_in.into());
        let (stats, overhead) = (tracer.stats, tracer.overhead);
        for (metric, number) in [
            (&agent::HITS, stats.hits.max(overhead.hits)),
            (&agent::PRODUCED, stats.produced),
            (&agent::RECEIVED, stats.received),
            (&agent::RING_HIGH_WATER, stats.ring_high_water),
            (&agent::MAP_MEMORY, overhead.map_bytes),
        ] {
            self.count(sink, metric, &[name], number);
        }
        for (cause, number) in &stats.dropped {
            self.count(sink, &agent::DROPPED, &[name, cause], *number);
        }
        for (map, used, room) in &stats.map_fill {
            self.count(sink, &agent::MAP_ENTRIES, &[name, map], *used);
            self.count(sink, &agent::MAP_CAPACITY, &[name, map], *room);
        }
        let time = overhead.program_time.as_secs_f64();
        self.tell(sink, &agent::PROGRAM_TIME, &[name], PointValue::Double(time));
    }

    /// Of the process.
    pub fn process(&mut self, sink: &mut dyn Sink, cost: ProcessCost) {
        for (mode, time) in [("user", cost.user), ("system", cost.system)] {
            self.tell(sink, &agent::CPU_TIME, &[mode], PointValue::Double(time.as_secs_f64()));
        }
        self.count(sink, &agent::MEMORY_USAGE, &[], cost.resident);
    }

    /// Of destinations.
    pub fn export(&mut self, sink: &mut dyn Sink, destinations: &[ExportStats]) {
        for destination in destinations {
            for (signal, stats) in destination.signals.iter() {
                if *stats == Default::default() {
                    continue;
                }
                let of = [destination.name.as_str(), signal.noun()];
                for (metric, number) in [
                    (&agent::DELIVERED, stats.delivered.items),
                    (&agent::REJECTED, stats.rejected.items),
                    (&agent::RETRIES, stats.retries),
                    (&agent::QUEUED, stats.in_memory.bytes),
                    (&agent::SPOOLED, stats.in_spool.bytes),
                ] {
                    self.count(sink, metric, &of, number);
                }
                for reason in DropReason::ALL {
                    let items = stats.dropped.get(reason).items;
                    if items > 0 {
                        let [name, signal] = of;
                        self.count(sink, &agent::EXPORT_DROPPED, &[name, signal, reason.name()], items);
                    }
                }
            }
        }
    }

    /// Of the pipeline; as it is before these points are.
    pub fn pipeline(&mut self, sink: &mut dyn Sink, stats: &PipelineStats) {
        let (series, processes) = (stats.series, stats.processes);
        self.count(sink, &agent::SERIES, &[], series.series as u64);
        for (cause, number) in
            [("folded", series.folded), ("lost", series.lost), ("not valid", series.refused)]
        {
            self.count(sink, &agent::SERIES_OVERFLOW, &[cause], number);
        }
        self.count(sink, &agent::PROCESSES, &[], processes.processes as u64);
        for (cause, number) in
            [("gone", processes.unknown), ("skipped", processes.skipped), ("evicted", processes.evicted)]
        {
            self.count(sink, &agent::UNNAMED, &[cause], number);
        }
        for (signal, cause, number) in &stats.dropped {
            self.count(sink, &agent::RECORDS_DROPPED, &[signal.noun(), cause], *number);
        }
        self.count(sink, &agent::CLOCK_STEPS, &[], stats.clock_steps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Recorder;

    #[test]
    fn a_point_says_what_is_new() {
        let rungs = [
            Chosen { what: "TCP states", rung: Some("raw_tp"), refused: Vec::new() },
            Chosen { what: "TCP drops", rung: None, refused: Vec::new() },
        ];
        let mut stats = Stats {
            hits: 7,
            produced: 5,
            received: 3,
            dropped: vec![("ring full", 2)],
            ring_high_water: 99,
            map_fill: vec![("sockets", 3, 10)],
        };
        let mut overhead =
            Overhead { program_time: Duration::from_millis(1500), map_bytes: 4096, ..Overhead::default() };
        let mut about = AboutAgent::new();
        let mut recorder = Recorder::default();
        for _ in 0..2 {
            let tracer = TracerState {
                name: "tcp",
                rungs: &rungs,
                stats: &stats,
                overhead: &overhead,
                coverage: 0.5,
                one_in: 4,
            };
            about.tracer(&mut recorder, &tracer);
            stats.hits += 10;
            stats.dropped[0].1 += 1;
            overhead.program_time += Duration::from_millis(500);
        }
        let get = |metric: &str, attributes: &[(&str, &str)]| {
            let found = recorder.numbers.iter().filter(|(series, _)| {
                let has =
                    |(k, v): &(&str, &str)| series.attributes.iter().any(|(key, own)| key == k && own == v);
                series.metric == metric && attributes.iter().all(has)
            });
            found.map(|(_, n)| *n).sum::<f64>()
        };
        // The recorder adds up what is new.
        assert_eq!(get("ebpf.agent.hits", &[("ebpf.tracer", "tcp")]), 17.0);
        assert_eq!(get("ebpf.agent.dropped", &[("ebpf.cause", "ring full")]), 3.0);
        assert_eq!(get("ebpf.agent.program.time", &[]), 2.0);
        assert_eq!(get("ebpf.agent.ring.high_water", &[]), 99.0);
        assert_eq!(get("ebpf.agent.map.capacity", &[("ebpf.map", "sockets")]), 10.0);
        assert_eq!(get("ebpf.agent.rung", &[("ebpf.rung", "raw_tp")]), 1.0);
        assert_eq!(
            get("ebpf.agent.rung", &[("ebpf.ladder", "TCP drops"), ("ebpf.rung", "unavailable")]),
            1.0
        );
        assert_eq!((get("ebpf.agent.coverage", &[]), get("ebpf.agent.sampling", &[])), (0.5, 4.0));
    }

    #[test]
    fn a_tracer_that_was_started_anew_counts_anew() {
        let (mut about, mut recorder) = (AboutAgent::new(), Recorder::default());
        for hits in [10, 12, 3, 4] {
            let (stats, overhead) = (Stats { hits, ..Stats::default() }, Overhead::default());
            let tracer = TracerState {
                name: "tcp",
                rungs: &[],
                stats: &stats,
                overhead: &overhead,
                coverage: 1.0,
                one_in: 1,
            };
            about.tracer(&mut recorder, &tracer);
        }
        let hits = recorder.numbers.iter().find(|(series, _)| series.metric == "ebpf.agent.hits");
        assert_eq!(hits.map(|(_, n)| *n), Some(16.0));
    }

    #[test]
    fn this_process() {
        let stat = b"7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 150 25 0 0 20 0 1 0 500 0 0\n";
        let cost = ProcessCost::parse(stat, b"900 100 50 1 0 70 0\n");
        let page = rustix::param::page_size() as u64;
        assert_eq!((cost.user.as_millis(), cost.system.as_millis(), cost.resident), (1500, 250, 100 * page));
        assert_eq!(ProcessCost::parse(b"", b""), ProcessCost::default());
        assert!(ProcessCost::read(&Host::default()).resident > 1 << 20);
    }
}
