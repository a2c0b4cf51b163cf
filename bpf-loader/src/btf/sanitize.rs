//! Making an object's BTF acceptable to kernels that lack some kinds.
//!
//! The rules are those of libbpf's `bpf_object__sanitize_btf` and, for externals, `bpf_object__collect_externs`; ids and
//! sizes of types stay, so `.BTF.ext`, maps and instructions need no change. CO-RE relocations are resolved against the
//! original.

use super::edit::Edit;
use super::encode::info;
use super::types::{HEADER_LEN, Type};
use super::{Btf, BtfId, Kind, Linkage};
use crate::error::{Error, Result};
use crate::sorted::SortedSet;

/// What a kernel's BTF verifier accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BtfFeatures {
    /// `FUNC` and `FUNC_PROTO` (Linux 5.0).
    pub func: bool,
    /// Functions of global linkage (Linux 5.6).
    pub func_global: bool,
    /// `VAR` and `DATASEC` (Linux 5.2).
    pub datasec: bool,
    /// Names of data sections that start with `?` (Linux 6.10).
    pub question_mark_datasec: bool,
    /// `FLOAT` (Linux 5.13).
    pub float: bool,
    /// `DECL_TAG` (Linux 5.16).
    pub decl_tag: bool,
    /// `TYPE_TAG` (Linux 5.17).
    pub type_tag: bool,
    /// `ENUM64`, and the sign of an `ENUM` (Linux 6.0).
    pub enum64: bool,
    /// The layout section (Linux 7.1).
    pub layout: bool,
}

impl BtfFeatures {
    /// A kernel that takes everything.
    pub const ALL: Self = Self {
        func: true,
        func_global: true,
        datasec: true,
        question_mark_datasec: true,
        float: true,
        decl_tag: true,
        type_tag: true,
        enum64: true,
        layout: true,
    };
}

/// Functions that compilers emit calls to. Rust defines them in the object with arguments that the verifier would reject
/// if it checked them as global functions.
const BUILTINS: [&[u8]; 4] = [b"memcpy", b"memmove", b"memset", b"memcmp"];

/// A copy of `btf` for a kernel with `features`.
///
/// Whatever the kernel: externals in `.ksyms` and `.kconfig` become plain variables and functions; and what rustc writes
/// differently from clang is evened out (names of pointers go, unnamed parameters of functions get one, memory built-ins
/// become static).
///
/// # Errors
///
/// `BtfString`, `BtfTypeId` if a type needed refers to nothing; `BtfKind` if a kind is newer than this library and the
/// kernel takes no layout section; `BtfBase` for module BTF; `BtfTooLarge`.
pub fn sanitize(btf: &Btf<'_>, features: &BtfFeatures) -> Result<Vec<u8>> {
    let mut work = Sanitizer {
        btf,
        features,
        edit: Edit::new(btf)?,
        int: None,
        dummy: None,
        placeholder: None,
        argument: None,
        named: SortedSet::new(),
    };
    if !features.layout {
        work.edit.drop_layout();
    }
    work.each(|work, at, ty| match ty.kind() {
        Kind::Datasec if ty.name_is(b".ksyms") => work.ksyms(at, ty),
        Kind::Datasec if ty.name_is(b".kconfig") => work.kconfig(ty),
        Kind::Func => work.function(at, ty),
        _ => Ok(()),
    })?;
    work.each(Sanitizer::downgrade)?;
    work.edit.build()
}

struct Sanitizer<'b> {
    btf: &'b Btf<'b>,
    features: &'b BtfFeatures,
    edit: Edit,
    /// The 32-bit integer that external variables become.
    int: Option<BtfId>,
    /// The variable that stands for external functions, and its name.
    dummy: Option<(BtfId, u32)>,
    /// The one-byte integer that stands for the values of a 64-bit enumeration.
    placeholder: Option<BtfId>,
    /// The name given to parameters without one.
    argument: Option<u32>,
    /// Prototypes whose parameters all have names by now: many functions may share one.
    named: SortedSet<BtfId>,
}

