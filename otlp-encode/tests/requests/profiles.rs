//! What `ProfilesRequest` makes is valid and equal to what it was made from; what is not valid is an error.

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyKind;
use opentelemetry_proto::tonic::profiles::v1development as proto;
use otlp_encode::*;
use prost::Message;

/// The requests of one resource with one profile.
fn requests(
    request: &mut ProfilesRequest,
    info: &ProfileInfo<'_>,
    samples: impl FnOnce(&mut Samples<'_>),
) -> Vec<Vec<u8>> {
    let resource_info = ResourceInfo { schema_url: "schema", ..ResourceInfo::default() };
    let resource = ResourceBlob::new(&[("service.name", "shop")], &resource_info).unwrap();
    let scope_info = ScopeInfo { schema_url: "schema", ..ScopeInfo::default() };
    let scope = ScopeBlob::new("test", &(), &scope_info).unwrap();
    let mut batches = Vec::new();
    let mut out = request.start(Some([7; 16]), |batch| {
        assert_eq!(batch.items, 1, "profiles are counted, not samples");
        batches.push(batch.bytes.to_vec());
    });
    samples(&mut out.resource(&resource).scope(&scope).profile(info));
    out.finish();
    batches
}

fn request() -> ProfilesRequest {
    ProfilesRequest::new(Limits::default(), 1)
}

/// The only request of one resource with one profile.
fn single(info: &ProfileInfo<'_>, samples: impl FnOnce(&mut Samples<'_>)) -> Vec<u8> {
    let mut batches = requests(&mut request(), info, samples);
    assert_eq!(batches.len(), 1);
    batches.remove(0)
}

fn stack(dictionary: &mut Dictionary, names: &[&str]) -> StackIdx {
    let build_id = dictionary.attribute("build.id", "", "abcd");
    let kind = dictionary.attribute("profile.frame.type", "", "native");
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
    let info = ProfileInfo { attributes: &[("lost", "{sample}", Value::Int(0))], ..INFO };
    let bytes = single(&info, |samples| {
        samples.add(&[5], &[], |d| (stack(d, &["main"]), [], LinkIdx::default())).unwrap();
        let full = |d: &mut Dictionary| {
            (stack(d, &["leaf", "main"]), [d.attribute("thread.id", "", 9)], d.link([1; 16], [2; 8]))
        };
        samples.add(&[6], &[], full).unwrap();
    });
    let decoded = decode(&bytes);
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
    assert_eq!(profile.attribute_indices.len(), 1);
    let lost = &dictionary.attribute_table[profile.attribute_indices[0] as usize];
    assert_eq!((text(lost.key_strindex), text(lost.unit_strindex)), ("lost", "{sample}"));
    assert_eq!(lost.value.as_ref().unwrap().value, Some(AnyKind::IntValue(0)));

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
fn the_same_calls_again_give_the_same_bytes_and_the_seed_does_not_matter() {
    let mut reused = request();
    let fill = |request: &mut ProfilesRequest, name: &str| {
        requests(request, &INFO, |samples| {
            samples.add(&[1], &[], |d| (stack(d, &[name, "main"]), [], LinkIdx::default())).unwrap();
        })
    };
    let first = fill(&mut reused, "one");
    assert_ne!(fill(&mut reused, "two"), first);
    assert_eq!(fill(&mut reused, "one"), first);
    assert_eq!(fill(&mut ProfilesRequest::new(Limits::default(), u64::MAX), "one"), first);
}

/// What a sample is answered with, between two that are valid. A sample that is refused leaves no trace.
#[track_caller]
fn answer<A: AsRef<[AttributeIdx]>>(
    values: &[i64],
    timestamps: &[u64],
    mut identify: impl FnMut(&mut Dictionary) -> (StackIdx, A, LinkIdx),
) -> Result<(), Error> {
    let valid = |samples: &mut Samples<'_>, name| {
        let timed: (&[i64], &[u64]) = if timestamps.is_empty() { (&[1], &[]) } else { (&[], &[1_001]) };
        samples.add(timed.0, timed.1, |d| (stack(d, &[name]), [], LinkIdx::default())).unwrap();
    };
    let mut answer = Ok(());
    let with = single(&INFO, |samples| {
        valid(samples, "before");
        answer = samples.add(values, timestamps, &mut identify);
        valid(samples, "after");
    });
    let without = single(&INFO, |samples| {
        valid(samples, "before");
        valid(samples, "after");
    });
    assert_eq!(with == without, answer.is_err());
    decode(&with);
    answer
}

