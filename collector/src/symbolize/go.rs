//! Go's own table of functions and lines, which programs carry even when they are stripped (`.gopclntab`).
//!
//! The format: <https://go.dev/src/runtime/symtab.go>, and `_func` in <https://go.dev/src/runtime/runtime2.go>. It is made to be
//! looked into where it is: nothing of it is kept but the answers.

use std::cell::Cell;
use std::sync::Arc;

use super::answers::Answers;
use super::elf::Elf;
use super::read_at::{ReadAt, read_exact_at, read_name, stream};
use crate::model::Line;

/// Names of the section; the second one is that of programs that lie anywhere.
const SECTIONS: [&[u8]; 2] = [b".gopclntab", b".data.rel.ro.gopclntab"];
/// Where the runtime's description of the program may be.
const DATA: [&[u8]; 4] = [b".go.module", b".noptrdata", b".data", b".data.rel.ro"];
/// Bytes of one of these that are searched.
const MAX_DATA: u64 = 64 << 20;
/// Bytes of a name or path.
const MAX_NAME: usize = 4096;
/// Bytes of a table of values of a function.
const MAX_VALUES: u64 = 1 << 20;
/// Functions that are inlined into one another.
const MAX_NESTED: usize = 64;

/// Index of the table that says what is inlined where, and of the one that says what that is.
const PCDATA_INL_TREE_INDEX: u32 = 2;
const FUNCDATA_INL_TREE: u8 = 3;

/// Formats by the version of Go that began them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    Go116,
    Go118,
    Go120,
}

/// Where the words are in the runtime's description of the program, from its begin.
const TEXT_WORD: usize = 22;
/// As many words are read of it.
const MODULE_WORDS: usize = 48;

impl Version {
    fn of(magic: u32) -> Option<Self> {
        match magic {
            0xffff_fffa => Some(Self::Go116),
            0xffff_fff0 => Some(Self::Go118),
            0xffff_fff1 => Some(Self::Go120),
            _ => None,
        }
    }

    /// The word that says where descriptions of functions are.
    fn descriptions_word(self) -> usize {
        if self < Self::Go120 { 38 } else { 40 }
    }
}

/// How numbers are in the file.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    little: bool,
    word: u8,
}

impl Numbers {
    fn number(self, bytes: &[u8]) -> u64 {
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if self.little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) }
    }

    fn read(self, source: &dyn ReadAt, offset: u64, size: u8) -> Option<u64> {
        let mut bytes = [0; 8];
        let bytes = bytes.get_mut(..usize::from(size))?;
        read_exact_at(source, offset, bytes, ".gopclntab").ok()?;
        Some(self.number(bytes))
    }

    fn u32(self, source: &dyn ReadAt, offset: u64) -> Option<u32> {
        self.read(source, offset, 4)?.try_into().ok()
    }

    fn i32(self, source: &dyn ReadAt, offset: u64) -> Option<i32> {
        self.u32(source, offset).map(|value| value as i32)
    }

    fn word(self, source: &dyn ReadAt, offset: u64) -> Option<u64> {
        self.read(source, offset, self.word)
    }
}

/// A function.
#[derive(Debug, Clone, Copy)]
struct Function {
    entry: u64,
    /// Where its description is in the file.
    at: u64,
}

/// The table of a program: places are offsets in the file.
#[derive(Debug)]
pub(super) struct Go {
    version: Version,
    numbers: Numbers,
    /// Bytes of the smallest instruction.
    quantum: u8,
    /// Functions, and where addresses of them begin.
    functions: u64,
    text: u64,
    names: u64,
    units: u64,
    files: u64,
    values: u64,
    table: u64,
    end: u64,
    /// Where the trees of inlined functions are, if they were found.
    trees: Option<u64>,
    answers: Answers,
    /// Bytes of tables that may still be read.
    fuel: Cell<u64>,
}

