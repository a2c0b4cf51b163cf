//! What all signals have: values, attributes, resources, scopes.

use super::*;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use otlp_encode as ours;
use proptest::option;

pub fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        text().prop_map(|v| Some(Value::StringValue(v))),
        any::<bool>().prop_map(|v| Some(Value::BoolValue(v))),
        int64().prop_map(|v| Some(Value::IntValue(v))),
        double().prop_map(|v| Some(Value::DoubleValue(v))),
        blob().prop_map(|v| Some(Value::BytesValue(v))),
        int32().prop_map(|v| Some(Value::StringValueStrindex(v))),
    ]
    .prop_map(|value| AnyValue { value });
    leaf.prop_recursive(4, 24, 4, |inner| {
        let entry = (text(), option::of(inner.clone()), int32())
            .prop_map(|(key, value, key_strindex)| KeyValue { key, value, key_strindex });
        prop_oneof![
            few(inner).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            few(entry).prop_map(|values| Value::KvlistValue(KeyValueList { values })),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    })
}

pub fn key_value() -> impl Strategy<Value = KeyValue> {
    (text(), option::of(any_value()), int32()).prop_map(|(key, value, key_strindex)| KeyValue {
        key,
        value,
        key_strindex,
    })
}

pub fn scope() -> impl Strategy<Value = InstrumentationScope> {
    (text(), text(), few(key_value()), uint32()).prop_map(|(name, version, attributes, dropped)| {
        InstrumentationScope { name, version, attributes, dropped_attributes_count: dropped }
    })
}

pub fn resource() -> impl Strategy<Value = Resource> {
    let entity = (text(), text(), few(text()), few(text())).prop_map(
        |(schema_url, r#type, id_keys, description_keys)| EntityRef {
            schema_url,
            r#type,
            id_keys,
            description_keys,
        },
    );
    (few(key_value()), uint32(), few(entity)).prop_map(|(attributes, dropped, entity_refs)| Resource {
        attributes,
        dropped_attributes_count: dropped,
        entity_refs,
    })
}

pub fn write_any_value(to: &mut ours::common::AnyValue<'_>, from: &AnyValue) {
    match &from.value {
        None => {}
        Some(Value::StringValue(v)) => to.string_value(v),
        Some(Value::BoolValue(v)) => to.bool_value(*v),
        Some(Value::IntValue(v)) => to.int_value(*v),
        Some(Value::DoubleValue(v)) => to.double_value(*v),
        Some(Value::ArrayValue(v)) => to.array_value(|list| list.values(&v.values, write_any_value)),
        Some(Value::KvlistValue(v)) => to.kvlist_value(|map| map.values(&v.values, write_key_value)),
        Some(Value::BytesValue(v)) => to.bytes_value(v),
        Some(Value::StringValueStrindex(v)) => to.string_value_strindex(*v),
    }
}

pub fn write_key_value(to: &mut ours::common::KeyValue<'_>, from: &KeyValue) {
    to.key_strindex(from.key_strindex);
    if let Some(value) = &from.value {
        to.value(|any| write_any_value(any, value));
    }
    to.key(&from.key);
}

pub fn write_scope(to: &mut ours::common::InstrumentationScope<'_>, from: &InstrumentationScope) {
    to.dropped_attributes_count(from.dropped_attributes_count);
    to.attributes(&from.attributes, write_key_value);
    to.version(&from.version);
    to.name(&from.name);
}

pub fn write_resource(to: &mut ours::resource::Resource<'_>, from: &Resource) {
    to.entity_refs(&from.entity_refs, |to, from| {
        to.description_keys(from.description_keys.iter().map(String::as_str));
        to.id_keys(from.id_keys.iter().map(String::as_str));
        to.r#type(&from.r#type);
        to.schema_url(&from.schema_url);
    });
    to.dropped_attributes_count(from.dropped_attributes_count);
    to.attributes(&from.attributes, write_key_value);
}
