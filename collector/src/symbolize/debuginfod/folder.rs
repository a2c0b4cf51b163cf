//! The folder of files that were fetched.
//!
//! It is our own, `BUILDID.debug` a file, so that all in it may go for want of room. That of other clients of debuginfod is only
//! read: what is in it is theirs to keep and to remove.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};

use super::{MISSING_FOR, Settings};
use crate::symbolize::elf::Elf;
use crate::symbolize::error::SymbolizeError;
use crate::symbolize::host::Place;
use crate::symbolize::read_at::FileReader;

/// A file that nothing was written to for so long is left over from a program that was killed.
const ABANDONED: Duration = Duration::from_secs(3600);
/// Bytes that room is made for at a time.
const STEP: u64 = 16 << 20;
/// Entries of the folder that are looked at: it is ours, but may have been another's before.
const MAX_ENTRIES: usize = 65_536;

/// A build id as paths have it.
pub(super) fn hex(build_id: &[u8]) -> String {
    build_id.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a file of the folder is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `BUILDID.debug`
    Debug,
    /// `BUILDID.missing`: no server has it. In it is which were asked.
    Missing,
    /// `BUILDID.PID.part`: it is being fetched.
    Part,
}

impl Kind {
    /// `None`: it is none of ours, and stays.
    fn of(name: &str) -> Option<Self> {
        let (build_id, rest) = name.split_once('.')?;
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if build_id.is_empty() || !build_id.bytes().all(is_hex) {
            return None;
        }
        match rest {
            "debug" => Some(Self::Debug),
            "missing" => Some(Self::Missing),
            _ => {
                let pid = rest.strip_suffix(".part")?;
                pid.parse::<u32>().is_ok().then_some(Self::Part)
            }
        }
    }
}

/// A file that may go.
struct Entry {
    path: PathBuf,
    used: (i64, i64),
    size: u64,
}

/// Files that were fetched, within bounds.
pub(super) struct Folder {
    path: PathBuf,
    others: Option<PathBuf>,
    capacity: u64,
    /// Which servers are asked.
    servers: String,
    /// The file that is being written.
    part: Mutex<Option<PathBuf>>,
}

impl Folder {
    pub fn new(settings: &Settings) -> Self {
        let servers = settings.servers.iter().fold(String::new(), |mut text, server| {
            let _ = writeln!(text, "{server}");
            text
        });
        Self {
            path: settings.folder.clone(),
            others: settings.others.clone(),
            capacity: settings.capacity,
            servers,
            part: Mutex::default(),
        }
    }

    fn file(&self, build_id: &[u8], ending: &str) -> PathBuf {
        self.path.join(format!("{}.{ending}", hex(build_id)))
    }

    /// Where a debug file is, if it is.
    pub fn places(&self, build_id: &[u8]) -> Vec<Place> {
        let own = self.file(build_id, "debug");
        let others = self.others.as_ref().map(|others| others.join(hex(build_id)).join("debuginfo"));
        std::iter::once(own).chain(others).map(Place::trusted).collect()
    }

    /// Notes that one of our own is used. Its time of access is not left to how the disk is mounted.
    pub fn used(&self, path: &Path) {
        if path.starts_with(&self.path) {
            let of = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
            let times = Timestamps { last_access: of(UTIME_NOW), last_modification: of(UTIME_OMIT) };
            // Otherwise it goes earlier.
            let _ = utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
        }
    }

    /// Whether these servers were asked lately, and none has it.
    pub fn is_missing(&self, build_id: &[u8]) -> bool {
        let path = self.file(build_id, "missing");
        let Ok(metadata) = fs::symlink_metadata(&path) else { return false };
        metadata.is_file()
            && metadata.len() == self.servers.len() as u64
            && age(&metadata) < MISSING_FOR
            && fs::read(path).is_ok_and(|servers| servers == self.servers.as_bytes())
    }

    /// Notes that none has it.
    pub fn note_missing(&self, build_id: &[u8]) -> io::Result<()> {
        let part = self.begin(build_id)?;
        (&part.file).write_all(self.servers.as_bytes())?;
        part.finish(&self.file(build_id, "missing"))
    }

