//! All relocations of an object against one kernel.

use super::RelocKind;
use super::candidates::{Candidate, Candidates, root};
use super::compat::{types_are_compatible, types_match};
use super::compute::{Resolution, compute};
use super::spec::{Spec, shortened};
use crate::btf::ext::CoreRelo;
use crate::btf::index::Root;
use crate::btf::{Btf, Type};
use crate::error::excerpt;
use crate::error::{Error, Result};
use crate::fuel::Fuel;
use crate::target::TargetBtf;

/// Resolves an object's relocations, answering in their order.
///
/// One pass over the kernel's types serves them all, so they are best given together, those of every program and section
/// (candidates that one relocation rules out are ruled out for later ones of the same local type, too). `local` are the
/// object's types as the compiler wrote them, with pointers of 8 bytes. An inner error concerns one relocation: the
/// program that has it cannot be loaded, others can.
///
/// # Errors
///
/// `CoreNoTarget` if the kernel has no BTF; what reading it meets.
pub fn resolve<'l>(
    local: &'l Btf<'l>,
    relos: impl IntoIterator<Item = CoreRelo>,
    target: &dyn TargetBtf,
) -> Result<Vec<Result<Resolution>>> {
    resolve_within(local, relos, target, &mut Fuel::OBJECT.clone())
}

/// [`resolve`] with another bound on the number of comparisons.
///
/// # Errors
///
/// As [`resolve`], and `TooComplex`.
pub fn resolve_within<'l>(
    local: &'l Btf<'l>,
    relos: impl IntoIterator<Item = CoreRelo>,
    target: &dyn TargetBtf,
    fuel: &mut Fuel,
) -> Result<Vec<Result<Resolution>>> {
    resolve_telling(local, relos, target, fuel, &mut |_, _| {})
}

/// [`resolve_within`], which tells every counterpart that it finds to `found`.
pub(super) fn resolve_telling<'l>(
    local: &'l Btf<'l>,
    relos: impl IntoIterator<Item = CoreRelo>,
    target: &dyn TargetBtf,
    fuel: &mut Fuel,
    found: &mut impl FnMut(RelocKind, &Spec<'_>),
) -> Result<Vec<Result<Resolution>>> {
    let relos: Vec<_> = relos.into_iter().collect();
    let mut candidates = Candidates::find(searched(local, &relos), target, fuel)?;
    Ok(relos.iter().map(|relo| resolve_one(local, relo, &mut candidates, fuel, found)).collect())
}

/// The local types whose counterparts are looked for.
fn searched<'l, 'r>(
    local: &'l Btf<'l>,
    relos: &'r [CoreRelo],
) -> impl Iterator<Item = Type<'l>> + use<'l, 'r> {
    let relos = relos.iter().filter(|relo| relo.kind().is_ok_and(|kind| kind != RelocKind::TypeIdLocal));
    relos.filter_map(|relo| local.type_by_id(relo.type_id).ok())
}

/// What [`resolve`] will look for in the kernel's types, for [`TargetBtf::expect`].
pub(crate) fn roots<'l>(local: &'l Btf<'l>, relos: &[CoreRelo]) -> Vec<Root<'l>> {
    let mut fuel = Fuel::OBJECT.clone();
    searched(local, relos).filter_map(|ty| root(&ty, &mut fuel).ok()).collect()
}

