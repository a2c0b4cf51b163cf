//! The processes that are traced, as one tracer.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use bpf_programs::events::heap::{COUNT_ONE, HeapStats};

use mio::Token;

#[cfg(feature = "unwind")]
use super::OWN_STACKS;
use super::object::Allocated;
use super::process::{Change, TracedProcess};
use super::{ALLOC_SPACE, ALLOCATED, INFO, INUSE_OBJECTS, INUSE_SPACE, OUTSTANDING, Settings};
use crate::aggregate::{Counts, ProcessId, SampleKey, Samples, WakerId};
use crate::config::Filter;
use crate::error::{Error, Result};
use crate::model::{Losses, Profile, SampleType};
use crate::poll::EventLoop;
use crate::telemetry::{Metric, Owner, Point, PointValue, ProfileDef, Sink};
use crate::tracer::ladder::{Chosen, Forced};
use crate::tracer::profile::naming::WindowInfo;
use crate::tracer::profile::symbols::budget_of;
use crate::tracer::profile::{Namer, hand_over};
use crate::tracer::{Info, Overhead, Start, Stats, Tracer, cause, cost};

/// Token of processes' rings of walks to finish.
#[cfg(feature = "unwind")]
const WALKS: Token = Token(0);
/// Token of the thread that names stacks.
const NAMED: Token = Token(1);
/// What one in so many allocations means where all are taken: of allocations of this size.
const USUAL_SIZE: u32 = 64;
/// Most that `sample_bytes` can be.
const MAX_SAMPLE_BYTES: u32 = 1 << 31;
/// What a probe costs the process, a third of what `tests/bench/heap` measures of a pair: within a factor of two on any machine
/// whose kernel emulates what is under the probe.
const NANOS_PER_HIT: f64 = 700.0;

/// Starts a tracer.
pub(super) fn start(start: &Start<'_>) -> Result<Box<dyn Tracer>> {
    let settings = &start.settings.heap;
    check(start.filter)?;
    let memory = start.memory / start.filter.pids.len().max(1);
    #[cfg_attr(not(feature = "unwind"), expect(unused_mut))]
    let mut forced = start.forced.clone();
    let mut processes = Vec::new();
    for &pid in &start.filter.pids {
        let process = TracedProcess::start(pid, settings, memory, &forced, start.target)?;
        // What is begun with later walks stacks as the first one does, whatever the kernel is short of then.
        #[cfg(feature = "unwind")]
        forced.set(&process.chosen, &OWN_STACKS);
        processes.push(process);
    }
    if let Some(process) = processes.iter().find(|process| !process.has_allocator()) {
        return Err(Box::new(Error::NoAllocator(process.pid)));
    }
    let chosen = processes.first().map(|process| process.chosen.clone()).unwrap_or_default();
    let events = EventLoop::new().map_err(Error::io("epoll"))?;
    let mut namer = Namer::start(budget_of(start.memory))?;
    namer.watch(&events, NAMED)?;
    start.settings.debuginfod.clone().map_or(Ok(()), |servers| namer.fetch_with(servers))?;
    #[cfg(feature = "unwind")]
    processes.iter().try_for_each(|process| watch(&events, process))?;
    Ok(Box::new(HeapTracer {
        events,
        namer,
        settings: settings.clone(),
        one_in: 1,
        memory: start.memory,
        forced,
        target: start.target.unread(),
        chosen,
        processes,
        past: Past::default(),
        stacks: 0,
        running: true,
    }))
}

/// Wakes the tracer when a walk of the process is to be finished. The kernel forgets it with the process' object.
#[cfg(feature = "unwind")]
fn watch(events: &EventLoop, process: &TracedProcess) -> Result<()> {
    let Some(descriptor) = process.descriptor() else { return Ok(()) };
    events.add(descriptor, WALKS).map_err(Error::io("epoll"))
}

/// Probes go into processes that are named; other conditions would have to be asked at every allocation.
fn check(filter: &Filter) -> Result<()> {
    let what = if filter.pids.is_empty() {
        "trace all processes: name some (--pid)"
    } else if filter.children {
        "follow children"
    } else if filter.comm.is_some() || filter.cgroup.is_some() {
        "choose processes by anything but their number"
    } else {
        return Ok(());
    };
    Err(Box::new(Error::Unsupported { tracer: INFO.name, what }))
}

