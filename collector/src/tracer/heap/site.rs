//! Where in a function a probe goes.
//!
//! The kernel puts a breakpoint there. Some instructions it then emulates; others it must execute in a copy, one step, which
//! takes a second exception and on some machines ten times as long. So the probe goes to the first instruction that is emulated
//! on the straight line from the entry, as long as everything is still as at the entry: the arguments in their registers, the
//! stack pointer at the return address (or the link register with it), nothing jumped to in between.

use crate::x86::{self, Effect};

/// A machine whose sites are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// x86-64
    X86,
    /// arm64
    Arm64,
}

/// Bytes of a function that are looked at for jumps back to its beginning.
pub const MAX_CODE: usize = 64 << 10;
/// Instructions on the way to the site.
const MAX_STEPS: usize = 12;

/// The site, in bytes from the function's entry. `code` is the whole function, or as much of it as is known.
pub fn choose(code: &[u8], machine: Machine) -> u64 {
    let site = match machine {
        Machine::X86 => choose_x86(code),
        Machine::Arm64 => choose_arm64(code),
    };
    site.unwrap_or(0) as u64
}

fn choose_x86(code: &[u8]) -> Option<usize> {
    let mut site = 0;
    for _ in 0..MAX_STEPS {
        let instruction = x86::decode(code.get(site..)?)?;
        match instruction.effect {
            Effect::Emulated => return (site == 0 || !is_jumped_to(code, site)).then_some(site),
            Effect::Harmless => site += instruction.length,
            Effect::Other => return None,
        }
    }
    None
}

/// Whether the function itself jumps somewhere past its entry, up to `site`. True if it cannot be decoded to its end.
fn is_jumped_to(code: &[u8], site: usize) -> bool {
    let mut at = 0;
    while at < code.len() {
        let Some(instruction) = code.get(at..).and_then(x86::decode) else { return true };
        at += instruction.length;
        if let Some(jump) = instruction.jump {
            let target = at as i64 + i64::from(jump);
            if (1..=site as i64).contains(&target) {
                return true;
            }
        }
    }
    false
}

/// What an arm64 instruction is, as far as it matters.
fn arm64_effect(word: u32) -> Effect {
    // The registers of the first four arguments, frame pointer, link register, stack pointer.
    let is_needed = |register: u32| matches!(register, 0..=3 | 29..=31);
    let to = |register: u32| if is_needed(register) { Effect::Other } else { Effect::Harmless };
    let destination = word & 31;
    // b, b.cond, cbz and cbnz, tbz and tbnz: see arch/arm64/kernel/probes/decode-insn.c. (bl changes the link register.)
    let is_branch = word & 0xfc00_0000 == 0x1400_0000
        || word & 0xff00_0010 == 0x5400_0000
        || word & 0x7e00_0000 == 0x3400_0000
        || word & 0x7e00_0000 == 0x3600_0000;
    if is_branch {
        return Effect::Emulated;
    }
    // adr, adrp; ldr of a literal into a general register
    if word & 0x1f00_0000 == 0x1000_0000
        || matches!(word & 0xff00_0000, 0x1800_0000 | 0x5800_0000 | 0x9800_0000)
    {
        return if is_needed(destination) { Effect::Other } else { Effect::Emulated };
    }
    match word {
        // nop, bti in its four forms
        0xd503_201f | 0xd503_241f | 0xd503_245f | 0xd503_249f | 0xd503_24df => Effect::Harmless,
        // cmp, cmn and tst, of registers or constants: the result goes to the zero register
        _ if destination == 31
            && (word & 0x7f00_0000 == 0x7100_0000
                || word & 0x7f00_0000 == 0x3100_0000
                || word & 0x7f20_0000 == 0x6b00_0000
                || word & 0x7f20_0000 == 0x6a00_0000
                || word & 0x7f80_0000 == 0x7200_0000) =>
        {
            Effect::Harmless
        }
        // mov between registers; movz, movn, movk; add and sub of constants
        _ if word & 0x7fe0_ffe0 == 0x2a00_03e0 => to(destination),
        _ if word & 0x1f80_0000 == 0x1280_0000 => to(destination),
        _ if word & 0x3f00_0000 == 0x1100_0000 => to(destination),
        _ => Effect::Other,
    }
}

fn choose_arm64(code: &[u8]) -> Option<usize> {
    let words = || code.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
    let mut site = None;
    for (at, word) in words().enumerate().take(MAX_STEPS) {
        match arm64_effect(word) {
            Effect::Emulated => {
                site = Some(at);
                break;
            }
            Effect::Harmless => {}
            Effect::Other => return None,
        }
    }
    let site = site?;
    let jumped_to = words().enumerate().any(|(at, word)| {
        let target = arm64_target(word).map(|distance| at as i64 + distance);
        target.is_some_and(|target| (1..=site as i64).contains(&target))
    });
    (site == 0 || !jumped_to).then_some(site * 4)
}

