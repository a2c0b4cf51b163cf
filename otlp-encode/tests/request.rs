//! What `ProfilesRequest` makes is valid and equal to what it was made from; what is not valid is an error.

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::profiles::v1development as proto;
use otlp_encode::*;
use prost::Message;

/// Adds one resource with one profile.
fn profile(
    request: &mut ProfilesRequest,
    info: &ProfileInfo<'_>,
    samples: impl FnOnce(&mut Samples<'_, '_>),
) {
    request.resource_profiles(
        "schema",
        |resource| resource.attributes([()], |kv, ()| kv.string("service.name", "shop")),
        |scopes| {
            scopes.scope_profiles(
                "schema",
                |scope| scope.name("test"),
                |profiles| {
                    profiles.profile(info, samples);
                },
            );
        },
    );
}

fn stack(dictionary: &mut Dictionary, names: &[&str]) -> StackIdx {
    let build_id = dictionary.attribute("build.id", "", |value| value.string_value("abcd"));
    let kind = dictionary.attribute("profile.frame.type", "", |value| value.string_value("native"));
    let mapping = dictionary.mapping(0x1000..0x3000, 0x200, "/bin/shop", &[build_id]);
    let locations: Vec<_> = (1..)
        .zip(names)
        .map(|(number, name)| {
            let function = dictionary.function(name, "", "shop.rs", 10);
            let line = Line { function, line: number, column: 4 };
            dictionary.location(mapping, 0x1000 + u64::from(number), &[line], &[kind])
        })
        .collect();
    dictionary.stack(&locations)
}

const INFO: ProfileInfo<'_> = ProfileInfo {
    sample_type: ("samples", "count"),
    time_unix_nano: 1_000,
    duration_nano: 100,
    period_type: ("cpu", "nanoseconds"),
    period: 10_101_010,
    profile_id: Some([7; 16]),
    attributes: &[],
    dropped_attributes_count: 3,
    original_payload: Some(("pprof", b"bytes")),
};

fn decode(bytes: &[u8]) -> ExportProfilesServiceRequest {
    let decoded = ExportProfilesServiceRequest::decode(bytes).unwrap();
    assert_eq!(decoded.encode_to_vec(), bytes, "canonical");
    decoded
}

