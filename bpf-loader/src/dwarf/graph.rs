//! Entries of debug information to a graph of types: names, sizes and references, as they stand there.

// DWARF's own names.
#![allow(non_upper_case_globals)]

use gimli::constants::*;
use gimli::{AttributeValue, DwTag, EntriesRaw, Format};

use super::sections::{Sections, Slice, Unit, wrong};
use super::types::{Name, Types};
use crate::btf::Kind;
use crate::error::{Error, Result};

/// Entries of a graph: the types of a kernel's unit are some 20,000, with as many members.
const MAX_NODES: usize = 8 << 20;
/// Members, enumerators, dimensions and parameters of a graph.
const MAX_PARTS: usize = 16 << 20;

/// Why a graph is not made.
#[derive(Debug)]
pub(super) enum Failure {
    /// A unit refers to a type of another.
    OtherUnit,
    Error(Box<Error>),
}

impl From<Box<Error>> for Failure {
    fn from(error: Box<Error>) -> Self {
        Self::Error(error)
    }
}

/// Where an entry is in `.debug_info`. No entry is at 0, which stands for void.
pub(super) type Place = usize;

/// What a type is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Void,
    /// Nothing but the type that it refers to.
    Same,
    /// With the encoding as BTF has it.
    Int(u8),
    Float,
    Array,
    /// Pointer, qualifier or typedef.
    Refer(Kind),
    Composite(Kind),
    Enum,
    Prototype,
}

/// A type.
#[derive(Debug)]
pub(super) struct Node {
    pub place: Place,
    pub shape: Shape,
    pub name: Name,
    pub size: u64,
    /// What it refers to, is an array of, or returns.
    pub target: Place,
    /// Defined elsewhere.
    pub declared: bool,
    first: u32,
    last: u32,
}

/// A member, enumerator, dimension or parameter.
#[derive(Debug)]
pub(super) struct Part {
    next: u32,
    pub name: Name,
    pub target: Place,
    /// Offset of a member in bits, value of an enumerator, length of a dimension.
    pub value: u64,
    /// The value is a negative number.
    pub negative: bool,
    /// Width of a bit-field, 0 for anything else.
    pub bits: u8,
    /// The offset still lacks what was counted from the most significant bit of a storage unit of so many bytes (0: those of
    /// the member's type), as it was before DWARF 4.
    pub from_top: Option<(u64, u64)>,
}

/// No part.
const NONE: u32 = u32::MAX;

/// Types of a unit, or of all, in the order of their places.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub nodes: Vec<Node>,
    parts: Vec<Part>,
}

/// Parts of a type in their order.
#[derive(Clone)]
pub(super) struct Parts<'g> {
    graph: &'g Graph,
    next: u32,
}

impl<'g> Iterator for Parts<'g> {
    type Item = &'g Part;

    fn next(&mut self) -> Option<&'g Part> {
        let part = self.graph.parts.get(self.next as usize)?;
        self.next = part.next;
        Some(part)
    }
}

/// What of an entry's attributes matters for types.
#[derive(Default)]
struct Attributes {
    name: Name,
    size: u64,
    target: Place,
    declared: bool,
    location: u64,
    bit_size: u64,
    data_bit_offset: Option<u64>,
    bit_offset: Option<u64>,
    upper_bound: Option<u64>,
    count: Option<u64>,
    encoding: u64,
    value: u64,
    negative: bool,
    language: u64,
    /// A number is computed, or of a kind that BTF has no room for.
    odd: bool,
    /// Of the unit's first entry: where its strings are numbered.
    strings: Option<usize>,
    is_split: bool,
}

/// What is read of an entry.
enum Role {
    Type(Shape),
    Member,
    Enumerator,
    Dimension,
    Parameter,
    /// The `...` of a prototype.
    Rest,
    Nothing,
}

