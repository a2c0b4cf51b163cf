//! A receiver stricter than any: what `docs/telemetry.md` does not say, or OTLP's data model does not allow, is a violation.

use std::collections::{BTreeMap, BTreeSet};

use collector::agent::self_metrics;
use collector::convert::profiles::{SCHEMA_URL, SCOPE_NAME};
use collector::telemetry::{self, Definitions, Instrument, Severity, Subject};
use collector::tracer::TRACERS;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogramDataPoint, metric,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::profcheck;
use known_work::received::{Attributes, Point, Received, Value, is_delta, map, of_resource};

/// What every resource says.
const OF_ALL: [&str; 8] = [
    "telemetry.sdk.name",
    "telemetry.sdk.language",
    "telemetry.sdk.version",
    "host.name",
    "host.arch",
    "os.type",
    "os.version",
    "os.description",
];
/// What that of a single process says.
const OF_PROCESS: [&str; 5] = [
    "service.name",
    "process.parent_pid",
    "process.executable.name",
    "process.executable.path",
    "process.owner",
];
/// What that of a profile says.
const OF_PROFILE: &[&str] =
    &["service.name", "process.parent_pid", "process.executable.name", "process.executable.path"];
/// What that of the agent says.
const OF_AGENT: [&str; 4] =
    ["service.instance.id", "service.version", "process.pid", "process.executable.name"];
/// A process' number, in records of resources that are not one process.
const PID: &str = "process.pid";

/// What was found.
#[derive(Debug)]
struct Findings {
    all: BTreeSet<String>,
    living: String,
}

impl Findings {
    fn add(&mut self, what: impl Into<String>) {
        self.all.insert(what.into());
    }

    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.all.insert(what());
        }
    }
}

fn all_definitions() -> impl Iterator<Item = &'static Definitions> {
    let own = [&self_metrics::DEFINITIONS, &telemetry::agent::AGENT];
    TRACERS.iter().map(|info| &info.telemetry).chain(own)
}

/// Everything in what was received that should not be there. `delta`: which temporality was asked for. `living`: a process
/// that was there all the time, so that all is known of it.
pub fn violations(received: &Received, delta: bool, living: u32) -> Vec<String> {
    let mut found = Findings { all: BTreeSet::new(), living: living.to_string() };
    metrics(received, delta, &mut found);
    spans(received, &mut found);
    logs(received, &mut found);
    for request in &received.profiles {
        profcheck::check(request).iter().for_each(|violation| found.add(violation.to_string()));
        for resource in &request.resource_profiles {
            let own = head(&resource.resource, &resource.schema_url, OF_PROFILE, &mut found);
            found.must(own.contains_key(PID), || "a profile of no process".into());
            for scope in &resource.scope_profiles {
                scope_is_ours(&scope.scope, &scope.schema_url, &mut found);
            }
        }
    }
    found.all.into_iter().collect()
}

