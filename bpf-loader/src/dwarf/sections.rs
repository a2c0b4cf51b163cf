//! The sections of an ELF file that hold debug information: unpacked, relocated, and units found in them.

use std::borrow::Cow;
use std::rc::Rc;

use gimli::{
    Abbreviations, DebugAbbrev, DebugAbbrevOffset, DebugInfo, DebugInfoUnitHeadersIter, DebugStrOffset,
    DebugStrOffsets, DebugStrOffsetsBase, DebugStrOffsetsIndex, EndianSlice, Format, Reader, RunTimeEndian,
    UnitHeader,
};
use object::read::{CompressedData, CompressionFormat, Relocation, RelocationFlags};
use object::{
    Architecture, File, Object, ObjectKind, ObjectSection, ObjectSymbol, RelocationKind, RelocationTarget,
};

use crate::bytes::Endian;
use crate::error::{Error, Result};

/// Bytes of a section. The debug information of a kernel with everything built in has less than 1 GiB.
const MAX_SECTION: u64 = 4 << 30;
/// What deflate packs at best; nobody's debug information is near it.
const MAX_RATIO: u64 = 1032;
/// Bytes of abbreviations that are read in all: units may share a table, and nothing but this keeps many small units from
/// sharing a large one. A kernel's are 10 MB.
const MAX_ABBREVIATIONS: usize = 512 << 20;

/// What gimli reads from.
pub(super) type Slice<'s> = EndianSlice<'s, RunTimeEndian>;

/// The sections that types are in.
pub(super) struct Sections<'d> {
    endian: Endian,
    info: Cow<'d, [u8]>,
    abbrev: Cow<'d, [u8]>,
    str: Cow<'d, [u8]>,
    line_str: Cow<'d, [u8]>,
    str_offsets: Cow<'d, [u8]>,
}

/// A unit and the table that its entries are abbreviated by.
pub(super) struct Unit<'s> {
    pub header: UnitHeader<Slice<'s>>,
    pub abbreviations: Rc<Abbreviations>,
    /// Where it starts in `.debug_info`.
    pub start: usize,
}

/// The error for what is wrong at `offset` of a section.
pub(super) fn wrong(section: &'static str, offset: usize, reason: impl ToString) -> Box<Error> {
    Box::new(Error::Dwarf { section, offset: offset as u64, reason: reason.to_string() })
}

/// What is in a section, compressed or not. Its size must have been checked.
fn unpack<'d>(packed: &CompressedData<'d>) -> std::result::Result<Cow<'d, [u8]>, String> {
    let len = usize::try_from(packed.uncompressed_size).map_err(|e| e.to_string())?;
    let mut data = Vec::new();
    match packed.format {
        CompressionFormat::None => return Ok(Cow::Borrowed(packed.data)),
        CompressionFormat::Zlib => {
            data.try_reserve_exact(len).map_err(|e| e.to_string())?;
            let mut decoder = flate2::Decompress::new(true);
            let finish = flate2::FlushDecompress::Finish;
            decoder.decompress_vec(packed.data, &mut data, finish).map_err(|e| e.to_string())?;
        }
        CompressionFormat::Zstandard => {
            data.try_reserve_exact(len).map_err(|e| e.to_string())?;
            let mut decoder = ruzstd::decoding::FrameDecoder::new();
            decoder.decode_all_to_vec(packed.data, &mut data).map_err(|e| e.to_string())?;
        }
        _ => return Err("it is compressed in a way that is not known".to_owned()),
    }
    if data.len() != len {
        return Err(format!("{len} bytes were to be unpacked, and {} were", data.len()));
    }
    Ok(Cow::Owned(data))
}

