//! Rows of call frame information as rules. Pure.

use gimli::{
    CfaRule, EhFrame, Encoding, EndianSlice, LittleEndian, Operation, RegisterRule, UnwindExpression,
    UnwindTableRow,
};

use super::rule::{Cfa, Registers, Rule};

pub(super) type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Where a signal's frame on x86-64 has the stack pointer, from its own on: `struct rt_sigframe` begins with the return address,
/// of which nothing is left when the handler has returned, and `ucontext` has 40 bytes before the registers, of which the stack
/// pointer is number 15 (arch/x86/include/asm/sigframe.h, uapi/asm/sigcontext.h).
const SIGNAL_SP: i64 = 40 + 15 * 8;

/// The rule of a row; `signal` is whether its function is called by no instruction.
pub(super) fn rule_of(
    row: &UnwindTableRow<usize>,
    section: &EhFrame<Bytes<'_>>,
    encoding: Encoding,
    registers: Registers,
    signal: bool,
) -> Rule {
    let register = |number| row.register(gimli::Register(number));
    // What these of arm64 say is where the caller of the interrupted function is.
    if signal && registers.has_link {
        return Rule::of(Cfa::Signal);
    }
    let base = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } if register.0 == registers.sp => {
            Rule::at(Cfa::Sp, *offset)
        }
        CfaRule::RegisterAndOffset { register, offset } if register.0 == registers.fp => {
            Rule::at(Cfa::Fp, *offset)
        }
        CfaRule::RegisterAndOffset { .. } => Rule::of(Cfa::Unsupported),
        CfaRule::Expression(expression) => by_expression(expression, section, encoding, registers),
    };
    if signal {
        let is_known = base == Rule::of(Cfa::Signal);
        return Rule::of(if is_known { Cfa::Signal } else { Cfa::Unsupported });
    }
    if matches!(base.cfa, Cfa::Unsupported | Cfa::Signal) {
        return Rule::of(Cfa::Unsupported);
    }
    let base = match register(registers.ra) {
        RegisterRule::Offset(offset) => base.with_return(offset),
        RegisterRule::SameValue if registers.has_link => base.with_link(),
        // Nothing is said of it: on x86-64 nobody calls; on arm64, it is where the call left it. (That it is undefined, as of `_start`,
        // looks the same here. Walks end at a caller that has not saved it.)
        RegisterRule::Undefined if registers.has_link => base.with_link(),
        RegisterRule::Undefined => return Rule::of(Cfa::End),
        _ => return Rule::of(Cfa::Unsupported),
    };
    match register(registers.fp) {
        RegisterRule::Offset(offset) => base.with_fp(offset),
        // Whoever says that it is lost has no use for it, and nor have its callers.
        RegisterRule::SameValue | RegisterRule::Undefined => base,
        // Functions that align their stack: stored at the frame pointer itself, which is known before the frame address.
        RegisterRule::Expression(expression) => match reading(&expression, section, encoding).as_deref() {
            Some([Operation::RegisterOffset { register, offset: 0, .. }]) if register.0 == registers.fp => {
                base.with_fp_at_fp()
            }
            _ => Rule::of(Cfa::Unsupported),
        },
        _ => Rule::of(Cfa::Unsupported),
    }
}

/// The operations of an expression, if they are few.
fn reading<'a>(
    expression: &UnwindExpression<usize>,
    section: &EhFrame<Bytes<'a>>,
    encoding: Encoding,
) -> Option<Vec<Operation<Bytes<'a>>>> {
    const MOST: usize = 12;
    let mut operations = expression.get(section).ok()?.operations(encoding);
    let mut read = Vec::new();
    while let Some(operation) = operations.next().ok()? {
        if read.len() == MOST {
            return None;
        }
        read.push(operation);
    }
    Some(read)
}

/// The frame address by one of the expressions that compilers, linkers and C libraries write.
fn by_expression(
    expression: &UnwindExpression<usize>,
    section: &EhFrame<Bytes<'_>>,
    encoding: Encoding,
    registers: Registers,
) -> Rule {
    use Operation::{And, Deref, Ge, Plus, RegisterOffset, Shl, UnsignedConstant};
    let Some(operations) = reading(expression, section, encoding) else { return Rule::of(Cfa::Unsupported) };
    match operations[..] {
        [RegisterOffset { register, offset, .. }, Deref { .. }] if register.0 == registers.fp => {
            Rule::at(Cfa::AtFp, offset)
        }
        [RegisterOffset { register, offset: SIGNAL_SP, .. }, Deref { .. }] if register.0 == registers.sp => {
            Rule::of(Cfa::Signal)
        }
        // Linkers write this of a procedure linkage table (`elf_x86_64_eh_frame_lazy_plt` of binutils).
        [
            RegisterOffset { register: sp, offset: 8, .. },
            RegisterOffset { register: pc, offset: 0, .. },
            UnsignedConstant { value: 15 },
            And,
            UnsignedConstant { value: from },
            Ge,
            UnsignedConstant { value: 3 },
            Shl,
            Plus,
        ] if (sp.0, pc.0) == (registers.sp, registers.ra) && from < 16 => Rule::plt(from as u16),
        _ => Rule::of(Cfa::Unsupported),
    }
}
