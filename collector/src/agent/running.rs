//! Tracers in one event loop.

use bpf_loader::text::join;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use bpf_sys::clock::Clock;
use bytes::Bytes;
use mio::{Registry, Token};

use super::budget::{Budget, Resident};
use super::config::{AgentConfig, TracerConfig};
use super::governor::{Governor, Reading};
use super::health::Server;
use super::meter::{ENTRY_NANOS, STATISTICS_EVERY, process_time, statistics};
use super::order::Order;
use super::pacing::Pacing;
use super::report::{Failure, Report};
use super::slot::Slot;
use crate::error::{Error, Result};
use crate::kernel_types::KernelTypes;
use crate::model::Profile;
use crate::poll::EventLoop;
#[cfg(feature = "debuginfod")]
use crate::symbolize::Debuginfod;
use crate::telemetry::Sink;
use crate::tracer::profile::hand_over;
use crate::tracer::{Info, Start, Stats, TRACERS, cost, filter};
use crate::units::{share_of, show_fixed};

/// How often the governor looks while everything is attached.
const TICK: Duration = Duration::from_secs(2);
/// The cycle of tracers that are attached part of the time, after which the governor looks then. Attaching and detaching takes
/// half a millisecond to two a tracer, and some more in interrupts of all CPUs, so that the cycle is no shorter.
const CYCLE: Duration = Duration::from_secs(10);
/// Tokens of the health endpoint, then of tracers by their place in [`TRACERS`]; those from here on are the caller's.
const TRACER_TOKENS: usize = 1000;
/// How long a tracer that is stopped may look for names.
const NAMES: Duration = Duration::from_secs(2);
/// First token that the caller may use.
pub const FIRST_FOREIGN_TOKEN: usize = 2000;

