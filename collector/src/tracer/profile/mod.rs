//! The CPU profiler: samples stacks on a timer on every CPU.
//!
//! | file | what it does |
//! |---|---|
//! | `program.rs` | loads the BPF program, sized for machine and configuration; swaps its two windows |
//! | `cpu_events.rs` | the timers, one for each CPU online |
//! | `idle_clock.rs` | how long CPUs were idle, in which timers do not run |
//! | `explain.rs` | why sampling could not begin |
//! | `window.rs` | reads what a window collected |
//! | `walks.rs` | finishes walks that the program's tables did not serve |
//! | `off_cpu.rs` | what waits are counted under that outlast a window, where those are profiled and not CPU time |
//! | `stacks.rs` | what is told of stacks of processes: how they are walked, and how far |
//! | `sideband.rs` | process starts, execs, mappings and exits, as the kernel reports them |
//! | `accounting.rs` | what is counted, and how many samples there should have been |
//! | `naming.rs` | addresses to names |
//! | `located.rs` | where the addresses of a window are: the part of that which cannot wait |
//! | `namer.rs` | the rest, in a thread of low priority; `namer_at_once.rs` without names in files |
//! | `session.rs` | all of it in one event loop; `session/counts.rs` what it has counted |
//! | `tracer.rs` | the same as one tracer among others |

mod accounting;
mod cpu_events;
mod explain;
mod idle_clock;
#[cfg(feature = "symbols")]
mod located;
#[cfg(feature = "symbols")]
mod namer;
#[cfg(not(feature = "symbols"))]
mod namer_at_once;
pub(super) mod naming;
#[cfg(feature = "unwind")]
mod off_cpu;
mod program;
mod session;
mod sideband;
#[cfg(feature = "unwind")]
pub(super) mod stacks;
pub(super) mod symbols;
mod tracer;
#[cfg(feature = "unwind")]
mod walks;
mod window;

pub(crate) use accounting::Skipped;
pub(crate) use cpu_events::CpuEvents;
#[cfg(feature = "symbols")]
pub(super) use namer::Namer;
#[cfg(not(feature = "symbols"))]
pub(super) use namer_at_once::Namer;
pub(crate) use program::ProfileProgram;

/// How often the kernel's tables are read when nothing asks for it earlier.
pub(crate) const READS_PER_SECOND: u32 = 1;
pub use accounting::{Counters, Overhead, Walks};
#[cfg(feature = "unwind")]
pub(crate) use session::WINDOW_IS_ANOTHERS;
pub use session::{FIRST_FOREIGN_TOKEN, Session};
pub(crate) use tracer::hand_over;
pub use tracer::{CPU_PROFILE, INFO, Settings};
