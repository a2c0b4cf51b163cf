//! The agent as a library.
#![forbid(unsafe_code)]
pub mod convert;
pub mod model;
