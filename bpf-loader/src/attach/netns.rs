//! Programs to network namespaces: socket lookup, flow dissector, netfilter.

use std::os::fd::AsFd;

use bpf_sys::AttachType;
use bpf_sys::link::{self, LinkCreate, LinkOptions, Target};
use bpf_sys::uapi::flags::BPF_F_NETFILTER_IP_DEFRAG;

use super::feature::Feature;
use crate::error::Result;
use crate::link::Link;
use crate::program::Program;

/// Where a netfilter program goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetfilterHook {
    /// `NFPROTO_IPV4` (2) or `NFPROTO_IPV6` (10).
    pub family: u32,
    /// `NF_INET_*`: 0 pre-routing, 1 local in, 2 forward, 3 local out, 4 post-routing.
    pub hook: u32,
    /// Lower runs first; neither the lowest nor the highest number is allowed.
    pub priority: i32,
    /// Put fragments together first (Linux 6.6; the priority must be above -400).
    pub defragment: bool,
}

impl Program {
    /// Attaches a `sk_lookup` program, which chooses the socket for what comes in, or a `flow_dissector` program to a
    /// network namespace, of which `netns` is the open file (`/proc/self/ns/net`).
    ///
    /// # Errors
    ///
    /// `EEXIST`: another flow dissector is attached to the namespace without a link. `E2BIG`: 64 programs are there.
    /// [`Error::Unsupported`](crate::Error::Unsupported): `sk_lookup` before Linux 5.9.
    pub fn attach_netns(&self, netns: impl AsFd) -> Result<Link> {
        let feature = match self.kind.attach_type {
            AttachType::SK_LOOKUP => Feature::new("socket lookup by programs", (5, 9)),
            _ => Feature::new("links to network namespaces", (5, 8)),
        };
        let create = LinkCreate {
            object: self.fd.as_fd(),
            target: Target::Fd(netns.as_fd()),
            attach_type: self.kind.attach_type,
            flags: 0,
            options: LinkOptions::None,
        };
        link::create(&create).map(Link::from_fd).map_err(|e| feature.refused(e))
    }

    /// Attaches a `netfilter` program to a hook of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// `EBUSY`: another hook has this priority. `EAFNOSUPPORT`: another family.
    /// [`Error::Unsupported`](crate::Error::Unsupported): before Linux 6.4, `defragment` before 6.6.
    pub fn attach_netfilter(&self, to: NetfilterHook) -> Result<Link> {
        let feature = match to.defragment {
            true => Feature::new("netfilter programs after reassembly", (6, 6)),
            false => Feature::new("netfilter programs", (6, 4)),
        };
        let create = LinkCreate {
            object: self.fd.as_fd(),
            target: Target::None,
            attach_type: AttachType::NETFILTER,
            flags: 0,
            options: LinkOptions::Netfilter {
                pf: to.family,
                hook: to.hook,
                priority: to.priority,
                flags: if to.defragment { BPF_F_NETFILTER_IP_DEFRAG } else { 0 },
            },
        };
        link::create(&create).map(Link::from_fd).map_err(|e| feature.refused(e))
    }
}
