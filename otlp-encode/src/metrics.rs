//! `opentelemetry/proto/metrics/v1/metrics.proto` and its collector service (OTLP 1.11).
//!
//! These types write any fields, valid or not.

use crate::common::{InstrumentationScope, KeyValue};
use crate::message;
use crate::resource::Resource;

/// `AGGREGATION_TEMPORALITY_DELTA`: every point counts what came since the one before.
pub const DELTA: i32 = 1;
/// `AGGREGATION_TEMPORALITY_CUMULATIVE`: every point counts what came since a start that stays.
pub const CUMULATIVE: i32 = 2;
/// `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`: the series ended.
pub const NO_RECORDED_VALUE: u32 = 1;

message! {
    /// The body of `POST /v1/metrics`. `MetricsData` has the same field.
    pub struct ExportMetricsServiceRequest {
        /// Metrics, by resource.
        resource_metrics: repeated<ResourceMetrics> = 1,
    }
}

message! {
    /// The metrics of one resource.
    pub struct ResourceMetrics {
        /// The resource.
        resource: message<Resource> = 1,
        /// Its metrics, by scope.
        scope_metrics: repeated<ScopeMetrics> = 2,
        /// The schema that the resource's attributes follow.
        schema_url: string = 3,
    }
}

message! {
    /// The metrics of one scope.
    pub struct ScopeMetrics {
        /// What produced them.
        scope: message<InstrumentationScope> = 1,
        /// The metrics.
        metrics: repeated<Metric> = 2,
        /// The schema that the metrics follow.
        schema_url: string = 3,
    }
}

message! {
    /// A metric: write exactly one of `gauge`, `sum`, `histogram`, `exponential_histogram` and `summary`.
    pub struct Metric {
        /// Its name.
        name: string = 1,
        /// What it measures.
        description: string = 2,
        /// Its unit, as UCUM writes it.
        unit: string = 3,
        /// Values at points in time.
        gauge: message<Gauge> = 5,
        /// Values that add up.
        sum: message<Sum> = 7,
        /// Distributions over buckets with given bounds.
        histogram: message<Histogram> = 9,
        /// Distributions over buckets whose bounds grow exponentially.
        exponential_histogram: message<ExponentialHistogram> = 10,
        /// Quantiles.
        summary: message<Summary> = 11,
        /// Additional facts about the metric, which do not identify it.
        metadata: repeated<KeyValue> = 12,
    }
}

message! {
    /// Values at points in time.
    pub struct Gauge {
        /// The values.
        data_points: repeated<NumberDataPoint> = 1,
    }
}

message! {
    /// Values that add up.
    pub struct Sum {
        /// The values.
        data_points: repeated<NumberDataPoint> = 1,
        /// [`DELTA`] or [`CUMULATIVE`].
        aggregation_temporality: int32 = 2,
        /// Whether it never falls.
        is_monotonic: bool = 3,
    }
}

message! {
    /// Distributions over buckets with given bounds.
    pub struct Histogram {
        /// The distributions.
        data_points: repeated<HistogramDataPoint> = 1,
        /// [`DELTA`] or [`CUMULATIVE`].
        aggregation_temporality: int32 = 2,
    }
}

message! {
    /// Distributions over buckets whose bounds grow exponentially.
    pub struct ExponentialHistogram {
        /// The distributions.
        data_points: repeated<ExponentialHistogramDataPoint> = 1,
        /// [`DELTA`] or [`CUMULATIVE`].
        aggregation_temporality: int32 = 2,
    }
}

message! {
    /// Quantiles.
    pub struct Summary {
        /// Sets of quantiles.
        data_points: repeated<SummaryDataPoint> = 1,
    }
}

message! {
    /// A number: write `as_double` or `as_int`, or neither with the flag [`NO_RECORDED_VALUE`].
    pub struct NumberDataPoint {
        /// Start of what it counts, nanoseconds since the Unix epoch.
        start_time_unix_nano: fixed64 = 2,
        /// When it was measured.
        time_unix_nano: fixed64 = 3,
        /// The value, as a floating-point number.
        as_double: explicit_double = 4,
        /// The value, as an integer.
        as_int: oneof_sfixed64<4> = 6,
        /// Examples of what it counts.
        exemplars: repeated<Exemplar> = 5,
        /// Identify the series within the metric; keys are unique.
        attributes: repeated<KeyValue> = 7,
        /// [`NO_RECORDED_VALUE`], or 0.
        flags: uint32 = 8,
    }
}

