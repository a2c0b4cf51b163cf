//! The object of a process: which of the two the kernel takes, how large its maps are, and what is in them.

use bpf_loader::attach::{BinaryFunctions, BinaryPlace, UprobeMultiOptions, UprobeOptions};
use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::machine::Machine;
use bpf_loader::map::{Hash, Map};
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;
use bpf_programs::events::heap::{Allocation, Sort, Stack, thread};

#[cfg(feature = "unwind")]
use super::OWN_STACKS;
use super::files::{self, ProbedFile};
#[cfg(feature = "unwind")]
use super::walks;
use super::{ALLOCATIONS, INFO, functions};
#[cfg(feature = "unwind")]
use crate::config::Stacks;
use crate::error::{Error, Result};
use crate::objects::{self, Packed};
use crate::symbolize::Host;
#[cfg(feature = "unwind")]
use crate::tracer::ladder::Refused;
use crate::tracer::ladder::{Chosen, Climbed, Forced, climb};

/// What an element of a hash table takes beside key and value: its head, and its share of the buckets.
const ELEMENT: usize = 64;
/// As many of each map as make sense.
const MAX_ELEMENTS: usize = 16 << 20;

/// Programs of the rung `uprobe`, and the functions that they go to.
const ENTRIES: [(&str, Sort); 8] = [
    ("enter_malloc", Sort::Malloc),
    ("enter_sized", Sort::Sized),
    ("enter_array", Sort::Array),
    ("enter_realloc", Sort::Realloc),
    ("enter_rearray", Sort::Rearray),
    ("enter_aligned", Sort::Aligned),
    ("enter_memalign", Sort::Memalign),
    ("enter_free", Sort::Free),
];

/// What was allocated from one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocated {
    pub sums: Stack,
    /// The allocator's function, then its caller and so on.
    pub frames: Vec<u64>,
}

impl Allocated {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let sums = Stack::decode(bytes)?;
        Some(Self { sums, frames: sums.frames(bytes) })
    }
}

/// The table of stacks, as long as the object's are.
pub enum StackMap {
    ByFramePointers(Hash<u64, [u8; Stack::BY_FRAME_POINTERS]>),
    #[cfg(feature = "unwind")]
    ByTables(Hash<u64, [u8; Stack::BY_TABLES]>),
}

impl StackMap {
    /// Of an object that was loaded, with a place for those that find no room.
    pub fn new(object: &Object, variant: &Variant) -> Result<Self> {
        let map = object.map("stacks").map_err(Error::load)?;
        #[cfg(feature = "unwind")]
        if variant.is_by_tables() {
            return with_rest(map).map(Self::ByTables);
        }
        let _ = variant;
        with_rest(map).map(Self::ByFramePointers)
    }

    pub fn read(&self) -> Result<Vec<(u64, Allocated)>> {
        match self {
            Self::ByFramePointers(map) => read_all(map),
            #[cfg(feature = "unwind")]
            Self::ByTables(map) => read_all(map),
        }
    }

    #[cfg(feature = "unwind")]
    pub fn delete(&self, key: u64) -> Result<()> {
        let deleted = match self {
            Self::ByFramePointers(map) => map.delete(&key),
            Self::ByTables(map) => map.delete(&key),
        };
        // It may never have been there, for want of room.
        deleted.map(drop).map_err(Error::kernel)
    }
}

fn with_rest<const BYTES: usize>(map: &Map) -> Result<Hash<u64, [u8; BYTES]>> {
    let stacks = Hash::new(map).map_err(Error::load)?;
    stacks.set(&0, &[0; BYTES], bpf_sys::uapi::flags::BPF_ANY).map_err(Error::kernel)?;
    Ok(stacks)
}

fn read_all<const BYTES: usize>(map: &Hash<u64, [u8; BYTES]>) -> Result<Vec<(u64, Allocated)>> {
    let mut stacks = Vec::new();
    let mut batches = map.batches(256);
    while let Some((keys, values)) = batches.next().map_err(Error::kernel)? {
        let allocated = values.iter().filter_map(|value| Allocated::decode(value));
        stacks.extend(keys.iter().copied().zip(allocated));
    }
    Ok(stacks)
}

/// Elements of the maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    allocations: u32,
    stacks: u32,
    threads: u32,
}

/// One of the objects.
pub struct Variant {
    object: Packed,
    stack_bytes: usize,
    thread_bytes: usize,
}

