//! The agent as a library.
#![forbid(unsafe_code)]
pub mod export;
pub mod model;
pub mod output;
