//! What the signals' tests share: made-up attributes, resources and scopes, and what is true of every request.

use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyKind;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use otlp_encode as ours;
use otlp_encode::{
    AttributeWriter, Attributes, AttributesBlob, Batch, Limits, ResourceBlob, ScopeBlob, Value,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use prost::Message;

pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), ".{0,12}", "[a-z]{50,60}", "[a-z]{120,136}"]
}

/// Keys of all lengths, and many that are equal.
fn key() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]", "[a-z.]{2,30}", "server\\.[ab]ddress", "[a-z]{60,70}"]
}

pub fn value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        text().prop_map(|v| Some(AnyKind::StringValue(v))),
        any::<bool>().prop_map(|v| Some(AnyKind::BoolValue(v))),
        prop_oneof![any::<i64>(), -1..300i64, 16_000..17_000i64].prop_map(|v| Some(AnyKind::IntValue(v))),
        any::<f64>().prop_map(|v| Some(AnyKind::DoubleValue(v))),
        vec(any::<u8>(), 0..140).prop_map(|v| Some(AnyKind::BytesValue(v))),
    ];
    leaf.prop_map(|value| AnyValue { value }).prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|values| AnyKind::ArrayValue(ArrayValue { values })),
            btree_map(prop_oneof![Just(String::new()), key()], inner, 0..4).prop_map(|entries| {
                let values = entries.into_iter().map(pair).collect();
                AnyKind::KvlistValue(KeyValueList { values })
            }),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    })
}

fn pair((key, value): (String, AnyValue)) -> KeyValue {
    KeyValue { key, value: Some(value), ..KeyValue::default() }
}

/// Attributes with unique keys.
pub fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    btree_map(key(), value(), 0..7).prop_map(|entries| entries.into_iter().map(pair).collect())
}

pub fn resource() -> impl Strategy<Value = (Resource, String)> {
    let entity = |attributes: &[KeyValue]| EntityRef {
        schema_url: String::new(),
        r#type: "service".to_owned(),
        id_keys: attributes.iter().map(|attribute| attribute.key.clone()).collect(),
        description_keys: Vec::new(),
    };
    let resource = (attributes(), any::<bool>(), 0..3u32).prop_map(move |(attributes, entities, dropped)| {
        let with_entity = entities && !attributes.is_empty();
        Resource {
            entity_refs: with_entity.then(|| entity(&attributes)).into_iter().collect(),
            attributes,
            dropped_attributes_count: dropped,
        }
    });
    (resource, text())
}

pub fn scope() -> impl Strategy<Value = (InstrumentationScope, String)> {
    let scope = (text(), text(), attributes(), 0..3u32).prop_map(|(name, version, attributes, dropped)| {
        InstrumentationScope { name, version, attributes, dropped_attributes_count: dropped }
    });
    (scope, text())
}

/// The value as the builders take it. Leaked, as a tree of borrowed slices needs an owner.
pub fn borrowed(value: &AnyValue) -> Value<'_> {
    match &value.value {
        None => Value::Empty,
        Some(AnyKind::StringValue(v)) => Value::Str(v),
        Some(AnyKind::BoolValue(v)) => Value::Bool(*v),
        Some(AnyKind::IntValue(v)) => Value::Int(*v),
        Some(AnyKind::DoubleValue(v)) => Value::Double(*v),
        Some(AnyKind::BytesValue(v)) => Value::Bytes(v),
        Some(AnyKind::ArrayValue(list)) => {
            Value::Array(Vec::leak(list.values.iter().map(borrowed).collect()))
        }
        Some(AnyKind::KvlistValue(list)) => Value::Map(Vec::leak(pairs(&list.values))),
        Some(AnyKind::StringValueStrindex(_)) => unreachable!("of profiles"),
    }
}

pub fn pairs(attributes: &[KeyValue]) -> Vec<(&str, Value<'_>)> {
    let none = &AnyValue { value: None };
    attributes.iter().map(|kv| (kv.key.as_str(), borrowed(kv.value.as_ref().unwrap_or(none)))).collect()
}

