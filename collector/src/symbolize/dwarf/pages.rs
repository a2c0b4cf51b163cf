//! Sections of debug information, read page by page: a file of gigabytes costs a few hundred kilobytes.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use gimli::{
    Abbreviations, DebugAbbrev, DebugAbbrevOffset, Error, Reader, ReaderOffsetId, Result, RunTimeEndian,
};

use super::inflate::Inflater;
use crate::symbolize::elf::Elf;
use crate::symbolize::read_at::{ReadAt, Source, read_exact_at};

/// Bytes that are read at once.
pub(super) const PAGE: usize = 8 * 1024;
/// Pages that are kept.
const MAX_PAGES: usize = 48;
/// Bytes of one table of abbreviations; those of large programs have some ten thousand.
pub(super) const MAX_ABBREVIATIONS: u64 = 128 * 1024;
/// Bytes of the tables that are kept. In memory they are some fifteen times as large.
const KEPT_ABBREVIATIONS: u64 = 64 * 1024;
/// What reading a page takes beside working on it: so it is no use to a hostile file to have one byte of each.
const PAGE_WORK: u64 = PAGE as u64 / 8;
/// Bytes of a string that are looked for its end.
const MAX_STRING: u64 = 64 * 1024;

/// The sections that names and lines are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Abbrev,
    Addr,
    Info,
    Line,
    LineStr,
    Ranges,
    RangeLists,
    Str,
    StrOffsets,
}

/// Their names, in the order of their discriminants.
const NAMES: [&[u8]; 9] = [
    b".debug_abbrev",
    b".debug_addr",
    b".debug_info",
    b".debug_line",
    b".debug_line_str",
    b".debug_ranges",
    b".debug_rnglists",
    b".debug_str",
    b".debug_str_offsets",
];

/// Where the bytes of a section are.
enum Place {
    /// In the file as they are.
    Plain { offset: u64, size: u64 },
    /// In the file, compressed.
    Deflated(Box<Inflater>),
}

impl Place {
    fn size(&self) -> u64 {
        match self {
            Self::Plain { size, .. } => *size,
            Self::Deflated(inflater) => inflater.size(),
        }
    }
}

struct Page {
    section: Section,
    start: u64,
    bytes: Arc<[u8]>,
    used: u64,
}

/// A table of abbreviations, where it is, and how many bytes it has there.
struct Table {
    offset: u64,
    size: u64,
    abbreviations: Arc<Abbreviations>,
}

/// The sections of one file, and what was read of them last.
pub(super) struct Store {
    source: Option<Source>,
    endian: RunTimeEndian,
    places: RefCell<[Option<Place>; NAMES.len()]>,
    pages: RefCell<Vec<Page>>,
    /// Used last at the end.
    tables: RefCell<Vec<Table>>,
    clock: Cell<u64>,
    /// Bytes that may still be worked on: what bounds the time that a hostile file takes.
    fuel: Cell<u64>,
}

impl Store {
    /// The sections of a file; `None` if it has no debug information that can be read.
    pub fn open(elf: &Elf, source: &Source) -> Option<Self> {
        let place = |name: &&[u8]| {
            let section = elf.section(name)?;
            if !section.compressed {
                let end = section.offset.checked_add(section.size)?;
                let is_there = section.size > 0 && end <= source.size();
                return is_there.then_some(Place::Plain { offset: section.offset, size: section.size });
            }
            let inflater = Inflater::open(elf, &**source, section.offset, section.size)?;
            Some(Place::Deflated(Box::new(inflater)))
        };
        let places = NAMES.each_ref().map(place);
        let endian = if elf.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
        let store = Self {
            source: Some(Arc::clone(source)),
            endian,
            places: RefCell::new(places),
            pages: RefCell::default(),
            tables: RefCell::default(),
            clock: Cell::default(),
            fuel: Cell::new(0),
        };
        (store.size(Section::Info) > 0 && store.size(Section::Abbrev) > 0).then_some(store)
    }

    /// Gives the file back; what is known of its sections stays.
    pub fn close(&mut self) {
        self.source = None;
        self.pages.borrow_mut().clear();
        self.tables.borrow_mut().clear();
        for place in self.places.borrow_mut().iter_mut().flatten() {
            if let Place::Deflated(inflater) = place {
                inflater.rest();
            }
        }
    }

    /// Takes the file, which was opened again.
    pub fn reopen(&mut self, source: &Source) {
        self.source.get_or_insert_with(|| Arc::clone(source));
    }

    /// Whether it can be read.
    pub fn is_open(&self) -> bool {
        self.source.is_some()
    }

    /// Bytes that may be worked on from now.
    pub fn set_fuel(&self, fuel: u64) {
        self.fuel.set(fuel);
    }

    /// Bytes that are left of them.
    pub fn fuel(&self) -> u64 {
        self.fuel.get()
    }

