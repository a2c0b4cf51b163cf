//! What an object refers to outside itself: values of the kernel's configuration, and the kernel's symbols, variables and
//! functions.
//!
//! The symbol table says which there are, and the sections `.kconfig` and `.ksyms` of the object's BTF of what kind. They
//! are resolved for the programs that a plan contains: what no program of it refers to is never missed. The rules are
//! those of libbpf (`bpf_object__collect_externs` and `bpf_object__resolve_externs`).

pub mod kconfig;
mod resolve;

#[cfg(all(test, feature = "all-objects"))]
mod tests;

use std::fmt;

use crate::ALL_OBJECTS;
use crate::btf::{Btf, BtfId, Kind, Linkage};
use crate::elf::{Binding, Elf, SymbolIdx, SymbolKind, SymbolSection};
use crate::error::{Error, Result};
use crate::fuel::Fuel;
use crate::sorted::SortedMap;
use kconfig::Variable;
pub(crate) use resolve::{Applied, Resolved};

/// What an extern is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExternKind {
    /// Nobody knows: the object's BTF declares no such extern.
    Undeclared,
    /// A value of the kernel's configuration, or something that counts as one.
    Kconfig,
    /// A kernel symbol of which only the address is asked for.
    Symbol,
    /// A variable of the kernel, by its type.
    Variable,
    /// A function of the kernel.
    Function,
}

impl fmt::Display for ExternKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Undeclared => "extern",
            Self::Kconfig => "kernel configuration value",
            Self::Symbol => "kernel symbol",
            Self::Variable => "kernel variable",
            Self::Function => "kernel function",
        })
    }
}

/// Why an extern cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExternFault {
    /// The object's BTF has no extern of that name in `.kconfig` or `.ksyms`.
    Undeclared,
    /// A value of the configuration in a variable of a type that none can have.
    Type,
    /// The values of `.kconfig` would be too large together.
    TooLarge,
    /// It is not where it would be.
    NotFound {
        /// Where it was looked for.
        searched: &'static str,
    },
    /// There is nowhere to look for it.
    NowhereToLook {
        /// What the target lacks.
        missing: &'static str,
    },
    /// What it was looked for in cannot be read.
    Read {
        /// Why not.
        error: Box<Error>,
    },
    /// The configuration has a value that the variable cannot hold.
    Value {
        /// The value.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The kernel has something of that name, but of another type.
    Incompatible {
        /// Its id in the kernel's BTF, or the module's.
        id: BtfId,
        /// The module, if it is in one.
        module: Option<String>,
    },
    /// It is called, but is no function.
    NotAFunction,
    /// More modules have functions that the program calls than an instruction can number.
    TooManyModules,
}

impl fmt::Display for ExternFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undeclared => {
                f.write_str("the object's BTF has no such extern in .kconfig or .ksyms")
            }
            Self::Type => f.write_str(
                "its type is not bool, enum libbpf_tristate, char, an integer of 2, 4 or 8 bytes or an array of char",
            ),
            Self::TooLarge => write!(f, "the values of .kconfig have more than {MAX_KCONFIG} bytes"),
            Self::NotFound { searched } => write!(f, "it is not in {searched}"),
            Self::NowhereToLook { missing } => write!(f, "there is no {missing} to look for it in"),
            Self::Read { error } => fmt::Display::fmt(error, f),
            Self::Value { value, problem } => write!(f, "value {value}: {problem}"),
            Self::Incompatible { id, module } => {
                let module = module.as_deref().unwrap_or("the kernel");
                write!(f, "its type is not that of type {id} of {module}")
            }
            Self::NotAFunction => f.write_str("it is called, but is no function"),
            Self::TooManyModules => write!(f, "functions of more than {} modules are called", i16::MAX),
        }
    }
}

/// Bytes of `.kconfig`. An option has a few, a long string a few hundred.
const MAX_KCONFIG: u32 = 256 << 10;

/// An undefined symbol that the object's BTF declares.
#[derive(Debug, Clone)]
pub struct Extern<'a> {
    /// Its name.
    pub name: &'a str,
    /// Missing, it is zero and not an error.
    pub weak: bool,
    pub(crate) symbol: SymbolIdx,
    declared: Declared,
}

#[derive(Debug, Clone, Copy)]
enum Declared {
    Kconfig(Variable),
    /// Of `.kconfig`, but of a type that it cannot have, or out of bounds.
    BadKconfig {
        too_large: bool,
    },
    Symbol,
    /// The variable's type without qualifiers.
    Variable(BtfId),
    /// The prototype.
    Function(BtfId),
}

impl Extern<'_> {
    /// What it is.
    pub fn kind(&self) -> ExternKind {
        match self.declared {
            Declared::Kconfig(_) | Declared::BadKconfig { .. } => ExternKind::Kconfig,
            Declared::Symbol => ExternKind::Symbol,
            Declared::Variable(_) => ExternKind::Variable,
            Declared::Function(_) => ExternKind::Function,
        }
    }

    /// For a value of the configuration: its place in the map `.kconfig`.
    pub fn kconfig(&self) -> Option<Variable> {
        match self.declared {
            Declared::Kconfig(variable) => Some(variable),
            _ => None,
        }
    }

    fn fail(&self, reason: ExternFault) -> Box<Error> {
        Box::new(Error::Extern { name: self.name.into(), kind: self.kind(), reason })
    }
}

/// The externs of an object, in libbpf's order: the markers of calls that must not be reached count in it.
#[derive(Debug, Default)]
pub(crate) struct Externs<'a> {
    all: Vec<Extern<'a>>,
    /// Indices into `all` by symbol, sorted.
    by_symbol: Vec<(SymbolIdx, u32)>,
}

