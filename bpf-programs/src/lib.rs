//! The BPF programs of ebpf-otlp and the decoders of what they record.
//!
//! The sources are in `bpf/`, compiled by clang (`build`, beside this crate's manifest) into `prebuilt/`, so that a
//! cargo build needs no compiler for BPF. The objects use CO-RE: one object serves every kernel with BTF.
#![forbid(unsafe_code)]

pub mod events;

/// The CPU profiler, `bpf/profile.bpf.c`: an ELF object for `bpf-loader`.
pub const PROFILE: &[u8] = include_bytes!("../prebuilt/profile.bpf.o");
/// The CPU profiler with tables for stacks without frame pointers, `bpf/profile_unwind.bpf.c`.
pub const PROFILE_UNWIND: &[u8] = include_bytes!("../prebuilt/profile_unwind.bpf.o");
/// The off-CPU profiler, `bpf/offcpu.bpf.c`.
pub const OFFCPU: &[u8] = include_bytes!("../prebuilt/offcpu.bpf.o");

/// Page faults, mappings, reclaim and OOM kills, `bpf/memory.bpf.c`.
pub const MEMORY: &[u8] = include_bytes!("../prebuilt/memory.bpf.o");
/// The heap tracer, `bpf/heap.bpf.c`.
pub const HEAP: &[u8] = include_bytes!("../prebuilt/heap.bpf.o");
/// The heap tracer with tables for stacks without frame pointers, `bpf/heap_unwind.bpf.c`.
pub const HEAP_UNWIND: &[u8] = include_bytes!("../prebuilt/heap_unwind.bpf.o");
/// The TCP tracer, `bpf/tcp.bpf.c`.
pub const TCP: &[u8] = include_bytes!("../prebuilt/tcp.bpf.o");
/// Starts, execs and ends of processes, `bpf/process.bpf.c`.
pub const PROCESS: &[u8] = include_bytes!("../prebuilt/process.bpf.o");

/// Waiting for CPUs, `bpf/sched.bpf.c`.
pub const SCHED: &[u8] = include_bytes!("../prebuilt/sched.bpf.o");

/// Requests to block devices, `bpf/disk.bpf.c`.
pub const DISK: &[u8] = include_bytes!("../prebuilt/disk.bpf.o");
/// System calls, `bpf/syscalls.bpf.c`.
pub const SYSCALLS: &[u8] = include_bytes!("../prebuilt/syscalls.bpf.o");
/// UDP's bytes by process, `bpf/udp.bpf.c`.
pub const UDP: &[u8] = include_bytes!("../prebuilt/udp.bpf.o");
/// DNS lookups, `bpf/dns.bpf.c`.
pub const DNS: &[u8] = include_bytes!("../prebuilt/dns.bpf.o");

/// Compiles the examples of the crate's README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