impl<'b> Sanitizer<'b> {
    /// Visits the original types with their positions in the type section.
    fn each(&mut self, mut visit: impl FnMut(&mut Self, usize, Type<'b>) -> Result<()>) -> Result<()> {
        let mut types = self.btf.types();
        loop {
            let at = types.at;
            let Some(ty) = types.next() else { return Ok(()) };
            visit(self, at, ty)?;
        }
    }

    fn set_info(&mut self, at: usize, kind: Kind, vlen: u32) {
        self.edit.set(at + 4, info(kind, vlen, false));
    }

    /// Positions of a type's members of `words` words each.
    fn rows(at: usize, words: usize) -> impl Iterator<Item = usize> {
        (at + HEADER_LEN..).step_by(words * 4)
    }

    /// A 32-bit integer, the object's own if it has one.
    fn int32(&mut self) -> Result<BtfId> {
        if let Some(known) = self.int {
            return Ok(known);
        }
        let own = self.btf.types().find(|ty| ty.int().is_some_and(|int| int.bits == 32));
        let int = match own {
            Some(ty) => ty.id(),
            None => {
                let name = self.edit.add_string(b"int")?;
                self.edit.add_type(&[name, info(Kind::Int, 0, false), 4, 1 << 24 | 32])?
            }
        };
        Ok(*self.int.insert(int))
    }

    /// External kernel symbols: variables become integers, functions' places are taken by a dummy variable.
    fn ksyms(&mut self, at: usize, section: Type<'b>) -> Result<()> {
        let int = self.int32()?;
        let mut end = 0;
        for (row, var) in Self::rows(at, 3).zip(section.section_vars()) {
            let symbol = self.btf.type_by_id(var.type_id)?;
            let symbol_at = self.btf.types_from(var.type_id)?.at;
            match symbol.kind() {
                Kind::Func => {
                    self.set_info(symbol_at, Kind::Func, Linkage::Global.number());
                    let (dummy, _) = self.dummy(int)?;
                    self.edit.set(row, dummy.0);
                }
                Kind::Var => {
                    self.edit.set(symbol_at + 8, int.0);
                    self.edit.set(symbol_at + HEADER_LEN, Linkage::Global.number());
                }
                kind => {
                    let (type_id, expected) = (var.type_id, "var or func");
                    return Err(Box::new(Error::BtfUnexpectedKind { type_id, kind, expected }));
                }
            }
            self.edit.set(row + 4, end);
            self.edit.set(row + 8, 4);
            end = end.checked_add(4).ok_or(Error::BtfTooLarge)?;
        }
        self.edit.set(at + 8, end);
        Ok(())
    }

    fn dummy(&mut self, int: BtfId) -> Result<(BtfId, u32)> {
        if let Some(dummy) = self.dummy {
            return Ok(dummy);
        }
        let name = self.edit.add_string(b"dummy_ksym")?;
        let linkage = Linkage::Global.number();
        let kind = if self.features.datasec { Kind::Var } else { Kind::Int };
        let words = match kind {
            Kind::Var => [name, info(kind, 0, false), int.0, linkage],
            _ => [name, info(kind, 0, false), 1, 8],
        };
        Ok(*self.dummy.insert((self.edit.add_type(&words)?, name)))
    }

    fn kconfig(&mut self, section: Type<'b>) -> Result<()> {
        for var in section.section_vars() {
            if self.btf.type_by_id(var.type_id)?.kind() == Kind::Var {
                let at = self.btf.types_from(var.type_id)?.at;
                self.edit.set(at + HEADER_LEN, Linkage::Global.number());
            }
        }
        Ok(())
    }

    /// Names the unnamed parameters of a function, which the kernel requires of functions though not of pointers to them.
    fn function(&mut self, at: usize, function: Type<'b>) -> Result<()> {
        if BUILTINS.iter().any(|builtin| function.name_is(builtin)) {
            self.set_info(at, Kind::Func, Linkage::Static.number());
        }
        let prototype = self.btf.type_by_id(function.referred())?;
        if prototype.kind() != Kind::FuncProto || !self.named.insert(prototype.id()) {
            return Ok(());
        }
        let prototype_at = self.btf.types_from(prototype.id())?.at;
        for (row, param) in Self::rows(prototype_at, 2).zip(prototype.params()) {
            if param.name_offset == 0 && param.type_id != BtfId::VOID {
                self.name_argument(row)?;
            }
        }
        Ok(())
    }

    fn name_argument(&mut self, row: usize) -> Result<()> {
        let name = match self.argument {
            Some(name) => name,
            None => *self.argument.insert(self.edit.add_string(b"arg")?),
        };
        self.edit.set(row, name);
        Ok(())
    }

    /// Replaces what the kernel doesn't know by something of the same size that it does.
    fn downgrade(&mut self, at: usize, ty: Type<'b>) -> Result<()> {
        let known = *self.features;
        match ty.kind() {
            Kind::Ptr if ty.name_offset() != 0 => self.edit.set(at, 0),
            Kind::Var if !known.datasec => self.become_byte(at),
            Kind::DeclTag if !known.decl_tag => self.become_byte(at),
            Kind::Datasec if !known.datasec => self.become_struct(at, ty)?,
            Kind::Datasec if !known.question_mark_datasec => {
                if let Some((b'?', rest)) = ty.name_bytes()?.split_first() {
                    let name = self.edit.add_string(&[b"_", rest].concat())?;
                    self.edit.set(at, name);
                }
            }
            Kind::FuncProto if !known.func => {
                self.set_info(at, Kind::Enum, ty.vlen());
                self.edit.set(at + 8, 4);
                // An enumerator without a name would be refused.
                for row in Self::rows(at, 2).take(ty.vlen() as usize) {
                    if self.edit.word(row) == 0 {
                        self.name_argument(row)?;
                    }
                }
            }
            Kind::Func if !known.func => self.set_info(at, Kind::Typedef, 0),
            Kind::Func if !known.func_global => self.set_info(at, Kind::Func, Linkage::Static.number()),
            Kind::Float if !known.float => {
                // `float` is no name that the kernel would take for a structure.
                self.edit.set(at, 0);
                self.set_info(at, Kind::Struct, 0);
            }
            Kind::TypeTag if !known.type_tag => {
                self.edit.set(at, 0);
                self.set_info(at, Kind::Const, 0);
            }
            Kind::Enum if !known.enum64 => self.set_info(at, Kind::Enum, ty.vlen()),
            Kind::Enum64 if !known.enum64 => self.become_union(at, ty)?,
            // Only the layout section says how long such a type is.
            kind @ (Kind::Void | Kind::Unknown(_)) if !known.layout => {
                return Err(Box::new(Error::BtfKind { type_id: ty.id(), kind: kind.number() }));
            }
            _ => {}
        }
        Ok(())
    }

    /// An integer of one byte: of four, it could reach beyond the place of a variable that is smaller.
    fn become_byte(&mut self, at: usize) {
        self.set_info(at, Kind::Int, 0);
        self.edit.set(at + 8, 1);
        self.edit.set(at + HEADER_LEN, 8);
    }

    fn become_struct(&mut self, at: usize, section: Type<'b>) -> Result<()> {
        let valid = |&byte: &u8| if matches!(byte, b'.' | b'?') { b'_' } else { byte };
        let name: Vec<u8> = section.name_bytes()?.iter().map(valid).collect();
        let name = self.edit.add_string(&name)?;
        self.edit.set(at, name);
        self.set_info(at, Kind::Struct, section.vlen());
        for row in Self::rows(at, 3).take(section.vlen() as usize) {
            // Type, offset, size become name, type, offset in bits.
            let (var, offset) = (BtfId(self.edit.word(row)), self.edit.word(row + 4));
            let name = match self.dummy {
                Some((dummy, name)) if dummy == var => name,
                _ => self.btf.type_by_id(var)?.name_offset(),
            };
            self.edit.set(row, name);
            self.edit.set(row + 4, var.0);
            self.edit.set(row + 8, offset.wrapping_mul(8));
        }
        Ok(())
    }

    fn become_union(&mut self, at: usize, ty: Type<'b>) -> Result<()> {
        let placeholder = match self.placeholder {
            Some(id) => id,
            None => {
                let name = self.edit.add_string(b"enum64_placeholder")?;
                *self.placeholder.insert(self.edit.add_type(&[name, info(Kind::Int, 0, false), 1, 8])?)
            }
        };
        self.set_info(at, Kind::Union, ty.vlen());
        for row in Self::rows(at, 3).take(ty.vlen() as usize) {
            self.edit.set(row + 4, placeholder.0);
            self.edit.set(row + 8, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
