//! The symbolizer of the host that the agent runs on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::debuginfod::Debuginfod;
use super::error::SymbolizeError;
#[cfg(feature = "symbols")]
use super::file_names::{FileNames, NamedFile};
#[cfg(feature = "symbols")]
use super::files::MAX_OPEN;
use super::files::{Candidate, FileCache, FileNo};
use super::host::{Host, Place, Roots, read_limited};
use super::jit::JitMaps;
use super::kernel_names::{KernelChange, KernelNames};
use super::maps;
use super::process::{Generation, MappedFile, ProcessLosses, ProcessTable, VmMapping};
use super::sideband::{Record, SampleId};
use super::{AddressSpace, DEFAULT_BUDGET, Miss, Resolved, Symbolizer};
use crate::model::{FrameKind, Mapping};
use crate::sorted::{SortedMap, SortedSet};

/// Bytes of `/proc/PID/maps` that are read.
pub(super) const MAX_MAPS: usize = 16 << 20;
/// Bytes of a vDSO image.
const MAX_VDSO: u64 = 1 << 20;
/// Ancestors whose root directories are tried for a process that ended.
const MAX_ANCESTORS: usize = 4;

/// The generation of a process that an address belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub pid: u32,
    /// When it began.
    pub started: u64,
    /// When the address was sampled.
    pub time: u64,
    /// It was not seen to end.
    pub alive: bool,
}

/// An address, located.
pub(crate) struct Located {
    /// What it is; of names in a file, nothing yet.
    pub resolved: Resolved,
    /// The file in which its functions are to be looked for.
    #[cfg(feature = "symbols")]
    pub file: Option<FileNo>,
}

impl Located {
    fn done(resolved: Resolved) -> Self {
        Self {
            resolved,
            #[cfg(feature = "symbols")]
            file: None,
        }
    }
}

/// What a [`HostSymbolizer`] left out for want of room, since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SymbolizerLosses {
    /// Processes, or programs that they executed, that were forgotten or not taken.
    pub generations: u64,
    /// Executable mappings that were not taken.
    pub mappings: u64,
    /// Functions in perf maps that were not taken.
    pub jit_functions: u64,
}

impl SymbolizerLosses {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.generations + self.mappings + self.jit_functions
    }
}

/// Names addresses of this host's kernel and processes.
pub struct HostSymbolizer {
    pub(super) host: Host,
    pub(super) processes: ProcessTable,
    pub(super) files: FileCache,
    /// Names in them, where nobody else looks for these.
    #[cfg(feature = "symbols")]
    names: FileNames,
    /// Files that addresses lie in whose names are to be looked for.
    #[cfg(feature = "symbols")]
    wanted: SortedMap<FileNo, NamedFile>,
    /// Files that mappings led to; failures are kept until the end of the window.
    known: SortedMap<Arc<MappedFile>, Result<FileNo, Miss>>,
    jit: JitMaps,
    kernel: KernelNames,
    /// The image, and its bytes.
    vdso: Option<(Option<FileNo>, u64)>,
    /// Processes whose maps were read in this window.
    refreshed: SortedSet<u32>,
}

impl HostSymbolizer {
    /// A symbolizer with the default budget for symbol tables.
    pub fn new(host: Host) -> Self {
        Self::with_budget(host, DEFAULT_BUDGET)
    }

    /// A symbolizer whose symbol tables of user files take about `budget` bytes at most, or the largest one.
    #[cfg_attr(not(feature = "symbols"), expect(unused_variables, reason = "there are no tables"))]
    pub fn with_budget(host: Host, budget: usize) -> Self {
        Self {
            kernel: KernelNames::new(host.clone()),
            host,
            processes: ProcessTable::default(),
            files: FileCache::new(),
            #[cfg(feature = "symbols")]
            names: FileNames::new(budget),
            #[cfg(feature = "symbols")]
            wanted: SortedMap::new(),
            known: SortedMap::new(),
            jit: JitMaps::default(),
            vdso: None,
            refreshed: SortedSet::new(),
        }
    }

