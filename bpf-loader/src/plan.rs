//! What will be asked of the kernel: a pure function of the object and a [`Target`].

use std::borrow::Cow;
use std::collections::HashMap;

use bpf_sys::{Insn, MapType};

use crate::btf::index::{Root, root};
use crate::btf::{Btf, BtfId, Kind, datasec, sanitize};
use crate::bytes::Endian;
use crate::core_plan::CoreRelocations;
use crate::elf::{Binding, SymbolKind, SymbolSection};
use crate::error::{Error, Result};
use crate::ext_plan::{ExtIndex, ExtInfo};
use crate::insn::{InsnIdx, Operand};
use crate::kind::{BtfTarget, ProgramKind, SectionName};
use crate::map_def::MapSpec;
use crate::object::{FunctionIdx, MapIdx, ObjectSpec, ProgramSpec};
use crate::subprog::{self, Budget, Linked};
use crate::target::Target;

/// Everything to create, in order.
#[derive(Debug)]
pub struct LoadPlan<'a> {
    /// `license` of the programs.
    pub license: &'a str,
    /// `kern_version` of the programs.
    pub kernel_version: u32,
    /// The object's BTF, changed into what the target takes; `None` if it has none.
    pub btf: Option<Vec<u8>>,
    /// Maps, with their index in the object.
    pub maps: Vec<(MapIdx, MapSpec<'a>)>,
    /// Whether the object has the host's byte order, and so can be loaded.
    pub host_endian: bool,
    /// Programs; one that cannot be planned says why.
    pub programs: Vec<ProgramPlan<'a>>,
}

/// One program of a plan.
#[derive(Debug)]
pub struct ProgramPlan<'a> {
    /// The function's name.
    pub name: &'a str,
    /// Its section.
    pub section: &'a str,
    /// What to load, or why it cannot be.
    pub code: Result<ProgramCode>,
    pub(crate) function: FunctionIdx,
}

/// Relocated instructions, and what goes with them.
#[derive(Debug, Clone)]
pub struct ProgramCode {
    /// The program's kind.
    pub kind: &'static ProgramKind,
    /// `prog_flags`.
    pub flags: u32,
    /// `attach_btf_id`, for kinds that name something in the kernel's BTF.
    pub attach_btf_id: BtfId,
    /// Instructions; only what `operands` names is not final.
    pub insns: Vec<Insn>,
    /// What refers to maps, sorted by instruction.
    pub operands: Vec<(InsnIdx, Operand)>,
    /// `struct bpf_func_info` records of 8 bytes in host order; empty if there are none.
    pub func_info: Vec<u8>,
    /// `struct bpf_line_info` records of 16 bytes in host order; empty if there are none.
    pub line_info: Vec<u8>,
    /// Instructions that were poisoned because the target has no such type or member, and what they asked for.
    pub poisoned: Vec<(InsnIdx, String)>,
}

/// `BPF_F_SLEEPABLE`.
const F_SLEEPABLE: u32 = 1 << 4;
/// `BPF_F_XDP_HAS_FRAGS`.
const F_XDP_HAS_FRAGS: u32 = 1 << 5;

