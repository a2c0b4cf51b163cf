//! One memory budget for everything: resident memory of the process, BPF maps, rings.
//!
//! What the process has resident before it traces is given. Of the rest, most goes to the tracers' maps and rings, by weight;
//! a tracer that takes less leaves it to those after it. The remainder bounds what the process keeps: series of metrics, names,
//! symbol tables, requests that wait. Where there is no rest, everything has its smallest size.

use std::fmt;
use std::fs;

use crate::units::{show_fixed, show_size};

/// What tracers get of what is left, and what symbol tables, series, names and queues get, in percent. A tracer with stacks takes up to half
/// as much for symbol tables as it is offered for maps.
const TRACERS: u64 = 62;
const SYMBOLS: u64 = 8;
const SERIES: u64 = 12;
const NAMES: u64 = 8;
const QUEUES: u64 = 10;
/// How often it is looked up what is mapped, in readings of resident memory.
const LOOK_EVERY: u32 = 16;

/// The budget where none is set: this, or an eighth of the machine's memory, if that is less, but not less than [`LEAST_TOTAL`].
const USUAL: u64 = 32 << 20;
/// The smallest budget.
pub const LEAST_TOTAL: u64 = 4 << 20;

/// The budget where none is set, on a machine with that much memory.
fn usual(machine: u64) -> u64 {
    (machine / 8).clamp(LEAST_TOTAL, USUAL)
}

/// Least that a tracer is offered: a page for each of some maps.
const LEAST: u64 = 64 << 10;

/// Relative sizes of what tracers keep in the kernel. Those that are not here have one.
const WEIGHTS: &[(&str, u64)] = &[
    ("profile", 4),
    #[cfg(feature = "unwind")]
    ("off_cpu", 4),
    ("heap", 3),
    ("syscalls", 3),
    ("tcp", 3),
    ("memory", 2),
];

/// How much of its budget a tracer has.
fn weight(tracer: &str) -> u64 {
    WEIGHTS.iter().find(|(name, _)| *name == tracer).map_or(1, |(_, weight)| *weight)
}

/// The budget, and who has what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// All of it.
    pub total: u64,
    /// What the process has resident before it traces.
    pub process: u64,
    /// For series of metrics and what waits to be exported with them.
    pub series: u64,
    /// For names of processes.
    pub names: u64,
    /// For symbol tables.
    pub symbols: u64,
    /// For requests that wait to be sent.
    pub queues: u64,
    /// For maps and rings of all tracers.
    pub kernel: u64,
    /// What tracers took of that, as the kernel counts it.
    pub tracers: Vec<(&'static str, u64)>,
}

impl Budget {
    /// Splits the budget, or, where none is set, what this machine has for it, for this process as it is now.
    pub fn now(total: Option<u64>) -> Self {
        Self::of_machine(total, Resident::default().read())
    }

    /// The same for a process of this size.
    pub fn of_machine(total: Option<u64>, process: u64) -> Self {
        let machine = || {
            let info = rustix::system::sysinfo();
            // Both are of the width of the kernel's interface, which is narrower on 32-bit systems.
            #[allow(clippy::useless_conversion)]
            u64::from(info.totalram).saturating_mul(u64::from(info.mem_unit))
        };
        Self::new(total.unwrap_or_else(|| usual(machine())), process)
    }

    /// Splits the budget, for a process of this size.
    pub fn new(total: u64, process: u64) -> Self {
        let rest = total.saturating_sub(process);
        let part = |percent: u64| rest / 100 * percent;
        Self {
            total,
            process,
            series: part(SERIES),
            names: part(NAMES),
            symbols: part(SYMBOLS),
            queues: part(QUEUES),
            kernel: part(TRACERS),
            tracers: Vec::new(),
        }
    }

    /// What the next tracer may take, if these follow it.
    pub fn offer(&self, tracer: &str, later: &[&str]) -> u64 {
        let taken: u64 = self.tracers.iter().map(|(_, bytes)| bytes).sum();
        let left = self.kernel.saturating_sub(taken);
        let weights = weight(tracer) + later.iter().map(|name| weight(name)).sum::<u64>();
        (left / weights.max(1) * weight(tracer)).max(LEAST)
    }

    /// A tracer has started, and its maps and rings take so much.
    pub fn took(&mut self, tracer: &'static str, bytes: u64) {
        self.tracers.retain(|(name, _)| *name != tracer);
        self.tracers.push((tracer, bytes));
    }

    /// A tracer has ended.
    pub fn freed(&mut self, tracer: &str) {
        self.tracers.retain(|(name, _)| *name != tracer);
    }

    /// Maps and rings.
    pub fn kernel_bytes(&self) -> u64 {
        self.tracers.iter().map(|(_, bytes)| bytes).sum()
    }

    /// What is used of it, with what the process has resident now; rings are mapped, and counted once.
    pub fn used(&self, resident: u64) -> u64 {
        resident.saturating_add(self.kernel_bytes())
    }
}

/// `memory: 32M: process 6.1M, what it keeps up to 7.8M, maps and rings 12.3M (profile 4.0M, syscalls 8.3M)`.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebi = |bytes: u64| format!("{}M", show_fixed(bytes as f64 / f64::from(1 << 20), 1));
        let kept = self.series + self.names + self.symbols + self.queues;
        write!(
            f,
            "memory: {}: process {}, what it keeps up to {}, maps and rings {}",
            show_size(self.total),
            mebi(self.process),
            mebi(kept),
            mebi(self.kernel_bytes())
        )?;
        for (at, (name, bytes)) in self.tracers.iter().enumerate() {
            write!(f, "{}{name} {}", if at == 0 { " (" } else { ", " }, mebi(*bytes))?;
        }
        if self.tracers.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