    /// Begins to write a file.
    pub fn begin(&self, build_id: &[u8]) -> io::Result<Part<'_>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let path = self.file(build_id, &format!("{}.part", std::process::id()));
        let open = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = match open() {
            // One of our number was killed at it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&path)?;
                open()?
            }
            opened => opened?,
        };
        *self.part.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.clone());
        Ok(Part { folder: self, file, path, written: 0, room: 0 })
    }

    /// Removes what is being written: its thread will not come to it.
    pub fn give_up(&self) {
        if let Some(path) = self.part.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = fs::remove_file(path);
        }
    }

    /// Removes files, those that were not used for longest first, until so many bytes find room beside the rest.
    fn make_room(&self, bytes: u64, writing: &Path) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)?.take(MAX_ENTRIES) {
            let path = entry?.path();
            let kind = path.file_name().and_then(|name| Kind::of(name.to_str()?));
            // Another process may have removed it.
            let (Some(kind), Ok(metadata)) = (kind, fs::symlink_metadata(&path)) else { continue };
            let over = match kind {
                Kind::Debug => false,
                Kind::Missing => age(&metadata) >= MISSING_FOR,
                Kind::Part => age(&metadata) >= ABANDONED,
            };
            if over {
                let _ = fs::remove_file(&path);
            } else if path != writing {
                let used = if kind == Kind::Debug {
                    (metadata.atime(), metadata.atime_nsec())
                } else {
                    (i64::MAX, 0)
                };
                files.push(Entry { path, used, size: metadata.len() });
            }
        }
        let mut total = files.iter().map(|file| file.size).sum::<u64>().saturating_add(bytes);
        files.sort_unstable_by_key(|file| file.used);
        let mut oldest = files.into_iter().filter(|file| file.used.0 != i64::MAX);
        while total > self.capacity {
            // What others write at the same time has its own turn.
            let Some(file) = oldest.next() else { return Err(io::ErrorKind::StorageFull.into()) };
            fs::remove_file(&file.path)?;
            total -= file.size;
        }
        Ok(())
    }
}

/// How long ago a file was written.
fn age(metadata: &Metadata) -> Duration {
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    // What was written in the future was written by another clock.
    SystemTime::now().duration_since(modified).unwrap_or(Duration::MAX)
}

/// A file that is being written, and goes unless it is finished.
pub(super) struct Part<'f> {
    folder: &'f Folder,
    file: File,
    path: PathBuf,
    written: u64,
    /// Bytes that there is room for.
    room: u64,
}

impl Part<'_> {
    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let after = self.written.saturating_add(bytes.len() as u64);
        if after > self.room {
            self.room = after.saturating_add(STEP).min(self.folder.capacity.max(after));
            self.folder.make_room(self.room, &self.path)?;
        }
        self.file.write_all(bytes)?;
        self.written = after;
        Ok(())
    }

    /// Takes the file in, if it is the one that is wanted.
    pub fn check_and_finish(self, build_id: &[u8]) -> Result<(), Unfit> {
        let (reader, _) = FileReader::open(&Place::trusted(self.path.clone())).map_err(Unfit::Elf)?;
        let elf = Elf::read(&reader).map_err(Unfit::Elf)?;
        if elf.build_id(&reader).as_deref() != Some(build_id) {
            return Err(Unfit::BuildId);
        }
        if elf.section(b".debug_info").is_none() && !elf.has_symbols() {
            return Err(Unfit::Empty);
        }
        let to = self.folder.file(build_id, "debug");
        self.finish(&to).map_err(Unfit::Keep)
    }

    fn finish(self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        // Nothing is there any more once it is finished.
        self.folder.give_up();
    }
}

/// Why what a server sent is not the file that is wanted.
pub(super) enum Unfit {
    Elf(Box<SymbolizeError>),
    BuildId,
    Empty,
    Keep(io::Error),
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Elf(error) => error.fmt(f),
            Self::BuildId => f.write_str("the server sent a file with another build id"),
            Self::Empty => f.write_str("the server sent a file without symbols and debug information"),
            Self::Keep(error) => write!(f, "the file cannot be kept ({error})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_ours_may_go() {
        for (name, kind) in [
            ("0123456789abcdef.debug", Some(Kind::Debug)),
            ("ab.missing", Some(Kind::Missing)),
            ("ab.12.part", Some(Kind::Part)),
            ("ab.part", None),
            ("ab.x.part", None),
            ("AB.debug", None),
            (".debug", None),
            ("libc.debug", None),
            ("ab", None),
            ("ab.debug.gz", None),
        ] {
            assert_eq!(Kind::of(name), kind, "{name}");
        }
    }
}
