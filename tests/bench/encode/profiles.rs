//! Samples of one profile, each with a stack of its own. There is no SDK to compare with: it has no profiles.

use crate::Variants;
use crate::source::*;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::common::v1::any_value::Value as ProtoValue;
use opentelemetry_proto::tonic::profiles::v1development as proto;
use otlp_encode::wire::Writer;
use otlp_encode::{
    AttributeIdx, Dictionary, Limits, Line, LinkIdx, LocationIdx, ProfileInfo, ProfilesRequest, ResourceBlob,
    ScopeBlob, json, profiles as ours,
};
use prost::Message;
use std::collections::HashMap;
use std::hint::black_box;

const SAMPLES: usize = 10_000;
const FRAMES: usize = 4_000;
const THREADS: usize = 40;
const DEPTH: usize = 40;
const TIMES: usize = 4;
const SECOND: u64 = 1_000_000_000;
const PERIOD: i64 = 10_101_010;
const FILE: &str = "/usr/bin/bench";
const SOURCE: &str = "src/module.rs";
const LINE: u32 = 7;

/// What a profiler holds when a window ends.
struct Window {
    /// Name and address.
    frames: Vec<(String, u64)>,
    samples: Vec<Sample>,
}

struct Sample {
    stack: Vec<u32>,
    thread: usize,
    times: [u64; TIMES],
}

fn window() -> Window {
    let mut random = Random(1);
    let mut samples: Vec<Sample> = (0..SAMPLES)
        .map(|number| Sample {
            // Callers near the root are shared.
            stack: (0..DEPTH)
                .map(|depth| random.below((FRAMES * (DEPTH - depth) / DEPTH) as u64) as u32)
                .collect(),
            thread: number % THREADS,
            times: [(); TIMES].map(|()| START + random.below(SECOND)),
        })
        .collect();
    // Only frames that occur, by first occurrence.
    let mut renumbered = HashMap::new();
    for frame in samples.iter_mut().flat_map(|sample| &mut sample.stack) {
        let next = renumbered.len() as u32;
        *frame = *renumbered.entry(*frame).or_insert(next);
    }
    let name = |n| format!("core::module_{}::Type{}::function_{n}", n % 97, n % 331);
    let frames = (0..renumbered.len()).map(|n| (name(n), 0x40_0000 + n as u64 * 61)).collect();
    Window { frames, samples }
}

// ---- the dictionary's own builder ----

/// What is in the dictionary already, as whoever exports keeps it.
#[derive(Default)]
struct Made {
    frames: Vec<Option<LocationIdx>>,
    threads: Vec<Option<AttributeIdx>>,
    stack: Vec<LocationIdx>,
}

impl Made {
    fn location(&mut self, dictionary: &mut Dictionary, window: &Window, frame: u32) -> LocationIdx {
        let known = &mut self.frames[frame as usize];
        *known.get_or_insert_with(|| {
            let (name, address) = &window.frames[frame as usize];
            let mapping = dictionary.mapping(0x40_0000..0x80_0000, 0, FILE, &[]);
            let function = dictionary.function(name, "", SOURCE, 0);
            let line = Line { function, line: LINE, column: 0 };
            let native = dictionary.attribute("profile.frame.type", "", "native");
            dictionary.location(mapping, *address, &[line], &[native])
        })
    }
}

/// Hands the bytes to `sink`. The last sample of a request is its first.
fn with_requests<R>(
    window: &Window,
    (resource, scope): &(ResourceBlob, ScopeBlob),
    made: &mut Made,
    request: &mut ProfilesRequest,
    sink: impl Fn(&[u8]) -> R,
) -> Option<R> {
    made.frames.clear();
    made.frames.resize(window.frames.len(), None);
    made.threads.clear();
    made.threads.resize(THREADS, None);
    let info = ProfileInfo {
        sample_type: ("samples", "count"),
        time_unix_nano: START,
        duration_nano: SECOND,
        period_type: ("cpu", "nanoseconds"),
        period: PERIOD,
        ..ProfileInfo::default()
    };
    let mut result = None;
    let mut out = request.start(Some([1; 16]), |batch| result = Some(sink(batch.bytes)));
    let mut scopes = out.resource(resource);
    let mut profiles = scopes.scope(scope);
    let mut samples = profiles.profile(&info);
    for sample in &window.samples {
        let added = samples.add(&[], &sample.times, |dictionary| {
            let mut stack = std::mem::take(&mut made.stack);
            stack.clear();
            stack.extend(sample.stack.iter().map(|&frame| made.location(dictionary, window, frame)));
            let index = dictionary.stack(&stack);
            made.stack = stack;
            let thread = *made.threads[sample.thread]
                .get_or_insert_with(|| dictionary.attribute("thread.id", "", sample.thread as i64 + 1000));
            (index, [thread], LinkIdx::default())
        });
        added.expect("it is valid");
    }
    out.finish();
    result
}

// ---- tables whose indices are known ----

