//! A profile to OTLP requests, as the OpenTelemetry eBPF profiler sends them.
//!
//! - One resource a process, with `service.name`, `process.pid`, `process.executable.name` and `.path`,
//!   `container.id` as far as known, and `telemetry.sdk.*`. Resource attributes are plain strings, which every
//!   receiver reads, not indices into the string table.
//! - `service.name` is what [`service_name`] makes of a process, as for all signals. Pid 0 stands for all that cannot be
//!   seen from the agent's pid namespace, so `service.name` and `process.executable.name` are `other-pid-namespace`.
//! - One profile a resource: `samples` in `count`, period `cpu` in `nanoseconds`.
//! - Samples carry `thread.id` and `thread.name`, locations `profile.frame.type`, mappings
//!   `process.executable.build_id.gnu`.
//! - Where time off the CPU is profiled: `off_cpu` in `nanoseconds`, and on samples `ebpf.off_cpu.woken_by`, the name of the thread that
//!   ended the wait, or `[interrupt]`, where that is known.
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
use crate::enrich::service_name;
use crate::export::config::{SharedAttributes, TELEMETRY_SDK};
use crate::model::{Frame, Process, Profile, Sample};
use bpf_loader::stable_sort::sort_by_number;
use otlp_encode::{
    AttributeIdx, AttributeWriter, Dictionary, Epoch, Limits, Line, LinkIdx, LocationIdx, MappingIdx,
    ProfileInfo, ProfilesRequest, ResourceBlob, ResourceInfo, ScopeBlob, ScopeInfo, StackIdx, Value,
};

/// The largest message that a gRPC server takes unless it is told otherwise: 4 MiB.
pub const DEFAULT_MAX_REQUEST: usize = 4 << 20;

/// The version of the semantic conventions that the attributes follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// The instrumentation scope, and `telemetry.sdk.name`.
pub const SCOPE_NAME: &str = "ebpf-otlp";

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Converts one profile after another in the same memory.
#[derive(Debug)]
pub struct ProfilesEncoder {
    request: ProfilesRequest,
    made: Made,
    shared: SharedAttributes,
}

impl ProfilesEncoder {
    /// Requests stay within `max_request` bytes. `hash_seed` should be random, because the names in a profile are
    /// others' choice; the output does not depend on it.
    pub fn new(hash_seed: u64, max_request: usize) -> Self {
        let limits = Limits { max_bytes: max_request, max_items: u64::MAX };
        let request = ProfilesRequest::new(limits, hash_seed);
        Self { request, made: Made::default(), shared: SharedAttributes::default() }
    }

    /// Adds these attributes to every resource.
    pub fn with_attributes(self, shared: SharedAttributes) -> Self {
        Self { shared, ..self }
    }

    /// Hands the profile to `each` as encoded `ExportProfilesServiceRequest`s, every one complete in itself, with the
    /// number of `Profile`s in it: a process is one, in each request that has samples of it.
    ///
    /// A request is closed before the sample that does not fit, and its tables hold what its own samples need and nothing
    /// else. A process whose samples are spread over several requests is a resource in each of them. A sample that
    /// exceeds the limit alone is a request of its own. A profile without samples is no request.
    ///
    /// `id` should be random. The profiles' ids are `id`, `id + 1` and so on, as big-endian numbers.
    ///
    /// Errors: [`Error::Index`] for a profile whose indices are not in their tables; [`Error::Encode`] for the first
    /// sample that could not be encoded, when all others are.
    pub fn encode(
        &mut self,
        profile: &Profile,
        id: [u8; 16],
        mut each: impl FnMut(&[u8], u64),
    ) -> Result<(), Error> {
        check_indices(profile)?;
        let made = &mut self.made;
        let losses = losses(profile);
        let info = ProfileInfo {
            sample_type: profile.sample_type.value,
            time_unix_nano: profile.start_unix_nanos,
            duration_nano: profile.duration_nanos,
            period_type: profile.sample_type.period,
            period: i64::try_from(profile.period_nanos).unwrap_or(i64::MAX),
            attributes: &losses,
            ..ProfileInfo::default()
        };
        let scope = ScopeInfo { version: VERSION, schema_url: SCHEMA_URL, ..ScopeInfo::default() };
        let scope = ScopeBlob::new(SCOPE_NAME, &(), &scope).map_err(Error::Encode)?;
        let mut samples: Vec<&Sample> = profile.samples.iter().collect();
        sort_by_number(&mut samples, |sample| sample.process.0.into());
        let mut result = Ok(());
        let mut out = self.request.start(Some(id), |batch| each(batch.bytes, batch.items));
        // From the end, as messages are written from their end: the profile's order is kept.
        for of_process in samples.chunk_by(|a, b| a.process == b.process).rev() {
            let Some(first) = of_process.first() else { continue };
            let process = &profile.processes[first.process.0 as usize];
            let resource = resource(process, &self.shared).map_err(Error::Encode)?;
            let mut scopes = out.resource(&resource);
            let mut profiles = scopes.scope(&scope);
            let mut to = profiles.profile(&info);
            for sample in of_process.iter().rev() {
                let count = i64::try_from(sample.count).unwrap_or(i64::MAX);
                let added = to.add(&[count], &[], |dictionary| {
                    made.start(dictionary, profile);
                    let stack = made.stack(dictionary, profile, sample.stack.0 as usize);
                    let thread = made.thread(dictionary, profile, sample.thread.0 as usize);
                    (stack, thread, link(dictionary, profile, sample))
                });
                result = result.and(added.map_err(Error::Encode));
            }
        }
        out.finish();
        result
    }
}

