//! Names for the profiler, from the host's symbolizer and `/proc`.

#[cfg(feature = "unwind")]
use std::ops::Range;

use bpf_programs::events::profile::CountKey;
#[cfg(feature = "python")]
use bpf_programs::events::python::PythonFrame;
#[cfg(feature = "python")]
use bpf_programs::events::spans::Span;
#[cfg(feature = "unwind")]
use bpf_programs::events::unwind::MissedWalk;

use super::naming::{Named, Names};
use super::sideband::monotonic_nanos;
use super::window::Processes;
use crate::aggregate::ProcessId;
use crate::enrich;
#[cfg(feature = "python")]
use crate::model::Line;
use crate::model::Process;
#[cfg(feature = "python")]
use crate::python::Pythons;
use crate::sorted::SortedMap;
#[cfg(feature = "unwind")]
use crate::spans::SpanProcesses;
use crate::symbolize::sideband::{Record, SampleId};
use crate::symbolize::{AddressSpace, DEFAULT_BUDGET, Host, HostSymbolizer, Symbolizer};
#[cfg(feature = "symbols")]
use crate::symbolize::{FileNo, KernelChange, Located, NamedFile};
#[cfg(feature = "unwind")]
use crate::unwind::unwinder::Unwinder;

/// What processes go by that cannot be seen from the agent's pid namespace, all together.
const OUTSIDE: &str = "[other pid namespace]";

/// Bytes of symbol tables below which files would be read again all the time.
const LEAST_BUDGET: usize = 512 << 10;

/// Bytes for symbol tables of a tracer that has so many for maps: half as many.
pub fn budget_of(memory: usize) -> usize {
    (memory / 2).clamp(LEAST_BUDGET, DEFAULT_BUDGET)
}

/// Changes of the kernel's code that are told one by one.
#[cfg(feature = "symbols")]
const MAX_CHANGES: usize = 4096;

/// Knows the processes that were sampled, and the names of what they ran.
pub struct Symbols {
    host: Host,
    symbolizer: HostSymbolizer,
    /// Of the kernel's code since the last window, for whoever names that.
    #[cfg(feature = "symbols")]
    kernel_changes: Vec<KernelChange>,
    processes: SortedMap<ProcessId, Process>,
    #[cfg(feature = "unwind")]
    unwinder: Option<Unwinder>,
    #[cfg(feature = "python")]
    pythons: Option<Pythons>,
    #[cfg(feature = "unwind")]
    spans: Option<SpanProcesses>,
}

impl Symbols {
    /// Nothing known yet; what runs already is looked at when it is sampled.
    pub fn new() -> Self {
        Self::with_budget(DEFAULT_BUDGET)
    }

    /// As [`new`](Self::new), with so many bytes for symbol tables, or the largest one.
    pub fn with_budget(bytes: usize) -> Self {
        let host = Host::default();
        let symbolizer = HostSymbolizer::with_budget(host.clone(), bytes);
        Self {
            symbolizer,
            host,
            #[cfg(feature = "symbols")]
            kernel_changes: Vec::new(),
            processes: SortedMap::new(),
            #[cfg(feature = "unwind")]
            unwinder: None,
            #[cfg(feature = "python")]
            pythons: None,
            #[cfg(feature = "unwind")]
            spans: None,
        }
    }

    /// Takes in what the kernel reports; records come in the order of their time.
    pub fn observe(&mut self, record: &Record<'_>, id: &SampleId) {
        self.symbolizer.observe(record, id);
        #[cfg(feature = "symbols")]
        if let Some(change) = KernelChange::of(record) {
            if self.kernel_changes.len() >= MAX_CHANGES {
                self.kernel_changes = vec![KernelChange::Unknown];
            }
            self.kernel_changes.push(change);
        }
        #[cfg(feature = "unwind")]
        if let Some(unwinder) = &mut self.unwinder {
            unwinder.observe(record);
        }
        #[cfg(feature = "python")]
        if let Some(pythons) = &mut self.pythons {
            pythons.observe(&mut self.symbolizer, record);
        }
        #[cfg(feature = "unwind")]
        if let Some(spans) = &mut self.spans {
            spans.observe(record);
        }
    }

    /// Finishes walks with this from now on.
    #[cfg(feature = "unwind")]
    pub fn unwind_with(&mut self, unwinder: Unwinder) {
        self.unwinder = Some(unwinder);
    }

    /// Reads functions of Python with this from now on.
    #[cfg(feature = "python")]
    pub fn read_python_with(&mut self, pythons: Pythons) {
        self.pythons = Some(pythons);
    }

