//! CO-RE: what an object's code assumed of kernel types, made true for the kernel at hand.

use core::fmt;

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
