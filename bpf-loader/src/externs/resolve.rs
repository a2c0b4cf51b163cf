//! Externs of the programs of a plan: looked up together, written into each program.

use std::borrow::Cow;

use bpf_sys::uapi::insn::{self, Insn};

use super::{Declared, Extern, ExternFault, ExternKind, Externs, kconfig};
use crate::ALL_OBJECTS;
use crate::btf::index::essential_name;
use crate::btf::{Btf, BtfId, Kind};
use crate::bytes::Endian;
use crate::core_relo::types_are_compatible;
use crate::elf::SymbolIdx;
use crate::error::{Error, Result};
use crate::fuel::Fuel;
use crate::insn::{InsnIdx, Operand};
use crate::kallsyms;
use crate::kernel_names::{Found, KernelNames, Request, Scope};
use crate::object::MapIdx;
use crate::sorted::{SortedMap, SortedSet};
use crate::target::Target;

/// What a call holds whose function is missing, plus the extern's index: the verifier, if it ever gets there, says
/// `invalid func unknown#2002000003`. libbpf uses the same.
const POISON_CALL: i32 = 2_002_000_000;

const CONFIGURATION: &str = "the kernel's configuration";
const SYMBOLS: &str = "/proc/kallsyms";
const TYPES: &str = "the kernel's BTF or its modules'";

/// What became of an extern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// Bytes into `.kconfig`.
    Kconfig(u32),
    /// An address.
    Address(u64),
    /// A variable or function, by id.
    Type { id: BtfId, module: Option<String> },
    /// A weak one that this kernel does not have.
    Missing,
}

/// The answers for all externs of a plan.
pub(crate) struct Resolved<'s, 'a> {
    externs: &'s Externs<'a>,
    /// By index; only those that a program refers to.
    values: SortedMap<usize, Result<Value>>,
    /// Contents of `.kconfig`; what is missing at its end is zero.
    kconfig: Vec<u8>,
    kconfig_map: Option<MapIdx>,
}

/// What writing the answers into a program gave.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Modules whose variables and functions it uses; calls and operands count in these.
    pub modules: Vec<String>,
    /// Calls whose functions are missing.
    pub poisoned: Vec<(InsnIdx, String)>,
}

