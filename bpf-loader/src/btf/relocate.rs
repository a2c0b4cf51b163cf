//! Module BTF that brings its own small base (`.BTF.base`, Linux 6.11), put onto a kernel's.
//!
//! A module that is built apart from its kernel cannot know the numbers of the kernel's types. Its BTF continues a distilled base
//! instead, which has of each type that it refers to the name, and the size where that matters; here the counterparts are found
//! and the numbers changed. The rules are those of libbpf's `btf_relocate.c`, which the kernel shares.

use std::sync::Arc;

use super::encode::assemble;
use super::index::{Root, kind_class};
use super::types::HEADER_LEN;
use super::{Btf, BtfBytes, BtfId, Kind, MAX_CHAIN, Type};
use crate::bytes::{Bytes, Endian};
use crate::error::{Error, Result};
use crate::fuel::Fuel;
use crate::sorted::{SortedMap, SortedSet};

/// Bytes of `split`, which continues `distilled`, changed to continue `base`, which stands alone.
///
/// # Errors
///
/// Those of parsing; `BtfBase` if byte orders differ or `base` has a base; `BtfUnexpectedKind` for a distilled type of a kind that
/// none has; `BtfRelocation` if the kernel has no such type, or several; `BtfKind` for a kind that is newer than this library;
/// `TooComplex`.
pub fn relocate<'a>(
    split: impl Into<BtfBytes<'a>>,
    distilled: impl Into<BtfBytes<'a>>,
    base: &Btf<'_>,
    fuel: &mut Fuel,
) -> Result<Vec<u8>> {
    let distilled = Arc::new(Btf::parse(distilled)?);
    let split = Btf::parse_split(split, Arc::clone(&distilled))?;
    if base.base.is_some() || base.endian != split.endian {
        return Err(Box::new(Error::BtfBase));
    }
    fuel.spend(u64::from(split.count))?;
    let ids = map_types(&split, &distilled, base, fuel)?;
    let mut work = Relocation {
        split: &split,
        distilled: &distilled,
        base,
        ids,
        texts: SortedMap::new(),
        types: split.section(split.types).data.to_vec(),
        strings: split.section(split.strings).data.to_vec(),
    };
    let mut types = split.types();
    loop {
        let at = types.at;
        let Some(ty) = types.next() else { break };
        work.rewrite(at, &ty, fuel)?;
    }
    Ok(assemble(split.endian, &work.types, split.section(split.layout).data, &work.strings))
}

/// The base's counterpart of each distilled type, by its id.
fn map_types(split: &Btf<'_>, distilled: &Btf<'_>, base: &Btf<'_>, fuel: &mut Fuel) -> Result<Vec<BtfId>> {
    let embedded = embedded(split, fuel)?;
    // A forward declaration may be answered by the declared type itself.
    let asked: Vec<(Type<'_>, [Root<'_>; 2])> = distilled
        .types()
        .map(|ty| {
            let name = fuel.name(distilled, ty.name_offset())?;
            let full = if ty.kflag() { Kind::Union } else { Kind::Struct };
            let kinds = match ty.kind() {
                Kind::Fwd => [Kind::Fwd, full],
                kind @ (Kind::Int | Kind::Float | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64) => {
                    [kind_class(kind); 2]
                }
                kind => {
                    let expected = "a type that a base is distilled to";
                    return Err(Box::new(Error::BtfUnexpectedKind { type_id: ty.id(), kind, expected }));
                }
            };
            Ok((ty, kinds.map(|kind| (super::index::essential_name(name), kind))))
        })
        .collect::<Result<_>>()?;
    let roots: Vec<Root<'_>> = asked.iter().flat_map(|(_, roots)| roots.iter().copied()).collect();
    let found = base.find_roots(&roots, fuel)?;
    let mut ids = vec![BtfId::VOID];
    for ((ty, roots), found) in asked.iter().zip(found.chunks(2)) {
        // Both roots are the same but for forward declarations.
        let distinct = if roots[0] == roots[1] { 1 } else { 2 };
        let name = ty.name_bytes()?;
        let mut candidates = Vec::new();
        for &id in found.iter().take(distinct).flatten() {
            fuel.spend(1)?;
            let candidate = base.type_by_id(id)?;
            if candidate.name_is(name) && counts_as(ty, &candidate) {
                candidates.push(candidate);
            }
        }
        // Sizes of structures may differ between kernels as long as nothing depends on them.
        if ty.kind().is_composite() && (candidates.len() > 1 || embedded.contains(&ty.id())) {
            candidates.retain(|candidate| candidate.size() == ty.size());
        }
        match candidates.as_slice() {
            [one] => ids.push(one.id()),
            _ => {
                return Err(Box::new(Error::BtfRelocation {
                    name: String::from_utf8_lossy(name.get(..256).unwrap_or(name)).into_owned(),
                    kind: ty.kind(),
                    candidates: candidates.len(),
                }));
            }
        }
    }
    Ok(ids)
}

