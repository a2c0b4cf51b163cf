//! Requests of metrics.

use super::frames::{Level, Output};
use super::{
    ExponentialHistogramPoint, HistogramPoint, MetricBlob, NumberPoint, Request, Signal, SummaryPoint,
};
use crate::attributes::Attributes;
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::metrics::{self as proto, ExportMetricsServiceRequest};

/// Builds one `ExportMetricsServiceRequest` after another in the same memory. See [`Request`].
///
/// ```
/// use otlp_encode::{
///     Limits, MetricBlob, MetricsRequest, NumberPoint, ResourceBlob, ScopeBlob, Temporality,
/// };
///
/// let resource = ResourceBlob::new(&[("service.name", "shop")], &Default::default())?;
/// let scope = ScopeBlob::new("shop-metrics", &(), &Default::default())?;
/// let orders = MetricBlob::new("shop.orders", "{order}", "Orders taken.")?;
///
/// let mut request = MetricsRequest::new(Limits::default());
/// let mut queue = Vec::new();
/// let mut out = request.start(|batch| queue.push(batch.bytes.to_vec()));
/// let mut scopes = out.resource(&resource);
/// let mut metrics = scopes.scope(&scope);
/// let mut points = metrics.sum(&orders, Temporality::Cumulative, true);
/// for (country, count) in [("fr", 7), ("nz", 5)] {
///     let point = NumberPoint { start_time_unix_nano: 1, ..NumberPoint::new(2, count) };
///     points.add(&point, &[("country", country)])?;
/// }
/// assert!(points.add(&NumberPoint::new(2, -1), &()).is_err(), "and the others stay");
/// out.finish();
/// assert_eq!(queue.len(), 1);
/// # Ok::<(), otlp_encode::Error>(())
/// ```
pub type MetricsRequest = Request<MetricsSignal>;

/// The signal of a [`MetricsRequest`].
#[derive(Debug)]
pub enum MetricsSignal {}

impl Signal for MetricsSignal {
    type Items<'s> = Metrics<'s>;
    const DESCRIPTOR: fn() -> &'static Descriptor = ExportMetricsServiceRequest::descriptor;

    fn items(out: Output<'_>) -> Metrics<'_> {
        Metrics { out }
    }
}

/// What a point counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temporality {
    /// From the point before.
    Delta = proto::DELTA as isize,
    /// From a start that stays.
    Cumulative = proto::CUMULATIVE as isize,
}

impl Temporality {
    /// Field 2 of a sum and of both histograms.
    fn encode(self) -> [u8; 2] {
        [2 << 3, self as u8]
    }
}

/// The metrics of a scope. A metric should be opened once, with all of its points.
pub struct Metrics<'s> {
    out: Output<'s>,
}

impl Metrics<'_> {
    /// Values at points in time.
    pub fn gauge(&mut self, metric: &MetricBlob) -> NumberPoints<'_> {
        NumberPoints { out: self.open(metric, 5, &[]), monotonic: false }
    }

    /// Values that add up; if `monotonic`, they never fall.
    pub fn sum(
        &mut self,
        metric: &MetricBlob,
        temporality: Temporality,
        monotonic: bool,
    ) -> NumberPoints<'_> {
        let [tag, temporality] = temporality.encode();
        let tail = [tag, temporality, 3 << 3, 1];
        let len = if monotonic { 4 } else { 2 };
        NumberPoints { out: self.open(metric, 7, tail.get(..len).unwrap_or_default()), monotonic }
    }

    /// Distributions over buckets with given bounds.
    pub fn histogram(&mut self, metric: &MetricBlob, temporality: Temporality) -> HistogramPoints<'_> {
        HistogramPoints { out: self.open(metric, 9, &temporality.encode()) }
    }

    /// Distributions over buckets whose bounds grow exponentially.
    pub fn exponential_histogram(
        &mut self,
        metric: &MetricBlob,
        temporality: Temporality,
    ) -> ExponentialHistogramPoints<'_> {
        ExponentialHistogramPoints { out: self.open(metric, 10, &temporality.encode()) }
    }

    /// Quantiles, for what has no distribution.
    pub fn summary(&mut self, metric: &MetricBlob) -> SummaryPoints<'_> {
        SummaryPoints { out: self.open(metric, 11, &[]) }
    }

    fn open(&mut self, metric: &MetricBlob, field: u32, tail: &[u8]) -> Output<'_> {
        let mut out = self.out.reborrow();
        out.set(Level::Group, metric.head(), metric.tail());
        out.set(Level::Data(field), &[], tail);
        out
    }
}

/// The field of every kind of metric that has its points.
const DATA_POINTS: u32 = 1;

/// The points of a gauge or a sum.
pub struct NumberPoints<'s> {
    out: Output<'s>,
    monotonic: bool,
}

impl NumberPoints<'_> {
    /// Adds a point; `attributes` identify its series.
    ///
    /// Errors, which refuse the point: those of the fields of [`NumberPoint`] and [`AttributeWriter::add`], and
    /// [`Error::TooLarge`].
    ///
    /// [`AttributeWriter::add`]: crate::AttributeWriter::add
    #[inline(never)]
    pub fn add(&mut self, point: &NumberPoint<'_>, attributes: &dyn Attributes) -> Result<(), Error> {
        point.check(self.monotonic)?;
        self.out.item(DATA_POINTS, |fields| point.write(fields, attributes))
    }
}

/// The points of a histogram.
pub struct HistogramPoints<'s> {
    out: Output<'s>,
}

impl HistogramPoints<'_> {
    /// Adds a point; `attributes` identify its series.
    ///
    /// Errors, which refuse the point: those of the fields of [`HistogramPoint`] and [`AttributeWriter::add`], and
    /// [`Error::TooLarge`].
    ///
    /// [`AttributeWriter::add`]: crate::AttributeWriter::add
    #[inline(never)]
    pub fn add(&mut self, point: &HistogramPoint<'_>, attributes: &dyn Attributes) -> Result<(), Error> {
        let count = point.check()?;
        self.out.item(DATA_POINTS, |fields| point.write(count, fields, attributes))
    }
}

/// The points of an exponential histogram.
pub struct ExponentialHistogramPoints<'s> {
    out: Output<'s>,
}

impl ExponentialHistogramPoints<'_> {
    /// Adds a point; `attributes` identify its series.
    ///
    /// Errors, which refuse the point: those of the fields of [`ExponentialHistogramPoint`] and [`AttributeWriter::add`],
    /// and [`Error::TooLarge`].
    ///
    /// [`AttributeWriter::add`]: crate::AttributeWriter::add
    #[inline(never)]
    pub fn add(
        &mut self,
        point: &ExponentialHistogramPoint<'_>,
        attributes: &dyn Attributes,
    ) -> Result<(), Error> {
        let count = point.check()?;
        self.out.item(DATA_POINTS, |fields| point.write(count, fields, attributes))
    }
}

/// The points of a summary.
pub struct SummaryPoints<'s> {
    out: Output<'s>,
}

impl SummaryPoints<'_> {
    /// Adds a point; `attributes` identify its series.
    ///
    /// Errors, which refuse the point: those of the fields of [`SummaryPoint`] and [`AttributeWriter::add`], and
    /// [`Error::TooLarge`].
    ///
    /// [`AttributeWriter::add`]: crate::AttributeWriter::add
    #[inline(never)]
    pub fn add(&mut self, point: &SummaryPoint<'_>, attributes: &dyn Attributes) -> Result<(), Error> {
        point.check()?;
        self.out.item(DATA_POINTS, |fields| point.write(fields, attributes))
    }
}
