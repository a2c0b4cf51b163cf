//! A profile to OTLP requests, as the OpenTelemetry eBPF profiler sends them.
//!
//! - One resource a process, with `service.name`, `process.pid`, `process.executable.name` and `.path`,
//!   `container.id` as far as known, `telemetry.sdk.*`, and what of the agent's `OTEL_RESOURCE_ATTRIBUTES` is true of
//!   them too ([`SharedAttributes`]). Resource attributes are plain strings, which every
//!   receiver reads, not indices into the string table.
//! - Without a known service, `service.name` is `unknown_service:` and the executable's name, as the specification
//!   of resources wants. Pid 0 is not a service that someone forgot to name: it stands for all that cannot be
//!   seen from the agent's pid namespace, so `service.name` and `process.executable.name` are `other-pid-namespace`.
//! - One profile a resource: `samples` in `count`, period `cpu` in `nanoseconds`.
//! - Samples carry `thread.id` and `thread.name`, locations `profile.frame.type`, mappings
//!   `process.executable.build_id.gnu`.
//! - What the window lost is on every profile of the window, always, as attributes of the profile. They count for
//!   the whole window, so they are the same on all of its profiles and not to be added up:
//!
//! | attribute | counts |
//! |---|---|
//! | `ebpf.profile.lost_samples` | periods that are missing in the samples, the sum of the next two |
//! | `ebpf.profile.skipped_samples` | periods in which the kernel did not run the program |
//! | `ebpf.profile.table_full_samples` | samples for which the kernel-side tables had no room |
//! | `ebpf.profile.stackless_samples` | samples that are counted, without a stack |
//! | `ebpf.profile.lost_sideband_records` | records of process starts and mappings that were lost: names may be missing |

use super::{Error, build_id_hex, check_indices, executable_name, memory};
use crate::export::config::{SharedAttributes, TELEMETRY_SDK};
use crate::model::{Frame, FrameIdx, Mapping, Process, Profile, Sample, Thread};
use otlp_encode::common::InstrumentationScope;
use otlp_encode::resource::Resource;
use otlp_encode::{
    AttributeIdx, Dictionary, Line, LinkIdx, LocationIdx, MappingIdx, ProfileInfo, Profiles, ProfilesRequest,
    Samples, StackIdx,
};

/// The largest message that a gRPC server takes unless it is told otherwise: 4 MiB.
pub const DEFAULT_MAX_REQUEST: usize = 4 << 20;

/// The version of the semantic conventions that the attributes follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// The instrumentation scope.
pub const SCOPE_NAME: &str = "ebpf-otlp";

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// More than any message takes with the headers in it, texts not counted.
const MESSAGE: usize = 64;

/// More than the tables' constant texts, a resource, its scope and its profile take, texts that vary not counted.
const RESOURCE: usize = 2048;

/// Converts one profile after another in the same memory.
#[derive(Debug)]
pub struct ProfilesEncoder {
    request: ProfilesRequest,
    made: Made,
    max_request: usize,
    shared: SharedAttributes,
}

impl ProfilesEncoder {
    /// Requests stay within `max_request` bytes. `hash_seed` should be random, because the names in a profile are
    /// others' choice; the output does not depend on it.
    pub fn new(hash_seed: u64, max_request: usize) -> Self {
        let request = ProfilesRequest::new(hash_seed);
        Self { request, made: Made::default(), max_request, shared: SharedAttributes::default() }
    }

    /// Adds these attributes to every resource.
    pub fn with_attributes(self, shared: SharedAttributes) -> Self {
        Self { shared, ..self }
    }

    /// Hands the profile to `each` as encoded `ExportProfilesServiceRequest`s, every one complete in itself.
    ///
    /// A request is closed before the sample that might not fit, so that its tables hold what its own samples need
    /// and nothing else. A process whose samples are spread over several requests is a resource in each of them. A
    /// sample that exceeds the limit alone is a request of its own. A profile without samples is no request.
    ///
    /// `id` should be random. The profiles' ids are `id`, `id + 1` and so on, as big-endian numbers.
    ///
    /// Errors: [`Error::Index`] for a profile whose indices are not in their tables; [`Error::Encode`].
    pub fn encode(
        &mut self,
        profile: &Profile,
        id: [u8; 16],
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        check_indices(profile)?;
        let sizes = Sizes::new(profile);
        // Taken from the end, as messages are written from their end: the profile's order is kept.
        let mut samples: Vec<&Sample> = profile.samples.iter().collect();
        samples.sort_by_key(|sample| sample.process);
        let mut id = u128::from_be_bytes(id);
        while !samples.is_empty() {
            self.request.clear();
            self.made.clear(profile);
            while self.resource(profile, &sizes, id.to_be_bytes(), &mut samples) {
                // An id of zeros would mean none.
                id = id.checked_add(1).unwrap_or(1);
            }
            each(self.request.finish().map_err(Error::Encode)?);
        }
        Ok(())
    }

