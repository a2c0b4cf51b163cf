//! Which architecture a kernel or a program is for. The kernel's may be wider than this process: an armv7 binary runs on arm64
//! kernels, an i686 one on amd64.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;

/// An architecture that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Machine {
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

impl Machine {
    /// The running kernel's; `None` if it is none of these.
    pub fn running() -> Option<Self> {
        static RUNNING: OnceLock<Option<Machine>> = OnceLock::new();
        *RUNNING.get_or_init(|| Self::named(&machine_name(), is_kernel_wide()))
    }

    /// What this code was built for; `None` if it is none of these.
    pub fn own() -> Option<Self> {
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

    /// That of an ELF file, by `e_machine` (include/uapi/linux/elf-em.h). Of x86-64 there are files of 32 bits (x32), and of
    /// RISC-V too: those are none of these.
    pub const fn of_elf(e_machine: u16, is_64: bool) -> Option<Self> {
        Some(match (e_machine, is_64) {
            (62, true) => Self::X86_64,
            (3, false) => Self::X86,
            (183, true) => Self::Aarch64,
            (40, false) => Self::Arm,
            (243, true) => Self::Riscv64,
            (22, true) => Self::S390x,
            _ => return None,
        })
    }

    /// Whether pointers have 64 bits.
    pub const fn is_64(self) -> bool {
        !matches!(self, Self::X86 | Self::Arm)
    }

    /// What 32-bit programs are for that run on such a kernel beside its own.
    pub const fn compat(self) -> Option<Self> {
        match self {
            Self::X86_64 => Some(Self::X86),
            Self::Aarch64 => Some(Self::Arm),
            _ => None,
        }
    }

    /// As Rust calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::X86 => "x86",
            Self::Aarch64 => "aarch64",
            Self::Arm => "arm",
            Self::Riscv64 => "riscv64",
            Self::S390x => "s390x",
        }
    }

    /// From what uname(2) says, which is a 32-bit machine's name where the personality asks for it (setarch, `linux32`), and
    /// whether the kernel's addresses are known to have 64 bits.
    fn named(machine: &str, is_wide: Option<bool>) -> Option<Self> {
        Some(match machine {
            "x86_64" => Self::X86_64,
            "i386" | "i486" | "i586" | "i686" if is_wide == Some(true) => Self::X86_64,
            "i386" | "i486" | "i586" | "i686" => Self::X86,
            "aarch64" => Self::Aarch64,
            // armv8l is what arm64 calls itself to such a personality, and 32-bit kernels call processors that are new.
            _ if machine.starts_with("armv") => {
                if is_wide.unwrap_or(machine.starts_with("armv8")) {
                    Self::Aarch64
                } else {
                    Self::Arm
                }
            }
            "riscv64" => Self::Riscv64,
            "s390x" => Self::S390x,
            _ => return None,
        })
    }
}

/// What the kernel calls its machine: as it is where it says so (Linux 6.1), else as this process' personality has it.
fn machine_name() -> String {
    let exact = std::fs::read_to_string("/proc/sys/kernel/arch");
    exact.map_or_else(|_| bpf_sys::uname_machine(), |machine| machine.trim_end().to_owned())
}

/// Whether the kernel's addresses have 64 bits, as far as it can be told.
fn is_kernel_wide() -> Option<bool> {
    if size_of::<usize>() == 8 {
        return Some(true);
    }
    // Only kernels with 32-bit programs beside their own have this (CONFIG_COMPAT, Linux 4.5), and symbols may be left out.
    let has_compat = || Path::new("/proc/sys/vm/mmap_rnd_compat_bits").exists().then_some(true);
    has_wide_symbols(File::open("/proc/kallsyms").ok()).or_else(has_compat)
}

/// From the kernel's list of symbols: it prints zeros of addresses too, and nothing but zeros to those who may not see them.
fn has_wide_symbols(list: Option<impl Read>) -> Option<bool> {
    let mut first = [0; 17];
    list?.read_exact(&mut first).ok()?;
    match first.iter().position(|c| *c == b' ')? {
        8 => Some(false),
        16 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_from_what_they_call_themselves() {
        use Machine::{Aarch64, Arm, Riscv64, S390x, X86, X86_64};
        for (name, is_wide, want) in [
            ("x86_64", Some(true), X86_64),
            ("x86_64", None, X86_64),
            ("i686", Some(true), X86_64),
            ("i686", Some(false), X86),
            ("i586", None, X86),
            ("aarch64", None, Aarch64),
            ("armv8l", None, Aarch64),
            ("armv8l", Some(false), Arm),
            ("armv7l", Some(true), Aarch64),
            ("armv7l", Some(false), Arm),
            ("armv7l", None, Arm),
            ("riscv64", Some(true), Riscv64),
            ("s390x", Some(true), S390x),
        ] {
            assert_eq!(Machine::named(name, is_wide), Some(want), "{name} {is_wide:?}");
        }
        assert_eq!(Machine::named("loongarch64", Some(true)), None);
    }

    #[test]
    fn symbols_tell_how_wide_addresses_are() {
        assert_eq!(has_wide_symbols(Some(&b"0000000000000000 A fixed_percpu_data\n"[..])), Some(true));
        assert_eq!(has_wide_symbols(Some(&b"c0008000 T stext\nc0008000 T _text"[..])), Some(false));
        assert_eq!(has_wide_symbols(Some(&b"000 T x"[..])), None);
        assert_eq!(has_wide_symbols(Some(&b"not a list at all"[..])), None);
        assert_eq!(has_wide_symbols(None::<&[u8]>), None);
    }

    #[test]
    fn this_process_can_run_on_the_running_kernel() {
        let (own, running) = (Machine::own(), Machine::running());
        if std::env::var_os("EMULATED").is_some() {
            eprintln!("SKIP in an emulator the kernel is another machine's");
            return;
        }
        assert!(
            own.is_some_and(|own| running == Some(own) || running.and_then(Machine::compat) == Some(own))
        );
    }
}
