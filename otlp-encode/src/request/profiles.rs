//! A profiles request that is valid, or an error.

use crate::common::InstrumentationScope;
use crate::dictionary::{AttributeIdx, Dictionary, LinkIdx, StackIdx};
use crate::error::Error;
use crate::profiles::{ExportProfilesServiceRequest, Profile, ResourceProfiles, ScopeProfiles, ValueType};
use crate::resource::Resource;
use crate::wire::Writer;

/// Builds one `ExportProfilesServiceRequest` after another in the same memory.
///
/// Resources, scopes, profiles and samples stand in the message in the **reverse** of the order in which they were
/// added. The dictionary may grow until [`finish`](Self::finish). The first error sticks and is returned there.
#[derive(Debug, Clone)]
pub struct ProfilesRequest {
    dictionary: Dictionary,
    body: Writer,
    message: Writer,
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
    /// Globally unique, not all zero.
    pub profile_id: Option<[u8; 16]>,
    /// Attributes of the whole profile.
    pub attributes: &'a [AttributeIdx],
    /// How many attributes were discarded.
    pub dropped_attributes_count: u32,
    /// Format and bytes of what the profile was converted from.
    pub original_payload: Option<(&'a str, &'a [u8])>,
}

impl ProfilesRequest {
    /// An empty request. `hash_seed` is for the tables' hashes: any number will do, a random one keeps whoever
    /// chooses the names in a profile from slowing it down. The output does not depend on it.
    pub fn new(hash_seed: u64) -> Self {
        Self { dictionary: Dictionary::new(hash_seed), body: Writer::new(), message: Writer::new() }
    }

    /// Forgets everything, errors and indices too, and keeps the memory.
    pub fn clear(&mut self) {
        self.dictionary.clear();
        self.body.clear();
    }

    /// The tables.
    pub fn dictionary(&mut self) -> &mut Dictionary {
        &mut self.dictionary
    }

    /// How many bytes the message has so far, but for the few of the dictionary's own header.
    pub fn request_len(&self) -> usize {
        self.body.len() + self.dictionary.encoded_len()
    }

    /// Adds a resource with its profiles.
    ///
    /// Error: [`Error::Empty`] without a scope.
    pub fn resource_profiles(
        &mut self,
        schema_url: &str,
        resource: impl FnOnce(&mut Resource<'_>),
        scopes: impl FnOnce(&mut ProfilesScopes<'_, '_>),
    ) {
        let dictionary = &mut self.dictionary;
        let mut request = ExportProfilesServiceRequest::from(self.body.fields());
        request.resource_profiles([(resource, scopes)], |message, (resource, scopes)| {
            message.schema_url(schema_url);
            let before = message.written();
            scopes(&mut ProfilesScopes { message, dictionary });
            if message.written() == before {
                dictionary.fail(Error::Empty { field: "scope_profiles" });
            }
            message.resource(resource);
        });
    }

    /// The encoded message.
    ///
    /// Errors: the first that occurred since [`clear`](Self::clear); [`Error::Empty`] without a resource;
    /// [`Error::Unreferenced`] where a table has an entry that nothing refers to.
    pub fn finish(&mut self) -> Result<&[u8], Error> {
        self.dictionary.check()?;
        if self.body.is_empty() {
            return Err(Error::Empty { field: "resource_profiles" });
        }
        self.message.clear();
        self.message.fields().message(2, |fields| self.dictionary.write(fields));
        self.message.prepend(self.body.as_bytes());
        Ok(self.message.as_bytes())
    }
}

/// The scopes of a resource.
#[derive(Debug)]
pub struct ProfilesScopes<'a, 'w> {
    message: &'a mut ResourceProfiles<'w>,
    dictionary: &'a mut Dictionary,
}

impl ProfilesScopes<'_, '_> {
    /// Adds a scope with its profiles.
    ///
    /// Error: [`Error::Empty`] without a profile.
    pub fn scope_profiles(
        &mut self,
        schema_url: &str,
        scope: impl FnOnce(&mut InstrumentationScope<'_>),
        profiles: impl FnOnce(&mut Profiles<'_, '_>),
    ) {
        let dictionary = &mut *self.dictionary;
        self.message.scope_profiles([(scope, profiles)], |message, (scope, profiles)| {
            message.schema_url(schema_url);
            let before = message.written();
            profiles(&mut Profiles { message, dictionary });
            if message.written() == before {
                dictionary.fail(Error::Empty { field: "profiles" });
            }
            message.scope(scope);
        });
    }
}

/// The profiles of a scope.
#[derive(Debug)]
pub struct Profiles<'a, 'w> {
    message: &'a mut ScopeProfiles<'w>,
    dictionary: &'a mut Dictionary,
}

impl Profiles<'_, '_> {
    /// The tables.
    pub fn dictionary(&mut self) -> &mut Dictionary {
        self.dictionary
    }

