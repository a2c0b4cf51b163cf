//! What crosses crates.

pub mod elf;
pub mod mutate;
pub mod profcheck;
pub mod targets;
