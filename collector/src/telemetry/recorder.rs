//! A sink that keeps everything in memory.

use bpf_programs::events::process::Lifecycle;

use super::{Attribute, Exponential, Instrument, LogRecord, Owner, Point, PointValue, Sink, Span};
use crate::model::Profile;
use crate::pipeline::keep::show;
use crate::sorted::SortedMap;

/// Everything that tracers handed over, added up where it adds up. It grows without bound: for runs that end, and for tests.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Sums and gauges, by series.
    pub numbers: SortedMap<Series, f64>,
    /// Histograms, by series.
    pub histograms: SortedMap<Series, Exponential>,
    /// Names of processes' threads, as the kernel had them last.
    pub names: SortedMap<u32, [u8; 16]>,
    /// Spans in their order.
    pub spans: Vec<Item>,
    /// Log records in their order.
    pub logs: Vec<Item>,
    /// Profiles in their order.
    pub profiles: Vec<Profile>,
    /// What happened to processes.
    pub lifecycle: Vec<Lifecycle>,
}

/// What a point belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// The metric's name.
    pub metric: &'static str,
    /// The process; `None` for the machine and the agent.
    pub pid: Option<u32>,
    /// Attributes, as text.
    pub attributes: Vec<(&'static str, String)>,
}

/// A span or a log record.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The definition's name.
    pub name: &'static str,
    /// The process.
    pub pid: Option<u32>,
    /// Start and end in nanoseconds of `CLOCK_BOOTTIME`; a log record has one time.
    pub boot_nanos: (u64, u64),
    /// Attributes, as text.
    pub attributes: Vec<(&'static str, String)>,
    /// Why a span failed, or a log record's body.
    pub text: Option<String>,
}

impl Item {
    /// The attribute of that key.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|(k, _)| *k == key).map(|(_, value)| value.as_str())
    }
}

fn pid_of(owner: Owner) -> Option<u32> {
    match owner {
        Owner::Process { pid, .. } => Some(pid),
        _ => None,
    }
}

fn texts(attributes: &[Attribute<'_>]) -> Vec<(&'static str, String)> {
    attributes.iter().map(|(key, value)| (*key, show(*value))).collect()
}

impl Sink for Recorder {
    fn point(&mut self, point: Point<'_>) {
        for (key, _) in point.attributes {
            debug_assert!(
                point.metric.attributes.contains(key),
                "{} is not defined with {key}",
                point.metric.name
            );
        }
        let series = Series {
            metric: point.metric.name,
            pid: pid_of(point.owner),
            attributes: texts(point.attributes),
        };
        if let Owner::Process { pid, comm } = point.owner {
            if comm[0] != 0 {
                self.names.insert(pid, comm);
            }
        }
        let adds = point.metric.instrument == Instrument::Counter;
        let number = match point.value {
            PointValue::Histogram(histogram) => {
                let kept = self.histograms.entry(series);
                kept.or_insert_with(|| Exponential::new(histogram.scale)).merge(histogram);
                return;
            }
            PointValue::Int(n) => n as f64,
            PointValue::Double(n) => n,
        };
        let kept = self.numbers.entry(series).or_insert(0.0);
        *kept = if adds { *kept + number } else { number };
    }

    fn span(&mut self, span: Span<'_>) {
        self.spans.push(Item {
            name: span.span.name,
            pid: pid_of(span.owner),
            boot_nanos: span.boot_nanos,
            attributes: texts(span.attributes),
            text: span.error.map(str::to_owned),
        });
    }

    fn log(&mut self, record: LogRecord<'_>) {
        self.logs.push(Item {
            name: record.log.name,
            pid: pid_of(record.owner),
            boot_nanos: (record.boot_nanos, record.boot_nanos),
            attributes: texts(record.attributes),
            text: Some(record.body.to_owned()),
        });
    }

    fn profile(&mut self, profile: Profile) {
        self.profiles.push(profile);
    }

    fn lifecycle(&mut self, event: &Lifecycle) {
        self.lifecycle.push(*event);
    }
}

impl Recorder {
    fn matches(series: &Series, metric: &str, pid: u32, attributes: &[(&str, &str)]) -> bool {
        series.metric == metric
            && series.pid == Some(pid)
            && attributes
                .iter()
                .all(|(k, v)| series.attributes.iter().any(|(key, value)| key == k && value == v))
    }

    /// Sum over all series of a process that have these attributes, and maybe others.
    pub fn number(&self, metric: &str, pid: u32, attributes: &[(&str, &str)]) -> f64 {
        let of = self.numbers.iter().filter(|(series, _)| Self::matches(series, metric, pid, attributes));
        of.map(|(_, n)| n).sum()
    }

    /// As [`number`](Self::number), of histograms.
    pub fn histogram(&self, metric: &str, pid: u32, attributes: &[(&str, &str)]) -> Exponential {
        let mut of =
            self.histograms.iter().filter(|(series, _)| Self::matches(series, metric, pid, attributes));
        let Some((_, first)) = of.next() else { return Exponential::default() };
        of.fold(first.clone(), |mut all, (_, other)| {
            all.merge(other);
            all
        })
    }
}
