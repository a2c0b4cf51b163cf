//! What a walk needs of the files of processes: pages of rules, made when a walk has missed them.

use std::ops::Range;

use bpf_programs::events::unwind::{MAX_FRAMES, Mapping, MissedSample, Page, page_kind};

use super::analyze;
use super::entry::PAGE;
use super::frames::Frames;
use super::later::Later;
use super::rule::{Cfa, Row, Rule};
use super::tables::{PADDING, Placed, Tables};
use super::walk::{Code, End, Machine, Slice, Stack, Walk};
use crate::sorted::{SortedMap, SortedSet};
use crate::symbolize::elf::Elf;
use crate::symbolize::elf::symbols::SymbolTable;
use crate::symbolize::read_at::{ReadAt, read_vec};
use crate::symbolize::sideband::Record;
use crate::symbolize::{self, FileNo, HostSymbolizer};

/// Files whose headers are kept. What comes then is read again.
const MAX_FILES: usize = 128;
/// Bytes of a table of functions that is kept: of larger files, code without descriptions is left to frame pointers.
const MAX_FUNCTIONS: usize = 128 << 10;
/// Bytes before a page in which the function may begin that goes on there.
const MAX_BEFORE: u64 = 32 << 10;

/// How walks in user space ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Finished {
    pub whole: u64,
    pub no_table: u64,
    pub bad_cfa: u64,
    pub depth: u64,
    pub not_mapped: u64,
    pub slice: u64,
    /// Of the whole ones, those that took what the stack had beyond the copy a little later.
    pub later: u64,
}

impl Finished {
    fn count(&mut self, end: End) {
        let counter = match end {
            End::Whole => &mut self.whole,
            End::NoTable => &mut self.no_table,
            End::BadCfa => &mut self.bad_cfa,
            End::Depth => &mut self.depth,
            End::NotMapped => &mut self.not_mapped,
            End::Slice => &mut self.slice,
        };
        *counter += 1;
    }
}

/// A file, as far as rules are made of it.
#[derive(Debug)]
struct File {
    elf: Elf,
    /// `None`: it has no descriptions.
    frames: Option<Frames>,
    /// Functions, once code without descriptions was met.
    functions: Option<SymbolTable>,
    /// All its code has them: Go's, which has no descriptions.
    has_frame_pointers: bool,
}

impl File {
    fn read(source: &dyn ReadAt) -> Option<Self> {
        let elf = Elf::read(source).ok()?;
        let frames = Frames::read(source, &elf).ok()?;
        let has_frame_pointers = elf.has_section(b".gopclntab");
        Some(Self { elf, frames, functions: None, has_frame_pointers })
    }

    /// Rules of a page, in order, the first of its beginning.
    fn rows(&mut self, source: &dyn ReadAt, page: u64) -> Vec<Row> {
        let frames = self.frames.as_ref();
        let rows = frames.and_then(|frames| frames.rows(source, &self.elf, page).ok());
        let mut rows = rows.unwrap_or_else(|| vec![Row { start: 0, rule: Rule::default() }]);
        if has_gaps(&rows) {
            let analyzed = match self.elf.machine() {
                _ if !self.elf.is_64() || self.has_frame_pointers => Vec::new(),
                object::elf::EM_X86_64 => self.analyze(source, page),
                object::elf::EM_AARCH64 => {
                    let code = self.code(source, page, page.saturating_add(PAGE));
                    analyze::rules_of_arm64(&code, page, self.elf.entry())
                }
                _ => Vec::new(),
            };
            fill(&mut rows, page, &analyzed);
        }
        rows
    }

    /// What the page's instructions tell, from the last function on that is known to begin before it.
    fn analyze(&mut self, source: &dyn ReadAt, page: u64) -> Vec<(u64, Rule)> {
        let elf = &self.elf;
        let functions = self.functions.get_or_insert_with(|| {
            let read = SymbolTable::read(elf, source).ok();
            read.filter(|table| table.memory() <= MAX_FUNCTIONS).unwrap_or_default()
        });
        let end = page.saturating_add(PAGE);
        let from = page.saturating_sub(MAX_BEFORE);
        let starts: SortedSet<u64> = functions.starts(from..end).chain([elf.entry()]).collect();
        let start = starts.iter().rev().find(|start| **start <= page).copied().filter(|start| *start >= from);
        // In the middle of a function, nothing can be told of its frame: it begins with the first function of the page then.
        let start = start.or_else(|| starts.iter().find(|start| (page..end).contains(*start)).copied());
        let Some(start) = start else { return Vec::new() };
        analyze::rules(&self.code(source, start, end), start, &starts, self.elf.entry())
    }

