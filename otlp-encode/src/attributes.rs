//! Attributes: keys and values, from the caller's own data or encoded beforehand.
//!
//! Whatever takes attributes takes anything that implements [`Attributes`]: arrays and slices of keys and values, an
//! [`AttributesBlob`], a closure over an [`AttributeWriter`], or `()` for none. Keys are not empty and occur once in
//! a list, or the item that the list belongs to is refused.

mod blob;
mod limits;
mod value;

pub use blob::AttributesBlob;
pub use limits::AttributeLimits;
pub use value::{MAX_VALUE_DEPTH, Value};

use crate::error::Error;
use crate::wire::{Fields, Writer};
use value::{At, Keys, any_value, key_value};

/// What can be written as a list of attributes.
///
/// ```
/// use otlp_encode::{AttributeWriter, Attributes, AttributesBlob, Value};
///
/// // All values of one type, or of several.
/// let texts = [("http.request.method", "GET"), ("http.route", "/users/:id")];
/// let mixed = [("http.route", Value::from("/")), ("http.response.status_code", 200.into())];
/// // What is sent often is encoded once.
/// let blob = AttributesBlob::new(&mixed)?;
/// // What is computed.
/// let closure = |to: &mut AttributeWriter<'_>| {
///     to.add("server.port", 443);
///     to.extend(&blob);
/// };
/// assert!(AttributesBlob::new(&closure).is_ok());
/// assert!(AttributesBlob::new(&[("a", 1), ("a", 2)]).is_err());
/// # assert!(AttributesBlob::new(&texts).is_ok());
/// # Ok::<(), otlp_encode::Error>(())
/// ```
pub trait Attributes {
    /// Adds the attributes. Those added later stand in front.
    fn write(&self, to: &mut AttributeWriter<'_>);
}

impl Attributes for () {
    fn write(&self, _: &mut AttributeWriter<'_>) {}
}

/// Attributes stay in order.
impl<'a, V: Into<Value<'a>> + Copy> Attributes for &[(&str, V)] {
    fn write(&self, to: &mut AttributeWriter<'_>) {
        let kept = self.get(..to.keep(self.len())).unwrap_or_default();
        for &(key, value) in kept.iter().rev() {
            to.push(key, value.into());
        }
    }
}

impl<'a, V: Into<Value<'a>> + Copy, const N: usize> Attributes for [(&str, V); N] {
    fn write(&self, to: &mut AttributeWriter<'_>) {
        self.as_slice().write(to);
    }
}

impl Attributes for AttributesBlob {
    fn write(&self, to: &mut AttributeWriter<'_>) {
        to.blob(self);
    }
}

impl<F: Fn(&mut AttributeWriter<'_>)> Attributes for F {
    fn write(&self, to: &mut AttributeWriter<'_>) {
        self(to);
    }
}

/// Where the attributes of one list are written. The first error sticks, and refuses the item.
#[derive(Debug)]
pub struct AttributeWriter<'w> {
    writer: &'w mut Writer,
    /// What stands in front of every element.
    tag: u8,
    keys: Keys,
    /// How many more are kept.
    room: usize,
    /// How many were not.
    dropped: usize,
    max_length: usize,
    error: Option<Error>,
}

impl AttributeWriter<'_> {
    /// Adds an attribute, in front of those before.
    ///
    /// Errors, which refuse the item: [`Error::Empty`] for an empty key; [`Error::DuplicateAttribute`];
    /// [`Error::ValueDepth`].
    #[inline]
    pub fn add<'v>(&mut self, key: &str, value: impl Into<Value<'v>>) {
        self.push(key, value.into());
    }

    // Not generic and not inlined: see the crate's documentation on optimization.
    #[inline(never)]
    fn push(&mut self, key: &str, value: Value<'_>) {
        if self.room == 0 {
            self.dropped += 1;
            return;
        }
        self.room -= 1;
        if key.is_empty() {
            self.fail(Error::Empty { field: "key" });
        }
        if !self.keys.insert(self.writer, key) {
            self.fail(Error::DuplicateAttribute);
        }
        if let Err(error) = key_value(self.writer, self.tag, key, value, At::top(self.max_length)) {
            self.fail(error);
        }
    }

    /// Adds all of `attributes`.
    pub fn extend(&mut self, attributes: &dyn Attributes) {
        attributes.write(self);
    }

    /// How many of so many attributes there is room for; the others count as dropped.
    #[inline]
    fn keep(&mut self, count: usize) -> usize {
        let kept = count.min(self.room);
        self.dropped += count - kept;
        kept
    }

    #[inline]
    fn blob(&mut self, blob: &AttributesBlob) {
        let kept = self.keep(blob.len());
        self.room -= kept;
        let list = if kept == blob.len() { blob.encoded() } else { blob.first(kept) };
        if !self.keys.insert_all(self.writer, &list) {
            self.fail(Error::DuplicateAttribute);
        }
        list.copy_to(self.writer, self.tag);
    }

    #[cold]
    fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }
}

