//! The only places that make system calls with pointers.
//!
//! Each function takes slices and borrowed descriptors, fills in every address and length of the attribute itself, and so
//! is safe: the kernel reads and writes exactly what was borrowed. Where the kernel takes a length from a map and not
//! from the attribute, the slices are checked against the map's sizes first.
#![allow(unsafe_code)]

pub(crate) mod clock;
pub(crate) mod info;
pub(crate) mod link;
pub(crate) mod map;
pub(crate) mod memory;
pub(crate) mod perf;
pub(crate) mod prog;
pub(crate) mod signal;
pub(crate) mod socket;

use std::ffi::{CStr, c_long};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::errno::{Errno, Error, Result};
use crate::fd::above_standard_streams;
use crate::uapi::kinds::Cmd;
use crate::uapi::{addr, addr_mut, addr_str, attr};

/// A command and how errors call it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command {
    cmd: Cmd,
    pub(crate) call: &'static str,
}

macro_rules! command {
    ($name:ident) => {
        $crate::raw::Command {
            cmd: $crate::uapi::kinds::Cmd::$name,
            call: concat!("bpf(BPF_", stringify!($name), ")"),
        }
    };
}
use command;

/// `bpf(2)`.
///
/// # Safety
///
/// `A` is the attribute of `cmd`. For the duration of the call, what the kernel reads through addresses in `attr` is
/// initialised memory that nobody writes, and what it writes through them is borrowed mutably and takes any bytes.
pub(crate) unsafe fn bpf<A>(command: Command, attr: &mut A) -> Result<i32> {
    let number: c_long = libc::SYS_bpf;
    // SAFETY: `attr` is valid for reads and writes of its size; the rest is the caller's promise.
    let ret = unsafe { libc::syscall(number, command.cmd.0, core::ptr::from_mut(attr), size_of::<A>()) };
    if ret < 0 { Err(Error::last(command.call)) } else { Ok(ret as i32) }
}

