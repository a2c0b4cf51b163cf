//! Attributes: keys and values, from the caller's own data or encoded beforehand.
//!
//! Whatever takes attributes takes anything that implements [`Attributes`]: arrays and slices of keys and values, an
//! [`AttributesBlob`], a closure over an [`AttributeWriter`], or `()` for none. Keys are not empty and occur once in
//! a list, or the item that the list belongs to is refused.

mod blob;
mod value;

pub use blob::AttributesBlob;
pub use value::{MAX_VALUE_DEPTH, Value};

use crate::error::Error;
use crate::wire::{Fields, Writer};
use value::{Keys, any_value, key_value};

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
        for &(key, value) in self.iter().rev() {
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
    error: Option<Error>,
}

impl AttributeWriter<'_> {
    /// Adds an attribute, in front of those before.
    ///
    /// Errors, which refuse the item: [`Error::Empty`] for an empty key; [`Error::DuplicateAttribute`];
    /// [`Error::ValueDepth`]. A long list (from 64 attributes on) takes a time that grows with its square.
    #[inline]
    pub fn add<'v>(&mut self, key: &str, value: impl Into<Value<'v>>) {
        self.push(key, value.into());
    }

    // Not generic and not inlined: see the crate's documentation on optimization.
    #[inline(never)]
    fn push(&mut self, key: &str, value: Value<'_>) {
        if key.is_empty() {
            self.fail(Error::Empty { field: "key" });
        }
        if !self.keys.insert(self.writer, key) {
            self.fail(Error::DuplicateAttribute);
        }
        if let Err(error) = key_value(self.writer, self.tag, key, value, 0) {
            self.fail(error);
        }
    }

    /// Adds all of `attributes`.
    pub fn extend(&mut self, attributes: &dyn Attributes) {
        attributes.write(self);
    }

    #[inline]
    fn blob(&mut self, blob: &AttributesBlob) {
        if !self.keys.insert_all(self.writer, blob) {
            self.fail(Error::DuplicateAttribute);
        }
        blob.copy_to(self.writer, self.tag);
    }

    #[cold]
    fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }
}

/// Writes `attributes` as the repeated field `field`, whose number is below 16.
#[inline]
pub(crate) fn write(fields: &mut Fields<'_>, field: u32, attributes: &dyn Attributes) -> Result<(), Error> {
    let writer = fields.writer(field);
    let keys = Keys::new(writer);
    let mut to = AttributeWriter { writer, tag: (field << 3 | 2) as u8, keys, error: None };
    attributes.write(&mut to);
    // Looked at before it is moved: reading all of it right after one byte was written would stall.
    if to.error.is_some() { failed(to.error) } else { Ok(()) }
}

#[cold]
fn failed(error: Option<Error>) -> Result<(), Error> {
    error.map_or(Ok(()), Err)
}

/// Writes a value as the field `field`, whose number is below 16.
#[inline]
pub(crate) fn write_value(fields: &mut Fields<'_>, field: u32, value: Value<'_>) -> Result<(), Error> {
    any_value(fields.writer(field), (field << 3 | 2) as u8, value, 0)
}
