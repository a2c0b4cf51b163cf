//! Tables of what a tracer measured, for people.

use super::Metric;

/// A table: a row for each process, or each combination of some attributes, or both.
#[derive(Debug, PartialEq, Eq)]
pub struct View {
    /// What it shows, as a heading.
    pub title: &'static str,
    /// What its rows are, in the plural.
    pub rows: &'static str,
    /// Whether processes have rows of their own.
    pub by_process: bool,
    /// Attributes whose values have rows of their own, with their headings.
    pub by: &'static [(&'static str, &'static str)],
    /// The numbers of a row; rows are sorted by the first.
    pub columns: &'static [Column],
}

/// A number in each row.
#[derive(Debug, PartialEq, Eq)]
pub struct Column {
    /// Its heading, short.
    pub heading: &'static str,
    /// What is shown of which metric.
    pub metric: &'static Metric,
    /// Only series with these attributes count.
    pub only: &'static [(&'static str, &'static str)],
    /// How it is shown.
    pub show: Show,
}

/// How a metric is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// The number.
    Number,
    /// The number a second.
    Rate,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    ByteRate,
    /// Of a histogram: how many.
    Count,
    /// Of a histogram: how many a second.
    CountRate,
    /// Of a histogram: the sum of the times.
    Time,
    /// Of a histogram: the mean time.
    Mean,
    /// Of a histogram: the time, in percent, that so many stay below, as the end of its bucket.
    Percentile(u8),
    /// Of a counter: the values of an attribute with most, and their numbers.
    Most(&'static str),
}