fn nothing(_: &mut Dictionary) -> (StackIdx, [AttributeIdx; 0], LinkIdx) {
    (StackIdx::default(), [], LinkIdx::default())
}

#[test]
fn sample_shapes() {
    let shape = |values, timestamps| Err(Error::SampleShape { values, timestamps });
    assert_eq!(answer(&[], &[], nothing), shape(0, 0));
    assert_eq!(answer(&[1, 2], &[], nothing), shape(2, 0));
    assert_eq!(answer(&[1], &[1_000, 1_001], nothing), shape(1, 2));
    // The valid samples around it have no values.
    assert_eq!(answer(&[1], &[1_000], nothing), Err(Error::MixedSampleShapes));
    for (values, timestamps) in [(&[1][..], &[][..]), (&[], &[1_000, 1_099]), (&[1, -2], &[1_000, 1_000])] {
        let bytes = single(&INFO, |samples| samples.add(values, timestamps, nothing).unwrap());
        let decoded = decode(&bytes);
        let sample = &decoded.resource_profiles[0].scope_profiles[0].profiles[0].samples[0];
        assert_eq!((sample.values.as_slice(), sample.timestamps_unix_nano.as_slice()), (values, timestamps));
    }
}

#[test]
fn timestamps_lie_in_the_range() {
    for timestamp in [999, 1_100] {
        let error = Error::Timestamp { timestamp, start: 1_000, end: 1_100 };
        assert_eq!(answer(&[], &[timestamp], nothing), Err(error));
    }
}

#[test]
fn mappings_ascend() {
    for range in [(5, 5), (6, 5)] {
        let got = answer(&[1], &[], |d| {
            let mapping = d.mapping(range.0..range.1, 0, "x", &[]);
            assert_eq!(mapping, MappingIdx::default());
            nothing(d)
        });
        assert_eq!(got, Err(Error::MappingRange { start: range.0, limit: range.1 }));
    }
}

#[test]
fn keys_are_unique_in_a_list_and_order_does_not_count() {
    let twice = |other| {
        answer(&[1], &[], |d| {
            let (a, b) = (d.attribute("key", "", 1), d.attribute("key", "", other));
            (StackIdx::default(), [b, a], LinkIdx::default())
        })
    };
    // Two attributes are there already.
    assert_eq!(twice(2), Err(Error::DuplicateKey { first: 3, second: 4 }));
    assert_eq!(twice(1), Err(Error::DuplicateKey { first: 3, second: 3 }));
    assert_eq!(answer(&[1], &[], |d| (StackIdx::default(), [d.attribute("", "", 1)], LinkIdx::default())), {
        Err(Error::Empty { field: "key" })
    });
    let same = answer(&[1], &[], |d| {
        let (a, b) = (d.attribute("a", "", 1), d.attribute("b", "", 1));
        let mapping = d.mapping(0..1, 0, "x", &[a, b]);
        assert_eq!(mapping, d.mapping(0..1, 0, "x", &[b, a]));
        let location = d.location(mapping, 1, &[], &[]);
        (d.stack(&[location]), [], LinkIdx::default())
    });
    assert_eq!(same, Ok(()));
}

#[test]
fn attributes_of_a_profile_follow_the_same_rules() {
    let attributes = [("a", "", Value::Int(1)), ("a", "", Value::Int(2))];
    let info = ProfileInfo { attributes: &attributes, ..INFO };
    let batches = requests(&mut request(), &info, |samples| {
        let refused = samples.add(&[1], &[], nothing);
        assert_eq!(refused, Err(Error::DuplicateKey { first: 1, second: 2 }));
    });
    assert!(batches.is_empty());
}

