//! BTF, the kernel's compact type format: read in place, written, and made fit for older kernels.
//!
//! Facts: Documentation/bpf/btf.rst and include/uapi/linux/btf.h of Linux 7.1, which has the layout section, kinds of 7
//! bits and 24-bit member counts; older files mean the same by both masks.

pub mod datasec;
pub(crate) mod edit;
pub mod encode;
pub mod ext;
mod header;
pub mod index;
mod members;
pub mod relocate;
pub mod sanitize;
mod types;
mod walk;

#[cfg(test)]
mod tests;

use core::fmt;
use std::borrow::Cow;
use std::sync::Arc;

pub use members::{Enumerator, Enumerators, Member, Members, Param, Params, SectionVar, SectionVars};
pub(crate) use types::tail_len;
pub use types::{Array, Int, Kind, Linkage, Type};

use crate::bytes::{Bytes, Endian};
use crate::error::{Error, Result};
use header::{Header, Span};
use index::{Known, Root, Wanted};
use types::HEADER_LEN;
use walk::Segment;

/// Number of a type. 0 is void; the ids of module BTF continue those of its base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BtfId(pub u32);

impl BtfId {
    /// No type: `void`.
    pub const VOID: Self = Self(0);
}

impl fmt::Display for BtfId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.0)
    }
}

/// How many types are chained (const volatile typedef ..., arrays of arrays) before the chain is taken for a loop. The
/// kernel gives up at 32.
pub const MAX_CHAIN: usize = 64;

/// Of large files, every 8th type's offset is remembered (3 bits of the position are left out); the types between are
/// walked over. The index of a kernel's 127,000 types takes 64 KiB, and a look-up four steps on average.
const STRIDE_BITS: u32 = 3;

/// Bytes of types up to which every type's offset is remembered: an object's types are few, and looked up more often than
/// there are of them.
const SMALL: usize = 64 << 10;

/// Where BTF bytes live. They are never copied.
pub enum BtfBytes<'a> {
    /// In an object that the caller holds.
    Borrowed(&'a [u8]),
    /// In memory of their own.
    Owned(Vec<u8>),
    /// In something shared, such as a mapping of the kernel's BTF.
    Shared(Arc<dyn AsRef<[u8]> + Send + Sync>),
}

impl AsRef<[u8]> for BtfBytes<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Borrowed(data) => data,
            Self::Owned(data) => data,
            Self::Shared(data) => (**data).as_ref(),
        }
    }
}

impl<'a> From<&'a [u8]> for BtfBytes<'a> {
    fn from(data: &'a [u8]) -> Self {
        Self::Borrowed(data)
    }
}

impl From<Vec<u8>> for BtfBytes<'_> {
    fn from(data: Vec<u8>) -> Self {
        Self::Owned(data)
    }
}

impl<'a> From<Cow<'a, [u8]>> for BtfBytes<'a> {
    fn from(data: Cow<'a, [u8]>) -> Self {
        match data {
            Cow::Borrowed(data) => Self::Borrowed(data),
            Cow::Owned(data) => Self::Owned(data),
        }
    }
}

/// BTF, of an object, the kernel or a kernel module.
///
/// Parsing walks the type section once and checks that every type's members lie inside; names and ids are checked when
/// they are followed, and no chain of types is followed for ever.
pub struct Btf<'a> {
    data: BtfBytes<'a>,
    endian: Endian,
    /// Sections, in bytes from the start of `data`.
    types: Span,
    strings: Span,
    layout: Span,
    /// Where the types are, in the order of their ids.
    segments: Vec<Segment>,
    stride_bits: u32,
    first_id: u32,
    /// The number of ids, void and the base's included.
    count: u32,
    first_string: u32,
    pointer_size: u8,
    base: Option<Arc<Btf<'a>>>,
    known: Known,
}

