//! The profiler's BPF program and its maps, sized for the machine and the configuration.

use bpf_loader::kernel::RunningKernel;
use bpf_loader::load::Object;
use bpf_loader::map_def::MapSpec;
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;
use bpf_programs::events::profile::{CountKey, CpuStats};
use bpf_sys::MapFd;
use bpf_sys::shared::SharedMapping;
use bpf_sys::uapi::flags::BPF_F_NO_PREALLOC;

use super::window::{Processes, Window};
use crate::aggregate::ProcessId;
use crate::config::{Config, Filter, Stacks};
use crate::cpus;
use crate::error::{Error, Result};
use crate::objects::{self, Packed};
use crate::tracer::cost;
use crate::tracer::filter::{self, TaskFilter};
use crate::tracer::ladder::{Refused, fit_machine};
use crate::tracer::windows::{self, put_in};

/// Memory for the stacks of both windows, over all CPUs, at most.
const REGIONS_BUDGET: usize = 16 << 20;
/// Bounds of one CPU's region. The smallest holds some twenty of the deepest stacks.
const REGION_BYTES: std::ops::RangeInclusive<usize> = 16 << 10..=128 << 10;
/// Bounds of the tables' sizes, in entries.
const TABLE_ENTRIES: std::ops::RangeInclusive<u32> = 1024..=65536;
/// The program in the kernel, not attached to anything yet.
#[derive(Debug)]
pub struct ProfileProgram {
    object: Object,
    /// Name of the program that samples.
    sampler: &'static str,
    /// Whether it may look at where this kernel has its fields.
    kernel_types: bool,
    stacks: Stacks,
    #[cfg(feature = "python")]
    reads_python: bool,
    #[cfg(feature = "unwind")]
    stages: [&'static str; 2],
    #[cfg(feature = "unwind")]
    span_stage: Option<&'static str>,
    refused: Vec<Refused>,
    windows: [Window; 2],
    /// How often they were swapped: the last bit says which one is being filled.
    swaps: u32,
    /// The `.bss` section, where `active` lies.
    globals: SharedMapping,
    active_at: usize,
    stats: SharedMapping,
    cpus: u32,
    /// Whether tables allocate as they fill.
    pub tables_grow: bool,
    filter: TaskFilter,
}

/// How large things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    cpus: u32,
    region_bytes: usize,
    table_entries: u32,
}

impl Sizes {
    /// Regions share half of the memory. Tables hold what all CPUs can sample between two reads, twice.
    fn of(cpus: u32, frequency: u32, reads_per_second: u32, memory: usize) -> Self {
        let cpus = cpus.max(1);
        let share = REGIONS_BUDGET.min(memory / 2) / 2 / cpus as usize;
        // A power of two at most the share; whole pages, so that regions fill the mapping.
        let region = if share.is_power_of_two() { share } else { share.next_power_of_two() / 2 };
        let samples = u64::from(cpus) * u64::from(frequency) / u64::from(reads_per_second.max(1));
        let entries =
            u32::try_from(samples * 2).unwrap_or(u32::MAX).checked_next_power_of_two().unwrap_or(u32::MAX);
        Self {
            cpus,
            region_bytes: region.clamp(*REGION_BYTES.start(), *REGION_BYTES.end()),
            table_entries: entries.clamp(*TABLE_ENTRIES.start(), *TABLE_ENTRIES.end()),
        }
    }
}

/// One of the programs that sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Variant {
    pub object: Packed,
    pub sampler: &'static str,
    pub kernel_types: bool,
    pub stacks: Stacks,
    /// Programs that the first one calls, by their numbers in `stages`.
    #[cfg(feature = "unwind")]
    pub stages: [&'static str; 2],
    /// The one of them that reads spans, where the kernel's types tell threads apart.
    #[cfg(feature = "unwind")]
    pub reads_spans: &'static str,
    /// Of one that counts time off the CPU: which waits are too short.
    #[cfg(feature = "unwind")]
    pub least_wait: Option<std::time::Duration>,
    /// Whether it calls `bpf_task_pt_regs` (Linux 5.15, with BTF).
    #[cfg(feature = "unwind")]
    pub task_pt_regs: bool,
    /// Whether it reads frames of CPython.
    #[cfg(feature = "python")]
    pub python: bool,
    /// Whether another one walks as it does.
    #[cfg(feature = "unwind")]
    pub has_next: bool,
}

