//! Pins: names of objects in a BPF file system, which keep them alive.

use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::errno::{Error, Result};
use crate::fd::{LinkFd, MapFd, ProgFd};
use crate::raw;

fn c_path(call: &'static str, path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::Argument { call, what: "the path has a zero byte" })
}

/// `bpf(BPF_OBJ_PIN)`: pins a map, program or link. With `dir` (Linux 6.5), `path` is relative to it.
///
/// # Errors
///
/// `EEXIST`: the name is taken. `EPERM`: not in a BPF file system. `ENOENT`: no such directory.
pub fn pin(object: BorrowedFd<'_>, path: &Path, dir: Option<BorrowedFd<'_>>) -> Result<()> {
    raw::obj_pin(object, &c_path("bpf(BPF_OBJ_PIN)", path)?, dir)
}

fn get(path: &Path, flags: u32, dir: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    raw::obj_get(&c_path("bpf(BPF_OBJ_GET)", path)?, flags, dir)
}

/// `bpf(BPF_OBJ_GET)`: opens a pinned map; `flags` may restrict it (`BPF_F_RDONLY`, `BPF_F_WRONLY`).
///
/// # Errors
///
/// `ENOENT`: no such pin. `EACCES`: the file's mode. [`Error::WrongKind`]: not a map.
pub fn get_map(path: &Path, flags: u32, dir: Option<BorrowedFd<'_>>) -> Result<MapFd> {
    get(path, flags, dir)?.try_into()
}

/// `bpf(BPF_OBJ_GET)`: opens a pinned program.
///
/// # Errors
///
/// `ENOENT`: no such pin. `EACCES`: the file's mode. [`Error::WrongKind`]: not a program.
pub fn get_prog(path: &Path, dir: Option<BorrowedFd<'_>>) -> Result<ProgFd> {
    get(path, 0, dir)?.try_into()
}

/// `bpf(BPF_OBJ_GET)`: opens a pinned link.
///
/// # Errors
///
/// `ENOENT`: no such pin. `EACCES`: the file's mode. [`Error::WrongKind`]: not a link.
pub fn get_link(path: &Path, dir: Option<BorrowedFd<'_>>) -> Result<LinkFd> {
    get(path, 0, dir)?.try_into()
}
