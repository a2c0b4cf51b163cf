//! The tracer: loads, attaches, collects.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Instant;

use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::map::{Hash, PerCpuArray};
use bpf_loader::object::ObjectSpec;
use bpf_programs::events::memory::{MemoryStats, What};
use otlp_encode::Value;

use super::faults::{Accounting, ProcessFaults};
use super::perf_faults::PerfFaults;
use super::sums::{self, Sums, Total};
use super::{
    FAULT_STACKS, FAULTS, INFO, MAPPED, MAPPINGS, OWN_LADDERS, RECLAIM, SYSCALLS, USAGE, VIRTUAL, oom,
    resident,
};
use crate::config::Filter;
use crate::error::{Error, Result};
use crate::telemetry::{Attribute, Metric, Owner, Point, PointValue, Sink};
use crate::tracer::filter::{self, TaskFilter};
use crate::tracer::ladder::{Chosen, Climbed, Forced, Refused, climb};
use crate::tracer::profile::Session;
use crate::tracer::programs::attach_by_section;
use crate::tracer::ring::{self, EventRing};
use crate::tracer::{Info, Overhead, Start, Stats, Tracer, cost};

/// Bytes of the ring: of kills there are few.
const RING_BYTES: usize = 16 << 10;
/// Bytes of an entry of `ended`, as the kernel counts them.
const ENDED_BYTES: usize = 160;
/// What a page fault costs more with the program of a perf event; at other hooks as much, about.
const NANOS_PER_HIT: f64 = 300.0;
/// Bounds of its size.
const ENDED: std::ops::RangeInclusive<usize> = 1024..=32768;

/// Loads and attaches the tracer.
pub fn start(start: &Start<'_>) -> Result<Box<dyn Tracer>> {
    let mut windows = None;
    let mut attached = Attached { calls_are_wanted: is_forced(start.forced), ..Attached::default() };
    let climbed = climb(
        bpf_programs::MEMORY,
        OWN_LADDERS,
        start.forced,
        start.target,
        |spec, _| {
            filter::prepare(spec, start.filter)?;
            ring::prepare(spec, RING_BYTES)?;
            windows = Some(prepare(spec, start.memory)?);
            Ok(())
        },
        |object, program| attached.attach(object, program),
    )?;
    let Climbed { object, mut chosen, links } = climbed;
    let stacks = start_stacks(start, &mut chosen)?;
    if chosen.iter().all(|chosen| chosen.rung.is_none()) {
        let refused = chosen.into_iter().flat_map(|chosen| chosen.refused).collect();
        return Err(Error::NoRung { what: INFO.about, refused });
    }
    let no_map = || Error::Load(bpf_loader::Error::NoSuchMap { name: "sums".into() });
    let sums = Sums::open(&object, windows.ok_or_else(no_map)?)?;
    let mut tracer = MemoryTracer {
        links,
        attached,
        accounting: None,
        stacks,
        sums,
        ring: EventRing::open(&object)?,
        filter: TaskFilter::new(&object)?,
        stats: PerCpuArray::new(object.map("memory_stats").map_err(Error::Load)?).map_err(Error::Load)?,
        faults: BTreeMap::new(),
        wanted: start.filter.clone(),
        sizes_of: start.settings.memory.sizes_of,
        chosen,
        running: true,
        object,
    };
    tracer.filter.set(&tracer.object, start.filter)?;
    if let Some(iterator) = tracer.attached.iterator.take() {
        tracer.accounting = Some(Accounting::begin(&tracer.object, iterator)?);
    }
    Ok(Box::new(tracer))
}

/// Samples stacks of page faults, if that is wanted and the kernel lets it.
fn start_stacks(start: &Start<'_>, chosen: &mut Vec<Chosen>) -> Result<Option<Session>> {
    let what = FAULT_STACKS.what;
    start.forced.check(&FAULT_STACKS)?;
    let one_in = start.settings.memory.fault_stacks;
    let session = if one_in == 0 || start.forced.0.get(what).is_some_and(String::is_empty) {
        None
    } else {
        Some(Session::start_faults(start.filter.clone(), one_in).map_err(|error| error.to_string()))
    };
    let (session, refused) = match session.transpose() {
        Ok(session) => (session, Vec::new()),
        Err(reason) => (None, vec![Refused { rung: "perf", reason }]),
    };
    chosen.push(Chosen { what, rung: session.as_ref().map(|_| "perf"), refused });
    Ok(session)
}

