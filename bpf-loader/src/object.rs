//! Bytes of an object file to an [`ObjectSpec`]: what is in it, before any kernel is asked.
//!
//! Parsing is tolerant on purpose: what nobody asks to load must not fail the object. Symbols that relocations
//! name are looked up only when a program that contains them is planned.

use crate::stable_sort::sort_by_number;
use std::ops::Range;

use bpf_sys::uapi::insn::Insn;

use crate::attach_to::TargetProgram;
use crate::btf::Btf;
use crate::btf::ext::BtfExt;
use crate::bytes::{Bytes, Endian};
use crate::elf::{
    Binding, Elf, Relocation, Section, SectionIdx, SectionKind, Symbol, SymbolKind, SymbolSection,
};
use crate::error::{Error, Result, excerpt};
use crate::exception::ExceptionCallbacks;
use crate::externs::{Extern, Externs};
use crate::insn::InsnIdx;
use crate::kind::SectionName;
use crate::map_def::{self, MapSpec};

/// Index into [`ObjectSpec::maps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MapIdx(pub u32);

/// Index into the object's functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionIdx(pub u32);

/// An object file, taken apart. Borrows the bytes that it was parsed from.
pub struct ObjectSpec<'a> {
    pub(crate) elf: Elf<'a>,
    /// The `license` section, without its terminating zero. Missing means empty, which is not GPL.
    pub license: &'a str,
    /// The `version` section: a kernel version, which only kernels before 5.0 check. 0 if there is none of 4 bytes.
    pub kernel_version: u32,
    /// Maps that are declared, then one for each data section, in file order.
    pub maps: Vec<MapSpec<'a>>,
    /// Maps whose declaration makes no sense; an error for a program that refers to one.
    pub broken_maps: Vec<(&'a str, Box<Error>)>,
    /// Sections that programs need (`license`, `.BTF`, `.BTF.ext`) and that make no sense. With a broken `license` or `.BTF.ext`, no
    /// program can be loaded; without `.BTF`, none that has `.BTF.ext` as well, nor what that section declares.
    pub broken_sections: Vec<(&'a str, Box<Error>)>,
    /// Entry points: global functions in sections other than `.text`.
    pub programs: Vec<ProgramSpec<'a>>,
    pub(crate) functions: Vec<Function<'a>>,
    /// Functions whose extent makes no sense; nothing can call or load them.
    pub broken_functions: Vec<(&'a str, Box<Error>)>,
    pub(crate) code: Vec<CodeSection<'a>>,
    pub(crate) exception_callbacks: ExceptionCallbacks<'a>,
    pub(crate) externs: Externs<'a>,
    /// The object's own types, if it has any.
    pub btf: Option<Btf<'a>>,
    /// What `.BTF.ext` says of the instructions.
    pub ext: Option<BtfExt<'a>>,
}

/// A program as the object declares it. Fields may be changed before planning.
#[derive(Debug, Clone)]
pub struct ProgramSpec<'a> {
    /// The function's name.
    pub name: &'a str,
    /// The section's full name, as it is in the file.
    pub section: &'a str,
    /// The section name, looked up in the table of kinds.
    pub kind: SectionName<'a>,
    /// Whether planning everything includes this program; false at first for `?` sections. For `struct_ops` programs the
    /// maps that are created decide instead: it includes those that one of them names.
    pub autoload: bool,
    /// The program of which this one replaces (`freplace`) or traces a function; none for the kernel's functions.
    pub attach_to: Option<TargetProgram>,
    /// The function or hook to attach to, if not the one that the section names.
    pub attach_function: Option<String>,
    pub(crate) function: FunctionIdx,
}

/// A function's place in the code.
#[derive(Debug, Clone)]
pub(crate) struct Function<'a> {
    pub name: &'a str,
    pub section: SectionIdx,
    pub insns: Range<u32>,
    /// Global for the verifier: checked on its own. Weak and hidden ones count as what they are for the linker.
    pub global: bool,
}

/// An executable section with the relocations that apply to it, sorted by place.
pub(crate) struct CodeSection<'a> {
    pub idx: SectionIdx,
    pub name: &'a str,
    data: &'a [u8],
    pub relocations: Vec<Relocation>,
    /// Why its relocations cannot be read; then nothing in it can be linked.
    pub broken_relocations: Option<Box<Error>>,
}

