//! CPU time that work for hostile processes may take of this thread.

use bpf_sys::clock::Clock;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// So much a second, and some at once after a while of less.
#[derive(Debug)]
pub(crate) struct CpuBudget {
    /// Nanoseconds that come each second, and the most that may wait.
    each_second: u32,
    most: i64,
    /// What is there; below zero, what was taken too much is to come first.
    left: i64,
    /// When that was, by the monotonic clock.
    at: u64,
}

impl CpuBudget {
    /// Of that many nanoseconds a second, and at once at most so many, which are there from the beginning.
    pub fn new(each_second: u32, most: u32) -> Self {
        let most = most.into();
        Self { each_second, most, left: most, at: Clock::Monotonic.nanos() }
    }

    /// Whether nothing is left now.
    pub fn is_spent(&mut self) -> bool {
        self.advance(Clock::Monotonic.nanos());
        self.left <= 0
    }

    fn advance(&mut self, now: u64) {
        let elapsed = u128::from(now.saturating_sub(self.at));
        let new = elapsed * u128::from(self.each_second) / NANOS_PER_SECOND;
        // Time in which less than a nanosecond came counts at the next look.
        if new > 0 {
            self.left = self.left.saturating_add(i64::try_from(new).unwrap_or(i64::MAX)).min(self.most);
            self.at = now;
        }
    }

    /// What was taken since `start`, in nanoseconds of the thread's clock ([`Clock::ThreadCpu`]).
    pub fn spend_since(&mut self, start: u64) {
        let spent = Clock::ThreadCpu.nanos().saturating_sub(start);
        self.left = self.left.saturating_sub(i64::try_from(spent).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = NANOS_PER_SECOND as u64;

    #[test]
    fn it_is_there_at_once_and_comes_again_by_the_second() {
        let mut budget = CpuBudget::new(1_000, 5_000);
        assert!(!budget.is_spent());
        let at = budget.at;
        budget.left -= 7_000;
        budget.advance(at + SECOND);
        assert_eq!(budget.left, -1_000, "what was taken too much is paid back");
        budget.advance(at + 3 * SECOND);
        assert_eq!(budget.left, 1_000);
        budget.advance(u64::MAX);
        assert_eq!(budget.left, 5_000, "no more than that waits");
        budget.spend_since(Clock::ThreadCpu.nanos().saturating_sub(6_000));
        assert!(budget.left <= -1_000 && budget.is_spent());
    }

    #[test]
    fn looks_in_quick_succession_lose_nothing() {
        let mut budget = CpuBudget::new(300_000_000, 1_000_000_000);
        let at = budget.at;
        budget.left = 0;
        (1..=1_000_000).for_each(|n| budget.advance(at + n * 1_000));
        assert_eq!(budget.left, 300_000_000);
    }
}
