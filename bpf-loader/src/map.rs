//! Maps in the kernel.

use bpf_sys::MapFd;

use crate::error::Result;

/// A map in the kernel. It goes when this and every program that uses it are gone.
#[derive(Debug)]
pub struct Map {
    /// Its name in the object.
    pub name: String,
    /// The map.
    pub fd: MapFd,
}

impl Map {
    pub(crate) fn try_clone_fd(&self) -> Result<MapFd> {
        Ok(self.fd.try_clone()?)
    }
}
