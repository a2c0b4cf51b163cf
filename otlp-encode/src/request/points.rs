//! The points of metrics: what they have, what they must be, and how they are written.

use crate::attributes::{self, Attributes};
use crate::error::Error;
use crate::metrics::{self as proto, NO_RECORDED_VALUE};
use crate::wire::Fields;

/// A measured number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Double(f64),
}

macro_rules! from {
    ($($type:ty => $variant:ident,)*) => {$(
        impl From<$type> for Number {
            #[inline]
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

from!(i64 => Int, i32 => Int, u32 => Int, f64 => Double,);

impl Number {
    /// Whether it can be the value of a sum that never falls.
    fn is_counter(self) -> bool {
        match self {
            Self::Int(value) => value >= 0,
            Self::Double(value) => value >= 0.0,
        }
    }
}

/// One measured value, with where it came from.
#[derive(Clone, Copy)]
pub struct Exemplar<'a> {
    /// When it was measured, nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// The value.
    pub value: Number,
    /// Trace and span that were current; neither is all zero.
    pub span: Option<([u8; 16], [u8; 8])>,
    /// Attributes of the measurement that the series does not have.
    pub filtered_attributes: &'a dyn Attributes,
}

impl Exemplar<'_> {
    /// A value without a span and attributes.
    pub fn new(time_unix_nano: u64, value: impl Into<Number>) -> Self {
        Self { time_unix_nano, value: value.into(), span: None, filtered_attributes: &() }
    }
}

#[inline]
fn exemplars(fields: &mut Fields<'_>, field: u32, exemplars: &[Exemplar<'_>]) -> Result<(), Error> {
    if exemplars.is_empty() { Ok(()) } else { some_exemplars(fields, field, exemplars) }
}

fn some_exemplars(fields: &mut Fields<'_>, field: u32, exemplars: &[Exemplar<'_>]) -> Result<(), Error> {
    let mut result = Ok(());
    for exemplar in exemplars.iter().rev() {
        if exemplar.span.is_some_and(|(trace_id, span_id)| trace_id == [0; 16] || span_id == [0; 8]) {
            return Err(Error::Empty { field: "exemplars.span" });
        }
        fields.message(field, |fields| {
            let mut to = proto::Exemplar::from(fields);
            result = attributes::write(to.fields(), 7, exemplar.filtered_attributes);
            if let Some((trace_id, span_id)) = exemplar.span {
                to.trace_id(&trace_id);
                to.span_id(&span_id);
            }
            match exemplar.value {
                Number::Int(value) => to.as_int(value),
                Number::Double(value) => to.as_double(value),
            }
            to.time_unix_nano(exemplar.time_unix_nano);
        });
        if result.is_err() {
            break;
        }
    }
    result
}

/// What start and end of a point must be.
#[inline]
fn check_times(start: u64, time: u64) -> Result<(), Error> {
    if time == 0 {
        return Err(Error::Empty { field: "time_unix_nano" });
    }
    if start > time {
        return Err(Error::NotAscending { field: "time_unix_nano" });
    }
    Ok(())
}

/// What the sum of `count` values can be.
#[inline]
fn check_sum(count: u64, sum: f64) -> Result<(), Error> {
    if count == 0 && sum != 0.0 { Err(Error::OutOfRange { field: "sum" }) } else { Ok(()) }
}

#[inline]
fn check_min_max(min: Option<f64>, max: Option<f64>) -> Result<(), Error> {
    match (min, max) {
        (Some(min), Some(max)) if min > max => Err(Error::NotAscending { field: "max" }),
        _ => Ok(()),
    }
}

/// The sum of all counts.
#[inline]
fn total(counts: &[u64], field: &'static str) -> Result<u64, Error> {
    // Numbers that small, and that few, need no look at carries.
    let (sum, ones) = counts.iter().fold((0u64, 0u64), |(sum, ones), &n| (sum.wrapping_add(n), ones | n));
    if counts.len() <= 1 << 16 && ones < 1 << 48 {
        return Ok(sum);
    }
    let sum = counts.iter().try_fold(0u64, |sum, &count| sum.checked_add(count));
    sum.ok_or(Error::Overflow { field })
}

/// `count`, if it is given and known, else the sum of the buckets.
#[inline]
fn check_count(count: Option<u64>, buckets: u64) -> Result<u64, Error> {
    match count {
        Some(count) if count != buckets => Err(Error::Count { count, buckets }),
        _ => Ok(buckets),
    }
}

