//! Memory that the kernel and user space share.
//!
//! No reference is ever made to memory that the kernel may write: it is read and written through atomics, and copied.
//! Two exceptions, each argued where it is made: a committed record of a BPF ring buffer, lent by [`RingCursor`], and the
//! kernel's own BTF, which never changes ([`Blob`]).
#![allow(unsafe_code)]

mod blob;
mod perf;
mod ring;
mod user_ring;

pub use blob::{Blob, read_or_map};
pub use perf::PerfMapping;
pub use ring::{HeapRing, RingCursor, RingFault, RingMapping, RingMemory, RingParts, Slot};
pub use user_ring::UserRingMapping;

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use rustix::mm::{MapFlags, ProtFlags};

use crate::errno::{Error, Result};
use crate::fd::MapFd;
use crate::uapi::flags::BPF_F_MMAPABLE;
use crate::uapi::kinds::MapType;

/// A full fence: no load or store moves across it, in either direction.
#[inline]
pub fn full_fence() {
    fence(Ordering::SeqCst);
}

pub(crate) fn page_size() -> usize {
    crate::page_size()
}

/// A shared mapping, reached only through atomics and copies. Offsets are in bytes; one that is misaligned, outside or,
/// for a store, in a read-only mapping gives `None`.
#[derive(Debug)]
pub struct SharedMapping {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is unmapped once, on drop.
unsafe impl Send for SharedMapping {}
// SAFETY: all access is atomic, and by aligned words of one size, the pointer's: two threads never touch a place by atomics of
// different sizes, which would be undefined. On 32-bit machines, the `u64` operations are the exception: the rings, which
// alone use them, do so at places that nothing else touches.
unsafe impl Sync for SharedMapping {}

impl SharedMapping {
    /// Maps `len` bytes, a multiple of the page size, from `offset`.
    ///
    /// Not public: what other code reads through references, as a ring's records, must not be writable from here.
    pub(crate) fn map(fd: BorrowedFd<'_>, offset: u64, len: usize, writable: bool) -> Result<Self> {
        Self::map_at(core::ptr::null_mut(), fd, offset, len, writable)
    }

    /// Maps at `address`, or where the kernel chooses if that is null.
    fn map_at(
        address: *mut core::ffi::c_void,
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        writable: bool,
    ) -> Result<Self> {
        let prot = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let flags =
            if address.is_null() { MapFlags::SHARED } else { MapFlags::SHARED | MapFlags::FIXED_NOREPLACE };
        // SAFETY: a new mapping touches no existing memory: it is at an address of the kernel's choice, or fails where
        // something is mapped already (a kernel that does not know the flag takes the address as a hint).
        let base = unsafe { rustix::mm::mmap(address, len, prot, flags, fd, offset) };
        let base = base.map_err(|e| Error::Call { call: "mmap", errno: e.into() })?;
        let base = NonNull::new(base.cast()).ok_or(Error::Argument { call: "mmap", what: "mapped at 0" })?;
        Ok(Self { base, len, writable })
    }

    /// Maps the values of an array map that was created with `BPF_F_MMAPABLE`. Each takes `value_size` bytes rounded up to
    /// 8.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`]: not such a map. `EPERM`: writable, but the map is frozen or read-only. Linux 5.5.
    pub fn array(map: &MapFd, writable: bool) -> Result<Self> {
        if map.map_type() != MapType::ARRAY || map.flags() & BPF_F_MMAPABLE == 0 {
            return Err(Error::Argument { call: "mmap", what: "not an array map with BPF_F_MMAPABLE" });
        }
        let len = map.value_size().next_multiple_of(8).checked_mul(map.max_entries() as usize);
        let len = len.and_then(|len| len.checked_next_multiple_of(page_size()));
        let len = len.ok_or(Error::Argument { call: "mmap", what: "the map is too large" })?;
        Self::map(map.as_fd(), 0, len, writable)
    }

    /// Maps an arena, at the address that it was created with, if any. The kernel allocates its pages as they are first
    /// touched; but with `BPF_F_SEGV_ON_FAULT`, touching a page that no program has allocated ends the process.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`]: not an arena. `EEXIST`: something is mapped at its address. `EBUSY`, `EINVAL`: it is mapped at
    /// another address. Linux 6.9.
    pub fn arena(map: &MapFd) -> Result<Self> {
        let argument = |what| Error::Argument { call: "mmap", what };
        if map.map_type() != MapType::ARENA {
            return Err(argument("not an arena"));
        }
        let len =
            page_size().checked_mul(map.max_entries() as usize).ok_or(argument("the arena is too large"))?;
        let address = usize::try_from(crate::map::info(map)?.map_extra);
        let address = address.map_err(|_| argument("the arena's address is outside the address space"))?;
        Self::map_at(core::ptr::without_provenance_mut(address), map.as_fd(), 0, len, true)
    }

    /// Where it lies in this process: pointers in an arena are addresses.
    pub fn address(&self) -> usize {
        self.base.as_ptr().addr()
    }

