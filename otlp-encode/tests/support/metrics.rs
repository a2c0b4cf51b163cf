//! Metrics.

use super::common::{key_value, resource, scope, write_key_value, write_resource, write_scope};
use super::*;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1 as proto;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{exemplar, number_data_point};
use otlp_encode::metrics as ours;
use otlp_encode::wire::Writer;
use proptest::option;

fn exemplar() -> impl Strategy<Value = proto::Exemplar> {
    let value = option::of(prop_oneof![
        double().prop_map(exemplar::Value::AsDouble),
        int64().prop_map(exemplar::Value::AsInt)
    ]);
    (few(key_value()), uint64(), blob(), blob(), value).prop_map(
        |(filtered_attributes, time_unix_nano, span_id, trace_id, value)| proto::Exemplar {
            filtered_attributes,
            time_unix_nano,
            span_id,
            trace_id,
            value,
        },
    )
}

fn number() -> impl Strategy<Value = proto::NumberDataPoint> {
    let value = option::of(prop_oneof![
        double().prop_map(number_data_point::Value::AsDouble),
        int64().prop_map(number_data_point::Value::AsInt)
    ]);
    (few(key_value()), uint64(), uint64(), few(exemplar()), uint32(), value).prop_map(
        |(attributes, start_time_unix_nano, time_unix_nano, exemplars, flags, value)| {
            proto::NumberDataPoint {
                attributes,
                start_time_unix_nano,
                time_unix_nano,
                exemplars,
                flags,
                value,
            }
        },
    )
}

fn histogram() -> impl Strategy<Value = proto::HistogramDataPoint> {
    let summary = (option::of(double()), option::of(double()), option::of(double()));
    let buckets = (vec(uint64(), 0..18), vec(double(), 0..18));
    (few(key_value()), uint64(), uint64(), uint64(), summary, buckets, few(exemplar()), uint32()).prop_map(
        |(attributes, start, time, count, (sum, min, max), buckets, exemplars, flags)| {
            proto::HistogramDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: time,
                count,
                sum,
                bucket_counts: buckets.0,
                explicit_bounds: buckets.1,
                exemplars,
                flags,
                min,
                max,
            }
        },
    )
}

fn exponential_histogram() -> impl Strategy<Value = proto::ExponentialHistogramDataPoint> {
    let buckets = || {
        option::of(
            (int32(), vec(uint64(), 0..40))
                .prop_map(|(offset, bucket_counts)| Buckets { offset, bucket_counts }),
        )
    };
    let summary = (option::of(double()), option::of(double()), option::of(double()));
    let zero = (uint64(), double());
    let times = (uint64(), uint64(), uint64());
    (few(key_value()), times, summary, int32(), zero, buckets(), buckets(), uint32(), few(exemplar()))
        .prop_map(
            |(attributes, times, (sum, min, max), scale, zero, positive, negative, flags, exemplars)| {
                proto::ExponentialHistogramDataPoint {
                    attributes,
                    start_time_unix_nano: times.0,
                    time_unix_nano: times.1,
                    count: times.2,
                    sum,
                    scale,
                    zero_count: zero.0,
                    positive,
                    negative,
                    flags,
                    exemplars,
                    min,
                    max,
                    zero_threshold: zero.1,
                }
            },
        )
}

fn summary() -> impl Strategy<Value = proto::SummaryDataPoint> {
    let quantile = (double(), double()).prop_map(|(quantile, value)| ValueAtQuantile { quantile, value });
    (few(key_value()), uint64(), uint64(), uint64(), double(), few(quantile), uint32()).prop_map(
        |(attributes, start, time, count, sum, quantile_values, flags)| proto::SummaryDataPoint {
            attributes,
            start_time_unix_nano: start,
            time_unix_nano: time,
            count,
            sum,
            quantile_values,
            flags,
        },
    )
}

fn data() -> impl Strategy<Value = Data> {
    prop_oneof![
        few(number()).prop_map(|data_points| Data::Gauge(proto::Gauge { data_points })),
        (few(number()), int32(), any::<bool>()).prop_map(
            |(data_points, aggregation_temporality, is_monotonic)| {
                Data::Sum(proto::Sum { data_points, aggregation_temporality, is_monotonic })
            }
        ),
        (few(histogram()), int32()).prop_map(|(data_points, aggregation_temporality)| {
            Data::Histogram(proto::Histogram { data_points, aggregation_temporality })
        }),
        (few(exponential_histogram()), int32()).prop_map(|(data_points, aggregation_temporality)| {
            Data::ExponentialHistogram(proto::ExponentialHistogram { data_points, aggregation_temporality })
        }),
        few(summary()).prop_map(|data_points| Data::Summary(proto::Summary { data_points })),
    ]
}

pub fn request() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    let metric = (text(), text(), text(), few(key_value()), option::of(data())).prop_map(
        |(name, description, unit, metadata, data)| proto::Metric { name, description, unit, metadata, data },
    );
    let scope_metrics = (option::of(scope()), few(metric), text())
        .prop_map(|(scope, metrics, schema_url)| proto::ScopeMetrics { scope, metrics, schema_url });
    let resource_metrics = (option::of(resource()), few(scope_metrics), text()).prop_map(
        |(resource, scope_metrics, schema_url)| proto::ResourceMetrics {
            resource,
            scope_metrics,
            schema_url,
        },
    );
    few(resource_metrics).prop_map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics })
}

