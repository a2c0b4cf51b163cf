//! Where each register is in the context of a BPF program of type kprobe (`struct pt_regs`, `struct user_pt_regs` or
//! `struct user_regs_struct` of arch/*/include/uapi/asm/ptrace.h).

/// An architecture whose registers are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86, 64 bits.
    X86_64,
    /// x86, 32 bits.
    X86,
    /// Arm, 64 bits.
    Aarch64,
    /// Arm, 32 bits.
    Arm,
    /// RISC-V, 64 bits.
    Riscv64,
    /// s390x.
    S390x,
}

impl Arch {
    /// The architecture that this was built for.
    pub fn host() -> Option<Self> {
        Some(match std::env::consts::ARCH {
            "x86_64" => Self::X86_64,
            "x86" => Self::X86,
            "aarch64" => Self::Aarch64,
            "arm" => Self::Arm,
            "riscv64" => Self::Riscv64,
            "s390x" => Self::S390x,
            _ => return None,
        })
    }

    /// `e_machine` of its ELF files.
    pub(super) fn machine(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::X86 => 3,
            Self::Aarch64 => 183,
            Self::Arm => 40,
            Self::Riscv64 => 243,
            Self::S390x => 22,
        }
    }

    pub(super) fn is_x86(self) -> bool {
        matches!(self, Self::X86_64 | Self::X86)
    }

    /// Offset of a register, in bytes.
    pub(super) fn register(self, name: &str) -> Option<u16> {
        match self {
            Self::X86_64 => x86_64(name),
            Self::X86 => place(
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
            Self::Aarch64 => match name {
                "sp" => Some(31 * 8),
                _ => numbered(name, "x", 31).map(|n| n * 8),
            },
            Self::Arm => match name {
                "fp" => Some(44),
                "ip" => Some(48),
                "sp" => Some(52),
                "lr" => Some(56),
                "pc" => Some(60),
                _ => numbered(name, "r", 11).map(|n| n * 4),
            },
            Self::Riscv64 => place(
                name,
                8,
                &[
                    "", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0 fp", "s1", "a0", "a1", "a2", "a3",
                    "a4", "a5", "a6", "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11",
                    "t3", "t4", "t5", "t6",
                ],
            ),
            // After `args` and `psw`.
            Self::S390x => numbered(name, "r", 16).map(|n| 24 + n * 8),
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
                assert_eq!(Arch::X86_64.register(name), Some(offset), "{name}");
            }
        }
        for name in ["", "r16", "rd", "xmm0", "eaxd", "r", "r8x", "ah"] {
            assert_eq!(Arch::X86_64.register(name), None, "{name}");
        }
    }
}
