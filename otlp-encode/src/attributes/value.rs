//! A value, and how a key and a value are encoded.

use crate::error::Error;
use crate::wire::{Writer, copy, varint_len};

use super::blob::Encoded;
use super::limits::shorten;

/// How deep lists and maps may be nested within a value. Decoders allow 100 nested messages, and a map is three.
pub const MAX_VALUE_DEPTH: usize = 30;

/// A value of an attribute or the body of a log record.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// No value.
    #[default]
    Empty,
    /// Text.
    Str(&'a str),
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Double(f64),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A list.
    Array(&'a [Value<'a>]),
    /// A map; keys are unique.
    Map(&'a [(&'a str, Value<'a>)]),
}

macro_rules! from {
    ($($type:ty => $variant:ident,)*) => {$(
        impl<'a> From<$type> for Value<'a> {
            #[inline]
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

from! {
    &'a str => Str,
    bool => Bool,
    i64 => Int,
    i32 => Int,
    u32 => Int,
    u16 => Int,
    f64 => Double,
    &'a [u8] => Bytes,
    &'a [Value<'a>] => Array,
    &'a [(&'a str, Value<'a>)] => Map,
}

/// Where a value is, and what is kept of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    depth: usize,
    max_length: usize,
}

impl At {
    /// An attribute's or a log record's own value.
    pub(super) fn top(max_length: usize) -> Self {
        Self { depth: 0, max_length }
    }

    fn deeper(self) -> Result<Self, Error> {
        if self.depth >= MAX_VALUE_DEPTH {
            return Err(Error::ValueDepth);
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

const DELIMITED: u8 = 2;
/// `KeyValue.key`.
const KEY: u8 = 1 << 3 | DELIMITED;
/// `KeyValue.value`.
const VALUE: u8 = 2 << 3 | DELIMITED;
/// `ArrayValue.values` and `KeyValueList.values`.
const ELEMENT: u8 = 1 << 3 | DELIMITED;

/// The fields of `AnyValue`.
mod any {
    use super::DELIMITED;

    pub(super) const STRING: u8 = 1 << 3 | DELIMITED;
    pub(super) const BOOL: u8 = 2 << 3;
    pub(super) const INT: u8 = 3 << 3;
    pub(super) const DOUBLE: u8 = 4 << 3 | 1;
    pub(super) const ARRAY: u8 = 5 << 3 | DELIMITED;
    pub(super) const MAP: u8 = 6 << 3 | DELIMITED;
    pub(super) const BYTES: u8 = 7 << 3 | DELIMITED;
}

/// Writes a `KeyValue` with the header `tag`.
#[inline(always)]
pub(super) fn key_value(
    writer: &mut Writer,
    tag: u8,
    key: &str,
    value: Value<'_>,
    at: At,
) -> Result<(), Error> {
    let key = key.as_bytes();
    // Most are short: all lengths are one byte, and known.
    if (1..64).contains(&key.len()) {
        match value {
            Value::Str(text) if text.len() < 0x80 - 64 - 6 && text.len() <= at.max_length => {
                short(writer, tag, key, [any::STRING, text.len() as u8], text.as_bytes());
                return Ok(());
            }
            Value::Int(value @ 0..0x80) => {
                short(writer, tag, key, [any::INT], &[value as u8]);
                return Ok(());
            }
            Value::Int(value @ 0x80..0x4000) => {
                short(writer, tag, key, [any::INT], &[value as u8 | 0x80, (value >> 7) as u8]);
                return Ok(());
            }
            Value::Bool(value) => {
                short(writer, tag, key, [any::BOOL], &[value.into()]);
                return Ok(());
            }
            Value::Double(value) => {
                short(writer, tag, key, [any::DOUBLE], &value.to_le_bytes());
                return Ok(());
            }
            _ => {}
        }
    }
    long(writer, tag, key, value, at)
}

/// A `KeyValue` of less than 128 bytes, whose value is `header` and `content`.
#[inline(always)]
fn short<const N: usize>(writer: &mut Writer, tag: u8, key: &[u8], header: [u8; N], content: &[u8]) {
    let value = N + content.len();
    let slot = writer.claim(key.len() + value + 6);
    let Some((start, rest)) = slot.split_first_chunk_mut() else { return };
    *start = [tag, (key.len() + value + 4) as u8, KEY, key.len() as u8];
    let Some((to_key, rest)) = rest.split_at_mut_checked(key.len()) else { return };
    copy(to_key, key);
    let Some((start, rest)) = rest.split_first_chunk_mut() else { return };
    *start = [VALUE, value as u8];
    let Some((start, to_content)) = rest.split_first_chunk_mut() else { return };
    *start = header;
    copy(to_content, content);
}

fn long(writer: &mut Writer, tag: u8, key: &[u8], value: Value<'_>, at: At) -> Result<(), Error> {
    let end = writer.len();
    any_value(writer, VALUE, value, at)?;
    if !key.is_empty() {
        writer.prepend(key);
        header(writer, KEY, key.len());
    }
    let len = writer.len() - end;
    header(writer, tag, len);
    Ok(())
}

/// Writes an `AnyValue` with the header `tag`.
pub(super) fn any_value(writer: &mut Writer, tag: u8, value: Value<'_>, at: At) -> Result<(), Error> {
    let end = writer.len();
    match shorten(value, at.max_length) {
        Value::Empty => {}
        Value::Str(text) => {
            writer.prepend(text.as_bytes());
            header(writer, any::STRING, text.len());
        }
        Value::Bool(value) => writer.prepend(&[any::BOOL, value.into()]),
        Value::Int(value) => {
            writer.varint(value as u64);
            writer.prepend(&[any::INT]);
        }
        Value::Double(value) => {
            writer.prepend(&value.to_le_bytes());
            writer.prepend(&[any::DOUBLE]);
        }
        Value::Bytes(bytes) => {
            writer.prepend(bytes);
            header(writer, any::BYTES, bytes.len());
        }
        Value::Array(values) => {
            let at = at.deeper()?;
            for &value in values.iter().rev() {
                any_value(writer, ELEMENT, value, at)?;
            }
            let len = writer.len() - end;
            header(writer, any::ARRAY, len);
        }
        Value::Map(entries) => {
            let at = at.deeper()?;
            let mut keys = Keys::new(writer);
            for &(key, value) in entries.iter().rev() {
                if !keys.insert(writer, key) {
                    return Err(Error::DuplicateAttribute);
                }
                key_value(writer, ELEMENT, key, value, at)?;
            }
            if !keys.finish(writer) {
                return Err(Error::DuplicateAttribute);
            }
            let len = writer.len() - end;
            header(writer, any::MAP, len);
        }
    }
    let len = writer.len() - end;
    header(writer, tag, len);
    Ok(())
}

#[inline]
fn header(writer: &mut Writer, tag: u8, len: usize) {
    writer.varint(len as u64);
    writer.prepend(&[tag]);
}

/// Which keys a list has so far: one bit each, and where two share a bit, the encoded list itself is searched. A long
/// list is sorted at its end instead, as its keys may be anyone's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    seen: u64,
    count: usize,
    /// Whether the end has to tell.
    undecided: bool,
    /// [`Writer::len`] where the list ends.
    end: usize,
}

/// The most keys for which the list is searched.
const FEW: usize = 64;

impl Keys {
    pub(super) fn new(writer: &Writer) -> Self {
        Self { seen: 0, count: 0, undecided: false, end: writer.len() }
    }

    /// Notes a key that is about to be written. Whether it is new, as far as is known before the end.
    #[inline]
    pub(super) fn insert(&mut self, writer: &Writer, key: &str) -> bool {
        let bit = bit(key.as_bytes());
        self.count += 1;
        let new = self.seen & bit == 0 || self.is_long() || !self.has(writer, key.as_bytes());
        self.seen |= bit;
        new
    }

    /// Notes all keys of a list that is about to be written, and has none twice. Whether all are new, as far as is known
    /// before the end.
    #[inline]
    pub(super) fn insert_all(&mut self, writer: &Writer, list: &Encoded<'_>) -> bool {
        self.count += list.len();
        let new = self.seen & list.seen == 0
            || self.is_long()
            || !keys(list.bytes).any(|key| self.has(writer, key));
        self.seen |= list.seen;
        new
    }

    /// Whether it is left to the end to tell if there is a key twice.
    #[cold]
    fn is_long(&mut self) -> bool {
        self.undecided |= self.count > FEW;
        self.undecided
    }

    /// Whether all keys were new, when all is written.
    #[inline]
    pub(super) fn finish(self, writer: &mut Writer) -> bool {
        !self.undecided || self.differ(writer)
    }

    #[cold]
    fn differ(self, writer: &mut Writer) -> bool {
        let mut sorted = core::mem::take(&mut writer.scratch);
        let len = writer.len().saturating_sub(self.end);
        let list = writer.as_bytes().get(..len).unwrap_or_default();
        let key = |&start: &usize| keys(list.get(start..).unwrap_or_default()).next().unwrap_or_default();
        sorted.clear();
        sorted.extend(starts(list));
        sorted.sort_unstable_by(|a, b| key(a).cmp(key(b)));
        let differ = sorted.is_sorted_by(|a, b| key(a) < key(b));
        writer.scratch = sorted;
        differ
    }

    #[cold]
    fn has(&self, writer: &Writer, key: &[u8]) -> bool {
        let len = writer.len().saturating_sub(self.end);
        keys(writer.as_bytes().get(..len).unwrap_or_default()).any(|known| known == key)
    }
}

/// One of 64 bits, from both ends of the key and its length.
#[inline]
fn bit(key: &[u8]) -> u64 {
    let ends = match (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(27),
        _ => key.iter().fold(0, |ends, &byte| ends << 8 | u64::from(byte)),
    };
    1 << ((ends ^ key.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
}

/// The bits of all keys of an encoded list.
pub(super) fn seen(list: &[u8]) -> u64 {
    keys(list).fold(0, |seen, key| seen | bit(key))
}

/// The keys of an encoded list, whose header is one byte.
pub(super) fn keys(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let (len, rest) = length(list.get(1..)?)?;
        let (element, rest) = rest.split_at_checked(len)?;
        list = rest;
        // Without a key, the value comes first.
        let (KEY, content) = element.split_first().map(|(&tag, content)| (tag, content))? else {
            return Some(&[][..]);
        };
        let (len, content) = length(content)?;
        content.get(..len)
    })
}

/// Where the elements of an encoded list start.
pub(super) fn starts(list: &[u8]) -> impl Iterator<Item = usize> {
    let mut rest = list;
    core::iter::from_fn(move || {
        let start = list.len() - rest.len();
        let (len, content) = length(rest.get(1..)?)?;
        rest = content.get(len..)?;
        Some(start)
    })
}

fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut len = 0;
    for (at, &byte) in bytes.iter().take(varint_len(u64::MAX)).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some((len, bytes.get(at + 1..)?));
        }
    }
    None
}
