//! The perf buffer (kernel/events/ring_buffer.c; include/uapi/linux/perf_event.h).
//!
//! The kernel writes records of an 8-byte header and a body at `data_head`, and the reader frees them by moving
//! `data_tail`; both only grow. Records are copied out: they may wrap around the end, and the pages are writable from user
//! space.

use std::os::fd::{AsFd, BorrowedFd};

use bpf_sys::shared::PerfMapping;
use bpf_sys::{PerfFd, RecordType};

/// Memory with the layout of a perf buffer.
pub trait PerfView {
    /// Bytes of records, a power of two.
    fn data_len(&self) -> usize;
    /// How far the kernel has written. An acquire load: records before it are complete.
    fn head(&self) -> u64;
    /// How far the reader has read.
    fn tail(&self) -> u64;
    /// Frees what precedes `tail`. A release store: reads of it are finished.
    fn set_tail(&mut self, tail: u64);
    /// Copies the bytes at a position, around the end of the buffer; `None` if they are longer than the buffer.
    fn copy_out(&self, position: u64, to: &mut [u8]) -> Option<()>;
}

impl PerfView for PerfMapping {
    fn data_len(&self) -> usize {
        self.data_len()
    }

    fn head(&self) -> u64 {
        self.head()
    }

    fn tail(&self) -> u64 {
        self.tail()
    }

    fn set_tail(&mut self, tail: u64) {
        self.set_tail(tail);
    }

    fn copy_out(&self, position: u64, to: &mut [u8]) -> Option<()> {
        self.copy_out(position, to)
    }
}

/// How a perf buffer breaks the rules, which the kernel never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PerfFault {
    /// The positions are misaligned, or further apart than the buffer is long.
    Positions {
        /// The reader's.
        tail: u64,
        /// The kernel's.
        head: u64,
    },
    /// A record's size is less than its header's, misaligned, or reaches past the kernel's position.
    Size {
        /// Position of the record.
        position: u64,
        /// Size in the header.
        size: u16,
        /// Bytes up to the kernel's position.
        available: usize,
    },
}

impl std::fmt::Display for PerfFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Positions { tail, head } => {
                write!(f, "perf buffer positions {tail} (reader) and {head} (kernel) do not fit the buffer")
            }
            Self::Size { position, size, available } => {
                write!(f, "perf record at {position} claims {size} bytes where {available} are")
            }
        }
    }
}

impl std::error::Error for PerfFault {}

const HEADER: usize = 8;

/// A record of a perf buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerfRecord<'a> {
    /// Type.
    pub kind: RecordType,
    /// `PERF_RECORD_MISC_*`.
    pub misc: u16,
    /// What follows the header, in the layout of the type (include/uapi/linux/perf_event.h, `enum perf_event_type`).
    pub body: &'a [u8],
    /// The whole record, header included.
    pub bytes: &'a [u8],
}

impl<'a> PerfRecord<'a> {
    /// The data of a sample of an event whose `sample_type` is `PERF_SAMPLE_RAW` alone, as `bpf_perf_event_output` writes
    /// it. The kernel pads it to a multiple of 8 less 4 bytes.
    pub fn raw_sample(&self) -> Option<&'a [u8]> {
        if self.kind != RecordType::SAMPLE {
            return None;
        }
        let (len, data) = self.body.split_first_chunk::<4>()?;
        data.get(..u32::from_ne_bytes(*len) as usize)
    }

    /// How many records the kernel dropped because the buffer was full.
    pub fn lost(&self) -> Option<u64> {
        let at = match self.kind {
            // The id of the event comes first.
            RecordType::LOST => 8,
            RecordType::LOST_SAMPLES => 0,
            _ => return None,
        };
        Some(u64::from_ne_bytes(*self.body.get(at..)?.first_chunk()?))
    }
}

/// The reader of a perf buffer.
///
/// Space is given back to the kernel when an eighth of the buffer has been read, and whenever nothing more can be read.
#[derive(Debug)]
pub struct PerfReader<V = PerfMapping> {
    view: V,
    /// Where the next record starts.
    tail: u64,
    /// `data_head` as last read.
    head: u64,
    /// `data_tail` as last written.
    released: u64,
    /// The record that was returned last; a record's size is a u16.
    record: Vec<u8>,
    lost: u64,
}

impl PerfReader<PerfMapping> {
    /// Maps the buffer of `event`, with `pages` pages of records, a power of two.
    ///
    /// # Errors
    ///
    /// Those of [`PerfMapping::new`]: `EPERM` above `perf_event_mlock_kb`, `EINVAL`, `ENOMEM`.
    pub fn open(event: &PerfFd, pages: usize) -> bpf_sys::Result<Self> {
        PerfMapping::new(event, pages).map(Self::new)
    }
}

