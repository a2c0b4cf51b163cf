//! The BPF programs and their maps, sized for machine and memory.

use bpf_loader::load::Object;
use bpf_loader::map::{Global, Hash, MappedArray};
use bpf_loader::object::ObjectSpec;
use bpf_programs::events::syscalls::{CellCount, CellKey, Cells, CpuState, Start as Begun, machine};
use bpf_sys::ProgType;
use bpf_sys::prog::ProgLoad;
use bpf_sys::uapi::flags::BPF_F_SLEEPABLE;
use bpf_sys::uapi::insn::{self, Insn};

use super::Settings;
use super::calls::CallSet;
use super::define::{HELD, INFO, SYSTEM_CALLS};
use super::window::Counts;
use crate::cpus;
use crate::error::{Error, Result};
use crate::key::Quoted;
use crate::names::SyscallAbi;
use crate::objects;
use crate::tracer::Start;
use crate::tracer::programs::{Programs, Rungs};
use crate::tracer::ring::{self, EventRing};

/// A CPU times this many calls a second, of more than that.
const TIMED_PER_SECOND: u64 = 20_000;
/// Calls after which the registers are of another time, without the call's number: those that end a signal's handler, and those
/// that the kernel itself puts in the way of a process with probes.
const RETURN_ELSEWHERE: &[&str] = &["sigreturn", "rt_sigreturn", "uretprobe", "uprobe"];
/// Bounds of the tables' sizes, in entries.
const TABLE_ENTRIES: std::ops::RangeInclusive<usize> = 1024..=65536;
const START_ENTRIES: std::ops::RangeInclusive<usize> = 64..=4096;
/// What the kernel keeps for an entry of a hash table beside key and value, its share of the buckets included.
const ENTRY_OVERHEAD: usize = 64;

/// What is loaded and attached.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) programs: Programs,
    pub(super) maps: Maps,
    /// The numbers that 64-bit programs use.
    pub(super) abi: SyscallAbi,
}

/// What the programs share with user space.
#[derive(Debug)]
pub(super) struct Maps {
    pub(super) counts: Counts,
    pub(super) ring: EventRing,
    states: MappedArray<[u8; CpuState::SIZE]>,
    pub(super) one_in: Global<u32>,
    starts: MappedArray<[u8; Begun::SIZE]>,
    more_starts: Hash<u32, [u64; 2]>,
}

/// Sizes of the maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    /// CPUs that have cells. Others, as one that is plugged in later, count in the table.
    cpus: u32,
    /// CPUs that there can ever be.
    states: u32,
    /// Of each of the two tables.
    counts: u32,
    more_starts: u32,
}

/// A key of 4 bytes, aligned to 8 as the kernel has it even where this process would not, and a value of two words.
const START_BYTES: usize = 8 + 16;

impl Sizes {
    /// Half the memory is for tables and cells, of which these get half at most.
    fn of(memory: usize, present: u32, possible: u32) -> Self {
        let cell_bytes = 2 * Cells::SIZE;
        let cpus = u32::try_from(memory / 4 / cell_bytes).unwrap_or(u32::MAX).clamp(1, present.max(1));
        let left = (memory / 2).saturating_sub(cpus as usize * cell_bytes);
        let entries = left / 2 / (CellKey::SIZE + CellCount::SIZE + ENTRY_OVERHEAD);
        let entries = entries.clamp(*TABLE_ENTRIES.start(), *TABLE_ENTRIES.end());
        let starts = memory / 32 / (START_BYTES + ENTRY_OVERHEAD);
        Self {
            cpus,
            states: possible.max(cpus),
            counts: 1 << entries.ilog2(),
            more_starts: starts.clamp(*START_ENTRIES.start(), *START_ENTRIES.end()) as u32,
        }
    }

    fn read(memory: usize) -> Result<Self> {
        let present = cpus::read_present_limit().map_err(Error::io("/sys/devices/system/cpu/present"))?;
        let possible = bpf_sys::possible_cpus().map_err(Error::kernel)?;
        Ok(Self::of(memory, present, u32::try_from(possible).unwrap_or(u32::MAX)))
    }

    fn apply(self, spec: &mut ObjectSpec<'_>) -> Result<()> {
        for (name, entries) in
            [("cells", 2 * self.cpus), ("cpu_states", self.states), ("more_starts", self.more_starts)]
        {
            spec.map_mut(name).ok_or_else(|| Error::no_map(name))?.max_entries = entries;
        }
        let counts = spec.map_mut("counts").and_then(|map| map.inner.as_deref_mut());
        counts.ok_or_else(|| Error::no_map("counts"))?.max_entries = self.counts;
        spec.set_global("cpus", &self.cpus.to_ne_bytes()).map_err(Error::load)
    }
}

/// What the programs are told before they are loaded.
struct Constants {
    abi: SyscallAbi,
    machine: u32,
    wanted: CallSet,
    sets: [(&'static str, CallSet); 4],
    sample_interval: u64,
}

fn setting(reason: String) -> Box<Error> {
    Box::new(Error::Setting { tracer: INFO.name, reason })
}

impl Constants {
    fn new(settings: &Settings) -> Result<Self> {
        if settings.scale > 3 {
            return Err(setting(format!("a scale of {} is out of range: it must be 0 to 3", settings.scale)));
        }
        let unsupported = Error::Unsupported { tracer: INFO.name, what: "name the calls of this machine" };
        let abi = SyscallAbi::running().ok_or(unsupported)?;
        let machine = match abi {
            SyscallAbi::X86_64 => machine::X86,
            SyscallAbi::I386 => machine::I386,
            SyscallAbi::Arm64 => machine::ARM64,
            SyscallAbi::Arm => machine::ARM,
            SyscallAbi::Riscv64 => machine::RISCV,
        };
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
            wanted: wanted.map_err(|name| setting(format!("there is no system call {}", Quoted(name))))?,
            sets: [
                ("entry_calls", named(&[&["exit", "exit_group"], RETURN_ELSEWHERE].concat())),
                ("sigreturn_calls", named(RETURN_ELSEWHERE)),
                ("fork_calls", named(&["fork", "vfork", "clone", "clone3"])),
                ("exec_calls", named(&["execve", "execveat"])),
            ],
            sample_interval: if every { 0 } else { 1_000_000_000 / TIMED_PER_SECOND },
        })
    }

