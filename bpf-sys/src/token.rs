//! BPF tokens.

use std::os::fd::{AsFd, BorrowedFd};

use crate::errno::Result;
use crate::fd::TokenFd;
use crate::raw;
use crate::uapi::info::{Info, TokenInfo};

/// `bpf(BPF_TOKEN_CREATE)`: the rights that a BPF file system delegates to the caller's user namespace.
///
/// # Errors
///
/// `ENOENT`: it delegates nothing. `EPERM`: not its user namespace, or no CAP_BPF in it. `EOPNOTSUPP`: in the initial user
/// namespace. `EINVAL`: not a BPF file system, or the kernel is older than Linux 6.9.
pub fn create(bpffs: BorrowedFd<'_>, flags: u32) -> Result<TokenFd> {
    raw::token_create(bpffs, flags).map(TokenFd::created)
}

/// `bpf(BPF_OBJ_GET_INFO_BY_FD)` of a token.
///
/// # Errors
///
/// `EINVAL`: the kernel is older than Linux 6.17.
pub fn info(token: &TokenFd) -> Result<Info<TokenInfo>> {
    raw::info::get(token.as_fd())
}
