//! Programs to routes (lightweight tunnels).

use std::os::fd::AsFd;

use bpf_sys::ProgType;
use bpf_sys::netlink::RouteSocket;
use bpf_sys::netlink::route::{Hook, Route};

use crate::error::{Error, Result};
use crate::link::{Link, OlderAttachment};
use crate::program::Program;

impl Program {
    /// Makes a route of the calling thread's network namespace whose packets a `lwt_in`, `lwt_out`, `lwt_xmit` or
    /// `lwt_seg6local` program sees, as `ip route add ... encap bpf` does. Dropping the link removes the route.
    ///
    /// # Errors
    ///
    /// [`Error::WrongProgram`]: the program is of another type. `EEXIST`: there is such a route. `EOPNOTSUPP`: the kernel
    /// is without `CONFIG_LWTUNNEL_BPF` or, for segments, `CONFIG_IPV6_SEG6_BPF`.
    pub fn attach_route(&self, route: Route) -> Result<Link> {
        let hook = match self.kind.prog_type {
            ProgType::LWT_IN => Hook::In,
            ProgType::LWT_OUT => Hook::Out,
            ProgType::LWT_XMIT => Hook::Xmit,
            ProgType::LWT_SEG6LOCAL => Hook::Seg6Local,
            other => return Err(Box::new(Error::WrongProgram { program_type: other, target: "a route" })),
        };
        let mut socket = RouteSocket::open()?;
        socket.add_bpf_route(&route, hook, self.fd.as_fd(), &self.name)?;
        Ok(Link::from_older(RouteAttachment { socket, route }))
    }
}

/// A route.
#[derive(Debug)]
struct RouteAttachment {
    /// Of the route's network namespace, whichever thread detaches.
    socket: RouteSocket,
    route: Route,
}

impl OlderAttachment for RouteAttachment {
    fn detach(&mut self) -> Result<()> {
        Ok(self.socket.delete_route(&self.route)?)
    }
}
