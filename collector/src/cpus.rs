//! CPU lists, as in `/sys/devices/system/cpu/online`.

use crate::sorted::SortedMap;
use std::fs;
use std::io;

/// Most CPUs that a kernel can have (`NR_CPUS` is at most 8192).
const MAX_CPUS: u32 = 8192;

/// Parses `0-3,5`; what is not understood, or past any kernel's number of CPUs, is left out.
pub fn parse_list(text: &str) -> Vec<u32> {
    let mut cpus: Vec<u32> = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else { continue };
        cpus.extend(first..=last.min(MAX_CPUS - 1));
    }
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

/// CPUs that run.
///
/// # Errors
///
/// sysfs cannot be read.
pub fn read_online() -> io::Result<Vec<u32>> {
    Ok(parse_list(&fs::read_to_string("/sys/devices/system/cpu/online")?))
}

/// One more than the highest CPU that this machine can bring online without new hardware.
///
/// # Errors
///
/// sysfs cannot be read.
pub fn read_present_limit() -> io::Result<u32> {
    let present = parse_list(&fs::read_to_string("/sys/devices/system/cpu/present")?);
    Ok(present.last().map_or(1, |&last| last + 1))
}

/// Nanoseconds that each CPU online was idle since boot, from `/proc/stat`.
///
/// # Errors
///
/// `/proc/stat` cannot be read.
pub fn read_idle_nanos() -> io::Result<SortedMap<u32, u64>> {
    Ok(parse_idle(&fs::read_to_string("/proc/stat")?, tick_nanos()))
}

/// Nanoseconds of the ticks that `/proc/stat` counts in.
pub(crate) fn tick_nanos() -> u64 {
    1_000_000_000 / bpf_sys::clock::ticks_per_second().max(1)
}

/// `cpuN user nice system idle iowait ...`, in ticks; waiting for a disk is idle too.
fn parse_idle(stat: &str, tick_nanos: u64) -> SortedMap<u32, u64> {
    let cpu = |line: &str| {
        let mut fields = line.strip_prefix("cpu")?.split(' ');
        let cpu = fields.next()?.parse().ok()?;
        let mut ticks = fields.skip(3).map_while(|f| f.parse::<u64>().ok());
        let (idle, iowait) = (ticks.next()?, ticks.next()?);
        Some((cpu, idle.saturating_add(iowait).saturating_mul(tick_nanos)))
    };
    stat.lines().filter_map(cpu).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_idle_and_iowait() {
        let stat = "cpu  9 9 9 9 9 9\ncpu0 1 2 3 400 5 6 7\ncpu13 0 0 0 1 0 0\nintr 5\n";
        assert_eq!(parse_idle(stat, 10), SortedMap::from([(0, 4050), (13, 10)]));
    }

    #[test]
    fn lists_have_ranges_and_single_cpus() {
        assert_eq!(parse_list("0-3,5\n"), [0, 1, 2, 3, 5]);
        assert_eq!(parse_list("0"), [0]);
        assert_eq!(parse_list(""), [] as [u32; 0]);
        assert_eq!(parse_list("3-1,x,7"), [7]);
        assert_eq!(parse_list("8190-4294967295"), [8190, 8191]);
    }
}