impl Go {
    /// Finds the table; `budget` is the memory that all files may take.
    pub fn open(elf: &Elf, source: &dyn ReadAt, budget: usize) -> Option<Self> {
        let section = SECTIONS.iter().find_map(|name| elf.section(name))?;
        let little = elf.is_little_endian();
        let mut header = [0; 8];
        read_exact_at(source, section.offset, &mut header, ".gopclntab").ok()?;
        let [magic @ .., 0, 0, quantum, word] = header else { return None };
        let numbers = Numbers { little, word };
        let version = Version::of(numbers.number(&magic).try_into().ok()?)?;
        if !matches!(word, 4 | 8) || quantum == 0 {
            return None;
        }
        let field = |index: u64| numbers.word(source, section.offset + 8 + index * u64::from(word));
        let place = |index: u64| section.offset.checked_add(field(index)?);
        // The address of the text came in the middle.
        let first = if version < Version::Go118 { 2 } else { 3 };
        let mut go = Self {
            version,
            numbers,
            quantum,
            functions: field(0)?,
            text: if version < Version::Go118 { 0 } else { field(2)? },
            names: place(first)?,
            units: place(first + 1)?,
            files: place(first + 2)?,
            values: place(first + 3)?,
            table: place(first + 4)?,
            end: section.offset.checked_add(section.size)?,
            trees: None,
            answers: Answers::new(budget),
            fuel: Cell::default(),
        };
        let module = go.module(elf, source, section.address, section.address.wrapping_add(field(first)?));
        if version >= Version::Go118 {
            if let Some(module) = &module {
                go.text = *module.get(TEXT_WORD)?;
                let trees = *module.get(version.descriptions_word())?;
                go.trees = elf.offset_of(trees).map(|(offset, _)| offset);
            } else if go.text == 0 {
                go.text = elf.section(b".text")?.address;
            }
        }
        Some(go)
    }

    /// The words of the runtime's description of the program: it begins with the addresses of this table and of its names.
    fn module(&self, elf: &Elf, source: &dyn ReadAt, table: u64, names: u64) -> Option<Vec<u64>> {
        let word = usize::from(self.numbers.word);
        let size = (MODULE_WORDS * word) as u64;
        DATA.iter().filter_map(|name| elf.section(name)).find_map(|section| {
            let mut found = None;
            let mut at = section.offset;
            let mut before = None;
            let searched = section.size.min(MAX_DATA);
            let _ = stream(source, section.offset, searched, word, "data of Go", |piece| {
                for bytes in piece.chunks_exact(word) {
                    let value = self.numbers.number(bytes);
                    if before == Some(table) && value == names && found.is_none() {
                        found = at.checked_sub(word as u64);
                    }
                    before = Some(value);
                    at += word as u64;
                }
            });
            let mut bytes = vec![0; size as usize];
            read_exact_at(source, found?, &mut bytes, "data of Go").ok()?;
            Some(bytes.chunks_exact(word).map(|bytes| self.numbers.number(bytes)).collect())
        })
    }