/// Indices from one sample, used in the next, after something happened that ends their epoch.
fn kept<I: Copy>(
    make: fn(&mut Dictionary) -> I,
    mut add: impl FnMut(&mut Dictionary, I),
) -> Result<(), Error> {
    let mut answer = Ok(());
    let bytes = single(&INFO, |samples| {
        let mut kept = None;
        let first = samples.add(&[1], &[], |d| {
            kept = Some(make(d));
            nothing(d)
        });
        assert!(matches!(first, Err(Error::Unreferenced { .. })), "{first:?}");
        answer = samples.add(&[1], &[], |d| {
            add(d, kept.unwrap());
            nothing(d)
        });
        samples.add(&[1], &[], nothing).unwrap();
    });
    decode(&bytes);
    answer
}

#[test]
fn indices_of_another_epoch_are_noticed() {
    let unknown = |table| Err(Error::UnknownIndex { table, index: 1 });
    let function = |d: &mut Dictionary| d.function("f", "", "", 0);
    let location = |d: &mut Dictionary| d.location(MappingIdx::default(), 1, &[], &[]);
    let attribute = |d: &mut Dictionary| d.attribute("a", "", 1);
    let got = kept(
        |d| d.mapping(0..1, 0, "x", &[]),
        |d, index| {
            let location = d.location(index, 1, &[], &[]);
            let _ = d.stack(&[location]);
        },
    );
    assert_eq!(got, unknown(Table::Mapping));
    let got = kept(function, |d, function| {
        let _ = d.location(MappingIdx::default(), 1, &[Line { function, line: 0, column: 0 }], &[]);
    });
    assert_eq!(got, unknown(Table::Function));
    // An entry that is there again does not make an old index valid.
    let got = kept(location, |d, index| {
        let _ = (location(d), d.stack(&[index]));
    });
    assert_eq!(got, unknown(Table::Location));
    let got = kept(attribute, |d, index| {
        let _ = (attribute(d), d.mapping(0..1, 0, "x", &[index]));
    });
    assert_eq!(got, unknown(Table::Attribute));

    let mut stale = None;
    let sample = |d: &mut Dictionary| (stack(d, &["a"]), [d.attribute("a", "", 1)], d.link([1; 16], [1; 8]));
    single(&INFO, |samples| {
        let keep = |d: &mut Dictionary| *stale.insert(sample(d));
        samples.add(&[1], &[], keep).unwrap();
        let kept = stale.unwrap();
        samples.add(&[1], &[], |_| kept).unwrap();
    });
    let (old_stack, old_attributes, old_link) = stale.unwrap();
    let default = LinkIdx::default();
    let mut reused = request();
    for _ in 0..2 {
        requests(&mut reused, &INFO, |samples| samples.add(&[1], &[], sample).unwrap());
    }
    requests(&mut reused, &INFO, |samples| {
        samples.add(&[1], &[], sample).unwrap();
        let unknown = |table, index| Err(Error::UnknownIndex { table, index });
        assert_eq!(samples.add(&[1], &[], |_| (old_stack, [], default)), unknown(Table::Stack, 1));
        // The index of `a`, after those of the stack's mapping and location.
        let got = samples.add(&[1], &[], |_| (StackIdx::default(), old_attributes, default));
        assert_eq!(got, unknown(Table::Attribute, 3));
        assert_eq!(samples.add(&[1], &[], |_| (StackIdx::default(), [], old_link)), unknown(Table::Link, 1));
    });
}

#[test]
fn entries_that_nothing_refers_to_are_noticed() {
    let orphan = |make: fn(&mut Dictionary)| {
        let got = answer(&[1], &[], |d| {
            make(d);
            nothing(d)
        });
        let Err(Error::Unreferenced { table, .. }) = got else { panic!("{got:?}") };
        table
    };
    let table = orphan(|d| {
        let _ = d.mapping(0..1, 0, "x", &[]);
    });
    assert_eq!(table, Table::Mapping);
    let table = orphan(|d| {
        let _ = d.location(MappingIdx::default(), 1, &[], &[]);
    });
    assert_eq!(table, Table::Location);
    let table = orphan(|d| {
        let _ = d.function("f", "", "", 0);
    });
    assert_eq!(table, Table::Function);
    let table = orphan(|d| {
        let _ = d.link([1; 16], [1; 8]);
    });
    assert_eq!(table, Table::Link);
    let table = orphan(|d| {
        let _ = d.attribute("a", "", 1);
    });
    assert_eq!(table, Table::Attribute);
    let table = orphan(|d| {
        let location = d.location(MappingIdx::default(), 1, &[], &[]);
        let _ = d.stack(&[location]);
    });
    assert_eq!(table, Table::Stack);
}

