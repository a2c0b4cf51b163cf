//! Encoding a profiles request, next to prost: `cargo bench -p otlp-encode`. Prints medians; asserts nothing about time.

#[path = "../tests/support/mod.rs"]
mod support;

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::profiles::v1development as proto;
use opentelemetry_proto::tonic::resource::v1::Resource;
use otlp_encode::wire::Writer;
use otlp_encode::{Line, LinkIdx, ProfileInfo, ProfilesRequest, json, profiles};
use prost::Message;
use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

const SAMPLES: usize = 10_000;
const STACKS: usize = 2_500;
const FRAMES: usize = 4_000;
const THREADS: usize = 40;
const DEPTH: usize = 24;
const START: u64 = 1_790_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// What a profiler holds when a window ends.
struct Window {
    frames: Vec<(String, u64)>,
    stacks: Vec<Vec<usize>>,
    /// Stack, thread, when.
    samples: Vec<(usize, usize, [u64; 4])>,
}

fn window() -> Window {
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    // Callers near the root are shared.
    let mut stacks: Vec<Vec<usize>> = (0..STACKS)
        .map(|_| (0..DEPTH).map(|depth| random((FRAMES * (DEPTH - depth) / DEPTH).max(3))).collect())
        .collect();
    let samples = (0..SAMPLES)
        .map(|n| {
            let times = [0; 4].map(|_: u64| START + random(SECOND as usize) as u64);
            (if n < STACKS { n } else { random(STACKS) }, n % THREADS, times)
        })
        .collect();
    // Only frames that occur, by first occurrence.
    let mut renumbered = HashMap::new();
    for frame in stacks.iter_mut().flatten() {
        let next = renumbered.len();
        *frame = *renumbered.entry(*frame).or_insert(next);
    }
    let frames = (0..renumbered.len())
        .map(|n| {
            (format!("core::module_{}::Type{}::function_{n}", n % 97, n % 331), 0x40_0000 + n as u64 * 61)
        })
        .collect();
    Window { frames, stacks, samples }
}

fn with_ours<'r>(window: &Window, request: &'r mut ProfilesRequest) -> &'r [u8] {
    request.clear();
    let info = ProfileInfo {
        sample_type: ("samples", "count"),
        time_unix_nano: START,
        duration_nano: SECOND,
        period_type: ("cpu", "nanoseconds"),
        period: 10_101_010,
        profile_id: Some([1; 16]),
        ..ProfileInfo::default()
    };
    request.resource_profiles(
        "",
        |resource| resource.attributes([("service.name", "bench")], |kv, (key, value)| kv.string(key, value)),
        |scopes| {
            scopes.scope_profiles(
                "",
                |scope| scope.name("bench"),
                |profiles| {
                    profiles.profile(&info, |samples| {
                        let dictionary = samples.dictionary();
                        let native =
                            dictionary.attribute("profile.frame.type", "", |v| v.string_value("native"));
                        let mapping = dictionary.mapping(0x40_0000..0x80_0000, 0, "/usr/bin/bench", &[]);
                        let locations: Vec<_> = window
                            .frames
                            .iter()
                            .map(|(name, address)| {
                                let function = dictionary.function(name, "", "src/module.rs", 0);
                                dictionary.location(
                                    mapping,
                                    *address,
                                    &[Line { function, line: 7, column: 0 }],
                                    &[native],
                                )
                            })
                            .collect();
                        let threads: Vec<_> = (0..THREADS)
                            .map(|n| dictionary.attribute("thread.id", "", |v| v.int_value(n as i64 + 1000)))
                            .collect();
                        let mut frames = Vec::with_capacity(DEPTH);
                        for (stack, thread, times) in &window.samples {
                            frames.clear();
                            frames.extend(window.stacks[*stack].iter().map(|&frame| locations[frame]));
                            let stack = samples.dictionary().stack(&frames);
                            samples.sample(stack, &[threads[*thread]], LinkIdx::default(), &[], times);
                        }
                    });
                },
            );
        },
    );
    request.finish().expect("every frame and thread of the window is used")
}

