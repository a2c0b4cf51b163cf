//! The tracer: loads, attaches, collects.

use std::cell::RefCell;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Instant;

use bpf_loader::attach::{KprobeOptions, compat_syscall_function, syscall_function};
use bpf_loader::btf::Kind;
use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::map::PerCpuArray;
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::TargetBtf;
use bpf_programs::events::memory::{MemoryStats, What};
use otlp_encode::Value;

use super::faults::{Accounting, ProcessFaults};
use super::oom::Victim;
use super::perf_faults::PerfFaults;
use super::sums::{self, Sums, Total};
use super::{
    FAULT_STACKS, FAULTS, FENTRY, INFO, MAPPED, MAPPINGS, OWN_LADDERS, RECLAIM, SYSCALLS, USAGE, VIRTUAL,
    oom, resident,
};
use crate::config::Filter;
use crate::error::{Error, Result};
use crate::model::Profile;
use crate::objects;
use crate::sorted::SortedMap;
use crate::telemetry::{Attribute, Metric, Owner, Point, PointValue, Sink};
use crate::tracer::ladder::{Chosen, Forced, Refused};
use crate::tracer::profile::{Session, hand_over};
use crate::tracer::programs::{Programs, add_counts, attach_by_section};
use crate::tracer::ring::{self, EventRing};
use crate::tracer::{Info, Overhead, Start, Stats, Tracer, cause};

/// Most bytes of the ring: of kills there are few.
const RING_BYTES: usize = 16 << 10;
/// Bytes of an entry of `ended`, as the kernel counts them.
const ENDED_BYTES: usize = 160;
/// What a page fault costs more with the program of a perf event; at other hooks as much, about.
const NANOS_PER_HIT: f64 = 300.0;
/// Bounds of its size.
const ENDED: std::ops::RangeInclusive<usize> = 1024..=32768;

/// Loads and attaches the tracer.
pub fn start(start: &Start<'_>) -> Result<Box<dyn Tracer>> {
    let calls_are_wanted = is_forced(start.forced);
    let attached = RefCell::new(Attached::default());
    let bytes = objects::MEMORY.unpack()?;
    let open = |object: &Object| {
        let mut spec = ObjectSpec::parse(&bytes).map_err(Error::load)?;
        let stats = object.map("memory_stats").and_then(PerCpuArray::new).map_err(Error::load)?;
        Ok((Sums::create(&mut spec, object, start.memory / 2)?, EventRing::open(object)?, stats))
    };
    let started = Programs::start_with(
        &bytes,
        OWN_LADDERS,
        start,
        |spec, rungs| {
            // What an earlier attempt left.
            *attached.borrow_mut() = Attached { calls_are_wanted, ..Attached::default() };
            if rungs(MAPPINGS.what) == Some(FENTRY) {
                name_brk(spec, compat_brk(start.target).as_deref())?;
            }
            prepare(spec, start.memory)
        },
        open,
        &mut |object, program| attached.borrow_mut().attach(object, program),
    );
    let (programs, (sums, ring, stats)) = started.map_err(|mut error| {
        if let Error::NoRung { what, .. } = &mut *error {
            *what = INFO.about;
        }
        error
    })?;
    let mut chosen = programs.chosen().to_vec();
    let stacks = start_stacks(start, &mut chosen)?;
    let mut attached = attached.into_inner();
    let accounting = attached
        .iterator
        .take()
        .map(|iterator| Accounting::begin(programs.object(), iterator))
        .transpose()?;
    Ok(Box::new(MemoryTracer {
        programs,
        attached,
        accounting,
        stacks,
        sums,
        ring,
        stats,
        faults: SortedMap::new(),
        wanted: start.filter.clone(),
        unknown_victims: 0,
        sizes_of: start.settings.memory.sizes_of,
        chosen,
    }))
}

