//! Where each register is in the context of a BPF program of type kprobe (`struct pt_regs`, `struct user_pt_regs` or
//! `struct user_regs_struct` of arch/*/include/uapi/asm/ptrace.h).

use crate::machine::Machine;

/// Whose registers a probe names, and where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers {
    /// What the program is for.
    program: Machine,
    /// What the kernel is for, whose context holds them.
    kernel: Machine,
}

impl Registers {
    /// Those of a program below a kernel; `None` if such programs do not run there.
    pub fn new(program: Machine, kernel: Machine) -> Option<Self> {
        (program == kernel || kernel.compat() == Some(program)).then_some(Self { program, kernel })
    }

    pub(super) fn is_x86(self) -> bool {
        matches!(self.program, Machine::X86_64 | Machine::X86)
    }

    /// Offset of a register, in bytes.
    pub(super) fn register(self, name: &str) -> Option<u16> {
        match self.program {
            Machine::X86_64 => x86_64(name),
            // The names of 32 bits are among those of 64, for parts of the same registers.
            Machine::X86 if self.kernel == Machine::X86_64 => x86_64(name),
            Machine::X86 => place(
                name,
                4,
                &[
                    "ebx bx bl",
                    "ecx cx cl",
                    "edx dx dl",
                    "esi si",
                    "edi di",
                    "ebp bp",
                    "eax ax al",
                    "",
                    "",
                    "",
                    "",
                    "",
                    "eip",
                    "",
                    "",
                    "esp sp",
                ],
            ),
            Machine::Aarch64 => match name {
                "sp" => Some(31 * 8),
                _ => numbered(name, "x", 31).map(|n| n * 8),
            },
            Machine::Arm => {
                let number = match name {
                    "fp" => 11,
                    "ip" => 12,
                    "sp" => 13,
                    "lr" => 14,
                    // Behind the registers and the stack pointer of 64-bit programs.
                    "pc" if self.kernel == Machine::Aarch64 => 32,
                    "pc" => 15,
                    _ => numbered(name, "r", 11)?,
                };
                Some(number * if self.kernel == Machine::Aarch64 { 8 } else { 4 })
            }
            Machine::Riscv64 => place(
                name,
                8,
                &[
                    "", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0 fp", "s1", "a0", "a1", "a2", "a3",
                    "a4", "a5", "a6", "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11",
                    "t3", "t4", "t5", "t6",
                ],
            ),
            // After `args` and `psw`.
            Machine::S390x => numbered(name, "r", 16).map(|n| 24 + n * 8),
        }
    }
}

/// The offset of the word of names, of those that stand in order for registers of `size` bytes each.
fn place(name: &str, size: usize, order: &[&str]) -> Option<u16> {
    let number = order.iter().position(|names| names.split(' ').any(|n| n == name && !n.is_empty()))?;
    u16::try_from(number * size).ok()
}

/// The number of a register `prefixN` below `count`.
fn numbered(name: &str, prefix: &str, count: u16) -> Option<u16> {
    let digits = name.strip_prefix(prefix)?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && digits.len() <= 2;
    digits.parse().ok().filter(|n| plain && *n < count)
}

fn x86_64(name: &str) -> Option<u16> {
    const ORDER: [&str; 20] = [
        "r15",
        "r14",
        "r13",
        "r12",
        "rbp ebp bp bpl",
        "rbx ebx bx bl",
        "r11",
        "r10",
        "r9",
        "r8",
        "rax eax ax al",
        "rcx ecx cx cl",
        "rdx edx dx dl",
        "rsi esi si sil",
        "rdi edi di dil",
        "",
        "rip eip",
        "",
        "",
        "rsp esp sp spl",
    ];
    // r8d, r8w and r8b are parts of r8.
    let part = name.strip_suffix(['d', 'w', 'b']).filter(|part| {
        part.strip_prefix('r').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    });
    place(part.unwrap_or(name), 8, &ORDER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_of_x86_64_by_all_their_names() {
        let registers = Registers::new(Machine::X86_64, Machine::X86_64).unwrap();
        for (names, offset) in [
            (&["r15", "r15d", "r15w", "r15b"][..], 0),
            (&["rbp", "ebp", "bp", "bpl"], 32),
            (&["rbx", "bl"], 40),
            (&["r8", "r8d"], 72),
            (&["rax", "eax", "ax", "al"], 80),
            (&["rdi", "dil"], 112),
            (&["rip"], 128),
            (&["rsp", "spl"], 152),
        ] {
            for name in names {
                assert_eq!(registers.register(name), Some(offset), "{name}");
            }
        }
        for name in ["", "r16", "rd", "xmm0", "eaxd", "r", "r8x", "ah"] {
            assert_eq!(registers.register(name), None, "{name}");
        }
    }
    #[test]
    fn programs_of_32_bits_have_the_context_of_their_kernel() {
        use Machine::{Aarch64, Arm, X86, X86_64};
        for (program, kernel, name, offset) in [
            (X86, X86, "esp", 60),
            (X86, X86_64, "esp", 152),
            (X86, X86_64, "eax", 80),
            (X86, X86_64, "ebp", 32),
            (Arm, Arm, "r3", 12),
            (Arm, Aarch64, "r3", 24),
            (Arm, Aarch64, "fp", 88),
            (Arm, Aarch64, "sp", 104),
            (Arm, Arm, "pc", 60),
            (Arm, Aarch64, "pc", 256),
        ] {
            let registers = Registers::new(program, kernel).unwrap();
            assert_eq!(registers.register(name), Some(offset), "{program:?} on {kernel:?}: {name}");
        }
        assert_eq!(Registers::new(X86_64, X86), None);
        assert_eq!(Registers::new(Arm, X86_64), None);
    }
}
