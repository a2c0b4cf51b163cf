//! Requests of spans.

use super::frames::Output;
use super::{Request, Signal};
use crate::attributes::{self, AttributeLimits, Attributes};
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::trace::{self as proto, ExportTraceServiceRequest};
use crate::wire::Fields;

/// Builds one `ExportTraceServiceRequest` after another in the same memory. See [`Request`].
///
/// ```
/// use otlp_encode::{Limits, ResourceBlob, ScopeBlob, Span, SpanKind, TracesRequest};
///
/// let resource = ResourceBlob::new(&[("service.name", "shop")], &Default::default())?;
/// let scope = ScopeBlob::new("shop-http", &(), &Default::default())?;
///
/// let mut request = TracesRequest::new(Limits::default());
/// let mut lines = String::new();
/// let mut out = request.start(|batch| {
///     batch.json_line(&mut lines).expect("a request is canonical");
/// });
/// let mut scopes = out.resource(&resource);
/// let mut spans = scopes.scope(&scope);
/// let span = Span::new([1; 16], [2; 8], "GET /", 1_000..2_000);
/// spans.add(&Span { kind: SpanKind::Server, ..span }, &[("http.request.method", "GET")])?;
/// out.finish();
/// assert!(lines.contains(r#""name":"GET /""#));
/// # Ok::<(), otlp_encode::Error>(())
/// ```
pub type TracesRequest = Request<TracesSignal>;

/// The signal of a [`TracesRequest`].
#[derive(Debug)]
pub enum TracesSignal {}

impl Signal for TracesSignal {
    type Items<'s> = Spans<'s>;
    const DESCRIPTOR: fn() -> &'static Descriptor = ExportTraceServiceRequest::descriptor;

    fn items(out: Output<'_>) -> Spans<'_> {
        Spans { out }
    }
}

/// How much of a span is kept, as the SDK specification has it. By default, all.
///
/// The first ones of each list are kept, the others are counted in the fields for what was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanLimits {
    /// Of the span's attributes; the length also of its events' and links'.
    pub attributes: AttributeLimits,
    /// Events that are kept.
    pub events: usize,
    /// Links that are kept.
    pub links: usize,
    /// Attributes of an event that are kept.
    pub event_attributes: usize,
    /// Attributes of a link that are kept.
    pub link_attributes: usize,
}

impl Default for SpanLimits {
    fn default() -> Self {
        Self {
            attributes: AttributeLimits::default(),
            events: usize::MAX,
            links: usize::MAX,
            event_attributes: usize::MAX,
            link_attributes: usize::MAX,
        }
    }
}

impl TracesRequest {
    /// Keeps no more of a span than `limits` allow.
    pub fn with_span_limits(mut self, limits: SpanLimits) -> Self {
        self.frames.item_limits = limits;
        self
    }
}

/// What a span is to its parent and its children.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SpanKind {
    /// Not known; receivers take it for internal.
    #[default]
    Unspecified = 0,
    /// Within an application.
    Internal = 1,
    /// A request that is answered.
    Server = 2,
    /// A request that is made.
    Client = 3,
    /// A message that is sent.
    Producer = 4,
    /// A message that is processed.
    Consumer = 5,
}

/// How a span ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Status<'a> {
    /// Not said.
    #[default]
    Unset,
    /// Found to be good by whoever is responsible for it.
    Ok,
    /// In an error, with what went wrong; empty if unknown.
    Error(&'a str),
}

