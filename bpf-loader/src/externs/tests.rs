//! Externs of objects that are made up, for kernels that are made up.

use std::io::BufRead;
use std::sync::Arc;

use bpf_sys::uapi::insn::{self, Insn};

use super::resolve::Applied;
use super::*;
use crate::btf::encode::{BOOL, Builder, SIGNED};
use crate::bytes::Endian;
use crate::features::Features;
use crate::insn::{InsnIdx, Operand};
use crate::kernel_names::KernelNames;
use crate::object::MapIdx;
use crate::sorted::SortedSet;
use crate::target::{ModuleBtf, Target, TargetBtf};

/// A kernel with one module.
struct Kernel {
    vmlinux: Option<Arc<Btf<'static>>>,
    modules: Vec<ModuleBtf<'static>>,
    kallsyms: Option<&'static str>,
    kconfig: Option<&'static str>,
}

impl TargetBtf for Kernel {
    fn vmlinux(&self) -> Result<Option<&Btf<'_>>> {
        Ok(self.vmlinux.as_deref())
    }

    fn modules(&self) -> Result<&[ModuleBtf<'_>]> {
        Ok(&self.modules)
    }
}

impl Target for Kernel {
    fn types(&self) -> &dyn TargetBtf {
        self
    }

    fn features(&self) -> &Features {
        &Features::ALL
    }

    fn page_size(&self) -> u32 {
        4096
    }

    fn possible_cpus(&self) -> u32 {
        1
    }

    fn kallsyms(&self) -> Result<Option<Box<dyn BufRead + '_>>> {
        Ok(self.kallsyms.map(|list| Box::new(list.as_bytes()) as Box<dyn BufRead>))
    }

    fn kconfig(&self) -> Result<Option<&[u8]>> {
        Ok(self.kconfig.map(str::as_bytes))
    }

    fn kernel_version(&self) -> Option<u32> {
        Some(6 << 16 | 18 << 8 | 44)
    }

    fn has_bpf_cookie(&self) -> bool {
        true
    }
}

fn parse(b: &Builder) -> Btf<'static> {
    Btf::parse(b.build()).unwrap()
}

/// Functions f(int) and g(int, int), variable v of type int; module m has functions f and m, n has m too.
fn kernel() -> Kernel {
    let mut b = Builder::new(Endian::Little);
    let int = b.int("int", 4, SIGNED);
    let one = b.prototype(int, &[("a", int)]);
    let two = b.prototype(int, &[("a", int), ("b", int)]);
    b.function("f", one, Linkage::Static);
    b.function("g", two, Linkage::Static);
    b.function("__arm64_sys_bpf", one, Linkage::Static);
    b.variable("v", int, Linkage::Global);
    let vmlinux = Arc::new(parse(&b));
    let module = |name: &str, functions: &[&str]| {
        let mut b = Builder::split(&vmlinux);
        for function in functions {
            b.function(function, one, Linkage::Static);
        }
        ModuleBtf { name: name.into(), btf: Btf::parse_split(b.build(), Arc::clone(&vmlinux)).unwrap() }
    };
    let modules = vec![module("m", &["f", "m"]), module("n", &["m", "n"])];
    Kernel {
        modules,
        vmlinux: Some(vmlinux),
        kallsyms: Some("ffffffff81000010 T symbol\n"),
        kconfig: Some("CONFIG_B=y\nCONFIG_N=0x1234\nCONFIG_N=9\nCONFIG_S=\"text\"\nCONFIG_BAD=y\n"),
    }
}

/// An object with one extern: its BTF, and what declares it.
fn object(
    name: &'static str,
    weak: bool,
    write: impl Fn(&mut Builder) -> (Section, BtfId),
) -> (Btf<'static>, Extern<'static>) {
    let mut b = Builder::new(Endian::Little);
    b.int("int", 4, SIGNED);
    let (section, id) = write(&mut b);
    let btf = parse(&b);
    let declared = declaration(&btf, section, id).unwrap().unwrap();
    (btf, Extern { name, weak, symbol: SymbolIdx(1), declared })
}

