use super::*;
use crate::convert::fixture;
use crate::export::config::AgentResource;
#[cfg(feature = "unwind")]
use crate::model::Span;
use crate::model::{FrameIdx, ProcessIdx, StackIdx, ThreadIdx};
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::profiles::v1development as proto;
use prost::Message;
use std::collections::{HashMap, HashSet};

const ID: [u8; 16] = [9; 16];

fn parts(profile: &Profile, max_request: usize) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let each = |part: &[u8], profiles: u64| {
        let of_resource =
            |resource: &proto::ResourceProfiles| resource.scope_profiles[0].profiles.len() as u64;
        assert_eq!(decode(part).resource_profiles.iter().map(of_resource).sum::<u64>(), profiles);
        parts.push(part.to_vec());
    };
    ProfilesEncoder::new(1, max_request).encode(profile, ID, each).unwrap();
    parts
}

fn decode(bytes: &[u8]) -> ExportProfilesServiceRequest {
    let decoded = ExportProfilesServiceRequest::decode(bytes).unwrap();
    assert_eq!(decoded.encode_to_vec(), bytes, "canonical, and no unknown field");
    decoded
}

fn text(value: &Option<AnyValue>) -> String {
    match value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

fn resource_attributes(resource: &proto::ResourceProfiles) -> HashMap<String, String> {
    let attributes = &resource.resource.as_ref().unwrap().attributes;
    let map: HashMap<_, _> =
        attributes.iter().map(|KeyValue { key, value, .. }| (key.clone(), text(value))).collect();
    assert_eq!(map.len(), attributes.len(), "keys are unique");
    map
}

/// A decoded request, by which indices become text.
struct Decoded(ExportProfilesServiceRequest);

impl Decoded {
    fn dictionary(&self) -> &proto::ProfilesDictionary {
        self.0.dictionary.as_ref().unwrap()
    }

    fn text(&self, index: i32) -> &str {
        &self.dictionary().string_table[index as usize]
    }

    fn attributes(&self, indices: &[i32]) -> Vec<(String, String)> {
        let attribute = |&index: &i32| {
            let attribute = &self.dictionary().attribute_table[index as usize];
            (self.text(attribute.key_strindex).to_owned(), text(&attribute.value))
        };
        indices.iter().map(attribute).collect()
    }

    fn locations(&self, stack: i32) -> impl Iterator<Item = &proto::Location> {
        let stack = &self.dictionary().stack_table[stack as usize];
        stack.location_indices.iter().map(|&index| &self.dictionary().location_table[index as usize])
    }

    fn lines(&self, location: &proto::Location) -> Vec<(&str, &str, &str, i64)> {
        let line = |line: &proto::Line| {
            let function = &self.dictionary().function_table[line.function_index as usize];
            let [name, system_name, file] =
                [function.name_strindex, function.system_name_strindex, function.filename_strindex]
                    .map(|index| self.text(index));
            (name, system_name, file, line.line)
        };
        location.lines.iter().map(line).collect()
    }

    fn profiles(&self) -> impl Iterator<Item = &proto::Profile> {
        self.0
            .resource_profiles
            .iter()
            .flat_map(|resource| &resource.scope_profiles)
            .flat_map(|scope| &scope.profiles)
    }
}

fn whole() -> Decoded {
    let parts = parts(&fixture::profile(), DEFAULT_MAX_REQUEST);
    assert_eq!(parts.len(), 1);
    Decoded(decode(&parts[0]))
}

#[test]
fn a_resource_is_a_process() {
    let decoded = whole();
    let resources: Vec<_> = decoded.0.resource_profiles.iter().map(resource_attributes).collect();
    let get = |index: usize, key: &str| resources[index].get(key).map(String::as_str);
    assert_eq!(resources.len(), 3);
    assert_eq!(get(0, "service.name"), Some("checkout"));
    assert_eq!(get(0, "process.pid"), Some("100"));
    assert_eq!((get(0, "process.parent_pid"), get(0, "k8s.pod.uid")), (Some("10"), Some("0dd")));
    assert_eq!(get(0, "process.executable.name"), Some("shop"));
    assert_eq!(get(0, "process.executable.path"), Some("/usr/bin/shop"));
    assert_eq!(get(0, "container.id"), Some("c0ffee"));
    assert_eq!(get(0, "telemetry.sdk.language"), Some("rust"));
    assert_eq!(get(0, "telemetry.sdk.name"), Some("ebpf-otlp"));
    assert_eq!(get(0, "telemetry.sdk.version"), Some(VERSION));
    // The kernel is not a service that has no name.
    assert_eq!(get(1, "process.pid"), Some("0"));
    assert_eq!(get(1, "process.executable.name"), Some("other-pid-namespace"));
    assert_eq!(get(1, "service.name"), Some("other-pid-namespace"));
    assert_eq!(get(1, "process.executable.path"), None);
    // What is not known is not there.
    assert_eq!(get(2, "service.name"), Some("node"));
    assert_eq!(get(2, "container.id"), None);
    for resource in &decoded.0.resource_profiles {
        assert_eq!(resource.schema_url, SCHEMA_URL);
        let scope = resource.scope_profiles[0].scope.as_ref().unwrap();
        assert_eq!((scope.name.as_str(), scope.version.as_str()), (SCOPE_NAME, VERSION));
    }
}

#[test]
fn an_unknown_executable_leaves_unknown_service() {
    let mut profile = fixture::profile();
    profile.processes[2].comm = None;
    let request = decode(&parts(&profile, DEFAULT_MAX_REQUEST)[0]);
    let attributes = resource_attributes(&request.resource_profiles[2]);
    assert_eq!(attributes.get("service.name").map(String::as_str), Some("unknown_service"));
    assert_eq!(attributes.get("process.executable.name"), None);
}

#[test]
fn profiles_say_what_was_measured_and_what_was_lost() {
    let decoded = whole();
    let ids: Vec<_> = decoded.profiles().map(|profile| profile.profile_id.clone()).collect();
    let id = |n: u128| (u128::from_be_bytes(ID) + n).to_be_bytes().to_vec();
    // Resources are written from the last to the first.
    assert_eq!(ids, [id(2), id(1), id(0)]);
    for profile in decoded.profiles() {
        let sample_type = profile.sample_type.unwrap();
        let period_type = profile.period_type.unwrap();
        assert_eq!(decoded.text(sample_type.type_strindex), "samples");
        assert_eq!(decoded.text(sample_type.unit_strindex), "count");
        assert_eq!(decoded.text(period_type.type_strindex), "cpu");
        assert_eq!(decoded.text(period_type.unit_strindex), "nanoseconds");
        assert_eq!(profile.period, 10_101_010);
        assert_eq!(profile.time_unix_nano, 1_790_000_000_000_000_000);
        assert_eq!(profile.duration_nano, 10_000_000_000);
        let expected = [
            ("ebpf.profile.lost_samples", "5"),
            ("ebpf.profile.skipped_samples", "3"),
            ("ebpf.profile.table_full_samples", "2"),
            ("ebpf.profile.stackless_samples", "1"),
            ("ebpf.profile.lost_sideband_records", "0"),
        ];
        let expected: Vec<_> = expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        assert_eq!(decoded.attributes(&profile.attribute_indices), expected);
    }
}

#[test]
#[cfg(feature = "unwind")]
fn waits_say_who_has_ended_them() {
    let mut profile = fixture::profile();
    profile.threads[1].woken_by = Some("waker".into());
    let decoded = Decoded(decode(&parts(&profile, DEFAULT_MAX_REQUEST)[0]));
    let samples = &decoded.profiles().next().unwrap().samples;
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        decoded.attributes(&samples[1].attribute_indices),
        [pair("thread.id", "101"), pair("thread.name", "worker"), pair("ebpf.off_cpu.woken_by", "waker")]
    );
    assert_eq!(decoded.attributes(&samples[0].attribute_indices).len(), 2);
}