/// One operation.
#[derive(Clone, Copy)]
pub struct Span<'a> {
    /// Not all zero.
    pub trace_id: [u8; 16],
    /// Not all zero.
    pub span_id: [u8; 8],
    /// As the header `tracestate` of W3C Trace Context.
    pub trace_state: &'a str,
    /// `None` for a root span; else not all zero.
    pub parent_span_id: Option<[u8; 8]>,
    /// The flags of W3C Trace Context, such as 1 for sampled.
    pub trace_flags: u8,
    /// Whether the parent is in another process, if known.
    pub parent_is_remote: Option<bool>,
    /// What was done.
    pub name: &'a str,
    /// What it is to its parent and its children.
    pub kind: SpanKind,
    /// Nanoseconds since the Unix epoch.
    pub start_time_unix_nano: u64,
    /// Nanoseconds since the Unix epoch; not before the start.
    pub end_time_unix_nano: u64,
    /// How many attributes were discarded.
    pub dropped_attributes_count: u32,
    /// What happened in between.
    pub events: &'a [Event<'a>],
    /// How many events were discarded.
    pub dropped_events_count: u32,
    /// Spans that it has to do with.
    pub links: &'a [Link<'a>],
    /// How many links were discarded.
    pub dropped_links_count: u32,
    /// How it ended.
    pub status: Status<'a>,
}

impl<'a> Span<'a> {
    /// A root span with what every span needs; `time` in nanoseconds since the Unix epoch.
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], name: &'a str, time: core::ops::Range<u64>) -> Self {
        Self {
            trace_id,
            span_id,
            trace_state: "",
            parent_span_id: None,
            trace_flags: 0,
            parent_is_remote: None,
            name,
            kind: SpanKind::Unspecified,
            start_time_unix_nano: time.start,
            end_time_unix_nano: time.end,
            dropped_attributes_count: 0,
            events: &[],
            dropped_events_count: 0,
            links: &[],
            dropped_links_count: 0,
            status: Status::Unset,
        }
    }

    #[inline]
    fn check(&self) -> Result<(), Error> {
        check_ids(&self.trace_id, &self.span_id)?;
        if self.parent_span_id == Some([0; 8]) {
            return Err(Error::Empty { field: "parent_span_id" });
        }
        if self.end_time_unix_nano < self.start_time_unix_nano {
            return Err(Error::NotAscending { field: "end_time_unix_nano" });
        }
        Ok(())
    }

    #[inline]
    fn write(
        &self,
        fields: Fields<'_>,
        attributes: &dyn Attributes,
        limits: &SpanLimits,
    ) -> Result<(), Error> {
        let mut to = proto::Span::from(fields);
        to.flags(flags(self.trace_flags, self.parent_is_remote));
        match self.status {
            Status::Unset => {}
            Status::Ok => to.status(|to| to.code(1)),
            Status::Error(message) => to.status(|to| {
                to.code(2);
                to.message(message);
            }),
        }
        let (links, dropped) = keep(self.links, limits.links, self.dropped_links_count);
        to.dropped_links_count(dropped);
        for link in links.iter().rev() {
            check_ids(&link.trace_id, &link.span_id)?;
            let mut result = Ok(());
            to.fields().message(13, |fields| result = link.write(fields, limits));
            result?;
        }
        let (events, dropped) = keep(self.events, limits.events, self.dropped_events_count);
        to.dropped_events_count(dropped);
        for event in events.iter().rev() {
            if event.name.is_empty() {
                return Err(Error::Empty { field: "events.name" });
            }
            let mut result = Ok(());
            to.fields().message(11, |fields| result = event.write(fields, limits));
            result?;
        }
        let dropped = self.dropped_attributes_count;
        attributes::write_limited(to.fields(), 9, attributes, dropped, &limits.attributes)?;
        to.end_time_unix_nano(self.end_time_unix_nano);
        to.start_time_unix_nano(self.start_time_unix_nano);
        to.kind(self.kind as i32);
        to.name(self.name);
        if let Some(parent) = &self.parent_span_id {
            to.parent_span_id(parent);
        }
        to.trace_state(self.trace_state);
        to.span_id(&self.span_id);
        to.trace_id(&self.trace_id);
        Ok(())
    }
}

/// The first `limit` elements, and how many were dropped with the others.
#[inline]
fn keep<T>(list: &[T], limit: usize, dropped: u32) -> (&[T], u32) {
    match list.split_at_checked(limit) {
        Some((kept, others)) => {
            (kept, dropped.saturating_add(u32::try_from(others.len()).unwrap_or(u32::MAX)))
        }
        None => (list, dropped),
    }
}

