//! What is traced. One folder a tracer, and one line in [`TRACERS`].
//!
//! A tracer owns BPF programs and their maps. It aggregates in the kernel: [`Tracer::collect`] takes the window's sums out;
//! only rare things become events, which [`Tracer::drain`] reads from a ring.

pub mod cause;
mod cgroup;
pub(crate) mod cost;
pub mod disk;
pub mod dns;
pub mod filter;
pub mod heap;
pub mod ladder;
pub mod memory;
#[cfg(feature = "unwind")]
pub mod off_cpu;
pub mod process;
pub mod profile;
mod programs;
pub mod ring;
pub mod sched;
pub mod syscalls;
pub mod tcp;
pub mod udp;
mod windows;

use std::fmt;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;

use crate::config::Filter;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::model::Profile;
use crate::symbolize::Debuginfod;
use crate::telemetry::{Definitions, Sink, View};
use ladder::{Chosen, Forced, Ladder};

/// A tracer, as the rest of the program knows it.
#[derive(Debug)]
pub struct Info {
    /// Its name: the command, the table of the configuration file, the value of `ebpf.tracer`.
    pub name: &'static str,
    /// The command that runs it alone, or with the others of its kind.
    pub command: &'static str,
    /// What it traces, in a few words.
    pub about: &'static str,
    /// What it tells.
    pub telemetry: Definitions,
    /// What of it is shown to people, the most telling first.
    pub views: &'static [&'static View],
    /// How it gets at it.
    pub ladders: &'static [&'static Ladder],
    /// Whether `run` has it on unless told otherwise.
    pub on_by_default: bool,
    /// Its keys of the configuration: one for each of its [`Settings`].
    pub keys: &'static [Key<Settings>],
    /// Loads and attaches its programs. Nothing is left behind when it fails.
    pub start: fn(&Start<'_>) -> Result<Box<dyn Tracer>>,
}

/// All tracers, in the order in which they are shown.
pub static TRACERS: &[&Info] = &[
    &profile::INFO,
    #[cfg(feature = "unwind")]
    &off_cpu::INFO,
    &syscalls::INFO,
    &tcp::INFO,
    &udp::INFO,
    &dns::INFO,
    &memory::INFO,
    &heap::INFO,
    &sched::INFO,
    &disk::INFO,
    &process::INFO,
];

/// What a tracer is started with.
#[derive(Debug)]
pub struct Start<'a> {
    /// Which tasks to look at.
    pub filter: &'a Filter,
    /// Settings of every tracer; each takes its own.
    pub settings: &'a Settings,
    /// Kernel memory for maps and rings, in bytes. A tracer takes no more, unless it cannot work with so little.
    pub memory: usize,
    /// Rungs to use whatever the kernel has better.
    pub forced: &'a Forced,
    /// The running kernel; its types are read once for all tracers.
    pub target: &'a RunningTarget,
}

/// Settings of all tracers: one field a tracer, and what they share.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// Who fetches files for debuggers, for all that make names.
    pub debuginfod: Option<Debuginfod>,
    /// Of the CPU profiler.
    pub profile: profile::Settings,
    /// Of the off-CPU profiler.
    #[cfg(feature = "unwind")]
    pub off_cpu: off_cpu::Settings,
    /// Of the memory tracer.
    pub memory: memory::Settings,
    /// Of the heap tracer.
    pub heap: heap::Settings,
    /// Of the TCP tracer.
    pub tcp: tcp::Settings,
    /// Of the system call tracer.
    pub syscalls: syscalls::Settings,
    /// Of the DNS tracer.
    pub dns: dns::Settings,
}

/// Its name alone: what tracers hold takes 25 KB of code to print.
impl fmt::Debug for dyn Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tracer").field(&self.info().name).finish()
    }
}

/// A tracer that runs. Dropping it detaches and frees everything.
pub trait Tracer {
    /// What it is.
    fn info(&self) -> &'static Info;

    /// The rung in use of each ladder.
    fn rungs(&self) -> &[Chosen];

    /// Descriptors that become readable when a ring is filling up. They stay the same while the tracer lives.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// An epoll descriptor of the tracer's own, where it has one beside or instead of
    /// [`descriptors`](Self::descriptors): readable when there is something to [`drain`](Self::drain).
    fn event_loop(&self) -> Option<RawFd> {
        None
    }

    /// Reads what is in the rings. Called on a timer and when a descriptor is readable.
    ///
    /// # Errors
    ///
    /// A ring is not as the kernel writes it.
    fn drain(&mut self, sink: &mut dyn Sink) -> Result<()> {
        let _ = sink;
        Ok(())
    }

