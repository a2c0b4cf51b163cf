//! Files that processes map: which they are, and where in them an address is.

use std::fs::Metadata;
#[cfg(feature = "unwind")]
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::elf::{AddressMap, Elf};
use super::error::SymbolizeError;
use super::host::Place;
use super::process::MappedFile;
use super::read_at::{FileReader, ReadAt, Shared, Source};
use crate::sorted::SortedMap;

/// Files that are known at a time.
pub(super) const MAX_FILES: usize = 4096;
/// Files that are held open here at a time; others may hold them for longer.
pub(super) const MAX_OPEN: usize = 64;

/// What makes two files the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Identity {
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// Where to look for a mapped file.
#[derive(Debug)]
pub(super) struct Candidate {
    pub place: Place,
    /// The kernel itself leads there from the mapping (`map_files`), so no name can have been replaced.
    pub trusted: bool,
}

/// Numbers that caches have given out: what several of them have found may be looked up in one place.
static NUMBERS: AtomicU32 = AtomicU32::new(0);

/// Number of a file in the cache, and in no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileNo(pub(crate) u32);

/// By what names of a file are known: for files of one build they are the same, whoever has found it.
#[cfg(feature = "symbols")]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileKey {
    /// Build id, and size.
    Build(Arc<[u8]>, u64),
    /// It has no build id.
    Number(FileNo),
}

struct CachedFile {
    addresses: AddressMap,
    build_id: Option<Arc<[u8]>>,
    #[cfg(feature = "symbols")]
    size: u64,
    /// Open until the end of the window, so that nothing keeps a disk from being unmounted for longer.
    source: Option<Source>,
    used: u64,
    /// An image that is nowhere else.
    pinned: bool,
}

impl CachedFile {
    fn close(&mut self) {
        if !self.pinned {
            self.source = None;
        }
    }
}

/// Files that processes map, each known by one number wherever it is.
pub(super) struct FileCache {
    files: SortedMap<FileNo, CachedFile>,
    by_identity: SortedMap<Identity, FileNo>,
    by_build_id: SortedMap<(Arc<[u8]>, u64), FileNo>,
    clock: u64,
    open: usize,
}

impl FileCache {
    pub fn new() -> Self {
        Self {
            files: SortedMap::new(),
            by_identity: SortedMap::new(),
            by_build_id: SortedMap::new(),
            clock: 0,
            open: 0,
        }
    }

