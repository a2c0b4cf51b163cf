//! Sections by their names, for what is not symbols.

use object::elf;

use super::Elf;

/// Where a section with content is in the file, and in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::symbolize) struct Place {
    pub address: u64,
    pub offset: u64,
    pub size: u64,
    pub compressed: bool,
}

impl Elf {
    /// The section of that name, if its content is in the file.
    pub(in crate::symbolize) fn section(&self, name: &[u8]) -> Option<Place> {
        let section = self.section_named(name).filter(|section| section.kind != elf::SHT_NOBITS)?;
        Some(Place {
            address: section.address,
            offset: section.offset,
            size: section.size,
            compressed: section.compressed,
        })
    }

    /// Whether the file has functions' names for debuggers, of which those for the linker are a part.
    pub(in crate::symbolize) fn has_symbols(&self) -> bool {
        self.section_of_kind(elf::SHT_SYMTAB).is_some()
    }

    /// Where the code begins and ends, from the first executable section to the last.
    pub(in crate::symbolize) fn code(&self) -> Option<(u64, u64)> {
        let code = self.sections.iter().filter(|section| section.executable && section.size > 0);
        let end = code.clone().map(super::Section::end).max()?;
        Some((code.map(|section| section.address).min()?, end))
    }
}
