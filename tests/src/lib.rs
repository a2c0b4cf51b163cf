//! What crosses crates.

pub mod mutate;
pub mod profcheck;
pub mod targets;
