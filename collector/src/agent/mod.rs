//! The agent: every enabled tracer in one process, for as long as it is wanted.

pub mod config;
pub mod governor;
mod pacing;
