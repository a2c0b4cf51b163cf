use super::*;
use crate::convert::fixture;
#[cfg(feature = "unwind")]
use crate::model::Span;
use crate::model::{Profile, SampleType, StackIdx};
use flate2::read::GzDecoder;
use prost::Message;
use std::io::Read;

/// `profile.proto` once more, written down for prost.
mod decoded {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Profile {
        #[prost(message, repeated, tag = "1")]
        pub sample_type: Vec<ValueType>,
        #[prost(message, repeated, tag = "2")]
        pub sample: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub mapping: Vec<Mapping>,
        #[prost(message, repeated, tag = "4")]
        pub location: Vec<Location>,
        #[prost(message, repeated, tag = "5")]
        pub function: Vec<Function>,
        #[prost(string, repeated, tag = "6")]
        pub string_table: Vec<String>,
        #[prost(int64, tag = "9")]
        pub time_nanos: i64,
        #[prost(int64, tag = "10")]
        pub duration_nanos: i64,
        #[prost(message, optional, tag = "11")]
        pub period_type: Option<ValueType>,
        #[prost(int64, tag = "12")]
        pub period: i64,
        #[prost(int64, repeated, tag = "13")]
        pub comment: Vec<i64>,
    }
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct ValueType {
        #[prost(int64, tag = "1")]
        pub r#type: i64,
        #[prost(int64, tag = "2")]
        pub unit: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Sample {
        #[prost(uint64, repeated, tag = "1")]
        pub location_id: Vec<u64>,
        #[prost(int64, repeated, tag = "2")]
        pub value: Vec<i64>,
        #[prost(message, repeated, tag = "3")]
        pub label: Vec<Label>,
    }
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Label {
        #[prost(int64, tag = "1")]
        pub key: i64,
        #[prost(int64, tag = "2")]
        pub str: i64,
        #[prost(int64, tag = "3")]
        pub num: i64,
    }
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Mapping {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(uint64, tag = "2")]
        pub memory_start: u64,
        #[prost(uint64, tag = "3")]
        pub memory_limit: u64,
        #[prost(uint64, tag = "4")]
        pub file_offset: u64,
        #[prost(int64, tag = "5")]
        pub filename: i64,
        #[prost(int64, tag = "6")]
        pub build_id: i64,
        #[prost(bool, tag = "7")]
        pub has_functions: bool,
        #[prost(bool, tag = "8")]
        pub has_filenames: bool,
        #[prost(bool, tag = "9")]
        pub has_line_numbers: bool,
        #[prost(bool, tag = "10")]
        pub has_inline_frames: bool,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Location {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(uint64, tag = "2")]
        pub mapping_id: u64,
        #[prost(uint64, tag = "3")]
        pub address: u64,
        #[prost(message, repeated, tag = "4")]
        pub line: Vec<Line>,
    }
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Line {
        #[prost(uint64, tag = "1")]
        pub function_id: u64,
        #[prost(int64, tag = "2")]
        pub line: i64,
    }
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Function {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(int64, tag = "2")]
        pub name: i64,
        #[prost(int64, tag = "3")]
        pub system_name: i64,
        #[prost(int64, tag = "4")]
        pub filename: i64,
    }
}

fn convert(profile: &Profile) -> decoded::Profile {
    let mut file = Vec::new();
    write(profile, &mut file).unwrap();
    let mut bytes = Vec::new();
    GzDecoder::new(file.as_slice()).read_to_end(&mut bytes).unwrap();
    let decoded = decoded::Profile::decode(bytes.as_slice()).unwrap();
    assert_eq!(decoded.encode_to_vec(), bytes, "canonical, and no unknown field");
    decoded
}

