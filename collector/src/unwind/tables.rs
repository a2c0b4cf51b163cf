//! The tables of rules that `unwind.h` walks by, as they are in the kernel: rows of the pages that were executed.
//!
//! Rows are shared by all processes that map a file. They lie one behind another in segments: when one is full, the next is begun, and the one
//! behind that is emptied, oldest rows first, so that no walk still reads what is written.

use bpf_programs::events::unwind::{ADDRESS_BITS, Page, page_kind};
use bpf_sys::shared::SharedMapping;
use bpf_sys::{MapFd, map};

use super::rule::{Cfa, Row, Rule};
use crate::error::{Error, Result};
use crate::sorted::SortedMap;
use crate::symbolize::FileNo;

/// Bytes of a row: the byte of the page from which on it holds above 20 bits with the number of its rule.
const ROW: usize = 4;
const RULE_BITS: u32 = 20;
/// Code that is aligned has this many bytes between functions at most, which nobody executes.
pub(crate) const PADDING: u16 = 16;
/// Into how many parts the rows are cut. Of the smallest tables, a part still holds any page.
const SEGMENTS: u32 = 4;

/// How large the tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Entries of the table of pages.
    pub pages: u32,
    /// Rows: a power of two.
    pub rows: u32,
    /// Rules: a power of two.
    pub rules: u32,
}

impl Sizes {
    /// Those that take about this many bytes, of which rows take most: at most 2 MiB, at least 128 KiB.
    pub fn of(memory: usize) -> Self {
        let rows = (memory / 2 / ROW).clamp(32 << 10, 512 << 10);
        let rows = if rows.is_power_of_two() { rows } else { rows.next_power_of_two() / 2 } as u32;
        // A page has some forty rows, which processes share.
        Self { pages: rows / 32, rows, rules: (rows / 32).clamp(4096, 1 << RULE_BITS) }
    }

    /// Bytes of all rows.
    pub fn rows_bytes(self) -> u32 {
        self.rows * ROW as u32
    }

    /// Bytes of all rules.
    pub fn rules_bytes(self) -> u32 {
        self.rules * size_of::<Rule>() as u32
    }
}

/// A page of a file, by its address there.
type FilePage = (FileNo, u64);

/// Where the rows of a page of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    first: u32,
    rows: u16,
}

/// The tables. What they do not have is missed, and added then.
#[derive(Debug)]
pub struct Tables {
    pages: MapFd,
    rows: SharedMapping,
    rules: SharedMapping,
    sizes: Sizes,
    /// Rules by their numbers, and back.
    numbered: Vec<Rule>,
    numbers: SortedMap<Rule, u32>,
    placed: SortedMap<FilePage, Placed>,
    /// What is in `pages`, and the segment that it goes with.
    entries: SortedMap<u64, u32>,
    /// The segment that is being filled, and the number of the next row.
    segment: u32,
    next: u32,
    evicted: u64,
}

impl Tables {
    /// Empty ones, over maps of these sizes.
    ///
    /// # Errors
    ///
    /// A map cannot be mapped.
    pub fn new(pages: MapFd, rows: &MapFd, rules: &MapFd, sizes: Sizes) -> Result<Self> {
        let shared = |map| SharedMapping::array(map, true).map_err(Error::kernel);
        let mut tables = Self {
            pages,
            rows: shared(rows)?,
            rules: shared(rules)?,
            sizes,
            numbered: Vec::new(),
            numbers: SortedMap::new(),
            placed: SortedMap::new(),
            entries: SortedMap::new(),
            segment: 0,
            next: 0,
            evicted: 0,
        };
        tables.number(Rule::default());
        Ok(tables)
    }

    /// Pages that were dropped for others.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Pages of processes.
    pub fn pages(&self) -> usize {
        self.entries.len()
    }

    /// The rows of a page of a file, if they are there.
    pub fn placed(&self, page: FilePage) -> Option<Placed> {
        self.placed.get(&page).copied()
    }

