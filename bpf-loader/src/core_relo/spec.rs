//! Access strings: the way from a type to a field, followed in the object's types and found again in the kernel's.

use super::RelocKind;
use super::compat::fields_are_compatible;
use crate::btf::ext::CoreRelo;
use crate::btf::index::essential_name;
use crate::btf::{Btf, BtfId, Kind, Type};
use crate::error::excerpt;
use crate::error::{Error, Result};
use crate::fuel::Fuel;

/// Steps of an access string, as in libbpf and the kernel.
const MAX_DEPTH: usize = 64;

/// A step that means something to a reader: a named field, an array element or an enumerator. Passing through an
/// anonymous structure is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accessor<'b> {
    /// The structure, or the type of the array's elements, or the enumeration.
    pub type_id: BtfId,
    /// Which member, element or enumerator.
    pub index: u32,
    /// Name of the member or enumerator.
    pub name: Option<&'b [u8]>,
}

/// An access, followed through the types of one BTF.
#[derive(Debug, Clone)]
pub(super) struct Spec<'b> {
    pub btf: &'b Btf<'b>,
    pub root: BtfId,
    pub path: Vec<Accessor<'b>>,
    /// Offset in bits of what was reached.
    pub bit_offset: u32,
    /// Members and elements passed, anonymous ones included.
    depth: usize,
}

impl<'b> Spec<'b> {
    /// The type `root`, nothing of it in particular.
    pub fn whole(btf: &'b Btf<'b>, root: BtfId) -> Self {
        Self { btf, root, path: Vec::new(), bit_offset: 0, depth: 0 }
    }

    /// Moves on by `count` times `size` bytes.
    fn advance(&mut self, count: u32, size: u32) -> Result<()> {
        let bits = count.checked_mul(size).and_then(|bytes| bytes.checked_mul(8));
        self.advance_bits(bits)
    }

    fn advance_bits(&mut self, bits: Option<u32>) -> Result<()> {
        let end = bits.and_then(|bits| self.bit_offset.checked_add(bits));
        self.bit_offset = end.ok_or(Error::BtfSizeOverflow { type_id: self.root })?;
        Ok(())
    }

    fn push(&mut self, type_id: BtfId, index: u32, name: Option<&'b [u8]>) {
        self.path.push(Accessor { type_id, index, name });
    }

    fn descend(&mut self) -> Result<()> {
        if self.depth >= MAX_DEPTH {
            return Err(Box::new(Error::CoreDepth { type_id: self.root }));
        }
        self.depth += 1;
        Ok(())
    }

    /// May the array just reached be read beyond its length? So it is with one of length 0 that ends its structure.
    fn is_flexible(&self, len: u32) -> Result<bool> {
        match self.path.last() {
            Some(Accessor { type_id, index, name: Some(_) }) if len == 0 => {
                Ok(self.btf.type_by_id(*type_id)?.vlen().checked_sub(1) == Some(*index))
            }
            _ => Ok(false),
        }
    }

    /// Follows the access string of a relocation through the object's own types.
    pub fn parse(btf: &'b Btf<'b>, relo: &CoreRelo, kind: RelocKind, fuel: &mut Fuel) -> Result<Self> {
        let access = access_string(btf, relo, fuel)?;
        let wrong =
            |problem| Box::new(Error::CoreAccess { access: excerpt(access), type_id: relo.type_id, problem });
        let mut spec = Self::whole(btf, relo.type_id);
        if kind.is_type() {
            let root_only = access == "0";
            return if root_only { Ok(spec) } else { Err(wrong("a type takes no access but `0`")) };
        }
        let mut steps = access.split(':').map(|step| parse_step(step).ok_or_else(|| wrong("not a number")));
        let first = steps.next().unwrap_or_else(|| Err(wrong("empty")))?;
        spec.descend()?;
        let ty = fuel.skip(btf, relo.type_id)?;
        if kind.is_enumval() {
            let enumerator = ty.enumerators().nth(first as usize).filter(|_| steps.next().is_none());
            let enumerator = enumerator.ok_or_else(|| wrong("no such enumerator"))?;
            let name = fuel.name(btf, enumerator.name_offset)?;
            spec.push(ty.id(), first, Some(name));
            return Ok(spec);
        }
        spec.push(ty.id(), first, None);
        spec.advance(first, fuel.size(btf, ty.id())?)?;
        let mut at = ty.id();
        for step in steps {
            let step = step?;
            spec.descend()?;
            let ty = fuel.skip(btf, at)?;
            at = match ty.kind() {
                kind if kind.is_composite() => {
                    let member = ty.member(step).ok_or_else(|| wrong("no such member"))?;
                    spec.advance_bits(Some(member.bit_offset))?;
                    let name = fuel.name(btf, member.name_offset)?;
                    if !name.is_empty() {
                        spec.push(ty.id(), step, Some(name));
                    }
                    member.type_id
                }
                Kind::Array => {
                    let Some(array) = ty.array() else { return Err(wrong("no such element")) };
                    let element = fuel.skip(btf, array.element)?.id();
                    if step >= array.len && !spec.is_flexible(array.len)? {
                        return Err(wrong("beyond the end of the array"));
                    }
                    spec.push(element, step, None);
                    spec.advance(step, fuel.size(btf, element)?)?;
                    element
                }
                _ => return Err(wrong("neither structure nor array")),
            };
        }
        Ok(spec)
    }

