//! Functions of a file by their names: for probes, which go to a few functions and need their bytes.

use object::Endianness;
use object::elf;
use object::pod;
use object::read::elf::{FileHeader, Sym};

use super::super::error::SymbolizeError;
use super::super::read_at::{ReadAt, read_name, read_vec, stream};
use super::symbols::MAX_SYMBOLS;
use super::{Elf, Section};

/// Names that are longer than this are not asked for.
const MAX_WANTED: usize = 128;
/// Bytes of a string table that are read at once; names of a larger one are read one by one.
const MAX_NAMES: usize = 16 << 20;

/// A function and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFunction {
    /// Its name, without a symbol version.
    pub name: String,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes; 0 where the file does not say.
    pub size: u64,
}

/// What a file exports under a name.
#[cfg(feature = "unwind")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Its number in `.dynsym`.
    pub number: u32,
    /// Its address; of what each thread has, its place in their data.
    pub value: u64,
    /// Bytes.
    pub size: u64,
}

impl Elf {
    /// Functions whose names are `wanted`, of `.symtab` and `.dynsym`, under every name that they have.
    ///
    /// # Errors
    /// What reading the symbol tables met.
    pub fn functions_named(
        &self,
        source: &dyn ReadAt,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Result<Vec<NamedFunction>, Box<SymbolizeError>> {
        let mut found = Vec::new();
        for kind in [elf::SHT_DYNSYM, elf::SHT_SYMTAB] {
            let Some(section) = self.section_of_kind(kind) else { continue };
            if self.is_64 {
                self.collect::<elf::FileHeader64<Endianness>>(source, section, &mut wanted, &mut found)?;
            } else {
                self.collect::<elf::FileHeader32<Endianness>>(source, section, &mut wanted, &mut found)?;
            }
        }
        found.sort_unstable_by(|a, b| (a.offset, &a.name).cmp(&(b.offset, &b.name)));
        found.dedup_by(|next, kept| next.offset == kept.offset && next.name == kept.name);
        Ok(found)
    }

    /// The machine, as `e_machine` has it.
    pub fn machine(&self) -> elf::Machine {
        self.machine
    }

    /// Whether addresses have 64 bits.
    pub fn is_64(&self) -> bool {
        self.is_64
    }

    /// Whether it has a section of that name.
    #[cfg(feature = "unwind")]
    pub fn has_section(&self, name: &[u8]) -> bool {
        self.section_named(name).is_some()
    }

    /// The address of the program's first instruction.
    #[cfg(feature = "unwind")]
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Where the program's first instruction is in the file; `None` for a file that is no program.
    pub fn entry_offset(&self) -> Option<u64> {
        self.code_offset(self.entry)
    }

    /// What has these names in `.dynsym`, functions or not; of a file of 64 bits.
    ///
    /// # Errors
    /// What reading the symbol table met.
    #[cfg(feature = "unwind")]
    pub fn exported<const N: usize>(
        &self,
        source: &dyn ReadAt,
        wanted: [&str; N],
    ) -> Result<[Option<Exported>; N], Box<SymbolizeError>> {
        let mut found = [None; N];
        let mut number = 0;
        let Some(section) = self.section_of_kind(elf::SHT_DYNSYM).filter(|_| self.is_64) else {
            return Ok(found);
        };
        let Some(names) = self.linked(section) else { return Ok(found) };
        let table = read_vec(source, names.offset, names.size, MAX_NAMES, "symbol names")?;
        let entry = size_of::<elf::Sym64<Endianness>>();
        let size = section.size.min((MAX_SYMBOLS * entry) as u64);
        stream(source, section.offset, size, entry, "the symbol table", |piece| {
            let symbols = pod::slice_from_bytes::<elf::Sym64<Endianness>>(piece, piece.len() / entry);
            for symbol in symbols.map_or(&[][..], |(symbols, _)| symbols) {
                number += 1;
                if symbol.st_shndx(self.endian).0 == elf::SHN_UNDEF.0 {
                    continue;
                }
                let name = table.get(symbol.st_name(self.endian) as usize..).unwrap_or_default();
                for (wanted, found) in wanted.iter().zip(&mut found) {
                    // A hostile name has no end.
                    let rest = name.strip_prefix(wanted.as_bytes());
                    if rest.and_then(<[u8]>::first) == Some(&0) {
                        *found = Some(Exported {
                            number: number - 1,
                            value: symbol.st_value(self.endian),
                            size: symbol.st_size(self.endian),
                        });
                    }
                }
            }
        })?;
        Ok(found)
    }

    /// Where functions begin within a range, in no order, by `.symtab`, unless that is too large; of a file of 64 bits. `None`: it has none.
    ///
    /// # Errors
    /// What reading the symbol tables met.
    #[cfg(feature = "unwind")]
    pub fn function_starts(
        &self,
        source: &dyn ReadAt,
        range: std::ops::Range<u64>,
    ) -> Result<Option<Vec<u64>>, Box<SymbolizeError>> {
        const MOST: u64 = 6 << 20;
        let Some(section) = self.section_of_kind(elf::SHT_SYMTAB).filter(|_| self.is_64) else {
            return Ok(None);
        };
        let mut found = Vec::new();
        if section.size > MOST {
            return Ok(Some(found));
        }
        let entry = size_of::<elf::Sym64<Endianness>>();
        stream(source, section.offset, section.size, entry, "the symbol table", |piece| {
            let symbols = pod::slice_from_bytes::<elf::Sym64<Endianness>>(piece, piece.len() / entry);
            for symbol in symbols.map_or(&[][..], |(symbols, _)| symbols) {
                let start = symbol.st_value(self.endian);
                if symbol.st_type() == elf::STT_FUNC && range.contains(&start) {
                    found.push(start);
                }
            }
        })?;
        Ok(Some(found))
    }

    fn collect<H: FileHeader<Endian = Endianness>>(
        &self,
        source: &dyn ReadAt,
        section: &Section,
        wanted: &mut dyn FnMut(&str) -> bool,
        found: &mut Vec<NamedFunction>,
    ) -> Result<(), Box<SymbolizeError>> {
        let Some(names) = self.linked(section) else { return Ok(()) };
        let table = read_vec(source, names.offset, names.size, MAX_NAMES, "symbol names").ok();
        let entry = size_of::<H::Sym>();
        let size = section.size.min((MAX_SYMBOLS * entry) as u64);
        stream(source, section.offset, size, entry, "the symbol table", |piece| {
            let symbols = pod::slice_from_bytes::<H::Sym>(piece, piece.len() / entry);
            for symbol in symbols.map_or(&[][..], |(symbols, _)| symbols) {
                let defined = (1..elf::SHN_LORESERVE).contains(&symbol.st_shndx(self.endian).0);
                if !defined || symbol.st_type() != elf::STT_FUNC {
                    continue;
                }
                let start = symbol.st_name(self.endian);
                let Some(offset) = self.code_offset(symbol.st_value(self.endian).into()) else { continue };
                let read;
                let name = match &table {
                    Some(table) => name_at(table, start),
                    None => {
                        let end = names.offset.saturating_add(names.size);
                        let at = names.offset.saturating_add(start.into());
                        read = read_name(source, at, end, MAX_WANTED).unwrap_or_default();
                        &*read
                    }
                };
                let name = name.split(|&b| b == b'@').next().unwrap_or_default();
                if let Some(name) = std::str::from_utf8(name).ok().filter(|name| wanted(name)) {
                    let size = symbol.st_size(self.endian).into();
                    found.push(NamedFunction { name: name.to_owned(), offset, size });
                }
            }
        })
    }

    /// Where the code at an address is in the file.
    fn code_offset(&self, address: u64) -> Option<u64> {
        let segments =
            self.segments.iter().filter(|segment| segment.kind == elf::PT_LOAD && segment.executable);
        segments
            .filter_map(|segment| {
                let distance = address.checked_sub(segment.address).filter(|&d| d < segment.file_size)?;
                segment.offset.checked_add(distance)
            })
            .next()
    }
}

/// The text that starts there and ends with a zero byte.
fn name_at(table: &[u8], start: u32) -> &[u8] {
    let rest = table.get(start as usize..).unwrap_or_default();
    rest.split(|&b| b == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GLOBAL_FUNCTION, TEXT_ADDRESS, TEXT_OFFSET, X86_64};
    use super::*;

    #[test]
    fn functions_are_found_under_every_name() {
        let file = X86_64.with_symtab(
            &[
                ("malloc@@GLIBC_2.2.5", GLOBAL_FUNCTION, 1, TEXT_ADDRESS + 0x10, 0x20),
                ("je_malloc", GLOBAL_FUNCTION, 1, TEXT_ADDRESS + 0x10, 0x20),
                ("free", GLOBAL_FUNCTION, 1, TEXT_ADDRESS + 0x30, 0),
                ("free", GLOBAL_FUNCTION, 0, 0, 0),
                ("calloc", 0x11, 1, TEXT_ADDRESS, 8),
                ("mallocs", GLOBAL_FUNCTION, 1, TEXT_ADDRESS, 8),
            ],
            &[],
        );
        let elf = Elf::read(&file).unwrap();
        let wanted = |name: &str| ["malloc", "je_malloc", "free", "calloc"].contains(&name);
        let found = elf.functions_named(&file, wanted).unwrap();
        let function = |name: &str, offset, size| NamedFunction {
            name: name.into(),
            offset: TEXT_OFFSET + offset,
            size,
        };
        let expected =
            [function("je_malloc", 0x10, 0x20), function("malloc", 0x10, 0x20), function("free", 0x30, 0)];
        assert_eq!(found, expected);
    }
}
