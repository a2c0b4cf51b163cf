//! Global variables of data sections.

use std::marker::PhantomData;
use std::sync::Arc;

use bpf_sys::MapType;
use bpf_sys::shared::SharedMapping;

use super::{Map, Pod};
use crate::elf::{Binding, SectionIdx, SymbolKind, SymbolSection};
use crate::error::{Error, Result};
use crate::map_def::MapSpec;
use crate::object::{MapIdx, ObjectSpec};
use crate::sorted::SortedMap;

/// Where a variable lies in its data section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable<N = String> {
    pub name: N,
    /// In bytes.
    pub offset: u32,
    pub size: u32,
}

impl Variable<&str> {
    pub fn to_owned(&self) -> Variable {
        Variable { name: self.name.to_owned(), offset: self.offset, size: self.size }
    }
}

/// Longer names are no variable's; one that is as long as the file must not be copied for each symbol that has it.
const MAX_NAME: usize = 512;

impl<'a> ObjectSpec<'a> {
    /// Notes the global variables of those maps that hold data sections.
    pub(crate) fn fill_variables(&self, maps: &mut [(MapIdx, MapSpec<'a>)]) {
        let mut by_section: SortedMap<SectionIdx, &mut MapSpec<'a>> =
            maps.iter_mut().filter_map(|(_, map)| Some((map.data_section?, map))).collect();
        if by_section.is_empty() {
            return;
        }
        for (_, symbol) in self.elf.symbols().filter_map(|s| s.ok()) {
            let SymbolSection::Section(section) = symbol.section else { continue };
            let Some(map) = by_section.get_mut(&section) else { continue };
            let end = symbol.value.checked_add(symbol.size).filter(|&end| end <= map.data_size());
            if symbol.kind == SymbolKind::Object
                && symbol.binding != Binding::Local
                && symbol.name.len() <= MAX_NAME
                && end.is_some()
            {
                // Both fit, as their sum does.
                let (offset, size) = (map.data_offset + symbol.value as u32, symbol.size as u32);
                map.variables.push(Variable { name: symbol.name, offset, size });
            }
        }
    }
}

/// A global variable of a loaded object, in mapped memory.
///
/// An aligned variable no wider than a pointer is read and written whole; of a wider one, a program's write may be seen in
/// part.
#[derive(Debug)]
pub struct Global<V> {
    section: Arc<SharedMapping>,
    offset: usize,
    name: String,
    types: PhantomData<fn() -> V>,
}

impl<V: Pod> Global<V> {
    fn new(map: &Map, variable: &Variable) -> Result<Self> {
        if variable.size as usize != size_of::<V>() {
            let size = u64::from(variable.size);
            return Err(Box::new(Error::VariableSize {
                name: variable.name.clone(),
                size,
                given: size_of::<V>(),
            }));
        }
        // A frozen section cannot be mapped writable.
        let section = match &map.arena {
            Some(arena) => Arc::clone(arena),
            None if map.map_type() == MapType::ARENA => Arc::new(SharedMapping::arena(&map.fd)?),
            None => {
                let mapped = SharedMapping::array(&map.fd, true);
                Arc::new(mapped.or_else(|_| SharedMapping::array(&map.fd, false))?)
            }
        };
        let (offset, name) = (variable.offset as usize, variable.name.clone());
        Ok(Self { section, offset, name, types: PhantomData })
    }

    /// Its value.
    pub fn get(&self) -> V {
        let mut value = V::new_zeroed();
        // It is inside, as was checked when the object was planned.
        let _ = self.section.copy_out(self.offset, value.as_mut_bytes());
        value
    }

    /// Sets its value.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnlyVariable`]: its section is frozen, as `.rodata` is.
    pub fn set(&self, value: &V) -> Result<()> {
        let done = self.section.copy_in(self.offset, value.as_bytes());
        done.ok_or_else(|| Box::new(Error::ReadOnlyVariable { name: self.name.clone() }))
    }
}

impl Map {
    /// A variable of the data section that this map holds, or of this arena.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchVariable`]; [`Error::VariableSize`]: it is not as long as `V`. `EPERM`: the map's descriptor may not
    /// read.
    pub fn global<V: Pod>(&self, name: &str) -> Result<Global<V>> {
        let variable = self.variables.iter().find(|v| v.name == name);
        Global::new(self, variable.ok_or_else(|| Error::NoSuchVariable { name: name.into() })?)
    }
}