fn role(tag: DwTag, parent: Option<Shape>) -> Role {
    match (tag, parent) {
        (DW_TAG_base_type, _) => Role::Type(Shape::Int(0)),
        (DW_TAG_pointer_type | DW_TAG_reference_type | DW_TAG_rvalue_reference_type, _) => {
            Role::Type(Shape::Refer(Kind::Ptr))
        }
        (DW_TAG_structure_type | DW_TAG_class_type, _) => Role::Type(Shape::Composite(Kind::Struct)),
        (DW_TAG_union_type, _) => Role::Type(Shape::Composite(Kind::Union)),
        (DW_TAG_enumeration_type, _) => Role::Type(Shape::Enum),
        (DW_TAG_typedef, _) => Role::Type(Shape::Refer(Kind::Typedef)),
        (DW_TAG_const_type, _) => Role::Type(Shape::Refer(Kind::Const)),
        (DW_TAG_volatile_type, _) => Role::Type(Shape::Refer(Kind::Volatile)),
        (DW_TAG_restrict_type, _) => Role::Type(Shape::Refer(Kind::Restrict)),
        (DW_TAG_atomic_type | DW_TAG_immutable_type | DW_TAG_packed_type | DW_TAG_shared_type, _) => {
            Role::Type(Shape::Same)
        }
        (DW_TAG_array_type, _) => Role::Type(Shape::Array),
        (DW_TAG_subroutine_type, _) => Role::Type(Shape::Prototype),
        (DW_TAG_unspecified_type, _) => Role::Type(Shape::Void),
        (DW_TAG_member, Some(Shape::Composite(_))) => Role::Member,
        (DW_TAG_enumerator, Some(Shape::Enum)) => Role::Enumerator,
        (DW_TAG_subrange_type, Some(Shape::Array)) => Role::Dimension,
        (DW_TAG_formal_parameter, Some(Shape::Prototype)) => Role::Parameter,
        (DW_TAG_unspecified_parameters, Some(Shape::Prototype)) => Role::Rest,
        _ => Role::Nothing,
    }
}

/// As the list of languages that goes on after DWARF 5 has it.
const DW_LANG_C23: gimli::DwLang = gimli::DwLang(0x3e);

/// Whether types of units in that language are C types; assembly has none.
fn is_c(language: u64) -> bool {
    let c = [DW_LANG_C, DW_LANG_C89, DW_LANG_C99, DW_LANG_C11, DW_LANG_C17, DW_LANG_C23];
    c.iter().any(|c| u64::from(c.0) == language)
}

impl Graph {
    pub fn clear(&mut self) {
        self.nodes.clear();
        self.parts.clear();
    }