impl<'a> Externs<'a> {
    /// Indices of the externs that the operands refer to.
    pub fn asked<'o>(&self, operands: impl Iterator<Item = &'o (InsnIdx, Operand)>) -> SortedSet<usize> {
        if !ALL_OBJECTS {
            return SortedSet::new();
        }
        let symbols: SortedSet<SymbolIdx> = operands
            .filter_map(|(_, operand)| match operand {
                Operand::Extern { symbol, .. } => Some(*symbol),
                _ => None,
            })
            .collect();
        symbols.into_iter().filter_map(|symbol| Some(self.of_symbol(symbol)?.0)).collect()
    }

    /// What to look for in the kernel's BTF.
    pub fn requests(&self, asked: &SortedSet<usize>) -> Vec<Request<'a>> {
        if !ALL_OBJECTS {
            return Vec::new();
        }
        let asked = || asked.iter().filter_map(|&i| self.all.get(i));
        let request = |(name, kind)| Request { name, kind, scope: Scope::Anywhere };
        let mut requests: Vec<_> = asked().filter_map(Extern::btf_name).map(request).collect();
        let fills_kconfig = || asked().any(|one| one.kind() == ExternKind::Kconfig);
        if self.all.iter().any(|one| one.name == SYSCALL_WRAPPER) && fills_kconfig() {
            let request = |&name| Request { name, kind: Kind::Func, scope: Scope::Kernel };
            requests.extend(SYSCALL_WRAPPERS.iter().map(request));
        }
        requests
    }

    /// Resolves what is asked for, and fills `.kconfig` if any of it is asked for.
    pub fn resolve<'s>(
        &'s self,
        asked: &SortedSet<usize>,
        object: (Option<&Btf<'_>>, Endian),
        names: &KernelNames<'_, '_>,
        kconfig_map: Option<MapIdx>,
        target: &dyn Target,
    ) -> Resolved<'s, 'a> {
        let mut resolved =
            Resolved { externs: self, values: SortedMap::new(), kconfig: Vec::new(), kconfig_map };
        if !ALL_OBJECTS {
            return resolved;
        }
        let asked = || asked.iter().filter_map(|&i| Some((i, self.all.get(i)?)));
        let symbols = asked().filter(|(_, one)| one.kind() == ExternKind::Symbol).map(|(_, one)| one.name);
        let addresses = addresses(symbols.collect(), target);
        let options = match asked().any(|(_, one)| one.kind() == ExternKind::Kconfig) {
            true => self.options(object.1, names, target, &mut resolved.kconfig),
            false => SortedMap::new(),
        };
        let mut fuel = Fuel::OBJECT.clone();
        for (i, one) in asked() {
            let value = match one.declared {
                Declared::Kconfig(_) => match options.get(one.name) {
                    Some(Some(fault)) => Err(fault.clone()),
                    Some(None) => Ok(one.kconfig().map(|variable| Value::Kconfig(variable.offset))),
                    None => Ok(None),
                },
                Declared::BadKconfig { too_large: true } => Err(ExternFault::TooLarge),
                Declared::BadKconfig { too_large: false } => Err(ExternFault::Type),
                Declared::Symbol => match &addresses {
                    Ok(Some(found)) => Ok(found.get(one.name).map(|&address| Value::Address(address))),
                    Ok(None) => Err(ExternFault::NowhereToLook { missing: SYMBOLS }),
                    Err(error) => Err(ExternFault::Read { error: error.clone() }),
                },
                Declared::Variable(local) | Declared::Function(local) => {
                    one.typed(local, object.0, names, &mut fuel)
                }
            };
            resolved.values.insert(i, one.weaken(value));
        }
        resolved
    }

    /// Fills `.kconfig`: for each option that has a value `None`, for each whose value makes no sense why not. Those that the
    /// program does not refer to are filled too, as user space may look at them.
    fn options(
        &self,
        endian: Endian,
        names: &KernelNames<'_, '_>,
        target: &dyn Target,
        value: &mut Vec<u8>,
    ) -> SortedMap<&'a str, Option<ExternFault>> {
        let variables = || self.all.iter().filter_map(|one| Some((one, one.kconfig()?)));
        let mut found: SortedMap<&'a str, Option<ExternFault>> = SortedMap::new();
        let mut set = |name: &'a str, offset: u32, bytes: std::result::Result<Vec<u8>, ExternFault>| {
            let fault = match bytes {
                Ok(bytes) => {
                    put(value, offset, &bytes);
                    None
                }
                Err(fault) => Some(fault),
            };
            found.entry(name).or_insert(fault);
        };
        let mut configured: SortedMap<&[u8], (&'a str, kconfig::Variable)> = SortedMap::new();
        for (one, variable) in variables() {
            if one.name.starts_with("CONFIG_") {
                configured.insert(one.name.as_bytes(), (one.name, variable));
            } else if let Some(number) = virtual_option(one.name, names, target) {
                set(one.name, variable.offset, number.and_then(|number| variable.number(number, endian)));
            }
        }
        if configured.is_empty() {
            return found;
        }
        match target.kconfig() {
            Ok(Some(text)) => {
                for (name, text) in kconfig::parse(text) {
                    // The first of several counts.
                    let Some((name, variable)) = configured.remove(name) else { continue };
                    set(name, variable.offset, variable.parse(text, endian));
                    if configured.is_empty() {
                        break;
                    }
                }
            }
            Ok(None) => {
                let missing = "configuration (/boot/config-RELEASE or /proc/config.gz)";
                for (_, (name, variable)) in configured {
                    set(name, variable.offset, Err(ExternFault::NowhereToLook { missing }));
                }
            }
            Err(error) => {
                for (_, (name, variable)) in configured {
                    set(name, variable.offset, Err(ExternFault::Read { error: error.clone() }));
                }
            }
        }
        found
    }
}

fn put(value: &mut Vec<u8>, offset: u32, bytes: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if value.len() < end {
        value.resize(end, 0);
    }
    if let Some(place) = value.get_mut(start..end) {
        place.copy_from_slice(bytes);
    }
}

/// Whether functions of system calls take their arguments in a structure.
const SYSCALL_WRAPPER: &str = "LINUX_HAS_SYSCALL_WRAPPER";

