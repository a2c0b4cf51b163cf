//! Routes whose packets pass a program (`RTA_ENCAP`, include/uapi/linux/{rtnetlink,lwtunnel,seg6_local}.h).

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use super::{Request, RouteSocket};
use crate::errno::Result;
use crate::raw::fd_u32;

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_ENCAP_TYPE: u16 = 21;
const RTA_ENCAP: u16 = 22;
const LWTUNNEL_ENCAP_BPF: u16 = 6;
const LWTUNNEL_ENCAP_SEG6_LOCAL: u16 = 7;
const LWT_BPF_PROG_FD: u16 = 1;
const LWT_BPF_PROG_NAME: u16 = 2;
const SEG6_LOCAL_ACTION: u16 = 1;
const SEG6_LOCAL_BPF: u16 = 8;
const SEG6_LOCAL_ACTION_END_BPF: u32 = 15;

/// At which point of a route a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// A packet that came in takes the route (`LWT_IN`, Linux 4.10).
    In,
    /// A packet of this host takes the route (`LWT_OUT`, Linux 4.10).
    Out,
    /// A packet is handed to the route's device (`LWT_XMIT`, Linux 4.10).
    Xmit,
    /// A segment of an IPv6 source route ends here (`LWT_SEG6LOCAL`, Linux 4.18).
    Seg6Local,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Address of the destination's network.
    pub destination: IpAddr,
    /// Bits of the network.
    pub prefix_len: u8,
    /// Index of the device to send by.
    pub device: u32,
}

impl Route {
    fn request(&self, kind: u16, flags: u16) -> Request {
        let family = match self.destination {
            IpAddr::V4(_) => libc::AF_INET,
            IpAddr::V6(_) => libc::AF_INET6,
        };
        let scope = match self.destination {
            IpAddr::V4(_) => libc::RT_SCOPE_LINK,
            IpAddr::V6(_) => libc::RT_SCOPE_UNIVERSE,
        };
        // struct rtmsg
        let mut fixed = [0; 12];
        fixed[0] = family as u8;
        fixed[1] = self.prefix_len;
        fixed[4] = libc::RT_TABLE_MAIN;
        fixed[5] = libc::RTPROT_STATIC;
        fixed[6] = scope;
        fixed[7] = libc::RTN_UNICAST;
        let request = Request::new(kind, flags, &fixed);
        match self.destination {
            IpAddr::V4(address) => request.attr(RTA_DST, &address.octets()),
            IpAddr::V6(address) => request.attr(RTA_DST, &address.octets()),
        }
        .attr_u32(RTA_OIF, self.device)
    }
}

impl RouteSocket {
    /// `RTM_NEWROUTE (RTA_ENCAP)`: makes a route through a program, which is shown with `name`.
    ///
    /// # Errors
    ///
    /// `EEXIST`: there is such a route. `EOPNOTSUPP`: the kernel is without it. `EINVAL`: the program is of another type,
    /// or the route is not possible. `EPERM`: needs CAP_NET_ADMIN.
    pub fn add_bpf_route(
        &mut self,
        route: &Route,
        hook: Hook,
        program: BorrowedFd<'_>,
        name: &str,
    ) -> Result<()> {
        let program =
            |r: Request| r.attr_u32(LWT_BPF_PROG_FD, fd_u32(program)).attr_str(LWT_BPF_PROG_NAME, name);
        let (encap_type, program_attr) = match hook {
            Hook::In => (LWTUNNEL_ENCAP_BPF, 1),
            Hook::Out => (LWTUNNEL_ENCAP_BPF, 2),
            Hook::Xmit => (LWTUNNEL_ENCAP_BPF, 3),
            Hook::Seg6Local => (LWTUNNEL_ENCAP_SEG6_LOCAL, SEG6_LOCAL_BPF),
        };
        let request = route
            .request(RTM_NEWROUTE, (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16)
            .attr(RTA_ENCAP_TYPE, &encap_type.to_ne_bytes())
            .nest(RTA_ENCAP, |encap| match hook {
                Hook::Seg6Local => {
                    encap.attr_u32(SEG6_LOCAL_ACTION, SEG6_LOCAL_ACTION_END_BPF).nest(program_attr, program)
                }
                _ => encap.nest(program_attr, program),
            });
        self.request("RTM_NEWROUTE (RTA_ENCAP)", request)
    }

    /// `RTM_DELROUTE`: removes a route.
    ///
    /// # Errors
    ///
    /// `ESRCH`: there is none.
    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        self.request("RTM_DELROUTE", route.request(RTM_DELROUTE, 0))
    }
}
