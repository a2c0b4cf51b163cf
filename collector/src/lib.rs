//! The agent as a library.
#![forbid(unsafe_code)]
pub mod enrich;
pub mod model;
pub mod symbolize;
