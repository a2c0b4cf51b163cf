//! Metrics.

use crate::model::*;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1 as proto;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use otlp_encode::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// A point of any kind, and what was made wrong about it, if anything.
#[derive(Debug, Clone)]
enum Point {
    Number(proto::NumberDataPoint),
    Histogram(proto::HistogramDataPoint),
    Exponential(proto::ExponentialHistogramDataPoint),
    Summary(proto::SummaryDataPoint),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    Gauge,
    Sum(Temporality, bool),
    Histogram(Temporality),
    Exponential(Temporality),
    Summary,
}

#[derive(Debug, Clone)]
struct Metric {
    header: proto::Metric,
    shape: Shape,
    /// Point, whether it is valid, the form of its attributes.
    points: Vec<(Point, bool, u8)>,
}

type Scope = ((InstrumentationScope, String), Vec<Metric>);
type Tree = Vec<((Resource, String), Vec<Scope>)>;

const TIME: u64 = 1_790_000_000_000_000_000;

fn times() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![(1..=TIME).prop_map(|time| (0, time)), (1..=TIME).prop_map(|start| (start, TIME))]
}

fn exemplar() -> impl Strategy<Value = proto::Exemplar> {
    let value = prop_oneof![
        any::<i64>().prop_map(proto::exemplar::Value::AsInt),
        any::<f64>().prop_map(proto::exemplar::Value::AsDouble)
    ];
    (attributes(), 0..3u64, value, any::<bool>()).prop_map(|(filtered_attributes, time, value, span)| {
        proto::Exemplar {
            filtered_attributes,
            time_unix_nano: time,
            value: Some(value),
            span_id: if span { vec![1; 8] } else { vec![] },
            trace_id: if span { vec![2; 16] } else { vec![] },
        }
    })
}

fn number(monotonic: bool) -> impl Strategy<Value = Point> {
    let value = prop_oneof![
        any::<i64>().prop_map(move |v| proto::number_data_point::Value::AsInt(if monotonic {
            v & i64::MAX
        } else {
            v
        })),
        (-1e9..1e9).prop_map(move |v: f64| proto::number_data_point::Value::AsDouble(if monotonic {
            v.abs()
        } else {
            v
        })),
    ];
    (times(), attributes(), vec(exemplar(), 0..2), option::weighted(0.9, value)).prop_map(
        |((start, time), attributes, exemplars, value)| {
            Point::Number(proto::NumberDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: time,
                exemplars,
                flags: value.is_none().into(),
                value,
            })
        },
    )
}

fn counts(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u64>> {
    vec(prop_oneof![0..3u64, 0..1u64 << 50], len)
}

fn histogram() -> impl Strategy<Value = Point> {
    let rest = (option::of(-1e3..1e3), option::of(-1e3..1e3), option::of(-1e3..1e3));
    (times(), attributes(), vec(exemplar(), 0..2), counts(0..20), rest).prop_map(
        |((start, time), attributes, exemplars, bucket_counts, (sum, min, width))| {
            let count = bucket_counts.iter().sum();
            Point::Histogram(proto::HistogramDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: time,
                count,
                sum: sum.map(|sum: f64| if count == 0 { 0.0 } else { sum }),
                explicit_bounds: (1..bucket_counts.len()).map(|bound| bound as f64 - 3.5).collect(),
                bucket_counts,
                exemplars,
                flags: 0,
                min,
                max: min.zip(width).map(|(min, width): (f64, f64)| min + width.abs()),
            })
        },
    )
}

fn buckets() -> impl Strategy<Value = Option<proto::exponential_histogram_data_point::Buckets>> {
    (-1000..1000i32, counts(0..10)).prop_map(|(offset, bucket_counts)| {
        (offset != 0 || !bucket_counts.is_empty())
            .then_some(proto::exponential_histogram_data_point::Buckets { offset, bucket_counts })
    })
}

fn exponential() -> impl Strategy<Value = Point> {
    let rest = (-10..=20i32, 0..9u64, 0.0..1.0, option::of(-1e3..1e3));
    (times(), attributes(), vec(exemplar(), 0..2), buckets(), buckets(), rest).prop_map(
        |((start, time), attributes, exemplars, positive, negative, rest)| {
            let (scale, zero_count, zero_threshold, sum) = rest;
            let counts = positive.iter().chain(&negative).flat_map(|buckets| &buckets.bucket_counts);
            let count = zero_count + counts.sum::<u64>();
            Point::Exponential(proto::ExponentialHistogramDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: time,
                count,
                sum: sum.map(|sum: f64| if count == 0 { 0.0 } else { sum }),
                scale,
                zero_count,
                positive,
                negative,
                flags: 0,
                exemplars,
                min: None,
                max: sum,
                zero_threshold,
            })
        },
    )
}

