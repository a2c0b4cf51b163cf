//! A BPF object loader.
#![forbid(unsafe_code)]
pub mod ring;
