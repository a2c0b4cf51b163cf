//! Stacks of processes without frame pointers: what `profile_walk.h` wants of user space.

use std::ops::RangeInclusive;

use bpf_loader::map::ProgramArray;
use bpf_loader::object::ObjectSpec;
use bpf_loader::ring::RingReader;
use bpf_programs::events::unwind::{MissedSample, WalkEnds, walk_end};
use bpf_sys::MapFd;
use bpf_sys::shared::SharedMapping;
use bpf_sys::uapi::flags::BPF_F_NO_PREALLOC;

use super::accounting::Walks;
use super::program::{ProfileProgram, Variant};
use super::sideband::Sideband;
use super::symbols::Symbols;
use super::window::Finished;
use crate::config::Stacks;
use crate::error::{Error, Result};
use crate::objects;
#[cfg(feature = "python")]
use crate::python::Pythons;
use crate::spans::SpanProcesses;
use crate::unwind::tables::{Sizes, Tables};
use crate::unwind::unwinder::Unwinder;
use crate::unwind::walk::Machine;

/// Programs of CPython's stages, which follow the others in `stages`.
#[cfg(feature = "python")]
const PYTHON_STAGES: [&str; 2] = ["python_thread", "python_frames"];
/// The number in `stages` of the program that reads spans.
const SPAN_STAGE: u32 = 4;
/// Bytes of the ring with samples that missed a page: of a CPU, and of all. A sample has 18 KiB.
const MISSES_PER_CPU: usize = 128 << 10;
const MISSES_BYTES: RangeInclusive<usize> = 64 << 10..=1 << 20;
/// Threads of a process that begins go to sleep all at once; and where one that waits long is cut off, much is.
const MISSES_PER_CPU_OF_WAITS: usize = 512 << 10;
/// Samples that wait for the end of their window.
const MAX_WAITING: usize = 4096;
/// Samples that are finished before anything else is looked at: more than the ring holds.
const MAX_AT_ONCE: usize = 128;
/// Bytes of a kernel stack, where the kernel's pages are not larger (`THREAD_SIZE` of x86-64 and arm64).
const KERNEL_STACK: usize = 16 << 10;

/// The programs that walk without frame pointers, best first.
pub(super) fn variants(needs_kernel_types: bool) -> Vec<Variant> {
    let mut all = Vec::new();
    if Machine::running().is_none() {
        return all;
    }
    for stacks in [Stacks::Tables, Stacks::Copies] {
        // Registers of a thread that is in the kernel are found by bpf_task_pt_regs, by the kernel's types, or not at all.
        for (task_pt_regs, kernel_types) in [(true, needs_kernel_types), (false, true), (false, false)] {
            if kernel_types || !needs_kernel_types {
                let variant = Variant {
                    object: objects::PROFILE_UNWIND,
                    stages: ["unwind_walk", "unwind_count"],
                    reads_spans: "unwind_span",
                    sampler: if kernel_types { "unwind_begin_by_kernel_types" } else { "unwind_begin" },
                    kernel_types,
                    stacks,
                    task_pt_regs,
                    #[cfg(feature = "python")]
                    python: false,
                    least_wait: None,
                    has_next: task_pt_regs || kernel_types && !needs_kernel_types,
                };
                // Threads are told apart by what the kernel's types say of them.
                #[cfg(feature = "python")]
                if task_pt_regs || kernel_types {
                    all.push(Variant { python: true, has_next: true, ..variant });
                }
                all.push(variant);
            }
        }
    }
    all
}

fn sizes(memory: usize) -> Sizes {
    Sizes::of(memory / 4)
}

