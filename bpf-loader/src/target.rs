//! What relocation may ask about a kernel.

use crate::Error;
use crate::btf::Btf;

/// A module's types, split on the kernel's.
#[derive(Debug)]
pub struct ModuleBtf<'a> {
    /// Name of the module.
    pub name: String,
    /// Its BTF.
    pub btf: Btf<'a>,
}

/// Types of the kernel that an object is relocated for: the running one's, another's, or made up.
pub trait TargetBtf {
    /// The kernel's own types, `None` if it comes without.
    ///
    /// # Errors
    ///
    /// Whatever reading or parsing them meets.
    fn vmlinux(&self) -> Result<Option<&Btf<'_>>, Error>;

    /// Types of loaded modules, asked for only if the kernel's own BTF lacks a type. A module whose BTF cannot be read or
    /// parsed is left out: a program that doesn't need it must not fail for it. Where the kernel's BTF was replaced by
    /// a file of the user's, there are none.
    ///
    /// # Errors
    ///
    /// Whatever listing them meets.
    fn modules(&self) -> Result<&[ModuleBtf<'_>], Error>;
}
