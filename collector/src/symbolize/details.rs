//! What is known of a file's functions beside its own symbol tables: files for debuggers, files and lines of addresses.

use std::sync::Arc;

use super::DEFAULT_BUDGET;
use super::debug_file::{self, Separate};
use super::debuginfod::Debuginfod;
use super::dwarf::Dwarf;
use super::elf::Elf;
use super::go::Go;
use super::host::Place;
use super::read_at::Source;
use crate::model::Line;

/// Where files and lines of addresses come from.
#[derive(Default)]
struct Lines {
    go: Option<Box<Go>>,
    dwarf: Option<Box<Dwarf>>,
}

/// What is known of a file's functions beside its own symbol tables.
pub(super) struct Details {
    /// The file that its names and lines were moved to.
    separate: Option<Separate>,
    /// The file that several of them share entries with.
    shared: Option<Separate>,
    /// What there is, once it was looked for.
    lines: Option<Lines>,
    /// Build ids of files that servers are to send.
    awaited: Vec<Box<[u8]>>,
    /// What was new of them when it was looked last.
    news: Option<u64>,
    /// Bytes that all files may take, of which each may have a part.
    budget: usize,
}

/// Where files for debuggers are looked for.
pub(super) struct Sources<'s> {
    /// Where a path may lead.
    pub places: &'s dyn Fn(&str) -> Vec<Place>,
    /// Who is asked for what is nowhere here.
    pub servers: Option<&'s Debuginfod>,
}

impl Details {
    /// Looks for the file's debug information, in it, beside it, or in what servers have sent. `budget` is the memory that all files may take, and `work`
    /// what may be done, which becomes less.
    pub fn find(
        source: &Source,
        build_id: Option<&[u8]>,
        path: &str,
        sources: &Sources<'_>,
        (budget, work): (usize, &mut u64),
    ) -> Option<Self> {
        let elf = Elf::read(source).ok()?;
        // What comes meanwhile is looked for again.
        let news = sources.servers.map(Debuginfod::news);
        let mut awaited = Vec::new();
        let mut fetch = |elf: &Elf, build_id: Option<&[u8]>| {
            let (build_id, servers) = (build_id?, sources.servers?);
            let found = debug_file::find_fetched(elf, build_id, servers);
            if found.is_none() {
                awaited.push(build_id.into());
            }
            found
        };
        let separate = if elf.section(b".debug_info").is_some() {
            None
        } else {
            debug_file::find(&elf, source, build_id, path, sources.places, work)
                // Go's own table has all that would come.
                .or_else(|| fetch(&elf, build_id.filter(|_| elf.section(b".gopclntab").is_none())))
        };
        let mut shared = |elf: &Elf, source: &Source, path: &str| {
            debug_file::find_shared(elf, source, path, sources.places).or_else(|| {
                let (_, build_id) = debug_file::shared_link(elf, source)?;
                fetch(elf, Some(&build_id))
            })
        };
        let shared = match &separate {
            None => shared(&elf, source, path),
            Some(separate) => {
                separate.source().and_then(|source| shared(&Elf::read(source).ok()?, source, separate.path()))
            }
        };
        Some(Self { separate, shared, lines: None, awaited, news, budget })
    }

    /// Whether a file has come that was awaited: then it is time to look again. Those that have not are wanted again if it is time, which
    /// is asked when a window `begins` and when there is news.
    pub fn has_more(&mut self, servers: Option<&Debuginfod>, begins: bool) -> bool {
        let Some(servers) = servers.filter(|_| !self.awaited.is_empty()) else { return false };
        let news = Some(servers.news());
        if !begins && news == self.news {
            return false;
        }
        self.news = news;
        // All of them are wanted, also those behind one that has come.
        self.awaited.iter().filter(|build_id| servers.has_come(build_id)).count() > 0
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
        if self.lines.is_none() {
            self.lines = Some(self.open(source));
        }
        let lines = self.lines.as_mut()?;
        if let Some(found) = lines.go.as_mut().and_then(|go| go.lines(source, address, work)) {
            return Some(found);
        }
        lines.dwarf.as_mut()?.lines(address, function, work).ok()
    }

    fn open(&self, source: &Source) -> Lines {
        let go = Elf::read(source).ok().and_then(|elf| Go::open(&elf, source, self.budget));
        let source = self.separate.as_ref().and_then(Separate::source).unwrap_or(source);
        let shared = self.shared.as_ref().and_then(Separate::source);
        let dwarf = Elf::read(source).ok().and_then(|elf| Dwarf::open(&elf, source, shared, self.budget));
        Lines { go: go.map(Box::new), dwarf: dwarf.map(Box::new) }
    }

    /// Gives all files back.
    pub fn close(&mut self) {
        if let Some(separate) = &mut self.separate {
            separate.close();
        }
        if let Some(shared) = &mut self.shared {
            shared.close();
        }
        if let Some(dwarf) = self.lines.as_mut().and_then(|lines| lines.dwarf.as_mut()) {
            dwarf.close();
        }
    }

    /// Opens the files again; `source` is the one that this is about. False if one is no longer the same.
    pub fn reopen(&mut self, source: &Source, servers: Option<&Debuginfod>) -> bool {
        let reopen = |file: &mut Option<Separate>| file.as_mut().is_none_or(|file| file.reopen(servers));
        if !reopen(&mut self.separate) || !reopen(&mut self.shared) {
            return false;
        }
        if let Some(dwarf) = self.lines.as_mut().and_then(|lines| lines.dwarf.as_mut()) {
            let source = match &self.separate {
                Some(separate) => separate.source(),
                None => Some(source),
            };
            if let Some(source) = source {
                dwarf.reopen(source, self.shared.as_ref().and_then(Separate::source));
            }
        }
        true
    }

    /// Forgets what can be read again.
    pub fn forget(&mut self) {
        self.lines = None;
    }

    /// Heap memory, in bytes.
    pub fn memory(&self) -> usize {
        let Some(lines) = &self.lines else { return 0 };
        let go = lines.go.as_ref().map_or(0, |go| go.memory());
        go + lines.dwarf.as_ref().map_or(0, |dwarf| dwarf.memory())
    }
}

/// Asks for lines of addresses, and of some all over the code of a file: what a fuzzer does.
pub(super) fn try_all(file: &[u8], elf: &Elf, addresses: impl IntoIterator<Item = u64>) {
    const WORK: u64 = 4 << 20;
    const ASKED: u64 = 64;
    let source: Source = Arc::new(file.to_vec());
    let nowhere = Sources { places: &|_| Vec::new(), servers: None };
    let mut work = WORK;
    let limits = (DEFAULT_BUDGET, &mut work);
    let Some(mut details) = Details::find(&source, None, "/file", &nowhere, limits) else { return };
    let (start, end) = elf.code().unwrap_or_default();
    let step = usize::try_from(end.saturating_sub(start) / ASKED).unwrap_or(usize::MAX).max(1);
    for address in addresses.into_iter().chain((start..end).step_by(step).take(ASKED as usize)) {
        details.lines(&source, address, None, &mut work);
    }
    assert!(details.memory() <= DEFAULT_BUDGET, "{}", details.memory());
    details.forget();
}
