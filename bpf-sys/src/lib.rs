//! `bpf(2)`, `perf_event_open(2)` and what else attaches BPF programs, one typed and safe function for each command, and
//! the memory that they share with user space.
//!
//! | module | what it has |
//! |---|---|
//! | [`map`] [`prog`] [`link`] [`btf`] [`pin`] [`token`] | the commands of `bpf(2)`, up to Linux 6.18 |
//! | [`perf`] | `perf_event_open(2)` and its ioctls |
//! | [`netlink`] | XDP, traffic control and routes through programs, by `NETLINK_ROUTE` |
//! | [`socket`] | programs on sockets, by `setsockopt(2)` |
//! | [`shared`] | ring buffers, perf buffers and array maps in memory, and the kernel's BTF |
//! | [`uapi`] | constants and structures of the ABI |
//!
//! Every function takes slices and descriptors, checks their lengths against what the kernel will read and write, and
//! gives an [`Error`] that names the call and the errno. Descriptors are close-on-exec and never 0, 1 or 2.
#![deny(unsafe_code)]

pub mod btf;
mod errno;
mod fd;
mod ids;
pub mod link;
pub mod map;
pub mod memlock;
pub mod netlink;
pub mod perf;
pub mod pin;
pub mod prog;
mod raw;
pub mod shared;
pub mod socket;
pub mod token;
pub mod uapi;

pub use errno::{Errno, Error, Message, Result};
pub use fd::{BtfFd, LinkFd, MapFd, PerfFd, ProgFd, TokenFd, possible_cpus};
pub use ids::Ids;
pub use prog::Log;
pub use uapi::ObjName;
pub use uapi::info::{BtfInfo, Info, LinkDetail, MapInfo, ProgInfo, RawLinkInfo, TokenInfo};
pub use uapi::insn::Insn;
pub use uapi::kinds::{AttachType, Cmd, LinkType, MapType, PerfLinkType, ProgType, StatsType, TaskFdType};
pub use uapi::perf::{PerfEventAttr, PerfType, RecordType};

/// Bytes of a page of memory.
pub fn page_size() -> usize {
    rustix::param::page_size()
}
