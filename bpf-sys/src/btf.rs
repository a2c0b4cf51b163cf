//! BTF objects.

use std::os::fd::{AsFd, BorrowedFd};

use crate::errno::Result;
use crate::fd::BtfFd;
use crate::prog::Log;
use crate::raw::{self, IdKind};
use crate::uapi::info::{BtfInfo, Info};

/// `bpf(BPF_BTF_LOAD)`: loads BTF, with the verifier's text in `log`.
///
/// # Errors
///
/// `EINVAL`: the kernel refuses it, see the log. `ENOSPC`: the log is too small. `EPERM`: no CAP_BPF.
///
/// Linux 4.18; flags and token 6.9.
pub fn load(
    data: &[u8],
    flags: u32,
    token: Option<BorrowedFd<'_>>,
    log: Option<&mut Log<'_>>,
) -> Result<BtfFd> {
    raw::btf_load(data, flags, token, log).map(BtfFd::created)
}

/// `bpf(BPF_OBJ_GET_INFO_BY_FD)` of BTF.
///
/// # Errors
///
/// None that the caller can cause.
pub fn info(btf: &BtfFd) -> Result<Info<BtfInfo>> {
    raw::info::get(btf.as_fd())
}

/// As [`info`], and copies the data and the name, ended by zero, as far as they fit.
///
/// # Errors
///
/// `ENOSPC`: the name was cut.
pub fn info_data(btf: &BtfFd, data: &mut [u8], name: &mut [u8]) -> Result<Info<BtfInfo>> {
    raw::info::btf(btf, data, name)
}

/// `bpf(BPF_BTF_GET_NEXT_ID)`: the ids of all BTF objects of the system, the kernel's and its modules' too (Linux 5.11).
///
/// # Errors
///
/// `EPERM`: needs CAP_SYS_ADMIN. Linux 5.4.
pub fn ids() -> crate::Ids {
    crate::Ids::new(IdKind::Btf)
}

/// `bpf(BPF_BTF_GET_FD_BY_ID)`: opens a BTF object.
///
/// # Errors
///
/// `ENOENT`: it is gone. `EPERM`: needs CAP_SYS_ADMIN.
pub fn open_by_id(id: u32, token: Option<BorrowedFd<'_>>) -> Result<BtfFd> {
    raw::fd_by_id(IdKind::Btf, id, 0, token).map(BtfFd::created)
}