/// A point of a gauge or a sum.
#[derive(Clone, Copy)]
pub struct NumberPoint<'a> {
    /// Start of what it counts, nanoseconds since the Unix epoch, not after `time_unix_nano`; 0 if unknown.
    pub start_time_unix_nano: u64,
    /// When it was measured, nanoseconds since the Unix epoch; not 0.
    pub time_unix_nano: u64,
    /// The value: not negative, and a number, in a monotonic sum. `None` where the series ended.
    pub value: Option<Number>,
    /// Examples of what it counts.
    pub exemplars: &'a [Exemplar<'a>],
}

impl NumberPoint<'_> {
    /// A value at a time.
    pub fn new(time_unix_nano: u64, value: impl Into<Number>) -> Self {
        Self { start_time_unix_nano: 0, time_unix_nano, value: Some(value.into()), exemplars: &[] }
    }

    #[inline]
    pub(super) fn check(&self, monotonic: bool) -> Result<(), Error> {
        check_times(self.start_time_unix_nano, self.time_unix_nano)?;
        if monotonic && self.value.is_some_and(|value| !value.is_counter()) {
            return Err(Error::OutOfRange { field: "value" });
        }
        Ok(())
    }

    #[inline]
    pub(super) fn write(&self, fields: Fields<'_>, attributes: &dyn Attributes) -> Result<(), Error> {
        let mut to = proto::NumberDataPoint::from(fields);
        to.flags(if self.value.is_none() { NO_RECORDED_VALUE } else { 0 });
        attributes::write(to.fields(), 7, attributes)?;
        exemplars(to.fields(), 5, self.exemplars)?;
        match self.value {
            Some(Number::Int(value)) => to.as_int(value),
            Some(Number::Double(value)) => to.as_double(value),
            None => {}
        }
        to.time_unix_nano(self.time_unix_nano);
        to.start_time_unix_nano(self.start_time_unix_nano);
        Ok(())
    }
}

/// Upper bounds of a histogram's buckets, but for the last, which has none: checked once, for any number of points.
///
/// ```
/// use otlp_encode::Bounds;
///
/// const SECONDS: &[f64] = &[0.005, 0.05, 0.5, 5.0];
/// assert!(Bounds::new(SECONDS).is_ok());
/// assert!(Bounds::new(&[1.0, 1.0]).is_err());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bounds<'a>(&'a [f64]);

impl<'a> Bounds<'a> {
    /// Takes bounds that ascend strictly; a bucket includes its bound.
    ///
    /// Error: [`Error::NotAscending`], also for what is not a number.
    pub fn new(bounds: &'a [f64]) -> Result<Self, Error> {
        let numbers = bounds.first().is_none_or(|first| !first.is_nan());
        if numbers && bounds.is_sorted_by(|low, high| low < high) {
            Ok(Self(bounds))
        } else {
            Err(Error::NotAscending { field: "explicit_bounds" })
        }
    }
}

/// A point of a histogram over buckets with given bounds.
#[derive(Clone, Copy)]
pub struct HistogramPoint<'a> {
    /// Start of what it counts, nanoseconds since the Unix epoch, not after `time_unix_nano`; 0 if unknown.
    pub start_time_unix_nano: u64,
    /// When it was measured, nanoseconds since the Unix epoch; not 0.
    pub time_unix_nano: u64,
    /// How many values. With buckets, `None` for their sum, which it must be.
    pub count: Option<u64>,
    /// The sum of the values; 0 if there is none. Absent where values may be negative and the sum has to grow.
    pub sum: Option<f64>,
    /// How many values in each bucket; one bucket more than bounds, or none of both.
    pub bucket_counts: &'a [u64],
    /// Upper bounds of all buckets but the last.
    pub explicit_bounds: Bounds<'a>,
    /// The smallest value.
    pub min: Option<f64>,
    /// The largest value.
    pub max: Option<f64>,
    /// Examples of what it counts.
    pub exemplars: &'a [Exemplar<'a>],
    /// Whether the series ended; nothing was counted then.
    pub no_recorded_value: bool,
}

impl<'a> HistogramPoint<'a> {
    /// A distribution at a time; its count is the sum of `bucket_counts`.
    pub fn new(time_unix_nano: u64, explicit_bounds: Bounds<'a>, bucket_counts: &'a [u64]) -> Self {
        Self {
            start_time_unix_nano: 0,
            time_unix_nano,
            count: None,
            sum: None,
            bucket_counts,
            explicit_bounds,
            min: None,
            max: None,
            exemplars: &[],
            no_recorded_value: false,
        }
    }

