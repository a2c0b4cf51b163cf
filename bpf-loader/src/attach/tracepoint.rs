//! Programs to tracepoints.

use std::ffi::CString;

use bpf_sys::perf::{self, Scope};
use bpf_sys::{Errno, PerfEventAttr, PerfType, prog};

use super::feature::Feature;
use super::{PerfEventOptions, first_cpu, tracefs, with_memlock};
use crate::error::{Error, Result};
use crate::link::Link;
use crate::program::Program;

const RAW_COOKIES: Feature = Feature::new("cookies of raw tracepoints", (6, 10));

impl Program {
    /// Attaches a tracepoint program, whose argument is the tracepoint's record (Linux 4.7). `cookie` is what
    /// `bpf_get_attach_cookie` gives the program (Linux 5.15), or 0.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchTarget`]: there is no such tracepoint. [`Error::File`]: the tracing file system is not mounted, or may
    /// not be read. [`Error::Unsupported`]: a cookie. The kernel refuses: the program reads past the record.
    pub fn attach_tracepoint(&self, category: &str, name: &str, cookie: u64) -> Result<Link> {
        let attr = PerfEventAttr {
            kind: PerfType::TRACEPOINT,
            config: tracefs::event_id(category, name)?,
            ..PerfEventAttr::default()
        };
        // The program runs on all CPUs.
        let event = perf::open(&attr, Scope::AllProcesses, Some(first_cpu()), None)?;
        let options = PerfEventOptions { cookie, force_ioctl: false };
        let link = self.attach_perf_event_with(&event, &options)?;
        event.enable(false)?;
        Ok(link)
    }

    /// Attaches a raw tracepoint program, writable ones too, to the tracepoint of that name (Linux 4.17).
    ///
    /// # Errors
    ///
    /// There is no such tracepoint, or the program is of another type.
    pub fn attach_raw_tracepoint(&self, name: &str) -> Result<Link> {
        self.attach_raw_tracepoint_with(name, 0)
    }

    /// As [`attach_raw_tracepoint`](Self::attach_raw_tracepoint), with what `bpf_get_attach_cookie` gives the program
    /// (Linux 6.10).
    ///
    /// # Errors
    ///
    /// As there. [`Error::Unsupported`]: a cookie.
    pub fn attach_raw_tracepoint_with(&self, name: &str, cookie: u64) -> Result<Link> {
        let c_name = CString::new(name).map_err(|_| Error::NoSuchTarget { name: name.into() })?;
        match with_memlock(|| prog::raw_tracepoint_open(&self.fd, Some(&c_name), cookie)) {
            Ok(link) => Ok(Link::from_fd(link)),
            Err(e) if e.errno() == Some(Errno::ENOENT) => {
                Err(Box::new(Error::NoSuchTarget { name: format!("tracepoint {name}") }))
            }
            Err(e) if cookie != 0 => Err(RAW_COOKIES.refused(e)),
            Err(e) => Err(e.into()),
        }
    }
}