    /// Finds the same field or enumerator in the type `root` of `target`.
    pub fn find_in<'t>(
        &self,
        target: &'t Btf<'t>,
        root: BtfId,
        kind: RelocKind,
        fuel: &mut Fuel,
    ) -> Result<Option<Spec<'t>>> {
        let mut found = Spec::whole(target, root);
        if kind.is_enumval() {
            return Ok(self.find_enumerator(&mut found, fuel)?.then_some(found));
        }
        let mut at = root;
        for (position, accessor) in self.path.iter().enumerate() {
            let ty = fuel.skip(target, at)?;
            if let Some(name) = accessor.name {
                let own = self.btf.type_by_id(accessor.type_id)?.member(accessor.index);
                let own = own.ok_or(Error::BtfTypeTruncated { type_id: accessor.type_id })?;
                match found.find_member(ty, name, (self.btf, own.type_id), fuel)? {
                    Some(next) => at = next,
                    None => return Ok(None),
                }
                continue;
            }
            // The first accessor steps over whole structures; later ones enter an array.
            at = ty.id();
            if position > 0 {
                let Some(array) = ty.array() else { return Ok(None) };
                if accessor.index >= array.len && !found.is_flexible(array.len)? {
                    return Ok(None);
                }
                at = fuel.skip(target, array.element)?.id();
            }
            found.descend()?;
            found.push(at, accessor.index, None);
            found.advance(accessor.index, fuel.size(target, at)?)?;
        }
        Ok(Some(found))
    }

    fn find_enumerator(&self, found: &mut Spec<'_>, fuel: &mut Fuel) -> Result<bool> {
        let ty = fuel.skip(found.btf, found.root)?;
        let wanted = self.path.first().and_then(|accessor| accessor.name).unwrap_or_default();
        for (index, enumerator) in (0..).zip(ty.enumerators()) {
            let name = fuel.name(found.btf, enumerator.name_offset)?;
            if essential_name(name) == essential_name(wanted) {
                found.push(ty.id(), index, Some(name));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks for a member by name in a structure and the anonymous ones inside it; returns its type if that is compatible
    /// with the `local` one's.
    fn find_member(
        &mut self,
        ty: Type<'b>,
        name: &[u8],
        local: (&Btf<'_>, BtfId),
        fuel: &mut Fuel,
    ) -> Result<Option<BtfId>> {
        for (index, member) in (0..).zip(ty.members()) {
            let (bit_offset, depth) = (self.bit_offset, self.depth);
            self.descend()?;
            self.advance_bits(Some(member.bit_offset))?;
            let own = fuel.name(self.btf, member.name_offset)?;
            let found = if own.is_empty() {
                let inner = fuel.skip(self.btf, member.type_id)?;
                self.find_member(inner, name, local, fuel)?
            } else if own == name {
                if !fields_are_compatible(local, (self.btf, member.type_id), fuel)? {
                    return Ok(None);
                }
                self.push(ty.id(), index, Some(own));
                Some(member.type_id)
            } else {
                None
            };
            if found.is_some() {
                return Ok(found);
            }
            (self.bit_offset, self.depth) = (bit_offset, depth);
        }
        Ok(None)
    }
}

/// The access string, if it is no longer than its greatest number of steps can be.
fn access_string<'b>(btf: &'b Btf<'b>, relo: &CoreRelo, fuel: &mut Fuel) -> Result<&'b str> {
    let bytes = fuel.name(btf, relo.access)?;
    if bytes.len() > MAX_DEPTH * "2147483647:".len() {
        let access = shortened(bytes);
        return Err(Box::new(Error::CoreAccess { access, type_id: relo.type_id, problem: "too long" }));
    }
    core::str::from_utf8(bytes).map_err(|_| Box::new(Error::BtfStringUtf8 { offset: relo.access }))
}

/// Text for people, of names that may be hostile.
pub(super) fn shortened(bytes: &[u8]) -> String {
    match bytes.get(..256) {
        Some(start) if bytes.len() > 256 => format!("{}...", String::from_utf8_lossy(start)),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// A step of an access string. Negative ones once crashed the kernel; `+1` or ` 1` no compiler writes.
fn parse_step(step: &str) -> Option<u32> {
    let digits = !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit());
    let value = step.parse().ok()?;
    (digits && value <= i32::MAX as u32).then_some(value)
}
