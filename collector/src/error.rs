//! What the collector can fail at.

use std::fmt;
use std::io;

use crate::config::ConfigError;
use crate::key::Quoted;
use crate::tracer::ladder::Refused;

/// Result of the collector's functions. The error is in a box, which keeps results small.
pub type Result<T, E = Box<Error>> = std::result::Result<T, E>;

/// Why sampling cannot start or go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is wrong.
    Config(ConfigError),
    /// No such process.
    NoSuchProcess(u32),
    /// The number is that of a thread, not of a process.
    IsThread {
        /// The thread.
        tid: u32,
        /// Its process.
        process: u32,
    },
    /// The process has no function that allocates, under any name that is known.
    NoAllocator(u32),
    /// The profiler cannot be asked by its own callback, which it waits for.
    FromCallback,
    /// The cgroup directory cannot be used.
    Cgroup {
        /// The directory.
        path: std::path::PathBuf,
        /// Why not.
        reason: String,
    },
    /// The user may not load BPF programs or open perf events.
    Privileges(Box<Error>),
    /// The filter reads the kernel's structures, and the kernel has no BTF that says where their fields are.
    NoBtf,
    /// A file, or a folder of files, does not have this kernel's types.
    KernelTypes {
        /// The file or folder.
        path: std::path::PathBuf,
        /// Why not.
        reason: String,
    },
    /// The filter cannot be changed to this one without loading the programs again.
    FilterNeedsRestart,
    /// The kernel has no perf events.
    NoPerfEvents,
    /// No rung of a tracer's ladder works here, and it can do nothing without.
    NoRung {
        /// What the ladder is for.
        what: &'static str,
        /// Why each rung was refused, best first.
        refused: Vec<Refused>,
    },
    /// A rung was asked for that the ladder does not have.
    NoSuchRung {
        /// What the ladder is for.
        what: &'static str,
        /// The rung.
        rung: String,
    },
    /// A setting of a tracer makes no sense.
    Setting {
        /// The tracer.
        tracer: &'static str,
        /// Which, and why.
        reason: String,
    },
    /// A tracer does not do what it was asked for; its documentation says what it does.
    Unsupported {
        /// The tracer.
        tracer: &'static str,
        /// What it was asked for.
        what: &'static str,
    },
    /// A tracer's programs cannot be loaded.
    Load(Box<bpf_loader::Error>),
    /// Sampling cannot be started on a CPU.
    Sampling {
        /// The CPU.
        cpu: u32,
        /// Why not.
        error: Box<bpf_loader::Error>,
    },
    /// A tracer's programs are damaged within this program's own file.
    Damaged {
        /// Which.
        object: &'static str,
    },
    /// A call to the kernel failed.
    Kernel(Box<bpf_loader::Error>),
    /// A sideband buffer is not as the kernel writes it.
    Sideband(bpf_loader::ring::PerfFault),
    /// The BPF ring buffer is not as the kernel writes it.
    Ring(bpf_loader::ring::RingFault),
    /// The event loop, or a file of /proc or /sys.
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// The profiler has stopped.
    Stopped,
    /// The profiler's thread ended by a panic.
    ThreadPanicked,
}

impl Error {
    /// A tracer's programs cannot be loaded.
    pub(crate) fn load(error: Box<bpf_loader::Error>) -> Box<Self> {
        Box::new(Self::Load(error))
    }

    /// A call to the kernel failed.
    pub(crate) fn kernel(error: impl Into<Box<bpf_loader::Error>>) -> Box<Self> {
        Box::new(Self::Kernel(error.into()))
    }

    /// Sampling cannot be started on a CPU.
    pub(crate) fn sampling(cpu: u32, error: impl Into<Box<bpf_loader::Error>>) -> Box<Self> {
        Box::new(Self::Sampling { cpu, error: error.into() })
    }

