//! A checker of profiles requests, by the rules of SIG-Profiling's `profcheck` and of the proto's comments.
//!
//! `profcheck` (open-telemetry/sig-profiling) is written in Go; these are its rules with all of its options on. Beyond it
//! go: duplicates in every table (it looks at strings and mappings), duplicate samples, ids of profiles, and keys of
//! resource attributes. Like it, the checker wants an empty `Link` as entry 0, where the proto's comment speaks of ids of zeros.

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::profiles::v1development::{Profile, ProfilesDictionary, Sample};
use prost::Message;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// A rule that a message may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// A request has resources, a resource scopes, a scope profiles.
    NotEmpty,
    /// Every table has entry 0.
    EntryZeroPresent(Table),
    /// Entry 0 is the zero value.
    EntryZeroIsZero(Table),
    /// An index is in its table.
    IndexInTable(Table),
    /// No table has an entry twice.
    NoDuplicate(Table),
    /// Something refers to every entry but the first.
    NoOrphan(Table),
    /// The keys of a list of attributes are unique.
    KeysUnique,
    /// Timestamps lie in their profile's time range.
    TimestampInRange,
    /// A sample has values as many as timestamps, timestamps alone, or one value.
    SampleShape,
    /// All samples of a profile have values, all have timestamps, or all have both.
    SameShape,
    /// Stack, set of attributes and link identify a sample.
    SamplesUnique,
    /// A mapping is `0..0`, or starts below its limit.
    MappingRange,
    /// Lines and columns are not negative.
    NotNegative,
    /// A trace id has 16 bytes, a span id 8, a profile id 16 that are not all zero (or none).
    IdLength,
}

/// A table of the dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the proto's")]
pub enum Table {
    Mapping,
    Location,
    Function,
    Link,
    String,
    Attribute,
    Stack,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 7] = [
        Self::Mapping,
        Self::Location,
        Self::Function,
        Self::Link,
        Self::String,
        Self::Attribute,
        Self::Stack,
    ];
}

/// A rule that is broken, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// The field, as a path from the request.
    pub at: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.rule, self.at)
    }
}

/// All that is wrong with a request.
pub fn check(request: &ExportProfilesServiceRequest) -> Vec<Violation> {
    let empty = ProfilesDictionary::default();
    let dictionary = request.dictionary.as_ref().unwrap_or(&empty);
    let mut checker = Checker { dictionary, violations: Vec::new(), referenced: HashSet::new() };
    checker.request(request);
    checker.tables();
    checker.violations
}

struct Checker<'a> {
    dictionary: &'a ProfilesDictionary,
    violations: Vec<Violation>,
    referenced: HashSet<(Table, i32)>,
}