/// Whether a type of the base with the same name may be what a distilled one stands for, sizes of structures aside.
fn counts_as(distilled: &Type<'_>, candidate: &Type<'_>) -> bool {
    match distilled.kind() {
        Kind::Int => distilled.int() == candidate.int() && distilled.size() == candidate.size(),
        Kind::Float | Kind::Enum | Kind::Enum64 => distilled.size() == candidate.size(),
        Kind::Fwd => candidate.kind() != Kind::Fwd || distilled.kflag() == candidate.kflag(),
        _ => true,
    }
}

/// Distilled structures that the module's own have inside, whose size therefore must be right.
fn embedded(split: &Btf<'_>, fuel: &mut Fuel) -> Result<SortedSet<BtfId>> {
    let mut embedded = SortedSet::new();
    for member in split.types().flat_map(|ty| ty.members()) {
        let mut ty = split.type_by_id(member.type_id)?;
        for _ in 0..MAX_CHAIN {
            fuel.spend(1)?;
            ty = match ty.array() {
                Some(array) => split.type_by_id(array.element)?,
                None if ty.is_modifier_or_typedef() => split.type_by_id(ty.referred())?,
                None => break,
            };
        }
        if ty.id() < split.first_id() && ty.kind().is_composite() {
            embedded.insert(ty.id());
        }
    }
    Ok(embedded)
}

struct Relocation<'b> {
    split: &'b Btf<'b>,
    distilled: &'b Btf<'b>,
    base: &'b Btf<'b>,
    ids: Vec<BtfId>,
    /// Places of strings of the distilled base in the new file's own.
    texts: SortedMap<u32, u32>,
    types: Vec<u8>,
    strings: Vec<u8>,
}

