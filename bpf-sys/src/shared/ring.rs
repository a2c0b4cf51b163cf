//! The BPF ring buffer: its memory, and the cursor that lends its records (kernel/bpf/ringbuf.c).
//!
//! The kernel shares two positions, which only grow, and a power of two of data bytes. Programs reserve space at the
//! producer position, write a record of an 8-byte header and data, and commit it by clearing the header's busy bit;
//! records are committed in any order. The one reader moves the consumer position, which frees space.

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{SharedMapping, full_fence, page_size};
use crate::errno::{Error, Result};
use crate::fd::MapFd;
use crate::uapi::flags::{BPF_F_NUMA_NODE, BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT};
use crate::uapi::kinds::MapType;

/// Memory with the layout of a ring.
///
/// # Safety
///
/// `parts` gives the same places for as long as `self` lives. At `data`, twice `mask + 1` bytes are readable and 8-byte
/// aligned, the second half showing the same bytes as the first. A writer other than through `&mut self` reserves and
/// commits as the kernel does, writes only reserved and uncommitted space, and takes space for reservation only up to
/// `mask + 1` bytes past the consumer position. Nothing else moves the consumer position.
pub unsafe trait RingMemory {
    /// The places.
    fn parts(&self) -> RingParts<'_>;
}

/// Where the parts of a ring are.
#[derive(Debug, Clone, Copy)]
pub struct RingParts<'a> {
    /// Position of the reader. The kernel's is an `unsigned long`; a 32-bit process below a 64-bit kernel must write all of
    /// it, and a 32-bit kernel ignores the second half.
    pub consumer: &'a AtomicU64,
    /// Position of the writers, as far as a pointer is wide.
    pub producer: &'a AtomicUsize,
    /// The data, twice.
    pub data: NonNull<u8>,
    /// Bytes of data, less one; a power of two, less one.
    pub mask: usize,
}

/// What stands at a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// Nothing more was reserved.
    Empty,
    /// A record that is still being written.
    Busy,
    /// A committed record, which [`RingCursor::record`] lends.
    Record,
    /// A record that its program gave up.
    Discarded,
    /// The ring breaks the rules; the cursor stays.
    Fault(RingFault),
}

/// How a ring breaks the rules, which the kernel never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingFault {
    /// The positions are misaligned, or further apart than the ring is long.
    Positions {
        /// The reader's.
        consumer: u64,
        /// The writers'.
        producer: usize,
    },
    /// A record's length reaches past the writers' position.
    Length {
        /// Position of the record.
        position: u64,
        /// Length in the header.
        len: u32,
        /// Bytes up to the writers' position.
        available: usize,
    },
}

impl core::fmt::Display for RingFault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Positions { consumer, producer } => {
                write!(f, "ring positions {consumer} (reader) and {producer} (writers) do not fit the ring")
            }
            Self::Length { position, len, available } => {
                write!(f, "ring record at {position} claims {len} bytes where {available} are")
            }
        }
    }
}

impl std::error::Error for RingFault {}

const HEADER: usize = 8;

/// The one reader of a ring: walks over records and lends them.
#[derive(Debug)]
pub struct RingCursor<M> {
    memory: M,
    /// Where the next record starts; always a record's boundary.
    position: u64,
    /// Bytes of the record that was found last, with header and padding; it is passed on the next call. 0 is none.
    size: usize,
    /// Bytes of that record that may be lent.
    len: usize,
    /// The writers' position as last read; everything before is reserved.
    limit: usize,
    /// The consumer position as last written.
    released: u64,
}

impl<M: RingMemory> RingCursor<M> {
    /// At the consumer position, where an earlier reader may have left it.
    pub fn new(memory: M) -> Self {
        // Only readers write it, and `memory` is theirs alone, so no ordering is needed.
        let position = memory.parts().consumer.load(Ordering::Relaxed);
        Self { memory, position, size: 0, len: 0, limit: position as usize, released: position }
    }