impl<'d> Sections<'d> {
    pub fn read(elf: &'d [u8]) -> Result<Self> {
        let broken = |error: object::read::Error| Error::Elf { what: "file", reason: error.to_string() };
        let file = File::parse(elf).map_err(broken)?;
        let read = |name: &'static str| -> Result<Cow<'d, [u8]>> {
            // What binutils before 2.26 compressed is in `.zdebug_info`.
            let old = || file.section_by_name(&name.replacen(".debug", ".zdebug", 1));
            let Some(section) = file.section_by_name(name).or_else(old) else {
                return Ok(Cow::Borrowed(&[]));
            };
            let broken = |error: object::read::Error| Error::Elf { what: name, reason: error.to_string() };
            let packed = section.compressed_data().map_err(broken)?;
            let len = packed.uncompressed_size;
            if len > MAX_SECTION || len / MAX_RATIO > packed.data.len() as u64 {
                return Err(Box::new(Error::Elf { what: name, reason: format!("{len} bytes are too many") }));
            }
            let mut data = unpack(&packed).map_err(|reason| Error::Elf { what: name, reason })?;
            // Linked files have nothing left to relocate; where the linker kept the relocations, they were applied.
            if file.kind() == ObjectKind::Relocatable {
                for (offset, relocation) in section.relocations() {
                    relocate(&file, &mut data, offset, &relocation);
                }
            }
            Ok(data)
        };
        let sections = Self {
            endian: if file.is_little_endian() { Endian::Little } else { Endian::Big },
            info: read(".debug_info")?,
            abbrev: read(".debug_abbrev")?,
            str: read(".debug_str")?,
            line_str: read(".debug_line_str")?,
            str_offsets: read(".debug_str_offsets")?,
        };
        if sections.info.is_empty() {
            return Err(Box::new(Error::NoDwarf { reason: "the file has no .debug_info" }));
        }
        Ok(sections)
    }

    /// Of units, abbreviations and strings.
    #[cfg(test)]
    pub fn made(endian: Endian, [info, abbrev, str, str_offsets]: [&'d [u8]; 4]) -> Self {
        let [info, abbrev, str, line_str, str_offsets] =
            [info, abbrev, str, &[], str_offsets].map(Cow::Borrowed);
        Self { endian, info, abbrev, str, line_str, str_offsets }
    }

    pub fn endian(&self) -> Endian {
        self.endian
    }

    /// Steps that reading all units may take: a compiler's attributes have a byte each and more, and few entries are not types.
    pub fn steps(&self) -> u64 {
        (1 << 20) + 64 * self.info.len() as u64
    }

    fn slice<'s>(&self, data: &'s [u8]) -> Slice<'s> {
        let big = self.endian == Endian::Big;
        EndianSlice::new(data, if big { RunTimeEndian::Big } else { RunTimeEndian::Little })
    }

    pub fn units(&self) -> Units<'_> {
        let units = DebugInfo::from(self.slice(&self.info)).units();
        Units { sections: self, units, last: None, left: MAX_ABBREVIATIONS, end: 0 }
    }

    /// The string at an offset of `.debug_str`.
    pub fn string(&self, offset: usize) -> Result<&[u8]> {
        string_at(&self.str, ".debug_str", offset)
    }

    /// The string at an offset of `.debug_line_str`.
    pub fn line_string(&self, offset: usize) -> Result<&[u8]> {
        string_at(&self.line_str, ".debug_line_str", offset)
    }

    /// Where in `.debug_str` the string numbered `index` is, of a unit whose numbers start at `base`.
    pub fn string_offset(&self, format: Format, base: usize, index: usize) -> Result<usize> {
        let error = || wrong(".debug_str_offsets", base, format_args!("no string {index}"));
        // gimli multiplies it, unchecked, by the size of an offset.
        if index >= self.str_offsets.len() {
            return Err(error());
        }
        let offsets = DebugStrOffsets::from(self.slice(&self.str_offsets));
        let found = offsets.get_str_offset(format, DebugStrOffsetsBase(base), DebugStrOffsetsIndex(index));
        found.map(|DebugStrOffset(offset)| offset).map_err(|_| error())
    }
}

fn string_at<'s>(data: &'s [u8], section: &'static str, offset: usize) -> Result<&'s [u8]> {
    let text = data.get(offset..).and_then(|tail| core::ffi::CStr::from_bytes_until_nul(tail).ok());
    text.map(core::ffi::CStr::to_bytes).ok_or_else(|| wrong(section, offset, "no string"))
}

