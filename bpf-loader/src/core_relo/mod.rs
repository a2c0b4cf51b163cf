//! CO-RE: what an object's code assumed of kernel types, made true for the kernel at hand.
//!
//! A relocation says: this instruction holds an offset (or a size, an id, ...) of the field that the access string
//! `0:1:2` reaches from the local type `[12]`. [`resolve`] looks for types of the same name in the kernel, finds the field
//! there by its name, and computes what the instruction must hold; [`patch`] writes it. The rules are those of libbpf's
//! relo_core.c, the kernel's own implementation; where a program asks for what a kernel lacks, its instruction is
//! poisoned, so that only code that is really reached fails, in the verifier.

mod candidates;
mod compat;
mod compute;
mod minimize;
mod patch;
mod resolve;
mod spec;

#[cfg(test)]
mod tests;

use core::fmt;

pub(crate) use compat::types_are_compatible;
pub use compute::{Resolution, Width};
pub use minimize::minimize;
pub use patch::{POISON, Patched, Poison, patch, poisoned_insn};
pub use resolve::{describe, resolve, resolve_within};
pub(crate) use resolve::{describe_within, roots};

/// What a relocation asks about the field, type or enumerator that it names (`enum bpf_core_relo_kind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelocKind {
    /// Offset of a field in bytes; of a bit-field, of the memory to load.
    FieldByteOffset,
    /// Size of a field in bytes; of a bit-field, of the memory to load.
    FieldByteSize,
    /// 1 if the field exists.
    FieldExists,
    /// 1 if the field is signed.
    FieldSigned,
    /// Bits by which to shift a loaded bit-field left in 64 bits.
    FieldLshift,
    /// Bits by which to shift it right thereafter.
    FieldRshift,
    /// Id of the type in the object's BTF.
    TypeIdLocal,
    /// Id of the type in the kernel's BTF.
    TypeIdTarget,
    /// 1 if a type of that name and kind exists.
    TypeExists,
    /// Size of the type in bytes.
    TypeSize,
    /// 1 if the enumerator exists.
    EnumvalExists,
    /// Its value.
    EnumvalValue,
    /// 1 if a type exists that has all of the local one's members.
    TypeMatches,
}

impl RelocKind {
    const ALL: [Self; 13] = [
        Self::FieldByteOffset,
        Self::FieldByteSize,
        Self::FieldExists,
        Self::FieldSigned,
        Self::FieldLshift,
        Self::FieldRshift,
        Self::TypeIdLocal,
        Self::TypeIdTarget,
        Self::TypeExists,
        Self::TypeSize,
        Self::EnumvalExists,
        Self::EnumvalValue,
        Self::TypeMatches,
    ];

    /// The kind numbered `number` in `.BTF.ext`.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// About a field of a structure?
    pub fn is_field(self) -> bool {
        !self.is_type() && !self.is_enumval()
    }

    /// About a type as a whole?
    pub fn is_type(self) -> bool {
        matches!(
            self,
            Self::TypeIdLocal | Self::TypeIdTarget | Self::TypeExists | Self::TypeSize | Self::TypeMatches
        )
    }

    /// About an enumerator?
    pub fn is_enumval(self) -> bool {
        matches!(self, Self::EnumvalExists | Self::EnumvalValue)
    }
}

impl fmt::Display for RelocKind {
    /// As libbpf prints them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FieldByteOffset => "byte_off",
            Self::FieldByteSize => "byte_sz",
            Self::FieldExists => "field_exists",
            Self::FieldSigned => "signed",
            Self::FieldLshift => "lshift_u64",
            Self::FieldRshift => "rshift_u64",
            Self::TypeIdLocal => "local_type_id",
            Self::TypeIdTarget => "target_type_id",
            Self::TypeExists => "type_exists",
            Self::TypeSize => "type_size",
            Self::EnumvalExists => "enumval_exists",
            Self::EnumvalValue => "enumval_value",
            Self::TypeMatches => "type_matches",
        })
    }
}