/// Resident memory of this process, without rings that it has mapped, which are counted as maps.
#[derive(Debug, Default)]
pub struct Resident {
    /// Bytes of maps that are mapped, whole from the start on: they change only when tracers come and go.
    mapped: u64,
    readings: u32,
}

impl Resident {
    /// Bytes now; 0 where `/proc` does not say.
    pub fn read(&mut self) -> u64 {
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        if self.readings % LOOK_EVERY == 0 {
            self.mapped = mapped_maps(&fs::read_to_string("/proc/self/smaps").unwrap_or_default());
        }
        self.readings = self.readings.wrapping_add(1);
        (pages.unwrap_or(0) * bpf_sys::page_size() as u64).saturating_sub(self.mapped)
    }

    /// Maps have come or gone: the next reading looks what is mapped.
    pub fn look_again(&mut self) {
        self.readings = 0;
    }
}

/// Resident bytes of BPF maps in a process' `smaps`. A ring's data is mapped twice, and counted so.
fn mapped_maps(smaps: &str) -> u64 {
    let mut is_map = false;
    let mut kibibytes: u64 = 0;
    for line in smaps.lines() {
        match line.strip_prefix("Rss:") {
            Some(size) if is_map => {
                let size: Option<u64> = size.trim().strip_suffix(" kB").and_then(|size| size.parse().ok());
                kibibytes = kibibytes.saturating_add(size.unwrap_or(0));
            }
            Some(_) => {}
            // The head of a mapping begins with its range; fields begin with capitals.
            None if line.starts_with(|c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase()) => {
                is_map = line.ends_with("anon_inode:bpf-map");
            }
            None => {}
        }
    }
    kibibytes.saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_machines_have_small_budgets() {
        let mib = [16, 96, 200, 256, 65_536].map(|machine| usual(machine << 20) >> 20);
        assert_eq!(mib, [4, 12, 25, 32, 32]);
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_parts_are_no_more_than_the_whole() {
        for (total, process) in [(4 * MIB, 3 * MIB), (4 * MIB, 9 * MIB), (32 * MIB, 5 * MIB), (1 << 36, 0)] {
            let budget = Budget::new(total, process);
            let parts = budget.process
                + budget.series
                + budget.names
                + budget.symbols
                + budget.queues
                + budget.kernel;
            assert!(parts <= total.max(process), "{budget:?}");
        }
        assert_eq!(TRACERS + SYMBOLS + SERIES + NAMES + QUEUES, 100);
        let default = Budget::new(32 * MIB, 5 * MIB);
        assert!(default.kernel <= 24 * MIB && default.kernel >= 16 * MIB, "{default:?}");
    }

    #[test]
    fn those_with_a_weight_are_tracers() {
        let is_tracer = |name: &str| crate::tracer::TRACERS.iter().any(|info| info.name == name);
        assert!(WEIGHTS.iter().all(|(name, _)| is_tracer(name)));
    }

    #[test]
    fn what_one_leaves_goes_to_the_others() {
        let mut budget = Budget::new(32 * MIB, 5 * MIB);
        let names = ["profile", "syscalls", "tcp", "udp", "sched"];
        for (at, name) in names.iter().enumerate() {
            let offer = budget.offer(name, &names[at + 1..]);
            budget.took(name, if *name == "profile" { MIB } else { offer });
        }
        let used = budget.kernel_bytes();
        assert!(used <= budget.kernel && used > budget.kernel / 100 * 99, "{used} of {}", budget.kernel);
        let of = |budget: &Budget, name: &str| budget.tracers.iter().find(|(own, _)| *own == name).unwrap().1;
        assert!(of(&budget, "syscalls") > 2 * of(&budget, "udp"));
        budget.freed("tcp");
        assert_eq!(budget.kernel_bytes(), used - of(&budget, "syscalls"), "as much as tcp had");
    }

    #[test]
    fn a_tracer_is_offered_something_whatever_is_left() {
        let mut budget = Budget::new(4 * MIB, 8 * MIB);
        assert_eq!(budget.offer("tcp", &["udp"]), LEAST);
        budget.took("tcp", MIB);
        assert_eq!(budget.used(8 * MIB), 9 * MIB);
    }

    #[test]
    fn the_split_is_shown() {
        let mut budget = Budget::new(32 * MIB, 6 * MIB);
        budget.took("profile", 4 * MIB);
        let kept = budget.series + budget.names + budget.symbols + budget.queues;
        let kept = format!("{:.1}", kept as f64 / MIB as f64);
        assert_eq!(
            budget.to_string(),
            format!(
                "memory: 32M: process 6.0M, what it keeps up to {kept}M, maps and rings 4.0M (profile 4.0M)"
            )
        );
        let mut resident = Resident::default();
        assert!(resident.read() > MIB && resident.read() > MIB);
    }

    #[test]
    fn rings_that_are_mapped_are_no_memory_of_the_process() {
        let smaps = "7f00-7f10 rw-s 00000000 00:0e 12    anon_inode:bpf-map\nSize: 64 kB\nRss:   64 kB\nPss: 1 kB\n\
                     7f10-7f20 r--s 00001000 00:0e 12    anon_inode:bpf-map\nRss:    8 kB\n\
                     55aa-55ab rw-p 00000000 00:00 0     [heap]\nRss:  900 kB\n";
        assert_eq!(mapped_maps(smaps), 72 << 10);
        assert_eq!(mapped_maps("Rss: x kB\n"), 0);
    }
}