impl<V: PerfView> PerfReader<V> {
    /// Reads `view` from where the last reader stopped.
    pub fn new(view: V) -> Self {
        let tail = view.tail();
        Self { view, tail, head: tail, released: tail, record: Vec::new(), lost: 0 }
    }

    /// The next record, without waiting; `None` when nothing more is there.
    ///
    /// Records of loss are counted, and returned like others.
    ///
    /// # Errors
    ///
    /// [`PerfFault`]: the memory is not as the kernel writes it. The reader stays there, and gives the same error again.
    #[expect(clippy::should_implement_trait, reason = "lends from the reader, which an Iterator cannot")]
    pub fn next(&mut self) -> Result<Option<PerfRecord<'_>>, PerfFault> {
        let capacity = self.view.data_len();
        if self.head == self.tail {
            // Acquire, in the view: the records before the position are complete.
            self.head = self.view.head();
        }
        let available = self.head.wrapping_sub(self.tail);
        if available == 0 {
            self.release();
            return Ok(None);
        }
        if available > capacity as u64 || (available | self.tail) % HEADER as u64 != 0 {
            let fault = PerfFault::Positions { tail: self.tail, head: self.head };
            // So that the next call looks again.
            self.head = self.tail;
            return Err(fault);
        }
        let available = available as usize;
        let mut header = [0; HEADER];
        let copied = self.view.copy_out(self.tail, &mut header);
        let [k0, k1, k2, k3, m0, m1, s0, s1] = header;
        let size = u16::from_ne_bytes([s0, s1]);
        let fault = PerfFault::Size { position: self.tail, size, available };
        let len = usize::from(size);
        if copied.is_none() || len < HEADER || len % HEADER != 0 || len > available {
            return Err(fault);
        }
        self.record.resize(len, 0);
        self.view.copy_out(self.tail, &mut self.record).ok_or(fault)?;
        self.tail = self.tail.wrapping_add(len as u64);
        // The record is copied, so its space can go back at once; a store for every record would only move the cache line.
        if self.tail.wrapping_sub(self.released) >= capacity as u64 / 8 {
            self.release();
        }
        let record = PerfRecord {
            kind: RecordType(u32::from_ne_bytes([k0, k1, k2, k3])),
            misc: u16::from_ne_bytes([m0, m1]),
            body: self.record.get(HEADER..).unwrap_or_default(),
            bytes: &self.record,
        };
        self.lost = self.lost.saturating_add(record.lost().unwrap_or(0));
        Ok(Some(record))
    }

    fn release(&mut self) {
        if self.released != self.tail {
            // Release, in the view: the copies are finished before the kernel can see the space as free.
            self.view.set_tail(self.tail);
            self.released = self.tail;
        }
    }

    /// May the caller wait for the descriptor to become readable? `false` when a record is there already.
    ///
    /// The kernel wakes by how much it has written, whatever the reader has read, so no fence is needed; what stays below
    /// the event's wake-up mark wakes nobody and is for a timer.
    pub fn prepare_to_sleep(&mut self) -> bool {
        self.release();
        self.view.head() == self.tail
    }

    /// How many records the kernel dropped because the buffer was full, as far as it has said.
    pub const fn lost(&self) -> u64 {
        self.lost
    }
}