impl<'a> ObjectSpec<'a> {
    /// Plans every program whose `autoload` is set, with the maps that the object declares and the data that these
    /// programs use.
    ///
    /// # Errors
    ///
    /// The object's own BTF is broken. What concerns one program stands in its [`ProgramPlan`].
    pub fn plan(&self, target: &dyn Target) -> Result<LoadPlan<'a>> {
        self.plan_programs(target, |p| p.autoload)
    }

    /// Plans the programs that `wanted` picks.
    ///
    /// # Errors
    ///
    /// As [`plan`](Self::plan).
    pub fn plan_programs(
        &self,
        target: &dyn Target,
        wanted: impl Fn(&ProgramSpec<'a>) -> bool,
    ) -> Result<LoadPlan<'a>> {
        let chosen: Vec<&ProgramSpec<'a>> = self.programs.iter().filter(|p| wanted(p)).collect();
        let mut budget = Budget::new();
        let linked: Vec<Result<Linked>> =
            chosen.iter().map(|p| subprog::link(self, p.function, &mut budget)).collect();
        let names = self.kernel_names(&chosen);
        let roots: Vec<Root<'_>> = names.iter().map(|(name, kind)| root(name, *kind)).collect();
        let linkable = linked.iter().filter_map(|l| l.as_ref().ok());
        let relocations = CoreRelocations::resolve(self, linkable, &roots, target.types());
        let ext = ExtIndex::new(self);
        let plans = chosen.iter().zip(linked).map(|(program, linked)| ProgramPlan {
            name: program.name,
            section: program.section,
            function: program.function,
            code: linked.and_then(|linked| self.program_code(program, linked, &relocations, &ext, target)),
        });
        let programs: Vec<ProgramPlan<'a>> = plans.collect();
        let used = self.used_maps(&programs);
        let maps = self.maps.iter().enumerate().filter(|(i, _)| used.get(*i).copied().unwrap_or(false));
        Ok(LoadPlan {
            license: self.license,
            kernel_version: self.kernel_version,
            btf: self.btf.as_ref().map(|btf| self.kernel_btf(btf, target)).transpose()?,
            maps: maps.map(|(i, map)| (MapIdx(i as u32), fit_map(map, target))).collect(),
            host_endian: self.endian() == Endian::HOST,
            programs,
        })
    }

    /// What is looked for in the kernel's types beside the roots of CO-RE relocations: what programs attach to, and kernel
    /// functions and variables that the object declares.
    fn kernel_names(&self, programs: &[&ProgramSpec<'_>]) -> Vec<(Cow<'_, str>, Kind)> {
        let hooks = programs.iter().filter_map(|p| {
            let (name, kind) = btf_hook(p.kind.kind?, &p.kind, p.section).ok()??;
            Some((name.into(), kind))
        });
        let sections = self.btf.iter().flat_map(|btf| btf.types_of(Kind::Datasec));
        let symbols = sections.filter(|section| section.name() == Ok(".ksyms")).flat_map(|section| {
            section.section_vars().filter_map(move |var| {
                let symbol = section.btf().type_by_id(var.type_id).ok()?;
                Some((symbol.name().ok()?.into(), symbol.kind()))
            })
        });
        hooks.chain(symbols).collect()
    }

    /// Declared maps are always created, since user space may want them; data sections only for programs that use them.
    fn used_maps(&self, programs: &[ProgramPlan<'_>]) -> Vec<bool> {
        let mut used: Vec<bool> = self.maps.iter().map(|m| m.data_section.is_none()).collect();
        for code in programs.iter().filter_map(|p| p.code.as_ref().ok()) {
            for (_, operand) in &code.operands {
                let (Operand::Map(map) | Operand::MapValue { map, .. }) = operand else { continue };
                if let Some(used) = used.get_mut(map.0 as usize) {
                    *used = true;
                }
            }
        }
        used
    }

    fn program_code(
        &self,
        program: &ProgramSpec<'a>,
        linked: Linked,
        relocations: &CoreRelocations,
        ext: &Result<ExtIndex<'_>>,
        target: &dyn Target,
    ) -> Result<ProgramCode> {
        let kind = program.kind.kind.ok_or_else(|| Error::UnknownKind { section: program.section.into() })?;
        let Linked { mut insns, operands, parts } = linked;
        if let Some((_, Operand::Extern { symbol, .. })) =
            operands.iter().find(|(_, operand)| matches!(operand, Operand::Extern { .. }))
        {
            return Err(Error::Extern { name: subprog::extern_name(self, *symbol)?.into() });
        }
        let poisoned = relocations.patch(self, &parts, &mut insns)?;
        let ext = ext.as_ref().map_err(Error::clone)?;
        let ExtInfo { func_info, line_info } = ext.relocate(self, &parts)?;
        Ok(ProgramCode {
            kind,
            flags: if kind.sleepable { F_SLEEPABLE } else { 0 }
                | if kind.xdp_frags { F_XDP_HAS_FRAGS } else { 0 },
            attach_btf_id: attach_btf_id(kind, &program.kind, program.section, target)?,
            insns,
            operands,
            func_info,
            line_info,
            poisoned,
        })
    }

    /// The object's BTF as the target's kernel takes it. Types keep their ids.
    fn kernel_btf(&self, btf: &Btf<'_>, target: &dyn Target) -> Result<Vec<u8>> {
        let mut sections: HashMap<&str, u32> = HashMap::new();
        for section in self.elf.sections().filter_map(|s| s.ok()) {
            if let Ok(size) = u32::try_from(section.size) {
                sections.entry(section.name).or_insert(size);
            }
        }
        let mut symbols: HashMap<&str, datasec::Symbol> = HashMap::new();
        for (_, symbol) in self.elf.symbols().filter_map(|s| s.ok()) {
            let SymbolSection::Section(_) = symbol.section else { continue };
            if symbol.kind == SymbolKind::Object && symbol.binding != Binding::Local {
                if let Ok(offset) = u32::try_from(symbol.value) {
                    symbols.insert(symbol.name, datasec::Symbol { offset, hidden: symbol.hidden });
                }
            }
        }
        let filled =
            datasec::fill(btf, |name| sections.get(name).copied(), |_, var| symbols.get(var).copied())?;
        sanitize::sanitize(&Btf::parse(filled)?, &target.features().btf)
    }
}

/// Sizes that depend on the machine.
fn fit_map<'a>(map: &MapSpec<'a>, target: &dyn Target) -> MapSpec<'a> {
    let mut map = map.clone();
    match map.map_type {
        // Whole pages, and a power of two of them.
        MapType::RINGBUF | MapType::USER_RINGBUF => {
            let page = target.page_size().max(1);
            let pages = map.max_entries.div_ceil(page).max(1);
            let rounded = pages.checked_next_power_of_two().and_then(|pages| pages.checked_mul(page));
            map.max_entries = rounded.unwrap_or(map.max_entries);
        }
        MapType::PERF_EVENT_ARRAY if map.max_entries == 0 => map.max_entries = target.possible_cpus(),
        _ => {}
    }
    map.inner = map.inner.map(|inner| Box::new(fit_map(&inner, target)));
    map
}

