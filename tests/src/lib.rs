//! What crosses crates.

pub mod elf;
pub mod faults;
pub mod generate;
pub mod mutate;
pub mod profcheck;
pub mod targets;
