//! Requests of profiles: as those of the other signals, with a dictionary that holds what the request's own samples
//! need and nothing else.

use super::frames::{Batch, Frames, Level, Limits};
use super::{ResourceBlob, ScopeBlob};
use crate::attributes::Value;
use crate::dictionary::{AttributeIdx, Dictionary, LinkIdx, StackIdx};
use crate::error::Error;
use crate::profiles::{ExportProfilesServiceRequest, Profile, Sample, ValueType};
use crate::wire::Writer;
use alloc::vec::Vec;

/// Builds one `ExportProfilesServiceRequest` after another in the same memory.
///
/// Samples are added through a closure that makes what they refer to. It may be called twice: where a sample would take
/// the request over a limit, what was made for it is taken back, the request is finished, and the sample is the first of
/// the next one, whose dictionary starts anew.
///
/// ```
/// use otlp_encode::{Limits, Line, LinkIdx, ProfileInfo, ProfilesRequest, ResourceBlob, ScopeBlob};
///
/// let resource = ResourceBlob::new(&[("service.name", "shop")], &Default::default())?;
/// let scope = ScopeBlob::new("my-profiler", &(), &Default::default())?;
/// let info = ProfileInfo { sample_type: ("samples", "count"), ..ProfileInfo::default() };
///
/// let mut request = ProfilesRequest::new(Limits::default(), 0);
/// let mut queue = Vec::new();
/// let mut out = request.start(None, |batch| queue.push(batch.bytes.to_vec()));
/// let mut scopes = out.resource(&resource);
/// let mut profiles = scopes.scope(&scope);
/// let mut samples = profiles.profile(&info);
/// samples.add(&[1], &[], |dictionary| {
///     let function = dictionary.function("main", "", "main.rs", 0);
///     let line = Line { function, line: 3, column: 0 };
///     let leaf = dictionary.location(Default::default(), 0x1040, &[line], &[]);
///     let thread = dictionary.attribute("thread.id", "", 7);
///     (dictionary.stack(&[leaf]), [thread], LinkIdx::default())
/// })?;
/// out.finish();
/// assert_eq!(queue.len(), 1);
/// # Ok::<(), otlp_encode::Error>(())
/// ```
#[derive(Debug)]
pub struct ProfilesRequest {
    frames: Frames,
    dictionary: Dictionary,
    message: Writer,
    /// The fields of a profile around its samples.
    around: Writer,
    attributes: Vec<AttributeIdx>,
    /// The id of the next profile that is opened.
    next_id: Option<u128>,
    /// How many profiles were opened in this request; `frames` counts samples.
    profiles: u64,
}

/// What a profile has besides samples.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProfileInfo<'a> {
    /// Type and unit of the samples' values.
    pub sample_type: (&'a str, &'a str),
    /// Start, nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// Length.
    pub duration_nano: u64,
    /// Type and unit of `period`; both empty where samples were not taken periodically.
    pub period_type: (&'a str, &'a str),
    /// Distance between two sampled events.
    pub period: i64,
    /// Attributes of the whole profile: key, unit, value. Keys are unique and not empty.
    pub attributes: &'a [(&'a str, &'a str, Value<'a>)],
    /// How many attributes were discarded.
    pub dropped_attributes_count: u32,
    /// Format and bytes of what the profile was converted from; neither is empty.
    pub original_payload: Option<(&'a str, &'a [u8])>,
}

/// How far everything was before a sample.
#[derive(Debug, Clone, Copy)]
struct Mark {
    len: usize,
    set: usize,
    open: usize,
    next_id: Option<u128>,
    profiles: u64,
}

impl ProfilesRequest {
    /// More than the dictionary's own header takes.
    const DICTIONARY_HEADER: usize = 1 + 4;

