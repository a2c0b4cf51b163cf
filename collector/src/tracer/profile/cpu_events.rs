//! One event that runs a program, for each CPU that is online.

use bpf_loader::link::Link;
use bpf_loader::program::Program;
use bpf_sys::perf::{self, Scope};
use bpf_sys::uapi::perf::{PERF_FORMAT_TOTAL_TIME_RUNNING, attr_flags};
use bpf_sys::{Errno, PerfEventAttr, PerfFd, PerfType};

use super::accounting::Expected;
use crate::error::{Error, Result};
use crate::sorted::SortedMap;

/// The sampling events. They follow CPUs that come and go, and pause and resume together.
#[derive(Debug)]
pub struct CpuEvents {
    attr: PerfEventAttr,
    events: SortedMap<u32, CpuEvent>,
    expected: Expected,
    paused: bool,
}

#[derive(Debug)]
struct CpuEvent {
    fd: PerfFd,
    /// Nanoseconds that it was on at the last look.
    seen_on: u64,
    // Detaches when dropped; after the event, which it refers to.
    _link: Link,
}

impl CpuEvents {
    /// No events yet; [`open_missing`](Self::open_missing) opens them. What they count is one of `PERF_COUNT_SW_*`, and the
    /// period in its unit.
    pub fn new(counted: u64, period: u64) -> Self {
        Self {
            attr: PerfEventAttr {
                kind: PerfType::SOFTWARE,
                config: counted,
                sample_period: period,
                read_format: PERF_FORMAT_TOTAL_TIME_RUNNING,
                flags: attr_flags::DISABLED,
                ..PerfEventAttr::default()
            },
            events: SortedMap::new(),
            expected: Expected::new(period),
            paused: false,
        }
    }

    /// Whether they are paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Closes the events of CPUs that are gone, or that went and came back, which events do not survive; which CPUs.
    ///
    /// # Errors
    ///
    /// An event cannot be read.
    pub fn close_gone(&mut self, online: &[u32]) -> Result<Vec<u32>> {
        let mut gone = Vec::new();
        for (&cpu, event) in &mut self.events {
            let (counted, on) = event.read()?;
            // An event whose CPU was away is still there, but is not on any more.
            if !online.contains(&cpu) || (!self.paused && on == event.seen_on) {
                gone.push(cpu);
                self.expected.close(cpu, counted);
            }
            event.seen_on = on;
        }
        self.events.retain(|cpu, _| !gone.contains(cpu));
        Ok(gone)
    }

    /// Opens events on CPUs that have none.
    ///
    /// # Errors
    ///
    /// An event cannot be opened or the program not attached.
    pub fn open_missing(&mut self, online: &[u32], program: &Program) -> Result<()> {
        for &cpu in online {
            if !self.events.contains_key(&cpu) {
                if let Some(event) = self.open(cpu, program)? {
                    self.events.insert(cpu, event);
                }
            }
        }
        Ok(())
    }

    /// `None` if the CPU went offline meanwhile.
    fn open(&self, cpu: u32, program: &Program) -> Result<Option<CpuEvent>> {
        let fd = match perf::open(&self.attr, Scope::AllProcesses, Some(cpu), None) {
            Ok(fd) => fd,
            Err(e) if e.errno() == Some(Errno::ENODEV) => return Ok(None),
            Err(error) => return Err(Error::sampling(cpu, error)),
        };
        let link = program.attach_perf_event(&fd).map_err(|error| Error::sampling(cpu, error))?;
        if !self.paused {
            fd.enable(false).map_err(|e| Error::sampling(cpu, e))?;
        }
        // Nothing can have been counted that equals this, so that the first look finds it alive.
        Ok(Some(CpuEvent { fd, seen_on: u64::MAX, _link: link }))
    }

    /// Stops the timers.
    ///
    /// # Errors
    ///
    /// The kernel refuses, which it has no reason to.
    pub fn pause(&mut self) -> Result<()> {
        self.paused = true;
        self.each(|fd| fd.disable(false))
    }

    /// Starts the timers again.
    ///
    /// # Errors
    ///
    /// The kernel refuses, which it has no reason to.
    pub fn resume(&mut self) -> Result<()> {
        self.paused = false;
        self.each(|fd| fd.enable(false))
    }

    fn each(&self, call: impl Fn(&PerfFd) -> bpf_sys::Result<()>) -> Result<()> {
        self.events.iter().try_for_each(|(&cpu, event)| call(&event.fd).map_err(|e| Error::sampling(cpu, e)))
    }

    /// Periods that the program should have seen on each CPU, since the first event was opened.
    ///
    /// # Errors
    ///
    /// An event cannot be read.
    pub fn expected_periods(&self) -> Result<SortedMap<u32, u64>> {
        let counted = self.events.iter().map(|(&cpu, event)| Ok((cpu, event.read()?.0)));
        Ok(self.expected.by_cpu(counted.collect::<Result<Vec<_>>>()?))
    }
}

impl CpuEvent {
    /// What it has counted (a cpu-clock event: the nanoseconds that it was on), and the nanoseconds that it was on.
    fn read(&self) -> Result<(u64, u64)> {
        let mut words = [0; 2];
        self.fd.read(&mut words).map_err(|e| Error::Kernel(e.into()))?;
        Ok((words[0], words[1]))
    }
}