fn summary() -> impl Strategy<Value = Point> {
    (times(), attributes(), 0..5u64, 0.0..1e6, 0..5usize).prop_map(
        |((start, time), attributes, count, sum, quantiles)| {
            let quantile =
                |n| proto::summary_data_point::ValueAtQuantile { quantile: n as f64 / 4.0, value: n as f64 };
            Point::Summary(proto::SummaryDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: time,
                count,
                sum: if count == 0 { 0.0 } else { sum },
                quantile_values: (0..quantiles).map(quantile).collect(),
                flags: 0,
            })
        },
    )
}

/// Makes a point invalid in one of the ways that it can be.
fn spoil(point: &mut Point, shape: Shape, way: u8) {
    let (attributes, start, time) = match point {
        Point::Number(p) => (&mut p.attributes, &mut p.start_time_unix_nano, &mut p.time_unix_nano),
        Point::Histogram(p) => (&mut p.attributes, &mut p.start_time_unix_nano, &mut p.time_unix_nano),
        Point::Exponential(p) => (&mut p.attributes, &mut p.start_time_unix_nano, &mut p.time_unix_nano),
        Point::Summary(p) => (&mut p.attributes, &mut p.start_time_unix_nano, &mut p.time_unix_nano),
    };
    match way % 5 {
        0 => return *time = 0,
        1 => return *start = *time + 1,
        2 => return attributes.push(KeyValue::default()),
        3 => {
            attributes.push(KeyValue { key: "twice".into(), ..KeyValue::default() });
            let first = attributes.len() / 2;
            return attributes.insert(first, KeyValue { key: "twice".into(), ..KeyValue::default() });
        }
        _ => {}
    }
    match point {
        Point::Number(p) if matches!(shape, Shape::Sum(_, true)) => {
            p.flags = 0;
            p.value = Some(if way < 128 {
                proto::number_data_point::Value::AsInt(-1)
            } else {
                proto::number_data_point::Value::AsDouble(f64::NAN)
            });
        }
        Point::Number(p) => p.time_unix_nano = 0,
        // Without buckets, any count is good.
        Point::Histogram(p) if way < 128 && !p.bucket_counts.is_empty() => p.count += 1,
        Point::Histogram(p) => p.explicit_bounds.push(1e9),
        Point::Exponential(p) if way < 64 => p.scale = 21,
        Point::Exponential(p) if way < 128 => p.zero_threshold = -0.5,
        Point::Exponential(p) => p.count += 1,
        Point::Summary(p) => {
            let value = proto::summary_data_point::ValueAtQuantile { quantile: 0.0, value: 1.0 };
            p.quantile_values.extend([value, value]);
        }
    }
}

fn metric() -> impl Strategy<Value = Metric> {
    let temporality = prop_oneof![Just(Temporality::Delta), Just(Temporality::Cumulative)];
    let shape = (0..5, temporality, any::<bool>()).prop_map(|(shape, temporality, monotonic)| match shape {
        0 => Shape::Gauge,
        1 => Shape::Sum(temporality, monotonic),
        2 => Shape::Histogram(temporality),
        3 => Shape::Exponential(temporality),
        _ => Shape::Summary,
    });
    let header =
        ("[a-z.]{1,9}", text(), text(), attributes()).prop_map(|(name, unit, description, metadata)| {
            proto::Metric { name, unit, description, metadata, data: None }
        });
    (header, shape).prop_flat_map(|(header, shape)| {
        let point = match shape {
            Shape::Gauge => number(false).boxed(),
            Shape::Sum(_, monotonic) => number(monotonic).boxed(),
            Shape::Histogram(_) => histogram().boxed(),
            Shape::Exponential(_) => exponential().boxed(),
            Shape::Summary => summary().boxed(),
        };
        let point = (point, option::weighted(0.2, any::<u8>()), any::<u8>()).prop_map(
            move |(mut point, defect, form)| {
                if let Some(way) = defect {
                    spoil(&mut point, shape, way);
                }
                (point, defect.is_none(), form)
            },
        );
        vec(point, 0..5).prop_map(move |points| Metric { header: header.clone(), shape, points })
    })
}

fn tree() -> impl Strategy<Value = Tree> {
    vec((resource(), vec((scope(), vec(metric(), 0..3)), 0..3)), 0..3)
}

