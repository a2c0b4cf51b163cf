//! Points of one histogram, with five attributes and sixteen bounds.

use crate::Variants;
use crate::source::*;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1 as proto;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::{ManualReader, SdkMeterProvider, reader::MetricReader};
use otlp_encode::metrics::{self as ours, CUMULATIVE};
use otlp_encode::wire::Writer;
use otlp_encode::{
    AttributesBlob, Bounds, HistogramPoint, Limits, MetricBlob, MetricsRequest, ResourceBlob, ScopeBlob,
    Temporality,
};
use prost::Message;
use std::hint::black_box;
use std::sync::Arc;

const POINTS: usize = 1_000;
const NAME: &str = "http.server.request.duration";
const DESCRIPTION: &str = "Duration of HTTP server requests.";
const UNIT: &str = "s";
const BOUNDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0];

const KEYS: [&str; 5] =
    ["http.request.method", "http.route", "http.response.status_code", "server.address", "url.scheme"];

struct Point {
    attributes: Attributes,
    start: u64,
    time: u64,
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    buckets: [u64; BOUNDS.len() + 1],
}

/// A reader that the program keeps while the provider has it.
#[derive(Debug, Clone)]
struct Reader(Arc<ManualReader>);

impl MetricReader for Reader {
    fn register_pipeline(&self, pipeline: std::sync::Weak<opentelemetry_sdk::metrics::Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, rm: &mut ResourceMetrics) -> opentelemetry_sdk::error::OTelSdkResult {
        self.0.collect(rm)
    }

    fn force_flush(&self) -> opentelemetry_sdk::error::OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: std::time::Duration) -> opentelemetry_sdk::error::OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(
        &self,
        kind: opentelemetry_sdk::metrics::InstrumentKind,
    ) -> opentelemetry_sdk::metrics::Temporality {
        self.0.temporality(kind)
    }
}

/// What the SDK collects; there is no other way to make its type.
fn collect() -> ResourceMetrics {
    let reader = Reader(Arc::new(ManualReader::builder().build()));
    let provider =
        SdkMeterProvider::builder().with_resource(sdk_resource()).with_reader(reader.clone()).build();
    let histogram = provider
        .meter(SCOPE)
        .f64_histogram(NAME)
        .with_description(DESCRIPTION)
        .with_unit(UNIT)
        .with_boundaries(BOUNDS.to_vec())
        .build();
    let mut random = Random(1);
    for number in 0..POINTS {
        let attributes = sdk_attributes(&vec![
            (KEYS[0], text(["GET", "POST", "PUT", "DELETE"][number % 4])),
            (KEYS[1], text(format!("/api/v1/shops/{}/items", number % 500))),
            (KEYS[2], Value::Int(200 + number as i64 % 7)),
            (KEYS[3], text(format!("shop-{}", number % 100))),
            (KEYS[4], text(["http", "https"][number % 2])),
        ]);
        for _ in 0..40 + random.below(40) {
            histogram.record(random.below(12_000) as f64 / 1e3, &attributes);
        }
    }
    let mut collected = ResourceMetrics::default();
    reader.collect(&mut collected).expect("the provider lives");
    collected
}

/// The same data as a program of ours would hold it, in the same order.
fn points(request: &ExportMetricsServiceRequest) -> Vec<Point> {
    let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
    let Some(Data::Histogram(histogram)) = &metric.data else { panic!("it is a histogram") };
    let point = |point: &proto::HistogramDataPoint| Point {
        attributes: point.attributes.iter().map(attribute).collect(),
        start: point.start_time_unix_nano,
        time: point.time_unix_nano,
        count: point.count,
        sum: point.sum.expect("it was recorded"),
        min: point.min.expect("it was recorded"),
        max: point.max.expect("it was recorded"),
        buckets: point.bucket_counts.as_slice().try_into().expect("as many as bounds and one"),
    };
    histogram.data_points.iter().map(point).collect()
}

fn attribute(from: &opentelemetry_proto::tonic::common::v1::KeyValue) -> (&'static str, Value) {
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Proto;
    let value = match from.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Proto::StringValue(value)) => text(value),
        Some(Proto::IntValue(value)) => Value::Int(*value),
        other => panic!("{other:?} was not recorded"),
    };
    let key = KEYS.into_iter().find(|key| *key == from.key).expect("it was recorded");
    (key, value)
}

fn with_prost(points: &[Point]) -> ExportMetricsServiceRequest {
    let data_points = points
        .iter()
        .map(|point| proto::HistogramDataPoint {
            attributes: prost_attributes(&point.attributes),
            start_time_unix_nano: point.start,
            time_unix_nano: point.time,
            count: point.count,
            sum: Some(point.sum),
            bucket_counts: point.buckets.to_vec(),
            explicit_bounds: BOUNDS.to_vec(),
            min: Some(point.min),
            max: Some(point.max),
            ..Default::default()
        })
        .collect();
    let metric = proto::Metric {
        name: NAME.to_owned(),
        description: DESCRIPTION.to_owned(),
        unit: UNIT.to_owned(),
        data: Some(Data::Histogram(proto::Histogram { data_points, aggregation_temporality: CUMULATIVE })),
        ..Default::default()
    };
    let scope_metrics =
        proto::ScopeMetrics { scope: prost_scope(), metrics: vec![metric], ..Default::default() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![proto::ResourceMetrics {
            resource: prost_resource(),
            scope_metrics: vec![scope_metrics],
            ..Default::default()
        }],
    }
}