/// The same through prost's structs, with hash maps for what must not be there twice.
fn with_prost(window: &Window) -> ExportProfilesServiceRequest {
    let mut strings = vec![String::new()];
    let mut string_index = HashMap::from([(String::new(), 0)]);
    let mut string = |text: &str| {
        if let Some(&index) = string_index.get(text) {
            return index;
        }
        let index = strings.len() as i32;
        strings.push(text.to_owned());
        string_index.insert(text.to_owned(), index);
        index
    };
    let attribute = |key_strindex: i32, value: Value| proto::KeyValueAndUnit {
        key_strindex,
        value: Some(common::AnyValue { value: Some(value) }),
        unit_strindex: 0,
    };
    let mut attributes = vec![proto::KeyValueAndUnit::default()];
    attributes.push(attribute(string("profile.frame.type"), Value::StringValue("native".to_owned())));
    let mapping = proto::Mapping {
        memory_start: 0x40_0000,
        memory_limit: 0x80_0000,
        filename_strindex: string("/usr/bin/bench"),
        ..Default::default()
    };
    let mut functions = vec![proto::Function::default()];
    let mut locations = vec![proto::Location::default()];
    for (name, address) in &window.frames {
        let function_index = functions.len() as i32;
        functions.push(proto::Function {
            name_strindex: string(name),
            filename_strindex: string("src/module.rs"),
            ..Default::default()
        });
        locations.push(proto::Location {
            mapping_index: 1,
            address: *address,
            lines: vec![proto::Line { function_index, line: 7, column: 0 }],
            attribute_indices: vec![1],
        });
    }
    let thread_id = string("thread.id");
    attributes.extend((0..THREADS).map(|n| attribute(thread_id, Value::IntValue(n as i64 + 1000))));
    let mut stacks = vec![proto::Stack::default()];
    let mut stack_index: HashMap<Vec<i32>, i32> = HashMap::new();
    let mut frames = Vec::with_capacity(DEPTH);
    let samples = window
        .samples
        .iter()
        .map(|(stack, thread, times)| {
            frames.clear();
            frames.extend(window.stacks[*stack].iter().map(|&frame| frame as i32 + 1));
            let stack_index = stack_index.get(&frames).copied().unwrap_or_else(|| {
                let index = stacks.len() as i32;
                stacks.push(proto::Stack { location_indices: frames.clone() });
                stack_index.insert(frames.clone(), index);
                index
            });
            proto::Sample {
                stack_index,
                attribute_indices: vec![*thread as i32 + 2],
                timestamps_unix_nano: times.to_vec(),
                ..Default::default()
            }
        })
        .collect();
    let profile = proto::Profile {
        sample_type: Some(proto::ValueType {
            type_strindex: string("samples"),
            unit_strindex: string("count"),
        }),
        samples,
        time_unix_nano: START,
        duration_nano: SECOND,
        period_type: Some(proto::ValueType {
            type_strindex: string("cpu"),
            unit_strindex: string("nanoseconds"),
        }),
        period: 10_101_010,
        profile_id: vec![1; 16],
        ..Default::default()
    };
    let name = common::KeyValue {
        key: "service.name".to_owned(),
        value: Some(common::AnyValue { value: Some(Value::StringValue("bench".to_owned())) }),
        key_strindex: 0,
    };
    ExportProfilesServiceRequest {
        resource_profiles: vec![proto::ResourceProfiles {
            resource: Some(Resource { attributes: vec![name], ..Default::default() }),
            scope_profiles: vec![proto::ScopeProfiles {
                scope: Some(common::InstrumentationScope { name: "bench".to_owned(), ..Default::default() }),
                profiles: vec![profile],
                schema_url: String::new(),
            }],
            schema_url: String::new(),
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

/// Median nanoseconds of `run`, and how many bytes it made.
fn median(mut run: impl FnMut() -> usize) -> (f64, usize) {
    let mut bytes = 0;
    let mut times: Vec<_> = (0..101)
        .map(|_| {
            let start = Instant::now();
            bytes = black_box(run());
            start.elapsed().as_nanos() as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], bytes)
}

fn main() {
    let window = window();
    let message = with_prost(&window);
    let mut writer = Writer::new();
    let mut request = ProfilesRequest::new(1);
    let bytes = with_ours(&window, &mut request).to_vec();
    let same = profiles::ExportProfilesServiceRequest::encode(&mut writer, |to| {
        support::write_request(to, &message);
    });
    assert_eq!(same, message.encode_to_vec());

    let report = |name: &str, (nanos, bytes): (f64, usize), against: f64| {
        println!(
            "{name:<28} {:>8.1} ns/sample {:>7.0} MB/s {:>6.2}x  ({bytes} bytes)",
            nanos / SAMPLES as f64,
            bytes as f64 * 1e3 / nanos,
            against / nanos,
        );
    };
    let prost_both = median(|| with_prost(&window).encode_to_vec().len());
    report("build + encode, prost", prost_both, prost_both.0);
    report("build + encode, ours", median(|| with_ours(&window, &mut request).len()), prost_both.0);
    let prost = median(|| message.encode_to_vec().len());
    report("encode only, prost", prost, prost.0);
    let mut reused = Vec::new();
    let prost_reused = median(|| {
        reused.clear();
        message.encode(&mut reused).expect("a Vec grows");
        reused.len()
    });
    report("encode only, prost, reused", prost_reused, prost.0);
    let ours = median(|| {
        profiles::ExportProfilesServiceRequest::encode(&mut writer, |to| support::write_request(to, &message))
            .len()
    });
    report("encode only, ours", ours, prost.0);
    let mut line = String::new();
    let transcode = median(|| {
        line.clear();
        json::transcode(profiles::ExportProfilesServiceRequest::descriptor(), &bytes, &mut line)
            .expect("our own bytes");
        line.len()
    });
    report("JSON from bytes, ours", transcode, prost.0);
}
