//! `ebpf-otlp check`: what this kernel and this user allow, and what to do about what is missing.
//!
//! [`facts::read_files`] and [`probe::run`] ask the system; [`judge`] is a pure function of what it found.

pub mod facts;
mod judge;
pub mod probe;
pub mod tracers;

pub use facts::Facts;
pub use judge::judge;

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As wanted.
    Ok,
    /// Something is lost without it.
    Degraded,
    /// `profile` cannot run.
    Missing,
}

impl Status {
    /// The word in the output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, as `kernel` or `capabilities`.
    pub name: &'static str,
    /// How good it is.
    pub status: Status,
    /// What was found.
    pub value: String,
    /// What to do, if something is missing.
    pub remedy: Option<String>,
}

/// All findings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// In the order in which they are shown.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether `profile` can run: nothing that it needs is missing.
    pub fn usable(&self) -> bool {
        self.findings.iter().all(|f| f.status != Status::Missing)
    }
}
