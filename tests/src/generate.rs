//! Realistic requests of all signals, whose items are numbered.

use std::ops::Range;

use collector::export::{Request, Signal};
use otlp_encode::common::{InstrumentationScope, KeyValue};
use otlp_encode::dictionary::{Line, LinkIdx, MappingIdx};
use otlp_encode::logs::ExportLogsServiceRequest;
use otlp_encode::metrics::{self, ExportMetricsServiceRequest, Metric};
use otlp_encode::resource::Resource;
use otlp_encode::trace::{ExportTraceServiceRequest, Span};
use otlp_encode::wire::Writer;
use otlp_encode::{ProfileInfo, ProfilesRequest};

use crate::faults::NUMBER;

/// When everything happened: all that is made of the same numbers is equal.
const TIME: u64 = 1_790_000_000_000_000_000;
/// Length of what has a length.
const SECOND: u64 = 1_000_000_000;
/// The scope of all items.
const SCOPE: &str = "otlp-generate";

/// Makes one request after another in the same memory.
#[derive(Debug)]
pub struct Generator {
    writer: Writer,
    profiles: ProfilesRequest,
}

impl Default for Generator {
    fn default() -> Self {
        Self { writer: Writer::new(), profiles: ProfilesRequest::new(1) }
    }
}

impl Generator {
    /// A request of which each item carries one of `numbers`, in the attribute [`NUMBER`].
    pub fn request(&mut self, signal: Signal, numbers: Range<u64>) -> Request {
        let items = numbers.end - numbers.start;
        let body = match signal {
            Signal::Metrics => metrics(&mut self.writer, numbers),
            Signal::Traces => traces(&mut self.writer, numbers),
            Signal::Logs => logs(&mut self.writer, numbers),
            Signal::Profiles => profiles(&mut self.profiles, numbers),
        };
        Request { signal, items, body: body.to_vec().into() }
    }
}

fn resource(resource: &mut Resource<'_>) {
    let attributes =
        [("service.name", "checkout"), ("host.name", "node-7"), ("container.id", "0123456789abcdef")];
    resource.attributes(attributes, |attribute, (key, value)| attribute.string(key, value));
}

fn scope(scope: &mut InstrumentationScope<'_>) {
    scope.version("1");
    scope.name(SCOPE);
}

fn numbered(attribute: &mut KeyValue<'_>, number: u64) {
    attribute.int(NUMBER, number as i64);
}

/// The numbers that leave the remainder `kind`.
fn of_kind(numbers: &Range<u64>, kinds: u64, kind: u64) -> Vec<u64> {
    numbers.clone().filter(|number| number % kinds == kind).collect()
}

/// Metrics of all five kinds.
fn metrics(writer: &mut Writer, numbers: Range<u64>) -> &[u8] {
    ExportMetricsServiceRequest::encode(writer, |request| {
        request.resource_metrics([()], |of_resource, ()| {
            of_resource.scope_metrics([()], |of_scope, ()| {
                let kinds = (0..5).map(|kind| (kind, of_kind(&numbers, 5, kind)));
                let kinds: Vec<_> = kinds.filter(|(_, numbers)| !numbers.is_empty()).collect();
                of_scope.metrics(kinds, |metric, (kind, numbers)| points(metric, kind, numbers));
                of_scope.scope(scope);
            });
            of_resource.resource(resource);
        });
    })
}

fn points(metric: &mut Metric<'_>, kind: u64, numbers: Vec<u64>) {
    match kind {
        0 => metric.summary(|summary| {
            summary.data_points(numbers, |point, number| {
                point.attributes([number], numbered);
                point.quantile_values([0.5, 0.99], |of, quantile| {
                    of.value(quantile * 2.0);
                    of.quantile(quantile);
                });
                point.sum(number as f64);
                point.count(number);
                point.time_unix_nano(TIME + SECOND);
                point.start_time_unix_nano(TIME);
            });
        }),
        1 => metric.exponential_histogram(|histogram| {
            histogram.aggregation_temporality(metrics::DELTA);
            histogram.data_points(numbers, |point, number| {
                point.positive(|buckets| {
                    buckets.bucket_counts([1, 0, 300, 7]);
                    buckets.offset(-12);
                });
                point.zero_count(2);
                point.scale(3);
                point.sum(0.25);
                point.count(310);
                point.time_unix_nano(TIME + SECOND);
                point.start_time_unix_nano(TIME);
                point.attributes([number], numbered);
            });
        }),
        2 => metric.histogram(|histogram| {
            histogram.aggregation_temporality(metrics::CUMULATIVE);
            histogram.data_points(numbers, |point, number| {
                point.max(9.5);
                point.min(0.01);
                point.attributes([number], numbered);
                point.explicit_bounds(&[0.1, 1.0]);
                point.bucket_counts(&[4, 5, 6]);
                point.sum(31.5);
                point.count(15);
                point.time_unix_nano(TIME + SECOND);
                point.start_time_unix_nano(TIME);
            });
        }),
        3 => metric.sum(|sum| {
            sum.is_monotonic(true);
            sum.aggregation_temporality(metrics::CUMULATIVE);
            sum.data_points(numbers, |point, number| {
                point.attributes([number], numbered);
                point.as_int(number as i64);
                point.time_unix_nano(TIME + SECOND);
                point.start_time_unix_nano(TIME);
            });
        }),
        _ => metric.gauge(|gauge| {
            gauge.data_points(numbers, |point, number| {
                point.attributes([number], numbered);
                point.as_double(number as f64 / 2.0);
                point.time_unix_nano(TIME + SECOND);
            });
        }),
    }
    let names = ["rpc.quantiles", "ebpf.syscall.duration", "http.duration", "ebpf.syscall.errors", "load"];
    metric.unit("s");
    metric.name(names.get(kind as usize).copied().unwrap_or_default());
}