    /// Bytes.
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// The place of a `T` at `offset`, if it is inside and aligned.
    #[inline]
    fn place<T>(&self, offset: usize) -> Option<NonNull<T>> {
        if offset % align_of::<T>() != 0 || offset.checked_add(size_of::<T>())? > self.len {
            return None;
        }
        // SAFETY: `offset` is inside the mapping, as checked.
        Some(unsafe { self.base.add(offset) }.cast())
    }

    #[inline]
    fn atomic<T>(&self, offset: usize) -> Option<&T>
    where
        T: Atomic,
    {
        let place = self.place::<T>(offset)?;
        // SAFETY: the place is inside the mapping, which lives as long as `self`, and aligned (the mapping's base is a
        // page's). An atomic may be shared with any writer, which here are other atomics and the kernel.
        Some(unsafe { place.as_ref() })
    }

    fn atomic_mut<T: Atomic>(&self, offset: usize) -> Option<&T> {
        if self.writable { self.atomic(offset) } else { None }
    }

    /// Loads a `u32`, before all that follows.
    #[inline]
    pub fn load_acquire_u32(&self, offset: usize) -> Option<u32> {
        let mut bytes = [0; 4];
        self.load_part(Self::aligned_u32(offset)?, &mut bytes, Ordering::Acquire)?;
        Some(u32::from_ne_bytes(bytes))
    }

    /// Loads a `usize`, before all that follows.
    #[inline]
    pub fn load_acquire_usize(&self, offset: usize) -> Option<usize> {
        Some(self.atomic::<AtomicUsize>(offset)?.load(Ordering::Acquire))
    }

    /// Loads a `u64`, before all that follows. Only from writable mappings, since 32-bit machines may need a
    /// read-modify-write.
    #[inline]
    pub fn load_acquire_u64(&self, offset: usize) -> Option<u64> {
        Some(self.atomic_mut::<AtomicU64>(offset)?.load(Ordering::Acquire))
    }

    /// Stores a `u32`, after all that precedes.
    #[inline]
    pub fn store_release_u32(&self, offset: usize, value: u32) -> Option<()> {
        self.store_part(Self::aligned_u32(offset)?, &value.to_ne_bytes(), Ordering::Release).map(drop)
    }

    /// Stores a `u64`, after all that precedes.
    #[inline]
    pub fn store_release_u64(&self, offset: usize, value: u64) -> Option<()> {
        self.atomic_mut::<AtomicU64>(offset)?.store(value, Ordering::Release);
        Some(())
    }

    /// Exchanges a `u32`, with a full fence; returns what was there.
    #[inline]
    pub fn exchange_u32(&self, offset: usize, value: u32) -> Option<u32> {
        let before = self.store_part(Self::aligned_u32(offset)?, &value.to_ne_bytes(), Ordering::SeqCst)?;
        let at = offset % WORD;
        Some(u32::from_ne_bytes(before.get(at..at + 4)?.try_into().ok()?))
    }

    fn aligned_u32(offset: usize) -> Option<usize> {
        (offset % align_of::<AtomicU32>() == 0).then_some(offset)
    }

    /// Copies bytes out. What is written meanwhile may be seen in part, but each aligned word of a pointer's width whole.
    pub fn copy_out(&self, offset: usize, to: &mut [u8]) -> Option<()> {
        if offset.checked_add(to.len())? > self.len {
            return None;
        }
        let (first, rest) = to.split_at_mut(Self::head(offset, to.len()));
        if !first.is_empty() {
            self.load_part(offset, first, Ordering::Relaxed)?;
        }
        let mut at = offset + first.len();
        for part in rest.chunks_mut(WORD) {
            self.load_part(at, part, Ordering::Relaxed)?;
            at += part.len();
        }
        Some(())
    }

    /// Copies bytes in. Others may see a part, but each aligned word of a pointer's width whole.
    pub fn copy_in(&self, offset: usize, from: &[u8]) -> Option<()> {
        if offset.checked_add(from.len())? > self.len {
            return None;
        }
        let (first, rest) = from.split_at(Self::head(offset, from.len()));
        if !first.is_empty() {
            self.store_part(offset, first, Ordering::Relaxed)?;
        }
        let mut at = offset + first.len();
        for part in rest.chunks(WORD) {
            self.store_part(at, part, Ordering::Relaxed)?;
            at += part.len();
        }
        Some(())
    }

    /// How many of `len` bytes lie before the first aligned word.
    fn head(offset: usize, len: usize) -> usize {
        (offset.next_multiple_of(WORD) - offset).min(len)
    }

    /// Loads the word that has these bytes in it. They may be all of it.
    #[inline]
    fn load_part(&self, at: usize, to: &mut [u8], order: Ordering) -> Option<()> {
        let in_word = at % WORD;
        let word = self.atomic::<AtomicUsize>(at - in_word)?.load(order).to_ne_bytes();
        to.copy_from_slice(word.get(in_word..in_word + to.len())?);
        Some(())
    }

