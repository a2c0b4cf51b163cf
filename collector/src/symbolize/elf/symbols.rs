//! The functions of an ELF file, in 12 bytes each; names stay in the file.

use object::Endianness;
use object::elf;
use object::pod;
use object::read::elf::{FileHeader, Sym};

use super::super::error::SymbolizeError;
use super::super::read_at::{ReadAt, read_name, stream};
use super::{Elf, Section, mini, plt};

/// Functions that are kept of one file: 48 MB of table.
pub const MAX_SYMBOLS: usize = 4 << 20;
/// Bytes of a name that are kept.
pub const MAX_NAME: usize = 16 * 1024;
/// Functions that overlap an address and are looked at.
const MAX_OVERLAP: usize = 16;
/// Names of one address that are compared.
const MAX_ALIASES: usize = 16;

/// Which string table a name is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameTable {
    /// The one of `.symtab`.
    Static,
    /// The one of `.dynsym`.
    Dynamic,
    /// The one of `.dynsym`; the function is the PLT entry that calls it.
    Plt,
    /// The one of `.gnu_debugdata`.
    Mini,
}

/// One function.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Offset from [`SymbolTable::base`].
    start: u32,
    /// Offset in the string table.
    name: u32,
    /// Length in the low 27 bits, then 3 bits of rank (lower is better), then 2 of [`NameTable`].
    packed: u32,
}

const LENGTH_BITS: u32 = 27;
const MAX_LENGTH: u32 = (1 << LENGTH_BITS) - 1;

impl Entry {
    pub(super) fn new(start: u32, length: u64, name: u32, rank: u8, table: NameTable) -> Self {
        let length = u32::try_from(length).unwrap_or(MAX_LENGTH).min(MAX_LENGTH);
        let packed = length | (u32::from(rank) & 7) << LENGTH_BITS | (table as u32) << (LENGTH_BITS + 3);
        Self { start, name, packed }
    }

    fn length(self) -> u32 {
        self.packed & MAX_LENGTH
    }

    fn set_length(&mut self, length: u32) {
        self.packed = self.packed & !MAX_LENGTH | length.min(MAX_LENGTH);
    }

    fn rank(self) -> u32 {
        self.packed >> LENGTH_BITS & 7
    }

    fn table(self) -> NameTable {
        match self.packed >> (LENGTH_BITS + 3) {
            0 => NameTable::Static,
            1 => NameTable::Dynamic,
            2 => NameTable::Plt,
            _ => NameTable::Mini,
        }
    }
}

/// The functions of a file, sorted by address.
///
/// Which name an address gets, where there are several: a function with a size before one without, a function
/// before an untyped label, a global name before a weak one before a local one; then the one with fewer leading
/// underscores, then the shortest, then the first by bytes. Symbols without a size reach to the next symbol or
/// to the end of their section, and are dropped inside of a function that has a size.
#[derive(Debug, Default)]
pub struct SymbolTable {
    base: u64,
    entries: Box<[Entry]>,
    /// Offset and end of the string table of `.symtab`.
    static_names: (u64, u64),
    /// Offset and end of the string table of `.dynsym`.
    dynamic_names: (u64, u64),
    /// The string table of `.gnu_debugdata`, decompressed.
    mini_names: Box<[u8]>,
}

/// A function that holds an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Function {
    /// Its index in the table: the same for every address inside.
    pub index: u32,
    /// Its first address.
    pub start: u64,
}

impl SymbolTable {
    /// Reads the functions: `.symtab` where the file has it, else `.dynsym` and `.gnu_debugdata`; PLT entries
    /// in either case.
    ///
    /// # Errors
    /// What reading the symbol table met. Broken `.gnu_debugdata` and PLT are left out.
    pub fn read(elf: &Elf, source: &dyn ReadAt) -> Result<Self, Box<SymbolizeError>> {
        Self::read_with(elf, source, (elf, source))
    }

