//! Writing resolutions into instructions, and telling what was poisoned.

use bpf_sys::uapi::insn::{self, Insn};

use super::*;
use crate::insn::InsnIdx;

const AT: InsnIdx = InsnIdx(1);
const NOP: Insn = Insn::new(0x05, 0, 0, 0, 0);
const LOAD: u8 = insn::LDX | insn::MEM;

fn resolution(expected: u64, value: u64) -> Resolution {
    Resolution { expected: Some(expected), value: Some(value), width: Width::Same }
}

/// Patches instruction 1 of a program that starts with `NOP`; what is there afterwards.
fn patched(insns: &[Insn], resolution: Resolution) -> Result<(Patched, Vec<Insn>)> {
    let mut program = [&[NOP], insns].concat();
    let before = program.clone();
    let result = patch(&mut program, AT, &resolution);
    assert_eq!(program[0], NOP);
    if result.is_err() {
        assert_eq!(program, before);
    }
    Ok((result?, program.split_off(1)))
}

#[test]
fn every_form_of_instruction_takes_its_value() {
    let value = Patched::Value(24);
    let add = |imm| Insn::new(insn::ALU64, 3, 0, 0, imm);
    assert_eq!(patched(&[add(8)], resolution(8, 24)), Ok((value, vec![add(24)])));
    let load = |off| Insn::new(LOAD | insn::W, 1, 2, off, 0);
    assert_eq!(patched(&[load(8)], resolution(8, 24)), Ok((value, vec![load(24)])));
    let store = |off| Insn::new(insn::ST | insn::MEM | insn::B, 1, 0, off, 9);
    assert_eq!(patched(&[store(8)], resolution(8, 24)), Ok((value, vec![store(24)])));
    let wide = |low, high| vec![Insn::new(insn::LD_IMM64, 4, 0, 0, low), Insn::new(0, 0, 0, 0, high)];
    let large = 0x1_ffff_fff0;
    assert_eq!(patched(&wide(8, 0), resolution(8, large)), Ok((Patched::Value(large), wide(-16, 1))));
    assert_eq!(patched(&wide(-16, 1), resolution(large, 8)).unwrap().1, wide(8, 0));
}

#[test]
fn what_the_compiler_left_is_checked_where_it_is_certain() {
    let mov = |imm| Insn::new(insn::MOV64_IMM, 3, 0, 0, imm);
    let wrong = Error::CoreInsnValue { insn: AT, found: 7, expected: 8 };
    assert_eq!(patched(&[mov(7)], resolution(8, 24)), Err(wrong.into()));
    let stale = Resolution { expected: None, ..resolution(0, 24) };
    assert_eq!(patched(&[mov(7)], stale).unwrap().1, [mov(24)]);
    assert_eq!(patched(&[mov(-1)], resolution(u64::MAX, 24)).unwrap().1, [mov(24)]);
}

#[test]
fn values_must_fit_their_fields() {
    let range = |value| Err(Box::new(Error::CoreInsnRange { insn: AT, value }));
    let (mov64, mov32) =
        (|imm| Insn::new(insn::MOV64_IMM, 3, 0, 0, imm), |imm| Insn::new(0xb4, 3, 0, 0, imm));
    let top = 0x8000_0000;
    assert_eq!(patched(&[mov64(0)], resolution(0, top)), range(top));
    assert_eq!(patched(&[mov32(0)], resolution(0, top)).unwrap().1, [mov32(i32::MIN)]);
    assert_eq!(patched(&[mov64(0)], resolution(0, -1i64 as u64)).unwrap().1, [mov64(-1)]);
    let load = Insn::new(LOAD | insn::W, 1, 2, 0, 0);
    assert_eq!(patched(&[load], resolution(0, 0x8000)), range(0x8000));
    assert_eq!(patched(&[load], resolution(0, 0x7fff)).unwrap().1[0].off, 0x7fff);
}

#[test]
fn loads_and_stores_take_the_width_of_the_kernel_s_field() {
    let access = |code, size| Insn::new(code | size, 1, 2, 0, 0);
    let change = |local, target| Resolution { width: Width::Change { local, target }, ..resolution(0, 4) };
    for code in [LOAD, insn::STX | insn::MEM, insn::ST | insn::MEM] {
        let (_, insns) = patched(&[access(code, insn::DW)], change(8, 4)).unwrap();
        assert_eq!((insns[0].code, insns[0].off), (code | insn::W, 4));
        let (_, insns) = patched(&[access(code, insn::H)], change(2, 1)).unwrap();
        assert_eq!(insns[0].code, code | insn::B);
    }
    let odd = Error::CoreInsnWidth { insn: AT, width: 8, local: 8, target: 3 };
    assert_eq!(patched(&[access(LOAD, insn::DW)], change(8, 3)), Err(odd.into()));
    let partial = Error::CoreInsnWidth { insn: AT, width: 1, local: 8, target: 4 };
    assert_eq!(patched(&[access(LOAD, insn::B)], change(8, 4)), Err(partial.into()));

    let unsafe_width = Resolution { width: Width::Unsafe { local: 4, target: 8 }, ..resolution(0, 4) };
    let (patch, insns) = patched(&[access(LOAD, insn::W)], unsafe_width).unwrap();
    assert_eq!(patch, Patched::Poisoned(Poison::Width { local: 4, target: 8 }));
    assert_eq!(insns, [Insn::new(insn::CALL, 0, 0, 0, POISON)]);
    // An offset in arithmetic has no width.
    let add = Insn::new(insn::ALU64, 3, 0, 0, 0);
    assert_eq!(patched(&[add], unsafe_width).unwrap().0, Patched::Value(4));
}

