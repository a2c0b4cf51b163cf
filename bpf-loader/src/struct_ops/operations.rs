//! Maps of operations in the kernel.

use std::os::fd::{AsFd, AsRawFd};

use bpf_sys::{MapFd, ProgFd};

use crate::error::{Error, Result};

/// A map of operations in the kernel, ready to be registered: [`attach`](Self::attach) does.
#[derive(Debug)]
pub struct Operations {
    /// The map's name in the object.
    pub name: String,
    pub(crate) map: MapFd,
    /// Registered by a BPF link (Linux 6.4), not by writing to the map.
    pub(crate) by_link: bool,
    pub(crate) value: Vec<u8>,
    /// The programs that implement it, and where their descriptors go.
    pub(crate) programs: Vec<(usize, ProgFd)>,
    /// A program that is not there.
    pub(crate) missing: Option<String>,
}

impl Operations {
    /// The value with the programs' descriptors.
    pub(crate) fn value(&self) -> Result<Vec<u8>> {
        if let Some(program) = &self.missing {
            let reason = format!("program {program} is not loaded");
            return Err(Box::new(Error::StructOps { map: self.name.clone(), member: String::new(), reason }));
        }
        let mut value = self.value.clone();
        for (at, program) in &self.programs {
            let slot =
                value.get_mut(*at..*at + 8).ok_or(Error::Internal("function pointer past the value"))?;
            slot.copy_from_slice(&(program.as_fd().as_raw_fd() as u64).to_ne_bytes());
        }
        Ok(value)
    }
}