/// Whether the rung that slows every system call is asked for.
fn is_forced(forced: &Forced) -> bool {
    forced.0.get(MAPPINGS.what).is_some_and(|rung| rung == SYSCALLS)
}

fn prepare(spec: &mut ObjectSpec<'_>, memory: usize) -> Result<[bpf_loader::map::Map; 2]> {
    let page = rustix::param::page_size() as u64;
    spec.set_global("page_bytes", &page.to_ne_bytes()).map_err(Error::Load)?;
    let ended = spec.map_mut("ended");
    let ended = ended.ok_or_else(|| Error::Load(bpf_loader::Error::NoSuchMap { name: "ended".into() }))?;
    ended.max_entries = (memory / 4 / ENDED_BYTES).clamp(*ENDED.start(), *ENDED.end()) as u32;
    sums::prepare(spec, memory / 2)
}

/// What programs are attached to that is no link that can be dropped to pause.
#[derive(Debug, Default)]
struct Attached {
    /// Whether every system call may be slowed down.
    calls_are_wanted: bool,
    iterator: Option<Link>,
    perf: Option<PerfFaults>,
}

impl Attached {
    fn attach(&mut self, object: &Object, name: &str) -> Result<Vec<Link>> {
        let program = object.program(name).map_err(Error::Load)?;
        match name {
            "brk_sys_enter" | "calls_sys_exit" if !self.calls_are_wanted => Err(Error::Unsupported {
                tracer: INFO.name,
                what: "watch every system call of the machine, which slows them, unless it is asked to",
            }),
            "thread_faults" => {
                self.iterator = Some(program.attach().map_err(Error::Load)?);
                Ok(Vec::new())
            }
            // Both at once, with the second.
            "minor_fault" => Ok(Vec::new()),
            "major_fault" => {
                self.perf = Some(PerfFaults::open(object)?);
                Ok(Vec::new())
            }
            _ => Ok(vec![attach_by_section(program)?]),
        }
    }
}

#[derive(Debug)]
struct MemoryTracer {
    // What is attached goes before the programs.
    links: Vec<Link>,
    attached: Attached,
    accounting: Option<Accounting>,
    stacks: Option<Session>,
    sums: Sums,
    ring: EventRing,
    filter: TaskFilter,
    stats: PerCpuArray<[u8; MemoryStats::SIZE]>,
    /// Page faults that were taken from the kernel before the window's end.
    faults: BTreeMap<u32, ProcessFaults>,
    wanted: Filter,
    sizes_of: usize,
    chosen: Vec<Chosen>,
    running: bool,
    object: Object,
}

impl MemoryTracer {
    /// Takes what the kernel has counted since the last look.
    fn look(&mut self) -> Result<()> {
        match &mut self.accounting {
            Some(accounting) if self.running => accounting.collect(&mut self.faults),
            _ => Ok(()),
        }
    }

    fn read_stats(&self) -> Result<MemoryStats> {
        let mut all = MemoryStats::decode(&[0; MemoryStats::SIZE]).ok_or(Error::Stopped)?;
        let values = self.stats.get(0).map_err(Error::Kernel)?;
        for stats in values.iter().flat_map(|v| v.iter()).filter_map(|bytes| MemoryStats::decode(&bytes)) {
            all.hits += stats.hits;
            all.minor_runs += stats.minor_runs;
            all.major_runs += stats.major_runs;
            all.sums_full += stats.sums_full;
            all.ended_full += stats.ended_full;
            all.stalled_full += stats.stalled_full;
            all.in_call_full += stats.in_call_full;
        }
        Ok(all)
    }

    /// Sizes of the processes that something happened to, busiest first, after those that the filter names.
    fn tell_sizes(&self, active: &BTreeMap<u32, Activity>, sink: &mut dyn Sink) {
        let mut busiest: Vec<(u32, &Activity)> =
            active.iter().map(|(pid, activity)| (*pid, activity)).collect();
        busiest.sort_by_key(|&(pid, activity)| (std::cmp::Reverse(activity.weight), pid));
        let idle = Activity::default();
        let named = self.wanted.pids.iter().filter(|pid| !active.contains_key(pid)).map(|pid| (*pid, &idle));
        for (pid, activity) in named.chain(busiest).filter(|&(pid, _)| pid != 0).take(self.sizes_of) {
            let Some((usage, size)) = resident::read(pid) else { continue };
            let owner = Owner::Process { pid, comm: activity.comm };
            tell(sink, &USAGE, owner, &[], usage);
            tell(sink, &VIRTUAL, owner, &[], size);
        }
    }
}

