//! A bound on work that grows faster than the input.

use crate::Error;

/// Steps left. A step is the comparison of two types or names, or one hop along a chain of types: tens of nanoseconds.
#[derive(Debug, Clone)]
pub struct Fuel(u64);

impl Fuel {
    /// Enough for thousands of relocations against a kernel, and gone within a second or so.
    pub const OBJECT: Self = Self(20_000_000);

    /// `steps` steps.
    pub const fn new(steps: u64) -> Self {
        Self(steps)
    }

    /// Takes `steps` steps.
    ///
    /// # Errors
    ///
    /// `CoreFuel` if there are not that many left.
    pub fn spend(&mut self, steps: u64) -> Result<(), Error> {
        self.0 = self.0.checked_sub(steps).ok_or(Error::CoreFuel)?;
        Ok(())
    }

    /// Takes the steps that reading a name of `len` bytes is worth.
    pub(crate) fn spend_name(&mut self, len: usize) -> Result<(), Error> {
        self.spend(1 + len as u64 / 32)
    }
}
