//! Map declarations: the `.maps` section's BTF, and one map for each data section.

use crate::stable_sort::sort_by_number;
use std::borrow::Cow;

use bpf_sys::MapType;

use crate::btf::{Btf, BtfId, Kind, Type};
use crate::elf::{R_BPF_64_ABS64, Relocation, Section, SectionIdx, SectionKind, SymbolKind, SymbolSection};
use crate::error::{Error, Result, excerpt};
use crate::insn::Operand;
use crate::legacy_map;
use crate::map::Variable;
use crate::object::{FunctionIdx, MapIdx, ObjectSpec};
use crate::sorted::{SortedMap, SortedSet};
use crate::struct_ops::{self, StructOps};

/// Programs may only read the map (`BPF_F_RDONLY_PROG`, Linux 5.2).
pub const F_RDONLY_PROG: u32 = 1 << 7;
/// The map's memory can be mapped (`BPF_F_MMAPABLE`, Linux 5.5).
pub const F_MMAPABLE: u32 = 1 << 10;

/// A map as the object declares it. Fields may be changed before planning.
#[derive(Debug, Clone)]
pub struct MapSpec<'a> {
    /// The variable's name, or the data section's.
    pub name: Cow<'a, str>,
    /// Map type.
    pub map_type: MapType,
    /// Size of a key in bytes.
    pub key_size: u32,
    /// Size of a value in bytes, of one CPU where the map is per CPU.
    pub value_size: u32,
    /// Number of entries; bytes for ring buffers.
    pub max_entries: u32,
    /// `map_flags` of `BPF_MAP_CREATE`.
    pub flags: u32,
    /// Type-specific (`map_extra`): the number of hash functions of a bloom filter, an arena's address.
    pub map_extra: u64,
    /// Memory node, if one is asked for.
    pub numa_node: Option<u32>,
    /// Pinned by name (`LIBBPF_PIN_BY_NAME`).
    pub pin_by_name: bool,
    /// Type of a key in the object's BTF; void if the declaration gives only a size.
    pub key_type: BtfId,
    /// Type of a value in the object's BTF.
    pub value_type: BtfId,
    /// For a map of maps: what the inner maps are like.
    pub inner: Option<Box<MapSpec<'a>>>,
    /// Initial contents.
    pub contents: Contents<'a>,
    /// Whether loading creates the map; false at first for the sections of `struct_ops` that begin with `?`.
    pub autocreate: bool,
    /// For a data section's map: which.
    pub(crate) data_section: Option<SectionIdx>,
    /// For a data section's map in a plan: the section's global variables.
    pub(crate) variables: Vec<Variable<&'a str>>,
    /// For a declared map: where its variable lies.
    pub(crate) place: Option<(SectionIdx, u64)>,
    /// Offset of the `values` member, for initialisers.
    pub(crate) values_offset: Option<u64>,
    /// Of an arena, where its variables begin in it, in bytes.
    pub(crate) data_offset: u32,
    /// Why its initial contents make no sense; then it cannot be created.
    pub(crate) broken: Option<Box<Error>>,
}

/// What a map holds before any program runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents<'a> {
    /// Nothing, or zeros.
    Empty,
    /// The single value of a data map; what is missing at its end is zero.
    Data(Cow<'a, [u8]>),
    /// Entries of a map of maps or a program array: index and what stands there.
    Slots(Vec<(u32, Slot)>),
    /// The operations of a `struct_ops` map, which are registered on demand.
    StructOps(StructOps<'a>),
}

/// An initial entry of a map of maps or a program array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// Another map of the object.
    Map(MapIdx),
    /// A program of the object.
    Program(FunctionIdx),
}

