//! Kernel time to wall time.
//!
//! BPF programs stamp what they see with `CLOCK_BOOTTIME`, which never steps and goes on while the machine is suspended.
//! Receivers want the time since the Unix epoch, which administrators and NTP set. The distance of the two is taken again at
//! each flush, and holds for all that is told then: within a flush, order is kept.

use bpf_sys::clock;

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub boot_nanos: u64,
    /// Nanoseconds since the Unix epoch.
    pub unix_nanos: u64,
}

/// How often both clocks are read, in case that something comes in between.
const TRIES: usize = 3;

impl Reading {
    /// Now.
    pub fn now() -> Self {
        let tries = (0..TRIES).map(|_| {
            let before = clock::Clock::Boot.nanos();
            let unix_nanos = clock::Clock::Real.nanos();
            let took = clock::Clock::Boot.nanos().saturating_sub(before);
            (took, Self { boot_nanos: before + took / 2, unix_nanos })
        });
        tries.min_by_key(|(took, _)| *took).map(|(_, reading)| reading).unwrap_or_default()
    }
}

/// Wall time moved by less than this against kernel time is slewed, not set.
const STEP_NANOS: u64 = 500_000_000;

/// Converts times of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Nanoseconds since the epoch when `CLOCK_BOOTTIME` was 0; before the epoch on a machine that does not know the time.
    epoch: i64,
}

impl Clock {
    /// A clock as of a reading.
    pub fn new(reading: Reading) -> Self {
        Self { epoch: signed(reading.unix_nanos).saturating_sub(signed(reading.boot_nanos)) }
    }

    /// Follows the wall clock from a later reading on. Whether that was set in between.
    pub fn synchronise(&mut self, reading: Reading) -> bool {
        let before = std::mem::replace(self, Self::new(reading));
        self.epoch.abs_diff(before.epoch) >= STEP_NANOS
    }

    /// A time of the kernel in nanoseconds since the Unix epoch; never 0, which means unknown.
    pub fn unix(&self, boot_nanos: u64) -> u64 {
        u64::try_from(signed(boot_nanos).saturating_add(self.epoch)).unwrap_or(0).max(1)
    }
}

fn signed(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const T0: u64 = 1_790_000_000 * SECOND;

    fn reading(boot: u64, unix: u64) -> Reading {
        Reading { boot_nanos: boot, unix_nanos: unix }
    }

    #[test]
    fn slewing_is_no_step() {
        let mut clock = Clock::new(reading(10 * SECOND, T0));
        assert_eq!(clock.unix(10 * SECOND), T0);
        assert_eq!(clock.unix(11 * SECOND), T0 + SECOND);
        // NTP slews by 500 ppm at most: 30 ms in a minute.
        assert!(!clock.synchronise(reading(70 * SECOND, T0 + 60 * SECOND - 30_000_000)));
        assert_eq!(clock.unix(70 * SECOND), T0 + 60 * SECOND - 30_000_000);
    }

    #[test]
    fn steps_in_both_directions() {
        let mut clock = Clock::new(reading(10 * SECOND, T0));
        assert!(clock.synchronise(reading(20 * SECOND, T0 + 3610 * SECOND)));
        assert_eq!(clock.unix(15 * SECOND), T0 + 3605 * SECOND);
        assert!(clock.synchronise(reading(30 * SECOND, T0 - 100 * SECOND)));
        assert_eq!(clock.unix(30 * SECOND), T0 - 100 * SECOND);
    }

    #[test]
    fn a_suspended_machine_steps_nothing() {
        // Both clocks go on: eight hours.
        let mut clock = Clock::new(reading(10 * SECOND, T0));
        assert!(!clock.synchronise(reading((10 + 28_800) * SECOND, T0 + 28_800 * SECOND)));
        assert_eq!(clock.unix(28_810 * SECOND), T0 + 28_800 * SECOND);
    }

    #[test]
    fn order_is_kept_between_two_synchronisations() {
        let clock = Clock::new(reading(5, T0));
        let times: Vec<u64> = (0..1000).map(|n| clock.unix(n * 7)).collect();
        assert!(times.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_clock_that_was_never_set_is_no_panic() {
        let clock = Clock::new(reading(100 * SECOND, 0));
        assert_eq!(
            (clock.unix(5), clock.unix(u64::MAX)),
            (1, u64::try_from(i64::MAX).unwrap() - 100 * SECOND)
        );
    }

    #[test]
    fn this_machines_clocks_are_read_together() {
        let (a, b) = (Reading::now(), Reading::now());
        assert!(b.boot_nanos >= a.boot_nanos && a.unix_nanos > T0 / 2);
        assert!(Clock::new(a).epoch.abs_diff(Clock::new(b).epoch) < 1_000_000_000);
    }
}
