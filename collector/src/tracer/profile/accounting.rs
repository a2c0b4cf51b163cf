//! What is counted, and how many samples there should have been. Pure.
//!
//! The kernel skips a perf program, and counts nothing, while a program of certain other types runs on the CPU. The
//! event itself keeps counting, nanoseconds or faults: divided by the period, its count says how often the program should
//! have run, and what it did not see was lost.

use std::time::Duration;

use crate::model::Losses;
use crate::sorted::SortedMap;

/// Counts since the start, machine-wide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Periods that timers went through.
    pub expected_periods: u64,
    /// Times that the program ran.
    pub runs: u64,
    /// Runs on an idle CPU.
    pub idle: u64,
    /// Periods that idle CPUs slept through: no sample is missing.
    pub idle_slept: u64,
    /// Runs whose task the filter kept out.
    pub filtered: u64,
    /// Samples, counted or not.
    pub samples: u64,
    /// Waits that were too short to be counted.
    pub too_short: u64,
    /// Losses.
    pub losses: Losses,
    /// Runs that the kernel says it missed (Linux 5.12; not every kernel counts those of perf events).
    pub recursion_misses: u64,
    /// Addresses whose functions were not looked for in their files, since that would have come too late: the thread that does it gets too
    /// little of the CPU. Their samples have them without names.
    pub late_names: u64,
    /// Children that could not be followed.
    pub children_lost: u64,
    /// How stacks of processes were walked; `None` where the kernel does it along frame pointers.
    pub walks: Option<Walks>,
}

/// What the profiler itself costs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Overhead {
    /// CPU time of the profiler's thread, and of the one that looks for names, as a share of one CPU since the start. The program's own time inside the
    /// kernel is charged to whom it samples, and not in this.
    pub cpu_share: f64,
    /// Resident memory of this process, in bytes.
    pub resident_bytes: u64,
    /// Kernel memory of the maps, in bytes.
    pub map_bytes: u64,
    /// Mean time from a sideband event to its handling, over the last read.
    pub event_latency: Duration,
}

/// What was counted while the period was another. Runs are by CPU, to be taken from those since the program was loaded.
#[derive(Debug, Default)]
pub(super) struct EarlierPeriods {
    pub expected: u64,
    pub idle_slept: u64,
    pub skipped: u64,
    pub runs: SortedMap<u32, u64>,
    pub idle_runs: SortedMap<u32, u64>,
}

/// Periods that should have been seen on each CPU, across events that come and go with it.
#[derive(Debug, Clone)]
pub struct Expected {
    period_nanos: u64,
    /// From events that are closed.
    closed: SortedMap<u32, u64>,
}

impl Expected {
    /// For events of this period.
    pub fn new(period_nanos: u64) -> Self {
        Self { period_nanos: period_nanos.max(1), closed: SortedMap::new() }
    }

    /// Whole periods within the nanoseconds that one event was on. The last quarter of a period is not held against the
    /// program: its timer may be about to fire, or have fired a moment ago with the program still running.
    pub fn periods(&self, on_nanos: u64) -> u64 {
        on_nanos.saturating_sub(self.period_nanos / 4) / self.period_nanos
    }

    /// An event is closed after this long.
    pub fn close(&mut self, cpu: u32, on_nanos: u64) {
        *self.closed.entry(cpu).or_insert(0) += self.periods(on_nanos);
    }

    /// All periods by CPU, with those of events that are open.
    pub fn by_cpu(&self, open: impl IntoIterator<Item = (u32, u64)>) -> SortedMap<u32, u64> {
        let mut periods = self.closed.clone();
        for (cpu, nanos) in open {
            *periods.entry(cpu).or_insert(0) += self.periods(nanos);
        }
        periods
    }
}

/// What became of the periods of one CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuPeriods {
    /// Periods that its timer went through.
    pub expected: u64,
    /// Times that the program ran.
    pub runs: u64,
    /// Runs that found the CPU idle.
    pub idle_runs: u64,
    /// Nanoseconds that the CPU was idle meanwhile, at most, by the kernel's own account.
    pub idle_nanos: u64,
}

impl CpuPeriods {
    /// Periods that the program did not see: those in which the CPU was idle, so that no sample is missing, and the others,
    /// which are lost. The timer of an idle CPU may sleep for long, in a virtual machine above all. A part of a period may have had
    /// its end in it.
    pub fn missing(&self, period_nanos: u64) -> (u64, u64) {
        let missing = self.expected.saturating_sub(self.runs);
        let idle = self.idle_nanos.div_ceil(period_nanos.max(1));
        let slept = idle.saturating_sub(self.idle_runs).min(missing);
        (slept, missing - slept)
    }
}

