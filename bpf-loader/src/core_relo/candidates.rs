//! The kernel's types that a relocation may mean: of the same kind, and of the same name but for flavours.

use crate::btf::index::{Root, essential_name, kind_class};
use crate::btf::{Btf, BtfId, Type};
use crate::error::{Error, Result};
use crate::fuel::Fuel;
use crate::sorted::SortedMap;
use crate::target::TargetBtf;

/// A type of the kernel or of a module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'t> {
    pub btf: &'t Btf<'t>,
    pub id: BtfId,
}

/// What a local type's counterparts are looked for by.
pub(super) fn root<'b>(ty: &Type<'b>, fuel: &mut Fuel) -> Result<Root<'b>> {
    Ok((essential_name(fuel.name(ty.btf(), ty.name_offset())?), kind_class(ty.kind())))
}

/// Candidates for all relocations of an object.
pub(super) struct Candidates<'l, 't> {
    /// By what was looked for.
    found: SortedMap<Root<'l>, Vec<Candidate<'t>>>,
    /// By local type: those that none of its relocations so far has ruled out.
    left: SortedMap<BtfId, Vec<Candidate<'t>>>,
}

impl<'l, 't> Candidates<'l, 't> {
    /// Looks for `locals` in one pass over the kernel's types, then for what it lacks in those of the modules.
    pub fn find(
        locals: impl Iterator<Item = Type<'l>>,
        target: &'t dyn TargetBtf,
        fuel: &mut Fuel,
    ) -> Result<Self> {
        let mut found = SortedMap::new();
        for ty in locals {
            match root(&ty, fuel) {
                Ok(root) if !root.0.is_empty() => {
                    found.insert(root, Vec::new());
                }
                Err(error) if matches!(*error, Error::TooComplex { .. }) => return Err(error),
                // A name that is missing or cannot be read is an error of its relocation alone.
                _ => {}
            }
        }
        if !found.is_empty() {
            search(&mut found, target.vmlinux()?.ok_or(Error::CoreNoTarget)?, fuel)?;
        }
        let mut missing: SortedMap<_, _> = found
            .iter()
            .filter(|(_, candidates)| candidates.is_empty())
            .map(|(&root, _)| (root, Vec::new()))
            .collect();
        if !missing.is_empty() {
            for module in target.modules()? {
                search(&mut missing, &module.btf, fuel)?;
            }
            found.extend(missing);
        }
        Ok(Self { found, left: SortedMap::new() })
    }

    /// Candidates for a local type.
    pub fn of(&mut self, local: &Type<'l>, fuel: &mut Fuel) -> Result<&mut Vec<Candidate<'t>>> {
        let root = root(local, fuel)?;
        if root.0.is_empty() {
            return Err(Box::new(Error::CoreAnonymous { type_id: local.id() }));
        }
        if !self.left.contains_key(&local.id()) {
            let all = self.found.get(&root).cloned().unwrap_or_default();
            fuel.spend(1 + all.len() as u64)?;
            self.left.insert(local.id(), all);
        }
        Ok(self.left.entry(local.id()).or_default())
    }
}

/// Adds the types of `btf` itself, not of its base.
fn search<'t>(
    wanted: &mut SortedMap<Root<'_>, Vec<Candidate<'t>>>,
    btf: &'t Btf<'t>,
    fuel: &mut Fuel,
) -> Result<()> {
    let roots: Vec<Root<'_>> = wanted.keys().copied().collect();
    for (root, ids) in roots.iter().zip(btf.find_roots(&roots, fuel)?) {
        if let Some(candidates) = wanted.get_mut(root) {
            candidates.extend(ids.into_iter().map(|id| Candidate { btf, id }));
        }
    }
    Ok(())
}