/// As [`bpf`], for commands that return a descriptor.
///
/// # Safety
///
/// As [`bpf`], and `command` returns a new descriptor.
pub(crate) unsafe fn bpf_fd<A>(command: Command, attr: &mut A) -> Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the command succeeded, so `fd` is a new descriptor that nobody else owns.
    above_standard_streams(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor as attributes have it.
pub(crate) fn fd_u32(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// A descriptor as attributes have it, with 0 for none.
pub(crate) fn opt_fd(fd: Option<BorrowedFd<'_>>) -> u32 {
    fd.map_or(0, fd_u32)
}

/// A length as attributes have it.
pub(crate) fn len_u32(call: &'static str, what: &'static str, len: usize) -> Result<u32> {
    u32::try_from(len).map_err(|_| Error::Length { call, what, actual: len, expected: u32::MAX as usize })
}

/// Checks a length that must be exact.
pub(crate) fn check_len(
    call: &'static str,
    what: &'static str,
    actual: usize,
    expected: usize,
) -> Result<()> {
    if actual == expected { Ok(()) } else { Err(Error::Length { call, what, actual, expected }) }
}

/// Turns "no such entry" into `false`.
pub(crate) fn found(result: Result<i32>) -> Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(Error::Call { errno: Errno::ENOENT, .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

pub(crate) fn obj_pin(fd: BorrowedFd<'_>, path: &CStr, dir: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut attr = attr::Obj {
        pathname: addr_str(path),
        bpf_fd: fd_u32(fd),
        file_flags: if dir.is_some() { crate::uapi::flags::BPF_F_PATH_FD } else { 0 },
        path_fd: opt_fd(dir) as i32,
        ..Default::default()
    };
    // SAFETY: the kernel reads `path` up to its terminating zero, and writes nothing.
    unsafe { bpf(command!(OBJ_PIN), &mut attr) }.map(drop)
}

pub(crate) fn obj_get(path: &CStr, file_flags: u32, dir: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let mut attr = attr::Obj {
        pathname: addr_str(path),
        file_flags: file_flags | if dir.is_some() { crate::uapi::flags::BPF_F_PATH_FD } else { 0 },
        path_fd: opt_fd(dir) as i32,
        ..Default::default()
    };
    // SAFETY: the kernel reads `path` up to its terminating zero, and writes nothing.
    unsafe { bpf_fd(command!(OBJ_GET), &mut attr) }
}

/// Kinds of objects that have ids.
#[derive(Debug, Clone, Copy)]
pub(crate) enum IdKind {
    Prog,
    Map,
    Btf,
    Link,
}

pub(crate) fn next_id(kind: IdKind, after: u32) -> Result<Option<u32>> {
    let command = match kind {
        IdKind::Prog => command!(PROG_GET_NEXT_ID),
        IdKind::Map => command!(MAP_GET_NEXT_ID),
        IdKind::Btf => command!(BTF_GET_NEXT_ID),
        IdKind::Link => command!(LINK_GET_NEXT_ID),
    };
    let mut attr = attr::GetId { id: after, ..Default::default() };
    // SAFETY: the kernel writes `next_id`, inside the attribute, and follows no address.
    match unsafe { bpf(command, &mut attr) } {
        Ok(_) => Ok(Some(attr.next_id)),
        Err(Error::Call { errno: Errno::ENOENT, .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

pub(crate) fn fd_by_id(
    kind: IdKind,
    id: u32,
    open_flags: u32,
    token: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd> {
    let command = match kind {
        IdKind::Prog => command!(PROG_GET_FD_BY_ID),
        IdKind::Map => command!(MAP_GET_FD_BY_ID),
        IdKind::Btf => command!(BTF_GET_FD_BY_ID),
        IdKind::Link => command!(LINK_GET_FD_BY_ID),
    };
    let token_flag = if token.is_some() { crate::uapi::flags::BPF_F_TOKEN_FD } else { 0 };
    let mut attr = attr::GetId {
        id,
        open_flags: open_flags | token_flag,
        token_fd: opt_fd(token) as i32,
        ..Default::default()
    };
    // SAFETY: the kernel follows no address.
    unsafe { bpf_fd(command, &mut attr) }
}

pub(crate) fn btf_load(
    data: &[u8],
    flags: u32,
    token: Option<BorrowedFd<'_>>,
    log: Option<&mut crate::Log<'_>>,
) -> Result<OwnedFd> {
    let command = command!(BTF_LOAD);
    let token_flag = if token.is_some() { crate::uapi::flags::BPF_F_TOKEN_FD } else { 0 };
    let mut attr = attr::BtfLoad {
        btf: addr(data),
        btf_size: len_u32(command.call, "data", data.len())?,
        btf_flags: flags | token_flag,
        btf_token_fd: opt_fd(token) as i32,
        ..Default::default()
    };
    let Some(log) = log else {
        // SAFETY: the kernel reads `btf_size` bytes of `data` and has no log to write.
        return unsafe { bpf_fd(command, &mut attr) };
    };
    attr.btf_log_level = log.level;
    attr.btf_log_size = len_u32(command.call, "log", log.buf.len())?;
    attr.btf_log_buf = addr_mut(log.buf);
    // SAFETY: the kernel reads `btf_size` bytes of `data` and writes at most `btf_log_size` bytes of the log.
    let result = unsafe { bpf_fd(command, &mut attr) };
    log.true_size = attr.btf_log_true_size;
    result
}

pub(crate) fn enable_stats(kind: u32) -> Result<OwnedFd> {
    let mut attr = attr::EnableStats { kind };
    // SAFETY: the kernel follows no address.
    unsafe { bpf_fd(command!(ENABLE_STATS), &mut attr) }
}

pub(crate) fn token_create(bpffs: BorrowedFd<'_>, flags: u32) -> Result<OwnedFd> {
    let mut attr = attr::TokenCreate { flags, bpffs_fd: fd_u32(bpffs) };
    // SAFETY: the kernel follows no address.
    unsafe { bpf_fd(command!(TOKEN_CREATE), &mut attr) }
}