fn resource(process: &Process, shared: &SharedAttributes) -> Result<ResourceBlob, otlp_encode::Error> {
    let name = executable_name(process);
    let executable = process.executable_path.as_deref().and_then(|path| path.rsplit('/').next());
    let stated = process.service_name.as_deref();
    let service = service_name(process.pid, stated, executable, process.comm.as_deref());
    let texts = [
        ("service.name", Some(service)),
        ("process.executable.name", name),
        ("process.executable.path", process.executable_path.as_deref()),
        ("container.id", process.container_id.as_deref()),
        ("k8s.pod.uid", process.pod_uid.as_deref()),
    ];
    let attributes = |to: &mut AttributeWriter<'_>| {
        for (key, text) in shared.iter() {
            to.add(key, text);
        }
        if process.parent_pid > 0 {
            to.add("process.parent_pid", process.parent_pid);
        }
        to.add("process.pid", process.pid);
        for (key, text) in TELEMETRY_SDK.iter().rev() {
            to.add(key, *text);
        }
        for (key, text) in texts.iter().rev() {
            if let Some(text) = *text {
                to.add(key, text);
            }
        }
    };
    ResourceBlob::new(&attributes, &ResourceInfo { schema_url: SCHEMA_URL, ..ResourceInfo::default() })
}

fn losses(profile: &Profile) -> [(&'static str, &'static str, Value<'static>); 5] {
    let losses = &profile.losses;
    [
        ("ebpf.profile.lost_samples", losses.skipped.saturating_add(losses.table_full)),
        ("ebpf.profile.skipped_samples", losses.skipped),
        ("ebpf.profile.table_full_samples", losses.table_full),
        ("ebpf.profile.stackless_samples", losses.no_stack),
        ("ebpf.profile.lost_sideband_records", losses.sideband),
    ]
    .map(|(key, count)| (key, "", Value::Int(i64::try_from(count).unwrap_or(i64::MAX))))
}

/// The span that a sample's thread worked for.
#[cfg(feature = "unwind")]
fn link(dictionary: &mut Dictionary, profile: &Profile, sample: &Sample) -> LinkIdx {
    let span = profile.threads.get(sample.thread.0 as usize).and_then(|thread| thread.span);
    span.map(|span| dictionary.link(span.trace_id, span.span_id)).unwrap_or_default()
}

#[cfg(not(feature = "unwind"))]
fn link(_dictionary: &mut Dictionary, _profile: &Profile, _sample: &Sample) -> LinkIdx {
    LinkIdx::default()
}

/// The attributes of a thread.
#[cfg(not(feature = "unwind"))]
type OfThread = [AttributeIdx; 2];
#[cfg(feature = "unwind")]
#[derive(Debug, Clone, Copy)]
struct OfThread {
    all: [AttributeIdx; 3],
    count: usize,
}

#[cfg(feature = "unwind")]
impl AsRef<[AttributeIdx]> for OfThread {
    fn as_ref(&self) -> &[AttributeIdx] {
        self.all.get(..self.count).unwrap_or_default()
    }
}

/// What of a profile is in the dictionary of the current request already, by its index in the profile.
#[derive(Debug, Default)]
struct Made {
    /// When all of this was made; it is of no use in another epoch.
    epoch: Option<Epoch>,
    stacks: Vec<Option<StackIdx>>,
    frames: Vec<Option<LocationIdx>>,
    mappings: Vec<Option<MappingIdx>>,
    threads: Vec<Option<OfThread>>,
    /// The stack at hand, kept for its memory.
    locations: Vec<LocationIdx>,
    lines: Vec<Line>,
}

impl Made {
    /// Forgets what was made in another epoch.
    fn start(&mut self, dictionary: &Dictionary, profile: &Profile) {
        if self.epoch.replace(dictionary.epoch()) == Some(dictionary.epoch()) {
            return;
        }
        fn reset<T: Copy>(made: &mut Vec<Option<T>>, len: usize) {
            made.clear();
            made.resize(len, None);
        }
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
        let kind = dictionary.attribute("profile.frame.type", "", kind.as_str());
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
            dictionary.attribute("process.executable.build_id.gnu", "", hex.as_str())
        });
        let made =
            dictionary.mapping(memory(mapping), mapping.file_offset, &mapping.path, build_id.as_slice());
        self.mappings[index] = Some(made);
        made
    }

    fn thread(&mut self, dictionary: &mut Dictionary, profile: &Profile, index: usize) -> OfThread {
        if let Some(made) = self.threads[index] {
            return made;
        }
        let thread = &profile.threads[index];
        let id = dictionary.attribute("thread.id", "", thread.tid);
        let name = dictionary.attribute("thread.name", "", &*thread.name);
        #[cfg(feature = "unwind")]
        let made = {
            let woken_by = thread.woken_by.as_deref();
            let waker = woken_by.map(|waker| dictionary.attribute("ebpf.off_cpu.woken_by", "", waker));
            OfThread { all: [id, name, waker.unwrap_or_default()], count: 2 + usize::from(waker.is_some()) }
        };
        #[cfg(not(feature = "unwind"))]
        let made = [id, name];
        self.threads[index] = Some(made);
        made
    }
}

#[cfg(test)]
mod tests;
