//! Series to OTLP requests of metrics.

use otlp_encode::{
    AttributesBlob, Batch, ExponentialBuckets, ExponentialHistogramPoint, MetricBlob, MetricsRequest, Number,
    NumberPoint, ResourceBlob, ScopeBlob, Temporality,
};

use crate::pipeline::resources::ResourceId;
use crate::telemetry::{Exponential, Instrument, Metric};

/// A point, as it is exported.
#[derive(Debug, Clone, Copy)]
pub struct MetricPoint<'a> {
    /// Whose.
    pub resource: ResourceId,
    /// Which metric.
    pub metric: &'static Metric,
    /// The same, encoded.
    pub head: &'a MetricBlob,
    /// What counters and histograms count from.
    pub temporality: Temporality,
    /// Attributes of the series.
    pub attributes: &'a AttributesBlob,
    /// Since when, in nanoseconds since the epoch.
    pub start_unix_nanos: u64,
    /// Until when.
    pub time_unix_nanos: u64,
    /// How much.
    pub value: Value<'a>,
}

/// A value.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// A number.
    Int(i64),
    /// A number.
    Double(f64),
    /// Durations.
    Histogram(&'a Exponential),
}

/// Durations of so many seconds or less are in the zero bucket: 2^-30.
const ZERO_THRESHOLD: f64 = 1.0 / (1 << 30) as f64;

/// Encodes the points that `get` has for the positions below `len`, in this order; those of one resource, and within it those
/// of one metric, lie side by side. `resource` knows the resources. Requests within limits go to `each`. Returns how many
/// points were refused.
pub fn encode<'a>(
    request: &mut MetricsRequest,
    scope: &ScopeBlob,
    len: usize,
    get: impl Fn(usize) -> Option<MetricPoint<'a>>,
    resource: impl Fn(ResourceId) -> Option<&'a ResourceBlob>,
    each: impl FnMut(Batch<'_>),
) -> u64 {
    let mut refused = 0;
    let mut out = request.start(each);
    // From the end, as messages are written from their end.
    let mut positions = (0..len).rev().filter_map(get).peekable();
    while let Some(of) = positions.peek().map(|point| point.resource) {
        let Some(blob) = resource(of) else {
            refused += positions.next().map_or(0, |_| 1);
            continue;
        };
        let mut scopes = out.resource(blob);
        let mut metrics = scopes.scope(scope);
        while let Some(first) = positions.peek().filter(|point| point.resource == of).copied() {
            let same = |point: &MetricPoint<'_>| point.resource == of && std::ptr::eq(point.head, first.head);
            match first.metric.instrument {
                Instrument::Histogram => {
                    let mut points = metrics.exponential_histogram(first.head, first.temporality);
                    while let Some(point) = positions.next_if(same) {
                        let Value::Histogram(histogram) = point.value else { continue };
                        let added = points.add(&durations(&point, histogram), point.attributes);
                        refused += u64::from(added.is_err());
                    }
                }
                instrument => {
                    let mut points = match instrument {
                        Instrument::Gauge => metrics.gauge(first.head),
                        _ => metrics.sum(first.head, first.temporality, instrument == Instrument::Counter),
                    };
                    let has_start = instrument != Instrument::Gauge;
                    while let Some(point) = positions.next_if(same) {
                        let number = NumberPoint {
                            start_time_unix_nano: if has_start { point.start_unix_nanos } else { 0 },
                            time_unix_nano: point.time_unix_nanos,
                            value: match point.value {
                                Value::Int(n) => Some(Number::Int(n)),
                                Value::Double(n) => Some(Number::Double(n)),
                                Value::Histogram(_) => None,
                            },
                            exemplars: &[],
                        };
                        refused += u64::from(points.add(&number, point.attributes).is_err());
                    }
                }
            }
        }
    }
    out.finish();
    refused
}

fn durations<'a>(point: &MetricPoint<'_>, histogram: &'a Exponential) -> ExponentialHistogramPoint<'a> {
    let buckets = ExponentialBuckets { offset: histogram.offset(), bucket_counts: &histogram.buckets };
    let max = (histogram.max_nanos > 0).then(|| histogram.max_nanos as f64 / 1e9);
    ExponentialHistogramPoint {
        start_time_unix_nano: point.start_unix_nanos,
        sum: Some(histogram.sum_seconds()),
        max,
        zero_threshold: ZERO_THRESHOLD,
        ..ExponentialHistogramPoint::new(
            point.time_unix_nanos,
            histogram.scale.into(),
            histogram.zero,
            buckets,
        )
    }
}
