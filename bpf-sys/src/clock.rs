//! The kernel's clocks, by the C library, which the standard library reads them by, too.

use std::time::Duration;

use crate::raw;

/// A clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clock {
    /// Since 1970: `CLOCK_REALTIME`.
    Real,
    /// Since the boot, without the time for which the machine was suspended: `CLOCK_MONOTONIC`.
    Monotonic,
    /// Since the boot: `CLOCK_BOOTTIME`, by which BPF programs mostly tell the time.
    Boot,
    /// CPU time of this process, all threads: `CLOCK_PROCESS_CPUTIME_ID`.
    ProcessCpu,
    /// CPU time of this thread: `CLOCK_THREAD_CPUTIME_ID`.
    ThreadCpu,
}

impl Clock {
    /// What it shows now.
    ///
    /// [`clock_gettime(2)`](https://man7.org/linux/man-pages/man2/clock_gettime.2.html).
    pub fn now(self) -> Duration {
        raw::clock::now(match self {
            Self::Real => libc::CLOCK_REALTIME,
            Self::Monotonic => libc::CLOCK_MONOTONIC,
            Self::Boot => libc::CLOCK_BOOTTIME,
            Self::ProcessCpu => libc::CLOCK_PROCESS_CPUTIME_ID,
            Self::ThreadCpu => libc::CLOCK_THREAD_CPUTIME_ID,
        })
    }

    /// As [`now`](Self::now), in nanoseconds.
    pub fn nanos(self) -> u64 {
        let now = self.now();
        now.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(now.subsec_nanos()))
    }
}

/// How many ticks of `/proc/PID/stat` a second has.
pub fn ticks_per_second() -> u64 {
    raw::clock::setting(libc::_SC_CLK_TCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_on_and_agree_with_the_standard_library() {
        for clock in [Clock::Real, Clock::Monotonic, Clock::Boot, Clock::ProcessCpu, Clock::ThreadCpu] {
            let before = clock.now();
            let mut last = clock.nanos();
            assert!(before > Duration::ZERO && u128::from(last) >= before.as_nanos(), "{clock:?}");
            while u128::from(last) <= before.as_nanos() {
                last = clock.nanos();
            }
        }
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        assert!(Clock::Real.now().abs_diff(since) < Duration::from_secs(1));
        assert!(Clock::Boot.now() + Duration::from_millis(1) > Clock::Monotonic.now());
        assert!(Clock::ProcessCpu.now() >= Clock::ThreadCpu.now());
        assert_eq!(ticks_per_second(), 100);
    }
}
