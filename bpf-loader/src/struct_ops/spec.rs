//! Variables of the `.struct_ops` sections: each declares a map.

use std::borrow::Cow;

use bpf_sys::uapi::flags::BPF_F_LINK;
use bpf_sys::{Insn, MapType};

use crate::ALL_OBJECTS;
use crate::btf::{Btf, BtfId, Kind, Type};
use crate::elf::{R_BPF_64_ABS64, Relocation, Section, SectionIdx, SymbolKind, SymbolSection};
use crate::error::{Error, Result, excerpt};
use crate::map_def::{Contents, Declared, MapSpec};
use crate::object::{FunctionIdx, ObjectSpec};
use crate::sorted::SortedMap;

/// Sections whose variables are maps of operations; a question mark makes them optional.
const SECTIONS: [&str; 4] = [".struct_ops", ".struct_ops.link", "?.struct_ops", "?.struct_ops.link"];

/// Is that the name of one?
pub(crate) fn is_section(name: &str) -> bool {
    SECTIONS.contains(&name)
}

/// What a variable holds at first, in the object's layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StructOps<'a> {
    /// Its bytes; those of function pointers mean nothing.
    pub(super) data: Cow<'a, [u8]>,
    /// Function pointers that are set, by their offset in bytes. Sorted, each offset once.
    pub(super) functions: Vec<(u32, FunctionIdx)>,
}

impl StructOps<'_> {
    /// The program that the pointer at this offset is set to.
    pub(super) fn function_at(&self, offset: u32) -> Option<FunctionIdx> {
        let found = self.functions.binary_search_by_key(&offset, |(at, _)| *at).ok()?;
        self.functions.get(found).map(|(_, function)| *function)
    }

    fn set_function(&mut self, offset: u32, function: Option<FunctionIdx>) {
        let found = self.functions.binary_search_by_key(&offset, |(at, _)| *at);
        match (found, function) {
            (Ok(at), Some(function)) => {
                if let Some(slot) = self.functions.get_mut(at) {
                    slot.1 = function;
                }
            }
            (Ok(at), None) => {
                self.functions.remove(at);
            }
            (Err(at), Some(function)) => self.functions.insert(at, (offset, function)),
            (Err(_), None) => {}
        }
    }
}

/// Each variable of the sections of operations. `type_of_section` finds a section's type by its name.
pub(crate) fn declared<'a>(
    spec: &ObjectSpec<'a>,
    type_of_section: impl Fn(&str) -> Option<BtfId>,
) -> Declared<'a> {
    if !ALL_OBJECTS {
        return refused(spec);
    }
    let sections: SortedMap<SectionIdx, Section<'a>> = spec
        .elf
        .sections()
        .filter_map(|s| s.ok())
        .filter(|s| is_section(s.name))
        .map(|s| (s.idx, s))
        .collect();
    if sections.is_empty() {
        return Declared::new();
    }
    let types = variable_types(spec, &sections, type_of_section);
    let mut found = Declared::new();
    for (_, symbol) in spec.elf.symbols().filter_map(|s| s.ok()) {
        let SymbolSection::Section(idx) = symbol.section else { continue };
        let Some(section) = sections.get(&idx).filter(|_| symbol.kind == SymbolKind::Object) else {
            continue;
        };
        let map = match (&spec.btf, types.get(&(section.name, symbol.name))) {
            (Some(btf), Some(&type_id)) => variable(btf, type_id, section, symbol.name, symbol.value),
            _ => Err(Box::new(Error::MapWithoutBtf { map: excerpt(symbol.name) })),
        };
        found.push((symbol.name, map));
    }
    found.sort_by_key(|(_, map)| map.as_ref().ok().and_then(|m| m.place));
    initial_functions(spec, &sections, &mut found);
    found
}

/// Each variable, in a build that knows no operations.
fn refused<'a>(spec: &ObjectSpec<'a>) -> Declared<'a> {
    let is_operations = |section: SymbolSection| match section {
        SymbolSection::Section(idx) => spec.elf.section(idx).is_ok_and(|section| is_section(section.name)),
        _ => false,
    };
    let symbols = spec.elf.symbols().filter_map(|s| s.ok()).map(|(_, symbol)| symbol);
    let variables = symbols.filter(|s| s.kind == SymbolKind::Object && is_operations(s.section));
    variables.map(|s| (s.name, Err(Box::new(Error::NotBuiltIn { what: "struct_ops" })))).collect()
}

/// The type of each variable that BTF describes, by section and name.
fn variable_types<'s>(
    spec: &'s ObjectSpec<'_>,
    sections: &SortedMap<SectionIdx, Section<'s>>,
    type_of_section: impl Fn(&str) -> Option<BtfId>,
) -> SortedMap<(&'s str, &'s str), BtfId> {
    let mut types = SortedMap::new();
    let Some(btf) = &spec.btf else { return types };
    for section in sections.values() {
        let Some(datasec) = type_of_section(section.name).and_then(|id| btf.type_by_id(id).ok()) else {
            continue;
        };
        for variable in datasec.section_vars().filter_map(|v| btf.type_by_id(v.type_id).ok()) {
            if let (Ok(name), Some(type_id)) = (variable.name(), variable.type_id()) {
                types.insert((section.name, name), type_id);
            }
        }
    }
    types
}

