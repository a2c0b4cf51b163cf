//! What is known of a file's functions beside its own symbol tables: files for debuggers, files and lines of addresses.

use std::sync::Arc;

use super::debug_file::{self, Separate};
#[cfg(feature = "dwarf")]
use super::dwarf::Dwarf;
use super::elf::Elf;
use super::host::Place;
use super::read_at::Source;
use crate::model::Line;

/// Where files and lines of addresses come from.
enum Origin {
    /// Not looked for yet.
    Unknown,
    /// There are none.
    Nothing,
    #[cfg(feature = "dwarf")]
    Dwarf(Box<Dwarf>),
}

/// What is known of a file's functions beside its own symbol tables.
pub(super) struct Details {
    /// The file that its names and lines were moved to.
    separate: Option<Separate>,
    origin: Origin,
}

impl Details {
    /// Looks for the file's debug information, in it or beside it.
    pub fn find(
        source: &Source,
        build_id: Option<&[u8]>,
        path: &str,
        places: &dyn Fn(&str) -> Vec<Place>,
    ) -> Option<Self> {
        let elf = Elf::read(source).ok()?;
        let is_whole = elf.section(b".debug_info").is_some();
        let separate = if is_whole { None } else { debug_file::find(&elf, source, build_id, path, places) };
        Some(Self { separate, origin: Origin::Unknown })
    }

    /// The file that has the functions' names, if it is another one, and its headers.
    pub fn symbols(&self, elf: &Elf) -> Option<(Source, Elf)> {
        let source = self.separate.as_ref()?.source()?;
        let debug = Elf::read(source).ok()?;
        (!elf.has_symbols() && debug.has_symbols()).then(|| (Arc::clone(source), debug))
    }

    /// The file that names of `.symtab` are read from, if it is another one.
    pub fn names(&self) -> Option<&Source> {
        self.separate.as_ref()?.names()
    }

    /// The lines of an address, innermost first; `function` is what the symbol table has there. `None` if nothing more is known,
    /// or there is no time for it now.
    pub fn lines(
        &mut self,
        source: &Source,
        address: u64,
        function: Option<&Line>,
        work: &mut u64,
    ) -> Option<Arc<[Line]>> {
        if matches!(self.origin, Origin::Unknown) {
            self.origin = self.open(source);
        }
        match &mut self.origin {
            Origin::Unknown | Origin::Nothing => None,
            #[cfg(feature = "dwarf")]
            Origin::Dwarf(dwarf) => dwarf.lines(address, function, work).ok(),
        }
    }

    fn open(&self, source: &Source) -> Origin {
        #[cfg(feature = "dwarf")]
        {
            let source = self.separate.as_ref().and_then(Separate::source).unwrap_or(source);
            let dwarf = Elf::read(source).ok().and_then(|elf| Dwarf::open(&elf, source));
            if let Some(dwarf) = dwarf {
                return Origin::Dwarf(Box::new(dwarf));
            }
        }
        Origin::Nothing
    }

    /// Gives all files back.
    pub fn close(&mut self) {
        if let Some(separate) = &mut self.separate {
            separate.close();
        }
        #[cfg(feature = "dwarf")]
        if let Origin::Dwarf(dwarf) = &mut self.origin {
            dwarf.close();
        }
    }

    /// Opens the files again; `source` is the one that this is about.
    pub fn reopen(&mut self, source: &Source) {
        if let Some(separate) = &mut self.separate {
            separate.reopen();
        }
        #[cfg(feature = "dwarf")]
        if let Origin::Dwarf(dwarf) = &mut self.origin {
            let source = match &self.separate {
                Some(separate) => separate.source(),
                None => Some(source),
            };
            if let Some(source) = source {
                dwarf.reopen(source);
            }
        }
    }

    /// Forgets what can be read again.
    pub fn forget(&mut self) {
        self.origin = Origin::Unknown;
    }

    /// Heap memory, in bytes.
    pub fn memory(&self) -> usize {
        match &self.origin {
            Origin::Unknown | Origin::Nothing => 0,
            #[cfg(feature = "dwarf")]
            Origin::Dwarf(dwarf) => dwarf.memory(),
        }
    }
}
