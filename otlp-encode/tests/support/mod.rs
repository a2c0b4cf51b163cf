//! Prost messages made up by proptest, and the same messages through this crate.
#![allow(dead_code, reason = "each test program uses a part")]

use opentelemetry_proto::tonic::collector::profiles::v1development as collector;
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::profiles::v1development as profiles;
use opentelemetry_proto::tonic::resource::v1::Resource;
use otlp_encode as ours;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Numbers at the edges of varint lengths, zero and negative ones among them.
pub fn int64() -> impl Strategy<Value = i64> {
    prop_oneof![
        Just(0),
        Just(-1),
        Just(i64::MIN),
        Just(i64::MAX),
        (0u32..63).prop_map(|n| 1 << n),
        any::<i64>()
    ]
}

pub fn int32() -> impl Strategy<Value = i32> {
    prop_oneof![Just(0), Just(-1), Just(i32::MIN), 0..300i32, any::<i32>()]
}

fn uint64() -> impl Strategy<Value = u64> {
    int64().prop_map(|value| value as u64)
}

fn uint32() -> impl Strategy<Value = u32> {
    int32().prop_map(|value| value as u32)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), ".{0,12}", "[a-z]{120,136}"]
}

fn few<T: std::fmt::Debug>(items: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    vec(items, 0..4)
}

fn indices() -> impl Strategy<Value = Vec<i32>> {
    vec(int32(), 0..6)
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..140)
}

pub fn any_value() -> impl Strategy<Value = common::AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        text().prop_map(|v| Some(Value::StringValue(v))),
        any::<bool>().prop_map(|v| Some(Value::BoolValue(v))),
        int64().prop_map(|v| Some(Value::IntValue(v))),
        any::<f64>().prop_map(|v| Some(Value::DoubleValue(v))),
        blob().prop_map(|v| Some(Value::BytesValue(v))),
        int32().prop_map(|v| Some(Value::StringValueStrindex(v))),
    ]
    .prop_map(|value| common::AnyValue { value });
    leaf.prop_recursive(4, 24, 4, |inner| {
        let entry = (text(), option::of(inner.clone()), int32())
            .prop_map(|(key, value, key_strindex)| common::KeyValue { key, value, key_strindex });
        prop_oneof![
            few(inner).prop_map(|values| Value::ArrayValue(common::ArrayValue { values })),
            few(entry).prop_map(|values| Value::KvlistValue(common::KeyValueList { values })),
        ]
        .prop_map(|value| common::AnyValue { value: Some(value) })
    })
}

pub fn key_value() -> impl Strategy<Value = common::KeyValue> {
    (text(), option::of(any_value()), int32()).prop_map(|(key, value, key_strindex)| common::KeyValue {
        key,
        value,
        key_strindex,
    })
}

pub fn scope() -> impl Strategy<Value = common::InstrumentationScope> {
    (text(), text(), few(key_value()), uint32()).prop_map(|(name, version, attributes, dropped)| {
        common::InstrumentationScope { name, version, attributes, dropped_attributes_count: dropped }
    })
}

