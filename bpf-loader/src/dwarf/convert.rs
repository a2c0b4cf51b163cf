//! A graph of types to types that are each there once.

use super::graph::{Graph, Node, Part, Place, Shape};
use super::sections::wrong;
use super::types::{Head, Name, Ref, Types};
use crate::btf::Kind;
use crate::bytes::Endian;
use crate::error::{Error, Result};

/// How deeply types refer to each other between two names that are behind pointers. In kernels it is not half as much.
const MAX_DEPTH: u32 = 128;

/// How a type is referred to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It is held by value, or itself meant.
    Value,
    /// It is behind a pointer, or a parameter: a structure, union or enumeration is known by its name alone.
    Pointer,
}

/// Not yet converted.
const UNKNOWN: Ref = Ref(u32::MAX);

/// Adds all types of a graph.
///
/// # Errors
///
/// `Dwarf`, `TooComplex`.
pub(super) fn convert(graph: &Graph, types: &mut Types) -> Result<()> {
    let mut converter = Converter { graph, types, done: vec![[UNKNOWN; 2]; graph.nodes.len()] };
    for (index, node) in graph.nodes.iter().enumerate() {
        converter.node(index, node, Way::Value, MAX_DEPTH)?;
    }
    Ok(())
}

struct Converter<'g, 't> {
    graph: &'g Graph,
    types: &'t mut Types,
    /// By node and [`Way`].
    done: Vec<[Ref; 2]>,
}

impl Converter<'_, '_> {
    fn reference(&mut self, place: Place, way: Way, depth: u32) -> Result<Ref> {
        if place == 0 {
            return Ok(Ref::VOID);
        }
        let graph = self.graph;
        let index = graph.find(place)?;
        let node = graph.nodes.get(index).ok_or(Error::Internal("a type that was found"))?;
        self.node(index, node, way, depth)
    }

    fn node(&mut self, index: usize, node: &Node, way: Way, depth: u32) -> Result<Ref> {
        let done = self.done.get(index).and_then(|done| done.get(way as usize)).copied().unwrap_or(UNKNOWN);
        if done != UNKNOWN {
            return Ok(done);
        }
        let deeper = depth
            .checked_sub(1)
            .ok_or_else(|| wrong(".debug_info", node.place, "types are nested without end"))?;
        let made = self.make(node, way, deeper)?;
        if let Some(done) = self.done.get_mut(index).and_then(|done| done.get_mut(way as usize)) {
            *done = made;
        }
        Ok(made)
    }

    fn make(&mut self, node: &Node, way: Way, depth: u32) -> Result<Ref> {
        let size = || {
            u32::try_from(node.size)
                .map_err(|_| wrong(".debug_info", node.place, "a type of more than 4 GiB"))
        };
        let head = |kind, size_or_type| Head { kind, flag: false, name: node.name, size_or_type, len: 0 };
        let unnamed = node.name == Name::default();
        match node.shape {
            Shape::Void => Ok(Ref::VOID),
            Shape::Same => self.reference(node.target, way, depth),
            Shape::Int(encoding) => {
                let word = u32::from(encoding) << 24 | (size()?.wrapping_mul(8) & 0xff);
                self.types.add(head(Kind::Int, size()?), &[word])
            }
            Shape::Float => self.types.add(head(Kind::Float, size()?), &[]),
            // Without a name it is nothing but what it stands for.
            Shape::Refer(Kind::Typedef) if unnamed => self.reference(node.target, way, depth),
            Shape::Refer(kind) => {
                let behind = if kind == Kind::Ptr { Way::Pointer } else { way };
                let to = self.reference(node.target, behind, depth)?;
                let name = if kind == Kind::Typedef { node.name } else { Name::default() };
                self.types.add(Head { name, ..head(kind, to.0) }, &[])
            }
            Shape::Array => self.array(node, way, depth),
            Shape::Prototype => self.prototype(node, depth),
            Shape::Composite(_) | Shape::Enum if node.declared && unnamed => Ok(Ref::VOID),
            Shape::Composite(kind) if !unnamed && (node.declared || way == Way::Pointer) => {
                Ok(self.types.slot(kind, node.name))
            }
            Shape::Enum if !unnamed && (node.declared || way == Way::Pointer) => {
                Ok(self.types.slot(Kind::Enum, node.name))
            }
            Shape::Composite(kind) => self.composite(node, kind, size()?, depth),
            Shape::Enum => self.enumeration(node, size()?),
        }
    }

