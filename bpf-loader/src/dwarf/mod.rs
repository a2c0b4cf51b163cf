//! Types of a kernel from its debug information (DWARF), for kernels that carry no BTF.
//!
//! What `pahole -J` does, as far as CO-RE needs it: every C type of every unit becomes BTF, each once. Functions and variables
//! are left out: whoever names them needs BTF in the running kernel.
//!
//! A unit is read at a time into a graph of its types (`graph`), which is then told apart from what other units had
//! (`convert`, `types`). A kernel has 3,000 units that repeat each other's types a thousandfold, so memory is that of
//! what they have in common.
//!
//! Facts: DWARF 2 to 5, sections 5 (type entries) and 7 (encodings).

mod convert;
mod graph;
mod sections;
#[cfg(test)]
mod tests;
mod types;

use crate::error::{Error, Result};
use graph::{Failure, Graph};
use sections::Sections;
use types::Types;

/// The sections that types are made of.
pub(crate) const SECTIONS: [&str; 5] =
    [".debug_info", ".debug_abbrev", ".debug_str", ".debug_line_str", ".debug_str_offsets"];

/// What became of debug information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The types, for [`Btf::parse`](crate::btf::Btf::parse).
    pub btf: Vec<u8>,
    /// Members, enumerators and sizes that BTF has no room for (a place that is computed, 2 MiB behind a bit-field), so that
    /// their types are without them.
    pub left_out: u64,
}

/// Makes BTF from the debug information of an ELF file: a `vmlinux`, a kernel module, any object of C.
///
/// Units in other languages than C are passed over. Arrays of several dimensions are arrays of arrays, as clang has them
/// (pahole makes one of their product). Type tags and declaration tags are left out. The file may be of any machine, its sections
/// compressed, their relocations applied or not.
///
/// # Errors
///
/// `Elf`; `NoDwarf` if there is none, if no unit of C has types, or if they are elsewhere (split into `.dwo` files or type
/// units); `Dwarf` if it makes no sense; `TooComplex` if there are more types than any kernel has, or more attributes than
/// compilers put into so many bytes.
pub fn dwarf_to_btf(elf: &[u8]) -> Result<Converted> {
    convert_sections(&Sections::read(elf)?)
}

fn convert_sections(sections: &Sections<'_>) -> Result<Converted> {
    // Units refer to each other only after link-time optimization, or once a tool has joined what they have in common. Then all
    // are one graph.
    match convert_units(sections) {
        Err(Failure::OtherUnit) => convert_together(sections),
        Err(Failure::Error(error)) => Err(error),
        Ok(converted) => Ok(converted),
    }
}

fn convert_units(sections: &Sections<'_>) -> std::result::Result<Converted, Failure> {
    let mut types = Types::new(sections.endian(), sections.steps());
    let mut graph = Graph::default();
    let mut units = sections.units();
    while let Some(unit) = units.next()? {
        graph.clear();
        graph.read(sections, &unit, &mut types, false)?;
        convert::convert(&graph, &mut types)?;
    }
    Ok(types.finish()?)
}

fn convert_together(sections: &Sections<'_>) -> Result<Converted> {
    let whole = || -> std::result::Result<Converted, Failure> {
        let mut types = Types::new(sections.endian(), sections.steps());
        let mut graph = Graph::default();
        let mut units = sections.units();
        while let Some(unit) = units.next()? {
            graph.read(sections, &unit, &mut types, true)?;
        }
        convert::convert(&graph, &mut types)?;
        Ok(types.finish()?)
    };
    whole().map_err(|failure| match failure {
        Failure::Error(error) => error,
        Failure::OtherUnit => Box::new(Error::Internal("units of a graph of all")),
    })
}
