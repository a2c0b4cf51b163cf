//! Where the host's files are, so that tests can stand in a tree of their own.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::SymbolizeError;

/// The directories that are read.
#[derive(Debug, Clone)]
pub struct Host {
    /// The `proc` file system of the agent's pid namespace.
    pub proc: PathBuf,
    /// The `sysfs` file system.
    pub sys: PathBuf,
    /// The agent's own root directory.
    pub root: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into(), root: "/".into() }
    }
}

impl Host {
    /// `/proc/PID/FILE`.
    pub fn process_file(&self, pid: u32, file: &str) -> PathBuf {
        self.proc.join(pid.to_string()).join(file)
    }

    /// A path as process `pid` sees it, through its root directory.
    pub fn in_process_root(&self, pid: u32, path: &str) -> PathBuf {
        self.process_file(pid, "root").join(path.trim_start_matches('/'))
    }

    /// A path as the agent sees it.
    pub fn in_own_root(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// Opens a regular file. Watched processes choose what is behind the path: a pipe or a device is refused, and
/// opening never waits.
///
/// # Errors
/// [`SymbolizeError::Open`].
pub fn open_regular(path: &Path) -> Result<(File, Metadata), SymbolizeError> {
    let failed = |source| SymbolizeError::Open { path: path.to_owned(), source };
    let check = |metadata: Metadata| {
        if metadata.is_file() { Ok(metadata) } else { Err(failed(io::Error::other("not a regular file"))) }
    };
    // Opening a device can have effects of its own, so look before it, and again at what was opened.
    check(std::fs::metadata(path).map_err(failed)?)?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = file.map_err(failed)?;
    let metadata = check(file.metadata().map_err(failed)?)?;
    Ok((file, metadata))
}

/// Reads a file of `procfs` or `sysfs`, `limit` bytes at most: what is past them is left out.
///
/// # Errors
/// What the operating system says.
pub fn read_limited(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
