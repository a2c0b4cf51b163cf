//! The tables of a profiles request, built so that they are valid.
//!
//! - Entry 0 of every table is the zero value, from the start.
//! - Equal entries are one entry.
//! - Indices are typed and come from here; one that is not in its table is an error.
//! - Strings enter only as part of what uses them, and every entry counts who refers to it: an entry that nothing
//!   refers to is an error when the request is finished. Make an entry where it is used, and there is none.
//!
//! Errors stick: the first one is what [`ProfilesRequest::finish`](crate::ProfilesRequest::finish) returns, so that
//! the calls in between need no handling each.

mod table;

use crate::common::AnyValue;
use crate::error::{Error, Table};
use crate::profiles::{Function, KeyValueAndUnit, Link, Location, Mapping, Stack};
use crate::wire::{Fields, Writer};
use alloc::vec::Vec;
use core::ops::Range;
use table::Entries;

macro_rules! index {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        ///
        /// The default is entry 0, the zero value.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[must_use = "an entry that nothing refers to makes the request invalid"]
        pub struct $name(u32);

        impl $name {
            /// The index as the message has it.
            pub fn get(self) -> i32 {
                self.0 as i32
            }
        }
    )*};
}

index! {
    /// An entry of `mapping_table`.
    MappingIdx,
    /// An entry of `location_table`.
    LocationIdx,
    /// An entry of `function_table`.
    FunctionIdx,
    /// An entry of `link_table`.
    LinkIdx,
    /// An entry of `string_table`.
    StringIdx,
    /// An entry of `attribute_table`.
    AttributeIdx,
    /// An entry of `stack_table`.
    StackIdx,
}

/// A function at a line of its source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Line {
    /// The function.
    pub function: FunctionIdx,
    /// Line number, 0 if unknown.
    pub line: u32,
    /// Column number, 0 if unknown.
    pub column: u32,
}

/// The tables of one request. See the [module](self).
#[derive(Debug, Clone)]
pub struct Dictionary {
    mappings: Entries,
    locations: Entries,
    functions: Entries,
    links: Entries,
    strings: Entries,
    attributes: Entries,
    stacks: Entries,
    /// The key of each attribute, in `strings`.
    attribute_keys: Vec<u32>,
    scratch: Writer,
    /// The attribute list that was checked last.
    list: Vec<u32>,
    error: Option<Error>,
}

impl Dictionary {
    pub(crate) fn new(hash_seed: u64) -> Self {
        Self {
            mappings: Entries::new(Table::Mapping, hash_seed),
            locations: Entries::new(Table::Location, hash_seed),
            functions: Entries::new(Table::Function, hash_seed),
            links: Entries::new(Table::Link, hash_seed),
            strings: Entries::new(Table::String, hash_seed),
            attributes: Entries::new(Table::Attribute, hash_seed),
            stacks: Entries::new(Table::Stack, hash_seed),
            attribute_keys: Vec::from([0]),
            scratch: Writer::new(),
            list: Vec::new(),
            error: None,
        }
    }

    pub(crate) fn clear(&mut self) {
        let Self { mappings, locations, functions, links, strings, attributes, stacks, .. } = self;
        for table in [mappings, locations, functions, links, strings, attributes, stacks] {
            table.clear();
        }
        self.attribute_keys.truncate(1);
        self.error = None;
    }

    /// A string for a `..._strindex` field outside the tables, such as `KeyValue.key_strindex` of a resource
    /// attribute. It counts as referred to.
    pub fn string(&mut self, string: &str) -> StringIdx {
        StringIdx(self.referenced_string(string))
    }

    /// A file mapped at `memory`, whose first byte is at `file_offset` in the file.
    ///
    /// Error: [`Error::MappingRange`] unless `memory` is `0..0` or starts below its end.
    pub fn mapping(
        &mut self,
        memory: Range<u64>,
        file_offset: u64,
        filename: &str,
        attributes: &[AttributeIdx],
    ) -> MappingIdx {
        if memory.start >= memory.end && memory != (0..0) {
            self.fail(Error::MappingRange { start: memory.start, limit: memory.end });
            return MappingIdx::default();
        }
        let filename = self.referenced_string(filename);
        self.check_attributes(attributes);
        let content = Mapping::encode(&mut self.scratch, |mapping| {
            mapping.attribute_indices(self.list.iter().map(|&index| index as i32));
            mapping.filename_strindex(filename as i32);
            mapping.file_offset(file_offset);
            mapping.memory_limit(memory.end);
            mapping.memory_start(memory.start);
        });
        let index = self.mappings.intern(content);
        MappingIdx(self.or_full(Table::Mapping, index))
    }

    /// A function; unknown names are empty, an unknown line is 0.
    pub fn function(
        &mut self,
        name: &str,
        system_name: &str,
        filename: &str,
        start_line: u32,
    ) -> FunctionIdx {
        let name = self.referenced_string(name);
        let system_name = self.referenced_string(system_name);
        let filename = self.referenced_string(filename);
        let content = Function::encode(&mut self.scratch, |function| {
            function.start_line(start_line.into());
            function.filename_strindex(filename as i32);
            function.system_name_strindex(system_name as i32);
            function.name_strindex(name as i32);
        });
        let index = self.functions.intern(content);
        FunctionIdx(self.or_full(Table::Function, index))
    }