fn variable<'a>(
    btf: &Btf<'_>,
    type_id: BtfId,
    section: &Section<'a>,
    name: &'a str,
    offset: u64,
) -> Result<MapSpec<'a>> {
    let bad = |reason| fault(name, "", reason);
    let ty = btf.skip_mods_and_typedefs(type_id)?;
    if ty.kind() != Kind::Struct {
        return Err(bad("a map of operations is declared by a struct"));
    }
    if ty.name()?.is_empty() {
        return Err(bad("its struct has no name, by which the kernel could know it"));
    }
    let size = ty.size().unwrap_or_default();
    let bytes = usize::try_from(offset)
        .ok()
        .and_then(|start| section.data.get(start..start.checked_add(size as usize)?))
        .ok_or_else(|| bad("it reaches past its section"))?;
    let (optional, section_name) = match section.name.strip_prefix('?') {
        Some(rest) => (true, rest),
        None => (false, section.name),
    };
    Ok(MapSpec {
        map_type: MapType::STRUCT_OPS,
        key_size: 4,
        value_size: size,
        max_entries: 1,
        flags: if section_name == ".struct_ops.link" { BPF_F_LINK } else { 0 },
        value_type: ty.id(),
        autocreate: !optional,
        contents: Contents::StructOps(StructOps { data: Cow::Borrowed(bytes), functions: Vec::new() }),
        place: Some((section.idx, offset)),
        ..MapSpec::empty(Cow::Borrowed(name))
    })
}

/// Sets the functions that relocations name. `maps` are sorted by place.
fn initial_functions<'a>(
    spec: &ObjectSpec<'a>,
    sections: &SortedMap<SectionIdx, Section<'a>>,
    maps: &mut Declared<'a>,
) {
    let mut programs = SortedMap::new();
    for program in spec.programs.iter().filter(|p| p.is_struct_ops()) {
        if let Some(function) = spec.function(program.function) {
            programs.entry((function.section, function.insns.start)).or_insert(program.function);
        }
    }
    let mut faults = Vec::new();
    for (section, relocations) in spec.elf.relocation_sections() {
        if !sections.contains_key(&section) {
            continue;
        }
        let relocations = match relocations {
            Ok(relocations) => relocations,
            Err(e) => {
                let in_section = |m: &MapSpec<'_>| m.place.is_some_and(|(s, _)| s == section);
                let owners = maps.iter().enumerate().filter(|(_, (_, m))| m.as_ref().is_ok_and(in_section));
                faults.extend(owners.map(|(owner, _)| (owner, e.clone())));
                continue;
            }
        };
        for relocation in relocations {
            // Broken maps have no place and come first.
            let place = |map: &Result<MapSpec<'_>>| map.as_ref().ok().and_then(|m| m.place);
            let after = maps.partition_point(|(_, m)| place(m) <= Some((section, relocation.offset)));
            let Some(owner) = after.checked_sub(1) else { continue };
            let Some((name, Ok(map))) = maps.get_mut(owner) else { continue };
            if let Err(reason) = initial_function(spec, map, section, &relocation, &programs) {
                faults.push((owner, fault(name, "", reason)));
            }
        }
    }
    // Not before, as the maps must stay sorted.
    for (owner, error) in faults {
        if let Some((_, map)) = maps.get_mut(owner) {
            *map = Err(error);
        }
    }
}

fn initial_function(
    spec: &ObjectSpec<'_>,
    map: &mut MapSpec<'_>,
    section: SectionIdx,
    relocation: &Relocation,
    programs: &SortedMap<(SectionIdx, u32), FunctionIdx>,
) -> std::result::Result<(), &'static str> {
    let place = map.place.filter(|(s, _)| *s == section).map(|(_, at)| at);
    let offset = place.and_then(|at| u32::try_from(relocation.offset.checked_sub(at)?).ok());
    let Some(offset) = offset.filter(|&offset| offset < map.value_size) else { return Ok(()) };
    let Contents::StructOps(ops) = &mut map.contents else { return Ok(()) };
    if relocation.kind != R_BPF_64_ABS64 {
        return Err("a function pointer takes R_BPF_64_ABS64");
    }
    let symbol = spec.elf.symbol(relocation.symbol).map_err(|_| "a function pointer has a broken symbol")?;
    let SymbolSection::Section(code) = symbol.section else {
        return Err("a function pointer refers to something outside the object");
    };
    let start = u32::try_from(symbol.value / Insn::SIZE as u64).ok();
    let start = start.filter(|_| symbol.value % Insn::SIZE as u64 == 0);
    let function = start.and_then(|start| programs.get(&(code, start)));
    ops.set_function(offset, Some(*function.ok_or("it points to something that is no struct_ops program")?));
    Ok(())
}

