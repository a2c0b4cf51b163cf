//! One type, and what its members say.

use core::fmt;

use super::members::{Enumerators, Member, Members, Params, Rows, SectionVars};
use super::{Btf, BtfId};
use crate::bytes::Bytes;
use crate::error::{Error, Result};

/// Bytes of `struct btf_type`: name, info, and size or referred type.
pub(super) const HEADER_LEN: usize = 12;

/// The 7 bits of `info` that hold the kind.
pub(super) const fn kind_of(info: u32) -> u8 {
    (info >> 24 & 0x7f) as u8
}

/// The 24 bits of `info` that hold the number of members.
pub(super) const fn vlen_of(info: u32) -> u32 {
    info & 0xff_ffff
}

/// What a type is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// No type (id 0).
    Void,
    /// Integer.
    Int,
    /// Pointer.
    Ptr,
    /// Array.
    Array,
    /// Structure.
    Struct,
    /// Union.
    Union,
    /// Enumeration of at most 32 bits.
    Enum,
    /// Forward declaration of a structure or union.
    Fwd,
    /// Type alias.
    Typedef,
    /// `volatile`.
    Volatile,
    /// `const`.
    Const,
    /// `restrict`.
    Restrict,
    /// Function: a name for a prototype.
    Func,
    /// Prototype of a function.
    FuncProto,
    /// Variable (Linux 5.2).
    Var,
    /// Section of variables (Linux 5.2).
    Datasec,
    /// Floating-point number (Linux 5.13).
    Float,
    /// Attribute of a declaration (Linux 5.16).
    DeclTag,
    /// Attribute of a type (Linux 5.17).
    TypeTag,
    /// Enumeration of 64 bits (Linux 6.0).
    Enum64,
    /// A kind newer than this library, sized by the file's layout section.
    Unknown(u8),
}

impl Kind {
    const KNOWN: [Self; 20] = [
        Self::Void,
        Self::Int,
        Self::Ptr,
        Self::Array,
        Self::Struct,
        Self::Union,
        Self::Enum,
        Self::Fwd,
        Self::Typedef,
        Self::Volatile,
        Self::Const,
        Self::Restrict,
        Self::Func,
        Self::FuncProto,
        Self::Var,
        Self::Datasec,
        Self::Float,
        Self::DeclTag,
        Self::TypeTag,
        Self::Enum64,
    ];

    /// The kind numbered `number` in the format.
    pub fn from_number(number: u8) -> Self {
        Self::KNOWN.get(usize::from(number)).copied().unwrap_or(Self::Unknown(number))
    }

    /// Its number in the format.
    pub fn number(self) -> u8 {
        match self {
            Self::Unknown(number) => number,
            known => Self::KNOWN.iter().position(|&k| k == known).unwrap_or_default() as u8,
        }
    }

    /// A structure or union?
    pub fn is_composite(self) -> bool {
        matches!(self, Self::Struct | Self::Union)
    }

    /// An enumeration of either width?
    pub fn is_enum(self) -> bool {
        matches!(self, Self::Enum | Self::Enum64)
    }
}

impl fmt::Display for Kind {
    /// As in C where C has a word for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Void => "void",
            Self::Int => "int",
            Self::Ptr => "ptr",
            Self::Array => "array",
            Self::Struct => "struct",
            Self::Union => "union",
            Self::Enum => "enum",
            Self::Fwd => "fwd",
            Self::Typedef => "typedef",
            Self::Volatile => "volatile",
            Self::Const => "const",
            Self::Restrict => "restrict",
            Self::Func => "func",
            Self::FuncProto => "func_proto",
            Self::Var => "var",
            Self::Datasec => "datasec",
            Self::Float => "float",
            Self::DeclTag => "decl_tag",
            Self::TypeTag => "type_tag",
            Self::Enum64 => "enum64",
            Self::Unknown(number) => return write!(f, "kind {number}"),
        })
    }
}

/// Bytes that follow the header of a known kind, once and for every member, by its number. Void, which no file holds, counts
/// as unknown.
const TAILS: [(u8, u8); 20] = [
    (0, 0),
    (4, 0),
    (0, 0),
    (12, 0),
    (0, 12),
    (0, 12),
    (0, 8),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 8),
    (4, 0),
    (0, 12),
    (0, 0),
    (4, 0),
    (0, 0),
    (0, 12),
];

/// The entry of a known kind in [`TAILS`].
pub(crate) fn tail_len(kind: u8) -> Option<(u8, u8)> {
    TAILS.get(usize::from(kind)).copied().filter(|_| kind != 0)
}

/// [`TAILS`] in words of 4 bytes, 2 bits for each kind: what is added once, and for every member.
const TAIL_WORDS: (u64, u64) = {
    let (mut fixed, mut element, mut kind) = (0, 0, 0);
    while kind < TAILS.len() {
        fixed |= (TAILS[kind].0 as u64 / 4) << (2 * kind);
        element |= (TAILS[kind].1 as u64 / 4) << (2 * kind);
        kind += 1;
    }
    (fixed, element)
};