#[test]
fn a_whole_request() {
    let mut request = ProfilesRequest::new(1);
    let lost = request.dictionary().attribute("lost", "{sample}", |value| value.int_value(0));
    let info = ProfileInfo { attributes: &[lost], ..INFO };
    profile(&mut request, &info, |samples| {
        let stack_a = stack(samples.dictionary(), &["leaf", "main"]);
        let stack_b = stack(samples.dictionary(), &["main"]);
        let thread = samples.dictionary().attribute("thread.id", "", |value| value.int_value(9));
        let link = samples.dictionary().link([1; 16], [2; 8]);
        samples.sample(stack_b, &[], LinkIdx::default(), &[5], &[]);
        samples.sample(stack_a, &[thread], link, &[6], &[]);
    });
    let decoded = decode(request.finish().unwrap());
    let dictionary = decoded.dictionary.unwrap();
    let text = |index: i32| dictionary.string_table[index as usize].as_str();

    let resource = &decoded.resource_profiles[0];
    assert_eq!(resource.schema_url, "schema");
    assert_eq!(resource.resource.as_ref().unwrap().attributes[0].key, "service.name");
    let scope = &resource.scope_profiles[0];
    assert_eq!(scope.scope.as_ref().unwrap().name, "test");
    let profile = &scope.profiles[0];
    let sample_type = profile.sample_type.unwrap();
    assert_eq!((text(sample_type.type_strindex), text(sample_type.unit_strindex)), ("samples", "count"));
    let period_type = profile.period_type.unwrap();
    assert_eq!((text(period_type.type_strindex), text(period_type.unit_strindex)), ("cpu", "nanoseconds"));
    assert_eq!((profile.time_unix_nano, profile.duration_nano, profile.period), (1_000, 100, 10_101_010));
    assert_eq!((profile.profile_id.as_slice(), profile.dropped_attributes_count), (&[7; 16][..], 3));
    assert_eq!(
        (profile.original_payload_format.as_str(), profile.original_payload.as_slice()),
        ("pprof", &b"bytes"[..])
    );
    assert_eq!(profile.attribute_indices, [lost.get()]);
    let lost = &dictionary.attribute_table[lost.get() as usize];
    assert_eq!((text(lost.key_strindex), text(lost.unit_strindex)), ("lost", "{sample}"));
    assert_eq!(lost.value.as_ref().unwrap().value, Some(Value::IntValue(0)));

    // The reverse of the order of calls.
    assert_eq!(profile.samples.len(), 2);
    let sample = &profile.samples[0];
    assert_eq!(sample.values, [6]);
    let thread = &dictionary.attribute_table[sample.attribute_indices[0] as usize];
    assert_eq!((text(thread.key_strindex), sample.attribute_indices.len()), ("thread.id", 1));
    assert_eq!(
        dictionary.link_table,
        [proto::Link::default(), proto::Link { trace_id: vec![1; 16], span_id: vec![2; 8] }]
    );
    assert_eq!(sample.link_index, 1);
    let stack = &dictionary.stack_table[sample.stack_index as usize];
    let names: Vec<&str> = stack
        .location_indices
        .iter()
        .map(|&index| {
            let location = &dictionary.location_table[index as usize];
            let mapping = &dictionary.mapping_table[location.mapping_index as usize];
            assert_eq!(
                (mapping.memory_start, mapping.memory_limit, mapping.file_offset),
                (0x1000, 0x3000, 0x200)
            );
            assert_eq!(text(mapping.filename_strindex), "/bin/shop");
            text(dictionary.function_table[location.lines[0].function_index as usize].name_strindex)
        })
        .collect();
    assert_eq!(names, ["leaf", "main"]);

    // Every table starts with the zero value and has no entry twice: "main" is at two addresses, yet one function.
    assert_eq!(dictionary.mapping_table[0], proto::Mapping::default());
    assert_eq!(dictionary.location_table[0], proto::Location::default());
    assert_eq!(dictionary.function_table[0], proto::Function::default());
    assert_eq!(dictionary.string_table[0], "");
    assert_eq!(dictionary.attribute_table[0], proto::KeyValueAndUnit::default());
    assert_eq!(dictionary.stack_table[0], proto::Stack::default());
    assert_eq!((dictionary.mapping_table.len(), dictionary.function_table.len()), (2, 3));
    assert_eq!((dictionary.location_table.len(), dictionary.stack_table.len()), (4, 3));
}

#[test]
fn the_same_calls_after_clear_give_the_same_bytes_and_the_seed_does_not_matter() {
    let mut request = ProfilesRequest::new(1);
    let fill = |request: &mut ProfilesRequest, name: &str| {
        profile(request, &INFO, |samples| {
            let stack = stack(samples.dictionary(), &[name, "main"]);
            samples.sample(stack, &[], LinkIdx::default(), &[1], &[]);
        });
        request.finish().unwrap().to_vec()
    };
    let first = fill(&mut request, "one");
    request.clear();
    let second = fill(&mut request, "two");
    assert_ne!(first, second);
    request.clear();
    assert_eq!(fill(&mut request, "one"), first);
    assert_eq!(fill(&mut ProfilesRequest::new(u64::MAX), "one"), first);
}

#[test]
fn request_len_is_a_lower_bound_close_to_the_whole() {
    let mut request = ProfilesRequest::new(1);
    let mut len = 0;
    profile(&mut request, &INFO, |samples| {
        for number in 0..100 {
            let stack = stack(samples.dictionary(), &[&format!("function {number}")]);
            samples.sample(stack, &[], LinkIdx::default(), &[1], &[]);
        }
        len = samples.request_len();
    });
    let whole = request.finish().unwrap().len();
    assert!(len <= whole && whole - len < 100, "{len} of {whole}");
}

/// The error of one profile with these samples.
#[track_caller]
fn error(samples: impl FnOnce(&mut Samples<'_, '_>)) -> Error {
    let mut request = ProfilesRequest::new(1);
    profile(&mut request, &INFO, samples);
    let error = request.finish().unwrap_err();
    request.clear();
    profile(&mut request, &INFO, |samples| one(samples, &[1], &[]));
    assert!(request.finish().is_ok(), "an error does not outlive clear");
    error
}

fn one(samples: &mut Samples<'_, '_>, values: &[i64], timestamps: &[u64]) {
    samples.sample(StackIdx::default(), &[], LinkIdx::default(), values, timestamps);
}

