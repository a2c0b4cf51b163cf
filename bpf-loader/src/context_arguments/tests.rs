use super::*;
use crate::attach_to::{AttachPoint, AttachTo};
use crate::btf::encode::Builder;
use crate::bytes::Endian;
use crate::kind::SectionName;
use crate::object::FunctionIdx;
use crate::plan::ProgramCode;

/// A program of a kind, whose functions are these.
fn program(section: &'static str, functions: &[BtfId]) -> ProgramPlan<'static> {
    let kind = SectionName::parse(section).kind.unwrap();
    let records = functions.iter().zip(0u32..).flat_map(|(id, at)| [at, id.0]);
    let code = ProgramCode {
        kind,
        flags: 0,
        attach: AttachPoint { btf_id: BtfId::VOID, attach_type: kind.attach_type, to: AttachTo::Kernel },
        modules: Vec::new(),
        insns: Vec::new(),
        operands: Vec::new(),
        func_info: records.flat_map(u32::to_ne_bytes).collect(),
        line_info: Vec::new(),
        poisoned: Vec::new(),
    };
    ProgramPlan { name: section, section, code: Ok(code), attach_function: None, function: FunctionIdx(0) }
}

fn functions(program: &ProgramPlan<'_>) -> Vec<BtfId> {
    let ids = program.code.as_ref().unwrap().func_info.chunks_exact(8);
    ids.map(|record| BtfId(u32::from_ne_bytes(record[4..].try_into().unwrap()))).collect()
}

/// The name of the structure that a function's parameter points to; nothing for `void *`.
fn pointee<'b>(btf: &'b Btf<'_>, function: BtfId, param: usize) -> &'b str {
    let prototype = btf.type_by_id(btf.type_by_id(function).unwrap().referred()).unwrap();
    let pointer = btf.type_by_id(prototype.params().nth(param).unwrap().type_id).unwrap();
    btf.type_by_id(pointer.referred()).unwrap().name().unwrap()
}

#[test]
fn each_kind_of_program_has_a_copy_with_its_own_context() {
    let mut b = Builder::new(Endian::Little);
    let int = b.int("int", 4, 1);
    let pointer = b.ptr(BtfId::VOID);
    let prototype = b.prototype(int, &[("number", int), ("context", pointer)]);
    let main = b.function("main", prototype, Linkage::Global);
    let tagged = b.function("tagged", prototype, Linkage::Global);
    b.decl_tag("arg:ctx", tagged, 1);
    // Neither is for the verifier.
    let private = b.function("private", prototype, Linkage::Static);
    b.decl_tag("arg:ctx", private, 1);
    b.decl_tag("arg:nonnull", main, 1);
    let btf = Btf::parse(b.build()).unwrap();
    let all = [main, tagged, private];
    let made = || ["xdp", "tc", "classifier", "kprobe", "fentry", "syscall"].map(|kind| program(kind, &all));

    let mut programs = made();
    assert_eq!(replace(&btf, &mut programs, || true), Ok(None));
    assert!(programs.iter().all(|program| functions(program) == all));

    let mut programs = made();
    let with_copies = Btf::parse(replace(&btf, &mut programs, || false).unwrap().unwrap()).unwrap();
    with_copies.validate().unwrap();
    let names = programs.each_ref().map(|program| {
        let found = functions(program);
        assert_eq!((found[0], found[2]), (main, private));
        assert_eq!(with_copies.type_by_id(found[1]).unwrap().name(), Ok("tagged"));
        pointee(&with_copies, found[1], 1)
    });
    assert_eq!(names, ["xdp_md", "__sk_buff", "__sk_buff", "bpf_user_pt_regs_t", "", ""]);
    assert_eq!(functions(&programs[1]), functions(&programs[2]));
    assert_eq!(functions(&programs[4]), all);
    // What was there stays where it was; three structures, pointers, prototypes and functions are new.
    assert_eq!(with_copies.count(), btf.count() + 12);
}

#[test]
fn only_what_may_be_a_context_becomes_one() {
    let mut b = Builder::new(Endian::Little);
    let int = b.int("int", 4, 1);
    let long = b.int("long", 8, 1);
    let registers = b.structure("pt_regs", 8, &[]);
    let buffer = b.structure("__sk_buff", 8, &[]);
    let alias = b.typedef("bpf_user_pt_regs_t", registers);
    let constant = b.refer(Kind::Const, "", alias);
    let nothing = b.refer(Kind::Const, "", BtfId::VOID);
    let mut function = |to: Option<BtfId>| {
        let param = to.map_or(int, |to| b.ptr(to));
        let prototype = b.prototype(int, &[("context", param)]);
        let function = b.function("f", prototype, Linkage::Global);
        b.decl_tag("arg:ctx", function, 0);
        function
    };
    let all =
        [None, Some(long), Some(registers), Some(buffer), Some(constant), Some(nothing)].map(&mut function);
    let btf = Btf::parse(b.build()).unwrap();
    for (kind, expected) in [
        ("tc", [false, false, false, false, false, true]),
        ("kprobe", [false, false, true, false, false, true]),
        ("perf_event", [false, false, true, false, false, true]),
        ("raw_tp", [false, true, false, false, false, true]),
    ] {
        let mut programs = [program(kind, &all)];
        assert!(replace(&btf, &mut programs, || false).unwrap().is_some());
        let changed: Vec<bool> =
            functions(&programs[0]).iter().zip(&all).map(|(new, old)| new != old).collect();
        assert_eq!(changed, expected, "{kind}");
    }
}

#[test]
fn a_prototype_that_no_function_can_have_is_not_copied() {
    let mut b = Builder::new(Endian::Little);
    let pointer = b.ptr(BtfId::VOID);
    let prototype = b.prototype(BtfId::VOID, &[("a", pointer); 6]);
    let function = b.function("f", prototype, Linkage::Global);
    for param in 0..6 {
        b.decl_tag("arg:ctx", function, param);
    }
    let btf = Btf::parse(b.build()).unwrap();
    let mut programs = [program("xdp", &[function])];
    assert_eq!(replace(&btf, &mut programs, || false), Ok(None));
    assert_eq!(functions(&programs[0]), [function]);
}