fn exemplars(from: &[proto::Exemplar]) -> Vec<Exemplar<'_>> {
    let exemplar = |from: &proto::Exemplar| Exemplar {
        time_unix_nano: from.time_unix_nano,
        value: match from.value {
            Some(proto::exemplar::Value::AsInt(value)) => Number::Int(value),
            Some(proto::exemplar::Value::AsDouble(value)) => Number::Double(value),
            None => unreachable!(),
        },
        span: from
            .span_id
            .as_slice()
            .try_into()
            .ok()
            .map(|id| (from.trace_id.as_slice().try_into().unwrap(), id)),
        filtered_attributes: form(&from.filtered_attributes, 0),
    };
    from.iter().map(exemplar).collect()
}

fn exponential_buckets(
    from: &Option<proto::exponential_histogram_data_point::Buckets>,
) -> ExponentialBuckets<'_> {
    from.as_ref().map_or(ExponentialBuckets::default(), |from| ExponentialBuckets {
        offset: from.offset,
        bucket_counts: &from.bucket_counts,
    })
}

fn add_number(to: &mut NumberPoints<'_>, point: &Point, attributes: u8) -> Result<(), Error> {
    let Point::Number(from) = point else { unreachable!() };
    let point = NumberPoint {
        start_time_unix_nano: from.start_time_unix_nano,
        time_unix_nano: from.time_unix_nano,
        value: from.value.map(|value| match value {
            proto::number_data_point::Value::AsInt(value) => Number::Int(value),
            proto::number_data_point::Value::AsDouble(value) => Number::Double(value),
        }),
        exemplars: &exemplars(&from.exemplars),
    };
    to.add(&point, form(&from.attributes, attributes))
}

fn add_histogram(to: &mut HistogramPoints<'_>, point: &Point, attributes: u8) -> Result<(), Error> {
    let Point::Histogram(from) = point else { unreachable!() };
    let point = HistogramPoint {
        start_time_unix_nano: from.start_time_unix_nano,
        count: Some(from.count).filter(|_| attributes < 128 || from.count != from.bucket_counts.iter().sum()),
        sum: from.sum,
        min: from.min,
        max: from.max,
        exemplars: &exemplars(&from.exemplars),
        ..HistogramPoint::new(from.time_unix_nano, Bounds::new(&from.explicit_bounds)?, &from.bucket_counts)
    };
    to.add(&point, form(&from.attributes, attributes))
}

fn add_exponential(
    to: &mut ExponentialHistogramPoints<'_>,
    point: &Point,
    attributes: u8,
) -> Result<(), Error> {
    let Point::Exponential(from) = point else { unreachable!() };
    let positive = exponential_buckets(&from.positive);
    let point = ExponentialHistogramPoint {
        start_time_unix_nano: from.start_time_unix_nano,
        count: Some(from.count),
        sum: from.sum,
        negative: exponential_buckets(&from.negative),
        min: from.min,
        max: from.max,
        zero_threshold: from.zero_threshold,
        exemplars: &exemplars(&from.exemplars),
        ..ExponentialHistogramPoint::new(from.time_unix_nano, from.scale, from.zero_count, positive)
    };
    to.add(&point, form(&from.attributes, attributes))
}

fn add_summary(to: &mut SummaryPoints<'_>, point: &Point, attributes: u8) -> Result<(), Error> {
    let Point::Summary(from) = point else { unreachable!() };
    let quantile = |from: &proto::summary_data_point::ValueAtQuantile| Quantile {
        quantile: from.quantile,
        value: from.value,
    };
    let quantiles: Vec<Quantile> = from.quantile_values.iter().map(quantile).collect();
    let point = SummaryPoint {
        start_time_unix_nano: from.start_time_unix_nano,
        ..SummaryPoint::new(from.time_unix_nano, from.count, from.sum, &quantiles)
    };
    to.add(&point, form(&from.attributes, attributes))
}

/// Adds all points; whether exactly the valid ones were taken.
fn add(metrics: &mut Metrics<'_>, metric: &Metric) -> bool {
    let header = &metric.header;
    let metadata = pairs(&header.metadata);
    let blob =
        MetricBlob::with_metadata(&header.name, &header.unit, &header.description, &metadata.as_slice())
            .unwrap();
    fn all<G>(mut points: G, metric: &Metric, add: impl Fn(&mut G, &Point, u8) -> Result<(), Error>) -> bool {
        metric.points.iter().all(|(point, valid, form)| add(&mut points, point, *form).is_ok() == *valid)
    }
    match metric.shape {
        Shape::Gauge => all(metrics.gauge(&blob), metric, add_number),
        Shape::Sum(temporality, monotonic) => {
            all(metrics.sum(&blob, temporality, monotonic), metric, add_number)
        }
        Shape::Histogram(temporality) => all(metrics.histogram(&blob, temporality), metric, add_histogram),
        Shape::Exponential(temporality) => {
            all(metrics.exponential_histogram(&blob, temporality), metric, add_exponential)
        }
        Shape::Summary => all(metrics.summary(&blob), metric, add_summary),
    }
}