    /// Has files for debuggers fetched by this from now on, where they are not on this host.
    pub fn fetch_with(&mut self, servers: Debuginfod) {
        #[cfg(feature = "symbols")]
        self.names.fetch_with(servers);
        #[cfg(not(feature = "symbols"))]
        match servers {}
    }

    /// Takes a sideband record in; records come in the order of their time.
    pub fn observe(&mut self, record: &Record<'_>, id: &SampleId) {
        if let Some(change) = KernelChange::of(record) {
            self.kernel.change(&change);
        }
        self.processes.observe(record, id);
    }

    /// Reads the maps of all processes that run now, so that those that end in the first window are known.
    pub fn read_running_processes(&mut self) {
        let Ok(entries) = fs::read_dir(&self.host.proc) else { return };
        for entry in entries.flatten() {
            if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                self.refresh(pid);
            }
        }
    }

    /// What is known of processes.
    pub fn processes(&self) -> &ProcessTable {
        &self.processes
    }

    /// What was left out so far.
    pub fn losses(&self) -> SymbolizerLosses {
        let ProcessLosses { generations, mappings } = self.processes.losses();
        SymbolizerLosses { generations, mappings, jit_functions: self.jit.dropped() }
    }

    /// Heap memory for symbol tables and names of user files, and of the kernel, in bytes.
    pub fn memory(&self) -> (usize, usize) {
        #[cfg(feature = "symbols")]
        let names = self.names.memory();
        #[cfg(not(feature = "symbols"))]
        let names = 0;
        (names, self.kernel.memory())
    }

    /// Why the kernel has no names, once one was asked for.
    pub fn kernel_error(&self) -> Option<&SymbolizeError> {
        self.kernel.error()
    }

    /// Reads the maps of a process now, if records did not tell them all: it may be gone when its names are wanted.
    pub fn read_process_maps(&mut self, pid: u32) {
        self.refresh(pid);
    }

    #[cfg(all(test, feature = "symbols"))]
    pub(super) fn known_files(&self) -> usize {
        self.known.len()
    }

    fn refresh(&mut self, pid: u32) {
        if !self.refreshed.insert(pid) || !self.processes.wants_maps(pid) {
            return;
        }
        // Kernel threads and processes that are gone have none.
        let text = read_limited(&self.host.process_file(pid, "maps"), MAX_MAPS).unwrap_or_default();
        if !text.is_empty() {
            self.processes.observe_maps(pid, &text);
        }
    }

    /// Where an address of a process is: everything but the names of its functions where those are to be looked for in a file, which is
    /// among [those that are wanted](Self::take_wanted) then.
    pub(crate) fn locate_user(&mut self, pid: u32, time: u64, address: u64) -> Located {
        let Some((owner, mapping)) = self.find_or_read_mapping(pid, time, address) else {
            let known = self.processes.generation(pid, time).is_some();
            let miss = if known { Miss::NotMapped } else { Miss::UnknownProcess };
            return Located::done(missed(FrameKind::Native, None, address, miss));
        };
        if &*mapping.file.path == "[vdso]" {
            return self.locate_in_vdso(&mapping, address);
        }
        if mapping.file.is_file() {
            let located = self.locate_in_file(owner, &mapping, address);
            // Compilers also run code from files that are none, such as caches.
            if located.resolved.miss != Some(Miss::NotElf) {
                return located;
            }
            return self.resolve_jit(owner, address).map_or(located, Located::done);
        }
        Located::done(self.resolve_jit(owner, address).unwrap_or_else(|| {
            let named = mapping.file.path.starts_with('[').then(|| model_mapping(&mapping, None));
            missed(FrameKind::Native, named, address, Miss::Anonymous)
        }))
    }

    /// The mapping, and whose it is; from `/proc` where the records have not told it.
    pub(super) fn find_or_read_mapping(
        &mut self,
        pid: u32,
        time: u64,
        address: u64,
    ) -> Option<(Owner, VmMapping)> {
        let found = self.find_mapping(pid, time, address);
        if found.is_some() {
            return found;
        }
        self.refresh(pid);
        // Too late for a process that ended; the one that it is a copy of may live.
        let (origin, time) = self.processes.unread_parent(pid, time).unwrap_or((pid, time));
        self.refresh(origin);
        self.find_mapping(origin, time, address)
    }

    fn find_mapping(&self, pid: u32, time: u64, address: u64) -> Option<(Owner, VmMapping)> {
        let (generation, mapping) = self.processes.find(pid, time, address)?;
        let Generation { started, ended, .. } = *generation;
        Some((Owner { pid, started, time, alive: ended.is_none() }, mapping.clone()))
    }

    fn resolve_jit(&mut self, owner: Owner, address: u64) -> Option<Resolved> {
        if !cfg!(feature = "symbols") {
            return None;
        }
        let host = &self.host;
        #[cfg(feature = "dwarf")]
        let dumps = || {
            let generation = self.processes.generation(owner.pid, owner.time);
            generation.map_or_else(Vec::new, |generation| super::jit::dumps(host, owner.pid, generation))
        };
        #[cfg(not(feature = "dwarf"))]
        let dumps = Vec::new;
        let line = self.jit.find(host, owner, address, dumps)?;
        Some(Resolved { kind: FrameKind::Jit, mapping: None, address, lines: Arc::from([line]), miss: None })
    }

    fn locate_in_file(&mut self, owner: Owner, mapping: &VmMapping, address: u64) -> Located {
        match self.file_of(owner, mapping) {
            Ok(number) => {
                let offset = mapping.offset.wrapping_add(address - mapping.start);
                self.locate_in(number, Some(owner), mapping, address, offset)
            }
            Err(miss) => {
                Located::done(missed(FrameKind::Native, Some(model_mapping(mapping, None)), address, miss))
            }
        }
    }

    /// The file of a mapping, which is open then.
    pub(super) fn file_of(&mut self, owner: Owner, mapping: &VmMapping) -> Result<FileNo, Miss> {
        let known = self.known.get(&mapping.file).copied();
        match known {
            Some(Ok(number)) if self.files.is_open(number) => Ok(number),
            Some(Err(miss)) => Err(miss),
            _ => self.open(owner, mapping, known.and_then(Result::ok)),
        }
    }

    /// Opens the file of a mapping; what is cached of it from `before` stands in where it can no longer be.
    fn open(&mut self, owner: Owner, mapping: &VmMapping, before: Option<FileNo>) -> Result<FileNo, Miss> {
        let candidates = candidates(&self.host, &self.processes, owner, mapping);
        let opened = self.files.open(&mapping.file, candidates.into_iter());
        let result = match (opened, before.filter(|&number| self.files.contains(number))) {
            (Ok(number), _) | (Err(_), Some(number)) => Ok(number),
            (Err(error), None)
                if matches!(*error, SymbolizeError::Open { .. } | SymbolizeError::Replaced { .. }) =>
            {
                Err(Miss::FileUnavailable)
            }
            (Err(_), None) => Err(Miss::NotElf),
        };
        self.known.insert(Arc::clone(&mapping.file), result);
        result
    }

    /// Locates a byte of a file that the cache has; one of no owner is an image.
    fn locate_in(
        &mut self,
        number: FileNo,
        owner: Option<Owner>,
        mapping: &VmMapping,
        address: u64,
        offset: u64,
    ) -> Located {
        let named = model_mapping(mapping, self.files.build_id(number));
        let Some(in_file) = self.files.address_of(number, offset) else {
            return Located::done(missed(FrameKind::Native, Some(named), address, Miss::NoSymbol));
        };
        let miss = (!cfg!(feature = "symbols")).then_some(Miss::NotBuiltIn);
        let (kind, lines) = (FrameKind::Native, Arc::default());
        let resolved = Resolved { kind, mapping: Some(named), address: in_file, lines, miss };
        #[cfg(feature = "symbols")]
        self.want(number, owner, mapping);
        #[cfg(not(feature = "symbols"))]
        let _ = owner;
        Located {
            resolved,
            #[cfg(feature = "symbols")]
            file: Some(number),
        }
    }

    /// Has names looked for in a file, of which another process may still have what one that has ended had.
    #[cfg(feature = "symbols")]
    fn want(&mut self, number: FileNo, owner: Option<Owner>, mapping: &VmMapping) {
        let is_closed = |file: &NamedFile| file.source.is_none() && self.files.is_open(number);
        if self.wanted.get(&number).is_none_or(is_closed) {
            let file = self.named_file(number, owner, mapping);
            self.wanted.insert(number, file);
        }
    }

    #[cfg(feature = "symbols")]
    fn named_file(&self, number: FileNo, owner: Option<Owner>, mapping: &VmMapping) -> NamedFile {
        #[cfg(not(feature = "dwarf"))]
        let _ = (owner, mapping);
        NamedFile {
            key: self.files.key(number),
            source: self.files.source(number).cloned(),
            #[cfg(feature = "dwarf")]
            build_id: self.files.build_id(number).cloned(),
            #[cfg(feature = "dwarf")]
            path: Arc::clone(&mapping.file.path),
            #[cfg(feature = "dwarf")]
            roots: owner.map(|owner| roots_of(&self.host, &self.processes, owner)),
        }
    }

    /// How many files wait for [`take_wanted`](Self::take_wanted): each of them is open.
    #[cfg(feature = "symbols")]
    pub(crate) fn wanted_files(&self) -> usize {
        self.wanted.len()
    }

    /// The files in which addresses were located since this was asked last.
    #[cfg(feature = "symbols")]
    pub(crate) fn take_wanted(&mut self) -> SortedMap<FileNo, NamedFile> {
        std::mem::take(&mut self.wanted)
    }

    /// The functions at an address that was located.
    #[cfg(feature = "symbols")]
    fn name(&mut self, Located { mut resolved, file }: Located) -> Resolved {
        let Some(file) = file.and_then(|number| self.wanted.get(&number)) else { return resolved };
        (resolved.lines, resolved.miss) = match self.names.lines(file, resolved.address) {
            Ok(lines) if lines.is_empty() => (lines, Some(Miss::NoSymbol)),
            Ok(lines) => (lines, None),
            Err(_) => (Arc::default(), Some(Miss::FileUnavailable)),
        };
        resolved
    }

    fn locate_in_vdso(&mut self, mapping: &VmMapping, address: u64) -> Located {
        match self.vdso_of(mapping) {
            Some(number) => self.locate_in(number, None, mapping, address, address - mapping.start),
            None => {
                let named = Some(model_mapping(mapping, None));
                Located::done(missed(FrameKind::Native, named, address, Miss::NoSymbol))
            }
        }
    }

    /// The kernel maps the same image into every process of the same bitness; that of another is not at hand.
    pub(super) fn vdso_of(&mut self, mapping: &VmMapping) -> Option<FileNo> {
        let (image, size) = match self.vdso {
            Some(vdso) => vdso,
            None => {
                let image = read_own_vdso(&self.host).unwrap_or_default();
                let size = image.len() as u64;
                *self.vdso.insert((self.files.add_image(image).ok(), size))
            }
        };
        image.filter(|_| mapping.end - mapping.start == size)
    }

    /// Looks up, in one reading of `/proc/kallsyms`, the addresses that have no name yet. Give all of a window at once:
    /// another reading is only made after a while.
    pub fn prepare_kernel(&mut self, addresses: Vec<u64>) {
        self.kernel.prepare(addresses);
    }
}

