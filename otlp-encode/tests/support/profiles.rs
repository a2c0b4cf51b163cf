//! Profiles.

use super::common::{any_value, resource, scope, write_any_value, write_resource, write_scope};
use super::*;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::profiles::v1development as proto;
use otlp_encode::profiles as ours;
use otlp_encode::wire::Writer;
use proptest::option;

fn value_type() -> impl Strategy<Value = proto::ValueType> {
    (int32(), int32())
        .prop_map(|(type_strindex, unit_strindex)| proto::ValueType { type_strindex, unit_strindex })
}

fn sample() -> impl Strategy<Value = proto::Sample> {
    (int32(), indices(), int32(), vec(int64(), 0..5), vec(uint64(), 0..5)).prop_map(
        |(stack_index, attribute_indices, link_index, values, timestamps_unix_nano)| proto::Sample {
            stack_index,
            attribute_indices,
            link_index,
            values,
            timestamps_unix_nano,
        },
    )
}

fn profile() -> impl Strategy<Value = proto::Profile> {
    let times = (uint64(), uint64(), option::of(value_type()), int64());
    let rest = (blob(), uint32(), text(), blob(), indices());
    (option::of(value_type()), few(sample()), times, rest).prop_map(|(sample_type, samples, times, rest)| {
        proto::Profile {
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

fn resource_profiles() -> impl Strategy<Value = proto::ResourceProfiles> {
    let scope_profiles = (option::of(scope()), few(profile()), text())
        .prop_map(|(scope, profiles, schema_url)| proto::ScopeProfiles { scope, profiles, schema_url });
    (option::of(resource()), few(scope_profiles), text()).prop_map(
        |(resource, scope_profiles, schema_url)| proto::ResourceProfiles {
            resource,
            scope_profiles,
            schema_url,
        },
    )
}

fn dictionary() -> impl Strategy<Value = proto::ProfilesDictionary> {
    let mapping =
        (uint64(), uint64(), uint64(), int32(), indices()).prop_map(|(start, limit, offset, name, list)| {
            proto::Mapping {
                memory_start: start,
                memory_limit: limit,
                file_offset: offset,
                filename_strindex: name,
                attribute_indices: list,
            }
        });
    let line = (int32(), int64(), int64()).prop_map(|(function_index, line, column)| proto::Line {
        function_index,
        line,
        column,
    });
    let location =
        (int32(), uint64(), few(line), indices()).prop_map(|(mapping_index, address, lines, list)| {
            proto::Location { mapping_index, address, lines, attribute_indices: list }
        });
    let function =
        (int32(), int32(), int32(), int64()).prop_map(|(name, system_name, filename, start_line)| {
            proto::Function {
                name_strindex: name,
                system_name_strindex: system_name,
                filename_strindex: filename,
                start_line,
            }
        });
    let link = (blob(), blob()).prop_map(|(trace_id, span_id)| proto::Link { trace_id, span_id });
    let attribute = (int32(), option::of(any_value()), int32()).prop_map(|(key, value, unit)| {
        proto::KeyValueAndUnit { key_strindex: key, value, unit_strindex: unit }
    });
    let stack = indices().prop_map(|location_indices| proto::Stack { location_indices });
    (few(mapping), few(location), few(function), few(link), few(text()), few(attribute), few(stack)).prop_map(
        |(mapping, location, function, link, string_table, attribute, stack)| proto::ProfilesDictionary {
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

pub fn request() -> impl Strategy<Value = ExportProfilesServiceRequest> {
    (few(resource_profiles()), option::of(dictionary())).prop_map(|(resource_profiles, dictionary)| {
        ExportProfilesServiceRequest { resource_profiles, dictionary }
    })
}

pub fn encode<'w>(writer: &'w mut Writer, from: &ExportProfilesServiceRequest) -> &'w [u8] {
    ours::ExportProfilesServiceRequest::encode(writer, |to| {
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
    })
}

fn write_profile(to: &mut ours::Profile<'_>, from: &proto::Profile) {
    let value_type = |to: &mut ours::ValueType<'_>, from: &proto::ValueType| {
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

fn write_dictionary(to: &mut ours::ProfilesDictionary<'_>, from: &proto::ProfilesDictionary) {
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
