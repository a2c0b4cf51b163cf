//! Metrics as Prometheus' text format has them (0.0.4), named by the compatibility rules of OpenTelemetry.
//!
//! The format has no exponential histograms. As histograms with fixed bounds, each would be some twenty lines, mostly empty,
//! so that durations come as the sum and the count of a summary: rates and means are exact, and quantiles are for OTLP.

use std::fmt::Write;

use super::metrics::Value;
use crate::telemetry::{Exponential, Instrument, Metric};

/// What the media type of a page is.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of at most about so many bytes, which grows family by family.
#[derive(Debug)]
pub struct Page {
    text: String,
    max_bytes: usize,
    omitted: u64,
}

/// A value on a page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sample {
    /// Counters and gauges.
    Int(i64),
    /// The same.
    Double(f64),
    /// Sum in seconds, and count.
    Durations(f64, u64),
}

impl From<Value<'_>> for Sample {
    fn from(value: Value<'_>) -> Self {
        let durations = |all: &Exponential| Self::Durations(all.sum_seconds(), all.count());
        match value {
            Value::Int(n) => Self::Int(n),
            Value::Double(n) => Self::Double(n),
            Value::Histogram(histogram) => durations(histogram),
        }
    }
}

impl Sample {
    /// Both together, of what adds up.
    fn add(self, other: Self) -> Self {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Self::Int(a.saturating_add(b)),
            (Self::Durations(sum, count), Self::Durations(more, n)) => {
                Self::Durations(sum + more, count.saturating_add(n))
            }
            (a, b) => Self::Double(a.as_f64() + b.as_f64()),
        }
    }

    fn as_f64(self) -> f64 {
        match self {
            Self::Int(n) => n as f64,
            Self::Double(n) | Self::Durations(n, _) => n,
        }
    }
}

impl Page {
    /// An empty page.
    pub fn new(max_bytes: usize) -> Self {
        Self { text: String::new(), max_bytes, omitted: 0 }
    }

    /// Adds all series of a metric, by their labels, lists of [`label`]. Those with the same labels, which a page cannot have, become one.
    pub fn family(&mut self, metric: &Metric, mut series: Vec<(String, Sample)>) {
        series.sort_by(|(a, _), (b, _)| a.cmp(b));
        series.dedup_by(|(labels, sample), (kept, sum)| {
            let same = labels == kept;
            if same && metric.instrument != Instrument::Gauge {
                *sum = sum.add(*sample);
            }
            same
        });
        let kind = match metric.instrument {
            Instrument::Counter => "counter",
            Instrument::UpDownCounter | Instrument::Gauge => "gauge",
            Instrument::Histogram => "summary",
        };
        self.named_family(&name(metric), metric.description, kind, &series);
    }

    /// What is known of each target, as labels.
    pub fn targets(&mut self, targets: &[String]) {
        let rows: Vec<_> = targets.iter().map(|labels| (labels.clone(), Sample::Int(1))).collect();
        self.named_family("target_info", "Whose metrics these are", "gauge", &rows);
    }

    fn named_family(&mut self, name: &str, help: &str, kind: &str, series: &[(String, Sample)]) {
        let before = self.text.len();
        // Only text is made here: writing to a String does not fail.
        let _ = write!(self.text, "# HELP {name} {}.\n# TYPE {name} {kind}\n", escape(help, false));
        let empty = self.text.len();
        for (labels, sample) in series {
            let end = self.text.len();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            let _ = match sample {
                Sample::Int(n) => writeln!(self.text, "{name}{labels} {n}"),
                Sample::Double(n) => writeln!(self.text, "{name}{labels} {}", float(*n)),
                Sample::Durations(sum, count) => {
                    let sum = float(*sum);
                    writeln!(self.text, "{name}_sum{labels} {sum}\n{name}_count{labels} {count}")
                }
            };
            if self.text.len() > self.max_bytes {
                self.text.truncate(end);
                self.omitted += 1;
            }
        }
        if self.text.len() == empty {
            self.text.truncate(before);
        }
    }

    /// The text, which ends with how many series found no room on it.
    pub fn finish(mut self) -> String {
        let omitted = [(String::new(), Sample::Int(i64::try_from(self.omitted).unwrap_or(i64::MAX)))];
        self.max_bytes = usize::MAX;
        self.named_family("ebpf_agent_page_omitted", "Series without room on this page", "gauge", &omitted);
        self.text
    }
}

/// As OpenTelemetry's compatibility specification has it: dots become underscores, the unit and `_total` are appended.
pub fn name(metric: &Metric) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == ':' { c } else { '_' };
    let mut name: String = metric.name.chars().map(legal).collect();
    let unit = match metric.unit {
        "s" => "seconds",
        "By" => "bytes",
        "1" if metric.instrument == Instrument::Gauge => "ratio",
        // Annotations, as `{call}`, are no unit.
        _ => "",
    };
    if !unit.is_empty() && !name.ends_with(unit) {
        name = format!("{name}_{unit}");
    }
    if metric.instrument == Instrument::Counter && !name.ends_with("_total") {
        name.push_str("_total");
    }
    name
}

/// Appends a label to a list of them.
pub fn label(to: &mut String, key: &str, value: &str) {
    let comma = if to.is_empty() { "" } else { "," };
    let _ = write!(to, "{comma}{}=\"{}\"", label_name(key), escape(value, true));
}

