//! Maps as they were declared before BTF: a `struct bpf_map_def` for each variable in the section `maps`.

use std::borrow::Cow;

use bpf_sys::MapType;

use crate::ALL_OBJECTS;
use crate::bytes::Bytes;
use crate::elf::{Section, SymbolKind, SymbolSection};
use crate::error::{Error, excerpt};
use crate::map_def::{Declared, MapSpec};
use crate::object::ObjectSpec;

/// The section's name.
pub(crate) const SECTION: &str = "maps";
/// Type, key size, value size, number of entries and flags, of 32 bits each.
const DEFINITION: usize = 20;

/// Each variable of the section, in the order of their places.
pub(crate) fn declared<'a>(spec: &ObjectSpec<'a>) -> Declared<'a> {
    let sections: Vec<Section<'a>> =
        spec.elf.sections().filter_map(|s| s.ok()).filter(|s| s.name == SECTION).collect();
    let mut found = Declared::new();
    if sections.is_empty() {
        return found;
    }
    for (_, symbol) in spec.elf.symbols().filter_map(|s| s.ok()) {
        let SymbolSection::Section(idx) = symbol.section else { continue };
        let Some(section) = sections.iter().find(|s| s.idx == idx) else { continue };
        // Old compilers give variables no size, nor always a kind.
        if symbol.name.is_empty() || !matches!(symbol.kind, SymbolKind::Object | SymbolKind::None) {
            continue;
        }
        if !ALL_OBJECTS {
            let what = "maps of the section `maps`";
            found.push((symbol.name, Err(Box::new(Error::NotBuiltIn { what }))));
            continue;
        }
        let map = definition(section.data, symbol.value, symbol.size).and_then(|data| {
            read(data, spec).map(|map| MapSpec {
                name: Cow::Borrowed(symbol.name),
                place: Some((idx, symbol.value)),
                ..map
            })
        });
        let bad = |reason: &str| {
            let map = excerpt(symbol.name);
            Box::new(Error::MapMember { map, member: String::new(), reason: reason.into() })
        };
        found.push((symbol.name, map.map_err(bad)));
    }
    found.sort_by_key(|(_, map)| map.as_ref().ok().and_then(|m| m.place));
    found
}

type Plain<T> = core::result::Result<T, &'static str>;

/// The bytes of a variable; what is not said of its size is no more than the fields that all loaders know.
fn definition(section: &[u8], place: u64, size: u64) -> Plain<&[u8]> {
    let start = usize::try_from(place).ok();
    let len = if size == 0 { Some(DEFINITION) } else { usize::try_from(size).ok() };
    let end = start.zip(len).and_then(|(start, len)| start.checked_add(len));
    let data = start.zip(end).and_then(|(start, end)| section.get(start..end));
    let data = data.ok_or("its definition is not inside the section")?;
    if data.len() < DEFINITION {
        return Err("its definition is shorter than 20 bytes");
    }
    Ok(data)
}

fn read<'a>(data: &[u8], spec: &ObjectSpec<'_>) -> Plain<MapSpec<'a>> {
    // Loaders have put fields of their own there, which mean different things to each.
    if data.iter().skip(DEFINITION).any(|&byte| byte != 0) {
        return Err("its definition has more than the 20 bytes that are known");
    }
    let bytes = Bytes::new(data, spec.endian());
    let field = |at| bytes.u32(at).ok_or("its definition is shorter than 20 bytes");
    Ok(MapSpec {
        map_type: MapType(field(0)?),
        key_size: field(4)?,
        value_size: field(8)?,
        max_entries: field(12)?,
        flags: field(16)?,
        ..MapSpec::empty(Cow::Borrowed(""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_lie_in_the_section() {
        let section = [0; 48];
        assert_eq!(definition(&section, 0, 28).map(<[u8]>::len), Ok(28));
        assert_eq!(definition(&section, 28, 0).map(<[u8]>::len), Ok(20));
        assert!(definition(&section, 28, 21).is_err());
        assert!(definition(&section, 0, 16).is_err());
        assert!(definition(&section, u64::MAX, 20).is_err());
    }
}
