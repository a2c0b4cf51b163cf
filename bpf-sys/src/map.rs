//! Maps: creation, elements, batches.
//!
//! Every function checks its slices against the sizes of the map and refuses a wrong length without calling the kernel.
//! None of those on elements allocates.

use std::os::fd::BorrowedFd;

use crate::errno::Result;
use crate::fd::{MapFd, MapLayout};
use crate::raw::{self, IdKind};
use crate::uapi::ObjName;
use crate::uapi::info::{Info, MapInfo};
use crate::uapi::kinds::MapType;

/// What [`create`] makes. Fields left at their default are "none".
#[derive(Debug, Clone, Default)]
pub struct MapCreate<'a> {
    /// Type.
    pub map_type: MapType,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value, of one CPU.
    pub value_size: u32,
    /// Capacity in elements; of a ring buffer, in bytes: a power of two and a multiple of the page size.
    pub max_entries: u32,
    /// `BPF_F_*`. The flags for fields that are given here (NUMA node, token, module BTF) are added.
    pub flags: u32,
    /// Maps of maps: a map like those to come.
    pub inner_map: Option<BorrowedFd<'a>>,
    /// Allocate on this node.
    pub numa_node: Option<u32>,
    /// Name (Linux 4.15).
    pub name: ObjName,
    /// Device to offload to.
    pub ifindex: u32,
    /// BTF of key and value.
    pub btf: Option<BorrowedFd<'a>>,
    /// Type of the key.
    pub btf_key_type_id: u32,
    /// Type of the value.
    pub btf_value_type_id: u32,
    /// struct_ops: type of the value in the kernel's BTF.
    pub btf_vmlinux_value_type_id: u32,
    /// Depends on the type: hash functions of a bloom filter, address of an arena (Linux 5.16).
    pub map_extra: u64,
    /// struct_ops: the module's BTF that has the value's type (Linux 6.9).
    pub value_type_btf: Option<BorrowedFd<'a>>,
    /// Token (Linux 6.9).
    pub token: Option<BorrowedFd<'a>>,
    /// SHA-256 of the only program that may use the map (Linux 6.18).
    pub exclusive_prog_hash: &'a [u8],
}

/// `bpf(BPF_MAP_CREATE)`: creates a map.
///
/// # Errors
///
/// `EPERM`: no CAP_BPF, or on Linux before 5.11 too little RLIMIT_MEMLOCK. `EINVAL`: a type or flag that the kernel does
/// not know, or sizes that the type does not take. `E2BIG`, `ENOMEM`: too large.
///
/// Linux 5.8; older for most types. [`bpf(2)`](https://man7.org/linux/man-pages/man2/bpf.2.html).
pub fn create(map: &MapCreate<'_>) -> Result<MapFd> {
    let fd = raw::map::create(map)?;
    let layout = MapLayout::new(map.map_type, map.key_size, map.value_size, map.max_entries, map.flags);
    Ok(MapFd::created(fd, layout))
}

/// `bpf(BPF_MAP_LOOKUP_ELEM)`: copies the value of `key` into `value`, of [`MapFd::value_len`] bytes; `false` if there is
/// none.
///
/// In maps of maps and of programs the value is an id. `key` is empty for queues, stacks and bloom filters (which read
/// `value` and tell whether it may be there).
///
/// # Errors
///
/// [`Error::Length`](crate::Error::Length). `EPERM`: the descriptor may not read. `ENOTSUPP`: the type has no lookup.
pub fn lookup(map: &MapFd, key: &[u8], value: &mut [u8], flags: u64) -> Result<bool> {
    raw::map::lookup(map, key, value, flags, false)
}

/// `bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM)`: as [`lookup`], and removes the element.
///
/// # Errors
///
/// As [`lookup`]. Queues and stacks since Linux 4.20, hash maps since 5.14.
pub fn lookup_and_delete(map: &MapFd, key: &[u8], value: &mut [u8], flags: u64) -> Result<bool> {
    raw::map::lookup(map, key, value, flags, true)
}

/// `bpf(BPF_MAP_UPDATE_ELEM)`: sets the value of `key`; `flags` say whether it may or must be new.
///
/// In maps of maps, programs and events the value is a descriptor. `key` is empty for queues, stacks and bloom filters.
///
/// # Errors
///
/// [`Error::Length`](crate::Error::Length). `E2BIG`: the map is full. `EEXIST`, `ENOENT`: against `flags`. `EPERM`: the
/// descriptor may not write, or the map is frozen. `ENOMEM`, `EBUSY`: try again.
pub fn update(map: &MapFd, key: &[u8], value: &[u8], flags: u64) -> Result<()> {
    raw::map::update(map, key, value, flags)
}

/// `bpf(BPF_MAP_DELETE_ELEM)`: removes an element; `false` if there is none.
///
/// # Errors
///
/// [`Error::Length`](crate::Error::Length). `EINVAL`: elements of arrays cannot be removed. `EPERM`: the descriptor may
/// not write, or the map is frozen.
pub fn delete(map: &MapFd, key: &[u8]) -> Result<bool> {
    raw::map::delete(map, key)
}

/// `bpf(BPF_MAP_GET_NEXT_KEY)`: writes the key that follows `after`, or the first; `false` at the end.
///
/// When `after` is no longer there, hash maps start over.
///
/// # Errors
///
/// [`Error::Length`](crate::Error::Length). `ENOTSUPP`: the type has no order.
pub fn next_key(map: &MapFd, after: Option<&[u8]>, next: &mut [u8]) -> Result<bool> {
    raw::map::next_key(map, after, next)
}