#[test]
fn nothing_is_not_a_request() {
    assert!(requests(&mut request(), &INFO, |_| {}).is_empty());
}

#[test]
fn profiles_are_counted_that_have_samples() {
    let mut counts = Vec::new();
    let mut request = ProfilesRequest::new(Limits { max_items: 5, ..Limits::default() }, 1);
    let mut out = request.start(None, |batch| {
        let profiles = &decode(batch.bytes).resource_profiles[0].scope_profiles[0].profiles;
        assert_eq!(profiles.len() as u64, batch.items);
        counts.push((batch.items, profiles.iter().map(|profile| profile.samples.len()).sum::<usize>()));
    });
    let resource = ResourceBlob::default();
    let mut scopes = out.resource(&resource);
    let mut profiles = scopes.scope(&ScopeBlob::default());
    for samples in [2, 0, 1, 4, 0, 1] {
        let mut to = profiles.profile(&INFO);
        // The refused one does not open the profile.
        to.add(&[1], &[], |d| (StackIdx::default(), [d.attribute("", "", 1)], LinkIdx::default()))
            .unwrap_err();
        for _ in 0..samples {
            to.add(&[1], &[], nothing).unwrap();
        }
    }
    out.finish();
    // The third is in both.
    assert_eq!(counts, [(3, 5), (2, 3)]);
}

#[test]
fn zero_entries_are_entry_zero() {
    let zeros = |d: &mut Dictionary| {
        assert_eq!(d.mapping(0..0, 0, "", &[]).get(), 0);
        assert_eq!(d.function("", "", "", 0).get(), 0);
        assert_eq!(d.location(MappingIdx::default(), 0, &[], &[]).get(), 0);
        (d.stack(&[]), [], d.link([0; 16], [0; 8]))
    };
    let decoded = decode(&single(&INFO, |samples| samples.add(&[1], &[], zeros).unwrap()));
    let dictionary = decoded.dictionary.unwrap();
    assert_eq!((dictionary.stack_table.len(), dictionary.link_table.len()), (1, 1));
}

#[test]
fn split_requests_hold_what_their_own_samples_need() {
    const NAMES: u64 = 60;
    let fill = |limits| {
        requests(&mut ProfilesRequest::new(limits, 1), &INFO, |samples| {
            let mut kept: (Epoch, Vec<Option<StackIdx>>) = Default::default();
            for number in 0..200u64 {
                let identify = |d: &mut Dictionary| {
                    if kept.0 != d.epoch() || kept.1.is_empty() {
                        kept = (d.epoch(), vec![None; NAMES as usize]);
                    }
                    let name = number % NAMES;
                    let made = &mut kept.1[name as usize];
                    let make = || stack(d, &[&format!("function {name}"), "main"]);
                    (
                        *made.get_or_insert_with(make),
                        [d.attribute("thread.id", "", (number % 7) as i64)],
                        LinkIdx::default(),
                    )
                };
                samples.add(&[number as i64], &[], identify).unwrap();
                if number % 9 == 0 {
                    // Refused, and nothing of it remains.
                    samples
                        .add(&[0], &[], |d| {
                            (StackIdx::default(), [d.attribute("", "", 1)], LinkIdx::default())
                        })
                        .unwrap_err();
                }
            }
        })
    };
    let all: Vec<i64> = (0..200).collect();
    for (max_bytes, max_items) in
        [(1 << 20, u64::MAX), (4_000, u64::MAX), (1_000, u64::MAX), (0, u64::MAX), (1 << 20, 7)]
    {
        let batches = fill(Limits { max_bytes, max_items });
        let mut values = Vec::new();
        for (number, bytes) in batches.iter().enumerate() {
            let decoded = decode(bytes);
            let profile = &decoded.resource_profiles[0].scope_profiles[0].profiles[0];
            assert!(bytes.len() <= max_bytes || profile.samples.len() == 1);
            assert!((1..=max_items).contains(&(profile.samples.len() as u64)));
            let id = u128::from_be_bytes([7; 16]) + number as u128;
            assert_eq!(profile.profile_id, id.to_be_bytes());
            values.extend(profile.samples.iter().rev().map(|sample| sample.values[0]));
            let dictionary = decoded.dictionary.as_ref().unwrap();
            let stacks: std::collections::HashSet<i32> =
                profile.samples.iter().map(|s| s.stack_index).collect();
            assert_eq!(dictionary.stack_table.len(), stacks.len() + 1, "no orphan");
            for sample in &profile.samples {
                let stack = &dictionary.stack_table[sample.stack_index as usize];
                let location = &dictionary.location_table[stack.location_indices[0] as usize];
                let function = &dictionary.function_table[location.lines[0].function_index as usize];
                let name = &dictionary.string_table[function.name_strindex as usize];
                assert_eq!(*name, format!("function {}", sample.values[0] as u64 % NAMES));
            }
        }
        assert_eq!(values, all);
        assert_eq!(batches.len() > 1, max_bytes < 1 << 20 || max_items == 7);
    }
}

