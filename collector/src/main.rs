//! The `ebpf-otlp` command.
#![forbid(unsafe_code)]
fn main() {}
