//! A hand-written OTLP protobuf encoder: straight from the caller's data to bytes, with no message structs in
//! between and no allocation in steady state.
//!
//! One buffer is filled from its end, fields last to first, so that the length of every nested message is known
//! when its header is written ([`wire`]). The bytes are canonical: the same that other encoders produce for the
//! same message.
//!
//! | layer | for whom |
//! |---|---|
//! | [`MetricsRequest`], [`TracesRequest`], [`LogsRequest`], [`ProfilesRequest`] | whoever exports telemetry: what they hand out is valid and within limits, and what is not valid is an error |
//! | [`common`], [`resource`], [`metrics`], [`trace`], [`logs`], [`profiles`] | whoever needs a message as the proto files define it, field by field |
//! | [`wire`] and [`message!`] | whoever has protobuf messages of their own |
//! | [`json`] | OTLP JSON, from the encoded bytes of any of these messages |
//!
//! ```
//! use otlp_encode::{AttributesBlob, Limits, MetricBlob, MetricsRequest, NumberPoint, ResourceBlob, ScopeBlob};
//!
//! // Encoded once, used in any number of requests.
//! let resource = ResourceBlob::new(&[("service.name", "shop")], &Default::default())?;
//! let scope = ScopeBlob::new("shop-metrics", &(), &Default::default())?;
//! let queue_length = MetricBlob::new("shop.queue.length", "{order}", "Orders that wait.")?;
//! let europe = AttributesBlob::new(&[("region", "eu")])?;
//!
//! let mut request = MetricsRequest::new(Limits::default());
//! let mut out = request.start(|batch| {
//!     // Send `batch.bytes` to /v1/metrics, or write it as a line:
//!     let mut line = String::new();
//!     batch.json_line(&mut line).expect("what is handed out is canonical");
//!     assert!(line.starts_with(r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","#));
//! });
//! let mut scopes = out.resource(&resource);
//! let mut metrics = scopes.scope(&scope);
//! let mut points = metrics.gauge(&queue_length);
//! points.add(&NumberPoint::new(1_790_000_000_000_000_000, 17), &europe)?;
//! points.add(&NumberPoint::new(1_790_000_000_000_000_000, 4), &[("region", "us")])?;
//! out.finish();
//! # Ok::<(), otlp_encode::Error>(())
//! ```
//!
//! What is called once an item is neither generic nor inlined: a program that is compiled for size keeps the speed by
//! giving this crate alone `opt-level = 3`, in `[profile.release.package.otlp-encode]`.
// Small builds have no code for it (`tests/static/cargo`).
#![cfg_attr(not(test), warn(clippy::use_debug))]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod attributes;
mod error;
mod message;

pub mod common;
pub mod descriptor;
pub mod dictionary;
pub mod json;
pub mod logs;
pub mod metrics;
pub mod profiles;
mod request;
pub mod resource;
pub mod trace;
pub mod wire;

pub use attributes::{AttributeLimits, AttributeWriter, Attributes, AttributesBlob, MAX_VALUE_DEPTH, Value};
pub use dictionary::{
    AttributeIdx, Dictionary, Epoch, FunctionIdx, Line, LinkIdx, LocationIdx, MappingIdx, StackIdx,
};
pub use error::{Error, Table};
pub use request::*;

/// Compiles the examples of the crate's README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