impl MapSpec<'_> {
    /// The initial value of a data map, grown to at least `len` bytes.
    pub(crate) fn data_mut(&mut self, len: usize) -> &mut [u8] {
        if !matches!(self.contents, Contents::Data(_)) {
            self.contents = Contents::Data(Cow::Owned(Vec::new()));
        }
        let Contents::Data(data) = &mut self.contents else { return &mut [] };
        let data = data.to_mut();
        if data.len() < len {
            data.resize(len, 0);
        }
        data
    }

    /// Bytes of the variables that live in the map.
    pub(crate) fn data_size(&self) -> u64 {
        match &self.contents {
            // An arena has no values.
            Contents::Data(data) if self.map_type == MapType::ARENA => data.len() as u64,
            _ => u64::from(self.value_size),
        }
    }

    /// Whether the map is a data section whose contents programs may only read: it is frozen before they load.
    pub fn is_frozen(&self) -> bool {
        self.data_section.is_some() && self.flags & F_RDONLY_PROG != 0
    }

    /// Whether it is the map of the kernel's configuration.
    pub(crate) fn is_kconfig(&self) -> bool {
        self.data_section == Some(NO_SECTION)
    }

    pub(crate) fn empty(name: Cow<'_, str>) -> MapSpec<'_> {
        MapSpec {
            name,
            map_type: MapType(0),
            key_size: 0,
            value_size: 0,
            max_entries: 0,
            flags: 0,
            map_extra: 0,
            numa_node: None,
            pin_by_name: false,
            key_type: BtfId::VOID,
            value_type: BtfId::VOID,
            inner: None,
            contents: Contents::Empty,
            autocreate: true,
            data_section: None,
            variables: Vec::new(),
            place: None,
            values_offset: None,
            data_offset: 0,
            broken: None,
        }
    }
}

/// `.data`, `.rodata` and `.bss`, each also with a suffix after a dot.
pub(crate) fn is_data_section(section: &Section<'_>) -> bool {
    let named =
        |base: &str| section.name.strip_prefix(base).is_some_and(|r| r.is_empty() || r.starts_with('.'));
    section.allocated
        && !section.executable
        && match section.kind {
            SectionKind::Data => named(".data") || named(".rodata"),
            SectionKind::NoBits => named(".bss"),
            SectionKind::Table => false,
        }
}

/// A program cannot use more than 64. A map takes many times the memory of its symbol, so that without a bound a small
/// file could take a lot.
const MAX_MAPS: usize = 1024;

/// Sections whose variables are maps.
fn map_sections(spec: &ObjectSpec<'_>) -> SortedSet<SectionIdx> {
    let named =
        |name: &str| matches!(name, ".maps" | legacy_map::SECTION) || struct_ops::spec::is_section(name);
    spec.elf.sections().filter_map(|s| s.ok()).filter(|s| named(s.name)).map(|s| s.idx).collect()
}

/// Fills in the object's maps: the declared ones, then the data sections.
pub(crate) fn find_maps<'a>(spec: &mut ObjectSpec<'a>, data_sections: &[Section<'a>]) -> Result<()> {
    let symbols = spec.elf.symbols().filter_map(|s| s.ok()).map(|(_, symbol)| symbol);
    let declarations = map_sections(spec);
    let declared = symbols.filter(|symbol| {
        matches!(symbol.kind, SymbolKind::Object | SymbolKind::None)
            && matches!(symbol.section, SymbolSection::Section(idx) if declarations.contains(&idx))
    });
    if declared.count() + data_sections.len() > MAX_MAPS {
        return Err(Box::new(Error::TooComplex { what: "maps", limit: MAX_MAPS as u64 }));
    }
    let typed_sections = spec.btf.as_ref().map(TypedSections::new).unwrap_or_default();
    let declared = declared_maps(spec, typed_sections.find(".maps"));
    let legacy = legacy_map::declared(spec);
    let data_maps: Vec<_> =
        data_sections.iter().map(|s| (s.name, data_map(s, typed_sections.find(s.name)))).collect();
    let operations = struct_ops::spec::declared(spec, |name| typed_sections.find(name));
    let named_maps = declared.into_iter().chain(legacy).chain(operations).chain(data_maps);
    for (name, map) in named_maps.collect::<Declared<'_>>() {
        match map {
            Ok(map) => spec.maps.push(map),
            Err(e) => spec.broken_maps.push((name, e)),
        }
    }
    arena_globals(spec);
    initial_slots(spec);
    Ok(())
}