#[test]
fn sample_shapes() {
    assert_eq!(error(|s| one(s, &[], &[])), Error::SampleShape { values: 0, timestamps: 0 });
    assert_eq!(error(|s| one(s, &[1, 2], &[])), Error::SampleShape { values: 2, timestamps: 0 });
    assert_eq!(error(|s| one(s, &[1], &[1_000, 1_001])), Error::SampleShape { values: 1, timestamps: 2 });
    let mixed = error(|s| {
        one(s, &[1], &[]);
        one(s, &[1], &[1_000]);
    });
    assert_eq!(mixed, Error::MixedSampleShapes);
    for (values, timestamps) in [(&[1][..], &[][..]), (&[], &[1_000, 1_099]), (&[1, -2], &[1_000, 1_000])] {
        let mut request = ProfilesRequest::new(1);
        profile(&mut request, &INFO, |samples| one(samples, values, timestamps));
        let decoded = decode(request.finish().unwrap());
        let sample = &decoded.resource_profiles[0].scope_profiles[0].profiles[0].samples[0];
        assert_eq!((sample.values.as_slice(), sample.timestamps_unix_nano.as_slice()), (values, timestamps));
    }
}

#[test]
fn timestamps_lie_in_the_range() {
    for timestamp in [999, 1_100] {
        assert_eq!(
            error(|s| one(s, &[], &[timestamp])),
            Error::Timestamp { timestamp, start: 1_000, end: 1_100 }
        );
    }
}

#[test]
fn mappings_ascend() {
    for range in [(5, 5), (6, 5)] {
        let got = error(|s| {
            let mapping = s.dictionary().mapping(range.0..range.1, 0, "x", &[]);
            assert_eq!(mapping, MappingIdx::default());
            one(s, &[1], &[]);
        });
        assert_eq!(got, Error::MappingRange { start: range.0, limit: range.1 });
    }
}

#[test]
fn keys_are_unique_in_a_list_and_order_does_not_count() {
    let got = error(|s| {
        let dictionary = s.dictionary();
        let a = dictionary.attribute("key", "", |value| value.int_value(1));
        let b = dictionary.attribute("key", "", |value| value.int_value(2));
        s.sample(StackIdx::default(), &[b, a], LinkIdx::default(), &[1], &[]);
    });
    assert_eq!(got, Error::DuplicateKey { first: 1, second: 2 });
    let twice = error(|s| {
        let a = s.dictionary().attribute("key", "", |value| value.int_value(1));
        s.sample(StackIdx::default(), &[a, a], LinkIdx::default(), &[1], &[]);
    });
    assert_eq!(twice, Error::DuplicateKey { first: 1, second: 1 });

    let mut request = ProfilesRequest::new(1);
    let dictionary = request.dictionary();
    let a = dictionary.attribute("a", "", |value| value.int_value(1));
    let b = dictionary.attribute("b", "", |value| value.int_value(1));
    assert_eq!(dictionary.mapping(0..1, 0, "x", &[a, b]), dictionary.mapping(0..1, 0, "x", &[b, a]));
}

#[test]
fn indices_of_another_dictionary_are_noticed() {
    let mut other = ProfilesRequest::new(1);
    let other = other.dictionary();
    let foreign_attribute = other.attribute("a", "", |value| value.int_value(1));
    let foreign_mapping = other.mapping(0..1, 0, "x", &[]);
    let foreign_function = other.function("f", "", "", 0);
    let line = Line { function: foreign_function, line: 0, column: 0 };
    let foreign_location = other.location(foreign_mapping, 1, &[line], &[]);
    let foreign_stack = other.stack(&[foreign_location]);
    let foreign_link = other.link([1; 16], [1; 8]);
    let unknown = |table| Error::UnknownIndex { table, index: 1 };

    assert_eq!(error(|s| s.sample(foreign_stack, &[], LinkIdx::default(), &[1], &[])), unknown(Table::Stack));
    assert_eq!(error(|s| s.sample(StackIdx::default(), &[], foreign_link, &[1], &[])), unknown(Table::Link));
    let sample = |attributes: &'static [AttributeIdx]| {
        error(|s| s.sample(StackIdx::default(), attributes, LinkIdx::default(), &[1], &[]))
    };
    assert_eq!(sample(Vec::leak(vec![foreign_attribute])), unknown(Table::Attribute));
    let location = |mapping: MappingIdx, lines: &[Line]| {
        error(|s| {
            let dictionary = s.dictionary();
            let location = dictionary.location(mapping, 1, lines, &[]);
            let stack = dictionary.stack(&[location]);
            s.sample(stack, &[], LinkIdx::default(), &[1], &[]);
        })
    };
    assert_eq!(location(foreign_mapping, &[]), unknown(Table::Mapping));
    assert_eq!(location(MappingIdx::default(), &[line]), unknown(Table::Function));
    let stack = error(|s| {
        let stack = s.dictionary().stack(&[foreign_location]);
        s.sample(stack, &[], LinkIdx::default(), &[1], &[]);
    });
    assert_eq!(stack, unknown(Table::Location));
}

