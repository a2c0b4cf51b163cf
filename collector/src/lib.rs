//! The agent as a library.
#![forbid(unsafe_code)]
pub mod convert;
pub mod export;
pub mod model;
pub mod output;
