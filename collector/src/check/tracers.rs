//! What each tracer would use here: found by starting it for this process alone, and stopping it at once.

use bpf_loader::target::RunningTarget;

use crate::config::Filter;
use crate::error::Error;
use crate::tracer::ladder::{Chosen, Forced};
use crate::tracer::{Info, Settings, Start, TRACERS, heap};

/// Kernel memory that a tracer may take for a moment.
const MEMORY: usize = 1 << 20;

/// What became of starting a tracer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracerFinding {
    /// Its name.
    pub name: &'static str,
    /// The rung of each of its ladders, or why it cannot start.
    pub ladders: Result<Vec<Chosen>, String>,
}

/// Tries every tracer. Nothing stays attached.
pub fn try_all(target: &RunningTarget) -> Vec<TracerFinding> {
    let filter = Filter { pids: vec![std::process::id()], ..Filter::default() };
    let try_one = |info: &&'static Info| {
        let forced = Forced::default();
        let started = (info.start)(&Start {
            filter: &filter,
            settings: &Settings::default(),
            memory: MEMORY,
            forced: &forced,
            target,
        });
        let rungs = started.map(|tracer| tracer.rungs().to_vec()).or_else(|error| match *error {
            // This process may be of another width than those that will be traced, or without names of its allocator.
            Error::NoAllocator(_) | Error::Unsupported { .. } if info.name == heap::INFO.name => {
                heap::try_rungs(MEMORY, &forced, target)
            }
            _ => Err(error),
        });
        TracerFinding { name: info.name, ladders: rungs.map_err(|error| error.to_string()) }
    };
    TRACERS.iter().map(try_one).collect()
}
