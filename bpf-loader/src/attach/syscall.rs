//! Names of the kernel's functions for system calls.

use super::kprobe;

/// The part of a system call's function name that says the architecture (`SYSCALL_DEFINE` in arch/*/include/asm/
/// syscall_wrapper.h), or nothing where there are no wrappers.
const fn prefix(arch: &str) -> Option<&'static str> {
    // Matching on strings is not const.
    match arch.as_bytes() {
        b"x86_64" => Some("x64"),
        b"x86" => Some("ia32"),
        b"aarch64" => Some("arm64"),
        b"arm" => Some("arm"),
        b"s390x" => Some("s390x"),
        b"riscv64" | b"riscv32" => Some("riscv"),
        b"mips" | b"mips64" => Some("mips"),
        b"powerpc" => Some("powerpc"),
        b"powerpc64" => Some("powerpc64"),
        _ => None,
    }
}

/// Name of a system call's function with wrappers, as `__x64_sys_bpf`.
fn wrapper(arch: &str, name: &str) -> Option<String> {
    Some(format!("__{}_sys_{name}", prefix(arch)?))
}

/// Name of a system call's function in the running kernel. One without wrappers (before Linux 4.17, or built without)
/// has `__se_sys_bpf`; which of both, its symbols tell, or where they may not be read, a trial.
pub(super) fn function(name: &str) -> String {
    let plain = format!("__se_sys_{name}");
    let Some(wrapped) = wrapper(std::env::consts::ARCH, name) else { return plain };
    let present = match super::functions::contains(&wrapped) {
        Some(present) => present,
        None => wrapper(std::env::consts::ARCH, "bpf").is_some_and(|bpf| kprobe::can_probe(&bpf)),
    };
    if present { wrapped } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_of_each_architecture() {
        for (arch, name) in [
            ("x86_64", "__x64_sys_openat"),
            ("x86", "__ia32_sys_openat"),
            ("aarch64", "__arm64_sys_openat"),
            ("s390x", "__s390x_sys_openat"),
            ("riscv64", "__riscv_sys_openat"),
            ("arm", "__arm_sys_openat"),
        ] {
            assert_eq!(wrapper(arch, "openat").as_deref(), Some(name));
        }
        assert_eq!(wrapper("loongarch64", "openat"), None);
    }
}