pub fn resource() -> impl Strategy<Value = Resource> {
    let entity = (text(), text(), few(text()), few(text())).prop_map(
        |(schema_url, r#type, id_keys, description_keys)| common::EntityRef {
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

fn value_type() -> impl Strategy<Value = profiles::ValueType> {
    (int32(), int32())
        .prop_map(|(type_strindex, unit_strindex)| profiles::ValueType { type_strindex, unit_strindex })
}

fn sample() -> impl Strategy<Value = profiles::Sample> {
    (int32(), indices(), int32(), vec(int64(), 0..5), vec(uint64(), 0..5)).prop_map(
        |(stack_index, attribute_indices, link_index, values, timestamps_unix_nano)| profiles::Sample {
            stack_index,
            attribute_indices,
            link_index,
            values,
            timestamps_unix_nano,
        },
    )
}

fn profile() -> impl Strategy<Value = profiles::Profile> {
    let times = (uint64(), uint64(), option::of(value_type()), int64());
    let rest = (blob(), uint32(), text(), blob(), indices());
    (option::of(value_type()), few(sample()), times, rest).prop_map(|(sample_type, samples, times, rest)| {
        profiles::Profile {
            sample_type,
            samples,
            time_unix_nano: times.0,
            duration_nano: times.1,
            period_type: times.2,
            period: times.3,
            profile_id: rest.0,
            dropped_attributes_count: rest.1,
            original_payload_format: rest.2,
            original_payload: rest.3,
            attribute_indices: rest.4,
        }
    })
}

fn resource_profiles() -> impl Strategy<Value = profiles::ResourceProfiles> {
    let scope_profiles = (option::of(scope()), few(profile()), text())
        .prop_map(|(scope, profiles, schema_url)| profiles::ScopeProfiles { scope, profiles, schema_url });
    (option::of(resource()), few(scope_profiles), text()).prop_map(
        |(resource, scope_profiles, schema_url)| profiles::ResourceProfiles {
            resource,
            scope_profiles,
            schema_url,
        },
    )
}

fn dictionary() -> impl Strategy<Value = profiles::ProfilesDictionary> {
    let mapping =
        (uint64(), uint64(), uint64(), int32(), indices()).prop_map(|(start, limit, offset, name, list)| {
            profiles::Mapping {
                memory_start: start,
                memory_limit: limit,
                file_offset: offset,
                filename_strindex: name,
                attribute_indices: list,
            }
        });
    let line = (int32(), int64(), int64()).prop_map(|(function_index, line, column)| profiles::Line {
        function_index,
        line,
        column,
    });
    let location =
        (int32(), uint64(), few(line), indices()).prop_map(|(mapping_index, address, lines, list)| {
            profiles::Location { mapping_index, address, lines, attribute_indices: list }
        });
    let function =
        (int32(), int32(), int32(), int64()).prop_map(|(name, system_name, filename, start_line)| {
            profiles::Function {
                name_strindex: name,
                system_name_strindex: system_name,
                filename_strindex: filename,
                start_line,
            }
        });
    let link = (blob(), blob()).prop_map(|(trace_id, span_id)| profiles::Link { trace_id, span_id });
    let attribute = (int32(), option::of(any_value()), int32()).prop_map(|(key, value, unit)| {
        profiles::KeyValueAndUnit { key_strindex: key, value, unit_strindex: unit }
    });
    let stack = indices().prop_map(|location_indices| profiles::Stack { location_indices });
    (few(mapping), few(location), few(function), few(link), few(text()), few(attribute), few(stack)).prop_map(
        |(mapping, location, function, link, string_table, attribute, stack)| profiles::ProfilesDictionary {
            mapping_table: mapping,
            location_table: location,
            function_table: function,
            link_table: link,
            string_table,
            attribute_table: attribute,
            stack_table: stack,
        },
    )
}

pub fn request() -> impl Strategy<Value = collector::ExportProfilesServiceRequest> {
    (few(resource_profiles()), option::of(dictionary())).prop_map(|(resource_profiles, dictionary)| {
        collector::ExportProfilesServiceRequest { resource_profiles, dictionary }
    })
}

pub fn write_any_value(to: &mut ours::common::AnyValue<'_>, from: &common::AnyValue) {
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

pub fn write_key_value(to: &mut ours::common::KeyValue<'_>, from: &common::KeyValue) {
    to.key_strindex(from.key_strindex);
    if let Some(value) = &from.value {
        to.value(|any| write_any_value(any, value));
    }
    to.key(&from.key);
}

pub fn write_scope(to: &mut ours::common::InstrumentationScope<'_>, from: &common::InstrumentationScope) {
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

pub fn write_request(
    to: &mut ours::profiles::ExportProfilesServiceRequest<'_>,
    from: &collector::ExportProfilesServiceRequest,
) {
    if let Some(dictionary) = &from.dictionary {
        to.dictionary(|to| write_dictionary(to, dictionary));
    }
    to.resource_profiles(&from.resource_profiles, |to, from| {
        to.schema_url(&from.schema_url);
        to.scope_profiles(&from.scope_profiles, |to, from| {
            to.schema_url(&from.schema_url);
            to.profiles(&from.profiles, write_profile);
            if let Some(scope) = &from.scope {
                to.scope(|to| write_scope(to, scope));
            }
        });
        if let Some(resource) = &from.resource {
            to.resource(|to| write_resource(to, resource));
        }
    });
}

fn write_profile(to: &mut ours::profiles::Profile<'_>, from: &profiles::Profile) {
    let value_type = |to: &mut ours::profiles::ValueType<'_>, from: &profiles::ValueType| {
        to.unit_strindex(from.unit_strindex);
        to.type_strindex(from.type_strindex);
    };
    to.attribute_indices(from.attribute_indices.iter().copied());
    to.original_payload(&from.original_payload);
    to.original_payload_format(&from.original_payload_format);
    to.dropped_attributes_count(from.dropped_attributes_count);
    to.profile_id(&from.profile_id);
    to.period(from.period);
    if let Some(period_type) = &from.period_type {
        to.period_type(|to| value_type(to, period_type));
    }
    to.duration_nano(from.duration_nano);
    to.time_unix_nano(from.time_unix_nano);
    to.samples(&from.samples, |to, from| {
        to.timestamps_unix_nano(&from.timestamps_unix_nano);
        to.values(from.values.iter().copied());
        to.link_index(from.link_index);
        to.attribute_indices(from.attribute_indices.iter().copied());
        to.stack_index(from.stack_index);
    });
    if let Some(sample_type) = &from.sample_type {
        to.sample_type(|to| value_type(to, sample_type));
    }
}

fn write_dictionary(to: &mut ours::profiles::ProfilesDictionary<'_>, from: &profiles::ProfilesDictionary) {
    to.stack_table(&from.stack_table, |to, from| to.location_indices(from.location_indices.iter().copied()));
    to.attribute_table(&from.attribute_table, |to, from| {
        to.unit_strindex(from.unit_strindex);
        if let Some(value) = &from.value {
            to.value(|to| write_any_value(to, value));
        }
        to.key_strindex(from.key_strindex);
    });
    to.string_table(from.string_table.iter().map(String::as_str));
    to.link_table(&from.link_table, |to, from| {
        to.span_id(&from.span_id);
        to.trace_id(&from.trace_id);
    });
    to.function_table(&from.function_table, |to, from| {
        to.start_line(from.start_line);
        to.filename_strindex(from.filename_strindex);
        to.system_name_strindex(from.system_name_strindex);
        to.name_strindex(from.name_strindex);
    });
    to.location_table(&from.location_table, |to, from| {
        to.attribute_indices(from.attribute_indices.iter().copied());
        to.lines(&from.lines, |to, from| {
            to.column(from.column);
            to.line(from.line);
            to.function_index(from.function_index);
        });
        to.address(from.address);
        to.mapping_index(from.mapping_index);
    });
    to.mapping_table(&from.mapping_table, |to, from| {
        to.attribute_indices(from.attribute_indices.iter().copied());
        to.filename_strindex(from.filename_strindex);
        to.file_offset(from.file_offset);
        to.memory_limit(from.memory_limit);
        to.memory_start(from.memory_start);
    });
}