    /// Looks for the processes that publish spans with this from now on.
    #[cfg(feature = "unwind")]
    pub fn find_spans_with(&mut self, spans: SpanProcesses) {
        self.spans = Some(spans);
    }

    /// Reads what is only there as long as the process is: functions of Python that are in the stack, and where it publishes spans.
    #[cfg(feature = "unwind")]
    pub fn sampled(&mut self, process: ProcessId, stack: &[u64]) {
        // Threads of the kernel have none.
        if let Some(spans) = self.spans.as_mut().filter(|_| !stack.is_empty()) {
            spans.look(&mut self.symbolizer, process.pid);
        }
        #[cfg(feature = "python")]
        if let Some(pythons) = &mut self.pythons {
            let frames = Span::split(stack).0.iter().rev().map_while(|word| PythonFrame::of(*word));
            pythons.meet(&self.symbolizer, process, frames);
        }
        #[cfg(not(feature = "python"))]
        let _ = stack;
    }

    /// Functions of Python that could not be read.
    #[cfg(feature = "python")]
    pub fn python_unread(&self) -> u64 {
        self.pythons.as_ref().map_or(0, Pythons::unread)
    }

    /// What finishes walks.
    #[cfg(feature = "unwind")]
    pub fn unwinder(&self) -> Option<&Unwinder> {
        self.unwinder.as_ref()
    }

    /// Makes pages of code of a process that walks may miss else, until so much CPU time of this thread is spent.
    #[cfg(feature = "unwind")]
    pub fn make_ahead(&mut self, pid: u32, code: Range<u64>, end_nanos: u64) {
        if let Some(unwinder) = &mut self.unwinder {
            unwinder.make_ahead(&mut self.symbolizer, pid, code, end_nanos);
        }
    }

    /// The text of `/proc/PID/maps` as it is now; `None`: the process is gone, or may not be read.
    #[cfg(feature = "unwind")]
    pub fn maps_of(&self, pid: u32) -> Option<Vec<u8>> {
        self.symbolizer.maps_of(pid)
    }

    /// Takes in what a process maps now, in the text of its `maps`, where no records tell of it.
    #[cfg(feature = "unwind")]
    pub fn follow_maps(&mut self, pid: u32, text: &[u8]) {
        self.symbolizer.follow_maps(pid, text);
        if let Some(unwinder) = &mut self.unwinder {
            unwinder.forget_process(pid);
        }
    }

    /// What processes mapped at that time has been taken in.
    #[cfg(feature = "unwind")]
    pub fn know_until(&mut self, time: u64) {
        if let Some(unwinder) = &mut self.unwinder {
            unwinder.know_until(time);
        }
    }

    /// Makes what a walk misses, so that others do not.
    #[cfg(feature = "unwind")]
    pub fn fill_tables(&mut self, missed: &MissedWalk<'_>) {
        if let Some(unwinder) = &mut self.unwinder {
            unwinder.fill(&mut self.symbolizer, missed);
        }
    }

    /// The whole stack of a walk, as far as it can be walked: leaf first.
    #[cfg(feature = "unwind")]
    pub fn finish_walk(&mut self, missed: &MissedWalk<'_>) -> Vec<u64> {
        let Self { unwinder, symbolizer, .. } = self;
        let stack = unwinder.as_mut().map(|unwinder| unwinder.finish(symbolizer, missed)).unwrap_or_default();
        #[cfg(feature = "python")]
        if let Some(pythons) = &mut self.pythons {
            // It was just started, or is seen for the first time.
            pythons.look(&mut self.symbolizer, missed.walk.tgid);
        }
        stack
    }

    /// Which program of a process was sampled, at some time after `since`, by a thread of that name.
    ///
    /// Samples have no time of their own, but a thread is renamed by exec: where the process has begun a new program since
    /// the last look, the name tells the two apart. The process is looked at, if it was not yet, while it is still there.
    pub fn meet(&mut self, pid: u32, comm: &[u8; 16], since: u64) -> ProcessId {
        let table = self.symbolizer.processes();
        let latest = table.generation(pid, u64::MAX);
        let comm = comm.split(|&b| b == 0).next().unwrap_or_default();
        let mut started = latest.map_or(0, |generation| generation.started);
        if let Some(latest) = latest.filter(|latest| latest.started > since) {
            if latest.comm.as_ref().is_some_and(|name| name.as_bytes() != comm) {
                // The program before, or if nothing is known of it, at least not this one.
                let before = table.generation(pid, latest.started - 1).filter(|b| b.started < latest.started);
                started = before.map_or(latest.started - 1, |b| b.started);
            }
        }
        let is_latest = latest.is_none_or(|generation| generation.started == started);
        let id = ProcessId { pid, started };
        if !self.processes.contains_key(&id) {
            let seen = if is_latest && pid != 0 { enrich::read_process(&self.host, pid) } else { None };
            let process = seen.map_or_else(|| recorded_process(&self.symbolizer, id), |info| info.process);
            self.processes.insert(id, process);
            if is_latest && pid != 0 {
                self.symbolizer.read_process_maps(pid);
                #[cfg(feature = "python")]
                if let Some(pythons) = &mut self.pythons {
                    pythons.look(&mut self.symbolizer, pid);
                }
            }
        }
        id
    }