    /// Bytes of a range of addresses, as far as they are in the file and can be read.
    fn code(&self, source: &dyn ReadAt, start: u64, end: u64) -> Vec<u8> {
        let Some((offset, left)) = self.elf.offset_of(start) else { return Vec::new() };
        let size = end.saturating_sub(start).min(left);
        read_vec(source, offset, size, (MAX_BEFORE + PAGE) as usize, "code").unwrap_or_default()
    }
}

/// Whether there is code of which nothing is known.
fn has_gaps(rows: &[Row]) -> bool {
    let ends = rows.iter().skip(1).map(|row| row.start).chain([PAGE as u16]);
    rows.iter().zip(ends).any(|(row, end)| row.rule.cfa == Cfa::Unknown && end - row.start >= PADDING)
}

/// Puts rules where nothing is known.
fn fill(rows: &mut Vec<Row>, page: u64, rules: &[(u64, Rule)]) {
    let described = std::mem::take(rows);
    let ends = described.iter().skip(1).map(|row| row.start).chain([PAGE as u16]);
    // From the page's beginning on.
    let start_of = |rule: &(u64, Rule)| rule.0.saturating_sub(page);
    for (row, end) in described.iter().zip(ends) {
        rows.push(*row);
        if row.rule.cfa != Cfa::Unknown {
            continue;
        }
        let from = u64::from(row.start);
        let first = rules.partition_point(|rule| start_of(rule) <= from).saturating_sub(1);
        for rule in rules.iter().skip(first).take_while(|rule| start_of(rule) < end.into()) {
            let row = Row { start: start_of(rule).max(from) as u16, rule: rule.1 };
            match rows.last_mut() {
                Some(last) if last.start == row.start => *last = row,
                Some(last) if last.rule == row.rule => {}
                _ => rows.push(row),
            }
        }
    }
}

/// Finishes walks, and fills the tables so that others need not be.
#[derive(Debug)]
pub(crate) struct Unwinder {
    machine: Machine,
    tables: Tables,
    /// `None`: it is no ELF file, or a broken one.
    files: SortedMap<FileNo, Option<File>>,
    finished: Finished,
}

impl Unwinder {
    pub fn new(machine: Machine, tables: Tables) -> Self {
        Self { machine, tables, files: SortedMap::new(), finished: Finished::default() }
    }

    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    pub fn finished(&self) -> Finished {
        self.finished
    }

    /// What is mapped has changed.
    pub fn observe(&mut self, record: &Record<'_>) {
        match *record {
            Record::Mmap { pid, start, length, .. } => {
                self.tables.forget(pid, start, start.saturating_add(length));
            }
            Record::Comm { pid, exec: true, .. } => self.tables.forget_process(pid),
            // A number may be used again.
            Record::Fork { pid, parent_pid, .. } if pid != parent_pid => self.tables.forget_process(pid),
            Record::Exit { pid, tid, .. } if pid == tid => self.tables.forget_process(pid),
            Record::Lost { .. } => self.tables.forget_processes(),
            _ => {}
        }
    }

