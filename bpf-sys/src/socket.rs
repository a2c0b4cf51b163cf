//! Programs on a socket, by `setsockopt(2)`. They go with the socket, or by the detaching call.

use std::os::fd::{AsFd, BorrowedFd};

use crate::errno::Result;
use crate::fd::ProgFd;
use crate::raw::fd_u32;
use crate::raw::socket::set_u32;

/// include/uapi/asm-generic/socket.h; libc has it for some architectures only.
const SO_DETACH_REUSEPORT_BPF: std::ffi::c_int = 68;

/// `setsockopt(SO_ATTACH_BPF)`: a socket filter, which says how many bytes of each packet the socket gets. It takes the
/// place of the filter before.
///
/// # Errors
///
/// `EINVAL`: the program is of another type. `EPERM`: the socket's filter is locked. Linux 3.19.
/// [`socket(7)`](https://man7.org/linux/man-pages/man7/socket.7.html).
pub fn attach_filter(socket: BorrowedFd<'_>, prog: &ProgFd) -> Result<()> {
    let call = "setsockopt(SO_ATTACH_BPF)";
    set_u32(socket, call, libc::SOL_SOCKET, libc::SO_ATTACH_BPF, fd_u32(prog.as_fd()))
}

/// `setsockopt(SO_DETACH_BPF)`: removes the socket filter.
///
/// # Errors
///
/// `ENOENT`: there is none. `EPERM`: the socket's filter is locked.
pub fn detach_filter(socket: BorrowedFd<'_>) -> Result<()> {
    set_u32(socket, "setsockopt(SO_DETACH_BPF)", libc::SOL_SOCKET, libc::SO_DETACH_BPF, 0)
}

/// `setsockopt(SO_ATTACH_REUSEPORT_EBPF)`: a program that chooses among the sockets that share this one's port. It takes
/// the place of the program before.
///
/// # Errors
///
/// `EINVAL`: the program is of another type, or the socket has no `SO_REUSEPORT`. Linux 4.5 for socket filters, 4.19 for
/// programs of type SK_REUSEPORT. [`socket(7)`](https://man7.org/linux/man-pages/man7/socket.7.html).
pub fn attach_reuseport(socket: BorrowedFd<'_>, prog: &ProgFd) -> Result<()> {
    let call = "setsockopt(SO_ATTACH_REUSEPORT_EBPF)";
    set_u32(socket, call, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF, fd_u32(prog.as_fd()))
}

/// `setsockopt(SO_DETACH_REUSEPORT_BPF)`: removes that program.
///
/// # Errors
///
/// `ENOENT`: there is none. Linux 5.3.
pub fn detach_reuseport(socket: BorrowedFd<'_>) -> Result<()> {
    let call = "setsockopt(SO_DETACH_REUSEPORT_BPF)";
    set_u32(socket, call, libc::SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
}