/// Checks a resource, and returns what it says.
fn head(
    resource: &Option<Resource>,
    schema_url: &str,
    of_process: &[&'static str],
    found: &mut Findings,
) -> Attributes {
    found.must(schema_url == SCHEMA_URL, || format!("resource with schema {schema_url:?}"));
    let attributes = of_resource(resource);
    if let Some(resource) = resource {
        unique(&resource.attributes, "a resource", found);
        found.must(resource.dropped_attributes_count == 0, || "a resource with dropped attributes".into());
    }
    let mut wanted = OF_ALL.to_vec();
    if is_agent(&attributes) {
        wanted.extend(OF_AGENT);
    } else if attributes.get(PID) == Some(&found.living) {
        wanted.extend(of_process);
    } else if attributes.contains_key(PID) {
        wanted.push("service.name");
    }
    for key in wanted {
        let has = attributes.get(key).is_some_and(|value| !value.is_empty());
        found.must(has, || format!("no {key} in the resource {attributes:?}"));
    }
    attributes
}

fn is_agent(resource: &Attributes) -> bool {
    resource.get("service.name").is_some_and(|name| name == "ebpf-otlp")
}

fn scope_is_ours(scope: &Option<InstrumentationScope>, schema_url: &str, found: &mut Findings) {
    let ours = |scope: &InstrumentationScope| scope.name == SCOPE_NAME && !scope.version.is_empty();
    found.must(scope.as_ref().is_some_and(ours), || format!("the scope {scope:?}"));
    found.must(schema_url == SCHEMA_URL, || format!("scope with schema {schema_url:?}"));
}

fn unique(attributes: &[KeyValue], of: &str, found: &mut Findings) {
    let keys: BTreeSet<&str> = attributes.iter().map(|pair| pair.key.as_str()).collect();
    found.must(keys.len() == attributes.len(), || format!("a key twice in {of}"));
    let has_value = |pair: &KeyValue| pair.value.as_ref().is_some_and(|value| value.value.is_some());
    for pair in attributes {
        found.must(!pair.key.is_empty() && has_value(pair), || format!("{of}: {pair:?}"));
    }
}

/// Attributes are those that the definition has, and those of `more`.
fn documented(
    of: &str,
    attributes: &[KeyValue],
    definitions: &[&'static [&'static str]],
    more: &[&str],
    found: &mut Findings,
) {
    unique(attributes, of, found);
    for pair in attributes {
        let key = pair.key.as_str();
        let known = definitions.iter().any(|known| known.contains(&key)) || more.contains(&key);
        found.must(known, || format!("{of} has {key}, which is not documented"));
    }
}

fn metrics(received: &Received, delta: bool, found: &mut Findings) {
    for request in &received.metrics {
        let mut resources = BTreeSet::new();
        for resource in &request.resource_metrics {
            let attributes = head(&resource.resource, &resource.schema_url, &OF_PROCESS, found);
            found.must(!resource.scope_metrics.is_empty(), || "a resource without scopes".into());
            found.must(resources.insert(attributes), || "a resource twice in a request".into());
            for scope in &resource.scope_metrics {
                scope_is_ours(&scope.scope, &scope.schema_url, found);
                let names: BTreeSet<&str> = scope.metrics.iter().map(|metric| metric.name.as_str()).collect();
                found.must(names.len() == scope.metrics.len(), || "a metric twice in a scope".into());
            }
        }
    }
    let points = received.points();
    for point in &points {
        definition(point, delta, found);
        value(point, found);
    }
    series(&points, found);
}

/// A metric is as it is defined.
fn definition(point: &Point<'_>, delta: bool, found: &mut Findings) {
    let (metric, name) = (point.metric, point.metric.name.as_str());
    let all = all_definitions().flat_map(|all| all.metrics);
    let known: Vec<_> = all.copied().filter(|known| known.name == name).collect();
    let Some(first) = known.first() else { return found.add(format!("{name} is not documented")) };
    found.must(metric.unit == first.unit, || format!("{name} in {}, not {}", metric.unit, first.unit));
    found.must(metric.description == first.description, || format!("{name}: {}", metric.description));
    let wanted = if delta { AggregationTemporality::Delta } else { AggregationTemporality::Cumulative };
    let good = match (&metric.data, first.instrument) {
        (Some(metric::Data::Sum(sum)), Instrument::Counter) => {
            sum.is_monotonic && sum.aggregation_temporality() == wanted
        }
        (Some(metric::Data::Sum(sum)), Instrument::UpDownCounter) => {
            !sum.is_monotonic && sum.aggregation_temporality() == AggregationTemporality::Cumulative
        }
        (Some(metric::Data::Gauge(_)), Instrument::Gauge) => true,
        (Some(metric::Data::ExponentialHistogram(histogram)), Instrument::Histogram) => {
            histogram.aggregation_temporality() == wanted
        }
        _ => false,
    };
    found.must(good, || format!("{name} is not a {:?}, delta: {delta}", first.instrument));
    let definitions: Vec<_> = known.iter().map(|known| known.attributes).collect();
    documented(name, point.attributes, &definitions, &["otel.metric.overflow"], found);
    let is_own = first.subject == Subject::Agent;
    found.must(is_own == is_agent(&point.resource), || format!("{name} of {:?}", point.resource));
    if first.subject == Subject::Host {
        found.must(!point.resource.contains_key("service.name"), || format!("{name} of a service"));
    }
    let is_ours = point.scope.is_some_and(|scope| scope.attributes.is_empty());
    found.must(is_ours, || format!("{name}: {:?}", point.scope));
}

