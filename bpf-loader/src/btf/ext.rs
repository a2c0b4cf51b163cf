//! `.BTF.ext`: which function, source line and CO-RE relocation belongs to which instruction.
//!
//! Three tables, each a list of (section name, records), where a record may be longer than what is known of it: the
//! file says how long its records are. Instruction offsets are in bytes from the start of the ELF section.

use super::header::preamble;
use super::{Btf, BtfId};
use crate::bytes::{Bytes, Endian};
use crate::core_relo::RelocKind;
use crate::error::{Error, Result};
use crate::insn::InsnIdx;

/// Bytes of a header without the CO-RE table, which became optional in it.
const MIN_HEADER: usize = 24;
const CORE_HEADER: usize = 32;

/// `.BTF.ext`, read in place.
#[derive(Debug, Clone, Copy)]
pub struct BtfExt<'a> {
    endian: Endian,
    func_info: Table<'a>,
    line_info: Table<'a>,
    core_relos: Table<'a>,
}

/// One of the three tables.
#[derive(Debug, Clone, Copy)]
struct Table<'a> {
    record_size: u32,
    sections: Bytes<'a>,
}

/// `struct bpf_func_info`: a function starts here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FuncInfo {
    /// Offset of its first instruction in bytes.
    pub insn_offset: u32,
    /// Its BTF function.
    pub type_id: BtfId,
}

/// `struct bpf_line_info`: from here on, instructions belong to this source line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineInfo {
    /// Offset of the first instruction in bytes.
    pub insn_offset: u32,
    /// Offset of the file's name in the strings of `.BTF`.
    pub file_name: u32,
    /// Offset of the line's text there.
    pub line: u32,
    /// Line number in the upper 22 bits, column in the lower 10.
    pub line_col: u32,
}

/// `struct bpf_core_relo`: this instruction holds a value that depends on the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreRelo {
    /// Offset of the instruction in bytes.
    pub insn_offset: u32,
    /// Local type that the access starts from.
    pub type_id: BtfId,
    /// Offset of the access string in the strings of `.BTF`.
    pub access: u32,
    /// What is asked about what it names, as a number; see [`kind`](Self::kind).
    pub kind: u32,
}

/// A record of one of the tables.
pub trait Record: Sized {
    /// Bytes that this library knows of it.
    const SIZE: u32;

    /// Decodes it. `None` if there are fewer bytes.
    fn decode(bytes: Bytes<'_>) -> Option<Self>;
}

impl CoreRelo {
    /// Where its instruction is within the ELF section; `None` if that is not the start of one.
    pub fn insn(&self) -> Option<InsnIdx> {
        (self.insn_offset % 8 == 0).then_some(InsnIdx(self.insn_offset / 8))
    }

    /// What it asks.
    ///
    /// # Errors
    ///
    /// `CoreKind` if this library doesn't know.
    pub fn kind(&self) -> Result<RelocKind> {
        RelocKind::from_number(self.kind).ok_or_else(|| Box::new(Error::CoreKind { kind: self.kind }))
    }
}

impl Record for FuncInfo {
    const SIZE: u32 = 8;

    fn decode(bytes: Bytes<'_>) -> Option<Self> {
        Some(Self { insn_offset: bytes.u32(0)?, type_id: BtfId(bytes.u32(4)?) })
    }
}

impl Record for LineInfo {
    const SIZE: u32 = 16;

    fn decode(bytes: Bytes<'_>) -> Option<Self> {
        let (insn_offset, file_name) = (bytes.u32(0)?, bytes.u32(4)?);
        Some(Self { insn_offset, file_name, line: bytes.u32(8)?, line_col: bytes.u32(12)? })
    }
}

impl Record for CoreRelo {
    const SIZE: u32 = 16;

    fn decode(bytes: Bytes<'_>) -> Option<Self> {
        let (insn_offset, type_id) = (bytes.u32(0)?, BtfId(bytes.u32(4)?));
        Some(Self { insn_offset, type_id, access: bytes.u32(8)?, kind: bytes.u32(12)? })
    }
}

impl<'a> BtfExt<'a> {
    /// Reads the header and checks that all tables are made of whole records.
    ///
    /// # Errors
    ///
    /// `BtfHeader`, `BtfMagic`, `BtfVersion`, `BtfSection`.
    pub fn parse(data: &'a [u8]) -> Result<Self> {
        let (bytes, header) = preamble(data, ".BTF.ext", MIN_HEADER)?;
        let func_info = Table::parse(bytes, header, 8, "func_info", FuncInfo::SIZE)?;
        let line_info = Table::parse(bytes, header, 16, "line_info", LineInfo::SIZE)?;
        let core_relos = if header >= CORE_HEADER {
            Table::parse(bytes, header, 24, "core_relo", CoreRelo::SIZE)?
        } else {
            Table::empty(bytes.endian)
        };
        Ok(Self { endian: bytes.endian, func_info, line_info, core_relos })
    }