#[test]
#[cfg(feature = "unwind")]
fn samples_are_linked_to_their_spans() {
    let mut profile = fixture::profile();
    profile.threads[1].span = Some(Span { trace_id: [7; 16], span_id: [8; 8] });
    let decoded = Decoded(decode(&parts(&profile, DEFAULT_MAX_REQUEST)[0]));
    let samples = &decoded.profiles().next().unwrap().samples;
    let links = &decoded.0.dictionary.as_ref().unwrap().link_table;
    let link = &links[samples[1].link_index as usize];
    assert_eq!((&*link.trace_id, &*link.span_id), (&[7; 16][..], &[8; 8][..]));
    assert_eq!(samples[0].link_index, 0);
}

#[test]
fn samples_have_their_threads_and_stacks() {
    let decoded = whole();
    let profiles: Vec<_> = decoded.profiles().collect();
    let values = |profile: &proto::Profile| -> Vec<Vec<i64>> {
        profile.samples.iter().map(|sample| sample.values.clone()).collect()
    };
    assert_eq!(
        profiles.iter().map(|profile| values(profile)).collect::<Vec<_>>(),
        [vec![vec![7], vec![2], vec![1]], vec![vec![90]], vec![vec![5]]]
    );
    let thread = decoded.attributes(&profiles[0].samples[1].attribute_indices);
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(thread, [pair("thread.id", "101"), pair("thread.name", "worker")]);
    assert_eq!(profiles[0].samples[2].stack_index, 0, "no stack is the empty stack");

    let locations: Vec<_> = decoded.locations(profiles[0].samples[0].stack_index).collect();
    let addresses: Vec<_> = locations.iter().map(|location| location.address).collect();
    assert_eq!(addresses, [0xffff_ffff_8100_0000, 0x1200, 0x1100], "leaf first");
    assert_eq!(decoded.lines(locations[0]), [("do_idle", "", "", 0)]);
    assert_eq!(decoded.lines(locations[1]), [("hash", "", "shop.rs", 3), ("lookup", "", "shop.rs", 40)]);
    assert_eq!(decoded.lines(locations[2]), [("shop::main", "_ZN4shop4mainE", "shop.rs", 7)]);
    let kinds: Vec<_> = locations
        .iter()
        .map(|location| decoded.attributes(&location.attribute_indices)[0].1.clone())
        .collect();
    assert_eq!(kinds, ["kernel", "native", "native"]);

    let mapping =
        |location: &proto::Location| &decoded.dictionary().mapping_table[location.mapping_index as usize];
    let shop = mapping(locations[1]);
    assert_eq!((shop.memory_start, shop.memory_limit, shop.file_offset), (0x1000, 0x9000, 0x200));
    assert_eq!(decoded.text(shop.filename_strindex), "/usr/bin/shop");
    assert_eq!(
        decoded.attributes(&shop.attribute_indices),
        [pair("process.executable.build_id.gnu", "abcd01")]
    );
    assert_eq!(decoded.text(mapping(locations[0]).filename_strindex), "[kernel]");

    let jit = decoded.locations(profiles[2].samples[0].stack_index).next().unwrap();
    assert_eq!((jit.mapping_index, jit.address), (0, 0x7f00_0000_1000));
    let nameless = decoded.locations(profiles[0].samples[1].stack_index).next().unwrap();
    assert_eq!((nameless.lines.len(), nameless.address), (0, 0x1300));
}

