//! What a receiver took of an agent, decoded by prost, and what it adds up to.

use std::collections::BTreeMap;
use std::path::Path;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, Metric, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

/// Requests in the order in which they came.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Received {
    /// Of metrics.
    pub metrics: Vec<ExportMetricsServiceRequest>,
    /// Of traces.
    pub traces: Vec<ExportTraceServiceRequest>,
    /// Of logs.
    pub logs: Vec<ExportLogsServiceRequest>,
    /// Of profiles.
    pub profiles: Vec<ExportProfilesServiceRequest>,
}

/// Attributes as text, in order.
pub type Attributes = BTreeMap<String, String>;

/// A point of a metric, with all that it is of.
#[derive(Debug)]
pub struct Point<'a> {
    /// Which request it was in.
    pub request: usize,
    /// Its resource.
    pub resource: Attributes,
    /// Its scope.
    pub scope: Option<&'a InstrumentationScope>,
    /// Its metric.
    pub metric: &'a Metric,
    /// Its attributes.
    pub attributes: &'a [KeyValue],
    /// What it holds from, in nanoseconds since the epoch.
    pub start: u64,
    /// When it was taken.
    pub time: u64,
    /// Its value.
    pub value: Value<'a>,
}

/// What a point says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A whole number.
    Int(i64),
    /// Another number.
    Double(f64),
    /// Buckets.
    Histogram(&'a ExponentialHistogramDataPoint),
}

impl Value<'_> {
    /// The number; of a histogram, its count.
    pub fn amount(&self) -> f64 {
        match self {
            Self::Int(n) => *n as f64,
            Self::Double(n) => *n,
            Self::Histogram(point) => point.count as f64,
        }
    }
}

/// An attribute's value as text, whatever its type.
pub fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(n)) => n.to_string(),
        Some(any_value::Value::DoubleValue(n)) => n.to_string(),
        Some(any_value::Value::BoolValue(b)) => b.to_string(),
        other => format!("{other:?}"),
    }
}

/// Attributes as a map.
pub fn map(attributes: &[KeyValue]) -> Attributes {
    attributes.iter().map(|pair| (pair.key.clone(), text(pair.value.as_ref()))).collect()
}

/// A resource's attributes.
pub fn of_resource(resource: &Option<Resource>) -> Attributes {
    resource.as_ref().map(|resource| map(&resource.attributes)).unwrap_or_default()
}

impl Received {
    /// What `receiver.py` and `lines.py` wrote into a folder.
    pub fn read(folder: &Path) -> Self {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
        let split = |name: String| {
            let (number, signal) = name.split_once('-').expect("NUMBER-SIGNAL");
            (number.parse::<usize>().expect("a number"), signal.to_owned())
        };
        let mut names: Vec<(usize, String)> = names.map(split).collect();
        names.sort_unstable();
        let mut received = Self::default();
        for (number, signal) in names {
            let body = std::fs::read(folder.join(format!("{number}-{signal}"))).expect("a file");
            let body = body.as_slice();
            match signal.as_str() {
                "metrics" => received.metrics.push(Message::decode(body).expect("a request")),
                "traces" => received.traces.push(Message::decode(body).expect("a request")),
                "logs" => received.logs.push(Message::decode(body).expect("a request")),
                "profiles" => received.profiles.push(Message::decode(body).expect("a request")),
                other => panic!("no signal: {other}"),
            }
        }
        received
    }

    /// Every point of every metric.
    pub fn points(&self) -> Vec<Point<'_>> {
        self.points_of(|_| true)
    }

    /// Every point of the metrics that are wanted: all of them take more memory than a board has.
    pub fn points_of(&self, wanted: impl Fn(&Metric) -> bool) -> Vec<Point<'_>> {
        let mut points = Vec::new();
        for (request, content) in self.metrics.iter().enumerate() {
            for resource_metrics in &content.resource_metrics {
                let resource = of_resource(&resource_metrics.resource);
                for scope in &resource_metrics.scope_metrics {
                    for metric in scope.metrics.iter().filter(|metric| wanted(metric)) {
                        let mut push = |attributes, start, time, value| {
                            let (resource, scope) = (resource.clone(), scope.scope.as_ref());
                            points.push(Point {
                                request,
                                resource,
                                scope,
                                metric,
                                attributes,
                                start,
                                time,
                                value,
                            });
                        };
                        let numbers = match &metric.data {
                            Some(metric::Data::Sum(sum)) => sum.data_points.as_slice(),
                            Some(metric::Data::Gauge(gauge)) => gauge.data_points.as_slice(),
                            _ => &[],
                        };
                        for point in numbers {
                            let value = match point.value {
                                Some(number_data_point::Value::AsInt(n)) => Value::Int(n),
                                Some(number_data_point::Value::AsDouble(n)) => Value::Double(n),
                                None => Value::Double(f64::NAN),
                            };
                            push(
                                point.attributes.as_slice(),
                                point.start_time_unix_nano,
                                point.time_unix_nano,
                                value,
                            );
                        }
                        if let Some(metric::Data::ExponentialHistogram(histogram)) = &metric.data {
                            for point in &histogram.data_points {
                                let (start, time) = (point.start_time_unix_nano, point.time_unix_nano);
                                push(point.attributes.as_slice(), start, time, Value::Histogram(point));
                            }
                        }
                    }
                }
            }
        }
        points
    }

    /// What a metric adds up to, of histograms the count: over the resources and series that have all these attributes, the
    /// last point of what is cumulative, and every point of what is not.
    pub fn total(&self, name: &str, resource: &[(&str, &str)], attributes: &[(&str, &str)]) -> f64 {
        let has = |own: &Attributes, wanted: &[(&str, &str)]| {
            wanted.iter().all(|(key, value)| own.get(*key).is_some_and(|own| own == value))
        };
        let mut last = BTreeMap::new();
        for point in self.points_of(|metric| metric.name == name) {
            let own = map(point.attributes);
            if !has(&point.resource, resource) || !has(&own, attributes) {
                continue;
            }
            let delta = is_delta(point.metric);
            let key = (point.resource, own, point.start, if delta { point.time } else { 0 });
            last.insert(key, point.value.amount());
        }
        last.values().sum()
    }
}

/// Whether a metric's points are deltas.
pub fn is_delta(metric: &Metric) -> bool {
    use opentelemetry_proto::tonic::metrics::v1::AggregationTemporality::Delta;
    match &metric.data {
        Some(metric::Data::Sum(sum)) => sum.aggregation_temporality() == Delta,
        Some(metric::Data::ExponentialHistogram(histogram)) => histogram.aggregation_temporality() == Delta,
        _ => false,
    }
}
