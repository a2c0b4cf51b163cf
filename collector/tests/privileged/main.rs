//! Tracers on this kernel, against workloads whose numbers are known. Runs as root here and in every virtual machine; says
//! so when it skips.

mod alignment;
mod budget;
mod disk;
mod dns;
mod heap;
#[cfg(feature = "unwind")]
mod heap_stacks;
mod helper;
mod memory;
#[cfg(feature = "unwind")]
mod off_cpu;
#[cfg(all(feature = "unwind", feature = "compare"))]
mod off_cpu_agent;
mod probes;
mod process;
mod profile;
#[cfg(feature = "python")]
mod python;
mod reload;
mod sched;
#[cfg(feature = "unwind")]
mod spans;
mod stacks;
#[cfg(target_arch = "x86_64")]
mod syscalls;
mod tcp;
mod udp;

use std::fs;

use bpf_loader::target::RunningTarget;
use collector::config::Filter;
use collector::error::{Error, Result};
use collector::sorted::SortedMap;
use collector::tracer::ladder::Forced;
use collector::tracer::{Info, Settings, Start, Tracer};

/// Is the running kernel this version or a later one?
pub fn kernel_has(version: (u8, u8)) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= version
}

/// Whether the kernel is locked down: some refuse fentry programs then, or iterators over the elements of maps.
pub fn is_locked_down() -> bool {
    fs::read_to_string("/sys/kernel/security/lockdown").is_ok_and(|text| !text.contains("[none]"))
}

/// Says why a test is skipped.
pub fn skip<T>(reason: &str) -> Option<T> {
    eprintln!("SKIP {reason}");
    None
}

/// Starts a tracer for one process, on these rungs. `None`, with the reason printed, without the right to.
pub fn start(
    info: &Info,
    pid: u32,
    settings: &Settings,
    rungs: &[(&str, &str)],
) -> Option<Result<Box<dyn Tracer>>> {
    start_within(info, pid, settings, rungs, 8 << 20)
}

/// The same, within so many bytes of memory.
pub fn start_within(
    info: &Info,
    pid: u32,
    settings: &Settings,
    rungs: &[(&str, &str)],
    memory: usize,
) -> Option<Result<Box<dyn Tracer>>> {
    let forced: SortedMap<String, String> =
        rungs.iter().map(|(what, rung)| ((*what).to_owned(), (*rung).to_owned())).collect();
    let started = (info.start)(&Start {
        filter: &Filter { pids: vec![pid], ..Filter::default() },
        settings,
        memory,
        forced: &Forced(forced),
        target: &RunningTarget::new(),
    });
    match started.map_err(|e| *e) {
        Err(Error::Load(error)) if error.errno() == Some(bpf_sys::Errno::EPERM) && !is_root() => {
            skip(&format!("{}: {error}", info.name))
        }
        other => Some(other.map_err(Box::new)),
    }
}

/// Does this kernel take trampolines and kprobes? All that are tested in virtual machines do.
pub fn has_trampolines_and_kprobes() -> bool {
    std::fs::read_to_string("/proc/kallsyms").is_ok_and(|names| names.contains(" register_kprobe\n"))
}

/// Whether this is the slow CPU of the tests' virtual machines.
pub fn is_emulated() -> bool {
    // Of arm64's, the board is QEMU's.
    let says = |path: &str, what: &str| std::fs::read_to_string(path).is_ok_and(|text| text.contains(what));
    says("/proc/cpuinfo", "QEMU TCG") || says("/proc/device-tree/compatible", "linux,dummy-virt")
}

/// So many repetitions, or a quarter where each takes long.
pub fn fewer_if_emulated(times: u32) -> u32 {
    if is_emulated() { times.div_ceil(4) } else { times }
}

/// Pauses a tracer. A process that another test forks at this moment holds the descriptors of what is attached until it
/// executes something, so the programs may run a little longer.
pub fn pause(tracer: &mut dyn Tracer) {
    tracer.pause().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
}

/// Whether the tests may load programs.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
