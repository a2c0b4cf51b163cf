//! receivers-mock GENERATOR [PROTOCOL...]
//!
//! Lets GENERATOR (`otlp-generate`) send metrics, traces and logs to the receiver of the crate mock-collector, over each
//! PROTOCOL (all three of OTLP), gzipped, and checks what it holds then.

use std::ffi::OsStr;

use mock_collector::{MockCollector, MockServer, Protocol};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;

/// Requests of each signal, and items in each.
const REQUESTS: u64 = 20;
const ITEMS: u64 = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let (generator, protocols) =
        arguments.split_first().expect("usage: receivers-mock GENERATOR [PROTOCOL...]");
    let all = ["http/protobuf".into(), "http/json".into(), "grpc".into()];
    for protocol in if protocols.is_empty() { &all } else { protocols } {
        check(generator, protocol).await;
        println!("mock-collector over {}: {} items of each signal", protocol.display(), REQUESTS * ITEMS);
    }
}

async fn check(generator: &OsStr, protocol: &OsStr) {
    let spoken = match protocol.to_str() {
        Some("grpc") => Protocol::Grpc,
        Some("http/json") => Protocol::HttpJson,
        _ => Protocol::HttpBinary,
    };
    let server = MockServer::builder().protocol(spoken).start().await.expect("a free port");
    let status = tokio::process::Command::new(generator)
        .args(["--endpoint", &format!("http://{}", server.addr())])
        .args(["--signal", "metrics", "--signal", "traces", "--signal", "logs"])
        .args(["--count", &REQUESTS.to_string(), "--items", &ITEMS.to_string()])
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        .status()
        .await
        .expect("the generator runs");
    assert!(status.success(), "{status}");
    server.with_collector(holds_all).await;
    server.shutdown().await.expect("an end");
}

fn holds_all(collector: &MockCollector) {
    once(collector.spans().iter().map(|span| number(&span.span().attributes)));
    once(collector.logs().iter().map(|log| number(&log.log_record().attributes)));
    once(collector.metrics().iter().flat_map(|metric| numbers(metric.metric().data.as_ref().expect("data"))));
    let expected = (REQUESTS * ITEMS) as usize;
    collector
        .expect_span_with_name("GET /cart/{id}")
        .with_resource_attributes([("service.name", "checkout")])
        .assert_count(expected);
    collector
        .expect_log_with_body("connection to 10.0.0.7:5432 was refused; trying again")
        .assert_at_least(expected / 3);
    collector
        .expect_histogram("http.duration")
        .with_count_eq(15)
        .with_bucket_count_eq(2, 6)
        .assert_at_least(1);
    collector
        .expect_exponential_histogram("ebpf.syscall.duration")
        .with_scale_eq(3)
        .with_zero_count_eq(2)
        .assert_at_least(1);
    collector.expect_summary("rpc.quantiles").with_quantile_eq(0.99, 1.98).assert_at_least(1);
}

/// Every number from 0 is there once.
fn once(numbers: impl Iterator<Item = u64>) {
    let mut numbers: Vec<u64> = numbers.collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..REQUESTS * ITEMS).collect::<Vec<_>>());
}

fn number(attributes: &[KeyValue]) -> u64 {
    let attribute =
        attributes.iter().find(|attribute| attribute.key == "test.number").expect("a numbered item");
    match attribute.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::IntValue(number)) => u64::try_from(*number).expect("a number"),
        other => panic!("{other:?}"),
    }
}

fn numbers(data: &Data) -> Vec<u64> {
    match data {
        Data::Gauge(all) => all.data_points.iter().map(|point| number(&point.attributes)).collect(),
        Data::Sum(all) => all.data_points.iter().map(|point| number(&point.attributes)).collect(),
        Data::Histogram(all) => all.data_points.iter().map(|point| number(&point.attributes)).collect(),
        Data::ExponentialHistogram(all) => {
            all.data_points.iter().map(|point| number(&point.attributes)).collect()
        }
        Data::Summary(all) => all.data_points.iter().map(|point| number(&point.attributes)).collect(),
    }
}
