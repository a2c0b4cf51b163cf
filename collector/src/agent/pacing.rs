//! How often rings are drained. Pure.
//!
//! A ring wakes the agent when it is half full, which is late: a burst may fill the other half at once. So a wake-up halves the
//! period, and every round without one lets it grow. An idle machine is looked at once a second.

use std::time::Duration;

/// Shortest and longest period.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);

/// The time from one drain to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    period: Duration,
}

impl Default for Pacing {
    fn default() -> Self {
        Self { period: Duration::from_millis(200) }
    }
}

impl Pacing {
    /// The rings were drained, this long after they were drained last; `woken` if one of them was half full.
    pub fn drained(&mut self, after: Duration, woken: bool) {
        let next = if woken { after.min(self.period) / 2 } else { self.period * 5 / 4 };
        self.period = next.clamp(SHORTEST, LONGEST);
    }

    /// When to drain next, from now.
    pub fn period(&self) -> Duration {
        self.period
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring that fills at a rate; the share of its drains that were wake-ups, and how many there were a second.
    fn steady(full_after: Duration) -> (f64, f64) {
        let mut pacing = Pacing::default();
        let (mut woken, mut rounds, mut time) = (0, 0, Duration::ZERO);
        while time < Duration::from_secs(100) {
            let is_woken = full_after / 2 < pacing.period();
            let after = pacing.period().min(full_after / 2);
            pacing.drained(after, is_woken);
            woken += u32::from(is_woken);
            rounds += 1;
            time += after;
        }
        (f64::from(woken) / f64::from(rounds), f64::from(rounds) / time.as_secs_f64())
    }

    #[test]
    fn an_idle_ring_is_looked_at_once_a_second() {
        let (woken, rate) = steady(Duration::from_secs(3600));
        assert!(woken == 0.0 && rate < 1.2, "{woken} {rate}");
    }

    #[test]
    fn a_busy_ring_is_drained_before_it_is_half_full() {
        for millis in [50, 100, 400, 1000] {
            let (woken, rate) = steady(Duration::from_millis(millis));
            assert!(woken < 0.3, "{millis}: {woken}");
            let needed = 2000.0 / millis as f64;
            assert!(rate < 2.5 * needed, "{millis}: {rate} drains a second where {needed} are needed");
        }
    }

    #[test]
    fn the_period_stays_in_its_bounds() {
        let mut pacing = Pacing::default();
        (0..100).for_each(|_| pacing.drained(Duration::ZERO, true));
        assert_eq!(pacing.period(), SHORTEST);
        (0..100).for_each(|_| pacing.drained(pacing.period(), false));
        assert_eq!(pacing.period(), LONGEST);
    }
}