/// The section of variables that live in the arena, which has a map of its own in `.maps`.
const ARENA_SECTION: &str = ".addr_space.1";

/// Gives the first arena what its variables hold at first, so that places in their section are places in the arena.
fn arena_globals(spec: &mut ObjectSpec<'_>) {
    let section = spec.elf.sections().filter_map(|s| s.ok()).find(|s| s.name == ARENA_SECTION);
    let Some(section) = section.filter(|s| s.kind == SectionKind::Data) else { return };
    if let Some(arena) = spec.maps.iter_mut().find(|m| m.map_type == MapType::ARENA) {
        arena.data_section = Some(section.idx);
        arena.contents = Contents::Data(Cow::Borrowed(section.data));
    }
}

/// The object's data sections that BTF describes, from one pass over its types.
#[derive(Default)]
struct TypedSections<'b>(Vec<(&'b [u8], BtfId)>);

impl<'b> TypedSections<'b> {
    fn new(btf: &'b Btf<'_>) -> Self {
        let named = btf.types_of(Kind::Datasec).filter_map(|ty| Some((ty.name_bytes().ok()?, ty.id())));
        let mut all: Vec<_> = named.collect();
        all.sort_unstable();
        Self(all)
    }

    /// The first of that name.
    fn find(&self, name: &str) -> Option<BtfId> {
        let at = self.0.partition_point(|(other, _)| *other < name.as_bytes());
        self.0.get(at).filter(|(other, _)| *other == name.as_bytes()).map(|(_, id)| *id)
    }
}

fn data_map<'a>(section: &Section<'a>, value_type: Option<BtfId>) -> Result<MapSpec<'a>> {
    let too_large = || Error::DataSectionSize { section: excerpt(section.name), size: section.size };
    let value_size = u32::try_from(section.size).ok().filter(|&s| s > 0).ok_or_else(too_large)?;
    let read_only = section.name.starts_with(".rodata");
    Ok(MapSpec {
        map_type: MapType::ARRAY,
        key_size: 4,
        value_size,
        max_entries: 1,
        flags: F_MMAPABLE | if read_only { F_RDONLY_PROG } else { 0 },
        value_type: value_type.unwrap_or(BtfId::VOID),
        contents: match section.kind {
            SectionKind::Data => Contents::Data(Cow::Borrowed(section.data)),
            _ => Contents::Empty,
        },
        data_section: Some(section.idx),
        ..MapSpec::empty(Cow::Borrowed(section.name))
    })
}

/// Externs are in no section.
const NO_SECTION: SectionIdx = SectionIdx(0);

/// The map of the kernel's configuration, if the object refers to any. Its value depends on the kernel.
pub(crate) fn kconfig_map<'a>(spec: &ObjectSpec<'a>) -> Option<MapSpec<'a>> {
    let value_size = Some(spec.externs.kconfig_size()).filter(|&size| size > 0)?;
    let value_type = spec.btf.as_ref().and_then(|btf| TypedSections::new(btf).find(KCONFIG));
    Some(MapSpec {
        map_type: MapType::ARRAY,
        key_size: 4,
        value_size,
        max_entries: 1,
        flags: F_MMAPABLE | F_RDONLY_PROG,
        value_type: value_type.unwrap_or(BtfId::VOID),
        data_section: Some(NO_SECTION),
        ..MapSpec::empty(Cow::Borrowed(KCONFIG))
    })
}

/// The section of externs that stand for the kernel's configuration.
pub(crate) const KCONFIG: &str = ".kconfig";

pub(crate) type Declared<'a> = Vec<(&'a str, Result<MapSpec<'a>>)>;

