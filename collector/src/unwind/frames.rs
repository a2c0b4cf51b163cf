//! Call frame information of a file, read page by page: what a large program never executes is never read.
//!
//! The formats: <https://refspecs.linuxfoundation.org/LSB_5.0.0/LSB-Core-generic/LSB-Core-generic/ehframechpt.html>.

use super::entry::{Entry, MAX_ENTRY, PAGE, Rows, Section};
use super::rule::{Registers, Row};
use crate::symbolize::SymbolizeError;
use crate::symbolize::elf::Elf;
use crate::symbolize::read_at::{ReadAt, read_exact_at, read_vec};

/// Bytes of descriptions that are read for a page: those of compilers have a few for each byte of code.
const MAX_BYTES: usize = 256 << 10;
/// Most descriptions of a file without an index, which is made of them then.
const MAX_SCANNED: usize = 1 << 18;
/// Bytes of them that are read, what several have in common as often as they have it.
const MAX_SCANNED_BYTES: usize = 32 << 20;
/// What one of `.debug_frame` counts that is of no function: of a hostile file, it may have been read for each anew.
const MAX_COMMON: usize = 8 << 10;
/// Bytes of an entry of the index: a function's address and that of its description, counted from the index.
const PAIR: u64 = 8;
/// Entries that are read at once.
const PIECE: u64 = 32;
/// How `.eh_frame_hdr` says that its table is such: `DW_EH_PE_datarel | DW_EH_PE_sdata4`; and its length: `DW_EH_PE_udata4`.
const PAIRS: u8 = 0x3b;
const COUNT: u8 = 0x03;
const HEADER: u64 = 12;

/// Where a file's descriptions of frames are.
#[derive(Debug)]
pub struct Frames {
    registers: Registers,
    section: Section,
    index: Index,
}

#[derive(Debug)]
enum Index {
    /// `.eh_frame_hdr`: its address, the file offset of its table, and how many entries this has.
    Table { address: u64, offset: u64, count: u64 },
    /// Of each function its address and that of its description, in order.
    Scanned(Vec<(u64, u64)>),
}

impl Frames {
    /// Finds them. `None`: there are none, or the machine's registers are not known here.
    ///
    /// # Errors
    /// What reading met.
    pub fn read(source: &dyn ReadAt, elf: &Elf) -> Result<Option<Self>, Box<SymbolizeError>> {
        let Some(registers) = registers(elf) else { return Ok(None) };
        let index = match (read_table(source, elf)?, elf.frames()) {
            (None, Some((start, size))) => scan(source, elf, Section::Loaded, start, size)?,
            (table, _) => table,
        };
        Ok(index.map(|index| Self { registers, section: Section::Loaded, index }))
    }

    /// Finds those for debuggers, which is all that assembler and C libraries built without unwinding may have.
    ///
    /// # Errors
    /// As of [`read`](Self::read).
    pub fn read_debug(source: &dyn ReadAt, elf: &Elf) -> Result<Option<Self>, Box<SymbolizeError>> {
        let (Some(registers), Some((offset, size))) = (registers(elf), elf.debug_frames()) else {
            return Ok(None);
        };
        let section = Section::Debug { offset, size };
        let index = scan(source, elf, section, 0, size)?;
        Ok(index.map(|index| Self { registers, section, index }))
    }

