//! Programs to perf events.

use std::os::fd::AsFd;

use bpf_sys::link::{LinkOptions, Target};
use bpf_sys::{AttachType, Errno, PerfFd};

use super::create;
use crate::error::{Error, Result};
use crate::link::Link;
use crate::program::Program;

/// How a program is set on a perf event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerfEventOptions {
    /// What `bpf_get_attach_cookie` gives the program (Linux 5.15).
    pub cookie: u64,
    /// By ioctl also where the kernel has BPF links for it.
    pub force_ioctl: bool,
}

impl Program {
    /// Runs the program when the event overflows. By a BPF link from Linux 5.15, else by ioctl. Does not enable the event.
    ///
    /// # Errors
    ///
    /// The kernel refuses: the program is of another type, or the event has one already.
    pub fn attach_perf_event(&self, event: &PerfFd) -> Result<Link> {
        self.attach_perf_event_with(event, &PerfEventOptions::default())
    }

    /// As [`attach_perf_event`](Self::attach_perf_event), with options.
    ///
    /// # Errors
    ///
    /// As there. [`Error::Unsupported`]: a cookie, and the kernel has no links for perf events.
    pub fn attach_perf_event_with(&self, event: &PerfFd, options: &PerfEventOptions) -> Result<Link> {
        if !options.force_ioctl {
            let link_options = LinkOptions::PerfEvent { cookie: options.cookie };
            match create(self, Target::Fd(event.as_fd()), AttachType::PERF_EVENT, link_options) {
                Ok(link) => return Ok(Link::from_fd(link)),
                Err(e) if e.errno() == Some(Errno::EINVAL) && !self.has_perf_links() => {
                    if options.cookie != 0 {
                        return Err(Box::new(Error::Unsupported {
                            feature: "cookies of perf events",
                            min_kernel: (5, 15),
                            error: e,
                        }));
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
        if options.cookie != 0 {
            return Err(Box::new(Error::AttachTarget {
                target: self.name.clone(),
                reason: "a program set by ioctl has no cookie",
            }));
        }
        super::with_memlock(|| event.set_bpf(&self.fd))?;
        Ok(Link::from_perf_event(event.try_clone()?))
    }

    /// Does the kernel know links of perf events? It says `EBADF` to what is none, here the program.
    pub(super) fn has_perf_links(&self) -> bool {
        let made = create(
            self,
            Target::Fd(self.fd.as_fd()),
            AttachType::PERF_EVENT,
            LinkOptions::PerfEvent { cookie: 0 },
        );
        made.is_err_and(|e| e.errno() == Some(Errno::EBADF))
    }
}
