//! One process whose heap is traced: its own object, probes and symbols.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bpf_loader::attach::{BinaryFunctions, BinaryPlace, UprobeMultiOptions, UprobeOptions};
use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::machine::Machine;
use bpf_loader::map::{Global, Hash, Map, PerCpuArray};
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;
use bpf_programs::events::heap::{Allocation, HeapStats, Sort, Stack, thread};

#[cfg(feature = "unwind")]
use bpf_sys::MapFd;

#[cfg(feature = "unwind")]
use super::OWN_STACKS;
use super::files::{self, KnownFiles, ProbedFile};
#[cfg(feature = "unwind")]
use super::walks::{self, ProcessWalks};
use super::{ALLOCATIONS, INFO, Settings, functions};
#[cfg(feature = "unwind")]
use crate::config::Stacks;
use crate::error::{Error, Result};
use crate::objects::{self, Packed};
use crate::sorted::SortedMap;
use crate::symbolize::Host;
#[cfg(feature = "unwind")]
use crate::telemetry::Sink;
use crate::tracer::filter::check_process;
use crate::tracer::filter::start_ticks;
#[cfg(feature = "unwind")]
use crate::tracer::ladder::Refused;
use crate::tracer::ladder::{Chosen, Climbed, Forced, climb};
use crate::tracer::profile::symbols::Symbols;
use crate::tracer::programs::add_counts;

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

/// Which process it is, whatever its number, and which program it runs: another after an exec.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    /// In clock ticks since boot. An exec does not change it.
    started: Option<u64>,
    executable: (u64, u64),
    /// Addresses that the kernel chooses anew for every program.
    auxv: Vec<u8>,
}

impl Identity {
    fn read(host: &Host, pid: u32) -> Option<Self> {
        Self::try_read(host, pid).ok().filter(|identity| !identity.auxv.is_empty())
    }

    /// Without an `auxv` of a process that is ending.
    fn try_read(host: &Host, pid: u32) -> io::Result<Self> {
        let executable = fs::metadata(host.process_file(pid, "exe"))?;
        let auxv = fs::read(host.process_file(pid, "auxv"))?;
        Ok(Self { started: start_ticks(pid), executable: (executable.dev(), executable.ino()), auxv })
    }
}

/// What became of a process since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It goes on.
    None,
    /// It runs another program, and nothing of its heap is left.
    Exec,
    /// It has ended.
    Exit,
}

/// A process.
pub struct TracedProcess {
    pub pid: u32,
    /// As of the last look.
    pub name: [u8; 16],
    pub object: Object,
    pub chosen: Vec<Chosen>,
    links: Vec<Link>,
    is_paused: bool,
    identity: Identity,
    files: KnownFiles,
    /// Places where `malloc` was found.
    mallocs: usize,
    /// Times that a file which was loaded later could not be probed.
    not_probed: u64,
    malloc_is_leaf: Global<u32>,
    sample_bytes: Global<u32>,
    stacks: StackMap,
    #[cfg(feature = "unwind")]
    walks: Option<ProcessWalks>,
    stats: PerCpuArray<[u8; HeapStats::SIZE]>,
    pub symbols: Symbols,
    pub window: Window,
}

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
enum StackMap {
    ByFramePointers(Hash<u64, [u8; Stack::BY_FRAME_POINTERS]>),
    #[cfg(feature = "unwind")]
    ByTables(Hash<u64, [u8; Stack::BY_TABLES]>),
}

impl StackMap {
    /// Of an object that was loaded, with a place for those that find no room.
    fn new(object: &Object, variant: &Variant) -> Result<Self> {
        let map = object.map("stacks").map_err(Error::load)?;
        #[cfg(feature = "unwind")]
        if variant.is_by_tables() {
            return with_rest(map).map(Self::ByTables);
        }
        let _ = variant;
        with_rest(map).map(Self::ByFramePointers)
    }

    fn read(&self) -> Result<Vec<(u64, Allocated)>> {
        match self {
            Self::ByFramePointers(map) => read_all(map),
            #[cfg(feature = "unwind")]
            Self::ByTables(map) => read_all(map),
        }
    }

    #[cfg(feature = "unwind")]
    fn delete(&self, key: u64) -> Result<()> {
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

/// What was told already.
pub struct Window {
    pub start_unix_nanos: u64,
    pub start: Instant,
    /// Allocations.
    pub allocations: u64,
    /// Bytes allocated, by stack.
    pub bytes: SortedMap<u64, u64>,
    pub losses: (u64, u64),
}

impl Window {
    fn new() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            start_unix_nanos: unix.as_nanos() as u64,
            start: Instant::now(),
            allocations: 0,
            bytes: SortedMap::new(),
            losses: (0, 0),
        }
    }
}

