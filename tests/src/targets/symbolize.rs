//! What the symbolizer and the reading of processes take from files that others write.

use collector::symbolize::fuzz;
use collector::{cpus, enrich};

/// An ELF file.
pub fn symbolize_elf(file: &[u8]) {
    fuzz::elf_symbols(file);
}

/// A walk through the code of an ELF file.
pub fn unwind_elf(file: &[u8]) {
    collector::unwind::fuzz::walk(file);
}

/// The content of `.gnu_debugdata`.
pub fn symbolize_debugdata(content: &[u8]) {
    fuzz::gnu_debugdata(content);
}

/// Perf's records of processes and mappings, and those of just-in-time compilers.
pub fn symbolize_sideband(records: &[u8]) {
    fuzz::sideband(records);
    fuzz::jit_dump(records);
}

/// Lines of text: of each file of `/proc`, `/sys` and `/tmp` that is read, and a mangled name.
pub fn symbolize_text(text: &[u8]) {
    fuzz::proc_maps(text);
    fuzz::perf_map(text);
    fuzz::kallsyms(text);
    for line in text.split(|byte| *byte == b'\n') {
        fuzz::mangled_name(line);
    }
    if let Some(id) = enrich::container_id(text) {
        assert!(!id.is_empty() && !id.contains(['/', '\n']), "{id:?}");
    }
    enrich::main_cgroup(text);
    enrich::stated_service_name(text);
    enrich::parse_stat(text);
    enrich::namespace_pids(text);
    let cpus = cpus::parse_list(&String::from_utf8_lossy(text));
    assert!(cpus.is_sorted_by(|a, b| a < b) && cpus.iter().all(|cpu| *cpu < 8192));
}