/// Writes `attributes` as the repeated field `field`, whose number is below 16.
#[inline]
pub(crate) fn write(fields: &mut Fields<'_>, field: u32, attributes: &dyn Attributes) -> Result<(), Error> {
    write_list(fields, field, attributes, &AttributeLimits::default()).map(|_| ())
}

/// Writes what `limits` allow of `attributes` as the repeated field `field`, and in the field after it how many were
/// dropped, by the caller or here.
#[inline]
pub(crate) fn write_limited(
    fields: &mut Fields<'_>,
    field: u32,
    attributes: &dyn Attributes,
    dropped: u32,
    limits: &AttributeLimits,
) -> Result<(), Error> {
    let writer = fields.writer(field + 1);
    let end = writer.len();
    let more = write_counted(writer, field, attributes, dropped, limits)?;
    if more > 0 {
        // The count stands behind the attributes, so it had to be known before them.
        writer.rewind(end);
        let dropped = dropped.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
        write_counted(writer, field, attributes, dropped, limits)?;
    }
    Ok(())
}

/// Returns how many attributes were dropped here.
#[inline]
fn write_counted(
    writer: &mut Writer,
    field: u32,
    attributes: &dyn Attributes,
    dropped: u32,
    limits: &AttributeLimits,
) -> Result<usize, Error> {
    let mut fields = writer.fields();
    if dropped > 0 {
        fields.uint32(field + 1, dropped);
    }
    write_list(&mut fields, field, attributes, limits)
}

#[inline]
fn write_list(
    fields: &mut Fields<'_>,
    field: u32,
    attributes: &dyn Attributes,
    limits: &AttributeLimits,
) -> Result<usize, Error> {
    let writer = fields.writer(field);
    let mut to = AttributeWriter {
        keys: Keys::new(writer),
        writer,
        tag: (field << 3 | 2) as u8,
        room: limits.count,
        dropped: 0,
        max_length: limits.value_length.unwrap_or(usize::MAX),
        error: None,
    };
    attributes.write(&mut to);
    if !to.keys.finish(to.writer) {
        to.fail(Error::DuplicateAttribute);
    }
    // Looked at before it is moved: reading all of it right after one byte was written would stall.
    if to.error.is_some() { failed(to.error, to.dropped) } else { Ok(to.dropped) }
}

#[cold]
fn failed(error: Option<Error>, dropped: usize) -> Result<usize, Error> {
    error.map_or(Ok(dropped), Err)
}

/// Writes a value as the field `field`, whose number is below 16.
#[inline]
pub(crate) fn write_value(fields: &mut Fields<'_>, field: u32, value: Value<'_>) -> Result<(), Error> {
    any_value(fields.writer(field), (field << 3 | 2) as u8, value, At::top(usize::MAX))
}
