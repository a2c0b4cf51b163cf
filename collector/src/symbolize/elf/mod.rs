//! ELF files, as far as names and addresses need them: headers, address translation, build id.
//!
//! Everything is read in bounded pieces through [`ReadAt`]; what a hostile file can make this allocate is
//! bounded by the constants below, and by [`symbols::MAX_SYMBOLS`].

mod mini;
pub mod named;
mod plt;
#[cfg(feature = "dwarf")]
mod sections;
pub mod symbols;
#[cfg(feature = "unwind")]
mod threads;

pub(super) use mini::decompress;
#[cfg(feature = "unwind")]
pub use threads::ThreadVariable;

#[cfg(feature = "unwind")]
use std::ops::Range;

use object::elf;
use object::pod;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{Endianness, U32};

use super::error::SymbolizeError;
use super::read_at::{ReadAt, read_exact_at, read_vec};

/// Program headers that are read; linkers write about a dozen.
const MAX_SEGMENTS: usize = 1024;
/// Section headers that are read; linked files have less than a hundred.
const MAX_SECTIONS: usize = 8192;
/// Bytes of section names.
const MAX_SECTION_NAMES: usize = 1 << 20;
/// Bytes of one note segment or section.
const MAX_NOTES: usize = 64 * 1024;
/// A GNU build id is 8 to 32 bytes in practice (xxhash to SHA-256).
const MAX_BUILD_ID: usize = 64;

/// A `PT_LOAD`, `PT_NOTE` or `PT_GNU_EH_FRAME` program header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    kind: elf::ProgramType,
    executable: bool,
    offset: u64,
    address: u64,
    file_size: u64,
}

/// A section header.
#[derive(Debug, Clone, Copy)]
struct Section {
    name: u32,
    kind: elf::SectionType,
    executable: bool,
    address: u64,
    offset: u64,
    size: u64,
    link: u32,
    #[cfg(any(feature = "dwarf", feature = "unwind"))]
    compressed: bool,
}

impl Section {
    fn end(&self) -> u64 {
        self.address.saturating_add(self.size)
    }
}

/// Where the loadable parts of a file lie: file offsets to ELF virtual addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressMap(Box<[Segment]>);

impl AddressMap {
    /// The ELF virtual address of the byte at `offset` in the file. Executable segments go first: neighbours
    /// share the pages at their borders.
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        let segment = self.segment_of(offset)?;
        segment.address.checked_add(offset.checked_sub(segment.offset)?)
    }

    /// Where in the file the segment is that has the byte at `offset`.
    #[cfg(feature = "unwind")]
    pub fn range_around(&self, offset: u64) -> Option<Range<u64>> {
        let segment = self.segment_of(offset)?;
        Some(segment.offset..segment.offset.checked_add(segment.file_size)?)
    }

    fn segment_of(&self, offset: u64) -> Option<&Segment> {
        let inside = |segment: &&Segment| {
            let distance = offset.checked_sub(segment.offset);
            distance.is_some_and(|distance| {
                distance < segment.file_size && segment.address.checked_add(distance).is_some()
            })
        };
        let mut found = self.0.iter().filter(inside);
        let first = found.clone().next()?;
        Some(found.find(|segment| segment.executable).unwrap_or(first))
    }
}

/// The headers of an ELF file.
#[derive(Debug)]
pub struct Elf {
    is_64: bool,
    endian: Endianness,
    machine: elf::Machine,
    entry: u64,
    segments: Vec<Segment>,
    sections: Vec<Section>,
    section_names: Vec<u8>,
}

impl Elf {
    /// Reads the headers. A file whose section headers are missing or broken still has its segments.
    ///
    /// # Errors
    /// [`SymbolizeError::NotElf`]; or what reading the program headers met.
    pub fn read(source: &dyn ReadAt) -> Result<Self, Box<SymbolizeError>> {
        let mut ident = [0; 16];
        read_exact_at(source, 0, &mut ident, "the ELF header").map_err(|error| match *error {
            SymbolizeError::Truncated { .. } => Box::new(SymbolizeError::NotElf),
            _ => error,
        })?;
        match (ident.get(..4), ident[4]) {
            (Some(b"\x7fELF"), 1) => Self::read_class::<elf::FileHeader32<Endianness>>(source),
            (Some(b"\x7fELF"), 2) => Self::read_class::<elf::FileHeader64<Endianness>>(source),
            _ => Err(Box::new(SymbolizeError::NotElf)),
        }
    }