impl Variant {
    fn by_frame_pointers(kernel_types: bool) -> Self {
        Self {
            object: objects::PROFILE,
            sampler: if kernel_types { "profile_by_kernel_types" } else { "profile" },
            kernel_types,
            stacks: Stacks::FramePointers,
            #[cfg(feature = "unwind")]
            stages: [""; 2],
            #[cfg(feature = "unwind")]
            reads_spans: "",
            #[cfg(feature = "unwind")]
            least_wait: None,
            #[cfg(feature = "unwind")]
            task_pt_regs: false,
            #[cfg(feature = "python")]
            python: false,
            #[cfg(feature = "unwind")]
            has_next: false,
        }
    }
}

#[cfg(feature = "unwind")]
impl Variant {
    /// The program that reads spans, where it can.
    pub fn span_stage(&self) -> Option<&'static str> {
        (self.kernel_types || self.task_pt_regs).then_some(self.reads_spans).filter(|name| !name.is_empty())
    }
}

/// Whether the kernel has refused a program, or has no types for it.
#[cfg(feature = "unwind")]
fn is_of_the_kernel(error: &Error) -> bool {
    matches!(error, Error::Load(_) | Error::Kernel(_))
}

impl ProfileProgram {
    /// Loads the program for this configuration, with maps of about `memory` bytes. Tables that allocate as they fill are tried first; kernels before 6.1
    /// want those of perf programs allocated whole.
    ///
    /// # Errors
    ///
    /// The kernel refuses, or the filter names something that does not exist.
    pub fn load(
        config: &Config,
        target: &RunningTarget,
        reads_per_second: u32,
        memory: usize,
    ) -> Result<Self> {
        let kernel_types = filter::needs_kernel_types(&config.filter)?;
        Self::load_best(
            config,
            #[cfg(feature = "unwind")]
            super::walks::variants(kernel_types),
            Variant::by_frame_pointers(kernel_types),
            target,
            reads_per_second,
            memory,
        )
    }

    /// As [`load`](Self::load), the program that counts time off the CPU, of waits that are no shorter than this.
    ///
    /// # Errors
    ///
    /// As of [`load`](Self::load).
    #[cfg(feature = "unwind")]
    pub fn load_off_cpu(
        config: &Config,
        target: &RunningTarget,
        reads_per_second: u32,
        memory: usize,
        least: std::time::Duration,
    ) -> Result<Self> {
        let (better, last) = super::off_cpu::variants(least);
        Self::load_best(config, better, last, target, reads_per_second, memory)
    }

    fn load_best(
        config: &Config,
        #[cfg(feature = "unwind")] better: Vec<Variant>,
        last: Variant,
        target: &RunningTarget,
        reads_per_second: u32,
        memory: usize,
    ) -> Result<Self> {
        let cpus = cpus::read_present_limit().map_err(Error::io("/sys/devices/system/cpu/present"))?;
        let sizes = Sizes::of(cpus, config.frequency, reads_per_second, memory);
        let mut refused = Vec::new();
        #[cfg(feature = "unwind")]
        for variant in better {
            if config.stacks.is_some_and(|wanted| wanted != variant.stacks) {
                continue;
            }
            match Self::load_variant(config, variant, target, sizes, memory) {
                // Where it was asked for, another one does not do.
                Err(error) if is_of_the_kernel(&error) && (config.stacks.is_none() || variant.has_next) => {
                    if !variant.has_next {
                        refused.push(Refused { rung: variant.stacks.as_str(), reason: error.to_string() });
                    }
                }
                other => return other.map(|program| Self { refused, ..program }),
            }
        }
        if let Some(wanted) = config.stacks.filter(|wanted| *wanted != Stacks::FramePointers) {
            let reason = "on x86_64 and arm64 alone, by builds with the feature unwind".into();
            refused.push(Refused { rung: wanted.as_str(), reason });
            return Err(Box::new(Error::NoRung { what: "user stacks", refused }));
        }
        let program = Self::load_variant(config, last, target, sizes, memory)?;
        Ok(Self { refused, ..program })
    }

