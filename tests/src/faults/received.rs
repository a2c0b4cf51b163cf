//! What arrived.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use collector::export::Signal;
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;

/// The attribute that numbers an item.
pub const NUMBER: &str = "test.number";

/// A request.
#[derive(Debug, Clone)]
pub struct Received {
    /// Which connection it came over, from 1.
    pub connection: usize,
    /// The request's path.
    pub path: String,
    /// The names and values of its headers.
    pub headers: Vec<(String, String)>,
    /// Size of the body as it came; 0 where it was not read.
    pub bytes: usize,
    /// The numbers of the items; none where the body was not read.
    pub items: Vec<u64>,
    /// Whether they were taken.
    pub taken: bool,
    /// When its last byte was read.
    pub at: Instant,
}

impl Received {
    /// The signal that its path is of.
    pub fn signal(&self) -> Option<Signal> {
        signal_of(&self.path)
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name))?;
        Some(value)
    }
}

/// The signal that an HTTP path, below any base, or a method of gRPC is of.
pub(super) fn signal_of(path: &str) -> Option<Signal> {
    Signal::ALL.into_iter().find(|signal| path.ends_with(signal.path()) || path == signal.grpc_path())
}

/// All requests of which at least the head arrived, in order of their ends.
#[derive(Debug, Default)]
pub struct Log {
    requests: Mutex<Vec<Received>>,
    grown: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<Received>> {
        self.requests.lock().expect("no thread panics while it holds the log")
    }

    pub(super) fn push(&self, received: Received) {
        self.lock().push(received);
        self.grown.notify_all();
    }

    /// A copy of all.
    pub fn requests(&self) -> Vec<Received> {
        self.lock().clone()
    }

    /// How many requests arrived.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often each item of `signal` was taken.
    pub fn taken(&self, signal: Signal) -> BTreeMap<u64, u32> {
        let mut counts = BTreeMap::new();
        for request in self.lock().iter().filter(|request| request.taken && request.signal() == Some(signal))
        {
            for item in &request.items {
                *counts.entry(*item).or_default() += 1;
            }
        }
        counts
    }

    /// Waits until `enough` is true of what arrived; false where `limit` passed before.
    pub fn wait(&self, limit: Duration, mut enough: impl FnMut(&[Received]) -> bool) -> bool {
        let waited = self.grown.wait_timeout_while(self.lock(), limit, |requests| !enough(requests));
        !waited.expect("no thread panics while it holds the log").1.timed_out()
    }
}

/// The numbers of the items in a body.
///
/// # Errors
///
/// The body is no gzip, or no request of this signal, or one of its items has no number.
pub(super) fn items(signal: Signal, gzipped: bool, body: &[u8]) -> io::Result<Vec<u64>> {
    let mut plain = Vec::new();
    if gzipped {
        GzDecoder::new(body).read_to_end(&mut plain)?;
    }
    let body = if gzipped { plain.as_slice() } else { body };
    let numbers = match signal {
        Signal::Metrics => metrics(&ExportMetricsServiceRequest::decode(body)?),
        Signal::Traces => traces(&ExportTraceServiceRequest::decode(body)?),
        Signal::Logs => logs(&ExportLogsServiceRequest::decode(body)?),
        Signal::Profiles => profiles(&ExportProfilesServiceRequest::decode(body)?),
    };
    numbers.ok_or_else(|| io::Error::other("an item without a number"))
}

fn number_in(attributes: &[KeyValue]) -> Option<u64> {
    value_of(attributes.iter().find(|attribute| attribute.key == NUMBER)?.value.as_ref())
}

fn value_of(value: Option<&AnyValue>) -> Option<u64> {
    match value?.value.as_ref()? {
        Value::IntValue(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn metrics(request: &ExportMetricsServiceRequest) -> Option<Vec<u64>> {
    let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    let mut numbers = Vec::new();
    for metric in scopes.flat_map(|scope| &scope.metrics) {
        let attributes: Vec<&[KeyValue]> = match metric.data.as_ref()? {
            Data::Gauge(gauge) => gauge.data_points.iter().map(|point| &*point.attributes).collect(),
            Data::Sum(sum) => sum.data_points.iter().map(|point| &*point.attributes).collect(),
            Data::Histogram(all) => all.data_points.iter().map(|point| &*point.attributes).collect(),
            Data::ExponentialHistogram(all) => {
                all.data_points.iter().map(|point| &*point.attributes).collect()
            }
            Data::Summary(all) => all.data_points.iter().map(|point| &*point.attributes).collect(),
        };
        for attributes in attributes {
            numbers.push(number_in(attributes)?);
        }
    }
    Some(numbers)
}

fn traces(request: &ExportTraceServiceRequest) -> Option<Vec<u64>> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans).map(|span| number_in(&span.attributes)).collect()
}

fn logs(request: &ExportLogsServiceRequest) -> Option<Vec<u64>> {
    let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    scopes.flat_map(|scope| &scope.log_records).map(|record| number_in(&record.attributes)).collect()
}

fn profiles(request: &ExportProfilesServiceRequest) -> Option<Vec<u64>> {
    let dictionary = request.dictionary.as_ref()?;
    let name = |index: i32| Some(dictionary.string_table.get(usize::try_from(index).ok()?)?.as_str());
    let scopes = request.resource_profiles.iter().flat_map(|resource| &resource.scope_profiles);
    let samples = scopes.flat_map(|scope| &scope.profiles).flat_map(|profile| &profile.samples);
    let number = |indices: &[i32]| {
        indices.iter().find_map(|index| {
            let attribute = dictionary.attribute_table.get(usize::try_from(*index).ok()?)?;
            if name(attribute.key_strindex)? == NUMBER { value_of(attribute.value.as_ref()) } else { None }
        })
    };
    samples.map(|sample| number(&sample.attribute_indices)).collect()
}
