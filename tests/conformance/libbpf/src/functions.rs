//! A program's instructions by function, so that programs can be compared whose functions were put in another order.

use bpf_sys::Insn;
use bpf_sys::uapi::insn;

/// Instructions of a function. Where another is called, its number in the order of first use stands instead of the distance;
/// where a descriptor is, zero.
pub type Function = Vec<[u8; 8]>;

/// The functions in the order of first use, the program's own first; what nothing refers to (an exception callback) is at the
/// end of the one before it.
pub fn split(program: &[[u8; 8]]) -> Vec<Function> {
    let insns: Vec<Insn> =
        program.iter().map(|bytes| Insn::from_bytes(*bytes, cfg!(target_endian = "big"))).collect();
    let mut starts = vec![0];
    starts.extend((0..insns.len()).filter_map(|at| callee(&insns, at)));
    starts.sort_unstable();
    starts.dedup();
    let mut order = vec![0];
    let mut functions = Vec::new();
    let mut next = 0;
    while let Some(&start) = order.get(next) {
        next += 1;
        let end = starts.iter().copied().find(|&s| s > start).unwrap_or(insns.len());
        let mut function = Function::new();
        let (mut high, mut module) = (false, false);
        for at in start..end {
            let mut insn = insns[at];
            if high {
                high = false;
                if module {
                    insn.imm = 0;
                }
            } else {
                module = insn.is_ld_imm64() && insn.src() == insn::PSEUDO_BTF_ID;
                high = insn.is_ld_imm64();
                if let Some(to) = callee(&insns, at) {
                    let number = order.iter().position(|&s| s == to).unwrap_or_else(|| {
                        order.push(to);
                        order.len() - 1
                    });
                    insn.imm = number as i32;
                } else if high && matches!(insn.src(), insn::PSEUDO_MAP_FD | insn::PSEUDO_MAP_VALUE) {
                    insn.imm = 0;
                }
            }
            function.push(to_bytes(insn));
        }
        functions.push(function);
    }
    functions
}

/// First instruction of the function that an instruction calls or takes the address of.
fn callee(insns: &[Insn], at: usize) -> Option<usize> {
    let insn = insns[at];
    let calls = insn.is_call() && insn.src() == insn::PSEUDO_CALL;
    let takes_address = insn.is_ld_imm64() && insn.src() == insn::PSEUDO_FUNC;
    let to = (at as i64 + 1).checked_add(i64::from(insn.imm)).and_then(|to| usize::try_from(to).ok());
    to.filter(|&to| (calls || takes_address) && to < insns.len())
}

/// An instruction as it lies in memory.
pub fn to_bytes(insn: Insn) -> [u8; 8] {
    let [off, imm] = [insn.off.to_ne_bytes().to_vec(), insn.imm.to_ne_bytes().to_vec()];
    let registers =
        if cfg!(target_endian = "big") { insn.dst() << 4 | insn.src() } else { insn.src() << 4 | insn.dst() };
    [insn.code, registers, off[0], off[1], imm[0], imm[1], imm[2], imm[3]]
}
