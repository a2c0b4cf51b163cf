//! A bound on work that grows faster than the input.

use crate::btf::{Btf, BtfId, MAX_CHAIN, Type};
use crate::error::{Error, Result};

/// Steps left. A step is the comparison of two types or names, or one hop along a chain of types: tens of nanoseconds.
#[derive(Debug, Clone)]
pub struct Fuel {
    left: u64,
    all: u64,
}

impl Fuel {
    /// Enough for thousands of relocations against a kernel, and gone within a second or so.
    pub const OBJECT: Self = Self::new(20_000_000);

    /// `steps` steps.
    pub const fn new(steps: u64) -> Self {
        Self { left: steps, all: steps }
    }

    /// Takes `steps` steps.
    ///
    /// # Errors
    ///
    /// `TooComplex` if there are not that many left.
    pub fn spend(&mut self, steps: u64) -> Result<()> {
        let spent = Error::TooComplex { what: "comparisons of types and names", limit: self.all };
        self.left = self.left.checked_sub(steps).ok_or(spent)?;
        Ok(())
    }

    /// Takes the steps that reading a name of `len` bytes is worth.
    pub(crate) fn spend_name(&mut self, len: usize) -> Result<()> {
        self.spend(1 + len as u64 / 32)
    }

    /// [`Btf::skip_mods_and_typedefs`], paid for.
    pub(crate) fn skip<'b>(&mut self, btf: &'b Btf<'_>, id: BtfId) -> Result<Type<'b>> {
        let (ty, hops) = btf.skip_counting(id)?;
        self.spend(1 + hops as u64)?;
        Ok(ty)
    }

    /// [`Btf::resolve_size`], paid for.
    pub(crate) fn size(&mut self, btf: &Btf<'_>, id: BtfId) -> Result<u32> {
        self.spend(MAX_CHAIN as u64)?;
        btf.resolve_size(id)
    }

    /// [`Btf::string_bytes`], paid for.
    pub(crate) fn name<'b>(&mut self, btf: &'b Btf<'_>, offset: u32) -> Result<&'b [u8]> {
        let name = btf.string_bytes(offset)?;
        self.spend_name(name.len())?;
        Ok(name)
    }
}