impl fmt::Debug for Btf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Btf")
            .field("endian", &self.endian)
            .field("first_id", &self.first_id)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl<'a> Btf<'a> {
    /// Reads BTF that stands alone: an object's `.BTF` section, or `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    ///
    /// `BtfHeader`, `BtfMagic`, `BtfVersion`, `BtfSection`, `BtfStrings`, `BtfKind`, `BtfTypeTruncated`.
    pub fn parse(data: impl Into<BtfBytes<'a>>) -> Result<Self> {
        Self::parse_on(data.into(), None, &[])
    }

    /// [`parse`](Self::parse), and in the same pass over the types [`find_roots`](Self::find_roots), whose results are
    /// remembered.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn parse_finding(data: impl Into<BtfBytes<'a>>, roots: &[Root<'_>]) -> Result<Self> {
        Self::parse_on(data.into(), None, roots)
    }

    /// Reads a kernel module's BTF, whose ids and string offsets continue those of `base`.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), and `BtfBase`.
    pub fn parse_split(data: impl Into<BtfBytes<'a>>, base: Arc<Btf<'a>>) -> Result<Self> {
        Self::parse_on(data.into(), Some(base), &[])
    }

    fn parse_on(data: BtfBytes<'a>, base: Option<Arc<Btf<'a>>>, roots: &[Root<'_>]) -> Result<Self> {
        let Header { endian, types, strings, layout } = Header::parse(data.as_ref(), base.is_some())?;
        let (first_id, first_string, pointer_size) = match &base {
            None => (1, 0, None),
            Some(base) => {
                let strings = u32::try_from(base.strings.len).ok();
                let first_string = strings.and_then(|len| base.first_string.checked_add(len));
                if base.endian != endian {
                    return Err(Box::new(Error::BtfBase));
                }
                (base.count, first_string.ok_or(Error::BtfBase)?, Some(base.pointer_size))
            }
        };
        let mut btf = Self {
            data,
            endian,
            types,
            strings,
            layout,
            segments: Vec::new(),
            stride_bits: if types.len <= SMALL { 0 } else { STRIDE_BITS },
            first_id,
            count: first_id,
            first_string,
            pointer_size: 8,
            base,
            known: Known::default(),
        };
        let wanted = Wanted::new(roots.iter().copied());
        let walked = walk::walk(&btf, &wanted)?;
        (btf.segments, btf.count) = (walked.segments, walked.count);
        btf.pointer_size = pointer_size.or(walked.pointer_size).unwrap_or(8);
        if let Some(found) = walked.found {
            btf.known.remember(&wanted, found);
        }
        Ok(btf)
    }

    /// The same types with pointers of `bytes` (4 or 8). What parsing assumes is the size of the type `long`, 8 if there
    /// is none: right for a kernel; BPF objects have 8 whatever they define.
    #[must_use]
    pub fn with_pointer_size(mut self, bytes: u8) -> Self {
        self.pointer_size = bytes;
        self
    }

    /// Size of a pointer in bytes.
    pub fn pointer_size(&self) -> u8 {
        self.pointer_size
    }

    /// Byte order of the file, which is that of the machine whose types it describes.
    pub fn endian(&self) -> Endian {
        self.endian
    }

    /// The whole file.
    pub fn as_bytes(&self) -> &[u8] {
        self.data.as_ref()
    }

    /// One more than the greatest id: void and the base's types are counted.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The first id of this file's own types: 1, or for module BTF what follows the base's last.
    pub fn first_id(&self) -> BtfId {
        BtfId(self.first_id)
    }

    /// Bytes of heap that the index takes.
    pub fn index_size(&self) -> usize {
        self.segments.iter().map(|segment| segment.index.capacity() * size_of::<u32>()).sum()
    }

    fn section(&self, span: Span) -> Bytes<'_> {
        let all = Bytes::new(self.data.as_ref(), self.endian);
        all.slice(span.at, span.len).unwrap_or(Bytes::new(&[], self.endian))
    }

    /// The types of this file (not of its base) in the order of their ids, void left out.
    pub fn types(&self) -> Types<'_> {
        Types { btf: self, section: self.section(self.types), at: 0, next_id: self.first_id }
    }

    /// Those of [`types`](Self::types) that are of this kind.
    pub(crate) fn types_of(&self, kind: Kind) -> impl Iterator<Item = Type<'_>> {
        let (mut types, wanted) = (self.types(), kind.number());
        core::iter::from_fn(move || types.next_where(|number, _| number == wanted))
    }

    /// The type numbered `id`, or void.
    ///
    /// # Errors
    ///
    /// `BtfTypeId` if there is none.
    pub fn type_by_id(&self, id: BtfId) -> Result<Type<'_>> {
        if id == BtfId::VOID {
            return Ok(Type::void(self));
        }
        match &self.base {
            Some(base) if id.0 < self.first_id => base.type_by_id(id),
            _ => self.types_from(id)?.take_one().ok_or_else(|| self.no_type(id)),
        }
    }

    /// This file's own types from `id` on, which is at `at`.
    fn types_at(&self, at: u32, id: BtfId) -> Types<'_> {
        Types { btf: self, section: self.section(self.types), at: at as usize, next_id: id.0 }
    }

    fn no_type(&self, id: BtfId) -> Box<Error> {
        Box::new(Error::BtfTypeId { type_id: id, count: self.count })
    }

    /// This file's own types from `id` on.
    fn types_from(&self, id: BtfId) -> Result<Types<'_>> {
        let segment = self.segments.iter().rev().find(|segment| segment.first_id <= id.0);
        let segment = segment.filter(|_| id.0 < self.count).ok_or_else(|| self.no_type(id))?;
        let position = id.0 - segment.first_id;
        let found = segment.index.get((position >> self.stride_bits) as usize);
        let at = *found.ok_or_else(|| self.no_type(id))?;
        let between = position & ((1 << self.stride_bits) - 1);
        let mut types = self.types_at(at, BtfId(id.0 - between));
        for _ in 0..between {
            let (_, _, len) = types.record().ok_or_else(|| self.no_type(id))?;
            types.advance(len);
        }
        Ok(types)
    }

    fn string_tail(&self, offset: u32) -> &[u8] {
        match (offset.checked_sub(self.first_string), &self.base) {
            (Some(own), _) => self.section(self.strings).tail(own as usize).map_or(&[], |tail| tail.data),
            (None, Some(base)) => base.string_tail(offset),
            (None, None) => &[],
        }
    }

    /// Is there a string at `offset`? As the section ends with a NUL, any place in it will do.
    fn check_string(&self, offset: u32) -> Result<()> {
        if self.string_tail(offset).is_empty() { Err(Box::new(Error::BtfString { offset })) } else { Ok(()) }
    }

    /// The string at `offset`, as bytes.
    ///
    /// # Errors
    ///
    /// `BtfString`.
    pub fn string_bytes(&self, offset: u32) -> Result<&[u8]> {
        let tail = Bytes::new(self.string_tail(offset), self.endian);
        tail.cstr(0).ok_or_else(|| Box::new(Error::BtfString { offset }))
    }

    /// The string at `offset`.
    ///
    /// # Errors
    ///
    /// `BtfString`, `BtfStringUtf8`.
    pub fn string(&self, offset: u32) -> Result<&str> {
        core::str::from_utf8(self.string_bytes(offset)?)
            .map_err(|_| Box::new(Error::BtfStringUtf8 { offset }))
    }

    /// What the layout section says of a kind that this library doesn't know: bytes after the type's header, and bytes a
    /// member.
    fn layout_of(&self, kind: u8) -> Option<(u8, u8)> {
        let own = self.section(self.layout);
        match &self.base {
            Some(base) if own.data.is_empty() => base.layout_of(kind),
            _ => {
                let at = usize::from(kind) * header::LAYOUT_ENTRY;
                let (info, element) = (own.u8(at)?, own.u8(at + 1)?);
                own.slice(at, header::LAYOUT_ENTRY)?;
                Some((info, element))
            }
        }
    }

    /// Follows typedefs, qualifiers and type tags.
    ///
    /// # Errors
    ///
    /// `BtfTypeId`, `BtfTypeLoop`.
    pub fn skip_mods_and_typedefs(&self, id: BtfId) -> Result<Type<'_>> {
        self.skip_counting(id).map(|(ty, _)| ty)
    }

    /// [`skip_mods_and_typedefs`](Self::skip_mods_and_typedefs), and how many types were followed.
    pub(crate) fn skip_counting(&self, id: BtfId) -> Result<(Type<'_>, usize)> {
        let mut ty = self.type_by_id(id)?;
        for hops in 0..MAX_CHAIN {
            if !ty.is_modifier_or_typedef() {
                return Ok((ty, hops));
            }
            ty = self.type_by_id(ty.referred())?;
        }
        Err(Box::new(Error::BtfTypeLoop { type_id: id }))
    }

    /// Size in bytes of a type, through typedefs, qualifiers, variables and nested arrays.
    ///
    /// # Errors
    ///
    /// `BtfTypeId`, `BtfTypeLoop`, `BtfSizeless`, `BtfSizeOverflow`.
    pub fn resolve_size(&self, id: BtfId) -> Result<u32> {
        let overflow = || Box::new(Error::BtfSizeOverflow { type_id: id });
        let (mut elements, mut ty) = (1u32, self.type_by_id(id)?);
        for _ in 0..MAX_CHAIN {
            let size = match ty.kind() {
                Kind::Ptr => u32::from(self.pointer_size),
                Kind::Array => {
                    let array = ty.array().ok_or(Error::BtfTypeTruncated { type_id: ty.id() })?;
                    elements = elements.checked_mul(array.len).ok_or_else(overflow)?;
                    ty = self.type_by_id(array.element)?;
                    continue;
                }
                Kind::Var | Kind::DeclTag => {
                    ty = self.type_by_id(ty.referred())?;
                    continue;
                }
                _ if ty.is_modifier_or_typedef() => {
                    ty = self.type_by_id(ty.referred())?;
                    continue;
                }
                kind => ty.size().ok_or(Error::BtfSizeless { type_id: ty.id(), kind })?,
            };
            return elements.checked_mul(size).ok_or_else(overflow);
        }
        Err(Box::new(Error::BtfTypeLoop { type_id: id }))
    }

    /// The first type of this name and kind, in the base first. What was looked for in a large file, a kernel's, is
    /// remembered; to look up many names at once, see [`find_roots`](Self::find_roots).
    pub fn find_by_name(&self, name: &str, kind: Kind) -> Option<BtfId> {
        let in_base = self.base.as_ref().and_then(|base| base.find_by_name(name, kind));
        let own = || {
            if self.stride_bits > 0 {
                index::find_all(self, &[(name, kind)]).ok()?.into_iter().next()?
            } else {
                self.types_of(kind).find(|ty| ty.name_is(name.as_bytes())).map(|ty| ty.id())
            }
        };
        in_base.or_else(own)
    }

    /// Follows every name, id and string of this file once, so that a caller who wants all or nothing need not wait.
    ///
    /// # Errors
    ///
    /// Whatever following them finds: `BtfString`, `BtfTypeId`, `BtfUnexpectedKind` for a function without prototype.
    pub fn validate(&self) -> Result<()> {
        self.types().try_for_each(|ty| ty.validate())
    }
}

