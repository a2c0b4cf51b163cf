//! When are two types, the object's and the kernel's, the same for a program's purposes?

use crate::btf::index::essential_name;
use crate::btf::{Btf, BtfId, Kind, Type};
use crate::error::{Error, Result};
use crate::fuel::Fuel;

/// How deeply pointers, arrays and prototypes may nest, as in libbpf.
const MAX_DEPTH: u32 = 32;

/// A type and the BTF that it is in.
pub(crate) type In<'b> = (&'b Btf<'b>, BtfId);

/// The same kind, or enumerations of either width?
pub(super) fn same_kind(a: Kind, b: Kind) -> bool {
    a == b || a.is_enum() && b.is_enum()
}

/// Neither is an integer at an offset within its storage, as compilers of long ago described bit-fields.
fn plain_ints(local: &Type<'_>, target: &Type<'_>) -> bool {
    [local, target].iter().all(|ty| ty.int().is_none_or(|int| int.offset == 0))
}

/// May a field of type `local` be read as one of type `target`? Sizes and signs may differ, names of enumerations may
/// not; nothing behind a pointer is looked at.
pub(super) fn fields_are_compatible(
    (local_btf, mut local_id): (&Btf<'_>, BtfId),
    (target_btf, mut target_id): (&Btf<'_>, BtfId),
    fuel: &mut Fuel,
) -> Result<bool> {
    for _ in 0..MAX_DEPTH {
        let (local, target) = (fuel.skip(local_btf, local_id)?, fuel.skip(target_btf, target_id)?);
        if local.kind().is_composite() && target.kind().is_composite() {
            return Ok(true);
        }
        if !same_kind(local.kind(), target.kind()) {
            return Ok(false);
        }
        match local.kind() {
            Kind::Ptr | Kind::Float => return Ok(true),
            Kind::Int => return Ok(plain_ints(&local, &target)),
            Kind::Fwd | Kind::Enum | Kind::Enum64 => {
                let local = essential_name(fuel.name(local_btf, local.name_offset())?);
                let target = essential_name(fuel.name(target_btf, target.name_offset())?);
                return Ok(local.is_empty() || target.is_empty() || local == target);
            }
            Kind::Array => {
                let (Some(local), Some(target)) = (local.array(), target.array()) else { return Ok(false) };
                (local_id, target_id) = (local.element, target.element);
            }
            _ => return Ok(false),
        }
    }
    Err(Box::new(Error::CoreDepth { type_id: local_id }))
}

/// Is `target` the kind of type that `local` is, structures seen from outside? For types whose names are known to match.
pub(crate) fn types_are_compatible(local: In<'_>, target: In<'_>, fuel: &mut Fuel) -> Result<bool> {
    let kinds = (local.0.type_by_id(local.1)?.kind(), target.0.type_by_id(target.1)?.kind());
    Ok(same_kind(kinds.0, kinds.1) && compatible(local, target, MAX_DEPTH, fuel)?)
}

fn compatible(
    (local_btf, mut local_id): In<'_>,
    (target_btf, mut target_id): In<'_>,
    level: u32,
    fuel: &mut Fuel,
) -> Result<bool> {
    for _ in 0..MAX_DEPTH {
        let (local, target) = (fuel.skip(local_btf, local_id)?, fuel.skip(target_btf, target_id)?);
        if !same_kind(local.kind(), target.kind()) {
            return Ok(false);
        }
        (local_id, target_id) = match local.kind() {
            Kind::Void | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Fwd => {
                return Ok(true);
            }
            Kind::Int => return Ok(plain_ints(&local, &target)),
            Kind::Ptr => (local.referred(), target.referred()),
            Kind::Array => {
                let (Some(local), Some(target)) = (local.array(), target.array()) else { return Ok(false) };
                (local.element, target.element)
            }
            Kind::FuncProto => {
                if local.vlen() != target.vlen() {
                    return Ok(false);
                }
                for (own, other) in local.params().zip(target.params()) {
                    let deeper = level.checked_sub(1).ok_or(Error::CoreDepth { type_id: local.id() })?;
                    if !compatible((local_btf, own.type_id), (target_btf, other.type_id), deeper, fuel)? {
                        return Ok(false);
                    }
                }
                (local.referred(), target.referred())
            }
            _ => return Ok(false),
        };
    }
    Err(Box::new(Error::CoreDepth { type_id: local_id }))
}

/// Does `target` have all that `local` has: members by name and type, enumerators by name, parameters by position?
/// Structures behind a pointer are compared by name and kind only.
pub(super) fn types_match(local: In<'_>, target: In<'_>, fuel: &mut Fuel) -> Result<bool> {
    matches(local, target, false, MAX_DEPTH, fuel)
}

fn names_match(local: (&Btf<'_>, u32), target: (&Btf<'_>, u32), fuel: &mut Fuel) -> Result<bool> {
    let (local, target) = (fuel.name(local.0, local.1)?, fuel.name(target.0, target.1)?);
    Ok(essential_name(local) == essential_name(target))
}

fn matches(
    (local_btf, mut local_id): In<'_>,
    (target_btf, mut target_id): In<'_>,
    mut behind_pointer: bool,
    level: u32,
    fuel: &mut Fuel,
) -> Result<bool> {
    let deeper = level.checked_sub(1).ok_or(Error::CoreDepth { type_id: local_id })?;
    for _ in 0..MAX_DEPTH {
        let (local, target) = (fuel.skip(local_btf, local_id)?, fuel.skip(target_btf, target_id)?);
        if !names_match((local_btf, local.name_offset()), (target_btf, target.name_offset()), fuel)? {
            return Ok(false);
        }
        let (own, other) = (local.kind(), target.kind());
        if own.is_enum() {
            return Ok(other.is_enum() && enums_match(&local, &target, fuel)?);
        }
        if behind_pointer && (own.is_composite() || own == Kind::Fwd) {
            return Ok(named_kind(&local) == named_kind(&target));
        }
        if own != other {
            return Ok(false);
        }
        (local_id, target_id) = match own {
            Kind::Void => return Ok(true),
            Kind::Fwd => return Ok(local.kflag() == target.kflag()),
            Kind::Struct | Kind::Union => return composites_match(&local, &target, deeper, fuel),
            Kind::Int => {
                let signs = (local.int().map(|int| int.signed), target.int().map(|int| int.signed));
                return Ok(local.size() == target.size() && signs.0 == signs.1);
            }
            Kind::Ptr => {
                behind_pointer = true;
                (local.referred(), target.referred())
            }
            Kind::Array => match (local.array(), target.array()) {
                (Some(local), Some(target)) if local.len == target.len => (local.element, target.element),
                _ => return Ok(false),
            },
            Kind::FuncProto => {
                if local.vlen() != target.vlen() {
                    return Ok(false);
                }
                for (own, other) in local.params().zip(target.params()) {
                    let (own, other) = ((local_btf, own.type_id), (target_btf, other.type_id));
                    if !matches(own, other, behind_pointer, deeper, fuel)? {
                        return Ok(false);
                    }
                }
                (local.referred(), target.referred())
            }
            _ => return Ok(false),
        };
    }
    Err(Box::new(Error::CoreDepth { type_id: local_id }))
}

/// The kind that a structure or union has or a forward declaration announces; otherwise the type's own.
fn named_kind(ty: &Type<'_>) -> Kind {
    match ty.kind() {
        Kind::Fwd if ty.kflag() => Kind::Union,
        Kind::Fwd => Kind::Struct,
        kind => kind,
    }
}

fn enums_match(local: &Type<'_>, target: &Type<'_>, fuel: &mut Fuel) -> Result<bool> {
    if local.size() != target.size() || local.vlen() > target.vlen() {
        return Ok(false);
    }
    for own in local.enumerators() {
        let mut matched = false;
        for other in target.enumerators() {
            let (own, other) = ((local.btf(), own.name_offset), (target.btf(), other.name_offset));
            matched = names_match(own, other, fuel)?;
            if matched {
                break;
            }
        }
        if !matched {
            return Ok(false);
        }
    }
    Ok(true)
}

fn composites_match(local: &Type<'_>, target: &Type<'_>, level: u32, fuel: &mut Fuel) -> Result<bool> {
    if local.vlen() > target.vlen() {
        return Ok(false);
    }
    for own in local.members() {
        let mut matched = false;
        for other in target.members() {
            let names = ((local.btf(), own.name_offset), (target.btf(), other.name_offset));
            if !names_match(names.0, names.1, fuel)? {
                continue;
            }
            let types = ((local.btf(), own.type_id), (target.btf(), other.type_id));
            matched = matches(types.0, types.1, false, level, fuel)?;
            if matched {
                break;
            }
        }
        if !matched {
            return Ok(false);
        }
    }
    Ok(true)
}