    fn array(&mut self, node: &Node, way: Way, depth: u32) -> Result<Ref> {
        let mut made = self.reference(node.target, way, depth)?;
        let index = Head {
            kind: Kind::Int,
            flag: false,
            name: self.types.name(b"__ARRAY_SIZE_TYPE__")?,
            size_or_type: 4,
            len: 0,
        };
        let index = self.types.add(index, &[32])?;
        let mut lengths: Vec<u64> = self.graph.parts(node).map(|part| part.value).collect();
        if lengths.is_empty() {
            lengths.push(0);
        }
        let head = Head { kind: Kind::Array, flag: false, name: Name::default(), size_or_type: 0, len: 0 };
        for len in lengths.into_iter().rev() {
            let len = u32::try_from(len);
            let len =
                len.map_err(|_| wrong(".debug_info", node.place, "an array of more than 2^32 elements"))?;
            made = self.types.add(head, &[made.0, index.0, len])?;
        }
        Ok(made)
    }

    fn prototype(&mut self, node: &Node, depth: u32) -> Result<Ref> {
        let returns = self.reference(node.target, Way::Pointer, depth)?;
        let mut words = Vec::new();
        for part in self.graph.parts(node) {
            words.extend([part.name.0, self.reference(part.target, Way::Pointer, depth)?.0]);
        }
        let len = count(words.len() / 2, node)?;
        let head =
            Head { kind: Kind::FuncProto, flag: false, name: Name::default(), size_or_type: returns.0, len };
        self.types.add(head, &words)
    }

    fn composite(&mut self, node: &Node, kind: Kind, size: u32, depth: u32) -> Result<Ref> {
        let flag = self.graph.parts(node).any(|part| part.bits > 0);
        let mut words = Vec::new();
        for part in self.graph.parts(node) {
            let to = self.reference(part.target, Way::Value, depth)?;
            // With bit-fields among the members, offsets of all have 24 bits, and the width is above.
            let most = if flag { 0xff_ffff } else { u32::MAX };
            let Some(offset) = self.bit_offset(part)?.filter(|offset| *offset <= most) else {
                self.types.leave_out(1);
                continue;
            };
            words.extend([part.name.0, to.0, u32::from(part.bits) << 24 | offset]);
        }
        let head =
            Head { kind, flag, name: node.name, size_or_type: size, len: count(words.len() / 3, node)? };
        if node.name == Name::default() {
            self.types.add(head, &words)
        } else {
            self.types.define(kind, head, &words)
        }
    }

    /// `None` for a member beyond 512 MiB.
    fn bit_offset(&self, part: &Part) -> Result<Option<u32>> {
        let value = i128::from(part.value);
        let offset = match part.from_top {
            None => value,
            Some((from_top, _)) if self.types.endian() == Endian::Big => value + i128::from(from_top as i64),
            // Counted from the other end there.
            Some((from_top, storage)) => {
                let storage = if storage == 0 { self.size_of(part.target)? } else { storage };
                value + i128::from(storage) * 8 - i128::from(from_top as i64) - i128::from(part.bits)
            }
        };
        Ok(u32::try_from(offset).ok())
    }

    /// Size of an integer or enumeration, through typedefs and qualifiers.
    fn size_of(&self, mut place: Place) -> Result<u64> {
        for _ in 0..MAX_DEPTH {
            let index = self.graph.find(place)?;
            let Some(node) = self.graph.nodes.get(index) else { break };
            match node.shape {
                Shape::Refer(kind) if kind != Kind::Ptr => place = node.target,
                Shape::Same => place = node.target,
                _ => return Ok(node.size),
            }
        }
        Err(wrong(".debug_info", place, "types are nested without end"))
    }

    fn enumeration(&mut self, node: &Node, size: u32) -> Result<Ref> {
        let wide = size > 4;
        let mut words = Vec::new();
        let mut flag = false;
        for part in self.graph.parts(node) {
            words.extend([part.name.0, part.value as u32]);
            if wide {
                words.push((part.value >> 32) as u32);
            }
            flag |= part.negative;
        }
        let len = count(words.len() / if wide { 3 } else { 2 }, node)?;
        // Old compilers say no size of what has that of an int.
        let size_or_type = if size == 0 { 4 } else { size };
        let kind = if wide { Kind::Enum64 } else { Kind::Enum };
        let head = Head { kind, flag, name: node.name, size_or_type, len };
        if node.name == Name::default() {
            self.types.add(head, &words)
        } else {
            self.types.define(Kind::Enum, head, &words)
        }
    }
}

/// The number of a type's members, of which BTF has 24 bits.
fn count(len: usize, node: &Node) -> Result<u32> {
    let len = u32::try_from(len).ok().filter(|len| *len <= 0xff_ffff);
    len.ok_or_else(|| wrong(".debug_info", node.place, "more members than BTF can count"))
}
