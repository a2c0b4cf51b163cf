//! The tables of rules that `unwind.h` walks by, as they are in the kernel: rows of the pages that were executed.
//!
//! Pages of files and their rows are shared by all processes that map the file; of a process, it is kept which file is where. They lie one behind another in segments: when one is full, the next is begun, and the one
//! behind that is emptied, oldest rows first, so that no walk still reads what is written.

use std::collections::VecDeque;

use bpf_loader::load::Object;
use bpf_programs::events::unwind::{ADDRESS_BITS, Mapping, Page, page_kind};
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
    /// Processes whose mappings are kept.
    pub processes: u32,
}

impl Sizes {
    /// Those that take about this many bytes, of which rows take most: at most 2 MiB, at least 128 KiB.
    pub fn of(memory: usize) -> Self {
        let rows = (memory / 2 / ROW).clamp(32 << 10, 512 << 10);
        let rows = if rows.is_power_of_two() { rows } else { rows.next_power_of_two() / 2 } as u32;
        // A page has some forty rows, which processes share.
        Self {
            pages: rows / 32,
            rows,
            rules: (rows / 32).clamp(4096, 1 << RULE_BITS),
            processes: (rows / 1024).clamp(32, 512),
        }
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
    processes: MapFd,
    rows: SharedMapping,
    rules: SharedMapping,
    sizes: Sizes,
    /// Rules by their numbers, and back.
    numbered: Vec<Rule>,
    numbers: SortedMap<Rule, u32>,
    placed: SortedMap<FilePage, Placed>,
    /// What is in `pages`, and the segment that it goes with.
    entries: SortedMap<u64, u32>,
    /// What is in `processes`: mappings in order.
    mappings: SortedMap<u32, Vec<Mapping>>,
    /// These processes, the one that was met first in front.
    met: VecDeque<u32>,
    /// The segment that is being filled, and the number of the next row.
    segment: u32,
    next: u32,
    evicted: u64,
}

impl Tables {
    /// Empty ones, over those of an object that was just loaded, with maps of these sizes.
    ///
    /// # Errors
    ///
    /// It has no such maps, or one cannot be mapped.
    pub fn of(object: &Object, sizes: Sizes) -> Result<Self> {
        let map = |name: &str| object.map(name).map_err(Error::load);
        let own = |name: &str| map(name)?.fd.try_clone().map_err(Error::kernel);
        Self::new(own("pages")?, own("processes")?, &map("rows")?.fd, &map("rules")?.fd, sizes)
    }