/// Each variable of the `.maps` section. Its place comes from the symbol table, since compilers leave the offsets in
/// BTF to the linker.
fn declared_maps<'a>(spec: &ObjectSpec<'a>, types_of: Option<BtfId>) -> Declared<'a> {
    let mut types: SortedMap<&str, (&Btf<'a>, BtfId)> = SortedMap::new();
    if let (Some(btf), Some(section)) = (&spec.btf, types_of) {
        for variable in btf.type_by_id(section).iter().flat_map(|section| section.section_vars()) {
            // A broken one is missing only if its map is asked for.
            let Ok(variable) = btf.type_by_id(variable.type_id) else { continue };
            let Ok(name) = variable.name() else { continue };
            types.insert(name, (btf, variable.type_id().unwrap_or(BtfId::VOID)));
        }
    }
    let sections: Vec<SectionIdx> =
        spec.elf.sections().filter_map(|s| s.ok()).filter(|s| s.name == ".maps").map(|s| s.idx).collect();
    let mut found = Declared::new();
    for symbol in spec.elf.symbols() {
        let Ok((_, symbol)) = symbol else { continue };
        let SymbolSection::Section(idx) = symbol.section else { continue };
        if symbol.kind != SymbolKind::Object || !sections.contains(&idx) {
            continue;
        }
        let map = match types.get(symbol.name) {
            Some(&(btf, type_id)) => declared_map(btf, symbol.name, type_id, 0),
            None => Err(spec
                .broken_section(".BTF")
                .unwrap_or_else(|| Box::new(Error::MapWithoutBtf { map: excerpt(symbol.name) }))),
        };
        found.push((symbol.name, map.map(|map| MapSpec { place: Some((idx, symbol.value)), ..map })));
    }
    // By section, and there by offset.
    let place = |map: &Result<MapSpec<'_>>| map.as_ref().ok().and_then(|map| map.place);
    sort_by_number(&mut found, |(_, map)| place(map).map_or(0, |(_, offset)| offset));
    sort_by_number(&mut found, |(_, map)| place(map).map_or(0, |(section, _)| u64::from(section.0) + 1));
    found
}

/// Maps of maps nest once.
const MAX_NESTING: u32 = 1;

fn declared_map<'a>(btf: &Btf<'_>, name: &'a str, type_id: BtfId, nesting: u32) -> Result<MapSpec<'a>> {
    let bad = |member: &str, reason: &'static str| {
        Box::new(Error::MapMember { map: excerpt(name), member: excerpt(member), reason: reason.into() })
    };
    let definition = btf.skip_mods_and_typedefs(type_id)?;
    if definition.kind() != Kind::Struct {
        return Err(bad("", "a map is declared by a struct"));
    }
    let mut map = MapSpec::empty(Cow::Borrowed(name));
    for member in definition.members() {
        let field = member.name()?;
        let ty = btf.skip_mods_and_typedefs(member.type_id)?;
        let referred = ty.type_id().unwrap_or(BtfId::VOID);
        let number =
            || integer(btf, &ty)?.ok_or_else(|| bad(field, "it is not declared with __uint or __ulong"));
        let small = || u32::try_from(number()?).map_err(|_| bad(field, "it is larger than 32 bits"));
        match field {
            "type" => map.map_type = MapType(small()?),
            "max_entries" => map.max_entries = small()?,
            "map_flags" => map.flags = small()?,
            "map_extra" => map.map_extra = number()?,
            "numa_node" => map.numa_node = Some(small()?),
            "pinning" => {
                map.pin_by_name = match small()? {
                    0 => false,
                    1 => true,
                    _ => return Err(bad(field, "only 0 (none) and 1 (by name) exist")),
                };
            }
            "key_size" => {
                set_size(&mut map.key_size, small()?).map_err(|()| bad(field, "it contradicts the type"))?
            }
            "value_size" => {
                set_size(&mut map.value_size, small()?)
                    .map_err(|()| bad(field, "it contradicts the type"))?;
            }
            "key" | "value" => {
                if ty.kind() != Kind::Ptr {
                    return Err(bad(field, "it is not declared with __type"));
                }
                let size = btf.resolve_size(referred)?;
                let (to, id) = match field {
                    "key" => (&mut map.key_size, &mut map.key_type),
                    _ => (&mut map.value_size, &mut map.value_type),
                };
                set_size(to, size).map_err(|()| bad(field, "its type contradicts the size"))?;
                *id = referred;
            }
            "values" => {
                let array =
                    ty.array().filter(|a| a.len == 0).ok_or_else(|| bad(field, "it is not an open array"))?;
                let element = btf.skip_mods_and_typedefs(array.element)?;
                if element.kind() != Kind::Ptr {
                    return Err(bad(field, "it is not declared with __array"));
                }
                set_size(&mut map.value_size, 4).map_err(|()| bad(field, "its value is 4 bytes wide"))?;
                map.values_offset = Some(u64::from(member.bit_offset / 8));
                let pointee_id = element.type_id().unwrap_or(BtfId::VOID);
                let pointee = btf.skip_mods_and_typedefs(pointee_id)?;
                if pointee.kind() == Kind::Struct {
                    if nesting >= MAX_NESTING {
                        return Err(bad(field, "maps of maps do not nest further"));
                    }
                    map.inner = Some(Box::new(declared_map(btf, name, pointee_id, nesting + 1)?));
                } else if pointee.kind() != Kind::FuncProto {
                    return Err(bad(field, "its elements are neither maps nor programs"));
                }
            }
            _ => return Err(bad(field, "no such attribute is known")),
        }
    }
    if map.map_type.0 == 0 {
        return Err(bad("type", "it is missing"));
    }
    Ok(map)
}

