//! Names in files: symbol tables, and what else is known of functions, of the files that were asked for last.

use std::sync::Arc;

use super::debuginfod::Debuginfod;
#[cfg(feature = "dwarf")]
use super::details::{Details, Sources};
use super::elf::Elf;
use super::elf::symbols::SymbolTable;
use super::error::SymbolizeError;
#[cfg(feature = "dwarf")]
use super::files::MAX_OPEN;
use super::files::{FileKey, MAX_FILES};
#[cfg(feature = "dwarf")]
use super::host::Roots;
use super::line_of;
use super::read_at::Source;
use crate::model::Line;
use crate::sorted::SortedMap;

/// Bytes of debug information that are worked on in a window: half a second.
#[cfg(feature = "dwarf")]
pub(super) const WORK_A_WINDOW: u64 = 64 << 20;

/// A file in which names are looked for.
#[derive(Clone)]
pub(crate) struct NamedFile {
    pub key: FileKey,
    /// `None` where it cannot be opened any more: what is known of it stands in.
    pub source: Option<Source>,
    #[cfg(feature = "dwarf")]
    pub build_id: Option<Arc<[u8]>>,
    /// As its process sees it.
    #[cfg(feature = "dwarf")]
    pub path: Arc<str>,
    /// Where files for debuggers may be; `None`: there are none.
    #[cfg(feature = "dwarf")]
    pub roots: Option<Roots>,
}

/// What is known of a file.
#[derive(Default)]
struct Known {
    table: Option<SymbolTable>,
    /// Lines of the functions that were asked for, by index in the table.
    lines: SortedMap<u32, Arc<[Line]>>,
    lines_memory: usize,
    /// What else is known of functions, once it was looked for.
    #[cfg(feature = "dwarf")]
    details: Option<Details>,
    /// It was looked for, or opened, in this window.
    #[cfg(feature = "dwarf")]
    has_details: bool,
    used: u64,
}

impl Known {
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

