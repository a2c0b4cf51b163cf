//! Realistic requests of all signals, whose items are numbered.

use std::ops::Range;

use collector::export::{Request, Signal};
use otlp_encode::{
    AttributeWriter, Batch, Bounds, Dictionary, Event, ExponentialBuckets, ExponentialHistogramPoint,
    HistogramPoint, Limits, Line, LinkIdx, LogRecord, LogsRequest, MappingIdx, MetricBlob, MetricsRequest,
    NumberPoint, ProfileInfo, ProfilesRequest, Quantile, ResourceBlob, ScopeBlob, ScopeInfo, Severity, Span,
    SpanKind, Status, SummaryPoint, Temporality, TracesRequest, Value,
};

use crate::faults::NUMBER;

mod child;
mod options;
mod run;

pub use child::{Running, items};
pub use options::{Options, USAGE};
pub use run::{run, to_json};

/// When everything happened: all that is made of the same numbers is equal.
const TIME: u64 = 1_790_000_000_000_000_000;
/// Length of what has a length.
const SECOND: u64 = 1_000_000_000;
/// The scope of all items.
const SCOPE: &str = "otlp-generate";
/// The resource of all items.
const RESOURCE: [(&str, &str); 3] =
    [("service.name", "checkout"), ("host.name", "node-7"), ("container.id", "0123456789abcdef")];

/// Makes one request after another in the same memory.
#[derive(Debug)]
pub struct Generator {
    resource: ResourceBlob,
    scope: ScopeBlob,
    metrics: MetricsRequest,
    traces: TracesRequest,
    logs: LogsRequest,
    profiles: ProfilesRequest,
}

impl Default for Generator {
    fn default() -> Self {
        // What is asked for is one request.
        let limits = Limits { max_bytes: Limits::MAX_BYTES, max_items: u64::MAX };
        let info = ScopeInfo { version: "1", ..ScopeInfo::default() };
        Self {
            resource: ResourceBlob::new(&RESOURCE, &Default::default()).expect("a resource"),
            scope: ScopeBlob::new(SCOPE, &(), &info).expect("a scope"),
            metrics: MetricsRequest::new(limits),
            traces: TracesRequest::new(limits),
            logs: LogsRequest::new(limits),
            profiles: ProfilesRequest::new(limits, 1),
        }
    }
}