/// `bpf(BPF_MAP_FREEZE)`: no system call may write the map any more; programs still may.
///
/// # Errors
///
/// `EBUSY`: already frozen, or mapped writable. Linux 5.2.
pub fn freeze(map: &MapFd) -> Result<()> {
    raw::map::freeze(map)
}

/// Where a batch read stands. Made for one map; its only allocation serves the whole walk.
#[derive(Debug)]
pub struct BatchCursor {
    pub(crate) token: Box<[u8]>,
    pub(crate) started: bool,
    pub(crate) done: bool,
}

impl BatchCursor {
    /// At the beginning of `map`.
    pub fn new(map: &MapFd) -> Self {
        Self { token: vec![0; Self::token_len(map)].into(), started: false, done: false }
    }

    /// Back to the beginning.
    pub fn restart(&mut self) {
        (self.started, self.done) = (false, false);
    }

    /// The kernel's token is a bucket number (u32) for hash maps and a key for others.
    pub(crate) fn token_len(map: &MapFd) -> usize {
        map.key_size().max(4)
    }
}

/// What a batch read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRead {
    /// How many elements were written to the buffers.
    pub count: u32,
    /// Nothing follows.
    pub end: bool,
}

/// `bpf(BPF_MAP_LOOKUP_BATCH)`: copies the next elements to `keys` and `values`, which hold the same number of them.
///
/// Elements that programs add or remove meanwhile may or may not appear.
///
/// # Errors
///
/// [`Error::Length`](crate::Error::Length), also when the cursor is another map's. `ENOSPC`: the buffers are smaller than
/// one bucket of the hash map; call again with larger ones, the cursor has not moved. `EFAULT`: nothing in the buffers
/// counts. `ENOTSUPP` or `EINVAL`: the type has no batches on this kernel.
///
/// Linux 5.6 for hash maps and arrays; other types came later, up to per-CPU arrays in 5.13.
pub fn lookup_batch(
    map: &MapFd,
    cursor: &mut BatchCursor,
    keys: &mut [u8],
    values: &mut [u8],
    flags: u64,
) -> Result<BatchRead> {
    raw::map::lookup_batch(map, cursor, keys, values, flags, false)
}

/// `bpf(BPF_MAP_LOOKUP_AND_DELETE_BATCH)`: as [`lookup_batch`], and removes the elements. Hash maps only.
///
/// # Errors
///
/// As [`lookup_batch`]. Linux 5.6.
pub fn lookup_and_delete_batch(
    map: &MapFd,
    cursor: &mut BatchCursor,
    keys: &mut [u8],
    values: &mut [u8],
    flags: u64,
) -> Result<BatchRead> {
    raw::map::lookup_batch(map, cursor, keys, values, flags, true)
}

/// `bpf(BPF_MAP_UPDATE_BATCH)`: sets many elements.
///
/// # Errors
///
/// [`Error::Length`](crate::Error::Length); [`Error::Batch`](crate::Error::Batch) with the number of elements done
/// before. Linux 5.6.
pub fn update_batch(map: &MapFd, keys: &[u8], values: &[u8], flags: u64) -> Result<()> {
    raw::map::update_batch(map, keys, values, flags)
}

/// `bpf(BPF_MAP_DELETE_BATCH)`: removes many elements.
///
/// # Errors
///
/// [`Error::Length`](crate::Error::Length); [`Error::Batch`](crate::Error::Batch) with the number of elements done
/// before, `ENOENT` at the first that is not there. Linux 5.6.
pub fn delete_batch(map: &MapFd, keys: &[u8], flags: u64) -> Result<()> {
    raw::map::delete_batch(map, keys, flags)
}

/// `bpf(BPF_OBJ_GET_INFO_BY_FD)` of a map.
///
/// # Errors
///
/// None that the caller can cause. Linux 4.13.
pub fn info(map: &MapFd) -> Result<Info<MapInfo>> {
    raw::info::get(std::os::fd::AsFd::as_fd(map))
}

/// The SHA-256 of a frozen array map.
///
/// # Errors
///
/// `EINVAL`: the map has no hash, or is not frozen. Linux 6.18.
pub fn hash(map: &MapFd) -> Result<[u8; 32]> {
    let mut hash = [0; 32];
    raw::info::map_hash(map, &mut hash)?;
    Ok(hash)
}

/// `bpf(BPF_MAP_GET_NEXT_ID)`: the ids of all maps of the system.
///
/// # Errors
///
/// `EPERM`: needs CAP_SYS_ADMIN.
pub fn ids() -> crate::Ids {
    crate::Ids::new(IdKind::Map)
}

/// `bpf(BPF_MAP_GET_FD_BY_ID)`: opens a map; `flags` may restrict it (`BPF_F_RDONLY`, `BPF_F_WRONLY`).
///
/// # Errors
///
/// `ENOENT`: it is gone. `EPERM`: needs CAP_SYS_ADMIN.
pub fn open_by_id(id: u32, flags: u32, token: Option<BorrowedFd<'_>>) -> Result<MapFd> {
    MapFd::known_map(raw::fd_by_id(IdKind::Map, id, flags, token)?)
}