pub fn encode<'w>(writer: &'w mut Writer, from: &ExportMetricsServiceRequest) -> &'w [u8] {
    ours::ExportMetricsServiceRequest::encode(writer, |to| {
        to.resource_metrics(&from.resource_metrics, |to, from| {
            to.schema_url(&from.schema_url);
            to.scope_metrics(&from.scope_metrics, |to, from| {
                to.schema_url(&from.schema_url);
                to.metrics(&from.metrics, write_metric);
                if let Some(scope) = &from.scope {
                    to.scope(|to| write_scope(to, scope));
                }
            });
            if let Some(resource) = &from.resource {
                to.resource(|to| write_resource(to, resource));
            }
        });
    })
}

fn write_metric(to: &mut ours::Metric<'_>, from: &proto::Metric) {
    to.metadata(&from.metadata, write_key_value);
    match &from.data {
        None => {}
        Some(Data::Gauge(from)) => to.gauge(|to| to.data_points(&from.data_points, write_number)),
        Some(Data::Sum(from)) => to.sum(|to| {
            to.is_monotonic(from.is_monotonic);
            to.aggregation_temporality(from.aggregation_temporality);
            to.data_points(&from.data_points, write_number);
        }),
        Some(Data::Histogram(from)) => to.histogram(|to| {
            to.aggregation_temporality(from.aggregation_temporality);
            to.data_points(&from.data_points, write_histogram);
        }),
        Some(Data::ExponentialHistogram(from)) => to.exponential_histogram(|to| {
            to.aggregation_temporality(from.aggregation_temporality);
            to.data_points(&from.data_points, write_exponential_histogram);
        }),
        Some(Data::Summary(from)) => to.summary(|to| to.data_points(&from.data_points, write_summary)),
    }
    to.unit(&from.unit);
    to.description(&from.description);
    to.name(&from.name);
}

fn write_number(to: &mut ours::NumberDataPoint<'_>, from: &proto::NumberDataPoint) {
    to.flags(from.flags);
    to.attributes(&from.attributes, write_key_value);
    to.exemplars(&from.exemplars, write_exemplar);
    match from.value {
        None => {}
        Some(number_data_point::Value::AsDouble(value)) => to.as_double(value),
        Some(number_data_point::Value::AsInt(value)) => to.as_int(value),
    }
    to.time_unix_nano(from.time_unix_nano);
    to.start_time_unix_nano(from.start_time_unix_nano);
}

fn write_exemplar(to: &mut ours::Exemplar<'_>, from: &proto::Exemplar) {
    to.filtered_attributes(&from.filtered_attributes, write_key_value);
    to.trace_id(&from.trace_id);
    to.span_id(&from.span_id);
    match from.value {
        None => {}
        Some(exemplar::Value::AsDouble(value)) => to.as_double(value),
        Some(exemplar::Value::AsInt(value)) => to.as_int(value),
    }
    to.time_unix_nano(from.time_unix_nano);
}

fn write_histogram(to: &mut ours::HistogramDataPoint<'_>, from: &proto::HistogramDataPoint) {
    from.max.into_iter().for_each(|max| to.max(max));
    from.min.into_iter().for_each(|min| to.min(min));
    to.flags(from.flags);
    to.attributes(&from.attributes, write_key_value);
    to.exemplars(&from.exemplars, write_exemplar);
    to.explicit_bounds(&from.explicit_bounds);
    to.bucket_counts(&from.bucket_counts);
    from.sum.into_iter().for_each(|sum| to.sum(sum));
    to.count(from.count);
    to.time_unix_nano(from.time_unix_nano);
    to.start_time_unix_nano(from.start_time_unix_nano);
}

fn write_exponential_histogram(
    to: &mut ours::ExponentialHistogramDataPoint<'_>,
    from: &proto::ExponentialHistogramDataPoint,
) {
    let buckets = |to: &mut ours::Buckets<'_>, from: &Buckets| {
        to.bucket_counts(from.bucket_counts.iter().copied());
        to.offset(from.offset);
    };
    to.zero_threshold(from.zero_threshold);
    from.max.into_iter().for_each(|max| to.max(max));
    from.min.into_iter().for_each(|min| to.min(min));
    to.exemplars(&from.exemplars, write_exemplar);
    to.flags(from.flags);
    if let Some(negative) = &from.negative {
        to.negative(|to| buckets(to, negative));
    }
    if let Some(positive) = &from.positive {
        to.positive(|to| buckets(to, positive));
    }
    to.zero_count(from.zero_count);
    to.scale(from.scale);
    from.sum.into_iter().for_each(|sum| to.sum(sum));
    to.count(from.count);
    to.time_unix_nano(from.time_unix_nano);
    to.start_time_unix_nano(from.start_time_unix_nano);
    to.attributes(&from.attributes, write_key_value);
}

fn write_summary(to: &mut ours::SummaryDataPoint<'_>, from: &proto::SummaryDataPoint) {
    to.flags(from.flags);
    to.attributes(&from.attributes, write_key_value);
    to.quantile_values(&from.quantile_values, |to, from| {
        to.value(from.value);
        to.quantile(from.quantile);
    });
    to.sum(from.sum);
    to.count(from.count);
    to.time_unix_nano(from.time_unix_nano);
    to.start_time_unix_nano(from.start_time_unix_nano);
}