fn with_messages<'w>(points: &[Point], writer: &'w mut Writer) -> &'w [u8] {
    ours::ExportMetricsServiceRequest::encode(writer, |to| {
        to.resource_metrics([()], |to, ()| {
            to.scope_metrics([()], |to, ()| {
                to.metrics([()], |to, ()| {
                    to.histogram(|to| {
                        to.aggregation_temporality(CUMULATIVE);
                        to.data_points(points, |to, point| {
                            to.max(point.max);
                            to.min(point.min);
                            to.attributes(&point.attributes, write_attribute);
                            to.explicit_bounds(&BOUNDS);
                            to.bucket_counts(&point.buckets);
                            to.sum(point.sum);
                            to.count(point.count);
                            to.time_unix_nano(point.time);
                            to.start_time_unix_nano(point.start);
                        });
                    });
                    to.unit(UNIT);
                    to.description(DESCRIPTION);
                    to.name(NAME);
                });
                to.scope(write_scope);
            });
            to.resource(write_resource);
        });
    })
}

/// What is encoded once for all requests.
struct Blobs {
    resource: ResourceBlob,
    scope: ScopeBlob,
    metric: MetricBlob,
    series: Vec<AttributesBlob>,
}

impl Blobs {
    fn new(points: &[Point]) -> Self {
        let series =
            |point: &Point| AttributesBlob::new(&add_attributes(&point.attributes)).expect("they are valid");
        Self {
            resource: resource_blob(),
            scope: scope_blob(),
            metric: MetricBlob::new(NAME, UNIT, DESCRIPTION).expect("it is valid"),
            series: points.iter().map(series).collect(),
        }
    }
}

/// Hands the bytes to `sink`; with `cached` attributes or the points' own. The last point of a request is its first.
fn with_requests<R>(
    points: &[Point],
    blobs: &Blobs,
    cached: bool,
    request: &mut MetricsRequest,
    sink: impl Fn(&[u8]) -> R,
) -> Option<R> {
    let bounds = Bounds::new(&BOUNDS).expect("they ascend");
    let mut result = None;
    let mut out = request.start(|batch| result = Some(sink(batch.bytes)));
    let mut scopes = out.resource(&blobs.resource);
    let mut metrics = scopes.scope(&blobs.scope);
    let mut to = metrics.histogram(&blobs.metric, Temporality::Cumulative);
    for (point, series) in points.iter().zip(&blobs.series).rev() {
        let from = HistogramPoint {
            start_time_unix_nano: point.start,
            count: Some(point.count),
            sum: Some(point.sum),
            min: Some(point.min),
            max: Some(point.max),
            ..HistogramPoint::new(point.time, bounds, &point.buckets)
        };
        let added =
            if cached { to.add(&from, series) } else { to.add(&from, &add_attributes(&point.attributes)) };
        added.expect("it is valid");
    }
    out.finish();
    result
}

pub fn run() {
    let collected = collect();
    let request = ExportMetricsServiceRequest::from(&collected);
    let points = points(&request);
    let bytes = request.encode_to_vec();
    let mut writer = Writer::new();
    let blobs = Blobs::new(&points);
    let mut requests = [(); 2].map(|()| MetricsRequest::new(Limits::default()));
    let [request_of_own, request_of_cached] = &mut requests;
    assert_eq!(with_prost(&points).encode_to_vec(), bytes);
    assert_eq!(with_messages(&points, &mut writer), bytes);
    for cached in [false, true] {
        assert_eq!(
            with_requests(&points, &blobs, cached, request_of_own, <[u8]>::to_vec),
            Some(bytes.clone())
        );
    }

    let mut variants = Variants::new("histogram points", POINTS, bytes.len());
    variants.add("prost, build and encode", || with_prost(black_box(&points)).encode_to_vec());
    variants.add("prost, encode", || black_box(&request).encode_to_vec());
    variants.add("SDK, transform and encode", || {
        ExportMetricsServiceRequest::from(black_box(&collected)).encode_to_vec()
    });
    variants.add("ours, messages", || with_messages(black_box(&points), &mut writer).len());
    variants.add("ours, request", || {
        with_requests(black_box(&points), &blobs, false, request_of_own, <[u8]>::len)
    });
    variants.add("ours, request, cached attributes", || {
        with_requests(black_box(&points), &blobs, true, request_of_cached, <[u8]>::len)
    });
    variants.add_memcpy(&bytes);
    variants.report();
}
