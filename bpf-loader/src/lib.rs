//! A BPF object loader.
#![forbid(unsafe_code)]

pub mod btf;
pub mod bytes;
pub mod core_relo;
mod error;
pub mod fuel;
pub mod insn;
pub mod ring;
pub mod target;

pub use error::Error;