#[inline]
fn check_ids(trace_id: &[u8; 16], span_id: &[u8; 8]) -> Result<(), Error> {
    if *trace_id == [0; 16] {
        return Err(Error::Empty { field: "trace_id" });
    }
    if *span_id == [0; 8] {
        return Err(Error::Empty { field: "span_id" });
    }
    Ok(())
}

/// `SpanFlags`: whether it is known that the other span is remote, whether it is, and the flags of its context.
fn flags(trace_flags: u8, is_remote: Option<bool>) -> u32 {
    u32::from(trace_flags) | is_remote.map_or(0, |remote| 0x100 | u32::from(remote) << 9)
}

/// Something that happened during a span.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    /// Nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// What happened; not empty.
    pub name: &'a str,
    /// Attributes.
    pub attributes: &'a dyn Attributes,
    /// How many attributes were discarded.
    pub dropped_attributes_count: u32,
}

impl<'a> Event<'a> {
    /// An event without attributes.
    pub fn new(time_unix_nano: u64, name: &'a str) -> Self {
        Self { time_unix_nano, name, attributes: &(), dropped_attributes_count: 0 }
    }

    fn write(&self, fields: Fields<'_>, limits: &SpanLimits) -> Result<(), Error> {
        let mut to = proto::Event::from(fields);
        let limits = AttributeLimits { count: limits.event_attributes, ..limits.attributes };
        let dropped = self.dropped_attributes_count;
        attributes::write_limited(to.fields(), 3, self.attributes, dropped, &limits)?;
        to.name(self.name);
        to.time_unix_nano(self.time_unix_nano);
        Ok(())
    }
}

/// Another span.
#[derive(Clone, Copy)]
pub struct Link<'a> {
    /// Not all zero.
    pub trace_id: [u8; 16],
    /// Not all zero.
    pub span_id: [u8; 8],
    /// As the header `tracestate` of W3C Trace Context.
    pub trace_state: &'a str,
    /// The flags of W3C Trace Context.
    pub trace_flags: u8,
    /// Whether the other span is in another process, if known.
    pub is_remote: Option<bool>,
    /// Attributes.
    pub attributes: &'a dyn Attributes,
    /// How many attributes were discarded.
    pub dropped_attributes_count: u32,
}

impl Link<'_> {
    /// A link without attributes.
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8]) -> Self {
        Self {
            trace_id,
            span_id,
            trace_state: "",
            trace_flags: 0,
            is_remote: None,
            attributes: &(),
            dropped_attributes_count: 0,
        }
    }

    fn write(&self, fields: Fields<'_>, limits: &SpanLimits) -> Result<(), Error> {
        let mut to = proto::Link::from(fields);
        to.flags(flags(self.trace_flags, self.is_remote));
        let limits = AttributeLimits { count: limits.link_attributes, ..limits.attributes };
        let dropped = self.dropped_attributes_count;
        attributes::write_limited(to.fields(), 4, self.attributes, dropped, &limits)?;
        to.trace_state(self.trace_state);
        to.span_id(&self.span_id);
        to.trace_id(&self.trace_id);
        Ok(())
    }
}

/// The spans of a scope.
pub struct Spans<'s> {
    out: Output<'s>,
}

impl Spans<'_> {
    /// Adds a span.
    ///
    /// Errors, which refuse the span: those of the fields of [`Span`], [`Event`] and [`Link`] and of
    /// [`AttributeWriter::add`], and [`Error::TooLarge`].
    ///
    /// [`AttributeWriter::add`]: crate::AttributeWriter::add
    #[inline(never)]
    pub fn add(&mut self, span: &Span<'_>, attributes: &dyn Attributes) -> Result<(), Error> {
        span.check()?;
        let limits = self.out.frames.item_limits;
        self.out.item(2, |fields| span.write(fields, attributes, &limits))
    }
}
