//! Facts to findings.

use super::facts::{CAPABILITIES, Facts};
use super::{Finding, Report, Status};
use crate::kernel_types::FOLDERS;
use bpf_loader::text::join;

/// Oldest kernel that is served: ring buffers and CAP_BPF came with 5.8.
const MIN_KERNEL: (u32, u32) = (5, 8);

/// What the facts mean for `profile`.
pub fn judge(facts: &Facts) -> Report {
    let mut findings = vec![kernel(facts), btf(facts), capabilities(facts), lockdown(facts)];
    findings.push(plain("unprivileged_bpf_disabled", facts.unprivileged_bpf_disabled));
    findings.extend([memlock(facts), perf_events(facts), tracefs(facts), jit(facts), kernel_names(facts)]);
    findings.extend(probes(facts));
    Report { findings }
}

fn finding(name: &'static str, status: Status, value: impl Into<String>, remedy: Option<&str>) -> Finding {
    Finding { name, status, value: value.into(), remedy: remedy.map(str::to_owned) }
}

/// A setting that nothing depends on for a privileged user.
fn plain(name: &'static str, value: Option<i64>) -> Finding {
    finding(name, Status::Ok, value.map_or("not known to this kernel".into(), |v| v.to_string()), None)
}

/// `(major, minor)` of a release as `6.1.0-13-amd64`.
pub(crate) fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn kernel(facts: &Facts) -> Finding {
    let value = format!("Linux {} on {}, {} CPUs online", facts.release, facts.machine, facts.cpus);
    match version(&facts.release) {
        Some(v) if v >= MIN_KERNEL => finding("kernel", Status::Ok, value, None),
        _ => finding("kernel", Status::Missing, value, Some("use Linux 5.8 or newer")),
    }
}

fn btf(facts: &Facts) -> Finding {
    let make = || {
        format!(
            "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, and have sysfs mounted on /sys; or put its types, which \
             `ebpf-otlp btf generate` makes of its vmlinux with debug information, in {}/{}.btf",
            FOLDERS[1], facts.release
        )
    };
    match (&facts.btf_file, facts.btf_bytes) {
        (Some(Ok(file)), own) => {
            let instead =
                if own.is_some() { "in place of the kernel's own" } else { "the kernel carries none" };
            finding("btf", Status::Ok, format!("{}, {instead}", file.display()), None)
        }
        (Some(Err(reason)), _) => finding("btf", Status::Missing, reason.as_str(), Some(&make())),
        (None, Some(bytes)) => {
            finding("btf", Status::Ok, format!("/sys/kernel/btf/vmlinux, {} KiB", bytes / 1024), None)
        }
        (None, None) => finding(
            "btf",
            Status::Degraded,
            "no /sys/kernel/btf/vmlinux: --comm, --children, cgroup v1 filters and pid namespaces need it",
            Some(&make()),
        ),
    }
}

fn has(facts: &Facts, name: &str) -> bool {
    CAPABILITIES.iter().any(|&(bit, n)| n == name && facts.capabilities >> bit & 1 == 1)
}

fn capabilities(facts: &Facts) -> Finding {
    let held: Vec<&str> =
        CAPABILITIES.iter().map(|&(_, name)| name).filter(|name| has(facts, name)).collect();
    let value = if held.is_empty() { "none of those that matter".to_owned() } else { join(&held, " ") };
    let admin = has(facts, "CAP_SYS_ADMIN");
    let may_sample = admin || has(facts, "CAP_BPF") && has(facts, "CAP_PERFMON");
    if !may_sample {
        return finding(
            "capabilities",
            Status::Missing,
            value,
            Some(
                "run as root, or give the binary CAP_BPF and CAP_PERFMON: setcap cap_bpf,cap_perfmon,cap_syslog,cap_sys_ptrace,cap_dac_read_search,cap_checkpoint_restore,cap_net_admin+ep FILE",
            ),
        );
    }
    let mut lost = Vec::new();
    if !admin && !has(facts, "CAP_SYSLOG") {
        lost.push("CAP_SYSLOG to name kernel functions");
    }
    let may_look_everywhere = admin || has(facts, "CAP_SYS_PTRACE") && has(facts, "CAP_DAC_READ_SEARCH");
    if !may_look_everywhere {
        lost.push("CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH to name functions of other users' processes");
    }
    if lost.is_empty() {
        return finding("capabilities", Status::Ok, value, None);
    }
    finding("capabilities", Status::Degraded, value, Some(&format!("add {}", join(&lost, ", and "))))
}

fn lockdown(facts: &Facts) -> Finding {
    match facts.lockdown.as_deref() {
        None => finding("lockdown", Status::Ok, "not known (no /sys/kernel/security/lockdown)", None),
        Some("confidentiality") => finding(
            "lockdown",
            Status::Degraded,
            "confidentiality",
            Some(
                "boot with lockdown=integrity or none: confidentiality keeps BPF from reading kernel memory, which --comm, --children and cgroup v1 filters need",
            ),
        ),
        Some(mode) => finding("lockdown", Status::Ok, mode, None),
    }
}