    fn load_variant(
        config: &Config,
        variant: Variant,
        target: &RunningTarget,
        sizes: Sizes,
        memory: usize,
    ) -> Result<Self> {
        // Before, programs of perf events are refused then, and those of tracepoints must not wait for memory where the scheduler is locked.
        if bpf_sys::kernel_version() < (6, 1) {
            return Self::load_with(config, variant, target, sizes, memory, false);
        }
        match Self::load_with(config, variant, target, sizes, memory, true) {
            Err(e) if e.load_errno() == Some(bpf_sys::Errno::EINVAL) => {
                Self::load_with(config, variant, target, sizes, memory, false)
            }
            other => other,
        }
    }

    fn load_with(
        config: &Config,
        variant: Variant,
        target: &RunningTarget,
        sizes: Sizes,
        memory: usize,
        tables_grow: bool,
    ) -> Result<Self> {
        let bytes = variant.object.unpack()?;
        let mut spec = ObjectSpec::parse(&bytes).map_err(Error::load)?;
        size_maps(&mut spec, sizes, tables_grow)?;
        filter::prepare(&mut spec, &config.filter)?;
        set_globals(&mut spec, sizes).map_err(Error::load)?;
        #[cfg(feature = "unwind")]
        if variant.stacks != Stacks::FramePointers {
            super::walks::prepare(&mut spec, variant, memory, sizes.cpus, tables_grow)?;
        }
        #[cfg(feature = "unwind")]
        if let Some(least) = variant.least_wait {
            super::off_cpu::prepare(&mut spec, variant.stacks, least, memory)?;
        }
        #[cfg(not(feature = "unwind"))]
        let _ = memory;
        fit_machine(&mut spec)?;
        let sampler = variant.sampler;
        spec.program_mut(sampler).ok_or_else(|| Error::no_program(sampler))?.autoload = true;
        let (active_map, active_at) = place(&spec, "active")?;
        let kernel = RunningKernel::default();
        let plan = spec.plan(target).map_err(Error::load)?;
        let object = plan.load(&kernel).and_then(|loaded| loaded.into_object()).map_err(Error::load)?;

        let inner = |outer| inner_spec(&spec, outer)?.create(&kernel).map_err(Error::load);
        let window =
            || Window::new(inner("counts")?, inner("stack_places")?, inner("regions")?, sizes.region_bytes);
        let windows = [window()?, window()?];
        let outer = |name| object.map(name).map(|map| &map.fd).map_err(Error::load);
        let outers = [outer("counts")?, outer("stack_places")?, outer("regions")?];
        let inners =
            windows.iter().zip(0..).flat_map(|(window, index)| window.maps().map(|inner| (index, inner)));
        let places = outers.into_iter().cycle().zip(inners);
        put_in(&places.map(|(outer, (index, inner))| (outer, index, inner)).collect::<Vec<_>>())?;
        let shared = |name: &str, writable| -> Result<SharedMapping> {
            SharedMapping::array(&object.map(name).map_err(Error::load)?.fd, writable).map_err(Error::kernel)
        };
        let mut program = Self {
            sampler,
            kernel_types: variant.kernel_types,
            stacks: variant.stacks,
            #[cfg(feature = "python")]
            reads_python: variant.python,
            #[cfg(feature = "unwind")]
            stages: variant.stages,
            #[cfg(feature = "unwind")]
            span_stage: variant.span_stage(),
            refused: Vec::new(),
            globals: shared(&active_map, true)?,
            active_at,
            stats: shared("stats", false)?,
            windows,
            swaps: 0,
            cpus: sizes.cpus,
            tables_grow,
            filter: TaskFilter::new(&object)?,
            object,
        };
        program.filter.set(&program.object, &config.filter)?;
        Ok(program)
    }

    fn map(&self, name: &str) -> Result<&MapFd> {
        Ok(&self.object.map(name).map_err(Error::load)?.fd)
    }

    /// The filter.
    pub fn filter(&mut self) -> &mut TaskFilter {
        &mut self.filter
    }

    /// Whether none of the processes that the filter names is left.
    pub fn is_exhausted(&self, filter: &Filter) -> bool {
        self.filter.is_exhausted(filter)
    }

