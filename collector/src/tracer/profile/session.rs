//! Sampling as one event loop: timers, windows, sideband and names.

mod counts;

use std::fmt;
use std::os::fd::RawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bpf_loader::ring::RingReader;
use bpf_loader::target::RunningTarget;
use bpf_sys::clock::Clock;
#[cfg(feature = "unwind")]
use bpf_sys::uapi::perf::PERF_COUNT_SW_DUMMY;
use bpf_sys::uapi::perf::{PERF_COUNT_SW_CPU_CLOCK, PERF_COUNT_SW_PAGE_FAULTS};
use mio::Token;

use super::accounting::{EarlierPeriods, Skipped};
use super::cpu_events::CpuEvents;
use super::explain::explain;
use super::idle_clock::IdleClock;
use super::naming::WindowInfo;
#[cfg(feature = "unwind")]
use super::off_cpu::Waits;
use super::program::ProfileProgram;
use super::sideband::{Sideband, monotonic_nanos};
use super::symbols::{Since, Symbols, budget_of};
#[cfg(feature = "unwind")]
use super::walks::Misses;
#[cfg(feature = "unwind")]
use super::window::Finished;
use super::{Namer, READS_PER_SECOND};
use crate::aggregate::Samples;
use crate::config::{Config, Filter, Stacks};
use crate::cpus;
use crate::error::{Error, Result};
use crate::model::{Losses, Profile, SampleType};
use crate::poll::EventLoop;
use crate::symbolize::Debuginfod;
use crate::tracer::ladder::Refused;

/// Time between two reads of the kernel's tables and buffers when nothing asks for one earlier.
const TICK: Duration = Duration::from_millis(1000 / READS_PER_SECOND as u64);
/// The window of a session whose owner ends windows as it likes.
pub(crate) const WINDOW_IS_ANOTHERS: Duration = *crate::config::WINDOW_RANGE.end();
/// Token of the ring buffer with fill records.
const FILL: Token = Token(0);
/// Token of the ring buffer with walks to finish.
#[cfg(feature = "unwind")]
const MISSES: Token = Token(1);
/// Token of the ring buffer with waits that have ended.
#[cfg(feature = "unwind")]
const WAITS: Token = Token(2);
/// Token of the thread that names windows.
const NAMED: Token = Token(3);
/// Sideband buffers follow, one for each CPU.
const SIDEBAND: usize = 4;
/// First token that callers may use for sources of their own.
pub const FIRST_FOREIGN_TOKEN: usize = 1 << 16;

/// What is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sampled {
    /// What the events count, `PERF_COUNT_SW_*`.
    counted: u64,
    /// One sample in so many.
    period: u64,
    sample_type: SampleType,
    /// Bytes for maps, and half as many for symbol tables.
    memory: usize,
}

/// Page faults are as many as processes like; tables are made for as many samples a second on each CPU.
const FAULT_SAMPLES_PER_SECOND: u32 = 1000;

/// A running profiler, driven by its owner's calls of [`poll`](Self::poll). Dropping it detaches everything.
pub struct Session {
    config: Config,
    sampled: Sampled,
    events: EventLoop,
    ready: Vec<Token>,
    // The timers go before the program that they run.
    cpu_events: CpuEvents,
    program: ProfileProgram,
    fill: RingReader,
    sideband: Sideband,
    symbols: Symbols,
    namer: Namer,
    /// `None`: stacks are walked along frame pointers.
    #[cfg(feature = "unwind")]
    misses: Option<Misses>,
    /// Where time off the CPU is profiled, and no event sampled.
    #[cfg(feature = "unwind")]
    waits: Option<Waits>,
    samples: Samples,
    next_tick: Instant,
    window: WindowStart,
    skipped: Skipped,
    idle: IdleClock,
    /// What periods of another length came to.
    before: EarlierPeriods,
    /// Samples that kept no stack, and samples that were lost, for want of room outside the kernel.
    no_stack: u64,
    table_full: u64,
    /// When the window was last swapped, in the clock of the process records.
    last_swap: u64,
    started: Instant,
    cpu_nanos_at_start: u64,
}