    /// Passes the record that was found last, and looks at the next.
    #[inline]
    pub fn next_slot(&mut self) -> Slot {
        self.pass();
        let parts = self.memory.parts();
        // Inequality, since positions wrap where pointers have 32 bits.
        if self.limit == self.position as usize {
            // All that is known was read, so its space goes back. The store is made even if it changes nothing: the position's
            // cache line, which the writers share, is then on its way here while the line of theirs is.
            parts.consumer.store(self.position, Ordering::Release);
            self.released = self.position;
            // Acquire: headers below the producer position, which were written before it, are seen as reserved or later.
            self.limit = parts.producer.load(Ordering::Acquire);
            let available = self.limit.wrapping_sub(self.position as usize);
            if available == 0 {
                return Slot::Empty;
            }
            if available > parts.mask + 1 || (available | self.position as usize) % HEADER != 0 {
                let producer = self.limit;
                // So that the next call looks again.
                self.limit = self.position as usize;
                return Slot::Fault(RingFault::Positions { consumer: self.position, producer });
            }
        }
        let available = self.limit.wrapping_sub(self.position as usize);
        let offset = self.position as usize & parts.mask;
        // SAFETY: `offset` is below the ring's length.
        let header = unsafe { parts.data.add(offset) }.cast::<AtomicU32>();
        // SAFETY: the header is inside the first copy of the data and aligned: `offset` is a multiple of 8, since the
        // position is (as checked when the limit moved, and lengths are rounded up).
        let header = unsafe { header.as_ref() };
        // Acquire: pairs with the commit's exchange, so the data of a committed record is complete.
        let header = header.load(Ordering::Acquire);
        if header & BPF_RINGBUF_BUSY_BIT != 0 {
            return Slot::Busy;
        }
        let len = header & !BPF_RINGBUF_DISCARD_BIT;
        let size = (len as usize + HEADER).next_multiple_of(HEADER);
        if size > available {
            return Slot::Fault(RingFault::Length { position: self.position, len, available });
        }
        self.size = size;
        if header & BPF_RINGBUF_DISCARD_BIT != 0 {
            return Slot::Discarded;
        }
        self.len = len as usize;
        Slot::Record
    }

    /// The record that was found last, without its header; empty if the last call found none.
    #[inline]
    pub fn record(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        let parts = self.memory.parts();
        let offset = (self.position as usize & parts.mask) + HEADER;
        // SAFETY: as `next_slot` checked, header and record together are not longer than the ring, so they end inside the
        // data's second copy.
        let data = unsafe { parts.data.add(offset) };
        // SAFETY: the record is committed, as its header said, which is a header because the position is a boundary. Nobody
        // writes it until the consumer position passes it. That position is moved only by `release`, and `len` is cleared
        // with each move of the cursor; both take `&mut self` and so end the slice's borrow.
        unsafe { core::slice::from_raw_parts(data.as_ptr(), self.len) }
    }

    #[inline]
    fn pass(&mut self) {
        self.position = self.position.wrapping_add(self.size as u64);
        self.stay();
    }

    /// Takes the last find back, so that the next call finds it again.
    #[inline]
    fn stay(&mut self) {
        (self.size, self.len) = (0, 0);
    }

    /// Gives the space of all records found so far back to the writers.
    #[inline]
    pub fn release(&mut self) {
        self.pass();
        if self.released != self.position {
            // Release: reads of the records are finished before a writer can see the space as free.
            self.memory.parts().consumer.store(self.position, Ordering::Release);
            self.released = self.position;
        }
    }

    /// Bytes of the records found so far that are not yet given back.
    #[inline]
    pub fn unreleased(&self) -> usize {
        self.position.wrapping_add(self.size as u64).wrapping_sub(self.released) as usize
    }

    /// Bytes that are taken as the writers see it: of records that are there or being written, and of those that are not yet
    /// given back.
    #[inline]
    pub fn used(&self) -> usize {
        let parts = self.memory.parts();
        // No ordering: this says how full the ring is, and no record is read for it.
        let producer = parts.producer.load(Ordering::Relaxed);
        producer.wrapping_sub(self.released as usize).min(parts.mask + 1)
    }