    /// An empty request. `hash_seed` is for the tables' hashes: any number will do, a random one keeps whoever
    /// chooses the names in a profile from slowing it down. The output does not depend on it.
    pub fn new(limits: Limits, hash_seed: u64) -> Self {
        Self {
            frames: Frames::new(limits, ExportProfilesServiceRequest::descriptor),
            dictionary: Dictionary::new(hash_seed),
            message: Writer::new(),
            around: Writer::new(),
            attributes: Vec::new(),
            next_id: None,
            profiles: 0,
        }
    }

    /// Starts a request; `sink` gets it when it is finished, and those before it that reached a limit.
    ///
    /// `first_id` is the id of the first profile, which should be random; others follow it, as big-endian numbers. A
    /// profile that is spread over several requests has an id in each of them. `None` for no ids.
    pub fn start<F: FnMut(Batch<'_>)>(
        &mut self,
        first_id: Option<[u8; 16]>,
        sink: F,
    ) -> ProfilesSession<'_, F> {
        self.frames.clear();
        let usual = self.frames.usual_bytes();
        self.dictionary.trim(usual);
        self.dictionary.clear();
        for writer in [&mut self.message, &mut self.around] {
            writer.trim(usual);
        }
        self.profiles = 0;
        // Zeros mean none.
        self.next_id = first_id.map(|id| u128::from_be_bytes(id).max(1));
        ProfilesSession { request: self, sink }
    }

    #[cfg(test)]
    pub(super) fn capacities(&self) -> impl PartialEq + core::fmt::Debug + use<> {
        let Self { message, around, attributes, .. } = self;
        let own = [message.capacity(), around.capacity(), attributes.capacity()];
        (self.frames.capacities(), self.dictionary.capacities(), own)
    }

    fn flush(&mut self, sink: &mut dyn FnMut(Batch<'_>)) {
        let items = core::mem::take(&mut self.profiles);
        let finished = self.frames.finish().map(|batch| {
            self.message.clear();
            self.message.fields().message(2, |fields| self.dictionary.write(fields));
            self.message.prepend(batch.bytes);
            batch.descriptor
        });
        // Before the sink is called, which may panic.
        self.frames.writer.clear();
        // The profile that is open has to be encoded with the new dictionary.
        self.frames.truncate(Level::Group);
        self.dictionary.clear();
        if let Some(descriptor) = finished {
            sink(Batch { bytes: self.message.as_bytes(), items, descriptor });
        }
    }

    /// Starts a sample, in a profile that is opened if it is not.
    #[inline(never)]
    fn begin(&mut self, info: &ProfileInfo<'_>) -> Mark {
        let Frames { set, open, .. } = self.frames;
        let Self { next_id, profiles, .. } = *self;
        let mark = Mark { len: self.frames.writer.len(), set, open, next_id, profiles };
        self.dictionary.mark();
        if !self.frames.is_set(Level::Group) {
            self.profile(info);
        }
        if self.frames.open < self.frames.set {
            self.frames.open();
        }
        mark
    }

    fn profile(&mut self, info: &ProfileInfo<'_>) {
        let Self { dictionary, around, attributes, .. } = self;
        attributes.clear();
        attributes
            .extend(info.attributes.iter().map(|&(key, unit, value)| dictionary.attribute(key, unit, value)));
        let mut value_type = |(kind, unit)| {
            let kind = dictionary.referenced_string(kind);
            (kind as i32, dictionary.referenced_string(unit) as i32)
        };
        let sample_type = value_type(info.sample_type);
        let period_type = (info.period_type != ("", "")).then(|| value_type(info.period_type));
        let write = |to: &mut ValueType<'_>, (kind, unit)| {
            to.unit_strindex(unit);
            to.type_strindex(kind);
        };
        let mut payload_is_whole = true;
        around.clear();
        let mut to = Profile::from(around.fields());
        let attributes = dictionary.check_attributes(attributes);
        to.attribute_indices(attributes.iter().map(|&index| index as i32));
        if let Some((format, payload)) = info.original_payload {
            payload_is_whole = !format.is_empty() && !payload.is_empty();
            to.original_payload(payload);
            to.original_payload_format(format);
        }
        to.dropped_attributes_count(info.dropped_attributes_count);
        if let Some(id) = &mut self.next_id {
            to.profile_id(&id.to_be_bytes());
            *id = id.checked_add(1).unwrap_or(1);
        }
        to.period(info.period);
        if let Some(period_type) = period_type {
            to.period_type(|to| write(to, period_type));
        }
        to.duration_nano(info.duration_nano);
        to.time_unix_nano(info.time_unix_nano);
        let tail = to.written();
        to.sample_type(|to| write(to, sample_type));
        let bytes = around.as_bytes();
        if let Some((head, tail)) = bytes.split_at_checked(bytes.len() - tail) {
            self.frames.set(Level::Group, head, tail);
        }
        if !payload_is_whole {
            dictionary.fail(Error::Empty { field: "original_payload" });
        }
        self.profiles += 1;
    }

    /// Writes the sample that was begun at `mark`. Whether it is in the request; if not, the request was finished, and
    /// the sample has to be begun again.
    #[inline(never)]
    fn end(
        &mut self,
        mark: Mark,
        (stack, attributes, link): (StackIdx, &[AttributeIdx], LinkIdx),
        (values, timestamps): (&[i64], &[u64]),
        sink: &mut dyn FnMut(Batch<'_>),
    ) -> Result<bool, Error> {
        let attributes = self.dictionary.check_sample(stack, link, attributes);
        // `Profile.samples`
        self.frames.writer.fields().message(2, |fields| {
            let mut sample = Sample::from(fields);
            sample.timestamps_unix_nano(timestamps);
            sample.values(values.iter().copied());
            sample.link_index(link.get());
            sample.attribute_indices(attributes.iter().map(|&index| index as i32));
            sample.stack_index(stack.get());
        });
        if let Err(error) = self.dictionary.check() {
            self.rollback(mark);
            return Err(error);
        }
        self.frames.items += 1;
        let len = self.frames.writer.len() + self.dictionary.encoded_len() + Self::DICTIONARY_HEADER;
        if len > self.frames.budget {
            if self.frames.items > 1 {
                self.rollback(mark);
                self.frames.items -= 1;
                self.flush(sink);
                return Ok(false);
            }
            let bytes = len + self.frames.closing();
            if bytes > Limits::MAX_BYTES {
                self.rollback(mark);
                self.frames.items = 0;
                return Err(Error::TooLarge { bytes });
            }
        }
        if len > self.frames.budget || self.frames.items >= self.frames.limits.max_items {
            self.flush(sink);
        }
        Ok(true)
    }

    fn rollback(&mut self, mark: Mark) {
        self.frames.rewind(mark.len, mark.open);
        self.frames.set = mark.set;
        self.next_id = mark.next_id;
        self.profiles = mark.profiles;
        self.dictionary.rollback();
    }
}