/// Types in the order of their ids. Ends at the end of the section; [`Btf::parse`] has checked that there are whole types
/// up to there.
#[derive(Clone)]
pub struct Types<'b> {
    btf: &'b Btf<'b>,
    section: Bytes<'b>,
    at: usize,
    next_id: u32,
}

impl<'b> Types<'b> {
    /// Number of the kind, place of the name and length in bytes of the type at the current position, `None` if it doesn't
    /// fit or is of unknown kind.
    #[inline]
    fn record(&self) -> Option<(u8, u32, usize)> {
        let (name, info) = self.section.u32_pair(self.at)?;
        let kind = types::kind_of(info);
        let len = match types::record_len(info) {
            Some(len) => len,
            None => {
                let (fixed, element) = self.btf.layout_of(kind)?;
                // At most 12 + 255 + 0xff_ffff * 255: fits a usize of 32 bits.
                HEADER_LEN + usize::from(fixed) + types::vlen_of(info) as usize * usize::from(element)
            }
        };
        (len <= self.section.data.len() - self.at).then_some((kind, name, len))
    }

    /// The next type that is wanted by number of its kind and place of its name.
    #[inline]
    fn next_where(&mut self, mut wanted: impl FnMut(u8, u32) -> bool) -> Option<Type<'b>> {
        loop {
            let (kind, name, len) = self.record()?;
            if wanted(kind, name) {
                return self.take_one();
            }
            self.advance(len);
        }
    }

    /// What is wrong with the type at the current position.
    #[cold]
    fn fault(&self) -> Box<Error> {
        let type_id = BtfId(self.next_id);
        match self.section.u32(self.at.saturating_add(4)).map(types::kind_of) {
            Some(kind) if types::tail_len(kind).or_else(|| self.btf.layout_of(kind)).is_none() => {
                Box::new(Error::BtfKind { type_id, kind })
            }
            _ => Box::new(Error::BtfTypeTruncated { type_id }),
        }
    }

    fn take_one(&mut self) -> Option<Type<'b>> {
        let (_, _, len) = self.record()?;
        let ty = Type::new(self.btf, BtfId(self.next_id), self.section.slice(self.at, len)?)?;
        self.advance(len);
        Some(ty)
    }

    fn advance(&mut self, len: usize) {
        self.at = self.at.saturating_add(len);
        self.next_id = self.next_id.saturating_add(1);
    }
}

impl<'b> Iterator for Types<'b> {
    type Item = Type<'b>;

    fn next(&mut self) -> Option<Type<'b>> {
        self.take_one()
    }
}