/// Bytes of a type of known kind, its header included.
///
/// Where a type begins is known only once the length of the one before is: a walk over a kernel's types takes as long as
/// this, so it is arithmetic, with no load from a table and no branch on the kind but the one that is always taken.
#[inline]
pub(super) fn record_len(info: u32) -> Option<usize> {
    let kind = u32::from(kind_of(info));
    if kind.wrapping_sub(1) >= TAILS.len() as u32 - 1 {
        return None;
    }
    let words = |table: u64| (table >> (2 * kind)) as u32 & 3;
    // At most 12 + 12 + 0xff_ffff * 12.
    Some((HEADER_LEN as u32 + 4 * (words(TAIL_WORDS.0) + vlen_of(info) * words(TAIL_WORDS.1))) as usize)
}

/// Visibility of a function or variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Linkage {
    /// Of this file only.
    Static,
    /// Defined here for all.
    Global,
    /// Defined elsewhere.
    Extern,
    /// A number without meaning yet.
    Other(u32),
}

impl Linkage {
    fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Static,
            1 => Self::Global,
            2 => Self::Extern,
            other => Self::Other(other),
        }
    }

    /// Its number in the format.
    pub fn number(self) -> u32 {
        match self {
            Self::Static => 0,
            Self::Global => 1,
            Self::Extern => 2,
            Self::Other(number) => number,
        }
    }
}

/// How an integer is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Int {
    /// Two's complement.
    pub signed: bool,
    /// A character.
    pub char: bool,
    /// A truth value.
    pub bool: bool,
    /// First bit within the storage; only compilers of long ago set it, for bit-fields.
    pub offset: u8,
    /// Significant bits.
    pub bits: u8,
}

/// Element type, index type and length of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Array {
    /// Type of an element.
    pub element: BtfId,
    /// Type of an index.
    pub index: BtfId,
    /// Number of elements; 0 for a flexible array.
    pub len: u32,
}

/// A type: its header decoded, its members read as they are asked for.
#[derive(Clone, Copy)]
pub struct Type<'b> {
    btf: &'b Btf<'b>,
    id: BtfId,
    name: u32,
    info: u32,
    size_or_type: u32,
    tail: Bytes<'b>,
}

impl fmt::Debug for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.id, self.kind(), self.name().unwrap_or("?"))
    }
}

impl<'b> Type<'b> {
    pub(super) fn void(btf: &'b Btf<'b>) -> Self {
        let tail = Bytes::new(&[], btf.endian);
        Self { btf, id: BtfId::VOID, name: 0, info: 0, size_or_type: 0, tail }
    }

    pub(super) fn new(btf: &'b Btf<'b>, id: BtfId, record: Bytes<'b>) -> Option<Self> {
        let (name, info, size_or_type) = (record.u32(0)?, record.u32(4)?, record.u32(8)?);
        Some(Self { btf, id, name, info, size_or_type, tail: record.tail(HEADER_LEN)? })
    }

    /// Its number.
    pub fn id(&self) -> BtfId {
        self.id
    }

    /// The BTF whose strings and ids its members refer to.
    pub fn btf(&self) -> &'b Btf<'b> {
        self.btf
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        Kind::from_number(kind_of(self.info))
    }

    /// Number of members, enumerators, parameters or variables; of a function, its linkage.
    pub fn vlen(&self) -> u32 {
        vlen_of(self.info)
    }

    /// The flag whose meaning depends on the kind: bit-fields encoded in member offsets (struct, union), signed (enum,
    /// enum64), declares a union (fwd), an attribute (decl_tag, type_tag).
    pub fn kflag(&self) -> bool {
        self.info >> 31 != 0
    }

    /// Where its name starts in the strings; 0 for none.
    pub fn name_offset(&self) -> u32 {
        self.name
    }

