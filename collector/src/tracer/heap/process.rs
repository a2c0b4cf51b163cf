//! One process whose heap is traced: its own object, probes and symbols.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::machine::Machine;
use bpf_loader::map::{Global, PerCpuArray};
use bpf_loader::target::RunningTarget;
use bpf_programs::events::heap::{HeapStats, Sort};
#[cfg(feature = "unwind")]
use bpf_sys::MapFd;

use super::files::{self, KnownFiles, ProbedFile};
use super::object::{Allocated, StackMap, attach, climb_rungs, probes, unsupported};
#[cfg(feature = "unwind")]
use super::walks::{self, ProcessWalks};
use super::{Settings, functions};
use crate::error::{Error, Result};
use crate::sorted::SortedMap;
use crate::symbolize::Host;
#[cfg(feature = "unwind")]
use crate::telemetry::Sink;
use crate::tracer::filter::check_process;
use crate::tracer::filter::start_ticks;
use crate::tracer::ladder::{Chosen, Forced};
use crate::tracer::profile::symbols::Symbols;
use crate::tracer::programs::add_counts;

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
            let names = probes(&self.chosen).iter();
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
        let Some(walks) = &self.walks else { return Ok(()) };
        // Its number may be another process' by now.
        let looks = walks.wants_maps() && !self.is_gone();
        let Some(walks) = &mut self.walks else { return Ok(()) };
        if looks {
            walks.follow_maps(self.pid, &mut self.symbols);
        }
        walks.finish(&mut self.symbols)
    }

    /// Tells how walks have ended.
    #[cfg(feature = "unwind")]
    pub fn tell_walks(&mut self, sink: &mut dyn Sink) -> Result<()> {
        let Some(walks) = &mut self.walks else { return Ok(()) };
        walks.tell(&self.symbols, sink)
    }

    /// What was counted, over all CPUs.
    pub fn read_stats(&self) -> Result<HeapStats> {
        HeapStats::decode(&add_counts(&self.stats)?).ok_or_else(|| Error::internal("size of heap_stats"))
    }
}
