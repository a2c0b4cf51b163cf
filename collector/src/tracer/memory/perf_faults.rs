//! Page faults as perf events: a program runs at every one.

use bpf_loader::load::Object;
use bpf_sys::uapi::perf::{PERF_COUNT_SW_PAGE_FAULTS_MAJ, PERF_COUNT_SW_PAGE_FAULTS_MIN};

use crate::cpus;
use crate::error::{Error, Result};
use crate::tracer::profile::{CpuEvents, Skipped};

/// The events of both kinds, on all CPUs.
#[derive(Debug)]
pub struct PerfFaults {
    minor: CpuEvents,
    major: CpuEvents,
    skipped: Skipped,
}

impl PerfFaults {
    /// Opens them with their programs.
    ///
    /// # Errors
    ///
    /// The kernel has no perf events, or does not let this user have them.
    pub fn open(object: &Object) -> Result<Self> {
        let mut events = Self {
            minor: CpuEvents::new(PERF_COUNT_SW_PAGE_FAULTS_MIN, 1),
            major: CpuEvents::new(PERF_COUNT_SW_PAGE_FAULTS_MAJ, 1),
            skipped: Skipped::default(),
        };
        events.follow_cpus(object)?;
        Ok(events)
    }

    /// Opens events on CPUs that came, and closes those of CPUs that went.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn follow_cpus(&mut self, object: &Object) -> Result<()> {
        let online = cpus::read_online().map_err(Error::io("/sys/devices/system/cpu/online"))?;
        for (events, program) in [(&mut self.minor, "minor_fault"), (&mut self.major, "major_fault")] {
            events.close_gone(&online)?;
            events.open_missing(&online, object.program(program).map_err(Error::load)?)?;
        }
        Ok(())
    }

    /// Stops counting.
    ///
    /// # Errors
    ///
    /// The kernel refuses, which it has no reason to.
    pub fn pause(&mut self) -> Result<()> {
        self.minor.pause()?;
        self.major.pause()
    }

    /// Goes on counting.
    ///
    /// # Errors
    ///
    /// The kernel refuses, which it has no reason to.
    pub fn resume(&mut self) -> Result<()> {
        self.minor.resume()?;
        self.major.resume()
    }

    /// Faults that the events counted.
    ///
    /// # Errors
    ///
    /// An event cannot be read.
    pub fn expected(&self) -> Result<u64> {
        let (minor, major) = (self.minor.expected_periods()?, self.major.expected_periods()?);
        Ok(minor.values().chain(major.values()).sum())
    }

    /// Faults that the programs have not seen, of what the events counted.
    pub fn skipped(&mut self, expected: u64, runs: u64) -> u64 {
        self.skipped.advance(expected.saturating_sub(runs))
    }
}
