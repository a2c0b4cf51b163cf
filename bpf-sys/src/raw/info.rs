//! `BPF_OBJ_GET_INFO_BY_FD`.

use std::os::fd::{AsFd, BorrowedFd};

use super::{bpf, command, fd_u32, len_u32};
use crate::errno::{Error, Result};
use crate::fd::{BtfFd, LinkFd, MapFd, ProgFd};
use crate::link::MultiArrays;
use crate::prog::ProgArrays;
use crate::uapi::info::{BtfInfo, Info, LinkDetail, MapInfo, ProgInfo, RawLinkInfo};
use crate::uapi::kinds::PerfLinkType;
use crate::uapi::{Plain, addr_mut, attr};

const CALL: &str = command!(OBJ_GET_INFO_BY_FD).call;

/// Fills `value`, whose addresses are those of buffers to fill.
///
/// # Safety
///
/// Each address in `value` is 0 or that of memory borrowed mutably for this call, at least as long as the length beside
/// it says; those are the lengths that the kernel uses for the object behind `fd`.
unsafe fn fill<T: Plain>(fd: BorrowedFd<'_>, mut value: T) -> Result<Info<T>> {
    let mut attr = attr::GetInfo {
        bpf_fd: fd_u32(fd),
        info_len: size_of::<T>() as u32,
        info: core::ptr::from_mut(&mut value) as usize as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes of `value`, which is plain; the rest is the caller's promise.
    unsafe { bpf(command!(OBJ_GET_INFO_BY_FD), &mut attr) }?;
    Ok(Info { value, known: attr.info_len as usize })
}

/// Fills a structure without any buffers.
pub(crate) fn get<T: Plain + Default>(fd: BorrowedFd<'_>) -> Result<Info<T>> {
    // SAFETY: all addresses are 0.
    unsafe { fill(fd, T::default()) }
}

pub(crate) fn prog(prog: &ProgFd, arrays: &mut ProgArrays<'_>) -> Result<Info<ProgInfo>> {
    let rec = |len: usize, size: usize| if len == 0 { 0 } else { size as u32 };
    let info = ProgInfo {
        nr_map_ids: len_u32(CALL, "map_ids", arrays.map_ids.len())?,
        map_ids: addr_mut(arrays.map_ids),
        xlated_len: len_u32(CALL, "xlated", arrays.xlated.len())?,
        xlated: addr_mut(arrays.xlated),
        jited_len: len_u32(CALL, "jited", arrays.jited.len())?,
        jited: addr_mut(arrays.jited),
        nr_jited_ksyms: len_u32(CALL, "jited_ksyms", arrays.jited_ksyms.len())?,
        jited_ksyms: addr_mut(arrays.jited_ksyms),
        nr_jited_func_lens: len_u32(CALL, "jited_func_lens", arrays.jited_func_lens.len())?,
        jited_func_lens: addr_mut(arrays.jited_func_lens),
        nr_func_info: len_u32(CALL, "func_info", arrays.func_info.len())?,
        func_info_rec_size: rec(arrays.func_info.len(), size_of::<crate::uapi::info::FuncInfo>()),
        func_info: addr_mut(arrays.func_info),
        nr_line_info: len_u32(CALL, "line_info", arrays.line_info.len())?,
        line_info_rec_size: rec(arrays.line_info.len(), size_of::<crate::uapi::info::LineInfo>()),
        line_info: addr_mut(arrays.line_info),
        nr_jited_line_info: len_u32(CALL, "jited_line_info", arrays.jited_line_info.len())?,
        jited_line_info_rec_size: rec(arrays.jited_line_info.len(), size_of::<u64>()),
        jited_line_info: addr_mut(arrays.jited_line_info),
        nr_prog_tags: len_u32(CALL, "tags", arrays.tags.len())?,
        prog_tags: addr_mut(arrays.tags),
        ..Default::default()
    };
    // SAFETY: each address has its slice's length beside it, in bytes for code and in elements elsewhere; the kernel
    // refuses record sizes other than its own, which are those of the slices' elements.
    unsafe { fill(prog.as_fd(), info) }
}

pub(crate) fn map_hash(map: &MapFd, hash: &mut [u8; 32]) -> Result<()> {
    let info = MapInfo { hash: addr_mut(hash), hash_size: hash.len() as u32, ..Default::default() };
    // SAFETY: `hash_size` bytes at `hash` are borrowed mutably.
    unsafe { fill(map.as_fd(), info) }.map(drop)
}

pub(crate) fn btf(btf: &BtfFd, data: &mut [u8], name: &mut [u8]) -> Result<Info<BtfInfo>> {
    let info = BtfInfo {
        size: len_u32(CALL, "data", data.len())?,
        btf: addr_mut(data),
        name_len: len_u32(CALL, "name", name.len())?,
        name: addr_mut(name),
        ..Default::default()
    };
    // SAFETY: each address has its slice's length beside it.
    unsafe { fill(btf.as_fd(), info) }
}

/// Words of `bpf_link_info`'s type-dependent part with an address in word 0 and its length in the first half of word 1.
fn name_request(name: &mut [u8], len: u32) -> [u64; 2] {
    [addr_mut(name), first_half(len)]
}

/// A `u64` whose first four bytes in memory are `value`.
fn first_half(value: u32) -> u64 {
    if cfg!(target_endian = "little") { u64::from(value) } else { u64::from(value) << 32 }
}

/// Fills the name that a link has: a raw tracepoint's, an iterator's target's, a probed function's or file's.
pub(crate) fn link_name(link: &LinkFd, name: &mut [u8]) -> Result<Info<RawLinkInfo>> {
    let plain: Info<RawLinkInfo> = get(link.as_fd())?;
    let len = len_u32(CALL, "name", name.len())?;
    let mut info = RawLinkInfo::default();
    match plain.detail() {
        LinkDetail::RawTracepoint(_) | LinkDetail::Iter(_) => {
            let [address, length] = name_request(name, len);
            info.data[0] = address;
            info.data[1] = length;
        }
        LinkDetail::PerfEvent(event) if event.kind != PerfLinkType::EVENT => {
            let [address, length] = name_request(name, len);
            info.data[1] = address;
            info.data[2] = length;
        }
        LinkDetail::UprobeMulti(_) => {
            info.data[0] = addr_mut(name);
            // `path_size` follows the four addresses.
            info.data[4] = first_half(len);
        }
        _ => return Err(Error::Argument { call: CALL, what: "links of this type have no name" }),
    }
    // SAFETY: a link's type never changes, and for its type the address of `name` and its length are where the kernel
    // looks for them (include/uapi/linux/bpf.h, `struct bpf_link_info`).
    unsafe { fill(link.as_fd(), info) }
}

/// Fills the arrays of a kprobe_multi or uprobe_multi link.
pub(crate) fn link_multi(link: &LinkFd, arrays: &mut MultiArrays<'_>) -> Result<Info<RawLinkInfo>> {
    let plain: Info<RawLinkInfo> = get(link.as_fd())?;
    let len = arrays.locations.len();
    for (what, other) in
        [("cookies", arrays.cookies.len()), ("ref_ctr_offsets", arrays.ref_ctr_offsets.len())]
    {
        if other != 0 {
            super::check_len(CALL, what, other, len)?;
        }
    }
    let count = len_u32(CALL, "locations", len)?;
    let mut info = RawLinkInfo::default();
    match plain.detail() {
        LinkDetail::KprobeMulti(_) => {
            info.data[0] = addr_mut(arrays.locations);
            info.data[1] = first_half(count);
            info.data[3] = addr_mut(arrays.cookies);
        }
        LinkDetail::UprobeMulti(_) => {
            info.data[1] = addr_mut(arrays.locations);
            info.data[2] = addr_mut(arrays.ref_ctr_offsets);
            info.data[3] = addr_mut(arrays.cookies);
            // `count` follows `path_size`.
            info.data[4] = first_half(count).rotate_left(32);
        }
        _ => return Err(Error::Argument { call: CALL, what: "not a link of many probes" }),
    }
    // SAFETY: a link's type never changes; for its type the addresses are where the kernel looks for them, and each array
    // that is there has `count` elements, as checked.
    unsafe { fill(link.as_fd(), info) }
}
