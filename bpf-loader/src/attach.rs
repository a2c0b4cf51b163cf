//! Programs to hooks. An attachment lasts as long as its [`Link`].

use std::ffi::CString;
use std::os::fd::AsFd;

use bpf_sys::link::{self, LinkCreate, LinkOptions, Target};
use bpf_sys::{AttachType, Errno, LinkFd, PerfFd, prog};

use crate::error::{Error, Result};
use crate::load::Program;

/// An attachment; dropping it detaches.
#[derive(Debug)]
#[non_exhaustive]
pub enum Link {
    /// A BPF link.
    Bpf(LinkFd),
    /// By ioctl, before Linux 5.15: goes with the perf event, whose descriptor the caller keeps.
    PerfEvent,
}

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
            Ok(link) => Ok(Link::Bpf(link)),
            // A kernel without such links does not know the attach type.
            Err(e) if e.errno() == Some(Errno::EINVAL) => {
                event.set_bpf(&self.fd)?;
                Ok(Link::PerfEvent)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Attaches a raw tracepoint program to the tracepoint of that name (Linux 4.17).
    ///
    /// # Errors
    ///
    /// There is no such tracepoint, or the program is of another type.
    pub fn attach_raw_tracepoint(&self, name: &str) -> Result<Link> {
        let c_name = CString::new(name).map_err(|_| Error::NoSuchTarget { name: name.into() })?;
        match prog::raw_tracepoint_open(&self.fd, Some(&c_name), 0) {
            Ok(link) => Ok(Link::Bpf(link)),
            Err(e) if e.errno() == Some(Errno::ENOENT) => {
                Err(Error::NoSuchTarget { name: format!("tracepoint {name}") })
            }
            Err(e) => Err(e.into()),
        }
    }
}
