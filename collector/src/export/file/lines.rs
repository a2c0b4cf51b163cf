//! A file that lines are appended to, and its rotation.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::FileSettings;

/// Telemetry names what runs on a host: for its owner alone.
pub(super) const MODE: u32 = 0o600;

/// One file with its backups.
#[derive(Debug)]
pub(super) struct LinesFile {
    path: PathBuf,
    max_bytes: u64,
    max_backups: u32,
    sync: bool,
    open: Option<File>,
}

impl LinesFile {
    pub fn new(path: &Path, settings: &FileSettings) -> Self {
        let FileSettings { max_bytes, max_backups, sync, .. } = *settings;
        Self { path: path.to_owned(), max_bytes, max_backups, sync, open: None }
    }

    /// Appends `line`, which ends with its `\n`, or leaves the file as it was.
    pub fn append(&mut self, line: &[u8]) -> io::Result<()> {
        // After an error it is opened again: whatever was wrong may be better then.
        let (mut file, mut len) = self.current()?;
        if len > 0 && len.saturating_add(line.len() as u64) > self.max_bytes {
            if self.max_backups == 0 {
                file.set_len(0)?;
            } else {
                rotate(&self.path, self.max_backups)?;
                file = open(&self.path)?;
            }
            len = 0;
        }
        write_whole(&mut file, len, line, self.sync)?;
        self.open = Some(file);
        Ok(())
    }

    /// The file at the path and its length, the one that is open if it still is that.
    fn current(&mut self) -> io::Result<(File, u64)> {
        if let Some(file) = self.open.take() {
            let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
            match fs::metadata(&self.path) {
                Ok(there) if identity(&there) == identity(&file.metadata()?) => {
                    return Ok((file, there.len()));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let file = open(&self.path)?;
        let len = file.metadata()?.len();
        Ok((file, len))
    }
}

/// Opens or makes a file, alone, and ends its last line if a crash has left a part of one.
fn open(path: &Path) -> io::Result<File> {
    // Without blocking, or a pipe that nobody reads would hold the exporter up for ever.
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).append(true).create(true).mode(MODE).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    // Not all file systems have locks.
    if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK) {
        return Err(io::Error::other("another process writes it"));
    }
    if let Some(last) = metadata.len().checked_sub(1) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, last)?;
        if byte != *b"\n" {
            // The file may be anyone's: nothing in it is taken away.
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

/// Makes room at `path`: the newest backup is number 1, and the one with the highest number goes.
fn rotate(path: &Path, max_backups: u32) -> io::Result<()> {
    // A symbolic link stays, and the file that it leads to is rotated beside its own place.
    let path = fs::canonicalize(path)?;
    for number in (1..max_backups).rev() {
        match fs::rename(backup(&path, number), backup(&path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(&path, backup(&path, 1))
}

/// `traces.jsonl` with number 1 is `traces.1.jsonl`, which patterns such as `*.jsonl` find too.
fn backup(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path.file_stem().unwrap_or_default());
    name.push(format!(".{number}"));
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    path.with_file_name(name)
}

/// What [`write_whole`] needs of a file.
pub(super) trait Appended: Write {
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn sync_data(&self) -> io::Result<()>;
}

impl Appended for File {
    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }
}

/// Appends `line` to a file of `len` bytes; on an error, cuts off what is there of it.
pub(super) fn write_whole(file: &mut impl Appended, len: u64, line: &[u8], sync: bool) -> io::Result<()> {
    let written = file.write_all(line).and_then(|()| if sync { file.sync_data() } else { Ok(()) });
    if written.is_err() {
        // If this fails too, the line ends when the file is opened again.
        let _ = file.set_len(len);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    /// A disk with room for some bytes, which takes three in a write.
    #[derive(Default)]
    struct Disk {
        bytes: RefCell<Vec<u8>>,
        room: usize,
        sync_fails: Cell<bool>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut own = self.bytes.borrow_mut();
            let taken = bytes.len().min(3).min(self.room - own.len());
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            own.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Appended for Disk {
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.bytes.borrow_mut().truncate(len as usize);
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            if self.sync_fails.get() { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
        }
    }

    #[test]
    fn lines_are_whole_on_a_full_disk() {
        let mut disk = Disk { room: 12, ..Disk::default() };
        write_whole(&mut disk, 0, b"12345\n", false).unwrap();
        let error = write_whole(&mut disk, 6, b"1234567\n", false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(*disk.bytes.borrow(), b"12345\n");
        write_whole(&mut disk, 6, b"12345\n", true).unwrap();
        assert_eq!(*disk.bytes.borrow(), b"12345\n12345\n");
    }

    #[test]
    fn what_is_not_synced_is_not_there() {
        let mut disk = Disk { room: 100, ..Disk::default() };
        disk.sync_fails.set(true);
        write_whole(&mut disk, 0, b"line\n", true).unwrap_err();
        assert!(disk.bytes.borrow().is_empty());
        write_whole(&mut disk, 0, b"line\n", false).unwrap();
    }

    #[test]
    fn backups_keep_the_ending() {
        for (path, expected) in
            [("/a/traces.jsonl", "/a/traces.2.jsonl"), ("/a/own", "/a/own.2"), ("/a.b/.x", "/a.b/.x.2")]
        {
            assert_eq!(backup(Path::new(path), 2), Path::new(expected));
        }
    }
}