    /// Rules of the page that begins at an address, in order; the first is of its beginning. Addresses are the file's own.
    ///
    /// # Errors
    /// What reading met. A description that makes no sense leaves its function unknown.
    pub fn rows(&self, source: &dyn ReadAt, elf: &Elf, page: u64) -> Result<Vec<Row>, Box<SymbolizeError>> {
        let mut rows = Rows::new(page);
        let first = self.last_up_to(source, page)?.unwrap_or(0);
        let mut bytes = 0;
        // A hostile index has no order. No function is shorter than a byte.
        'page: for at in (first..first.saturating_add(PAGE)).step_by(PIECE as usize) {
            let entries = self.entries(source, at, PIECE)?;
            if entries.is_empty() {
                break;
            }
            for (function, description) in entries {
                if function >= page.saturating_add(PAGE) {
                    break 'page;
                }
                // One that cannot be read leaves the others.
                let entry = Entry::read(source, elf, self.section, description).ok().flatten();
                bytes += entry.as_ref().map_or(MAX_ENTRY, Entry::len);
                if bytes > MAX_BYTES {
                    break 'page;
                }
                if let Some(entry) = entry {
                    entry.rows(self.registers, &mut rows);
                }
            }
        }
        Ok(rows.rows)
    }

    /// The last entry whose function begins at the address or before it.
    fn last_up_to(&self, source: &dyn ReadAt, address: u64) -> Result<Option<u64>, Box<SymbolizeError>> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(&(function, _)) = self.entries(source, middle, 1)?.first() else { break };
            if function <= address { low = middle + 1 } else { high = middle }
        }
        Ok(low.checked_sub(1))
    }

    fn len(&self) -> u64 {
        match &self.index {
            Index::Table { count, .. } => *count,
            Index::Scanned(entries) => entries.len() as u64,
        }
    }

    /// Some entries from one on: addresses of functions and of their descriptions.
    fn entries(
        &self,
        source: &dyn ReadAt,
        at: u64,
        most: u64,
    ) -> Result<Vec<(u64, u64)>, Box<SymbolizeError>> {
        let count = self.len().saturating_sub(at).min(most);
        match &self.index {
            Index::Table { address, offset, .. } => {
                let size = count * PAIR;
                let bytes =
                    read_vec(source, offset + at * PAIR, size, (PIECE * PAIR) as usize, ".eh_frame_hdr")?;
                let from_index = |bytes: &[u8]| {
                    let distance = bytes.first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes));
                    address.wrapping_add_signed(distance.into())
                };
                Ok(bytes
                    .chunks_exact(PAIR as usize)
                    .map(|pair| (from_index(pair), from_index(&pair[4..])))
                    .collect())
            }
            Index::Scanned(entries) => {
                Ok(entries.iter().skip(at as usize).take(count as usize).copied().collect())
            }
        }
    }
}

/// The index that linkers make, if it is there and as they make it.
fn read_table(source: &dyn ReadAt, elf: &Elf) -> Result<Option<Index>, Box<SymbolizeError>> {
    let Some((address, offset, size)) = elf.frame_index() else { return Ok(None) };
    let mut header = [0; HEADER as usize];
    read_exact_at(source, offset, &mut header, ".eh_frame_hdr")?;
    let [1, _, COUNT, PAIRS, _, _, _, _, count @ ..] = header else { return Ok(None) };
    let count = u64::from(u32::from_le_bytes(count)).min(size.saturating_sub(HEADER) / PAIR);
    Ok((count > 0).then_some(Index::Table { address, offset: offset + HEADER, count }))
}

fn registers(elf: &Elf) -> Option<Registers> {
    Registers::of(elf.machine()).filter(|_| elf.is_64() && elf.is_little_endian())
}

/// Functions and their descriptions of a section without an index, from the whole of it. `None`: it has none.
fn scan(
    source: &dyn ReadAt,
    elf: &Elf,
    section: Section,
    start: u64,
    size: u64,
) -> Result<Option<Index>, Box<SymbolizeError>> {
    let mut found = Vec::new();
    let mut at = start;
    let mut read = 0;
    for _ in 0..MAX_SCANNED {
        if at >= start.saturating_add(size) || read > MAX_SCANNED_BYTES {
            break;
        }
        let Some(length) = Entry::length(source, elf, section, at)? else { break };
        match (Entry::read(source, elf, section, at)?, section) {
            (Some(entry), _) => {
                read += entry.len();
                // Of functions that the linker has left out, this is what is left.
                let function = entry.function().filter(|function| *function != 0);
                found.extend(function.map(|function| (function, at)));
            }
            (None, Section::Debug { .. }) => read += MAX_COMMON,
            (None, Section::Loaded) => {}
        }
        at = at.saturating_add(length);
    }
    found.sort_unstable();
    Ok((!found.is_empty()).then_some(Index::Scanned(found)))
}
