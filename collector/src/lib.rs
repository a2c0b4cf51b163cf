//! The agent as a library.
#![forbid(unsafe_code)]
pub mod model;
