//! Writing BTF: minimal blobs that probe a kernel's features, and types made for tests.

use super::header::{LAYOUT_HEADER, MAGIC, MIN_HEADER};
use super::{Btf, BtfId, Kind, Linkage};
use crate::bytes::Endian;
use crate::sorted::SortedMap;

/// Types and strings on their way to BTF. Every function that adds a type returns its id; ids count up from the first, so
/// a type may refer to ids that are yet to be given.
#[derive(Debug, Clone)]
pub struct Builder {
    endian: Endian,
    types: Vec<u8>,
    layout: Vec<u8>,
    strings: Vec<u8>,
    known: SortedMap<String, u32>,
    first_string: u32,
    next_id: u32,
}

/// Member of a structure or union.
#[derive(Debug, Clone, Copy)]
pub struct Field<'s> {
    /// Its name, empty for an anonymous one.
    pub name: &'s str,
    /// Its type.
    pub type_id: BtfId,
    /// Offset of its first bit.
    pub bit_offset: u32,
    /// Width in bits of a bit-field, 0 for a plain member.
    pub bitfield_size: u8,
}

impl<'s> Field<'s> {
    /// A plain member, `offset` bytes into its structure.
    pub fn at(name: &'s str, type_id: BtfId, offset: u32) -> Self {
        Self { name, type_id, bit_offset: offset * 8, bitfield_size: 0 }
    }

    /// A bit-field of `bits` bits from bit `bit_offset`.
    pub fn bits(name: &'s str, type_id: BtfId, bit_offset: u32, bits: u8) -> Self {
        Self { name, type_id, bit_offset, bitfield_size: bits }
    }
}

/// `encoding` of an integer: signed.
pub const SIGNED: u8 = 1;
/// A character.
pub const CHAR: u8 = 2;
/// A truth value.
pub const BOOL: u8 = 4;

impl Builder {
    /// Nothing yet, to be written in the order `endian`.
    pub fn new(endian: Endian) -> Self {
        let (strings, known) = (vec![0], SortedMap::from([(String::new(), 0)]));
        Self { endian, types: Vec::new(), layout: Vec::new(), strings, known, first_string: 0, next_id: 1 }
    }

    /// Module BTF on top of `base`.
    pub fn split(base: &Btf<'_>) -> Self {
        let mut new = Self::new(base.endian());
        new.next_id = base.count();
        new.first_string = base.first_string.saturating_add(base.strings.len as u32);
        new.strings.clear();
        new
    }

    /// Offset of a string, added if it's new.
    pub fn string(&mut self, text: &str) -> u32 {
        if let Some(&known) = self.known.get(text) {
            return known;
        }
        let offset = self.first_string.saturating_add(self.strings.len() as u32);
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        self.known.insert(text.to_owned(), offset);
        offset
    }

    /// The order that it is written in.
    #[cfg(feature = "dwarf")]
    pub(crate) fn endian(&self) -> Endian {
        self.endian
    }

    /// Bytes of all strings so far.
    #[cfg(feature = "dwarf")]
    pub(crate) fn strings_len(&self) -> usize {
        self.strings.len()
    }

    fn words(&mut self, words: impl IntoIterator<Item = u32>) {
        for word in words {
            self.types.extend_from_slice(&self.endian.put_u32(word));
        }
    }

    /// A type by the words of its header; what follows is for the caller to add as `tail`.
    pub fn raw(&mut self, name: &str, info: u32, size_or_type: u32, tail: &[u32]) -> BtfId {
        let name = self.string(name);
        self.record(name, info, size_or_type, tail)
    }

    /// [`raw`](Self::raw) with the offset of a name that [`string`](Self::string) has given.
    pub(crate) fn record(&mut self, name: u32, info: u32, size_or_type: u32, tail: &[u32]) -> BtfId {
        self.words([name, info, size_or_type]);
        self.words(tail.iter().copied());
        let id = BtfId(self.next_id);
        self.next_id = self.next_id.saturating_add(1);
        id
    }

    fn header(&mut self, kind: Kind, name: &str, vlen: usize, kflag: bool, size_or_type: u32) -> BtfId {
        self.raw(name, info(kind, vlen as u32, kflag), size_or_type, &[])
    }

    /// The id that the next type will have.
    pub fn next_id(&self) -> BtfId {
        BtfId(self.next_id)
    }

    /// An integer of `size` bytes.
    pub fn int(&mut self, name: &str, size: u32, encoding: u8) -> BtfId {
        self.raw(name, info(Kind::Int, 0, false), size, &[u32::from(encoding) << 24 | ((size * 8) & 0xff)])
    }

    /// A type of a kind that only refers to another: pointer, typedef, qualifier, type tag.
    pub fn refer(&mut self, kind: Kind, name: &str, to: BtfId) -> BtfId {
        self.header(kind, name, 0, false, to.0)
    }

    /// A pointer.
    pub fn ptr(&mut self, to: BtfId) -> BtfId {
        self.refer(Kind::Ptr, "", to)
    }

    /// A type alias.
    pub fn typedef(&mut self, name: &str, to: BtfId) -> BtfId {
        self.refer(Kind::Typedef, name, to)
    }