/// That something happened to a process.
#[derive(Debug, Clone, Copy, Default)]
struct Activity {
    weight: u64,
    comm: [u8; 16],
}

fn tell(sink: &mut dyn Sink, metric: &'static Metric, owner: Owner, attributes: &[Attribute<'_>], n: u64) {
    let value = PointValue::Int(i64::try_from(n).unwrap_or(i64::MAX));
    sink.point(Point { metric, owner, attributes, value });
}

/// Tells of one process' sums of a kind.
fn tell_total(sink: &mut dyn Sink, owner: Owner, what: What, total: &Total) {
    let attribute = |key, value| [(key, Value::Str(value))];
    let (metric, attributes, n) = match what {
        What::MinorFault => (&FAULTS, attribute("system.paging.fault.type", "minor"), total.count),
        What::MajorFault => (&FAULTS, attribute("system.paging.fault.type", "major"), total.count),
        What::Mapped => (&MAPPED, attribute("ebpf.memory.operation", "mmap"), total.total),
        What::Unmapped => (&MAPPED, attribute("ebpf.memory.operation", "munmap"), total.total),
        What::BrkGrown => (&MAPPED, attribute("ebpf.memory.operation", "brk"), total.total),
        What::BrkShrunk => (&MAPPED, attribute("ebpf.memory.operation", "brk_shrink"), total.total),
        What::MachineReclaim | What::CgroupReclaim => {
            let scope = if what == What::MachineReclaim { "machine" } else { "cgroup" };
            let attributes = &attribute("ebpf.memory.reclaim.scope", scope);
            let value = PointValue::Histogram(&total.durations);
            sink.point(Point { metric: &RECLAIM, owner, attributes, value });
            return;
        }
    };
    tell(sink, metric, owner, &attributes, n);
}

