//! What the agent knows about itself at the end of a window.

use std::time::Duration;

use crate::tracer::ladder::Chosen;
use crate::tracer::{Overhead, Stats};

/// The agent at the end of a window.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How long the window was.
    pub window: Duration,
    /// Tracers that run.
    pub tracers: Vec<TracerReport>,
    /// What became of everything at tracers that ran and do not any more.
    pub ended: Vec<(&'static str, Stats)>,
    /// Tracers that do not, though they are enabled, and why.
    pub failures: Vec<Failure>,
    /// CPU time of the process since it started.
    pub cpu_time: Duration,
    /// What tracing costs as a share of one core, hooks included.
    pub cost: f64,
    /// Resident memory of the process, in bytes.
    pub resident: u64,
    /// The memory budget, in bytes.
    pub budget: u64,
    /// What became of files for debuggers, where they are fetched.
    #[cfg(feature = "debuginfod")]
    pub debuginfod: Option<crate::symbolize::debuginfod::Counts>,
}

/// A tracer at the end of a window.
#[derive(Debug, Clone)]
pub struct TracerReport {
    /// Its name.
    pub name: &'static str,
    /// Share of the window for which it was attached: counts are exact where it is 1.
    pub coverage: f64,
    /// One in so many of what may be sampled was.
    pub one_in: u32,
    /// The rungs in use.
    pub rungs: Vec<Chosen>,
    /// What became of everything since the agent's start, however often the tracer was started.
    pub stats: Stats,
    /// What it costs, since the start.
    pub overhead: Overhead,
    /// Kernel memory of its maps and rings, in bytes.
    pub map_bytes: u64,
    /// What it costs as a share of one core, hooks included.
    pub cost: f64,
}

/// A tracer that does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its name.
    pub name: &'static str,
    /// Why not.
    pub error: String,
    /// Whether the user asked for it by name, or it ran before: then it is a failure of the whole run. What is on by default
    /// and has nothing to stand on in this kernel is none.
    pub counts: bool,
}

impl Report {
    /// Memory of everything.
    pub fn memory(&self) -> u64 {
        self.resident + self.tracers.iter().map(|tracer| tracer.map_bytes).sum::<u64>()
    }
}
