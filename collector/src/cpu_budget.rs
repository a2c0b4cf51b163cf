//! CPU time that work for hostile processes may take of this thread, in each second.

use bpf_sys::clock::Clock;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// So much a second, and what of it is spent.
#[derive(Debug)]
pub(crate) struct CpuBudget {
    nanos: u64,
    /// A second of the monotonic clock, and the CPU time that was taken in it.
    second: u64,
    spent: u64,
}

impl CpuBudget {
    /// Of that many nanoseconds a second.
    pub fn new(nanos: u64) -> Self {
        Self { nanos, second: 0, spent: 0 }
    }

    /// Whether this second has had it.
    pub fn is_spent(&mut self) -> bool {
        let second = Clock::Monotonic.nanos() / NANOS_PER_SECOND;
        if self.second != second {
            (self.second, self.spent) = (second, 0);
        }
        self.spent > self.nanos
    }

    /// What was taken since `start`, in nanoseconds of the thread's clock ([`Clock::ThreadCpu`]).
    pub fn spend_since(&mut self, start: u64) {
        self.spent += Clock::ThreadCpu.nanos().saturating_sub(start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_spent_until_the_next_second() {
        let mut budget = CpuBudget::new(1000);
        assert!(!budget.is_spent());
        // As if a second had been taken in a second that is not over.
        budget.spend_since(Clock::ThreadCpu.nanos().saturating_sub(1_000_000));
        budget.second = Clock::Monotonic.nanos() / NANOS_PER_SECOND;
        let second = budget.second;
        let is_spent = budget.is_spent();
        assert!(is_spent || budget.second != second);
        budget.second = 0;
        assert!(!budget.is_spent(), "another second has its own");
    }
}
