//! The functions of a unit, and those that are inlined into one of them.

use gimli::{
    Abbreviations, AttributeSpecification, AttributeValue, EntriesRaw, Result, UnitHeader, UnitOffset,
};

use super::names::Origin;
use super::pages::{Bytes, Store};
use super::ranges;
use super::root::{MAX_ATTRIBUTES, Root};
use super::units::in_code;

/// Pieces of code of a unit's functions: 12 bytes each.
const MAX_FUNCTIONS: usize = 1 << 18;
/// Pieces of code that are inlined into one function.
const MAX_INLINED: usize = 1 << 14;
/// Functions that overlap an address and are looked at.
const MAX_OVERLAP: usize = 16;
/// Functions that are inlined into one another.
const MAX_NESTED: usize = 256;

/// A piece of a function's code, from the begin of the file's, and where its entry is in the unit.
#[derive(Debug, Clone, Copy)]
struct Function {
    start: u32,
    end: u32,
    entry: u32,
}

/// The functions of a unit by address.
#[derive(Debug, Default)]
pub(super) struct Functions(Vec<Function>);

/// A call that was inlined.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// What was called.
    pub callee: Option<Origin>,
    /// Where it was called from.
    pub file: u32,
    pub line: u32,
}

/// A piece of code of an inlined call.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: u32,
    end: u32,
    /// How deep its entry lies.
    depth: u32,
    call: u32,
}

/// What is inlined into a function.
#[derive(Debug, Default)]
pub(super) struct Inlined {
    pieces: Vec<Piece>,
    calls: Vec<Call>,
}

/// What is needed to read a unit's entries.
pub(super) struct Unit<'s> {
    pub store: &'s Store,
    pub root: &'s Root,
    pub header: &'s UnitHeader<Bytes<'s>>,
    pub abbreviations: &'s Abbreviations,
    pub code: (u64, u64),
}

/// Addresses that an entry has, as its attributes say it.
#[derive(Default)]
struct Code<'s> {
    low: Option<AttributeValue<Bytes<'s>, u64>>,
    high: Option<AttributeValue<Bytes<'s>, u64>>,
    list: Option<AttributeValue<Bytes<'s>, u64>>,
}

impl<'s> Unit<'s> {
    /// The attributes of an entry: those of its code, and others through `visit`.
    fn attributes(
        &self,
        entries: &mut EntriesRaw<'_, '_, Bytes<'s>>,
        specs: &[AttributeSpecification],
        mut visit: impl FnMut(gimli::DwAt, AttributeValue<Bytes<'s>, u64>),
    ) -> Result<Code<'s>> {
        let mut code = Code::default();
        for spec in specs {
            let attribute = entries.read_attribute(*spec)?;
            match attribute.name() {
                gimli::DW_AT_low_pc => code.low = Some(attribute.value()),
                gimli::DW_AT_high_pc => code.high = Some(attribute.value()),
                gimli::DW_AT_ranges => code.list = Some(attribute.value()),
                name => visit(name, attribute.value()),
            }
        }
        Ok(code)
    }

    /// Hands the pieces of code of an entry to `visit`.
    fn visit(&self, code: &Code<'_>, mut visit: impl FnMut(u32, u32) -> bool) -> Result<()> {
        let mut visit = |range| in_code(self.code, range).is_none_or(|(start, end)| visit(start, end));
        if let Some(offset) = code.list.as_ref().and_then(|list| self.root.list_of(self.store, list)) {
            return ranges::visit(self.store, self.root, offset, &mut visit);
        }
        let low = code.low.as_ref().and_then(|low| self.root.address_of(self.store, low).ok());
        let high = code.high.as_ref().and_then(|high| self.root.end_of(self.store, low, high));
        if let (Some(low), Some(high)) = (low, high) {
            visit((low, high));
        }
        Ok(())
    }

    /// The next entry's offset and abbreviation: without one where a list of children ends.
    fn next<'a>(
        &self,
        entries: &mut EntriesRaw<'a, '_, Bytes<'s>>,
    ) -> Result<Option<(u64, &'a gimli::Abbreviation)>> {
        let UnitOffset(offset) = entries.next_offset();
        let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(None) };
        if abbreviation.attributes().len() > MAX_ATTRIBUTES {
            return Err(gimli::Error::UnknownAbbreviation(abbreviation.code()));
        }
        // Some attributes take no byte.
        self.store.charge(abbreviation.attributes().len() as u64)?;
        Ok(Some((offset, abbreviation)))
    }
}

impl Functions {
    /// Reads all entries of a unit.
    ///
    /// # Errors
    /// The work was too much. What is damaged ends the unit.
    pub fn read(unit: &Unit<'_>) -> Result<Self> {
        let mut functions = Vec::new();
        if let Err(error) = Self::collect(unit, &mut functions) {
            if unit.store.fuel() == 0 {
                return Err(error);
            }
        }
        functions.sort_by_key(|function| function.start);
        functions.shrink_to_fit();
        Ok(Self(functions))
    }