    /// The rule for a byte of a page.
    pub fn rule(&self, placed: Placed, offset: u16) -> Rule {
        let row = |n: u16| {
            let at = ((placed.first + u32::from(n)) & (self.sizes.rows - 1)) as usize * ROW;
            self.rows.load_acquire_u32(at).unwrap_or_default()
        };
        let (mut low, mut high) = (0, placed.rows);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if (row(middle) >> RULE_BITS) <= u32::from(offset) { low = middle } else { high = middle }
        }
        let number = row(low) & ((1 << RULE_BITS) - 1);
        self.numbered.get(number as usize).copied().unwrap_or_default()
    }

    /// Writes down the rows of a page of a file. `None`: there are more of them than there is room for.
    pub fn place(&mut self, page: FilePage, rows: &[Row]) -> Option<Placed> {
        let kept = without_padding(rows);
        if self.numbered.len() + kept.len() > self.sizes.rules as usize {
            self.begin_anew();
        }
        let count = u16::try_from(kept.len()).ok()?;
        let first = self.room(count.into())?;
        for (n, row) in kept.iter().enumerate() {
            let number = self.number(row.rule);
            let word = u32::from(row.start) << RULE_BITS | number;
            self.rows.copy_in((first as usize + n) * ROW, &word.to_ne_bytes());
        }
        let placed = Placed { first, rows: count };
        self.placed.insert(page, placed);
        Some(placed)
    }

    /// Tells the program what is at an address of a process.
    pub fn set(&mut self, tgid: u32, address: u64, placed: Option<Placed>, kind: u8) {
        let Some(key) = Page::key(tgid, address) else { return };
        let page = Page {
            first: placed.map_or(0, |placed| placed.first),
            rows: placed.map_or(0, |placed| placed.rows),
            kind: if placed.is_some() { page_kind::ROWS } else { kind },
        };
        let segment = placed.map_or(self.segment, |placed| placed.first / self.segment_rows());
        if self.entries.len() >= self.sizes.pages as usize && !self.entries.contains_key(&key) {
            self.begin_segment();
        }
        // Where there is no room still, it is missed again.
        if map::update(&self.pages, &key.to_ne_bytes(), &page.encode(), 0).is_ok() {
            self.entries.insert(key, segment);
        }
    }

    /// Forgets what a process has in a range of addresses.
    pub fn forget(&mut self, tgid: u32, start: u64, end: u64) {
        let first = Page::key(tgid, start);
        let last = Page::key(tgid, end.saturating_sub(1).min((1 << ADDRESS_BITS) - 1));
        if let (Some(first), Some(last)) = (first, last) {
            // Most processes that come and go have none.
            if self.entries.last_up_to(&last).is_none_or(|(key, _)| *key < first) {
                return;
            }
            self.drop_entries(|key, _| (first..=last).contains(&key));
        }
    }

    /// Forgets a process.
    pub fn forget_process(&mut self, tgid: u32) {
        self.forget(tgid, 0, 1 << ADDRESS_BITS);
    }

    /// Forgets all processes; the rows of files stay.
    pub fn forget_processes(&mut self) {
        self.drop_entries(|_, _| true);
    }

    fn drop_entries(&mut self, mut which: impl FnMut(u64, u32) -> bool) {
        let pages = &self.pages;
        self.entries.retain(|key, segment| {
            let dropped = which(*key, *segment);
            if dropped {
                // It may be gone for want of memory in the kernel; it is gone then.
                let _ = map::delete(pages, &key.to_ne_bytes());
            }
            !dropped
        });
    }

    fn segment_rows(&self) -> u32 {
        self.sizes.rows / SEGMENTS
    }

    /// Where so many rows fit.
    fn room(&mut self, rows: u32) -> Option<u32> {
        let size = self.segment_rows();
        if rows > size {
            return None;
        }
        if self.next + rows > (self.segment + 1) * size {
            self.begin_segment();
        }
        let first = self.next;
        self.next += rows;
        Some(first)
    }

    /// Forgets everything, the rules too: there are too many. What is still executed comes back.
    fn begin_anew(&mut self) {
        self.evicted += self.entries.len() as u64;
        self.forget_processes();
        self.placed.clear();
        self.numbers.clear();
        self.numbered.clear();
        self.number(Rule::default());
    }

    /// Goes on in the next segment, and empties the one behind it.
    fn begin_segment(&mut self) {
        let size = self.segment_rows();
        let (next, emptied) = ((self.segment + 1) % SEGMENTS, (self.segment + 2) % SEGMENTS);
        (self.segment, self.next) = (next, next * size);
        let before = self.entries.len();
        self.drop_entries(|_, segment| segment == emptied || segment == next);
        self.evicted += (before - self.entries.len()) as u64;
        self.placed.retain(|_, placed| ![emptied, next].contains(&(placed.first / size)));
    }

    /// The number of a rule, which is given one.
    fn number(&mut self, rule: Rule) -> u32 {
        if let Some(&number) = self.numbers.get(&rule) {
            return number;
        }
        let number = self.numbered.len() as u32;
        if number >= self.sizes.rules {
            // Number 0: nothing is known.
            return 0;
        }
        self.rules.copy_in(number as usize * size_of::<Rule>(), &rule.encode());
        self.numbered.push(rule);
        self.numbers.insert(rule, number);
        number
    }
}

/// Without rows that say of the bytes between functions that nothing is known of them.
fn without_padding(rows: &[Row]) -> Vec<Row> {
    let mut kept: Vec<Row> = Vec::with_capacity(rows.len());
    for (row, next) in rows.iter().zip(rows.iter().skip(1).map(Some).chain([None])) {
        let is_padding = row.rule.cfa == Cfa::Unknown
            && row.start > 0
            && next.is_some_and(|next| next.start.saturating_sub(row.start) < PADDING);
        let is_same = kept.last().is_some_and(|last| last.rule == row.rule);
        if !is_padding && !is_same {
            kept.push(*row);
        }
    }
    kept
}
