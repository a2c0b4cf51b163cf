//! Metrics as Prometheus' text format has them (0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::telemetry::{Instrument, Metric, Recorder, Series};

/// Writes the numbers and histograms of these metrics. Durations come as the sum and the count of a summary.
pub fn write(recorder: &Recorder, metrics: &[&'static Metric]) -> String {
    let mut text = String::new();
    let mut by_name: BTreeMap<&str, Vec<&Series>> = BTreeMap::new();
    for series in recorder.numbers.keys().chain(recorder.histograms.keys()) {
        by_name.entry(series.metric).or_default().push(series);
    }
    for metric in metrics {
        let Some(all) = by_name.get(metric.name) else { continue };
        let name = name(metric);
        let kind = match metric.instrument {
            Instrument::Counter => "counter",
            Instrument::UpDownCounter | Instrument::Gauge => "gauge",
            Instrument::Histogram => "summary",
        };
        // Only text is made here: writing to a String does not fail.
        let _ = write!(text, "# HELP {name} {}.\n# TYPE {name} {kind}\n", escape(metric.description, false));
        for series in all {
            let labels = labels(series);
            if let Some(value) = recorder.numbers.get(series) {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
            if let Some(histogram) = recorder.histograms.get(series) {
                let _ = writeln!(text, "{name}_sum{labels} {}", histogram.sum_seconds());
                let _ = writeln!(text, "{name}_count{labels} {}", histogram.count());
            }
        }
    }
    text
}

/// As OpenTelemetry's compatibility specification has it: dots become underscores, the unit and `_total` are appended.
fn name(metric: &Metric) -> String {
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

fn labels(series: &Series) -> String {
    let pid = series.pid.map(|pid| ("pid".to_owned(), pid.to_string()));
    let label = |(key, value): &(&str, String)| {
        let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        (key.chars().map(legal).collect::<String>(), value.clone())
    };
    let pairs = pid.into_iter().chain(series.attributes.iter().map(label));
    let texts: Vec<String> =
        pairs.map(|(key, value)| format!("{key}=\"{}\"", escape(&value, true))).collect();
    if texts.is_empty() { String::new() } else { format!("{{{}}}", texts.join(",")) }
}

fn escape(text: &str, quoted: bool) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quoted { escaped.replace('"', "\\\"") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Exponential, Owner, Point, PointValue, Sink, Subject};
    use otlp_encode::Value;

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

    #[test]
    fn numbers_and_durations_are_written() {
        let mut recorder = Recorder::default();
        let mut add = |metric, tracer, value| {
            let attributes = [("ebpf.tracer", Value::Str(tracer))];
            recorder.point(Point { metric, owner: Owner::Agent, attributes: &attributes, value });
        };
        add(&EVENTS, "a\"b\n", PointValue::Int(7));
        add(&COVERAGE, "tcp", PointValue::Double(0.5));
        let wait = Exponential::from_slots(0, 1, &[2], 3_000_000_000);
        add(&WAIT, "tcp", PointValue::Histogram(&wait));
        assert_eq!(
            write(&recorder, &[&EVENTS, &COVERAGE, &WAIT]),
            "# HELP ebpf_agent_events_total What \\\\ it is.\n# TYPE ebpf_agent_events_total counter\n\
             ebpf_agent_events_total{ebpf_tracer=\"a\\\"b\\n\"} 7\n\
             # HELP ebpf_agent_coverage_ratio What \\\\ it is.\n# TYPE ebpf_agent_coverage_ratio gauge\n\
             ebpf_agent_coverage_ratio{ebpf_tracer=\"tcp\"} 0.5\n\
             # HELP ebpf_wait_duration_seconds What \\\\ it is.\n# TYPE ebpf_wait_duration_seconds summary\n\
             ebpf_wait_duration_seconds_sum{ebpf_tracer=\"tcp\"} 3\n\
             ebpf_wait_duration_seconds_count{ebpf_tracer=\"tcp\"} 3\n"
        );
        assert_eq!(write(&recorder, &[]), "");
    }
}
