//! A hand-written OTLP protobuf encoder.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
