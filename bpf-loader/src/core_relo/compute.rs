//! From a field, type or enumerator to the number that an instruction must hold.

use super::RelocKind;
use super::spec::Spec;
use crate::btf::{BtfId, Kind, Type};
use crate::bytes::Endian;
use crate::error::{Error, Result};
use crate::fuel::Fuel;

/// What a relocation comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution {
    /// What the compiler must have put into the instruction, where that is certain. It isn't for bit-fields, where
    /// compilers load differently, and for ids, which linkers leave stale.
    pub expected: Option<u64>,
    /// What the instruction must hold; `None` if the kernel has no such field or enumerator, so that the instruction must
    /// not be executed.
    pub value: Option<u64>,
    /// What happens to the width of an instruction that loads or stores the field.
    pub width: Width,
}

/// Width of a load or store of the relocated field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// Stays.
    Same,
    /// Becomes that of the kernel's field: both are pointers or unsigned, so the value is extended correctly.
    Change {
        /// Size in bytes of the field, or of an element if it is an array, as compiled.
        local: u32,
        /// The same in the kernel.
        target: u32,
    },
    /// Cannot be changed: the value read would be wrong. Other instructions than loads and stores are unaffected.
    Unsafe {
        /// As above.
        local: u32,
        /// As above.
        target: u32,
    },
}

/// The answer for one BTF.
struct Answer {
    /// `None` if the instruction must be poisoned.
    value: Option<u64>,
    certain: bool,
    /// Size and type of what a load would read; (0, void) where no load does.
    access: (u32, BtfId),
}

impl Answer {
    fn certain(value: u64) -> Self {
        Self { value: Some(value), certain: true, access: (0, BtfId::VOID) }
    }

    fn poison() -> Self {
        Self { value: None, ..Self::certain(0) }
    }
}

/// What the relocation comes to if the kernel's counterpart is `target`, `None` for a kernel that has none.
pub(super) fn compute(
    kind: RelocKind,
    local: &Spec<'_>,
    target: Option<&Spec<'_>>,
    fuel: &mut Fuel,
) -> Result<Resolution> {
    if kind == RelocKind::TypeIdLocal {
        return Ok(Resolution { expected: None, value: Some(u64::from(local.root.0)), width: Width::Same });
    }
    let answer = |spec, fuel: &mut Fuel| match kind {
        kind if kind.is_field() => field(kind, spec, fuel),
        kind if kind.is_type() => whole_type(kind, spec, fuel),
        kind => enumerator(kind, spec),
    };
    let (own, other) = (answer(Some(local), fuel)?, answer(target, fuel)?);
    let width = match target {
        Some(target) if own.access.0 != other.access.0 => {
            let types = (local.btf.type_by_id(own.access.1)?, target.btf.type_by_id(other.access.1)?);
            width(&types.0, own.access.0, &types.1, other.access.0)
        }
        _ => Width::Same,
    };
    let expected = own.value.filter(|_| own.certain);
    Ok(Resolution { expected, value: other.value, width })
}

fn width(local: &Type<'_>, local_size: u32, target: &Type<'_>, target_size: u32) -> Width {
    let unsigned = |ty: &Type<'_>| ty.int().is_some_and(|int| !int.signed);
    let pointers = local.kind() == Kind::Ptr && target.kind() == Kind::Ptr;
    if pointers || unsigned(local) && unsigned(target) {
        Width::Change { local: local_size, target: target_size }
    } else {
        Width::Unsafe { local: local_size, target: target_size }
    }
}

/// Size of an element of the innermost array, or of the type itself if it is none: what one load can read.
fn element_size(spec: &Spec<'_>, id: BtfId, fuel: &mut Fuel) -> Result<u32> {
    let mut ty = fuel.skip(spec.btf, id)?;
    while let Some(array) = ty.array() {
        ty = fuel.skip(spec.btf, array.element)?;
    }
    fuel.size(spec.btf, ty.id())
}