/// Server spans, each with an event, some with an error.
fn traces(writer: &mut Writer, numbers: Range<u64>) -> &[u8] {
    ExportTraceServiceRequest::encode(writer, |request| {
        request.resource_spans([()], |of_resource, ()| {
            of_resource.scope_spans([()], |of_scope, ()| {
                of_scope.spans(numbers.clone(), span);
                of_scope.scope(scope);
            });
            of_resource.resource(resource);
        });
    })
}

fn span(span: &mut Span<'_>, number: u64) {
    if number % 10 == 0 {
        span.status(|status| {
            status.code(2);
            status.message("deadline exceeded");
        });
    }
    span.events(["cache.miss"], |event, name| {
        event.name(name);
        event.time_unix_nano(TIME + 1);
    });
    span.attributes([true, false], |attribute, first| {
        if first {
            numbered(attribute, number);
        } else {
            attribute.string("http.route", "/cart/{id}");
        }
    });
    span.end_time_unix_nano(TIME + SECOND);
    span.start_time_unix_nano(TIME);
    span.kind(2);
    span.name("GET /cart/{id}");
    span.span_id(&(number + 1).to_be_bytes());
    span.trace_id(&u128::from(number + 1).to_be_bytes());
}

/// Log records with bodies of several kinds.
fn logs(writer: &mut Writer, numbers: Range<u64>) -> &[u8] {
    ExportLogsServiceRequest::encode(writer, |request| {
        request.resource_logs([()], |of_resource, ()| {
            of_resource.scope_logs([()], |of_scope, ()| {
                of_scope.log_records(numbers.clone(), |record, number| {
                    record.observed_time_unix_nano(TIME + 1);
                    record.attributes([number], numbered);
                    record.body(|body| match number % 3 {
                        0 => body.string_value("connection to 10.0.0.7:5432 was refused; trying again"),
                        1 => body
                            .kvlist_value(|map| map.values([number], |entry, n| entry.int("try", n as i64))),
                        _ => body.bytes_value(&number.to_le_bytes()),
                    });
                    record.severity_text("WARN");
                    record.severity_number(13);
                    record.time_unix_nano(TIME);
                });
                of_scope.scope(scope);
            });
            of_resource.resource(resource);
        });
    })
}

/// One profile, each sample with a stack of its own.
fn profiles(request: &mut ProfilesRequest, numbers: Range<u64>) -> &[u8] {
    request.clear();
    request.resource_profiles("", resource, |scopes| {
        scopes.scope_profiles("", scope, |profiles| {
            let info = ProfileInfo {
                sample_type: ("samples", "count"),
                time_unix_nano: TIME,
                duration_nano: SECOND,
                profile_id: Some(u128::from(numbers.start + 1).to_be_bytes()),
                ..ProfileInfo::default()
            };
            profiles.profile(&info, |samples| {
                for number in numbers {
                    let dictionary = samples.dictionary();
                    let attribute = dictionary.attribute(NUMBER, "", |value| value.int_value(number as i64));
                    let function =
                        dictionary.function(&format!("handler_{}", number % 100), "", "server.rs", 0);
                    let line = Line { function, line: 12, column: 0 };
                    let leaf = dictionary.location(MappingIdx::default(), 0x1000 + number, &[line], &[]);
                    let stack = dictionary.stack(&[leaf]);
                    samples.sample(stack, &[attribute], LinkIdx::default(), &[1], &[]);
                }
            });
        });
    });
    request.finish().expect("a valid request")
}