/// Samples stacks of page faults, if that is wanted and the kernel lets it.
fn start_stacks(start: &Start<'_>, chosen: &mut Vec<Chosen>) -> Result<Option<Session>> {
    let what = FAULT_STACKS.what;
    start.forced.check(&FAULT_STACKS)?;
    let one_in = start.settings.memory.fault_stacks;
    let session = if one_in == 0 || start.forced.0.get(what).is_some_and(String::is_empty) {
        None
    } else {
        let session = Session::start_faults(start.filter.clone(), one_in, start.memory / 4, start.target);
        let fetching = |mut session: Session| {
            session.fetch_debug_files_with(start.settings.debuginfod.as_ref()).map(|()| session)
        };
        Some(session.and_then(fetching).map_err(|error| error.to_string()))
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

fn prepare(spec: &mut ObjectSpec<'_>, memory: usize) -> Result<()> {
    let page = bpf_sys::page_size() as u64;
    spec.set_global("page_bytes", &page.to_ne_bytes()).map_err(Error::load)?;
    let ended = spec.map_mut("ended");
    let ended = ended.ok_or_else(|| Error::no_map("ended"))?;
    ended.max_entries = (memory / 4 / ENDED_BYTES).clamp(*ENDED.start(), *ENDED.end()) as u32;
    ring::prepare(spec, RING_BYTES.min(memory / 8))?;
    sums::prepare(spec, memory / 2).map(drop)
}

/// Programs at `brk` of the kernel's own programs, and of 32-bit ones where it has another function for those.
const BRK: [&str; 2] = ["brk_fentry", "brk_fexit"];
const COMPAT_BRK: [&str; 2] = ["brk_fentry_compat", "brk_fexit_compat"];
const NO_COMPAT_BRK: Error = Error::Unsupported {
    tracer: INFO.name,
    what: "follow brk of 32-bit programs at a function that the kernel's types do not have",
};

/// Sends the programs at `brk` to what the kernel calls it, which differs with architectures and versions.
fn name_brk(spec: &mut ObjectSpec<'_>, compat: Option<&str>) -> Result<()> {
    let mut send = |programs: [&str; 2], function: &str| {
        for name in programs {
            let missing = || Error::no_program(name);
            let program = spec.program_mut(name).ok_or_else(missing)?;
            program.attach_function = Some(function.to_owned());
            program.autoload = true;
        }
        Ok(())
    };
    send(BRK, &syscall_function("brk"))?;
    compat.map_or(Ok(()), |function| send(COMPAT_BRK, function))
}

/// The function at which [`COMPAT_BRK`] can be loaded: one that the kernel's types have. No rung's refusal would cover that it
/// fails.
fn compat_brk(target: &impl TargetBtf) -> Option<String> {
    let function = compat_syscall_function("brk")?;
    target.vmlinux().ok()??.find_by_name(&function, Kind::Func)?;
    Some(function)
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
        let program = object.program(name).map_err(Error::load)?;
        match name {
            "brk_sys_enter" | "calls_sys_exit" if !self.calls_are_wanted => {
                Err(Box::new(Error::Unsupported {
                    tracer: INFO.name,
                    what: "watch every system call of the machine, which slows them, unless it is asked to",
                }))
            }
            "thread_faults" => {
                self.iterator = Some(program.attach().map_err(Error::load)?);
                Ok(Vec::new())
            }
            // Both at once, with the second.
            "minor_fault" => Ok(Vec::new()),
            "major_fault" => {
                self.perf = Some(PerfFaults::open(object)?);
                Ok(Vec::new())
            }
            "brk_kprobe" | "brk_kretprobe" => {
                let mut links = vec![attach_by_section(program)?];
                if let Some(function) = compat_syscall_function("brk") {
                    let options = KprobeOptions { ret: name == "brk_kretprobe", ..KprobeOptions::default() };
                    links.push(program.attach_kprobe(function.as_str(), &options).map_err(Error::load)?);
                }
                Ok(links)
            }
            // With the last of its rung, since not every kernel has them.
            "brk_fexit" => {
                let mut links = vec![attach_by_section(program)?];
                if compat_syscall_function("brk").is_some() {
                    for name in COMPAT_BRK {
                        links.push(attach_by_section(object.program(name).map_err(|_| NO_COMPAT_BRK)?)?);
                    }
                }
                Ok(links)
            }
            _ => Ok(vec![attach_by_section(program)?]),
        }
    }
}

/// The programs of page faults that stay where they are while the tracer is paused.
const STAYING: [&str; 3] = ["thread_faults", "minor_fault", "major_fault"];

#[derive(Debug)]
struct MemoryTracer {
    attached: Attached,
    accounting: Option<Accounting>,
    stacks: Option<Session>,
    sums: Sums,
    ring: EventRing,
    stats: PerCpuArray<[u8; MemoryStats::SIZE]>,
    /// Page faults that were taken from the kernel before the window's end.
    faults: SortedMap<u32, ProcessFaults>,
    wanted: Filter,
    /// Victims of which the filter could not be asked.
    unknown_victims: u64,
    sizes_of: usize,
    chosen: Vec<Chosen>,
    programs: Programs,
}

impl MemoryTracer {
    /// Takes what the kernel has counted since the last look.
    fn look(&mut self) -> Result<()> {
        match &mut self.accounting {
            Some(accounting) if self.programs.is_running() => accounting.collect(&mut self.faults),
            _ => Ok(()),
        }
    }

    fn read_stats(&self) -> Result<MemoryStats> {
        MemoryStats::decode(&add_counts(&self.stats)?).ok_or_else(|| Error::internal("size of memory_stats"))
    }

    /// Detaches what is not at a link of the programs.
    fn pause_others(&mut self) -> Result<()> {
        if let Some(perf) = &mut self.attached.perf {
            perf.pause()?;
        }
        match &mut self.stacks {
            Some(stacks) => stacks.pause(),
            None => Ok(()),
        }
    }

    fn resume_others(&mut self) -> Result<()> {
        if let Some(perf) = &mut self.attached.perf {
            perf.resume()?;
        }
        if let Some(stacks) = &mut self.stacks {
            stacks.resume()?;
        }
        match &mut self.accounting {
            Some(accounting) => accounting.skip(),
            None => Ok(()),
        }
    }

    /// Sizes of the processes that something happened to, busiest first, after those that the filter names.
    fn tell_sizes(&self, active: &SortedMap<u32, Activity>, sink: &mut dyn Sink) {
        let mut busiest: Vec<(u32, &Activity)> =
            active.iter().map(|(pid, activity)| (*pid, activity)).collect();
        busiest.sort_unstable_by_key(|&(pid, activity)| (std::cmp::Reverse(activity.weight), pid));
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
            hand_over(stacks.named(), sink);
        }
        if let Some(perf) = &mut self.attached.perf {
            perf.follow_cpus(self.programs.object())?;
        }
        if let Some(accounting) = &mut self.accounting {
            accounting.make_room(&mut self.faults)?;
        }
        let Self { ring, wanted, unknown_victims, .. } = self;
        ring.drain(|event, record| match oom::is_wanted(event, record, wanted) {
            Victim::Wanted => oom::tell(event, record, sink),
            Victim::Unwanted => {}
            Victim::Gone => *unknown_victims += 1,
        })
    }

    fn collect(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.drain(sink)?;
        self.look()?;
        let totals = self.sums.take()?;
        let mut active: SortedMap<u32, Activity> = SortedMap::new();
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
        if let Some(stacks) = &mut self.stacks {
            stacks.end_window()?;
            hand_over(stacks.named(), sink);
        }
        self.programs.forget_ended()
    }

    fn settle(&mut self, until: Option<Instant>) -> Result<Vec<Profile>> {
        self.stacks.as_mut().map_or(Ok(Vec::new()), |stacks| stacks.settle(until))
    }

    fn pause(&mut self) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        self.programs.pause();
        self.pause_others()?;
        // Threads that ended until now were told of.
        if let Some(accounting) = &mut self.accounting {
            accounting.collect(&mut self.faults)?;
        }
        // What was under way has no end that is seen.
        self.programs.forget::<8, 8>("stalled")?;
        self.programs.forget::<4, 8>("in_call")
    }

    fn resume(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let Self { programs, attached, .. } = self;
        programs.resume_with(&mut |object, name| match name {
            name if STAYING.contains(&name) => Ok(Vec::new()),
            name => attached.attach(object, name),
        })?;
        let resumed = self.resume_others();
        if resumed.is_err() {
            self.programs.pause();
            // What refused to go on may refuse to stop, and is no news.
            let _ = self.pause_others();
        }
        resumed
    }

    fn is_running(&self) -> bool {
        self.programs.is_running()
    }

    fn set_filter(&mut self, filter: &Filter) -> Result<()> {
        // What was counted until now is the old filter's.
        self.look()?;
        self.programs.set_filter(filter)?;
        if let Some(Err(error)) = self.stacks.as_mut().map(|stacks| stacks.set_filter(filter.clone())) {
            self.programs.set_filter(&self.wanted)?;
            return Err(error);
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
        let late_names = stacks.as_ref().map_or(0, |counters| counters.late_names);
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
                (cause::RING_FULL, ring_full),
                (cause::TABLE_FULL, stats.sums_full),
                (cause::ENDED_THREADS, stats.ended_full),
                (cause::THREADS, self.accounting.as_ref().map_or(0, Accounting::not_followed)),
                (cause::TOO_MANY_AT_ONCE, stats.stalled_full + stats.in_call_full),
                (cause::SKIPPED, skipped + self.programs.missed()?.1),
                (cause::STACKS_SKIPPED, stacks.skipped),
                (cause::STACKS_FULL, stacks.table_full),
                (cause::NO_STACK, stacks.no_stack),
                (cause::PROCESS_RECORDS, stacks.sideband),
                (cause::LATE_NAMES, late_names),
                (cause::VICTIMS_GONE, self.unknown_victims),
                self.programs.children_lost(),
            ],
            ring_high_water: self.ring.high_water(),
            map_fill,
        })
    }

    fn overhead(&self) -> Result<Overhead> {
        let stats = self.read_stats()?;
        // Faults that the filter keeps out are runs too.
        let hits = stats.hits.max(stats.minor_runs + stats.major_runs);
        self.programs.overhead(hits, NANOS_PER_HIT)
    }

    fn map_bytes(&self) -> u64 {
        self.programs.map_bytes() + self.sums.bytes()
    }
}