    /// Adds the resource of the last sample, and moves what fits of its samples there from the end of `samples`.
    /// Whether there was room for one at least.
    fn resource(
        &mut self,
        profile: &Profile,
        sizes: &Sizes,
        id: [u8; 16],
        samples: &mut Vec<&Sample>,
    ) -> bool {
        let Self { request, made, max_request, shared } = self;
        let Some(first) = samples.last() else { return false };
        let index = first.process;
        let process = &profile.processes[index.0 as usize];
        let shared_text = shared.iter().map(|(key, value)| MESSAGE + key.len() + value.len());
        let envelope = RESOURCE + process_text(process) + shared_text.sum::<usize>();
        let room = |made: &Made, len: usize, sample: &Sample| {
            made.samples == 0
                || len.saturating_add(envelope).saturating_add(sizes.sample(sample)) <= *max_request
        };
        if !room(made, request.request_len(), first) {
            return false;
        }
        let add_samples = |to: &mut Samples<'_, '_>| {
            while let Some(sample) = samples.last() {
                if sample.process != index || !room(made, to.request_len(), sample) {
                    break;
                }
                let stack = made.stack(to.dictionary(), profile, sample.stack.0 as usize);
                let thread = made.thread(to.dictionary(), profile, sample.thread.0 as usize);
                let count = i64::try_from(sample.count).unwrap_or(i64::MAX);
                to.sample(stack, &thread, LinkIdx::default(), &[count], &[]);
                made.samples += 1;
                samples.pop();
            }
        };
        request.resource_profiles(
            SCHEMA_URL,
            |resource| write_resource(resource, process, shared),
            |scopes| {
                let profiles = |to: &mut Profiles<'_, '_>| write_profile(to, profile, id, add_samples);
                scopes.scope_profiles(SCHEMA_URL, write_scope, profiles);
            },
        );
        true
    }
}

fn write_resource(resource: &mut Resource<'_>, process: &Process, shared: &SharedAttributes) {
    let name = executable_name(process);
    let service = match (process.service_name.as_deref(), process.pid, name) {
        (Some(service), _, _) => service.to_owned(),
        (None, 0, Some(name)) => name.to_owned(),
        (None, _, Some(name)) => format!("unknown_service:{name}"),
        (None, _, None) => "unknown_service".to_owned(),
    };
    let texts = [
        ("service.name", Some(service.as_str())),
        ("process.executable.name", name),
        ("process.executable.path", process.executable_path.as_deref()),
        ("container.id", process.container_id.as_deref()),
    ];
    resource.attributes(shared.iter(), |kv, (key, text)| kv.string(key, text));
    resource.attributes([()], |kv, ()| kv.int("process.pid", process.pid.into()));
    let known = texts.iter().filter_map(|&(key, text)| Some((key, text?))).chain(TELEMETRY_SDK);
    resource.attributes(known, |kv, (key, text)| kv.string(key, text));
}

/// How long the texts are that [`write_resource`] takes from the process.
fn process_text(process: &Process) -> usize {
    let texts = [&process.comm, &process.executable_path, &process.container_id, &process.service_name];
    let len: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
    // The name is there twice, and may be the end of the path.
    3 * len
}

fn write_scope(scope: &mut InstrumentationScope<'_>) {
    scope.version(VERSION);
    scope.name(SCOPE_NAME);
}

fn write_profile(
    to: &mut Profiles<'_, '_>,
    profile: &Profile,
    id: [u8; 16],
    samples: impl FnOnce(&mut Samples<'_, '_>),
) {
    let losses = &profile.losses;
    let attributes = [
        ("ebpf.profile.lost_samples", losses.skipped.saturating_add(losses.table_full)),
        ("ebpf.profile.skipped_samples", losses.skipped),
        ("ebpf.profile.table_full_samples", losses.table_full),
        ("ebpf.profile.stackless_samples", losses.no_stack),
        ("ebpf.profile.lost_sideband_records", losses.sideband),
    ]
    .map(|(key, count)| {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        to.dictionary().attribute(key, "", |value| value.int_value(count))
    });
    let info = ProfileInfo {
        sample_type: ("samples", "count"),
        time_unix_nano: profile.start_unix_nanos,
        duration_nano: profile.duration_nanos,
        period_type: ("cpu", "nanoseconds"),
        period: i64::try_from(profile.period_nanos).unwrap_or(i64::MAX),
        profile_id: Some(id),
        attributes: &attributes,
        ..ProfileInfo::default()
    };
    to.profile(&info, samples);
}

/// What of a profile is in the dictionary of the current request already, by its index in the profile.
#[derive(Debug, Default)]
struct Made {
    samples: usize,
    stacks: Vec<Option<StackIdx>>,
    frames: Vec<Option<LocationIdx>>,
    mappings: Vec<Option<MappingIdx>>,
    threads: Vec<Option<[AttributeIdx; 2]>>,
    /// The stack at hand, kept for its memory.
    locations: Vec<LocationIdx>,
    lines: Vec<Line>,
}

