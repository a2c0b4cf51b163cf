//! What all signals have in common, as programs hold it, and through prost and the SDK.

use opentelemetry_proto::tonic::common::v1 as proto;
use opentelemetry_proto::tonic::common::v1::any_value::Value as ProtoValue;
use otlp_encode::common::{InstrumentationScope, KeyValue};
use otlp_encode::resource::Resource;
use otlp_encode::{AttributeWriter, ResourceBlob, ScopeBlob};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const START: u64 = 1_790_000_000_000_000_000;
pub const SCOPE: &str = "bench";
pub const SERVICE: (&str, &str) = ("service.name", "checkout");

/// An attribute's value.
#[derive(Clone)]
pub enum Value {
    Text(String),
    Int(i64),
}

pub type Attributes = Vec<(&'static str, Value)>;

pub fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

pub fn time(unix_nano: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(unix_nano)
}

/// Numbers that are the same in every run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        [0; N].map(|_: u8| self.below(256) as u8)
    }
}

// ---- ours ----

#[inline]
pub fn write_attribute(to: &mut KeyValue<'_>, (key, value): &(&str, Value)) {
    match value {
        Value::Text(value) => to.string(key, value),
        Value::Int(value) => to.int(key, *value),
    }
}

/// For requests.
pub fn add_attributes(attributes: &Attributes) -> impl Fn(&mut AttributeWriter<'_>) {
    |to| {
        for (key, value) in attributes.iter().rev() {
            match value {
                Value::Text(value) => to.add(key, value.as_str()),
                Value::Int(value) => to.add(key, *value),
            }
        }
    }
}

pub fn resource_blob() -> ResourceBlob {
    ResourceBlob::new(&[SERVICE], &Default::default()).expect("it is valid")
}

pub fn scope_blob() -> ScopeBlob {
    ScopeBlob::new(SCOPE, &(), &Default::default()).expect("it is valid")
}

pub fn write_resource(to: &mut Resource<'_>) {
    to.attributes([SERVICE], |to, (key, value)| to.string(key, value));
}

pub fn write_scope(to: &mut InstrumentationScope<'_>) {
    to.name(SCOPE);
}

// ---- prost ----

pub fn prost_attributes(attributes: &Attributes) -> Vec<proto::KeyValue> {
    let value = |value: &Value| match value {
        Value::Text(value) => ProtoValue::StringValue(value.clone()),
        Value::Int(value) => ProtoValue::IntValue(*value),
    };
    attributes.iter().map(|(key, from)| prost_attribute(key, value(from))).collect()
}

pub fn prost_attribute(key: &str, value: ProtoValue) -> proto::KeyValue {
    proto::KeyValue {
        key: key.to_owned(),
        value: Some(proto::AnyValue { value: Some(value) }),
        key_strindex: 0,
    }
}

pub fn prost_resource() -> Option<opentelemetry_proto::tonic::resource::v1::Resource> {
    let service = prost_attribute(SERVICE.0, ProtoValue::StringValue(SERVICE.1.to_owned()));
    Some(opentelemetry_proto::tonic::resource::v1::Resource {
        attributes: vec![service],
        ..Default::default()
    })
}

pub fn prost_scope() -> Option<proto::InstrumentationScope> {
    Some(proto::InstrumentationScope { name: SCOPE.to_owned(), ..Default::default() })
}

// ---- the SDK ----

pub fn sdk_attributes(attributes: &Attributes) -> Vec<opentelemetry::KeyValue> {
    let attribute = |(key, value): &(&'static str, Value)| match value {
        Value::Text(value) => opentelemetry::KeyValue::new(*key, value.clone()),
        Value::Int(value) => opentelemetry::KeyValue::new(*key, *value),
    };
    attributes.iter().map(attribute).collect()
}

pub fn sdk_resource() -> opentelemetry_sdk::Resource {
    opentelemetry_sdk::Resource::builder_empty()
        .with_attribute(opentelemetry::KeyValue::new(SERVICE.0, SERVICE.1))
        .build()
}

pub fn sdk_scope() -> opentelemetry::InstrumentationScope {
    opentelemetry::InstrumentationScope::builder(SCOPE).build()
}