fn set_size(to: &mut u32, size: u32) -> std::result::Result<(), ()> {
    if *to != 0 && *to != size {
        return Err(());
    }
    *to = size;
    Ok(())
}

/// `__uint(name, N)` is a pointer to an array of N; `__ulong(name, N)` is an enumeration with the single value N.
fn integer(btf: &Btf<'_>, ty: &Type<'_>) -> Result<Option<u64>> {
    Ok(match ty.kind() {
        Kind::Ptr => {
            let array = btf.skip_mods_and_typedefs(ty.type_id().unwrap_or(BtfId::VOID))?;
            array.array().map(|a| u64::from(a.len))
        }
        Kind::Enum | Kind::Enum64 if ty.vlen() == 1 => ty.enumerators().next().map(|e| e.value as u64),
        _ => None,
    })
}

/// Relocations in `.maps` name what stands in a `values` array at first. Where they make no sense, only their map suffers.
fn initial_slots(spec: &mut ObjectSpec<'_>) {
    let maps: SortedMap<_, _> =
        spec.maps.iter().enumerate().filter_map(|(i, m)| Some((m.place?, i))).collect();
    // All variables, since what initialises a broken map must not be taken for another's.
    let variables = spec.elf.symbols().filter_map(|s| s.ok()).filter_map(|(_, symbol)| {
        let SymbolSection::Section(section) = symbol.section else { return None };
        (symbol.kind == SymbolKind::Object).then_some((section, symbol.value))
    });
    let mut places: Vec<_> = variables.map(|place| (place, maps.get(&place).copied())).collect();
    places.sort_unstable();
    let mut slots: Vec<(usize, Result<(u32, Slot)>)> = Vec::new();
    for (target, relocations) in spec.elf.relocation_sections() {
        if !spec.elf.section(target).is_ok_and(|s| s.name == ".maps") {
            continue;
        }
        match relocations {
            Ok(relocations) => {
                for relocation in relocations {
                    // It is for the last variable at or before it.
                    let after = places.partition_point(|(place, _)| *place <= (target, relocation.offset));
                    let last = after.checked_sub(1).and_then(|i| places.get(i));
                    let Some((_, Some(map))) = last else { continue };
                    if let Some(slot) = initial_slot(spec, target, *map, &relocation) {
                        slots.push((*map, slot));
                    }
                }
            }
            Err(error) => {
                let maps = spec.maps.iter().enumerate();
                let initialised = maps.filter(|(_, m)| m.values_offset.is_some());
                slots.extend(initialised.map(|(i, _)| (i, Err(error.clone()))));
            }
        }
    }
    for (map, slot) in slots {
        let Some(map) = spec.maps.get_mut(map) else { continue };
        match (slot, &mut map.contents) {
            (Err(error), _) => map.broken = map.broken.take().or(Some(error)),
            (Ok((index, slot)), contents) => {
                match contents {
                    Contents::Slots(all) => all.push((index, slot)),
                    other => *other = Contents::Slots(vec![(index, slot)]),
                }
                map.max_entries = map.max_entries.max(index.saturating_add(1));
            }
        }
    }
}