/// A key of an attribute as the name of a label.
pub fn label_name(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn float(number: f64) -> String {
    if number == f64::INFINITY {
        "+Inf".to_owned()
    } else if number == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        // Of what is no number, `NaN`.
        number.to_string()
    }
}

fn escape(text: &str, quoted: bool) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quoted { escaped.replace('"', "\\\"") } else { escaped }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::agent::self_metrics;
    use crate::telemetry::{Definitions, Subject, agent};
    use crate::tracer::TRACERS;

    const fn metric(name: &'static str, unit: &'static str, instrument: Instrument) -> Metric {
        Metric {
            name,
            unit,
            description: "What \\ it is",
            instrument,
            subject: Subject::Agent,
            attributes: &["ebpf.tracer"],
            source: "",
        }
    }

    static EVENTS: Metric = metric("ebpf.agent.events", "{event}", Instrument::Counter);
    static COVERAGE: Metric = metric("ebpf.agent.coverage", "1", Instrument::Gauge);
    static WAIT: Metric = metric("ebpf.wait.duration", "s", Instrument::Histogram);

    fn of(tracer: &str) -> String {
        let mut labels = String::new();
        label(&mut labels, "ebpf.tracer", tracer);
        labels
    }

    #[test]
    fn numbers_and_durations_are_written() {
        let mut page = Page::new(1 << 20);
        page.family(&EVENTS, vec![(of("b"), Sample::Int(3)), (of("a\"b\n"), Sample::Int(7))]);
        page.family(
            &COVERAGE,
            vec![(of("tcp"), Sample::Double(0.5)), (of("x"), Sample::Double(f64::INFINITY))],
        );
        page.family(&WAIT, vec![(String::new(), Sample::Durations(3.0, 2))]);
        page.family(&EVENTS, Vec::new());
        assert_eq!(
            page.finish(),
            "# HELP ebpf_agent_events_total What \\\\ it is.\n# TYPE ebpf_agent_events_total counter\n\
             ebpf_agent_events_total{ebpf_tracer=\"a\\\"b\\n\"} 7\n\
             ebpf_agent_events_total{ebpf_tracer=\"b\"} 3\n\
             # HELP ebpf_agent_coverage_ratio What \\\\ it is.\n# TYPE ebpf_agent_coverage_ratio gauge\n\
             ebpf_agent_coverage_ratio{ebpf_tracer=\"tcp\"} 0.5\n\
             ebpf_agent_coverage_ratio{ebpf_tracer=\"x\"} +Inf\n\
             # HELP ebpf_wait_duration_seconds What \\\\ it is.\n# TYPE ebpf_wait_duration_seconds summary\n\
             ebpf_wait_duration_seconds_sum 3\nebpf_wait_duration_seconds_count 2\n\
             # HELP ebpf_agent_page_omitted Series without room on this page.\n\
             # TYPE ebpf_agent_page_omitted gauge\nebpf_agent_page_omitted 0\n"
        );
    }

    #[test]
    fn series_with_the_same_labels_are_one() {
        let mut page = Page::new(1 << 20);
        page.family(
            &EVENTS,
            vec![(of("a"), Sample::Int(3)), (of("b"), Sample::Int(1)), (of("a"), Sample::Int(7))],
        );
        page.family(&WAIT, vec![(of("a"), Sample::Durations(1.0, 2)), (of("a"), Sample::Durations(0.5, 1))]);
        let text = page.finish();
        assert!(
            text.contains("total{ebpf_tracer=\"a\"} 10\n") && text.contains("total{ebpf_tracer=\"b\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("_sum{ebpf_tracer=\"a\"} 1.5\n") && text.contains("_count{ebpf_tracer=\"a\"} 3\n"),
            "{text}"
        );
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let mut page = Page::new(300);
        let series = (0..20).map(|n| (of(&n.to_string()), Sample::Int(n))).collect();
        page.family(&EVENTS, series);
        page.family(&WAIT, vec![(of("a"), Sample::Durations(1.0, 2))]);
        let text = page.finish();
        let there = text.lines().filter(|line| line.starts_with("ebpf_agent_events_total")).count();
        assert!(there > 2 && there < 10 && !text.contains("wait"), "{text}");
        assert!(text.ends_with(&format!("\nebpf_agent_page_omitted {}\n", 20 - there + 1)), "{text}");
    }

    /// Nothing has to be made of two names that become one: there are none.
    #[test]
    fn names_of_all_definitions_are_legal_and_distinct() {
        let own: [&Definitions; 2] = [&self_metrics::DEFINITIONS, &agent::AGENT];
        let all = TRACERS.iter().map(|info| &info.telemetry).chain(own).flat_map(|all| all.metrics);
        let (mut names, mut metrics) = (HashSet::new(), HashSet::new());
        for metric in all {
            let name = name(metric);
            assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
            // Tracers may have a metric in common.
            if metrics.insert(metric.name) {
                assert!(names.insert(name), "{}", metric.name);
            }
            let labels: HashSet<_> = metric.attributes.iter().map(|key| label_name(key)).collect();
            assert_eq!(labels.len(), metric.attributes.len(), "{}", metric.name);
            for reserved in ["job", "instance", "le", "quantile"] {
                assert!(!labels.contains(reserved), "{} has {reserved}", metric.name);
            }
        }
        assert!(!names.contains("target_info") && !names.contains("ebpf_agent_page_omitted"));
    }
}
