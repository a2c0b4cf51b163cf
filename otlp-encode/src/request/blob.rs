//! Resources, scopes and metrics' headers, encoded once.

use crate::attributes::{self, Attributes, AttributesBlob};
use crate::common::{self, InstrumentationScope};
use crate::error::Error;
use crate::metrics::Metric;
use crate::resource::Resource;
use crate::wire::Writer;
use alloc::vec::Vec;

/// The fields of a message before and after its items.
#[derive(Debug, Clone, Default)]
struct Around {
    bytes: Vec<u8>,
    head: usize,
}

impl Around {
    /// `write` writes the fields after the items, notes [`Writer::len`], and writes those before.
    fn new(write: impl FnOnce(&mut Writer) -> Result<usize, Error>) -> Result<Self, Error> {
        let mut writer = Writer::new();
        let tail = write(&mut writer)?;
        let bytes = writer.as_bytes().to_vec();
        let head = bytes.len().saturating_sub(tail);
        Ok(Self { bytes, head })
    }
}

macro_rules! around {
    ($($name:ident)*) => {$(
        impl $name {
            pub(super) fn head(&self) -> &[u8] {
                self.0.bytes.get(..self.0.head).unwrap_or_default()
            }

            pub(super) fn tail(&self) -> &[u8] {
                self.0.bytes.get(self.0.head..).unwrap_or_default()
            }
        }
    )*};
}

around!(ResourceBlob ScopeBlob MetricBlob);

/// What a resource has besides attributes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceInfo<'a> {
    /// The schema that the attributes follow.
    pub schema_url: &'a str,
    /// How many attributes were discarded.
    pub dropped_attributes_count: u32,
    /// The entities that the attributes describe.
    pub entity_refs: &'a [EntityRef<'a>],
}

/// Which attributes of a resource identify and describe one entity.
#[derive(Debug, Clone, Copy, Default)]
pub struct EntityRef<'a> {
    /// The schema that the entity's type and attributes follow.
    pub schema_url: &'a str,
    /// The entity's type, such as `service`; not empty.
    pub kind: &'a str,
    /// Keys of the resource's attributes that identify it; not empty.
    pub id_keys: &'a [&'a str],
    /// Keys of the resource's attributes that describe it.
    pub description_keys: &'a [&'a str],
}

/// A resource, encoded once, for requests of all signals.
#[derive(Debug, Clone, Default)]
pub struct ResourceBlob(Around);

impl ResourceBlob {
    /// Encodes a resource.
    ///
    /// Errors: those of [`AttributesBlob::new`](crate::AttributesBlob::new); [`Error::Empty`] for an entity without type
    /// or identifying keys; [`Error::UnknownKey`] for an entity whose keys the resource does not have.
    pub fn new(attributes: &dyn Attributes, info: &ResourceInfo<'_>) -> Result<Self, Error> {
        let attributes = AttributesBlob::new(attributes)?;
        for entity in info.entity_refs {
            non_empty(entity.kind, "entity_refs.type")?;
            if entity.id_keys.is_empty() {
                return Err(Error::Empty { field: "entity_refs.id_keys" });
            }
            if !entity.id_keys.iter().chain(entity.description_keys).all(|key| attributes.has(key)) {
                return Err(Error::UnknownKey);
            }
        }
        Around::new(|writer| {
            schema_url(writer, info.schema_url);
            let tail = writer.len();
            let mut result = Ok(());
            writer.fields().message(1, |fields| {
                let mut resource = Resource::from(fields);
                resource.entity_refs(info.entity_refs, entity_ref);
                resource.dropped_attributes_count(info.dropped_attributes_count);
                result = attributes::write(resource.fields(), 1, &attributes);
            });
            result.map(|()| tail)
        })
        .map(Self)
    }
}

fn entity_ref(to: &mut common::EntityRef<'_>, from: &EntityRef<'_>) {
    to.description_keys(from.description_keys.iter().copied());
    to.id_keys(from.id_keys.iter().copied());
    to.r#type(from.kind);
    to.schema_url(from.schema_url);
}

/// Field 3 of `Resource...` and `Scope...` of all signals.
fn schema_url(writer: &mut Writer, schema_url: &str) {
    if !schema_url.is_empty() {
        writer.fields().string(3, schema_url);
    }
}

/// What a scope has besides its name and attributes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScopeInfo<'a> {
    /// The scope's version.
    pub version: &'a str,
    /// The schema that the telemetry follows.
    pub schema_url: &'a str,
    /// How many attributes were discarded.
    pub dropped_attributes_count: u32,
}

/// An instrumentation scope, encoded once, for requests of all signals.
#[derive(Debug, Clone, Default)]
pub struct ScopeBlob(Around);

impl ScopeBlob {
    /// Encodes a scope; an unknown name is empty.
    ///
    /// Errors: those of [`AttributesBlob::new`](crate::AttributesBlob::new).
    pub fn new(name: &str, attributes: &dyn Attributes, info: &ScopeInfo<'_>) -> Result<Self, Error> {
        Around::new(|writer| {
            schema_url(writer, info.schema_url);
            let tail = writer.len();
            let mut result = Ok(());
            writer.fields().message(1, |fields| {
                let mut scope = InstrumentationScope::from(fields);
                scope.dropped_attributes_count(info.dropped_attributes_count);
                result = attributes::write(scope.fields(), 3, attributes);
                scope.version(info.version);
                scope.name(name);
            });
            result.map(|()| tail)
        })
        .map(Self)
    }
}

/// Name, unit and description of a metric, encoded once.
#[derive(Debug, Clone)]
pub struct MetricBlob(Around);

impl MetricBlob {
    /// Encodes what a metric has besides points. `unit` is as UCUM writes it; an unknown unit or description is empty.
    ///
    /// Error: [`Error::Empty`] for an empty name.
    pub fn new(name: &str, unit: &str, description: &str) -> Result<Self, Error> {
        Self::with_metadata(name, unit, description, &())
    }

    /// As [`new`](Self::new), with additional facts about the metric, which do not identify it.
    ///
    /// Errors: [`Error::Empty`] for an empty name; those of [`AttributesBlob::new`](crate::AttributesBlob::new).
    pub fn with_metadata(
        name: &str,
        unit: &str,
        description: &str,
        metadata: &dyn Attributes,
    ) -> Result<Self, Error> {
        non_empty(name, "name")?;
        Around::new(|writer| {
            let mut metric = Metric::from(writer.fields());
            attributes::write(metric.fields(), 12, metadata)?;
            let tail = metric.written();
            metric.unit(unit);
            metric.description(description);
            metric.name(name);
            Ok(tail)
        })
        .map(Self)
    }
}

fn non_empty(text: &str, field: &'static str) -> Result<(), Error> {
    if text.is_empty() { Err(Error::Empty { field }) } else { Ok(()) }
}
