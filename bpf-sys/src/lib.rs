//! Raw `bpf(2)` and `perf_event_open(2)`, typed and safe.
#![deny(unsafe_code)]
pub mod uapi;