const INT: BtfId = BtfId(1);

fn function(name: &'static str, weak: bool, params: usize) -> (Btf<'static>, Extern<'static>) {
    object(name, weak, |b| {
        let proto = b.prototype(INT, &[("a", INT); 3][..params]);
        (Section::Ksyms, b.function(name, proto, Linkage::Extern))
    })
}

fn option(
    name: &'static str,
    weak: bool,
    type_of: impl Fn(&mut Builder) -> BtfId,
) -> (Btf<'static>, Extern<'static>) {
    object(name, weak, |b| {
        let ty = type_of(b);
        (Section::Kconfig, b.variable(name, ty, Linkage::Extern))
    })
}

/// The program that refers to the extern, and `.kconfig`.
struct Program {
    insns: Vec<Insn>,
    operands: Vec<(InsnIdx, Operand)>,
    applied: Applied,
    kconfig: Vec<u8>,
}

/// A program of a call of the extern or a load of its address.
fn apply((btf, one): (Btf<'static>, Extern<'static>), call: bool, kernel: &Kernel) -> Result<Program> {
    let externs = Externs::of(vec![one]);
    let mut operands = vec![(InsnIdx(0), Operand::Extern { symbol: SymbolIdx(1), call })];
    let asked = externs.asked(operands.iter());
    assert_eq!(asked, SortedSet::from([0]));
    let names = KernelNames::find(&externs.requests(&asked), kernel);
    let resolved = externs.resolve(&asked, (Some(&btf), Endian::Little), &names, Some(MapIdx(7)), kernel);
    let mut insns = match call {
        true => vec![Insn::new(insn::CALL, 0, insn::PSEUDO_CALL, 0, -1)],
        false => vec![Insn::new(insn::LD_IMM64, 1, 0, 0, 0), Insn::default()],
    };
    let applied = resolved.apply(&mut insns, &mut operands, |_| Ok(String::new()))?;
    Ok(Program { insns, operands, applied, kconfig: resolved.kconfig().to_vec() })
}

