//! Programs to sockets, socket maps and infrared devices.

use std::os::fd::{AsFd, OwnedFd};

use bpf_sys::link::{self, LinkCreate, LinkOptions, Target};
use bpf_sys::prog::{self, Attach};
use bpf_sys::{AttachType, MapFd, ProgFd};

use super::feature::Feature;
use crate::error::{Error, Result};
use crate::link::{Link, OlderAttachment};
use crate::program::Program;

const SOCKMAP_LINK: Feature = Feature::new("links to socket maps", (6, 10));

impl Program {
    /// Attaches a `sk_msg` or `sk_skb` program to a `SOCKMAP` or `SOCKHASH`, for the data of each socket in it.
    /// `attach_type` is for sections that do not tell (`sk_skb`). By a BPF link from Linux 6.10, else by
    /// `BPF_PROG_ATTACH`, which takes the place of the program before; dropping the link detaches either.
    ///
    /// # Errors
    ///
    /// `EBUSY`: a link holds the place. `EOPNOTSUPP`: the map is of another type. `EINVAL`: the program is.
    pub fn attach_sockmap(&self, map: &MapFd, attach_type: Option<AttachType>) -> Result<Link> {
        let attach_type = attach_type.unwrap_or(self.kind.attach_type);
        let create = LinkCreate {
            object: self.fd.as_fd(),
            target: Target::Fd(map.as_fd()),
            attach_type,
            flags: 0,
            options: LinkOptions::None,
        };
        match link::create(&create) {
            Ok(fd) => Ok(Link::from_fd(fd)),
            Err(e) if SOCKMAP_LINK.is_missing(&e) => self.attach_by_command(map, attach_type),
            Err(e) => Err(e.into()),
        }
    }

    /// Attaches a `lirc_mode2` program to an infrared receiver, of which `device` is the open file (`/dev/lirc0`).
    ///
    /// # Errors
    ///
    /// `EEXIST`: it is attached. `EINVAL`: not such a device, or the kernel is without `CONFIG_BPF_LIRC_MODE2`.
    /// `E2BIG`: 64 programs are there.
    pub fn attach_lirc(&self, device: impl AsFd) -> Result<Link> {
        self.attach_by_command(device, AttachType::LIRC_MODE2)
    }

    fn attach_by_command(&self, target: impl AsFd, attach_type: AttachType) -> Result<Link> {
        let attachment = Attachment {
            program: self.fd.try_clone()?,
            target: target.as_fd().try_clone_to_owned().map_err(Error::descriptor)?,
            attach_type,
        };
        prog::attach(&self.fd, &attachment.attach())?;
        Ok(Link::from_older(attachment))
    }

    /// Makes a `socket` program the filter of a socket: its result is how many bytes of each packet the socket gets. It
    /// takes the place of the filter before and stays as long as the socket;
    /// [`bpf_sys::socket::detach_filter`] removes it.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the program is of another type. `EPERM`: the socket's filter is locked.
    pub fn attach_socket_filter(&self, socket: impl AsFd) -> Result<()> {
        Ok(bpf_sys::socket::attach_filter(socket.as_fd(), &self.fd)?)
    }

    /// Lets a `sk_reuseport` or `socket` program choose among the sockets that share a socket's port. It takes the place of
    /// the program before and stays as long as they do; [`bpf_sys::socket::detach_reuseport`] removes it.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the program is of another type, or the socket has no `SO_REUSEPORT`.
    pub fn attach_reuseport(&self, socket: impl AsFd) -> Result<()> {
        Ok(bpf_sys::socket::attach_reuseport(socket.as_fd(), &self.fd)?)
    }
}

/// A program that `BPF_PROG_ATTACH` attached.
#[derive(Debug)]
struct Attachment {
    program: ProgFd,
    target: OwnedFd,
    attach_type: AttachType,
}

impl Attachment {
    fn attach(&self) -> Attach<'_> {
        let target = Target::Fd(self.target.as_fd());
        Attach { target, attach_type: self.attach_type, ..Attach::default() }
    }
}

impl OlderAttachment for Attachment {
    fn detach(&mut self) -> Result<()> {
        Ok(prog::detach(Some(&self.program), &self.attach())?)
    }
}
