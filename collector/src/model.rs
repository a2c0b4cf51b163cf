//! A window of samples with names on it: what the profiler produces and every output reads.
//!
//! Pure data. Tables are indexed with `u32` newtypes, and every index in a [`Profile`] is in range: the fields
//! that hold indices are filled through [`ProfileBuilder`](crate::model) callers only. Addresses in frames are
//! what a symbolizer can use offline: the address in the mapped file for user code, the runtime address for
//! the kernel.

use std::sync::Arc;

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

/// One window of CPU samples.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// Start of the window, nanoseconds since the Unix epoch.
    pub start_unix_nanos: u64,
    /// Length of the window.
    pub duration_nanos: u64,
    /// Nominal CPU time between two samples of one CPU.
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
    /// How many periods.
    pub count: u64,
}

/// A process as one resource of the telemetry. Unknown text is `None`, never an empty string.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Process {
    /// Process id in the agent's pid namespace; 0 is the idle task and kernel threads' parent.
    pub pid: u32,
    /// The leader's `comm`.
    pub comm: Option<Arc<str>>,
    /// Path of the executable as the process sees it.
    pub executable_path: Option<Arc<str>>,
    /// Container id found in the cgroup path.
    pub container_id: Option<Arc<str>>,
    /// `service.name`, where the process' environment or its container states one.
    pub service_name: Option<Arc<str>>,
}

/// A thread of a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Thread {
    /// Thread id in the agent's pid namespace.
    pub tid: u32,
    /// Its `comm` when first sampled.
    pub name: Arc<str>,
}

/// A file, or the kernel, that frames lie in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
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
}

impl FrameKind {
    /// The value of `profile.frame.type` (OpenTelemetry semantic conventions, 1.44).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Native => "native",
            Self::Jit => "jit",
        }
    }
}

/// One code address, with the functions it lies in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