    /// An array of `len` elements.
    pub fn array(&mut self, element: BtfId, index: BtfId, len: u32) -> BtfId {
        self.raw("", info(Kind::Array, 0, false), 0, &[element.0, index.0, len])
    }

    /// A structure or union (`kind`) of `size` bytes.
    pub fn composite(&mut self, kind: Kind, name: &str, size: u32, fields: &[Field<'_>]) -> BtfId {
        let kflag = fields.iter().any(|field| field.bitfield_size != 0);
        let id = self.header(kind, name, fields.len(), kflag, size);
        for field in fields {
            let name = self.string(field.name);
            let offset = u32::from(field.bitfield_size) << 24 | field.bit_offset;
            self.words([name, field.type_id.0, offset]);
        }
        id
    }

    /// A structure of `size` bytes.
    pub fn structure(&mut self, name: &str, size: u32, fields: &[Field<'_>]) -> BtfId {
        self.composite(Kind::Struct, name, size, fields)
    }

    /// An enumeration of 32 bits.
    pub fn enumeration(&mut self, name: &str, signed: bool, values: &[(&str, i32)]) -> BtfId {
        let id = self.header(Kind::Enum, name, values.len(), signed, 4);
        for &(name, value) in values {
            let name = self.string(name);
            self.words([name, value as u32]);
        }
        id
    }

    /// An enumeration of 64 bits.
    pub fn enumeration64(&mut self, name: &str, signed: bool, values: &[(&str, u64)]) -> BtfId {
        let id = self.header(Kind::Enum64, name, values.len(), signed, 8);
        for &(name, value) in values {
            let name = self.string(name);
            self.words([name, value as u32, (value >> 32) as u32]);
        }
        id
    }

    /// Forward declaration of a structure, or of a union.
    pub fn forward(&mut self, name: &str, union: bool) -> BtfId {
        self.header(Kind::Fwd, name, 0, union, 0)
    }

    /// A floating-point number.
    pub fn float(&mut self, name: &str, size: u32) -> BtfId {
        self.header(Kind::Float, name, 0, false, size)
    }

    /// A prototype.
    pub fn prototype(&mut self, returns: BtfId, params: &[(&str, BtfId)]) -> BtfId {
        let id = self.header(Kind::FuncProto, "", params.len(), false, returns.0);
        for &(name, type_id) in params {
            let name = self.string(name);
            self.words([name, type_id.0]);
        }
        id
    }

    /// A function.
    pub fn function(&mut self, name: &str, prototype: BtfId, linkage: Linkage) -> BtfId {
        self.header(Kind::Func, name, linkage.number() as usize, false, prototype.0)
    }

    /// A variable.
    pub fn variable(&mut self, name: &str, type_id: BtfId, linkage: Linkage) -> BtfId {
        self.raw(name, info(Kind::Var, 0, false), type_id.0, &[linkage.number()])
    }

    /// A data section of `size` bytes with its variables' ids, offsets and sizes.
    pub fn datasec(&mut self, name: &str, size: u32, vars: &[(BtfId, u32, u32)]) -> BtfId {
        let id = self.header(Kind::Datasec, name, vars.len(), false, size);
        for &(var, offset, size) in vars {
            self.words([var.0, offset, size]);
        }
        id
    }

    /// An attribute of a declaration, or of the member or parameter `component` of it (-1: of the whole).
    pub fn decl_tag(&mut self, name: &str, of: BtfId, component: i32) -> BtfId {
        self.raw(name, info(Kind::DeclTag, 0, false), of.0, &[component as u32])
    }

    /// Appends to the layout section (Linux 7.1): for the next kind, the bytes after a type's header and the bytes a
    /// member.
    pub fn layout(&mut self, info_size: u8, element_size: u8) {
        self.layout.extend_from_slice(&[info_size, element_size, 0, 0]);
    }

    /// The finished file.
    pub fn build(&self) -> Vec<u8> {
        assemble(self.endian, &self.types, &self.layout, &self.strings)
    }
}

/// The `info` word of a type's header.
pub fn info(kind: Kind, vlen: u32, kflag: bool) -> u32 {
    u32::from(kflag) << 31 | u32::from(kind.number() & 0x7f) << 24 | vlen & 0xff_ffff
}

/// A file of these sections. Older kernels know no layout section, so the header only has room for one if there is one.
pub(super) fn assemble(endian: Endian, types: &[u8], layout: &[u8], strings: &[u8]) -> Vec<u8> {
    let header = if layout.is_empty() { MIN_HEADER } else { LAYOUT_HEADER };
    let strings_at = types.len() + layout.len();
    let mut out = Vec::with_capacity(header + strings_at + strings.len());
    out.extend_from_slice(&endian.put_u16(MAGIC));
    out.extend_from_slice(&[1, 0]);
    let words = [header, 0, types.len(), strings_at, strings.len(), types.len(), layout.len()];
    for word in words.into_iter().take(header / 4 - 1) {
        out.extend_from_slice(&endian.put_u32(word as u32));
    }
    for section in [types, layout, strings] {
        out.extend_from_slice(section);
    }
    out
}
