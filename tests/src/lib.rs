//! What crosses crates.

pub mod profcheck;
