//! Programs to functions of other programs.

use std::os::fd::AsFd;

use bpf_sys::link::{LinkOptions, Target};
use bpf_sys::{AttachType, Errno, prog};

use super::trampoline::Caller;
use super::{create, with_memlock};
use crate::attach_to::TargetProgram;
use crate::error::{Error, Result};
use crate::link::Link;
use crate::program::Program;

impl Program {
    /// Replaces the function that the program was loaded for (Linux 5.6).
    ///
    /// # Errors
    ///
    /// `EBUSY`: another program replaces it. `EINVAL`: the program is of another type. `EPERM`: lockdown.
    /// [`Error::Unsupported`] on arm64 before Linux 6.0, on riscv64 before 6.3.
    pub fn attach_freplace(&self) -> Result<Link> {
        let made = with_memlock(|| prog::raw_tracepoint_open(&self.fd, None, 0));
        made.map(Link::from_fd).map_err(|error| Caller::Program.refused(error))
    }

    /// Replaces a function of another program than the one that this was loaded for, or another of its functions, with the
    /// same parameters and result (Linux 5.10). It needs not be attached to the first.
    ///
    /// # Errors
    ///
    /// `target` has no such function. `EINVAL`: it is not compatible, or the program is of another type. `EBUSY`: another
    /// program replaces it. [`Error::Unsupported`] before Linux 5.10 (arm64: 6.0, riscv64: 6.3).
    pub fn attach_freplace_to(&self, target: &TargetProgram, function: &str) -> Result<Link> {
        let options = LinkOptions::BtfId(target.function(function)?.0);
        let link = create(self, Target::Fd(target.fd().as_fd()), AttachType(0), options);
        link.map(Link::from_fd).map_err(|error| match error.errno() {
            // A kernel without such links does not know the field.
            Some(Errno::E2BIG) => {
                let feature = "replacing functions of another program than at loading";
                Box::new(Error::Unsupported { feature, min_kernel: (5, 10), error })
            }
            _ => Caller::Program.refused(error),
        })
    }
}
