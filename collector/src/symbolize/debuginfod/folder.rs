//! The folder of files that were fetched.
//!
//! It is our own, `BUILDID.debug` a file, so that all in it may go for want of room. That of other clients of debuginfod is only
//! read: what is in it is theirs to keep and to remove.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
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
/// Files `BUILDID.missing` that stay, and after how many new ones they are counted.
const MAX_MISSING: usize = 1024;
const COUNT_AFTER: u32 = 64;
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
    /// `BUILDID.RANDOM.part`: it is being fetched.
    Part,
}

impl Kind {
    /// `None`: it is none of ours, and stays.
    fn of(name: &str) -> Option<Self> {
        let (build_id, rest) = name.split_once('.')?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_hex = |text: &str| !text.is_empty() && text.bytes().all(is_digit);
        if !is_hex(build_id) {
            return None;
        }
        match rest {
            "debug" => Some(Self::Debug),
            "missing" => Some(Self::Missing),
            _ => rest.strip_suffix(".part").is_some_and(is_hex).then_some(Self::Part),
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
    /// How often it was noted that no server has a file.
    noted: AtomicU32,
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
            noted: AtomicU32::new(0),
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

    /// Whether a debug file is here, and is the one that is wanted. One of our own that is not goes; those of others are theirs.
    pub fn is_here(&self, build_id: &[u8]) -> bool {
        self.places(build_id).iter().any(|place| {
            let Ok((reader, _)) = FileReader::open(place) else { return false };
            let is_it = check(&reader, build_id).is_ok();
            let path = place.display_path();
            if !is_it && path.starts_with(&self.path) {
                let _ = fs::remove_file(path);
            }
            is_it
        })
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
        if self.noted.fetch_add(1, Ordering::Relaxed) % COUNT_AFTER == 0 {
            self.make_room(self.servers.len() as u64, &part.path)?;
        }
        (&part.file).write_all(self.servers.as_bytes())?;
        part.finish(&self.file(build_id, "missing"))
    }

    /// Begins to write a file.
    pub fn begin(&self, build_id: &[u8]) -> io::Result<Part<'_>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        // Of several containers that have the folder, each may have a process of our number.
        let path = self.file(build_id, &format!("{:016x}.part", bpf_sys::random::number()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        *self.part.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.clone());
        Ok(Part { folder: self, file, path, written: 0, room: 0 })
    }

    /// Removes what is being written: its thread will not come to it.
    pub fn give_up(&self) {
        if let Some(path) = self.part.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = fs::remove_file(path);
        }
    }

    /// Removes files, those that were not used for longest first, until so many bytes find room beside the rest; and those that say that
    /// no server has a file, the oldest first, until there are not too many.
    fn make_room(&self, bytes: u64, writing: &Path) -> io::Result<()> {
        let (mut files, mut missing, mut total) = (Vec::new(), Vec::new(), bytes);
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
                let size = size_on_disk(&metadata);
                total = total.saturating_add(size);
                let entry = |used| Entry { path, used, size };
                match kind {
                    Kind::Debug => files.push(entry((metadata.atime(), metadata.atime_nsec()))),
                    Kind::Missing => missing.push(entry((metadata.mtime(), metadata.mtime_nsec()))),
                    // What others write at the same time has its own turn.
                    Kind::Part => {}
                }
            }
        }
        files.sort_unstable_by_key(|file| file.used);
        missing.sort_unstable_by_key(|file| file.used);
        for file in missing.drain(..missing.len().saturating_sub(MAX_MISSING)) {
            remove(&file.path)?;
            total = total.saturating_sub(file.size);
        }
        let mut oldest = files.into_iter().chain(missing);
        while total > self.capacity {
            let Some(file) = oldest.next() else { return Err(io::ErrorKind::StorageFull.into()) };
            remove(&file.path)?;
            total = total.saturating_sub(file.size);
        }
        Ok(())
    }
}

