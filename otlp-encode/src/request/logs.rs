//! Requests of log records.

use super::frames::Output;
use super::{Request, Signal};
use crate::attributes::{self, AttributeLimits, Attributes, Value};
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::logs::{self as proto, ExportLogsServiceRequest};
use crate::wire::Fields;

/// Builds one `ExportLogsServiceRequest` after another in the same memory. See [`Request`].
///
/// ```
/// use otlp_encode::{Limits, LogRecord, LogsRequest, ResourceBlob, ScopeBlob, Severity};
///
/// let resource = ResourceBlob::new(&[("service.name", "shop")], &Default::default())?;
/// let scope = ScopeBlob::new("shop-log", &(), &Default::default())?;
///
/// let mut request = LogsRequest::new(Limits { max_items: 2, ..Limits::default() });
/// let mut sizes = Vec::new();
/// let mut out = request.start(|batch| sizes.push(batch.items));
/// let mut scopes = out.resource(&resource);
/// let mut records = scopes.scope(&scope);
/// for order in 0..5 {
///     let record = LogRecord {
///         time_unix_nano: 1_000,
///         severity: Severity::INFO,
///         body: Some("order taken".into()),
///         ..LogRecord::default()
///     };
///     records.add(&record, &[("order", order)])?;
/// }
/// out.finish();
/// assert_eq!(sizes, [2, 2, 1]);
/// # Ok::<(), otlp_encode::Error>(())
/// ```
pub type LogsRequest = Request<LogsSignal>;

/// The signal of a [`LogsRequest`].
#[derive(Debug)]
pub enum LogsSignal {}

impl Signal for LogsSignal {
    type Items<'s> = LogRecords<'s>;
    const DESCRIPTOR: fn() -> &'static Descriptor = ExportLogsServiceRequest::descriptor;

    fn items(out: Output<'_>) -> LogRecords<'_> {
        LogRecords { out }
    }
}

impl LogsRequest {
    /// Keeps no more of a log record's attributes than `limits` allow. Its body is kept whole.
    pub fn with_attribute_limits(mut self, limits: AttributeLimits) -> Self {
        self.frames.item_limits.attributes = limits;
        self
    }
}

/// How severe what was logged is: 1 to 24, or unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Severity(u8);

impl Severity {
    /// Not known.
    pub const UNSPECIFIED: Self = Self(0);
    /// Debugging in fine grains.
    pub const TRACE: Self = Self(1);
    /// Debugging.
    pub const DEBUG: Self = Self(5);
    /// Something happened.
    pub const INFO: Self = Self(9);
    /// Something may be wrong.
    pub const WARN: Self = Self(13);
    /// Something went wrong.
    pub const ERROR: Self = Self(17);
    /// The program ends.
    pub const FATAL: Self = Self(21);

    /// A `SeverityNumber`: 1 to 4 are degrees of trace, then debug, info, warn, error, up to 24 for fatal; 0 is unknown.
    /// `None` for a larger one.
    pub fn new(number: u8) -> Option<Self> {
        (number <= 24).then_some(Self(number))
    }
}

/// Something that was logged.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogRecord<'a> {
    /// When it happened, nanoseconds since the Unix epoch; 0 if unknown.
    pub time_unix_nano: u64,
    /// When it was seen, nanoseconds since the Unix epoch; 0 if unknown.
    pub observed_time_unix_nano: u64,
    /// How severe it is.
    pub severity: Severity,
    /// The severity as its source calls it.
    pub severity_text: &'a str,
    /// What was logged: text, or anything with structure.
    pub body: Option<Value<'a>>,
    /// How many attributes were discarded.
    pub dropped_attributes_count: u32,
    /// The flags of W3C Trace Context, such as 1 for sampled.
    pub trace_flags: u8,
    /// The trace that was current; not all zero.
    pub trace_id: Option<[u8; 16]>,
    /// The span that was current; not all zero, and only with a trace.
    pub span_id: Option<[u8; 8]>,
    /// Identifies the class of an event; empty if it is none.
    pub event_name: &'a str,
}

impl LogRecord<'_> {
    #[inline]
    fn check(&self) -> Result<(), Error> {
        if self.trace_id == Some([0; 16]) || self.trace_id.is_none() && self.span_id.is_some() {
            return Err(Error::Empty { field: "trace_id" });
        }
        if self.span_id == Some([0; 8]) {
            return Err(Error::Empty { field: "span_id" });
        }
        Ok(())
    }

    #[inline]
    fn write(
        &self,
        fields: Fields<'_>,
        attributes: &dyn Attributes,
        limits: &AttributeLimits,
    ) -> Result<(), Error> {
        let mut to = proto::LogRecord::from(fields);
        to.event_name(self.event_name);
        to.observed_time_unix_nano(self.observed_time_unix_nano);
        if let Some(span_id) = &self.span_id {
            to.span_id(span_id);
        }
        if let Some(trace_id) = &self.trace_id {
            to.trace_id(trace_id);
        }
        to.flags(self.trace_flags.into());
        let dropped = self.dropped_attributes_count;
        attributes::write_limited(to.fields(), 6, attributes, dropped, limits)?;
        if let Some(body) = self.body {
            attributes::write_value(to.fields(), 5, body)?;
        }
        to.severity_text(self.severity_text);
        to.severity_number(self.severity.0.into());
        to.time_unix_nano(self.time_unix_nano);
        Ok(())
    }
}

/// The log records of a scope.
pub struct LogRecords<'s> {
    out: Output<'s>,
}

impl LogRecords<'_> {
    /// Adds a log record.
    ///
    /// Errors, which refuse the record: those of the fields of [`LogRecord`], of its body and of
    /// [`AttributeWriter::add`], and [`Error::TooLarge`].
    ///
    /// [`AttributeWriter::add`]: crate::AttributeWriter::add
    #[inline(never)]
    pub fn add(&mut self, record: &LogRecord<'_>, attributes: &dyn Attributes) -> Result<(), Error> {
        record.check()?;
        let limits = self.out.frames.item_limits.attributes;
        self.out.item(2, |fields| record.write(fields, attributes, &limits))
    }
}
