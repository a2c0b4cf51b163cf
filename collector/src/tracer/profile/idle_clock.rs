//! Time that CPUs were idle, in which timers do not run.

use crate::cpus;
use crate::error::{Error, Result};
use crate::sorted::SortedMap;

/// How long each CPU was idle while the timers were on.
#[derive(Debug, Default)]
pub(super) struct IdleClock {
    /// Idle time of each CPU when its timer was first on, later by what passed while the timers were stopped.
    zero: SortedMap<u32, u64>,
    /// Idle times when the timers were stopped.
    paused: Option<SortedMap<u32, u64>>,
}

impl IdleClock {
    fn now() -> Result<SortedMap<u32, u64>> {
        cpus::read_idle_nanos().map_err(Error::io("/proc/stat"))
    }

    /// Begins to count for CPUs that are new.
    pub fn follow(&mut self, online: &[u32]) -> Result<()> {
        if online.iter().all(|cpu| self.zero.contains_key(cpu)) {
            return Ok(());
        }
        for (cpu, nanos) in Self::now()? {
            self.zero.entry(cpu).or_insert(nanos);
        }
        Ok(())
    }

    /// The timers stop.
    pub fn pause(&mut self) -> Result<()> {
        self.paused = Some(Self::now()?);
        Ok(())
    }

    /// The timers go on.
    pub fn resume(&mut self) -> Result<()> {
        let Some(paused) = self.paused.take() else { return Ok(()) };
        let now = Self::now()?;
        for (cpu, zero) in &mut self.zero {
            let of = |map: &SortedMap<u32, u64>| map.get(cpu).copied().unwrap_or(0);
            *zero += of(&now).saturating_sub(of(&paused));
        }
        Ok(())
    }

    /// Idle nanoseconds of each CPU online, [at most](at_most).
    pub fn read(&self) -> Result<SortedMap<u32, u64>> {
        let now = match &self.paused {
            Some(paused) => paused.clone(),
            None => Self::now()?,
        };
        let tick_nanos = cpus::tick_nanos();
        let since = |(cpu, nanos): (u32, u64)| {
            (cpu, at_most(self.zero.get(&cpu).copied().unwrap_or(nanos), nanos, tick_nanos))
        };
        Ok(now.into_iter().map(since).collect())
    }
}

/// Between two looks at what the kernel shows in whole ticks, there may have been one more. A CPU that was never idle has none.
fn at_most(from: u64, to: u64, tick_nanos: u64) -> u64 {
    match to.saturating_sub(from) {
        0 => 0,
        seen => seen.saturating_add(tick_nanos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_may_have_been_cut_off() {
        assert_eq!(at_most(70, 170, 10), 110);
        assert_eq!(at_most(70, 70, 10), 0, "it was never idle");
        assert_eq!(at_most(70, 60, 10), 0);
    }
}