/// Names of `bpf(2)`'s function in kernels where they do, by architecture.
const SYSCALL_WRAPPERS: [&str; 4] =
    ["__x64_sys_bpf", "__arm64_sys_bpf", "__s390x_sys_bpf", "__riscv_sys_bpf"];

/// What is no option of the configuration, but declared like one.
fn virtual_option(
    name: &str,
    names: &KernelNames<'_, '_>,
    target: &dyn Target,
) -> Option<std::result::Result<u64, ExternFault>> {
    Some(match name {
        "LINUX_KERNEL_VERSION" => {
            let missing = "version of the kernel";
            target.kernel_version().map(u64::from).ok_or(ExternFault::NowhereToLook { missing })
        }
        "LINUX_HAS_BPF_COOKIE" => Ok(target.has_bpf_cookie().into()),
        SYSCALL_WRAPPER if names.no_btf() => match addresses(SYSCALL_WRAPPERS.to_vec(), target) {
            Ok(Some(found)) => Ok(u64::from(!found.is_empty())),
            Ok(None) => Err(ExternFault::NowhereToLook { missing: SYMBOLS }),
            Err(error) => Err(ExternFault::Read { error }),
        },
        SYSCALL_WRAPPER => {
            Ok(SYSCALL_WRAPPERS.iter().any(|name| names.get(name, Kind::Func).is_some()).into())
        }
        _ => return None,
    })
}

fn addresses<'n>(names: Vec<&'n str>, target: &dyn Target) -> Result<Option<SortedMap<&'n str, u64>>> {
    if names.is_empty() {
        return Ok(Some(SortedMap::new()));
    }
    let Some(list) = target.kallsyms()? else { return Ok(None) };
    let found = kallsyms::find(list, names);
    Ok(Some(found.map_err(|e| Error::ReadTarget { what: SYMBOLS, reason: e.to_string() })?))
}

impl<'a> Extern<'a> {
    /// What it is called in the kernel's BTF, if it is looked for there.
    fn btf_name(&self) -> Option<(&'a str, Kind)> {
        match self.declared {
            Declared::Variable(_) => Some((self.name, Kind::Var)),
            // The first part of a name between ASCII characters is whole characters.
            Declared::Function(_) => {
                Some((self.name.get(..essential_name(self.name.as_bytes()).len())?, Kind::Func))
            }
            _ => None,
        }
    }

    /// Looks a variable or function up, and compares its type with the declared one.
    fn typed(
        &self,
        local: BtfId,
        btf: Option<&Btf<'_>>,
        names: &KernelNames<'_, '_>,
        fuel: &mut Fuel,
    ) -> std::result::Result<Option<Value>, ExternFault> {
        let read = |error| ExternFault::Read { error };
        let found = self.btf_name().and_then(|(name, kind)| names.get(name, kind));
        let (Some(Found { btf: theirs, module, id }), Some(own)) = (found, btf) else {
            return match names.failure() {
                Some(error) => Err(read(error)),
                None if names.no_btf() => Err(ExternFault::NowhereToLook { missing: "kernel BTF" }),
                None => Ok(None),
            };
        };
        let module = module.map(str::to_owned);
        let type_id = theirs.type_by_id(id).map_err(read)?.referred();
        let type_id = match self.declared {
            Declared::Variable(_) => theirs.skip_mods_and_typedefs(type_id).map_err(read)?.id(),
            _ => type_id,
        };
        if types_are_compatible((own, local), (theirs, type_id), fuel).map_err(read)? {
            return Ok(Some(Value::Type { id, module }));
        }
        // As libbpf: a function of another type is as good as none, a variable is a mistake.
        match self.declared {
            Declared::Function(_) if self.weak => Ok(None),
            _ => Err(ExternFault::Incompatible { id, module }),
        }
    }

    /// What is missing is zero if it is weak, and else an error.
    fn weaken(&self, value: std::result::Result<Option<Value>, ExternFault>) -> Result<Value> {
        // A kernel without BTF or without a configuration to read has nothing in it.
        if self.weak && matches!(value, Ok(None) | Err(ExternFault::NowhereToLook { .. })) {
            // An option's place is there all the same, and zero.
            return Ok(self.kconfig().map_or(Value::Missing, |variable| Value::Kconfig(variable.offset)));
        }
        match value {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(self.fail(ExternFault::NotFound {
                searched: match self.kind() {
                    ExternKind::Kconfig => CONFIGURATION,
                    ExternKind::Symbol => SYMBOLS,
                    _ => TYPES,
                },
            })),
            Err(fault) => Err(self.fail(fault)),
        }
    }
}