message! {
    /// A distribution over buckets with given bounds.
    pub struct HistogramDataPoint {
        /// Start of what it counts, nanoseconds since the Unix epoch.
        start_time_unix_nano: fixed64 = 2,
        /// When it was measured.
        time_unix_nano: fixed64 = 3,
        /// How many values; the sum of `bucket_counts`.
        count: fixed64 = 4,
        /// The sum of the values.
        sum: explicit_double = 5,
        /// How many values in each bucket; one bucket more than bounds, or none of both.
        bucket_counts: packed_fixed64 = 6,
        /// Upper bounds of all buckets but the last, ascending; a bucket includes its bound.
        explicit_bounds: packed_double = 7,
        /// Examples of what it counts.
        exemplars: repeated<Exemplar> = 8,
        /// Identify the series within the metric; keys are unique.
        attributes: repeated<KeyValue> = 9,
        /// [`NO_RECORDED_VALUE`], or 0.
        flags: uint32 = 10,
        /// The smallest value.
        min: explicit_double = 11,
        /// The largest value.
        max: explicit_double = 12,
    }
}

message! {
    /// A distribution over buckets whose bounds grow exponentially.
    pub struct ExponentialHistogramDataPoint {
        /// Identify the series within the metric; keys are unique.
        attributes: repeated<KeyValue> = 1,
        /// Start of what it counts, nanoseconds since the Unix epoch.
        start_time_unix_nano: fixed64 = 2,
        /// When it was measured.
        time_unix_nano: fixed64 = 3,
        /// How many values; the sum of `zero_count` and all buckets.
        count: fixed64 = 4,
        /// The sum of the values.
        sum: explicit_double = 5,
        /// Bucket `i` holds values in `(b^i, b^(i+1)]` with `b = 2^(2^-scale)`.
        scale: sint32 = 6,
        /// How many values no further from 0 than `zero_threshold`.
        zero_count: fixed64 = 7,
        /// Buckets of values above 0.
        positive: message<Buckets> = 8,
        /// Buckets of values below 0, by their absolute values.
        negative: message<Buckets> = 9,
        /// [`NO_RECORDED_VALUE`], or 0.
        flags: uint32 = 10,
        /// Examples of what it counts.
        exemplars: repeated<Exemplar> = 11,
        /// The smallest value.
        min: explicit_double = 12,
        /// The largest value.
        max: explicit_double = 13,
        /// How far from 0 the zero bucket reaches.
        zero_threshold: double = 14,
    }
}

message! {
    /// Consecutive buckets of an exponential histogram.
    pub struct Buckets {
        /// The index of the first.
        offset: sint32 = 1,
        /// How many values in each.
        bucket_counts: packed_uint64 = 2,
    }
}

message! {
    /// Quantiles.
    pub struct SummaryDataPoint {
        /// Start of what it counts, nanoseconds since the Unix epoch.
        start_time_unix_nano: fixed64 = 2,
        /// When it was measured.
        time_unix_nano: fixed64 = 3,
        /// How many values.
        count: fixed64 = 4,
        /// The sum of the values.
        sum: double = 5,
        /// The quantiles, ascending.
        quantile_values: repeated<ValueAtQuantile> = 6,
        /// Identify the series within the metric; keys are unique.
        attributes: repeated<KeyValue> = 7,
        /// [`NO_RECORDED_VALUE`], or 0.
        flags: uint32 = 8,
    }
}

message! {
    /// A quantile and its value.
    pub struct ValueAtQuantile {
        /// The quantile, 0 to 1.
        quantile: double = 1,
        /// The value, not negative.
        value: double = 2,
    }
}

message! {
    /// One measured value, with where it came from: write `as_double` or `as_int`.
    pub struct Exemplar {
        /// When it was measured, nanoseconds since the Unix epoch.
        time_unix_nano: fixed64 = 2,
        /// The value, as a floating-point number.
        as_double: explicit_double = 3,
        /// The value, as an integer.
        as_int: oneof_sfixed64<3> = 6,
        /// 8 bytes: the span that was current.
        span_id: id = 4,
        /// 16 bytes: the trace that was current.
        trace_id: id = 5,
        /// Attributes of the measurement that the series does not have.
        filtered_attributes: repeated<KeyValue> = 7,
    }
}
