use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use bpf_programs::events::process::{self, Process, Status};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as NumberValue;
use prost::Message;

use super::*;
use crate::enrich::host::HostFacts;
use crate::export::config::{AgentResource, SdkSettings, Temporality};
use crate::symbolize::Host;
use crate::telemetry::{Attribute, Exponential, Instrument, Metric, PointValue, Severity, Subject};

mod page;
mod random;
mod records;
mod series;

const SECOND: u64 = 1_000_000_000;
const T0: u64 = 1_790_000_000 * SECOND;
const NO_COMM: [u8; 16] = [0; 16];

const fn metric(name: &'static str, instrument: Instrument, subject: Subject) -> Metric {
    Metric { name, unit: "1", description: "d", instrument, subject, attributes: &["k"], source: "test" }
}
static CALLS: Metric = metric("t.calls", Instrument::Counter, Subject::Process);
static BYTES: Metric = metric("t.bytes", Instrument::Counter, Subject::Process);
static TIMES: Metric = metric("t.times", Instrument::Histogram, Subject::Process);
static HELD: Metric = metric("t.held", Instrument::UpDownCounter, Subject::Process);
static READ: Metric = metric("t.read", Instrument::Gauge, Subject::Process);
static LOAD: Metric = metric("t.load", Instrument::Gauge, Subject::Host);
static OWN: Metric = metric("t.own", Instrument::Counter, Subject::Agent);

/// A directory that stands for `/proc`.
struct FakeProc(PathBuf);

impl FakeProc {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ebpf-otlp-proc-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn host(&self) -> Host {
        Host { proc: self.0.clone(), root: self.0.join("root"), ..Host::default() }
    }

