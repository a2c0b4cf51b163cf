//! Of a kernel's types, those that relocations need: some KB instead of megabytes, for firmware to carry.

use super::RelocKind;
use super::resolve::resolve_telling;
use super::spec::{Accessor, Spec};
use crate::btf::encode::{Builder, info};
use crate::btf::ext::CoreRelo;
use crate::btf::{Btf, BtfId, Kind, Type};
use crate::error::{Error, Result};
use crate::fuel::Fuel;
use crate::object::ObjectSpec;
use crate::sorted::{SortedMap, SortedSet};
use crate::target::{ModuleBtf, TargetBtf};

/// Makes BTF with what the relocations of all functions of `objects` need of the types of a kernel: structures with the
/// members that are asked for, enumerations with their enumerators. Every relocation of these objects comes to the same value
/// with it, but for ids of types, which differ.
///
/// Qualifiers, and aliases that nobody asks for, are left out; pointers point to void unless what is behind them is
/// compared.
///
/// # Errors
///
/// `TooComplex`; those of following types that make no sense.
pub fn minimize(kernel: &Btf<'_>, objects: &[&ObjectSpec<'_>]) -> Result<Vec<u8>> {
    let relos = |object: &ObjectSpec<'_>| {
        let sections = object.ext.iter().flat_map(|ext| ext.core_relos());
        sections.flat_map(|section| section.records).collect()
    };
    of_relocations(kernel, objects.iter().filter_map(|object| Some((object.btf.as_ref()?, relos(object)))))
}

/// [`minimize`] by the objects' types and relocations.
pub(super) fn of_relocations<'l>(
    kernel: &Btf<'_>,
    objects: impl IntoIterator<Item = (&'l Btf<'l>, Vec<CoreRelo>)>,
) -> Result<Vec<u8>> {
    let mut needed = Needed { kernel, kept: SortedMap::new(), fuel: Fuel::new(0), seen: SortedSet::new() };
    for (btf, relos) in objects {
        needed.fuel = Fuel::OBJECT.clone();
        needed.add(btf, relos)?;
    }
    needed.write()
}

/// A kernel of which there is nothing but its types.
struct Alone<'t>(&'t Btf<'t>);

impl TargetBtf for Alone<'_> {
    fn vmlinux(&self) -> Result<Option<&Btf<'_>>> {
        Ok(Some(self.0))
    }

    fn modules(&self) -> Result<&[ModuleBtf<'_>]> {
        Ok(&[])
    }
}

/// How much of a type is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Look {
    /// Its kind, name and size.
    Outside,
    /// The same of what it points to, returns and takes.
    Through,
    /// All members, and theirs.
    Inside,
    /// As `Inside`, but structures from outside: behind a pointer.
    Behind,
}

/// What is kept of a type.
#[derive(Default)]
struct Kept {
    /// Members or enumerators.
    parts: SortedSet<u32>,
    /// What a pointer points to.
    pointee: bool,
}

struct Needed<'t> {
    kernel: &'t Btf<'t>,
    kept: SortedMap<BtfId, Kept>,
    fuel: Fuel,
    seen: SortedSet<(BtfId, Look)>,
}

