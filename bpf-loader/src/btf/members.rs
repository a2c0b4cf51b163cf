//! Members, enumerators, parameters and variables of types.

use super::{Btf, BtfId, Type};
use crate::bytes::Bytes;
use crate::error::Result;

/// Elements of `WORDS` 32-bit numbers each, up to the end of the type.
#[derive(Clone)]
pub(super) struct Rows<'b, const WORDS: usize> {
    pub(super) tail: Bytes<'b>,
    pub(super) at: usize,
}

impl<const WORDS: usize> Iterator for Rows<'_, WORDS> {
    type Item = [u32; WORDS];

    fn next(&mut self) -> Option<[u32; WORDS]> {
        let row = self.tail.slice(self.at, WORDS * 4)?;
        self.at += WORDS * 4;
        let mut words = [0; WORDS];
        for (word, at) in words.iter_mut().zip((0..).step_by(4)) {
            *word = row.u32(at)?;
        }
        Some(words)
    }
}

/// Member of a structure or union.
#[derive(Clone, Copy)]
pub struct Member<'b> {
    btf: &'b Btf<'b>,
    /// Where its name starts in the strings; 0 for an anonymous member.
    pub name_offset: u32,
    /// Its type.
    pub type_id: BtfId,
    /// Offset of its first bit within the structure.
    pub bit_offset: u32,
    /// Width of a bit-field in bits; 0 for a plain member.
    pub bitfield_size: u8,
}

impl<'b> Member<'b> {
    /// Its name, empty if it has none.
    ///
    /// # Errors
    ///
    /// `BtfString`, `BtfStringUtf8`.
    pub fn name(&self) -> Result<&'b str> {
        self.btf.string(self.name_offset)
    }
}

/// Iterator over [`Member`]s.
#[derive(Clone)]
pub struct Members<'b> {
    pub(super) ty: Type<'b>,
    pub(super) rows: Rows<'b, 3>,
}

impl<'b> Iterator for Members<'b> {
    type Item = Member<'b>;

    fn next(&mut self) -> Option<Member<'b>> {
        let [name_offset, type_id, offset] = self.rows.next()?;
        let (bit_offset, bitfield_size) =
            if self.ty.kflag() { (offset & 0xff_ffff, (offset >> 24) as u8) } else { (offset, 0) };
        Some(Member { btf: self.ty.btf(), name_offset, type_id: BtfId(type_id), bit_offset, bitfield_size })
    }
}

/// Constant of an enumeration.
#[derive(Clone, Copy)]
pub struct Enumerator<'b> {
    btf: &'b Btf<'b>,
    /// Where its name starts in the strings.
    pub name_offset: u32,
    /// Its value: of 32 bits signed or unsigned, or of 64 bits signed or unsigned, by kind and flag of the enumeration.
    pub value: i128,
    /// The bits of the value as CO-RE compares and patches them: 32-bit ones are sign-extended even if unsigned, as clang
    /// does.
    pub bits: u64,
}

impl<'b> Enumerator<'b> {
    /// Its name.
    ///
    /// # Errors
    ///
    /// `BtfString`, `BtfStringUtf8`.
    pub fn name(&self) -> Result<&'b str> {
        self.btf.string(self.name_offset)
    }
}

/// Iterator over [`Enumerator`]s.
#[derive(Clone)]
pub struct Enumerators<'b> {
    pub(super) ty: Type<'b>,
    pub(super) narrow: Rows<'b, 2>,
    pub(super) wide: Rows<'b, 3>,
}

impl<'b> Iterator for Enumerators<'b> {
    type Item = Enumerator<'b>;

    fn next(&mut self) -> Option<Enumerator<'b>> {
        let signed = self.ty.kflag();
        let (name_offset, value, bits) = match self.narrow.next() {
            Some([name, value]) => {
                let extended = value as i32;
                let shown = if signed { i128::from(extended) } else { i128::from(value) };
                (name, shown, i64::from(extended) as u64)
            }
            None => {
                let [name, low, high] = self.wide.next()?;
                let value = u64::from(high) << 32 | u64::from(low);
                let shown = if signed { i128::from(value as i64) } else { i128::from(value) };
                (name, shown, value)
            }
        };
        Some(Enumerator { btf: self.ty.btf(), name_offset, value, bits })
    }
}

/// Parameter of a prototype.
#[derive(Clone, Copy)]
pub struct Param<'b> {
    btf: &'b Btf<'b>,
    /// Where its name starts in the strings; 0 for none.
    pub name_offset: u32,
    /// Its type; void for the `...` at the end.
    pub type_id: BtfId,
}

impl<'b> Param<'b> {
    /// Its name, empty if it has none.
    ///
    /// # Errors
    ///
    /// `BtfString`, `BtfStringUtf8`.
    pub fn name(&self) -> Result<&'b str> {
        self.btf.string(self.name_offset)
    }
}

/// Iterator over [`Param`]s.
#[derive(Clone)]
pub struct Params<'b> {
    pub(super) btf: &'b Btf<'b>,
    pub(super) rows: Rows<'b, 2>,
}

impl<'b> Iterator for Params<'b> {
    type Item = Param<'b>;

    fn next(&mut self) -> Option<Param<'b>> {
        let [name_offset, type_id] = self.rows.next()?;
        Some(Param { btf: self.btf, name_offset, type_id: BtfId(type_id) })
    }
}

/// A variable's place in its data section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SectionVar {
    /// The variable, or a function among `.ksyms`.
    pub type_id: BtfId,
    /// Offset in bytes; 0 until [`datasec`](super::datasec) has filled it.
    pub offset: u32,
    /// Size in bytes.
    pub size: u32,
}

/// Iterator over [`SectionVar`]s.
#[derive(Clone)]
pub struct SectionVars<'b> {
    pub(super) rows: Rows<'b, 3>,
}

impl Iterator for SectionVars<'_> {
    type Item = SectionVar;

    fn next(&mut self) -> Option<SectionVar> {
        let [type_id, offset, size] = self.rows.next()?;
        Some(SectionVar { type_id: BtfId(type_id), offset, size })
    }
}