/// What was counted, of programs that are gone too: what is told must not fall when a process ends.
#[derive(Debug, Clone, Copy, Default)]
struct Past {
    stats: HeapStats,
    not_probed: u64,
    missed: u64,
    program_time: Duration,
    runs: u64,
}

impl Past {
    /// With what is counted of a process.
    fn with(self, process: &TracedProcess) -> Result<Self> {
        let (program_time, runs) = cost::object_run_time(&process.object)?;
        Ok(Self {
            stats: self.stats + process.read_stats()?,
            not_probed: self.not_probed + process.not_probed(),
            missed: self.missed + cost::object_missed_runs(&process.object)?,
            program_time: self.program_time + program_time,
            runs: self.runs + runs,
        })
    }
}

struct HeapTracer {
    /// Of the rings of all processes, and of who names their stacks.
    events: EventLoop,
    namer: Namer,
    settings: Settings,
    one_in: u32,
    memory: usize,
    forced: Forced,
    /// For processes that are begun with later.
    target: RunningTarget,
    chosen: Vec<Chosen>,
    processes: Vec<TracedProcess>,
    /// Of programs that are gone.
    past: Past,
    /// As of the last look.
    stacks: u64,
    running: bool,
}

impl std::fmt::Debug for HeapTracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pids: Vec<u32> = self.processes.iter().map(|process| process.pid).collect();
        f.debug_struct("HeapTracer")
            .field("pids", &pids)
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

impl HeapTracer {
    fn sample_bytes(&self) -> u32 {
        match (self.settings.sample_bytes, self.one_in) {
            (bytes, 0 | 1) => bytes,
            (bytes, one_in) => bytes.max(USUAL_SIZE).saturating_mul(one_in).min(MAX_SAMPLE_BYTES),
        }
    }

    fn begin(&self, pid: u32, of: usize) -> Result<TracedProcess> {
        let settings = Settings { sample_bytes: self.sample_bytes() };
        let memory = self.memory / of.max(1);
        let process = TracedProcess::start(pid, &settings, memory, &self.forced, &self.target.unread())?;
        #[cfg(feature = "unwind")]
        watch(&self.events, &process)?;
        Ok(process)
    }

    /// Begins anew with a process: what it had is not known any more. Whether it is still there.
    fn begin_again(&mut self, at: usize) -> Result<bool> {
        let of = self.processes.len();
        let Some(old) = self.processes.get(at) else { return Ok(false) };
        // The old probes stay until the new ones are there, and count nothing of theirs.
        let new = if old.is_gone() {
            Err(Box::new(Error::NoSuchProcess(old.pid)))
        } else {
            self.begin(old.pid, of)
        };
        let new = match new {
            Ok(mut new) if !old.is_gone() => {
                if !self.running {
                    new.detach();
                }
                Some(new)
            }
            Ok(_) => None,
            Err(error) if matches!(*error, Error::NoSuchProcess(_)) => None,
            Err(error) => return Err(error),
        };
        let is_there = new.is_some();
        self.leave(at, new)?;
        Ok(is_there)
    }

    /// Puts another in the place of a process, or none, and keeps its counts.
    fn leave(&mut self, at: usize, new: Option<TracedProcess>) -> Result<()> {
        let Some(process) = self.processes.get_mut(at) else { return Ok(()) };
        self.past = self.past.with(process)?;
        match new {
            Some(new) => *process = new,
            None => drop(self.processes.remove(at)),
        }
        Ok(())
    }

    fn total(&self) -> Result<Past> {
        self.processes.iter().try_fold(self.past, Past::with)
    }
}

impl Tracer for HeapTracer {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn rungs(&self) -> &[Chosen] {
        &self.chosen
    }

    fn event_loop(&self) -> Option<RawFd> {
        Some(self.events.descriptor())
    }

    fn drain(&mut self, sink: &mut dyn Sink) -> Result<()> {
        // They are few: all are looked at.
        self.events.wait(Some(Instant::now()), &mut Vec::new()).map_err(Error::io("epoll"))?;
        hand_over(self.namer.named(), sink);
        #[cfg(feature = "unwind")]
        self.processes.iter_mut().try_for_each(TracedProcess::finish_walks)?;
        Ok(())
    }