impl<'a> CodeSection<'a> {
    /// Decodes a range of instructions, which lies in the section.
    pub fn decode(&self, range: Range<u32>, endian: Endian) -> impl Iterator<Item = Insn> + 'a {
        let bytes = range.start as usize * Insn::SIZE..range.end as usize * Insn::SIZE;
        let big_endian = endian == Endian::Big;
        self.data.get(bytes).unwrap_or_default().chunks_exact(Insn::SIZE).map(move |slot| {
            let mut bytes = [0; Insn::SIZE];
            bytes.copy_from_slice(slot);
            Insn::from_bytes(bytes, big_endian)
        })
    }

    /// The relocations within a range of instructions.
    pub fn relocations_in(&self, range: Range<u32>) -> &[Relocation] {
        let at =
            |insn: u32| self.relocations.partition_point(|r| r.offset < u64::from(insn) * Insn::SIZE as u64);
        self.relocations.get(at(range.start)..at(range.end)).unwrap_or_default()
    }
}

impl<'a> ObjectSpec<'a> {
    /// Parses an object file.
    ///
    /// # Errors
    ///
    /// The file is not a BPF ELF object, its headers or symbol table are broken, or it has too many maps or broken functions.
    /// What programs or maps suffer from is reported when they are planned.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let elf = Elf::parse(bytes)?;
        let mut license = "";
        let mut broken_sections = Vec::new();
        let mut kernel_version = 0;
        let mut code = Vec::new();
        let mut btf_bytes = None;
        let mut ext_bytes = None;
        let mut data_sections = Vec::new();
        for section in elf.sections() {
            // A section whose header is broken matters only to what refers to it.
            let Ok(section) = section else { continue };
            match section.name {
                "license" => match parse_license(section) {
                    Ok(text) => license = text,
                    Err(e) => broken_sections.push(("license", e)),
                },
                "version" => {
                    kernel_version = Bytes::new(section.data, elf.endian()).u32(0).unwrap_or_default();
                }
                ".BTF" => btf_bytes = Some(section.data),
                ".BTF.ext" => ext_bytes = Some(section.data),
                _ if section.executable && section.kind == SectionKind::Data => {
                    code.push(CodeSection {
                        idx: section.idx,
                        name: section.name,
                        data: section.data,
                        relocations: Vec::new(),
                        broken_relocations: None,
                    });
                }
                _ if map_def::is_data_section(&section) => data_sections.push(section),
                _ => {}
            }
        }
        for (target, relocations) in elf.relocation_sections() {
            // In the order of the section table.
            let code = code.binary_search_by_key(&target, |c| c.idx).ok().and_then(|i| code.get_mut(i));
            let Some(code) = code else { continue };
            match relocations {
                Ok(relocations) => code.relocations.extend(relocations),
                Err(e) => code.broken_relocations = Some(e),
            }
        }
        for code in &mut code {
            sort_by_number(&mut code.relocations, |r| r.offset);
        }
        let (functions, broken_functions) = find_functions(&elf, &code)?;
        let programs = find_programs(&functions, &code);
        let btf = btf_bytes.map(|b| Btf::parse(b).map(|b| b.with_pointer_size(8)));
        let ext = match (&btf, ext_bytes) {
            (Some(Ok(_)), Some(bytes)) => Some(BtfExt::parse(bytes)),
            // Which programs it says something of is told in there.
            (Some(Err(e)), Some(_)) => Some(Err(e.clone())),
            _ => None,
        };
        let mut note = |name, e| broken_sections.push((name, e));
        let btf = btf.and_then(|btf| btf.map_err(|e| note(".BTF", e)).ok());
        let ext = ext.and_then(|ext| ext.map_err(|e| note(".BTF.ext", e)).ok());
        let exception_callbacks = btf.as_ref().map_or_else(ExceptionCallbacks::default, |btf| {
            ExceptionCallbacks::collect(btf, &functions, |f| in_text(&code, f))
        });
        let mut spec = Self {
            elf,
            license,
            kernel_version,
            maps: Vec::new(),
            broken_maps: Vec::new(),
            broken_sections,
            programs,
            functions,
            broken_functions,
            code,
            exception_callbacks,
            externs: Externs::default(),
            btf,
            ext,
        };
        map_def::find_maps(&mut spec, &data_sections)?;
        spec.externs = Externs::collect(&spec.elf, spec.btf.as_ref());
        spec.maps.extend(map_def::kconfig_map(&spec));
        Ok(spec)
    }

    /// Byte order of the object.
    pub fn endian(&self) -> Endian {
        self.elf.endian()
    }

    /// What the object refers to outside itself, as far as its BTF declares it.
    pub fn externs(&self) -> &[Extern<'a>] {
        self.externs.all()
    }

    /// The map of that name.
    pub fn map(&self, name: &str) -> Option<&MapSpec<'a>> {
        self.maps.iter().find(|m| m.name == name)
    }

    /// The map of that name, to be changed before planning.
    pub fn map_mut(&mut self, name: &str) -> Option<&mut MapSpec<'a>> {
        self.maps.iter_mut().find(|m| m.name == name)
    }

    /// The program of that name.
    pub fn program_mut(&mut self, name: &str) -> Option<&mut ProgramSpec<'a>> {
        self.programs.iter_mut().find(|p| p.name == name)
    }

    /// Sets the initial value of a global variable (`.rodata`, `.data` or `.bss`) by its name.
    ///
    /// # Errors
    ///
    /// There is no such variable, or its size is another.
    pub fn set_global(&mut self, name: &str, value: &[u8]) -> Result<()> {
        let (map, offset, size) = self.find_variable(name)?;
        if size != value.len() {
            return Err(Box::new(Error::VariableSize {
                name: name.into(),
                size: size as u64,
                given: value.len(),
            }));
        }
        let missing = || Box::new(Error::NoSuchVariable { name: name.into() });
        let map = self.maps.get_mut(map).ok_or_else(missing)?;
        map.data_mut(offset + size)
            .get_mut(offset..offset + size)
            .ok_or_else(missing)?
            .copy_from_slice(value);
        Ok(())
    }

    /// The data map that a global variable lies in, and its offset there in bytes.
    ///
    /// # Errors
    ///
    /// There is no such variable.
    pub fn variable(&self, name: &str) -> Result<(&MapSpec<'a>, u32)> {
        let (map, offset, _) = self.find_variable(name)?;
        let map = self.maps.get(map).ok_or_else(|| Error::NoSuchVariable { name: name.into() })?;
        Ok((map, offset as u32))
    }

    /// Map, offset and size, which lie within the map's value.
    fn find_variable(&self, name: &str) -> Result<(usize, usize, usize)> {
        let missing = || Box::new(Error::NoSuchVariable { name: name.into() });
        let symbols = self.elf.symbols().filter_map(|s| s.ok()).map(|(_, s)| s);
        let mut wanted =
            symbols.filter(|s| s.name == name && s.kind == SymbolKind::Object && s.binding != Binding::Local);
        let symbol = wanted.next().ok_or_else(missing)?;
        let SymbolSection::Section(section) = symbol.section else { return Err(missing()) };
        let index = self.maps.iter().position(|m| m.data_section == Some(section)).ok_or_else(missing)?;
        let value_size = self.maps.get(index).map_or(0, MapSpec::data_size);
        let end =
            symbol.value.checked_add(symbol.size).filter(|&end| end <= value_size).ok_or_else(missing)?;
        Ok((index, symbol.value as usize, (end - symbol.value) as usize))
    }

    /// Why a section that programs need cannot be read, if so.
    pub(crate) fn broken_section(&self, name: &str) -> Option<Box<Error>> {
        self.broken_sections.iter().find(|(broken, _)| *broken == name).map(|(_, error)| error.clone())
    }

    /// Why a declared map makes no sense, if so.
    pub(crate) fn broken_map(&self, name: &str) -> Option<Box<Error>> {
        self.broken_maps.iter().find(|(broken, _)| *broken == name).map(|(_, error)| error.clone())
    }

    pub(crate) fn code_section(&self, idx: SectionIdx) -> Option<&CodeSection<'a>> {
        // In the order of the section table.
        let found = self.code.binary_search_by_key(&idx, |c| c.idx).ok()?;
        self.code.get(found)
    }

    pub(crate) fn function(&self, idx: FunctionIdx) -> Option<&Function<'a>> {
        self.functions.get(idx.0 as usize)
    }

    /// The function that an instruction lies in.
    pub(crate) fn function_at(&self, section: SectionIdx, insn: InsnIdx) -> Option<FunctionIdx> {
        let after = self.functions.partition_point(|f| (f.section, f.insns.start) <= (section, insn.0));
        let found = after.checked_sub(1)?;
        let f = self.functions.get(found)?;
        (f.section == section && f.insns.contains(&insn.0)).then_some(FunctionIdx(found as u32))
    }
}

