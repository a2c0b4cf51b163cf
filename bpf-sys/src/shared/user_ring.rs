//! The memory of a user ring buffer (Linux 6.1, kernel/bpf/ringbuf.c): user space writes records, programs drain them.
//!
//! As the BPF ring buffer with the sides changed: the process writes the producer position, the headers and the data,
//! and the kernel the consumer position. The kernel checks all that it reads.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;

use super::ring::Claim;
use super::{SharedMapping, page_size};
use crate::errno::{Error, Result};
use crate::fd::MapFd;
use crate::uapi::kinds::MapType;

/// A user ring buffer, mapped: the consumer page read-only, the producer page and the data writable.
///
/// Positions only grow; a record's header stands at its position, modulo the ring's size.
#[derive(Debug)]
pub struct UserRingMapping {
    consumer: SharedMapping,
    producer: SharedMapping,
    page: usize,
    size: usize,
    fd: OwnedFd,
    _claim: Option<Claim>,
}

impl UserRingMapping {
    /// Maps a user ring buffer. A process has at most one mapping of each.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`]: not a user ring buffer. [`Error::AlreadyMapped`]. Linux 6.1.
    pub fn new(map: &MapFd) -> Result<Self> {
        if map.map_type() != MapType::USER_RINGBUF {
            return Err(Error::Argument { call: "mmap", what: "not a user ring buffer" });
        }
        let claim = Claim::new(map)?;
        Self::of(map.try_clone()?.into(), map.max_entries() as usize, Some(claim))
    }

    /// A ring in ordinary memory, for tests without privileges, and the kernel's view of it: a page with the consumer
    /// position, a page with the producer position, then `size` bytes of data.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new): `size` is a power of two of pages.
    pub fn in_memory(size: usize) -> Result<(Self, SharedMapping)> {
        let failed = |call| move |e: rustix::io::Errno| Error::Call { call, errno: e.into() };
        let fd =
            rustix::fs::memfd_create(c"user ring", MemfdFlags::CLOEXEC).map_err(failed("memfd_create"))?;
        let all = size.saturating_add(2 * page_size());
        rustix::fs::ftruncate(&fd, all as u64).map_err(failed("ftruncate"))?;
        let kernel = SharedMapping::map(fd.as_fd(), 0, all, true)?;
        Ok((Self::of(fd, size, None)?, kernel))
    }

    fn of(fd: OwnedFd, size: usize, claim: Option<Claim>) -> Result<Self> {
        let page = page_size();
        let argument = |what| Error::Argument { call: "mmap", what };
        if !size.is_power_of_two() || size % page != 0 {
            return Err(argument("the ring's size is not a power of two of pages"));
        }
        let len = size.checked_add(page).ok_or(argument("the ring is too large"))?;
        // The kernel refuses the consumer page if it is to be writable, and the others in one mapping with it.
        let consumer = SharedMapping::map(fd.as_fd(), 0, page, false)?;
        let producer = SharedMapping::map(fd.as_fd(), page as u64, len, true)?;
        Ok(Self { consumer, producer, page, size, fd, _claim: claim })
    }

    /// Bytes that the ring holds.
    pub const fn capacity(&self) -> usize {
        self.size
    }

    /// How far programs have read, as far as a pointer is wide. What is before it is free.
    pub fn consumer(&self) -> usize {
        self.consumer.load_acquire_usize(0).unwrap_or_default()
    }

    /// Up to where records are reserved.
    pub fn producer(&self) -> u64 {
        self.producer.load_acquire_u64(0).unwrap_or_default()
    }

    /// Lets programs see what is before `position`: headers that were written before.
    pub fn set_producer(&self, position: u64) {
        // All 8 bytes, for a 64-bit kernel below a 32-bit process.
        self.producer.store_release_u64(0, position);
    }

    /// Writes the length and bits of a header before programs see it. `position` is a multiple of 8.
    pub fn set_header(&self, position: u64, header: u32) {
        self.producer.store_release_u32(self.place(position), header);
        // The second word is the kernel's own, in its ring.
        self.producer.store_release_u32(self.place(position) + 4, 0);
    }

    /// Exchanges the length and bits of a header, after all data that was written. `position` is a multiple of 8.
    pub fn exchange_header(&self, position: u64, header: u32) {
        self.producer.exchange_u32(self.place(position), header);
    }

    /// Copies bytes in from `position`, round the end of the ring; at most its size.
    pub fn write(&self, position: u64, bytes: &[u8]) {
        let offset = self.place(position);
        let before_end = (self.page + self.size - offset).min(bytes.len());
        let (first, rest) = bytes.split_at(before_end);
        self.producer.copy_in(offset, first);
        self.producer.copy_in(self.page, rest);
    }

    fn place(&self, position: u64) -> usize {
        self.page + (position as usize & (self.size - 1))
    }
}

/// Writable when a program has drained records.
impl AsFd for UserRingMapping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_ring() {
        let (page, size) = (page_size(), 2 * page_size());
        let (ring, kernel) = UserRingMapping::in_memory(size).unwrap();
        kernel.store_release_u64(0, 40).unwrap();
        assert_eq!(ring.consumer(), 40);
        ring.set_producer(1 << 40);
        assert_eq!(kernel.load_acquire_u64(page), Some(1 << 40));
        assert_eq!(ring.producer(), 1 << 40);
        // The second time round.
        let position = (size + 8) as u64;
        kernel.store_release_u32(2 * page + 12, 7).unwrap();
        ring.set_header(position, 1 << 31 | 5);
        assert_eq!(kernel.load_acquire_u32(2 * page + 8), Some(1 << 31 | 5));
        assert_eq!(kernel.load_acquire_u32(2 * page + 12), Some(0));
        ring.exchange_header(position, 5);
        assert_eq!(kernel.load_acquire_u32(2 * page + 8), Some(5));
    }

    #[test]
    fn data_goes_round_the_end() {
        let (page, size) = (page_size(), page_size());
        let (ring, kernel) = UserRingMapping::in_memory(size).unwrap();
        ring.write(size as u64 - 3, &[1, 2, 3, 4, 5]);
        let (mut last, mut first) = ([0; 3], [0; 2]);
        kernel.copy_out(2 * page + size - 3, &mut last).unwrap();
        kernel.copy_out(2 * page, &mut first).unwrap();
        assert_eq!((last, first), ([1, 2, 3], [4, 5]));
    }

    #[test]
    fn other_sizes_are_refused() {
        for size in [0, 8, page_size() + 8, 3 * page_size()] {
            assert!(UserRingMapping::in_memory(size).is_err(), "{size}");
        }
    }
}