/// What is wrong with a map of operations, or one of its members.
pub(super) fn fault(map: &str, member: &str, reason: impl Into<String>) -> Box<Error> {
    Box::new(Error::StructOps { map: excerpt(map), member: excerpt(member), reason: reason.into() })
}

/// A member of a variable: its type, and its offset and size in bytes.
struct MemberPlace<'b> {
    ty: Type<'b>,
    offset: u32,
    size: u32,
}

impl MemberPlace<'_> {
    fn range(&self) -> std::ops::Range<usize> {
        self.offset as usize..self.offset as usize + self.size as usize
    }
}

impl<'a> ObjectSpec<'a> {
    /// The initial value of a member of a map of operations.
    ///
    /// # Errors
    ///
    /// There is no such map, or it has no such member, or the member is a bit-field or a pointer.
    pub fn struct_ops_member(&self, map: &str, member: &str) -> Result<&[u8]> {
        let place = self.member_place(map, member)?;
        if place.ty.kind() == Kind::Ptr {
            return Err(fault(map, member, "it is a pointer"));
        }
        let ops =
            self.map(map).and_then(StructOps::of).ok_or_else(|| Error::NoSuchMap { name: map.into() })?;
        ops.data.get(place.range()).ok_or_else(|| fault(map, member, "it reaches past its variable"))
    }

    /// Sets the initial value of a member of a map of operations, which is data.
    ///
    /// # Errors
    ///
    /// As [`struct_ops_member`](Self::struct_ops_member), or the value has another size.
    pub fn set_struct_ops_member(&mut self, map: &str, member: &str, value: &[u8]) -> Result<()> {
        let range = {
            let place = self.member_place(map, member)?;
            if place.ty.kind() == Kind::Ptr {
                return Err(fault(map, member, "it is a pointer"));
            }
            place.range()
        };
        if range.len() != value.len() {
            let name = format!("{map}.{member}");
            return Err(Box::new(Error::VariableSize { name, size: range.len() as u64, given: value.len() }));
        }
        let to = self.struct_ops_mut(map)?.data.to_mut().get_mut(range);
        to.ok_or_else(|| fault(map, member, "it reaches past its variable"))?.copy_from_slice(value);
        Ok(())
    }

    /// Sets the program that implements a member of a map of operations, or none.
    ///
    /// # Errors
    ///
    /// There is no such map or program, or the map has no such member, or it is no function pointer, or the program is
    /// not of kind `struct_ops`.
    pub fn set_struct_ops_program(&mut self, map: &str, member: &str, program: Option<&str>) -> Result<()> {
        let offset = {
            let place = self.member_place(map, member)?;
            if !points_to_function(&place.ty)? {
                return Err(fault(map, member, "it is no function pointer"));
            }
            place.offset
        };
        let function = match program {
            None => None,
            Some(name) => {
                let found = self.programs.iter().find(|p| p.name == name);
                let found = found.ok_or_else(|| Error::NoSuchProgram { name: name.into() })?;
                if !found.is_struct_ops() {
                    return Err(fault(map, member, format!("{name} is no struct_ops program")));
                }
                Some(found.function)
            }
        };
        self.struct_ops_mut(map)?.set_function(offset, function);
        Ok(())
    }

    fn member_place(&self, map: &str, member: &str) -> Result<MemberPlace<'_>> {
        let missing = || Error::NoSuchMap { name: map.into() };
        let found = self.map(map).filter(|m| StructOps::of(m).is_some()).ok_or_else(missing)?;
        let btf = self.btf.as_ref().ok_or_else(missing)?;
        let ty = btf.type_by_id(found.value_type)?;
        let place = ty.members().find(|m| m.name() == Ok(member));
        let place = place.ok_or_else(|| fault(map, member, "there is no such member"))?;
        if place.bitfield_size != 0 {
            return Err(fault(map, member, "it is a bit-field"));
        }
        Ok(MemberPlace {
            ty: btf.skip_mods_and_typedefs(place.type_id)?,
            offset: place.bit_offset / 8,
            size: btf.resolve_size(place.type_id)?,
        })
    }

    fn struct_ops_mut(&mut self, map: &str) -> Result<&mut StructOps<'a>> {
        match self.map_mut(map).map(|m| &mut m.contents) {
            Some(Contents::StructOps(ops)) => Ok(ops),
            _ => Err(Box::new(Error::NoSuchMap { name: map.into() })),
        }
    }
}

impl<'a> StructOps<'a> {
    /// Those of a map, if it is one of operations.
    pub(crate) fn of<'s>(map: &'s MapSpec<'a>) -> Option<&'s Self> {
        match &map.contents {
            Contents::StructOps(ops) => Some(ops),
            _ => None,
        }
    }
}

/// Is it, but for aliases and qualifiers, a pointer to a function?
pub(super) fn points_to_function(ty: &Type<'_>) -> Result<bool> {
    if ty.kind() != Kind::Ptr {
        return Ok(false);
    }
    let pointee = ty.btf().skip_mods_and_typedefs(ty.type_id().unwrap_or(BtfId::VOID))?;
    Ok(pointee.kind() == Kind::FuncProto)
}