    fn collect(unit: &Unit<'_>, functions: &mut Vec<Function>) -> Result<()> {
        let mut entries = unit.header.entries_raw(unit.abbreviations, None)?;
        while !entries.is_empty() && functions.len() < MAX_FUNCTIONS {
            let Some((offset, abbreviation)) = unit.next(&mut entries)? else { continue };
            if abbreviation.tag() != gimli::DW_TAG_subprogram {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let code = unit.attributes(&mut entries, abbreviation.attributes(), |_, _| {})?;
            let Ok(entry) = u32::try_from(offset) else { break };
            unit.visit(&code, |start, end| {
                functions.push(Function { start, end, entry });
                functions.len() < MAX_FUNCTIONS
            })?;
        }
        Ok(())
    }

    /// The entry of the function that holds an address, counted from the begin of the file's code: the innermost one.
    pub fn find(&self, at: u32) -> Option<u32> {
        let after = self.0.partition_point(|function| function.start <= at);
        let before = self.0.get(..after)?.iter().rev().take(MAX_OVERLAP);
        let found =
            before.filter(|function| at < function.end).min_by_key(|function| function.end - function.start);
        found.map(|function| function.entry)
    }

    /// Heap memory, in bytes.
    pub fn memory(&self) -> usize {
        self.0.capacity() * size_of::<Function>()
    }
}

impl Inlined {
    /// Reads the entries below that of a function.
    ///
    /// # Errors
    /// The work was too much. What is damaged ends the function.
    pub fn read(unit: &Unit<'_>, function: u32) -> Result<Self> {
        let mut inlined = Self::default();
        if let Err(error) = inlined.collect(unit, function) {
            if unit.store.fuel() == 0 {
                return Err(error);
            }
        }
        inlined.pieces.shrink_to_fit();
        inlined.calls.shrink_to_fit();
        Ok(inlined)
    }

    fn collect(&mut self, unit: &Unit<'_>, function: u32) -> Result<()> {
        let start = UnitOffset(u64::from(function));
        let mut entries = unit.header.entries_raw(unit.abbreviations, Some(start))?;
        // Below a function inside of this one.
        let mut other: Option<isize> = None;
        while !entries.is_empty() && self.pieces.len() < MAX_INLINED {
            let depth = entries.next_depth();
            let entry = unit.next(&mut entries)?;
            if entries.next_depth() <= 0
                && (depth > 0 || entry.is_none_or(|(_, found)| !found.has_children()))
            {
                break;
            }
            let Some((_, abbreviation)) = entry else { continue };
            if other.is_some_and(|other| depth > other) {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            other = (depth > 0 && abbreviation.tag() == gimli::DW_TAG_subprogram).then_some(depth);
            if abbreviation.tag() != gimli::DW_TAG_inlined_subroutine {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let mut call = Call { callee: None, file: 0, line: 0 };
            let number = |value: AttributeValue<Bytes<'_>, u64>| match value {
                AttributeValue::FileIndex(index) => u32::try_from(index).unwrap_or(0),
                value => value.udata_value().and_then(|value| u32::try_from(value).ok()).unwrap_or(0),
            };
            let code =
                unit.attributes(&mut entries, abbreviation.attributes(), |name, value| match name {
                    gimli::DW_AT_abstract_origin => call.callee = Origin::of(unit.header, &value),
                    gimli::DW_AT_call_file => call.file = number(value),
                    gimli::DW_AT_call_line => call.line = number(value),
                    _ => {}
                })?;
            let index = self.calls.len() as u32;
            self.calls.push(call);
            let (pieces, depth) = (&mut self.pieces, u32::try_from(depth).unwrap_or(0));
            unit.visit(&code, |start, end| {
                pieces.push(Piece { start, end, depth, call: index });
                pieces.len() < MAX_INLINED
            })?;
            // Calls without code take room too.
            if self.calls.len() >= MAX_INLINED {
                break;
            }
        }
        Ok(())
    }

    /// The calls that an address lies in, outermost first.
    pub fn find(&self, at: u32) -> Vec<Call> {
        let mut found = Vec::new();
        let mut deepest = 0;
        for piece in self.pieces.iter().filter(|piece| (piece.start..piece.end).contains(&at)) {
            if piece.depth > deepest && found.len() < MAX_NESTED {
                deepest = piece.depth;
                found.extend(self.calls.get(piece.call as usize).copied());
            }
        }
        found
    }

    /// Heap memory, in bytes.
    pub fn memory(&self) -> usize {
        self.pieces.capacity() * size_of::<Piece>() + self.calls.capacity() * size_of::<Call>()
    }
}