/// The metric with some points.
fn with_points<'p>(metric: &Metric, points: impl Iterator<Item = &'p Point>) -> proto::Metric {
    macro_rules! data {
        ($variant:ident, $point:ident $(, $field:ident: $value:expr)*) => {
            Data::$variant(proto::$variant {
                data_points: points
                    .map(|point| match point {
                        Point::$point(point) => point.clone(),
                        _ => unreachable!(),
                    })
                    .collect(),
                $($field: $value as _,)*
            })
        };
    }
    let data = match metric.shape {
        Shape::Gauge => data!(Gauge, Number),
        Shape::Sum(t, monotonic) => data!(Sum, Number, aggregation_temporality: t, is_monotonic: monotonic),
        Shape::Histogram(t) => data!(Histogram, Histogram, aggregation_temporality: t),
        Shape::Exponential(t) => data!(ExponentialHistogram, Exponential, aggregation_temporality: t),
        Shape::Summary => data!(Summary, Summary),
    };
    proto::Metric { data: Some(data), ..metric.header.clone() }
}

/// An item with all that is around it, as a request of its own.
type Item = ((Resource, String), (InstrumentationScope, String), proto::Metric);

fn expected(tree: &Tree) -> Vec<Item> {
    let mut items = Vec::new();
    for (resource, scopes) in tree {
        for (scope, metrics) in scopes {
            for metric in metrics {
                for (point, _, _) in metric.points.iter().filter(|(_, valid, _)| *valid) {
                    let metric = with_points(metric, std::iter::once(point));
                    items.push((resource.clone(), scope.clone(), metric));
                }
            }
        }
    }
    items
}

/// Splits a metric into one a point, last point first.
fn single_points(metric: &proto::Metric) -> Vec<proto::Metric> {
    macro_rules! split {
        ($variant:ident, $data:expr) => {{
            assert!(!$data.data_points.is_empty(), "no empty metric");
            let single = |point: &_| {
                let mut data = $data.clone();
                data.data_points = vec![Clone::clone(point)];
                proto::Metric { data: Some(Data::$variant(data)), ..metric.clone() }
            };
            $data.data_points.iter().rev().map(single).collect()
        }};
    }
    match metric.data.as_ref().unwrap() {
        Data::Gauge(data) => split!(Gauge, data),
        Data::Sum(data) => split!(Sum, data),
        Data::Histogram(data) => split!(Histogram, data),
        Data::ExponentialHistogram(data) => split!(ExponentialHistogram, data),
        Data::Summary(data) => split!(Summary, data),
    }
}

fn items(request: &ExportMetricsServiceRequest) -> Vec<Item> {
    let mut items = Vec::new();
    for of_resource in request.resource_metrics.iter().rev() {
        assert!(!of_resource.scope_metrics.is_empty(), "no empty resource");
        let resource = (of_resource.resource.clone().unwrap(), of_resource.schema_url.clone());
        for of_scope in of_resource.scope_metrics.iter().rev() {
            assert!(!of_scope.metrics.is_empty(), "no empty scope");
            let scope = (of_scope.scope.clone().unwrap(), of_scope.schema_url.clone());
            for metric in of_scope.metrics.iter().rev().flat_map(single_points) {
                items.push((resource.clone(), scope.clone(), metric));
            }
        }
    }
    items
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]
    #[test]
    fn valid_points_arrive_once_and_others_never(trees in vec(tree(), 1..3), limits in limits()) {
        let mut request = MetricsRequest::new(limits);
        for tree in &trees {
            let mut batches = Batches::default();
            let mut out = request.start(|batch| batches.push(batch));
            for (resource, scopes) in tree {
                let mut to_scopes = out.resource(&resource_blob(resource));
                for (scope, metrics) in scopes {
                    let mut to_metrics = to_scopes.scope(&scope_blob(scope));
                    for metric in metrics {
                        prop_assert!(add(&mut to_metrics, metric), "exactly the valid points are taken");
                    }
                }
            }
            out.finish();
            let mut arrived = Vec::new();
            for (request, count) in batches.decode::<ExportMetricsServiceRequest>(limits) {
                let of_request = items(&request);
                prop_assert_eq!(of_request.len() as u64, count);
                arrived.extend(of_request);
            }
            prop_assert_eq!(format!("{arrived:?}"), format!("{:?}", expected(tree)));
        }
    }
}
