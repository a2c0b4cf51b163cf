//! Names of system calls.

use std::sync::OnceLock;

use bpf_loader::machine::Machine;

use super::syscall_tables::{ARM, ARM64, I386, RISCV64, Run, X32, X86_64};

/// Whose numbers they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SyscallAbi {
    /// 64-bit programs on x86, and those of the x32 ABI.
    X86_64,
    /// 32-bit programs on x86.
    I386,
    /// 64-bit programs on ARM.
    Arm64,
    /// 32-bit programs on ARM. Calls that only these have, from 0xf0000 on, are numbered from 1008 here.
    Arm,
    /// 64-bit programs on RISC-V.
    Riscv64,
}

/// Names by number.
struct Table(Vec<Option<&'static str>>);

impl Table {
    fn new(parts: &[&[Run]]) -> Self {
        let mut names = Vec::new();
        for (first, run) in parts.iter().flat_map(|runs| runs.iter()) {
            names.resize(usize::from(*first).max(names.len()), None);
            names.extend(run.split(' ').map(Some));
        }
        Self(names)
    }
}

/// From 0xf0001 on (arch/arm/include/uapi/asm/unistd.h).
const ARM_PRIVATE: &[Run] = &[(1009, "breakpoint cacheflush usr26 usr32 set_tls get_tls")];

impl SyscallAbi {
    /// What programs use that are as wide as the running kernel, which a 32-bit agent too can ask: an i686 binary on an amd64
    /// kernel finds [`X86_64`](Self::X86_64). `None` on machines whose calls are not known here.
    pub fn running() -> Option<Self> {
        Machine::running().and_then(Self::of)
    }

    /// What a machine's programs use.
    fn of(machine: Machine) -> Option<Self> {
        Some(match machine {
            Machine::X86_64 => Self::X86_64,
            Machine::X86 => Self::I386,
            Machine::Aarch64 => Self::Arm64,
            Machine::Arm => Self::Arm,
            Machine::Riscv64 => Self::Riscv64,
            Machine::S390x => return None,
        })
    }

    /// What 32-bit programs use on a machine whose 64-bit programs use this.
    pub const fn compat(self) -> Option<Self> {
        match self {
            Self::X86_64 => Some(Self::I386),
            Self::Arm64 => Some(Self::Arm),
            _ => None,
        }
    }

    /// Whether this binary can run on such a kernel: it carries no other tables.
    const fn can_run(self) -> bool {
        if cfg!(test) {
            return true;
        }
        match self {
            Self::X86_64 | Self::I386 => cfg!(any(target_arch = "x86_64", target_arch = "x86")),
            Self::Arm64 | Self::Arm => cfg!(any(target_arch = "aarch64", target_arch = "arm")),
            Self::Riscv64 => cfg!(target_arch = "riscv64"),
        }
    }

    fn table(self) -> &'static Table {
        static TABLES: [OnceLock<Table>; 5] = [const { OnceLock::new() }; 5];
        static NONE: OnceLock<Table> = OnceLock::new();
        let (at, parts): (&OnceLock<Table>, &[&[Run]]) = match self {
            Self::X86_64 if Self::X86_64.can_run() => (&TABLES[0], &[X86_64, X32]),
            Self::I386 if Self::I386.can_run() => (&TABLES[1], &[I386]),
            Self::Arm64 if Self::Arm64.can_run() => (&TABLES[2], &[ARM64]),
            Self::Arm if Self::Arm.can_run() => (&TABLES[3], &[ARM, ARM_PRIVATE]),
            Self::Riscv64 if Self::Riscv64.can_run() => (&TABLES[4], &[RISCV64]),
            _ => (&NONE, &[]),
        };
        at.get_or_init(|| Table::new(parts))
    }

    /// The name of a number; `None` if there was no such call when this was written.
    pub fn name(self, number: u16) -> Option<&'static str> {
        *self.table().0.get(usize::from(number))?
    }

    /// The numbers of a name: x86_64 has two for some, the second of the x32 ABI.
    pub fn numbers(self, name: &str) -> impl Iterator<Item = u16> + '_ {
        let names = self.table().0.iter().zip(0u16..);
        let name = name.to_owned();
        names.filter(move |(n, _)| **n == Some(name.as_str())).map(|(_, number)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_names_of_each_abi() {
        use SyscallAbi::{Arm, Arm64, I386, Riscv64, X86_64};
        let known = [
            (X86_64, 0, "read"),
            (X86_64, 59, "execve"),
            (X86_64, 110, "getppid"),
            (X86_64, 231, "exit_group"),
            (X86_64, 334, "rseq"),
            (X86_64, 335, "uretprobe"),
            (X86_64, 424, "pidfd_send_signal"),
            (X86_64, 512, "rt_sigaction"),
            (I386, 1, "exit"),
            (I386, 20, "getpid"),
            (I386, 403, "clock_gettime64"),
            (Arm64, 93, "exit"),
            (Arm64, 173, "getppid"),
            (Arm64, 220, "clone"),
            (Arm, 1, "exit"),
            (Arm, 248, "exit_group"),
            (Arm, 1010, "cacheflush"),
            (Riscv64, 259, "riscv_flush_icache"),
        ];
        for (abi, number, name) in known {
            assert_eq!(abi.name(number), Some(name), "{abi:?} {number}");
            assert!(abi.numbers(name).any(|n| n == number), "{abi:?} {name}");
        }
        for abi in [X86_64, I386, Arm64, Arm, Riscv64] {
            assert_eq!((abi.name(435), abi.name(471)), (Some("clone3"), Some("rseq_slice_yield")), "{abi:?}");
            assert_eq!(
                (abi.name(463), abi.name(466)),
                (Some("setxattrat"), Some("removexattrat")),
                "{abi:?}"
            );
            assert_eq!((abi.name(500), abi.name(1023), abi.name(u16::MAX)), (None, None, None));
            assert_eq!(abi.numbers("no_such_call").count(), 0);
        }
        assert_eq!(X86_64.name(340), None, "between two runs");
    }

    #[test]
    fn libcs_numbers_have_these_names() {
        // The library is of this program's ABI, which the kernel may have beside its own.
        let abi = Machine::own().and_then(SyscallAbi::of).unwrap();
        let known = [
            (libc::SYS_getppid, "getppid"),
            (libc::SYS_openat, "openat"),
            (libc::SYS_exit_group, "exit_group"),
            (libc::SYS_rt_sigreturn, "rt_sigreturn"),
            (libc::SYS_clock_nanosleep, "clock_nanosleep"),
            (libc::SYS_io_uring_enter, "io_uring_enter"),
            (libc::SYS_pidfd_open, "pidfd_open"),
        ];
        for (number, name) in known {
            assert_eq!(abi.name(number as u16), Some(name));
        }
    }
}