    pub fn parts<'g>(&'g self, node: &Node) -> Parts<'g> {
        Parts { graph: self, next: node.first }
    }

    /// The number of the type at `place`.
    ///
    /// # Errors
    ///
    /// `Dwarf` if there is none.
    pub fn find(&self, place: Place) -> Result<usize> {
        self.nodes
            .binary_search_by_key(&place, |node| node.place)
            .map_err(|_| wrong(".debug_info", place, "no type is here, but it is referred to"))
    }

    /// Adds the types of a unit. `together`: units are read into one graph, and may refer to each other.
    pub fn read(
        &mut self,
        sections: &Sections<'_>,
        unit: &Unit<'_>,
        types: &mut Types,
        together: bool,
    ) -> std::result::Result<(), Failure> {
        let entries = unit.header.entries_raw(&unit.abbreviations, None);
        let entries = entries.map_err(|e| wrong(".debug_info", unit.start, e))?;
        let mut reader = Reader {
            sections,
            types,
            entries,
            start: unit.start,
            end: unit.start.saturating_add(unit.header.length_including_self()),
            format: unit.header.format(),
            strings: None,
            together,
        };
        let mut parents: Vec<Option<usize>> = Vec::new();
        let mut is_first = true;
        while !reader.entries.is_empty() {
            let place = unit.start.saturating_add(reader.entries.next_offset().0);
            let entry = reader.entries.read_abbreviation().map_err(|e| wrong(".debug_info", place, e))?;
            let Some(entry) = entry else {
                parents.pop();
                continue;
            };
            let specs = entry.attributes();
            // An attribute may take no byte, and an entry one byte for thousands of them.
            reader.types.spend(1 + specs.len() as u64)?;
            if is_first {
                is_first = false;
                let attributes = reader.attributes(place, specs, true)?;
                if attributes.is_split {
                    return Err(
                        Box::new(Error::NoDwarf { reason: "its types are in other files (.dwo)" }).into()
                    );
                }
                if !is_c(attributes.language) && entry.tag() != DW_TAG_partial_unit {
                    return Ok(());
                }
                reader.strings = attributes.strings;
                if entry.has_children() {
                    parents.push(None);
                }
                continue;
            }
            let parent = parents.last().copied().flatten();
            let role = role(entry.tag(), parent.and_then(|at| self.nodes.get(at)).map(|node| node.shape));
            let mut made = None;
            match (role, parent) {
                (Role::Nothing, _) => {
                    let skipped = reader.entries.skip_attributes(specs);
                    skipped.map_err(|e| wrong(".debug_info", place, e))?;
                }
                (Role::Type(shape), _) => {
                    let attributes = reader.attributes(place, specs, false)?;
                    reader.types.leave_out(u64::from(attributes.odd));
                    made = Some(self.nodes.len());
                    self.add_node(place, shape, attributes)?;
                }
                (role, Some(parent)) => {
                    let attributes = reader.attributes(place, specs, false)?;
                    if attributes.odd {
                        reader.types.leave_out(1);
                    } else {
                        self.add_part(parent, &role, attributes, place)?;
                    }
                }
                (_, None) => return Err(Box::new(Error::Internal("a part without a type")).into()),
            }
            if entry.has_children() {
                parents.push(made);
            }
        }
        Ok(())
    }

    fn add_node(&mut self, place: Place, shape: Shape, attributes: Attributes) -> Result<()> {
        if self.nodes.len() >= MAX_NODES {
            return Err(Box::new(Error::TooComplex { what: "types of a unit", limit: MAX_NODES as u64 }));
        }
        let shape = if shape == Shape::Int(0) { base(attributes.encoding) } else { shape };
        self.nodes.push(Node {
            place,
            shape,
            name: attributes.name,
            size: attributes.size,
            target: attributes.target,
            declared: attributes.declared,
            first: NONE,
            last: NONE,
        });
        Ok(())
    }

    fn add_part(&mut self, parent: usize, role: &Role, attributes: Attributes, place: Place) -> Result<()> {
        if self.parts.len() >= MAX_PARTS {
            return Err(Box::new(Error::TooComplex {
                what: "members of types of a unit",
                limit: MAX_PARTS as u64,
            }));
        }
        let mut part = Part {
            next: NONE,
            name: attributes.name,
            target: attributes.target,
            value: attributes.value,
            negative: attributes.negative,
            bits: 0,
            from_top: None,
        };
        match role {
            Role::Member if attributes.declared => return Ok(()),
            Role::Member => {
                part.bits = u8::try_from(attributes.bit_size)
                    .map_err(|_| wrong(".debug_info", place, "a bit-field of more than 255 bits"))?;
                let bits = attributes.location.checked_mul(8);
                let bits = bits.and_then(|bits| bits.checked_add(attributes.data_bit_offset.unwrap_or(0)));
                part.value = bits.ok_or_else(|| wrong(".debug_info", place, "a member beyond all memory"))?;
                part.from_top = attributes.bit_offset.map(|offset| (offset, attributes.size));
            }
            Role::Dimension => {
                // An unsigned bound of -1 is how old compilers said that there are no elements.
                let none = |bound: &u64| [u64::from(u32::MAX), u64::MAX].contains(bound);
                let bound = attributes.upper_bound.filter(|bound| !none(bound)).map(|bound| bound + 1);
                part.value = attributes.count.or(bound).unwrap_or(0);
            }
            _ => {}
        }
        let number = self.parts.len() as u32;
        self.parts.push(part);
        let Some(node) = self.nodes.get_mut(parent) else {
            return Err(Box::new(Error::Internal("a part without a type")));
        };
        let last = std::mem::replace(&mut node.last, number);
        match self.parts.get_mut(last as usize).filter(|_| last != NONE) {
            Some(last) => last.next = number,
            None => node.first = number,
        }
        Ok(())
    }
}

/// The shape of a base type of that encoding.
fn base(encoding: u64) -> Shape {
    use crate::btf::encode::{BOOL, SIGNED};
    let is = |known: gimli::DwAte| u64::from(known.0) == encoding;
    if is(DW_ATE_float) || is(DW_ATE_complex_float) || is(DW_ATE_imaginary_float) || is(DW_ATE_decimal_float)
    {
        Shape::Float
    } else if is(DW_ATE_boolean) {
        Shape::Int(BOOL)
    } else if is(DW_ATE_signed) || is(DW_ATE_signed_char) || is(DW_ATE_signed_fixed) {
        Shape::Int(SIGNED)
    } else {
        Shape::Int(0)
    }
}

struct Reader<'s, 'u> {
    sections: &'s Sections<'s>,
    types: &'u mut Types,
    entries: EntriesRaw<'u, 'u, Slice<'s>>,
    start: usize,
    end: usize,
    format: Format,
    strings: Option<usize>,
    together: bool,
}

