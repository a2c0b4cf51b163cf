//! OTLP JSON, from encoded bytes.
//!
//! The mapping of OTLP 1.11: lowerCamelCase names, 64-bit integers as strings, enums as numbers, bytes as base64
//! except trace, span and profile ids, which are hexadecimal. Fields with default values are absent, as they are
//! from the bytes. One message is one line, as the Collector's file exporter writes requests.

use crate::descriptor::{Descriptor, Field, Kind, Label};
use crate::error::Error;
use crate::wire::WireType;
use alloc::string::String;
use core::fmt::{self, Write as _};

/// How deep messages may be nested, the outermost one included; protobuf decoders have the same limit.
pub const MAX_DEPTH: usize = 100;

/// Appends the message that `bytes` encode, as one line of JSON without its end of line.
///
/// `bytes` must be canonical as this crate writes them: fields known and in ascending order. Anything else is an
/// error with the offset where it was noticed, and leaves `out` as it was.
///
/// ```
/// use otlp_encode::{json, resource::Resource, wire::Writer};
///
/// let mut writer = Writer::new();
/// let bytes = Resource::encode(&mut writer, |resource| {
///     resource.attributes([("process.pid", 7)], |kv, (key, value)| kv.int(key, value));
/// });
/// let mut line = String::new();
/// json::transcode(Resource::descriptor(), bytes, &mut line)?;
/// assert_eq!(line, r#"{"attributes":[{"key":"process.pid","value":{"intValue":"7"}}]}"#);
/// # Ok::<(), otlp_encode::Error>(())
/// ```
///
/// Errors: [`Error::Truncated`], [`Error::Varint`], [`Error::UnknownField`], [`Error::WireType`],
/// [`Error::FieldOrder`], [`Error::Utf8`], [`Error::Depth`].
pub fn transcode(descriptor: &Descriptor, bytes: &[u8], out: &mut String) -> Result<(), Error> {
    let before = out.len();
    let result = message(descriptor, &mut Reader { bytes, at: 0 }, out, 1);
    if result.is_err() {
        out.truncate(before);
    }
    result
}

/// What remains of a message, which ends where `bytes` end. Offsets count from the start of the outermost one.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let truncated = Error::Truncated { offset: self.bytes.len() };
        let end = self.at.checked_add(n).ok_or_else(|| truncated.clone())?;
        let taken = self.bytes.get(self.at..end).ok_or(truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Error> {
        let offset = self.at;
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?.first().copied().unwrap_or_default();
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::Varint { offset })
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    /// The content of a length-delimited field, as a reader of its own.
    fn delimited(&mut self) -> Result<Reader<'a>, Error> {
        let len = self.varint()?;
        let at = self.at;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))?;
        Ok(Reader { bytes: self.bytes.get(..self.at).unwrap_or_default(), at })
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}

fn message(
    descriptor: &Descriptor,
    reader: &mut Reader<'_>,
    out: &mut String,
    depth: usize,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::Depth { offset: reader.at });
    }
    out.push('{');
    let mut last: Option<&Field> = None;
    while !reader.is_empty() {
        let offset = reader.at;
        let header = reader.varint()?;
        let field = descriptor
            .fields
            .iter()
            .find(|field| u64::from(field.number) == header >> 3)
            .ok_or(Error::UnknownField { offset, field: header >> 3 })?;
        if header & 7 != wire_type(field) as u64 {
            return Err(Error::WireType { offset, field: field.number });
        }
        match last {
            Some(last) if last.number == field.number && field.label == Label::Repeated => out.push(','),
            Some(last) if last.position >= field.position => {
                return Err(Error::FieldOrder { offset, field: field.number });
            }
            _ => {
                end_field(last, out);
                if last.is_some() {
                    out.push(',');
                }
                name(field.name, out);
                if field.label == Label::Repeated {
                    out.push('[');
                }
            }
        }
        if field.label == Label::Packed {
            packed(field.kind, &mut reader.delimited()?, out)?;
        } else {
            value(field.kind, reader, out, depth)?;
        }
        last = Some(field);
    }
    end_field(last, out);
    out.push('}');
    Ok(())
}

