//! What crosses crates.

pub mod profcheck;
pub mod targets;
