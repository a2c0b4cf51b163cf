//! Variables of which each thread has one: where a file says that theirs are found.

use object::elf::{self, FileHeader64, ProgramHeader64, Rela64};
use object::read::elf::{FileHeader as _, ProgramHeader as _, Rela as _};
use object::{Endianness, pod};

use super::{Elf, MAX_SEGMENTS};
use crate::symbolize::error::SymbolizeError;
use crate::symbolize::read_at::{ReadAt, read_vec, stream};

/// Bytes of relocations that are looked through.
const MAX_RELOCATIONS: u64 = 64 << 20;

/// How a file finds the variable of a thread. Addresses are the file's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadVariable {
    /// At the thread pointer and this.
    Static(u64),
    /// A word at the address has the distance from the thread pointer (the model initial-exec).
    Distance(u64),
    /// Two words at the address: the module's number, and the place in its data, if that is not known from the file (general and local
    /// dynamic).
    Module(u64, Option<u64>),
    /// Two words at the address: a function, and what it takes (TLSDESC).
    Descriptor(u64),
}

/// What relocations have it as, of a machine.
struct Kinds {
    descriptor: elf::RelocationType,
    module: elf::RelocationType,
    distance: elf::RelocationType,
    /// Bytes between the thread pointer and the program's data; `None`: the data is before it.
    reserved: Option<u64>,
}

impl Kinds {
    fn of(machine: elf::Machine) -> Option<Self> {
        match machine {
            elf::EM_X86_64 => Some(Self {
                descriptor: elf::R_X86_64_TLSDESC,
                module: elf::R_X86_64_DTPMOD64,
                distance: elf::R_X86_64_TPOFF64,
                reserved: None,
            }),
            elf::EM_AARCH64 => Some(Self {
                descriptor: elf::R_AARCH64_TLSDESC,
                module: elf::R_AARCH64_TLS_DTPMOD,
                distance: elf::R_AARCH64_TLS_TPREL,
                reserved: Some(16),
            }),
            _ => None,
        }
    }
}

impl Elf {
    /// Where the variable of that name of each thread is, which the file exports. `None`: it exports none.
    ///
    /// "ELF Handling For Thread-Local Storage" (Drepper) and the processors' supplements to the System V ABI.
    ///
    /// # Errors
    /// What reading symbols and relocations met.
    pub fn thread_variable(
        &self,
        source: &dyn ReadAt,
        name: &str,
    ) -> Result<Option<ThreadVariable>, Box<SymbolizeError>> {
        let (Some(kinds), true) = (Kinds::of(self.machine), self.is_little_endian()) else { return Ok(None) };
        let [Some(symbol)] = self.exported(source, [name])? else { return Ok(None) };
        let mut found = None;
        // One that names no symbol is of the file's own data, at the addend.
        let mut own = None;
        for section in self.sections.iter().filter(|section| section.kind == elf::SHT_RELA) {
            let size = section.size.min(MAX_RELOCATIONS);
            let entry = size_of::<Rela64<Endianness>>();
            stream(source, section.offset, size, entry, "relocations", |piece| {
                let read = pod::slice_from_bytes::<Rela64<Endianness>>(piece, piece.len() / entry);
                for rela in read.map_or(&[][..], |(relocations, _)| relocations) {
                    let (place, kind) = (rela.r_offset(self.endian), rela.r_type(self.endian, false));
                    let is_it = rela.r_sym(self.endian, false) == symbol.number;
                    let is_own = rela.r_sym(self.endian, false) == 0;
                    let addend = rela.r_addend(self.endian) as u64;
                    let variable = match kind {
                        kind if kind == kinds.descriptor => ThreadVariable::Descriptor(place),
                        kind if kind == kinds.distance => ThreadVariable::Distance(place),
                        kind if kind == kinds.module && is_it => ThreadVariable::Module(place, None),
                        kind if kind == kinds.module => ThreadVariable::Module(place, Some(symbol.value)),
                        _ => continue,
                    };
                    let is_module = matches!(variable, ThreadVariable::Module(..));
                    if is_it {
                        found = found.or(Some(variable));
                    } else if is_own && (is_module || addend == symbol.value) {
                        own = own.or(Some(variable));
                    }
                }
            })?;
        }
        let found = found.or(own);
        // Linkers resolve a program's own.
        if found.is_none() && self.entry != 0 {
            let place = self.place_in_program(source, symbol.value, &kinds)?;
            return Ok(place.map(ThreadVariable::Static));
        }
        Ok(found)
    }

    /// From the thread pointer to a place in the program's data for threads.
    fn place_in_program(
        &self,
        source: &dyn ReadAt,
        value: u64,
        kinds: &Kinds,
    ) -> Result<Option<u64>, Box<SymbolizeError>> {
        const SIZE: usize = size_of::<FileHeader64<Endianness>>();
        const ENTRY: usize = size_of::<ProgramHeader64<Endianness>>();
        let header = read_vec(source, 0, SIZE as u64, SIZE, "the ELF header")?;
        let Ok((header, _)) = pod::from_bytes::<FileHeader64<Endianness>>(&header) else { return Ok(None) };
        let (offset, count) = (header.e_phoff(self.endian), usize::from(header.e_phnum(self.endian)));
        let size = (count * ENTRY) as u64;
        let bytes = read_vec(source, offset, size, MAX_SEGMENTS * ENTRY, "program headers")?;
        let segments = pod::slice_from_bytes::<ProgramHeader64<Endianness>>(&bytes, count);
        let segments = segments.map_or(&[][..], |(segments, _)| segments);
        let Some(data) = segments.iter().find(|segment| segment.p_type(self.endian) == elf::PT_TLS) else {
            return Ok(None);
        };
        let align = data.p_align(self.endian).max(1);
        Ok(match kinds.reserved {
            Some(reserved) => reserved.checked_next_multiple_of(align).map(|start| start.wrapping_add(value)),
            None => {
                let size = data.p_memsz(self.endian).checked_next_multiple_of(align);
                size.map(|size| value.wrapping_sub(size))
            }
        })
    }
}
