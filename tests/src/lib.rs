//! What crosses crates.

pub mod client;
pub mod elf;
pub mod faults;
pub mod generate;
pub mod mutate;
pub mod profcheck;
pub mod receivers;
pub mod targets;