impl Generator {
    /// A request of which each item carries one of `numbers`, in the attribute [`NUMBER`].
    pub fn request(&mut self, signal: Signal, numbers: Range<u64>) -> Request {
        let items = numbers.end - numbers.start;
        let mut body = Vec::new();
        let mut take = |batch: Batch<'_>| {
            assert_eq!((batch.items, body.len()), (items, 0), "one request, with all items");
            body.extend_from_slice(batch.bytes);
        };
        match signal {
            Signal::Metrics => self.metrics(numbers, &mut take),
            Signal::Traces => self.traces(numbers, &mut take),
            Signal::Logs => self.logs(numbers, &mut take),
            Signal::Profiles => {
                let around = (&self.resource, &self.scope);
                profiles(&mut self.profiles, around, numbers, &mut take);
            }
        }
        Request { signal, items, body: body.into() }
    }

    /// Metrics of all five kinds.
    fn metrics(&mut self, numbers: Range<u64>, take: &mut dyn FnMut(Batch<'_>)) {
        let of_kind = |kind| numbers.clone().filter(move |number| number % 5 == kind);
        let metric = |name| MetricBlob::new(name, "s", "").expect("a metric");
        let mut request = self.metrics.start(take);
        let mut scopes = request.resource(&self.resource);
        let mut metrics = scopes.scope(&self.scope);

        let load = metric("load");
        let mut points = metrics.gauge(&load);
        for number in of_kind(4) {
            let point = NumberPoint::new(TIME + SECOND, number as f64 / 2.0);
            points.add(&point, &numbered(number)).expect("a point");
        }
        let errors = metric("ebpf.syscall.errors");
        let mut points = metrics.sum(&errors, Temporality::Cumulative, true);
        for number in of_kind(3) {
            let point =
                NumberPoint { start_time_unix_nano: TIME, ..NumberPoint::new(TIME + SECOND, number as i64) };
            points.add(&point, &numbered(number)).expect("a point");
        }
        let duration = metric("http.duration");
        let bounds = Bounds::new(&[0.1, 1.0]).expect("ascending bounds");
        let mut points = metrics.histogram(&duration, Temporality::Cumulative);
        for number in of_kind(2) {
            let point = HistogramPoint {
                start_time_unix_nano: TIME,
                sum: Some(31.5),
                min: Some(0.01),
                max: Some(9.5),
                ..HistogramPoint::new(TIME + SECOND, bounds, &[4, 5, 6])
            };
            points.add(&point, &numbered(number)).expect("a point");
        }
        let calls = metric("ebpf.syscall.duration");
        let mut points = metrics.exponential_histogram(&calls, Temporality::Delta);
        for number in of_kind(1) {
            let positive = ExponentialBuckets { offset: -12, bucket_counts: &[1, 0, 300, 7] };
            let point = ExponentialHistogramPoint {
                start_time_unix_nano: TIME,
                sum: Some(0.25),
                ..ExponentialHistogramPoint::new(TIME + SECOND, 3, 2, positive)
            };
            points.add(&point, &numbered(number)).expect("a point");
        }
        let quantiles = metric("rpc.quantiles");
        let mut points = metrics.summary(&quantiles);
        for number in of_kind(0) {
            let values = [0.5, 0.99].map(|quantile| Quantile { quantile, value: quantile * 2.0 });
            let point = SummaryPoint {
                start_time_unix_nano: TIME,
                ..SummaryPoint::new(TIME + SECOND, number, number as f64, &values)
            };
            points.add(&point, &numbered(number)).expect("a point");
        }
    }

    /// Server spans, each with an event, some with an error.
    fn traces(&mut self, numbers: Range<u64>, take: &mut dyn FnMut(Batch<'_>)) {
        let mut request = self.traces.start(take);
        let mut scopes = request.resource(&self.resource);
        let mut spans = scopes.scope(&self.scope);
        for number in numbers {
            let trace_id = u128::from(number + 1).to_be_bytes();
            let events = [Event::new(TIME + 1, "cache.miss")];
            let failed = number % 10 == 0;
            let span = Span {
                kind: SpanKind::Server,
                events: &events,
                status: if failed { Status::Error("deadline exceeded") } else { Status::Unset },
                ..Span::new(trace_id, (number + 1).to_be_bytes(), "GET /cart/{id}", TIME..TIME + SECOND)
            };
            let attributes = [(NUMBER, Value::Int(number as i64)), ("http.route", "/cart/{id}".into())];
            spans.add(&span, &attributes).expect("a span");
        }
    }

    /// Log records with bodies of several kinds.
    fn logs(&mut self, numbers: Range<u64>, take: &mut dyn FnMut(Batch<'_>)) {
        let mut request = self.logs.start(take);
        let mut scopes = request.resource(&self.resource);
        let mut records = scopes.scope(&self.scope);
        for number in numbers {
            let map = [("try", Value::Int(number as i64))];
            let bytes = number.to_le_bytes();
            let record = LogRecord {
                time_unix_nano: TIME,
                observed_time_unix_nano: TIME + 1,
                severity: Severity::WARN,
                severity_text: "WARN",
                body: Some(match number % 3 {
                    0 => Value::Str("connection to 10.0.0.7:5432 was refused; trying again"),
                    1 => Value::Map(&map),
                    _ => Value::Bytes(&bytes),
                }),
                ..LogRecord::default()
            };
            records.add(&record, &numbered(number)).expect("a record");
        }
    }
}

fn numbered(number: u64) -> impl Fn(&mut AttributeWriter<'_>) {
    move |to| to.add(NUMBER, number as i64)
}

/// A profile for each number, of one sample with a stack of its own.
fn profiles(
    request: &mut ProfilesRequest,
    around: (&ResourceBlob, &ScopeBlob),
    numbers: Range<u64>,
    take: &mut dyn FnMut(Batch<'_>),
) {
    let info = ProfileInfo {
        sample_type: ("samples", "count"),
        time_unix_nano: TIME,
        duration_nano: SECOND,
        ..ProfileInfo::default()
    };
    let first_id = u128::from(numbers.start + 1).to_be_bytes();
    let mut request = request.start(Some(first_id), take);
    let mut scopes = request.resource(around.0);
    let mut profiles = scopes.scope(around.1);
    for number in numbers {
        let identity = |dictionary: &mut Dictionary| {
            let attribute = dictionary.attribute(NUMBER, "", number as i64);
            let function = dictionary.function(&format!("handler_{}", number % 100), "", "server.rs", 0);
            let line = Line { function, line: 12, column: 0 };
            let leaf = dictionary.location(MappingIdx::default(), 0x1000 + number, &[line], &[]);
            (dictionary.stack(&[leaf]), [attribute], LinkIdx::default())
        };
        profiles.profile(&info).add(&[1], &[], identity).expect("a sample");
    }
}
