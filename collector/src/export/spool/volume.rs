//! The file system, as far as a spool needs it.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::error::{Action, SpoolError};

/// How long to wait for the lock: the process before may be about to end, or have a child that has yet to execute its program.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// A directory that belongs to one spool.
pub trait Volume: Send + Sync {
    /// Its path, for people.
    fn path(&self) -> &Path;

    /// The names in it.
    ///
    /// # Errors
    ///
    /// Those of reading a directory.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Makes a file, which must not exist, to read and write.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    fn create(&self, name: &str) -> io::Result<Arc<dyn VolumeFile>>;

    /// Opens a file to read and write.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    fn open(&self, name: &str) -> io::Result<Arc<dyn VolumeFile>>;

    /// Deletes a file.
    ///
    /// # Errors
    ///
    /// Those of unlink(2).
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Puts on disk which files there are.
    ///
    /// # Errors
    ///
    /// Those of fsync(2).
    fn sync_names(&self) -> io::Result<()>;
}

/// A file of a [`Volume`].
pub trait VolumeFile: Send + Sync {
    /// Its size in bytes.
    ///
    /// # Errors
    ///
    /// Those of fstat(2).
    fn size(&self) -> io::Result<u64>;

    /// Reads until `buffer` is full or the file ends; how many bytes that were.
    ///
    /// # Errors
    ///
    /// Those of pread(2).
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes`.
    ///
    /// # Errors
    ///
    /// Those of pwrite(2); a part may be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts it to `size` bytes.
    ///
    /// # Errors
    ///
    /// Those of ftruncate(2).
    fn truncate(&self, size: u64) -> io::Result<()>;

    /// Puts content and size on disk.
    ///
    /// # Errors
    ///
    /// Those of fdatasync(2). What was written since the last sync may be lost then, even if a later one succeeds.
    fn sync(&self) -> io::Result<()>;
}

/// A real directory, locked against other processes as long as this exists.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    handle: OwnedFd,
}

impl Directory {
    /// Makes the directory if it is missing, for this user alone, and locks it.
    ///
    /// # Errors
    ///
    /// [`SpoolError::InUse`], or why it cannot be used.
    pub fn open(path: &Path) -> Result<Self, Box<SpoolError>> {
        let failed =
            |error| Box::new(SpoolError::Io { action: Action::OpenDirectory, path: path.to_owned(), error });
        make(path).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { path: path.to_owned(), handle }),
                Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(LOCK_RETRY),
                Err(Errno::WOULDBLOCK) => return Err(Box::new(SpoolError::InUse { path: path.to_owned() })),
                Err(errno) => return Err(failed(errno.into())),
            }
        }
    }

    fn open_file(&self, name: &str, more: OFlags) -> io::Result<Arc<dyn VolumeFile>> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | more;
        let file = File::from(rustix::fs::openat(&self.handle, name, flags, Mode::RUSR | Mode::WUSR)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        Ok(Arc::new(file))
    }
}

/// Makes a directory with its parents, each of which is on disk before the next.
fn make(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev().filter(|path| !path.as_os_str().is_empty()) {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_directory(&File::open(parent.unwrap_or(Path::new(".")))?)?;
    }
    Ok(())
}

/// fsync(2) of a directory. Some file systems know no such thing; they have nothing to sync.
fn sync_directory(handle: impl std::os::fd::AsFd) -> io::Result<()> {
    match rustix::fs::fsync(handle) {
        Err(Errno::INVAL) => Ok(()),
        result => Ok(result?),
    }
}

impl Volume for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.handle)? {
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn VolumeFile>> {
        self.open_file(name, OFlags::CREATE | OFlags::EXCL)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn VolumeFile>> {
        self.open_file(name, OFlags::empty())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.handle, name, AtFlags::empty())?)
    }

    fn sync_names(&self) -> io::Result<()> {
        sync_directory(&self.handle)
    }
}

impl VolumeFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
