//! Programs to perf events.

use std::os::fd::AsFd;

use bpf_sys::link::{self, LinkCreate, LinkOptions, Target};
use bpf_sys::{AttachType, Errno, PerfFd};

use crate::error::Result;
use crate::link::Link;
use crate::program::Program;

impl Program {
    /// Runs the program when the event overflows. By a BPF link from Linux 5.15, else by ioctl.
    ///
    /// # Errors
    ///
    /// The kernel refuses: the program is of another type, or the event has one already.
    pub fn attach_perf_event(&self, event: &PerfFd) -> Result<Link> {
        let create = LinkCreate {
            object: self.fd.as_fd(),
            target: Target::Fd(event.as_fd()),
            attach_type: AttachType::PERF_EVENT,
            flags: 0,
            options: LinkOptions::PerfEvent { cookie: 0 },
        };
        match link::create(&create) {
            Ok(link) => Ok(Link::from_fd(link)),
            // A kernel without such links does not know the attach type.
            Err(e) if e.errno() == Some(Errno::EINVAL) => {
                event.set_bpf(&self.fd)?;
                Ok(Link::from_perf_event(event.try_clone()?))
            }
            Err(e) => Err(e.into()),
        }
    }
}
