//! The first entry of a unit: what its other entries are read with.

use gimli::{
    Abbreviations, AttributeValue, DebugAbbrev, DebugAbbrevOffset, DebugInfo, DebugInfoOffset, Error, Reader,
    Result, UnitHeader, UnitType,
};

use super::pages::{Bytes, MAX_ABBREVIATIONS, Section, Store};
use super::ranges::{self, Range};

/// Attributes of an entry; some take no byte of it.
pub(super) const MAX_ATTRIBUTES: usize = 256;
/// Bytes of a path that are kept.
pub(super) const MAX_PATH: usize = 4096;

/// What an attribute holds.
pub(super) type Value<'s> = AttributeValue<Bytes<'s>, u64>;

/// What the first entry of a unit says.
#[derive(Debug, Clone, Default)]
pub(super) struct Root {
    pub version: u16,
    pub address_size: u8,
    /// Bytes of an offset.
    pub word: u8,
    /// Base of ranges and of the unit's code.
    pub low_pc: Option<u64>,
    high_pc: Option<u64>,
    /// Where its range list is.
    ranges: Option<u64>,
    address_base: u64,
    range_lists_base: u64,
    string_offsets_base: u64,
    /// Where its line program is.
    pub line_program: Option<u64>,
    /// Where it was compiled.
    pub directory: Option<Box<str>>,
}