/// Name and kind of what a program names in the kernel's BTF, if its kind does.
fn btf_hook(kind: &ProgramKind, name: &SectionName<'_>, section: &str) -> Result<Option<(String, Kind)>> {
    let (prefix, btf_kind) = match kind.btf_target {
        BtfTarget::None => return Ok(None),
        BtfTarget::Function(prefix) => (prefix, Kind::Func),
        BtfTarget::Typedef(prefix) => (prefix, Kind::Typedef),
        // Which program is said when it is loaded.
        BtfTarget::Program => return Ok(None),
    };
    let hook = name
        .target
        .filter(|t| !t.is_empty())
        .ok_or_else(|| Error::MissingTarget { section: section.into() })?;
    Ok(Some((format!("{prefix}{hook}"), btf_kind)))
}

/// Id of what a program names in the kernel's BTF.
fn attach_btf_id(
    kind: &ProgramKind,
    name: &SectionName<'_>,
    section: &str,
    target: &dyn Target,
) -> Result<BtfId> {
    let Some((wanted, btf_kind)) = btf_hook(kind, name, section)? else { return Ok(BtfId::VOID) };
    let btf = target
        .types()
        .vmlinux()?
        .ok_or_else(|| Error::NoKernelBtf { needed_by: format!("section {section}") })?;
    btf.find_by_name(&wanted, btf_kind).ok_or(Error::NoSuchTarget { name: wanted })
}