/// How far a branch goes, in instructions from itself.
fn arm64_target(word: u32) -> Option<i64> {
    let signed = |value: u32, bits: u32| i64::from((value << (32 - bits)) as i32 >> (32 - bits));
    if word & 0x7c00_0000 == 0x1400_0000 {
        Some(signed(word & 0x03ff_ffff, 26))
    } else if word & 0xff00_0010 == 0x5400_0000 || word & 0x7e00_0000 == 0x3400_0000 {
        Some(signed(word >> 5 & 0x7_ffff, 19))
    } else if word & 0x7e00_0000 == 0x3600_0000 {
        Some(signed(word >> 5 & 0x3fff, 14))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushes_are_taken_at_the_entry() {
        // push r12; push rbp; push rbx
        assert_eq!(choose(&[0x41, 0x54, 0x55, 0x53], Machine::X86), 0);
    }

    #[test]
    fn the_first_branch_is_taken_where_nothing_is_pushed() {
        // test rdi, rdi; je; push rbp
        let free = [0x48, 0x85, 0xff, 0x0f, 0x84, 0xbf, 0, 0, 0, 0x55];
        assert_eq!(choose(&free, Machine::X86), 3);
        // endbr64; cmp byte [rip + ...], 0; push rbx
        let valloc = [0xf3, 0x0f, 0x1e, 0xfa, 0x80, 0x3d, 0x31, 0x0e, 0x14, 0, 0, 0x53];
        assert_eq!(choose(&valloc, Machine::X86), 11);
    }

    #[test]
    fn nothing_that_is_needed_may_have_changed() {
        // sub rsp, 8; push rbx
        assert_eq!(choose(&[0x48, 0x83, 0xec, 0x08, 0x53], Machine::X86), 0);
        // mov rdi, rsi; push rbx
        assert_eq!(choose(&[0x48, 0x89, 0xf7, 0x53], Machine::X86), 0);
        // Cut off.
        assert_eq!(choose(&[0x48, 0x85, 0xff, 0x0f, 0x84], Machine::X86), 0);
        assert_eq!(choose(&[], Machine::X86), 0);
    }

    #[test]
    fn what_is_jumped_to_is_not_probed() {
        // test rdi, rdi; je +2; jmp to the je
        assert_eq!(choose(&[0x48, 0x85, 0xff, 0x74, 0x02, 0xeb, 0xfc], Machine::X86), 0);
        // The same jump to the entry is a call like any other.
        assert_eq!(choose(&[0x48, 0x85, 0xff, 0x74, 0x02, 0xeb, 0xf9], Machine::X86), 3);
        // Something behind it is unknown.
        assert_eq!(choose(&[0x48, 0x85, 0xff, 0x74, 0x02, 0x06], Machine::X86), 0);
    }

    fn arm64(words: &[u32]) -> u64 {
        let code: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        choose(&code, Machine::Arm64)
    }

    #[test]
    fn arm64_branches_are_taken() {
        assert_eq!(arm64(&[0xb400_0060, 0xa9bf_7bfd]), 0, "cbz x0");
        assert_eq!(arm64(&[0xd503_245f, 0xb400_0060]), 4, "bti c; cbz x0");
        assert_eq!(arm64(&[0xf100_001f, 0x5400_0060]), 4, "cmp x0, 0; b.eq");
        assert_eq!(arm64(&[0x9000_0004]), 0, "adrp x4");
        assert_eq!(arm64(&[0xd503_201f, 0x9000_0004]), 4, "nop; adrp x4");
        assert_eq!(arm64(&[0xd503_201f, 0x9000_0000]), 0, "nop; adrp x0");
        assert_eq!(arm64(&[0xd503_233f, 0xb400_0060]), 0, "paciasp changes the link register");
        assert_eq!(arm64(&[0xa9bf_7bfd, 0xb400_0060]), 0, "stp x29, x30, [sp, -16]!");
        assert_eq!(arm64(&[0xaa00_03e4, 0xb400_0064]), 4, "mov x4, x0; cbz x4");
        assert_eq!(arm64(&[0xaa01_03e0, 0xb400_0060]), 0, "mov x0, x1; cbz x0");
        assert_eq!(arm64(&[0xd503_201f, 0xb400_0060, 0x17ff_ffff]), 0, "nop; cbz x0; b to the cbz");
        assert_eq!(arm64(&[0xd503_201f, 0xb400_0060, 0x17ff_fffe]), 4, "nop; cbz x0; b to the entry");
    }
}