const BY_FRAME_POINTERS: Variant = Variant {
    object: objects::HEAP,
    stack_bytes: Stack::BY_FRAME_POINTERS,
    thread_bytes: thread::BY_FRAME_POINTERS,
};
#[cfg(feature = "unwind")]
const BY_TABLES: Variant =
    Variant { object: objects::HEAP_UNWIND, stack_bytes: Stack::BY_TABLES, thread_bytes: thread::BY_TABLES };

impl Variant {
    #[cfg(feature = "unwind")]
    pub fn is_by_tables(&self) -> bool {
        self.stack_bytes == Stack::BY_TABLES
    }

    /// What is for the maps that both have.
    fn memory(&self, memory: usize) -> usize {
        #[cfg(feature = "unwind")]
        if self.is_by_tables() {
            return walks::memory_besides(memory);
        }
        memory
    }
}

impl Sizes {
    /// Half for allocations, three eighths for stacks, an eighth for threads; not less than it takes to work at all.
    fn of(variant: &Variant, memory: usize) -> Self {
        let memory = variant.memory(memory);
        let fit = |eighths: usize, value: usize, least: usize| {
            let fit = memory / 8 * eighths / (value + size_of::<u64>() + ELEMENT);
            fit.clamp(least, MAX_ELEMENTS) as u32
        };
        Self {
            allocations: fit(4, Allocation::SIZE, 256),
            stacks: fit(3, variant.stack_bytes, 64),
            threads: fit(1, variant.thread_bytes, 512),
        }
    }
}

/// Sets sizes and constants, for a process and on that rung.
fn prepare(
    spec: &mut ObjectSpec<'_>,
    variant: &Variant,
    memory: usize,
    pid: u32,
    rung: Option<&str>,
) -> Result<()> {
    let sizes = Sizes::of(variant, memory);
    #[cfg(feature = "unwind")]
    if variant.is_by_tables() {
        walks::prepare(spec, memory, pid, sizes.stacks, rung)?;
    }
    #[cfg(not(feature = "unwind"))]
    let _ = (pid, rung);
    for (name, entries) in
        [("allocations", sizes.allocations), ("stacks", sizes.stacks), ("threads", sizes.threads)]
    {
        let missing = || Error::no_map(name);
        spec.map_mut(name).ok_or_else(missing)?.max_entries = entries;
    }
    let seed = bpf_sys::random::number();
    spec.set_global("hash_seed", &seed.to_ne_bytes()).map_err(Error::load)?;
    let is_arm64 = u32::from(Machine::running() == Some(Machine::Aarch64));
    spec.set_global("on_arm64", &is_arm64.to_ne_bytes()).map_err(Error::load)
}

/// The programs of the rung that was chosen, in the order in which they are attached. Others of an object are called by these.
pub fn probes(chosen: &[Chosen]) -> &'static [&'static str] {
    let name = chosen.iter().find(|chosen| chosen.what == ALLOCATIONS.what).and_then(|chosen| chosen.rung);
    let rung = ALLOCATIONS.rungs.iter().find(|rung| name == Some(rung.name));
    rung.map_or(&[], |rung| rung.programs)
}

/// Attaches one program to all functions that are its own.
pub fn attach(object: &Object, name: &str, files: &[ProbedFile], pid: u32) -> Result<Vec<Link>> {
    let program = object.program(name).map_err(Error::load)?;
    let mut links = Vec::new();
    for file in files {
        let path = file.path();
        if name == "session" {
            let offsets: Vec<u64> = file.probes.iter().map(|probe| probe.offset).collect();
            let cookies: Vec<u64> = file.probes.iter().map(|probe| probe.sort as u64).collect();
            let options = UprobeMultiOptions { pid: Some(pid), cookies: &cookies, ..Default::default() };
            let functions = BinaryFunctions::Offsets(&offsets);
            links.push(program.attach_uprobe_multi(&path, functions, &options).map_err(Error::load)?);
            continue;
        }
        let own = ENTRIES.iter().find(|(entry, _)| *entry == name).map(|(_, sort)| *sort);
        let is_own = |sort: Sort| own.map_or(sort != Sort::Free, |own| sort == own);
        let options = UprobeOptions { ret: own.is_none(), pid: Some(pid), ..Default::default() };
        for probe in file.probes.iter().filter(|probe| is_own(probe.sort)) {
            let at = BinaryPlace::Offset(probe.offset);
            links.push(program.attach_uprobe(&path, at, &options).map_err(Error::load)?);
        }
    }
    Ok(links)
}

pub fn unsupported(what: &'static str) -> Box<Error> {
    Box::new(Error::Unsupported { tracer: INFO.name, what })
}