    /// Adds a profile with its samples.
    pub fn profile(&mut self, info: &ProfileInfo<'_>, samples: impl FnOnce(&mut Samples<'_, '_>)) {
        let dictionary = &mut *self.dictionary;
        self.message.profiles([samples], |message, samples| {
            let attributes = dictionary.check_attributes(info.attributes);
            message.attribute_indices(attributes.iter().map(|&index| index as i32));
            if let Some((format, payload)) = info.original_payload {
                message.original_payload(payload);
                message.original_payload_format(format);
            }
            message.dropped_attributes_count(info.dropped_attributes_count);
            message.profile_id(info.profile_id.as_ref().map_or(&[], |id| id));
            message.period(info.period);
            if info.period_type != ("", "") {
                message.period_type(|to| value_type(to, info.period_type, dictionary));
            }
            message.duration_nano(info.duration_nano);
            message.time_unix_nano(info.time_unix_nano);
            let (start, end) = (info.time_unix_nano, info.time_unix_nano.saturating_add(info.duration_nano));
            samples(&mut Samples { message, dictionary, start, end, shape: None });
            message.sample_type(|to| value_type(to, info.sample_type, dictionary));
        });
    }
}

fn value_type(to: &mut ValueType<'_>, (kind, unit): (&str, &str), dictionary: &mut Dictionary) {
    let kind = dictionary.string(kind);
    let unit = dictionary.string(unit);
    to.unit_strindex(unit.get());
    to.type_strindex(kind.get());
}

/// The samples of a profile.
#[derive(Debug)]
pub struct Samples<'a, 'w> {
    message: &'a mut Profile<'w>,
    dictionary: &'a mut Dictionary,
    start: u64,
    end: u64,
    /// Whether the samples have values, and timestamps: the same for all of them.
    shape: Option<(bool, bool)>,
}

impl Samples<'_, '_> {
    /// The tables.
    pub fn dictionary(&mut self) -> &mut Dictionary {
        self.dictionary
    }

    /// How many bytes of the request were written so far, tables included. The rest of the open profile, scope and
    /// resource still follows.
    pub fn request_len(&self) -> usize {
        self.message.written() + self.dictionary.encoded_len()
    }

    /// Adds a sample: as many `values` as `timestamps`, or timestamps alone (each counts 1), or one value alone.
    ///
    /// Stack, set of attributes and link identify a sample; those with the same identity should be merged.
    ///
    /// Errors: [`Error::SampleShape`]; [`Error::MixedSampleShapes`]; [`Error::Timestamp`] for one outside the profile's
    /// time range; [`Error::DuplicateKey`]; [`Error::UnknownIndex`].
    pub fn sample(
        &mut self,
        stack: StackIdx,
        attributes: &[AttributeIdx],
        link: LinkIdx,
        values: &[i64],
        timestamps: &[u64],
    ) {
        let shape = (!values.is_empty(), !timestamps.is_empty());
        let valid = match shape {
            (true, true) => values.len() == timestamps.len(),
            (true, false) => values.len() == 1,
            (false, timed) => timed,
        };
        if !valid {
            let (values, timestamps) = (values.len(), timestamps.len());
            self.dictionary.fail(Error::SampleShape { values, timestamps });
        } else if *self.shape.get_or_insert(shape) != shape {
            self.dictionary.fail(Error::MixedSampleShapes);
        }
        let (start, end) = (self.start, self.end);
        if let Some(&timestamp) = timestamps.iter().find(|&&at| at < start || at >= end) {
            self.dictionary.fail(Error::Timestamp { timestamp, start, end });
        }
        let attributes = self.dictionary.check_sample(stack, link, attributes);
        self.message.samples([()], |sample, ()| {
            sample.timestamps_unix_nano(timestamps);
            sample.values(values.iter().copied());
            sample.link_index(link.get());
            sample.attribute_indices(attributes.iter().map(|&index| index as i32));
            sample.stack_index(stack.get());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dictionary::{Line, MappingIdx};
    use alloc::format;

    fn fill(request: &mut ProfilesRequest) {
        request.clear();
        request.resource_profiles(
            "",
            |_| {},
            |scopes| {
                scopes.scope_profiles(
                    "",
                    |_| {},
                    |profiles| {
                        profiles.profile(&ProfileInfo::default(), |samples| {
                            for number in 0..500 {
                                let dictionary = samples.dictionary();
                                let thread = dictionary.attribute("thread.id", "", |v| v.int_value(number));
                                let function = dictionary.function(&format!("{number}"), "", "", 0);
                                let line = Line { function, line: 1, column: 0 };
                                let location = dictionary.location(MappingIdx::default(), 0, &[line], &[]);
                                let stack = dictionary.stack(&[location]);
                                samples.sample(stack, &[thread], LinkIdx::default(), &[1], &[]);
                            }
                        });
                    },
                );
            },
        );
        assert!(request.finish().is_ok());
    }

    #[test]
    fn the_second_request_needs_no_more_memory() {
        let mut request = ProfilesRequest::new(0);
        fill(&mut request);
        let capacities = |request: &ProfilesRequest| {
            (request.dictionary.capacities(), request.body.capacity(), request.message.capacity())
        };
        let before = capacities(&request);
        for _ in 0..3 {
            fill(&mut request);
        }
        assert_eq!(capacities(&request), before);
    }
}
