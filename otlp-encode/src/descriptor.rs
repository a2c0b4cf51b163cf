//! What a message's fields are called and how they are laid out: the table by which encoded bytes are read back.
//!
//! [`message!`](crate::message!) derives it from the same declaration as the methods that write the message.

/// A message's fields, in ascending order of their positions.
#[derive(Debug)]
pub struct Descriptor {
    /// The fields.
    pub fields: &'static [Field],
}

/// One field of a message.
#[derive(Debug)]
pub struct Field {
    /// The number in the proto file.
    pub number: u32,
    /// Where it stands among the others: its number, or the lowest of the `oneof` that it is a member of.
    pub position: u32,
    /// The name in the proto file, in snake case.
    pub name: &'static str,
    /// How often it may occur.
    pub label: Label,
    /// What it holds.
    pub kind: Kind,
}

/// How often a field may occur.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// At most once.
    Single,
    /// Any number of times, each with its own header.
    Repeated,
    /// Once, with any number of elements in it.
    Packed,
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Kind {
    /// `int32` and every enum.
    Int32,
    /// `int64`.
    Int64,
    /// `uint32`.
    Uint32,
    /// `uint64`.
    Uint64,
    /// `sint32`.
    Sint32,
    /// `fixed32`.
    Fixed32,
    /// `sfixed64`.
    Sfixed64,
    /// `fixed64`.
    Fixed64,
    /// `bool`.
    Bool,
    /// `double`.
    Double,
    /// `string`.
    String,
    /// `bytes`.
    Bytes,
    /// `bytes` that are a trace, span or profile id: hexadecimal in OTLP JSON, where other bytes are base64.
    Id,
    /// A nested message.
    Message(fn() -> &'static Descriptor),
}
