//! The view of an ELF file that the rest of the crate uses: sections, symbols and relocations of a 64-bit
//! relocatable object, of either byte order. Nothing is copied.

use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::SectionIndex as RawIndex;
use object::read::elf::{FileHeader, Rel as _, SectionHeader, SectionTable, Sym as _, SymbolTable};

use crate::bytes::{Bytes, Endian};
use crate::error::{Error, Result};

type Header = FileHeader64<Endianness>;

/// Index of an ELF section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SectionIdx(pub u32);

/// Index of an ELF symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SymbolIdx(pub u32);

/// A parsed file: headers and tables are checked, contents are looked up on demand.
pub(crate) struct Elf<'a> {
    data: &'a [u8],
    raw_endian: Endianness,
    sections: SectionTable<'a, Header>,
    symbols: SymbolTable<'a, Header>,
    /// Names of sections.
    section_names: &'a [u8],
    /// Names of symbols.
    symbol_names: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SectionKind {
    /// Holds bytes of the file.
    Data,
    /// Zeros, not in the file (`.bss`).
    NoBits,
    /// Relocations, symbol and string tables, groups.
    Table,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Section<'a> {
    pub idx: SectionIdx,
    pub name: &'a str,
    pub kind: SectionKind,
    pub executable: bool,

    pub allocated: bool,
    /// Size in memory; for [`SectionKind::NoBits`] not bounded by the file.
    pub size: u64,
    /// Contents; empty for [`SectionKind::NoBits`].
    pub data: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SymbolSection {
    Undefined,
    Section(SectionIdx),
    /// Absolute, common, or another reserved index.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SymbolKind {
    None,
    Object,
    Function,
    Section,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binding {
    Local,
    Global,
    Weak,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbol<'a> {
    pub name: &'a str,
    pub section: SymbolSection,
    pub kind: SymbolKind,
    pub binding: Binding,
    /// `STV_HIDDEN` or `STV_INTERNAL`: global for the linker, static for the verifier.
    pub hidden: bool,
    pub value: u64,
    pub size: u64,
}

/// A relocation: at this byte of its section, refer to this symbol. BPF uses no addend field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relocation {
    pub offset: u64,
    pub symbol: SymbolIdx,
    pub kind: u32,
}

/// `R_BPF_64_64`: a 64-bit immediate load.
pub(crate) const R_BPF_64_64: u32 = 1;
/// `R_BPF_64_ABS64`: a 64-bit pointer in data.
pub(crate) const R_BPF_64_ABS64: u32 = 2;
/// `R_BPF_64_32`: a call.
pub(crate) const R_BPF_64_32: u32 = 10;

impl<'a> Elf<'a> {
    /// Checks the headers and finds the tables.
    pub fn parse(data: &'a [u8]) -> Result<Self> {
        let fail = |what| move |e: object::read::Error| Error::Elf { what, reason: e.to_string() };
        let header = Header::parse(data).map_err(fail("file header"))?;
        let raw_endian = header.endian().map_err(fail("file header"))?;
        if header.e_type(raw_endian) != elf::ET_REL {
            return Err(Box::new(Error::NotAnObject {
                field: "e_type",
                value: header.e_type(raw_endian).0.into(),
            }));
        }
        // Compilers before the machine number was assigned wrote EM_NONE.
        let machine = header.e_machine(raw_endian);
        if machine != elf::EM_BPF && machine != elf::EM_NONE {
            return Err(Box::new(Error::NotAnObject { field: "e_machine", value: machine.0.into() }));
        }
        let sections = header.sections(raw_endian, data).map_err(fail("section headers"))?;
        let symbols = sections.symbols(raw_endian, data, elf::SHT_SYMTAB).map_err(fail("symbol table"))?;
        // Sections that shared their bytes would multiply code and relocations.
        let contents = sections.iter().filter_map(|section| section.data(raw_endian, data).ok());
        if contents.map(<[u8]>::len).sum::<usize>() > data.len() {
            return Err(Box::new(Error::Elf { what: "section headers", reason: "sections overlap".into() }));
        }
        let strings = |index| {
            let section = sections.section(index).ok();
            section.and_then(|section| section.data(raw_endian, data).ok()).unwrap_or_default()
        };
        let section_names = header.shstrndx(raw_endian, data).map(|index| RawIndex(index as usize));
        let section_names = strings(section_names.map_err(fail("section names"))?);
        let symbol_names = strings(symbols.string_section());
        Ok(Self { data, raw_endian, sections, symbols, section_names, symbol_names })
    }

    pub fn endian(&self) -> Endian {
        match self.raw_endian {
            Endianness::Little => Endian::Little,
            Endianness::Big => Endian::Big,
        }
    }

    /// All sections but the null one. A section whose name or extent is broken yields an error of its own, so that
    /// the caller decides whether it matters.
    pub fn sections(&self) -> impl Iterator<Item = Result<Section<'a>>> + '_ {
        (1..self.sections.len() as u32).map(|i| self.section(SectionIdx(i)))
    }

    pub fn section(&self, idx: SectionIdx) -> Result<Section<'a>> {
        let fail = |e: object::read::Error| Box::new(Error::Section { section: idx, reason: e.to_string() });
        let endian = self.raw_endian;
        let header = self.sections.section(RawIndex(idx.0 as usize)).map_err(fail)?;
        let name = name(self.section_names, header.sh_name(endian))
            .map_err(|reason| Error::Section { section: idx, reason: reason.into() })?;
        let kind = match header.sh_type(endian) {
            elf::SHT_NOBITS => SectionKind::NoBits,
            elf::SHT_PROGBITS => SectionKind::Data,
            _ => SectionKind::Table,
        };
        let flags = header.sh_flags(endian);
        Ok(Section {
            idx,
            name,
            kind,
            executable: flags.0 & elf::SHF_EXECINSTR.0 != 0,
            allocated: flags.0 & elf::SHF_ALLOC.0 != 0,
            size: header.sh_size(endian),
            data: header.data(endian, self.data).map_err(fail)?,
        })
    }

    pub fn symbol_count(&self) -> u32 {
        self.symbols.len() as u32
    }

    /// All symbols but the null one.
    pub fn symbols(&self) -> impl Iterator<Item = Result<(SymbolIdx, Symbol<'a>)>> + '_ {
        (1..self.symbol_count()).map(|i| Ok((SymbolIdx(i), self.symbol(SymbolIdx(i))?)))
    }

    pub fn symbol(&self, idx: SymbolIdx) -> Result<Symbol<'a>> {
        let fail = |reason: String| Box::new(Error::Symbol { symbol: idx, reason });
        let endian = self.raw_endian;
        let index = object::read::SymbolIndex(idx.0 as usize);
        let raw = self.symbols.symbol(index).map_err(|e| fail(e.to_string()))?;
        let section = match raw.st_shndx(endian) {
            elf::SHN_UNDEF => SymbolSection::Undefined,
            _ => match self.symbols.symbol_section(endian, raw, index).map_err(|e| fail(e.to_string()))? {
                Some(i) if i.0 < self.sections.len() => SymbolSection::Section(SectionIdx(i.0 as u32)),
                Some(i) => return Err(fail(format!("it lies in section {}, which does not exist", i.0))),
                None => SymbolSection::Other,
            },
        };
        Ok(Symbol {
            name: name(self.symbol_names, raw.st_name(endian)).map_err(|reason| fail(reason.into()))?,
            section,
            kind: match raw.st_type() {
                elf::STT_NOTYPE => SymbolKind::None,
                elf::STT_OBJECT => SymbolKind::Object,
                elf::STT_FUNC => SymbolKind::Function,
                elf::STT_SECTION => SymbolKind::Section,
                _ => SymbolKind::Other,
            },
            binding: match raw.st_bind() {
                elf::STB_LOCAL => Binding::Local,
                elf::STB_WEAK => Binding::Weak,
                _ => Binding::Global,
            },
            hidden: matches!(raw.st_visibility(), elf::STV_HIDDEN | elf::STV_INTERNAL),
            value: raw.st_value(endian),
            size: raw.st_size(endian),
        })
    }

    /// The section that each `SHT_REL` section applies to, with its relocations.
    pub fn relocation_sections(
        &self,
    ) -> impl Iterator<Item = (SectionIdx, Result<impl Iterator<Item = Relocation> + 'a>)> + '_ {
        let endian = self.raw_endian;
        self.sections.iter().enumerate().filter_map(move |(i, header)| {
            let relocations = match header.rel(endian, self.data) {
                Ok(None) => return None,
                Ok(Some((rels, _))) => Ok(rels.iter().map(move |r| Relocation {
                    offset: r.r_offset(endian),
                    symbol: SymbolIdx(r.r_sym(endian)),
                    kind: r.r_type(endian).0,
                })),
                Err(e) => {
                    Err(Box::new(Error::Section { section: SectionIdx(i as u32), reason: e.to_string() }))
                }
            };
            Some((SectionIdx(header.sh_info(endian)), relocations))
        })
    }
}

/// The name at a place among strings.
fn name(strings: &[u8], at: u32) -> core::result::Result<&str, &'static str> {
    // Of no name is the byte order of account.
    let name = Bytes::new(strings, Endian::HOST).cstr(at as usize);
    let name = name.ok_or("its name is not among the strings, or too long")?;
    core::str::from_utf8(name).map_err(|_| "its name is not UTF-8")
}