impl<'t> Needed<'t> {
    fn add(&mut self, local: &Btf<'_>, relos: Vec<CoreRelo>) -> Result<()> {
        let kernel = Alone(self.kernel);
        let mut found = Vec::new();
        // What is wrong with a relocation stays wrong with it, as far as types are compared at all.
        resolve_telling(local, relos, &kernel, &mut self.fuel, &mut |kind, spec: &Spec<'_>| {
            found.push((kind, spec.root, spec.path.iter().map(Step::from).collect::<Vec<_>>()));
        })?;
        for (kind, root, path) in found {
            self.find(kind, root, &path)?;
        }
        Ok(())
    }

    /// Keeps what a relocation has found: `path` below `root`.
    fn find(&mut self, kind: RelocKind, root: BtfId, path: &[Step]) -> Result<()> {
        self.kept.entry(root).or_default();
        if kind.is_type() {
            return self
                .keep(root, if kind == RelocKind::TypeMatches { Look::Inside } else { Look::Through });
        }
        let mut at = self.keep_one(root)?.id();
        for (position, step) in path.iter().enumerate() {
            if step.named && kind.is_enumval() {
                self.keep_part(step.type_id, step.index)?;
            } else if step.named {
                self.way_to(at, step.type_id)?;
                at = self.keep_part(step.type_id, step.index)?;
                self.keep(at, Look::Outside)?;
            } else if position > 0 {
                at = step.type_id;
            }
            at = self.fuel.skip(self.kernel, at)?.id();
        }
        Ok(())
    }

    /// Keeps a type itself, without qualifiers and aliases.
    fn keep_one(&mut self, id: BtfId) -> Result<Type<'t>> {
        let ty = self.fuel.skip(self.kernel, id)?;
        if ty.id() != BtfId::VOID {
            self.kept.entry(ty.id()).or_default();
        }
        Ok(ty)
    }

    /// Keeps a member or enumerator; the member's type.
    fn keep_part(&mut self, id: BtfId, index: u32) -> Result<BtfId> {
        let ty = self.keep_one(id)?;
        self.kept.entry(ty.id()).or_default().parts.insert(index);
        Ok(ty.member(index).map_or(BtfId::VOID, |member| member.type_id))
    }

    /// Keeps the anonymous members that lead from a structure to that one inside it. Whether there are any.
    fn way_to(&mut self, from: BtfId, to: BtfId) -> Result<bool> {
        let mut ways = vec![(self.fuel.skip(self.kernel, from)?.id(), Vec::new())];
        let to = self.fuel.skip(self.kernel, to)?.id();
        while let Some((at, way)) = ways.pop() {
            if at == to {
                for (id, index) in way {
                    self.keep_part(id, index)?;
                }
                return Ok(true);
            }
            for (index, member) in (0..).zip(self.kernel.type_by_id(at)?.members()) {
                self.fuel.spend(1 + way.len() as u64)?;
                if self.kernel.string_bytes(member.name_offset)?.is_empty() {
                    let inner = self.fuel.skip(self.kernel, member.type_id)?.id();
                    ways.push((inner, [&way[..], &[(at, index)]].concat()));
                }
            }
        }
        Ok(false)
    }

    /// Keeps a type and whatever of other types is looked at with it.
    fn keep(&mut self, id: BtfId, look: Look) -> Result<()> {
        let mut left = vec![(id, look)];
        while let Some((id, look)) = left.pop() {
            let ty = self.keep_one(id)?;
            if !self.seen.insert((ty.id(), look)) {
                continue;
            }
            let all_parts = match ty.kind() {
                Kind::Enum | Kind::Enum64 => matches!(look, Look::Inside | Look::Behind),
                kind => kind.is_composite() && look == Look::Inside,
            };
            if all_parts {
                self.fuel.spend(u64::from(ty.vlen()))?;
                self.kept.entry(ty.id()).or_default().parts.extend(0..ty.vlen());
                left.extend(ty.members().map(|member| (member.type_id, look)));
            }
            match ty.kind() {
                Kind::Ptr if look != Look::Outside => {
                    self.kept.entry(ty.id()).or_default().pointee = true;
                    left.push((ty.referred(), if look == Look::Inside { Look::Behind } else { look }));
                }
                Kind::Array => {
                    if let Some(array) = ty.array() {
                        left.extend([(array.element, look), (array.index, Look::Outside)]);
                    }
                }
                Kind::FuncProto => {
                    self.fuel.spend(u64::from(ty.vlen()))?;
                    left.push((ty.referred(), look));
                    left.extend(ty.params().map(|param| (param.type_id, look)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn write(mut self) -> Result<Vec<u8>> {
        // From the size of `long`, readers tell that of a pointer.
        let long =
            self.kernel.types_of(Kind::Int).find(|ty| ty.pointer_size_hint().is_some()).map(|ty| ty.id());
        if let Some(long) = long.filter(|_| !self.kept.is_empty()) {
            self.kept.entry(long).or_default();
        }
        // All pointers whose pointee nobody looks at are one.
        let is_plain = |id: &BtfId, kept: &Kept| {
            !kept.pointee && self.kernel.type_by_id(*id).is_ok_and(|ty| ty.kind() == Kind::Ptr)
        };
        let mut builder = Builder::new(self.kernel.endian());
        let plain = self.kept.iter().any(|(id, kept)| is_plain(id, kept)).then(|| builder.ptr(BtfId::VOID));
        let mut ids = SortedMap::new();
        let mut next = builder.next_id();
        for (id, kept) in &self.kept {
            let plain = plain.filter(|_| is_plain(id, kept));
            ids.insert(*id, plain.unwrap_or(next));
            next.0 += u32::from(plain.is_none());
        }
        for (id, kept) in &self.kept {
            if plain.is_none_or(|plain| ids.get(id) != Some(&plain)) {
                self.write_type(self.kernel.type_by_id(*id)?, kept, &ids, &mut builder)?;
            }
        }
        Ok(builder.build())
    }

    fn write_type(
        &self,
        ty: Type<'_>,
        kept: &Kept,
        ids: &SortedMap<BtfId, BtfId>,
        builder: &mut Builder,
    ) -> Result<()> {
        let id_of = |id: BtfId| -> Result<u32> {
            let ty = self.kernel.skip_mods_and_typedefs(id)?;
            Ok(ids.get(&ty.id()).map_or(0, |id| id.0))
        };
        let name = |offset: u32, builder: &mut Builder| {
            Ok::<_, Box<Error>>(builder.string(self.kernel.string(offset)?))
        };
        let is_kept = |index: &u32| kept.parts.contains(index);
        let mut words = Vec::new();
        let mut len = 0;
        let mut size_or_type = ty.referred().0;
        match ty.kind() {
            Kind::Struct | Kind::Union => {
                for (_, member) in (0..).zip(ty.members()).filter(|(index, _)| is_kept(index)) {
                    let flagged = if ty.kflag() { u32::from(member.bitfield_size) << 24 } else { 0 };
                    words.extend([
                        name(member.name_offset, builder)?,
                        id_of(member.type_id)?,
                        flagged | member.bit_offset,
                    ]);
                    len += 1;
                }
            }
            Kind::Enum | Kind::Enum64 => {
                for (_, value) in (0..).zip(ty.enumerators()).filter(|(index, _)| is_kept(index)) {
                    words.extend([name(value.name_offset, builder)?, value.bits as u32]);
                    if ty.kind() == Kind::Enum64 {
                        words.push((value.bits >> 32) as u32);
                    }
                    len += 1;
                }
            }
            Kind::FuncProto => {
                for param in ty.params() {
                    words.extend([0, id_of(param.type_id)?]);
                    len += 1;
                }
                size_or_type = id_of(ty.referred())?;
            }
            Kind::Array => {
                if let Some(array) = ty.array() {
                    words.extend([id_of(array.element)?, id_of(array.index)?, array.len]);
                }
            }
            Kind::Int => {
                if let Some(int) = ty.int() {
                    let encoding =
                        u32::from(int.signed) | u32::from(int.char) << 1 | u32::from(int.bool) << 2;
                    words.push(encoding << 24 | u32::from(int.offset) << 16 | u32::from(int.bits));
                }
            }
            _ if ty.type_id().is_some() => size_or_type = id_of(ty.referred())?,
            _ => {}
        }
        let name = name(ty.name_offset(), builder)?;
        builder.record(name, info(ty.kind(), len, ty.kflag()), size_or_type, &words);
        Ok(())
    }
}

/// An [`Accessor`], but for its name.
struct Step {
    type_id: BtfId,
    index: u32,
    named: bool,
}

impl From<&Accessor<'_>> for Step {
    fn from(accessor: &Accessor<'_>) -> Self {
        Self { type_id: accessor.type_id, index: accessor.index, named: accessor.name.is_some() }
    }
}
