//! Executables and libraries that uprobes go into: where they are, and at which byte of the file a function begins.

mod elf;

use crate::text;
use std::env;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub(super) use elf::Segment;
use elf::{Elf, Read, ReadAt, Symbol};

use super::{glob, tracefs};
use crate::error::{Error, Result};

/// `SHT_*` of the symbol tables.
const SYMTAB: u32 = 2;
const DYNSYM: u32 = 11;
const GNU_VERDEF: u32 = 0x6fff_fffd;
const GNU_VERSYM: u32 = 0x6fff_ffff;

/// Finds the file. A path with a slash is taken as it is.
pub(super) fn resolve(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.to_str().filter(|name| !name.as_bytes().contains(&b'/')) else {
        return Ok(path.to_owned());
    };
    let library = name.ends_with(".so") || text::contains(name, ".so.");
    let (variable, usual) = if library {
        ("LD_LIBRARY_PATH", ["/usr/lib64", "/usr/lib", LIBRARIES, "/lib64"].as_slice())
    } else {
        ("PATH", ["/usr/bin", "/usr/sbin"].as_slice())
    };
    let directories = env::var_os(variable);
    let directories = directories.iter().flat_map(env::split_paths).chain(usual.iter().map(PathBuf::from));
    search(directories, name, library).ok_or_else(|| {
        Box::new(Error::File {
            path: path.to_owned(),
            reason: format!("not found in {variable} or the system"),
        })
    })
}

/// Where Debian's multiarch has this architecture's libraries.
const LIBRARIES: &str = if cfg!(target_arch = "aarch64") {
    "/lib/aarch64-linux-gnu"
} else if cfg!(target_arch = "riscv64") {
    "/lib/riscv64-linux-gnu"
} else if cfg!(target_arch = "s390x") {
    "/lib/s390x-linux-gnu"
} else if cfg!(target_arch = "arm") {
    "/lib/arm-linux-gnueabihf"
} else if cfg!(target_arch = "x86") {
    "/lib/i386-linux-gnu"
} else {
    "/lib/x86_64-linux-gnu"
};

fn search(directories: impl Iterator<Item = PathBuf>, name: &str, library: bool) -> Option<PathBuf> {
    directories.filter(|directory| !directory.as_os_str().is_empty()).map(|d| d.join(name)).find(|file| {
        let fits = |m: std::fs::Metadata| m.is_file() && (library || m.permissions().mode() & 0o111 != 0);
        std::fs::metadata(file).is_ok_and(fits)
    })
}

/// A file to probe.
#[derive(Debug)]
pub(super) struct Binary {
    path: PathBuf,
    pub(super) elf: Elf<File>,
}

impl Binary {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| tracefs::file_error(path, &e))?;
        let elf = Elf::parse(file).map_err(|e| broken(path, e))?;
        Ok(Self { path: path.to_owned(), elf })
    }

    pub(super) fn broken(&self, reason: &'static str) -> Box<Error> {
        broken(&self.path, reason)
    }

    /// At which byte a function begins. The dynamic symbols come first: a stripped library has no others.
    pub(super) fn function_offset(&self, name: &str) -> Result<u64> {
        let no_such = || Box::new(Error::NoSuchSymbol { path: self.path.clone(), name: name.into() });
        for table in [DYNSYM, SYMTAB] {
            match find(&self.elf, table, name).map_err(|e| self.broken(e))? {
                Found::None => {}
                Found::One(offset) => return Ok(offset),
                Found::Ambiguous => {
                    return Err(Box::new(Error::AttachTarget {
                        target: format!("{name} in {}", self.path.display()),
                        reason: "several functions have that name",
                    }));
                }
            }
        }
        Err(no_such())
    }

    /// Where all functions begin whose names match.
    pub(super) fn matching_offsets(&self, pattern: &str) -> Result<Vec<u64>> {
        for table in [SYMTAB, DYNSYM] {
            let offsets = matching(&self.elf, table, pattern).map_err(|e| self.broken(e))?;
            if !offsets.is_empty() {
                return Ok(offsets);
            }
        }
        Err(Box::new(Error::NoSuchSymbol { path: self.path.clone(), name: pattern.into() }))
    }
}

fn broken(path: &Path, reason: &'static str) -> Box<Error> {
    Box::new(Error::File { path: path.to_owned(), reason: reason.into() })
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    None,
    One(u64),
    Ambiguous,
}