    fn read_class<H: FileHeader<Endian = Endianness>>(
        source: &dyn ReadAt,
    ) -> Result<Self, Box<SymbolizeError>> {
        let header_size = size_of::<H>();
        let bytes = read_vec(source, 0, header_size as u64, header_size, "the ELF header")?;
        let header = pod::from_bytes::<H>(&bytes).map_err(|()| SymbolizeError::NotElf)?.0;
        let endian = header.endian().map_err(|_| SymbolizeError::NotElf)?;
        let mut elf = Self {
            is_64: header.is_type_64(),
            endian,
            machine: header.e_machine(endian),
            entry: header.e_entry(endian).into(),
            segments: read_segments(source, header, endian)?,
            sections: Vec::new(),
            section_names: Vec::new(),
        };
        // Symbols are a bonus: a file without usable sections can still be translated and identified.
        if let Ok((sections, names)) = read_sections(source, header, endian) {
            elf.sections = sections;
            elf.section_names = names;
        }
        Ok(elf)
    }

    /// The translation from file offsets to addresses.
    pub fn address_map(&self) -> AddressMap {
        AddressMap(self.segments.iter().filter(|segment| segment.kind == elf::PT_LOAD).copied().collect())
    }

    /// Whether numbers begin with their lowest byte.
    pub fn is_little_endian(&self) -> bool {
        self.endian == Endianness::Little
    }

    /// Of the index of frame descriptions its address, file offset and size.
    pub fn frame_index(&self) -> Option<(u64, u64, u64)> {
        let index = self.segments.iter().find(|segment| segment.kind == elf::PT_GNU_EH_FRAME)?;
        Some((index.address, index.offset, index.file_size))
    }

    /// Of `.eh_frame` its address and size.
    pub fn frames(&self) -> Option<(u64, u64)> {
        self.section_named(b".eh_frame").map(|section| (section.address, section.size))
    }

    /// Of `.debug_frame` its file offset and size, if it is there and not compressed.
    #[cfg(feature = "unwind")]
    pub fn debug_frames(&self) -> Option<(u64, u64)> {
        let section = self.section_named(b".debug_frame")?;
        let is_readable = section.kind != elf::SHT_NOBITS && !section.compressed;
        is_readable.then_some((section.offset, section.size))
    }

    /// Where a byte with an address is in the file, and how many follow it there, itself included.
    pub fn offset_of(&self, address: u64) -> Option<(u64, u64)> {
        self.segments.iter().filter(|segment| segment.kind == elf::PT_LOAD).find_map(|segment| {
            let distance = address.checked_sub(segment.address)?;
            let left = segment.file_size.checked_sub(distance).filter(|left| *left > 0)?;
            Some((segment.offset.checked_add(distance)?, left))
        })
    }

    /// The GNU build id, from the note segments or else the note sections.
    pub fn build_id(&self, source: &dyn ReadAt) -> Option<Vec<u8>> {
        let segments = self.segments.iter().filter(|segment| segment.kind == elf::PT_NOTE);
        let segments = segments.map(|segment| (segment.offset, segment.file_size));
        let sections = self.sections.iter().filter(|section| section.kind == elf::SHT_NOTE);
        let sections = sections.map(|section| (section.offset, section.size));
        segments.chain(sections).take(64).find_map(|(offset, size)| {
            let notes = read_vec(source, offset, size, MAX_NOTES, "notes").ok()?;
            build_id_in_notes(&notes, self.endian)
        })
    }

    fn section_named(&self, name: &[u8]) -> Option<&Section> {
        self.sections.iter().find(|section| {
            let start = usize::try_from(section.name).ok();
            let rest = start.and_then(|start| self.section_names.get(start..));
            rest.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.first() == Some(&0))
        })
    }

    fn section_of_kind(&self, kind: elf::SectionType) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == kind && section.size > 0)
    }

    fn linked(&self, section: &Section) -> Option<&Section> {
        self.sections.get(usize::try_from(section.link).ok()?)
    }
}