impl Tracer for MemoryTracer {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn rungs(&self) -> &[Chosen] {
        &self.chosen
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.ring.descriptor()]
    }

    fn event_loop(&self) -> Option<RawFd> {
        self.stacks.as_ref().map(Session::event_loop)
    }

    fn drain(&mut self, sink: &mut dyn Sink) -> Result<()> {
        if let Some(stacks) = &mut self.stacks {
            stacks.poll(Instant::now())?;
        }
        if let Some(perf) = &mut self.attached.perf {
            perf.follow_cpus(&self.object)?;
        }
        if let Some(accounting) = &mut self.accounting {
            accounting.make_room(&mut self.faults)?;
        }
        let Self { ring, wanted, .. } = self;
        ring.drain(|event, record| {
            // The program could not tell, if it had the number alone.
            if wanted.pids.is_empty() || wanted.children || wanted.pids.contains(&event.tgid) {
                oom::tell(event, record, sink);
            }
        })
    }

    fn collect(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.drain(sink)?;
        self.look()?;
        let totals = self.sums.take()?;
        let mut active: BTreeMap<u32, Activity> = BTreeMap::new();
        for (pid, faults) in std::mem::take(&mut self.faults) {
            active.insert(pid, Activity { weight: faults.minor + faults.major, comm: faults.comm });
            let owner = Owner::Process { pid, comm: faults.comm };
            for (kind, n) in [("minor", faults.minor), ("major", faults.major)] {
                if n > 0 {
                    tell(sink, &FAULTS, owner, &[("system.paging.fault.type", Value::Str(kind))], n);
                }
            }
        }
        for (&(pid, what), total) in &totals {
            let activity = active.entry(pid).or_insert(Activity { weight: 0, comm: total.comm });
            activity.weight += total.count;
            tell_total(sink, Owner::Process { pid, comm: total.comm }, what, total);
        }
        self.tell_sizes(&active, sink);
        let profile = self.stacks.as_mut().map(Session::finish_window).transpose()?;
        if let Some(profile) = profile.filter(|profile| !profile.samples.is_empty()) {
            sink.profile(profile);
        }
        self.filter.forget_ended()
    }

    fn pause(&mut self) -> Result<()> {
        if !self.running {
            return Ok(());
        }
        self.look()?;
        self.links.clear();
        if let Some(perf) = &mut self.attached.perf {
            perf.pause()?;
        }
        if let Some(stacks) = &mut self.stacks {
            stacks.pause()?;
        }
        self.running = false;
        // What was under way has no end that is seen.
        forget::<8>(&self.object, "stalled")?;
        forget::<4>(&self.object, "in_call")
    }

    fn resume(&mut self) -> Result<()> {
        if self.running {
            return Ok(());
        }
        for (ladder, chosen) in INFO.ladders.iter().zip(&self.chosen) {
            let rung = ladder.rungs.iter().find(|rung| Some(rung.name) == chosen.rung);
            // The programs of page faults that are not at a link stay where they are.
            let linked = |name: &&&str| !matches!(**name, "thread_faults" | "minor_fault" | "major_fault");
            for name in rung.iter().flat_map(|rung| rung.programs).filter(linked) {
                self.links.extend(self.attached.attach(&self.object, name)?);
            }
        }
        if let Some(perf) = &mut self.attached.perf {
            perf.resume()?;
        }
        if let Some(stacks) = &mut self.stacks {
            stacks.resume()?;
        }
        if let Some(accounting) = &mut self.accounting {
            accounting.skip()?;
        }
        self.running = true;
        Ok(())
    }

    fn is_running(&self) -> bool {
        self.running
    }

    fn set_filter(&mut self, filter: &Filter) -> Result<()> {
        // What was counted until now is the old filter's.
        self.look()?;
        self.filter.set(&self.object, filter)?;
        if let Some(stacks) = &mut self.stacks {
            stacks.set_filter(filter.clone())?;
        }
        self.wanted = filter.clone();
        Ok(())
    }

    fn stats(&mut self) -> Result<Stats> {
        // What should have been seen before what was: a fault in between is none too few.
        let expected = self.attached.perf.as_ref().map(PerfFaults::expected).transpose()?;
        let stats = self.read_stats()?;
        let skipped = match &mut self.attached.perf {
            Some(perf) => perf.skipped(expected.unwrap_or_default(), stats.minor_runs + stats.major_runs),
            None => 0,
        };
        let (produced, ring_full) = self.ring.produced_and_dropped()?;
        let (used, entries) = self.sums.fill();
        let stacks = self.stacks.as_mut().map(Session::counters).transpose()?;
        let stacks = stacks.map(|counters| counters.losses).unwrap_or_default();
        let mut map_fill = vec![("sums", used, entries)];
        if let Some((waiting, room)) = self.accounting.as_ref().map(Accounting::fill) {
            map_fill.push(("ended threads", waiting, room));
        }
        Ok(Stats {
            hits: stats.hits,
            produced,
            received: self.ring.received(),
            dropped: vec![
                ("ring full", ring_full),
                ("table full", stats.sums_full),
                ("table of ended threads full", stats.ended_full),
                ("too many threads", self.accounting.as_ref().map_or(0, Accounting::not_followed)),
                ("too many stalls at once", stats.stalled_full),
                ("too many calls at once", stats.in_call_full),
                ("skipped by the kernel", skipped),
                ("stacks skipped by the kernel", stacks.skipped),
                ("table of stacks full", stacks.table_full),
                ("no stack", stacks.no_stack),
                ("process records", stacks.sideband),
                ("children not followed", self.filter.children_lost()),
            ],
            ring_high_water: self.ring.high_water(),
            map_fill,
        })
    }

    fn overhead(&self) -> Result<Overhead> {
        let (program_time, runs) = cost::object_run_time(&self.object)?;
        let stats = self.read_stats()?;
        // Faults that the filter keeps out are runs too.
        let hits = runs.max(stats.hits).max(stats.minor_runs + stats.major_runs);
        Ok(Overhead { hits, nanos_per_hit: NANOS_PER_HIT, program_time })
    }

    fn map_bytes(&self) -> u64 {
        cost::object_map_bytes(&self.object) + self.sums.bytes()
    }
}

/// Empties a table of what is under way.
fn forget<const KEY: usize>(object: &Object, map: &str) -> Result<()> {
    let table: Hash<[u8; KEY], [u8; 8]> =
        Hash::new(object.map(map).map_err(Error::Load)?).map_err(Error::Load)?;
    for key in table.keys().collect::<Vec<_>>() {
        table.delete(&key.map_err(Error::Kernel)?).map_err(Error::Kernel)?;
    }
    Ok(())
}