impl Symbolizer for HostSymbolizer {
    fn begin_window(&mut self, now: u64) {
        self.kernel.begin_window(now);
        self.refreshed.clear();
        self.jit.begin_window();
    }

    fn resolve(&mut self, space: AddressSpace, address: u64) -> Resolved {
        #[cfg(feature = "symbols")]
        if self.wanted.len() >= MAX_OPEN {
            self.wanted.clear();
        }
        let (pid, time) = match space {
            AddressSpace::Kernel => return self.kernel.resolve(address),
            AddressSpace::User { pid, time } => (pid, time),
        };
        let located = self.locate_user(pid, time, address);
        #[cfg(feature = "symbols")]
        return self.name(located);
        #[cfg(not(feature = "symbols"))]
        located.resolved
    }

    fn end_window(&mut self, before: u64) {
        self.files.end_window();
        #[cfg(feature = "symbols")]
        {
            self.names.end_window();
            self.wanted.clear();
        }
        let proc = &self.host.proc;
        self.processes.end_window(before, |pid| proc.join(pid.to_string()).exists());
        let processes = &self.processes;
        let started = |pid, time| processes.generation(pid, time).map(|generation| generation.started);
        self.jit.retain(|pid, time| started(pid, time) == Some(time));
        // A file that no mapping shows any more is held by this map and by the table of processes alone.
        self.known.retain(|file, result| result.is_ok() && Arc::strong_count(file) > 2);
    }
}