    /// Finds a mapped file through the first candidate that is it.
    ///
    /// A path is believed if the build id is the mapping's, or else the inode; the device may differ, because
    /// btrfs and overlayfs tell another one to `stat` than to mappings.
    ///
    /// # Errors
    /// What the last candidate met.
    pub fn open(
        &mut self,
        wanted: &MappedFile,
        candidates: impl Iterator<Item = Candidate>,
    ) -> Result<FileNo, Box<SymbolizeError>> {
        let mut last = None;
        for candidate in candidates {
            match self.open_candidate(wanted, candidate) {
                Ok(found) => return Ok(found),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            let source = std::io::ErrorKind::NotFound.into();
            Box::new(SymbolizeError::Open { path: PathBuf::from(&*wanted.path), source })
        }))
    }

    fn open_candidate(
        &mut self,
        wanted: &MappedFile,
        candidate: Candidate,
    ) -> Result<FileNo, Box<SymbolizeError>> {
        let Candidate { place, trusted } = candidate;
        let (reader, metadata) = FileReader::open(&place)?;
        let replaced = || Box::new(SymbolizeError::Replaced { path: place.display_path() });
        if wanted.build_id.is_none() && !trusted && wanted.inode != 0 && wanted.inode != metadata.ino() {
            return Err(replaced());
        }
        let identity = Identity::of(&metadata);
        let number = match self.by_identity.get(&identity) {
            Some(&number) if self.files.contains_key(&number) => number,
            _ => self.add(Some(identity), &reader, metadata.len())?,
        };
        let file = self.files.get(&number).ok_or(SymbolizeError::NotElf)?;
        if wanted.build_id.is_some() && wanted.build_id != file.build_id {
            return Err(replaced());
        }
        self.hold(number, Shared::new(reader));
        Ok(number)
    }

    /// Adds an image that is in memory.
    ///
    /// # Errors
    /// [`SymbolizeError::NotElf`], or what reading its headers met.
    pub fn add_image(&mut self, image: Vec<u8>) -> Result<FileNo, Box<SymbolizeError>> {
        let number = self.add(None, &image.as_slice(), image.len() as u64)?;
        if let Some(file) = self.files.get_mut(&number) {
            file.source = Some(Shared::new(image));
            file.pinned = true;
        }
        Ok(number)
    }

    fn add(
        &mut self,
        identity: Option<Identity>,
        source: &dyn ReadAt,
        size: u64,
    ) -> Result<FileNo, Box<SymbolizeError>> {
        let elf = Elf::read(source)?;
        let build_id: Option<Arc<[u8]>> = elf.build_id(source).map(Into::into);
        let known = build_id.as_ref().and_then(|id| self.by_build_id.get(&(Arc::clone(id), size)));
        let known = known.copied().filter(|number| self.files.contains_key(number));
        let number = known.unwrap_or_else(|| FileNo(NUMBERS.fetch_add(1, Ordering::Relaxed)));
        if known.is_none() {
            self.make_room();
            let file = CachedFile {
                addresses: elf.address_map(),
                build_id: build_id.clone(),
                #[cfg(feature = "symbols")]
                size,
                source: None,
                used: self.clock,
                pinned: false,
            };
            self.files.insert(number, file);
        }
        if let Some(identity) = identity {
            self.by_identity.insert(identity, number);
        }
        if let Some(build_id) = build_id {
            self.by_build_id.insert((build_id, size), number);
        }
        Ok(number)
    }

    /// True while names can be read from the file.
    pub fn is_open(&self, number: FileNo) -> bool {
        self.files.get(&number).is_some_and(|file| file.source.is_some())
    }

    /// A file that is open.
    #[cfg(any(feature = "symbols", feature = "unwind"))]
    pub fn source(&self, number: FileNo) -> Option<&Source> {
        self.files.get(&number)?.source.as_ref()
    }

    /// True while the cache has the file, open or not.
    pub fn contains(&self, number: FileNo) -> bool {
        self.files.contains_key(&number)
    }

    /// The GNU build id of a file.
    pub fn build_id(&self, number: FileNo) -> Option<&Arc<[u8]>> {
        self.files.get(&number)?.build_id.as_ref()
    }

    /// By what names of a file are known.
    #[cfg(feature = "symbols")]
    pub fn key(&self, number: FileNo) -> FileKey {
        let build = self.files.get(&number).and_then(|file| Some((file.build_id.clone()?, file.size)));
        build.map_or(FileKey::Number(number), |(id, size)| FileKey::Build(id, size))
    }

    /// The ELF virtual address of a byte of the file.
    pub fn address_of(&self, number: FileNo, offset: u64) -> Option<u64> {
        self.files.get(&number)?.addresses.address_of(offset)
    }

    /// Where in the file the segment is that has the byte at `offset`.
    #[cfg(feature = "unwind")]
    pub fn range_around(&self, number: FileNo, offset: u64) -> Option<Range<u64>> {
        self.files.get(&number)?.addresses.range_around(offset)
    }

    /// Closes all files.
    pub fn end_window(&mut self) {
        self.files.values_mut().for_each(CachedFile::close);
        self.open = 0;
        let files = &self.files;
        self.by_identity.retain(|_, number| files.contains_key(number));
        self.by_build_id.retain(|_, number| files.contains_key(number));
    }

    fn hold(&mut self, number: FileNo, source: Source) {
        if self.open >= MAX_OPEN {
            self.files.values_mut().for_each(CachedFile::close);
            self.open = 0;
        }
        self.clock += 1;
        if let Some(file) = self.files.get_mut(&number) {
            file.used = self.clock;
            self.open += usize::from(file.source.replace(source).is_none());
        }
    }

    fn make_room(&mut self) {
        if self.files.len() < MAX_FILES {
            return;
        }
        let others = self.files.iter().filter(|(_, file)| !file.pinned);
        if let Some(number) = others.min_by_key(|(_, file)| file.used).map(|(number, _)| *number) {
            self.files.remove(&number);
        }
    }
}