impl Relocation<'_> {
    fn endian(&self) -> Endian {
        self.split.endian
    }

    fn rewrite(&mut self, at: usize, ty: &Type<'_>, fuel: &mut Fuel) -> Result<()> {
        let members = ty.vlen() as usize;
        fuel.spend(1 + members as u64)?;
        self.text(at, fuel)?;
        let first = at + HEADER_LEN;
        // Words of a member; which of them is a name, and which a type.
        let (count, words, name, id) = match ty.kind() {
            Kind::Struct | Kind::Union => (members, 3, Some(0), Some(1)),
            Kind::Enum => (members, 2, Some(0), None),
            Kind::Enum64 => (members, 3, Some(0), None),
            Kind::FuncProto => (members, 2, Some(0), Some(1)),
            Kind::Datasec => (members, 3, None, Some(0)),
            Kind::Array => {
                self.id(first)?;
                return self.id(first + 4);
            }
            Kind::Unknown(kind) => return Err(Box::new(Error::BtfKind { type_id: ty.id(), kind })),
            _ => (0, 0, None, None),
        };
        if ty.type_id().is_some() {
            self.id(at + 8)?;
        }
        for row in (first..).step_by(4 * words.max(1)).take(count) {
            if let Some(name) = name {
                self.text(row + 4 * name, fuel)?;
            }
            if let Some(id) = id {
                self.id(row + 4 * id)?;
            }
        }
        Ok(())
    }

    fn word(&self, at: usize) -> u32 {
        Bytes::new(&self.types, self.endian()).u32(at).unwrap_or_default()
    }

    fn set(&mut self, at: usize, word: u32) {
        let bytes = self.endian().put_u32(word);
        if let Some(place) = self.types.get_mut(at..at.saturating_add(4)) {
            place.copy_from_slice(&bytes);
        }
    }

    /// The id at `at` of the new numbering.
    fn id(&mut self, at: usize) -> Result<()> {
        let old = self.word(at);
        let new = match self.ids.get(old as usize) {
            Some(id) => id.0,
            None => {
                let own =
                    old.checked_sub(self.distilled.count).and_then(|own| own.checked_add(self.base.count));
                own.ok_or(Error::BtfTooLarge)?
            }
        };
        self.set(at, new);
        Ok(())
    }

    /// The string offset at `at` of the new numbering.
    fn text(&mut self, at: usize, fuel: &mut Fuel) -> Result<()> {
        let (old, first) = (self.word(at), self.split.first_string);
        let after_base = |own: u32| {
            let base = u32::try_from(self.base.strings.len).map_err(|_| Error::BtfTooLarge)?;
            own.checked_add(base).ok_or(Error::BtfTooLarge)
        };
        let new = match (old, old.checked_sub(first)) {
            (0, _) => return Ok(()),
            (_, Some(own)) => after_base(own)?,
            (_, None) => match self.texts.get(&old) {
                Some(&known) => known,
                None => {
                    let text = fuel.name(self.distilled, old)?;
                    let place = u32::try_from(self.strings.len()).map_err(|_| Error::BtfTooLarge)?;
                    // Strings may share their ends: many of one long name must not become many long names.
                    fuel.spend(text.len() as u64)?;
                    self.strings.extend_from_slice(text);
                    self.strings.push(0);
                    let new = after_base(place)?;
                    self.texts.insert(old, new);
                    new
                }
            },
        };
        self.set(at, new);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::Linkage;
    use crate::btf::encode::{Builder, Field, SIGNED};

    /// A kernel: numbers differ from those of [`module`]'s base, and there is more.
    fn kernel(endian: Endian, device_size: u32) -> Vec<u8> {
        let mut b = Builder::new(endian);
        b.int("char", 1, SIGNED);
        b.structure("other", 4, &[]);
        b.structure("device", device_size, &[]);
        b.enumeration64("state", false, &[("ON", 1 << 40)]);
        b.int("int", 4, SIGNED);
        b.structure("opaque", 40, &[]);
        b.forward("known_by_name", true);
        b.build()
    }

    /// The distilled base, and a module on it that has a `device` inside.
    fn module(endian: Endian) -> (Vec<u8>, Vec<u8>) {
        let mut b = Builder::new(endian);
        let int = b.int("int", 4, SIGNED);
        let device = b.structure("device", 16, &[]);
        let state = b.enumeration("state", false, &[]);
        let opaque = b.forward("opaque", false);
        let declared = b.forward("known_by_name", true);
        let distilled = b.build();
        // An enumeration without values has a size.
        let mut distilled = distilled;
        let at = {
            let btf = Btf::parse(&distilled[..]).unwrap();
            btf.types.at + btf.types_from(state).unwrap().at
        };
        distilled[at + 8..at + 12].copy_from_slice(&endian.put_u32(8));
        let base = Btf::parse(&distilled[..]).unwrap();
        let mut m = Builder::split(&base);
        let pointer = m.ptr(opaque);
        let to_declared = m.ptr(declared);
        let array = m.array(device, int, 2);
        let fields = [
            Field::at("first", array, 0),
            Field::at("opaque", pointer, 32),
            Field::at("declared", to_declared, 40),
            Field::at("state", state, 48),
        ];
        let private = m.structure("private", 56, &fields);
        let to_private = m.ptr(private);
        let probe = m.prototype(int, &[("device", to_private)]);
        m.function("probe", probe, Linkage::Static);
        // A name that the base has, too.
        m.typedef("int", int);
        let split = m.build();
        (distilled, split)
    }

    #[test]
    fn numbers_become_those_of_the_kernel() {
        for endian in [Endian::Little, Endian::Big] {
            let (distilled, split) = module(endian);
            let kernel = kernel(endian, 16);
            let base = Btf::parse(&kernel[..]).unwrap();
            let new = relocate(&split[..], &distilled[..], &base, &mut Fuel::new(1000)).unwrap();
            let module = Btf::parse_split(new, Arc::new(Btf::parse(&kernel[..]).unwrap())).unwrap();
            module.validate().unwrap();
            let ty = |id| module.type_by_id(id).unwrap();
            let private = ty(module.find_by_name("private", Kind::Struct).unwrap());
            let members: Vec<_> = private.members().collect();
            assert_eq!(
                members.iter().map(|m| m.name().unwrap()).collect::<Vec<_>>(),
                ["first", "opaque", "declared", "state"]
            );
            let array = ty(members[0].type_id).array().unwrap();
            let named = |id, kind, name: &str| {
                let ty = ty(id);
                assert!(id < module.first_id(), "{id}");
                assert_eq!((ty.kind(), ty.name().unwrap()), (kind, name));
            };
            named(array.element, Kind::Struct, "device");
            named(array.index, Kind::Int, "int");
            named(ty(members[1].type_id).type_id().unwrap(), Kind::Struct, "opaque");
            named(ty(members[2].type_id).type_id().unwrap(), Kind::Fwd, "known_by_name");
            named(members[3].type_id, Kind::Enum64, "state");
            let function = ty(module.find_by_name("probe", Kind::Func).unwrap());
            let prototype = ty(function.type_id().unwrap());
            named(prototype.type_id().unwrap(), Kind::Int, "int");
            let param = prototype.params().next().unwrap();
            assert_eq!(ty(param.type_id).type_id(), Some(private.id()));
            let typedef = ty(module.find_by_name("int", Kind::Typedef).unwrap());
            named(typedef.type_id().unwrap(), Kind::Int, "int");
        }
    }

    #[test]
    fn a_type_that_is_not_there_or_of_other_size_is_an_error() {
        let (distilled, split) = module(Endian::Little);
        let relocate = |kernel: &[u8]| {
            relocate(&split[..], &distilled[..], &Btf::parse(kernel).unwrap(), &mut Fuel::new(1000))
        };
        let missing =
            |name: &str, kind| Box::new(Error::BtfRelocation { name: name.into(), kind, candidates: 0 });
        // What has a device inside cannot have one of another size.
        assert_eq!(relocate(&kernel(Endian::Little, 24)), Err(missing("device", Kind::Struct)));
        let empty = Builder::new(Endian::Little).build();
        assert_eq!(relocate(&empty), Err(missing("int", Kind::Int)));
        assert_eq!(relocate(&kernel(Endian::Big, 16)), Err(Box::new(Error::BtfBase)));
        // Two of the same size: nobody can tell which.
        let mut b = Builder::new(Endian::Little);
        b.int("int", 4, SIGNED);
        b.structure("device", 16, &[]);
        b.structure("device", 16, &[]);
        let several = Error::BtfRelocation { name: "device".into(), kind: Kind::Struct, candidates: 2 };
        assert_eq!(relocate(&b.build()), Err(several.into()));
    }

    #[test]
    fn work_is_bounded_and_no_cut_panics() {
        let (distilled, split) = module(Endian::Little);
        let kernel = kernel(Endian::Little, 16);
        let base = Btf::parse(&kernel[..]).unwrap();
        assert_eq!(
            relocate(&split[..], &distilled[..], &base, &mut Fuel::new(30)),
            Err(Box::new(Error::TooComplex { what: "comparisons of types and names", limit: 30 }))
        );
        for at in 0..split.len() {
            for flip in [1, 0x80] {
                let mut broken = split.clone();
                broken[at] ^= flip;
                let _ = relocate(&broken[..], &distilled[..], &base, &mut Fuel::new(1000));
            }
        }
        for at in 0..distilled.len() {
            let mut broken = distilled.clone();
            broken[at] ^= 0x81;
            let _ = relocate(&split[..], &broken[..], &base, &mut Fuel::new(1000));
        }
    }
}