impl Made {
    fn clear(&mut self, profile: &Profile) {
        fn reset<T: Copy>(made: &mut Vec<Option<T>>, len: usize) {
            made.clear();
            made.resize(len, None);
        }
        self.samples = 0;
        reset(&mut self.stacks, profile.stacks.len());
        reset(&mut self.frames, profile.frames.len());
        reset(&mut self.mappings, profile.mappings.len());
        reset(&mut self.threads, profile.threads.len());
    }

    fn stack(&mut self, dictionary: &mut Dictionary, profile: &Profile, index: usize) -> StackIdx {
        if let Some(made) = self.stacks[index] {
            return made;
        }
        let mut locations = std::mem::take(&mut self.locations);
        locations.clear();
        locations.extend(
            profile.stacks[index].iter().map(|frame| self.location(dictionary, profile, frame.0 as usize)),
        );
        let stack = dictionary.stack(&locations);
        self.locations = locations;
        self.stacks[index] = Some(stack);
        stack
    }

    fn location(&mut self, dictionary: &mut Dictionary, profile: &Profile, index: usize) -> LocationIdx {
        if let Some(made) = self.frames[index] {
            return made;
        }
        let Frame { kind, mapping, address, lines } = &profile.frames[index];
        let kind = dictionary.attribute("profile.frame.type", "", |value| value.string_value(kind.as_str()));
        let mapping = mapping.map_or_else(MappingIdx::default, |mapping| {
            self.mapping(dictionary, mapping.0 as usize, profile)
        });
        self.lines.clear();
        self.lines.extend(lines.iter().map(|line| {
            let system_name = line.system_name.as_deref().unwrap_or_default();
            let file = line.file.as_deref().unwrap_or_default();
            Line {
                function: dictionary.function(&line.function, system_name, file, 0),
                line: line.line,
                column: 0,
            }
        }));
        let location = dictionary.location(mapping, *address, &self.lines, &[kind]);
        self.frames[index] = Some(location);
        location
    }

    fn mapping(&mut self, dictionary: &mut Dictionary, index: usize, profile: &Profile) -> MappingIdx {
        if let Some(made) = self.mappings[index] {
            return made;
        }
        let mapping = &profile.mappings[index];
        let build_id = mapping.build_id.is_some().then(|| {
            let hex = build_id_hex(mapping);
            dictionary.attribute("process.executable.build_id.gnu", "", |value| value.string_value(&hex))
        });
        let made =
            dictionary.mapping(memory(mapping), mapping.file_offset, &mapping.path, build_id.as_slice());
        self.mappings[index] = Some(made);
        made
    }

    fn thread(&mut self, dictionary: &mut Dictionary, profile: &Profile, index: usize) -> [AttributeIdx; 2] {
        if let Some(made) = self.threads[index] {
            return made;
        }
        let Thread { tid, name } = &profile.threads[index];
        let id = dictionary.attribute("thread.id", "", |value| value.int_value((*tid).into()));
        let name = dictionary.attribute("thread.name", "", |value| value.string_value(name));
        self.threads[index] = Some([id, name]);
        [id, name]
    }
}

/// How much a sample takes at most, with everything that it needs in the tables.
struct Sizes {
    stacks: Vec<usize>,
    threads: Vec<usize>,
}

impl Sizes {
    fn new(profile: &Profile) -> Self {
        let mapping = |mapping: &Mapping| {
            2 * MESSAGE + mapping.path.len() + 2 * mapping.build_id.as_ref().map_or(0, |id| id.len())
        };
        let mappings: Vec<usize> = profile.mappings.iter().map(mapping).collect();
        let frame = |frame: &Frame| {
            let lines = frame.lines.iter().map(|line| {
                let texts = [Some(&line.function), line.system_name.as_ref(), line.file.as_ref()];
                2 * MESSAGE + texts.into_iter().flatten().map(|text| text.len()).sum::<usize>()
            });
            MESSAGE + lines.sum::<usize>() + frame.mapping.map_or(0, |index| mappings[index.0 as usize])
        };
        let frames: Vec<usize> = profile.frames.iter().map(frame).collect();
        let stack = |stack: &Vec<FrameIdx>| {
            let frames = stack.iter().map(|frame| frames[frame.0 as usize]);
            MESSAGE + stack.len() * size_of::<FrameIdx>() * 2 + frames.sum::<usize>()
        };
        Self {
            stacks: profile.stacks.iter().map(stack).collect(),
            threads: profile.threads.iter().map(|thread| 2 * MESSAGE + thread.name.len()).collect(),
        }
    }

    fn sample(&self, sample: &Sample) -> usize {
        MESSAGE + self.stacks[sample.stack.0 as usize] + self.threads[sample.thread.0 as usize]
    }
}

#[cfg(test)]
mod tests;
