//! Instruction positions and symbolic operands.

use std::fmt;

use crate::elf::SymbolIdx;
use crate::object::MapIdx;

/// Index of an instruction slot in a program or section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct InsnIdx(pub u32);

impl fmt::Display for InsnIdx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an instruction refers to that has no number until load: kept beside the instructions, sorted by place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand {
    /// A 64-bit load of a map.
    Map(MapIdx),
    /// A 64-bit load of an address inside the single value of a data map.
    MapValue {
        /// The data section's map.
        map: MapIdx,
        /// Bytes into the value.
        offset: u32,
    },
    /// A 64-bit load of a kernel variable's or function's address whose first half names it by its id in the BTF of a module:
    /// [`ProgramCode::modules`](crate::plan::ProgramCode::modules) has the module at this index.
    ModuleBtf(u32),
    /// A 64-bit load of, or a call to, something outside the object: ksym, kconfig value or kfunc.
    Extern {
        /// The undefined symbol.
        symbol: SymbolIdx,
        /// The instruction is a call.
        call: bool,
    },
}
