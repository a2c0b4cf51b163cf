//! Trying what cannot be read off: small calls that leave nothing behind.

use bpf_loader::kernel::{Kernel, RunningKernel};
use bpf_loader::target::RunningTarget;
use bpf_sys::map::MapCreate;
use bpf_sys::perf::{self, Scope};
use bpf_sys::uapi::perf::{PERF_COUNT_SW_CPU_CLOCK, PERF_COUNT_SW_DUMMY, attr_flags};
use bpf_sys::{MapType, PerfEventAttr, PerfType};

use super::facts::{Probes, ProfileProbe};
use crate::config::Config;
use crate::cpus;
use crate::tracer::profile::{ProfileProgram, READS_PER_SECOND};

/// Tries everything.
pub fn run(target: &RunningTarget) -> Probes {
    Probes {
        cpu_clock: Some(cpu_clock()),
        build_ids: Some(build_ids()),
        ring_buffer: Some(ring_buffer()),
        profile: Some(profile(target)),
    }
}

/// A CPU that is online; the first need not be.
fn first_cpu() -> u32 {
    cpus::read_online().ok().and_then(|cpus| cpus.first().copied()).unwrap_or(0)
}

/// Whether a CPU may be sampled: opens a timer that never runs.
///
/// # Errors
///
/// The kernel refuses, and why.
pub(crate) fn cpu_clock() -> Result<(), String> {
    let attr = PerfEventAttr {
        kind: PerfType::SOFTWARE,
        config: PERF_COUNT_SW_CPU_CLOCK,
        sample_period: 1_000_000_000,
        flags: attr_flags::DISABLED,
        ..PerfEventAttr::default()
    };
    perf::open(&attr, Scope::AllProcesses, Some(first_cpu()), None).map(drop).map_err(|e| e.to_string())
}

fn build_ids() -> Result<(), String> {
    let attr = PerfEventAttr {
        kind: PerfType::SOFTWARE,
        config: PERF_COUNT_SW_DUMMY,
        flags: attr_flags::DISABLED | attr_flags::MMAP | attr_flags::MMAP2 | attr_flags::BUILD_ID,
        ..PerfEventAttr::default()
    };
    perf::open(&attr, Scope::AllProcesses, Some(first_cpu()), None).map(drop).map_err(|e| e.to_string())
}

fn ring_buffer() -> Result<(), String> {
    // Whole pages of any architecture.
    let ring = MapCreate { map_type: MapType::RINGBUF, max_entries: 64 << 10, ..MapCreate::default() };
    // As the profiler does, which raises the limit of locked memory where that counts.
    RunningKernel::default().create_map(&ring).map(drop).map_err(|e| e.to_string())
}

/// Loads what `profile` loads, and attaches it to an event that never fires.
fn profile(target: &RunningTarget) -> Result<ProfileProbe, String> {
    let text = |e: &dyn std::error::Error| e.to_string();
    let program = ProfileProgram::load(&Config::default(), target, READS_PER_SECOND, 0);
    let mut program = program.map_err(|e| text(&e))?;
    let attr = PerfEventAttr {
        kind: PerfType::SOFTWARE,
        config: PERF_COUNT_SW_CPU_CLOCK,
        sample_period: 1_000_000_000,
        flags: attr_flags::DISABLED,
        ..PerfEventAttr::default()
    };
    let event = perf::open(&attr, Scope::AllProcesses, Some(first_cpu()), None).map_err(|e| text(&e))?;
    let link = program.sampler().map_err(|e| text(&e))?.attach_perf_event(&event).map_err(|e| text(&e))?;
    Ok(ProfileProbe {
        tables_grow: program.tables_grow,
        verified_insns: program.verified_insns().map_err(|e| text(&e))?,
        link: link.fd().is_some(),
        batch: program.has_batches().map_err(|e| text(&e))?,
    })
}