#[test]
fn a_profile_says_what_was_measured_and_what_was_lost() {
    let profile = convert(&fixture::profile());
    let text = |index: i64| profile.string_table[index as usize].as_str();
    let value_type = |value: &decoded::ValueType| (text(value.r#type), text(value.unit));
    let types: Vec<_> = profile.sample_type.iter().map(value_type).collect();
    assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
    assert_eq!(value_type(&profile.period_type.unwrap()), ("cpu", "nanoseconds"));
    assert_eq!((profile.period, profile.duration_nanos), (10_101_010, 10_000_000_000));
    assert_eq!(profile.time_nanos, 1_790_000_000_000_000_000);
    assert_eq!(profile.string_table[0], "");
    let comments: Vec<_> = profile.comment.iter().map(|&comment| text(comment)).collect();
    let expected =
        "lost samples: 5 (skipped 3, table full 2); samples without a stack: 1; lost sideband records: 0";
    assert_eq!(comments, [expected]);
}

#[test]
fn other_samples_than_those_of_cpu_time_have_one_value() {
    let sample_type = SampleType { value: ("inuse_space", "bytes"), period: ("space", "bytes") };
    let profile = convert(&Profile { sample_type, ..fixture::profile() });
    let text = |index: i64| profile.string_table[index as usize].as_str();
    let types: Vec<_> = profile.sample_type.iter().map(|t| (text(t.r#type), text(t.unit))).collect();
    assert_eq!(types, [("inuse_space", "bytes")]);
    assert_eq!(profile.period_type.map(|t| (text(t.r#type), text(t.unit))), Some(("space", "bytes")));
    assert_eq!(profile.sample[0].value, [7]);
}

#[test]
#[cfg(feature = "unwind")]
fn waits_say_who_has_ended_them() {
    let mut profile = fixture::profile();
    profile.threads[1].woken_by = Some("waker".into());
    let profile = convert(&profile);
    let text = |i: i64| profile.string_table[i as usize].as_str();
    let waker = |sample: &decoded::Sample| {
        sample
            .label
            .iter()
            .find(|label| text(label.key) == "woken_by")
            .map(|label| text(label.str).to_owned())
    };
    let wakers: Vec<_> = profile.sample.iter().map(waker).collect();
    assert_eq!(wakers.iter().flatten().collect::<Vec<_>>(), ["waker"]);
    assert_eq!(wakers[2].as_deref(), Some("waker"));
}

#[test]
#[cfg(feature = "unwind")]
fn samples_have_the_ids_of_their_spans() {
    let mut profile = fixture::profile();
    profile.threads[1].span = Some(Span { trace_id: [0xa7; 16], span_id: [8; 8] });
    let profile = convert(&profile);
    let text = |i: i64| profile.string_table[i as usize].as_str();
    let ids = |sample: &decoded::Sample| -> Vec<(String, String)> {
        let labels =
            sample.label.iter().map(|label| (text(label.key).to_owned(), text(label.str).to_owned()));
        labels.filter(|(key, _)| key.ends_with("_id")).collect()
    };
    let pair = |key: &str, value: String| (key.to_owned(), value);
    assert_eq!(ids(&profile.sample[2]), [pair("trace_id", "a7".repeat(16)), pair("span_id", "08".repeat(8))]);
    assert_eq!(ids(&profile.sample[0]), []);
}

#[test]
fn samples_have_values_labels_and_stacks() {
    let profile = convert(&fixture::profile());
    let text = |index: i64| profile.string_table[index as usize].as_str();
    let labels = |sample: &decoded::Sample| -> Vec<(String, String, i64)> {
        sample.label.iter().map(|l| (text(l.key).to_owned(), text(l.str).to_owned(), l.num)).collect()
    };
    let label = |key: &str, text: &str, number| (key.to_owned(), text.to_owned(), number);
    assert_eq!(profile.sample.len(), 5);
    assert_eq!(profile.sample[0].value, [7, 7 * 10_101_010]);
    assert_eq!(
        labels(&profile.sample[2]),
        [
            label("pid", "", 100),
            label("tid", "", 101),
            label("thread", "worker", 0),
            label("process", "shop-worker", 0)
        ]
    );
    assert_eq!(labels(&profile.sample[1])[3], label("process", "other-pid-namespace", 0));
    assert_eq!(profile.sample[4].location_id, [] as [u64; 0]);

    let frames: Vec<_> = profile.sample[0]
        .location_id
        .iter()
        .map(|&id| profile.location.iter().find(|location| location.id == id).unwrap())
        .collect();
    let addresses: Vec<_> = frames.iter().map(|location| location.address).collect();
    assert_eq!(addresses, [0xffff_ffff_8100_0000, 0x1200, 0x1100]);
    let lines = |location: &decoded::Location| -> Vec<(String, String, String, i64)> {
        let line = |line: &decoded::Line| {
            let function = profile.function.iter().find(|function| function.id == line.function_id).unwrap();
            let texts =
                [function.name, function.system_name, function.filename].map(|index| text(index).to_owned());
            let [name, system_name, file] = texts;
            (name, system_name, file, line.line)
        };
        location.line.iter().map(line).collect()
    };
    let line = |name: &str, system_name: &str, file: &str, line| {
        (name.to_owned(), system_name.to_owned(), file.to_owned(), line)
    };
    assert_eq!(lines(frames[0]), [line("do_idle", "do_idle", "", 0)]);
    assert_eq!(
        lines(frames[1]),
        [line("hash", "hash", "shop.rs", 3), line("lookup", "lookup", "shop.rs", 40)]
    );
    assert_eq!(lines(frames[2]), [line("shop::main", "_ZN4shop4mainE", "shop.rs", 7)]);
}

#[test]
fn mappings_say_what_is_known_of_them() {
    let profile = convert(&fixture::profile());
    let text = |index: i64| profile.string_table[index as usize].as_str();
    let [kernel, shop] = profile.mapping[..] else { panic!() };
    assert_eq!((kernel.id, text(kernel.filename), text(kernel.build_id)), (1, "[kernel]", ""));
    assert_eq!((shop.id, text(shop.filename), text(shop.build_id)), (2, "/usr/bin/shop", "abcd01"));
    assert_eq!((shop.memory_start, shop.memory_limit, shop.file_offset), (0x1000, 0x9000, 0x200));
    assert_eq!((kernel.has_functions, kernel.has_filenames), (true, false));
    assert_eq!((kernel.has_line_numbers, kernel.has_inline_frames), (false, false));
    assert_eq!((shop.has_functions, shop.has_filenames), (true, true));
    assert_eq!((shop.has_line_numbers, shop.has_inline_frames), (true, true));
    let mapping_of = |address| profile.location.iter().find(|l| l.address == address).unwrap().mapping_id;
    assert_eq!((mapping_of(0x1100), mapping_of(0x7f00_0000_1000)), (2, 0));
}

#[test]
fn nothing_is_there_twice() {
    let profile = convert(&fixture::large(2_000));
    let mut strings = profile.string_table.clone();
    strings.sort();
    strings.dedup();
    assert_eq!(strings.len(), profile.string_table.len());
    let names = |f: &decoded::Function| (f.name, f.system_name, f.filename);
    let mut functions: Vec<_> = profile.function.iter().map(names).collect();
    functions.sort();
    functions.dedup();
    assert_eq!(functions.len(), profile.function.len());
}

#[test]
fn errors_are_told_apart() {
    let mut profile = fixture::profile();
    profile.samples[0].stack = StackIdx(5);
    let error = write(&profile, Vec::new()).unwrap_err();
    assert!(matches!(error, Error::Index { table: "stacks", index: 5, len: 5 }), "{error:?}");

    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error = write(&fixture::profile(), Full).unwrap_err();
    assert!(
        matches!(&error, Error::Write(cause) if cause.kind() == std::io::ErrorKind::StorageFull),
        "{error:?}"
    );
}