/// Process, thread and function names of every sample, with its count.
fn identities(decoded: &Decoded) -> Vec<(String, String, Vec<String>, i64)> {
    let mut all = Vec::new();
    for resource in &decoded.0.resource_profiles {
        let pid = resource_attributes(resource)["process.pid"].clone();
        for sample in &resource.scope_profiles[0].profiles[0].samples {
            let names = decoded
                .locations(sample.stack_index)
                .flat_map(|location| decoded.lines(location))
                .map(|line| line.0.to_owned())
                .collect();
            let thread = decoded.attributes(&sample.attribute_indices)[0].1.clone();
            all.push((pid.clone(), thread, names, sample.values[0]));
        }
    }
    all.sort();
    all
}

#[test]
fn parts_stay_within_the_limit_and_lose_nothing() {
    let profile = fixture::large(6_000);
    let whole = parts(&profile, usize::MAX);
    assert_eq!(whole.len(), 1);
    let expected = identities(&Decoded(decode(&whole[0])));
    assert_eq!(expected.len(), 6_000);
    for limit in [8_192, 20_000, 100_000, whole[0].len() / 2] {
        let parts = parts(&profile, limit);
        assert!(parts.iter().all(|part| part.len() <= limit), "limit {limit}");
        // What stays unused is less than a sample and its process take.
        let wasted = parts.iter().rev().skip(1).filter(|part| part.len() + 6_000 < limit).count();
        assert_eq!(wasted, 0, "limit {limit}");
        let parts: Vec<_> = parts.iter().map(|part| Decoded(decode(part))).collect();
        let mut got: Vec<_> = parts.iter().flat_map(identities).collect();
        got.sort();
        assert_eq!(got, expected, "limit {limit}");
        let ids: HashSet<_> =
            parts.iter().flat_map(Decoded::profiles).map(|profile| profile.profile_id.clone()).collect();
        assert_eq!(ids.len(), parts.iter().flat_map(Decoded::profiles).count(), "ids are unique");
    }
}