/// Runs `each` on the functions of a symbol table: number, name, symbol, and byte of the file.
fn functions<R: ReadAt>(
    elf: &Elf<R>,
    table: u32,
    mut each: impl FnMut(usize, &[u8], &Symbol, u64),
) -> Read<()> {
    let Some(section) = elf.sections.iter().find(|s| s.kind == table) else { return Ok(()) };
    let symbols = elf.data(section)?;
    let names = elf.linked(section)?;
    for (number, symbol) in elf.symbols(&symbols).enumerate() {
        let section = elf.sections.get(usize::from(symbol.section)).filter(|_| symbol.section != 0);
        let (Some(section), true) = (section, symbol.is_function()) else { continue };
        let (Some(name), Some(offset)) = (elf::text(&names, symbol.name), section.file_offset(symbol.value))
        else {
            continue;
        };
        each(number, name, &symbol, offset);
    }
    Ok(())
}

fn find<R: ReadAt>(elf: &Elf<R>, table: u32, wanted: &str) -> Read<Found> {
    let (wanted, version) = match wanted.split_once('@') {
        Some((name, version)) => (name, Some(version.trim_start_matches('@'))),
        None => (wanted, None),
    };
    let versions =
        if version.is_some() && table == DYNSYM { Versions::read(elf)? } else { Versions::default() };
    let mut found = Found::None;
    let mut found_weak = false;
    functions(elf, table, |number, name, symbol, offset| {
        // Names in .symtab can have their version with them, as "memcpy@@GLIBC_2.14".
        let at = name.iter().position(|b| *b == b'@').unwrap_or(name.len());
        let (name, own) = name.split_at(at);
        if name != wanted.as_bytes() {
            return;
        }
        if let Some(version) = version {
            let own = match own.iter().position(|b| *b != b'@') {
                Some(start) => own.get(start..),
                None => versions.of(elf, number),
            };
            if own != Some(version.as_bytes()) {
                return;
            }
        }
        let weak = symbol.is_weak();
        match found {
            Found::None => found = Found::One(offset),
            Found::One(other) if other == offset => return,
            // A strong symbol counts before a weak one.
            Found::One(_) if found_weak && !weak => found = Found::One(offset),
            Found::One(_) if weak => return,
            _ => found = Found::Ambiguous,
        }
        found_weak = weak;
    })?;
    Ok(found)
}

fn matching<R: ReadAt>(elf: &Elf<R>, table: u32, pattern: &str) -> Read<Vec<u64>> {
    let mut offsets = Vec::new();
    functions(elf, table, |_, name, _, offset| {
        if glob::matches(pattern.as_bytes(), name) {
            offsets.push(offset);
        }
    })?;
    offsets.sort_unstable();
    offsets.dedup();
    Ok(offsets)
}

/// Versions of the dynamic symbols (`.gnu.version`, `.gnu.version_d`).
#[derive(Debug, Default)]
struct Versions {
    /// Two bytes a symbol.
    numbers: Vec<u8>,
    /// Number and name's offset of each.
    definitions: Vec<(u16, u32)>,
    names: Vec<u8>,
}

impl Versions {
    fn read<R: ReadAt>(elf: &Elf<R>) -> Read<Self> {
        let section = |kind| elf.sections.iter().find(|s| s.kind == kind);
        let (Some(numbers), Some(definitions)) = (section(GNU_VERSYM), section(GNU_VERDEF)) else {
            return Ok(Self::default());
        };
        let mut versions =
            Self { numbers: elf.data(numbers)?, definitions: Vec::new(), names: elf.linked(definitions)? };
        let definitions = elf.data(definitions)?;
        let bytes = elf.bytes(&definitions);
        let mut at = Some(0usize);
        // Elf64_Verdef: vd_version, vd_flags, vd_ndx, vd_cnt, vd_hash, vd_aux, vd_next.
        while let Some(entry) = at.and_then(|at| bytes.tail(at)) {
            let (Some(number), Some(aux), Some(next)) = (entry.u16(4), entry.u32(12), entry.u32(16)) else {
                break;
            };
            if let Some(name) = entry.u32(aux as usize) {
                versions.definitions.push((number, name));
            }
            // There are no more numbers than that.
            if next == 0 || versions.definitions.len() > 0x7fff {
                break;
            }
            at = at.and_then(|at| at.checked_add(next as usize));
        }
        Ok(versions)
    }

    /// Name of the version of a symbol by its number.
    fn of<R: ReadAt>(&self, elf: &Elf<R>, symbol: usize) -> Option<&[u8]> {
        let number = elf.bytes(&self.numbers).u16(symbol.checked_mul(2)?)? & 0x7fff;
        let (_, name) = self.definitions.iter().find(|(n, _)| *n == number)?;
        elf::text(&self.names, *name)
    }
}

#[cfg(test)]
mod tests;