/// What a relocation puts in a map, and where; `None` if the map has no `values`.
fn initial_slot(
    spec: &ObjectSpec<'_>,
    section: SectionIdx,
    map: usize,
    r: &Relocation,
) -> Option<Result<(u32, Slot)>> {
    let map = spec.maps.get(map)?;
    let place = map.place.filter(|(s, _)| *s == section)?.1;
    map.values_offset.map(|values| slot_at(spec, place.saturating_add(values), r))
}

/// The same, for a `values` array at this byte of the section.
fn slot_at(spec: &ObjectSpec<'_>, values: u64, r: &Relocation) -> Result<(u32, Slot)> {
    let bad = |reason: &'static str| {
        Box::new(Error::Relocation {
            section: ".maps".into(),
            function: String::new(),
            offset: r.offset,
            symbol: r.symbol,
            reason: reason.into(),
        })
    };
    if r.kind != R_BPF_64_ABS64 {
        return Err(bad("an initialiser takes R_BPF_64_ABS64"));
    }
    let within = r.offset.checked_sub(values).ok_or_else(|| bad("it is before `values`"))?;
    let slot = u32::try_from(within / 8).ok().filter(|_| within % 8 == 0);
    let slot = slot.ok_or_else(|| bad("it is not at an element of `values`"))?;
    let symbol = spec.elf.symbol(r.symbol)?;
    let SymbolSection::Section(target) = symbol.section else { return Err(bad("its symbol is undefined")) };
    let found = if spec.code_section(target).is_some() {
        let start = crate::insn::InsnIdx(
            u32::try_from(symbol.value / 8).map_err(|_| bad("it points past the section"))?,
        );
        Slot::Program(spec.function_at(target, start).ok_or_else(|| bad("it points to no function"))?)
    } else {
        let inner = spec.maps.iter().position(|m| m.place == Some((target, symbol.value)));
        Slot::Map(MapIdx(inner.ok_or_else(|| bad("it points to no map"))? as u32))
    };
    Ok((slot, found))
}

impl ObjectSpec<'_> {
    /// What a relocation to this place means, if it is a map or data.
    pub(crate) fn map_operand(&self, section: SectionIdx, offset: u64) -> Result<Operand> {
        let not_a_map = || Error::NotAMap { section, offset };
        if let Some(i) = self.maps.iter().position(|m| m.place == Some((section, offset))) {
            return Ok(Operand::Map(MapIdx(i as u32)));
        }
        let data = self.maps.iter().position(|m| m.data_section == Some(section)).ok_or_else(not_a_map)?;
        let offset = u32::try_from(offset).map_err(|_| not_a_map())?;
        Ok(Operand::MapValue { map: MapIdx(data as u32), offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::encode::Builder;
    use crate::bytes::Endian;

    #[test]
    fn the_first_type_of_a_section_counts() {
        let mut b = Builder::new(Endian::Little);
        let rodata = b.datasec(".rodata", 4, &[]);
        let maps = b.datasec(".maps", 8, &[]);
        b.datasec(".rodata", 8, &[]);
        b.structure(".bss", 4, &[]);
        let btf = Btf::parse(b.build()).unwrap();
        let sections = TypedSections::new(&btf);
        let found = [".maps", ".rodata", ".bss", ".r", ".rodata.x"].map(|name| sections.find(name));
        assert_eq!(found, [Some(maps), Some(rodata), None, None, None]);
    }
}