#[test]
fn poison_replaces_both_halves_of_a_64_bit_load() {
    let none = Resolution { value: None, ..resolution(99, 0) };
    let call = Insn::new(insn::CALL, 0, 0, 0, 195_896_080);
    let wide = [Insn::new(insn::LD_IMM64, 4, 0, 0, 1), Insn::new(0, 0, 0, 0, 0)];
    assert_eq!(patched(&wide, none), Ok((Patched::Poisoned(Poison::Missing), vec![call; 2])));
    let mov = Insn::new(insn::MOV64_IMM, 3, 0, 0, 5);
    assert_eq!(patched(&[mov, NOP], none), Ok((Patched::Poisoned(Poison::Missing), vec![call, NOP])));
}

#[test]
fn other_instructions_are_refused() {
    let refused = |insns: &[Insn]| {
        let code = insns.first().map(|insn| insn.code);
        let all = [resolution(0, 4), Resolution { expected: None, ..resolution(0, 4) }];
        all.iter().all(|&r| patched(insns, r) == Err(Box::new(Error::CoreInsn { insn: AT, code })))
    };
    assert!(refused(&[]), "beyond the end");
    assert!(refused(&[NOP]), "jump");
    assert!(refused(&[Insn::new(insn::ALU64 | 0x08, 1, 2, 0, 0)]), "register operand");
    assert!(refused(&[Insn::new(insn::LD_IMM64, 1, 0, 0, 0)]), "half of a 64-bit load");
    let wide = |src, second| [Insn::new(insn::LD_IMM64, 1, src, 0, 0), second];
    assert!(refused(&wide(insn::PSEUDO_MAP_FD, Insn::default())), "load of a map");
    assert!(refused(&wide(0, NOP)), "no second half");
    assert!(refused(&[Insn::default(), NOP]), "second half");
}

#[test]
fn relocations_are_described_as_a_programmer_wrote_them() {
    let mut local = Local::new();
    let own = ints(&mut local.types);
    let array = local.types.array(own.int, own.int, 4);
    let inner = local.types.structure("", 16, &[Field::at("list", array, 0)]);
    let s = local.types.structure("task", 24, &[Field::at("pid", own.int, 0), Field::at("", inner, 8)]);
    let e = local.types.enumeration("state", false, &[("RUNNING", 0)]);
    local.relo(RelocKind::FieldByteOffset, s, "0:0");
    local.relo(RelocKind::FieldExists, s, "2:1:0:3");
    local.relo(RelocKind::TypeExists, s, "0");
    local.relo(RelocKind::EnumvalValue, e, "0");
    local.relo(RelocKind::FieldByteOffset, s, "0:9");
    local.relo(RelocKind::FieldByteOffset, inner, "0:0");
    local.relo(RelocKind::FieldByteOffset, BtfId(99), "0:0");
    let btf = Btf::parse(local.types.build()).unwrap();
    let texts: Vec<_> = local.relos.iter().map(|relo| describe(&btf, relo)).collect();
    assert_eq!(
        texts,
        [
            "struct task.pid (0:0)",
            "struct task[2].list[3] (2:1:0:3)",
            "struct task",
            "enum state::RUNNING (0)",
            "struct task (0:9)",
            "struct <anonymous>.list (0:0)",
            "type [99] (0:0)",
        ]
    );
}

#[test]
fn poisoned_instructions_are_found_in_the_verifier_s_log() {
    assert_eq!(poisoned_insn("12: (85) call unknown#195896080"), Some(InsnIdx(12)));
    assert_eq!(poisoned_insn("  7: (85) call unknown#195896080 ; x = s->gone @ t.c:9"), Some(InsnIdx(7)));
    for line in
        ["12: (85) call unknown#2001000000", "invalid func unknown#195896080", "12: (b7) r0 = 195896080", ""]
    {
        assert_eq!(poisoned_insn(line), None, "{line}");
    }
}