    /// Sets another filter. One with conditions that need the kernel's types, where the program was loaded without, is
    /// refused, as is following children where it was not loaded for that.
    ///
    /// # Errors
    ///
    /// As [`TaskFilter::set`]; [`Error::FilterNeedsRestart`].
    pub fn set_filter(&mut self, filter: &Filter) -> Result<()> {
        if !self.kernel_types && filter::needs_kernel_types(filter)? {
            return Err(Box::new(Error::FilterNeedsRestart));
        }
        self.filter.set(&self.object, filter)
    }

    /// How it walks stacks of processes.
    pub fn stacks(&self) -> Stacks {
        self.stacks
    }

    /// Whether it reads frames of CPython.
    #[cfg(feature = "python")]
    pub fn reads_python(&self) -> bool {
        self.reads_python
    }

    /// The program that reads spans.
    #[cfg(feature = "unwind")]
    pub fn span_stage(&self) -> Option<&'static str> {
        self.span_stage
    }

    /// Better ways, and why the kernel did not take them.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// The object in the kernel.
    #[cfg(feature = "unwind")]
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// Programs that the first one calls, by their numbers in `stages`.
    #[cfg(feature = "unwind")]
    pub fn stages(&self) -> [&'static str; 2] {
        self.stages
    }

    /// How often the windows were swapped.
    #[cfg(feature = "unwind")]
    pub fn swaps(&self) -> u32 {
        self.swaps
    }

    /// The program to attach to the sampling events.
    ///
    /// # Errors
    ///
    /// The object has none, which is a defect.
    pub fn sampler(&self) -> Result<&bpf_loader::program::Program> {
        self.object.program(self.sampler).map_err(Error::load)
    }

    /// The ring buffer with fill records.
    ///
    /// # Errors
    ///
    /// The object has none, which is a defect.
    pub fn events(&self) -> Result<&MapFd> {
        self.map("events")
    }

    /// Makes the program fill the other window, and waits until no CPU is still in the old one.
    ///
    /// # Errors
    ///
    /// The kernel does not take the update that waits.
    pub fn swap(&mut self) -> Result<()> {
        let full = self.swaps as usize & 1;
        self.swaps = self.swaps.wrapping_add(1);
        let stored = self.globals.store_release_u32(self.active_at, self.swaps);
        stored.ok_or_else(|| Error::internal("place of `active`"))?;
        // Updating a map of maps returns only after every program that may have read the old value has ended
        // (`maybe_wait_bpf_programs`, Linux 5.0), so setting what is already there is a wait for our own flip.
        let window = &self.windows[full];
        windows::set(self.map("counts")?, full as u32, window.counts_map())
    }

    /// The window that was filled before the last [`swap`](Self::swap).
    pub fn full_window(&mut self) -> &mut Window {
        &mut self.windows[(self.swaps as usize & 1) ^ 1]
    }

    /// How many CPUs the tables have room for.
    #[cfg(feature = "unwind")]
    pub fn cpus(&self) -> u32 {
        self.cpus
    }

    /// What became of the program's runs on each CPU, since it was loaded.
    pub fn stats(&self) -> impl Iterator<Item = (u32, CpuStats)> + '_ {
        (0..self.cpus).filter_map(|cpu| {
            let mut bytes = [0; CpuStats::SIZE];
            self.stats.copy_out(cpu as usize * CpuStats::SIZE, &mut bytes)?;
            Some((cpu, CpuStats::decode(&bytes)?))
        })
    }

    /// Children that could not be followed, for want of room in the table of processes.
    pub fn children_lost(&self) -> u64 {
        self.filter.children_lost()
    }

    /// Runs that the kernel reports as missed (`recursion_misses`, Linux 5.12).
    ///
    /// # Errors
    ///
    /// The kernel does not tell about the program.
    pub fn recursion_misses(&self) -> Result<u64> {
        let info = bpf_sys::prog::info(&self.sampler()?.fd).map_err(Error::kernel)?;
        Ok(info.recursion_misses().unwrap_or(0))
    }

    /// Instructions that the verifier walked (Linux 5.16; 0 before).
    ///
    /// # Errors
    ///
    /// The kernel does not tell about the program.
    pub fn verified_insns(&self) -> Result<u32> {
        let info = bpf_sys::prog::info(&self.sampler()?.fd).map_err(Error::kernel)?;
        Ok(info.verified_insns)
    }

    /// Whether the kernel reads hash tables in batches, found by reading an empty one: for a program that is not attached.
    ///
    /// # Errors
    ///
    /// The tables cannot be read.
    pub fn has_batches(&mut self) -> Result<bool> {
        let mut samples = crate::aggregate::Samples::default();
        self.swap()?;
        let window = self.full_window();
        window.drain(&mut samples, &mut Numbers, Vec::new(), |n| n)?;
        Ok(window.has_batches())
    }

    /// Time in the program as the kernel counts it, and how often it ran.
    ///
    /// # Errors
    ///
    /// The kernel does not tell about the program.
    pub fn run_time(&self) -> Result<(std::time::Duration, u64)> {
        cost::object_run_time(&self.object)
    }

    /// Kernel memory of the maps in bytes, as far as the kernel says (`memlock` of their fdinfo).
    pub fn map_bytes(&self) -> u64 {
        let inner = self.windows.iter().flat_map(Window::maps);
        cost::object_map_bytes(&self.object) + inner.map(cost::map_bytes).sum::<u64>()
    }
}

