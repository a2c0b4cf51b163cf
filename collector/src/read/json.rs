//! OTLP JSON lines: each is turned into the request that it stands for, field by field as the proto files have them.

use otlp_encode::descriptor::{Descriptor, Field, Kind, Label};
use otlp_encode::profiles::ExportProfilesServiceRequest;
use serde_json::Value;

use super::build::push;
use super::wire::Message;
use super::{ReadError, Recording, otlp};

/// Bytes of a line: parsed, they take many times as much.
const MAX_LINE: usize = 64 << 20;

pub(super) fn parse(bytes: &[u8], wanted: Option<&str>) -> Result<Recording, ReadError> {
    let mut requests = Vec::new();
    let lines = bytes.split(|byte| *byte == b'\n').zip(1..).filter(|(text, _)| !text.trim_ascii().is_empty());
    for (text, line) in lines {
        if text.len() > MAX_LINE {
            return Err(ReadError::TooLarge { what: "bytes in a line", limit: MAX_LINE });
        }
        let value: Value = serde_json::from_slice(text).map_err(|source| ReadError::Json { line, source })?;
        let mut request = Vec::new();
        message(ExportProfilesServiceRequest::descriptor(), &value, &mut request)
            .ok_or(ReadError::Line { line, expected: "a request of profiles in OTLP JSON" })?;
        push(&mut requests, request, "lines")?;
    }
    let messages: Vec<Message<'_>> =
        requests.iter().map(|request| Message::new(request, "request")).collect();
    otlp::parse_all(&messages, wanted)
}

/// `None` where a value is of no kind that its field takes. Unknown fields say nothing.
fn message(descriptor: &Descriptor, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    for (name, value) in value.as_object()? {
        let field = descriptor.fields.iter().find(|field| is_called(field, name));
        match (field, value) {
            (None, _) | (_, Value::Null) => {}
            (Some(field), Value::Array(values)) if field.label != Label::Single => {
                values.iter().try_for_each(|value| one(field, value, out))?;
            }
            (Some(field), value) => one(field, value, out)?,
        }
    }
    Some(())
}

/// Whether `name` is the field's in lowerCamelCase.
fn is_called(field: &Field, name: &str) -> bool {
    let mut upper = false;
    let mut camel = field.name.trim_start_matches("r#").chars().filter_map(|c| {
        if c == '_' {
            upper = true;
            return None;
        }
        Some(if std::mem::take(&mut upper) { c.to_ascii_uppercase() } else { c })
    });
    name.chars().all(|c| camel.next() == Some(c)) && camel.next().is_none()
}

fn one(field: &Field, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    let mut header = |wire_type: u64| varint(u64::from(field.number) << 3 | wire_type, out);
    match field.kind {
        Kind::Message(descriptor) => {
            let mut content = Vec::new();
            message(descriptor(), value, &mut content)?;
            header(2);
            delimited(&content, out);
        }
        Kind::String => {
            header(2);
            delimited(value.as_str()?.as_bytes(), out);
        }
        // Nothing that is read has any.
        Kind::Bytes | Kind::Id | Kind::Double => {}
        Kind::Bool => {
            header(0);
            varint(u64::from(value.as_bool()?), out);
        }
        Kind::Fixed64 | Kind::Sfixed64 => {
            header(1);
            out.extend(number(value)?.to_le_bytes());
        }
        Kind::Fixed32 => {
            header(5);
            out.extend(u32::try_from(number(value)?).ok()?.to_le_bytes());
        }
        _ => {
            header(0);
            varint(number(value)?, out);
        }
    }
    Some(())
}

/// The bits of a number: those of 64 bits are texts, and numbers are understood too.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => text.parse().ok().or_else(|| text.parse().ok().map(|n: i64| n as u64)),
        value => value.as_u64().or_else(|| value.as_i64().map(|n| n as u64)),
    }
}

fn delimited(content: &[u8], out: &mut Vec<u8>) {
    varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
