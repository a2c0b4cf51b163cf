//! Programs in the kernel.

use std::os::fd::AsFd;
use std::path::Path;

use bpf_sys::{ProgFd, pin};

use crate::error::{Error, Result};
use crate::kind::{ProgramKind, SectionName};

/// A program in the kernel. It goes when this and every attachment and pin are gone.
#[derive(Debug)]
pub struct Program {
    /// Its name in the object.
    pub name: String,
    /// What it is.
    pub kind: &'static ProgramKind,
    /// Name of its section, which may name a target; with the function that was chosen in the place of that one, if one was.
    pub section: String,
    /// The program.
    pub fd: ProgFd,
}

impl Program {
    /// Opens a pinned program. The kernel does not keep the name of its section, which says what it is.
    ///
    /// # Errors
    ///
    /// There is no such pin, or it is no program's; [`Error::UnknownKind`].
    pub fn from_pin(path: &Path, section: &str) -> Result<Self> {
        let unknown = || Error::UnknownKind { section: section.into() };
        let kind = SectionName::parse(section).kind.ok_or_else(unknown)?;
        let fd = pin::get_prog(path, None)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, kind, section: section.into(), fd })
    }

    /// Pins the program in a BPF file system: it then outlives this handle and the process. Removing the file unpins it.
    ///
    /// # Errors
    ///
    /// The name is taken or not in a BPF file system.
    pub fn pin(&self, path: &Path) -> Result<()> {
        Ok(pin::pin(self.fd.as_fd(), path, None)?)
    }
}