/// A sample that was begun. It is taken back where what makes it panics.
struct Begun<'r> {
    request: &'r mut ProfilesRequest,
    mark: Mark,
}

impl Begun<'_> {
    fn complete(self) -> Mark {
        let mark = self.mark;
        core::mem::forget(self);
        mark
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.request.rollback(self.mark);
    }
}

/// A request of profiles that is being filled. Dropped or [finished](Self::finish), it hands out what it has.
///
/// If it is leaked, its samples are lost.
pub struct ProfilesSession<'r, F: FnMut(Batch<'_>)> {
    request: &'r mut ProfilesRequest,
    sink: F,
}

impl<F: FnMut(Batch<'_>)> ProfilesSession<'_, F> {
    /// What follows is about this resource.
    pub fn resource(&mut self, resource: &ResourceBlob) -> ProfilesScopes<'_> {
        self.request.frames.set(Level::Resource, resource.head(), resource.tail());
        ProfilesScopes { request: self.request, sink: &mut self.sink }
    }

    /// Hands out what there is.
    pub fn finish(self) {}
}

impl<F: FnMut(Batch<'_>)> Drop for ProfilesSession<'_, F> {
    fn drop(&mut self) {
        self.request.flush(&mut self.sink);
    }
}

/// The scopes of a resource.
pub struct ProfilesScopes<'s> {
    request: &'s mut ProfilesRequest,
    sink: &'s mut dyn FnMut(Batch<'_>),
}