/// Applies a relocation of an object that is not linked. What is not simply a symbol's place concerns code, of which nothing is read here.
fn relocate(file: &File<'_>, data: &mut Cow<'_, [u8]>, offset: u64, relocation: &Relocation) {
    let bits = match (file.architecture(), relocation.flags()) {
        // R_BPF_64_ABS64, R_BPF_64_ABS32 (Documentation/bpf/llvm_reloc.rst).
        (Architecture::Bpf, RelocationFlags::Elf { r_type }) if r_type.0 == 2 => 64,
        (Architecture::Bpf, RelocationFlags::Elf { r_type }) if r_type.0 == 3 => 32,
        _ if relocation.kind() == RelocationKind::Absolute => relocation.size(),
        _ => return,
    };
    let RelocationTarget::Symbol(symbol) = relocation.target() else { return };
    let Ok(symbol) = file.symbol_by_index(symbol) else { return };
    let (Ok(start), bytes) = (usize::try_from(offset), usize::from(bits / 8)) else { return };
    let Some(end) = start.checked_add(bytes).filter(|end| *end <= data.len()) else { return };
    let Some(place) = data.to_mut().get_mut(start..end) else { return };
    let little = file.is_little_endian();
    let mut there = [0; 8];
    for (to, from) in there.iter_mut().zip(place.iter()) {
        *to = *from;
    }
    let there =
        if little { u64::from_le_bytes(there) } else { u64::from_be_bytes(there) >> (64 - u32::from(bits)) };
    let addend = if relocation.has_implicit_addend() { there } else { relocation.addend() as u64 };
    let value = symbol.address().wrapping_add(addend);
    if little {
        place.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
    } else {
        place.iter_mut().rev().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
    }
}

/// Units, one after another.
pub(super) struct Units<'s> {
    sections: &'s Sections<'s>,
    units: DebugInfoUnitHeadersIter<Slice<'s>>,
    /// The table of the unit before: units that share one follow each other.
    last: Option<(usize, Rc<Abbreviations>)>,
    left: usize,
    /// End of the unit before.
    end: usize,
}

impl<'s> Units<'s> {
    pub fn next(&mut self) -> Result<Option<Unit<'s>>> {
        let header = self.units.next().map_err(|e| wrong(".debug_info", self.end, e))?;
        let Some(header) = header else { return Ok(None) };
        let start = match header.offset() {
            gimli::UnitSectionOffset::DebugInfoOffset(offset) => offset.0,
            gimli::UnitSectionOffset::DebugTypesOffset(offset) => offset.0,
        };
        self.end = start.saturating_add(header.length_including_self());
        let at = header.debug_abbrev_offset().0;
        let abbreviations = match &self.last {
            Some((last, table)) if *last == at => Rc::clone(table),
            _ => {
                let table = Rc::new(self.table(at).map_err(|e| wrong(".debug_abbrev", at, e))?);
                self.last = Some((at, Rc::clone(&table)));
                table
            }
        };
        Ok(Some(Unit { header, abbreviations, start }))
    }

    fn table(&mut self, at: usize) -> std::result::Result<Abbreviations, String> {
        let section = self.sections.slice(&self.sections.abbrev);
        let mut rest = section;
        rest.skip(at).map_err(|e| e.to_string())?;
        let before = rest.len();
        skip_table(&mut rest).map_err(|e| e.to_string())?;
        self.left = self.left.checked_sub(before - rest.len()).ok_or("too many abbreviations")?;
        DebugAbbrev::from(section).abbreviations(DebugAbbrevOffset(at)).map_err(|e| e.to_string())
    }
}

/// Moves to the end of a table of abbreviations.
fn skip_table(table: &mut Slice<'_>) -> gimli::Result<()> {
    while table.read_uleb128()? != 0 {
        let (_tag, _children) = (table.read_uleb128()?, table.read_u8()?);
        loop {
            let (name, form) = (table.read_uleb128()?, table.read_uleb128()?);
            if form == u64::from(gimli::DW_FORM_implicit_const.0) {
                table.read_sleb128()?;
            }
            if (name, form) == (0, 0) {
                break;
            }
        }
    }
    Ok(())
}
