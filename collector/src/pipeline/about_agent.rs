//! What pipeline and exporter count, as points: nothing that is lost there is lost in silence.

use super::PipelineStats;
use crate::export::stats::{DropReason, Stats as ExportStats};
use crate::sorted::SortedMap;
use crate::telemetry::{Attribute, Instrument, Metric, Owner, Point, PointValue, Sink, agent};

/// Makes points of what is counted since the start: a point says what is new.
#[derive(Debug, Default)]
pub struct AboutAgent {
    /// By metric and attributes, what was told.
    told: SortedMap<(&'static str, Vec<String>), u64>,
}

impl AboutAgent {
    fn tell(&mut self, sink: &mut dyn Sink, metric: &'static Metric, values: &[&str], now: u64) {
        let attributes: Vec<Attribute<'_>> =
            metric.attributes.iter().zip(values).map(|(key, value)| (*key, (*value).into())).collect();
        let new = if metric.instrument == Instrument::Counter {
            let key = (metric.name, values.iter().map(|value| (*value).to_owned()).collect());
            let before = self.told.insert(key, now).unwrap_or(0);
            // What was started anew counts anew.
            now.checked_sub(before).unwrap_or(now)
        } else {
            now
        };
        let value = PointValue::Int(i64::try_from(new).unwrap_or(i64::MAX));
        sink.point(Point { metric, owner: Owner::Agent, attributes: &attributes, value });
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
                    (&agent::RETRIES, stats.retries),
                    (&agent::QUEUED, stats.in_memory.bytes),
                    (&agent::SPOOLED, stats.in_spool.bytes),
                ] {
                    self.tell(sink, metric, &of, number);
                }
                for reason in DropReason::ALL {
                    let items = stats.dropped.get(reason).items;
                    if items > 0 {
                        let [name, signal] = of;
                        self.tell(sink, &agent::EXPORT_DROPS, &[name, signal, reason.name()], items);
                    }
                }
            }
        }
    }

    /// Of the pipeline, as it was before these points.
    pub fn pipeline(&mut self, sink: &mut dyn Sink, stats: &PipelineStats) {
        let (series, processes) = (stats.series, stats.processes);
        self.tell(sink, &agent::SERIES, &[], series.series as u64);
        for (cause, number) in
            [("folded", series.folded), ("lost", series.lost), ("not valid", series.refused)]
        {
            self.tell(sink, &agent::SERIES_OVERFLOW, &[cause], number);
        }
        self.tell(sink, &agent::PROCESSES, &[], processes.processes as u64);
        for (cause, number) in [
            ("gone", processes.unknown),
            ("skipped", processes.skipped),
            ("evicted", processes.evicted),
            ("folded", stats.folded),
        ] {
            self.tell(sink, &agent::UNNAMED, &[cause], number);
        }
        for (signal, cause, number) in &stats.dropped {
            self.tell(sink, &agent::RECORD_DROPS, &[signal.noun(), cause], *number);
        }
        self.tell(sink, &agent::CLOCK_STEPS, &[], stats.clock_steps);
    }
}

#[cfg(test)]
mod tests {
    use super::super::StoreStats;
    use super::*;
    use crate::enrich::cache::CacheStats;
    use crate::export::Signal;
    use crate::telemetry::Recorder;

    fn stats(folded: u64) -> PipelineStats {
        PipelineStats {
            series: StoreStats { series: 7, folded, ..StoreStats::default() },
            processes: CacheStats { processes: 3, unknown: 2, ..CacheStats::default() },
            resources: 5,
            folded: 6,
            dropped: vec![(Signal::Logs, "queue full", 4)],
            clock_steps: 1,
        }
    }

    fn get(recorder: &Recorder, metric: &str, attributes: &[(&str, &str)]) -> f64 {
        let found = recorder.numbers.iter().filter(|(series, _)| {
            let has = |(k, v): &(&str, &str)| series.attributes.iter().any(|(key, own)| key == k && own == v);
            series.metric == metric && attributes.iter().all(has)
        });
        found.map(|(_, n)| *n).sum()
    }

    #[test]
    fn a_point_says_what_is_new() {
        let (mut about, mut recorder) = (AboutAgent::default(), Recorder::default());
        // The recorder adds up what is new; what was started anew counts anew.
        for folded in [10, 12, 3, 4] {
            about.pipeline(&mut recorder, &stats(folded));
        }
        assert_eq!(get(&recorder, "ebpf.agent.series.overflow", &[("ebpf.drop.cause", "folded")]), 16.0);
        let dropped = [("ebpf.signal", "logs"), ("ebpf.drop.cause", "queue full")];
        assert_eq!(get(&recorder, "ebpf.agent.records.drops", &dropped), 4.0);
        assert_eq!(get(&recorder, "ebpf.agent.processes.unnamed", &[("ebpf.drop.cause", "gone")]), 2.0);
        assert_eq!(get(&recorder, "ebpf.agent.processes.unnamed", &[("ebpf.drop.cause", "folded")]), 6.0);
        assert_eq!(get(&recorder, "ebpf.agent.series", &[]), 7.0);
    }

    #[test]
    fn what_is_lost_has_its_cause() {
        let mut stats = stats(10);
        assert_eq!(stats.lost(), [(Signal::Logs, "queue full", 4)], "what is folded is in the sum");
        (stats.series.lost, stats.series.refused) = (2, 3);
        let points = [(Signal::Metrics, "memory full", 2), (Signal::Metrics, "not valid", 3)];
        assert_eq!(stats.lost()[..2], points);
    }

    #[test]
    fn what_waits_at_a_destination() {
        let mut stats = ExportStats { name: "http://there/".to_owned(), ..ExportStats::default() };
        let of = stats.signals.get_mut(Signal::Traces);
        (of.retries, of.in_memory.bytes, of.in_spool.bytes) = (3, 100, 200);
        let (mut about, mut recorder) = (AboutAgent::default(), Recorder::default());
        about.export(&mut recorder, &[stats.clone()]);
        about.export(&mut recorder, &[stats]);
        let at = [("ebpf.destination", "http://there/"), ("ebpf.signal", "traces")];
        assert_eq!(get(&recorder, "ebpf.agent.export.retries", &at), 3.0);
        assert_eq!(get(&recorder, "ebpf.agent.export.queued", &at), 100.0);
        assert_eq!(get(&recorder, "ebpf.agent.export.spooled", &at), 200.0);
        assert_eq!(get(&recorder, "ebpf.agent.export.drops", &[]), 0.0);
    }
}
