//! DWARF: the functions that are inlined at an address, its file and line.
//!
//! Nothing is read whole. An index of the units' code is made once; of the units that addresses ask for, the functions and
//! some points of the line program are kept while there is room. All that is read is counted, so that the time that a hostile
//! file takes has a bound.

mod functions;
mod inflate;
mod lines;
mod names;
mod pages;
mod ranges;
mod root;
mod units;

use std::sync::Arc;

use functions::{Functions, Inlined, Unit};
use gimli::Error;
use lines::Lines;
use names::{Half, Origin};
use pages::Store;
use root::Root;
use units::Units;

use super::answers::Answers;
use super::elf::Elf;
use super::file_names::WORK_A_WINDOW;
use super::line_of;
use super::read_at::Source;
use crate::model::Line;
use crate::sorted::SortedMap;

/// Bytes of work that a unit may take, so that a hostile one does not stop all others.
const WORK_A_UNIT: u64 = WORK_A_WINDOW / 2;
/// The part of the memory for all files that what is known of one file's units may take.
const UNITS_PART: usize = 8;
/// And what is inlined into its functions.
const INLINED_PART: usize = 32;

/// What is known of a unit.
#[derive(Debug, Default)]
struct Known {
    root: Root,
    functions: Functions,
    lines: Option<Lines>,
    used: u64,
}

impl Known {
    fn memory(&self) -> usize {
        let lines = self.lines.as_ref().map_or(0, Lines::memory);
        size_of::<Self>() + self.functions.memory() + lines
    }
}

/// The name of a function, readable and mangled.
type Name = (Arc<str>, Option<Arc<str>>);

/// The debug information of a file.
pub(super) struct Dwarf {
    store: Store,
    /// The file that it shares entries with.
    shared: Option<(Store, Units)>,
    /// Where the code begins and ends.
    code: (u64, u64),
    units: Units,
    known: SortedMap<u64, Known>,
    /// By the entry of a function in `.debug_info`.
    inlined: SortedMap<u64, Inlined>,
    answers: Answers,
    names: SortedMap<Origin, Option<Name>>,
    /// By unit and number.
    paths: SortedMap<(u64, u32), Option<Arc<str>>>,
    units_memory: usize,
    inlined_memory: usize,
    clock: u64,
    budget: usize,
}

/// Why an address has no lines yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMuchWork;

impl Dwarf {
    /// The debug information of a file; `None` if it has none that can be read.
    /// `shared` is the file that it shares entries with, and `budget` the memory that all files may take.
    pub fn open(elf: &Elf, source: &Source, shared: Option<&Source>, budget: usize) -> Option<Self> {
        let store = Store::open(elf, source)?;
        let shared = shared.and_then(|source| Store::open(&Elf::read(source).ok()?, source));
        Some(Self {
            store,
            shared: shared.map(|store| (store, Units::default())),
            code: elf.code()?,
            units: Units::default(),
            known: SortedMap::new(),
            inlined: SortedMap::new(),
            answers: Answers::new(budget),
            names: SortedMap::new(),
            paths: SortedMap::new(),
            units_memory: 0,
            inlined_memory: 0,
            clock: 0,
            budget,
        })
    }

    /// Gives the file back.
    pub fn close(&mut self) {
        self.store.close();
        if let Some((store, _)) = &mut self.shared {
            store.close();
        }
    }

    /// Takes the files, which were opened again.
    pub fn reopen(&mut self, source: &Source, shared: Option<&Source>) {
        self.store.reopen(source);
        if let (Some((store, _)), Some(source)) = (&mut self.shared, shared) {
            store.reopen(source);
        }
    }

    /// Heap memory, in bytes.
    pub fn memory(&self) -> usize {
        let shared = self.shared.as_ref().map_or(0, |(store, units)| store.memory() + units.memory());
        let kept = self.units_memory + self.inlined_memory + self.answers.memory();
        self.store.memory() + self.units.memory() + shared + kept
    }

