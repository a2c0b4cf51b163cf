//! A window of samples with names on it: what the profiler produces and every output reads.
//!
//! Pure data. Tables are indexed with `u32` newtypes. Addresses in frames are what a symbolizer can use offline: the
//! address in the mapped file for user code, the runtime address for the kernel.

use crate::sorted::SortedMap;
use std::hash::Hash;
use std::sync::Arc;

#[cfg(feature = "unwind")]
pub use bpf_programs::events::spans::Span;

/// Index into [`Profile::processes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessIdx(pub u32);
/// Index into [`Profile::threads`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThreadIdx(pub u32);
/// Index into [`Profile::mappings`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MappingIdx(pub u32);
/// Index into [`Profile::frames`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameIdx(pub u32);
/// Index into [`Profile::stacks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackIdx(pub u32);

/// What the values of a profile's samples count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleType {
    /// Type and unit of the values.
    pub value: (&'static str, &'static str),
    /// Type and unit of the period between two samples.
    pub period: (&'static str, &'static str),
}

impl SampleType {
    /// Samples taken at intervals of CPU time.
    pub const CPU: Self = Self { value: ("samples", "count"), period: ("cpu", "nanoseconds") };
    /// Samples of one page fault in so many.
    pub const PAGE_FAULTS: Self = Self { value: ("samples", "count"), period: ("page_faults", "count") };
    /// Time that threads waited for something, off the CPU.
    pub const OFF_CPU: Self = Self { value: ("off_cpu", "nanoseconds"), period: ("off_cpu", "nanoseconds") };
}

impl Default for SampleType {
    fn default() -> Self {
        Self::CPU
    }
}

/// One window of samples.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// What they count.
    pub sample_type: SampleType,
    /// Start of the window, nanoseconds since the Unix epoch.
    pub start_unix_nanos: u64,
    /// Length of the window.
    pub duration_nanos: u64,
    /// Nominal distance of two samples, in the unit of the period's type: of CPU samples, the CPU time between two samples of
    /// one CPU.
    pub period_nanos: u64,
    /// Processes, by first appearance.
    pub processes: Vec<Process>,
    /// Threads, by first appearance.
    pub threads: Vec<Thread>,
    /// Mapped files (and the kernel), deduplicated by path and build id.
    pub mappings: Vec<Mapping>,
    /// Frames, deduplicated.
    pub frames: Vec<Frame>,
    /// Stacks, deduplicated; leaf first, kernel frames before user frames.
    pub stacks: Vec<Vec<FrameIdx>>,
    /// Samples: unique by process, thread and stack.
    pub samples: Vec<Sample>,
    /// What was lost, and why.
    pub losses: Losses,
}

/// Samples with the same process, thread and stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Whose time this is.
    pub process: ProcessIdx,
    /// Which of its threads.
    pub thread: ThreadIdx,
    /// Where it was spent; may be an empty stack where neither half could be read.
    pub stack: StackIdx,
    /// The value: of CPU samples, how many periods.
    pub count: u64,
}

/// A process as one resource of the telemetry. Unknown text is `None`, never an empty string.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    /// Process id in the agent's pid namespace; 0 is the idle task and kernel threads' parent.
    pub pid: u32,
    /// Who started it, or took it over; 0 if unknown.
    pub parent_pid: u32,
    /// The leader's `comm`.
    pub comm: Option<Arc<str>>,
    /// Path of the executable as the process sees it.
    pub executable_path: Option<Arc<str>>,
    /// Container id found in the cgroup path.
    pub container_id: Option<Arc<str>>,
    /// The uid of its Kubernetes pod, found there too.
    pub pod_uid: Option<Arc<str>>,
    /// `service.name`, where the process' environment or its container states one.
    pub service_name: Option<Arc<str>>,
}

/// A thread of a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Thread {
    /// Thread id in the agent's pid namespace.
    pub tid: u32,
    /// Its `comm` when first sampled.
    pub name: Arc<str>,
    /// Of time off the CPU: who has ended these waits, the name of a thread or [`INTERRUPT`](Self::INTERRUPT). A thread is in the table once for
    /// each.
    #[cfg(feature = "unwind")]
    pub woken_by: Option<Arc<str>>,
    /// The span that it worked for, where its process publishes that. A thread is in the table once for each.
    #[cfg(feature = "unwind")]
    pub span: Option<Span>,
}

impl Thread {
    /// Who ends a wait where that is no thread: a timer or a device.
    #[cfg(feature = "unwind")]
    pub const INTERRUPT: &str = "[interrupt]";