/// Processes by their numbers alone.
struct Numbers;

impl Processes for Numbers {
    fn meet(&mut self, key: &CountKey, _comm: &[u8; 16]) -> ProcessId {
        ProcessId { pid: key.tgid, started: 0 }
    }

    #[cfg(feature = "unwind")]
    fn sampled(&mut self, _process: ProcessId, _stack: &[u64]) {}
}

fn inner_spec<'s, 'a>(spec: &'s ObjectSpec<'a>, outer: &str) -> Result<&'s MapSpec<'a>> {
    let no_map = || Error::no_map(outer);
    spec.map(outer).and_then(|m| m.inner.as_deref()).ok_or_else(no_map)
}

/// Map and place of a global variable.
fn place(spec: &ObjectSpec<'_>, variable: &str) -> Result<(String, usize)> {
    let (map, offset) = spec.variable(variable).map_err(Error::load)?;
    Ok((map.name.to_string(), offset as usize))
}

fn size_maps(spec: &mut ObjectSpec<'_>, sizes: Sizes, tables_grow: bool) -> Result<()> {
    let grow = if tables_grow { BPF_F_NO_PREALLOC } else { 0 };
    // A sample has two stacks.
    for (name, entries) in [("counts", sizes.table_entries), ("stack_places", sizes.table_entries * 2)] {
        let inner =
            spec.map_mut(name).and_then(|m| m.inner.as_deref_mut()).ok_or_else(|| Error::no_map(name))?;
        inner.max_entries = entries;
        inner.flags |= grow;
    }
    let regions = spec
        .map_mut("regions")
        .and_then(|m| m.inner.as_deref_mut())
        .ok_or_else(|| Error::no_map("regions"))?;
    regions.max_entries = sizes.cpus;
    regions.value_size = sizes.region_bytes as u32;
    spec.map_mut("stats").ok_or_else(|| Error::no_map("stats"))?.max_entries = sizes.cpus;
    spec.map_mut("pids").ok_or_else(|| Error::no_map("pids"))?.flags |= grow;
    Ok(())
}

fn set_globals(spec: &mut ObjectSpec<'_>, sizes: Sizes) -> bpf_loader::Result<()> {
    spec.set_global("region_bytes", &(sizes.region_bytes as u64).to_ne_bytes())?;
    spec.set_global("hash_seed", &bpf_sys::random::number().to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_machine() {
        let small = Sizes::of(2, 99, 1, usize::MAX);
        assert_eq!(small, Sizes { cpus: 2, region_bytes: 128 << 10, table_entries: 1024 });
        let large = Sizes::of(256, 99, 1, 32 << 20);
        assert_eq!(large, Sizes { cpus: 256, region_bytes: 32 << 10, table_entries: 65536 });
        assert_eq!(Sizes::of(4096, 1000, 1, usize::MAX).region_bytes, 16 << 10);
        assert_eq!(Sizes::of(0, 1, 1, 0), Sizes { cpus: 1, region_bytes: 16 << 10, table_entries: 1024 });
        assert_eq!(Sizes::of(2, 99, 1, 400 << 10).region_bytes, 32 << 10);
    }
}