fn read_segments<H: FileHeader<Endian = Endianness>>(
    source: &dyn ReadAt,
    header: &H,
    endian: Endianness,
) -> Result<Vec<Segment>, Box<SymbolizeError>> {
    const WHAT: &str = "program headers";
    let count = usize::from(header.e_phnum(endian));
    if count == 0 {
        return Ok(Vec::new());
    }
    let entry = size_of::<H::ProgramHeader>();
    if usize::from(header.e_phentsize(endian)) != entry {
        return Err(Box::new(SymbolizeError::NotElf));
    }
    let size = count.saturating_mul(entry);
    let bytes = read_vec(source, header.e_phoff(endian).into(), size as u64, MAX_SEGMENTS * entry, WHAT)?;
    let (headers, _) =
        pod::slice_from_bytes::<H::ProgramHeader>(&bytes, count).map_err(|()| SymbolizeError::NotElf)?;
    let wanted = headers
        .iter()
        .filter(|header| matches!(header.p_type(endian), elf::PT_LOAD | elf::PT_NOTE | elf::PT_GNU_EH_FRAME));
    Ok(wanted
        .map(|header| Segment {
            kind: header.p_type(endian),
            executable: header.p_flags(endian).contains(elf::PF_X),
            offset: header.p_offset(endian).into(),
            address: header.p_vaddr(endian).into(),
            file_size: header.p_filesz(endian).into(),
        })
        .collect())
}

fn read_sections<H: FileHeader<Endian = Endianness>>(
    source: &dyn ReadAt,
    header: &H,
    endian: Endianness,
) -> Result<(Vec<Section>, Vec<u8>), Box<SymbolizeError>> {
    const WHAT: &str = "section headers";
    let count = usize::from(header.e_shnum(endian));
    let entry = size_of::<H::SectionHeader>();
    if count == 0 || usize::from(header.e_shentsize(endian)) != entry {
        return Ok((Vec::new(), Vec::new()));
    }
    let size = count.saturating_mul(entry);
    let bytes = read_vec(source, header.e_shoff(endian).into(), size as u64, MAX_SECTIONS * entry, WHAT)?;
    let (headers, _) =
        pod::slice_from_bytes::<H::SectionHeader>(&bytes, count).map_err(|()| SymbolizeError::NotElf)?;
    let sections: Vec<Section> = headers
        .iter()
        .map(|header| Section {
            name: header.sh_name(endian),
            kind: header.sh_type(endian),
            executable: header.sh_flags(endian).contains(elf::SHF_EXECINSTR),
            address: header.sh_addr(endian).into(),
            offset: header.sh_offset(endian).into(),
            size: header.sh_size(endian).into(),
            link: header.sh_link(endian),
            #[cfg(any(feature = "dwarf", feature = "unwind"))]
            compressed: header.sh_flags(endian).contains(elf::SHF_COMPRESSED),
        })
        .collect();
    let names = sections.get(usize::from(header.e_shstrndx(endian).0));
    let names = names.map_or(Ok(Vec::new()), |names| {
        read_vec(source, names.offset, names.size, MAX_SECTION_NAMES, "section names")
    })?;
    Ok((sections, names))
}

/// The descriptor of the first GNU build-id note (name `GNU`, type 3).
///
/// Also what `/sys/kernel/notes` and `/sys/module/NAME/notes` hold, in the host's endianness.
pub fn build_id_in_notes(notes: &[u8], endian: Endianness) -> Option<Vec<u8>> {
    let mut rest = notes;
    while let Ok((header, tail)) = pod::from_bytes::<[U32<Endianness>; 3]>(rest) {
        let [name_size, size, kind] = header.map(|field| field.get(endian));
        let name = tail.get(..usize::try_from(name_size).ok()?)?;
        let tail = tail.get(align4(name_size)?..)?;
        let descriptor = tail.get(..usize::try_from(size).ok()?)?;
        if kind == elf::NT_GNU_BUILD_ID.0
            && name == b"GNU\0"
            && (1..=MAX_BUILD_ID).contains(&descriptor.len())
        {
            return Some(descriptor.to_vec());
        }
        rest = tail.get(align4(size)?..)?;
    }
    None
}

fn align4(size: u32) -> Option<usize> {
    usize::try_from(size.checked_add(3)? & !3).ok()
}

#[cfg(test)]
pub(crate) mod tests;