fn memlock(facts: &Facts) -> Finding {
    // From 5.11, BPF memory is charged to the memory cgroup and not to this limit.
    let counts = version(&facts.release).is_none_or(|v| v < (5, 11));
    match facts.memlock {
        None => finding("memlock", Status::Ok, "unlimited", None),
        Some(bytes) if counts && !has(facts, "CAP_SYS_RESOURCE") && bytes < 64 << 20 => finding(
            "memlock",
            Status::Degraded,
            format!("{} KiB, which this kernel counts BPF maps against", bytes / 1024),
            Some("raise it with `ulimit -l unlimited`, or give CAP_SYS_RESOURCE so that the program can"),
        ),
        Some(bytes) if counts => {
            finding("memlock", Status::Ok, format!("{} KiB, raised when needed", bytes / 1024), None)
        }
        Some(bytes) => {
            finding("memlock", Status::Ok, format!("{} KiB, not used by this kernel", bytes / 1024), None)
        }
    }
}

fn perf_events(facts: &Facts) -> Finding {
    let Some(paranoid) = facts.perf_event_paranoid else {
        return finding(
            "perf_events",
            Status::Missing,
            "this kernel has none",
            Some("boot a kernel built with CONFIG_PERF_EVENTS=y"),
        );
    };
    let rate = facts.max_sample_rate.unwrap_or(0);
    let value = format!(
        "perf_event_paranoid {paranoid}, at most {rate} samples a second, {} frames a stack",
        facts.max_stack.unwrap_or(127)
    );
    match facts.max_sample_rate {
        Some(rate) if rate < 1000 => finding(
            "perf_events",
            Status::Degraded,
            value,
            Some(
                "the kernel has lowered its limit: sysctl kernel.perf_event_max_sample_rate=100000 kernel.perf_cpu_time_max_percent=25",
            ),
        ),
        // Debian's kernels have a level beyond the last of the documentation; others take it for the last one, and later ones
        // of Debian's are content with CAP_PERFMON. Only trying tells.
        _ if paranoid > 2
            && !has(facts, "CAP_SYS_ADMIN")
            && !matches!(facts.probes.cpu_clock, Some(Ok(()))) =>
        {
            finding(
                "perf_events",
                Status::Missing,
                value,
                Some(
                    "at this level sampling needs CAP_SYS_ADMIN: sysctl kernel.perf_event_paranoid=2, or run as root",
                ),
            )
        }
        _ => finding("perf_events", Status::Ok, value, None),
    }
}

fn tracefs(facts: &Facts) -> Finding {
    match &facts.tracefs {
        Some(at) => finding("tracefs", Status::Ok, at.display().to_string(), None),
        // Nothing that `profile` does needs it.
        None => finding("tracefs", Status::Ok, "not mounted; `profile` does not need it", None),
    }
}

fn jit(facts: &Facts) -> Finding {
    match facts.jit_enable {
        Some(0) => finding(
            "jit",
            Status::Degraded,
            "off: BPF programs are interpreted",
            Some("sysctl net.core.bpf_jit_enable=1"),
        ),
        Some(n) => finding("jit", Status::Ok, format!("on ({n})"), None),
        None => finding("jit", Status::Ok, "not known (no net.core.bpf_jit_enable)", None),
    }
}

fn kernel_names(facts: &Facts) -> Finding {
    let privileged = has(facts, "CAP_SYSLOG") || has(facts, "CAP_SYS_ADMIN");
    match facts.kptr_restrict {
        Some(2) => finding(
            "kernel_names",
            Status::Degraded,
            "kptr_restrict 2 hides kernel addresses",
            Some("sysctl kernel.kptr_restrict=1"),
        ),
        _ if !privileged => finding(
            "kernel_names",
            Status::Degraded,
            "kernel addresses are hidden from this user",
            Some("add CAP_SYSLOG"),
        ),
        _ => finding("kernel_names", Status::Ok, "/proc/kallsyms", None),
    }
}

