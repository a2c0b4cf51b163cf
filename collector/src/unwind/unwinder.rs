//! What a walk needs of the files of processes: pages of rules, made when a walk has missed them.

use std::ops::Range;

use bpf_programs::events::unwind::{MAX_FRAMES, Mapping, MissedWalk, Page, page_kind};
use bpf_sys::clock::Clock;

use super::entry::PAGE;
use super::file::File;
use super::later::Later;
use super::rule::{Row, Rule};
use super::tables::{Placed, Tables};
use super::walk::{Code, End, Machine, Slice, Stack, Walk};
use crate::cpu_budget::CpuBudget;
use crate::sorted::SortedMap;
use crate::symbolize::read_at::ReadAt;
use crate::symbolize::sideband::Record;
use crate::symbolize::{self, FileNo, HostSymbolizer};

/// Files whose headers are kept. What comes then is read again.
const MAX_FILES: usize = 128;
/// CPU time a second for pages: those of compilers' output take less than a millisecond each, files that are made to a quarter of a second.
const NANOS_A_SECOND: u32 = 300_000_000;
/// At once, as in the beginning, where a slow machine meets all of a program's code.
const MOST_NANOS: u32 = 1_000_000_000;

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

/// Finishes walks, and fills the tables so that others need not be.
#[derive(Debug)]
pub(crate) struct Unwinder {
    machine: Machine,
    tables: Tables,
    /// `None`: it is no ELF file, or a broken one.
    files: SortedMap<FileNo, Option<File>>,
    finished: Finished,
    /// Of CPU time for pages.
    budget: CpuBudget,
    /// Until when it is known what processes map.
    known_until: u64,
}

impl Unwinder {
    pub fn new(machine: Machine, tables: Tables) -> Self {
        Self {
            machine,
            tables,
            files: SortedMap::new(),
            finished: Finished::default(),
            budget: CpuBudget::new(NANOS_A_SECOND, MOST_NANOS),
            known_until: u64::MAX,
        }
    }

    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    pub fn finished(&self) -> Finished {
        self.finished
    }

    /// It is known what processes map up to that time; where nothing was, something may be later.
    pub fn know_until(&mut self, time: u64) {
        self.known_until = time;
    }

    /// What a process has mapped may be something else now.
    pub fn forget_process(&mut self, tgid: u32) {
        self.tables.forget_process(tgid);
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

    /// The whole stack of a walk, as far as it can be walked: leaf first.
    pub fn finish(&mut self, symbolizer: &mut HostSymbolizer, missed: &MissedWalk<'_>) -> Vec<u64> {
        let mut frames = words(missed.frames);
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
        let mut run = |walk: &mut Walk,
                       symbolizer: &mut HostSymbolizer,
                       word: &mut Stack<'_>,
                       frames: &mut Vec<u64>| {
            walk.run(machine, word, frames, MAX_FRAMES, |address| self.code(symbolizer, tgid, time, address))
        };
        // Where a frame's return address and its saved frame pointer were.
        let mut read = [None; 2];
        let mut word = |address| stack.word(address).inspect(|word| read = [read[1], Some((address, *word))]);
        let mut end = run(&mut walk, symbolizer, &mut word, &mut frames);
        let is_return = |&(_, word): &(u64, u64)| machine.stripped(word) == walk.pc;
        let last = read.into_iter().flatten().find(is_return);
        let memory = || symbolizer.is_same_program(tgid, time).then(|| symbolizer.memory_of(tgid))?;
        let later =
            (end == End::Slice).then(memory).flatten().and_then(|memory| Later::new(memory, stack, last));
        if let Some(mut later) = later {
            // Where it leads nowhere, it has filled the tables at least.
            let mut all = frames.clone();
            // It goes on from the last frame.
            all.pop();
            let end_later = run(&mut walk, symbolizer, &mut |address| later.word(address), &mut all);
            if matches!(end_later, End::Whole | End::Depth) && later.is_unchanged() {
                (end, frames) = (end_later, all);
                self.finished.later += 1;
            }
        }
        self.finished.count(end);
        let python = words(missed.python);
        frames.truncate(MAX_FRAMES - python.len().min(MAX_FRAMES));
        frames.extend(python);
        frames.extend(words(missed.span));
        frames
    }

    /// Makes what a walk misses, which has been counted as it is.
    pub fn fill(&mut self, symbolizer: &mut HostSymbolizer, missed: &MissedWalk<'_>) {
        let finished = self.finished;
        self.finish(symbolizer, missed);
        self.finished = finished;
    }

    /// Makes pages of code of a process that walks may miss else, as long as they are in CPU time and leave half of the tables.
    pub fn make_ahead(
        &mut self,
        symbolizer: &mut HostSymbolizer,
        tgid: u32,
        code: Range<u64>,
        end_nanos: u64,
    ) {
        let time = Clock::Monotonic.nanos();
        for page in (code.start & !(PAGE - 1)..code.end).step_by(PAGE as usize) {
            if Clock::ThreadCpu.nanos() >= end_nanos || self.tables.is_half_full() {
                break;
            }
            self.code(symbolizer, tgid, time, page);
        }
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
                if time <= self.known_until {
                    tell(tables, own, None, page_kind::NOT_MAPPED);
                }
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
        if self.budget.is_spent() {
            // It is looked for again. Nothing is known of it: where there is no frame pointer, the stack is not whole.
            return Code::Rule(Rule::default());
        }
        let start = Clock::ThreadCpu.nanos();
        let rows = self.rows(file, source, page);
        self.budget.spend_since(start);
        let Some(rows) = rows else {
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
        let known = self.files.entry(file).or_insert_with(|| File::read(source));
        known.as_mut()?.rows(source, page)
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let words = bytes.chunks_exact(size_of::<u64>());
    words.filter_map(|word| Some(u64::from_ne_bytes(*word.first_chunk()?))).collect()
}

/// The rule that holds for a byte of a page.
pub(super) fn rule_at(rows: &[Row], offset: u16) -> Rule {
    let after = rows.partition_point(|row| row.start <= offset);
    after.checked_sub(1).and_then(|last| rows.get(last)).map_or(Rule::default(), |row| row.rule)
}

#[cfg(test)]
mod tests {
    use super::super::tables::Sizes;
    use super::super::tables::tests::tables;
    use super::*;
    use crate::symbolize::Host;

    #[test]
    fn where_nothing_was_mapped_when_it_was_looked_at_may_be_code_later() {
        let Some(tables) = tables(Sizes::of(0)) else { return };
        let mut unwinder = Unwinder::new(Machine::X86_64, tables);
        let mut symbolizer = HostSymbolizer::new(Host::default());
        // Below what processes may map.
        let (pid, address) = (std::process::id(), 0x1000);
        let now = Clock::Monotonic.nanos();
        for (known_until, is_told) in [(now - 1, false), (now, true)] {
            unwinder.know_until(known_until);
            assert!(matches!(unwinder.code(&mut symbolizer, pid, now, address), Code::NotMapped));
            assert_eq!(unwinder.tables.is_told(Page::key(pid, address).unwrap()), is_told);
        }
    }
}