#[test]
fn indices_of_another_dictionary_are_noticed() {
    let sample = |d: &mut Dictionary| (stack(d, &["a"]), [d.attribute("a", "", 1)], d.link([1; 16], [1; 8]));
    let mut kept = None;
    single(&INFO, |samples| samples.add(&[1], &[], |d| *kept.insert(sample(d))).unwrap());
    let (stack, _, _) = kept.unwrap();
    single(&INFO, |samples| {
        samples.add(&[1], &[], sample).unwrap();
        let unknown = Err(Error::UnknownIndex { table: Table::Stack, index: 1 });
        assert_eq!(samples.add(&[1], &[], |_| (stack, [], LinkIdx::default())), unknown);
    });
}

#[test]
fn half_a_link_and_half_a_payload_are_refused() {
    for (trace_id, span_id) in [([0; 16], [1; 8]), ([1; 16], [0; 8])] {
        let got = answer(&[1], &[], |d| (StackIdx::default(), [], d.link(trace_id, span_id)));
        assert_eq!(got, Err(Error::Empty { field: "link" }));
    }
    for payload in [("", &b"x"[..]), ("pprof", &[])] {
        let info = ProfileInfo { original_payload: Some(payload), ..INFO };
        let batches = requests(&mut request(), &info, |samples| {
            let error = Error::Empty { field: "original_payload" };
            assert_eq!(samples.add(&[1], &[], nothing), Err(error));
        });
        assert!(batches.is_empty());
    }
}

#[test]
fn a_resource_counts_where_the_protocol_has_its_end() {
    let text = "x".repeat(Limits::MAX_BYTES - 100);
    let resource = ResourceBlob::new(&[("k", text.as_str())], &ResourceInfo::default()).unwrap();
    for max_bytes in [0, usize::MAX] {
        let mut request = ProfilesRequest::new(Limits { max_bytes, ..Limits::default() }, 1);
        let mut out = request.start(None, |batch| panic!("{} bytes", batch.bytes.len()));
        let added =
            out.resource(&resource).scope(&ScopeBlob::default()).profile(&INFO).add(&[1], &[], nothing);
        assert!(matches!(added, Err(Error::TooLarge { bytes }) if bytes > Limits::MAX_BYTES), "{added:?}");
        out.finish();
    }
}

/// Where every length takes as many bytes as are kept for it.
#[test]
fn a_large_request_is_split_at_the_limit_to_the_byte() {
    let names: Vec<String> = (0..3).map(|number| format!("{number}{}", "x".repeat(800_000))).collect();
    let info = ProfileInfo { duration_nano: 100_000, ..INFO };
    let timestamps: Vec<u64> = (1_000..101_000).collect();
    let fill = |max_bytes| {
        let limits = Limits { max_bytes, ..Limits::default() };
        requests(&mut ProfilesRequest::new(limits, 1), &info, |samples| {
            for name in &names {
                let sample = |d: &mut Dictionary| {
                    (StackIdx::default(), [d.attribute("k", name, 1)], LinkIdx::default())
                };
                samples.add(&[], &timestamps, sample).unwrap();
            }
        })
    };
    let sizes = |max_bytes| fill(max_bytes).iter().map(Vec::len).collect::<Vec<_>>();
    let whole = sizes(usize::MAX);
    assert!(whole[0] > 2 * 2_400_000);
    assert_eq!(sizes(whole[0]), whole);
    assert_eq!(sizes(whole[0] - 1).len(), 2);
}
