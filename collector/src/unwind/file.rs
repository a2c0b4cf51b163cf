//! What rules are made of: a file's descriptions, and where it has none, its instructions.

use super::entry::PAGE;
use super::frames::Frames;
use super::rule::{Cfa, Row, Rule};
use super::tables::PADDING;
use super::{analyze, analyze_arm64};
use crate::sorted::SortedSet;
use crate::symbolize::elf::Elf;
use crate::symbolize::elf::symbols::SymbolTable;
use crate::symbolize::read_at::{ReadAt, read_vec};

/// Beginnings of functions that are kept of a file, 4 bytes each: of one with more, symbols are looked through for each page.
const MAX_FUNCTIONS: usize = 32 << 10;
/// Bytes before a page in which the function may begin that goes on there.
const MAX_BEFORE: u64 = 32 << 10;

/// A file, as far as rules are made of it.
#[derive(Debug)]
pub(super) struct File {
    elf: Elf,
    /// `None`: it has no descriptions.
    frames: Option<Frames>,
    /// Those for debuggers, once code without descriptions was met.
    debug_frames: Option<Option<Frames>>,
    /// Where functions begin, in order, once code without descriptions was met. `None` in it: they are too many.
    functions: Option<Option<Box<[u32]>>>,
    /// All its code has them: Go's, which has no descriptions.
    has_frame_pointers: bool,
}

impl File {
    /// `None`: it is no ELF file, or a broken one.
    pub fn read(source: &dyn ReadAt) -> Option<Self> {
        let elf = Elf::read(source).ok()?;
        let frames = Frames::read(source, &elf).ok()?;
        let has_frame_pointers = elf.has_section(b".gopclntab");
        Some(Self { elf, frames, debug_frames: None, functions: None, has_frame_pointers })
    }

    /// Rules of a page, in order, the first of its beginning. `None`: it is code with frame pointers.
    pub fn rows(&mut self, source: &dyn ReadAt, page: u64) -> Option<Vec<Row>> {
        let frames = self.frames.as_ref();
        let rows = frames.and_then(|frames| frames.rows(source, &self.elf, page).ok());
        let mut rows = rows.unwrap_or_else(|| vec![Row { start: 0, rule: Rule::default() }]);
        if has_gaps(&rows) && !self.has_frame_pointers {
            let read = || Frames::read_debug(source, &self.elf).ok().flatten();
            let frames = self.debug_frames.get_or_insert_with(read).as_ref();
            let found = frames.and_then(|frames| frames.rows(source, &self.elf, page).ok());
            let rules: Vec<_> =
                found.iter().flatten().map(|row| (page.saturating_add(row.start.into()), row.rule)).collect();
            fill(&mut rows, page, &rules);
        }
        if has_gaps(&rows) {
            let analyzed = match self.elf.machine() {
                _ if !self.elf.is_64() || self.has_frame_pointers => Vec::new(),
                object::elf::EM_X86_64 | object::elf::EM_AARCH64 => self.analyze(source, page),
                _ => Vec::new(),
            };
            fill(&mut rows, page, &analyzed);
        }
        let is_unknown = rows.iter().all(|row| row.rule.cfa == Cfa::Unknown);
        (!is_unknown || !self.has_frame_pointers).then_some(rows)
    }

    /// What the page's instructions tell, from the last function on that is known to begin before it.
    fn analyze(&mut self, source: &dyn ReadAt, page: u64) -> Vec<(u64, Rule)> {
        let elf = &self.elf;
        let functions = self.functions.get_or_insert_with(|| {
            let found =
                function_starts(elf, source).into_iter().filter_map(|start| u32::try_from(start).ok());
            let mut found: Vec<u32> = found.collect();
            found.sort_unstable();
            found.dedup();
            (found.len() <= MAX_FUNCTIONS).then(|| found.into())
        });
        let end = page.saturating_add(PAGE);
        let from = page.saturating_sub(MAX_BEFORE);
        // A library has none.
        let entry = Some(elf.entry()).filter(|entry| *entry != 0);
        let starts: SortedSet<u64> = match functions {
            Some(functions) => {
                let first = functions.partition_point(|start| u64::from(*start) < from);
                let starts = functions.iter().skip(first).map(|start| u64::from(*start));
                starts.take_while(|start| *start < end).chain(entry).collect()
            }
            None => {
                let found = elf.function_starts(source, from..end).ok().flatten().unwrap_or_default();
                found.into_iter().chain(entry).collect()
            }
        };
        let start = starts.iter().rev().find(|start| **start <= page).copied().filter(|start| *start >= from);
        // In the middle of a function, nothing can be told of its frame: it begins with the first function of the page then.
        let start = start.or_else(|| starts.iter().find(|start| (page..end).contains(*start)).copied());
        let is_arm64 = elf.machine() == object::elf::EM_AARCH64;
        let entry = elf.entry();
        let Some(start) = start else {
            // What nobody calls is known by its instructions alone.
            let code = if is_arm64 { self.code(source, page, end) } else { Vec::new() };
            return analyze_arm64::uncalled(&code, page, entry);
        };
        let code = self.code(source, start, end);
        if is_arm64 {
            analyze_arm64::rules(&code, start, &starts, entry)
        } else {
            analyze::rules(&code, start, &starts, entry)
        }
    }

    /// Bytes of a range of addresses, as far as they are in the file and can be read.
    fn code(&self, source: &dyn ReadAt, start: u64, end: u64) -> Vec<u8> {
        let Some((offset, left)) = self.elf.offset_of(start) else { return Vec::new() };
        let size = end.saturating_sub(start).min(left);
        read_vec(source, offset, size, (MAX_BEFORE + PAGE) as usize, "code").unwrap_or_default()
    }
}

/// Where all functions of a file begin, in no order.
fn function_starts(elf: &Elf, source: &dyn ReadAt) -> Vec<u64> {
    elf.function_starts(source, 0..u64::MAX).ok().flatten().unwrap_or_else(|| {
        let table = SymbolTable::read(elf, source).unwrap_or_default();
        table.starts(0..u64::MAX).collect()
    })
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