    /// Where an address of a process is.
    #[cfg(feature = "symbols")]
    pub(super) fn locate(&mut self, process: ProcessId, address: u64) -> Located {
        self.symbolizer.locate_user(process.pid, process.started, address)
    }

    /// How the kernel's code has changed since this was asked last.
    #[cfg(feature = "symbols")]
    pub(super) fn take_kernel_changes(&mut self) -> Vec<KernelChange> {
        std::mem::take(&mut self.kernel_changes)
    }

    /// How many files are open for addresses that were located in them.
    #[cfg(feature = "symbols")]
    pub(super) fn wanted_files(&self) -> usize {
        self.symbolizer.wanted_files()
    }

    /// These files, which are its own no more.
    #[cfg(feature = "symbols")]
    pub(super) fn take_wanted(&mut self) -> SortedMap<FileNo, NamedFile> {
        self.symbolizer.take_wanted()
    }

    /// Programs, mappings and functions that were not kept, for want of room.
    pub fn losses(&self) -> u64 {
        self.symbolizer.losses().total()
    }

    /// Before the names of a window are asked for.
    pub fn begin_window(&mut self) {
        self.symbolizer.begin_window(monotonic_nanos());
    }

    /// After the names of a window: programs that have ended are forgotten.
    pub fn end_window(&mut self) {
        self.symbolizer.end_window(monotonic_nanos());
        #[cfg(feature = "python")]
        if let Some(pythons) = &mut self.pythons {
            pythons.end_window();
        }
        let table = self.symbolizer.processes();
        let proc = &self.host.proc;
        self.processes.retain(|id, _| match table.generation(id.pid, u64::MAX) {
            Some(latest) => latest.started == id.started && latest.ended.is_none(),
            // Kernel threads have no mappings, so nothing is recorded of them.
            None => proc.join(id.pid.to_string()).exists(),
        });
    }
}

/// Names that meet what was sampled after a time.
pub(super) struct Since<'s> {
    pub symbols: &'s mut Symbols,
    /// In the clock of the records.
    pub since: u64,
}

impl Processes for Since<'_> {
    fn meet(&mut self, key: &CountKey, comm: &[u8; 16]) -> ProcessId {
        self.symbols.meet(key.tgid, comm, self.since)
    }

    #[cfg(feature = "unwind")]
    fn sampled(&mut self, process: ProcessId, stack: &[u64]) {
        self.symbols.sampled(process, stack);
    }
}

/// What the kernel's records said of a program that ended before it could be looked at.
fn recorded_process(symbolizer: &HostSymbolizer, id: ProcessId) -> Process {
    if id.pid == 0 {
        return Process { comm: Some(OUTSIDE.into()), ..Process::default() };
    }
    let generation =
        symbolizer.processes().generation(id.pid, id.started).filter(|g| g.started <= id.started);
    Process {
        pid: id.pid,
        comm: generation.and_then(|g| g.comm.clone()),
        executable_path: generation.and_then(|g| g.executable.clone()),
        ..Process::default()
    }
}

impl Names for Symbols {
    fn prepare_kernel(&mut self, addresses: Vec<u64>) {
        self.symbolizer.prepare_kernel(addresses);
    }

    fn process(&mut self, process: ProcessId) -> Process {
        self.processes.get(&process).cloned().unwrap_or_else(|| recorded_process(&self.symbolizer, process))
    }

    fn kernel(&mut self, address: u64) -> Named {
        self.symbolizer.resolve(AddressSpace::Kernel, address).into()
    }

    fn user(&mut self, process: ProcessId, address: u64) -> Named {
        let ProcessId { pid, started: time } = process;
        self.symbolizer.resolve(AddressSpace::User { pid, time }, address).into()
    }

    #[cfg(feature = "python")]
    fn python(&mut self, process: ProcessId, frame: PythonFrame) -> Option<Line> {
        self.pythons.as_mut().and_then(|pythons| pythons.line(process, frame))
    }

    #[cfg(feature = "python")]
    fn has_handlers(&self, process: ProcessId) -> bool {
        self.pythons.as_ref().is_some_and(|pythons| pythons.has_handlers(process))
    }
}