fn end_field(field: Option<&Field>, out: &mut String) {
    if field.is_some_and(|field| field.label == Label::Repeated) {
        out.push(']');
    }
}

fn wire_type(field: &Field) -> WireType {
    match (field.label, field.kind) {
        (Label::Packed, _) => WireType::Delimited,
        (_, Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Sint32 | Kind::Bool) => {
            WireType::Varint
        }
        (_, Kind::Fixed32) => WireType::Fixed32,
        (_, Kind::Fixed64 | Kind::Sfixed64 | Kind::Double) => WireType::Fixed64,
        (_, Kind::String | Kind::Bytes | Kind::Id | Kind::Message(_)) => WireType::Delimited,
    }
}

fn packed(kind: Kind, reader: &mut Reader<'_>, out: &mut String) -> Result<(), Error> {
    out.push('[');
    let first = reader.at;
    while !reader.is_empty() {
        if reader.at != first {
            out.push(',');
        }
        scalar(kind, reader, out)?;
    }
    out.push(']');
    Ok(())
}

fn value(kind: Kind, reader: &mut Reader<'_>, out: &mut String, depth: usize) -> Result<(), Error> {
    match kind {
        Kind::Message(descriptor) => message(descriptor(), &mut reader.delimited()?, out, depth + 1),
        Kind::String => {
            let content = reader.delimited()?;
            let text = core::str::from_utf8(content.rest())
                .map_err(|error| Error::Utf8 { offset: content.at + error.valid_up_to() })?;
            string(text, out);
            Ok(())
        }
        Kind::Bytes => {
            base64(reader.delimited()?.rest(), out);
            Ok(())
        }
        Kind::Id => {
            let id = reader.delimited()?;
            append(out, format_args!("\""));
            for byte in id.rest() {
                append(out, format_args!("{byte:02x}"));
            }
            out.push('"');
            Ok(())
        }
        _ => scalar(kind, reader, out),
    }
}

/// A number or truth value. The kinds of other content do not get here.
fn scalar(kind: Kind, reader: &mut Reader<'_>, out: &mut String) -> Result<(), Error> {
    match kind {
        Kind::Fixed64 => append(out, format_args!("\"{}\"", u64::from_le_bytes(reader.fixed()?))),
        Kind::Sfixed64 => append(out, format_args!("\"{}\"", i64::from_le_bytes(reader.fixed()?))),
        Kind::Double => double(f64::from_le_bytes(reader.fixed()?), out),
        Kind::Fixed32 => append(out, format_args!("{}", u32::from_le_bytes(reader.fixed()?))),
        _ => varint(kind, reader.varint()?, out),
    }
    Ok(())
}

fn varint(kind: Kind, value: u64, out: &mut String) {
    match kind {
        Kind::Bool => append(out, format_args!("{}", value != 0)),
        Kind::Int32 => append(out, format_args!("{}", value as i32)),
        Kind::Uint32 => append(out, format_args!("{}", value as u32)),
        Kind::Sint32 => {
            let zigzag = value as u32;
            append(out, format_args!("{}", (zigzag >> 1) as i32 ^ -((zigzag & 1) as i32)));
        }
        Kind::Int64 => append(out, format_args!("\"{}\"", value as i64)),
        _ => append(out, format_args!("\"{value}\"")),
    }
}

fn append(out: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}

fn double(value: f64, out: &mut String) {
    if value.is_finite() {
        // As Debug writes it, of which small builds have no code: with an exponent where there would be many digits.
        if value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
            let start = out.len();
            append(out, format_args!("{value}"));
            if !out.get(start..).is_some_and(|text| text.contains('.')) {
                out.push_str(".0");
            }
        } else {
            append(out, format_args!("{value:e}"));
        }
    } else if value.is_nan() {
        out.push_str("\"NaN\"");
    } else {
        out.push_str(if value > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" });
    }
}

