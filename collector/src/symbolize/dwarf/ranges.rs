//! Range lists: the addresses of a unit, or of a function that is not in one piece.

use gimli::{Error, Reader, Result};

use super::pages::{Bytes, Section, Store};
use super::root::Root;

/// A range of addresses.
pub(super) type Range = (u64, u64);

const DW_RLE_END_OF_LIST: u8 = 0;
const DW_RLE_BASE_ADDRESSX: u8 = 1;
const DW_RLE_STARTX_ENDX: u8 = 2;
const DW_RLE_STARTX_LENGTH: u8 = 3;
const DW_RLE_OFFSET_PAIR: u8 = 4;
const DW_RLE_BASE_ADDRESS: u8 = 5;
const DW_RLE_START_END: u8 = 6;
const DW_RLE_START_LENGTH: u8 = 7;

/// Hands the ranges of the list at an offset to `visit`, until that says stop.
///
/// # Errors
/// The list is damaged, or there is too much of it.
pub(super) fn visit(
    store: &Store,
    root: &Root,
    offset: u64,
    visit: &mut dyn FnMut(Range) -> bool,
) -> Result<()> {
    if root.version >= 5 {
        visit_lists(root, store.at(Section::RangeLists, offset)?, store, visit)
    } else {
        visit_pairs(root, store.at(Section::Ranges, offset)?, visit)
    }
}

/// `.debug_ranges` of DWARF 2 to 4.
fn visit_pairs(root: &Root, mut bytes: Bytes<'_>, visit: &mut dyn FnMut(Range) -> bool) -> Result<()> {
    let size = root.address_size;
    let largest = if size >= 8 { u64::MAX } else { (1 << (8 * u32::from(size))) - 1 };
    let mut base = root.low_pc.unwrap_or(0);
    loop {
        let (start, end) = (bytes.read_address(size)?, bytes.read_address(size)?);
        if (start, end) == (0, 0) {
            return Ok(());
        }
        if start == largest {
            base = end;
        } else if !visit((base.wrapping_add(start) & largest, base.wrapping_add(end) & largest)) {
            return Ok(());
        }
    }
}

/// `.debug_rnglists` of DWARF 5.
fn visit_lists(
    root: &Root,
    mut bytes: Bytes<'_>,
    store: &Store,
    visit: &mut dyn FnMut(Range) -> bool,
) -> Result<()> {
    let size = root.address_size;
    let mut base = root.low_pc.unwrap_or(0);
    loop {
        let range = match bytes.read_u8()? {
            DW_RLE_END_OF_LIST => return Ok(()),
            DW_RLE_BASE_ADDRESSX => {
                base = root.address(store, bytes.read_uleb128()?)?;
                continue;
            }
            DW_RLE_BASE_ADDRESS => {
                base = bytes.read_address(size)?;
                continue;
            }
            DW_RLE_STARTX_ENDX => {
                let start = root.address(store, bytes.read_uleb128()?)?;
                (start, root.address(store, bytes.read_uleb128()?)?)
            }
            DW_RLE_STARTX_LENGTH => {
                let start = root.address(store, bytes.read_uleb128()?)?;
                (start, start.wrapping_add(bytes.read_uleb128()?))
            }
            DW_RLE_OFFSET_PAIR => {
                let start = base.wrapping_add(bytes.read_uleb128()?);
                (start, base.wrapping_add(bytes.read_uleb128()?))
            }
            DW_RLE_START_END => (bytes.read_address(size)?, bytes.read_address(size)?),
            DW_RLE_START_LENGTH => {
                let start = bytes.read_address(size)?;
                (start, start.wrapping_add(bytes.read_uleb128()?))
            }
            _ => return Err(Error::UnknownRangeListsEntry(gimli::DwRle(0))),
        };
        if !visit(range) {
            return Ok(());
        }
    }
}
