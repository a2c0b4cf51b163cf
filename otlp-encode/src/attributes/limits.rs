//! How much of an item is kept, as the OpenTelemetry SDK specification has it.

use super::Value;

/// How many attributes an item keeps, and how much of their values. By default, all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttributeLimits {
    /// Attributes that are kept: the first ones of a list. The others are counted as dropped.
    pub count: usize,
    /// What is kept of a value, within lists and maps too: characters of a text, bytes of a byte array. An
    /// [`AttributesBlob`](crate::AttributesBlob) keeps the values that it was made of.
    pub value_length: Option<usize>,
}

impl Default for AttributeLimits {
    fn default() -> Self {
        Self { count: usize::MAX, value_length: None }
    }
}

/// What of a text or of bytes is within `max`, which counts characters and bytes.
#[inline]
pub(super) fn shorten(value: Value<'_>, max: usize) -> Value<'_> {
    match value {
        Value::Str(text) if text.len() > max => Value::Str(first_characters(text, max)),
        Value::Bytes(bytes) if bytes.len() > max => Value::Bytes(bytes.get(..max).unwrap_or_default()),
        value => value,
    }
}

#[cold]
fn first_characters(text: &str, max: usize) -> &str {
    let end = text.char_indices().nth(max).map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or_default()
}
