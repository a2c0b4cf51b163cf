//! What will be asked of the kernel: a pure function of the object and a [`Target`].

use std::borrow::Cow;

use bpf_sys::uapi::insn;
use bpf_sys::{AttachType, Insn, MapType};

use crate::ALL_OBJECTS;
use crate::arena_data;
use crate::attach_target::Hook;
use crate::attach_to::{AttachPoint, AttachTo};
use crate::btf::index::{Root, root};
use crate::btf::{Btf, BtfId, Kind, datasec, sanitize};
use crate::bytes::Endian;
use crate::context_arguments;
use crate::core_plan::CoreRelocations;
use crate::elf::{Binding, SymbolKind, SymbolSection};
use crate::error::{Error, Result, excerpt};
use crate::ext_plan::{ExtIndex, ExtInfo};
use crate::externs::{Applied, Resolved};
use crate::insn::{InsnIdx, Operand};
use crate::kernel_names::{KernelNames, Request, Scope};
use crate::kind::ProgramKind;
use crate::map_def::{Contents, KCONFIG, MapSpec};
use crate::object::{Function, FunctionIdx, MapIdx, ObjectSpec, ProgramSpec};
use crate::sorted::{SortedMap, SortedSet};
use crate::struct_ops;
use crate::subprog::{self, Budget, Linked};
use crate::target::Target;

/// Everything to create, in order.
#[derive(Debug)]
pub struct LoadPlan<'a> {
    /// `license` of the programs.
    pub license: &'a str,
    /// `kern_version` of the programs.
    pub kernel_version: u32,
    /// The object's BTF, changed into what the target takes; `None` if it has none, or none that makes sense.
    pub btf: Option<Vec<u8>>,
    /// Why there is none though the object has some. What needs none is loaded without.
    pub btf_error: Option<Box<Error>>,
    /// Maps, with their index in the object.
    pub maps: Vec<(MapIdx, MapSpec<'a>)>,
    /// Those of the maps that are maps of operations, as the kernel has them.
    pub struct_ops: struct_ops::plan::Resolved,
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
    pub(crate) attach_function: Option<String>,
    pub(crate) function: FunctionIdx,
}

/// Relocated instructions, and what goes with them.
#[derive(Debug, Clone)]
pub struct ProgramCode {
    /// The program's kind.
    pub kind: &'static ProgramKind,
    /// `prog_flags`.
    pub flags: u32,
    /// What it is loaded for.
    pub attach: AttachPoint,
    /// Modules whose variables and functions the program uses. A call of a module's function has, as its offset, the index
    /// of the module here plus one.
    pub modules: Vec<String>,
    /// Instructions; only what `operands` names is not final.
    pub insns: Vec<Insn>,
    /// What refers to maps, sorted by instruction.
    pub operands: Vec<(InsnIdx, Operand)>,
    /// `struct bpf_func_info` records of 8 bytes in host order; empty if there are none.
    pub func_info: Vec<u8>,
    /// `struct bpf_line_info` records of 16 bytes in host order; empty if there are none.
    pub line_info: Vec<u8>,
    /// Instructions that were poisoned because the target has no such type, member or function, and what they asked for.
    pub poisoned: Vec<(InsnIdx, String)>,
}

/// What was found out for all programs of a plan.
struct Answers<'p, 'a> {
    relocations: &'p CoreRelocations,
    ext: &'p Result<ExtIndex<'p>>,
    externs: &'p Resolved<'p, 'a>,
}

/// What would call a helper of this number and the map's refers to a map that is not created, as libbpf has it.
const POISON_MAP: i32 = 2_001_000_000;
/// `BPF_F_SLEEPABLE`.
const F_SLEEPABLE: u32 = 1 << 4;
/// `BPF_F_XDP_HAS_FRAGS`.
const F_XDP_HAS_FRAGS: u32 = 1 << 5;