    /// A process that started so many ticks of 10 ms after boot.
    fn add(&self, pid: u32, ticks: u64, executable: &str, cgroup: &str, environment: &str) {
        let dir = self.0.join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        let comm = executable.rsplit('/').next().unwrap();
        let stat = format!("{pid} ({comm}) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {ticks} 0 0\n");
        fs::write(dir.join("stat"), stat).unwrap();
        fs::write(dir.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        fs::write(dir.join("status"), "Uid:\t0\t1000\t0\t0\n").unwrap();
        fs::write(dir.join("environ"), environment).unwrap();
        let _ = fs::remove_file(dir.join("exe"));
        symlink(executable, dir.join("exe")).unwrap();
    }

    fn remove(&self, pid: u32) {
        let _ = fs::remove_dir_all(self.0.join(pid.to_string()));
    }
}

impl Drop for FakeProc {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn at(seconds: u64) -> Reading {
    Reading { boot_nanos: seconds * SECOND, unix_nanos: T0 + seconds * SECOND }
}

fn settings(host: Host, temporality: Temporality) -> Settings {
    let mut sdk = SdkSettings::from_env(&|_| None);
    sdk.metrics.temporality = temporality;
    Settings {
        sdk,
        host,
        facts: HostFacts::default(),
        agent: AgentResource::from_env(&|_| None, "ebpf-otlp", 0).0,
        own: Vec::new(),
        per_process: false,
        max_request: 4 << 20,
        memory: Memory::split(8 << 20),
    }
}

fn of(pid: u32) -> Owner {
    Owner::Process { pid, comm: NO_COMM }
}

fn number(metric: &'static Metric, owner: Owner, key: &str, value: i64) -> impl FnOnce(&mut Pipeline) {
    move |pipeline| {
        let attributes = [("k", key.into())];
        pipeline.point(Point { metric, owner, attributes: &attributes, value: PointValue::Int(value) });
    }
}

/// The kernel's event of a process that ended.
fn exited(pipeline: &mut Pipeline, pid: u32, start_boot_ns: u64) {
    let process = Process { start_boot_ns, ..process_event(process::EXIT, pid, 0, "") };
    pipeline.lifecycle(&Lifecycle::Exit(process, Status(0)));
}

fn process_event(kind: u32, tgid: u32, parent_tgid: u32, name: &str) -> Process {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    let start_boot_ns = 105 * SECOND;
    Process { kind, tgid, boot_ns: start_boot_ns, start_boot_ns, cgroup_id: 0, parent_tgid, uid: 5, comm }
}

/// The kernel's event of a process that was started at 105 s and executes a file, as its bytes.
fn execed(pid: u32, parent: u32, path: &str) -> Lifecycle {
    let process = process_event(process::EXEC, pid, parent, path.rsplit('/').next().unwrap());
    let mut bytes = Vec::new();
    bytes.extend(process.kind.to_le_bytes());
    bytes.extend(process.tgid.to_le_bytes());
    bytes.extend(process.boot_ns.to_le_bytes());
    bytes.extend(process.start_boot_ns.to_le_bytes());
    bytes.extend(process.cgroup_id.to_le_bytes());
    bytes.extend(process.parent_tgid.to_le_bytes());
    bytes.extend(process.uid.to_le_bytes());
    bytes.extend(process.comm);
    bytes.extend((path.len() as u32 + 1).to_le_bytes());
    bytes.resize(64, 0);
    bytes.extend(path.as_bytes());
    bytes.resize(256, 0);
    Lifecycle::decode(&bytes).unwrap()
}

/// Requests of a flush of everything.
fn flush(pipeline: &mut Pipeline, now: Reading) -> Vec<Request> {
    let mut requests = Vec::new();
    pipeline.flush(now, &Signal::ALL, &mut |request| requests.push(request));
    requests
}

fn text(value: &Option<AnyValue>) -> String {
    match value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(n)) => n.to_string(),
        Some(Any::BoolValue(b)) => b.to_string(),
        other => format!("{other:?}"),
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let texts: BTreeMap<_, _> = attributes.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect();
    assert_eq!(texts.len(), attributes.len());
    texts
}

/// A point as a receiver gets it.
#[derive(Debug, Clone, PartialEq)]
struct Got {
    resource: BTreeMap<String, String>,
    metric: String,
    attributes: BTreeMap<String, String>,
    is_delta: bool,
    start: u64,
    time: u64,
    /// Of a histogram, how many.
    value: f64,
    /// Of a histogram: scale, offset, buckets, zero, sum.
    histogram: Option<(i32, i32, Vec<u64>, u64, f64)>,
}

impl Got {
    fn service(&self) -> &str {
        self.resource.get("service.name").map_or("", String::as_str)
    }
}

fn points(requests: &[Request]) -> Vec<Got> {
    let mut points = Vec::new();
    for request in requests.iter().filter(|request| request.signal == Signal::Metrics) {
        let decoded = ExportMetricsServiceRequest::decode(request.body.clone()).unwrap();
        assert_eq!(decoded.encode_to_vec(), request.body);
        let before = points.len();
        for of_resource in decoded.resource_metrics {
            let resource = texts(&of_resource.resource.unwrap().attributes);
            assert_eq!(of_resource.schema_url, SCHEMA_URL);
            assert_eq!(of_resource.scope_metrics.len(), 1);
            for metric in of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                let got = |attributes: &[KeyValue], is_delta, start, time| Got {
                    resource: resource.clone(),
                    metric: metric.name.clone(),
                    attributes: texts(attributes),
                    is_delta,
                    start,
                    time,
                    value: 0.0,
                    histogram: None,
                };
                let numbers = |data: Vec<opentelemetry_proto::tonic::metrics::v1::NumberDataPoint>,
                               temporality| {
                    data.into_iter()
                        .map(|point| Got {
                            value: match point.value.unwrap() {
                                NumberValue::AsInt(n) => n as f64,
                                NumberValue::AsDouble(n) => n,
                            },
                            ..got(
                                &point.attributes,
                                temporality == 1,
                                point.start_time_unix_nano,
                                point.time_unix_nano,
                            )
                        })
                        .collect::<Vec<_>>()
                };
                match metric.data.clone().unwrap() {
                    Data::Gauge(gauge) => points.extend(numbers(gauge.data_points, 0)),
                    Data::Sum(sum) => points.extend(numbers(sum.data_points, sum.aggregation_temporality)),
                    Data::ExponentialHistogram(all) => {
                        points.extend(all.data_points.into_iter().map(|point| {
                            let buckets = point.positive.unwrap_or_default();
                            let delta = all.aggregation_temporality == 1;
                            Got {
                                value: point.count as f64,
                                histogram: Some((
                                    point.scale,
                                    buckets.offset,
                                    buckets.bucket_counts,
                                    point.zero_count,
                                    point.sum.unwrap(),
                                )),
                                ..got(
                                    &point.attributes,
                                    delta,
                                    point.start_time_unix_nano,
                                    point.time_unix_nano,
                                )
                            }
                        }))
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(request.items as usize, points.len() - before);
    }
    points
}