    /// The point's count, if the point is valid.
    #[inline]
    pub(super) fn check(&self) -> Result<u64, Error> {
        check_times(self.start_time_unix_nano, self.time_unix_nano)?;
        let (bounds, buckets) = (self.explicit_bounds.0.len(), self.bucket_counts.len());
        let count = if buckets == 0 { self.count.unwrap_or(0) } else { total(self.bucket_counts, "count")? };
        if buckets != bounds + 1 && (buckets, bounds) != (0, 0) {
            return Err(Error::BucketCount { bounds, buckets });
        }
        check_count(self.count, count)?;
        check_sum(count, self.sum.unwrap_or(0.0))?;
        check_min_max(self.min, self.max)?;
        if self.no_recorded_value && count != 0 {
            return Err(Error::OutOfRange { field: "count" });
        }
        Ok(count)
    }

    #[inline]
    pub(super) fn write(
        &self,
        count: u64,
        fields: Fields<'_>,
        attributes: &dyn Attributes,
    ) -> Result<(), Error> {
        let mut to = proto::HistogramDataPoint::from(fields);
        self.max.into_iter().for_each(|max| to.max(max));
        self.min.into_iter().for_each(|min| to.min(min));
        to.flags(if self.no_recorded_value { NO_RECORDED_VALUE } else { 0 });
        attributes::write(to.fields(), 9, attributes)?;
        exemplars(to.fields(), 8, self.exemplars)?;
        to.explicit_bounds(self.explicit_bounds.0);
        to.bucket_counts(self.bucket_counts);
        self.sum.into_iter().for_each(|sum| to.sum(sum));
        to.count(count);
        to.time_unix_nano(self.time_unix_nano);
        to.start_time_unix_nano(self.start_time_unix_nano);
        Ok(())
    }
}

/// Consecutive buckets of an exponential histogram.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExponentialBuckets<'a> {
    /// The index of the first.
    pub offset: i32,
    /// How many values in each.
    pub bucket_counts: &'a [u64],
}

impl ExponentialBuckets<'_> {
    #[inline]
    fn check(&self, field: &'static str) -> Result<u64, Error> {
        let last = i64::from(self.offset) + self.bucket_counts.len() as i64;
        if last > i64::from(i32::MAX) {
            return Err(Error::Overflow { field });
        }
        total(self.bucket_counts, field)
    }

    fn is_empty(&self) -> bool {
        self.offset == 0 && self.bucket_counts.is_empty()
    }

    #[inline]
    fn write(&self, to: &mut proto::Buckets<'_>) {
        to.bucket_counts(self.bucket_counts.iter().copied());
        to.offset(self.offset);
    }
}

/// A point of an exponential histogram.
#[derive(Clone, Copy)]
pub struct ExponentialHistogramPoint<'a> {
    /// Start of what it counts, nanoseconds since the Unix epoch, not after `time_unix_nano`; 0 if unknown.
    pub start_time_unix_nano: u64,
    /// When it was measured, nanoseconds since the Unix epoch; not 0.
    pub time_unix_nano: u64,
    /// How many values; `None` for the sum of `zero_count` and all buckets, which it must be.
    pub count: Option<u64>,
    /// The sum of the values; 0 if there is none. Absent where values may be negative and the sum has to grow.
    pub sum: Option<f64>,
    /// Bucket `i` holds values in `(b^i, b^(i+1)]` with `b = 2^(2^-scale)`; -10 to 20.
    pub scale: i32,
    /// How many values no further from 0 than `zero_threshold`.
    pub zero_count: u64,
    /// Buckets of values above 0.
    pub positive: ExponentialBuckets<'a>,
    /// Buckets of values below 0, by their absolute values.
    pub negative: ExponentialBuckets<'a>,
    /// The smallest value.
    pub min: Option<f64>,
    /// The largest value.
    pub max: Option<f64>,
    /// How far from 0 the zero bucket reaches; not negative.
    pub zero_threshold: f64,
    /// Examples of what it counts.
    pub exemplars: &'a [Exemplar<'a>],
    /// Whether the series ended; nothing was counted then.
    pub no_recorded_value: bool,
}

impl<'a> ExponentialHistogramPoint<'a> {
    /// A distribution of positive values at a time; its count is the sum of the buckets and `zero_count`.
    pub fn new(time_unix_nano: u64, scale: i32, zero_count: u64, positive: ExponentialBuckets<'a>) -> Self {
        Self {
            start_time_unix_nano: 0,
            time_unix_nano,
            count: None,
            sum: None,
            scale,
            zero_count,
            positive,
            negative: ExponentialBuckets::default(),
            min: None,
            max: None,
            zero_threshold: 0.0,
            exemplars: &[],
            no_recorded_value: false,
        }
    }