/// Attributes in one of the forms that they can have. Leaked, as some forms are made here.
pub fn form(attributes: &[KeyValue], form: u8) -> &'static dyn Attributes {
    let attributes: &'static [KeyValue] = Vec::leak(attributes.to_vec());
    let pairs: &'static [(&str, Value<'_>)] = Vec::leak(pairs(attributes));
    match form % 4 {
        0 => Box::leak(Box::new(pairs)),
        1 => Box::leak(Box::new(move |to: &mut AttributeWriter<'_>| {
            pairs.iter().rev().for_each(|&(key, value)| to.add(key, value));
        })),
        2 => match AttributesBlob::new(&pairs) {
            Ok(blob) => Box::leak(Box::new(blob)),
            // An invalid list has to be refused by the item too.
            Err(_) => Box::leak(Box::new(pairs)),
        },
        _ => {
            let (first, rest) = pairs.split_at(pairs.len() / 2);
            match (AttributesBlob::new(&first), AttributesBlob::new(&rest)) {
                (Ok(first), Ok(rest)) => Box::leak(Box::new(move |to: &mut AttributeWriter<'_>| {
                    to.extend(&rest);
                    to.extend(&first);
                })),
                _ => Box::leak(Box::new(pairs)),
            }
        }
    }
}

pub fn resource_blob((resource, schema_url): &(Resource, String)) -> ResourceBlob {
    let keys: Vec<Vec<&str>> = resource
        .entity_refs
        .iter()
        .map(|entity| entity.id_keys.iter().map(String::as_str).collect())
        .collect();
    let entity_refs: Vec<ours::EntityRef<'_>> = resource
        .entity_refs
        .iter()
        .zip(&keys)
        .map(|(entity, id_keys)| ours::EntityRef { kind: &entity.r#type, id_keys, ..Default::default() })
        .collect();
    let info = ours::ResourceInfo {
        schema_url,
        dropped_attributes_count: resource.dropped_attributes_count,
        entity_refs: &entity_refs,
    };
    ResourceBlob::new(&pairs(&resource.attributes).as_slice(), &info).unwrap()
}

pub fn scope_blob((scope, schema_url): &(InstrumentationScope, String)) -> ScopeBlob {
    let info = ours::ScopeInfo {
        version: &scope.version,
        schema_url,
        dropped_attributes_count: scope.dropped_attributes_count,
    };
    ScopeBlob::new(&scope.name, &pairs(&scope.attributes).as_slice(), &info).unwrap()
}

pub fn limits() -> impl Strategy<Value = Limits> {
    let max_bytes = prop_oneof![Just(0), 100..2_000usize, 2_000..20_000usize, Just(usize::MAX)];
    let max_items = prop_oneof![0..4u64, Just(u64::MAX)];
    (max_bytes, max_items).prop_map(|(max_bytes, max_items)| Limits { max_bytes, max_items })
}

/// What was handed out.
#[derive(Debug, Default)]
pub struct Batches(Vec<(Vec<u8>, u64, String)>);

impl Batches {
    pub fn push(&mut self, batch: Batch<'_>) {
        let mut line = String::new();
        batch.json_line(&mut line).unwrap();
        self.0.push((batch.bytes.to_vec(), batch.items, line));
    }

    /// Decodes all requests, with the number of items that each was said to have.
    pub fn decode<M>(&self, limits: Limits) -> Vec<(M, u64)>
    where
        M: Message + Default,
    {
        let check = |(bytes, items, line): &(Vec<u8>, u64, String)| {
            assert!(bytes.len() <= limits.max_bytes || *items == 1, "{} bytes, {items} items", bytes.len());
            assert!((1..=limits.max_items.max(1)).contains(items));
            let decoded = M::decode(bytes.as_slice()).unwrap();
            assert!(decoded.encode_to_vec() == *bytes, "canonical");
            assert!(line.starts_with('{') && line.ends_with('}'));
            (decoded, *items)
        };
        self.0.iter().map(check).collect()
    }
}