/// The order in which the tables have what is not a frame's or sample's own, as the builder makes them.
const STRINGS: [&str; 9] =
    ["", "count", "profile.frame.type", "thread.id", "samples", "cpu", "nanoseconds", FILE, SOURCE];

/// Those, then the frames' names.
fn strings(window: &Window) -> impl DoubleEndedIterator<Item = &str> {
    STRINGS.into_iter().chain(window.frames.iter().map(|(name, _)| name.as_str()))
}

fn with_messages<'w>(window: &Window, writer: &'w mut Writer) -> &'w [u8] {
    ours::ExportProfilesServiceRequest::encode(writer, |to| {
        to.dictionary(|to| {
            to.stack_table(&window.samples, |to, sample| {
                to.location_indices(sample.stack.iter().map(|&frame| frame as i32 + 1));
            });
            to.stack_table([()], |_, ()| {});
            to.attribute_table(0..THREADS, |to, thread| {
                to.value(|to| to.int_value(thread as i64 + 1000));
                to.key_strindex(3);
            });
            to.attribute_table([()], |to, ()| {
                to.value(|to| to.string_value("native"));
                to.key_strindex(2);
            });
            to.attribute_table([()], |_, ()| {});
            to.string_table(strings(window));
            to.link_table([()], |_, ()| {});
            to.function_table(0..window.frames.len(), |to, frame| {
                to.filename_strindex(8);
                to.name_strindex(frame as i32 + 9);
            });
            to.function_table([()], |_, ()| {});
            to.location_table(window.frames.iter().enumerate(), |to, (frame, (_, address))| {
                to.attribute_indices([1]);
                to.lines([()], |to, ()| {
                    to.line(LINE.into());
                    to.function_index(frame as i32 + 1);
                });
                to.address(*address);
                to.mapping_index(1);
            });
            to.location_table([()], |_, ()| {});
            to.mapping_table([()], |to, ()| {
                to.filename_strindex(7);
                to.memory_limit(0x80_0000);
                to.memory_start(0x40_0000);
            });
            to.mapping_table([()], |_, ()| {});
        });
        to.resource_profiles([()], |to, ()| {
            to.scope_profiles([()], |to, ()| {
                to.profiles([()], |to, ()| {
                    to.profile_id(&[1; 16]);
                    to.period(PERIOD);
                    to.period_type(|to| {
                        to.unit_strindex(6);
                        to.type_strindex(5);
                    });
                    to.duration_nano(SECOND);
                    to.time_unix_nano(START);
                    to.samples(window.samples.iter().enumerate(), |to, (number, sample)| {
                        to.timestamps_unix_nano(&sample.times);
                        to.attribute_indices([sample.thread as i32 + 2]);
                        to.stack_index(number as i32 + 1);
                    });
                    to.sample_type(|to| {
                        to.unit_strindex(1);
                        to.type_strindex(4);
                    });
                });
                to.scope(write_scope);
            });
            to.resource(write_resource);
        });
    })
}

fn attribute(key_strindex: i32, value: ProtoValue) -> proto::KeyValueAndUnit {
    let value = Some(common::AnyValue { value: Some(value) });
    proto::KeyValueAndUnit { key_strindex, value, unit_strindex: 0 }
}

/// `stack_index` says which entry of the stacks a sample's stack is.
fn prost_request(
    window: &Window,
    strings: Vec<String>,
    stacks: Vec<proto::Stack>,
    mut stack_index: impl FnMut(usize) -> i32,
) -> ExportProfilesServiceRequest {
    let sample = |(number, sample): (usize, &Sample)| proto::Sample {
        stack_index: stack_index(number),
        attribute_indices: vec![sample.thread as i32 + 2],
        timestamps_unix_nano: sample.times.to_vec(),
        ..Default::default()
    };
    let mut functions = vec![proto::Function::default()];
    let mut locations = vec![proto::Location::default()];
    for (number, (_, address)) in window.frames.iter().enumerate() {
        functions.push(proto::Function {
            name_strindex: number as i32 + 9,
            filename_strindex: 8,
            ..Default::default()
        });
        locations.push(proto::Location {
            mapping_index: 1,
            address: *address,
            lines: vec![proto::Line { function_index: number as i32 + 1, line: LINE.into(), column: 0 }],
            attribute_indices: vec![1],
        });
    }
    let mapping = proto::Mapping {
        memory_start: 0x40_0000,
        memory_limit: 0x80_0000,
        filename_strindex: 7,
        ..Default::default()
    };
    let mut attributes =
        vec![proto::KeyValueAndUnit::default(), attribute(2, ProtoValue::StringValue("native".to_owned()))];
    attributes.extend((0..THREADS).map(|n| attribute(3, ProtoValue::IntValue(n as i64 + 1000))));
    let profile = proto::Profile {
        sample_type: Some(proto::ValueType { type_strindex: 4, unit_strindex: 1 }),
        samples: window.samples.iter().enumerate().map(sample).collect(),
        time_unix_nano: START,
        duration_nano: SECOND,
        period_type: Some(proto::ValueType { type_strindex: 5, unit_strindex: 6 }),
        period: PERIOD,
        profile_id: vec![1; 16],
        ..Default::default()
    };
    let scope_profiles =
        proto::ScopeProfiles { scope: prost_scope(), profiles: vec![profile], ..Default::default() };
    ExportProfilesServiceRequest {
        resource_profiles: vec![proto::ResourceProfiles {
            resource: prost_resource(),
            scope_profiles: vec![scope_profiles],
            ..Default::default()
        }],
        dictionary: Some(proto::ProfilesDictionary {
            mapping_table: vec![proto::Mapping::default(), mapping],
            location_table: locations,
            function_table: functions,
            link_table: vec![proto::Link::default()],
            string_table: strings,
            attribute_table: attributes,
            stack_table: stacks,
        }),
    }
}