    /// A tracer's own programs lack a map.
    pub(crate) fn no_map(name: &str) -> Box<Self> {
        Self::load(Box::new(bpf_loader::Error::NoSuchMap { name: name.into() }))
    }

    /// A tracer's own programs lack one.
    pub(crate) fn no_program(name: &str) -> Box<Self> {
        Self::load(Box::new(bpf_loader::Error::NoSuchProgram { name: name.into() }))
    }

    /// A tracer and its programs do not fit.
    pub(crate) fn internal(what: &'static str) -> Box<Self> {
        Self::load(Box::new(bpf_loader::Error::Internal(what)))
    }

    /// The kernel's error number, if it was a tracer's programs that it refused.
    pub(crate) fn load_errno(&self) -> Option<bpf_sys::Errno> {
        match self {
            Self::Load(error) => error.errno(),
            _ => None,
        }
    }

    /// Turns an I/O error into one that says what was being done.
    pub(crate) fn io(what: &'static str) -> impl Fn(io::Error) -> Box<Self> {
        move |error| Box::new(Self::Io { what, error })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(e) => e.fmt(f),
            Self::NoSuchProcess(pid) => write!(f, "there is no process {pid}"),
            Self::IsThread { tid, process } => {
                write!(f, "{tid} is a thread of process {process}: use --pid {process}")
            }
            Self::NoAllocator(pid) => write!(
                f,
                "process {pid} has no function that allocates: neither its program nor its libraries have one called malloc or the like"
            ),
            Self::FromCallback => f.write_str("the profiler waits for its callback, which asked it something"),
            Self::Cgroup { path, reason } => write!(f, "cgroup {}: {reason}", path.display()),
            Self::Privileges(e) => write!(
                f,
                "this user may not sample: run as root; or give the binary CAP_BPF and CAP_PERFMON and, where kernel.perf_event_paranoid is above 2, CAP_SYS_ADMIN or set it to 2 (`ebpf-otlp check` says more): {e}"
            ),
            Self::NoBtf => f.write_str(
                "this filter needs the kernel's BTF, and there is no /sys/kernel/btf/vmlinux: boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, name a file (--btf), or filter by --pid or a cgroup v2",
            ),
            Self::KernelTypes { path, reason } => write!(f, "the kernel's types in {}: {reason}", path.display()),
            Self::FilterNeedsRestart => {
                f.write_str("this filter cannot be set while the programs run: start them again with it")
            }
            Self::NoRung { what, refused } => {
                write!(f, "nothing that this kernel has serves {what}")?;
                refused.iter().try_for_each(|refused| write!(f, "; {}: {}", refused.rung, refused.reason))
            }
            Self::NoSuchRung { what, rung } => write!(f, "there is no rung {} for {what}", Quoted(rung)),
            Self::Setting { tracer, reason } => write!(f, "the {tracer} tracer: {reason}"),
            Self::Unsupported { tracer, what } => write!(f, "the {tracer} tracer cannot {what}"),
            Self::NoPerfEvents => f.write_str("this kernel has no perf events: boot one built with CONFIG_PERF_EVENTS=y"),
            Self::Load(e) => write!(f, "cannot load the programs: {e}"),
            Self::Sampling { cpu, error } => write!(f, "cannot sample CPU {cpu}: {error}"),
            Self::Damaged { object } => write!(f, "this program's file is damaged: its {object} programs cannot be unpacked"),
            Self::Kernel(e) => e.fmt(f),
            Self::Sideband(e) => e.fmt(f),
            Self::Ring(e) => e.fmt(f),
            Self::Io { what, error } => write!(f, "{what}: {error}"),
            Self::Stopped => f.write_str("the profiler has stopped"),
            Self::ThreadPanicked => f.write_str("the profiler's thread panicked"),
        }
    }
}

impl std::error::Error for Error {}

impl From<ConfigError> for Box<Error> {
    fn from(e: ConfigError) -> Self {
        Box::new(Error::Config(e))
    }
}
