//! The producer of a user ring buffer (Linux 6.1): records to programs, which drain them with `bpf_user_ringbuf_drain`.
//!
//! What is in the memory and who writes it is in [`bpf_sys::shared::UserRingMapping`]. Here is the protocol: a record is
//! reserved behind the last by a header with the busy bit, which stops the program there; committing clears the bit, or sets
//! the one that makes the program pass it.

use std::os::fd::{AsFd, BorrowedFd};

use bpf_sys::MapFd;
use bpf_sys::shared::{RingFault, UserRingMapping};
use bpf_sys::uapi::flags::{BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT, BPF_RINGBUF_HDR_SZ};

use crate::error::{Error, Result};
use crate::map::Pod;

const HEADER: usize = BPF_RINGBUF_HDR_SZ as usize;

/// The one producer of a user ring buffer. It never waits: when the ring is full it says so, and counts it.
///
/// Who wants to wait until a program has drained records waits for the descriptor to become writable, edge-triggered or with
/// a timer: it is writable whenever any space is free, which may be less than a record needs. Nothing but the program's
/// owner makes it drain; many attach it to what the process does next.
#[derive(Debug)]
pub struct UserRing {
    memory: UserRingMapping,
    full: u64,
    discarded: u64,
}

impl UserRing {
    /// Maps the user ring buffer `map`.
    ///
    /// # Errors
    ///
    /// Those of [`UserRingMapping::new`]: not a user ring buffer, or one that has a producer in this process.
    pub fn open(map: &MapFd) -> Result<Self> {
        Ok(Self::new(UserRingMapping::new(map)?))
    }

    /// Goes on where the last producer stopped.
    pub const fn new(memory: UserRingMapping) -> Self {
        Self { memory, full: 0, discarded: 0 }
    }

    /// Bytes that the ring holds, with the 8 bytes before each record, and records rounded up to 8.
    pub const fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// The longest record in bytes.
    pub fn max_record(&self) -> usize {
        (self.capacity() - HEADER).min(BPF_RINGBUF_DISCARD_BIT as usize - 1)
    }

    /// How many reservations failed because the ring was full.
    pub const fn full(&self) -> u64 {
        self.full
    }

    /// How many records were reserved and given up.
    pub const fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Reserves a record of `len` bytes, which may hold anything until it is written; `None` when the ring is full.
    ///
    /// # Errors
    ///
    /// [`Error::RecordTooLong`]: longer than [`max_record`](Self::max_record). [`Error::Ring`]: another process has written
    /// positions that cannot be.
    pub fn reserve(&mut self, len: usize) -> Result<Option<Reserved<'_>>> {
        if len > self.max_record() {
            return Err(Box::new(Error::RecordTooLong { len, most: self.max_record() }));
        }
        let size = (len + HEADER).next_multiple_of(HEADER);
        let position = self.memory.producer();
        let consumer = self.memory.consumer();
        // Modulo a pointer's width, as far as the consumer's position is known.
        let used = (position as usize).wrapping_sub(consumer);
        if used > self.capacity() || position % HEADER as u64 != 0 {
            let (consumer, producer) = (consumer as u64, position as usize);
            return Err(Box::new(Error::Ring(RingFault::Positions { consumer, producer })));
        }
        if self.capacity() - used < size {
            self.full += 1;
            return Ok(None);
        }
        self.memory.set_header(position, len as u32 | BPF_RINGBUF_BUSY_BIT);
        // The header is seen with the position or before.
        self.memory.set_producer(position.wrapping_add(size as u64));
        Ok(Some(Reserved { ring: self, position, len, committed: false }))
    }

    /// Sends a record; `false` when the ring is full.
    ///
    /// # Errors
    ///
    /// As [`reserve`](Self::reserve).
    pub fn send(&mut self, record: &[u8]) -> Result<bool> {
        let Some(mut reserved) = self.reserve(record.len())? else { return Ok(false) };
        reserved.write(0, record);
        reserved.commit();
        Ok(true)
    }

    /// Sends a value as a record; `false` when the ring is full.
    ///
    /// # Errors
    ///
    /// As [`reserve`](Self::reserve).
    pub fn send_value(&mut self, value: &impl Pod) -> Result<bool> {
        self.send(value.as_bytes())
    }
}

/// Writable when a program has drained records.
impl AsFd for UserRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// A record that is being written. Programs read nothing behind it before it is committed, or dropped: then they pass it.
#[derive(Debug)]
#[must_use = "what is not committed is discarded"]
pub struct Reserved<'r> {
    ring: &'r mut UserRing,
    position: u64,
    len: usize,
    committed: bool,
}

impl Reserved<'_> {
    /// Bytes.
    #[expect(clippy::len_without_is_empty, reason = "who reserves knows")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Writes a part of the record; `None` if it is not all inside.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Option<()> {
        if offset.checked_add(bytes.len())? > self.len {
            return None;
        }
        self.ring.memory.write(self.position.wrapping_add((HEADER + offset) as u64), bytes);
        Some(())
    }

    /// Gives the record to the program.
    pub fn commit(mut self) {
        self.committed = true;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let discard = if self.committed { 0 } else { BPF_RINGBUF_DISCARD_BIT };
        self.ring.discarded += u64::from(!self.committed);
        self.ring.memory.exchange_header(self.position, self.len as u32 | discard);
    }
}

#[cfg(test)]
mod tests {
    use bpf_sys::page_size;
    use bpf_sys::shared::SharedMapping;

    use super::*;

