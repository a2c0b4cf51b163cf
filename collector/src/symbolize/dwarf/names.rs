//! Names of functions: of an entry, or of the one that it refers to.

use gimli::{AttributeValue, Error, Result, UnitHeader, UnitOffset};

use super::pages::{Bytes, Section, Store};
use super::root::{MAX_ATTRIBUTES, Root, Value};
use super::units::Units;

/// References that are followed: an inlined call's to a function, and that one's to its declaration.
const MAX_HOPS: usize = 8;
/// Bytes of a name that are kept.
const MAX_NAME: usize = 16 * 1024;

/// Where the entry of a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// In this file.
    Here(u64),
    /// In the file that it shares entries with (`dwz`).
    Shared(u64),
}

impl Origin {
    /// The entry that an attribute of a unit refers to.
    pub fn of(header: &UnitHeader<Bytes<'_>>, value: &Value<'_>) -> Option<Self> {
        match value {
            AttributeValue::UnitRef(offset) => {
                header.offset().as_debug_info_offset()?.0.checked_add(offset.0).map(Self::Here)
            }
            AttributeValue::DebugInfoRef(offset) => Some(Self::Here(offset.0)),
            AttributeValue::DebugInfoRefSup(offset) => Some(Self::Shared(offset.0)),
            _ => None,
        }
    }
}

/// A file, or the one that it shares entries with.
pub(super) struct Half<'d> {
    pub store: &'d Store,
    pub units: &'d Units,
}

/// The name of the function whose entry is at `origin`: mangled, if it is there.
///
/// # Errors
/// What it refers to is damaged, or the work was too much.
pub(super) fn name(own: &Half<'_>, shared: Option<&Half<'_>>, origin: Origin) -> Result<Option<String>> {
    let mut next = Some(origin);
    let mut in_shared = false;
    let mut plain = None;
    for _ in 0..MAX_HOPS {
        let Some(origin) = next.take() else { break };
        let offset = match origin {
            Origin::Here(offset) => offset,
            Origin::Shared(offset) => {
                in_shared = true;
                offset
            }
        };
        let half = if in_shared { shared.ok_or(Error::Io)? } else { own };
        let start = half.units.holding(offset).ok_or(Error::OffsetOutOfBounds)?;
        let header = Root::header(half.store, start)?;
        let table = half.store.abbreviations(header.debug_abbrev_offset().0)?;
        let inside = UnitOffset(offset.saturating_sub(start));
        let mut entries = header.entries_raw(&table, Some(inside))?;
        let Some(abbreviation) = entries.read_abbreviation()? else { break };
        let (mut linkage, mut short) = (None, None);
        for spec in abbreviation.attributes().iter().take(MAX_ATTRIBUTES) {
            let attribute = entries.read_attribute(*spec)?;
            match attribute.name() {
                gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name => {
                    linkage = Some(attribute.value())
                }
                gimli::DW_AT_name => short = Some(attribute.value()),
                gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => {
                    next = Origin::of(&header, &attribute.value());
                }
                _ => {}
            }
        }
        let text = |value: Value<'_>| match value {
            AttributeValue::DebugStrRefSup(offset) => {
                let store = shared.ok_or(Error::Io)?.store;
                store.string(Section::Str, offset.0, MAX_NAME)
            }
            AttributeValue::DebugStrOffsetsIndex(_) => {
                let root = Root::read(half.store, &header)?.ok_or(Error::Io)?;
                root.string(half.store, &value, MAX_NAME)
            }
            value => Root::default().string(half.store, &value, MAX_NAME),
        };
        if let Some(value) = linkage {
            return text(value).map(Some);
        }
        if let (None, Some(value)) = (&plain, short) {
            plain = Some(text(value)?);
        }
    }
    Ok(plain)
}