/// Sets sizes and constants.
pub(super) fn prepare(
    spec: &mut ObjectSpec<'_>,
    variant: Variant,
    memory: usize,
    cpus: u32,
    tables_grow: bool,
) -> Result<()> {
    let sizes = sizes(memory);
    let of_waits = variant.least_wait.is_some();
    let per_cpu = if of_waits { MISSES_PER_CPU_OF_WAITS } else { MISSES_PER_CPU };
    let misses = (per_cpu * cpus as usize).min(memory / 8);
    let misses = misses.clamp(*MISSES_BYTES.start(), *MISSES_BYTES.end()).next_power_of_two();
    #[cfg(feature = "python")]
    if variant.python {
        for name in PYTHON_STAGES {
            spec.program_mut(name).ok_or_else(|| Error::no_program(name))?.autoload = true;
        }
    }
    for name in variant.stages.into_iter().chain(variant.span_stage()) {
        spec.program_mut(name).ok_or_else(|| Error::no_program(name))?.autoload = true;
    }
    let map = |spec: &mut ObjectSpec<'_>,
               name: &'static str,
               set: &dyn Fn(&mut bpf_loader::map_def::MapSpec<'_>)| {
        spec.map_mut(name).map(set).ok_or_else(|| Error::no_map(name))
    };
    #[cfg(feature = "python")]
    map(spec, "pythons", &|map| map.flags |= if tables_grow { BPF_F_NO_PREALLOC } else { 0 })?;
    map(spec, "span_places", &|map| map.flags |= if tables_grow { BPF_F_NO_PREALLOC } else { 0 })?;
    map(spec, "rows", &|map| map.value_size = sizes.rows_bytes())?;
    map(spec, "rules", &|map| map.value_size = sizes.rules_bytes())?;
    map(spec, "misses", &|map| map.max_entries = misses as u32)?;
    map(spec, "walk_ends", &|map| map.max_entries = cpus)?;
    for (name, entries) in [("pages", sizes.pages), ("processes", sizes.processes)] {
        map(spec, name, &|map| {
            map.max_entries = entries;
            map.flags |= if tables_grow { BPF_F_NO_PREALLOC } else { 0 };
        })?;
    }
    let word = |value: u32| value.to_ne_bytes();
    let kernel_stack = KERNEL_STACK.max(bpf_sys::page_size()) as u64;
    let walks_here = variant.stacks == Stacks::Tables;
    let constants = [
        ("rows_mask", word(sizes.rows - 1)),
        ("rules_mask", word(sizes.rules - 1)),
        ("on_arm64", word(u32::from(Machine::running() == Some(Machine::Arm64)))),
        ("has_task_pt_regs", word(variant.task_pt_regs.into())),
        ("walks_here", word(walks_here.into())),
    ];
    constants.iter().try_for_each(|(name, value)| spec.set_global(name, value)).map_err(Error::load)?;
    spec.set_global("kernel_stack_bytes", &kernel_stack.to_ne_bytes()).map_err(Error::load)
}

/// Reads what walks in the kernel have missed.
#[derive(Debug)]
pub(super) struct Misses {
    ring: RingReader,
    ends: SharedMapping,
    cpus: u32,
    /// Samples whose window has not been read yet, with its number.
    waiting: Vec<(u32, Finished)>,
    /// Samples that found no room in `waiting`.
    lost: u64,
    broken: u64,
}

impl Misses {
    /// Of a program that was just loaded, which calls the other ones from now on; and what finishes its walks. `None`: it walks by frame
    /// pointers.
    pub fn open(program: &ProfileProgram, memory: usize) -> Result<Option<(Self, Unwinder)>> {
        let Some(machine) = Machine::running().filter(|_| program.stacks() != Stacks::FramePointers) else {
            return Ok(None);
        };
        let map =
            |name: &str| -> Result<&bpf_loader::map::Map> { program.object().map(name).map_err(Error::load) };
        let stages = ProgramArray::new(map("stages")?).map_err(Error::load)?;
        let called = program.stages().into_iter();
        #[cfg(feature = "python")]
        let called = called.chain(PYTHON_STAGES.into_iter().filter(|_| program.reads_python()));
        let called = (0..).zip(called).chain(program.span_stage().map(|name| (SPAN_STAGE, name)));
        for (stage, name) in called {
            let called = program.object().program(name).map_err(Error::load)?;
            stages.set(stage, called).map_err(Error::load)?;
        }
        let tables = Tables::of(program.object(), sizes(memory))?;
        let misses = Self {
            ring: RingReader::open(&map("misses")?.fd).map_err(Error::kernel)?,
            ends: SharedMapping::array(&map("walk_ends")?.fd, false).map_err(Error::kernel)?,
            cpus: program.cpus(),
            waiting: Vec::new(),
            lost: 0,
            broken: 0,
        };
        Ok(Some((misses, Unwinder::new(machine, tables))))
    }