fn resolve_one<'l>(
    local: &'l Btf<'l>,
    relo: &CoreRelo,
    candidates: &mut Candidates<'l, '_>,
    fuel: &mut Fuel,
    tell: &mut impl FnMut(RelocKind, &Spec<'_>),
) -> Result<Resolution> {
    let kind = relo.kind()?;
    let ty = local.type_by_id(relo.type_id)?;
    let spec = Spec::parse(local, relo, kind, fuel)?;
    if kind == RelocKind::TypeIdLocal {
        return compute(kind, &spec, None, fuel);
    }
    let candidates = candidates.of(&ty, fuel)?;
    let mut agreed: Option<(u32, Resolution)> = None;
    let mut matching = Vec::new();
    for &candidate in candidates.iter() {
        let Some(found) = find(kind, &spec, candidate, fuel)? else { continue };
        tell(kind, &found);
        let resolution = compute(kind, &spec, Some(&found), fuel)?;
        match agreed {
            None => agreed = Some((found.bit_offset, resolution)),
            Some((bit_offset, first)) => {
                let ambiguous = |what, first, second| {
                    Box::new(Error::CoreAmbiguous { what, first, candidate: candidate.id, second })
                };
                if bit_offset != found.bit_offset {
                    let offsets = (u64::from(bit_offset), u64::from(found.bit_offset));
                    return Err(ambiguous("bit offset", Some(offsets.0), Some(offsets.1)));
                }
                if first.value != resolution.value {
                    return Err(ambiguous("value", first.value, resolution.value));
                }
            }
        }
        matching.push(candidate);
    }
    match agreed {
        Some((_, resolution)) => {
            *candidates = matching;
            Ok(resolution)
        }
        None => compute(kind, &spec, None, fuel),
    }
}

/// The counterpart of `spec` in a candidate, if it has one.
fn find<'t>(
    kind: RelocKind,
    spec: &Spec<'_>,
    candidate: Candidate<'t>,
    fuel: &mut Fuel,
) -> Result<Option<Spec<'t>>> {
    fuel.spend(1)?;
    if !kind.is_type() {
        return spec.find_in(candidate.btf, candidate.id, kind, fuel);
    }
    let types = ((spec.btf, spec.root), (candidate.btf, candidate.id));
    let fits = match kind {
        RelocKind::TypeMatches => types_match(types.0, types.1, fuel)?,
        _ => types_are_compatible(types.0, types.1, fuel)?,
    };
    Ok(fits.then(|| Spec::whole(candidate.btf, candidate.id)))
}

/// What a relocation is about, as a programmer would write it, with the access string:
/// `struct task_struct.no_such_member (0:1)`, `enum e::VALUE (0:0)`, `struct s`.
///
/// Long names are cut.
pub fn describe(local: &Btf<'_>, relo: &CoreRelo) -> String {
    describe_within(local, relo, &mut Fuel::OBJECT.clone())
}

/// [`describe`] with another bound on the number of steps: the fields are left out when it is reached.
pub(crate) fn describe_within(local: &Btf<'_>, relo: &CoreRelo, fuel: &mut Fuel) -> String {
    excerpt(&full_description(local, relo, fuel))
}

fn full_description(local: &Btf<'_>, relo: &CoreRelo, fuel: &mut Fuel) -> String {
    let access = shortened(local.string_bytes(relo.access).unwrap_or(b"?"));
    let Ok(ty) = local.type_by_id(relo.type_id) else { return format!("type {} ({access})", relo.type_id) };
    let name = match ty.name_bytes() {
        Ok(b"") | Err(_) => "<anonymous>".to_owned(),
        Ok(name) => shortened(name),
    };
    let mut text = format!("{} {name}", ty.kind());
    let Ok(kind) = relo.kind() else { return format!("{text} ({access})") };
    if kind.is_type() {
        return text;
    }
    if let Ok(spec) = Spec::parse(local, relo, kind, fuel) {
        text.push_str(&path_text(kind, &spec));
    }
    format!("{text} ({access})")
}

fn path_text(kind: RelocKind, spec: &Spec<'_>) -> String {
    let mut text = String::new();
    for (position, accessor) in spec.path.iter().enumerate() {
        match accessor.name {
            Some(name) => {
                text.push_str(if kind.is_enumval() { "::" } else { "." });
                text.push_str(&shortened(name));
            }
            None if position > 0 || accessor.index > 0 => text.push_str(&format!("[{}]", accessor.index)),
            None => {}
        }
    }
    text
}
