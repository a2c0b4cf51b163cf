//! What the system says of itself.

use std::fs;
use std::path::{Path, PathBuf};

use bpf_loader::machine::Machine;

/// A capability that matters here: its number and name (include/uapi/linux/capability.h).
pub const CAPABILITIES: [(u8, &str); 7] = [
    (2, "CAP_DAC_READ_SEARCH"),
    (19, "CAP_SYS_PTRACE"),
    (21, "CAP_SYS_ADMIN"),
    (24, "CAP_SYS_RESOURCE"),
    (34, "CAP_SYSLOG"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];

/// What [`judge`](super::judge) needs to know; `None` where the system does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// `uname -r`.
    pub release: String,
    /// Machine architecture.
    pub machine: String,
    /// Size of `/sys/kernel/btf/vmlinux`.
    pub btf_bytes: Option<u64>,
    /// A file with the kernel's types that is used instead, or what is wrong with it.
    pub btf_file: Option<Result<PathBuf, String>>,
    /// Effective capabilities as a bit set.
    pub capabilities: u64,
    /// The active word of `/sys/kernel/security/lockdown`.
    pub lockdown: Option<String>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<i64>,
    /// `kernel.perf_event_paranoid`; missing means a kernel without perf events.
    pub perf_event_paranoid: Option<i64>,
    /// `kernel.perf_event_max_sample_rate`.
    pub max_sample_rate: Option<i64>,
    /// `kernel.perf_event_max_stack`.
    pub max_stack: Option<i64>,
    /// `kernel.kptr_restrict`.
    pub kptr_restrict: Option<i64>,
    /// `net.core.bpf_jit_enable`.
    pub jit_enable: Option<i64>,
    /// Soft limit of locked memory in bytes; `None` if unlimited.
    pub memlock: Option<u64>,
    /// Where tracefs is mounted.
    pub tracefs: Option<PathBuf>,
    /// CPUs that are online.
    pub cpus: usize,
    /// What trying said.
    pub probes: Probes,
}

/// Results of trying; an error is the reason in one line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probes {
    /// Opening a cpu-clock event.
    pub cpu_clock: Option<Result<(), String>>,
    /// Opening a sideband event with build ids (Linux 5.12).
    pub build_ids: Option<Result<(), String>>,
    /// Creating a BPF ring buffer.
    pub ring_buffer: Option<Result<(), String>>,
    /// Loading the profiler's program.
    pub profile: Option<Result<ProfileProbe, String>>,
}

/// How the profiler's program was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProfileProbe {
    /// Hash tables allocate as they fill (Linux 6.1); else they are allocated whole.
    pub tables_grow: bool,
    /// Instructions that the verifier walked (Linux 5.16).
    pub verified_insns: u32,
    /// The program is attached by a BPF link (Linux 5.15); else by an ioctl.
    pub link: bool,
    /// Tables are read in batches (Linux 5.6).
    pub batch: bool,
}

/// Reads everything but the probes from the files below `root` (`/` but for tests).
pub fn read_files(root: &Path) -> Facts {
    let text = |path: &str| fs::read_to_string(root.join(path)).ok();
    let number = |path: &str| text(path).and_then(|t| t.trim().parse().ok());
    let status = text("proc/self/status").unwrap_or_default();
    Facts {
        release: text("proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        machine: Machine::running().map_or(std::env::consts::ARCH, Machine::name).to_owned(),
        btf_bytes: fs::metadata(root.join("sys/kernel/btf/vmlinux")).ok().map(|m| m.len()),
        btf_file: None,
        capabilities: parse_capabilities(&status),
        lockdown: text("sys/kernel/security/lockdown").and_then(|t| parse_lockdown(&t)),
        unprivileged_bpf_disabled: number("proc/sys/kernel/unprivileged_bpf_disabled"),
        perf_event_paranoid: number("proc/sys/kernel/perf_event_paranoid"),
        max_sample_rate: number("proc/sys/kernel/perf_event_max_sample_rate"),
        max_stack: number("proc/sys/kernel/perf_event_max_stack"),
        kptr_restrict: number("proc/sys/kernel/kptr_restrict"),
        jit_enable: number("proc/sys/net/core/bpf_jit_enable"),
        memlock: text("proc/self/limits").and_then(|t| parse_memlock(&t)),
        tracefs: text("proc/self/mounts").and_then(|t| parse_tracefs(&t)),
        cpus: text("sys/devices/system/cpu/online").map_or(0, |t| crate::cpus::parse_list(&t).len()),
        probes: Probes::default(),
    }
}

/// `CapEff` of `/proc/PID/status`.
fn parse_capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// `none [integrity] confidentiality` -> `integrity`.
fn parse_lockdown(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// The soft limit of `Max locked memory`, from `/proc/PID/limits`.
fn parse_memlock(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|l| l.strip_prefix("Max locked memory"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn parse_tracefs(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "tracefs").then(|| PathBuf::from(at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_understood() {
        assert_eq!(parse_capabilities("Name:\tx\nCapEff:\t000001fffeffffff\n"), 0x1ff_feff_ffff);
        assert_eq!(parse_capabilities(""), 0);
        assert_eq!(parse_lockdown("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(parse_lockdown("none"), None);
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max locked memory         8388608              8388608              bytes     \n";
        assert_eq!(parse_memlock(limits), Some(8_388_608));
        assert_eq!(
            parse_memlock("Max locked memory         unlimited            unlimited            bytes"),
            None
        );
        let mounts = "proc /proc proc rw 0 0\nt /sys/kernel/tracing tracefs rw 0 0\n";
        assert_eq!(parse_tracefs(mounts), Some(PathBuf::from("/sys/kernel/tracing")));
    }
}
