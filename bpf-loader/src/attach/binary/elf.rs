//! As much of ELF as uprobes need, of either class and byte order. Only what is asked for is read from the file, and nothing
//! longer than the file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::bytes::{Bytes, Endian};

/// What an ELF file is read from.
pub(in crate::attach) trait ReadAt {
    /// `len` bytes from `offset`; `None` if there are fewer.
    fn read_at(&self, offset: u64, len: u64) -> Option<Vec<u8>>;
}

impl ReadAt for File {
    fn read_at(&self, offset: u64, len: u64) -> Option<Vec<u8>> {
        if offset.checked_add(len)? > self.metadata().ok()?.len() {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        self.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, offset: u64, len: u64) -> Option<Vec<u8>> {
        let range = usize::try_from(offset).ok()?..usize::try_from(offset.checked_add(len)?).ok()?;
        Some(self.get(range)?.to_vec())
    }
}

/// A section.
#[derive(Debug, Clone, Copy)]
pub(in crate::attach) struct Section {
    pub(in crate::attach) name: u32,
    pub(in crate::attach) kind: u32,
    pub(in crate::attach) address: u64,
    pub(in crate::attach) offset: u64,
    pub(in crate::attach) size: u64,
    pub(in crate::attach) link: u32,
}

impl Section {
    /// Byte of the file that is loaded to an address in the section.
    pub(super) fn file_offset(&self, address: u64) -> Option<u64> {
        address.checked_sub(self.address)?.checked_add(self.offset)
    }
}

/// A loadable segment.
#[derive(Debug, Clone, Copy)]
pub(in crate::attach) struct Segment {
    pub(in crate::attach) address: u64,
    pub(in crate::attach) size: u64,
    pub(in crate::attach) offset: u64,
    pub(in crate::attach) executable: bool,
}

impl Segment {
    /// Byte of the file that is loaded to an address, if it is in the segment.
    pub(in crate::attach) fn file_offset(&self, address: u64) -> Option<u64> {
        let inside = address.checked_sub(self.address)?;
        if inside < self.size { self.offset.checked_add(inside) } else { None }
    }
}

/// A symbol.
#[derive(Debug, Clone, Copy)]
pub(in crate::attach) struct Symbol {
    pub(super) name: u32,
    pub(super) value: u64,
    pub(super) section: u16,
    info: u8,
}

impl Symbol {
    /// `STT_FUNC`
    pub(super) fn is_function(&self) -> bool {
        self.info & 0xf == 2
    }

    /// `STB_WEAK`
    pub(super) fn is_weak(&self) -> bool {
        self.info >> 4 == 2
    }
}

/// The zero-terminated text at an offset in a string table, if it is not longer than any name.
pub(super) fn text(strings: &[u8], at: u32) -> Option<&[u8]> {
    const LONGEST: usize = 1 << 16;
    let tail = strings.get(at as usize..)?;
    let tail = tail.get(..LONGEST).unwrap_or(tail);
    tail.get(..tail.iter().position(|b| *b == 0)?)
}

/// An ELF file: its tables, and the means to read more.
#[derive(Debug)]
pub(in crate::attach) struct Elf<R> {
    source: R,
    wide: bool,
    endian: Endian,
    /// `e_machine`
    pub(in crate::attach) machine: u16,
    /// Loaded wherever there is room (`ET_DYN`).
    pub(in crate::attach) dynamic: bool,
    pub(in crate::attach) sections: Vec<Section>,
    pub(in crate::attach) segments: Vec<Segment>,
    names: Vec<u8>,
}

/// Something read from a file, or what is wrong with the file.
pub(super) type Read<T> = Result<T, &'static str>;

const SHORT: &str = "the ELF file ends too early, or a table of it lies elsewhere";

impl<R: ReadAt> Elf<R> {
    pub(in crate::attach) fn parse(source: R) -> Read<Self> {
        let ident = source.read_at(0, 16).ok_or("no ELF file")?;
        let (wide, endian) = match ident.get(..6) {
            Some([0x7f, b'E', b'L', b'F', class @ (1 | 2), order @ (1 | 2)]) => {
                (*class == 2, if *order == 1 { Endian::Little } else { Endian::Big })
            }
            _ => return Err("no ELF file"),
        };
        let header = source.read_at(0, if wide { 64 } else { 52 }).ok_or(SHORT)?;
        let header = Bytes::new(&header, endian);
        let word = |wide_at: usize, narrow_at: usize| {
            if wide { header.u64(wide_at) } else { header.u32(narrow_at).map(u64::from) }
        };
        let half = |at: usize| header.u16(if wide { at + 12 } else { at });
        let mut elf = Self {
            wide,
            endian,
            machine: header.u16(18).ok_or(SHORT)?,
            dynamic: header.u16(16).ok_or(SHORT)? == 3,
            sections: Vec::new(),
            segments: Vec::new(),
            names: Vec::new(),
            source,
        };
        let (segments, sections) = (word(32, 28).ok_or(SHORT)?, word(40, 32).ok_or(SHORT)?);
        let numbers = [half(42), half(44), half(46), half(48), half(50)];
        let [Some(segment_size), Some(segment_count), Some(section_size), Some(section_count), Some(names)] =
            numbers
        else {
            return Err(SHORT);
        };
        elf.read_segments(segments, u64::from(segment_count), u64::from(segment_size))?;
        if sections != 0 {
            elf.read_sections(sections, u64::from(section_count), u64::from(section_size), u32::from(names))?;
        }
        Ok(elf)
    }