    /// Bytes that the ring holds.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.memory.parts().mask + 1
    }

    /// Releases, and looks whether the reader may sleep until the ring's descriptor is readable; `false` when a committed
    /// record is there.
    ///
    /// A commit wakes the reader only if the consumer position it sees is that of the record. So the reader publishes its
    /// position first, then looks at the ring once more; the commit clears the busy bit first, then looks at the position.
    /// The full fence here and the full barrier of the commit's exchange keep each side's load behind its own store, so one
    /// of the two sees the other, and no wake-up is lost.
    pub fn may_sleep(&mut self) -> bool {
        self.pass();
        self.released = self.position;
        let consumer = self.memory.parts().consumer;
        if cfg!(all(any(target_arch = "x86", target_arch = "x86_64"), not(miri))) {
            // An exchange is the cheapest full barrier there, as the kernel's smp_mb() is a locked instruction; as an acquire
            // operation it also keeps the compiler from moving the loads below before it. To the language, of which Miri knows
            // no more, it is no barrier.
            consumer.swap(self.position, Ordering::SeqCst);
        } else {
            consumer.store(self.position, Ordering::Release);
            full_fence();
        }
        match self.next_slot() {
            Slot::Empty | Slot::Busy => true,
            Slot::Record | Slot::Discarded => {
                self.stay();
                false
            }
            Slot::Fault(_) => false,
        }
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }
}

impl RingCursor<HeapRing> {
    /// The memory, to be written. No record can be on loan.
    pub fn memory_mut(&mut self) -> &mut HeapRing {
        self.pass();
        // Forget what was checked against the memory as it was.
        self.limit = self.position as usize;
        &mut self.memory
    }
}

/// A BPF ring buffer, mapped: the consumer page writable, the producer page and the data read-only.
#[derive(Debug)]
pub struct RingMapping {
    consumer: SharedMapping,
    producer: SharedMapping,
    data_offset: usize,
    mask: usize,
    map: MapFd,
    _claim: Claim,
}

/// Ids of the rings that are mapped in this process: a second reader would give back what the first has lent, a second
/// producer write what the first has reserved. There are few.
static MAPPED: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// The right to map a ring, the only one in this process.
#[derive(Debug)]
pub(super) struct Claim(u32);

impl Claim {
    pub(super) fn new(map: &MapFd) -> Result<Self> {
        let id = crate::map::info(map)?.id;
        let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        if mapped.contains(&id) {
            return Err(Error::AlreadyMapped);
        }
        mapped.push(id);
        Ok(Self(id))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        MAPPED.lock().unwrap_or_else(PoisonError::into_inner).retain(|id| *id != self.0);
    }
}

impl RingMapping {
    /// Maps a ring. A process has at most one mapping of each.
    ///
    /// Records are lent on the condition that no other process moves the consumer position of the ring: give its descriptor
    /// only to programs, or to processes that do not read it.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`]: not a ring buffer, or one that overwrites records before they are read (Linux 6.19).
    /// [`Error::AlreadyMapped`]. `EPERM`: the descriptor may not write. Linux 5.8.
    pub fn new(map: &MapFd) -> Result<Self> {
        let argument = |what| Error::Argument { call: "mmap", what };
        if map.map_type() != MapType::RINGBUF {
            return Err(argument("not a ring buffer"));
        }
        // Flags that this crate does not know may change who writes when.
        if map.flags() & !BPF_F_NUMA_NODE != 0 {
            return Err(argument("a ring buffer with flags that are not supported"));
        }
        let (page, size) = (page_size(), map.max_entries() as usize);
        let twice = size.checked_mul(2).and_then(|len| len.checked_add(page));
        let twice = twice.ok_or(argument("the ring is too large"))?;
        if !size.is_power_of_two() || size % page != 0 {
            return Err(argument("the ring's size is not a power of two of pages"));
        }
        let consumer = SharedMapping::map(map.as_fd(), 0, page, true)?;
        let producer = SharedMapping::map(map.as_fd(), page as u64, twice, false)?;
        let (claim, map) = (Claim::new(map)?, map.try_clone()?);
        Ok(Self { consumer, producer, data_offset: page, mask: size - 1, map, _claim: claim })
    }
}

/// Readable when a program has committed a record with a wake-up.
impl AsFd for RingMapping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

