//! Programs to the function, tracepoint or LSM hook that they were loaded for.

use bpf_sys::link::{LinkOptions, Target};
use bpf_sys::{AttachType, Errno, prog};

use super::feature::Feature;
use super::trampoline::Caller;
use super::{create, with_memlock};
use crate::error::{Error, Result};
use crate::link::Link;
use crate::program::Program;

/// First Linux version that attaches a program to a function that was attached there and is not any more.
const ONCE_MORE: (u8, u8) = (5, 13);

const COOKIES: Feature = Feature::new("cookies of tracing programs", (5, 19));
const TRACEPOINT_COOKIES: Feature = Feature::new("cookies of tp_btf programs", (6, 10));

impl Program {
    /// Attaches a program of kind `fentry`, `fexit`, `fmod_ret` or `tp_btf` (Linux 5.5) or `lsm` (5.7) to what it was
    /// loaded for. Programs of kind `lsm` only run where `bpf` is among the active security modules
    /// (`/sys/kernel/security/lsm`).
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`]: the machine's kernels cannot call programs from functions yet (arm64: Linux 6.4, riscv64: 6.8), or this program has
    /// been attached to one before (Linux 5.13). `EBUSY`: the program is attached already.
    pub fn attach_tracing(&self) -> Result<Link> {
        self.attach_tracing_with(0)
    }

    /// As [`attach_tracing`](Self::attach_tracing), with what `bpf_get_attach_cookie` gives the program (Linux 5.19,
    /// `tp_btf` 6.10).
    ///
    /// # Errors
    ///
    /// As there. [`Error::Unsupported`]: a cookie.
    pub fn attach_tracing_with(&self, cookie: u64) -> Result<Link> {
        let raw_tracepoint = self.kind.attach_type == AttachType::TRACE_RAW_TP;
        let made = if cookie == 0 || raw_tracepoint {
            // Without a cookie, also before 5.19, where BPF_LINK_CREATE does not do it. With one, BPF_LINK_CREATE passes over it
            // before 6.10 for tracepoints; this call refuses it.
            with_memlock(|| prog::raw_tracepoint_open(&self.fd, None, cookie))
        } else {
            create(self, Target::None, self.kind.attach_type, LinkOptions::Tracing { btf_id: 0, cookie })
        };
        made.map(Link::from_fd).map_err(|error| match error.errno() {
            Some(Errno::ENOTSUPP) => Caller::Function.refused(error),
            // What bpf_tracing_prog_attach() says of a program that has given its trampoline away.
            Some(Errno::ENOENT) if !raw_tracepoint && bpf_sys::kernel_version() < ONCE_MORE => {
                Box::new(Error::Unsupported {
                    feature: "attaching a program once more",
                    min_kernel: ONCE_MORE,
                    error,
                })
            }
            _ if cookie != 0 && raw_tracepoint => TRACEPOINT_COOKIES.refused(error),
            _ if cookie != 0 => COOKIES.refused(error),
            _ => error.into(),
        })
    }
}