fn fault(program: Result<Program>) -> ExternFault {
    match program.map(|program| program.insns).map_err(|e| *e) {
        Err(Error::Extern { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn id(btf: &Btf<'_>, name: &str, kind: Kind) -> i32 {
    btf.types_of(kind).find(|ty| ty.name().unwrap() == name).unwrap().id().0 as i32
}

#[test]
fn calls_name_functions_of_the_kernel_before_those_of_modules() {
    let kernel = kernel();
    let vmlinux = kernel.vmlinux.as_ref().unwrap();
    let kfunc = |module, id| vec![Insn::new(insn::CALL, 0, insn::PSEUDO_KFUNC_CALL, module, id)];
    for name in ["f", "f___flavour"] {
        let program = apply(function(name, false, 1), true, &kernel).unwrap();
        assert_eq!(program.insns, kfunc(0, id(vmlinux, "f", Kind::Func)));
        assert_eq!((program.operands, program.applied.modules), (vec![], vec![]));
    }
    let program = apply(function("m", false, 1), true, &kernel).unwrap();
    assert_eq!(program.insns, kfunc(1, id(&kernel.modules[0].btf, "m", Kind::Func)));
    assert_eq!(program.applied.modules, ["m"]);
    let program = apply(function("n", false, 1), true, &kernel).unwrap();
    assert_eq!(program.insns, kfunc(1, id(&kernel.modules[1].btf, "n", Kind::Func)));
    assert_eq!(program.applied.modules, ["n"]);
}

#[test]
fn a_missing_function_is_an_error_unless_it_is_weak() {
    let kernel = kernel();
    let searched = "the kernel's BTF or its modules'";
    assert_eq!(fault(apply(function("none", false, 1), true, &kernel)), ExternFault::NotFound { searched });
    // Of another prototype.
    let incompatible = fault(apply(function("g", false, 1), true, &kernel));
    assert!(matches!(incompatible, ExternFault::Incompatible { module: None, .. }));
    for name in ["none", "g"] {
        let program = apply(function(name, true, 1), true, &kernel).unwrap();
        assert_eq!(program.insns, [Insn::new(insn::CALL, 0, 0, 0, 2_002_000_000)]);
        assert_eq!(program.applied.poisoned, [(InsnIdx(0), format!("kernel function {name}"))]);
        let program = apply(function(name, true, 1), false, &kernel).unwrap();
        assert_eq!(program.insns, [Insn::new(insn::LD_IMM64, 1, 0, 0, 0), Insn::default()]);
        assert_eq!(program.applied.poisoned, []);
    }
}

#[test]
fn addresses_of_functions_and_variables_are_loaded_by_id() {
    let kernel = kernel();
    let vmlinux = kernel.vmlinux.as_ref().unwrap();
    let load = |id| vec![Insn::new(insn::LD_IMM64, 1, insn::PSEUDO_BTF_ID, 0, id), Insn::default()];
    let variable = |ty: fn(&mut Builder) -> BtfId| {
        object("v", true, move |b| {
            let ty = ty(b);
            (Section::Ksyms, b.variable("v", ty, Linkage::Extern))
        })
    };
    let program = apply(variable(|b| b.refer(Kind::Const, "", INT)), false, &kernel).unwrap();
    assert_eq!(program.insns, load(id(vmlinux, "v", Kind::Var)));
    // A variable of another type is an error even if it is weak.
    let other = apply(variable(|b| b.structure("s", 4, &[])), false, &kernel);
    assert!(matches!(fault(other), ExternFault::Incompatible { .. }));
    assert_eq!(fault(apply(variable(|_| INT), true, &kernel)), ExternFault::NotAFunction);

    let program = apply(function("f", false, 1), false, &kernel).unwrap();
    assert_eq!(program.insns, load(id(vmlinux, "f", Kind::Func)));
    let program = apply(function("m", false, 1), false, &kernel).unwrap();
    assert_eq!(program.insns, load(id(&kernel.modules[0].btf, "m", Kind::Func)));
    assert_eq!(program.operands, [(InsnIdx(0), Operand::ModuleBtf(0))]);
    assert_eq!(program.applied.modules, ["m"]);
}

#[test]
fn without_type_only_the_address_counts() {
    let symbol = |name, weak| {
        object(name, weak, |b| {
            let constant = b.refer(Kind::Const, "", BtfId::VOID);
            (Section::Ksyms, b.variable(name, constant, Linkage::Extern))
        })
    };
    let mut kernel = kernel();
    let program = apply(symbol("symbol", false), false, &kernel).unwrap();
    let [low, high] = program.insns[..] else { panic!() };
    assert_eq!((low.src(), low.imm as u32, high.imm as u32), (0, 0x8100_0010, 0xffff_ffff));
    let program = apply(symbol("none", true), false, &kernel).unwrap();
    assert_eq!(program.insns, [Insn::new(insn::LD_IMM64, 1, 0, 0, 0), Insn::default()]);
    let searched = "/proc/kallsyms";
    assert_eq!(fault(apply(symbol("none", false), false, &kernel)), ExternFault::NotFound { searched });
    kernel.kallsyms = None;
    let missing = "/proc/kallsyms";
    let nowhere = fault(apply(symbol("symbol", false), false, &kernel));
    assert_eq!(nowhere, ExternFault::NowhereToLook { missing });
}

#[test]
fn a_kernel_without_types_has_no_functions() {
    let kernel = Kernel { vmlinux: None, modules: Vec::new(), ..kernel() };
    let missing = "kernel BTF";
    assert_eq!(fault(apply(function("f", false, 1), true, &kernel)), ExternFault::NowhereToLook { missing });
    let program = apply(function("f", true, 1), true, &kernel).unwrap();
    assert_eq!(program.applied.poisoned.len(), 1);
}

#[test]
fn options_are_read_through_the_map() {
    let kernel = kernel();
    let bool = |b: &mut Builder| b.int("_Bool", 1, BOOL);
    let short = |b: &mut Builder| b.int("short", 2, SIGNED);
    let program = apply(option("CONFIG_B", false, bool), false, &kernel).unwrap();
    assert_eq!(program.operands, [(InsnIdx(0), Operand::MapValue { map: MapIdx(7), offset: 0 })]);
    assert_eq!(program.kconfig, [1]);
    // The first of two counts.
    assert_eq!(apply(option("CONFIG_N", false, short), false, &kernel).unwrap().kconfig, [0x34, 0x12]);
    let chars = |b: &mut Builder| {
        let char = b.int("char", 1, SIGNED);
        b.array(char, INT, 8)
    };
    assert_eq!(apply(option("CONFIG_S", false, chars), false, &kernel).unwrap().kconfig, b"text\0");
    // Missing and weak, it is the zero that the map begins with.
    let program = apply(option("CONFIG_NONE", true, short), false, &kernel).unwrap();
    assert_eq!((program.kconfig, program.operands.len()), (vec![], 1));
    assert!(matches!(
        fault(apply(option("CONFIG_NONE", false, short), false, &kernel)),
        ExternFault::NotFound { .. }
    ));
    assert!(matches!(
        fault(apply(option("CONFIG_BAD", true, short), false, &kernel)),
        ExternFault::Value { .. }
    ));
    let float = |b: &mut Builder| b.float("float", 4);
    assert_eq!(fault(apply(option("CONFIG_B", true, float), false, &kernel)), ExternFault::Type);

    let int = |_: &mut Builder| INT;
    let version = apply(option("LINUX_KERNEL_VERSION", false, int), false, &kernel).unwrap();
    assert_eq!(version.kconfig, [44, 18, 6, 0]);
    assert_eq!(apply(option("LINUX_HAS_BPF_COOKIE", false, bool), false, &kernel).unwrap().kconfig, [1]);
    let wrapper = || option("LINUX_HAS_SYSCALL_WRAPPER", false, bool);
    assert_eq!(apply(wrapper(), false, &kernel).unwrap().kconfig, [1]);
    let kernel = Kernel { vmlinux: None, modules: Vec::new(), ..kernel };
    assert_eq!(apply(wrapper(), false, &kernel).unwrap().kconfig, [0]);
    let kernel = Kernel { kallsyms: Some("0 T __x64_sys_bpf\n"), ..kernel };
    assert_eq!(apply(wrapper(), false, &kernel).unwrap().kconfig, [1]);
}

#[test]
fn options_lie_by_alignment_then_size_then_name() {
    let of = |name, number, value_type, size| Extern {
        name,
        weak: false,
        symbol: SymbolIdx(number),
        declared: Declared::Kconfig(Variable { value_type, size, offset: 0 }),
    };
    let int = kconfig::ValueType::Int { signed: true };
    let function = Extern { declared: Declared::Function(INT), ..of("a", 1, int, 4) };
    let externs = Externs::of(vec![
        function,
        of("b", 2, kconfig::ValueType::Chars, 3),
        of("z", 3, int, 4),
        of("c", 4, kconfig::ValueType::Bool, 1),
        of("d", 5, int, 8),
        of("e", 6, int, 4),
    ]);
    let placed: Vec<_> = externs.all().iter().map(|e| (e.name, e.kconfig().map(|v| v.offset))).collect();
    let expected =
        [("d", Some(0)), ("e", Some(8)), ("z", Some(12)), ("c", Some(16)), ("b", Some(17)), ("a", None)];
    assert_eq!(placed, expected);
    assert_eq!(externs.kconfig_size(), 20);
    assert_eq!(externs.of_symbol(SymbolIdx(3)).map(|(i, e)| (i, e.name)), Some((2, "z")));

    // Nobody's value has half a gigabyte.
    let huge = Externs::of(vec![of("b", 1, kconfig::ValueType::Chars, 1 << 29), of("c", 2, int, 4)]);
    assert_eq!(huge.kconfig_size(), 4);
    assert_eq!(huge.of_symbol(SymbolIdx(1)).unwrap().1.kconfig(), None);
}
