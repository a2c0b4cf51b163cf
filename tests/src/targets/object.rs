//! Object files through parsing and planning.

use super::{kernel, memory};
use bpf_loader::btf::Btf;
use bpf_loader::insn::Operand;
use bpf_loader::object::ObjectSpec;
use bpf_loader::plan::{LoadPlan, ProgramCode};
use bpf_sys::uapi::insn::{Insn, PSEUDO_CALL};
use std::cell::Cell;

/// Heap that parsing and planning may take for any file: an error's text, the first entries of tables.
const HEAP: usize = 4096;
/// And for each byte of the file.
const HEAP_PER_BYTE: usize = 16;
/// And for each program, which may contain all of the file's functions.
const HEAP_PER_PROGRAM: usize = 1 << 20;
/// The verifier takes no more.
const MAX_INSNS: usize = 1_000_000;

/// A BPF object file: parsed, every program planned for a made-up kernel, within bounds of memory.
pub fn loader_object(file: &[u8]) {
    let (programs, peak) = memory::peak_of(|| plan_object(file, Kernel::MadeUp).unwrap_or(0));
    let allowed = HEAP + file.len() * HEAP_PER_BYTE + programs * HEAP_PER_PROGRAM;
    assert!(peak <= allowed, "{peak} bytes of heap for {} of input and {programs} programs", file.len());
    one_program(file);
}

/// Whoever loads one program pays for no other: for the file, and 1 MiB.
fn one_program(file: &[u8]) {
    // The first, the last and one between, which depends on the file.
    for pick in [|_| 0, |count| count - 1, |count| count / 2] as [fn(usize) -> usize; 3] {
        let ((), peak) = memory::peak_of(|| {
            let Ok(spec) = ObjectSpec::parse(file) else { return };
            let Some(name) =
                spec.programs.len().checked_sub(1).map(|last| spec.programs[pick(last + 1)].name)
            else {
                return;
            };
            let found = Cell::new(false);
            let plan = spec.plan_programs(&kernel::MadeUp(kernel::types()), |program| {
                program.name == name && !found.replace(true)
            });
            drop(plan);
        });
        let allowed = file.len() * HEAP_PER_BYTE + HEAP_PER_PROGRAM;
        assert!(peak <= allowed, "{peak} bytes of heap for one program of {} bytes", file.len());
    }
}

/// Whose types an object is relocated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// A made-up kernel's, a few dozen.
    MadeUp,
    /// The object's own, so that most relocations have an answer.
    OwnTypes,
}

/// Parses an object and plans every program of it; how many there are, or `None` if it is no object.
pub fn plan_object(file: &[u8], kernel: Kernel) -> Option<usize> {
    let spec = ObjectSpec::parse(file).ok()?;
    let types = spec.btf.as_ref().filter(|_| kernel == Kernel::OwnTypes).unwrap_or(kernel::types());
    if let Ok(plan) = spec.plan_programs(&kernel::MadeUp(types), |_| true) {
        check(&spec, &plan);
        for code in plan.programs.iter().filter_map(|program| program.code.as_ref().ok()) {
            // The program's own function may have a second name, by which others call it.
            let most = 2 * file.len() / Insn::SIZE;
            assert!(code.insns.len() <= most, "{} instructions of {} bytes", code.insns.len(), file.len());
        }
    }
    Some(spec.programs.len())
}

fn check(spec: &ObjectSpec<'_>, plan: &LoadPlan<'_>) {
    assert_eq!(plan.programs.len(), spec.programs.len());
    if let Some(btf) = &plan.btf {
        let sanitized = Btf::parse(btf.as_slice()).expect("BTF for the kernel parses");
        assert!(spec.btf.as_ref().is_some_and(|own| own.count() <= sanitized.count()));
    }
    for code in plan.programs.iter().filter_map(|program| program.code.as_ref().ok()) {
        check_operands(plan, code);
        check_calls(code);
        let count = code.insns.len() as u32;
        check_records(&code.func_info, 8, count);
        check_records(&code.line_info, 16, count);
        assert!(code.poisoned.iter().all(|(at, _)| at.0 < count));
    }
}

fn check_operands(plan: &LoadPlan<'_>, code: &ProgramCode) {
    assert!(code.insns.len() <= MAX_INSNS);
    assert!(code.operands.is_sorted_by(|(a, _), (b, _)| a < b), "operands are sorted, one an instruction");
    for (at, operand) in &code.operands {
        let load = code.insns.get(at.0 as usize..at.0 as usize + 2).expect("an operand's load is there");
        assert!(load[0].is_ld_imm64());
        match operand {
            Operand::Map(map) | Operand::MapValue { map, .. } => {
                assert!(
                    plan.maps.iter().any(|(planned, _)| planned == map),
                    "a map that programs use is planned"
                );
            }
            Operand::ModuleBtf(index) => assert!((*index as usize) < code.modules.len()),
            Operand::Extern { .. } => panic!("a planned program has no externals"),
        }
    }
}

fn check_calls(code: &ProgramCode) {
    let mut second_half = false;
    for (at, insn) in code.insns.iter().enumerate() {
        if !second_half && insn.is_call() && insn.src() == PSEUDO_CALL {
            let callee = at as i64 + 1 + i64::from(insn.imm);
            assert!((0..code.insns.len() as i64).contains(&callee), "instruction {at} calls {callee}");
        }
        second_half = !second_half && insn.is_ld_imm64();
    }
}

/// Records begin with the instruction that they are about.
fn check_records(records: &[u8], size: usize, insns: u32) {
    assert_eq!(records.len() % size, 0);
    let places = records.chunks_exact(size).filter_map(|r| r.first_chunk().copied().map(u32::from_ne_bytes));
    assert!(places.clone().all(|at| at < insns));
    if size == 8 {
        assert!(places.is_sorted_by(|a, b| a < b), "functions are in order");
    }
}
