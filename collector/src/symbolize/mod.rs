//! Addresses to names.
//!
//! [`Symbolizer`] is what the profiler needs; [`HostSymbolizer`] answers from the host that it runs on. What
//! parses is pure and takes bytes; what reads the host is called `read_*` and takes a [`Host`], so that tests
//! stand in a tree of their own. See `docs/symbolizer.md` for what it costs, and why it is no library's.

#[cfg(feature = "dwarf")]
mod answers;
#[cfg(feature = "unwind")]
mod code;
#[cfg(feature = "dwarf")]
mod debug_file;
#[cfg(feature = "debuginfod")]
pub mod debuginfod;
#[cfg(not(feature = "debuginfod"))]
#[path = "debuginfod/absent.rs"]
mod debuginfod;
#[cfg(feature = "symbols")]
mod demangle;
#[cfg(feature = "dwarf")]
mod details;
#[cfg(feature = "dwarf")]
mod dwarf;
pub mod elf;
mod error;
#[cfg(feature = "symbols")]
mod file_names;
mod files;
pub mod fuzz;
#[cfg(feature = "dwarf")]
mod go;
mod host;
mod host_symbolizer;
mod jit;
#[cfg(feature = "dwarf")]
mod jit_dump;
pub mod kernel;
mod kernel_names;
pub mod maps;
#[cfg(feature = "unwind")]
pub(crate) mod memory;
pub mod perf_map;
pub mod process;
pub mod read_at;
pub mod sideband;

use std::sync::Arc;

#[cfg(feature = "unwind")]
pub(crate) use code::Code;
pub use debuginfod::Debuginfod;
#[cfg(feature = "symbols")]
pub use demangle::demangle;
pub use error::SymbolizeError;
#[cfg(feature = "symbols")]
pub(crate) use file_names::{FileNames, NamedFile};
#[cfg(any(feature = "symbols", feature = "unwind"))]
pub(crate) use files::FileNo;
pub use host::{Host, Place, read_limited};
#[cfg(feature = "symbols")]
pub(crate) use host_symbolizer::Located;
pub use host_symbolizer::{HostSymbolizer, SymbolizerLosses};
#[cfg(feature = "symbols")]
pub(crate) use kernel_names::{KernelChange, KernelNames};

use crate::model::{FrameKind, Line, Mapping};

/// Memory for symbol tables and the names that were asked for.
pub const DEFAULT_BUDGET: usize = 16 << 20;

/// The readable form of a symbol: none, in a build that looks for no names.
#[cfg(not(feature = "symbols"))]
pub fn demangle(_: &str) -> Option<String> {
    None
}

/// A function without its source line.
fn line_of(name: String) -> Line {
    match demangle(&name) {
        Some(readable) => {
            Line { function: readable.into(), system_name: Some(name.into()), file: None, line: 0 }
        }
        None => Line { function: name.into(), system_name: None, file: None, line: 0 },
    }
}

/// Whose address it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressSpace {
    /// The kernel's.
    Kernel,
    /// A process'.
    User {
        /// Process id in the agent's pid namespace.
        pid: u32,
        /// When the sample was taken, in the clock of the sideband records; later where it is not known better, and
        /// `u64::MAX` for the latest program of the process. A program that it executed before is taken where that
        /// one does not map the address.
        time: u64,
    },
}

/// What an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Kernel, native or JIT code.
    pub kind: FrameKind,
    /// The file, or the part of the kernel, that it lies in.
    pub mapping: Option<Mapping>,
    /// ELF virtual address in that file; the runtime address for the kernel and JIT code, and where the file
    /// cannot be read.
    pub address: u64,
    /// The function, preceded by those inlined into it; empty where no name is known.
    pub lines: Arc<[Line]>,
    /// Why there is no name.
    pub miss: Option<Miss>,
}

/// Why an address has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Miss {
    /// The process ended before anything was known about it.
    UnknownProcess,
    /// The process has nothing executable there.
    NotMapped,
    /// The memory belongs to no file, and no perf map names it.
    Anonymous,
    /// The file cannot be opened, or is not the one that was mapped.
    FileUnavailable,
    /// The file is no ELF file, or is broken.
    NotElf,
    /// The file has no function there in its symbol tables.
    NoSymbol,
    /// This build looks for no names in files (feature `symbols`).
    NotBuiltIn,
    /// The kernel shows no addresses to this user.
    KernelHidden,
    /// The kernel lists no function there, or has no `/proc/kallsyms`.
    KernelUnknown,
}

impl Miss {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 9] = [
        Self::UnknownProcess,
        Self::NotMapped,
        Self::Anonymous,
        Self::FileUnavailable,
        Self::NotElf,
        Self::NoSymbol,
        Self::NotBuiltIn,
        Self::KernelHidden,
        Self::KernelUnknown,
    ];

    /// A short text for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownProcess => "process ended before it was seen",
            Self::NotMapped => "not mapped",
            Self::Anonymous => "anonymous memory without a perf map",
            Self::FileUnavailable => "file gone or replaced",
            Self::NotElf => "not an ELF file",
            Self::NoSymbol => "no symbol",
            Self::NotBuiltIn => "left to the backend",
            Self::KernelHidden => "kernel addresses hidden",
            Self::KernelUnknown => "no kernel symbol",
        }
    }
}

/// Turns addresses into names.
///
/// A return address is the address after the call: give the address minus one for every frame but the leaf, or
/// a call at the end of a function gets the name of the next one.
pub trait Symbolizer {
    /// Begins a batch of addresses. `now` is in nanoseconds of a clock that only goes forward; what changes
    /// (maps of processes, kernel symbols, perf maps) is read again at most once a batch.
    fn begin_window(&mut self, now: u64);

    /// Names one address.
    fn resolve(&mut self, space: AddressSpace, address: u64) -> Resolved;

    /// Ends a batch: closes files, and forgets processes that ended before `before`, in the clock of the
    /// sideband records.
    fn end_window(&mut self, before: u64);
}

#[cfg(all(test, feature = "symbols"))]
mod live_tests;
#[cfg(all(test, feature = "dwarf"))]
mod testing;

#[cfg(all(test, not(feature = "symbols")))]
mod tests {
    use super::*;

    /// What a backend needs to find the name.
    #[test]
    fn without_names_there_are_files_and_addresses() {
        let mut symbolizer = HostSymbolizer::new(Host::default());
        symbolizer.begin_window(0);
        let own = without_names_there_are_files_and_addresses as fn() as usize as u64;
        let space = AddressSpace::User { pid: std::process::id(), time: u64::MAX };
        let resolved = symbolizer.resolve(space, own);
        assert_eq!((resolved.lines.len(), resolved.miss), (0, Some(Miss::NotBuiltIn)));
        let mapping = resolved.mapping.unwrap();
        assert!(mapping.memory_start <= own && own < mapping.memory_limit);
        assert_eq!(std::path::Path::new(&*mapping.path), std::env::current_exe().unwrap());
    }
}
