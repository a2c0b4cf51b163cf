//! Where the host's files are, so that tests can stand in a tree of their own.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::SymbolizeError;

/// How often a path is followed that others change.
const MAX_TRIES: usize = 8;

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
    pub fn in_process_root(&self, pid: u32, path: &str) -> Place {
        Place::below(self.process_file(pid, "root"), path)
    }

    /// A path as the agent sees it.
    pub fn in_own_root(&self, path: &str) -> Place {
        Place::below(self.root.clone(), path)
    }
}

/// Where paths of a process lead, best first.
#[derive(Debug, Clone)]
pub(crate) struct Roots {
    host: Host,
    /// Processes whose root directories are tried.
    pids: Vec<u32>,
}

impl Roots {
    pub fn new(host: Host, pids: Vec<u32>) -> Self {
        Self { host, pids }
    }

    /// Where a path may lead; the agent's own root is the last resort.
    pub fn places(&self, path: &str) -> Vec<Place> {
        let own = self.host.in_own_root(path);
        self.pids.iter().map(|&pid| self.host.in_process_root(pid, path)).chain([own]).collect()
    }
}

/// A path and where it starts. Watched processes choose what is behind their paths.
#[derive(Debug, Clone)]
pub struct Place {
    /// A directory whose links are trusted, such as `/proc/PID/root`; `None` for a path that is trusted as a whole.
    root: Option<PathBuf>,
    path: PathBuf,
    links: bool,
}

impl Place {
    /// A path that the kernel or the agent chose: all links are followed.
    pub fn trusted(path: PathBuf) -> Self {
        Self { root: None, path, links: true }
    }

    /// A path below a root directory, as a process sees it that has this root: links start there too, `..` does not leave
    /// it, and links that the kernel makes up, as those in `/proc/PID/fd`, are refused.
    pub fn below(root: PathBuf, path: &str) -> Self {
        Self { root: Some(root), path: path.into(), links: true }
    }

    /// The same, where every link on the way is refused.
    pub fn without_links(self) -> Self {
        Self { links: false, ..self }
    }

    /// The path, for people.
    pub fn display_path(&self) -> PathBuf {
        match &self.root {
            Some(root) => root.join(self.path.strip_prefix("/").unwrap_or(&self.path)),
            None => self.path.clone(),
        }
    }

    /// A handle that reads nothing yet. Below a root it takes `openat2`, Linux 5.6.
    fn find(&self) -> io::Result<OwnedFd> {
        let handle = OFlags::PATH | OFlags::CLOEXEC;
        let Some(root) = &self.root else {
            return Ok(rustix::fs::open(&self.path, handle, Mode::empty())?);
        };
        let root = rustix::fs::open(root, handle | OFlags::DIRECTORY, Mode::empty())?;
        let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        resolve.set(ResolveFlags::NO_SYMLINKS, !self.links);
        let mut tries = 0;
        loop {
            tries += 1;
            match rustix::fs::openat2(&root, &self.path, handle, Mode::empty(), resolve) {
                // A rename anywhere while `..` was followed.
                Err(Errno::AGAIN | Errno::INTR) if tries < MAX_TRIES => {}
                found => return Ok(found?),
            }
        }
    }
}

/// Opens a regular file: a pipe or a device is refused, and opening never waits.
///
/// # Errors
/// [`SymbolizeError::Open`].
pub fn open_regular(place: &Place) -> Result<(File, Metadata), Box<SymbolizeError>> {
    let open = || {
        // Opening a device can have effects of its own, so look before it, and open what was looked at.
        let found = File::from(place.find()?);
        let metadata = found.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let handle = format!("/proc/self/fd/{}", found.as_raw_fd());
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        Ok((OpenOptions::new().read(true).custom_flags(flags).open(handle)?, metadata))
    };
    open().map_err(|source| Box::new(SymbolizeError::Open { path: place.display_path(), source }))
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

#[cfg(test)]
mod tests;
