//! The BPF ring buffer (kernel/bpf/ringbuf.c).
//!
//! What makes a record safe to lend, and the ordering of each load and store, is in [`bpf_sys::shared::RingCursor`]. Here is
//! what a reader decides: when space goes back, what is counted, and when it may sleep.

use std::os::fd::{AsFd, BorrowedFd};

use bpf_sys::MapFd;
use bpf_sys::shared::{RingCursor, RingFault, RingMapping, RingMemory, Slot};

/// What [`RingReader::next`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<'a> {
    /// A record. Its space goes back to the programs on a later call.
    Record(&'a [u8]),
    /// The next record is still being written; those behind it have to wait.
    Busy,
    /// Nothing more is there.
    Empty,
}

/// Why [`RingReader::drain`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Nothing more is there.
    Empty,
    /// The next record is still being written.
    Busy,
    /// As many records as were asked for were read; there may be more.
    More,
}

/// What [`RingReader::drain`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// How many records were given out.
    pub records: usize,
    /// What is left.
    pub rest: Rest,
}

/// The reader of a BPF ring buffer.
///
/// Space is given back to the programs when an eighth of the ring has been read, and whenever nothing more can be read:
/// seldom enough that the cache line of the position stays with the writers, and soon enough that they hardly notice.
#[derive(Debug)]
pub struct RingReader<M = RingMapping> {
    cursor: RingCursor<M>,
    /// Give space back when so many bytes are read.
    release_at: usize,
    discarded: u64,
}

impl RingReader<RingMapping> {
    /// Maps the ring buffer `map`.
    ///
    /// # Errors
    ///
    /// Those of [`RingMapping::new`]: not a ring buffer, a ring that has a reader in this process, `EPERM`, `ENOMEM`.
    pub fn open(map: &MapFd) -> bpf_sys::Result<Self> {
        RingMapping::new(map).map(Self::new)
    }
}

impl<M: RingMemory> RingReader<M> {
    /// Reads `memory` from where the last reader stopped.
    pub fn new(memory: M) -> Self {
        let cursor = RingCursor::new(memory);
        let release_at = cursor.capacity() / 8;
        Self { cursor, release_at, discarded: 0 }
    }

    /// The next record, without waiting.
    ///
    /// Records that programs gave up are counted and passed, at most a ring full of them a call.
    ///
    /// # Errors
    ///
    /// [`RingFault`]: the memory is not as the kernel writes it. The reader stays there, and gives the same error again.
    #[expect(clippy::should_implement_trait, reason = "lends from the reader, which an Iterator cannot")]
    #[inline]
    pub fn next(&mut self) -> Result<Next<'_>, RingFault> {
        let mut passed = 0;
        loop {
            if self.cursor.unreleased() >= self.release_at {
                self.cursor.release();
            }
            match self.cursor.next_slot() {
                Slot::Record => return Ok(Next::Record(self.cursor.record())),
                Slot::Discarded => {
                    self.discarded += 1;
                    // Writers that only discard must not hold the caller's loop; each takes at least 8 bytes.
                    passed += 8;
                    if passed > self.cursor.capacity() {
                        return Ok(Next::Busy);
                    }
                }
                Slot::Busy => {
                    self.cursor.release();
                    return Ok(Next::Busy);
                }
                // The cursor has released before it looked for more.
                Slot::Empty => return Ok(Next::Empty),
                Slot::Fault(fault) => return Err(fault),
            }
        }
    }

    /// Gives up to `most` records to `each`, without waiting.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next); the records before the fault were given out.
    #[inline]
    pub fn drain(&mut self, most: usize, mut each: impl FnMut(&[u8])) -> Result<Drained, RingFault> {
        for records in 0..most {
            match self.next()? {
                Next::Record(record) => each(record),
                Next::Busy => return Ok(Drained { records, rest: Rest::Busy }),
                Next::Empty => return Ok(Drained { records, rest: Rest::Empty }),
            }
        }
        self.cursor.release();
        Ok(Drained { records: most, rest: Rest::More })
    }

    /// May the caller wait for the descriptor to become readable? `false` when a record is there already.
    ///
    /// Gives all space back, as the kernel wakes only a reader that has read everything before the record; and has the full
    /// fence that keeps a wake-up from being lost ([`RingCursor::may_sleep`]). A busy record wakes the reader when it is
    /// committed.
    #[inline]
    pub fn prepare_to_sleep(&mut self) -> bool {
        self.cursor.may_sleep()
    }

    /// Bytes of the ring that are taken, headers and records that are being written included.
    pub fn used(&self) -> usize {
        self.cursor.used()
    }

    /// Bytes that the ring holds.
    pub fn capacity(&self) -> usize {
        self.cursor.capacity()
    }

    /// How many records programs gave up.
    pub const fn discarded(&self) -> u64 {
        self.discarded
    }
}