    /// Hands over what was counted since it was asked last, and begins anew. Nothing is counted twice or lost in between. Profiles follow,
    /// once their names were looked for: [`drain`](Self::drain), or [`settle`](Self::settle).
    ///
    /// # Errors
    ///
    /// The kernel's tables cannot be read.
    fn collect(&mut self, sink: &mut dyn Sink) -> Result<()>;

    /// What windows that were collected have left to be worked on, once that is done: profiles whose names are looked for.
    /// Otherwise [`drain`](Self::drain) hands it over, as it comes. Names that were not found at `until` are given up.
    ///
    /// # Errors
    ///
    /// What works on it has failed.
    fn settle(&mut self, until: Option<Instant>) -> Result<Vec<Profile>> {
        let _ = until;
        Ok(Vec::new())
    }

    /// Detaches the programs: nothing is slowed down any more. What was counted stays.
    ///
    /// # Errors
    ///
    /// The kernel refuses, which it has no reason to.
    fn pause(&mut self) -> Result<()>;

    /// Goes on after [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// The kernel does not take the programs any more.
    fn resume(&mut self) -> Result<()>;

    /// Whether it is attached.
    fn is_running(&self) -> bool;

    /// Looks at other tasks from now on.
    ///
    /// # Errors
    ///
    /// The filter names something that does not exist; [`Error::FilterNeedsRestart`]. The old one stays then.
    fn set_filter(&mut self, filter: &Filter) -> Result<()>;

    /// Takes only one in so many of what may be sampled (latencies, stacks, allocations), at once; 1 is all. Counts stay exact.
    /// Returns what it does: where it knows no sampling so sparse, its sparsest.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where there is nothing to sample.
    fn set_sampling(&mut self, one_in: u32) -> Result<u32> {
        let _ = one_in;
        Err(Box::new(Error::Unsupported { tracer: self.info().name, what: "sample" }))
    }

    /// What became of everything, since the start.
    ///
    /// # Errors
    ///
    /// The kernel's counters cannot be read.
    fn stats(&mut self) -> Result<Stats>;

    /// What it costs. Cheap enough to be asked every second.
    ///
    /// # Errors
    ///
    /// The kernel's counters cannot be read.
    fn overhead(&self) -> Result<Overhead>;

    /// Kernel memory of maps and rings, in bytes. Takes some 5 µs a map.
    fn map_bytes(&self) -> u64;
}

/// How full a ring was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingFill {
    /// Bytes that were taken.
    pub bytes: u64,
    /// Bytes that it holds; 0 where there is no ring.
    pub size: u64,
}

impl RingFill {
    /// As a share of the ring.
    pub fn share(self) -> f64 {
        if self.size == 0 { 0.0 } else { self.bytes as f64 / self.size as f64 }
    }

    /// The fuller one.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        if self.size == 0 || other.share() > self.share() { other } else { self }
    }
}

/// What became of everything since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Times that a program had something to count or tell.
    pub hits: u64,
    /// Events that programs wanted to send.
    pub produced: u64,
    /// Events that were read. Once a ring is drained, this and the drops for want of room in the ring make up `produced`.
    pub received: u64,
    /// What is missing, by one of the causes in [`cause`].
    pub dropped: Vec<(&'static str, u64)>,
    /// The fullest a ring was before it was read.
    pub ring_high_water: RingFill,
    /// Entries used and entries there are, by map, as of the last [`Tracer::collect`].
    pub map_fill: Vec<(&'static str, u64, u64)>,
}

impl Stats {
    /// Adds what was counted before; how full maps are is of now.
    pub fn add(&mut self, before: &Self) {
        self.hits += before.hits;
        self.produced += before.produced;
        self.received += before.received;
        self.ring_high_water = self.ring_high_water.max(before.ring_high_water);
        for (cause, count) in &before.dropped {
            match self.dropped.iter_mut().find(|(own, _)| own == cause) {
                Some((_, own)) => *own += count,
                None => self.dropped.push((cause, *count)),
            }
        }
    }

    /// All that is missing.
    pub fn total_dropped(&self) -> u64 {
        self.dropped.iter().map(|(_, n)| n).sum()
    }
}

/// Nanoseconds of `CLOCK_BOOTTIME`, by which programs tell the time.
pub(crate) fn boot_nanos() -> u64 {
    bpf_sys::clock::Clock::Boot.nanos()
}

/// What a tracer costs, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Overhead {
    /// Times that its hooks were hit, as far as its programs count them: a filter may keep hits out.
    pub hits: u64,
    /// What a hit costs whoever hits it on this machine, entry into the program included, as far as it is known: calibrated.
    pub nanos_per_hit: f64,
    /// Time in its programs as the kernel counts it: only while its statistics are on.
    pub program_time: Duration,
    /// Runs of its programs as the kernel counts them: only while its statistics are on.
    pub runs: u64,
}
