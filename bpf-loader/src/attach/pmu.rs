//! The kprobe and uprobe PMUs, which make perf events of probes (Linux 4.17).

use std::ffi::CStr;
use std::path::Path;

use bpf_sys::perf::{self, Scope};
use bpf_sys::{PerfEventAttr, PerfFd, PerfType};

use super::{first_cpu, tracefs};
use crate::error::Result;

/// A PMU of probes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pmu {
    kind: PerfType,
    /// Bit of `config` that asks for the function's return.
    ret_bit: u64,
}

impl Pmu {
    /// `kprobe` or `uprobe`; `None` if the kernel has no such PMU.
    pub(super) fn find(name: &str) -> Option<Self> {
        let directory = Path::new("/sys/bus/event_source/devices").join(name);
        let kind = tracefs::read_number(&directory.join("type")).ok()?;
        let ret_bit = tracefs::read_number(&directory.join("format/retprobe")).ok()?;
        Some(Self { kind: PerfType(u32::try_from(kind).ok()?), ret_bit })
    }

    fn attr(self, ret: bool, offset: u64) -> PerfEventAttr {
        let config = if ret { 1u64.checked_shl(self.ret_bit as u32).unwrap_or(0) } else { 0 };
        PerfEventAttr { kind: self.kind, config, config2: offset, ..PerfEventAttr::default() }
    }

    /// A kprobe at `offset` in a function, or without one at the address `offset`.
    pub(super) fn kprobe(self, ret: bool, function: Option<&CStr>, offset: u64) -> Result<PerfFd> {
        let attr = self.attr(ret, offset);
        let cpu = Some(first_cpu());
        Ok(match function {
            Some(function) => perf::open_kprobe(&attr, function, Scope::AllProcesses, cpu)?,
            None => perf::open(&attr, Scope::AllProcesses, cpu, None)?,
        })
    }

    /// A uprobe at `offset` in a file, with the offset of a counter that is above zero while the probe is there, or 0.
    pub(super) fn uprobe(
        self,
        ret: bool,
        path: &CStr,
        offset: u64,
        ref_ctr_offset: u32,
        pid: Option<u32>,
    ) -> Result<PerfFd> {
        let mut attr = self.attr(ret, offset);
        // include/linux/trace_events.h, PERF_UPROBE_REF_CTR_OFFSET_SHIFT (Linux 4.20).
        attr.config |= u64::from(ref_ctr_offset) << 32;
        let (scope, cpu) = scope_of(pid);
        Ok(perf::open_uprobe(&attr, path, scope, cpu)?)
    }
}

/// Perf events belong to a CPU or a thread; probes run programs on all CPUs, and for all threads of the process, regardless.
pub(super) fn scope_of(pid: Option<u32>) -> (Scope<'static>, Option<u32>) {
    match pid {
        Some(pid) => (Scope::Thread(pid), None),
        None => (Scope::AllProcesses, Some(first_cpu())),
    }
}
