//! The same as JSON, for `--json`; `docs/json.md` documents the fields.

use std::collections::BTreeMap;
use std::io::{self, Write};

use collector::agent::{Report, TracerReport};
use collector::output::json;
use collector::telemetry::{Exponential, Item, Recorder, Series};
use serde::Serialize;
use serde_json::{Value, json};

#[derive(Serialize)]
struct Line<'a> {
    command: &'a str,
    seconds: f64,
    tracers: Vec<Value>,
    numbers: Vec<Value>,
    histograms: Vec<Value>,
    spans: Vec<Value>,
    logs: Vec<Value>,
}

pub fn write(
    command: &str,
    recorder: &Recorder,
    seconds: f64,
    report: &Report,
    out: &mut impl Write,
) -> io::Result<()> {
    let line = Line {
        command,
        seconds,
        tracers: report.tracers.iter().map(tracer).collect(),
        numbers: recorder.numbers.iter().map(|(series, n)| number(series, *n)).collect(),
        histograms: recorder.histograms.iter().map(|(series, h)| histogram(series, h)).collect(),
        spans: recorder.spans.iter().map(span).collect(),
        logs: recorder.logs.iter().map(log).collect(),
    };
    json::write_line(out, &line)
}

fn tracer(tracer: &TracerReport) -> Value {
    let rungs: BTreeMap<&str, Option<&str>> = tracer.rungs.iter().map(|c| (c.what, c.rung)).collect();
    let dropped: BTreeMap<&str, u64> = tracer.stats.dropped.iter().copied().collect();
    json!({
        "name": tracer.name,
        "rungs": rungs,
        "coverage": tracer.coverage,
        "hits": tracer.stats.hits,
        "produced": tracer.stats.produced,
        "received": tracer.stats.received,
        "dropped": dropped,
        "map_bytes": tracer.map_bytes,
    })
}

fn attributes<'a>(attributes: &'a [(&'static str, String)]) -> BTreeMap<&'a str, &'a str> {
    attributes.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

fn number(series: &Series, value: f64) -> Value {
    json!({
        "metric": series.metric,
        "pid": series.pid,
        "attributes": attributes(&series.attributes),
        "value": value,
    })
}

fn histogram(series: &Series, histogram: &Exponential) -> Value {
    json!({
        "metric": series.metric,
        "pid": series.pid,
        "attributes": attributes(&series.attributes),
        "count": histogram.count(),
        "sum_seconds": histogram.sum_seconds(),
        "p50_seconds": histogram.quantile(0.5),
        "p99_seconds": histogram.quantile(0.99),
        "scale": histogram.scale,
        "zero_count": histogram.zero,
        "offset": histogram.offset(),
        "buckets": histogram.buckets,
    })
}

fn span(item: &Item) -> Value {
    json!({
        "name": item.name,
        "pid": item.pid,
        "start_boot_nanos": item.boot_nanos.0,
        "end_boot_nanos": item.boot_nanos.1,
        "attributes": attributes(&item.attributes),
        "error": item.text,
    })
}

fn log(item: &Item) -> Value {
    json!({
        "name": item.name,
        "pid": item.pid,
        "boot_nanos": item.boot_nanos.0,
        "attributes": attributes(&item.attributes),
        "body": item.text,
    })
}
