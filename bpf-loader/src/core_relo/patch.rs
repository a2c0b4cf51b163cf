//! Writing a resolution into its instruction.

use crate::text;
use bpf_sys::uapi::insn::{self, Insn};

use super::compute::{Resolution, Width};
use crate::error::{Error, Result};
use crate::insn::InsnIdx;

/// The helper number that a poisoned instruction calls, 0xbad2310: the verifier, if it ever gets there, says
/// `invalid func unknown#195896080`. libbpf uses the same.
pub const POISON: i32 = 195_896_080;

/// What became of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patched {
    /// It holds the value now.
    Value(u64),
    /// It must not be executed. The verifier accepts it in dead code only, and names its position otherwise:
    /// [`poisoned_insn`] reads it back, [`describe`](super::describe) tells what was missing.
    Poisoned(Poison),
}

/// Why an instruction was poisoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poison {
    /// The kernel has no such field or enumerator.
    Missing,
    /// The kernel's field has another size, and a load of it would read a wrong value.
    Width {
        /// Size in bytes of the field, or of an element if it is an array, as compiled.
        local: u32,
        /// The same in the kernel.
        target: u32,
    },
}

/// Applies `resolution` to the instruction `at` of `insns`.
///
/// Takes an immediate of arithmetic, a 64-bit load of an immediate, the offset of a load or store; the width of a load or
/// store follows the kernel's field.
///
/// # Errors
///
/// `CoreInsn`, `CoreInsnValue`, `CoreInsnRange`, `CoreInsnWidth`; `insns` is then as before.
pub fn patch(insns: &mut [Insn], at: InsnIdx, resolution: &Resolution) -> Result<Patched> {
    let rest = insns.get_mut(at.0 as usize..).unwrap_or_default();
    let (first, second) = match rest {
        [] => return Err(Box::new(Error::CoreInsn { insn: at, code: None })),
        [first, rest @ ..] => (first, rest.first_mut()),
    };
    let unsuitable = Error::CoreInsn { insn: at, code: Some(first.code) };
    let second = match second {
        Some(second) if first.is_ld_imm64() => Some(second),
        None if first.is_ld_imm64() => return Err(Box::new(unsuitable)),
        _ => None,
    };
    let Some(value) = resolution.value else { return Ok(poison(first, second, Poison::Missing)) };
    let check = |found: u64| match resolution.expected {
        Some(expected) if expected != found => Err(Error::CoreInsnValue { insn: at, found, expected }),
        _ => Ok(()),
    };
    let too_large = Error::CoreInsnRange { insn: at, value };
    match (first.class(), second) {
        (insn::ALU | insn::ALU64, _) if first.code & SOURCE_REGISTER == 0 => {
            check(i64::from(first.imm) as u64)?;
            // A 32-bit operation takes all of 32 bits, a 64-bit one extends the sign.
            let narrow = if first.class() == insn::ALU { u32::try_from(value).ok() } else { None };
            let imm = i32::try_from(value as i64).ok().or(narrow.map(|value| value as i32));
            first.imm = imm.ok_or(too_large)?;
        }
        (insn::LDX | insn::ST | insn::STX, _) => {
            check(i64::from(first.off) as u64)?;
            let off = i16::try_from(value).map_err(|_| too_large)?;
            match resolution.width {
                Width::Same => {}
                Width::Change { local, target } => {
                    let width = width_of(first.code);
                    let size = (width == local).then(|| size_field(target)).flatten();
                    let size = size.ok_or(Error::CoreInsnWidth { insn: at, width, local, target })?;
                    first.code = first.code & !SIZE | size;
                }
                Width::Unsafe { local, target } => {
                    return Ok(poison(first, None, Poison::Width { local, target }));
                }
            }
            first.off = off;
        }
        (insn::LD, Some(second)) => {
            if *first != Insn::new(insn::LD_IMM64, first.dst(), 0, 0, first.imm)
                || *second != Insn::new(0, 0, 0, 0, second.imm)
            {
                return Err(Box::new(unsuitable));
            }
            check(u64::from(second.imm as u32) << 32 | u64::from(first.imm as u32))?;
            (first.imm, second.imm) = (value as i32, (value >> 32) as i32);
        }
        _ => return Err(Box::new(unsuitable)),
    }
    Ok(Patched::Value(value))
}

/// Bit of an arithmetic opcode: the operand is a register.
const SOURCE_REGISTER: u8 = 0x08;
/// Bits of a load's or store's opcode that hold its width.
const SIZE: u8 = 0x18;

fn width_of(code: u8) -> u32 {
    match code & SIZE {
        insn::B => 1,
        insn::H => 2,
        insn::W => 4,
        _ => 8,
    }
}

fn size_field(width: u32) -> Option<u8> {
    match width {
        1 => Some(insn::B),
        2 => Some(insn::H),
        4 => Some(insn::W),
        8 => Some(insn::DW),
        _ => None,
    }
}

/// Both halves of a 64-bit load, or the verifier would complain of the second one's opcode 0.
fn poison(first: &mut Insn, second: Option<&mut Insn>, why: Poison) -> Patched {
    let call = Insn::new(insn::CALL, 0, 0, 0, POISON);
    *first = call;
    if let Some(second) = second {
        *second = call;
    }
    Patched::Poisoned(why)
}

/// The position of a poisoned instruction, from a line of a verifier log such as `12: (85) call unknown#195896080`.
pub fn poisoned_insn(line: &str) -> Option<InsnIdx> {
    let (insn, rest) = text::split_once(line, ": (85) call ")?;
    let marked = text::contains(rest, "unknown#195896080");
    marked.then(|| insn.trim().parse().ok().map(InsnIdx)).flatten()
}