    /// Byte order of the file.
    pub fn endian(&self) -> Endian {
        self.endian
    }

    /// Functions, by ELF section.
    pub fn func_info(&self) -> Sections<'a, FuncInfo> {
        self.func_info.sections()
    }

    /// Source lines, by ELF section.
    pub fn line_info(&self) -> Sections<'a, LineInfo> {
        self.line_info.sections()
    }

    /// CO-RE relocations, by ELF section.
    pub fn core_relos(&self) -> Sections<'a, CoreRelo> {
        self.core_relos.sections()
    }
}

impl<'a> Table<'a> {
    fn empty(endian: Endian) -> Self {
        Self { record_size: 0, sections: Bytes::new(&[], endian) }
    }

    fn parse(bytes: Bytes<'a>, header: usize, at: usize, section: &'static str, known: u32) -> Result<Self> {
        let missing = || Box::new(Error::BtfHeader { section: ".BTF.ext", len: header });
        let (offset, len) = (bytes.u32(at), bytes.u32(at + 4));
        let (Some(offset), Some(len)) = (offset, len) else { return Err(missing()) };
        if len == 0 {
            return Ok(Self::empty(bytes.endian));
        }
        let malformed = || Box::new(Error::BtfSection { section, offset, len });
        let start = header.checked_add(offset as usize).ok_or_else(malformed)?;
        let table = bytes.slice(start, len as usize).ok_or_else(malformed)?;
        let record_size = table.u32(0).ok_or_else(malformed)?;
        if offset % 4 != 0 || record_size < known || record_size % 4 != 0 {
            return Err(malformed());
        }
        let sections = table.tail(4).ok_or_else(malformed)?;
        let mut rest = sections;
        while !rest.data.is_empty() {
            rest = split_section(rest, record_size).ok_or_else(malformed)?.2;
        }
        Ok(Self { record_size, sections })
    }

    fn sections<R: Record>(&self) -> Sections<'a, R> {
        Sections { record_size: self.record_size, rest: self.sections, record: core::marker::PhantomData }
    }
}

/// The first section of a table: offset of its name, its records, and the sections after it.
fn split_section(bytes: Bytes<'_>, record_size: u32) -> Option<(u32, Bytes<'_>, Bytes<'_>)> {
    let (name, count) = (bytes.u32(0)?, bytes.u32(4)?);
    let len = usize::try_from(u64::from(count) * u64::from(record_size)).ok()?;
    let records = bytes.slice(8, len)?;
    Some((name, records, bytes.tail(8usize.checked_add(len)?)?))
}

/// Iterator over the sections of a table.
#[derive(Debug, Clone)]
pub struct Sections<'a, R> {
    record_size: u32,
    rest: Bytes<'a>,
    record: core::marker::PhantomData<R>,
}

impl<'a, R: Record> Iterator for Sections<'a, R> {
    type Item = Section<'a, R>;

    fn next(&mut self) -> Option<Section<'a, R>> {
        let (name, records, rest) = split_section(self.rest, self.record_size)?;
        self.rest = rest;
        let records =
            Records { record_size: self.record_size, rest: records, record: core::marker::PhantomData };
        Some(Section { name, records })
    }
}

/// The records of one ELF section.
#[derive(Debug, Clone)]
pub struct Section<'a, R> {
    /// Offset of the ELF section's name in the strings of `.BTF`.
    pub name: u32,
    /// Its records.
    pub records: Records<'a, R>,
}

impl<R> Section<'_, R> {
    /// Name of the ELF section.
    ///
    /// # Errors
    ///
    /// `BtfString`, `BtfStringUtf8`.
    pub fn name<'b>(&self, btf: &'b Btf<'_>) -> Result<&'b str> {
        btf.string(self.name)
    }
}

/// Iterator over records.
#[derive(Debug, Clone)]
pub struct Records<'a, R> {
    record_size: u32,
    rest: Bytes<'a>,
    record: core::marker::PhantomData<R>,
}

impl<'a, R> Records<'a, R> {
    /// Bytes of a record, as the kernel must be told (`func_info_rec_size`, `line_info_rec_size`).
    pub fn record_size(&self) -> u32 {
        self.record_size
    }

    /// The records that are left, with all the bytes that the file has of them.
    pub fn as_bytes(&self) -> Bytes<'a> {
        self.rest
    }
}

impl<R: Record> Iterator for Records<'_, R> {
    type Item = R;

    fn next(&mut self) -> Option<R> {
        let record = R::decode(self.rest)?;
        self.rest = self.rest.tail(self.record_size as usize)?;
        Some(record)
    }
}

#[cfg(test)]
mod tests;
