//! Fuzz targets as plain functions: any bytes are fine for them, and what they find wrong, they panic at.
//!
//! cargo-fuzz runs them through `fuzz/fuzz_targets`; `tests/replay.rs` runs them over `fuzz/seeds` on a stable compiler.
//! The names begin with the layer: `sys`, `loader`, `programs`, `encode`, or a module of `collector`.

mod agent;
mod btf;
mod dns;
mod dwarf;
mod encode;
mod export;
mod input;
mod kernel;
mod maps;
pub mod memory;
mod object;
mod profile;
mod read;
mod records;
mod spool;
mod symbolize;
mod sys;
mod text;

pub use agent::{agent_config, agent_health};
pub use btf::{loader_btf, loader_btf_ext, loader_core_relo, loader_split_btf};
pub use dns::tracer_dns;
pub use dwarf::loader_dwarf;
pub use encode::encode_json;
pub use export::{export_config, export_grpc, export_reply};
pub use maps::loader_maps;
pub use object::{Kernel, loader_object, plan_object};
pub use profile::convert_profile;
pub use read::read_profile;
pub use records::{loader_rings, programs_records};
pub use spool::export_spool;
pub use symbolize::{symbolize_debugdata, symbolize_elf, symbolize_sideband, symbolize_text, unwind_elf};
pub use sys::sys_sock_diag;
pub use text::{loader_kallsyms, loader_kconfig, loader_usdt, loader_verifier_log};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 29] = [
    ("agent_config", agent_config),
    ("agent_health", agent_health),
    ("convert_profile", convert_profile),
    ("encode_json", encode_json),
    ("export_config", export_config),
    ("export_grpc", export_grpc),
    ("export_reply", export_reply),
    ("export_spool", export_spool),
    ("loader_btf", loader_btf),
    ("loader_btf_ext", loader_btf_ext),
    ("loader_core_relo", loader_core_relo),
    ("loader_dwarf", loader_dwarf),
    ("loader_kallsyms", loader_kallsyms),
    ("loader_kconfig", loader_kconfig),
    ("loader_maps", loader_maps),
    ("loader_object", loader_object),
    ("loader_rings", loader_rings),
    ("loader_split_btf", loader_split_btf),
    ("loader_usdt", loader_usdt),
    ("loader_verifier_log", loader_verifier_log),
    ("programs_records", programs_records),
    ("read_profile", read_profile),
    ("symbolize_debugdata", symbolize_debugdata),
    ("symbolize_elf", symbolize_elf),
    ("symbolize_sideband", symbolize_sideband),
    ("symbolize_text", symbolize_text),
    ("sys_sock_diag", sys_sock_diag),
    ("tracer_dns", tracer_dns),
    ("unwind_elf", unwind_elf),
];
