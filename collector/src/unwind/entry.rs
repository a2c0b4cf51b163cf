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
/// Bytes that most entries have no more than: one read is enough for them.
const FEW: usize = 128;

/// Bytes of both, one behind the other, as if they were all of a section.
pub(super) struct Entry {
    bytes: Vec<u8>,
    /// Where the function's own begins.
    own: usize,
    /// The address of its first byte.
    address: u64,
}

impl Entry {
    /// Reads the description at an address. `None`: there is none, or none of 32 bits.
    ///
    /// # Errors
    /// What reading met.
    pub fn read(source: &dyn ReadAt, elf: &Elf, address: u64) -> Result<Option<Self>, Box<SymbolizeError>> {
        let Some(own) = read_part(source, elf, address)? else { return Ok(None) };
        let Some(distance) = own.get(4..).and_then(|rest| rest.first_chunk()) else { return Ok(None) };
        // From the pointer itself back; 0 is what is common.
        let distance = u32::from_le_bytes(*distance);
        let common = address.wrapping_add(WORD).wrapping_sub(distance.into());
        let Some(mut bytes) = (distance != 0).then(|| read_part(source, elf, common)).transpose()?.flatten()
        else {
            return Ok(None);
        };
        let start = bytes.len();
        bytes.extend_from_slice(&own);
        // Where it is here.
        let distance = (start as u32 + WORD as u32).to_le_bytes();
        if let Some(pointer) = bytes.get_mut(start + WORD as usize..).and_then(<[u8]>::first_chunk_mut) {
            *pointer = distance;
        }
        Ok(Some(Self { bytes, own: start, address }))
    }

    /// How many bytes it has at an address, its length included. `None`: it is the end, or as for [`read`](Self::read).
    ///
    /// # Errors
    /// What reading met.
    pub fn length(source: &dyn ReadAt, elf: &Elf, address: u64) -> Result<Option<u64>, Box<SymbolizeError>> {
        Ok(read_part(source, elf, address)?.map(|bytes| bytes.len() as u64))
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
fn read_part(source: &dyn ReadAt, elf: &Elf, address: u64) -> Result<Option<Vec<u8>>, Box<SymbolizeError>> {
    const WHAT: &str = ".eh_frame";
    let Some((offset, left)) = elf.offset_of(address) else { return Ok(None) };
    let mut bytes = vec![0; FEW.min(left as usize)];
    read_exact_at(source, offset, &mut bytes, WHAT)?;
    let Some(length) = bytes.first_chunk() else { return Ok(None) };
    let size = u64::from(u32::from_le_bytes(*length)) + WORD;
    if size == WORD || size > left.min(MAX_ENTRY as u64) {
        return Ok(None);
    }
    if size > bytes.len() as u64 {
        return read_vec(source, offset, size, MAX_ENTRY, WHAT).map(Some);
    }
    bytes.truncate(size as usize);
    Ok(Some(bytes))
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