    /// The point's count, if the point is valid.
    #[inline]
    pub(super) fn check(&self) -> Result<u64, Error> {
        check_times(self.start_time_unix_nano, self.time_unix_nano)?;
        if !(-10..=20).contains(&self.scale) {
            return Err(Error::OutOfRange { field: "scale" });
        }
        // Not a number is not in range either.
        if !(0.0..).contains(&self.zero_threshold) {
            return Err(Error::OutOfRange { field: "zero_threshold" });
        }
        let counts = [self.zero_count, self.positive.check("positive")?, self.negative.check("negative")?];
        let count = check_count(self.count, total(&counts, "count")?)?;
        check_sum(count, self.sum.unwrap_or(0.0))?;
        check_min_max(self.min, self.max)?;
        if self.no_recorded_value && count != 0 {
            return Err(Error::OutOfRange { field: "count" });
        }
        Ok(count)
    }

    #[inline]
    pub(super) fn write(
        &self,
        count: u64,
        fields: Fields<'_>,
        attributes: &dyn Attributes,
    ) -> Result<(), Error> {
        let mut to = proto::ExponentialHistogramDataPoint::from(fields);
        to.zero_threshold(self.zero_threshold);
        self.max.into_iter().for_each(|max| to.max(max));
        self.min.into_iter().for_each(|min| to.min(min));
        exemplars(to.fields(), 11, self.exemplars)?;
        to.flags(if self.no_recorded_value { NO_RECORDED_VALUE } else { 0 });
        if !self.negative.is_empty() {
            to.negative(|to| self.negative.write(to));
        }
        if !self.positive.is_empty() {
            to.positive(|to| self.positive.write(to));
        }
        to.zero_count(self.zero_count);
        to.scale(self.scale);
        self.sum.into_iter().for_each(|sum| to.sum(sum));
        to.count(count);
        to.time_unix_nano(self.time_unix_nano);
        to.start_time_unix_nano(self.start_time_unix_nano);
        attributes::write(to.fields(), 1, attributes)
    }
}

/// A quantile and its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantile {
    /// The quantile: 0 for the smallest value, 1 for the largest.
    pub quantile: f64,
    /// The value; not negative.
    pub value: f64,
}

/// A point of a summary.
#[derive(Debug, Clone, Copy)]
pub struct SummaryPoint<'a> {
    /// Start of what it counts, nanoseconds since the Unix epoch, not after `time_unix_nano`; 0 if unknown.
    pub start_time_unix_nano: u64,
    /// When it was measured, nanoseconds since the Unix epoch; not 0.
    pub time_unix_nano: u64,
    /// How many values.
    pub count: u64,
    /// The sum of the values; 0 if there is none.
    pub sum: f64,
    /// The quantiles, strictly ascending.
    pub quantile_values: &'a [Quantile],
    /// Whether the series ended; nothing was counted then.
    pub no_recorded_value: bool,
}

impl<'a> SummaryPoint<'a> {
    /// Quantiles at a time.
    pub fn new(time_unix_nano: u64, count: u64, sum: f64, quantile_values: &'a [Quantile]) -> Self {
        Self {
            start_time_unix_nano: 0,
            time_unix_nano,
            count,
            sum,
            quantile_values,
            no_recorded_value: false,
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        check_times(self.start_time_unix_nano, self.time_unix_nano)?;
        check_sum(self.count, self.sum)?;
        if self.no_recorded_value && self.count != 0 {
            return Err(Error::OutOfRange { field: "count" });
        }
        let mut last = None;
        for &Quantile { quantile, value } in self.quantile_values {
            if !(0.0..=1.0).contains(&quantile) {
                return Err(Error::OutOfRange { field: "quantile" });
            }
            if last.is_some_and(|last| quantile <= last) {
                return Err(Error::NotAscending { field: "quantile" });
            }
            if value < 0.0 {
                return Err(Error::OutOfRange { field: "value" });
            }
            last = Some(quantile);
        }
        Ok(())
    }

    #[inline]
    pub(super) fn write(&self, fields: Fields<'_>, attributes: &dyn Attributes) -> Result<(), Error> {
        let mut to = proto::SummaryDataPoint::from(fields);
        to.flags(if self.no_recorded_value { NO_RECORDED_VALUE } else { 0 });
        attributes::write(to.fields(), 7, attributes)?;
        to.quantile_values(self.quantile_values, |to, from| {
            to.value(from.value);
            to.quantile(from.quantile);
        });
        to.sum(self.sum);
        to.count(self.count);
        to.time_unix_nano(self.time_unix_nano);
        to.start_time_unix_nano(self.start_time_unix_nano);
        Ok(())
    }
}