#[test]
fn entries_that_nothing_refers_to_are_noticed() {
    let unreferenced = |table| Error::Unreferenced { table, index: 1 };
    let orphan = |make: fn(&mut Dictionary)| {
        error(|s| {
            make(s.dictionary());
            one(s, &[1], &[]);
        })
    };
    let got = orphan(|d| {
        let _ = d.mapping(0..1, 0, "x", &[]);
    });
    assert_eq!(got, unreferenced(Table::Mapping));
    let got = orphan(|d| {
        let _ = d.location(MappingIdx::default(), 1, &[], &[]);
    });
    assert_eq!(got, unreferenced(Table::Location));
    let got = orphan(|d| {
        let _ = d.function("f", "", "", 0);
    });
    assert_eq!(got, unreferenced(Table::Function));
    let got = orphan(|d| {
        let _ = d.link([1; 16], [1; 8]);
    });
    assert_eq!(got, unreferenced(Table::Link));
    let got = orphan(|d| {
        let _ = d.attribute("a", "", |value| value.int_value(1));
    });
    assert_eq!(got, unreferenced(Table::Attribute));
    let got = orphan(|d| {
        let location = d.location(MappingIdx::default(), 1, &[], &[]);
        let _ = d.stack(&[location]);
    });
    assert_eq!(got, unreferenced(Table::Stack));
}

#[test]
fn nothing_is_not_a_request() {
    let mut request = ProfilesRequest::new(1);
    assert_eq!(request.finish(), Err(Error::Empty { field: "resource_profiles" }));
    request.resource_profiles("", |_| {}, |_| {});
    assert_eq!(request.finish(), Err(Error::Empty { field: "scope_profiles" }));
    request.clear();
    request.resource_profiles("", |_| {}, |scopes| scopes.scope_profiles("", |_| {}, |_| {}));
    assert_eq!(request.finish(), Err(Error::Empty { field: "profiles" }));
}

#[test]
fn zero_entries_are_entry_zero() {
    let mut request = ProfilesRequest::new(1);
    let dictionary = request.dictionary();
    assert_eq!(dictionary.string("").get(), 0);
    assert_eq!(dictionary.mapping(0..0, 0, "", &[]).get(), 0);
    assert_eq!(dictionary.function("", "", "", 0).get(), 0);
    assert_eq!(dictionary.location(MappingIdx::default(), 0, &[], &[]).get(), 0);
    assert_eq!(dictionary.stack(&[]).get(), 0);
    assert_eq!(dictionary.link([0; 16], [0; 8]).get(), 0);
}

#[test]
fn resource_attributes_may_use_the_string_table() {
    let mut request = ProfilesRequest::new(1);
    let key = request.dictionary().string("service.name");
    let value = request.dictionary().string("shop");
    request.resource_profiles(
        "",
        |resource| {
            resource.attributes([()], |kv, ()| {
                kv.key_strindex(key.get());
                kv.value(|any| any.string_value_strindex(value.get()));
            });
        },
        |scopes| scopes.scope_profiles("", |_| {}, |profiles| profiles.profile(&INFO, |s| one(s, &[1], &[]))),
    );
    let decoded = decode(request.finish().unwrap());
    let attribute = &decoded.resource_profiles[0].resource.as_ref().unwrap().attributes[0];
    let table = decoded.dictionary.unwrap().string_table;
    assert_eq!(table[attribute.key_strindex as usize], "service.name");
    let Some(Value::StringValueStrindex(index)) = attribute.value.as_ref().unwrap().value else { panic!() };
    assert_eq!(table[index as usize], "shop");
}
