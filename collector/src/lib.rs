//! The agent as a library: the profiler, and what it stands on.
//!
//! [`profiler::Profiler`] samples in the background; [`tracer::profile::Session`] does the same inside a loop of the
//! caller's. Both give [`model::Profile`]s, which [`output`] and [`convert`] turn into pictures, tables and OTLP, and
//! [`export`] sends.
// Small builds have no code for it (`tests/static/cargo`).
#![cfg_attr(not(test), warn(clippy::use_debug))]
#![forbid(unsafe_code)]

pub mod agent;
mod aggregate;
#[doc(hidden)]
pub mod built_in;
pub mod check;
pub mod config;
pub mod convert;
#[cfg(feature = "unwind")]
mod cpu_budget;
pub mod cpus;
mod crc32;
mod differences;
pub mod enrich;
pub mod error;
pub mod event_buffer;
pub mod export;
pub mod kernel_types;
pub mod key;
mod lzma;
mod merge;
pub mod model;
pub mod names;
pub mod objects;
pub mod output;
mod percent;
pub mod pipeline;
mod poll;
pub mod probes;
pub mod profiler;
#[cfg(feature = "python")]
mod python;
#[cfg(feature = "compare")]
pub mod read;
#[cfg(feature = "unwind")]
mod spans;
pub use bpf_loader::sorted;
pub mod symbolize;
pub mod telemetry;
pub mod tracer;
pub mod units;
#[cfg(feature = "unwind")]
pub mod unwind;
mod x86;
#[cfg(feature = "symbols")]
mod xz;

/// Compiles the examples of the READMEs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the examples of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../../docs/library.md")]
#[doc = include_str!("../../docs/migration.md")]
struct Pages;