/// The tracers that run, and all that keeps them in bounds. The caller says when windows end, and takes what was found.
pub struct Agent {
    /// Tracers that there are.
    known: &'static [&'static Info],
    config: AgentConfig,
    types: KernelTypes,
    events: EventLoop,
    ready: Vec<Token>,
    slots: Vec<Slot>,
    failures: Vec<Failure>,
    /// What tracers had counted that were stopped, or failed.
    before: Vec<(&'static str, Stats)>,
    /// Profiles of tracers that have failed.
    late: Vec<Profile>,
    notes: Vec<String>,
    warnings: Vec<String>,
    budget: Budget,
    over_budget: bool,
    resident: Resident,
    /// Whether a window has ended since memory was given back.
    gives_back: bool,
    governor: Governor,
    pacing: Pacing,
    order: Order,
    server: Option<Server>,
    /// What the endpoint says under `/metrics`.
    metrics: Bytes,
    /// What the entry into a program takes on this machine.
    entry_nanos: f64,
    statistics: Option<OwnedFd>,
    ticks: u32,
    /// Lengths of a tick with and without tracers that are attached part of the time, and of this one.
    lengths: [Duration; 2],
    length: Duration,
    tick_start: Instant,
    cpu_at_tick: Duration,
    window_start: Instant,
    last_drain: Instant,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("config", &self.config)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// Starts every tracer that is enabled, with windows of this length. What cannot start is in [`failures`](Self::failures).
    ///
    /// # Errors
    ///
    /// No tracer starts: the error of the first. The address to listen on is taken.
    pub fn start(config: AgentConfig, interval: Duration) -> Result<Self> {
        Self::start_some(TRACERS, config, interval)
    }

    /// As [`start`](Self::start), of these tracers.
    pub(super) fn start_some(
        known: &'static [&'static Info],
        config: AgentConfig,
        interval: Duration,
    ) -> Result<Self> {
        let events = EventLoop::new().map_err(Error::io("epoll"))?;
        let server = config.agent.listen.map(|address| Server::bind(address, events.registry())).transpose();
        let server = server.map_err(Error::io("cannot listen for health checks"))?;
        let now = Instant::now();
        let mut resident = Resident::default();
        let mut agent = Self {
            known,
            budget: Budget::of_machine(config.agent.memory_budget, resident.read()),
            governor: Governor::new(config.agent.cpu_limit, interval),
            types: KernelTypes::find(config.agent.btf.as_deref())?,
            config,
            events,
            ready: Vec::new(),
            slots: Vec::new(),
            failures: Vec::new(),
            before: Vec::new(),
            late: Vec::new(),
            notes: Vec::new(),
            warnings: Vec::new(),
            over_budget: false,
            resident,
            gives_back: false,
            pacing: Pacing::default(),
            order: Order::default(),
            server,
            metrics: Bytes::new(),
            entry_nanos: cost::on_this_machine(ENTRY_NANOS),
            statistics: statistics(),
            ticks: 0,
            lengths: [CYCLE, TICK],
            length: TICK,
            tick_start: now,
            cpu_at_tick: Duration::ZERO,
            window_start: now,
            last_drain: now,
        };
        let wanted = agent.wanted();
        if let Some(error) = agent.start_tracers(&wanted, &[]).filter(|_| agent.slots.is_empty()) {
            return Err(error);
        }
        agent.notes.push(agent.budget.to_string());
        give_back();
        let resident = agent.resident.read();
        agent.watch_memory(resident);
        // What starting took is no cost of tracing. The window began when the first tracer did.
        let started = Instant::now();
        agent.slots.iter_mut().for_each(|slot| slot.begin_window(started));
        agent.window_start = started;
        agent.begin_tick(Instant::now(), process_time());
        Ok(agent)
    }

    /// Tracers that are enabled and do not run, in the order in which they are shown.
    fn wanted(&self) -> Vec<&'static Info> {
        let enabled = |info: &Info| self.config.tracers.get(info.name).is_some_and(|tracer| tracer.enabled);
        let runs = |info: &Info| self.slots.iter().any(|slot| slot.info.name == info.name);
        self.known.iter().copied().filter(|info| enabled(info) && !runs(info)).collect()
    }

    fn place(&self, info: &Info) -> usize {
        self.known.iter().position(|known| known.name == info.name).unwrap_or(self.known.len())
    }

    /// The first error.
    fn start_tracers(&mut self, wanted: &[&'static Info], ran_before: &[&'static str]) -> Option<Box<Error>> {
        // The kernel's types take some memory: they are let go again.
        let target = self.types.target();
        let mut first = None;
        for (at, info) in wanted.iter().enumerate() {
            let later: Vec<&str> = wanted.iter().skip(at + 1).map(|info| info.name).collect();
            self.failures.retain(|failure| failure.name != info.name);
            if let Err(error) = self.start_tracer(info, &later, &target) {
                let asked = self.config.tracers.get(info.name).is_some_and(|tracer| tracer.asked);
                self.fail(info.name, &error, asked || ran_before.contains(&info.name));
                first.get_or_insert(error);
            }
        }
        first
    }

    fn start_tracer(&mut self, info: &'static Info, later: &[&str], target: &RunningTarget) -> Result<()> {
        let tracer_config = self.config.tracers.get(info.name).cloned().unwrap_or_default();
        let started = (info.start)(&Start {
            filter: &self.config.filter,
            settings: &self.config.settings,
            memory: usize::try_from(self.budget.offer(info.name, later)).unwrap_or(usize::MAX),
            forced: &tracer_config.rungs,
            target,
        })?;
        for chosen in started.rungs().iter().filter(|chosen| !chosen.refused.is_empty()) {
            let refused: Vec<String> = chosen
                .refused
                .iter()
                .map(|refused| format!("{}: {}", refused.rung, refused.reason))
                .collect();
            let rung = chosen.rung.map_or("unavailable".to_owned(), |rung| format!("by {rung}"));
            self.notes.push(format!(
                "{}: {} {rung}; not by {}",
                info.name,
                chosen.what,
                join(&refused, "; not by ")
            ));
        }
        let token = Token(TRACER_TOKENS + self.place(info));
        let slot = Slot::new(info, started, self.events.registry(), token, self.window_start)?;
        self.budget.took(info.name, slot.tracer.map_bytes());
        self.resident.look_again();
        self.governor.add(info.name, slot.samples);
        // In the order in which they are shown.
        let place = |name| self.known.iter().position(|info| info.name == name);
        let at = self.slots.partition_point(|other| place(other.info.name) <= place(info.name));
        self.slots.insert(at, slot);
        Ok(())
    }

    fn fail(&mut self, name: &'static str, error: &Error, counts: bool) {
        self.warnings.push(format!("{name}: {error}"));
        self.failures.push(Failure { name, error: error.to_string(), counts });
    }

    /// Where the caller's own sources are registered, with tokens from [`FIRST_FOREIGN_TOKEN`].
    pub fn registry(&self) -> &Registry {
        self.events.registry()
    }

    /// What it is told.
    pub fn config(&self) -> &AgentConfig {
        &self.config
    }

    /// The memory budget.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Tracers that do not run, though they are enabled.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// What there is to tell the user, since this was asked last.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// What went wrong, since this was asked last.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Tracers that run, in the order in which they are shown.
    pub fn running(&self) -> impl Iterator<Item = &'static str> {
        self.slots.iter().map(|slot| slot.info.name)
    }

    /// Where it listens, if it does, with the port that the system chose.
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        self.server.as_ref()?.address().ok()
    }

    #[cfg(test)]
    pub(super) fn slots_mut(&mut self) -> &mut [Slot] {
        &mut self.slots
    }

    #[cfg(test)]
    pub(super) fn set_ticks(&mut self, length: Duration) {
        (self.lengths, self.length) = ([length; 2], length);
        self.governor.set_settle(2 * length);
    }

    /// Sets what the endpoint says under `/metrics`.
    pub fn set_metrics(&mut self, text: Bytes) {
        self.metrics = text;
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let mut next = (self.last_drain + self.pacing.period()).min(self.tick_start + self.length);
        for slot in self.slots.iter().filter(|slot| slot.allowance.attached < 1.0) {
            let pause = self.tick_start + share_of(self.length, slot.allowance.attached);
            if pause > now {
                next = next.min(pause);
            }
        }
        self.server.as_ref().and_then(Server::deadline).map_or(next, |deadline| next.min(deadline))
    }

    /// Waits until something happens, at most until a time, and does what is to be done. Returns the caller's own tokens that
    /// are ready.
    ///
    /// # Errors
    ///
    /// The event loop fails. A tracer that fails is stopped, and the others go on.
    pub fn poll(&mut self, until: Instant, sink: &mut dyn Sink) -> Result<Vec<Token>> {
        let mut ready = std::mem::take(&mut self.ready);
        let deadline = until.min(self.next_deadline(Instant::now()));
        self.events.wait(Some(deadline), &mut ready).map_err(Error::io("epoll"))?;
        let now = Instant::now();
        let is_tracers = |token: &Token| (TRACER_TOKENS..FIRST_FOREIGN_TOKEN).contains(&token.0);
        let woken = ready.iter().any(is_tracers);
        if woken || now >= self.last_drain + self.pacing.period() {
            // The profiler's loop also wakes for its own timers, which says nothing of rings.
            let ring = ready.iter().copied().filter(is_tracers).any(|token| self.has_ring(token));
            self.pacing.drained(now.saturating_duration_since(self.last_drain), ring);
            self.last_drain = now;
            self.drain(sink);
        }
        self.attach_and_detach(now);
        if now >= self.tick_start + self.length {
            self.tick(now);
        }
        self.serve(&ready, now);
        let foreign = ready.iter().copied().filter(|token| token.0 >= FIRST_FOREIGN_TOKEN).collect();
        self.ready = ready;
        Ok(foreign)
    }

    fn has_ring(&self, token: Token) -> bool {
        let info = token.0.checked_sub(TRACER_TOKENS).and_then(|place| self.known.get(place));
        let slot = info.and_then(|info| self.slots.iter().find(|slot| slot.info.name == info.name));
        slot.is_some_and(|slot| !slot.tracer.descriptors().is_empty())
    }

    /// Does something with every tracer; one that fails is stopped.
    fn each(&mut self, mut work: impl FnMut(&mut Slot, &mut Order) -> Result<()>) {
        let mut failed = Vec::new();
        for slot in &mut self.slots {
            if let Err(error) = work(slot, &mut self.order) {
                failed.push((slot.info.name, error));
            }
        }
        for (name, error) in failed {
            // What it has collected before.
            if let Some(slot) = self.slots.iter_mut().find(|slot| slot.info.name == name) {
                self.late.extend(slot.tracer.settle(Some(Instant::now() + NAMES)).unwrap_or_default());
            }
            self.remove(name);
            self.fail(name, &error, true);
        }
    }

    fn hand_over_late(&mut self, sink: &mut dyn Sink) {
        hand_over(std::mem::take(&mut self.late), sink);
    }

    fn remove(&mut self, name: &str) {
        let registry = self.events.registry();
        for slot in self.slots.iter_mut().filter(|slot| slot.info.name == name) {
            slot.leave(registry);
            // Of one that failed, as far as it still knows.
            let Ok(mut stats) = slot.tracer.stats() else { continue };
            stats.map_fill.clear();
            match self.before.iter_mut().find(|(own, _)| *own == name) {
                Some((_, before)) => before.add(&stats),
                None => self.before.push((slot.info.name, stats)),
            }
        }
        self.slots.retain(|slot| slot.info.name != name);
        self.governor.remove(name);
        self.budget.freed(name);
        self.resident.look_again();
    }

    /// Reads all rings.
    fn drain(&mut self, sink: &mut dyn Sink) {
        let before = boot_nanos();
        self.each(|slot, order| slot.timed(|tracer| tracer.drain(&mut order.before(sink))));
        self.hand_over_late(sink);
        self.order.release(before, sink);
    }

    /// Ends the window: hands over what was counted in it, and says how the agent fares.
    pub fn collect(&mut self, sink: &mut dyn Sink) -> Report {
        self.drain(sink);
        let now = Instant::now();
        self.last_drain = now;
        self.each(|slot, order| slot.timed(|tracer| tracer.collect(&mut order.before(sink))));
        self.order.release(boot_nanos(), sink);
        let report = self.report_at(now);
        self.slots.iter_mut().for_each(|slot| slot.begin_window(now));
        self.window_start = now;
        self.gives_back = true;
        self.watch_memory(report.resident);
        #[cfg(feature = "debuginfod")]
        if let Some(why) = self.config.settings.debuginfod.as_ref().and_then(Debuginfod::take_failure) {
            self.warnings.push(format!("debuginfod: {why}"));
        }
        report
    }

    /// Hands over what windows that have ended have left to be worked on, and waits for that. Names that were not found at `until`
    /// are given up, which the last window's report says then.
    pub fn settle(&mut self, until: Option<Instant>, report: &mut Report, sink: &mut dyn Sink) {
        self.each(|slot, _| {
            hand_over(slot.timed(|tracer| tracer.settle(until))?, sink);
            Ok(())
        });
        self.hand_over_late(sink);
        for now in self.report().tracers {
            if let Some(tracer) = report.tracers.iter_mut().find(|tracer| tracer.name == now.name) {
                tracer.stats = now.stats;
            }
        }
    }

    /// How the agent fares, in the middle of a window.
    pub fn report(&mut self) -> Report {
        self.report_at(Instant::now())
    }

    fn report_at(&mut self, now: Instant) -> Report {
        let mut tracers = Vec::new();
        self.each(|slot, _| {
            tracers.push(slot.report(now)?);
            Ok(())
        });
        let mut ended = self.before.clone();
        for report in &mut tracers {
            if let Some(at) = ended.iter().position(|(name, _)| *name == report.name) {
                report.stats.add(&ended.swap_remove(at).1);
            }
            report.cost = self.governor.cost_of(report.name);
            self.budget.took(report.name, report.map_bytes);
        }
        Report {
            window: now.saturating_duration_since(self.window_start),
            tracers,
            ended,
            failures: self.failures.clone(),
            cpu_time: process_time(),
            cost: self.governor.cost(),
            resident: self.resident.read(),
            budget: self.budget.total,
            #[cfg(feature = "debuginfod")]
            debuginfod: self.config.settings.debuginfod.as_ref().map(Debuginfod::counts),
        }
    }

    /// Says once when the budget is passed.
    fn watch_memory(&mut self, resident: u64) {
        let used = self.budget.used(resident);
        let over = used > self.budget.total;
        if over && !self.over_budget {
            let mebi = |bytes: u64| show_fixed(bytes as f64 / f64::from(1 << 20), 1);
            self.warnings.push(format!(
                "memory: {}M in use are more than memory_budget, {}M: process {}M, maps and rings {}M{}",
                mebi(used),
                mebi(self.budget.total),
                mebi(resident),
                mebi(self.budget.kernel_bytes()),
                if self.budget.kernel_bytes() > self.budget.kernel {
                    ", which are as small as they can be"
                } else {
                    ""
                }
            ));
        }
        self.over_budget = over;
    }

    fn attach_and_detach(&mut self, now: Instant) {
        let (cycle, into) = (self.length, now.saturating_duration_since(self.tick_start));
        self.each(|slot, _| {
            let wanted = slot.wants_attached(into, cycle);
            slot.set_attached(wanted)
        });
    }

    fn begin_tick(&mut self, now: Instant, cpu_time: Duration) {
        let [with_partial, all_attached] = self.lengths;
        let partial = self.slots.iter().any(|slot| slot.allowance.attached < 1.0);
        self.length = if partial { with_partial } else { all_attached };
        self.tick_start = now;
        self.cpu_at_tick = cpu_time;
        let on = self.ticks % STATISTICS_EVERY == 0;
        if on != self.statistics.is_some() {
            self.statistics = if on { statistics() } else { None };
        }
        self.ticks = self.ticks.wrapping_add(1);
        self.attach_and_detach(now);
    }

    fn tick(&mut self, now: Instant) {
        let (entry, measured) = (self.entry_nanos, self.statistics.is_some());
        let elapsed = now.saturating_duration_since(self.tick_start);
        let mut readings = Vec::new();
        self.each(|slot, _| {
            let (hooks, own) = slot.meter.read(slot.tracer.overhead()?, elapsed, entry, measured);
            readings.push(Reading { tracer: slot.info.name, hooks, own });
            Ok(())
        });
        let cpu_time = process_time();
        let spent = cpu_time.saturating_sub(self.cpu_at_tick);
        let rest = spent.saturating_sub(readings.iter().map(|reading| reading.own).sum());
        let was_stuck = self.governor.is_stuck();
        if let Some(change) = self.governor.tick(elapsed, rest, &readings) {
            self.notes.push(change.to_string());
            self.each(|slot, _| if slot.info.name == change.tracer { slot.apply(&change) } else { Ok(()) });
            if let Some(slot) = self.slots.iter().find(|slot| slot.info.name == change.tracer) {
                self.governor.samples(change.tracer, slot.allowance.one_in);
            }
            // What a hit takes now is to be known before it is judged.
            if change.to.one_in != change.from.one_in {
                self.ticks = 0;
            }
        }
        if self.governor.is_stuck() && !was_stuck {
            self.notes.push(format!(
                "tracing costs {} % of a core, more than cpu_limit, and there is nothing left to sample less or detach",
                show_fixed(self.governor.cost() * 100.0, 2)
            ));
        }
        // What ends a window is not used before the next one ends, nor what it freed.
        if std::mem::take(&mut self.gives_back) {
            give_back();
        }
        self.begin_tick(now, cpu_time);
    }

    fn serve(&mut self, ready: &[Token], now: Instant) {
        let Some(server) = &mut self.server else { return };
        let (slots, failures, metrics) = (&self.slots, &self.failures, &self.metrics);
        let pages = |path: &str| match path {
            "/healthz" => Some((!slots.is_empty(), "ok\n".into())),
            "/readyz" => {
                let not: String = failures.iter().map(|f| format!("{}: {}\n", f.name, f.error)).collect();
                let ready = !slots.is_empty() && !failures.iter().any(|failure| failure.counts);
                Some((ready, if not.is_empty() { "ok\n".into() } else { not.into() }))
            }
            "/metrics" => Some((true, metrics.clone())),
            _ => None,
        };
        server.handle(self.events.registry(), ready, now, &pages);
    }

    /// Takes another configuration while it runs: changes what can be changed, and starts tracers again where it cannot. What
    /// was counted so far goes to `sink`.
    ///
    /// # Errors
    ///
    /// The filter names something that does not exist: everything stays as it is.
    pub fn reload(&mut self, config: AgentConfig, sink: &mut dyn Sink) -> Result<()> {
        filter::needs_kernel_types(&config.filter)?;
        let types = KernelTypes::find(config.agent.btf.as_deref())?;
        let other_types = types != self.types;
        self.types = types;
        let old = std::mem::replace(&mut self.config, config);
        self.governor.set_limit(self.config.agent.cpu_limit);
        if self.config.agent.listen != old.agent.listen {
            self.listen();
        }
        if self.config.agent.memory_budget != old.agent.memory_budget {
            let budget = Budget::of_machine(self.config.agent.memory_budget, self.budget.process);
            let before = std::mem::replace(&mut self.budget, budget);
            self.budget.tracers = before.tracers;
        }
        let mut restart: Vec<&'static str> = Vec::new();
        let mut stop: Vec<&'static str> = Vec::new();
        for slot in &mut self.slots {
            let info = slot.info;
            let tracer = |config: &AgentConfig| config.tracers.get(info.name).cloned().unwrap_or_default();
            let (before, after): (TracerConfig, TracerConfig) = (tracer(&old), tracer(&self.config));
            let settings =
                info.keys.iter().any(|key| (key.get)(&old.settings) != (key.get)(&self.config.settings));
            let memory = self.config.agent.memory_budget != old.agent.memory_budget;
            if !after.enabled {
                stop.push(info.name);
            } else if settings || memory || other_types || before.rungs != after.rungs {
                restart.push(info.name);
            } else if self.config.filter != old.filter && slot.tracer.set_filter(&self.config.filter).is_err()
            {
                // Where that is for a reason, starting again says so.
                restart.push(info.name);
            }
        }
        // Nothing that was counted is lost.
        let until = Some(Instant::now() + NAMES);
        for name in stop.iter().chain(&restart) {
            if let Some(slot) = self.slots.iter_mut().find(|slot| slot.info.name == *name) {
                let order = &mut self.order;
                let drained = slot.timed(|tracer| tracer.drain(&mut order.before(sink)));
                let collected = slot.timed(|tracer| tracer.collect(&mut order.before(sink)));
                let settled = slot.timed(|tracer| tracer.settle(until));
                let settled = settled.map(|late| hand_over(late, sink));
                if let Err(error) = drained.and(collected).and(settled) {
                    self.warnings.push(format!("{name}: {error}"));
                }
            }
            self.remove(name);
        }
        let wanted = self.wanted();
        self.failures.retain(|failure| self.config.tracers.get(failure.name).is_some_and(|t| t.enabled));
        let before = process_time();
        self.start_tracers(&wanted, &restart);
        give_back();
        // What starting takes is no cost of tracing.
        self.cpu_at_tick += process_time().saturating_sub(before);
        let names = |names: &[&str]| join(names, ", ");
        if !stop.is_empty() {
            self.notes.push(format!("stopped {}", names(&stop)));
        }
        let running = wanted.iter().map(|info| info.name);
        let running: Vec<&str> =
            running.filter(|name| self.slots.iter().any(|slot| slot.info.name == *name)).collect();
        if !running.is_empty() {
            self.notes.push(format!("started {}", names(&running)));
        }
        Ok(())
    }

    fn listen(&mut self) {
        self.server = None;
        let Some(address) = self.config.agent.listen else { return };
        match Server::bind(address, self.events.registry()) {
            Ok(server) => self.server = Some(server),
            Err(error) => self.warnings.push(format!("cannot listen on {address}: {error}")),
        }
    }

    /// Detaches everything. What was counted can still be collected.
    pub fn detach(&mut self) {
        let now = Instant::now();
        self.each(|slot, _| slot.end_tracing(now));
    }

    /// Whether nothing is left that could be traced: every tracer has failed.
    pub fn is_idle(&self) -> bool {
        self.slots.is_empty()
    }
}

/// Gives back memory that starting took and that nothing needs any more: code, and what is freed of the heap.
fn give_back() {
    bpf_sys::memory::trim_heap();
    // Without `/proc` it stays.
    let _ = bpf_sys::memory::release_code();
}

/// Now, as BPF programs stamp it.
fn boot_nanos() -> u64 {
    Clock::Boot.nanos()
}
