//! Programs to tracepoints.

use std::ffi::CString;

use bpf_sys::{Errno, prog};

use crate::error::{Error, Result};
use crate::link::Link;
use crate::program::Program;

impl Program {
    /// Attaches a raw tracepoint program to the tracepoint of that name (Linux 4.17).
    ///
    /// # Errors
    ///
    /// There is no such tracepoint, or the program is of another type.
    pub fn attach_raw_tracepoint(&self, name: &str) -> Result<Link> {
        let c_name = CString::new(name).map_err(|_| Error::NoSuchTarget { name: name.into() })?;
        match prog::raw_tracepoint_open(&self.fd, Some(&c_name), 0) {
            Ok(link) => Ok(Link::from_fd(link)),
            Err(e) if e.errno() == Some(Errno::ENOENT) => {
                Err(Error::NoSuchTarget { name: format!("tracepoint {name}") })
            }
            Err(e) => Err(e.into()),
        }
    }
}
