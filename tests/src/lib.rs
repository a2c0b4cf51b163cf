//! What crosses crates.

pub mod agent;
pub mod client;
pub mod elf;
pub mod faults;
pub mod generate;
pub mod mutate;
pub mod pages;
pub mod profcheck;
pub mod prometheus;
pub mod receivers;
pub mod shapes;
pub mod strict;
pub mod targets;