fn stack(sample: &Sample) -> proto::Stack {
    proto::Stack { location_indices: sample.stack.iter().map(|&frame| frame as i32 + 1).collect() }
}

fn with_prost(window: &Window) -> ExportProfilesServiceRequest {
    let strings = strings(window).map(str::to_owned).collect();
    let stacks = std::iter::once(proto::Stack::default()).chain(window.samples.iter().map(stack)).collect();
    prost_request(window, strings, stacks, |number| number as i32 + 1)
}

/// The same, with hash maps for what must not be there twice.
fn with_prost_and_maps(window: &Window) -> ExportProfilesServiceRequest {
    let mut table = Vec::new();
    let mut known = HashMap::new();
    for string in strings(window) {
        if !known.contains_key(string) {
            known.insert(string.to_owned(), table.len());
            table.push(string.to_owned());
        }
    }
    let mut stacks = vec![proto::Stack::default()];
    let mut known: HashMap<Vec<i32>, i32> = HashMap::new();
    let indices: Vec<i32> = window
        .samples
        .iter()
        .map(|sample| {
            let stack = stack(sample);
            if let Some(&index) = known.get(&stack.location_indices) {
                return index;
            }
            let index = stacks.len() as i32;
            known.insert(stack.location_indices.clone(), index);
            stacks.push(stack);
            index
        })
        .collect();
    prost_request(window, table, stacks, |number| indices[number])
}

/// What a message says, whatever the order of its samples and tables: samples with their stacks' names, threads and times.
fn meaning(bytes: &[u8]) -> Vec<(Vec<String>, i64, Vec<u64>)> {
    let request = ExportProfilesServiceRequest::decode(bytes).expect("it is a request");
    let dictionary = request.dictionary.expect("it has tables");
    let name = |&location: &i32| {
        let function = dictionary.location_table[location as usize].lines[0].function_index;
        let name = dictionary.function_table[function as usize].name_strindex;
        dictionary.string_table[name as usize].clone()
    };
    let sample = |sample: &proto::Sample| {
        let stack = &dictionary.stack_table[sample.stack_index as usize];
        let thread = &dictionary.attribute_table[sample.attribute_indices[0] as usize];
        let Some(ProtoValue::IntValue(thread)) = thread.value.as_ref().and_then(|any| any.value.clone())
        else {
            panic!("a thread is a number")
        };
        let names = stack.location_indices.iter().map(name).collect();
        (names, thread, sample.timestamps_unix_nano.clone())
    };
    let mut samples: Vec<_> =
        request.resource_profiles[0].scope_profiles[0].profiles[0].samples.iter().map(sample).collect();
    samples.sort_unstable();
    samples
}

pub fn run() {
    let window = window();
    let request = with_prost(&window);
    let bytes = request.encode_to_vec();
    let mut writer = Writer::new();
    let blobs = (resource_blob(), scope_blob());
    let mut made = Made::default();
    let mut requests = ProfilesRequest::new(Limits::default(), 1);
    assert_eq!(with_messages(&window, &mut writer), bytes);
    assert_eq!(with_prost_and_maps(&window).encode_to_vec(), bytes);
    let built = with_requests(&window, &blobs, &mut made, &mut requests, <[u8]>::to_vec).expect("it is one");
    assert_eq!(meaning(&built), meaning(&bytes));

    let mut line = String::new();
    let mut variants = Variants::new("samples", SAMPLES, bytes.len());
    variants.add("prost, build and encode", || with_prost(black_box(&window)).encode_to_vec());
    variants.add("prost, encode", || black_box(&request).encode_to_vec());
    variants.add("prost and hash maps, build and encode", || {
        with_prost_and_maps(black_box(&window)).encode_to_vec()
    });
    variants.add("ours, messages", || with_messages(black_box(&window), &mut writer).len());
    variants.add("ours, request with dictionary", || {
        with_requests(black_box(&window), &blobs, &mut made, &mut requests, <[u8]>::len)
    });
    variants.add("ours, bytes to JSON", || {
        line.clear();
        json::transcode(ours::ExportProfilesServiceRequest::descriptor(), black_box(&bytes), &mut line)
            .expect("our own bytes");
        line.len()
    });
    variants.add_memcpy(&bytes);
    variants.report();
}