/// A section of externs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Kconfig,
    Ksyms,
}

impl<'a> Externs<'a> {
    /// Finds the externs that both the symbol table and BTF know. What is wrong with one is an error of the program that
    /// refers to it.
    pub fn collect(elf: &Elf<'a>, btf: Option<&Btf<'_>>) -> Self {
        if !ALL_OBJECTS {
            return Self::default();
        }
        let undefined = elf.symbols().filter_map(|s| s.ok()).filter(|(_, symbol)| {
            symbol.section == SymbolSection::Undefined
                && symbol.binding != Binding::Local
                && symbol.kind == SymbolKind::None
                && !symbol.name.is_empty()
        });
        let mut undefined = undefined.peekable();
        let Some(btf) = btf.filter(|_| undefined.peek().is_some()) else { return Self::default() };
        // Names may be as long as the file, and shared by all: what is left out then is undeclared.
        let mut fuel = Fuel::OBJECT.clone();
        let declared = declarations(btf, &mut fuel);
        let mut all = Vec::new();
        for (symbol, found) in undefined {
            if fuel.spend_name(found.name.len()).is_err() {
                break;
            }
            let Some(&(section, id)) = declared.get(found.name.as_bytes()) else { continue };
            if let Ok(Some(declared)) = declaration(btf, section, id) {
                let weak = found.binding == Binding::Weak;
                all.push(Extern { name: found.name, weak, symbol, declared });
            }
        }
        Self::of(all)
    }

    fn of(mut all: Vec<Extern<'a>>) -> Self {
        // By alignment, the greatest first, so that there are no gaps; then by size and name.
        all.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.name.cmp(b.name)));
        let mut end = 0u32;
        for one in &mut all {
            let Declared::Kconfig(variable) = &mut one.declared else { continue };
            let placed = end.checked_next_multiple_of(variable.align().max(1));
            let placed = placed.and_then(|at| Some((at, at.checked_add(variable.size)?)));
            match placed.filter(|&(_, next)| next <= MAX_KCONFIG) {
                Some((at, next)) => (variable.offset, end) = (at, next),
                None => one.declared = Declared::BadKconfig { too_large: true },
            }
        }
        let mut by_symbol: Vec<_> = all.iter().zip(0..).map(|(one, i)| (one.symbol, i)).collect();
        by_symbol.sort_unstable();
        Self { all, by_symbol }
    }

    /// All of them.
    pub fn all(&self) -> &[Extern<'a>] {
        if ALL_OBJECTS { &self.all } else { &[] }
    }

    /// The extern that a symbol stands for, and its index.
    fn of_symbol(&self, symbol: SymbolIdx) -> Option<(usize, &Extern<'a>)> {
        let at = self.by_symbol.binary_search_by_key(&symbol, |&(s, _)| s).ok()?;
        let index = self.by_symbol.get(at)?.1 as usize;
        Some((index, self.all.get(index)?))
    }

    /// Bytes of the map `.kconfig`, 0 if the object needs none.
    pub fn kconfig_size(&self) -> u32 {
        let ends = self.all().iter().filter_map(|e| e.kconfig()).map(|v| v.offset.saturating_add(v.size));
        ends.max().unwrap_or(0)
    }
}

/// libbpf's order: configuration first, and within it by alignment and size.
fn order(one: &Extern<'_>) -> (u8, u32, u32) {
    match one.declared {
        Declared::Kconfig(variable) => (0, u32::MAX - variable.align(), variable.size),
        Declared::Symbol | Declared::Variable(_) | Declared::Function(_) => (1, 0, 0),
        Declared::BadKconfig { .. } => (2, 0, 0),
    }
}

/// The external variables and functions of `.kconfig` and `.ksyms` by name.
fn declarations<'b>(btf: &'b Btf<'_>, fuel: &mut Fuel) -> SortedMap<&'b [u8], (Section, BtfId)> {
    let mut found = SortedMap::new();
    for datasec in btf.types_of(Kind::Datasec) {
        let section = match datasec.name_bytes() {
            Ok(b".kconfig") => Section::Kconfig,
            Ok(b".ksyms") => Section::Ksyms,
            _ => continue,
        };
        for row in datasec.section_vars() {
            let Ok(ty) = btf.type_by_id(row.type_id) else { continue };
            match fuel.name(btf, ty.name_offset()) {
                Ok(name) => {
                    found.entry(name).or_insert((section, ty.id()));
                }
                Err(error) if matches!(*error, Error::TooComplex { .. }) => return found,
                Err(_) => {}
            }
        }
    }
    found
}

fn declaration(btf: &Btf<'_>, section: Section, id: BtfId) -> Result<Option<Declared>> {
    let ty = btf.type_by_id(id)?;
    Ok(match (section, ty.kind()) {
        (Section::Ksyms, Kind::Func) if ty.func_linkage() == Some(Linkage::Extern) => {
            Some(Declared::Function(ty.referred()))
        }
        (_, Kind::Var) if ty.var_linkage() == Some(Linkage::Extern) => Some(match section {
            Section::Kconfig => match Variable::of(btf, ty.referred())? {
                Some(variable) => Declared::Kconfig(variable),
                None => Declared::BadKconfig { too_large: false },
            },
            Section::Ksyms => match btf.skip_mods_and_typedefs(ty.referred())?.id() {
                BtfId::VOID => Declared::Symbol,
                type_id => Declared::Variable(type_id),
            },
        }),
        _ => None,
    })
}
