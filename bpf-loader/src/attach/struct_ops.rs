//! Maps of operations to the kernel.

use std::os::fd::AsFd;

use bpf_sys::link::{self, LinkCreate, LinkOptions, Target};
use bpf_sys::uapi::flags::BPF_ANY;
use bpf_sys::{AttachType, Errno, MapFd, map};

use super::trampoline::Caller;
use crate::error::{Error, Result};
use crate::link::{Link, OlderAttachment};
use crate::struct_ops::Operations;

/// The only key of a map of operations.
const KEY: [u8; 4] = [0; 4];

impl Operations {
    /// Registers the operations: the kernel knows and may use them until the link is dropped. Those of section
    /// `.struct_ops` by writing to the map (Linux 5.6); once unregistered, they cannot be registered again. Those of
    /// `.struct_ops.link` by a BPF link (Linux 6.4), as often as wished.
    ///
    /// # Errors
    ///
    /// A program that implements one of them was not loaded. `EEXIST`: the name is taken. `EINVAL`: the kernel refuses them;
    /// an operation that must be there is missing, say. `EBUSY`: they were registered before. [`Error::Unsupported`] on arm64
    /// before Linux 6.0, on riscv64 before 6.3.
    pub fn attach(&self) -> Result<Link> {
        self.write()?;
        if !self.by_link {
            return Ok(Link::from_older(Registered(self.map.try_clone()?)));
        }
        let create = LinkCreate {
            object: self.map.as_fd(),
            target: Target::None,
            attach_type: AttachType::STRUCT_OPS,
            flags: 0,
            options: LinkOptions::None,
        };
        Ok(Link::from_fd(link::create(&create)?))
    }

    /// Writes the value to the map, once: what a link has used does not change any more.
    fn write(&self) -> Result<()> {
        match map::update(&self.map, &KEY, &self.value()?, BPF_ANY) {
            Err(e) if self.by_link && e.errno() == Some(Errno::EBUSY) => Ok(()),
            other => other.map_err(|error| Caller::Operation.refused(error)),
        }
    }
}

impl Link {
    /// Puts other operations of the same kind and name in the place of those that the link has registered (Linux 6.4).
    ///
    /// # Errors
    ///
    /// It is no link of operations, or the new ones are not of section `.struct_ops.link`. `EINVAL`, `EOPNOTSUPP`: the kind
    /// of operations cannot be replaced, or not by these.
    pub fn update_struct_ops(&mut self, operations: &Operations) -> Result<()> {
        let not_a_link = Error::NotABpfLink { operation: "replace its operations" };
        let Some(fd) = self.fd().filter(|_| operations.by_link) else { return Err(Box::new(not_a_link)) };
        operations.write()?;
        Ok(link::update(fd, operations.map.as_fd(), 0, None)?)
    }
}

/// Operations that were registered by writing to their map.
#[derive(Debug)]
struct Registered(MapFd);

impl OlderAttachment for Registered {
    fn detach(&mut self) -> Result<()> {
        map::delete(&self.0, &KEY)?;
        Ok(())
    }
}
