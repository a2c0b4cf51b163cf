//! Names for procedure linkage tables: entry N calls the symbol of the Nth jump-slot relocation.

use object::Endianness;
use object::elf;
use object::pod;
use object::read::elf::{FileHeader, Rel, Rela, Sym};

use super::super::error::SymbolizeError;
use super::super::read_at::{ReadAt, read_vec};
use super::{Elf, Section};

/// Bytes of relocations and of dynamic symbols that are read.
const MAX_TABLE: usize = 8 << 20;

/// Address, length and offset of the name in the dynamic string table of every entry that is known.
pub(super) fn entries(elf: &Elf, source: &dyn ReadAt) -> Result<Vec<(u64, u64, u32)>, Box<SymbolizeError>> {
    let relocations = elf.section_named(b".rela.plt").or_else(|| elf.section_named(b".rel.plt"));
    let (Some(relocations), Some(symbols)) = (relocations, elf.section_of_kind(elf::SHT_DYNSYM)) else {
        return Ok(Vec::new());
    };
    let names = if elf.is_64 {
        names::<elf::FileHeader64<Endianness>>(elf, source, relocations, symbols)?
    } else {
        names::<elf::FileHeader32<Endianness>>(elf, source, relocations, symbols)?
    };
    let Some((first, size)) = entry_layout(elf, names.len() as u64) else { return Ok(Vec::new()) };
    let addresses = (0..).map(|index: u64| first.saturating_add(index.saturating_mul(size)));
    let named = addresses.zip(names).filter(|&(_, name)| name != 0);
    Ok(named.map(|(address, name)| (address, size, name)).collect())
}

/// Address of the first entry that calls a symbol, and the size of an entry.
fn entry_layout(elf: &Elf, count: u64) -> Option<(u64, u64)> {
    // With branch tracking, x86 calls go to entries of their own, which have no header.
    if let Some(section) = elf.section_named(b".plt.sec") {
        return (section.size >= count.checked_mul(16)?).then_some((section.address, 16));
    }
    let header = match elf.machine {
        elf::EM_X86_64 | elf::EM_386 => 16,
        elf::EM_AARCH64 | elf::EM_RISCV => 32,
        _ => return None,
    };
    let section = elf.section_named(b".plt")?;
    let body = section.size.checked_sub(header)?;
    // AArch64 entries with branch tracking have 24 bytes.
    let size = if elf.machine == elf::EM_AARCH64 && body == count.checked_mul(24)? { 24 } else { 16 };
    (body >= count.checked_mul(size)?).then_some((section.address.checked_add(header)?, size))
}

/// Offset of the name of each relocation's symbol, 0 where it has none.
fn names<H: FileHeader<Endian = Endianness>>(
    elf: &Elf,
    source: &dyn ReadAt,
    relocations: &Section,
    symbols: &Section,
) -> Result<Vec<u32>, Box<SymbolizeError>> {
    let table = read_vec(source, symbols.offset, symbols.size, MAX_TABLE, "dynamic symbols")?;
    let count = table.len() / size_of::<H::Sym>();
    let symbols = pod::slice_from_bytes::<H::Sym>(&table, count).map_or(&[][..], |(symbols, _)| symbols);
    let name_of = |index: u32| {
        let symbol = usize::try_from(index).ok().and_then(|index| symbols.get(index));
        symbol.map_or(0, |symbol| symbol.st_name(elf.endian))
    };
    let bytes = read_vec(source, relocations.offset, relocations.size, MAX_TABLE, "PLT relocations")?;
    if relocations.kind == elf::SHT_RELA {
        let count = bytes.len() / size_of::<H::Rela>();
        let entries = pod::slice_from_bytes::<H::Rela>(&bytes, count).map_or(&[][..], |(entries, _)| entries);
        Ok(entries.iter().map(|entry| name_of(entry.r_sym(elf.endian, false))).collect())
    } else {
        let count = bytes.len() / size_of::<H::Rel>();
        let entries = pod::slice_from_bytes::<H::Rel>(&bytes, count).map_or(&[][..], |(entries, _)| entries);
        Ok(entries.iter().map(|entry| name_of(entry.r_sym(elf.endian))).collect())
    }
}
