//! When an attempt ends.

use std::io;
use std::time::{Duration, Instant};

/// A point in time after which nothing is waited for; or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    at: Option<Instant>,
}

impl Deadline {
    /// As long as it takes.
    pub const NEVER: Self = Self { at: None };

    /// `timeout` from now; never for `None`, and for what no clock reaches.
    pub fn after(timeout: Option<Duration>) -> Self {
        Self { at: timeout.and_then(|timeout| Instant::now().checked_add(timeout)) }
    }

    /// Time left, never zero; `None` without a deadline.
    ///
    /// # Errors
    ///
    /// `TimedOut` once it has passed.
    pub fn remaining(self) -> io::Result<Option<Duration>> {
        let Some(at) = self.at else { return Ok(None) };
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}
