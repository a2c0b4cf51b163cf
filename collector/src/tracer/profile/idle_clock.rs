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

    /// Idle nanoseconds of each CPU online, at most: the kernel counts ticks of 10 ms, of which one may be missing at either
    /// end, but a CPU that was never idle has none.
    pub fn read(&self) -> Result<SortedMap<u32, u64>> {
        let now = match &self.paused {
            Some(paused) => paused.clone(),
            None => Self::now()?,
        };
        let since = |(cpu, nanos): (u32, u64)| {
            (cpu, nanos.saturating_sub(self.zero.get(&cpu).copied().unwrap_or(nanos)))
        };
        Ok(now.into_iter().map(since).collect())
    }
}