/// What is to be done with an object that is loaded before the program of that name is attached.
pub type Before<'b> = dyn FnMut(&Variant, &Object, &str) -> Result<()> + 'b;

fn climb_with(
    variant: &Variant,
    pid: u32,
    files: &[ProbedFile],
    memory: usize,
    forced: &Forced,
    target: &RunningTarget,
    before: &mut Before<'_>,
) -> Result<Climbed> {
    climb(
        &variant.object.unpack()?,
        &[&ALLOCATIONS],
        forced,
        target,
        &mut |spec, rung| prepare(spec, variant, memory, pid, rung(ALLOCATIONS.what)),
        &mut |object, name| {
            before(variant, object, name)?;
            attach(object, name, files, pid)
        },
    )
}

/// The best object that the kernel takes, with its probes.
#[cfg(feature = "unwind")]
pub fn climb_rungs(
    pid: u32,
    files: &[ProbedFile],
    memory: usize,
    forced: &Forced,
    target: &RunningTarget,
    before: &mut Before<'_>,
) -> Result<(Climbed, &'static Variant)> {
    let what = OWN_STACKS.what;
    let wanted = forced.rung(&OWN_STACKS)?.map(|rung| rung.name);
    let (tables, frame_pointers) = (Stacks::Tables.as_str(), Stacks::FramePointers.as_str());
    let mut refused = Vec::new();
    if wanted != Some(frame_pointers) {
        let climbed = if walks::is_possible() {
            climb_with(&BY_TABLES, pid, files, memory, forced, target, before)
        } else {
            Err(unsupported("walk stacks by tables: on x86_64 and arm64 alone"))
        };
        match climbed {
            // Where it was asked for, another one does not do.
            Err(error) if wanted.is_none() => {
                refused.push(Refused { rung: tables, reason: error.to_string() });
            }
            Err(error) => return Err(error),
            Ok(mut climbed) => {
                climbed.chosen.push(Chosen { what, rung: Some(tables), refused });
                return Ok((climbed, &BY_TABLES));
            }
        }
    }
    let mut climbed = climb_with(&BY_FRAME_POINTERS, pid, files, memory, forced, target, before)?;
    climbed.chosen.push(Chosen { what, rung: Some(frame_pointers), refused });
    Ok((climbed, &BY_FRAME_POINTERS))
}

#[cfg(not(feature = "unwind"))]
pub fn climb_rungs(
    pid: u32,
    files: &[ProbedFile],
    memory: usize,
    forced: &Forced,
    target: &RunningTarget,
    before: &mut Before<'_>,
) -> Result<(Climbed, &'static Variant)> {
    climb_with(&BY_FRAME_POINTERS, pid, files, memory, forced, target, before)
        .map(|climbed| (climbed, &BY_FRAME_POINTERS))
}

/// Which rungs this kernel has: found where this process began, which it does not pass again. It may have been stripped of
/// the names of its own allocator.
///
/// # Errors
///
/// As [`TracedProcess::start`].
pub fn try_rungs(memory: usize, forced: &Forced, target: &RunningTarget) -> Result<Vec<Chosen>> {
    functions::machine_of(Machine::running(), Machine::running()).map_err(unsupported)?;
    let pid = std::process::id();
    let files = [files::beginning(&Host::default(), pid)?];
    let climbed = climb_rungs(pid, &files, memory, forced, target, &mut |_, _, _| Ok(()));
    // `arch_uprobe_analyze_insn` of arm64 refuses such programs.
    if climbed.is_err()
        && (Machine::own(), Machine::running()) == (Some(Machine::Arm), Some(Machine::Aarch64))
    {
        return Err(unsupported(
            "try its probes: kernels of arm64 put none into 32-bit programs, and this is one; 64-bit ones may be traced",
        ));
    }
    Ok(climbed?.0.chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_share_the_budget() {
        check(&BY_FRAME_POINTERS, 7 << 20);
        #[cfg(feature = "unwind")]
        check(&BY_TABLES, 6 << 20);
    }

    fn check(variant: &Variant, least: usize) {
        let sizes = Sizes::of(variant, 8 << 20);
        let bytes = |elements: u32, value: usize| elements as usize * (value + 8 + ELEMENT);
        let all = bytes(sizes.allocations, Allocation::SIZE)
            + bytes(sizes.stacks, variant.stack_bytes)
            + bytes(sizes.threads, variant.thread_bytes);
        assert!(all <= 8 << 20 && all > least, "{all}");
        assert_eq!(Sizes::of(variant, 0), Sizes { allocations: 256, stacks: 64, threads: 512 });
    }
}
