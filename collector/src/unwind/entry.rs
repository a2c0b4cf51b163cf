//! One function's description of frames (an FDE), with what it has in common with others (its CIE).

use gimli::{BaseAddresses, EhFrame, EhFrameOffset, LittleEndian, UnwindContext, UnwindSection, Vendor};

use super::convert::{Bytes, rule_of};
use super::rule::{Registers, Row, Rule};
use crate::symbolize::SymbolizeError;
use crate::symbolize::elf::Elf;
use crate::symbolize::read_at::{ReadAt, read_exact_at, read_vec};

/// Bytes of code that are looked up together.
pub const PAGE: u64 = 4096;

/// A description of frames is hardly longer than the function: most bytes that are read of one.
pub(super) const MAX_ENTRY: usize = 64 << 10;
/// Rows of a function up to the end of a page, at most.
const MAX_ROWS: usize = 1 << 16;
/// Bytes of a length, and of a pointer to what is common.
const WORD: u64 = 4;
/// What marks in `.debug_frame` what functions have in common.
const COMMON: u32 = u32::MAX;
/// Bytes that most entries have no more than: one read is enough for them.
const FEW: usize = 128;

/// Where descriptions are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Section {
    /// `.eh_frame`: they are known by their addresses.
    Loaded,
    /// `.debug_frame`, at a file offset and of a size: they are known by their distances from its beginning.
    Debug { offset: u64, size: u64 },
}

/// Bytes of both, one behind the other, as if they were all of an `.eh_frame`.
pub(super) struct Entry {
    bytes: Vec<u8>,
    /// Where the function's own begins.
    own: usize,
    /// The address of its first byte.
    address: u64,
}

impl Entry {
    /// Reads the description at a place of a section. `None`: there is none, or none of 32 bits.
    ///
    /// # Errors
    /// What reading met.
    pub fn read(
        source: &dyn ReadAt,
        elf: &Elf,
        section: Section,
        place: u64,
    ) -> Result<Option<Self>, Box<SymbolizeError>> {
        let Some(own) = read_part(source, elf, section, place)? else { return Ok(None) };
        let Some(pointer) = own.get(4..).and_then(|rest| rest.first_chunk()) else { return Ok(None) };
        let pointer = u32::from_le_bytes(*pointer);
        let common = match section {
            // From the pointer itself back; 0 is what is common.
            Section::Loaded if pointer == 0 => return Ok(None),
            Section::Loaded => place.wrapping_add(WORD).wrapping_sub(pointer.into()),
            Section::Debug { .. } if pointer == COMMON => return Ok(None),
            Section::Debug { .. } => pointer.into(),
        };
        let Some(mut bytes) = read_part(source, elf, section, common)? else { return Ok(None) };
        if matches!(section, Section::Debug { .. }) && as_loaded(&mut bytes).is_none() {
            return Ok(None);
        }
        let start = bytes.len();
        bytes.extend_from_slice(&own);
        // Where it is here.
        let distance = (start as u32 + WORD as u32).to_le_bytes();
        if let Some(pointer) = bytes.get_mut(start + WORD as usize..).and_then(<[u8]>::first_chunk_mut) {
            *pointer = distance;
        }
        Ok(Some(Self { bytes, own: start, address: place }))
    }

    /// How many bytes there are at a place, the length included. `None`: it is the end, or as for [`read`](Self::read).
    ///
    /// # Errors
    /// What reading met.
    pub fn length(
        source: &dyn ReadAt,
        elf: &Elf,
        section: Section,
        place: u64,
    ) -> Result<Option<u64>, Box<SymbolizeError>> {
        Ok(read_part(source, elf, section, place)?.map(|bytes| bytes.len() as u64))
    }

    /// How many bytes were read for it.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The address of its function.
    pub fn function(&self) -> Option<u64> {
        let (section, bases) = self.section(Vendor::Default);
        let entry =
            section.fde_from_offset(&bases, EhFrameOffset(self.own), EhFrame::cie_from_offset).ok()?;
        Some(entry.initial_address())
    }

    fn section(&self, vendor: Vendor) -> (EhFrame<Bytes<'_>>, BaseAddresses) {
        let mut section = EhFrame::new(&self.bytes, LittleEndian);
        section.set_address_size(8);
        section.set_vendor(vendor);
        // Pointers are counted from where they are.
        let bases = BaseAddresses::default().set_eh_frame(self.address.wrapping_sub(self.own as u64));
        (section, bases)
    }

