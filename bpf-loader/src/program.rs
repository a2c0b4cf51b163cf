//! Programs in the kernel.

use bpf_sys::ProgFd;

use crate::kind::ProgramKind;

/// A program in the kernel. It goes when this and every attachment are gone.
#[derive(Debug)]
pub struct Program {
    /// Its name in the object.
    pub name: String,
    /// What it is.
    pub kind: &'static ProgramKind,
    /// Name of its section, which may name a target.
    pub section: String,
    /// The program.
    pub fd: ProgFd,
}
