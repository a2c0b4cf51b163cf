//! A BPF object loader: ELF, BTF and CO-RE, planning, loading and attaching, safe on hostile objects.
//!
//! ```text
//! bytes --ObjectSpec::parse--> ObjectSpec --plan(&Target)--> LoadPlan --load(&impl Kernel)--> Map, Program --attach--> Link
//! ```
//!
//! Everything up to the [`plan::LoadPlan`] is a pure function of its arguments: it asks no kernel but the
//! [`target::Target`] that it is given, and gives the same result on any host.
// Small builds have no code for it (`tests/static/cargo`).
#![cfg_attr(not(test), warn(clippy::use_debug))]
#![forbid(unsafe_code)]

mod arena_data;
pub mod attach;
mod attach_target;
pub mod attach_to;
pub mod btf;
pub mod bytes;
mod context_arguments;
mod core_plan;
pub mod core_relo;
#[cfg(feature = "dwarf")]
pub mod dwarf;
mod elf;
mod error;
mod exception;
mod ext_plan;
pub mod externs;
pub mod features;
pub mod fuel;
pub mod hash;
pub mod insn;
pub mod inspect;
pub mod kallsyms;
pub mod kernel;
mod kernel_names;
pub mod kind;
mod legacy_map;
pub mod link;
pub mod load;
pub mod machine;
pub mod map;
pub mod map_def;
pub mod object;
pub mod object_file;
pub mod plan;
pub mod program;
pub mod ring;
pub mod sorted;
pub mod stable_sort;
pub mod struct_ops;
mod subprog;
pub mod target;
pub mod test_run;
pub mod text;
pub mod verifier_log;
pub mod walk;

/// Whether the feature is built in.
const ALL_OBJECTS: bool = cfg!(feature = "all-objects");

pub use elf::{SectionIdx, SymbolIdx};
pub use error::{Error, Result};

/// Compiles the examples of the crate's README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