impl Resolved<'_, '_> {
    /// What `.kconfig` holds.
    pub fn kconfig(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.kconfig)
    }

    /// Writes the answers into a linked program. Operands that are left refer to maps and modules.
    pub fn apply(
        &self,
        insns: &mut [Insn],
        operands: &mut Vec<(InsnIdx, Operand)>,
        name: impl Fn(SymbolIdx) -> Result<String>,
    ) -> Result<Applied> {
        let mut applied = Applied::default();
        let mut left = Vec::with_capacity(operands.len());
        for &(at, operand) in operands.iter() {
            let Operand::Extern { symbol, call } = operand else {
                left.push((at, operand));
                continue;
            };
            if !ALL_OBJECTS {
                return Err(Box::new(Error::NotBuiltIn { what: "externs (.kconfig, .ksyms)" }));
            }
            let Some((index, one)) = self.externs.of_symbol(symbol) else {
                let (kind, reason) = (ExternKind::Undeclared, ExternFault::Undeclared);
                return Err(Box::new(Error::Extern { name: name(symbol)?, kind, reason }));
            };
            let value = self.values.get(&index).ok_or(Error::Internal("extern that was not asked for"))?;
            let value = value.as_ref().map_err(Clone::clone)?;
            if call {
                self.call(insns, at, (index, one), value, &mut applied)?;
            } else if let Some(operand) = self.load(insns, at, one, value, &mut applied)? {
                left.push((at, operand));
            }
        }
        *operands = left;
        Ok(applied)
    }

    fn call(
        &self,
        insns: &mut [Insn],
        at: InsnIdx,
        (index, one): (usize, &Extern<'_>),
        value: &Value,
        applied: &mut Applied,
    ) -> Result<()> {
        let insn = insns.get_mut(at.0 as usize).ok_or(Error::Internal("call"))?;
        let (id, module) = match value {
            _ if one.kind() != ExternKind::Function => return Err(one.fail(ExternFault::NotAFunction)),
            Value::Type { id, module } => (*id, module),
            _ => {
                *insn = Insn::new(insn::CALL, 0, 0, 0, POISON_CALL.saturating_add(index as i32));
                applied.poisoned.push((at, format!("{} {}", one.kind(), one.name)));
                return Ok(());
            }
        };
        *insn = insn.with_src(insn::PSEUDO_KFUNC_CALL);
        insn.imm = id.0 as i32;
        // Index 0 of the array of descriptors is the kernel itself.
        let number = module.as_ref().map_or(0, |module| applied.module(module) + 1);
        insn.off = i16::try_from(number).map_err(|_| one.fail(ExternFault::TooManyModules))?;
        Ok(())
    }

    fn load(
        &self,
        insns: &mut [Insn],
        at: InsnIdx,
        one: &Extern<'_>,
        value: &Value,
        applied: &mut Applied,
    ) -> Result<Option<Operand>> {
        let i = at.0 as usize;
        let Some([low, high]) = insns.get_mut(i..i + 2) else {
            return Err(Box::new(Error::Internal("64-bit load of an extern")));
        };
        match value {
            Value::Kconfig(offset) => {
                let map = self.kconfig_map.ok_or_else(|| one.fail(ExternFault::Undeclared))?;
                return Ok(Some(Operand::MapValue { map, offset: *offset }));
            }
            Value::Address(address) => (low.imm, high.imm) = (*address as i32, (*address >> 32) as i32),
            Value::Missing => (low.imm, high.imm) = (0, 0),
            Value::Type { id, module } => {
                *low = low.with_src(insn::PSEUDO_BTF_ID);
                (low.imm, high.imm) = (id.0 as i32, 0);
                if let Some(module) = module {
                    return Ok(Some(Operand::ModuleBtf(applied.module(module) as u32)));
                }
            }
        }
        Ok(None)
    }
}

impl Applied {
    /// The number of a module, given to it if it has none yet.
    fn module(&mut self, name: &str) -> usize {
        self.modules.iter().position(|m| m == name).unwrap_or_else(|| {
            self.modules.push(name.to_owned());
            self.modules.len() - 1
        })
    }
}