    /// The table of processes that run CPython, where their frames are read.
    #[cfg(feature = "python")]
    pub fn pythons(program: &ProfileProgram) -> Result<Option<Pythons>> {
        if !program.reads_python() {
            return Ok(None);
        }
        let map = &program.object().map("pythons").map_err(Error::load)?.fd;
        Ok(Some(Pythons::new(map.try_clone().map_err(Error::kernel)?)))
    }

    /// The processes that publish spans, where these are read.
    pub fn spans(program: &ProfileProgram) -> Result<Option<SpanProcesses>> {
        if program.span_stage().is_none() {
            return Ok(None);
        }
        let map = &program.object().map("span_places").map_err(Error::load)?.fd;
        Ok(Some(SpanProcesses::new(map.try_clone().map_err(Error::kernel)?)))
    }

    /// The map to poll.
    pub fn map(program: &ProfileProgram) -> Result<&MapFd> {
        Ok(&program.object().map("misses").map_err(Error::load)?.fd)
    }

    /// Finishes what was missed, each after all that is known of what processes map from before it.
    pub fn finish(&mut self, sideband: &mut Sideband, symbols: &mut Symbols) -> Result<()> {
        let Self { ring, waiting, lost, broken, .. } = self;
        let mut read = Ok(());
        let each = |record: &[u8]| {
            let Some(missed) = MissedSample::decode(record) else {
                *broken += 1;
                return;
            };
            if missed.at.time >= sideband.known_until() && read.is_ok() {
                read = sideband.drain(symbols);
            }
            let frames = symbols.finish_walk(&missed.at);
            if waiting.len() >= MAX_WAITING {
                *lost += 1;
                return;
            }
            let MissedSample { key, comm, window, at } = missed;
            let finished = Finished {
                key,
                comm,
                time: at.time,
                samples: 1,
                kernel: None,
                user: Some(frames),
                waker: [0; 16],
            };
            waiting.push((window, finished));
        };
        // Not without end, however fast they come.
        ring.drain(MAX_AT_ONCE, each).map_err(Error::Ring)?;
        read
    }

    /// Those of a window.
    pub fn of_window(&mut self, window: u32) -> Vec<Finished> {
        let (taken, kept) = self.waiting.drain(..).partition::<Vec<_>, _>(|(of, _)| *of == window);
        self.waiting = kept;
        taken.into_iter().map(|(_, finished)| finished).collect()
    }

    /// All of them.
    pub fn of_all_windows(&mut self) -> Vec<Finished> {
        self.waiting.drain(..).map(|(_, finished)| finished).collect()
    }

    /// Samples that were lost.
    pub fn lost(&self) -> u64 {
        self.lost + self.broken
    }

    /// How walks have ended.
    pub fn walks(&self, unwinder: &Unwinder) -> Walks {
        let mut count = [0; 9];
        for cpu in 0..self.cpus {
            let mut bytes = [0; WalkEnds::SIZE];
            if self.ends.copy_out(cpu as usize * WalkEnds::SIZE, &mut bytes).is_some() {
                if let Some(ends) = WalkEnds::decode(&bytes) {
                    count.iter_mut().enumerate().for_each(|(end, count)| *count += ends.count(end));
                }
            }
        }
        Walks::of(|end| count.get(end).copied().unwrap_or(0), unwinder)
    }
}

impl Walks {
    /// By how many have ended in each way in the kernel ([`walk_end`]), and by what was finished here.
    pub(crate) fn of(ended: impl Fn(usize) -> u64, unwinder: &Unwinder) -> Self {
        let finished = unwinder.finished();
        Self {
            whole: ended(walk_end::WHOLE) + finished.whole,
            no_table: ended(walk_end::NO_TABLE) + finished.no_table,
            bad_cfa: ended(walk_end::BAD_CFA) + finished.bad_cfa,
            depth: ended(walk_end::DEPTH) + finished.depth,
            not_mapped: ended(walk_end::NOT_MAPPED) + finished.not_mapped,
            slice: finished.slice,
            lost: ended(walk_end::LOST),
            by_kernel: ended(walk_end::BY_KERNEL),
            in_user_space: ended(walk_end::MISSED),
            later: finished.later,
            #[cfg(feature = "python")]
            python_unread: 0,
            pages: unwinder.tables().pages() as u64,
            evicted_pages: unwinder.tables().evicted(),
        }
    }
}
