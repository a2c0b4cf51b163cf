//! Telemetry to the formats that leave the agent: pure functions of their arguments.

pub mod logs;
pub mod metrics;
#[cfg(feature = "pictures")]
pub mod pprof;
pub mod profiles;
pub mod prometheus;
pub mod spans;

#[cfg(test)]
pub(crate) mod fixture;

use crate::kernel_types::hexadecimal;
use crate::model::{Mapping, Process, Profile};
use std::ops::Range;
use std::{error, fmt, io};

/// Why a profile could not be converted.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An index points past the end of its table of the profile.
    Index {
        /// The table.
        table: &'static str,
        /// The index.
        index: u32,
        /// How many entries the table has.
        len: usize,
    },
    /// The OTLP request would not have been valid.
    Encode(otlp_encode::Error),
    /// The output could not be written.
    Write(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index { table, index, len } => {
                write!(f, "index {index} into {table}, which has {len} entries")
            }
            Self::Encode(_) => f.write_str("cannot encode the profile"),
            Self::Write(_) => f.write_str("cannot write the profile"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Index { .. } => None,
            Self::Encode(error) => Some(error),
            Self::Write(error) => Some(error),
        }
    }
}

/// Makes sure that every index of a profile is in its table, so that the converters can rely on it.
fn check_indices(profile: &Profile) -> Result<(), Error> {
    let within = |table, index: u32, len| {
        if (index as usize) < len { Ok(()) } else { Err(Error::Index { table, index, len }) }
    };
    for sample in &profile.samples {
        within("processes", sample.process.0, profile.processes.len())?;
        within("threads", sample.thread.0, profile.threads.len())?;
        within("stacks", sample.stack.0, profile.stacks.len())?;
    }
    for frame in profile.stacks.iter().flatten() {
        within("frames", frame.0, profile.frames.len())?;
    }
    for mapping in profile.frames.iter().filter_map(|frame| frame.mapping) {
        within("mappings", mapping.0, profile.mappings.len())?;
    }
    Ok(())
}

/// The name under which a process is shown: its executable's, or what it calls itself.
///
/// Pid 0 stands for all processes that cannot be seen from the agent's pid namespace, together: the idle task is never
/// sampled.
fn executable_name(process: &Process) -> Option<&str> {
    if process.pid == 0 {
        return Some(crate::enrich::HIDDEN);
    }
    let path = process.executable_path.as_deref();
    let name = path.and_then(|path| path.rsplit('/').next()).filter(|name| !name.is_empty());
    name.or(process.comm.as_deref())
}

/// The addresses of a mapping; `0..0`, which means unknown, where they make no range.
fn memory(mapping: &Mapping) -> Range<u64> {
    if mapping.memory_start < mapping.memory_limit {
        mapping.memory_start..mapping.memory_limit
    } else {
        0..0
    }
}

/// The build id as everyone writes it, in hexadecimal; empty where there is none.
fn build_id_hex(mapping: &Mapping) -> String {
    mapping.build_id.as_deref().map(hexadecimal).unwrap_or_default()
}