    /// Empty ones, over maps of these sizes.
    ///
    /// # Errors
    ///
    /// A map cannot be mapped.
    fn new(pages: MapFd, processes: MapFd, rows: &MapFd, rules: &MapFd, sizes: Sizes) -> Result<Self> {
        let shared = |map| SharedMapping::array(map, true).map_err(Error::kernel);
        let mut tables = Self {
            pages,
            processes,
            rows: shared(rows)?,
            rules: shared(rules)?,
            sizes,
            numbered: Vec::new(),
            numbers: SortedMap::new(),
            placed: SortedMap::new(),
            entries: SortedMap::new(),
            mappings: SortedMap::new(),
            met: VecDeque::new(),
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

    /// Pages of files and processes.
    pub fn pages(&self) -> usize {
        self.entries.len()
    }

    /// Whether what is met next may soon push out what was met before.
    pub fn is_half_full(&self) -> bool {
        self.segment >= SEGMENTS / 2 || self.entries.len() >= self.sizes.pages as usize / 2
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

    /// Tells the program which file a process has somewhere; whether it looks up pages of the file there from now on.
    pub fn map_file(&mut self, tgid: u32, mapping: Mapping) -> bool {
        let known = self.mappings.get(&tgid).map(Vec::as_slice).unwrap_or_default();
        if known.contains(&mapping) {
            return true;
        }
        let is_apart = |other: &&Mapping| other.end <= mapping.start || mapping.end <= other.start;
        let mut all: Vec<Mapping> = known.iter().filter(is_apart).copied().collect();
        all.insert(all.partition_point(|other| other.start < mapping.start), mapping);
        let Some(bytes) = Mapping::encode_all(&all) else { return false };
        if !self.mappings.contains_key(&tgid) {
            if self.mappings.len() >= self.sizes.processes as usize {
                if let Some(first) = self.met.front().copied() {
                    self.unmap_files(first);
                }
            }
            self.met.push_back(tgid);
        }
        self.mappings.insert(tgid, all);
        let is_told = map::update(&self.processes, &tgid.to_ne_bytes(), &bytes, 0).is_ok();
        if !is_told {
            self.unmap_files(tgid);
        }
        is_told
    }

    /// Forgets which files a process has.
    fn unmap_files(&mut self, tgid: u32) {
        if self.mappings.remove(&tgid).is_some() {
            self.met.retain(|met| *met != tgid);
            // It may be gone for want of memory in the kernel; it is gone then.
            let _ = map::delete(&self.processes, &tgid.to_ne_bytes());
        }
    }

    /// Whether the program knows of a page.
    pub fn is_told(&self, key: u64) -> bool {
        self.entries.contains_key(&key)
    }

    /// Tells the program what a page is, by its key.
    pub fn tell(&mut self, key: u64, placed: Option<Placed>, kind: u8) {
        let page = Page {
            first: placed.map_or(0, |placed| placed.first),
            rows: placed.map_or(0, |placed| placed.rows),
            kind: if placed.is_some() { page_kind::ROWS } else { kind },
        };
        let of_rows = placed.map(|placed| placed.first / self.segment_rows());
        // They may all be of the segment that is being filled, which is the last to be emptied.
        for _ in 0..SEGMENTS {
            if self.entries.len() < self.sizes.pages as usize || self.entries.contains_key(&key) {
                break;
            }
            let emptied = self.begin_segment();
            if of_rows.is_some_and(|segment| emptied.contains(&segment)) {
                // Its rows are gone with the others.
                return;
            }
        }
        // Where there is no room still, it is missed again.
        if map::update(&self.pages, &key.to_ne_bytes(), &page.encode(), 0).is_ok() {
            self.entries.insert(key, of_rows.unwrap_or(self.segment));
        }
    }

    /// Forgets what a process has in a range of addresses.
    pub fn forget(&mut self, tgid: u32, start: u64, end: u64) {
        let known = self.mappings.get(&tgid).map(Vec::as_slice).unwrap_or_default();
        if known.iter().any(|mapping| mapping.start < end && start < mapping.end) {
            self.unmap_files(tgid);
        }
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

    /// Forgets all processes; files stay.
    pub fn forget_processes(&mut self) {
        for tgid in self.met.iter().copied().collect::<Vec<_>>() {
            self.unmap_files(tgid);
        }
        self.drop_entries(|key, _| !Page::is_in_file(key));
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
        self.drop_entries(|_, _| true);
        self.placed.clear();
        self.numbers.clear();
        self.numbered.clear();
        self.number(Rule::default());
    }

    /// Goes on in the next segment, and empties the one behind it; both.
    fn begin_segment(&mut self) -> [u32; 2] {
        let size = self.segment_rows();
        let (next, emptied) = ((self.segment + 1) % SEGMENTS, (self.segment + 2) % SEGMENTS);
        (self.segment, self.next) = (next, next * size);
        let before = self.entries.len();
        self.drop_entries(|_, segment| segment == emptied || segment == next);
        self.evicted += (before - self.entries.len()) as u64;
        self.placed.retain(|_, placed| ![emptied, next].contains(&(placed.first / size)));
        [next, emptied]
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

#[cfg(test)]
pub(super) mod tests {
    use bpf_programs::events::unwind::MAX_MAPPINGS;
    use bpf_sys::map::MapCreate;
    use bpf_sys::uapi::flags::BPF_F_MMAPABLE;
    use bpf_sys::{Errno, MapType};

    use super::*;

    /// `None`, with the reason printed, without the right to make maps.
    pub fn tables(sizes: Sizes) -> Option<Tables> {
        let create = |map_type, key_size, value_size, max_entries, flags| {
            map::create(&MapCreate {
                map_type,
                key_size,
                value_size,
                max_entries,
                flags,
                ..MapCreate::default()
            })
        };
        let pages = match create(MapType::HASH, 8, Page::SIZE as u32, sizes.pages, 0) {
            Err(error) if error.errno() == Some(Errno::EPERM) => {
                println!("SKIP tables of rules: takes who may make maps");
                return None;
            }
            pages => pages.unwrap(),
        };
        let array = |bytes| create(MapType::ARRAY, 4, bytes, 1, BPF_F_MMAPABLE).unwrap();
        let (rows, rules) = (array(sizes.rows_bytes()), array(sizes.rules_bytes()));
        let processes = create(MapType::HASH, 4, Mapping::ALL_SIZE as u32, sizes.processes, 0).unwrap();
        Some(Tables::new(pages, processes, &rows, &rules, sizes).unwrap())
    }

    fn rule(words: i64) -> Rule {
        Rule::at(Cfa::Sp, words * 8).with_return(-8)
    }

    fn set(tables: &mut Tables, tgid: u32, address: u64, placed: Option<Placed>, kind: u8) {
        tables.tell(Page::key(tgid, address).unwrap(), placed, kind);
    }

    /// What the program finds at an address of a process.
    fn found(tables: &Tables, tgid: u32, address: u64) -> Option<Page> {
        found_by_key(tables, Page::key(tgid, address).unwrap())
    }

    fn found_by_key(tables: &Tables, key: u64) -> Option<Page> {
        let mut value = [0; Page::SIZE];
        map::lookup(&tables.pages, &key.to_ne_bytes(), &mut value, 0)
            .unwrap()
            .then(|| Page::decode(&value).unwrap())
    }

    fn rows(count: u16) -> Vec<Row> {
        (0..count).map(|n| Row { start: n * 16, rule: rule(1 + i64::from(n % 7)) }).collect()
    }

    #[test]
    fn rows_are_shared_and_found() {
        let Some(mut tables) = tables(Sizes::of(0)) else { return };
        let page = (FileNo(1), 0x1000);
        let mut with_padding = rows(3);
        with_padding.insert(2, Row { start: 20, rule: Rule::default() });
        let placed = tables.place(page, &with_padding).unwrap();
        assert_eq!((tables.placed(page), placed.rows), (Some(placed), 3));
        for (offset, words) in [(0, 1), (15, 1), (16, 2), (31, 2), (32, 3), (4095, 3)] {
            assert_eq!(tables.rule(placed, offset), rule(words), "{offset}");
        }
        for tgid in [7, 8] {
            set(&mut tables, tgid, 0x7f00_0000_1234, Some(placed), page_kind::ROWS);
            let expected = Page { first: placed.first, rows: 3, kind: page_kind::ROWS };
            assert_eq!(found(&tables, tgid, 0x7f00_0000_1fff), Some(expected));
        }
        tables.forget(7, 0x7f00_0000_2000, 0x7f00_0000_3000);
        assert!(found(&tables, 7, 0x7f00_0000_1000).is_some(), "another page is gone");
        tables.forget(7, 0x7f00_0000_1800, 0x7f00_0000_1801);
        assert_eq!(found(&tables, 7, 0x7f00_0000_1000), None);
        tables.forget_process(8);
        assert_eq!((tables.pages(), tables.placed(page)), (0, Some(placed)), "the file may be mapped again");
    }

    #[test]
    fn the_oldest_rows_are_given_up() {
        let sizes = Sizes::of(0);
        let Some(mut tables) = tables(sizes) else { return };
        let pages = sizes.rows / 256 * 3;
        for n in 0..pages {
            let placed = tables.place((FileNo(1), u64::from(n) << 12), &rows(256)).unwrap();
            set(&mut tables, 7, u64::from(n) << 12, Some(placed), page_kind::ROWS);
            assert_eq!(tables.rule(placed, 16), rule(2));
            assert!(found(&tables, 7, u64::from(n) << 12).is_some());
        }
        assert_eq!(found(&tables, 7, 0), None);
        let kept = tables.pages() as u32;
        // All but the segment that is being filled, in part, and the one behind it.
        assert!((sizes.rows / 256 / 2..sizes.rows / 256).contains(&kept), "{kept} of {}", sizes.rows / 256);
        assert_eq!(tables.evicted(), u64::from(pages - kept));
        assert_eq!(tables.place((FileNo(2), 0), &rows(0)).unwrap().rows, 0);
    }

    #[test]
    fn too_many_rules_begin_anew() {
        let sizes = Sizes::of(0);
        let Some(mut tables) = tables(sizes) else { return };
        let row = |n: u32| Row {
            start: (n % 200) as u16,
            rule: Rule::at(Cfa::Fp, i64::from(n) * 8).with_return(-8),
        };
        let mut last = None;
        for page in 0..sizes.rules / 200 + 1 {
            let rows: Vec<Row> = (page * 200..(page + 1) * 200).map(row).collect();
            last = tables.place((FileNo(1), u64::from(page) << 12), &rows);
            set(&mut tables, 7, u64::from(page) << 12, last, page_kind::ROWS);
        }
        assert_eq!(tables.pages(), 1);
        assert_eq!(tables.rule(last.unwrap(), 199), row((sizes.rules / 200 + 1) * 200 - 1).rule);
    }

    #[test]
    fn more_pages_than_there_is_room_for() {
        let sizes = Sizes::of(0);
        let Some(mut tables) = tables(sizes) else { return };
        for n in 0..u64::from(sizes.pages) * 3 {
            set(&mut tables, 7, n << 12, None, page_kind::FRAME_POINTERS);
            assert_eq!(found(&tables, 7, n << 12).map(|page| page.kind), Some(page_kind::FRAME_POINTERS));
        }
        assert!(tables.pages() as u32 <= sizes.pages);
    }

    /// The mappings that the program finds of a process.
    fn mapped(tables: &Tables, tgid: u32) -> Option<Vec<u8>> {
        let mut value = [0; Mapping::ALL_SIZE];
        map::lookup(&tables.processes, &tgid.to_ne_bytes(), &mut value, 0).unwrap().then(|| value.to_vec())
    }

    fn mapping(start: u64, file: u32) -> Mapping {
        Mapping { start, end: start + 0x2000, key: Page::key_in_file(file, 0).unwrap() }
    }

    #[test]
    fn processes_map_files() {
        let Some(mut tables) = tables(Sizes::of(0)) else { return };
        let (a, b) = (mapping(0x7000, 1), mapping(0x3000, 2));
        assert!(
            tables.map_file(7, a) && tables.map_file(7, b) && tables.map_file(7, a) && tables.map_file(8, a)
        );
        assert_eq!(mapped(&tables, 7), Mapping::encode_all(&[b, a]));
        // What lies over another one takes its place.
        let c = mapping(0x8000, 3);
        assert!(tables.map_file(7, c));
        assert_eq!(mapped(&tables, 7), Mapping::encode_all(&[b, c]));
        tables.forget(7, 0x5000, 0x8000);
        assert_eq!(mapped(&tables, 7), Mapping::encode_all(&[b, c]), "there was nothing");
        tables.forget(7, 0x4fff, 0x5000);
        assert_eq!((mapped(&tables, 7), mapped(&tables, 8)), (None, Mapping::encode_all(&[a])));
        tables.tell(a.key, None, page_kind::FRAME_POINTERS);
        set(&mut tables, 8, 0x9000, None, page_kind::FRAME_POINTERS);
        tables.forget_processes();
        assert_eq!((mapped(&tables, 8), found(&tables, 8, 0x9000)), (None, None));
        assert!(found_by_key(&tables, a.key).is_some(), "others map the file, too");
    }

    #[test]
    fn mappings_of_processes_are_bounded() {
        let sizes = Sizes::of(0);
        let Some(mut tables) = tables(sizes) else { return };
        for tgid in 0..sizes.processes * 2 {
            assert!(tables.map_file(tgid, mapping(0x7000, 1)));
        }
        let known = (0..sizes.processes * 2).filter(|tgid| mapped(&tables, *tgid).is_some());
        assert!(known.eq(sizes.processes..sizes.processes * 2), "those that were met last");
        for n in 0..MAX_MAPPINGS as u64 * 2 {
            assert_eq!(tables.map_file(1, mapping(n * 0x2000, 1)), n < MAX_MAPPINGS as u64, "{n}");
        }
    }
}