    #[cfg(feature = "dwarf")]
    fn close(&mut self) {
        self.has_details = false;
        if let Some(details) = &mut self.details {
            details.close();
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
    fn function(
        &mut self,
        source: Option<&Source>,
        address: u64,
    ) -> Result<Arc<[Line]>, Box<SymbolizeError>> {
        let Some(table) = &self.table else { return Ok(Arc::default()) };
        let Some(function) = table.find(address) else { return Ok(Arc::default()) };
        if let Some(lines) = self.lines.get(&function.index) {
            return Ok(Arc::clone(lines));
        }
        let source = source.ok_or_else(closed)?;
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

/// Symbol tables and lines of files: read when a first address asks, dropped when they have not been asked for longest and the budget
/// is spent.
pub(crate) struct FileNames {
    files: SortedMap<FileKey, Known>,
    budget: usize,
    /// Who is asked for files for debuggers.
    servers: Option<Debuginfod>,
    clock: u64,
    /// Files whose details are open.
    #[cfg(feature = "dwarf")]
    open: usize,
    /// Bytes of debug information that may be worked on in this window.
    #[cfg(feature = "dwarf")]
    work: u64,
}

impl FileNames {
    /// Nothing known yet; tables take about `budget` bytes at most, or the largest one.
    pub fn new(budget: usize) -> Self {
        Self {
            files: SortedMap::new(),
            budget,
            servers: None,
            clock: 0,
            #[cfg(feature = "dwarf")]
            open: 0,
            #[cfg(feature = "dwarf")]
            work: WORK_A_WINDOW,
        }
    }

    /// Has files for debuggers fetched from now on.
    pub fn fetch_with(&mut self, servers: Debuginfod) {
        self.servers = Some(servers);
    }

    /// The lines of an ELF virtual address: the function that holds it, preceded by those inlined into it; empty where the
    /// file names none.
    ///
    /// # Errors
    /// What reading the symbol table, or the name, met.
    pub fn lines(&mut self, wanted: &NamedFile, address: u64) -> Result<Arc<[Line]>, Box<SymbolizeError>> {
        self.clock += 1;
        let key = &wanted.key;
        if !self.files.contains_key(key) {
            self.make_room();
        }
        #[cfg(feature = "dwarf")]
        self.open_details(wanted);
        let file = self.files.entry(key.clone()).or_default();
        file.used = self.clock;
        if file.table.is_none() {
            let source = wanted.source.as_ref().ok_or_else(closed)?;
            // A file without symbols, or with broken ones, is not read again for every address.
            file.table = Some(file.read_table(source).unwrap_or_default());
            self.enforce_budget(key);
        }
        let file = self.files.entry(key.clone()).or_default();
        let before = file.memory();
        let lines = file.function(wanted.source.as_ref(), address)?;
        #[cfg(feature = "dwarf")]
        let lines = match (&mut file.details, &wanted.source) {
            (Some(details), Some(source)) => {
                details.lines(source, address, lines.first(), &mut self.work).unwrap_or(lines)
            }
            _ => lines,
        };
        if file.memory() > before {
            self.enforce_budget(key);
        }
        Ok(lines)
    }

    /// Looks for what else is known of a file's functions, in it and in files for debuggers, or opens those again, once a window and
    /// when one has come that was awaited.
    #[cfg(feature = "dwarf")]
    fn open_details(&mut self, wanted: &NamedFile) {
        let (Some(source), Some(roots)) = (&wanted.source, &wanted.roots) else { return };
        let servers = self.servers.as_ref();
        let mut file = self.files.get_mut(&wanted.key);
        let looked = file.as_ref().is_some_and(|file| file.has_details);
        let details = file.as_mut().and_then(|file| file.details.as_mut());
        let has_more = details.is_some_and(|details| details.has_more(servers, !looked));
        if looked && !has_more {
            return;
        }
        if !looked {
            if self.open >= MAX_OPEN {
                self.close();
            }
            self.open += 1;
        }
        let servers = self.servers.as_ref();
        let file = self.files.entry(wanted.key.clone()).or_default();
        file.has_details = true;
        let reopen = |details: &mut Details| details.reopen(source, servers);
        if has_more || !file.details.as_mut().is_some_and(reopen) {
            file.forget();
            let limits = (self.budget, &mut self.work);
            let sources = Sources { places: &|path| roots.places(path), servers };
            file.details = Details::find(source, wanted.build_id.as_deref(), &wanted.path, &sources, limits);
        }
    }

    /// Lets as much be worked on as in a whole window.
    #[cfg(feature = "debuginfod")]
    pub fn renew_work(&mut self) {
        self.work = WORK_A_WINDOW;
    }

    #[cfg(feature = "dwarf")]
    fn close(&mut self) {
        self.files.values_mut().for_each(Known::close);
        self.open = 0;
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
        self.files.values().map(Known::memory).sum()
    }

    /// Closes all files, and begins with work anew.
    pub fn end_window(&mut self) {
        #[cfg(feature = "dwarf")]
        {
            self.close();
            self.work = WORK_A_WINDOW;
        }
    }

    /// Drops tables, least recently used first, until the budget holds or only the one in use is left.
    fn enforce_budget(&mut self, in_use: &FileKey) {
        let mut memory = self.memory();
        while memory > self.budget {
            let candidates = self.files.iter_mut();
            let candidates = candidates.filter(|(key, file)| *key != in_use && file.memory() > 0);
            let Some((_, oldest)) = candidates.min_by_key(|(_, file)| file.used) else { return };
            memory -= oldest.memory();
            oldest.forget();
        }
    }

    fn make_room(&mut self) {
        if self.files.len() < MAX_FILES {
            return;
        }
        let oldest = self.files.iter().min_by_key(|(_, file)| file.used).map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.files.remove(&key);
        }
    }
}
