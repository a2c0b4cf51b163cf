//! The commands against the running kernel. Each test needs CAP_BPF and CAP_PERFMON (or root), and says so when it skips.

mod links;
mod maps;
mod perf_events;
mod progs;

use bpf_sys::map::{self, MapCreate};
use bpf_sys::prog::{self, ProgLoad};
use bpf_sys::uapi::insn::{self, Insn};
use bpf_sys::{Errno, MapFd, MapType, ObjName, ProgFd, ProgType};

/// Makes a map, or says why the test is skipped.
fn create(map: &MapCreate<'_>) -> Option<MapFd> {
    match map::create(map) {
        Ok(map) => Some(map),
        Err(e) if e.errno() == Some(Errno::EPERM) => {
            eprintln!("skip: needs CAP_BPF");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

fn hash_map(map_type: MapType, value_size: u32, max_entries: u32) -> Option<MapFd> {
    create(&MapCreate {
        map_type,
        key_size: 4,
        value_size,
        max_entries,
        name: ObjName::new("test map"),
        ..Default::default()
    })
}

/// Is the running kernel this version or a later one?
fn kernel_has(version: (u32, u32)) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= version
}

/// `r0 = value; exit`
fn return_program(value: i32) -> [Insn; 2] {
    [Insn::new(insn::MOV64_IMM, 0, 0, 0, value), Insn::new(insn::EXIT, 0, 0, 0, 0)]
}

fn load(prog_type: ProgType, insns: &[Insn]) -> Option<ProgFd> {
    let load =
        ProgLoad { prog_type, insns, license: c"GPL", name: ObjName::new("test_prog"), ..Default::default() };
    match prog::load(&load, None) {
        Ok(prog) => Some(prog),
        Err(e) if e.errno() == Some(Errno::EPERM) => {
            eprintln!("skip: needs CAP_BPF");
            None
        }
        Err(e) => panic!("{e}"),
    }
}