/// Losses that only grow, although a period may be expected a moment before it is seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    reported: u64,
}

impl Skipped {
    /// Takes in what is lost since the start, as it looks now; what is lost for good.
    pub fn advance(&mut self, total: u64) -> u64 {
        self.reported = self.reported.max(total);
        self.reported
    }
}

/// How stacks of processes were walked, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Walks {
    /// To the first function of the thread.
    pub whole: u64,
    /// Without a rule, where the frame pointer was none.
    pub no_table: u64,
    /// By a rule that leads nowhere.
    pub bad_cfa: u64,
    /// More frames than are kept.
    pub depth: u64,
    /// To an address without code.
    pub not_mapped: u64,
    /// Past the end of the copy of the stack.
    pub slice: u64,
    /// To a page that was not in the tables, without room to tell it.
    pub lost: u64,
    /// By the kernel, along frame pointers: nobody knows how they ended.
    pub by_kernel: u64,
    /// How many of them were finished in user space.
    pub in_user_space: u64,
    /// Of the whole ones, those whose stack was larger than the copy: the rest was read a little later.
    pub later: u64,
    /// Functions of Python that could not be read, once for each place in a window: their process had ended.
    #[cfg(feature = "python")]
    pub python_unread: u64,
    /// Pages of code in the tables, now.
    pub pages: u64,
    /// Pages that were dropped for others.
    pub evicted_pages: u64,
}

impl Walks {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.whole + self.truncated() + self.by_kernel
    }

    /// Those that ended early.
    pub fn truncated(&self) -> u64 {
        self.no_table + self.bad_cfa + self.depth + self.not_mapped + self.slice + self.lost
    }

    /// How many ended in each way.
    #[cfg(feature = "unwind")]
    pub(super) fn by_end(&self) -> [(&'static str, u64); 8] {
        [
            ("whole", self.whole),
            ("no table", self.no_table),
            ("bad CFA", self.bad_cfa),
            ("depth", self.depth),
            ("not mapped", self.not_mapped),
            ("beyond the copy", self.slice),
            ("no room", self.lost),
            ("by frame pointers", self.by_kernel),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_whole() {
        let expected = Expected::new(10_000_000);
        assert_eq!(expected.periods(0), 0);
        assert_eq!(expected.periods(10_000_000), 0, "its timer may not have fired yet");
        assert_eq!(expected.periods(12_500_000), 1);
        assert_eq!(expected.periods(1_000_000_000), 99);
        assert_eq!(expected.periods(1_005_000_000), 100);
    }

    #[test]
    fn closed_events_stay_counted() {
        let mut expected = Expected::new(1000);
        expected.close(1, 10_500);
        assert_eq!(expected.by_cpu([]), SortedMap::from([(1, 10)]));
        assert_eq!(expected.by_cpu([(0, 5_300), (1, 1_300)]), SortedMap::from([(0, 5), (1, 11)]));
    }

    #[test]
    fn what_an_idle_cpu_sleeps_through_is_not_lost() {
        let cpu = CpuPeriods { expected: 100, runs: 100, idle_runs: 50, idle_nanos: 50_000 };
        assert_eq!(cpu.missing(1000), (0, 0));
        assert_eq!(CpuPeriods { runs: 60, idle_runs: 10, ..cpu }.missing(1000), (40, 0));
        assert_eq!(
            CpuPeriods { runs: 60, ..cpu }.missing(1000),
            (0, 40),
            "idle as often as it should: busy ones are lost"
        );
        assert_eq!(CpuPeriods { runs: 60, idle_runs: 30, ..cpu }.missing(1000), (20, 20));
        assert_eq!(CpuPeriods { runs: 60, idle_runs: 30, idle_nanos: 49_001, ..cpu }.missing(1000), (20, 20));
        assert_eq!(CpuPeriods { runs: 101, ..cpu }.missing(1000), (0, 0));
    }

    #[test]
    fn losses_only_grow() {
        let mut skipped = Skipped::default();
        assert_eq!(skipped.advance(0), 0);
        assert_eq!(skipped.advance(10), 10);
        // A period that was expected a moment before it was seen.
        assert_eq!(skipped.advance(9), 10);
        assert_eq!(skipped.advance(12), 12);
    }
}
