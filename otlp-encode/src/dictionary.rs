//! The tables of a profiles request, built so that they are valid.
//!
//! - Entry 0 of every table is the zero value, from the start.
//! - Equal entries are one entry.
//! - Indices are typed and come from here; one of another dictionary, or of an earlier [`Epoch`], is an error.
//! - Strings enter only as part of what uses them, and every entry counts who refers to it: an entry that nothing
//!   refers to refuses the sample that it was made for.
//!
//! Entries are made for a sample, within [`Samples::add`](crate::Samples::add). The first error there is what it returns,
//! so that the calls in between need no handling each, and what was made for the sample is gone again.

mod table;

use crate::attributes::{self, Value};
use crate::error::{Error, Table};
use crate::profiles::{Function, KeyValueAndUnit, Link, Location, Mapping, Stack};
use crate::wire::{Fields, Writer};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};
use table::Entries;

/// How long indices stay valid: until the dictionary starts again with a new request, or takes entries back with a
/// sample that is refused. Whoever keeps indices compares it with [`Dictionary::epoch`] before using them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Epoch(u32);

impl Epoch {
    /// One that no dictionary has had. (Until 2^32 of them are gone.) The default is not among them.
    fn next() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }
}

macro_rules! index {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        ///
        /// The default is entry 0, the zero value.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
        #[must_use = "an entry that nothing refers to makes the sample invalid"]
        pub struct $name {
            index: u32,
            epoch: Epoch,
        }

        impl $name {
            /// The index as the message has it.
            pub fn get(self) -> i32 {
                self.index as i32
            }

            /// Whether it may be used now.
            fn is_current(self, epoch: Epoch) -> bool {
                self.index == 0 || self.epoch == epoch
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
#[derive(Debug)]
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
    epoch: Epoch,
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
            epoch: Epoch::next(),
            error: None,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.tables_mut().into_iter().for_each(Entries::clear);
        self.attribute_keys.truncate(1);
        self.error = None;
        self.epoch = Epoch::next();
    }

    /// Gives memory back that a sample beyond the limit took: more than `usual` bytes in a table. Everything is forgotten.
    pub(crate) fn trim(&mut self, usual: usize) {
        self.tables_mut().into_iter().for_each(|entries| entries.trim(usual));
        self.attribute_keys.truncate(1);
        self.attribute_keys.shrink_to(usual / size_of::<u32>());
        self.scratch.trim(usual);
    }

    /// Indices of this epoch may be used, others not.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What follows can be taken back.
    pub(crate) fn mark(&mut self) {
        self.tables_mut().into_iter().for_each(Entries::mark);
    }

    /// Takes back what happened since [`mark`](Self::mark), and with it the error.
    pub(crate) fn rollback(&mut self) {
        self.tables_mut().into_iter().for_each(Entries::rollback);
        self.attribute_keys.truncate(self.attributes.len());
        self.error = None;
        self.epoch = Epoch::next();
    }

    /// A file mapped at `memory`, whose first byte is at `file_offset` in the file.
    ///
    /// Error: [`Error::MappingRange`] unless `memory` is `0..0` or starts below its end.
    #[inline(never)]
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
        let index = self.or_full(Table::Mapping, index);
        MappingIdx { index, epoch: self.epoch }
    }

    /// A function; unknown names are empty, an unknown line is 0.
    #[inline(never)]
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
        let index = self.or_full(Table::Function, index);
        FunctionIdx { index, epoch: self.epoch }
    }

    /// A place in code. `lines` has the innermost inlined function first.
    #[inline(never)]
    pub fn location(
        &mut self,
        mapping: MappingIdx,
        address: u64,
        lines: &[Line],
        attributes: &[AttributeIdx],
    ) -> LocationIdx {
        if !mapping.is_current(self.epoch) || !self.mappings.reference(mapping.index) {
            self.fail(Error::UnknownIndex { table: Table::Mapping, index: mapping.index });
        }
        for &Line { function, .. } in lines {
            if !function.is_current(self.epoch) || !self.functions.reference(function.index) {
                self.fail(Error::UnknownIndex { table: Table::Function, index: function.index });
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
        let index = self.or_full(Table::Location, index);
        LocationIdx { index, epoch: self.epoch }
    }

    /// A call stack, leaf first.
    #[inline(never)]
    pub fn stack(&mut self, locations: &[LocationIdx]) -> StackIdx {
        if let Some(stale) = locations.iter().find(|location| !location.is_current(self.epoch)) {
            self.fail(Error::UnknownIndex { table: Table::Location, index: stale.index });
        }
        let known = self.stacks.len();
        let content = Stack::encode(&mut self.scratch, |stack| {
            stack.location_indices(locations.iter().map(|location| location.get()));
        });
        let index = self.stacks.intern(content);
        // A stack that was there has its references counted already.
        if self.stacks.len() > known {
            for location in locations {
                if !self.locations.reference(location.index) {
                    self.fail(Error::UnknownIndex { table: Table::Location, index: location.index });
                }
            }
        }
        let index = self.or_full(Table::Stack, index);
        StackIdx { index, epoch: self.epoch }
    }

    /// A span that samples were taken in; two ids of nothing but zeros are no span.
    ///
    /// Error: [`Error::Empty`] where only one of them is all zero.
    #[inline(never)]
    pub fn link(&mut self, trace_id: [u8; 16], span_id: [u8; 8]) -> LinkIdx {
        if trace_id == [0; 16] && span_id == [0; 8] {
            return LinkIdx::default();
        }
        if trace_id == [0; 16] || span_id == [0; 8] {
            self.fail(Error::Empty { field: "link" });
        }
        let content = Link::encode(&mut self.scratch, |link| {
            link.span_id(&span_id);
            link.trace_id(&trace_id);
        });
        let index = self.links.intern(content);
        let index = self.or_full(Table::Link, index);
        LinkIdx { index, epoch: self.epoch }
    }

    /// An attribute; `unit` is empty where the key's definition implies it.
    ///
    /// Errors: [`Error::Empty`] for an empty key; [`Error::ValueDepth`], [`Error::DuplicateAttribute`] for the value.
    pub fn attribute<'v>(&mut self, key: &str, unit: &str, value: impl Into<Value<'v>>) -> AttributeIdx {
        self.attribute_value(key, unit, value.into())
    }

    #[inline(never)]
    fn attribute_value(&mut self, key: &str, unit: &str, value: Value<'_>) -> AttributeIdx {
        if key.is_empty() {
            self.fail(Error::Empty { field: "key" });
        }
        let key = self.referenced_string(key);
        let unit = self.referenced_string(unit);
        let mut result = Ok(());
        let content = KeyValueAndUnit::encode(&mut self.scratch, |attribute| {
            attribute.unit_strindex(unit as i32);
            result = attributes::write_value(attribute.fields(), 2, value);
            attribute.key_strindex(key as i32);
        });
        let index = self.attributes.intern(content);
        if let Err(error) = result {
            self.fail(error);
        }
        let index = self.or_full(Table::Attribute, index);
        if self.attribute_keys.len() == index as usize {
            self.attribute_keys.push(key);
        }
        AttributeIdx { index, epoch: self.epoch }
    }

    /// How many bytes the tables take in the message.
    pub(crate) fn encoded_len(&self) -> usize {
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
        if !stack.is_current(self.epoch) || !self.stacks.reference(stack.index) {
            self.fail(Error::UnknownIndex { table: Table::Stack, index: stack.index });
        }
        if !link.is_current(self.epoch) || !self.links.reference(link.index) {
            self.fail(Error::UnknownIndex { table: Table::Link, index: link.index });
        }
        self.check_attributes(attributes)
    }

    /// Notes references to attributes, and returns their indices: a set, so sorted, and without entry 0.
    pub(crate) fn check_attributes(&mut self, attributes: &[AttributeIdx]) -> &[u32] {
        self.list.clear();
        self.list.extend(attributes.iter().map(|attribute| attribute.index).filter(|&index| index != 0));
        if let Some(stale) = attributes.iter().find(|attribute| !attribute.is_current(self.epoch)) {
            self.fail(Error::UnknownIndex { table: Table::Attribute, index: stale.index });
        }
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
    pub(crate) fn capacities(&self) -> ([[usize; 4]; 7], [usize; 3]) {
        let rest = [self.attribute_keys.capacity(), self.scratch.capacity(), self.list.capacity()];
        (self.tables().map(Entries::capacities), rest)
    }

    fn tables_mut(&mut self) -> [&mut Entries; 7] {
        let Self { mappings, locations, functions, links, strings, attributes, stacks, .. } = self;
        [mappings, locations, functions, links, strings, attributes, stacks]
    }

    fn tables(&self) -> [&Entries; 7] {
        let Self { mappings, locations, functions, links, strings, attributes, stacks, .. } = self;
        [mappings, locations, functions, links, strings, attributes, stacks]
    }

    /// The index of a string, which counts as referred to.
    pub(crate) fn referenced_string(&mut self, string: &str) -> u32 {
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