#[test]
fn the_default_limit_leaves_a_common_window_whole() {
    assert_eq!(parts(&fixture::large(6_000), DEFAULT_MAX_REQUEST).len(), 1);
}

#[test]
fn a_sample_over_the_limit_is_a_request_of_its_own() {
    let parts = parts(&fixture::profile(), 1);
    assert_eq!(parts.len(), 5);
    let count =
        |part: &Vec<u8>| Decoded(decode(part)).profiles().map(|profile| profile.samples.len()).sum::<usize>();
    assert!(parts.iter().all(|part| count(part) == 1));
}

#[test]
fn no_sample_is_no_request() {
    let profile = Profile { samples: Vec::new(), ..fixture::profile() };
    assert!(parts(&profile, DEFAULT_MAX_REQUEST).is_empty());
}

#[test]
fn ids_step_over_zero() {
    let mut ids = Vec::new();
    let mut encoder = ProfilesEncoder::new(1, DEFAULT_MAX_REQUEST);
    encoder
        .encode(&fixture::profile(), [0xff; 16], |part, _| {
            ids.extend(Decoded(decode(part)).profiles().map(|profile| profile.profile_id.clone()));
        })
        .unwrap();
    assert!(ids.iter().all(|id| id.iter().any(|&byte| byte != 0)), "{ids:?}");
}

#[test]
fn a_mapping_without_a_range_has_none() {
    let mut profile = fixture::profile();
    profile.mappings[1].memory_limit = 0x1000;
    let decoded = Decoded(decode(&parts(&profile, DEFAULT_MAX_REQUEST)[0]));
    assert!(decoded.dictionary().mapping_table.iter().all(|mapping| mapping.memory_start == 0));
}

#[test]
fn indices_out_of_range_are_errors() {
    let check = |change: fn(&mut Profile), table: &str| {
        let mut profile = fixture::profile();
        change(&mut profile);
        let result = ProfilesEncoder::new(1, 1 << 20).encode(&profile, ID, |_, _| panic!("nothing is sent"));
        match result {
            Err(Error::Index { table: got, .. }) => assert_eq!(got, table),
            other => panic!("{other:?}"),
        }
    };
    check(|profile| profile.samples[0].process = ProcessIdx(3), "processes");
    check(|profile| profile.samples[0].thread = ThreadIdx(4), "threads");
    check(|profile| profile.samples[0].stack = StackIdx(u32::MAX), "stacks");
    check(|profile| profile.stacks[0][1] = FrameIdx(5), "frames");
    check(|profile| profile.mappings.truncate(1), "mappings");
}

#[test]
fn the_agents_attributes_mark_every_resource() {
    let variable = |name: &str| {
        let list = "deployment.environment.name=prod,service.name=agent,process.pid=1";
        (name == "OTEL_RESOURCE_ATTRIBUTES").then(|| list.to_owned())
    };
    let (agent, warnings) = AgentResource::from_env(&variable, "agent", 0);
    assert!(warnings.is_empty());
    let mut encoder = ProfilesEncoder::new(0, 4 << 20).with_attributes(agent.shared().clone());
    let mut resources = 0;
    let each = |bytes: &[u8], _| {
        for resource in &decode(bytes).resource_profiles {
            let attributes = resource_attributes(resource);
            assert_eq!(attributes["deployment.environment.name"], "prod");
            assert_ne!(attributes["service.name"], "agent");
            assert_ne!(attributes["process.pid"], "1");
            resources += 1;
        }
    };
    encoder.encode(&fixture::profile(), [1; 16], each).unwrap();
    assert_eq!(resources, 3);

    // They count towards the limit of a request.
    let list = format!("x={}", "x".repeat(8000));
    let variable = |name: &str| (name == "OTEL_RESOURCE_ATTRIBUTES").then(|| list.clone());
    let (agent, _) = AgentResource::from_env(&variable, "agent", 0);
    let mut encoder = ProfilesEncoder::new(0, 100_000).with_attributes(agent.shared().clone());
    let each = |bytes: &[u8], _| {
        assert!(bytes.len() <= 100_000);
        resources += decode(bytes).resource_profiles.len();
    };
    encoder.encode(&fixture::large(30_000), [1; 16], each).unwrap();
    assert!(resources > 33);
}