/// Removes a file, which another process may have removed.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What a file takes: the smallest one a block. Some file systems know that only later, and till then it is its length.
fn size_on_disk(metadata: &Metadata) -> u64 {
    metadata.blocks().saturating_mul(512).max(metadata.len())
}

/// Whether a file is the debug file that is wanted.
fn check(reader: &FileReader, build_id: &[u8]) -> Result<(), Unfit> {
    let elf = Elf::read(reader).map_err(Unfit::Elf)?;
    if elf.build_id(reader).as_deref() != Some(build_id) {
        return Err(Unfit::BuildId);
    }
    if elf.section(b".debug_info").is_none() && !elf.has_symbols() {
        return Err(Unfit::Empty);
    }
    Ok(())
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
        check(&reader, build_id)?;
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
    use crate::export::Endpoint;
    use crate::symbolize::testing::Scratch;

    #[test]
    fn only_files_of_ours_may_go() {
        for (name, kind) in [
            ("0123456789abcdef.debug", Some(Kind::Debug)),
            ("ab.missing", Some(Kind::Missing)),
            ("ab.0123456789abcdef.part", Some(Kind::Part)),
            ("ab..part", None),
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

    fn folder(scratch: &Scratch, capacity: u64) -> Folder {
        Folder::new(&Settings {
            servers: vec![Endpoint::parse("http://localhost").unwrap()],
            folder: scratch.0.clone(),
            others: None,
            capacity,
            max_file: capacity,
            timeout: Duration::ZERO,
            max_time: Duration::ZERO,
        })
    }

    fn names(scratch: &Scratch) -> Vec<String> {
        let entries = fs::read_dir(&scratch.0).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_nobody_has_does_not_fill_the_disk() {
        let scratch = Scratch::new("debuginfod-missing-many");
        let folder = folder(&scratch, 1 << 30);
        let (over, old) = (scratch.0.join("aa.missing"), scratch.0.join("bb.missing"));
        for (path, age) in [(&over, MISSING_FOR * 2), (&old, MISSING_FOR / 2)] {
            File::create(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }
        folder.note_missing(&[0xcc; 20]).unwrap();
        assert!(!over.exists() && old.exists());
        for number in 0..MAX_MISSING as u64 + 2 * u64::from(COUNT_AFTER) {
            folder.note_missing(&number.to_be_bytes()).unwrap();
        }
        let count = names(&scratch).len();
        assert!((MAX_MISSING..=MAX_MISSING + COUNT_AFTER as usize).contains(&count), "{count}");
        assert!(!old.exists());
    }

    #[test]
    fn the_smallest_file_takes_a_block() {
        let scratch = Scratch::new("debuginfod-blocks");
        let path = scratch.0.join("aa.missing");
        fs::write(&path, "x").unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        let block = size_on_disk(&fs::metadata(&path).unwrap());
        if block == 1 {
            println!("skipped: this file system puts small files elsewhere");
            return;
        }
        for number in 0..20 {
            fs::write(scratch.0.join(format!("{number:02}.missing")), "x").unwrap();
        }
        folder(&scratch, block * 10).make_room(block, Path::new("")).unwrap();
        assert!(names(&scratch).len() <= 9, "{:?}", names(&scratch));
        // One that another process removes first is no error.
        remove(&scratch.0.join("never")).unwrap();
    }

    #[test]
    fn two_write_the_same_file_at_once() {
        let scratch = Scratch::new("debuginfod-parts");
        let (first, second) = (folder(&scratch, 1 << 30), folder(&scratch, 1 << 30));
        let (mut one, mut other) = (first.begin(&[1; 20]).unwrap(), second.begin(&[1; 20]).unwrap());
        one.write(b"one").unwrap();
        other.write(b"other").unwrap();
        assert_eq!(fs::read(&one.path).unwrap(), b"one");
        assert!(names(&scratch).iter().all(|name| Kind::of(name) == Some(Kind::Part)));
        drop((one, other));
        assert_eq!(names(&scratch), [""; 0]);
    }
}
