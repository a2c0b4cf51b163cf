//! `bpf(2)`, `perf_event_open(2)` and what else attaches BPF programs, one typed and safe function for each command, and
//! the memory that they share with user space.
//!
//! | module | what it has |
//! |---|---|
//! | [`map`] [`prog`] [`link`] [`btf`] [`pin`] [`token`] | the commands of `bpf(2)`, up to Linux 6.18 |
//! | [`perf`] | `perf_event_open(2)` and its ioctls |
//! | [`netlink`] | XDP, traffic control and routes through programs, by `NETLINK_ROUTE` |
//! | [`sock_diag`] | the TCP sockets of a network namespace, by `NETLINK_SOCK_DIAG` |
//! | [`net_ns`] | network namespaces, and how to be in one |
//! | [`random`] | the kernel's random numbers |
//! | [`memory`] | giving back what this process does not need any more |
//! | [`signal`] | signals that wait in a descriptor |
//! | [`socket`] | programs on sockets, by `setsockopt(2)` |
//! | [`shared`] | ring buffers, perf buffers and array maps in memory, and the kernel's BTF |
//! | [`uapi`] | constants and structures of the ABI |
//!
//! Every function takes slices and descriptors, checks their lengths against what the kernel will read and write, and
//! gives an [`Error`] that names the call and the errno. Descriptors are close-on-exec and never 0, 1 or 2.
// Small builds have no code for it (`tests/static/cargo`).
#![cfg_attr(not(test), warn(clippy::use_debug))]
#![deny(unsafe_code)]

pub mod btf;
pub mod clock;
mod errno;
mod fd;
mod ids;
pub mod link;
pub mod map;
pub mod memlock;
pub mod memory;
pub mod net_ns;
pub mod netlink;
pub mod perf;
pub mod pin;
pub mod prog;
pub mod random;
mod raw;
pub mod shared;
pub mod signal;
pub mod sock_diag;
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

/// Version of the running kernel, as (major, minor): what `uname -r` begins with.
pub fn kernel_version() -> (u8, u8) {
    let uname = rustix::system::uname();
    parse_version(&uname.release().to_string_lossy()).unwrap_or((0, 0))
}

/// What `uname -m` prints: the kernel's machine, or one of 32 bits where the personality asks for that (`setarch`).
pub fn uname_machine() -> String {
    rustix::system::uname().machine().to_string_lossy().into_owned()
}

fn parse_version(release: &str) -> Option<(u8, u8)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Bytes of a page of memory.
pub fn page_size() -> usize {
    raw::clock::setting(libc::_SC_PAGESIZE) as usize
}

/// Compiles the examples of the crate's README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(parse_version("6.18.5-cloud-amd64"), Some((6, 18)));
        assert_eq!(parse_version("7.2-rc1"), Some((7, 2)));
        assert_eq!(parse_version("next"), None);
        assert!(kernel_version() > (3, 0));
    }
}