    /// Adds the rules of those of its addresses that are in the page. What makes no sense is unknown.
    pub fn rows(&self, registers: Registers, rows: &mut Rows) {
        let (section, bases) =
            self.section(if registers.has_link { Vendor::AArch64 } else { Vendor::Default });
        let Ok(entry) = section.fde_from_offset(&bases, EhFrameOffset(self.own), EhFrame::cie_from_offset)
        else {
            return;
        };
        let (begin, end) = (entry.initial_address(), entry.end_address());
        if end <= rows.page || begin >= rows.end() {
            return;
        }
        let (encoding, signal) = (entry.cie().encoding(), entry.is_signal_trampoline());
        let mut context = UnwindContext::new();
        if let Ok(mut table) = entry.rows(&section, &bases, &mut context) {
            for _ in 0..MAX_ROWS {
                let Ok(Some(row)) = table.next_row() else { break };
                if row.start_address() >= rows.end() {
                    break;
                }
                if row.end_address() > rows.page {
                    rows.add(row.start_address(), rule_of(row, &section, encoding, registers, signal));
                }
            }
        }
        rows.add(end, Rule::default());
    }
}

/// One of the two, with its length. `None`: it is not in the file, is the end, has 64 bits, or is too long to be one.
fn read_part(
    source: &dyn ReadAt,
    elf: &Elf,
    section: Section,
    place: u64,
) -> Result<Option<Vec<u8>>, Box<SymbolizeError>> {
    let (found, what) = match section {
        Section::Loaded => (elf.offset_of(place), ".eh_frame"),
        Section::Debug { offset, size } => {
            let left = size.checked_sub(place).filter(|left| *left > 0);
            (offset.checked_add(place).zip(left), ".debug_frame")
        }
    };
    let Some((offset, left)) = found else { return Ok(None) };
    let mut bytes = vec![0; FEW.min(left as usize)];
    read_exact_at(source, offset, &mut bytes, what)?;
    let Some(length) = bytes.first_chunk() else { return Ok(None) };
    let size = u64::from(u32::from_le_bytes(*length)) + WORD;
    if size == WORD || size > left.min(MAX_ENTRY as u64) {
        return Ok(None);
    }
    if size > bytes.len() as u64 {
        return read_vec(source, offset, size, MAX_ENTRY, what).map(Some);
    }
    bytes.truncate(size as usize);
    Ok(Some(bytes))
}

/// Writes what functions have in common as `.eh_frame` has it. `None`: it is none of a machine with plain addresses of 64 bits.
///
/// The formats differ in the number that marks it, and in the sizes of addresses and segments that DWARF 4 has behind the augmentation
/// (DWARF 5, 6.4.1 and 7.24).
fn as_loaded(bytes: &mut Vec<u8>) -> Option<()> {
    const VERSION: usize = 2 * WORD as usize;
    let [_, _, _, _, id @ ..] = bytes.first_chunk_mut::<VERSION>()?;
    if u32::from_le_bytes(*id) != COMMON {
        return None;
    }
    *id = [0; WORD as usize];
    let version = *bytes.get(VERSION)?;
    let augmentation = bytes.get(VERSION + 1..)?;
    let sizes = VERSION + 1 + augmentation.iter().position(|byte| *byte == 0)? + 1;
    if version >= 4 {
        if bytes.get(sizes..)?.first_chunk() != Some(&[8, 0]) {
            return None;
        }
        bytes.drain(sizes..sizes + 2);
        let length = (bytes.len() as u32).checked_sub(WORD as u32)?;
        *bytes.first_chunk_mut()? = length.to_le_bytes();
    }
    Some(())
}

/// Rules of a page, in order.
pub(super) struct Rows {
    pub page: u64,
    pub rows: Vec<Row>,
}

impl Rows {
    /// Of the page at an address: of its beginning, nothing is known yet.
    pub fn new(page: u64) -> Self {
        Self { page, rows: vec![Row { start: 0, rule: Rule::default() }] }
    }

    fn end(&self) -> u64 {
        self.page.saturating_add(PAGE)
    }

    /// From an address on, another rule holds. Addresses before the page are its beginning, those behind it are left out, as are
    /// those before the last, which overlap.
    fn add(&mut self, address: u64, rule: Rule) {
        let distance = address.saturating_sub(self.page);
        let Some(start) = u16::try_from(distance).ok().filter(|_| distance < PAGE) else { return };
        match self.rows.last_mut() {
            Some(last) if last.start > start => {}
            Some(last) if last.rule == rule => {}
            Some(last) if last.start == start => {
                last.rule = rule;
                // Which may be what holds already.
                if matches!(&self.rows[..], [.., before, last] if before.rule == last.rule) {
                    self.rows.pop();
                }
            }
            _ => self.rows.push(Row { start, rule }),
        }
    }
}
