//! The BPF programs and their maps, sized for machine and memory.

use std::cell::Cell;

use bpf_loader::kernel::RunningKernel;
use bpf_loader::load::Object;
use bpf_loader::map::{Global, Map, MappedArray};
use bpf_loader::object::ObjectSpec;
use bpf_programs::events::syscalls::{CellCount, CellKey, Cells, CpuState, Start as Begun, machine};

use super::Settings;
use super::calls::CallSet;
use super::define::{INFO, SYSTEM_CALLS};
use super::window::Windows;
use crate::cpus;
use crate::error::{Error, Result};
use crate::names::SyscallAbi;
use crate::tracer::Start;
use crate::tracer::filter::{self, TaskFilter};
use crate::tracer::ladder::{Climbed, climb};
use crate::tracer::ring::{self, EventRing};

/// A CPU times this many calls a second, of more than that.
const TIMED_PER_SECOND: u64 = 20_000;
/// Calls after which the registers are of another time, without the call's number: those that end a signal's handler, and those
/// that the kernel itself puts in the way of a process with probes.
const RETURN_ELSEWHERE: &[&str] = &["sigreturn", "rt_sigreturn", "uretprobe", "uprobe"];
/// Bounds of the tables' sizes, in entries.
const TABLE_ENTRIES: std::ops::RangeInclusive<usize> = 1024..=65536;
/// What the kernel keeps for an entry of a hash table beside key and value, its share of the buckets included.
const ENTRY_OVERHEAD: usize = 64;

/// What is loaded and attached.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) climbed: Climbed,
    pub(super) filter: TaskFilter,
    pub(super) ring: EventRing,
    pub(super) windows: Windows,
    pub(super) states: MappedArray<[u8; CpuState::SIZE]>,
    pub(super) one_in: Global<u32>,
    /// The numbers that 64-bit programs use.
    pub(super) abi: SyscallAbi,
}

/// Entries of a window's table: half the memory is the two windows', as powers of two.
fn table_entries(memory: usize, cpus: u32) -> u32 {
    let left = memory.saturating_sub(2 * cpus as usize * Cells::SIZE) / 2;
    let entries = left / 2 / (CellKey::SIZE + CellCount::SIZE + ENTRY_OVERHEAD);
    let entries = entries.clamp(*TABLE_ENTRIES.start(), *TABLE_ENTRIES.end());
    1 << entries.ilog2()
}