    /// The lines of an address, innermost first; `function` is the one that the symbol table has there. `work` is what may be
    /// done, and becomes less. None: there is nothing about it.
    ///
    /// # Errors
    /// The work was too much, or the file is closed; it may go on where it stopped.
    pub fn lines(
        &mut self,
        address: u64,
        function: Option<&Line>,
        work: &mut u64,
    ) -> Result<Arc<[Line]>, TooMuchWork> {
        if let Some(lines) = self.answers.get(address) {
            return Ok(lines);
        }
        if self.answers.clear_if_full() {
            self.names.clear();
            self.paths.clear();
        }
        if !self.store.is_open() || *work == 0 {
            return Err(TooMuchWork);
        }
        self.clock += 1;
        self.store.set_fuel(*work);
        let found = self.find(address, function);
        *work = self.store.fuel();
        let lines: Arc<[Line]> = match found {
            Err(_) if *work == 0 => return Err(TooMuchWork),
            found => {
                found.unwrap_or_default().or_else(|| Some(vec![function?.clone()])).unwrap_or_default().into()
            }
        };
        self.answers.insert(address, Arc::clone(&lines));
        Ok(lines)
    }

    fn find(&mut self, address: u64, function: Option<&Line>) -> gimli::Result<Option<Vec<Line>>> {
        self.units.read(&self.store, self.code)?;
        let Some(offset) = self.units.find(self.code, address) else { return Ok(None) };
        let at = u32::try_from(address.saturating_sub(self.code.0)).map_err(|_| Error::AddressOverflow)?;
        self.read_unit(offset)?;
        let Some(unit) = self.known.get(&offset) else { return Ok(None) };
        let row = match &unit.lines {
            Some(lines) => lines.find(&self.store, self.code, address)?,
            None => None,
        };
        let entry = unit.functions.find(at);
        if row.is_none() && entry.is_none() {
            // Between two pieces of the unit.
            return Ok(None);
        }
        let calls = match entry {
            Some(entry) => self.inlined(offset, entry)?.map(|inlined| inlined.find(at)).unwrap_or_default(),
            None => Vec::new(),
        };
        // Of each frame, where in it the address, or the call to the next one, is.
        let (mut file, mut line) = row.map_or((None, 0), |(file, line)| (Some(file), line));
        let mut frames = Vec::new();
        for call in calls.iter().rev() {
            let name = match call.callee {
                Some(callee) => self.name(callee)?,
                None => None,
            };
            let (function, system_name) = name.unwrap_or_else(|| ("".into(), None));
            frames.push(Line { function, system_name, file: self.path(offset, file)?, line });
            (file, line) = (Some(call.file), call.line);
        }
        let own = match (function, entry) {
            (Some(line), _) => Some((Arc::clone(&line.function), line.system_name.clone())),
            (None, Some(entry)) => self.name(Origin::Here(offset.saturating_add(entry.into())))?,
            (None, None) => None,
        };
        let Some((function, system_name)) = own else { return Ok(None) };
        frames.push(Line { function, system_name, file: self.path(offset, file)?, line });
        Ok(Some(frames))
    }

    /// Makes a unit known.
    fn read_unit(&mut self, offset: u64) -> gimli::Result<()> {
        if let Some(known) = self.known.get_mut(&offset) {
            known.used = self.clock;
            return Ok(());
        }
        let all = self.store.fuel();
        self.store.set_fuel(all.min(WORK_A_UNIT));
        let read = self.read_new(offset);
        let spent = all.min(WORK_A_UNIT) - self.store.fuel();
        self.store.set_fuel(all - spent);
        let mut known = match read {
            Ok(known) => known,
            // It may be less than too much when there is more to spend.
            Err(error) if spent < WORK_A_UNIT && all == spent => return Err(error),
            Err(_) => Known::default(),
        };
        known.used = self.clock;
        self.units_memory += known.memory();
        self.known.insert(offset, known);
        while self.units_memory > self.budget / UNITS_PART && self.known.len() > 1 {
            let others = self.known.iter().filter(|(other, _)| **other != offset);
            let oldest = others.min_by_key(|(_, known)| known.used).map(|(oldest, _)| *oldest);
            let Some(removed) = oldest.and_then(|oldest| self.known.remove(&oldest)) else { break };
            self.units_memory = self.units_memory.saturating_sub(removed.memory());
        }
        Ok(())
    }