    /// A place in code. `lines` has the innermost inlined function first.
    pub fn location(
        &mut self,
        mapping: MappingIdx,
        address: u64,
        lines: &[Line],
        attributes: &[AttributeIdx],
    ) -> LocationIdx {
        if !self.mappings.reference(mapping.0) {
            self.fail(Error::UnknownIndex { table: Table::Mapping, index: mapping.0 });
        }
        for line in lines {
            if !self.functions.reference(line.function.0) {
                self.fail(Error::UnknownIndex { table: Table::Function, index: line.function.0 });
            }
        }
        self.check_attributes(attributes);
        let content = Location::encode(&mut self.scratch, |location| {
            location.attribute_indices(self.list.iter().map(|&index| index as i32));
            location.lines(lines, |to, from| {
                to.column(from.column.into());
                to.line(from.line.into());
                to.function_index(from.function.get());
            });
            location.address(address);
            location.mapping_index(mapping.get());
        });
        let index = self.locations.intern(content);
        LocationIdx(self.or_full(Table::Location, index))
    }

    /// A call stack, leaf first.
    pub fn stack(&mut self, locations: &[LocationIdx]) -> StackIdx {
        let known = self.stacks.len();
        let content = Stack::encode(&mut self.scratch, |stack| {
            stack.location_indices(locations.iter().map(|location| location.get()));
        });
        let index = self.stacks.intern(content);
        // A stack that was there has its references counted already.
        if self.stacks.len() > known {
            for location in locations {
                if !self.locations.reference(location.0) {
                    self.fail(Error::UnknownIndex { table: Table::Location, index: location.0 });
                }
            }
        }
        StackIdx(self.or_full(Table::Stack, index))
    }

    /// A span that samples were taken in; ids of nothing but zeros are no span.
    pub fn link(&mut self, trace_id: [u8; 16], span_id: [u8; 8]) -> LinkIdx {
        if trace_id == [0; 16] && span_id == [0; 8] {
            return LinkIdx::default();
        }
        let content = Link::encode(&mut self.scratch, |link| {
            link.span_id(&span_id);
            link.trace_id(&trace_id);
        });
        let index = self.links.intern(content);
        LinkIdx(self.or_full(Table::Link, index))
    }

    /// An attribute; `unit` is empty where the key's definition implies it.
    pub fn attribute(
        &mut self,
        key: &str,
        unit: &str,
        value: impl FnOnce(&mut AnyValue<'_>),
    ) -> AttributeIdx {
        let key = self.referenced_string(key);
        let unit = self.referenced_string(unit);
        let content = KeyValueAndUnit::encode(&mut self.scratch, |attribute| {
            attribute.unit_strindex(unit as i32);
            attribute.value(value);
            attribute.key_strindex(key as i32);
        });
        let index = self.attributes.intern(content);
        let index = self.or_full(Table::Attribute, index);
        if self.attribute_keys.len() == index as usize {
            self.attribute_keys.push(key);
        }
        AttributeIdx(index)
    }

    /// How many bytes the tables take in the message.
    pub fn encoded_len(&self) -> usize {
        self.tables().iter().map(|entries| entries.bytes().len()).sum()
    }

    /// Writes the tables as the fields of a `ProfilesDictionary`.
    pub(crate) fn write(&self, mut fields: Fields<'_>) {
        for entries in self.tables().into_iter().rev() {
            fields.encoded(entries.table() as u32, entries.bytes());
        }
    }

    /// The first error, if there was one, or the first entry that nothing refers to.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        for entries in self.tables() {
            if let Some(index) = entries.first_unreferenced() {
                return Err(Error::Unreferenced { table: entries.table(), index });
            }
        }
        Ok(())
    }

    /// Keeps the first error.
    pub(crate) fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }

    /// Notes a sample's references, and returns its attributes' indices.
    pub(crate) fn check_sample(
        &mut self,
        stack: StackIdx,
        link: LinkIdx,
        attributes: &[AttributeIdx],
    ) -> &[u32] {
        if !self.stacks.reference(stack.0) {
            self.fail(Error::UnknownIndex { table: Table::Stack, index: stack.0 });
        }
        if !self.links.reference(link.0) {
            self.fail(Error::UnknownIndex { table: Table::Link, index: link.0 });
        }
        self.check_attributes(attributes)
    }

    /// Notes references to attributes, and returns their indices: a set, so sorted, and without entry 0.
    pub(crate) fn check_attributes(&mut self, attributes: &[AttributeIdx]) -> &[u32] {
        self.list.clear();
        self.list.extend(attributes.iter().map(|attribute| attribute.0).filter(|&index| index != 0));
        self.list.sort_unstable();
        for (at, &second) in self.list.iter().enumerate() {
            let Some(&key) = self.attribute_keys.get(second as usize) else {
                self.error.get_or_insert(Error::UnknownIndex { table: Table::Attribute, index: second });
                continue;
            };
            self.attributes.reference(second);
            let same = |&first: &u32| self.attribute_keys.get(first as usize) == Some(&key);
            if let Some(first) = self.list.iter().copied().take(at).find(same) {
                self.error.get_or_insert(Error::DuplicateKey { first, second });
            }
        }
        &self.list
    }

    #[cfg(test)]
    pub(crate) fn capacities(&self) -> ([[usize; 3]; 7], [usize; 3]) {
        let rest = [self.attribute_keys.capacity(), self.scratch.capacity(), self.list.capacity()];
        (self.tables().map(Entries::capacities), rest)
    }

    fn tables(&self) -> [&Entries; 7] {
        let Self { mappings, locations, functions, links, strings, attributes, stacks, .. } = self;
        [mappings, locations, functions, links, strings, attributes, stacks]
    }

    fn referenced_string(&mut self, string: &str) -> u32 {
        let index = self.strings.intern(string.as_bytes());
        let index = self.or_full(Table::String, index);
        self.strings.reference(index);
        index
    }

    fn or_full(&mut self, table: Table, index: Option<u32>) -> u32 {
        index.unwrap_or_else(|| {
            self.fail(Error::TableFull { table });
            0
        })
    }
}