    /// A thread of that number and name.
    pub fn new(tid: u32, name: impl Into<Arc<str>>) -> Self {
        Self {
            tid,
            name: name.into(),
            #[cfg(feature = "unwind")]
            woken_by: None,
            #[cfg(feature = "unwind")]
            span: None,
        }
    }
}

/// A file, or the kernel, that frames lie in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mapping {
    /// Path as the process sees it; `[kernel]`, `[vdso]` or a module's `[name]` in brackets otherwise.
    pub path: Arc<str>,
    /// GNU build id, raw bytes.
    pub build_id: Option<Arc<[u8]>>,
    /// First address of the mapping; below `memory_limit`.
    pub memory_start: u64,
    /// First address past the mapping.
    pub memory_limit: u64,
    /// Offset of the mapping in the file.
    pub file_offset: u64,
}

/// What sort of code a frame is; its name is the value of `profile.frame.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FrameKind {
    /// The Linux kernel and its modules.
    Kernel,
    /// Native code of a process.
    Native,
    /// Code that a just-in-time compiler named through a perf map.
    Jit,
    /// A function of a Python program that CPython runs.
    #[cfg(feature = "python")]
    Python,
}

impl FrameKind {
    /// The value of `profile.frame.type` (OpenTelemetry semantic conventions, 1.44).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Native => "native",
            Self::Jit => "jit",
            #[cfg(feature = "python")]
            Self::Python => "cpython",
        }
    }
}

/// One code address, with the functions it lies in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame {
    /// Kernel, native or JIT code.
    pub kind: FrameKind,
    /// The file that it lies in.
    pub mapping: Option<MappingIdx>,
    /// Address in the file's own (ELF virtual) address space; runtime address for the kernel and JIT code.
    pub address: u64,
    /// The function, preceded by those inlined into it: innermost first. Empty where no name is known.
    pub lines: Vec<Line>,
}

/// A function, and where in its source it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Line {
    /// Demangled name.
    pub function: Arc<str>,
    /// Name as the symbol table has it, where that differs.
    pub system_name: Option<Arc<str>>,
    /// Source file.
    pub file: Option<Arc<str>>,
    /// Line number, 0 where unknown.
    pub line: u32,
}

/// Periods that did not become samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Expected periods in which the program did not run (the kernel skips it while certain other programs run).
    pub skipped: u64,
    /// Samples for which the kernel-side tables had no room.
    pub table_full: u64,
    /// Samples whose stacks could not be read or stored; they are counted in the profile, without a stack.
    pub no_stack: u64,
    /// Sideband records lost (names and mappings of short-lived processes may be missing).
    pub sideband: u64,
}

impl Losses {
    /// Adds those of another window.
    pub fn absorb(&mut self, other: &Self) {
        self.skipped = self.skipped.saturating_add(other.skipped);
        self.table_full = self.table_full.saturating_add(other.table_full);
        self.no_stack = self.no_stack.saturating_add(other.no_stack);
        self.sideband = self.sideband.saturating_add(other.sideband);
    }
}

impl Profile {
    /// Adds a later window to this one, as if both had been one. What is equal is stored once. Of two periods the shorter stays,
    /// and samples of the longer count for as many more.
    pub fn absorb(&mut self, mut later: Profile) {
        if self.duration_nanos == 0 && self.samples.is_empty() {
            *self = later;
            return;
        }
        let period = self.period_nanos.min(later.period_nanos);
        self.set_period(period);
        later.set_period(period);
        self.duration_nanos = (later.start_unix_nanos + later.duration_nanos)
            .saturating_sub(self.start_unix_nanos)
            .max(self.duration_nanos);
        self.losses.absorb(&later.losses);

        let processes = Remap::new(&mut self.processes, later.processes, |p| p);
        let threads = Remap::new(&mut self.threads, later.threads, |t| t);
        let mappings = Remap::new(&mut self.mappings, later.mappings, |m| m);
        let frames = Remap::new(&mut self.frames, later.frames, |frame| Frame {
            mapping: frame.mapping.map(|m| MappingIdx(mappings.of(m.0))),
            ..frame
        });
        let stacks = Remap::new(&mut self.stacks, later.stacks, |stack| {
            stack.into_iter().map(|f| FrameIdx(frames.of(f.0))).collect()
        });
        let mut places: SortedMap<_, usize> =
            self.samples.iter().enumerate().map(|(i, s)| ((s.process, s.thread, s.stack), i)).collect();
        for sample in later.samples {
            let process = ProcessIdx(processes.of(sample.process.0));
            let thread = ThreadIdx(threads.of(sample.thread.0));
            let stack = StackIdx(stacks.of(sample.stack.0));
            let place = *places.entry((process, thread, stack)).or_insert_with(|| {
                self.samples.push(Sample { process, thread, stack, count: 0 });
                self.samples.len() - 1
            });
            if let Some(kept) = self.samples.get_mut(place) {
                kept.count += sample.count;
            }
        }
    }
}

