//! How many samples there should have been. Pure.
//!
//! The kernel skips a perf program, and counts nothing, while a program of certain other types runs on the CPU. The
//! event itself keeps counting the nanoseconds that it was on: divided by the period, they say how often the timer
//! fired, and what the program did not see was lost.

/// Periods that should have been seen, over all CPUs, across events that come and go with theirs.
#[derive(Debug, Clone)]
pub struct Expected {
    period_nanos: u64,
    /// From events that are closed.
    closed: u64,
}

impl Expected {
    /// For events of this period.
    pub fn new(period_nanos: u64) -> Self {
        Self { period_nanos: period_nanos.max(1), closed: 0 }
    }

    /// Whole periods within the nanoseconds that one event was on. The last quarter of a period is not held against the
    /// program: its timer may be about to fire, or have fired a moment ago with the program still running.
    pub fn periods(&self, on_nanos: u64) -> u64 {
        on_nanos.saturating_sub(self.period_nanos / 4) / self.period_nanos
    }

    /// An event is closed after this long.
    pub fn close(&mut self, on_nanos: u64) {
        self.closed += self.periods(on_nanos);
    }

    /// All periods, with those of events that are open.
    pub fn total(&self, open: impl IntoIterator<Item = u64>) -> u64 {
        open.into_iter().map(|nanos| self.periods(nanos)).sum::<u64>() + self.closed
    }
}

/// Losses that only grow, although a period may be expected a moment before it is seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    reported: u64,
}

impl Skipped {
    /// Skipped periods since the last call, given all that were expected and seen since the start.
    pub fn advance(&mut self, expected: u64, runs: u64) -> u64 {
        let total = expected.saturating_sub(runs).max(self.reported);
        let new = total - self.reported;
        self.reported = total;
        new
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
        expected.close(10_500);
        assert_eq!(expected.total([]), 10);
        assert_eq!(expected.total([5_300, 300]), 15);
    }

    #[test]
    fn losses_are_reported_once() {
        let mut skipped = Skipped::default();
        assert_eq!(skipped.advance(100, 100), 0);
        assert_eq!(skipped.advance(200, 190), 10);
        // More runs than expected so far: not a gain.
        assert_eq!(skipped.advance(290, 289), 0);
        assert_eq!(skipped.advance(400, 388), 2);
    }
}