    /// The whole stack of a sample, as far as it can be walked: leaf first.
    pub fn finish(&mut self, symbolizer: &mut HostSymbolizer, missed: &MissedSample<'_>) -> Vec<u64> {
        let words = missed.frames.chunks_exact(size_of::<u64>());
        let mut frames: Vec<u64> =
            words.filter_map(|word| Some(u64::from_ne_bytes(*word.first_chunk()?))).collect();
        let at = missed.walk;
        let mut walk = Walk {
            pc: at.pc,
            sp: at.sp,
            fp: at.fp,
            link: (at.has_link != 0).then_some(at.link),
            exact: at.exact != 0,
        };
        let stack = Slice { start: missed.start(), bytes: missed.slice };
        let (machine, tgid, time) = (self.machine, at.tgid, missed.time);
        let mut run = |symbolizer: &mut HostSymbolizer, word: &mut Stack<'_>, frames: &mut Vec<u64>| {
            walk.run(machine, word, frames, MAX_FRAMES, |address| self.code(symbolizer, tgid, time, address))
        };
        let mut last = None;
        let mut word = |address| stack.word(address).inspect(|word| last = Some((address, *word)));
        let mut end = run(symbolizer, &mut word, &mut frames);
        let memory = || symbolizer.is_same_program(tgid, time).then(|| symbolizer.memory_of(tgid))?;
        let later =
            (end == End::Slice).then(memory).flatten().and_then(|memory| Later::new(memory, stack, last));
        if let Some(mut later) = later {
            // Where it leads nowhere, it has filled the tables at least.
            let mut all = frames.clone();
            // It goes on from the last frame.
            all.pop();
            let end_later = run(symbolizer, &mut |address| later.word(address), &mut all);
            if matches!(end_later, End::Whole | End::Depth) {
                (end, frames) = (end_later, all);
                self.finished.later += 1;
            }
        }
        self.finished.count(end);
        frames
    }

    /// What is known of an address of a process at some time. The program knows it from now on, too; what is the process' own, if that is still
    /// as it was then.
    fn code(&mut self, symbolizer: &mut HostSymbolizer, tgid: u32, time: u64, address: u64) -> Code {
        let is_now = symbolizer.is_same_program(tgid, time);
        let own = Page::key(tgid, address).filter(|_| is_now);
        let tables = &mut self.tables;
        let tell = |tables: &mut Tables, key: Option<u64>, placed: Option<Placed>, kind: u8| {
            if let Some(key) = key.filter(|key| !Page::is_in_file(*key) || !tables.is_told(*key)) {
                tables.tell(key, placed, kind);
            }
        };
        let (file, in_file, source, mapping) = match symbolizer.code(tgid, time, address) {
            symbolize::Code::NotMapped => {
                tell(tables, own, None, page_kind::NOT_MAPPED);
                return Code::NotMapped;
            }
            symbolize::Code::Elsewhere => {
                tell(tables, own, None, page_kind::FRAME_POINTERS);
                return Code::FramePointers;
            }
            symbolize::Code::InFile { file, address, source, mapping } => (file, address, source, mapping),
        };
        // A page of the file, where that is mapped in a way that the program understands.
        let mapping = mapping.and_then(|Range { start, end }| {
            let first = in_file.checked_sub(address.checked_sub(start)?)?;
            let is_aligned = first % PAGE == 0 && start % PAGE == 0;
            let key = Page::key_in_file(file.0, first).filter(|_| is_aligned)?;
            Some(Mapping { start, end, key })
        });
        let is_mapped = |mapping| is_now && tables.map_file(tgid, mapping);
        let key = if mapping.is_some_and(is_mapped) { Page::key_in_file(file.0, in_file) } else { own };
        let (page, offset) = (in_file & !(PAGE - 1), (in_file & (PAGE - 1)) as u16);
        if let Some(placed) = self.tables.placed((file, page)) {
            tell(&mut self.tables, key, Some(placed), page_kind::ROWS);
            return Code::Rule(self.tables.rule(placed, offset));
        }
        let Some(rows) = self.rows(file, source, page) else {
            tell(&mut self.tables, key, None, page_kind::FRAME_POINTERS);
            return Code::FramePointers;
        };
        if let Some(placed) = self.tables.place((file, page), &rows) {
            tell(&mut self.tables, key, Some(placed), page_kind::ROWS);
        }
        Code::Rule(rule_at(&rows, offset))
    }

    /// `None`: it is code with frame pointers.
    fn rows(&mut self, file: FileNo, source: &dyn ReadAt, page: u64) -> Option<Vec<Row>> {
        if self.files.len() >= MAX_FILES && !self.files.contains_key(&file) {
            self.files.clear();
        }
        let file = self.files.entry(file).or_insert_with(|| File::read(source)).as_mut()?;
        let rows = file.rows(source, page);
        let is_unknown = rows.iter().all(|row| row.rule.cfa == Cfa::Unknown);
        (!is_unknown || !file.has_frame_pointers).then_some(rows)
    }
}

/// The rule that holds for a byte of a page.
fn rule_at(rows: &[Row], offset: u16) -> Rule {
    let after = rows.partition_point(|row| row.start <= offset);
    after.checked_sub(1).and_then(|last| rows.get(last)).map_or(Rule::default(), |row| row.rule)
}