impl<'s> Reader<'s, '_> {
    fn attributes(
        &mut self,
        place: Place,
        specs: &[gimli::AttributeSpecification],
        of_unit: bool,
    ) -> std::result::Result<Attributes, Failure> {
        let mut found = Attributes::default();
        for spec in specs {
            let attribute = self.entries.read_attribute(*spec);
            let attribute = attribute.map_err(|e| wrong(".debug_info", place, e))?;
            let value = attribute.raw_value();
            let number = |odd: &mut bool| {
                let number = unsigned(&value);
                *odd |= number.is_none();
                number
            };
            let odd = &mut found.odd;
            match attribute.name() {
                // Its file's, which no type refers to.
                DW_AT_name if of_unit => {}
                DW_AT_name => found.name = self.name(place, &value)?,
                DW_AT_type => found.target = self.reference(place, &value)?,
                DW_AT_byte_size => found.size = number(odd).unwrap_or(0),
                DW_AT_encoding => found.encoding = number(odd).unwrap_or(0),
                DW_AT_declaration => found.declared = value != AttributeValue::Flag(false),
                DW_AT_data_member_location => {
                    let location = location(&value);
                    *odd |= location.is_none();
                    found.location = location.unwrap_or(0);
                }
                DW_AT_bit_size => found.bit_size = number(odd).unwrap_or(0),
                DW_AT_data_bit_offset => found.data_bit_offset = number(odd),
                DW_AT_bit_offset => found.bit_offset = number(odd),
                // Of an array whose length is computed when it comes into being, BTF knows no elements.
                DW_AT_upper_bound => found.upper_bound = unsigned(&value),
                DW_AT_count => found.count = unsigned(&value),
                DW_AT_const_value => {
                    found.value = number(odd).unwrap_or(0);
                    found.negative = matches!(value, AttributeValue::Sdata(value) if value < 0);
                }
                DW_AT_language => found.language = unsigned(&value).unwrap_or(0),
                DW_AT_str_offsets_base => {
                    if let AttributeValue::SecOffset(base) = value {
                        found.strings = Some(base);
                    }
                }
                DW_AT_dwo_name | DW_AT_GNU_dwo_name => found.is_split = true,
                _ => {}
            }
        }
        Ok(found)
    }

    fn name(&mut self, place: Place, value: &AttributeValue<Slice<'s>>) -> Result<Name> {
        let offset = match value {
            AttributeValue::String(text) => return self.types.name(text.slice()),
            AttributeValue::DebugLineStrRef(offset) => {
                return self.types.name(self.sections.line_string(offset.0)?);
            }
            AttributeValue::DebugStrRef(offset) => offset.0,
            AttributeValue::DebugStrOffsetsIndex(index) => {
                // Of a unit without base, numbers start behind the first header.
                let base = self.strings.unwrap_or(if self.format == Format::Dwarf64 { 16 } else { 8 });
                self.sections.string_offset(self.format, base, index.0)?
            }
            _ => return Err(wrong(".debug_info", place, "a name that is kept in another file")),
        };
        self.types.name_at(offset, || self.sections.string(offset))
    }

    fn reference(
        &self,
        place: Place,
        value: &AttributeValue<Slice<'s>>,
    ) -> std::result::Result<Place, Failure> {
        let target = match value {
            AttributeValue::UnitRef(offset) => self.start.saturating_add(offset.0),
            AttributeValue::DebugInfoRef(offset) => offset.0,
            AttributeValue::DebugTypesRef(_) => {
                return Err(Box::new(Error::NoDwarf { reason: "its types are in type units" }).into());
            }
            _ => return Err(wrong(".debug_info", place, "a type that is kept in another file").into()),
        };
        if !self.together && !(self.start..self.end).contains(&target) {
            return Err(Failure::OtherUnit);
        }
        Ok(target)
    }
}

/// A constant. Those of 1 to 4 bytes have no sign.
fn unsigned(value: &AttributeValue<Slice<'_>>) -> Option<u64> {
    match *value {
        AttributeValue::Data1(value) => Some(value.into()),
        AttributeValue::Data2(value) => Some(value.into()),
        AttributeValue::Data4(value) => Some(value.into()),
        AttributeValue::Data8(value) | AttributeValue::Udata(value) => Some(value),
        AttributeValue::Sdata(value) => Some(value as u64),
        _ => None,
    }
}

/// The offset of a member: a constant, or an expression that adds one (DWARF 2).
fn location(value: &AttributeValue<Slice<'_>>) -> Option<u64> {
    use gimli::Reader as _;
    let mut expression = match value {
        AttributeValue::Exprloc(expression) => expression.0,
        AttributeValue::Block(block) => *block,
        // As DWARF 3 has it: of four bytes, an offset.
        AttributeValue::SecOffset(offset) => return Some(*offset as u64),
        other => return unsigned(other),
    };
    let adds = expression.read_u8().ok()? == DW_OP_plus_uconst.0;
    let offset = expression.read_uleb128().ok()?;
    (adds && expression.is_empty()).then_some(offset)
}