fn field(kind: RelocKind, spec: Option<&Spec<'_>>, fuel: &mut Fuel) -> Result<Answer> {
    if kind == RelocKind::FieldExists {
        return Ok(Answer::certain(u64::from(spec.is_some())));
    }
    let Some(spec) = spec else { return Ok(Answer::poison()) };
    let unsupported = |type_id, problem| Error::CoreUnsupported { kind, type_id, problem };
    let last = spec.path.last().ok_or(unsupported(spec.root, "no field named"))?;
    if last.name.is_none() {
        return match kind {
            RelocKind::FieldByteOffset => {
                let access = (element_size(spec, last.type_id, fuel)?, last.type_id);
                Ok(Answer { access, ..Answer::certain(u64::from(spec.bit_offset / 8)) })
            }
            RelocKind::FieldByteSize => Ok(Answer::certain(u64::from(fuel.size(spec.btf, last.type_id)?))),
            _ => Err(Box::new(unsupported(last.type_id, "not for an array's element"))),
        };
    }
    let member = spec.btf.type_by_id(last.type_id)?.member(last.index);
    let member = member.ok_or(Error::BtfTypeTruncated { type_id: last.type_id })?;
    let ty = fuel.skip(spec.btf, member.type_id)?;
    let bits = u32::from(member.bitfield_size);
    let place = match bits {
        0 => Place::plain(spec.bit_offset, fuel.size(spec.btf, ty.id())?),
        bits => Place::bitfield(spec.bit_offset, bits, ty.size().unwrap_or_default()),
    };
    let place = place.ok_or(unsupported(ty.id(), "cannot be read by a load of at most 8 bytes"))?;
    // Whatever is a matter of how a bit-field is loaded is the compiler's choice.
    let guessed = |value: u32| Answer { certain: bits == 0, ..Answer::certain(u64::from(value)) };
    // Shifts of a field wider than 64 bits wrap, in libbpf as here: no program can use them.
    let wrapping = |value: u64| Answer { certain: bits == 0, ..Answer::certain(value) };
    Ok(match kind {
        RelocKind::FieldByteOffset if bits == 0 => {
            Answer { access: (element_size(spec, ty.id(), fuel)?, ty.id()), ..guessed(place.offset) }
        }
        RelocKind::FieldByteOffset => guessed(place.offset),
        RelocKind::FieldByteSize => guessed(place.size),
        RelocKind::FieldSigned => {
            let signed = ty.kind().is_enum() && ty.kflag() || ty.int().is_some_and(|int| int.signed);
            Answer::certain(u64::from(signed))
        }
        RelocKind::FieldLshift => wrapping(place.left_shift(spec.btf.endian())),
        _ => Answer::certain(64u64.wrapping_sub(place.bits)),
    })
}

/// The memory to load for a field.
struct Place {
    /// Bytes from the start of the structure.
    offset: u32,
    /// Bytes to load.
    size: u32,
    /// First bit of the field within them.
    first_bit: u64,
    /// Bits of the field.
    bits: u64,
}

impl Place {
    fn plain(bit_offset: u32, size: u32) -> Option<Self> {
        Some(Self { offset: bit_offset / 8, size, first_bit: 0, bits: u64::from(size) * 8 })
    }

    /// The smallest aligned load, no smaller than the declared type, that covers the bits.
    fn bitfield(bit_offset: u32, bits: u32, declared: u32) -> Option<Self> {
        let mut size = if matches!(declared, 1 | 2 | 4 | 8) { declared } else { return None };
        loop {
            let offset = bit_offset / 8 / size * size;
            // offset * 8 <= bit_offset, which fits.
            let first_bit = bit_offset - offset * 8;
            if u64::from(first_bit) + u64::from(bits) <= u64::from(size) * 8 {
                return Some(Self { offset, size, first_bit: first_bit.into(), bits: bits.into() });
            }
            size = if size < 8 { size * 2 } else { return None };
        }
    }

    /// Bits to shift a loaded field left so that its top bit becomes bit 63, on a machine of that byte order.
    fn left_shift(&self, endian: Endian) -> u64 {
        match endian {
            Endian::Little => 64u64.wrapping_sub(self.first_bit + self.bits),
            Endian::Big => 64u64.wrapping_sub(u64::from(self.size) * 8).wrapping_add(self.first_bit),
        }
    }
}

fn whole_type(kind: RelocKind, spec: Option<&Spec<'_>>, fuel: &mut Fuel) -> Result<Answer> {
    let value = match (kind, spec) {
        (_, None) => 0,
        (RelocKind::TypeIdTarget, Some(spec)) => u64::from(spec.root.0),
        (RelocKind::TypeSize, Some(spec)) => u64::from(fuel.size(spec.btf, spec.root)?),
        (_, Some(_)) => 1,
    };
    Ok(Answer { certain: kind != RelocKind::TypeIdTarget, ..Answer::certain(value) })
}

fn enumerator(kind: RelocKind, spec: Option<&Spec<'_>>) -> Result<Answer> {
    if kind == RelocKind::EnumvalExists {
        return Ok(Answer::certain(u64::from(spec.is_some())));
    }
    let Some(spec) = spec else { return Ok(Answer::poison()) };
    let unnamed = Error::CoreUnsupported { kind, type_id: spec.root, problem: "no enumerator named" };
    let Some(last) = spec.path.last() else { return Err(Box::new(unnamed)) };
    let ty = spec.btf.type_by_id(last.type_id)?;
    let enumerator = ty.enumerators().nth(last.index as usize).ok_or(unnamed)?;
    Ok(Answer::certain(enumerator.bits))
}