    /// Heap memory, in bytes.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.answers.memory()
    }

    /// The lines of an address, innermost first; `None` if it is in no function of Go. `work` is how much may be read, and
    /// becomes less.
    pub fn lines(&mut self, source: &dyn ReadAt, address: u64, work: &mut u64) -> Option<Arc<[Line]>> {
        if let Some(lines) = self.answers.get(address) {
            return Some(lines);
        }
        self.answers.clear_if_full();
        self.fuel.set(*work);
        let lines: Option<Arc<[Line]>> = self.read(source, address).map(Into::into);
        *work = self.fuel.get();
        let lines = lines.filter(|_| *work > 0)?;
        self.answers.insert(address, Arc::clone(&lines));
        Some(lines)
    }

    fn read(&mut self, source: &dyn ReadAt, address: u64) -> Option<Vec<Line>> {
        let function = self.find(source, address)?;
        let mut lines = Vec::new();
        let mut at = address;
        while lines.len() < MAX_NESTED {
            let call = self.inlined(source, function, at);
            let name = match call {
                Some((name, _)) => name,
                None => self.numbers.u32(source, function.at + self.field(0))?,
            };
            let name = self.text(source, self.names.checked_add(name.into())?)?;
            let file = self.file(source, function, at);
            let line =
                self.value(source, function, self.field(5), at).and_then(|line| u32::try_from(line).ok());
            lines.push(Line { function: name, system_name: None, file, line: line.unwrap_or(0) });
            let Some((_, parent)) = call else { break };
            at = function.entry.checked_add(parent.into())?;
        }
        Some(lines)
    }

    /// Where a field of 32 bits is in the description of a function, whose first one is the entry.
    fn field(&self, index: u64) -> u64 {
        let entry = if self.version < Version::Go118 { self.numbers.word } else { 4 };
        u64::from(entry) + 4 * index
    }

    /// The function that holds an address.
    fn find(&self, source: &dyn ReadAt, address: u64) -> Option<Function> {
        let size = if self.version < Version::Go118 { self.numbers.word } else { 4 };
        let read = |index: u64, part: u64| {
            let offset = index.checked_mul(2)?.checked_add(part)?.checked_mul(size.into())?;
            self.numbers.read(source, self.table.checked_add(offset)?, size)
        };
        let entry = |index: u64| self.text.checked_add(read(index, 0)?);
        let (mut low, mut high) = (0, self.functions);
        while low < high {
            let middle = low + (high - low) / 2;
            if entry(middle)? <= address { low = middle + 1 } else { high = middle }
        }
        // After the last one there is the end of all.
        if entry(low)? <= address {
            return None;
        }
        let index = low.checked_sub(1)?;
        let at = self.table.checked_add(read(index, 1)?).filter(|at| *at < self.end)?;
        Some(Function { entry: entry(index)?, at })
    }

    /// The function that is inlined at an address: where its name is, and from where in the function it is called.
    fn inlined(&self, source: &dyn ReadAt, function: Function, address: u64) -> Option<(u32, u32)> {
        let tables = self.numbers.u32(source, function.at + self.field(6))?;
        let trees = self.trees?;
        let fixed = if self.version < Version::Go120 { 8 } else { 9 };
        let mut last = [0; 4];
        read_exact_at(source, function.at + self.field(fixed), &mut last, ".gopclntab").ok()?;
        if tables <= PCDATA_INL_TREE_INDEX || last[3] <= FUNCDATA_INL_TREE {
            return None;
        }
        let first_table = self.field(fixed + 1);
        let index =
            self.value(source, function, first_table + 4 * u64::from(PCDATA_INL_TREE_INDEX), address)?;
        let index = u64::try_from(index).ok()?;
        let tree = function.at + first_table + 4 * (u64::from(tables) + u64::from(FUNCDATA_INL_TREE));
        let tree = self.numbers.u32(source, tree).filter(|tree| *tree != u32::MAX)?;
        // Of a call its size, and where its name and its caller are.
        let (size, name, parent) = if self.version < Version::Go120 { (20, 12, 16) } else { (16, 4, 8) };
        let call = trees.checked_add(tree.into())?.checked_add(index.checked_mul(size)?)?;
        let name = self.numbers.i32(source, call + name)?;
        let parent = self.numbers.i32(source, call + parent)?;
        Some((u32::try_from(name).ok()?, u32::try_from(parent).ok()?))
    }

    /// The path of the file at an address.
    fn file(&mut self, source: &dyn ReadAt, function: Function, address: u64) -> Option<Arc<str>> {
        let index = u32::try_from(self.value(source, function, self.field(4), address)?).ok()?;
        let unit = self.numbers.u32(source, function.at + self.field(7))?;
        let offset = unit.checked_add(index)?;
        let file = self.numbers.u32(source, self.units.checked_add(4 * u64::from(offset))?)?;
        if file == u32::MAX {
            return None;
        }
        self.text(source, self.files.checked_add(file.into())?)
    }

    fn text(&mut self, source: &dyn ReadAt, offset: u64) -> Option<Arc<str>> {
        let bytes = read_name(source, offset, self.end, MAX_NAME).ok()?;
        Some(self.answers.text(&String::from_utf8_lossy(&bytes)))
    }

    /// What one of a function's tables says of an address. `field` is where in its description it says where the table is, if it
    /// has one.
    fn value(&self, source: &dyn ReadAt, function: Function, field: u64, address: u64) -> Option<i32> {
        let table = self.numbers.u32(source, function.at.checked_add(field)?).filter(|table| *table > 0)?;
        let start = self.values.checked_add(table.into())?;
        let mut bytes = Pieces::new(source, start, self.end.min(start.saturating_add(MAX_VALUES)));
        let (mut value, mut end) = (-1_i32, function.entry);
        loop {
            let Some(fuel) = self.fuel.get().checked_sub(1) else {
                self.fuel.set(0);
                return None;
            };
            self.fuel.set(fuel);
            let change = bytes.number()?;
            if change == 0 && end != function.entry {
                return None;
            }
            let half = (change >> 1) as i32;
            value = value.wrapping_add(if change & 1 == 1 { !half } else { half });
            end = end.checked_add(u64::from(bytes.number()?) * u64::from(self.quantum))?;
            if address < end {
                return Some(value);
            }
        }
    }
}

/// Numbers of variable length, read piece by piece.
struct Pieces<'s> {
    source: &'s dyn ReadAt,
    next: u64,
    end: u64,
    piece: [u8; 64],
    /// What is left of the piece.
    left: std::ops::Range<usize>,
}

impl<'s> Pieces<'s> {
    fn new(source: &'s dyn ReadAt, next: u64, end: u64) -> Self {
        Self { source, next, end, piece: [0; 64], left: 0..0 }
    }

    fn byte(&mut self) -> Option<u8> {
        if self.left.is_empty() {
            let size = self.end.saturating_sub(self.next).min(self.piece.len() as u64) as usize;
            let count = self.source.read_at(self.next, self.piece.get_mut(..size)?).ok()?;
            self.next += count as u64;
            self.left = 0..count;
        }
        let index = self.left.next()?;
        self.piece.get(index).copied()
    }

    fn number(&mut self) -> Option<u32> {
        let mut number = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
