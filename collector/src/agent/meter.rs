//! What tracing costs: readings for the governor.
//!
//! The kernel's statistics of programs leave out the entry into them, and keeping them costs more than some programs do. So
//! they are on for one tick in [`STATISTICS_EVERY`], which tells what a run takes, and counters of the tracers' own tell how
//! often that is. What a run takes is at least what the tracer says of its hook, measured on one machine and scaled to this
//! one by how long the cheapest system call takes on both.

use std::os::fd::OwnedFd;
use std::time::Duration;

use bpf_sys::clock::Clock;
use bpf_sys::uapi::kinds::StatsType;

use crate::tracer::Overhead;

/// The entry into a program on a tracepoint, as of [`cost::on_this_machine`](crate::tracer::cost::on_this_machine).
pub(super) const ENTRY_NANOS: f64 = 58.0;
/// Where programs run so many times as often as their tracer counts hits, it does not count them all. A call runs two programs.
const UNCOUNTED: f64 = 4.0;
/// A run does not take so many times as long as it did.
const OUTLIER: f64 = 3.0;
/// In how many ticks statistics are on once.
pub(super) const STATISTICS_EVERY: u32 = 16;

/// CPU time of this process, all threads.
pub(super) fn process_time() -> Duration {
    Clock::ProcessCpu.now()
}

/// CPU time of this thread.
pub(super) fn thread_time() -> Duration {
    Clock::ThreadCpu.now()
}

/// The kernel's statistics of programs, on for as long as this lives; `None` where that is not allowed, as once the agent has
/// given up CAP_SYS_ADMIN. To keep them on instead would double what system calls cost that are traced.
pub(super) fn statistics() -> Option<OwnedFd> {
    bpf_sys::prog::enable_stats(StatsType::RUN_TIME).ok()
}

/// Costs of one tracer.
#[derive(Debug, Default)]
pub(super) struct Meter {
    last: Overhead,
    /// What a hit takes, the entry included, as measured last.
    nanos_per_hit: Option<f64>,
    /// What a second takes of hits that its programs do not count, as measured last.
    nanos_per_second: f64,
    own: Duration,
}

impl Meter {
    /// The process spent this on the tracer.
    pub fn spent(&mut self, time: Duration) {
        self.own += time;
    }

    /// A hit does not take what it did any more: it is sampled otherwise.
    pub fn forget(&mut self) {
        self.nanos_per_hit = None;
    }

    /// It is attached so many times as long as it was.
    pub fn attached_changes(&mut self, factor: f64) {
        self.nanos_per_second *= factor;
    }

    /// What the hooks cost others, and the process, in the time that has passed since this was asked last. `measured` if
    /// statistics were on all the time; an entry into a program takes `entry` nanoseconds.
    pub fn read(
        &mut self,
        now: Overhead,
        elapsed: Duration,
        entry: f64,
        measured: bool,
    ) -> (Duration, Duration) {
        let hits = now.hits.saturating_sub(self.last.hits) as f64;
        let runs = now.runs.saturating_sub(self.last.runs) as f64;
        let in_programs = now.program_time.saturating_sub(self.last.program_time).as_secs_f64() * 1e9;
        if measured {
            let cost = in_programs + runs * entry;
            // A filter, or sockets of another kind: most runs are counted by nobody else.
            let uncounted = runs > UNCOUNTED * hits;
            self.nanos_per_second = if uncounted { cost / elapsed.as_secs_f64().max(1e-3) } else { 0.0 };
            if !uncounted && runs > 0.0 {
                let nanos = cost / hits;
                // The kernel's clock goes on while a CPU is taken away from a program: one such tick is not believed.
                let mean = self.nanos_per_hit.map_or(nanos, |old| (old + nanos.min(OUTLIER * old)) / 2.0);
                self.nanos_per_hit = Some(mean);
            }
        }
        let per_hit = self.nanos_per_hit.unwrap_or(0.0).max(now.nanos_per_hit).max(entry);
        let hooks = (hits * per_hit).max(self.nanos_per_second * elapsed.as_secs_f64());
        self.last = now;
        (Duration::from_nanos(hooks as u64), std::mem::take(&mut self.own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(2);

    fn overhead(hits: u64, nanos_per_hit: f64, runs: u64, program_nanos: u64) -> Overhead {
        Overhead { hits, nanos_per_hit, program_time: Duration::from_nanos(program_nanos), runs }
    }

    #[test]
    fn a_hook_costs_what_its_tracer_says_until_more_is_measured() {
        let mut meter = Meter::default();
        let mut cost = |now, measured| meter.read(now, TICK, 58.0, measured).0;
        assert_eq!(cost(overhead(1000, 200.0, 0, 0), false), Duration::from_micros(200));
        // Statistics: 500 ns in the programs, and the entry.
        assert_eq!(cost(overhead(2000, 200.0, 1000, 500_000), true), Duration::from_nanos(1000 * 558));
        assert_eq!(
            cost(overhead(2010, 200.0, 1000, 500_000), false),
            Duration::from_nanos(10 * 558),
            "as then"
        );
        let outlier = cost(overhead(2020, 200.0, 1010, 90_500_000), true);
        assert_eq!(outlier, Duration::from_nanos(10 * (558 + 3 * 558) / 2));
        meter.forget();
        let (cost, _) = meter.read(overhead(2030, 200.0, 1010, 90_500_000), TICK, 58.0, false);
        assert_eq!(cost, Duration::from_micros(2), "sampled otherwise");
    }

    #[test]
    fn runs_that_no_program_counts_cost_too() {
        let mut meter = Meter::default();
        let mut cost = |now, measured| meter.read(now, TICK, 50.0, measured).0;
        assert_eq!(cost(overhead(10, 0.0, 0, 0), false), Duration::from_nanos(500));
        assert_eq!(cost(overhead(20, 0.0, 1000, 150_000), true), Duration::from_micros(200));
        assert_eq!(cost(overhead(20, 0.0, 1000, 150_000), false), Duration::from_micros(200), "as then");
        meter.attached_changes(0.25);
        let (cost, _) = meter.read(overhead(20, 0.0, 1000, 150_000), TICK, 50.0, false);
        assert_eq!(cost, Duration::from_micros(50));
        let (cost, _) = meter.read(overhead(20, 0.0, 1000, 150_000), TICK, 50.0, true);
        assert_eq!(cost, Duration::ZERO, "until measured again");
    }

    #[test]
    fn what_the_process_spent_is_told_once() {
        let mut meter = Meter::default();
        meter.spent(Duration::from_millis(3));
        meter.spent(Duration::from_millis(4));
        let mut again = || meter.read(overhead(100, 0.0, 0, 0), TICK, 58.0, false).1;
        assert_eq!(again(), Duration::from_millis(7));
        assert_eq!(again(), Duration::ZERO);
        assert!(process_time() >= thread_time());
    }
}