impl ProfilesScopes<'_> {
    /// What follows was produced by this scope.
    pub fn scope(&mut self, scope: &ScopeBlob) -> Profiles<'_> {
        self.request.frames.set(Level::Scope, scope.head(), scope.tail());
        Profiles { request: self.request, sink: self.sink }
    }
}

/// The profiles of a scope.
pub struct Profiles<'s> {
    request: &'s mut ProfilesRequest,
    sink: &'s mut dyn FnMut(Batch<'_>),
}

impl Profiles<'_> {
    /// Starts a profile. Without a sample, it is not written.
    pub fn profile<'a>(&'a mut self, info: &'a ProfileInfo<'a>) -> Samples<'a> {
        self.request.frames.truncate(Level::Group);
        Samples { request: self.request, sink: self.sink, info, shape: None }
    }
}

/// The samples of a profile.
pub struct Samples<'s> {
    request: &'s mut ProfilesRequest,
    sink: &'s mut dyn FnMut(Batch<'_>),
    info: &'s ProfileInfo<'s>,
    /// Whether the samples have values, and timestamps: the same for all of them.
    shape: Option<(bool, bool)>,
}

impl Samples<'_> {
    /// Adds a sample: as many `values` as `timestamps`, or timestamps alone (each counts 1), or one value alone.
    ///
    /// `identify` makes stack, attributes and link in the dictionary. They identify the sample; those with the same
    /// identity should be merged. It is called again if the sample is the first of another request; indices that are kept
    /// from call to call are valid within a [`Dictionary::epoch`].
    ///
    /// Errors, which refuse the sample: [`Error::SampleShape`]; [`Error::MixedSampleShapes`]; [`Error::Timestamp`] for one
    /// outside the profile's time range; those of the dictionary's methods, for the sample and for
    /// [`ProfileInfo::attributes`]; [`Error::DuplicateKey`]; [`Error::UnknownIndex`]; [`Error::Unreferenced`] for what was
    /// made and is not used; [`Error::TooLarge`].
    pub fn add<A: AsRef<[AttributeIdx]>>(
        &mut self,
        values: &[i64],
        timestamps: &[u64],
        mut identify: impl FnMut(&mut Dictionary) -> (StackIdx, A, LinkIdx),
    ) -> Result<(), Error> {
        let shape = self.check(values, timestamps)?;
        loop {
            let begun = Begun { mark: self.request.begin(self.info), request: self.request };
            let (stack, attributes, link) = identify(&mut begun.request.dictionary);
            let identity = (stack, attributes.as_ref(), link);
            let mark = begun.complete();
            if self.request.end(mark, identity, (values, timestamps), self.sink)? {
                self.shape = Some(shape);
                return Ok(());
            }
        }
    }

    fn check(&self, values: &[i64], timestamps: &[u64]) -> Result<(bool, bool), Error> {
        let shape = (!values.is_empty(), !timestamps.is_empty());
        let valid = match shape {
            (true, true) => values.len() == timestamps.len(),
            (true, false) => values.len() == 1,
            (false, timed) => timed,
        };
        if !valid {
            return Err(Error::SampleShape { values: values.len(), timestamps: timestamps.len() });
        }
        if self.shape.is_some_and(|others| others != shape) {
            return Err(Error::MixedSampleShapes);
        }
        let start = self.info.time_unix_nano;
        let end = start.saturating_add(self.info.duration_nano);
        if let Some(&timestamp) = timestamps.iter().find(|&&at| at < start || at >= end) {
            return Err(Error::Timestamp { timestamp, start, end });
        }
        Ok(shape)
    }
}
