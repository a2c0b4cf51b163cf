//! Symbol tables and lines of files, shared by all processes that map them.

use std::fs::Metadata;
#[cfg(feature = "unwind")]
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::debuginfod::Debuginfod;
use super::demangle;
#[cfg(feature = "dwarf")]
use super::details::{Details, Sources};
use super::elf::symbols::SymbolTable;
use super::elf::{AddressMap, Elf};
use super::error::SymbolizeError;
use super::host::Place;
use super::process::MappedFile;
use super::read_at::{FileReader, ReadAt, Shared, Source};
use crate::model::Line;
use crate::sorted::SortedMap;

/// Memory for symbol tables and the names that were asked for.
pub const DEFAULT_BUDGET: usize = 16 << 20;
/// Files that are known at a time.
const MAX_FILES: usize = 4096;
/// Files that are held open at a time.
const MAX_OPEN: usize = 64;
/// Bytes of debug information that are worked on in a window: half a second.
#[cfg(feature = "dwarf")]
pub(super) const WORK_A_WINDOW: u64 = 64 << 20;

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

/// Number of a file in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileNo(pub(crate) u32);

struct CachedFile {
    addresses: AddressMap,
    build_id: Option<Arc<[u8]>>,
    /// Open until the end of the window, so that nothing keeps a disk from being unmounted for longer.
    source: Option<Source>,
    table: Option<SymbolTable>,
    /// Lines of the functions that were asked for, by index in the table.
    lines: SortedMap<u32, Arc<[Line]>>,
    lines_memory: usize,
    /// What else is known of functions, once it was looked for.
    #[cfg(feature = "dwarf")]
    details: Option<Details>,
    /// It was looked for, or opened, since the file was.
    #[cfg(feature = "dwarf")]
    has_details: bool,
    used: u64,
    /// An image that is nowhere else.
    pinned: bool,
}

impl CachedFile {
    /// Heap memory, in bytes.
    fn memory(&self) -> usize {
        let memory = self.lines_memory + self.table.as_ref().map_or(0, SymbolTable::memory);
        #[cfg(feature = "dwarf")]
        let memory = memory + self.details.as_ref().map_or(0, Details::memory);
        memory
    }

    /// Forgets what can be read again.
    fn forget(&mut self) {
        self.table = None;
        self.lines = SortedMap::new();
        self.lines_memory = 0;
        #[cfg(feature = "dwarf")]
        if let Some(details) = &mut self.details {
            details.forget();
        }
    }

    fn close(&mut self) {
        if self.pinned {
            return;
        }
        self.source = None;
        #[cfg(feature = "dwarf")]
        {
            self.has_details = false;
            if let Some(details) = &mut self.details {
                details.close();
            }
        }
    }

    /// Where the names of `.symtab` are, and the table itself.
    fn read_table(&self, source: &Source) -> Result<SymbolTable, Box<SymbolizeError>> {
        let source = &**source;
        let elf = Elf::read(source)?;
        #[cfg(feature = "dwarf")]
        if let Some((debug, debug_elf)) = self.details.as_ref().and_then(|details| details.symbols(&elf)) {
            return SymbolTable::read_with(&elf, source, (&debug_elf, &debug));
        }
        SymbolTable::read(&elf, source)
    }

    /// The line of the function that holds an address, from the symbol table.
    fn function(&mut self, address: u64) -> Result<Arc<[Line]>, Box<SymbolizeError>> {
        let Some(table) = &self.table else { return Ok(Arc::default()) };
        let Some(function) = table.find(address) else { return Ok(Arc::default()) };
        if let Some(lines) = self.lines.get(&function.index) {
            return Ok(Arc::clone(lines));
        }
        let source = self.source.as_ref().ok_or_else(closed)?;
        #[cfg(feature = "dwarf")]
        let names = self.details.as_ref().and_then(Details::names).unwrap_or(source);
        #[cfg(not(feature = "dwarf"))]
        let names = source;
        let line = line_of(table.name_with(&**source, &**names, function)?);
        let bytes = line.function.len() + line.system_name.as_ref().map_or(0, |name| name.len());
        let found: Arc<[Line]> = Arc::from([line]);
        self.lines.insert(function.index, Arc::clone(&found));
        self.lines_memory += bytes + 128;
        Ok(found)
    }
}

fn closed() -> Box<SymbolizeError> {
    Box::new(SymbolizeError::Truncated { what: "a closed file", offset: 0 })
}

/// Symbol tables of files: read when a first address asks, dropped when they have not been asked for longest
/// and the budget is spent.
pub(super) struct FileCache {
    files: SortedMap<FileNo, CachedFile>,
    by_identity: SortedMap<Identity, FileNo>,
    by_build_id: SortedMap<(Arc<[u8]>, u64), FileNo>,
    budget: usize,
    /// Who is asked for files for debuggers.
    #[cfg_attr(not(feature = "dwarf"), expect(dead_code, reason = "there is none"))]
    servers: Option<Debuginfod>,
    clock: u64,
    next: u32,
    open: usize,
    /// Bytes of debug information that may be worked on in this window.
    #[cfg(feature = "dwarf")]
    work: u64,
}

impl FileCache {
    pub fn new(budget: usize) -> Self {
        Self {
            files: SortedMap::new(),
            by_identity: SortedMap::new(),
            by_build_id: SortedMap::new(),
            budget,
            servers: None,
            clock: 0,
            next: 0,
            open: 0,
            #[cfg(feature = "dwarf")]
            work: WORK_A_WINDOW,
        }
    }