/// A value is one.
fn value(point: &Point<'_>, found: &mut Findings) {
    let name = &point.metric.name;
    found.must(point.time > 0 && point.start <= point.time, || {
        format!("{name} from {} to {}", point.start, point.time)
    });
    let is_gauge = matches!(point.metric.data, Some(metric::Data::Gauge(_)));
    found.must(is_gauge || point.start > 0, || format!("{name} has no start"));
    match point.value {
        Value::Int(_) => {}
        Value::Double(n) => found.must(n.is_finite(), || format!("{name} is {n}")),
        Value::Histogram(histogram) => buckets(name, histogram, found),
    }
    let rises = matches!(&point.metric.data, Some(metric::Data::Sum(sum)) if sum.is_monotonic);
    found.must(!rises || point.value.amount() >= 0.0, || format!("{name} is below 0"));
}

fn buckets(name: &str, point: &ExponentialHistogramDataPoint, found: &mut Findings) {
    let sides = [&point.positive, &point.negative].map(|side| {
        let counts = side.as_ref().map_or(&[][..], |buckets| buckets.bucket_counts.as_slice());
        counts.iter().sum::<u64>()
    });
    let [positive, negative] = sides;
    let sum = positive + negative + point.zero_count;
    found.must(sum == point.count, || format!("{name}: {} in buckets, and a count of {}", sum, point.count));
    found.must(negative == 0, || format!("{name} has durations below 0"));
    found.must((-10..=20).contains(&point.scale), || format!("{name} of scale {}", point.scale));
    let threshold = point.zero_threshold;
    found.must(threshold.is_finite() && threshold >= 0.0, || format!("{name}: zero up to {threshold}"));
    let count = point.count as f64;
    if let Some(sum) = point.sum {
        found.must(sum.is_finite() && sum >= 0.0, || format!("{name} with a sum of {sum}"));
        // Each bucket says what its values may be.
        if let Some(buckets) = &point.positive {
            let bound = |index: f64| (index * f64::powi(2.0, -point.scale)).exp2();
            let indices = buckets.bucket_counts.iter().zip(i64::from(buckets.offset)..);
            let (mut least, mut most) = (0.0, threshold * point.zero_count as f64);
            for (count, index) in indices {
                least += *count as f64 * bound(index as f64);
                most += *count as f64 * bound(index as f64 + 1.0);
            }
            // The kernel takes whole units of 2^-30 s.
            let slack = 1e-6 * sum + count * f64::powi(2.0, -30);
            found.must(least <= sum + slack && sum <= most + slack, || {
                format!("{name}: a sum of {sum}, and buckets say {least} to {most}")
            });
        }
        if let (Some(min), Some(max)) = (point.min, point.max) {
            let good = min <= max && min * count <= sum * 1.000_001 && sum <= max * count * 1.000_001;
            found.must(count == 0.0 || good, || format!("{name}: {min} to {max}, {count} of {sum}"));
        }
    }
}