    fn read_segments(&mut self, at: u64, count: u64, size: u64) -> Read<()> {
        let least = if self.wide { 56 } else { 32 };
        if count == 0 {
            return Ok(());
        }
        if size < least {
            return Err("segment headers of the wrong size");
        }
        let table = self.source.read_at(at, count * size).ok_or(SHORT)?;
        for header in table.chunks_exact(size as usize) {
            let header = self.bytes(header);
            let word = |wide_at, narrow_at| self.word(header, wide_at, narrow_at);
            let flags = header.u32(if self.wide { 4 } else { 24 }).ok_or(SHORT)?;
            let segment = Segment {
                offset: word(8, 4).ok_or(SHORT)?,
                address: word(16, 8).ok_or(SHORT)?,
                size: word(40, 20).ok_or(SHORT)?,
                executable: flags & 1 != 0,
            };
            // PT_LOAD
            if header.u32(0) == Some(1) {
                self.segments.push(segment);
            }
        }
        Ok(())
    }

    fn read_sections(&mut self, at: u64, count: u64, size: u64, names: u32) -> Read<()> {
        let least = if self.wide { 64 } else { 40 };
        if size < least {
            return Err("section headers of the wrong size");
        }
        let first = self.source.read_at(at, size).ok_or(SHORT)?;
        let first = self.section(&first).ok_or(SHORT)?;
        // Where there are too many for the header's fields, the first section has the numbers.
        let count = if count == 0 { first.size } else { count };
        let names = if names == 0xffff { first.link } else { names };
        let table = self.source.read_at(at, count.checked_mul(size).ok_or(SHORT)?).ok_or(SHORT)?;
        self.sections =
            table.chunks_exact(size as usize).map(|s| self.section(s)).collect::<Option<_>>().ok_or(SHORT)?;
        if let Some(names) = self.sections.get(names as usize).copied() {
            self.names = self.data(&names)?;
        }
        Ok(())
    }

    fn section(&self, header: &[u8]) -> Option<Section> {
        let header = self.bytes(header);
        Some(Section {
            name: header.u32(0)?,
            kind: header.u32(4)?,
            address: self.word(header, 16, 12)?,
            offset: self.word(header, 24, 16)?,
            size: self.word(header, 32, 20)?,
            link: header.u32(if self.wide { 40 } else { 24 })?,
        })
    }

    fn word(&self, bytes: Bytes<'_>, wide_at: usize, narrow_at: usize) -> Option<u64> {
        if self.wide { bytes.u64(wide_at) } else { bytes.u32(narrow_at).map(u64::from) }
    }

    /// Bytes of the file, to be read in its order.
    pub(in crate::attach) fn bytes<'a>(&self, data: &'a [u8]) -> Bytes<'a> {
        Bytes::new(data, self.endian)
    }

    /// Bytes of an address.
    pub(in crate::attach) fn address_size(&self) -> usize {
        if self.wide { 8 } else { 4 }
    }

    /// What is in a section.
    pub(in crate::attach) fn data(&self, section: &Section) -> Read<Vec<u8>> {
        // SHT_NOBITS takes no space in the file.
        if section.kind == 8 {
            return Ok(Vec::new());
        }
        self.source.read_at(section.offset, section.size).ok_or(SHORT)
    }

    /// What is in the section that another names, as a symbol table its strings.
    pub(super) fn linked(&self, section: &Section) -> Read<Vec<u8>> {
        self.data(self.sections.get(section.link as usize).ok_or("a table without its strings")?)
    }

    /// The section of that name.
    pub(in crate::attach) fn section_named(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| text(&self.names, s.name) == Some(name.as_bytes()))
    }

    /// The symbols of a table.
    pub(super) fn symbols<'a>(&'a self, table: &'a [u8]) -> impl Iterator<Item = Symbol> + 'a {
        let size = if self.wide { 24 } else { 16 };
        table.chunks_exact(size).filter_map(|symbol| {
            let symbol = self.bytes(symbol);
            Some(Symbol {
                name: symbol.u32(0)?,
                value: self.word(symbol, 8, 4)?,
                info: symbol.u8(if self.wide { 4 } else { 12 })?,
                section: symbol.u16(if self.wide { 6 } else { 14 })?,
            })
        })
    }
}
