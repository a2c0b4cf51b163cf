//! What a walk needs of the files of processes: pages of rules, made when a walk has missed them.

use bpf_programs::events::unwind::{BELOW, MAX_FRAMES, MissedSample, page_kind};

use super::entry::PAGE;
use super::frames::Frames;
use super::rule::{Cfa, Row, Rule};
use super::tables::{Placed, Tables};
use super::walk::{Code, End, Machine, Slice, Walk};
use crate::sorted::SortedMap;
use crate::symbolize::elf::Elf;
use crate::symbolize::read_at::ReadAt;
use crate::symbolize::sideband::Record;
use crate::symbolize::{self, FileNo, HostSymbolizer};

/// Files whose headers are kept. What comes then is read again.
const MAX_FILES: usize = 512;

/// How walks in user space ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Finished {
    pub whole: u64,
    pub no_table: u64,
    pub bad_cfa: u64,
    pub depth: u64,
    pub not_mapped: u64,
    pub slice: u64,
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

/// Headers of a file with descriptions of frames.
#[derive(Debug)]
struct File {
    elf: Elf,
    frames: Frames,
}

/// Finishes walks, and fills the tables so that others need not be.
#[derive(Debug)]
pub(crate) struct Unwinder {
    machine: Machine,
    tables: Tables,
    /// `None`: it has no descriptions, or broken ones.
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
        let stack = Slice { start: at.sp.wrapping_sub(BELOW as u64), bytes: missed.slice };
        let machine = self.machine;
        let end = walk
            .run(machine, stack, &mut frames, MAX_FRAMES, |address| self.code(symbolizer, at.tgid, address));
        self.finished.count(end);
        frames
    }

    /// What is known of an address. The program knows it from now on, too.
    fn code(&mut self, symbolizer: &mut HostSymbolizer, tgid: u32, address: u64) -> Code {
        let (file, in_file, source) = match symbolizer.code(tgid, address) {
            symbolize::Code::NotMapped => {
                self.tables.set(tgid, address, None, page_kind::NOT_MAPPED);
                return Code::NotMapped;
            }
            symbolize::Code::Elsewhere => {
                self.tables.set(tgid, address, None, page_kind::FRAME_POINTERS);
                return Code::FramePointers;
            }
            symbolize::Code::InFile { file, address, source } => (file, address, source),
        };
        let (page, offset) = (in_file & !(PAGE - 1), (in_file & (PAGE - 1)) as u16);
        if let Some(placed) = self.tables.placed((file, page)) {
            self.tables.set(tgid, address, Some(placed), page_kind::ROWS);
            return Code::Rule(self.tables.rule(placed, offset));
        }
        let rows = self.rows(file, source, page);
        if rows.iter().all(|row| row.rule.cfa == Cfa::Unknown) {
            self.tables.set(tgid, address, None, page_kind::FRAME_POINTERS);
            return Code::FramePointers;
        }
        let placed: Option<Placed> = self.tables.place((file, page), &rows);
        if placed.is_some() {
            self.tables.set(tgid, address, placed, page_kind::ROWS);
        }
        Code::Rule(rule_at(&rows, offset))
    }

    fn rows(&mut self, file: FileNo, source: &dyn ReadAt, page: u64) -> Vec<Row> {
        if self.files.len() >= MAX_FILES && !self.files.contains_key(&file) {
            self.files.clear();
        }
        let read = || {
            let elf = Elf::read(source).ok()?;
            let frames = Frames::read(source, &elf).ok()??;
            Some(File { elf, frames })
        };
        let Some(file) = self.files.entry(file).or_insert_with(read) else { return Vec::new() };
        file.frames.rows(source, &file.elf, page).unwrap_or_default()
    }
}

/// The rule that holds for a byte of a page.
fn rule_at(rows: &[Row], offset: u16) -> Rule {
    let after = rows.partition_point(|row| row.start <= offset);
    after.checked_sub(1).and_then(|last| rows.get(last)).map_or(Rule::default(), |row| row.rule)
}
