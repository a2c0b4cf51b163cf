//! `BPF_MAP_*`.

use std::os::fd::{AsFd, OwnedFd};

use super::{bpf, bpf_fd, check_len, command, fd_u32, found, len_u32, opt_fd};
use crate::errno::{Errno, Error, Result};
use crate::fd::MapFd;
use crate::map::{BatchCursor, BatchRead, MapCreate};
use crate::uapi::flags::{BPF_F_NUMA_NODE, BPF_F_TOKEN_FD, BPF_F_VTYPE_BTF_OBJ_FD};
use crate::uapi::{addr, addr_mut, attr};

pub(crate) fn create(map: &MapCreate<'_>) -> Result<OwnedFd> {
    let command = command!(MAP_CREATE);
    let flag = |set: bool, bit: u32| if set { bit } else { 0 };
    let mut attr = attr::MapCreate {
        map_type: map.map_type.0,
        key_size: map.key_size,
        value_size: map.value_size,
        max_entries: map.max_entries,
        map_flags: map.flags
            | flag(map.numa_node.is_some(), BPF_F_NUMA_NODE)
            | flag(map.value_type_btf.is_some(), BPF_F_VTYPE_BTF_OBJ_FD)
            | flag(map.token.is_some(), BPF_F_TOKEN_FD),
        inner_map_fd: opt_fd(map.inner_map),
        numa_node: map.numa_node.unwrap_or(0),
        map_name: map.name,
        map_ifindex: map.ifindex,
        btf_fd: opt_fd(map.btf),
        btf_key_type_id: map.btf_key_type_id,
        btf_value_type_id: map.btf_value_type_id,
        btf_vmlinux_value_type_id: map.btf_vmlinux_value_type_id,
        map_extra: map.map_extra,
        value_type_btf_obj_fd: opt_fd(map.value_type_btf) as i32,
        map_token_fd: opt_fd(map.token) as i32,
        excl_prog_hash: addr(map.exclusive_prog_hash),
        excl_prog_hash_size: len_u32(command.call, "exclusive_prog_hash", map.exclusive_prog_hash.len())?,
        pad: 0,
    };
    // SAFETY: the kernel reads `excl_prog_hash_size` bytes of the hash.
    unsafe { bpf_fd(command, &mut attr) }
}

pub(crate) fn lookup(map: &MapFd, key: &[u8], value: &mut [u8], flags: u64, delete: bool) -> Result<bool> {
    let command = if delete { command!(MAP_LOOKUP_AND_DELETE_ELEM) } else { command!(MAP_LOOKUP_ELEM) };
    check_len(command.call, "key", key.len(), map.key_size())?;
    check_len(command.call, "value", value.len(), map.value_len()?)?;
    let mut attr = elem(map, addr(key), addr_mut(value), flags);
    // SAFETY: the kernel reads `key_size` bytes of the key and writes `value_len` bytes of the value, as checked.
    // (A bloom filter reads the value instead.)
    found(unsafe { bpf(command, &mut attr) })
}

pub(crate) fn update(map: &MapFd, key: &[u8], value: &[u8], flags: u64) -> Result<()> {
    let command = command!(MAP_UPDATE_ELEM);
    check_len(command.call, "key", key.len(), map.key_size())?;
    check_len(command.call, "value", value.len(), map.value_len()?)?;
    let mut attr = elem(map, addr(key), addr(value), flags);
    // SAFETY: the kernel reads `key_size` bytes of the key and `value_len` bytes of the value, as checked.
    unsafe { bpf(command, &mut attr) }.map(drop)
}

pub(crate) fn delete(map: &MapFd, key: &[u8]) -> Result<bool> {
    let command = command!(MAP_DELETE_ELEM);
    check_len(command.call, "key", key.len(), map.key_size())?;
    let mut attr = elem(map, addr(key), 0, 0);
    // SAFETY: the kernel reads `key_size` bytes of the key, as checked.
    found(unsafe { bpf(command, &mut attr) })
}

pub(crate) fn next_key(map: &MapFd, after: Option<&[u8]>, next: &mut [u8]) -> Result<bool> {
    let command = command!(MAP_GET_NEXT_KEY);
    if let Some(key) = after {
        check_len(command.call, "key", key.len(), map.key_size())?;
    }
    check_len(command.call, "next key", next.len(), map.key_size())?;
    let mut attr = elem(map, after.map_or(0, addr), addr_mut(next), 0);
    // SAFETY: the kernel reads `key_size` bytes of a key that is there, and writes as many of the next, as checked.
    found(unsafe { bpf(command, &mut attr) })
}