    /// Has files for debuggers fetched from now on.
    pub fn fetch_with(&mut self, servers: Debuginfod) {
        self.servers = Some(servers);
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
            // It is read whole at once: nothing can be read on demand later.
            if cfg!(feature = "symbols") {
                file.table = Some(SymbolTable::read(&Elf::read(&image.as_slice())?, &image.as_slice())?);
            }
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
        let number = known.unwrap_or_else(|| {
            self.next = self.next.wrapping_add(1);
            FileNo(self.next)
        });
        if known.is_none() {
            self.make_room();
            let file = CachedFile {
                addresses: elf.address_map(),
                build_id: build_id.clone(),
                source: None,
                table: None,
                lines: SortedMap::new(),
                lines_memory: 0,
                #[cfg(feature = "dwarf")]
                details: None,
                #[cfg(feature = "dwarf")]
                has_details: false,
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

    /// The bytes of a file that is open.
    #[cfg(feature = "unwind")]
    pub fn source(&self, number: FileNo) -> Option<&dyn ReadAt> {
        let source = self.files.get(&number)?.source.as_deref()?;
        Some(source)
    }

    /// True while the cache has the file, open or not.
    pub fn contains(&self, number: FileNo) -> bool {
        self.files.contains_key(&number)
    }

    /// The GNU build id of a file.
    pub fn build_id(&self, number: FileNo) -> Option<&Arc<[u8]>> {
        self.files.get(&number)?.build_id.as_ref()
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

    /// Looks for what else is known of a file's functions, in it and in files for debuggers, or opens those again, once while the
    /// file is open, and when one has come. `path` is the file's, and `places` where other paths may lead.
    #[cfg(feature = "dwarf")]
    pub fn open_details(&mut self, number: FileNo, path: &str, places: &dyn Fn(&str) -> Vec<Place>) {
        let Some(file) = self.files.get_mut(&number).filter(|file| !file.pinned) else { return };
        let Some(source) = file.source.clone() else { return };
        let servers = self.servers.as_ref();
        let looked = std::mem::replace(&mut file.has_details, true);
        let is_current = match &mut file.details {
            Some(details) if details.has_more(servers) => false,
            Some(details) => looked || details.reopen(&source, servers),
            None => looked,
        };
        if !is_current {
            file.forget();
            let build_id = file.build_id.as_deref();
            let limits = (self.budget, &mut self.work);
            file.details = Details::find(&source, build_id, path, &Sources { places, servers }, limits);
        }
    }

    /// Lets as much be worked on as in a whole window.
    #[cfg(feature = "debuginfod")]
    pub fn renew_work(&mut self) {
        self.work = WORK_A_WINDOW;
    }

    /// The lines of an ELF virtual address: the function that holds it, preceded by those inlined into it; empty where the
    /// file names none.
    ///
    /// # Errors
    /// What reading the symbol table, or the name, met.
    pub fn lines(&mut self, number: FileNo, address: u64) -> Result<Arc<[Line]>, Box<SymbolizeError>> {
        if !cfg!(feature = "symbols") {
            return Ok(Arc::default());
        }
        self.clock += 1;
        let file = self.files.get_mut(&number).ok_or_else(closed)?;
        file.used = self.clock;
        if file.table.is_none() {
            let source = file.source.as_ref().ok_or_else(closed)?;
            // A file without symbols, or with broken ones, is not read again for every address.
            file.table = Some(file.read_table(source).unwrap_or_default());
            self.enforce_budget(number);
        }
        let file = self.files.get_mut(&number).ok_or_else(closed)?;
        let before = file.memory();
        let lines = file.function(address)?;
        #[cfg(feature = "dwarf")]
        let lines = match (&mut file.details, &file.source) {
            (Some(details), Some(source)) => {
                details.lines(source, address, lines.first(), &mut self.work).unwrap_or(lines)
            }
            _ => lines,
        };
        if file.memory() > before {
            self.enforce_budget(number);
        }
        Ok(lines)
    }

    #[cfg(all(test, feature = "dwarf"))]
    pub fn work(&self) -> u64 {
        self.work
    }

    #[cfg(all(test, feature = "dwarf"))]
    pub fn set_work(&mut self, work: u64) {
        self.work = work;
    }

    /// Heap memory for tables and names, in bytes.
    pub fn memory(&self) -> usize {
        self.files.values().map(CachedFile::memory).sum()
    }

    /// Closes all files.
    pub fn end_window(&mut self) {
        self.files.values_mut().for_each(CachedFile::close);
        self.open = 0;
        #[cfg(feature = "dwarf")]
        {
            self.work = WORK_A_WINDOW;
        }
        let files = &self.files;
        self.by_identity.retain(|_, number| files.contains_key(number));
        self.by_build_id.retain(|_, number| files.contains_key(number));
    }

    fn hold(&mut self, number: FileNo, source: Source) {
        if self.open >= MAX_OPEN {
            self.files.values_mut().for_each(CachedFile::close);
            self.open = 0;
        }
        if let Some(file) = self.files.get_mut(&number) {
            self.open += usize::from(file.source.replace(source).is_none());
        }
    }

    /// Drops tables, least recently used first, until the budget holds or only the one in use is left.
    fn enforce_budget(&mut self, in_use: FileNo) {
        let mut memory = self.memory();
        while memory > self.budget {
            let candidates = self.files.iter_mut();
            let candidates = candidates.filter(|(number, file)| **number != in_use && file.memory() > 0);
            let Some((_, oldest)) = candidates.min_by_key(|(_, file)| file.used) else { return };
            memory -= oldest.memory();
            oldest.forget();
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

/// A function without its source line.
pub(super) fn line_of(name: String) -> Line {
    match demangle(&name) {
        Some(readable) => {
            Line { function: readable.into(), system_name: Some(name.into()), file: None, line: 0 }
        }
        None => Line { function: name.into(), system_name: None, file: None, line: 0 },
    }
}