/// What the programs are told before they are loaded.
struct Constants {
    abi: SyscallAbi,
    machine: u32,
    cpus: u32,
    wanted: CallSet,
    sets: [(&'static str, CallSet); 3],
    sample_interval: u64,
}

fn setting(reason: String) -> Error {
    Error::Setting { tracer: INFO.name, reason }
}

impl Constants {
    fn new(settings: &Settings) -> Result<Self> {
        if settings.scale > 3 {
            return Err(setting(format!("a scale of {} is out of range: it must be 0 to 3", settings.scale)));
        }
        let machine = match SyscallAbi::NATIVE {
            Some(SyscallAbi::X86_64) => machine::X86,
            Some(SyscallAbi::Arm64) => machine::ARM64,
            _ => machine::RISCV,
        };
        let unsupported = Error::Unsupported { tracer: INFO.name, what: "name the calls of this machine" };
        let abi = SyscallAbi::NATIVE.ok_or(unsupported)?;
        let named = |names: &[&'static str]| {
            // Not every machine has all of them.
            let known = names.iter().copied().filter(|name| CallSet::named(abi, [*name]).is_ok());
            CallSet::named(abi, known).unwrap_or(CallSet::EMPTY)
        };
        let wanted = CallSet::named(abi, settings.calls.iter().map(String::as_str));
        let every = settings.every_duration || settings.span_threshold.is_some();
        Ok(Self {
            abi,
            machine,
            cpus: cpus::read_present_limit().map_err(Error::io("/sys/devices/system/cpu/present"))?.max(1),
            wanted: wanted.map_err(|name| setting(format!("there is no system call {name:?}")))?,
            sets: [
                ("entry_calls", named(&[&["exit", "exit_group"], RETURN_ELSEWHERE].concat())),
                ("sigreturn_calls", named(RETURN_ELSEWHERE)),
                ("fork_calls", named(&["fork", "vfork", "clone", "clone3"])),
            ],
            sample_interval: if every { 0 } else { 1_000_000_000 / TIMED_PER_SECOND },
        })
    }

    fn set(&self, spec: &mut ObjectSpec<'_>, settings: &Settings) -> bpf_loader::Result<()> {
        let nanos = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        spec.set_global("cpus", &self.cpus.to_ne_bytes())?;
        spec.set_global("machine", &self.machine.to_ne_bytes())?;
        spec.set_global("scale", &u32::from(settings.scale).to_ne_bytes())?;
        spec.set_global("sample_interval", &self.sample_interval.to_ne_bytes())?;
        spec.set_global("minimum_ns", &nanos(settings.minimum).to_ne_bytes())?;
        // A threshold of nothing is every call; in the program, 0 is none.
        let threshold = settings.span_threshold.map_or(0, |threshold| nanos(threshold).max(1));
        spec.set_global("threshold_ns", &threshold.to_ne_bytes())?;
        spec.set_global("some_only", &u32::from(!settings.calls.is_empty()).to_ne_bytes())?;
        spec.set_global("wanted_calls", &self.wanted.to_bytes())?;
        self.sets.iter().try_for_each(|(name, set)| spec.set_global(name, &set.to_bytes()))
    }
}

impl Program {
    pub(super) fn load(start: &Start<'_>) -> Result<Self> {
        let settings = &start.settings.syscalls;
        let constants = Constants::new(settings)?;
        let entries = table_entries(start.memory, constants.cpus);
        let tables = Cell::new(None);
        // Filter and windows of the object that is attached: set before, as what is seen without them would be counted later.
        let mut ready = None;
        let climbed = climb(
            bpf_programs::SYSCALLS,
            &[&SYSTEM_CALLS],
            start.forced,
            start.target,
            |spec, _| {
                filter::prepare(spec, start.filter)?;
                // Without spans nothing is ever in the ring.
                let ring_bytes = if settings.span_threshold.is_some() { start.memory / 8 } else { 0 };
                ring::prepare(spec, ring_bytes)?;
                constants.set(spec, settings).map_err(Error::Load)?;
                tables.set(Some(size_maps(spec, constants.cpus, entries)?));
                Ok(())
            },
            |object, name| {
                if let Some(tables) = tables.take() {
                    let mut filter = TaskFilter::new(object)?;
                    filter.set(object, start.filter)?;
                    ready = Some((filter, Windows::new(object, tables, constants.cpus, settings.scale)?));
                }
                Ok(vec![object.program(name).and_then(|p| p.attach()).map_err(Error::Load)?])
            },
        )?;
        let object = &climbed.object;
        let (filter, windows) = ready.ok_or(Error::Load(bpf_loader::Error::Internal("nothing attached")))?;
        Ok(Self {
            filter,
            ring: EventRing::open(object)?,
            windows,
            states: MappedArray::new(map(object, "cpu_states")?, false).map_err(Error::Load)?,
            one_in: object.global("one_in").map_err(Error::Load)?,
            abi: constants.abi,
            climbed,
        })
    }

    /// Attaches the programs again, after their links were dropped.
    pub(super) fn attach(&mut self) -> Result<()> {
        self.forget_starts()?;
        let rung = self.climbed.chosen.first().and_then(|chosen| chosen.rung);
        let rung = SYSTEM_CALLS.rungs.iter().find(|r| Some(r.name) == rung);
        let programs = rung.iter().flat_map(|rung| rung.programs);
        let object = &self.climbed.object;
        let attach = |name: &str| object.program(name).and_then(|p| p.attach()).map_err(Error::Load);
        let links = programs.map(|name| filter::attach_again(|| attach(name)));
        self.climbed.links = links.collect::<Result<_>>()?;
        Ok(())
    }

    /// Forgets calls that had begun: their returns were not seen, and must not be taken for later ones'.
    fn forget_starts(&self) -> Result<()> {
        let object = &self.climbed.object;
        let starts: MappedArray<[u8; Begun::SIZE]> =
            MappedArray::new(map(object, "starts")?, true).map_err(Error::Load)?;
        for at in 0..starts.len() {
            starts.set(at, &[0; Begun::SIZE]);
        }
        let more: bpf_loader::map::Hash<u32, [u64; 2]> =
            bpf_loader::map::Hash::new(map(object, "more_starts")?).map_err(Error::Load)?;
        let threads: Vec<u32> = more.keys().filter_map(|key| key.ok()).collect();
        threads.iter().try_for_each(|tid| more.delete(tid).map(drop)).map_err(Error::Kernel)
    }

    /// What became of calls, over all CPUs.
    pub(super) fn state(&self) -> CpuState {
        let mut sum = CpuState { runs: 0, table_full: 0, starts_full: 0, no_start: 0 };
        for state in (0..self.states.len()).filter_map(|cpu| CpuState::decode(&self.states.get(cpu)?)) {
            sum.runs += state.runs;
            sum.table_full += state.table_full;
            sum.starts_full += state.starts_full;
            sum.no_start += state.no_start;
        }
        sum
    }

    /// Runs that the kernel reports as missed (Linux 5.12).
    pub(super) fn missed_runs(&self) -> Result<u64> {
        self.climbed.object.programs.iter().try_fold(0, |sum, program| {
            let info = bpf_sys::prog::info(&program.fd).map_err(|e| Error::Kernel(e.into()))?;
            Ok(sum + info.recursion_misses().unwrap_or(0))
        })
    }
}

pub(super) fn map<'o>(object: &'o Object, name: &str) -> Result<&'o Map> {
    object.map(name).map_err(Error::Load)
}