    fn set(&self, spec: &mut ObjectSpec<'_>, settings: &Settings) -> bpf_loader::Result<()> {
        let nanos = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
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
        let constants = Constants::new(&start.settings.syscalls)?;
        let sizes = Sizes::read(start.memory)?;
        let any = start.forced.0.contains_key(SYSTEM_CALLS.what) || !preempts_programs();
        match Self::climb(start, &constants, sizes, any) {
            // Most calls are better than none.
            Err(error) if !any && matches!(*error, Error::NoRung { .. }) => {
                Self::climb(start, &constants, sizes, true)
            }
            climbed => climbed,
        }
    }

    /// `any`: also rungs whose programs the kernel preempts.
    fn climb(start: &Start<'_>, constants: &Constants, sizes: Sizes, any: bool) -> Result<Self> {
        let settings = &start.settings.syscalls;
        let prepare = |spec: &mut ObjectSpec<'_>, _: Rungs<'_>| {
            // Without spans nothing is ever in the ring.
            let ring_bytes = if settings.span_threshold.is_some() { start.memory / 8 } else { 0 };
            ring::prepare(spec, ring_bytes)?;
            sizes.apply(spec)?;
            constants.set(spec, settings).map_err(Error::load)
        };
        let bytes = objects::SYSCALLS.unpack()?;
        let open = |object: &Object| {
            if !any && object.programs.iter().all(|program| !HELD.contains(&program.name.as_str())) {
                let what =
                    "see every call so: this kernel preempts such programs and leaves others out meanwhile";
                return Err(Box::new(Error::Unsupported { tracer: INFO.name, what }));
            }
            let mut spec = ObjectSpec::parse(&bytes).map_err(Error::load)?;
            sizes.apply(&mut spec)?;
            Ok(Maps {
                counts: Counts::new(&spec, object, settings.scale)?,
                ring: EventRing::open(object)?,
                states: mapped(object, "cpu_states", false)?,
                one_in: object.global("one_in").map_err(Error::load)?,
                starts: mapped(object, "starts", true)?,
                more_starts: object.map("more_starts").and_then(Hash::new).map_err(Error::load)?,
            })
        };
        let (programs, maps) = Programs::start(&bytes, INFO.ladders, start, prepare, open)?;
        Ok(Self { programs, maps, abi: constants.abi })
    }

    /// Attaches again. Calls that had begun are forgotten: their returns were not seen, and must not be taken for later ones'.
    pub(super) fn resume(&mut self) -> Result<()> {
        if self.programs.is_running() {
            return Ok(());
        }
        let Maps { counts, starts, more_starts, .. } = &self.maps;
        counts.wait()?;
        for at in 0..starts.len() {
            starts.set(at, &[0; Begun::SIZE]);
        }
        let threads: Vec<u32> = more_starts.keys().filter_map(|key| key.ok()).collect();
        threads.iter().try_for_each(|tid| more_starts.delete(tid).map(drop)).map_err(Error::kernel)?;
        self.programs.resume()
    }

    /// What became of calls, over all CPUs.
    pub(super) fn state(&self) -> CpuState {
        let mut sum = CpuState { runs: 0, table_full: 0, starts_full: 0, no_start: 0 };
        let states = &self.maps.states;
        for state in (0..states.len()).filter_map(|cpu| CpuState::decode(&states.get(cpu)?)) {
            sum.runs += state.runs;
            sum.table_full += state.table_full;
            sum.starts_full += state.starts_full;
            sum.no_start += state.no_start;
        }
        sum
    }
}

fn mapped<const SIZE: usize>(object: &Object, name: &str, writable: bool) -> Result<MappedArray<[u8; SIZE]>> {
    object.map(name).and_then(|map| MappedArray::new(map, writable)).map_err(Error::load)
}

/// Whether the kernel may preempt programs at system calls, other than those of classic tracepoints. A thread that is preempted there
/// makes it leave out the runs of all others on that CPU. It came with such programs that may sleep (Linux 7.2).
fn preempts_programs() -> bool {
    let insns = [Insn::new(insn::MOV64_IMM, 0, 0, 0, 0), Insn::new(insn::EXIT, 0, 0, 0, 0)];
    let sleeps = ProgLoad {
        prog_type: ProgType::RAW_TRACEPOINT,
        insns: &insns,
        license: c"GPL",
        flags: BPF_F_SLEEPABLE,
        ..ProgLoad::default()
    };
    bpf_sys::prog::load(&sleeps, None).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_fit_in_the_memory() {
        let sizes = |memory, present, possible| {
            let sizes = Sizes::of(memory, present, possible);
            (sizes.cpus, sizes.states, sizes.counts, sizes.more_starts)
        };
        assert_eq!(sizes(8 << 20, 2, 128), (2, 128, 16384, 2978));
        assert_eq!(sizes(0, 2, 2), (1, 2, 1024, 64));
        assert_eq!(sizes(8 << 20, 8192, 8192), (341, 8192, 8192, 2978));
        assert_eq!(sizes(1 << 30, 64, 64), (64, 64, 65536, 4096));
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