    fn collect(&mut self, sink: &mut dyn Sink) -> Result<()> {
        let sample_bytes = self.sample_bytes();
        self.stacks = 0;
        self.namer.raise_if_late();
        let mut at = 0;
        while let Some(process) = self.processes.get_mut(at) {
            match process.follow()? {
                Change::None => {
                    self.stacks += report(process, sample_bytes, true, &mut self.namer, sink)?;
                    at += 1;
                }
                // What it had when it ended is what it never freed.
                Change::Exit => {
                    report(process, sample_bytes, false, &mut self.namer, sink)?;
                    self.leave(at, None)?;
                }
                Change::Exec => at += usize::from(self.begin_again(at)?),
            }
        }
        hand_over(self.namer.named(), sink);
        Ok(())
    }

    fn settle(&mut self, until: Option<Instant>) -> Result<Vec<Profile>> {
        self.namer.settle(until)
    }

    /// Frees are not seen meanwhile, so [`resume`](Self::resume) begins anew.
    fn pause(&mut self) -> Result<()> {
        self.processes.iter_mut().for_each(TracedProcess::detach);
        self.running = false;
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        if self.running {
            return Ok(());
        }
        self.running = true;
        let resumed = (0..self.processes.len()).rev().try_for_each(|at| self.begin_again(at).map(drop));
        if resumed.is_err() {
            self.processes.iter_mut().for_each(TracedProcess::detach);
            self.running = false;
        }
        resumed
    }

    fn is_running(&self) -> bool {
        self.running
    }

    fn set_filter(&mut self, filter: &Filter) -> Result<()> {
        check(filter)?;
        let new = filter.pids.iter().filter(|pid| self.processes.iter().all(|p| p.pid != **pid));
        let mut new = new.map(|&pid| self.begin(pid, filter.pids.len())).collect::<Result<Vec<_>>>()?;
        if !self.running {
            new.iter_mut().for_each(TracedProcess::detach);
        }
        let mut at = 0;
        while let Some(process) = self.processes.get(at) {
            if filter.pids.contains(&process.pid) {
                at += 1;
            } else {
                self.leave(at, None)?;
            }
        }
        self.processes.extend(new);
        Ok(())
    }

    fn set_sampling(&mut self, one_in: u32) -> Result<u32> {
        self.one_in = one_in;
        let bytes = self.sample_bytes();
        self.processes.iter_mut().try_for_each(|process| process.set_sample_bytes(bytes))?;
        Ok(one_in)
    }

    fn stats(&mut self) -> Result<Stats> {
        let Past { stats: total, not_probed, missed, .. } = self.total()?;
        let held = self
            .processes
            .iter()
            .try_fold(0, |all, process| Ok::<_, Box<Error>>(all + process.read_stats()?.held))?;
        let capacity = |map| capacity(&self.processes, map);
        Ok(Stats {
            hits: total.calls + total.frees,
            dropped: vec![
                (cause::TABLE_FULL, total.table_full),
                (cause::NO_STACK, total.no_stack),
                (cause::THREADS, total.no_thread),
                (cause::END_NOT_SEEN, total.replaced),
                (cause::SKIPPED, missed),
                (cause::FILES_NOT_PROBED, not_probed),
                (cause::LATE_NAMES, self.namer.late()),
            ],
            map_fill: vec![
                ("allocations", held, capacity("allocations")),
                ("stacks", self.stacks, capacity("stacks")),
            ],
            ..Stats::default()
        })
    }

    fn overhead(&self) -> Result<Overhead> {
        let Past { stats: total, program_time, runs, .. } = self.total()?;
        Ok(Overhead {
            // A call that allocates is hit twice.
            hits: 2 * total.calls + total.frees + total.nested,
            nanos_per_hit: cost::on_this_machine(NANOS_PER_HIT),
            program_time,
            runs,
        })
    }

    fn map_bytes(&self) -> u64 {
        self.processes.iter().map(|process| cost::object_map_bytes(&process.object)).sum()
    }
}

/// Elements that a map may have, over all processes.
fn capacity(processes: &[TracedProcess], map: &str) -> u64 {
    let maps = processes.iter().filter_map(|process| process.object.map(map).ok());
    maps.map(|map| u64::from(map.fd.max_entries())).sum()
}