    /// What a draining program finds, by the rules of the kernel (`__bpf_user_ringbuf_peek`).
    struct Consumer {
        view: SharedMapping,
        size: usize,
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Found {
        Empty,
        Busy,
        Discarded,
        Record(Vec<u8>),
    }

    impl Consumer {
        fn next(&self) -> Found {
            let (page, data) = (page_size(), 2 * page_size());
            let consumer = self.view.load_acquire_u64(0).unwrap();
            let producer = self.view.load_acquire_u64(page).unwrap();
            assert_eq!(producer % 8, 0);
            if consumer == producer {
                return Found::Empty;
            }
            let at = |position: u64| data + (position as usize & (self.size - 1));
            let header = self.view.load_acquire_u32(at(consumer)).unwrap();
            if header & BPF_RINGBUF_BUSY_BIT != 0 {
                return Found::Busy;
            }
            let len = header & !BPF_RINGBUF_DISCARD_BIT;
            let size = u64::from(len).next_multiple_of(8) + 8;
            assert!(size <= producer.wrapping_sub(consumer), "the record ends before the producer position");
            let mut record = vec![0; len as usize];
            for (i, byte) in record.iter_mut().enumerate() {
                let place = at(consumer.wrapping_add(8 + i as u64));
                self.view.copy_out(place, std::slice::from_mut(byte)).unwrap();
            }
            self.view.store_release_u64(0, consumer.wrapping_add(size)).unwrap();
            if header & BPF_RINGBUF_DISCARD_BIT != 0 { Found::Discarded } else { Found::Record(record) }
        }
    }

    fn ring(start: u64) -> (UserRing, Consumer) {
        let size = page_size();
        let (memory, view) = UserRingMapping::in_memory(size).unwrap();
        view.store_release_u64(0, start).unwrap();
        view.store_release_u64(page_size(), start).unwrap();
        (UserRing::new(memory), Consumer { view, size })
    }

    #[test]
    fn records_come_out_as_they_went_in() {
        // Round the ring many times, and where a 32-bit pointer wraps.
        for start in [0, u64::from(u32::MAX) - 4095 + 8 * 100] {
            let (mut ring, consumer) = ring(start & !7);
            for round in 0..3000usize {
                let record: Vec<u8> = (0..round * 7 % 600).map(|i| (i + round) as u8).collect();
                assert!(ring.send(&record).unwrap());
                assert_eq!(consumer.next(), Found::Record(record), "round {round}");
                assert_eq!(consumer.next(), Found::Empty);
            }
        }
    }

    #[test]
    fn nothing_passes_a_record_that_is_being_written() {
        let (mut ring, consumer) = ring(0);
        let mut reserved = ring.reserve(12).unwrap().unwrap();
        assert_eq!(consumer.next(), Found::Busy);
        assert_eq!(reserved.write(8, &[3; 4]), Some(()));
        assert_eq!(reserved.write(0, &[1; 8]), Some(()));
        assert_eq!(reserved.write(9, &[0; 4]), None, "past its end");
        assert_eq!(reserved.write(usize::MAX, &[0; 4]), None);
        reserved.commit();
        assert_eq!(consumer.next(), Found::Record(vec![1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 3]));
    }

    #[test]
    fn what_is_dropped_is_passed_and_counted() {
        let (mut ring, consumer) = ring(0);
        drop(ring.reserve(5).unwrap());
        assert!(ring.send_value(&7u16).unwrap());
        assert_eq!(ring.discarded(), 1);
        assert_eq!(consumer.next(), Found::Discarded);
        assert_eq!(consumer.next(), Found::Record(7u16.to_ne_bytes().to_vec()));
    }

    #[test]
    fn a_full_ring_is_counted_until_it_is_drained() {
        let (mut ring, consumer) = ring(8);
        let most = ring.capacity() / 16;
        let sent = (0..most + 5).filter(|_| ring.send(&[9; 8]).unwrap()).count();
        assert_eq!((sent, ring.full()), (most, 5));
        assert_eq!(consumer.next(), Found::Record(vec![9; 8]));
        assert!(ring.send(&[8; 1]).unwrap());
        assert!(!ring.send(&[]).unwrap());
        assert_eq!(ring.full(), 6);
        let drained = std::iter::from_fn(|| Some(consumer.next()).filter(|f| *f != Found::Empty)).count();
        assert_eq!(drained, most, "none is lost, none twice");
    }

    #[test]
    fn the_longest_record_fills_the_ring() {
        let (mut ring, consumer) = ring(16);
        let record = vec![5; ring.max_record()];
        assert!(ring.send(&record).unwrap());
        assert_eq!(consumer.next(), Found::Record(record));
        let most = ring.max_record();
        assert_eq!(
            ring.send(&vec![0; most + 1]),
            Err(Box::new(Error::RecordTooLong { len: most + 1, most }))
        );
        assert_eq!(ring.full(), 0);
    }

    #[test]
    fn positions_that_cannot_be_are_an_error() {
        let (mut ring, consumer) = ring(0);
        consumer.view.store_release_u64(0, 8).unwrap();
        assert!(matches!(
            ring.send(&[]).map_err(|e| *e),
            Err(Error::Ring(RingFault::Positions { consumer: 8, producer: 0 }))
        ));
        consumer.view.store_release_u64(page_size(), 12).unwrap();
        assert!(
            matches!(ring.send(&[]).map_err(|e| *e), Err(Error::Ring(RingFault::Positions { .. }))),
            "misaligned"
        );
    }
}