pub(crate) fn freeze(map: &MapFd) -> Result<()> {
    let mut attr = elem(map, 0, 0, 0);
    // SAFETY: the kernel follows no address.
    unsafe { bpf(command!(MAP_FREEZE), &mut attr) }.map(drop)
}

fn elem(map: &MapFd, key: u64, value: u64, flags: u64) -> attr::MapElem {
    attr::MapElem { map_fd: fd_u32(map.as_fd()), pad: 0, key, value, flags }
}

/// How many elements the buffers of a batch hold; both must hold as many.
fn batch_count(call: &'static str, map: &MapFd, keys: usize, values: Option<usize>) -> Result<u32> {
    let count = keys / map.key_size().max(1);
    check_len(call, "keys", keys, count * map.key_size())?;
    if let Some(values) = values {
        let expected = map.value_len()?.checked_mul(count);
        let expected = expected.ok_or(Error::Argument { call, what: "the batch is too large" })?;
        check_len(call, "values", values, expected)?;
    }
    len_u32(call, "keys", count)
}

pub(crate) fn lookup_batch(
    map: &MapFd,
    cursor: &mut BatchCursor,
    keys: &mut [u8],
    values: &mut [u8],
    elem_flags: u64,
    delete: bool,
) -> Result<BatchRead> {
    let command = if delete { command!(MAP_LOOKUP_AND_DELETE_BATCH) } else { command!(MAP_LOOKUP_BATCH) };
    let count = batch_count(command.call, map, keys.len(), Some(values.len()))?;
    check_len(command.call, "cursor", cursor.token.len(), BatchCursor::token_len(map))?;
    if cursor.done || count == 0 {
        return Ok(BatchRead { count: 0, end: cursor.done });
    }
    let token = addr_mut(&mut cursor.token);
    let mut attr = attr::MapBatch {
        in_batch: if cursor.started { token } else { 0 },
        out_batch: token,
        keys: addr_mut(keys),
        values: addr_mut(values),
        count,
        map_fd: fd_u32(map.as_fd()),
        elem_flags,
        flags: 0,
    };
    // SAFETY: the kernel writes at most `count` keys and values, for which there is room as checked, and reads and then
    // writes a token of `key_size` bytes or, for hash maps, 4, for which the cursor has room as checked.
    let result = unsafe { bpf(command, &mut attr) };
    match result {
        Ok(_) => cursor.started = true,
        Err(Error::Call { errno: Errno::ENOENT, .. }) => cursor.done = true,
        Err(e) => return Err(e),
    }
    // A count above the buffers' would be the kernel's bug; callers index by it.
    Ok(BatchRead { count: attr.count.min(count), end: cursor.done })
}

pub(crate) fn update_batch(map: &MapFd, keys: &[u8], values: &[u8], elem_flags: u64) -> Result<()> {
    let command = command!(MAP_UPDATE_BATCH);
    let count = batch_count(command.call, map, keys.len(), Some(values.len()))?;
    let mut attr = attr::MapBatch {
        keys: addr(keys),
        values: addr(values),
        count,
        map_fd: fd_u32(map.as_fd()),
        elem_flags,
        ..Default::default()
    };
    // SAFETY: the kernel reads `count` keys and values, as checked.
    let result = unsafe { bpf(command, &mut attr) };
    batch_done(result, attr.count, count)
}

pub(crate) fn delete_batch(map: &MapFd, keys: &[u8], elem_flags: u64) -> Result<()> {
    let command = command!(MAP_DELETE_BATCH);
    let count = batch_count(command.call, map, keys.len(), None)?;
    let mut attr = attr::MapBatch {
        keys: addr(keys),
        count,
        map_fd: fd_u32(map.as_fd()),
        elem_flags,
        ..Default::default()
    };
    // SAFETY: the kernel reads `count` keys, as checked.
    let result = unsafe { bpf(command, &mut attr) };
    batch_done(result, attr.count, count)
}

/// Adds to an error how far the kernel came. When it stops before it starts, it leaves the count as it was.
fn batch_done(result: Result<i32>, done: u32, asked: u32) -> Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(Error::Call { call, errno }) => {
            Err(Error::Batch { call, errno, done: if done < asked { done } else { 0 } })
        }
        Err(e) => Err(e),
    }
}