/// Tells what a process has allocated; its profiles follow once they have names. How many stacks there are.
fn report(
    process: &mut TracedProcess,
    sample_bytes: u32,
    is_alive: bool,
    namer: &mut Namer,
    sink: &mut dyn Sink,
) -> Result<u64> {
    let stats = process.read_stats()?;
    let stacks = process.read_stacks()?;
    let outstanding = outstanding(stacks.iter().map(|(_, stack)| stack.sums.bytes));
    let allocations = stats.calls.saturating_sub(stats.empty);
    let new = allocations.saturating_sub(process.window.allocations);
    process.window.allocations = process.window.allocations.max(allocations);
    let owner = Owner::Process { pid: process.pid, comm: [0; 16] };
    let mut point = |metric: &'static Metric, value: i64| {
        sink.point(Point { metric, owner, attributes: &[], value: PointValue::Int(value) });
    };
    // Nothing is left of the heap of a process that has ended.
    point(&OUTSTANDING, if is_alive { outstanding } else { 0 });
    point(&ALLOCATED, i64::try_from(new).unwrap_or(i64::MAX));

    let (before, now) = (process.window.losses, (stats.table_full, stats.no_stack));
    let info = WindowInfo {
        // Each profile has its own.
        sample_type: SampleType::default(),
        start_unix_nanos: process.window.start_unix_nanos,
        duration_nanos: process.window.start.elapsed().as_nanos() as u64,
        period_nanos: sample_bytes.max(1).into(),
        losses: Losses {
            table_full: now.0.saturating_sub(before.0),
            no_stack: now.1.saturating_sub(before.1),
            ..Losses::default()
        },
    };
    process.window.losses = now;
    process.window.start_unix_nanos += info.duration_nanos;
    process.window.start = Instant::now();

    let told = std::mem::take(&mut process.window.bytes);
    process.window.bytes = stacks.iter().map(|(key, stack)| (*key, stack.sums.allocated_bytes)).collect();
    let kinds: [(&ProfileDef, Value<'_>); 3] = [
        (&INUSE_SPACE, &|_, stack| positive(stack.sums.bytes)),
        (&INUSE_OBJECTS, &|_, stack| (positive(stack.sums.count) + COUNT_ONE / 2) / COUNT_ONE),
        (&ALLOC_SPACE, &|key, stack| {
            stack.sums.allocated_bytes.saturating_sub(told.get(&key).copied().unwrap_or(0))
        }),
    ];
    let mut samples = Samples::default();
    let process_id = process.symbols.meet(process.pid, &process.name, 0);
    let profiles = kinds.map(|(definition, value)| {
        let counts = count(process, process_id, &stacks, value, &mut samples);
        (counts, WindowInfo { sample_type: definition.sample_type, ..info })
    });
    let number = stacks.len() as u64;
    // They are in the samples now.
    drop(stacks);
    process.symbols.begin_window();
    let taken = namer.take_all(samples, profiles.into(), &mut process.symbols);
    process.symbols.end_window();
    taken?;
    #[cfg(feature = "unwind")]
    process.tell_walks(sink)?;
    Ok(number)
}

/// What all stacks hold.
fn outstanding(sums: impl Iterator<Item = u64>) -> i64 {
    let bytes = sums.fold(0u64, |all, sum| all.saturating_add(positive(sum)));
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A sum that is read while an allocation goes may be short of what comes.
fn positive(sum: u64) -> u64 {
    u64::try_from(sum as i64).unwrap_or(0)
}

/// What a stack, of that key, counts for.
type Value<'v> = &'v dyn Fn(u64, &Allocated) -> u64;

/// What stacks count for, by one kind of value. The stacks go to `samples`.
fn count(
    process: &TracedProcess,
    id: ProcessId,
    stacks: &[(u64, Allocated)],
    value: Value<'_>,
    samples: &mut Samples,
) -> Counts {
    for (key, stack) in stacks {
        let value = value(*key, stack);
        if value > 0 {
            let user = samples.stacks.intern(&stack.frames);
            let waker = WakerId::default();
            let key = SampleKey { process: id, tid: process.pid, kernel: None, user, waker };
            samples.add(key, process.name, value);
        }
    }
    std::mem::take(&mut samples.counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_never_negative_nor_too_much() {
        assert_eq!(outstanding([3, 4].into_iter()), 7);
        assert_eq!(outstanding([3, -1i64 as u64].into_iter()), 3, "freed before it was added");
        assert_eq!(outstanding([i64::MAX as u64; 3].into_iter()), i64::MAX);
    }
}