fn parse_license(section: Section<'_>) -> Result<&str> {
    let text = section.data.split(|&b| b == 0).next().unwrap_or_default();
    core::str::from_utf8(text).map_err(|_| {
        Box::new(Error::Section { section: section.idx, reason: "the license is not UTF-8".into() })
    })
}

type Broken<'a> = Vec<(&'a str, Box<Error>)>;

/// What is wrong with a function takes many times the memory of its symbol.
const MAX_BROKEN: usize = 1000;

/// All function symbols of code sections, sorted by section and place.
fn find_functions<'a>(
    elf: &Elf<'a>,
    sections: &[CodeSection<'a>],
) -> Result<(Vec<Function<'a>>, Broken<'a>)> {
    let mut functions = Vec::new();
    let mut broken = Vec::new();
    for symbol in elf.symbols() {
        let Ok((idx, symbol)) = symbol else { continue };
        let SymbolSection::Section(section) = symbol.section else { continue };
        if symbol.kind != SymbolKind::Function {
            continue;
        }
        let Ok(code) = sections.binary_search_by_key(&section, |c| c.idx) else { continue };
        let Some(code) = sections.get(code) else { continue };
        let size = Insn::SIZE as u64;
        let end = symbol.value.checked_add(symbol.size).filter(|&e| e <= code.data.len() as u64);
        match end {
            Some(end) if symbol.value % size == 0 && end % size == 0 && symbol.size > 0 => {
                functions.push(Function {
                    name: symbol.name,
                    section,
                    insns: (symbol.value / size) as u32..(end / size) as u32,
                    global: is_global_function(&symbol),
                });
            }
            _ => {
                let error = Error::FunctionBounds {
                    symbol: idx,
                    name: excerpt(symbol.name),
                    section: excerpt(code.name),
                    value: symbol.value,
                    size: symbol.size,
                };
                push_broken(&mut broken, symbol.name, Box::new(error))?;
            }
        }
    }
    functions.shrink_to_fit();
    functions.sort_by_key(|f| (f.section, f.insns.start, f.insns.end));
    remove_overlapping(&mut functions, sections, &mut broken)?;
    Ok((functions, broken))
}

