//! System calls: how often, with which errors, how long, for each process and call.
//!
//! | file | what it does |
//! |---|---|
//! | `define.rs` | what it tells, and how it gets at it |
//! | `calls.rs` | sets of calls, by name |
//! | `program.rs` | loads the BPF programs, sized for machine and memory |
//! | `window.rs` | takes out what a window collected |
//! | `tracer.rs` | all of it as one tracer among others |
//!
//! Calls and errors are exact whatever is set, but for those that are reported as dropped. A call is counted when it returns;
//! `exit`, `exit_group` and the ways back from a signal handler when they begin, since they do not return, or not as
//! themselves. A call that begins under one filter and returns under the next counts as the first one wants it if its
//! duration is measured. What the kernel refuses before it looks at a call (seccomp) counts too, without a duration.

mod calls;
mod define;
mod keys;
mod program;
mod tracer;
mod window;

use std::time::Duration;

pub use define::{CALLS, DURATION, ERRORS, INFO, SLOW_CALL, SYSTEM_CALLS};

/// Settings of the system call tracer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Resolution of durations: an octave has 2^scale buckets. 0 to 3.
    pub scale: u8,
    /// Only these calls, by name; all if there are none.
    pub calls: Vec<String>,
    /// Durations below are not recorded. Their calls and errors are counted all the same.
    pub minimum: Duration,
    /// Calls that take this long or longer become spans. Every call is timed then.
    pub span_threshold: Option<Duration>,
    /// Whether every call is timed, at any rate. Otherwise, of more than 20,000 calls a second on a CPU, some are timed,
    /// and each stands for those since the last one.
    pub every_duration: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            scale: 2,
            calls: Vec::new(),
            minimum: Duration::ZERO,
            span_threshold: None,
            every_duration: false,
        }
    }
}
