//! What programs and maps cost, as the kernel counts it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bpf_loader::load::Object;
use bpf_sys::MapFd;

use crate::error::{Error, Result};

/// Kernel memory of a map in bytes: `memlock` of its `/proc/self/fdinfo/FD`; 0 where the kernel does not say.
pub(crate) fn map_bytes(map: &MapFd) -> u64 {
    read_memlock(map).unwrap_or(0)
}

/// One read takes it all: there are a hundred maps to ask for.
fn read_memlock(map: &MapFd) -> Option<u64> {
    let mut text = [0; 1024];
    let mut file = File::open(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd())).ok()?;
    let count = file.read(&mut text).ok()?;
    let text = std::str::from_utf8(text.get(..count)?).ok()?;
    text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}

/// Kernel memory of all maps of an object, in bytes.
pub(crate) fn object_map_bytes(object: &Object) -> u64 {
    object.maps.iter().map(|map| map_bytes(&map.fd)).sum()
}

/// Runs of an object's programs that the kernel left out, since that program or another ran on the CPU already
/// (`recursion_misses`): 0 before Linux 5.12, which does not tell. Those of programs on perf events are left out: who opens such
/// events knows how many runs to expect.
///
/// # Errors
///
/// The kernel does not tell about a program.
pub(crate) fn object_missed_runs(object: &Object) -> Result<u64> {
    let counted = object.programs.iter().filter(|program| !program.kind.section.starts_with("perf_event"));
    counted
        .map(|program| {
            let info = bpf_sys::prog::info(&program.fd).map_err(Error::kernel)?;
            Ok(info.recursion_misses().unwrap_or(0))
        })
        .sum()
}

/// Time in the programs of an object, and how often they ran: counted while the kernel's statistics are on
/// (`kernel.bpf_stats_enabled`, or Linux 5.8's `BPF_ENABLE_STATS`).
///
/// # Errors
///
/// The kernel does not tell about a program.
pub(crate) fn object_run_time(object: &Object) -> Result<(Duration, u64)> {
    object.programs.iter().try_fold((Duration::ZERO, 0), |(time, runs), program| {
        let info = bpf_sys::prog::info(&program.fd).map_err(Error::kernel)?;
        Ok((time + Duration::from_nanos(info.run_time_ns), runs + info.run_cnt))
    })
}

/// How long `getppid` takes where the tracers' costs were measured.
const REFERENCE_NANOS: f64 = 166.0;

/// How much slower than the reference this machine is. Takes about a millisecond.
fn machine_scale() -> f64 {
    const CALLS: u32 = 500;
    let batch = || {
        let start = Instant::now();
        (0..CALLS).for_each(|_| {
            std::hint::black_box(std::os::unix::process::parent_id());
        });
        start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    // The fastest is the one that nothing came between.
    let fastest = (0..8).map(|_| batch()).fold(f64::INFINITY, f64::min);
    (fastest / REFERENCE_NANOS).clamp(0.1, 10.0)
}

/// What takes so many nanoseconds where the tracers' costs were measured, on this machine.
pub(crate) fn on_this_machine(nanos: f64) -> f64 {
    static SCALE: OnceLock<f64> = OnceLock::new();
    nanos * SCALE.get_or_init(machine_scale)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_is_a_machine() {
        assert!((0.1..=10.0).contains(&super::on_this_machine(1.0)));
    }
}