fn push_broken<'a>(broken: &mut Broken<'a>, name: &'a str, error: Box<Error>) -> Result<()> {
    if broken.len() == MAX_BROKEN {
        return Err(Box::new(Error::TooComplex { what: "broken functions", limit: MAX_BROKEN as u64 }));
    }
    broken.push((name, error));
    Ok(())
}

/// Takes out the functions that begin inside another. Without it, a program that calls all of them would be as long as the
/// square of its code.
fn remove_overlapping<'a>(
    functions: &mut Vec<Function<'a>>,
    sections: &[CodeSection<'a>],
    broken: &mut Broken<'a>,
) -> Result<()> {
    let mut result = Ok(());
    let mut last: Option<(SectionIdx, Range<u32>)> = None;
    functions.retain(|f| {
        let overlaps = last.as_ref().is_some_and(|(section, insns)| {
            // Equal ranges are aliases.
            *section == f.section && f.insns.start < insns.end && f.insns != *insns
        });
        if overlaps {
            let section = section_of(sections, f).map_or("", |c| c.name);
            let (name, section) = (excerpt(f.name), excerpt(section));
            let error = Error::FunctionOverlap { name, section, start: InsnIdx(f.insns.start) };
            if result.is_ok() {
                result = push_broken(broken, f.name, Box::new(error));
            }
        } else {
            last = Some((f.section, f.insns.clone()));
        }
        !overlaps
    });
    result
}

/// Hidden functions are static for the verifier (libbpf marks them so in BTF).
fn is_global_function(symbol: &Symbol<'_>) -> bool {
    symbol.binding != Binding::Local && !symbol.hidden
}

/// The section that a function lies in; they are in the order of the section table.
fn section_of<'c, 'a>(code: &'c [CodeSection<'a>], f: &Function<'_>) -> Option<&'c CodeSection<'a>> {
    code.get(code.binary_search_by_key(&f.section, |c| c.idx).ok()?)
}

/// Whether a function is a subprogram: only programs have other sections.
fn in_text(code: &[CodeSection<'_>], f: &Function<'_>) -> bool {
    section_of(code, f).is_some_and(|c| c.name == ".text")
}

fn find_programs<'a>(functions: &[Function<'a>], code: &[CodeSection<'a>]) -> Vec<ProgramSpec<'a>> {
    let entries = || functions.iter().enumerate().filter(|(_, f)| f.global && !in_text(code, f));
    // Counted first: they are large, and a vector that grows has twice the room.
    let mut programs = Vec::with_capacity(entries().count());
    programs.extend(entries().filter_map(|(i, f)| {
        let section = section_of(code, f)?.name;
        let kind = SectionName::parse(section);
        Some(ProgramSpec {
            name: f.name,
            section,
            kind,
            autoload: !kind.optional,
            attach_to: None,
            attach_function: None,
            function: FunctionIdx(i as u32),
        })
    }));
    programs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_may_share_all_their_instructions_or_none() {
        let function =
            |name, section, insns| Function { name, section: SectionIdx(section), insns, global: true };
        let mut functions = vec![
            function("first", 1, 0..4),
            function("alias", 1, 0..4),
            function("inside", 1, 2..4),
            function("across", 1, 3..6),
            function("next", 1, 4..6),
            function("longer", 1, 4..7),
            function("elsewhere", 2, 5..6),
        ];
        let mut broken = Broken::new();
        remove_overlapping(&mut functions, &[], &mut broken).unwrap();
        let names: Vec<&str> = functions.iter().map(|f| f.name).collect();
        assert_eq!(names, ["first", "alias", "next", "elsewhere"]);
        let names: Vec<&str> = broken.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["inside", "across", "longer"]);
        assert!(matches!(*broken[0].1, Error::FunctionOverlap { start: InsnIdx(2), .. }));
    }
}