/// `string_value` as `"stringValue":`.
fn name(snake: &str, out: &mut String) {
    out.push('"');
    let mut upper = false;
    for c in snake.trim_start_matches("r#").chars() {
        if c == '_' {
            upper = true;
        } else {
            out.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    out.push_str("\":");
}

fn string(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        let mut chars = special.chars();
        match chars.next() {
            Some('\n') => out.push_str("\\n"),
            Some(c @ ('"' | '\\')) => out.extend(['\\', c]),
            Some(c) => append(out, format_args!("\\u{:04x}", u32::from(c))),
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

fn base64(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.push('"');
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Fields, Writer};

    crate::message! {
        struct Kinds {
            a: sint32 = 1,
            b: fixed32 = 2,
            c: explicit_double = 3,
            d: fixed64 = 4,
            e: oneof_sfixed64<3> = 5,
            f_g: packed_uint64 = 6,
            h: packed_double = 7,
        }
    }

    fn line(fill: impl FnOnce(&mut Fields<'_>)) -> Result<String, Error> {
        let mut writer = Writer::new();
        fill(&mut writer.fields());
        let mut line = String::new();
        transcode(Kinds::descriptor(), writer.as_bytes(), &mut line).map(|()| line)
    }

    #[track_caller]
    fn check(json: &str, fill: impl FnOnce(&mut Fields<'_>)) {
        assert_eq!(line(fill).as_deref(), Ok(json));
    }

    #[test]
    fn numbers_of_32_bits_are_numbers_and_those_of_64_texts() {
        for value in [0, -1, 1, -2, 63, -64, i32::MAX, i32::MIN] {
            check(&alloc::format!(r#"{{"a":{value}}}"#), |f| f.sint32(1, value));
        }
        check(r#"{"b":4294967295}"#, |f| f.fixed32(2, u32::MAX));
        check(r#"{"d":"18446744073709551615"}"#, |f| f.fixed64(4, u64::MAX));
        check(r#"{"e":"-9223372036854775808"}"#, |f| f.sfixed64_at(3, 5, i64::MIN));
        check(r#"{"fG":["0","18446744073709551615"]}"#, |f| f.packed_varint(6, [0, u64::MAX].into_iter()));
        check(r#"{"h":[-0.0,"Infinity","-Infinity","NaN",5e-324]}"#, |f| {
            f.packed_double(7, &[-0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 5e-324]);
        });
    }

    #[test]
    fn a_member_of_a_oneof_comes_before_fields_of_smaller_numbers_and_alone() {
        check(r#"{"b":1,"e":"2","d":"3"}"#, |f| {
            f.fixed64(4, 3);
            f.sfixed64_at(3, 5, 2);
            f.fixed32(2, 1);
        });
        let both = line(|f| {
            f.sfixed64_at(3, 5, 2);
            f.double(3, 1.0);
        });
        assert_eq!(both, Err(Error::FieldOrder { offset: 9, field: 5 }));
        let by_number = line(|f| {
            f.sfixed64_at(5, 5, 2);
            f.fixed64(4, 3);
        });
        assert_eq!(by_number, Err(Error::FieldOrder { offset: 9, field: 5 }));
    }

    #[test]
    fn content_of_another_length_is_an_error() {
        let cut = transcode(Kinds::descriptor(), &[2 << 3 | 5, 1, 2, 3], &mut String::new());
        assert_eq!(cut, Err(Error::Truncated { offset: 4 }));
        let wide = transcode(Kinds::descriptor(), &[2 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0], &mut String::new());
        assert_eq!(wide, Err(Error::WireType { offset: 0, field: 2 }));
        // A packed field with half a number.
        assert!(line(|f| f.bytes(7, &[0; 12])).is_err());
    }
}