    /// Counts work.
    ///
    /// # Errors
    /// There was too much of it.
    pub fn charge(&self, work: u64) -> Result<()> {
        match self.fuel.get().checked_sub(work) {
            Some(left) => {
                self.fuel.set(left);
                Ok(())
            }
            None => {
                self.fuel.set(0);
                Err(Error::Io)
            }
        }
    }

    /// Heap memory, in bytes.
    pub fn memory(&self) -> usize {
        let places = self.places.borrow();
        let inflaters = places.iter().flatten().map(|place| match place {
            Place::Plain { .. } => 0,
            Place::Deflated(inflater) => inflater.memory(),
        });
        inflaters.sum::<usize>() + self.pages.borrow().len() * PAGE
    }

    /// Size of a section, 0 if it is not there.
    pub fn size(&self, section: Section) -> u64 {
        self.places.borrow().get(section as usize).and_then(Option::as_ref).map_or(0, Place::size)
    }

    /// A section from an offset on.
    ///
    /// # Errors
    /// It ends before.
    pub fn at(&self, section: Section, offset: u64) -> Result<Bytes<'_>> {
        let end = self.size(section);
        if offset > end {
            return Err(Error::UnexpectedEof(ReaderOffsetId(offset)));
        }
        Ok(Bytes { store: self, section, page: Arc::default(), page_start: 0, at: offset, end })
    }

    /// The string at an offset of a section of strings, cut to `limit`.
    ///
    /// # Errors
    /// There is none, or it has no end.
    pub fn string(&self, section: Section, offset: u64, limit: usize) -> Result<String> {
        self.at(section, offset)?.string(limit)
    }

    /// The abbreviations of a unit.
    ///
    /// # Errors
    /// They are damaged, or too many.
    pub fn abbreviations(&self, offset: u64) -> Result<Arc<Abbreviations>> {
        let mut tables = self.tables.borrow_mut();
        if let Some(index) = tables.iter().position(|table| table.offset == offset) {
            let table = tables.remove(index);
            let abbreviations = Arc::clone(&table.abbreviations);
            tables.push(table);
            return Ok(abbreviations);
        }
        let mut bytes = self.at(Section::Abbrev, offset)?;
        bytes.truncate(bytes.len().min(MAX_ABBREVIATIONS))?;
        let before = self.fuel.get();
        let abbreviations = Arc::new(DebugAbbrev::from(bytes).abbreviations(DebugAbbrevOffset(0))?);
        let size = before.saturating_sub(self.fuel.get());
        tables.push(Table { offset, size, abbreviations: Arc::clone(&abbreviations) });
        while tables.len() > 1 && tables.iter().map(|table| table.size).sum::<u64>() > KEPT_ABBREVIATIONS {
            tables.remove(0);
        }
        Ok(abbreviations)
    }

    fn page(&self, section: Section, start: u64) -> Result<Arc<[u8]>> {
        let clock = self.clock.get() + 1;
        self.clock.set(clock);
        let mut pages = self.pages.borrow_mut();
        if let Some(page) = pages.iter_mut().find(|page| page.start == start && page.section == section) {
            page.used = clock;
            return Ok(Arc::clone(&page.bytes));
        }
        self.charge(PAGE_WORK)?;
        let source = self.source.as_deref().ok_or(Error::Io)?;
        let mut places = self.places.borrow_mut();
        let place = places.get_mut(section as usize).and_then(Option::as_mut).ok_or(Error::Io)?;
        let size = place.size().saturating_sub(start).min(PAGE as u64) as usize;
        // One that nobody else holds is used again.
        let oldest = pages.iter().enumerate().min_by_key(|(_, page)| page.used).map(|(index, _)| index);
        let mut bytes = match oldest.filter(|_| pages.len() >= MAX_PAGES) {
            Some(index) => pages.swap_remove(index).bytes,
            None => Arc::from([0; PAGE]),
        };
        if bytes.len() != size || Arc::get_mut(&mut bytes).is_none() {
            bytes = std::iter::repeat_n(0, size).collect();
        }
        let buffer = Arc::get_mut(&mut bytes).ok_or(Error::Io)?;
        match place {
            Place::Plain { offset, .. } => {
                read_exact_at(source, offset.saturating_add(start), buffer, "debug information")
                    .map_err(|_| Error::Io)?;
            }
            Place::Deflated(inflater) => {
                let work = inflater.read(source, start, buffer, self.fuel.get()).ok_or(Error::Io);
                // What was in vain has taken its time too.
                self.charge(work.unwrap_or(u64::MAX))?;
            }
        }
        pages.push(Page { section, start, bytes: Arc::clone(&bytes), used: clock });
        Ok(bytes)
    }
}

