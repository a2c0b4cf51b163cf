//! Programs to the packets of a network device: traffic control, tcx and netkit.

use std::os::fd::AsFd;

use bpf_sys::link::{self, LinkCreate, Target};
use bpf_sys::netlink::RouteSocket;
use bpf_sys::netlink::tc::{Direction, FilterId, NewFilter};
use bpf_sys::{AttachType, Errno, ProgType};

use super::feature::Feature;
use super::place::Place;
use crate::error::{Error, Result};
use crate::link::{Link, OlderAttachment};
use crate::program::Program;

const TCX: Feature = Feature::new("tcx", (6, 6));
const NETKIT: Feature = Feature::new("netkit", (6, 7));

/// Which end of a netkit pair sent the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetkitEnd {
    /// The end that carries the programs.
    Primary,
    /// The other.
    Peer,
}

impl Program {
    /// Attaches a `tc` program as a filter of traffic control, or an `action` program as the action of a filter that takes
    /// every packet, its result being the packet's fate (`TC_ACT_*`); `device`
    /// is an index in the calling thread's network namespace. The clsact queueing discipline is made if the device has
    /// none, and stays, as others may use it; dropping the link removes the filter alone.
    ///
    /// A priority or handle of 0 is chosen by the kernel. With `replace`, the program takes the place of the filter with
    /// that priority and handle, if there is one; of an `action`, the kernel cannot do that.
    ///
    /// # Errors
    ///
    /// `EEXIST`: there is such a filter. `ENODEV`: no such device. `ENOENT`: the kernel has no clsact or no BPF filters.
    pub fn attach_tc(&self, device: u32, direction: Direction, id: FilterId, replace: bool) -> Result<Link> {
        let mut socket = RouteSocket::open()?;
        match socket.create_clsact(device) {
            Err(e) if e.errno() != Some(Errno::EEXIST) => return Err(e.into()),
            _ => {}
        }
        let new = NewFilter { id, program: self.fd.as_fd(), name: &self.name, direct_action: true, replace };
        let action = self.kind.prog_type == ProgType::SCHED_ACT;
        let id = match action {
            true => socket.add_action(device, direction, &new)?,
            false => socket.add_filter(device, direction, &new)?,
        };
        Ok(Link::from_older(TcAttachment { socket, device, direction, id, action }))
    }

    /// Attaches a `tc` or `tcx` program to a device by a BPF link, at a place among the others; `device` is an index in the
    /// calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// `ENODEV`: no such device. `ESTALE`: another revision. `ENOENT`: there is no such neighbour.
    /// [`Error::Unsupported`]: before Linux 6.6.
    pub fn attach_tcx(&self, device: u32, direction: Direction, place: Place<'_>) -> Result<Link> {
        let attach_type = match direction {
            Direction::Ingress => AttachType::TCX_INGRESS,
            Direction::Egress => AttachType::TCX_EGRESS,
        };
        self.attach_ordered(device, attach_type, place, TCX)
    }

    /// Attaches a `netkit` program to the primary device of a netkit pair, for the packets that one end sends.
    ///
    /// # Errors
    ///
    /// `EACCES`, `EINVAL`: `device` is no primary end of such a pair. As [`attach_tcx`](Self::attach_tcx) else.
    /// [`Error::Unsupported`]: before Linux 6.7.
    pub fn attach_netkit(&self, device: u32, end: NetkitEnd, place: Place<'_>) -> Result<Link> {
        let attach_type = match end {
            NetkitEnd::Primary => AttachType::NETKIT_PRIMARY,
            NetkitEnd::Peer => AttachType::NETKIT_PEER,
        };
        self.attach_ordered(device, attach_type, place, NETKIT)
    }

    fn attach_ordered(
        &self,
        device: u32,
        attach_type: AttachType,
        place: Place<'_>,
        feature: Feature,
    ) -> Result<Link> {
        let (flags, options) = place.link()?;
        let target = Target::Device(device);
        let create = LinkCreate { object: self.fd.as_fd(), target, attach_type, flags, options };
        link::create(&create).map(Link::from_fd).map_err(|e| feature.refused(e))
    }
}

/// A filter of a device.
#[derive(Debug)]
struct TcAttachment {
    /// Of the device's network namespace, whichever thread detaches.
    socket: RouteSocket,
    device: u32,
    direction: Direction,
    id: FilterId,
    /// It is a filter that takes every packet, and the program is its action.
    action: bool,
}

impl OlderAttachment for TcAttachment {
    fn detach(&mut self) -> Result<()> {
        match self.action {
            true => self.socket.delete_action(self.device, self.direction, self.id)?,
            false => self.socket.delete_filter(self.device, self.direction, self.id)?,
        }
        Ok(())
    }

    fn update(&mut self, program: &Program) -> Result<()> {
        if self.action {
            return Err(Box::new(Error::NotABpfLink { operation: "replace its action" }));
        }
        let new = NewFilter {
            id: self.id,
            program: program.fd.as_fd(),
            name: &program.name,
            direct_action: true,
            replace: true,
        };
        self.socket.add_filter(self.device, self.direction, &new)?;
        Ok(())
    }
}
