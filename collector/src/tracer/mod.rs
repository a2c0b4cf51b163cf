//! What is traced. One folder a tracer.

pub mod profile;