    fn read_new(&self, offset: u64) -> gimli::Result<Known> {
        let (store, code) = (&self.store, self.code);
        let header = Root::header(store, offset)?;
        let Some(root) = Root::read(store, &header)? else { return Ok(Known::default()) };
        let abbreviations = store.abbreviations(header.debug_abbrev_offset().0)?;
        let unit = Unit { store, root: &root, header: &header, abbreviations: &abbreviations, code };
        let functions = Functions::read(&unit)?;
        let lines = match root.line_program.map(|program| Lines::read(store, program, code)) {
            Some(Err(error)) if store.fuel() == 0 => return Err(error),
            lines => lines.and_then(Result::ok),
        };
        Ok(Known { root, functions, lines, ..Known::default() })
    }

    /// What is inlined into the function of a unit's entry.
    fn inlined(&mut self, offset: u64, entry: u32) -> gimli::Result<Option<&Inlined>> {
        let key = offset.saturating_add(entry.into());
        if !self.inlined.contains_key(&key) {
            let Some(known) = self.known.get(&offset) else { return Ok(None) };
            let store = &self.store;
            let header = Root::header(store, offset)?;
            let abbreviations = store.abbreviations(header.debug_abbrev_offset().0)?;
            let unit = Unit {
                store,
                root: &known.root,
                header: &header,
                abbreviations: &abbreviations,
                code: self.code,
            };
            let inlined = Inlined::read(&unit, entry)?;
            if self.inlined_memory > self.budget / INLINED_PART {
                self.inlined.clear();
                self.inlined_memory = 0;
            }
            self.inlined_memory += inlined.memory() + 64;
            self.inlined.insert(key, inlined);
        }
        Ok(self.inlined.get(&key))
    }

    /// The name of the function whose entry is there.
    fn name(&mut self, origin: Origin) -> gimli::Result<Option<Name>> {
        if let Some(name) = self.names.get(&origin) {
            return Ok(name.clone());
        }
        let fuel = self.store.fuel();
        if let Some((store, units)) = self.shared.as_mut().filter(|(store, _)| store.is_open()) {
            store.set_fuel(fuel);
            let read = units.read(store, self.code);
            self.store.set_fuel(store.fuel());
            read?;
        }
        let before = self.store.fuel();
        let own = Half { store: &self.store, units: &self.units };
        let shared = self.shared.as_ref().map(|(store, units)| Half { store, units });
        let name = names::name(&own, shared.as_ref(), origin);
        let spent = shared.map_or(0, |shared| before.saturating_sub(shared.store.fuel()));
        self.store.set_fuel(self.store.fuel().saturating_sub(spent));
        let name = match name {
            Err(error) if self.store.fuel() == 0 => return Err(error),
            name => name.unwrap_or(None).filter(|name| !name.is_empty()).map(line_of),
        };
        let name: Option<Name> = name.map(|line| (line.function, line.system_name));
        let length =
            |(readable, mangled): &Name| readable.len() + mangled.as_ref().map_or(0, |name| name.len());
        self.answers.count(name.as_ref().map_or(0, length));
        self.names.insert(origin, name.clone());
        Ok(name)
    }

    /// The path of a unit's file.
    fn path(&mut self, offset: u64, file: Option<u32>) -> gimli::Result<Option<Arc<str>>> {
        let Some(file) = file else { return Ok(None) };
        if let Some(path) = self.paths.get(&(offset, file)) {
            return Ok(path.clone());
        }
        let Some(known) = self.known.get(&offset) else { return Ok(None) };
        let Some(lines) = &known.lines else { return Ok(None) };
        let path = match lines.path(&self.store, &known.root, file) {
            Err(error) if self.store.fuel() == 0 => return Err(error),
            path => path.ok(),
        };
        self.answers.count(0);
        // Most units have most of their headers in common.
        let path = path.map(|path| self.answers.text(&path));
        self.paths.insert((offset, file), path.clone());
        Ok(path)
    }
}

#[cfg(test)]
mod tests;