// SAFETY: the mappings live as long as `self`; the kernel maps the data twice in a row behind the producer page
// (`ringbuf_map_mmap_kern` shows the pages of `bpf_ringbuf_area_alloc`), and keeps the rules. This process moves the
// consumer position only through the one cursor on the one mapping, and no other process does, by the condition of `new`.
unsafe impl RingMemory for RingMapping {
    #[inline]
    fn parts(&self) -> RingParts<'_> {
        // SAFETY: a page is mapped writable, and the position is its first 8 bytes.
        let consumer = unsafe { self.consumer.base.cast::<AtomicU64>().as_ref() };
        // SAFETY: the producer page is mapped, and the position is its first bytes; only the kernel writes it.
        let producer = unsafe { self.producer.base.cast::<AtomicUsize>().as_ref() };
        // SAFETY: the mapping is longer than its first page.
        let data = unsafe { self.producer.base.add(self.data_offset) };
        RingParts { consumer, producer, data, mask: self.mask }
    }
}

/// A ring in ordinary memory, for tests, fuzzing and measurements without privileges. It is written through `&mut self`
/// only, so may be given any content.
#[derive(Debug)]
pub struct HeapRing {
    consumer: AtomicU64,
    producer: AtomicUsize,
    /// The data, twice.
    data: Vec<AtomicU64>,
}

impl HeapRing {
    /// An empty ring of `size` bytes, rounded up to a power of two of at least 8, with both positions at `position`.
    pub fn new(size: usize, position: u64) -> Self {
        let size = size.next_power_of_two().max(HEADER);
        Self {
            consumer: AtomicU64::new(position),
            producer: AtomicUsize::new(position as usize),
            data: core::iter::repeat_with(AtomicU64::default).take(size / HEADER * 2).collect(),
        }
    }

    fn words(&self) -> usize {
        self.data.len() / 2
    }

    /// Sets the writers' position.
    pub fn set_producer(&mut self, position: usize) {
        *self.producer.get_mut() = position;
    }

    /// The writers' position.
    pub fn producer(&self) -> usize {
        self.producer.load(Ordering::Relaxed)
    }

    /// The reader's position, as released.
    pub fn consumer(&self) -> u64 {
        self.consumer.load(Ordering::Relaxed)
    }

    /// Writes the 8 bytes at a position.
    pub fn write_word(&mut self, position: usize, word: [u8; 8]) {
        let words = self.words();
        let at = position / HEADER % words;
        for copy in [at, at + words] {
            if let Some(place) = self.data.get_mut(copy) {
                *place.get_mut() = u64::from_ne_bytes(word);
            }
        }
    }

    /// Writes a header: length and bits.
    pub fn write_header(&mut self, position: usize, header: u32) {
        let mut word = [0; 8];
        word[..4].copy_from_slice(&header.to_ne_bytes());
        self.write_word(position, word);
    }

    /// Reserves and commits a record, as a program does; `None` when the ring is full.
    pub fn push(&mut self, record: &[u8]) -> Option<()> {
        let header = u32::try_from(record.len()).ok().filter(|len| *len < BPF_RINGBUF_DISCARD_BIT)?;
        let position = self.reserve(record.len())?;
        for (i, chunk) in record.chunks(HEADER).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_word(position.wrapping_add(HEADER * (i + 1)), word);
        }
        self.write_header(position, header);
        Some(())
    }

    /// Reserves a record of `len` bytes, busy; returns its position, or `None` when the ring is full.
    pub fn reserve(&mut self, len: usize) -> Option<usize> {
        let size = len.checked_add(HEADER)?.checked_next_multiple_of(HEADER)?;
        let position = self.producer();
        let used = position.wrapping_sub(self.consumer() as usize);
        if used.checked_add(size)? > self.words() * HEADER {
            return None;
        }
        self.write_header(position, len as u32 | BPF_RINGBUF_BUSY_BIT);
        self.set_producer(position.wrapping_add(size));
        Some(position)
    }
}

// SAFETY: the vector is never resized, so its places stay; it holds two copies of a power of two of words; there is no
// writer but through `&mut self`, and the reader alone moves the consumer position.
unsafe impl RingMemory for HeapRing {
    #[inline]
    fn parts(&self) -> RingParts<'_> {
        let data = NonNull::from(self.data.as_slice()).cast::<u8>();
        RingParts {
            consumer: &self.consumer,
            producer: &self.producer,
            data,
            mask: self.words() * HEADER - 1,
        }
    }
}

#[cfg(test)]
mod tests;