impl Profile {
    /// Counts in other periods; those that were lost stay as many as they were.
    fn set_period(&mut self, period_nanos: u64) {
        let old = std::mem::replace(&mut self.period_nanos, period_nanos);
        if old == period_nanos || period_nanos == 0 {
            return;
        }
        for sample in &mut self.samples {
            let nanos = u128::from(sample.count) * u128::from(old);
            let count = (nanos + u128::from(period_nanos / 2)) / u128::from(period_nanos);
            sample.count = u64::try_from(count).unwrap_or(u64::MAX);
        }
    }
}

/// Where the entries of one table went in another.
struct Remap(Vec<u32>);

impl Remap {
    /// Appends what is new, changed by `adapt` first.
    fn new<T: Clone + Ord>(table: &mut Vec<T>, added: Vec<T>, adapt: impl Fn(T) -> T) -> Self {
        let mut known: SortedMap<T, u32> = table.iter().cloned().zip(0..).collect();
        let mut places = Vec::with_capacity(added.len());
        for entry in added {
            let entry = adapt(entry);
            places.push(match known.get(&entry) {
                Some(place) => *place,
                None => {
                    let place = table.len() as u32;
                    table.push(entry.clone());
                    known.insert(entry, place);
                    place
                }
            });
        }
        Self(places)
    }

    /// The new index of an old one; of one outside its table, an index outside the new one.
    fn of(&self, old: u32) -> u32 {
        self.0.get(old as usize).copied().unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(start: u64, names: &[&str]) -> Profile {
        let line = |name: &&str| Line { function: Arc::from(*name), system_name: None, file: None, line: 0 };
        let frame = |name| Frame {
            kind: FrameKind::Native,
            mapping: Some(MappingIdx(0)),
            address: 0,
            lines: vec![line(name)],
        };
        Profile {
            sample_type: SampleType::CPU,
            start_unix_nanos: start,
            duration_nanos: 10,
            period_nanos: 1,
            processes: vec![Process { pid: 1, ..Process::default() }],
            threads: vec![Thread::new(1, "t")],
            mappings: vec![Mapping { path: "/bin/x".into(), ..Mapping::default() }],
            frames: names.iter().map(frame).collect(),
            stacks: (0..names.len() as u32).map(|i| vec![FrameIdx(i)]).collect(),
            samples: (0..names.len() as u32)
                .map(|i| Sample {
                    process: ProcessIdx(0),
                    thread: ThreadIdx(0),
                    stack: StackIdx(i),
                    count: 2,
                })
                .collect(),
            losses: Losses { skipped: 1, ..Losses::default() },
        }
    }

    #[test]
    fn a_sample_of_a_longer_period_counts_for_more() {
        let counts = |whole: &Profile| whole.samples.iter().map(|sample| sample.count).collect::<Vec<_>>();
        let sparse = Profile { period_nanos: 4, ..window(110, &["a"]) };
        let mut whole = window(100, &["a", "b"]);
        whole.absorb(sparse.clone());
        assert_eq!((whole.period_nanos, counts(&whole)), (1, vec![2 + 8, 2]));
        let mut whole = sparse;
        whole.absorb(window(120, &["a", "b"]));
        assert_eq!((whole.period_nanos, counts(&whole)), (1, vec![8 + 2, 2]));
    }

    #[test]
    fn windows_add_up() {
        let mut whole = Profile::default();
        whole.absorb(window(100, &["a", "b"]));
        whole.absorb(window(110, &["c", "a"]));
        assert_eq!((whole.start_unix_nanos, whole.duration_nanos), (100, 20));
        assert_eq!((whole.processes.len(), whole.mappings.len(), whole.frames.len()), (1, 1, 3));
        let mut counts: Vec<(&str, u64)> = whole
            .samples
            .iter()
            .map(|s| {
                let frame = whole.stacks[s.stack.0 as usize][0];
                (&*whole.frames[frame.0 as usize].lines[0].function, s.count)
            })
            .collect();
        counts.sort_unstable();
        assert_eq!(counts, [("a", 4), ("b", 2), ("c", 2)]);
        assert_eq!(whole.losses.skipped, 2);
    }
}
