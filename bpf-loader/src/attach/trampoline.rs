//! Code that a kernel makes to call programs from functions, which came to each machine in a version of its own.

use bpf_sys::Errno;

use crate::error::Error;
use crate::machine::Machine;

/// What calls a program by such code.
#[derive(Debug, Clone, Copy)]
pub(super) enum Caller {
    /// A function of the kernel's, or a security hook.
    Function,
    /// A function of another program's.
    Program,
    /// The kernel, in the place of a function of its own.
    Operation,
}

impl Caller {
    const fn name(self) -> &'static str {
        match self {
            Self::Function => "calling programs from functions",
            Self::Program => "replacing functions of programs",
            Self::Operation => "operations that programs implement",
        }
    }

    /// First Linux version of which that machine's kernels have it.
    const fn since(self, machine: Option<Machine>) -> (u8, u8) {
        match (machine, self) {
            (Some(Machine::Aarch64), Self::Function) => (6, 4),
            (Some(Machine::Aarch64), _) => (6, 0),
            (Some(Machine::Riscv64), Self::Function) => (6, 8),
            (Some(Machine::Riscv64), _) => (6, 3),
            (_, Self::Function) => (5, 5),
            (_, _) => (5, 6),
        }
    }

    /// The error to return for the kernel's: `ENOTSUPP` says that it cannot make such code.
    pub(super) fn refused(self, error: bpf_sys::Error) -> Box<Error> {
        match error.errno() {
            Some(Errno::ENOTSUPP) => {
                let min_kernel = self.since(Machine::running());
                Box::new(Error::Unsupported { feature: self.name(), min_kernel, error })
            }
            _ => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_machine_has_its_version() {
        for (machine, versions) in [
            (Machine::X86_64, [(5, 5), (5, 6), (5, 6)]),
            (Machine::Aarch64, [(6, 4), (6, 0), (6, 0)]),
            (Machine::Riscv64, [(6, 8), (6, 3), (6, 3)]),
        ] {
            let callers = [Caller::Function, Caller::Program, Caller::Operation];
            assert_eq!(callers.map(|caller| caller.since(Some(machine))), versions, "{machine:?}");
        }
    }
}
