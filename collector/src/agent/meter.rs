//! What tracing costs: readings for the governor.
//!
//! The kernel's statistics of programs leave out the entry into them, and keeping them costs more than some programs do. So
//! they are on for one tick in [`STATISTICS_EVERY`], which tells what a run takes, and counters of the tracers' own tell how
//! often that is. What a run takes is at least what the tracer says of its hook, measured on one machine and scaled to this
//! one by how long the cheapest system call takes on both.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bpf_sys::uapi::kinds::StatsType;
use rustix::time::{ClockId, clock_gettime};

use crate::tracer::Overhead;

/// How long `getppid` takes where the tracers' costs were measured.
const REFERENCE_NANOS: f64 = 166.0;
/// The entry into a program on a tracepoint, there.
const ENTRY_NANOS: f64 = 58.0;
/// A run does not take so many times as long as it did.
const OUTLIER: f64 = 3.0;
/// In how many ticks statistics are on once.
pub(super) const STATISTICS_EVERY: u32 = 16;

/// How much slower than the reference this machine is. Takes about a millisecond.
pub(super) fn machine_scale() -> f64 {
    const CALLS: u32 = 500;
    let batch = || {
        let start = Instant::now();
        (0..CALLS).for_each(|_| {
            std::hint::black_box(std::os::unix::process::parent_id());
        });
        start.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    // The fastest is the one that nothing came between.
    let fastest = (0..8).map(|_| batch()).fold(f64::INFINITY, f64::min);
    (fastest / REFERENCE_NANOS).clamp(0.1, 10.0)
}

fn cpu_time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time of this process, all threads.
pub(super) fn process_time() -> Duration {
    cpu_time(ClockId::ProcessCPUTime)
}

/// CPU time of this thread.
pub(super) fn thread_time() -> Duration {
    cpu_time(ClockId::ThreadCPUTime)
}

/// The kernel's statistics of programs, on for as long as this lives; `None` where that is not allowed.
pub(super) fn statistics() -> Option<OwnedFd> {
    bpf_sys::prog::enable_stats(StatsType::RUN_TIME).ok()
}

/// Costs of one tracer.
#[derive(Debug, Default)]
pub(super) struct Meter {
    last: Overhead,
    /// What a hit takes in its programs, as measured last.
    program_nanos: Option<f64>,
    own: Duration,
}

impl Meter {
    /// The process spent this on the tracer.
    pub fn spent(&mut self, time: Duration) {
        self.own += time;
    }

    /// What the hooks cost others, and the process, since this was asked last. `measured` if statistics were on all the time.
    pub fn read(&mut self, now: Overhead, scale: f64, measured: bool) -> (Duration, Duration) {
        let hits = now.hits.saturating_sub(self.last.hits) as f64;
        let in_programs = now.program_time.saturating_sub(self.last.program_time).as_nanos() as f64;
        if measured && hits > 0.0 && in_programs > 0.0 {
            let nanos = in_programs / hits;
            // The kernel's clock goes on while a CPU is taken away from a program: one such tick is not believed.
            self.program_nanos =
                Some(self.program_nanos.map_or(nanos, |old| (old + nanos.min(OUTLIER * old)) / 2.0));
        }
        let by_program = self.program_nanos.map_or(0.0, |nanos| nanos + ENTRY_NANOS * scale);
        let per_hit = by_program.max(now.nanos_per_hit * scale).max(ENTRY_NANOS * scale);
        self.last = now;
        (Duration::from_nanos((hits * per_hit) as u64), std::mem::take(&mut self.own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overhead(hits: u64, nanos_per_hit: f64, program_nanos: u64) -> Overhead {
        Overhead { hits, nanos_per_hit, program_time: Duration::from_nanos(program_nanos) }
    }

    #[test]
    fn a_hook_costs_what_its_tracer_says_until_more_is_measured() {
        let mut meter = Meter::default();
        assert_eq!(meter.read(overhead(1000, 200.0, 0), 1.0, false).0, Duration::from_micros(200));
        assert_eq!(
            meter.read(overhead(2000, 200.0, 0), 2.0, false).0,
            Duration::from_micros(400),
            "a slow machine"
        );
        // Statistics: 500 ns in the programs, and the entry.
        let (cost, _) = meter.read(overhead(3000, 200.0, 500_000), 1.0, true);
        assert_eq!(cost, Duration::from_nanos(1000 * 558));
        let (cost, _) = meter.read(overhead(3010, 200.0, 500_000), 1.0, false);
        assert_eq!(cost, Duration::from_nanos(10 * 558), "as measured last");
        let (cost, _) = meter.read(overhead(3020, 200.0, 90_500_000), 1.0, true);
        assert_eq!(cost, Duration::from_nanos(10 * (1000 + 58)), "an outlier");
    }

    #[test]
    fn what_the_process_spent_is_told_once() {
        let mut meter = Meter::default();
        let (hooks, _) = meter.read(overhead(100, 0.0, 0), 1.0, false);
        assert_eq!(hooks, Duration::from_nanos(5800), "the entry at least");
        meter.spent(Duration::from_millis(3));
        meter.spent(Duration::from_millis(4));
        let mut again = || meter.read(overhead(100, 0.0, 0), 1.0, false);
        assert_eq!(again(), (Duration::ZERO, Duration::from_millis(7)));
        assert_eq!(again(), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn this_machine_is_a_machine() {
        let scale = machine_scale();
        assert!((0.1..=10.0).contains(&scale));
        assert!(process_time() >= thread_time());
    }
}
