//! Names of the kernel's functions for system calls.

use super::kprobe;
use crate::machine::Machine;

/// The part of a system call's function name that says the architecture (`SYSCALL_DEFINE` in arch/*/include/asm/
/// syscall_wrapper.h), or nothing where there are no wrappers.
const fn prefix(machine: Machine) -> Option<&'static str> {
    Some(match machine {
        Machine::X86_64 => "x64",
        // Of 32-bit kernels since Linux 5.7, and of 64-bit ones for 32-bit programs.
        Machine::X86 => "ia32",
        Machine::Aarch64 => "arm64",
        Machine::Riscv64 => "riscv",
        Machine::S390x => "s390x",
        Machine::Arm => return None,
    })
}

/// Name of a system call's function with wrappers, as `__x64_sys_bpf`.
fn wrapper(machine: Machine, name: &str) -> Option<String> {
    Some(format!("__{}_sys_{name}", prefix(machine)?))
}

/// Name of a system call's function in the running kernel, which may be wider than this process. One without wrappers (arm;
/// before Linux 4.17, on riscv64 6.6; or built without) has `__se_sys_bpf`, and of a call without arguments just `sys_getppid`;
/// which of them, its symbols tell, or where they may not be read, a trial.
pub fn syscall_function(name: &str) -> String {
    if let Some(machine) = Machine::running() {
        if let Some(wrapped) = wrapper(machine, name).filter(|wrapped| is_there(machine, wrapped)) {
            return wrapped;
        }
    }
    let plain = format!("__se_sys_{name}");
    if super::functions::contains(&plain) == Some(false) { format!("sys_{name}") } else { plain }
}

/// Has the kernel this function with a wrapper's name?
fn is_there(machine: Machine, wrapped: &str) -> bool {
    super::functions::contains(wrapped)
        .unwrap_or_else(|| wrapper(machine, "bpf").is_some_and(|bpf| kprobe::can_probe(&bpf)))
}

/// Name of the function that 32-bit programs' calls of that name enter, where the kernel has another than
/// [`syscall_function`]'s for them: on x86-64 with CONFIG_IA32_EMULATION, of calls that take the same from both. `None` also
/// where the kernel's symbols may not be read.
pub fn compat_syscall_function(name: &str) -> Option<String> {
    if Machine::running() != Some(Machine::X86_64) {
        return None;
    }
    wrapper(Machine::X86, name).filter(|name| super::functions::contains(name) == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_of_each_architecture() {
        for (machine, name) in [
            (Machine::X86_64, Some("__x64_sys_openat")),
            (Machine::X86, Some("__ia32_sys_openat")),
            (Machine::Aarch64, Some("__arm64_sys_openat")),
            (Machine::S390x, Some("__s390x_sys_openat")),
            (Machine::Riscv64, Some("__riscv_sys_openat")),
            (Machine::Arm, None),
        ] {
            assert_eq!(wrapper(machine, "openat").as_deref(), name);
        }
    }
}