/// A part of a section, from where it is read next to its end.
#[derive(Clone)]
pub(super) struct Bytes<'s> {
    store: &'s Store,
    section: Section,
    /// The page that was read last, and where it begins.
    page: Arc<[u8]>,
    page_start: u64,
    at: u64,
    end: u64,
}

impl fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:#x}..{:#x}", self.section, self.at, self.end)
    }
}

impl Bytes<'_> {
    /// Where it is read next, in the section.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The string that begins here, cut to `limit`; it is read past.
    ///
    /// # Errors
    /// It has no end.
    pub fn string(&mut self, limit: usize) -> Result<String> {
        let whole = self.read_null_terminated_slice()?;
        let mut bytes = vec![0; whole.end.saturating_sub(whole.at).min(limit as u64) as usize];
        whole.clone().read_slice(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What is left of the page, from here on; not empty but at the end.
    fn rest_of_page(&mut self) -> Result<&[u8]> {
        let left = self.end.saturating_sub(self.at);
        let inside = |page: &[u8], start: u64, at: u64| {
            at.checked_sub(start)
                .and_then(|skip| usize::try_from(skip).ok())
                .filter(|skip| *skip < page.len())
        };
        if inside(&self.page, self.page_start, self.at).is_none() {
            if left == 0 {
                return Ok(&[]);
            }
            let start = self.at - self.at % PAGE as u64;
            self.page = self.store.page(self.section, start)?;
            self.page_start = start;
        }
        let skip = inside(&self.page, self.page_start, self.at).ok_or(Error::Io)?;
        let rest = self.page.get(skip..).unwrap_or_default();
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        Ok(rest.get(..count).unwrap_or_default())
    }

    fn check(&self, length: u64) -> Result<()> {
        if length > self.end.saturating_sub(self.at) {
            return Err(Error::UnexpectedEof(ReaderOffsetId(self.at)));
        }
        Ok(())
    }
}

impl Reader for Bytes<'_> {
    type Endian = RunTimeEndian;
    type Offset = u64;

    fn endian(&self) -> RunTimeEndian {
        self.store.endian
    }

    fn len(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }

    fn empty(&mut self) {
        self.end = self.at;
    }

    fn truncate(&mut self, length: u64) -> Result<()> {
        self.check(length)?;
        self.end = self.at + length;
        Ok(())
    }

    fn offset_from(&self, base: &Self) -> u64 {
        self.at.saturating_sub(base.at)
    }

    fn offset_id(&self) -> ReaderOffsetId {
        ReaderOffsetId(self.at)
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<u64> {
        id.0.checked_sub(self.at).filter(|offset| *offset <= self.end.saturating_sub(self.at))
    }

    fn find(&self, byte: u8) -> Result<u64> {
        let mut ahead = self.clone();
        loop {
            let distance = ahead.at - self.at;
            let part = ahead.rest_of_page()?;
            if part.is_empty() || distance > MAX_STRING {
                return Err(Error::UnexpectedEof(ReaderOffsetId(self.at)));
            }
            let (length, found) = (part.len() as u64, part.iter().position(|other| *other == byte));
            self.store.charge(found.map_or(length, |index| index as u64))?;
            match found {
                Some(index) => return Ok(distance + index as u64),
                None => ahead.at += length,
            }
        }
    }

    fn skip(&mut self, length: u64) -> Result<()> {
        self.check(length)?;
        self.at += length;
        Ok(())
    }

    fn split(&mut self, length: u64) -> Result<Self> {
        self.check(length)?;
        let mut first = self.clone();
        first.end = self.at + length;
        self.at += length;
        Ok(first)
    }

    fn to_slice(&self) -> Result<Cow<'_, [u8]>> {
        let length = self.len().min(MAX_STRING) as usize;
        let mut bytes = vec![0; length];
        self.clone().read_slice(&mut bytes)?;
        Ok(Cow::Owned(bytes))
    }

    fn to_string(&self) -> Result<Cow<'_, str>> {
        self.to_string_lossy()
    }

    fn to_string_lossy(&self) -> Result<Cow<'_, str>> {
        let bytes = self.to_slice()?;
        Ok(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn read_slice(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.check(buffer.len() as u64)?;
        self.store.charge(buffer.len() as u64)?;
        let mut rest = buffer;
        while !rest.is_empty() {
            let part = self.rest_of_page()?;
            let count = part.len().min(rest.len());
            if count == 0 {
                return Err(Error::Io);
            }
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(part.get(..count).unwrap_or_default());
            rest = later;
            self.at += count as u64;
        }
        Ok(())
    }

    fn read_u8(&mut self) -> Result<u8> {
        // Most of what is read: one byte of a page that is there.
        let byte =
            self.rest_of_page()?.first().copied().ok_or(Error::UnexpectedEof(ReaderOffsetId(self.at)))?;
        self.store.charge(1)?;
        self.at += 1;
        Ok(byte)
    }
}