impl Checker<'_> {
    fn require(&mut self, holds: bool, rule: Rule, at: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(Violation { rule, at: at() });
        }
    }

    fn len(&self, table: Table) -> usize {
        let dictionary = self.dictionary;
        match table {
            Table::Mapping => dictionary.mapping_table.len(),
            Table::Location => dictionary.location_table.len(),
            Table::Function => dictionary.function_table.len(),
            Table::Link => dictionary.link_table.len(),
            Table::String => dictionary.string_table.len(),
            Table::Attribute => dictionary.attribute_table.len(),
            Table::Stack => dictionary.stack_table.len(),
        }
    }

    /// An index into a table, which refers to its entry.
    fn index(&mut self, table: Table, index: i32, at: impl FnOnce() -> String) {
        self.referenced.insert((table, index));
        let holds = usize::try_from(index).is_ok_and(|index| index < self.len(table));
        self.require(holds, Rule::IndexInTable(table), at);
    }

    /// A list of indices into the attribute table.
    fn attributes(&mut self, indices: &[i32], at: &str) {
        let dictionary = self.dictionary;
        let mut keys = HashSet::new();
        for (n, &index) in indices.iter().enumerate() {
            let at = || format!("{at}.attribute_indices[{n}]");
            self.index(Table::Attribute, index, at);
            let attribute =
                usize::try_from(index).ok().and_then(|index| dictionary.attribute_table.get(index));
            if let Some(attribute) = attribute {
                let key = usize::try_from(attribute.key_strindex).ok();
                let key = key.and_then(|key| dictionary.string_table.get(key));
                self.require(keys.insert(key), Rule::KeysUnique, at);
            }
        }
    }

    fn request(&mut self, request: &ExportProfilesServiceRequest) {
        let resources = &request.resource_profiles;
        self.require(!resources.is_empty(), Rule::NotEmpty, || "resource_profiles".to_owned());
        for (n, resource) in resources.iter().enumerate() {
            let at = format!("resource_profiles[{n}]");
            let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
            let mut keys = HashSet::new();
            for attribute in attributes {
                let key = (attribute.key.as_str(), attribute.key_strindex);
                self.require(keys.insert(key), Rule::KeysUnique, || format!("{at}.resource.attributes"));
            }
            let scopes = &resource.scope_profiles;
            self.require(!scopes.is_empty(), Rule::NotEmpty, || format!("{at}.scope_profiles"));
            for (n, scope) in scopes.iter().enumerate() {
                let at = format!("{at}.scope_profiles[{n}]");
                self.require(!scope.profiles.is_empty(), Rule::NotEmpty, || format!("{at}.profiles"));
                for (n, profile) in scope.profiles.iter().enumerate() {
                    self.profile(profile, &format!("{at}.profiles[{n}]"));
                }
            }
        }
    }

    fn profile(&mut self, profile: &Profile, at: &str) {
        self.attributes(&profile.attribute_indices, at);
        for (name, value) in [("sample_type", profile.sample_type), ("period_type", profile.period_type)] {
            let value = value.unwrap_or_default();
            self.index(Table::String, value.type_strindex, || format!("{at}.{name}.type_strindex"));
            self.index(Table::String, value.unit_strindex, || format!("{at}.{name}.unit_strindex"));
        }
        let id = &profile.profile_id;
        let holds = id.is_empty() || id.len() == 16 && id.iter().any(|&byte| byte != 0);
        self.require(holds, Rule::IdLength, || format!("{at}.profile_id"));

        let mut shape = None;
        let mut identities = HashSet::new();
        for (n, sample) in profile.samples.iter().enumerate() {
            let at = format!("{at}.samples[{n}]");
            self.sample(sample, profile, &at);
            let this = (!sample.values.is_empty(), !sample.timestamps_unix_nano.is_empty());
            self.require(*shape.get_or_insert(this) == this, Rule::SameShape, || at.clone());
            let mut attributes = sample.attribute_indices.clone();
            attributes.sort_unstable();
            let identity = (sample.stack_index, attributes, sample.link_index);
            self.require(identities.insert(identity), Rule::SamplesUnique, || at.clone());
        }
    }

    fn sample(&mut self, sample: &Sample, profile: &Profile, at: &str) {
        self.index(Table::Stack, sample.stack_index, || format!("{at}.stack_index"));
        self.index(Table::Link, sample.link_index, || format!("{at}.link_index"));
        self.attributes(&sample.attribute_indices, at);
        let range = profile.time_unix_nano..profile.time_unix_nano.saturating_add(profile.duration_nano);
        for (n, time) in sample.timestamps_unix_nano.iter().enumerate() {
            let at = || format!("{at}.timestamps_unix_nano[{n}]");
            self.require(range.contains(time), Rule::TimestampInRange, at);
        }
        let holds = match (sample.values.len(), sample.timestamps_unix_nano.len()) {
            (values, 0) => values == 1,
            (0, _) => true,
            (values, timestamps) => values == timestamps,
        };
        self.require(holds, Rule::SampleShape, || at.to_owned());
    }

    fn tables(&mut self) {
        let dictionary = self.dictionary;
        self.table(
            Table::Mapping,
            dictionary.mapping_table.iter().map(|mapping| {
                let mut mapping = mapping.clone();
                mapping.attribute_indices.sort_unstable();
                mapping.encode_to_vec()
            }),
        );
        self.table(Table::Location, dictionary.location_table.iter().map(Message::encode_to_vec));
        self.table(Table::Function, dictionary.function_table.iter().map(Message::encode_to_vec));
        self.table(Table::Link, dictionary.link_table.iter().map(Message::encode_to_vec));
        self.table(Table::String, dictionary.string_table.iter().map(|string| string.clone().into_bytes()));
        self.table(Table::Attribute, dictionary.attribute_table.iter().map(Message::encode_to_vec));
        self.table(Table::Stack, dictionary.stack_table.iter().map(Message::encode_to_vec));
        self.entries();
        self.orphans();
    }

    /// A table as its entries' bytes: equal messages have equal ones, and the zero value has none.
    fn table(&mut self, table: Table, entries: impl Iterator<Item = Vec<u8>>) {
        let mut seen: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut first = None;
        for (n, entry) in entries.enumerate() {
            first.get_or_insert(entry.is_empty());
            let earlier = *seen.entry(entry).or_insert(n);
            self.require(earlier == n, Rule::NoDuplicate(table), || {
                format!("{table:?}[{n}], as [{earlier}]")
            });
        }
        self.require(first.is_some(), Rule::EntryZeroPresent(table), || format!("{table:?}"));
        self.require(first.unwrap_or(true), Rule::EntryZeroIsZero(table), || format!("{table:?}[0]"));
    }

    fn entries(&mut self) {
        let dictionary = self.dictionary;
        for (n, mapping) in dictionary.mapping_table.iter().enumerate() {
            let at = format!("dictionary.mapping_table[{n}]");
            self.index(Table::String, mapping.filename_strindex, || format!("{at}.filename_strindex"));
            self.attributes(&mapping.attribute_indices, &at);
            let (start, limit) = (mapping.memory_start, mapping.memory_limit);
            self.require((start, limit) == (0, 0) || start < limit, Rule::MappingRange, || at);
        }
        for (n, location) in dictionary.location_table.iter().enumerate() {
            let at = format!("dictionary.location_table[{n}]");
            self.index(Table::Mapping, location.mapping_index, || format!("{at}.mapping_index"));
            self.attributes(&location.attribute_indices, &at);
            for (n, line) in location.lines.iter().enumerate() {
                let at = || format!("{at}.lines[{n}]");
                self.index(Table::Function, line.function_index, at);
                self.require(line.line >= 0 && line.column >= 0, Rule::NotNegative, at);
            }
        }
        for (n, function) in dictionary.function_table.iter().enumerate() {
            let at = || format!("dictionary.function_table[{n}]");
            for name in [function.name_strindex, function.system_name_strindex, function.filename_strindex] {
                self.index(Table::String, name, at);
            }
            self.require(function.start_line >= 0, Rule::NotNegative, at);
        }
        for (n, link) in dictionary.link_table.iter().enumerate().skip(1) {
            let holds = link.trace_id.len() == 16 && link.span_id.len() == 8;
            self.require(holds, Rule::IdLength, || format!("dictionary.link_table[{n}]"));
        }
        for (n, attribute) in dictionary.attribute_table.iter().enumerate() {
            let at = || format!("dictionary.attribute_table[{n}]");
            self.index(Table::String, attribute.key_strindex, at);
            self.index(Table::String, attribute.unit_strindex, at);
        }
        for (n, stack) in dictionary.stack_table.iter().enumerate() {
            for &location in &stack.location_indices {
                self.index(Table::Location, location, || format!("dictionary.stack_table[{n}]"));
            }
        }
    }

    fn orphans(&mut self) {
        for table in Table::ALL {
            for n in 1..self.len(table) {
                let referenced = self.referenced.contains(&(table, n as i32));
                self.require(referenced, Rule::NoOrphan(table), || format!("{table:?}[{n}]"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