    /// Its name, empty if it has none.
    ///
    /// # Errors
    ///
    /// `BtfString`, `BtfStringUtf8`.
    pub fn name(&self) -> Result<&'b str> {
        self.btf.string(self.name)
    }

    /// Its name as bytes.
    ///
    /// # Errors
    ///
    /// `BtfString`.
    pub fn name_bytes(&self) -> Result<&'b [u8]> {
        self.btf.string_bytes(self.name)
    }

    /// The strings from its name on: a look at the first byte costs no search for the end.
    pub(crate) fn name_tail(&self) -> &'b [u8] {
        self.btf.string_tail(self.name)
    }

    pub(crate) fn name_is(&self, name: &[u8]) -> bool {
        self.name_tail().strip_prefix(name).is_some_and(|rest| rest.first() == Some(&0))
    }

    /// Its size in bytes, if its kind stores one.
    pub fn size(&self) -> Option<u32> {
        let sized = matches!(
            self.kind(),
            Kind::Int | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Datasec | Kind::Float
        );
        sized.then_some(self.size_or_type)
    }

    /// The type that it refers to, if its kind does: pointer, alias, qualifier, tag, function (its prototype), prototype
    /// (what it returns), variable.
    pub fn type_id(&self) -> Option<BtfId> {
        let refers = matches!(
            self.kind(),
            Kind::Ptr
                | Kind::Typedef
                | Kind::Volatile
                | Kind::Const
                | Kind::Restrict
                | Kind::Func
                | Kind::FuncProto
                | Kind::Var
                | Kind::DeclTag
                | Kind::TypeTag
        );
        refers.then_some(BtfId(self.size_or_type))
    }

    /// [`type_id`](Self::type_id) of a kind known to refer to one.
    pub(crate) fn referred(&self) -> BtfId {
        BtfId(self.size_or_type)
    }

    pub(super) fn is_modifier_or_typedef(&self) -> bool {
        matches!(self.kind(), Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag)
    }

    /// The encoding of an integer.
    pub fn int(&self) -> Option<Int> {
        let word = self.word_of(Kind::Int)?;
        let encoding = word >> 24;
        Some(Int {
            signed: encoding & 1 != 0,
            char: encoding & 2 != 0,
            bool: encoding & 4 != 0,
            offset: (word >> 16) as u8,
            bits: word as u8,
        })
    }

    /// The parts of an array.
    pub fn array(&self) -> Option<Array> {
        if self.kind() != Kind::Array {
            return None;
        }
        let at = |at| self.tail.u32(at);
        Some(Array { element: BtfId(at(0)?), index: BtfId(at(4)?), len: at(8)? })
    }

    /// Linkage of a variable.
    pub fn var_linkage(&self) -> Option<Linkage> {
        self.word_of(Kind::Var).map(Linkage::from_number)
    }

    /// Linkage of a function.
    pub fn func_linkage(&self) -> Option<Linkage> {
        (self.kind() == Kind::Func).then(|| Linkage::from_number(self.vlen()))
    }

    /// What a declaration tag belongs to: the number of a member or parameter, or -1 for the whole.
    pub fn component(&self) -> Option<i32> {
        self.word_of(Kind::DeclTag).map(|word| word as i32)
    }

    fn word_of(&self, kind: Kind) -> Option<u32> {
        if self.kind() == kind { self.tail.u32(0) } else { None }
    }

    fn rows<const WORDS: usize>(&self, of: bool) -> Rows<'b, WORDS> {
        let tail = if of { self.tail } else { Bytes::new(&[], self.tail.endian) };
        Rows { tail, at: 0 }
    }

    /// Members of a structure or union; nothing for other kinds.
    pub fn members(&self) -> Members<'b> {
        Members { ty: *self, rows: self.rows(self.kind().is_composite()) }
    }

    /// The member numbered `index` of a structure or union.
    pub fn member(&self, index: u32) -> Option<Member<'b>> {
        let mut members = self.members();
        members.rows.at = (index as usize).checked_mul(12)?;
        members.next()
    }

    /// Enumerators of an enumeration; nothing for other kinds.
    pub fn enumerators(&self) -> Enumerators<'b> {
        Enumerators {
            ty: *self,
            narrow: self.rows(self.kind() == Kind::Enum),
            wide: self.rows(self.kind() == Kind::Enum64),
        }
    }

    /// Parameters of a prototype; nothing for other kinds.
    pub fn params(&self) -> Params<'b> {
        Params { btf: self.btf, rows: self.rows(self.kind() == Kind::FuncProto) }
    }

    /// Variables of a data section; nothing for other kinds.
    pub fn section_vars(&self) -> SectionVars<'b> {
        SectionVars { rows: self.rows(self.kind() == Kind::Datasec) }
    }

    /// The size that this type, if it is C's `long`, implies for pointers.
    pub(crate) fn pointer_size_hint(&self) -> Option<u8> {
        const LONG: [&[u8]; 4] = [b"long", b"long int", b"unsigned long", b"long unsigned int"];
        let size = match self.size_or_type {
            4 => 4,
            8 => 8,
            _ => return None,
        };
        let is_long = self.kind() == Kind::Int && LONG.iter().any(|long| self.name_is(long));
        is_long.then_some(size)
    }

    pub(super) fn validate(&self) -> Result<()> {
        self.btf.check_string(self.name)?;
        if let Some(id) = self.type_id() {
            let referred = self.btf.type_by_id(id)?;
            if self.kind() == Kind::Func && referred.kind() != Kind::FuncProto {
                let (type_id, kind) = (referred.id(), referred.kind());
                return Err(Box::new(Error::BtfUnexpectedKind { type_id, kind, expected: "func_proto" }));
            }
        }
        if let Some(array) = self.array() {
            self.btf.type_by_id(array.element)?;
            self.btf.type_by_id(array.index)?;
        }
        for member in self.members() {
            self.btf.check_string(member.name_offset)?;
            self.btf.type_by_id(member.type_id)?;
        }
        for enumerator in self.enumerators() {
            self.btf.check_string(enumerator.name_offset)?;
        }
        for param in self.params() {
            self.btf.check_string(param.name_offset)?;
            self.btf.type_by_id(param.type_id)?;
        }
        for var in self.section_vars() {
            self.btf.type_by_id(var.type_id)?;
        }
        Ok(())
    }
}