/// Readable when the kernel has written past the event's wake-up mark.
impl<V: AsFd> AsFd for PerfReader<V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.view.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A perf buffer in a vector.
    struct Buffer {
        data: Vec<u8>,
        head: u64,
        tail: u64,
    }

    impl PerfView for Buffer {
        fn data_len(&self) -> usize {
            self.data.len()
        }

        fn head(&self) -> u64 {
            self.head
        }

        fn tail(&self) -> u64 {
            self.tail
        }

        fn set_tail(&mut self, tail: u64) {
            self.tail = tail;
        }

        fn copy_out(&self, position: u64, to: &mut [u8]) -> Option<()> {
            for (i, byte) in to.iter_mut().enumerate() {
                *byte = self.data[(position as usize).wrapping_add(i) % self.data.len()];
            }
            Some(())
        }
    }

    impl Buffer {
        fn push(&mut self, kind: RecordType, body: &[u8]) {
            let size = (HEADER + body.len()) as u16;
            assert_eq!(size % 8, 0);
            let header = [kind.0.to_ne_bytes().as_slice(), &[2, 0], &size.to_ne_bytes()].concat();
            for byte in header.iter().chain(body) {
                let at = self.head as usize % self.data.len();
                self.data[at] = *byte;
                self.head = self.head.wrapping_add(1);
            }
        }
    }

    fn reader(len: usize, position: u64) -> PerfReader<Buffer> {
        PerfReader::new(Buffer { data: vec![0xee; len], head: position, tail: position })
    }

    #[test]
    fn records_come_in_order_with_type_bits_and_body() {
        let mut r = reader(128, 0);
        assert_eq!(r.next(), Ok(None));
        r.view.push(RecordType::COMM, &[1; 16]);
        r.view.push(RecordType::EXIT, &[]);
        let comm = r.next().unwrap().unwrap();
        assert_eq!((comm.kind, comm.misc, comm.body), (RecordType::COMM, 2, &[1; 16][..]));
        assert_eq!(comm.bytes[8..], [1; 16], "the whole record has its header before the body");
        let exit = r.next().unwrap().unwrap();
        assert_eq!((exit.kind, exit.misc, exit.body, exit.bytes.len()), (RecordType::EXIT, 2, &[][..], 8));
        assert_eq!(r.next(), Ok(None));
        assert_eq!(r.view.tail, 32);
    }

    #[test]
    fn records_wrap_and_so_do_positions() {
        let start = u64::MAX - 39;
        let mut r = reader(64, start);
        for round in 0..20u8 {
            let body: Vec<u8> = (0..40).map(|i| i ^ round).collect();
            r.view.push(RecordType::MMAP2, &body);
            let record = r.next().unwrap().unwrap();
            assert_eq!((record.kind, record.body), (RecordType::MMAP2, body.as_slice()));
            assert_eq!(r.next(), Ok(None));
        }
        assert_eq!(r.view.tail, start.wrapping_add(20 * 48));
    }

    #[test]
    fn space_goes_back_in_parts_and_at_the_end() {
        let mut r = reader(256, 0);
        for _ in 0..3 {
            r.view.push(RecordType::EXIT, &[0; 8]);
        }
        let mut tails = Vec::new();
        for _ in 0..3 {
            r.next().unwrap().unwrap();
            tails.push(r.view.tail);
        }
        assert_eq!(tails, [0, 32, 32]);
        assert!(r.prepare_to_sleep());
        assert_eq!(r.view.tail, 48);
        r.view.push(RecordType::EXIT, &[]);
        assert!(!r.prepare_to_sleep());
    }

    #[test]
    fn the_data_of_a_raw_sample() {
        let sample = |body: &'static [u8]| PerfRecord { kind: RecordType::SAMPLE, misc: 0, body, bytes: &[] };
        let len = 12u32.to_ne_bytes();
        let body: Vec<u8> = [&len[..], b"twelve bytes"].concat();
        let record = PerfRecord { kind: RecordType::SAMPLE, misc: 0, body: &body, bytes: &[] };
        assert_eq!(record.raw_sample(), Some(&b"twelve bytes"[..]));
        assert_eq!(PerfRecord { kind: RecordType::COMM, ..record }.raw_sample(), None);
        assert_eq!(PerfRecord { body: &body[..15], ..record }.raw_sample(), None, "longer than the record");
        assert_eq!(sample(&[0xff; 8]).raw_sample(), None);
        assert_eq!(sample(&[0; 3]).raw_sample(), None);
        assert_eq!(sample(&[0; 4]).raw_sample(), Some(&[][..]));
    }

    #[test]
    fn losses_are_counted() {
        let mut r = reader(256, 0);
        r.view.push(RecordType::LOST, &[7u64.to_ne_bytes(), 5u64.to_ne_bytes()].concat());
        r.view.push(RecordType::LOST_SAMPLES, &2u64.to_ne_bytes());
        // Too short to say how many.
        r.view.push(RecordType::LOST, &[0; 8]);
        assert_eq!(r.next().unwrap().unwrap().lost(), Some(5));
        assert_eq!(r.next().unwrap().unwrap().lost(), Some(2));
        assert_eq!(r.next().unwrap().unwrap().lost(), None);
        assert_eq!(r.lost(), 7);
    }

    #[test]
    fn a_wrong_size_is_a_fault_each_time() {
        for size in [0u16, 7, 9, 12, 24, u16::MAX] {
            let mut r = reader(64, 8);
            r.view.push(RecordType::EXIT, &[0; 8]);
            r.view.data[14..16].copy_from_slice(&size.to_ne_bytes());
            let fault = Err(PerfFault::Size { position: 8, size, available: 16 });
            assert_eq!(r.next(), fault);
            assert_eq!(r.next(), fault);
            assert!(!r.prepare_to_sleep());
        }
    }

    #[test]
    fn positions_that_do_not_fit_are_a_fault_each_time() {
        for (tail, head) in [(0, 72), (64, 0), (0, 4), (4, 12), (0, u64::MAX - 7)] {
            let mut r = reader(64, tail);
            r.view.head = head;
            for _ in 0..2 {
                assert_eq!(r.next(), Err(PerfFault::Positions { tail, head }));
            }
        }
    }
}