/// Within a request a series is there once; from one to the next, it goes on where it was.
fn series(points: &[Point<'_>], found: &mut Findings) {
    // Windows in order, as the agent's own metrics have them: those are in every one.
    let mut windows: Vec<u64> = points.iter().map(|point| point.time).collect();
    windows.sort_unstable();
    windows.dedup();
    let mut known = BTreeMap::new();
    for point in points {
        let name = point.metric.name.as_str();
        let key = (&point.resource, name, map(point.attributes));
        let Some((request, start, time, amount)) =
            known.insert(key, (point.request, point.start, point.time, point.value.amount()))
        else {
            continue;
        };
        let what = || format!("{name} {:?} of {:?}", map(point.attributes), point.resource);
        found.must(request != point.request, || format!("{} twice in a request", what()));
        found.must(time < point.time, || format!("{} twice at a time", what()));
        let rises = match &point.metric.data {
            Some(metric::Data::Sum(sum)) => sum.is_monotonic,
            Some(metric::Data::ExponentialHistogram(_)) => true,
            _ => false,
        };
        if is_delta(point.metric) {
            let at = windows.partition_point(|window| *window < point.time);
            let before = at.checked_sub(1).and_then(|at| windows.get(at)).copied();
            found.must(Some(point.start) == before && time <= point.start, || {
                format!("{} from {}, and the window before ended {before:?}", what(), point.start)
            });
        } else if !matches!(point.metric.data, Some(metric::Data::Gauge(_))) {
            found.must(start == point.start, || {
                format!("{} has the start {start}, then {}", what(), point.start)
            });
            found.must(!rises || amount <= point.value.amount(), || format!("{} falls", what()));
        }
    }
}

fn spans(received: &Received, found: &mut Findings) {
    let mut ids = BTreeSet::new();
    for resource in received.traces.iter().flat_map(|request| &request.resource_spans) {
        let own = head(&resource.resource, &resource.schema_url, &OF_PROCESS, found);
        for scope in &resource.scope_spans {
            scope_is_ours(&scope.scope, &scope.schema_url, found);
            for span in &scope.spans {
                let name = span.name.as_str();
                let definition = all_definitions().flat_map(|all| all.spans).find(|known| known.name == name);
                let Some(definition) = definition else {
                    found.add(format!("the span {name} is not documented"));
                    continue;
                };
                let more = if own.contains_key(PID) { &[][..] } else { &[PID] };
                documented(name, &span.attributes, &[definition.attributes], more, found);
                let is_id = |id: &[u8], length| id.len() == length && id.iter().any(|byte| *byte != 0);
                found.must(is_id(&span.trace_id, 16), || format!("{name}: trace {:?}", span.trace_id));
                found.must(is_id(&span.span_id, 8), || format!("{name}: span {:?}", span.span_id));
                found.must(ids.insert(&span.span_id), || format!("{name}: an id twice"));
                let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
                found.must(start > 0 && start <= end, || format!("{name} from {start} to {end}"));
                found.must(span.kind > 0 && span.kind <= 5, || format!("{name} of kind {}", span.kind));
            }
        }
    }
}

fn logs(received: &Received, found: &mut Findings) {
    for resource in received.logs.iter().flat_map(|request| &request.resource_logs) {
        let own = head(&resource.resource, &resource.schema_url, &OF_PROCESS, found);
        for scope in &resource.scope_logs {
            scope_is_ours(&scope.scope, &scope.schema_url, found);
            for record in &scope.log_records {
                let name = record.event_name.as_str();
                let definition = all_definitions().flat_map(|all| all.logs).find(|known| known.name == name);
                let Some(definition) = definition else {
                    found.add(format!("the log record {name} is not documented"));
                    continue;
                };
                let more = if own.contains_key(PID) { &[][..] } else { &[PID] };
                documented(name, &record.attributes, &[definition.attributes], more, found);
                let severity = match definition.severity {
                    Severity::Info => (9, "INFO"),
                    Severity::Warn => (13, "WARN"),
                    Severity::Error => (17, "ERROR"),
                };
                let is = (record.severity_number, record.severity_text.as_str());
                found.must(is == severity, || format!("{name} is {is:?}"));
                let (time, observed) = (record.time_unix_nano, record.observed_time_unix_nano);
                found.must(time > 0 && time <= observed, || format!("{name} at {time}, seen {observed}"));
                found.must(record.body.is_some(), || format!("{name} without a body"));
            }
        }
    }
}
