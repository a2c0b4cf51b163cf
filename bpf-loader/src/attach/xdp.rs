//! XDP programs to network devices.

use std::os::fd::{AsFd, AsRawFd};

use bpf_sys::link::{self, LinkCreate, LinkOptions, Target};
use bpf_sys::netlink::RouteSocket;
use bpf_sys::netlink::xdp::{Expected, Mode};
use bpf_sys::{AttachType, ProgFd};

use super::feature::Feature;
use crate::error::Result;
use crate::link::{Link, OlderAttachment};
use crate::program::Program;

const XDP_LINK: Feature = Feature::new("links to XDP", (5, 9));

impl Program {
    /// Runs an XDP program for each packet that a device receives; `device` is its index in the calling thread's network
    /// namespace. By a BPF link from Linux 5.9, else by netlink, if the device has no program.
    ///
    /// # Errors
    ///
    /// `EBUSY`, `EEXIST`: the device has a program. `EOPNOTSUPP`: the driver cannot run it, or not for its MTU. `EINVAL`,
    /// `ENODEV`: no such device, or the program is for a `devmap` or `cpumap`.
    pub fn attach_xdp(&self, device: u32, mode: Mode) -> Result<Link> {
        let create = LinkCreate {
            object: self.fd.as_fd(),
            target: Target::Device(device),
            attach_type: AttachType::XDP,
            flags: mode.flags(),
            options: LinkOptions::None,
        };
        match link::create(&create) {
            Ok(fd) => Ok(Link::from_fd(fd)),
            Err(e) if XDP_LINK.is_missing(&e) => self.attach_xdp_netlink(device, mode, Expected::Nothing),
            Err(e) => Err(e.into()),
        }
    }

    /// As [`attach_xdp`](Self::attach_xdp), by netlink, which alone takes the place of a program that is there. Dropping
    /// the link detaches the program unless another has taken its place.
    ///
    /// # Errors
    ///
    /// As there, and `EEXIST`: what is there is not what was expected.
    pub fn attach_xdp_netlink(&self, device: u32, mode: Mode, expected: Expected<'_>) -> Result<Link> {
        let program = self.fd.try_clone()?;
        let mut socket = RouteSocket::open()?;
        socket.set_xdp(device, Some(program.as_fd()), mode, expected)?;
        Ok(Link::from_older(XdpAttachment { program, socket, device, mode }))
    }

    /// The value of a `DEVMAP` element that redirects to a device and first runs this `xdp/devmap` program (Linux 5.8,
    /// `struct bpf_devmap_val`).
    pub fn devmap_value(&self, device: u32) -> [u8; 8] {
        value_with_program(device, &self.fd)
    }

    /// The value of a `CPUMAP` element that queues up to so many packets, on which the CPU runs this `xdp/cpumap` program
    /// (Linux 5.9, `struct bpf_cpumap_val`).
    pub fn cpumap_value(&self, queue_size: u32) -> [u8; 8] {
        value_with_program(queue_size, &self.fd)
    }
}

fn value_with_program(number: u32, program: &ProgFd) -> [u8; 8] {
    let mut value = [0; 8];
    let (first, second) = value.split_at_mut(4);
    first.copy_from_slice(&number.to_ne_bytes());
    second.copy_from_slice(&program.as_raw_fd().to_ne_bytes());
    value
}

/// A program of a device.
#[derive(Debug)]
struct XdpAttachment {
    program: ProgFd,
    /// Of the device's network namespace, whichever thread detaches.
    socket: RouteSocket,
    device: u32,
    mode: Mode,
}

impl OlderAttachment for XdpAttachment {
    fn detach(&mut self) -> Result<()> {
        let expected = Expected::Program(self.program.as_fd());
        Ok(self.socket.set_xdp(self.device, None, self.mode, expected)?)
    }

    fn update(&mut self, program: &Program) -> Result<()> {
        let new = program.fd.try_clone()?;
        let expected = Expected::Program(self.program.as_fd());
        self.socket.set_xdp(self.device, Some(new.as_fd()), self.mode, expected)?;
        self.program = new;
        Ok(())
    }
}
