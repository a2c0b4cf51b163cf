//! Fuzz targets as plain functions: any bytes are fine for them, and what they find wrong, they panic at.
//!
//! cargo-fuzz runs them through `fuzz/fuzz_targets`; `tests/replay.rs` runs them over `fuzz/seeds` on a stable compiler.
//! The names begin with the layer: `loader`, `programs`, `encode`, or a module of `collector`.

mod btf;
mod encode;
mod export;
mod input;
mod kernel;
pub mod memory;
mod object;
mod profile;
mod records;
mod symbolize;

pub use btf::{loader_btf, loader_core_relo};
pub use encode::encode_json;
pub use export::{export_config, export_reply};
pub use object::{Kernel, loader_object, plan_object};
pub use profile::convert_profile;
pub use records::{loader_rings, programs_records};
pub use symbolize::{symbolize_debugdata, symbolize_elf, symbolize_sideband, symbolize_text};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 13] = [
    ("convert_profile", convert_profile),
    ("encode_json", encode_json),
    ("export_config", export_config),
    ("export_reply", export_reply),
    ("loader_btf", loader_btf),
    ("loader_core_relo", loader_core_relo),
    ("loader_object", loader_object),
    ("loader_rings", loader_rings),
    ("programs_records", programs_records),
    ("symbolize_debugdata", symbolize_debugdata),
    ("symbolize_elf", symbolize_elf),
    ("symbolize_sideband", symbolize_sideband),
    ("symbolize_text", symbolize_text),
];