fn probes(facts: &Facts) -> Vec<Finding> {
    let probes = &facts.probes;
    let mut findings = Vec::new();
    let tried = |name, result: &Option<Result<(), String>>, without: Status, remedy: &str| match result {
        None => finding(name, Status::Degraded, "not tried", None),
        Some(Ok(())) => finding(name, Status::Ok, "works", None),
        Some(Err(e)) => finding(name, without, e.clone(), Some(remedy)),
    };
    findings.push(tried(
        "cpu_clock",
        &probes.cpu_clock,
        Status::Missing,
        "see capabilities and perf_events above",
    ));
    findings.push(tried(
        "ring_buffer",
        &probes.ring_buffer,
        Status::Missing,
        "see kernel and capabilities above",
    ));
    findings.push(tried(
        "mmap_build_ids",
        &probes.build_ids,
        Status::Degraded,
        "use Linux 5.12 or newer to have build ids of processes that are gone; they are read from files else",
    ));
    findings.push(match &probes.profile {
        None => finding("profile", Status::Degraded, "not tried", None),
        Some(Err(e)) => finding("profile", Status::Missing, e.clone(), Some("see what is missing above")),
        Some(Ok(probe)) => {
            let rungs = [
                if probe.link { "attached by a BPF link" } else { "attached by ioctl" },
                if probe.tables_grow { "tables grow as they fill" } else { "tables are allocated whole" },
                if probe.batch { "read in batches" } else { "read entry by entry" },
            ];
            let verified = match probe.verified_insns {
                0 => String::new(),
                n => format!("; {n} instructions verified"),
            };
            finding("profile", Status::Ok, format!("loads: {}{verified}", join(&rungs, ", ")), None)
        }
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::facts::ProfileProbe;

    /// A root user on a full kernel.
    fn good() -> Facts {
        let mut facts = Facts {
            release: "6.1.0-13-amd64".into(),
            machine: "x86_64".into(),
            btf_bytes: Some(5 << 20),
            capabilities: u64::MAX,
            lockdown: Some("none".into()),
            perf_event_paranoid: Some(2),
            max_sample_rate: Some(100_000),
            kptr_restrict: Some(0),
            jit_enable: Some(1),
            cpus: 2,
            ..Facts::default()
        };
        facts.probes.cpu_clock = Some(Ok(()));
        facts.probes.ring_buffer = Some(Ok(()));
        facts.probes.build_ids = Some(Ok(()));
        facts.probes.profile = Some(Ok(ProfileProbe::default()));
        facts
    }

    fn find<'a>(report: &'a Report, name: &str) -> &'a Finding {
        report.findings.iter().find(|f| f.name == name).unwrap()
    }

    #[test]
    fn a_full_kernel_is_usable_and_nothing_is_missing() {
        let report = judge(&good());
        assert!(report.usable());
        for f in &report.findings {
            assert_eq!((f.status, &f.remedy), (Status::Ok, &None), "{f:?}");
        }
    }

    #[test]
    fn a_level_that_stops_nothing_is_no_fault() {
        let mut facts = good();
        facts.perf_event_paranoid = Some(3);
        facts.capabilities = 1 << 39 | 1 << 38;
        assert_eq!(find(&judge(&facts), "perf_events").status, Status::Ok, "it was tried, and works");
    }

    #[test]
    fn each_missing_thing_has_a_remedy() {
        type Change = fn(&mut Facts);
        let cases: [(&str, Status, Change); 14] = [
            ("kernel", Status::Missing, |f| f.release = "5.7.19".into()),
            ("btf", Status::Degraded, |f| f.btf_bytes = None),
            ("btf", Status::Missing, |f| f.btf_file = Some(Err("of another kernel".into()))),
            ("capabilities", Status::Missing, |f| f.capabilities = 1 << 39),
            ("capabilities", Status::Degraded, |f| f.capabilities = 1 << 39 | 1 << 38),
            ("lockdown", Status::Degraded, |f| f.lockdown = Some("confidentiality".into())),
            ("memlock", Status::Degraded, |f| {
                f.release = "5.10.0".into();
                f.capabilities = 1 << 21;
                f.memlock = Some(64 << 10);
            }),
            ("perf_events", Status::Missing, |f| f.perf_event_paranoid = None),
            ("perf_events", Status::Degraded, |f| f.max_sample_rate = Some(250)),
            ("perf_events", Status::Missing, |f| {
                f.perf_event_paranoid = Some(3);
                f.capabilities = 1 << 39 | 1 << 38;
                f.probes.cpu_clock = Some(Err("EACCES".into()));
            }),
            ("jit", Status::Degraded, |f| f.jit_enable = Some(0)),
            ("kernel_names", Status::Degraded, |f| f.kptr_restrict = Some(2)),
            ("mmap_build_ids", Status::Degraded, |f| f.probes.build_ids = Some(Err("EINVAL".into()))),
            ("profile", Status::Missing, |f| f.probes.profile = Some(Err("EPERM".into()))),
        ];
        for (name, status, change) in cases {
            let mut facts = good();
            change(&mut facts);
            let report = judge(&facts);
            let f = find(&report, name);
            assert_eq!(f.status, status, "{f:?}");
            assert!(f.remedy.is_some(), "{f:?}");
            assert_eq!(report.usable(), status != Status::Missing);
        }
    }

    #[test]
    fn versions_are_read_from_releases() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("5.10.0-39-cloud-amd64"), Some((5, 10)));
        assert_eq!(version("7.2+deb14-cloud-amd64"), Some((7, 2)));
        assert_eq!(version("linux"), None);
    }
}