impl Root {
    /// Reads the header of the unit at an offset.
    ///
    /// # Errors
    /// It is damaged.
    pub fn header(store: &Store, offset: u64) -> Result<UnitHeader<Bytes<'_>>> {
        DebugInfo::from(store.at(Section::Info, 0)?).header_from_offset(DebugInfoOffset(offset))
    }

    /// Reads the first entry of a unit; `None` if it has none with code.
    ///
    /// # Errors
    /// It is damaged.
    pub fn read<'s>(store: &'s Store, header: &UnitHeader<Bytes<'s>>) -> Result<Option<Self>> {
        let (UnitType::Compilation | UnitType::Partial | UnitType::Skeleton(_)) = header.type_() else {
            return Ok(None);
        };
        let table = header.debug_abbrev_offset().0;
        match first_abbreviation(store, table).and_then(|first| Self::read_entry(store, header, &first)) {
            Err(Error::UnknownAbbreviation(_)) => {
                Self::read_entry(store, header, &*store.abbreviations(table)?)
            }
            read => read,
        }
    }

    fn read_entry<'s>(
        store: &'s Store,
        header: &UnitHeader<Bytes<'s>>,
        abbreviations: &Abbreviations,
    ) -> Result<Option<Self>> {
        let mut entries = header.entries_raw(abbreviations, None)?;
        let mut root = Self {
            version: header.version(),
            address_size: header.address_size(),
            word: header.format().word_size(),
            ..Self::default()
        };
        let header_of = |size: u64| if root.word == 8 { size + 8 } else { size };
        // Where indexes count from if nobody says: past the header of the section.
        (root.address_base, root.range_lists_base, root.string_offsets_base) = match root.version {
            5 => (header_of(8), header_of(12), header_of(8)),
            _ => (0, 0, 0),
        };
        let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(None) };
        let (mut low, mut high, mut list, mut directory) = (None, None, None, None);
        for spec in abbreviation.attributes().iter().take(MAX_ATTRIBUTES) {
            let attribute = entries.read_attribute(*spec)?;
            match (attribute.name(), attribute.value()) {
                (gimli::DW_AT_low_pc, value) => low = Some(value),
                (gimli::DW_AT_high_pc, value) => high = Some(value),
                (gimli::DW_AT_ranges, value) => list = Some(value),
                (gimli::DW_AT_comp_dir, value) => directory = Some(value),
                (gimli::DW_AT_stmt_list, AttributeValue::DebugLineRef(offset)) => {
                    root.line_program = Some(offset.0);
                }
                (_, AttributeValue::DebugAddrBase(base)) => root.address_base = base.0,
                (_, AttributeValue::DebugRngListsBase(base)) => root.range_lists_base = base.0,
                (_, AttributeValue::DebugStrOffsetsBase(base)) => root.string_offsets_base = base.0,
                _ => {}
            }
        }
        root.low_pc = low.and_then(|value| root.address_of(store, &value).ok());
        root.high_pc = high.and_then(|value| root.end_of(store, root.low_pc, &value));
        root.ranges = list.and_then(|value| root.list_of(store, &value));
        root.directory =
            directory.and_then(|value| root.string(store, &value, MAX_PATH).ok()).map(String::into_boxed_str);
        Ok(Some(root))
    }

    /// Hands the addresses of the unit's code to `visit`.
    ///
    /// # Errors
    /// Its range list is damaged.
    pub fn visit_code(&self, store: &Store, visit: &mut dyn FnMut(Range) -> bool) -> Result<()> {
        match (self.ranges, self.low_pc, self.high_pc) {
            (Some(offset), ..) => ranges::visit(store, self, offset, visit),
            (None, Some(low), Some(high)) => {
                visit((low, high));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The address of an index.
    ///
    /// # Errors
    /// There is none.
    pub fn address(&self, store: &Store, index: u64) -> Result<u64> {
        let offset = index
            .checked_mul(self.address_size.into())
            .and_then(|offset| offset.checked_add(self.address_base));
        let offset = offset.ok_or(Error::OffsetOutOfBounds)?;
        store.at(Section::Addr, offset)?.read_address(self.address_size)
    }

    /// The address in an attribute.
    ///
    /// # Errors
    /// There is none.
    pub fn address_of(&self, store: &Store, value: &Value<'_>) -> Result<u64> {
        match value {
            AttributeValue::Addr(address) => Ok(*address),
            AttributeValue::DebugAddrIndex(index) => self.address(store, index.0),
            _ => Err(Error::UnsupportedAttributeForm),
        }
    }

    /// Where a piece of code ends.
    pub fn end_of(&self, store: &Store, low: Option<u64>, value: &Value<'_>) -> Option<u64> {
        match value.udata_value() {
            Some(size) => low?.checked_add(size),
            None => self.address_of(store, value).ok(),
        }
    }

    /// Where the range list is that an attribute names.
    pub fn list_of(&self, store: &Store, value: &Value<'_>) -> Option<u64> {
        match value {
            AttributeValue::RangeListsRef(offset) => Some(offset.0),
            AttributeValue::SecOffset(offset) => Some(*offset),
            AttributeValue::DebugRngListsIndex(index) => {
                let offset = index.0.checked_mul(self.word.into())?.checked_add(self.range_lists_base)?;
                let distance = self.read_word(store, Section::RangeLists, offset).ok()?;
                self.range_lists_base.checked_add(distance)
            }
            _ => None,
        }
    }

    /// The text of an attribute, cut to `limit`.
    ///
    /// # Errors
    /// There is none.
    pub fn string(&self, store: &Store, value: &Value<'_>, limit: usize) -> Result<String> {
        match value {
            AttributeValue::String(text) => {
                let mut bytes = vec![0; text.len().min(limit as u64) as usize];
                text.clone().read_slice(&mut bytes)?;
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            AttributeValue::DebugStrRef(offset) => store.string(Section::Str, offset.0, limit),
            AttributeValue::DebugLineStrRef(offset) => store.string(Section::LineStr, offset.0, limit),
            AttributeValue::DebugStrOffsetsIndex(index) => self.indexed_string(store, index.0, limit),
            _ => Err(Error::UnsupportedAttributeForm),
        }
    }

    /// The string of an index, cut to `limit`.
    ///
    /// # Errors
    /// There is none.
    pub fn indexed_string(&self, store: &Store, index: u64, limit: usize) -> Result<String> {
        let offset = index
            .checked_mul(self.word.into())
            .and_then(|offset| offset.checked_add(self.string_offsets_base));
        let offset = self.read_word(store, Section::StrOffsets, offset.ok_or(Error::OffsetOutOfBounds)?)?;
        store.string(Section::Str, offset, limit)
    }

    fn read_word(&self, store: &Store, section: Section, offset: u64) -> Result<u64> {
        store.at(section, offset)?.read_address(self.word)
    }
}

/// The abbreviation that stands first, which mostly is that of the first entry: the others need not be read for it.
fn first_abbreviation(store: &Store, offset: u64) -> Result<Abbreviations> {
    let mut first = store.at(Section::Abbrev, offset)?;
    let mut bytes = first.clone();
    bytes.truncate(bytes.len().min(MAX_ABBREVIATIONS))?;
    // Code, tag, and whether there are children.
    bytes.skip_leb128()?;
    bytes.skip_leb128()?;
    bytes.skip(1)?;
    loop {
        let (name, form) = (bytes.read_uleb128()?, bytes.read_uleb128_u16()?);
        if gimli::DwForm(form) == gimli::DW_FORM_implicit_const {
            bytes.skip_leb128()?;
        }
        if (name, form) == (0, 0) {
            break;
        }
    }
    first.truncate(bytes.position().saturating_sub(offset))?;
    DebugAbbrev::from(first).abbreviations(DebugAbbrevOffset(0))
}