/// Sizes the maps, and creates the tables of the two windows.
fn size_maps(spec: &mut ObjectSpec<'_>, cpus: u32, entries: u32) -> Result<[Map; 2]> {
    let no_map = |name: &str| Error::Load(bpf_loader::Error::NoSuchMap { name: name.into() });
    spec.map_mut("cells").ok_or_else(|| no_map("cells"))?.max_entries = 2 * cpus;
    let more_starts = spec.map_mut("more_starts").ok_or_else(|| no_map("more_starts"))?;
    more_starts.max_entries = entries.min(more_starts.max_entries);
    spec.map_mut("cpu_states").ok_or_else(|| no_map("cpu_states"))?.max_entries = cpus;
    let inner =
        spec.map_mut("counts").and_then(|m| m.inner.as_deref_mut()).ok_or_else(|| no_map("counts"))?;
    inner.max_entries = entries;
    let create = || -> Result<Map> {
        let fd = inner.create(&RunningKernel::default()).map_err(Error::Load)?;
        Ok(Map::new("counts".into(), fd))
    };
    Ok([create()?, create()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_take_half_the_memory() {
        assert_eq!(table_entries(8 << 20, 2), 16384);
        assert_eq!(table_entries(0, 2), 1024);
        assert_eq!(table_entries(8 << 20, 8192), 1024);
        assert_eq!(table_entries(1 << 30, 64), 65536);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let refused = |settings| match Constants::new(&settings) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("not refused"),
        };
        assert_eq!(
            refused(Settings { scale: 4, ..Settings::default() }),
            "the syscalls tracer: a scale of 4 is out of range: it must be 0 to 3"
        );
        let unknown = Settings { calls: vec!["read".into(), "reed".into()], ..Settings::default() };
        assert_eq!(refused(unknown), "the syscalls tracer: there is no system call \"reed\"");
    }
}
