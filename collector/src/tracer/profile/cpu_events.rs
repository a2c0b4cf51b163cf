//! One event that runs a program, for each CPU that is online.

use std::time::Instant;

use bpf_loader::link::Link;
use bpf_loader::program::Program;
use bpf_sys::perf::{self, Scope};
use bpf_sys::uapi::perf::{PERF_COUNT_SW_CPU_CLOCK, PERF_FORMAT_TOTAL_TIME_RUNNING, attr_flags};
use bpf_sys::{Errno, PerfEventAttr, PerfFd, PerfType};

use super::accounting::Expected;
use crate::error::{Error, Result};
use crate::sorted::SortedMap;

/// The sampling events. They follow CPUs that come and go, and pause and resume together.
#[derive(Debug)]
pub struct CpuEvents {
    attr: PerfEventAttr,
    events: SortedMap<u32, CpuEvent>,
    /// CPUs that came and were refused, all of whose periods are missed.
    refused: SortedMap<u32, Missed>,
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

/// Time that a CPU was not sampled.
#[derive(Debug)]
struct Missed {
    nanos: u64,
    until: Instant,
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
            refused: SortedMap::new(),
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
        let expected = &mut self.expected;
        self.refused.retain(|&cpu, missed| {
            let stays = online.contains(&cpu);
            if !stays {
                expected.close(cpu, missed.nanos);
            }
            stays
        });
        Ok(gone)
    }

    /// Opens events on CPUs that have none. Where timers run on others already, one that is refused stops none of them: its
    /// periods are expected, and so are missed.
    ///
    /// # Errors
    ///
    /// An event cannot be opened or the program not attached.
    pub fn open_missing(&mut self, online: &[u32], program: &Program) -> Result<()> {
        // How many of other events there would have been, nobody knows.
        let may_miss = !self.events.is_empty() && self.attr.config == PERF_COUNT_SW_CPU_CLOCK;
        for &cpu in online {
            if self.events.contains_key(&cpu) {
                continue;
            }
            match self.open(cpu, program) {
                Ok(None) => {}
                Ok(Some(event)) => {
                    if let Some(missed) = self.refused.remove(&cpu) {
                        self.expected.close(cpu, missed.nanos);
                    }
                    self.events.insert(cpu, event);
                }
                Err(_) if may_miss => self.miss(cpu, Instant::now()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn miss(&mut self, cpu: u32, now: Instant) {
        let missed = self.refused.entry(cpu).or_insert(Missed { nanos: 0, until: now });
        if !self.paused {
            missed.nanos += now.saturating_duration_since(missed.until).as_nanos() as u64;
        }
        missed.until = now;
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
        let mut counted = counted.collect::<Result<Vec<_>>>()?;
        counted.extend(self.refused.iter().map(|(&cpu, missed)| (cpu, missed.nanos)));
        Ok(self.expected.by_cpu(counted))
    }
}

impl CpuEvent {
    /// What it has counted (a cpu-clock event: the nanoseconds that it was on), and the nanoseconds that it was on.
    fn read(&self) -> Result<(u64, u64)> {
        let mut words = [0; 2];
        self.fd.read(&mut words).map_err(Error::kernel)?;
        Ok((words[0], words[1]))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bpf_loader::target::RunningTarget;
    use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

    use super::*;
    use crate::config::Config;
    use crate::cpus;
    use crate::tracer::profile::ProfileProgram;

    #[test]
    fn a_cpu_that_is_refused_stops_no_other() {
        let online = cpus::read_online().unwrap();
        let program = ProfileProgram::load(&Config::default(), &RunningTarget::new(), 1, 0);
        let (Ok(program), [first, second, ..]) = (program, &online[..]) else {
            println!("SKIP: takes two CPUs, and who may load programs");
            return;
        };
        let sampler = program.sampler().unwrap();
        let mut events = CpuEvents::new(PERF_COUNT_SW_CPU_CLOCK, 1_000_000);
        let held = capabilities(None).unwrap();
        let without = |events: &mut CpuEvents, online: &[u32]| {
            set_capabilities(None, CapabilitySets { effective: CapabilitySet::empty(), ..held }).unwrap();
            let result = events.open_missing(online, sampler);
            set_capabilities(None, held).unwrap();
            result
        };
        if without(&mut events, &online[..2]).is_ok() {
            println!("SKIP: anybody may sample CPUs here");
            return;
        }
        assert!(events.refused.is_empty(), "nothing is sampled: an error, and no loss");
        events.open_missing(&[*first], sampler).unwrap();
        let both = [*first, *second];
        without(&mut events, &both).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        without(&mut events, &both).unwrap();
        let periods = |events: &CpuEvents| events.expected_periods().unwrap().get(second).copied();
        let missed = periods(&events);
        assert!(missed >= Some(19), "{missed:?}");
        events.pause().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        without(&mut events, &both).unwrap();
        assert_eq!(periods(&events), missed, "nobody wants it sampled");
        events.open_missing(&both, sampler).unwrap();
        assert!(events.refused.is_empty() && events.events.contains_key(second));
        assert!(periods(&events) >= missed, "it stays missed");
    }
}
