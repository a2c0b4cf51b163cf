//! `setsockopt(2)`.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::errno::{Error, Result};

/// An option whose value is a number.
pub(crate) fn set_u32(
    fd: BorrowedFd<'_>,
    call: &'static str,
    level: c_int,
    option: c_int,
    value: u32,
) -> Result<()> {
    let address = core::ptr::from_ref(&value).cast();
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes at `address`, which are `value`'s, and no address in them.
    let ret = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, address, len) };
    if ret < 0 { Err(Error::last(call)) } else { Ok(()) }
}