/// Elements of the maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    allocations: u32,
    stacks: u32,
    threads: u32,
}

/// One of the objects.
struct Variant {
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
    fn is_by_tables(&self) -> bool {
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

/// Attaches one program to all functions that are its own.
fn attach(object: &Object, name: &str, files: &[ProbedFile], pid: u32) -> Result<Vec<Link>> {
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

fn unsupported(what: &'static str) -> Box<Error> {
    Box::new(Error::Unsupported { tracer: INFO.name, what })
}

/// What is to be done with an object that is loaded before the program of that name is attached.
type Before<'b> = dyn FnMut(&Variant, &Object, &str) -> Result<()> + 'b;

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
fn climb_rungs(
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
fn climb_rungs(
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

fn read_name(host: &Host, pid: u32) -> [u8; 16] {
    let comm = fs::read(host.process_file(pid, "comm")).unwrap_or_default();
    let mut name = [0; 16];
    comm.iter().take_while(|&&byte| byte != b'\n').take(15).zip(&mut name).for_each(|(from, to)| *to = *from);
    name
}

impl TracedProcess {
    /// Loads an object for the process and attaches it.
    ///
    /// # Errors
    ///
    /// There is no such process; it or the kernel is of an architecture that is not known here; the kernel has no rung.
    pub fn start(
        pid: u32,
        settings: &Settings,
        memory: usize,
        forced: &Forced,
        target: &RunningTarget,
    ) -> Result<Self> {
        let host = Host::default();
        check_process(pid)?;
        let identity = Identity::try_read(&host, pid).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NoSuchProcess(pid),
            _ => Error::Io { what: "/proc/PID/exe and auxv of the process", error },
        })?;
        let program = files::machine_of_program(&host, pid);
        functions::machine_of(program, Machine::running()).map_err(unsupported)?;
        let mut files = KnownFiles::default();
        let probed = files.read_new(&host, pid);
        let new_symbols = || {
            let mut symbols = Symbols::new();
            // Names must be there when the process is not any more.
            symbols.meet(pid, &[0; 16], 0);
            symbols
        };
        #[cfg(feature = "unwind")]
        let mut opened = None;
        let (climbed, variant) =
            climb_rungs(pid, &probed, memory, forced, target, &mut |variant, object, name| {
                #[cfg(feature = "unwind")]
                if variant.is_by_tables() && walks::connect(object, name)? {
                    let mut symbols = new_symbols();
                    let walks = ProcessWalks::open(object, memory, pid, &mut symbols)?;
                    opened = Some((walks, symbols));
                }
                let _ = (variant, object, name);
                Ok(())
            })?;
        let object = climbed.object;
        #[cfg(feature = "unwind")]
        let (walks, symbols) = match opened.filter(|_| variant.is_by_tables()) {
            Some((walks, symbols)) => (Some(walks), symbols),
            None => (None, new_symbols()),
        };
        #[cfg(not(feature = "unwind"))]
        let symbols = new_symbols();
        let map = |name: &str| object.map(name).map_err(Error::load);
        let mut process = Self {
            pid,
            name: read_name(&host, pid),
            chosen: climbed.chosen,
            links: climbed.links,
            is_paused: false,
            identity,
            files,
            mallocs: 0,
            not_probed: 0,
            malloc_is_leaf: object.global("malloc_is_leaf").map_err(Error::load)?,
            sample_bytes: object.global("sample_bytes").map_err(Error::load)?,
            stacks: StackMap::new(&object, variant)?,
            #[cfg(feature = "unwind")]
            walks,
            stats: PerCpuArray::new(map("heap_stats")?).map_err(Error::load)?,
            symbols,
            window: Window::new(),
            object,
        };
        process.note_mallocs(&probed)?;
        process.set_sample_bytes(settings.sample_bytes)?;
        Ok(process)
    }

    /// `malloc` in two places may be one that calls the other.
    fn note_mallocs(&mut self, files: &[ProbedFile]) -> Result<()> {
        let probes = files.iter().flat_map(|file| &file.probes);
        self.mallocs += probes.filter(|probe| probe.sort == Sort::Malloc).count();
        self.malloc_is_leaf.set(&u32::from(self.mallocs == 1)).map_err(Error::kernel)
    }

    /// Probes what the process has loaded since the last look. What cannot be probed is tried again at the next, and then less and less often.
    fn probe_new(&mut self, host: &Host) -> Result<()> {
        for file in self.files.read_new(host, self.pid) {
            let file = std::slice::from_ref(&file);
            let mallocs = self.mallocs;
            // First, so that nothing is taken for a leaf that is none any more.
            self.note_mallocs(file)?;
            let names = self.object.programs.iter().map(|program| program.name.as_str());
            let links: Result<Vec<_>> =
                names.map(|name| attach(&self.object, name, file, self.pid)).collect();
            match links {
                Ok(links) => links.into_iter().for_each(|links| self.links.extend(links)),
                Err(_) => {
                    self.not_probed += 1;
                    self.mallocs = mallocs;
                    file.iter().for_each(|file| self.files.put_off(file));
                    self.note_mallocs(&[])?;
                }
            }
        }
        Ok(())
    }

    /// Times that a file which was loaded later could not be probed.
    pub fn not_probed(&self) -> u64 {
        self.not_probed
    }

    /// Takes smaller allocations with a likelihood of their size to this.
    pub fn set_sample_bytes(&mut self, bytes: u32) -> Result<()> {
        self.sample_bytes.set(&bytes).map_err(Error::kernel)
    }

    /// Whether it has ended, though its number may be another process' by now.
    pub fn is_gone(&self) -> bool {
        start_ticks(self.pid) != self.identity.started
    }

    /// Looks at what became of the process, and probes what it has loaded since.
    pub fn follow(&mut self) -> Result<Change> {
        let host = Host::default();
        let Some(identity) = Identity::read(&host, self.pid) else { return Ok(Change::Exit) };
        if self.is_gone() {
            return Ok(Change::Exit);
        }
        if identity != self.identity {
            return Ok(Change::Exec);
        }
        self.name = read_name(&host, self.pid);
        #[cfg(feature = "unwind")]
        if let Some(walks) = &mut self.walks {
            walks.follow_maps(self.pid, &mut self.symbols);
        }
        if !self.is_paused {
            self.probe_new(&host)?;
        }
        Ok(Change::None)
    }

    /// Takes all probes away.
    pub fn detach(&mut self) {
        self.links.clear();
        self.is_paused = true;
    }

    /// Whether there is anything to probe.
    pub fn has_allocator(&self) -> bool {
        !self.links.is_empty()
    }

    /// What was allocated, by stack.
    pub fn read_stacks(&mut self) -> Result<Vec<(u64, Allocated)>> {
        #[cfg_attr(not(feature = "unwind"), expect(unused_mut))]
        let mut stacks = self.stacks.read()?;
        #[cfg(feature = "unwind")]
        {
            // Whatever has a stack in there has been told.
            self.finish_walks()?;
            if let Some(walks) = &mut self.walks {
                walks.put_in(&mut stacks, |key| self.stacks.delete(key))?;
            }
        }
        Ok(stacks)
    }

    /// What becomes readable when a walk is to be finished.
    #[cfg(feature = "unwind")]
    pub fn descriptor(&self) -> Option<&MapFd> {
        self.walks.as_ref().map(ProcessWalks::descriptor)
    }

    /// Finishes walks that have missed a page.
    #[cfg(feature = "unwind")]
    pub fn finish_walks(&mut self) -> Result<()> {
        let Some(walks) = &mut self.walks else { return Ok(()) };
        walks.finish(self.pid, &mut self.symbols)
    }

    /// Tells how walks have ended.
    #[cfg(feature = "unwind")]
    pub fn tell_walks(&mut self, sink: &mut dyn Sink) -> Result<()> {
        let Some(walks) = &mut self.walks else { return Ok(()) };
        walks.tell(INFO.name, &self.symbols, sink)
    }

    /// What was counted, over all CPUs.
    pub fn read_stats(&self) -> Result<HeapStats> {
        HeapStats::decode(&add_counts(&self.stats)?).ok_or_else(|| Error::internal("size of heap_stats"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_share_the_budget() {
        for (variant, least) in [
            (&BY_FRAME_POINTERS, 7 << 20),
            #[cfg(feature = "unwind")]
            (&BY_TABLES, 6 << 20),
        ] {
            let sizes = Sizes::of(variant, 8 << 20);
            let bytes = |elements: u32, value: usize| elements as usize * (value + 8 + ELEMENT);
            let all = bytes(sizes.allocations, Allocation::SIZE)
                + bytes(sizes.stacks, variant.stack_bytes)
                + bytes(sizes.threads, variant.thread_bytes);
            assert!(all <= 8 << 20 && all > least, "{all}");
            assert_eq!(Sizes::of(variant, 0), Sizes { allocations: 256, stacks: 64, threads: 512 });
        }
    }
}