    /// As [`read`](Self::read), with the `.symtab` of another file, that for debuggers.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(in crate::symbolize) fn read_with(
        elf: &Elf,
        source: &dyn ReadAt,
        full: (&Elf, &dyn ReadAt),
    ) -> Result<Self, Box<SymbolizeError>> {
        let mut table = Self::default();
        let mut build = Builder::new(elf);
        let dynamic = elf.section_of_kind(elf::SHT_DYNSYM);
        if let Some(names) = dynamic.and_then(|section| elf.linked(section)) {
            table.dynamic_names = (names.offset, names.offset.saturating_add(names.size));
        }
        let (full, full_source) = full;
        match full.section_of_kind(elf::SHT_SYMTAB) {
            Some(section) => {
                if let Some(names) = full.linked(section) {
                    table.static_names = (names.offset, names.offset.saturating_add(names.size));
                }
                build.read_section(full, full_source, section, NameTable::Static)?;
            }
            None => {
                if let Some(section) = dynamic {
                    build.read_section(elf, source, section, NameTable::Dynamic)?;
                }
                if let Ok(Some(file)) = mini::read(elf, source) {
                    table.mini_names = build.read_mini(&file)?;
                }
            }
        }
        for (address, length, name) in plt::entries(elf, source).unwrap_or_default() {
            build.push(address, length, name, 0, NameTable::Plt);
        }
        table.base = build.base;
        table.entries = build.finish();
        Ok(table)
    }

    /// Number of functions.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where functions begin in a range of addresses, in order.
    #[cfg(feature = "unwind")]
    pub fn starts(&self, range: std::ops::Range<u64>) -> impl Iterator<Item = u64> + '_ {
        let offset = u32::try_from(range.start.saturating_sub(self.base)).unwrap_or(u32::MAX);
        let first = self.entries.partition_point(|entry| entry.start < offset);
        let starts = self.entries.iter().skip(first).map(|entry| self.base + u64::from(entry.start));
        starts.take_while(move |start| range.contains(start))
    }

    /// Heap memory, in bytes.
    pub fn memory(&self) -> usize {
        size_of_val(&*self.entries) + self.mini_names.len()
    }

    /// The function that holds `address`: the innermost where several do.
    pub fn find(&self, address: u64) -> Option<Function> {
        let offset = u32::try_from(address.checked_sub(self.base)?).ok()?;
        let after = self.entries.partition_point(|entry| entry.start <= offset);
        let mut candidate = after;
        let mut seen = 0;
        while candidate > 0 && seen < MAX_OVERLAP {
            candidate -= 1;
            let entry = self.entries.get(candidate)?;
            if offset - entry.start < entry.length() {
                // The first of its aliases stands for all.
                let start = entry.start;
                let index = self.entries.partition_point(|entry| entry.start < start);
                return Some(Function { index: index as u32, start: self.base + u64::from(start) });
            }
            seen += 1;
        }
        None
    }

    /// The name of a function, as the file has it (without a symbol version, with `@plt` for PLT entries).
    ///
    /// # Errors
    /// What reading the string table met.
    pub fn name(&self, source: &dyn ReadAt, function: Function) -> Result<String, Box<SymbolizeError>> {
        self.name_with(source, source, function)
    }

    /// As [`name`](Self::name), with the `.symtab` of another file.
    ///
    /// # Errors
    /// As [`name`](Self::name).
    pub(in crate::symbolize) fn name_with(
        &self,
        source: &dyn ReadAt,
        full: &dyn ReadAt,
        function: Function,
    ) -> Result<String, Box<SymbolizeError>> {
        let first = function.index as usize;
        let start = self.entries.get(first).map(|entry| entry.start);
        let aliases = self.entries.iter().skip(first).take_while(|entry| Some(entry.start) == start);
        let aliases = aliases.take(MAX_ALIASES);
        let best = aliases.clone().map(|entry| entry.rank()).min();
        let mut chosen: Option<Vec<u8>> = None;
        let mut failed = None;
        for entry in aliases.filter(|entry| Some(entry.rank()) == best) {
            let source = if entry.table() == NameTable::Static { full } else { source };
            match self.read_name(source, *entry) {
                Ok(name) if name.is_empty() => {}
                Ok(name) => {
                    if chosen.as_ref().is_none_or(|chosen| preference(&name) < preference(chosen)) {
                        chosen = Some(name);
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        match (chosen, failed) {
            (Some(name), _) => Ok(String::from_utf8_lossy(&name).into_owned()),
            (None, Some(error)) => Err(error),
            (None, None) => Err(Box::new(SymbolizeError::Truncated { what: "a name", offset: 0 })),
        }
    }

    fn read_name(&self, source: &dyn ReadAt, entry: Entry) -> Result<Vec<u8>, Box<SymbolizeError>> {
        let name = u64::from(entry.name);
        let in_file =
            |(offset, end): (u64, u64)| read_name(source, offset.saturating_add(name), end, MAX_NAME);
        let mut bytes = match entry.table() {
            NameTable::Static => in_file(self.static_names),
            NameTable::Dynamic | NameTable::Plt => in_file(self.dynamic_names),
            NameTable::Mini => read_name(&&*self.mini_names, name, self.mini_names.len() as u64, MAX_NAME),
        }?;
        if let Some(version) = bytes.iter().position(|&byte| byte == b'@') {
            bytes.truncate(version);
        }
        if entry.table() == NameTable::Plt {
            bytes.extend_from_slice(b"@plt");
        }
        Ok(bytes)
    }
}

/// Less is better among names of the same rank.
fn preference(name: &[u8]) -> (usize, usize, &[u8]) {
    let underscores = name.iter().take_while(|&&byte| byte == b'_').count();
    // The underscore of a mangled name says nothing.
    let mangled = name.starts_with(b"_Z") || name.starts_with(b"_R");
    (if mangled { 0 } else { underscores }, name.len(), name)
}

/// Collects functions, then sorts them.
struct Builder {
    base: u64,
    entries: Vec<Entry>,
    /// Executable sections, sorted: their ends bound symbols without a size.
    text: Vec<(u64, u64)>,
    is_arm: bool,
    has_mapping_symbols: bool,
}

impl Builder {
    fn new(elf: &Elf) -> Self {
        let text = elf.sections.iter().filter(|section| section.executable && section.size > 0);
        let mut text: Vec<(u64, u64)> = text.map(|section| (section.address, section.end())).collect();
        text.sort_unstable();
        Self {
            base: text.first().map_or(0, |range| range.0),
            entries: Vec::new(),
            text,
            is_arm: elf.machine == elf::EM_ARM,
            has_mapping_symbols: matches!(elf.machine, elf::EM_ARM | elf::EM_AARCH64 | elf::EM_RISCV),
        }
    }

    /// Keeps a function, if there is room and it is within 4 GiB of the first section.
    fn push(&mut self, address: u64, length: u64, name: u32, rank: u8, table: NameTable) {
        let start = address.checked_sub(self.base).and_then(|start| u32::try_from(start).ok());
        if let Some(start) = start.filter(|_| self.entries.len() < MAX_SYMBOLS) {
            self.entries.push(Entry::new(start, length, name, rank, table));
        }
    }

    fn read_section(
        &mut self,
        elf: &Elf,
        source: &dyn ReadAt,
        section: &Section,
        table: NameTable,
    ) -> Result<(), Box<SymbolizeError>> {
        if elf.is_64 {
            self.read_class::<elf::FileHeader64<Endianness>>(elf, source, section, table)
        } else {
            self.read_class::<elf::FileHeader32<Endianness>>(elf, source, section, table)
        }
    }

    fn read_class<H: FileHeader<Endian = Endianness>>(
        &mut self,
        elf: &Elf,
        source: &dyn ReadAt,
        section: &Section,
        table: NameTable,
    ) -> Result<(), Box<SymbolizeError>> {
        let entry = size_of::<H::Sym>();
        // Longer tables than this hold more symbols than are kept, whatever they are.
        let size = section.size.min((4 * MAX_SYMBOLS * entry) as u64);
        stream(source, section.offset, size, entry, "the symbol table", |piece| {
            let symbols = pod::slice_from_bytes::<H::Sym>(piece, piece.len() / entry);
            for symbol in symbols.map_or(&[][..], |(symbols, _)| symbols) {
                self.push_symbol(elf, symbol, table);
            }
        })
    }

    fn push_symbol<S: Sym<Endian = Endianness>>(&mut self, elf: &Elf, symbol: &S, table: NameTable) {
        let index = symbol.st_shndx(elf.endian).0;
        let name = symbol.st_name(elf.endian);
        if index == 0 || index >= elf::SHN_LORESERVE || name == 0 {
            return;
        }
        let in_text = elf.sections.get(usize::from(index)).is_some_and(|section| section.executable);
        let binding = match symbol.st_bind() {
            elf::STB_GLOBAL | elf::STB_GNU_UNIQUE => 0,
            elf::STB_WEAK => 1,
            _ => 2,
        };
        let typed = match symbol.st_type() {
            elf::STT_FUNC | elf::STT_GNU_IFUNC => true,
            // Labels of assembly; where the architecture marks code and data with local ones, only global.
            elf::STT_NOTYPE if !self.has_mapping_symbols || binding < 2 => false,
            _ => return,
        };
        if !in_text {
            return;
        }
        let size: u64 = symbol.st_size(elf.endian).into();
        let mut address: u64 = symbol.st_value(elf.endian).into();
        if self.is_arm && typed {
            // Bit 0 marks Thumb code.
            address &= !1;
        }
        let rank = if typed { binding } else { 3 + binding };
        self.push(address, size, name, rank, table);
    }

    /// Adds the symbols of the decompressed `.gnu_debugdata`, and returns their names.
    fn read_mini(&mut self, file: &[u8]) -> Result<Box<[u8]>, Box<SymbolizeError>> {
        let elf = Elf::read(&file)?;
        let Some(section) = elf.section_of_kind(elf::SHT_SYMTAB) else { return Ok(Box::default()) };
        self.read_section(&elf, &file, section, NameTable::Mini)?;
        let names = elf.linked(section).and_then(|names| {
            let start = usize::try_from(names.offset).ok()?;
            file.get(start..)?.get(..usize::try_from(names.size).ok()?)
        });
        Ok(names.map_or_else(Box::default, Box::from))
    }

    fn finish(mut self) -> Box<[Entry]> {
        // Same start: with a size before without, then by rank, then longest: the order of the table is the
        // order in which an address finds them.
        self.entries.sort_unstable_by_key(|entry| {
            (
                entry.start,
                entry.length() == 0,
                entry.rank(),
                u32::MAX - entry.length(),
                entry.packed,
                entry.name,
            )
        });
        let mut kept = 0;
        // Where the functions with a size end so far.
        let mut covered = 0_u32;
        for index in 0..self.entries.len() {
            let Some(mut entry) = self.entries.get(index).copied() else { break };
            if entry.length() == 0 {
                if entry.start < covered {
                    continue;
                }
                let next = self.entries.iter().skip(index + 1).map(|next| next.start);
                let next = next.take(MAX_ALIASES).find(|&next| next > entry.start);
                let limit = self.section_end(entry.start);
                entry.set_length(next.unwrap_or(limit).min(limit).saturating_sub(entry.start));
            } else {
                covered = covered.max(entry.start.saturating_add(entry.length()));
            }
            if let Some(slot) = self.entries.get_mut(kept) {
                *slot = entry;
                kept += 1;
            }
        }
        self.entries.truncate(kept);
        self.entries.into_boxed_slice()
    }

    /// Where the section that holds `start` ends, as an offset.
    fn section_end(&self, start: u32) -> u32 {
        let address = self.base + u64::from(start);
        let after = self.text.partition_point(|range| range.0 <= address);
        let range = after.checked_sub(1).and_then(|index| self.text.get(index));
        let end = range.filter(|range| address < range.1).map_or(address, |range| range.1);
        u32::try_from(end - self.base).unwrap_or(u32::MAX)
    }
}