/// Readable when a record was committed with a wake-up.
impl<M: AsFd + RingMemory> AsFd for RingReader<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.cursor.memory().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use bpf_sys::shared::HeapRing;
    use bpf_sys::uapi::flags::BPF_RINGBUF_DISCARD_BIT;

    use super::*;

    /// A reader of a ring of 256 bytes, so space goes back every 32, with the given records in it.
    fn reader(records: &[&[u8]]) -> RingReader<HeapRing> {
        let mut ring = HeapRing::new(256, 0);
        for record in records {
            ring.push(record).unwrap();
        }
        RingReader::new(ring)
    }

    fn consumer(reader: &RingReader<HeapRing>) -> u64 {
        reader.cursor.memory().consumer()
    }

    fn discard(ring: &mut HeapRing, len: usize) {
        let at = ring.reserve(len).unwrap();
        ring.write_header(at, len as u32 | BPF_RINGBUF_DISCARD_BIT);
    }

    #[test]
    fn space_goes_back_in_parts_and_at_the_end() {
        let mut reader = reader(&[&[1; 8], &[2; 8], &[3; 8]]);
        let mut seen = Vec::new();
        for _ in 0..3 {
            assert!(matches!(reader.next(), Ok(Next::Record(_))));
            seen.push(consumer(&reader));
        }
        assert_eq!(seen, [0, 0, 32], "not for each record, and not of the one on loan");
        assert_eq!(reader.next(), Ok(Next::Empty));
        assert_eq!(consumer(&reader), 48);
    }

    #[test]
    fn what_is_taken_counts_as_writers_see_it() {
        let mut reader = reader(&[&[1; 8], &[2; 8], &[3; 8]]);
        assert_eq!((reader.used(), reader.capacity()), (48, 256));
        reader.next().unwrap();
        assert_eq!(reader.used(), 48, "it was not given back");
        reader.cursor.memory_mut().reserve(4).unwrap();
        assert_eq!(reader.used(), 64, "it is being written");
        assert_eq!(reader.drain(9, |_| {}).unwrap().rest, Rest::Busy);
        assert_eq!(reader.used(), 16);
    }

    #[test]
    fn a_busy_record_is_left_to_the_caller() {
        let mut reader = reader(&[&[1; 8]]);
        let at = reader.cursor.memory_mut().reserve(4).unwrap();
        assert_eq!(reader.next(), Ok(Next::Record(&[1; 8])));
        assert_eq!(reader.next(), Ok(Next::Busy));
        assert_eq!(consumer(&reader), 16, "its commit sees the reader waiting there");
        assert!(reader.prepare_to_sleep());
        reader.cursor.memory_mut().write_header(at, 4);
        assert!(!reader.prepare_to_sleep());
        assert_eq!(reader.next(), Ok(Next::Record(&[0; 4])));
        assert_eq!(reader.next(), Ok(Next::Empty));
        assert!(reader.prepare_to_sleep());
    }

    #[test]
    fn discarded_records_are_counted_and_passed() {
        let mut reader = reader(&[&[1; 8]]);
        discard(reader.cursor.memory_mut(), 20);
        reader.cursor.memory_mut().push(&[2; 8]).unwrap();
        discard(reader.cursor.memory_mut(), 0);
        assert_eq!(reader.next(), Ok(Next::Record(&[1; 8])));
        assert_eq!(reader.next(), Ok(Next::Record(&[2; 8])));
        assert_eq!(reader.next(), Ok(Next::Empty));
        assert_eq!(reader.discarded(), 2);
    }

    #[test]
    fn a_full_ring_of_discarded_records_is_passed_in_one_call() {
        let mut ring = HeapRing::new(256, 0);
        for _ in 0..32 {
            discard(&mut ring, 0);
        }
        let mut reader = RingReader::new(ring);
        assert_eq!(reader.next(), Ok(Next::Empty));
        assert_eq!(reader.discarded(), 32);
    }

    #[test]
    fn drain_stops_where_it_should() {
        let mut reader = reader(&[b"a", b"b", b"c"]);
        let mut got = Vec::new();
        let drained = reader.drain(2, |record| got.extend_from_slice(record));
        assert_eq!(drained, Ok(Drained { records: 2, rest: Rest::More }));
        assert_eq!(consumer(&reader), 32);
        let drained = reader.drain(2, |record| got.extend_from_slice(record));
        assert_eq!(drained, Ok(Drained { records: 1, rest: Rest::Empty }));
        reader.cursor.memory_mut().reserve(1).unwrap();
        let drained = reader.drain(usize::MAX, |record| got.extend_from_slice(record));
        assert_eq!(drained, Ok(Drained { records: 0, rest: Rest::Busy }));
        assert_eq!(got, b"abc");
    }

    #[test]
    fn a_fault_is_an_error_each_time() {
        let mut reader = reader(&[b"a"]);
        reader.cursor.memory_mut().write_header(0, 9);
        let fault = RingFault::Length { position: 0, len: 9, available: 16 };
        for _ in 0..3 {
            assert_eq!(reader.next(), Err(fault));
            assert_eq!(reader.drain(10, |_| panic!("no record")), Err(fault));
        }
        assert!(!reader.prepare_to_sleep(), "the caller comes back and sees the error");
    }

    #[test]
    fn a_later_reader_goes_on_where_the_first_stopped() {
        let mut ring = HeapRing::new(256, 48);
        ring.push(&[7; 4]).unwrap();
        assert_eq!(RingReader::new(ring).next(), Ok(Next::Record(&[7; 4])));
    }
}