    /// Stores these bytes in their word, whose others stay as they are, whoever writes them. What was in the word.
    #[inline]
    fn store_part(&self, at: usize, from: &[u8], order: Ordering) -> Option<[u8; WORD]> {
        let in_word = at % WORD;
        let word = self.atomic_mut::<AtomicUsize>(at - in_word)?;
        if let (Ok(whole), Ordering::Relaxed) = (from.try_into(), order) {
            // Nobody asks what was there.
            word.store(usize::from_ne_bytes(whole), order);
            return Some(whole);
        }
        let with = |before: usize| {
            let mut bytes = before.to_ne_bytes();
            bytes.get_mut(in_word..in_word + from.len())?.copy_from_slice(from);
            Some(usize::from_ne_bytes(bytes))
        };
        word.fetch_update(order, Ordering::Relaxed, with).ok().map(usize::to_ne_bytes)
    }
}

const WORD: usize = size_of::<usize>();

/// The atomics that a mapping is reached through.
trait Atomic {}
impl Atomic for AtomicU64 {}
impl Atomic for AtomicUsize {}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map`, is unmapped only here, and no reference outlives `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "munmap of an own mapping failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(len: usize, writable: bool) -> SharedMapping {
        let fd = rustix::fs::memfd_create(c"test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, len as u64).unwrap();
        SharedMapping::map(fd.as_fd(), 0, len, writable).unwrap()
    }

    #[test]
    fn words_and_bytes_are_the_same_memory() {
        let m = memory(page_size(), true);
        assert_eq!(m.copy_in(8, &[1, 2, 3, 4, 5, 6, 7, 8]), Some(()));
        assert_eq!(m.load_acquire_u64(8), Some(u64::from_ne_bytes([1, 2, 3, 4, 5, 6, 7, 8])));
        assert_eq!(m.load_acquire_u32(12), Some(u32::from_ne_bytes([5, 6, 7, 8])));
        assert_eq!(m.exchange_u32(12, 9), Some(u32::from_ne_bytes([5, 6, 7, 8])));
        assert_eq!(m.store_release_u64(16, 0xabcd), Some(()));
        assert_eq!(m.store_release_u32(24, 0xef), Some(()));
        let mut out = [0; 21];
        for offset in 5..9 {
            m.copy_out(offset, &mut out).unwrap();
            let expected: Vec<u8> = [0u8; 8]
                .into_iter()
                .chain([1, 2, 3, 4])
                .chain(9u32.to_ne_bytes())
                .chain(0xabcdu64.to_ne_bytes())
                .chain(0xefu32.to_ne_bytes())
                .skip(offset)
                .chain([0; 8])
                .take(out.len())
                .collect();
            assert_eq!(out.as_slice(), expected, "from {offset}");
        }
    }

    #[test]
    fn copies_at_any_offset_and_length_touch_what_they_name() {
        let m = memory(page_size(), true);
        for offset in 0..17 {
            for len in 0..33 {
                let from: Vec<u8> = (0..len).map(|i| (offset * 7 + i + 1) as u8).collect();
                assert_eq!(m.copy_in(0, &[0xee; 64]), Some(()));
                assert_eq!(m.copy_in(offset, &from), Some(()));
                let mut out = vec![0; 64];
                m.copy_out(0, &mut out).unwrap();
                let mut expected = vec![0xee; 64];
                expected[offset..offset + len].copy_from_slice(&from);
                assert_eq!(out, expected, "{len} bytes at {offset}");
                let mut part = vec![0; len];
                m.copy_out(offset, &mut part).unwrap();
                assert_eq!(part, from, "{len} bytes at {offset}");
            }
        }
    }

    #[test]
    fn nothing_outside_is_reached() {
        let len = page_size();
        let m = memory(len, true);
        assert_eq!(m.load_acquire_u32(len - 4), Some(0));
        assert_eq!(m.load_acquire_u32(len - 3), None);
        assert_eq!(m.load_acquire_u32(len), None);
        assert_eq!(m.load_acquire_u32(usize::MAX - 3), None);
        assert_eq!(m.load_acquire_u32(2), None, "misaligned");
        assert_eq!(m.copy_out(len - 3, &mut [0; 4]), None);
        assert_eq!(m.copy_out(usize::MAX, &mut [0; 4]), None);
        assert_eq!(m.copy_in(len - 3, &[0; 4]), None);
        assert_eq!(m.copy_out(len, &mut []), Some(()));
    }

    #[test]
    fn a_read_only_mapping_takes_no_store() {
        let m = memory(page_size(), false);
        assert_eq!(m.store_release_u32(0, 1), None);
        assert_eq!(m.exchange_u32(0, 1), None);
        assert_eq!(m.copy_in(0, &[1]), None);
        assert_eq!(m.load_acquire_u32(0), Some(0));
    }
}