/// Where to look for the file of a mapping, best first.
fn candidates(host: &Host, processes: &ProcessTable, owner: Owner, mapping: &VmMapping) -> Vec<Candidate> {
    let path = &*mapping.file.path;
    let mut candidates = Vec::new();
    if owner.alive {
        let name = format!("map_files/{:x}-{:x}", mapping.start, mapping.end);
        candidates
            .push(Candidate { place: Place::trusted(host.process_file(owner.pid, &name)), trusted: true });
    }
    let places = roots_of(host, processes, owner).places(path);
    candidates.extend(places.into_iter().map(|place| Candidate { place, trusted: false }));
    candidates
}

/// Where the paths of a process may lead.
fn roots_of(host: &Host, processes: &ProcessTable, owner: Owner) -> Roots {
    // A program mostly has the root of the next one in its process, and a short-lived process that of its parent.
    let mut pid = owner.pid;
    let mut pids = Vec::new();
    for _ in 0..=MAX_ANCESTORS {
        if processes.may_live(pid) {
            pids.push(pid);
        }
        pid = processes.generation(pid, owner.time).map_or(0, |generation| generation.parent);
        if pid == 0 {
            break;
        }
    }
    Roots::new(host.clone(), pids)
}

fn model_mapping(mapping: &VmMapping, build_id: Option<&Arc<[u8]>>) -> Mapping {
    Mapping {
        path: Arc::clone(&mapping.file.path),
        build_id: mapping.file.build_id.as_ref().or(build_id).cloned(),
        memory_start: mapping.start,
        memory_limit: mapping.end,
        file_offset: mapping.offset,
    }
}

pub(super) fn missed(kind: FrameKind, mapping: Option<Mapping>, address: u64, miss: Miss) -> Resolved {
    Resolved { kind, mapping, address, lines: Arc::default(), miss: Some(miss) }
}

/// The image of the agent's own vDSO, through `/proc/self/mem`.
fn read_own_vdso(host: &Host) -> std::io::Result<Vec<u8>> {
    let text = read_limited(&host.proc.join("self/maps"), MAX_MAPS)?;
    let Some(line) = maps::parse(&text).find(|line| line.path == b"[vdso]") else { return Ok(Vec::new()) };
    let size = line.end - line.start;
    if size > MAX_VDSO {
        return Ok(Vec::new());
    }
    let mut image = vec![0; size as usize];
    File::open(host.proc.join("self/mem"))?.read_exact_at(&mut image, line.start)?;
    Ok(image)
}
