//! What a session has counted, and what it costs.

use super::{Session, thread_cpu_nanos};
use crate::error::Result;
use crate::model::{Losses, SampleType};
use crate::sorted::SortedMap;
use crate::tracer::profile::accounting::{Counters, CpuPeriods, EarlierPeriods, Overhead, Walks};
use crate::tracer::profile::cpu_events::CpuEvents;
use crate::tracer::profile::idle_clock::IdleClock;

impl Session {
    /// What was counted since the start.
    ///
    /// # Errors
    ///
    /// A timer cannot be read.
    pub fn counters(&mut self) -> Result<Counters> {
        // Expected before runs: what fires in between counts as a run too many, never as a loss.
        let expected = self.cpu_events.expected_periods()?;
        let idle = self.idle.read()?;
        let before = &self.before;
        let mut total = Counters {
            walks: self.walks(),
            expected_periods: before.expected + expected.values().sum::<u64>(),
            idle_slept: before.idle_slept,
            ..Counters::default()
        };
        let (mut skipped, mut table_full, mut no_stack) = (before.skipped, self.table_full, self.no_stack);
        for (cpu, stats) in self.program.stats() {
            let of = |map: &SortedMap<u32, u64>| map.get(&cpu).copied().unwrap_or(0);
            let periods = CpuPeriods {
                expected: of(&expected),
                runs: stats.runs - of(&before.runs),
                idle_runs: stats.idle - of(&before.idle_runs),
                // Only time passes without a sample where nothing runs.
                idle_nanos: if self.sampled.sample_type == SampleType::CPU { of(&idle) } else { 0 },
            };
            let (slept, lost) = periods.missing(self.sampled.period);
            total.idle_slept += slept;
            skipped += lost;
            total.runs += stats.runs;
            total.idle += stats.idle;
            total.filtered += stats.filtered;
            total.samples += stats.samples;
            total.too_short += stats.too_short;
            table_full += stats.table_full;
            no_stack += stats.no_stack;
        }
        #[cfg(feature = "unwind")]
        if let Some(misses) = &self.misses {
            table_full += misses.lost();
        }
        #[cfg(feature = "unwind")]
        if let Some(waits) = &self.waits {
            table_full += waits.lost;
            no_stack += waits.no_stack;
        }
        let sideband = self.sideband.lost() + self.symbols.losses();
        Ok(Counters {
            losses: Losses { skipped: self.skipped.advance(skipped), table_full, no_stack, sideband },
            recursion_misses: self.program.recursion_misses()?,
            late_names: self.namer.late(),
            children_lost: self.program.children_lost(),
            ..total
        })
    }

    #[cfg(feature = "unwind")]
    fn walks(&self) -> Option<Walks> {
        let walks = self.misses.as_ref()?.walks(self.symbols.unwinder()?);
        #[cfg(feature = "python")]
        let walks = Walks { python_unread: self.symbols.python_unread(), ..walks };
        Some(walks)
    }

    #[cfg(not(feature = "unwind"))]
    fn walks(&self) -> Option<Walks> {
        None
    }

    /// Samples this often from now on. The window must be empty, since it has one period: call it right after
    /// [`end_window`](Self::end_window).
    ///
    /// # Errors
    ///
    /// An event cannot be opened.
    pub(in super::super) fn set_period(&mut self, period: u64) -> Result<()> {
        let totals = self.counters()?;
        let stats: Vec<_> = self.program.stats().collect();
        self.before = EarlierPeriods {
            expected: totals.expected_periods,
            idle_slept: totals.idle_slept,
            skipped: totals.losses.skipped,
            runs: stats.iter().map(|(cpu, stats)| (*cpu, stats.runs)).collect(),
            idle_runs: stats.iter().map(|(cpu, stats)| (*cpu, stats.idle)).collect(),
        };
        let paused = self.cpu_events.is_paused();
        self.sampled.period = period;
        self.cpu_events = CpuEvents::new(self.sampled.counted, period);
        self.idle = IdleClock::default();
        self.follow_cpus()?;
        if paused { self.pause() } else { Ok(()) }
    }

    /// What the profiler costs, up to now.
    pub fn overhead(&self) -> Overhead {
        let elapsed = self.started.elapsed().as_nanos().max(1);
        let cpu = thread_cpu_nanos().saturating_sub(self.cpu_nanos_at_start) + self.namer.cpu_nanos();
        Overhead {
            cpu_share: cpu as f64 / elapsed as f64,
            resident_bytes: resident_bytes(),
            map_bytes: self.map_bytes(),
            event_latency: self.sideband.latency(),
        }
    }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|f| f.parse().ok()).unwrap_or(0);
    pages * bpf_sys::page_size() as u64
}
