//! Programs to hooks. An attachment lasts as long as its [`Link`](crate::link::Link).

mod cgroup;
mod feature;
mod netns;
mod perf_event;
mod place;
mod query;
mod route;
mod socket;
mod tc;
mod tracepoint;
mod xdp;

pub use bpf_sys::netlink::{
    route::Route,
    tc::{Direction, FilterId},
    xdp::{Expected as ExpectedXdp, Mode as XdpMode},
};
pub use cgroup::{CgroupOptions, Sharing};
pub use netns::NetfilterHook;
pub use place::{Neighbour, Place, Position};
pub use query::{AttachedPrograms, attached_programs};
pub use tc::NetkitEnd;
