//! Attributes kept until a flush, in few bytes.

use bpf_loader::text::join;
use otlp_encode::Value;

use crate::telemetry::Attribute;
use crate::units::show_decimal;

/// The keys that were seen: constants of definitions, so that there are few.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<&'static str>);

mod tag {
    pub(super) const EMPTY: u8 = 0;
    pub(super) const TEXT: u8 = 1;
    pub(super) const FALSE: u8 = 2;
    pub(super) const TRUE: u8 = 3;
    pub(super) const INT: u8 = 4;
    pub(super) const DOUBLE: u8 = 5;
    pub(super) const BYTES: u8 = 6;
}

impl Keys {
    fn number(&mut self, key: &'static str) -> u16 {
        // Nearly always the same constant, so that no text is compared.
        let same = |own: &&'static str| std::ptr::eq(*own, key) || *own == key;
        let at = self.0.iter().position(same).unwrap_or_else(|| {
            self.0.push(key);
            self.0.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    /// Appends attributes. Equal ones in the same order are the same bytes.
    pub(crate) fn write(&mut self, attributes: &[Attribute<'_>], to: &mut Vec<u8>) {
        for (key, value) in attributes {
            to.extend_from_slice(&self.number(key).to_le_bytes());
            match value {
                Value::Empty => to.push(tag::EMPTY),
                Value::Str(text) => sized(to, tag::TEXT, text.as_bytes()),
                Value::Bool(false) => to.push(tag::FALSE),
                Value::Bool(true) => to.push(tag::TRUE),
                Value::Int(value) => fixed(to, tag::INT, value.to_le_bytes()),
                Value::Double(value) => fixed(to, tag::DOUBLE, value.to_le_bytes()),
                Value::Bytes(bytes) => sized(to, tag::BYTES, bytes),
                // Lists and maps, which no tracer has, as text.
                other => sized(to, tag::TEXT, show(*other).as_bytes()),
            }
        }
    }

    /// The attributes that `bytes` were written from.
    pub(crate) fn read<'a>(&self, mut bytes: &'a [u8]) -> Vec<(&'static str, Value<'a>)> {
        let mut attributes = Vec::new();
        while let Some(attribute) = self.next(&mut bytes) {
            attributes.push(attribute);
        }
        attributes
    }

    fn next<'a>(&self, bytes: &mut &'a [u8]) -> Option<(&'static str, Value<'a>)> {
        let key = *self.0.get(usize::from(u16::from_le_bytes(take(bytes)?)))?;
        let [tag] = take(bytes)?;
        let value = match tag {
            tag::EMPTY => Value::Empty,
            tag::FALSE => Value::Bool(false),
            tag::TRUE => Value::Bool(true),
            tag::INT => Value::Int(i64::from_le_bytes(take(bytes)?)),
            tag::DOUBLE => Value::Double(f64::from_le_bytes(take(bytes)?)),
            _ => {
                let len = u32::from_le_bytes(take(bytes)?) as usize;
                let (content, rest) = bytes.split_at_checked(len)?;
                *bytes = rest;
                if tag == tag::BYTES {
                    Value::Bytes(content)
                } else {
                    Value::Str(std::str::from_utf8(content).unwrap_or_default())
                }
            }
        };
        Some((key, value))
    }
}

/// A value as text.
pub(crate) fn show(value: Value<'_>) -> String {
    match value {
        Value::Str(text) => text.to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Double(value) => show_decimal(value),
        Value::Bytes(bytes) => bytes.escape_ascii().to_string(),
        Value::Array(values) => join(&values.iter().map(|value| show(*value)).collect::<Vec<_>>(), ", "),
        Value::Map(pairs) => join(
            &pairs.iter().map(|(key, value)| format!("{key}={}", show(*value))).collect::<Vec<_>>(),
            ", ",
        ),
        _ => String::new(),
    }
}

fn fixed(to: &mut Vec<u8>, tag: u8, value: [u8; 8]) {
    to.push(tag);
    to.extend_from_slice(&value);
}

fn sized(to: &mut Vec<u8>, tag: u8, content: &[u8]) {
    // No event is near 4 GiB.
    let len = u32::try_from(content.len()).unwrap_or(0);
    to.push(tag);
    to.extend_from_slice(&len.to_le_bytes());
    to.extend_from_slice(content.get(..len as usize).unwrap_or_default());
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_maps_are_texts() {
        let list = [Value::Str("a"), Value::Int(1), Value::Bytes(&[b'x', 0]), Value::Empty];
        let map = [("k", Value::Array(&list)), ("t", Value::Bool(true))];
        assert_eq!(show(Value::Map(&map)), r"k=a, 1, x\x00, , t=true");
    }

    #[test]
    fn all_kinds_of_values_come_back() {
        let mut keys = Keys::default();
        let attributes: &[Attribute<'_>] = &[
            ("a", Value::Str("text é")),
            ("b", Value::Bool(true)),
            ("c", Value::Bool(false)),
            ("d", Value::Int(-7)),
            ("e", Value::Double(0.5)),
            ("f", Value::Bytes(&[0, 255])),
            ("g", Value::Empty),
            ("a", Value::Str("")),
        ];
        let mut bytes = Vec::new();
        keys.write(attributes, &mut bytes);
        assert_eq!(keys.read(&bytes), attributes);
        let mut again = Vec::new();
        keys.write(attributes, &mut again);
        assert_eq!(bytes, again);
        for end in 0..bytes.len() {
            assert!(keys.read(&bytes[..end]).len() < attributes.len());
        }
    }
}