/// Where the current window began, in every clock and counter.
#[derive(Debug, Clone, Copy)]
struct WindowStart {
    unix_nanos: u64,
    instant: Instant,
    losses: Losses,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Session {
    /// Loads the program, opens the timers and starts sampling.
    ///
    /// # Errors
    ///
    /// The configuration is wrong, or the system lacks what sampling needs; the error says what to do.
    pub fn start(config: Config) -> Result<Self> {
        Self::start_within(config, usize::MAX, &RunningTarget::new())
    }

    /// As [`start`](Self::start), with so many bytes for maps, and half as many for symbol tables, which are the process' own;
    /// on a kernel whose types may come [from elsewhere](crate::kernel_types).
    ///
    /// # Errors
    ///
    /// As of [`start`](Self::start).
    pub fn start_within(config: Config, memory: usize, target: &RunningTarget) -> Result<Self> {
        let period = config.period_nanos();
        Self::sample(
            config,
            Sampled { counted: PERF_COUNT_SW_CPU_CLOCK, period, sample_type: SampleType::CPU, memory },
            target,
        )
    }

    /// As [`start`](Self::start), for stacks of page faults in place of those of CPU time: of one fault in so many on each CPU.
    pub(crate) fn start_faults(
        filter: Filter,
        one_in: u64,
        memory: usize,
        target: &RunningTarget,
    ) -> Result<Self> {
        let config =
            Config { frequency: FAULT_SAMPLES_PER_SECOND, window: WINDOW_IS_ANOTHERS, filter, stacks: None };
        let (counted, sample_type) = (PERF_COUNT_SW_PAGE_FAULTS, SampleType::PAGE_FAULTS);
        Self::sample(config, Sampled { counted, period: one_in.max(1), sample_type, memory }, target)
    }

    /// As [`start_within`](Self::start_within), for the time that threads wait off the CPU in place of CPU time, of waits that are no
    /// shorter than this. They are sampled by how many there are, so the frequency says nothing here.
    ///
    /// # Errors
    ///
    /// As of [`start`](Self::start).
    #[cfg(feature = "unwind")]
    pub fn start_off_cpu(
        config: Config,
        least: Duration,
        memory: usize,
        target: &RunningTarget,
    ) -> Result<Self> {
        config.validate()?;
        let program = ProfileProgram::load_off_cpu(&config, target, READS_PER_SECOND, memory, least);
        let program = program.map_err(explain)?;
        let waits = Waits::open(&program)?;
        let ended = Waits::map(&program)?.try_clone().map_err(Error::kernel)?;
        // No event of that kind is opened.
        let counted = PERF_COUNT_SW_DUMMY;
        let sampled = Sampled { counted, period: 1, sample_type: SampleType::OFF_CPU, memory };
        let mut session = Self::of_program(config, sampled, program)?;
        session.events.add(&ended, WAITS).map_err(Error::io("polling the ring of waits"))?;
        session.waits = Some(waits);
        session.begin()?;
        session.resume().map_err(explain)?;
        Ok(session)
    }

    fn sample(config: Config, sampled: Sampled, target: &RunningTarget) -> Result<Self> {
        config.validate()?;
        let program =
            ProfileProgram::load(&config, target, READS_PER_SECOND, sampled.memory).map_err(explain)?;
        let mut session = Self::of_program(config, sampled, program)?;
        session.begin()?;
        Ok(session)
    }

    fn of_program(config: Config, sampled: Sampled, program: ProfileProgram) -> Result<Self> {
        let events = EventLoop::new().map_err(Error::io("epoll"))?;
        let fill = RingReader::open(program.events()?).map_err(Error::kernel)?;
        events.add(program.events()?, FILL).map_err(Error::io("polling the ring buffer"))?;
        let budget = budget_of(sampled.memory);
        #[cfg_attr(not(feature = "unwind"), expect(unused_mut, reason = "it learns to unwind"))]
        let mut symbols = Symbols::with_budget(budget);
        let namer = Namer::start(budget)?;
        namer.watch(&events, NAMED)?;
        #[cfg(feature = "unwind")]
        let misses = match Misses::open(&program, sampled.memory)? {
            Some((misses, unwinder)) => {
                symbols.unwind_with(unwinder);
                #[cfg(feature = "python")]
                if let Some(pythons) = Misses::pythons(&program)? {
                    symbols.read_python_with(pythons);
                }
                if let Some(spans) = Misses::spans(&program)? {
                    symbols.find_spans_with(spans);
                }
                let map = Misses::map(&program)?;
                events.add(map, MISSES).map_err(Error::io("polling the ring of walks"))?;
                Some(misses)
            }
            None => None,
        };
        Ok(Self {
            cpu_events: CpuEvents::new(sampled.counted, sampled.period),
            sideband: Sideband::new(),
            symbols,
            namer,
            #[cfg(feature = "unwind")]
            misses,
            #[cfg(feature = "unwind")]
            waits: None,
            samples: Samples::default(),
            ready: Vec::new(),
            next_tick: Instant::now() + TICK,
            window: WindowStart::now(Losses::default()),
            skipped: Skipped::default(),
            idle: IdleClock::default(),
            before: EarlierPeriods::default(),
            no_stack: 0,
            table_full: 0,
            last_swap: monotonic_nanos(),
            started: Instant::now(),
            cpu_nanos_at_start: thread_cpu_nanos(),
            config,
            sampled,
            events,
            program,
            fill,
        })
    }

    fn begin(&mut self) -> Result<()> {
        self.follow_cpus().map_err(explain)?;
        self.window = WindowStart::now(Losses::default());
        Ok(())
    }

    /// The loop's registry, for sources of the caller's own, with tokens from [`FIRST_FOREIGN_TOKEN`].
    pub fn registry(&self) -> &mio::Registry {
        self.events.registry()
    }

    /// The loop's epoll descriptor: readable when [`poll`](Self::poll) has something to do before its deadline.
    pub(crate) fn event_loop(&self) -> RawFd {
        self.events.descriptor()
    }

    /// Time in the program as the kernel counts it, and how often it ran.
    pub(crate) fn program_cost(&self) -> Result<(Duration, u64)> {
        self.program.run_time()
    }

    /// Runs of the program, as it counts them itself.
    pub(crate) fn program_runs(&self) -> u64 {
        self.program.stats().map(|(_, stats)| stats.runs).sum()
    }

    /// Waits that were noted, with their stacks, and have ended.
    #[cfg(feature = "unwind")]
    pub(crate) fn waits_noted(&self) -> u64 {
        self.program.stats().map(|(_, stats)| stats.samples + stats.too_short).sum()
    }

    /// Notes one in so many of the waits that it would note, from now on.
    ///
    /// # Errors
    ///
    /// It profiles no waits, or the kernel does not take the number.
    #[cfg(feature = "unwind")]
    pub(crate) fn thin_waits(&self, one_in: u32) -> Result<()> {
        let to = self.program.object().global::<u32>("one_in").map_err(Error::load)?;
        to.set(&one_in).map_err(Error::kernel)
    }

    /// Waits for events, at most until the deadline, and handles the profiler's own. Returns once any event was handled,
    /// with the caller's tokens that are ready.
    ///
    /// # Errors
    ///
    /// The kernel's tables cannot be read any more.
    pub fn poll(&mut self, deadline: Instant) -> Result<Vec<Token>> {
        let mut ready = std::mem::take(&mut self.ready);
        self.events.wait(Some(deadline.min(self.next_tick)), &mut ready).map_err(Error::io("epoll"))?;
        if ready.contains(&FILL) && self.window_is_full()? {
            self.drain()?;
        }
        #[cfg(feature = "unwind")]
        if ready.contains(&MISSES) {
            self.finish_walks()?;
        }
        #[cfg(feature = "unwind")]
        if let Some(waits) = self.waits.as_mut().filter(|_| ready.contains(&WAITS)) {
            waits.drain()?;
        }
        if ready.iter().any(|t| (SIDEBAND..FIRST_FOREIGN_TOKEN).contains(&t.0)) {
            self.sideband.drain(&mut self.symbols)?;
        }
        if Instant::now() >= self.next_tick {
            self.tick()?;
        }
        let foreign = ready.iter().copied().filter(|t| t.0 >= FIRST_FOREIGN_TOKEN).collect();
        self.ready = ready;
        Ok(foreign)
    }

    fn tick(&mut self) -> Result<()> {
        self.next_tick = Instant::now() + TICK;
        self.follow_cpus()?;
        self.drain()
    }

    fn follow_cpus(&mut self) -> Result<()> {
        let online = cpus::read_online().map_err(Error::io("/sys/devices/system/cpu/online"))?;
        // A CPU that went and came back between two looks has left dead events behind, of both kinds.
        let gone = self.cpu_events.close_gone(&online)?;
        self.sideband.close(&gone, &self.events)?;
        // Sideband first: what starts from here on is seen.
        self.sideband.open_missing(&online, &self.events, SIDEBAND)?;
        #[cfg(feature = "unwind")]
        if self.waits.is_some() {
            return Ok(());
        }
        self.cpu_events.open_missing(&online, self.program.sampler()?)?;
        self.idle.follow(&online)
    }

    /// Reads the fill records; whether there was one.
    fn window_is_full(&mut self) -> Result<bool> {
        let drained = self.fill.drain(usize::MAX, |_| {}).map_err(Error::Ring)?;
        Ok(drained.records > 0)
    }

    /// Finishes walks that have missed a page.
    #[cfg(feature = "unwind")]
    fn finish_walks(&mut self) -> Result<()> {
        let Self { misses, sideband, symbols, .. } = self;
        let Some(misses) = misses else { return Ok(()) };
        misses.finish(sideband, symbols)
    }

    /// Moves what was sampled so far out of the kernel.
    fn drain(&mut self) -> Result<()> {
        let now = monotonic_nanos();
        let since = std::mem::replace(&mut self.last_swap, now);
        #[cfg(feature = "unwind")]
        let filled = self.program.swaps();
        self.program.swap()?;
        // After the swap: whatever is in the window has been announced by now.
        self.sideband.drain(&mut self.symbols)?;
        #[cfg(feature = "unwind")]
        self.finish_walks()?;
        #[cfg(feature = "unwind")]
        let finished = self.finished(filled)?;
        #[cfg(not(feature = "unwind"))]
        let finished = Vec::new();
        // Nanoseconds are not what samples are counted in.
        let is_off_cpu = cfg!(feature = "unwind") && self.sampled.sample_type == SampleType::OFF_CPU;
        let lost = if is_off_cpu { |_| 1 } else { |n| n };
        let Self { program, symbols, samples, .. } = self;
        let drained = program.full_window().drain(samples, &mut Since { symbols, since }, finished, lost)?;
        self.no_stack += drained.no_stack;
        self.table_full += drained.table_full;
        self.program.filter().forget_ended()
    }

    /// What of the window that was just filled, and of earlier ones, is counted here and not in the kernel.
    #[cfg(feature = "unwind")]
    fn finished(&mut self, filled: u32) -> Result<Vec<Finished>> {
        let Self { misses, waits, program, .. } = self;
        let Some(waits) = waits else {
            return Ok(misses.as_mut().map(|misses| misses.of_window(filled & 1)).unwrap_or_default());
        };
        let walks = misses.as_mut().map(Misses::of_all_windows).unwrap_or_default();
        waits.end_window(filled, program.full_window(), walks)
    }

    /// Has files for debuggers fetched by this from now on, where they are not on this host; names that need them are made without
    /// until they have come.
    ///
    /// # Errors
    ///
    /// [`Error::ThreadPanicked`], which it has no reason to.
    pub fn fetch_debug_files_with(&mut self, servers: Option<&Debuginfod>) -> Result<()> {
        servers.cloned().map_or(Ok(()), |servers| self.namer.fetch_with(servers))
    }

    /// Has files for debuggers fetched for all that was sampled so far. The window goes on: who waits for the files before it ends has
    /// names by them.
    ///
    /// # Errors
    ///
    /// The kernel's tables cannot be read any more; [`Error::ThreadPanicked`].
    #[cfg(feature = "debuginfod")]
    pub fn want_debug_files(&mut self) -> Result<()> {
        self.drain()?;
        self.symbols.begin_window();
        self.namer.look(&self.samples, &mut self.symbols)
    }

    /// How stacks of processes are walked.
    pub fn stacks(&self) -> Stacks {
        self.program.stacks()
    }

    /// Better ways to walk them, and why the kernel did not take them.
    pub fn refused_stacks(&self) -> &[Refused] {
        self.program.refused()
    }

    /// Whether nothing that the filter lets pass can run any more: it names processes, and all have ended.
    pub fn is_exhausted(&self) -> bool {
        self.program.is_exhausted(&self.config.filter)
    }

    /// Samples other tasks from now on. The window goes on.
    ///
    /// # Errors
    ///
    /// The filter names something that does not exist, or is wrong; [`Error::FilterNeedsRestart`]. The old one stays then.
    pub fn set_filter(&mut self, filter: Filter) -> Result<()> {
        filter.validate()?;
        self.program.set_filter(&filter)?;
        self.config.filter = filter;
        Ok(())
    }

    /// Ends the window and names everything in it; the next one begins.
    ///
    /// # Errors
    ///
    /// The kernel's tables cannot be read any more.
    pub fn finish_window(&mut self) -> Result<Profile> {
        self.end_window()?;
        let mut named = self.settle(None)?;
        let last = named.pop().unwrap_or_default();
        self.namer.keep(named);
        Ok(last)
    }

    /// As [`finish_window`](Self::finish_window), without waiting for the names: a thread of low priority looks for them, and what
    /// [`poll`](Self::poll) returns from is also that a window is [named](Self::named). Where two windows wait for their names already,
    /// it waits, too.
    ///
    /// # Errors
    ///
    /// The kernel's tables cannot be read any more.
    pub fn end_window(&mut self) -> Result<()> {
        self.drain()?;
        let losses = self.counters()?.losses;
        let before = std::mem::replace(&mut self.window, WindowStart::now(losses));
        let info = WindowInfo {
            sample_type: self.sampled.sample_type,
            start_unix_nanos: before.unix_nanos,
            duration_nanos: self.window.instant.duration_since(before.instant).as_nanos() as u64,
            period_nanos: self.sampled.period,
            losses: Losses {
                skipped: losses.skipped - before.losses.skipped,
                table_full: losses.table_full - before.losses.table_full,
                no_stack: losses.no_stack - before.losses.no_stack,
                sideband: losses.sideband - before.losses.sideband,
            },
        };
        let samples = std::mem::take(&mut self.samples);
        self.symbols.begin_window();
        let taken = self.namer.take(samples, info, &mut self.symbols);
        self.symbols.end_window();
        taken
    }

    /// The windows that have ended and have their names now, in their order.
    pub fn named(&mut self) -> Vec<Profile> {
        self.namer.named()
    }

    /// All windows that have ended, once they have their names. What has none at a time that is given stays without: the stacks have
    /// files, build ids and addresses then.
    ///
    /// # Errors
    ///
    /// [`Error::ThreadPanicked`], which it has no reason to.
    pub fn settle(&mut self, until: Option<Instant>) -> Result<Vec<Profile>> {
        self.namer.settle(until)
    }

    /// Stops the timers; what was sampled stays.
    ///
    /// # Errors
    ///
    /// The kernel refuses, which it has no reason to.
    pub fn pause(&mut self) -> Result<()> {
        #[cfg(feature = "unwind")]
        if let Some(waits) = &mut self.waits {
            waits.pause();
            return Ok(());
        }
        self.cpu_events.pause()?;
        self.idle.pause()
    }

    /// Starts the timers again.
    ///
    /// # Errors
    ///
    /// The kernel refuses, which it has no reason to.
    pub fn resume(&mut self) -> Result<()> {
        #[cfg(feature = "unwind")]
        if let Some(waits) = &mut self.waits {
            return waits.resume(&self.program);
        }
        self.idle.resume()?;
        self.cpu_events.resume()
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Kernel memory of maps and rings, in bytes.
    pub fn map_bytes(&self) -> u64 {
        self.program.map_bytes()
    }
}

impl WindowStart {
    fn now(losses: Losses) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { unix_nanos: unix.as_nanos() as u64, instant: Instant::now(), losses }
    }
}

/// CPU time of the calling thread.
fn thread_cpu_nanos() -> u64 {
    Clock::ThreadCpu.nanos()
}