impl<'a> ObjectSpec<'a> {
    /// Plans every program whose `autoload` is set, with the maps that the object declares and the data that these
    /// programs use; of `struct_ops` programs, those that a map names.
    ///
    /// # Errors
    ///
    /// None as yet. What concerns one program stands in its [`ProgramPlan`].
    pub fn plan(&self, target: &dyn Target) -> Result<LoadPlan<'a>> {
        let operations = self.struct_ops_programs();
        self.plan_programs(target, |p| {
            // Without operations, theirs are refused and not left out.
            if ALL_OBJECTS && p.is_struct_ops() { operations.contains(&p.function) } else { p.autoload }
        })
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
        let decl_tags = target.features().btf.decl_tag;
        let linked: Vec<Result<Linked>> =
            chosen.iter().map(|p| self.link(p, decl_tags, &mut budget)).collect();
        let operations = struct_ops::plan::wanted_names(self, &chosen);
        let hooks: Vec<Result<Option<Hook<'_>>>> = chosen.iter().map(|p| p.hook()).collect();
        let operands = linked.iter().filter_map(|l| l.as_ref().ok()).flat_map(|l| &l.operands);
        let asked = self.externs.asked(operands);
        let mut requests = self.externs.requests(&asked);
        requests.extend(hooks.iter().filter_map(|h| Some(h.as_ref().ok()?.as_ref()?.request())));
        requests.extend(operations.iter().map(|name| Request {
            name,
            kind: Kind::Struct,
            scope: Scope::Anywhere,
        }));
        let roots: Vec<Root<'_>> = requests.iter().map(|r| root(r.name, r.kind)).collect();
        let linkable = linked.iter().filter_map(|l| l.as_ref().ok());
        let relocations = CoreRelocations::resolve(self, linkable, &roots, target);
        let ext = ExtIndex::new(self);
        let names = KernelNames::find(&requests, target.types());
        let struct_ops = struct_ops::plan::Resolved::new(self, &chosen, &names);
        let kconfig_map = self.maps.iter().position(MapSpec::is_kconfig).map(|i| MapIdx(i as u32));
        let object = (self.btf.as_ref(), self.endian());
        let externs = self.externs.resolve(&asked, object, &names, kconfig_map, target);
        let answers = Answers { relocations: &relocations, ext: &ext, externs: &externs };
        let plans = chosen.iter().zip(linked).zip(&hooks).map(|((program, linked), hook)| ProgramPlan {
            name: program.name,
            section: program.section,
            attach_function: program.attach_function.clone(),
            function: program.function,
            code: linked.and_then(|linked| {
                let hook = hook.as_ref().map_err(Clone::clone)?.as_ref();
                let mut attach = self.attach_point(program, hook, &names, &struct_ops);
                // All places of a probe are then one link.
                if program.kind.kind.is_some_and(ProgramKind::is_usdt) && target.has_uprobe_multi() {
                    attach =
                        attach.map(|at| AttachPoint { attach_type: AttachType::TRACE_UPROBE_MULTI, ..at });
                }
                self.program_code(program, linked, &answers, attach)
            }),
        });
        let mut programs: Vec<ProgramPlan<'a>> = plans.collect();
        let copies = self
            .btf
            .as_ref()
            .map(|btf| context_arguments::replace(btf, &mut programs, || target.knows_context_tag()));
        let used = self.used_maps(&programs);
        let maps = self.maps.iter().enumerate().filter(|(i, _)| used.get(*i).copied().unwrap_or(false));
        let mut maps: Vec<_> = maps
            .map(|(i, map)| {
                let mut map = fit_map(map, target);
                if map.is_kconfig() {
                    map.contents = Contents::Data(Cow::Owned(externs.kconfig().to_vec()));
                }
                let idx = MapIdx(i as u32);
                (idx, struct_ops.fit_map(idx, map))
            })
            .collect();
        arena_data::place(&mut maps, &mut programs, target);
        self.fill_variables(&mut maps);
        let broken_btf = self.broken_section(".BTF").map(Err);
        let btf = self.btf.as_ref().map(|btf| match copies.transpose()?.flatten() {
            Some(with_copies) => self.kernel_btf(&Btf::parse(with_copies)?, target),
            None => self.kernel_btf(btf, target),
        });
        let btf = btf.or(broken_btf);
        let (btf, btf_error) = match btf {
            None => (None, None),
            Some(Ok(btf)) => (Some(btf), None),
            Some(Err(e)) => (None, Some(e)),
        };
        Ok(LoadPlan {
            license: self.license,
            kernel_version: self.kernel_version,
            btf,
            btf_error,
            maps,
            struct_ops,
            host_endian: self.endian() == Endian::HOST,
            programs,
        })
    }

    /// Links a program, with its exception callback where the kernel knows tags: others do not look for one, and would find
    /// its code unreachable.
    pub(crate) fn link(
        &self,
        program: &ProgramSpec<'a>,
        decl_tags: bool,
        budget: &mut Budget,
    ) -> Result<Linked> {
        let callback = if decl_tags { self.exception_callbacks.of(program.name)? } else { None };
        subprog::link(self, program.function, callback, budget)
    }

    /// Declared maps are created unless they shall not, since user space may want them; data sections only for programs
    /// that use them.
    fn used_maps(&self, programs: &[ProgramPlan<'_>]) -> Vec<bool> {
        let mut used: Vec<bool> = self.maps.iter().map(|m| m.place.is_some() && m.autocreate).collect();
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
        answers: &Answers<'_, 'a>,
        attach: Result<AttachPoint>,
    ) -> Result<ProgramCode> {
        let kind = program.kind.kind.ok_or_else(|| Error::UnknownKind { section: program.section.into() })?;
        if let Some(error) = ["license", ".BTF.ext"].iter().find_map(|name| self.broken_section(name)) {
            return Err(error);
        }
        let Linked { mut insns, mut operands, parts } = linked;
        let name = |symbol| subprog::extern_name(self, symbol).map(excerpt);
        let Applied { modules, poisoned: calls } = answers.externs.apply(&mut insns, &mut operands, name)?;
        let mut poisoned = answers.relocations.patch(self, &parts, &mut insns)?;
        // What was poisoned refers to nothing any more.
        operands.retain(|(at, _)| insns.get(at.0 as usize).is_some_and(|insn| insn.is_ld_imm64()));
        poisoned.extend(calls);
        poisoned.extend(self.poison_uncreated(&mut insns, &mut operands));
        let attach = attach?;
        let ext = answers.ext.as_ref().map_err(Clone::clone)?;
        let ExtInfo { func_info, line_info } = ext.relocate(self, &parts)?;
        Ok(ProgramCode {
            kind,
            flags: if kind.sleepable { F_SLEEPABLE } else { 0 }
                | if kind.xdp_frags { F_XDP_HAS_FRAGS } else { 0 },
            attach,
            modules,
            insns,
            operands,
            func_info,
            line_info,
            poisoned,
        })
    }

    /// What refers to maps that are not to be created becomes calls that the verifier refuses, unless they are never reached.
    fn poison_uncreated(
        &self,
        insns: &mut [Insn],
        operands: &mut Vec<(InsnIdx, Operand)>,
    ) -> Vec<(InsnIdx, String)> {
        let mut poisoned = Vec::new();
        operands.retain(|(at, operand)| {
            let (Operand::Map(idx) | Operand::MapValue { map: idx, .. }) = operand else { return true };
            let map = self.maps.get(idx.0 as usize).filter(|map| !map.autocreate);
            let load = insns.get_mut(at.0 as usize..at.0 as usize + 2);
            let (Some(map), Some(load)) = (map, load) else { return true };
            load.fill(Insn::new(insn::CALL, 0, 0, 0, POISON_MAP.saturating_add(idx.0 as i32)));
            poisoned.push((*at, format!("map {} (it is not created)", excerpt(&map.name))));
            false
        });
        poisoned
    }

    /// What a program is loaded for.
    fn attach_point(
        &self,
        program: &ProgramSpec<'_>,
        hook: Option<&Hook<'_>>,
        names: &KernelNames<'_, '_>,
        struct_ops: &struct_ops::plan::Resolved,
    ) -> Result<AttachPoint> {
        if program.is_struct_ops() {
            return struct_ops.attach_point(program);
        }
        let kind = program.kind.kind.ok_or_else(|| Error::UnknownKind { section: program.section.into() })?;
        let (btf_id, to) = match (hook, program.target_function()?) {
            (Some(hook), _) => hook.resolve(names, program.section)?,
            (None, Some((function, target))) => {
                (target.function(function)?, AttachTo::Program(target.clone()))
            }
            // The functions are named when it is attached, but whose they are when it is loaded.
            (None, None) if kind.is_tracing_multi() => {
                let module = program.kind.target.and_then(|target| target.split_once(':'));
                (BtfId::VOID, module.map_or(AttachTo::Kernel, |(module, _)| AttachTo::Module(module.into())))
            }
            (None, None) => (BtfId::VOID, AttachTo::Kernel),
        };
        Ok(AttachPoint { btf_id, attach_type: kind.attach_type, to })
    }

    /// The object's BTF as the target's kernel takes it. Types keep their ids.
    fn kernel_btf(&self, btf: &Btf<'_>, target: &dyn Target) -> Result<Vec<u8>> {
        let mut sections: SortedMap<&str, u32> = SortedMap::new();
        for section in self.elf.sections().filter_map(|s| s.ok()) {
            if let Ok(size) = u32::try_from(section.size) {
                sections.entry(section.name).or_insert(size);
            }
        }
        let mut symbols: SortedMap<&str, datasec::Symbol> = SortedMap::new();
        for (_, symbol) in self.elf.symbols().filter_map(|s| s.ok()) {
            let SymbolSection::Section(_) = symbol.section else { continue };
            if symbol.kind == SymbolKind::Object && symbol.binding != Binding::Local {
                if let Ok(offset) = u32::try_from(symbol.value) {
                    symbols.insert(symbol.name, datasec::Symbol { offset, hidden: symbol.hidden });
                }
            }
        }
        // Externs are placed by no section of the file.
        for one in self.externs.all() {
            if let Some(variable) = one.kconfig() {
                symbols.insert(one.name, datasec::Symbol { offset: variable.offset, hidden: false });
            }
        }
        sections.insert(KCONFIG, self.externs.kconfig_size());
        let in_text = |f: &&Function<'_>| self.code_section(f.section).is_some_and(|c| c.name == ".text");
        let hidden: SortedSet<&[u8]> =
            self.functions.iter().filter(|f| !f.global).filter(in_text).map(|f| f.name.as_bytes()).collect();
        let filled = datasec::fill(
            btf,
            |name| sections.get(name).copied(),
            |_, var| symbols.get(var).copied(),
            |name| hidden.contains(name),
        )?;
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