#[cfg(test)]
mod tests {
    use bpf_loader::btf::encode::Builder;
    use bpf_loader::btf::{Btf, BtfId, Linkage};
    use bpf_loader::bytes::Endian;
    use bpf_loader::target::ModuleBtf;

    use super::*;

    struct Types(Btf<'static>);

    impl TargetBtf for Types {
        fn vmlinux(&self) -> bpf_loader::Result<Option<&Btf<'_>>> {
            Ok(Some(&self.0))
        }

        fn modules(&self) -> bpf_loader::Result<&[ModuleBtf<'_>]> {
            Ok(&[])
        }
    }

    #[test]
    fn programs_at_functions_that_have_no_types_are_left_out() {
        let types = |functions: &[&str]| {
            let mut builder = Builder::new(Endian::HOST);
            let prototype = builder.prototype(BtfId::VOID, &[]);
            for function in functions {
                builder.function(function, prototype, Linkage::Global);
            }
            Types(Btf::parse(builder.build()).unwrap())
        };
        let bytes = objects::MEMORY.unpack().unwrap();
        let loads = |compat: Option<&str>| {
            let mut spec = ObjectSpec::parse(&bytes).unwrap();
            name_brk(&mut spec, compat).unwrap();
            [BRK, COMPAT_BRK].map(|names| names.map(|name| spec.program_mut(name).unwrap().autoload))
        };
        assert_eq!(loads(None), [[true; 2], [false; 2]]);
        assert_eq!(loads(Some("f")), [[true; 2], [true; 2]]);
        assert_eq!(compat_brk(&types(&[])), None);
        let Some(function) = compat_syscall_function("brk") else {
            println!("SKIP: this kernel has no brk of other programs");
            return;
        };
        assert_eq!(compat_brk(&types(&[&function])), Some(function));
    }
}
