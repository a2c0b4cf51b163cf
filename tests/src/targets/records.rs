//! Buffers that programs write, and the records in them.

use super::input::Input;
use bpf_loader::ring::{Next, PerfReader, PerfView, RingReader};
use bpf_programs::events::profile::{Count, CountKey, CpuStats, Fill, MAX_WORDS, Region, stack_at};
use bpf_sys::shared::HeapRing;

/// Records of the profiler's program, and stacks at any place of any words.
pub fn programs_records(data: &[u8]) {
    assert_eq!(CountKey::decode(data).is_some(), data.len() >= CountKey::SIZE);
    assert_eq!(Count::decode(data).is_some(), data.len() >= Count::SIZE);
    assert_eq!(Region::decode(data).is_some(), data.len() >= Region::SIZE);
    assert_eq!(CpuStats::decode(data).is_some(), data.len() >= CpuStats::SIZE);
    assert_eq!(Fill::decode(data).is_some(), data.len() >= Fill::SIZE);

    // Bytes rather than words, so that many numbers of words make sense.
    let words = |at: usize| data.get(at).copied().map(u64::from);
    let mut stack = Vec::new();
    for place in (0..data.len() as u32 + 2).chain([u32::MAX]) {
        if stack_at(place, words, &mut stack).is_some() {
            assert!((1..=MAX_WORDS).contains(&stack.len()));
            let first = place as usize + 1;
            assert!(stack.iter().zip(&data[first..]).all(|(word, byte)| *word == u64::from(*byte)));
        }
    }
}

/// A BPF ring and a perf buffer with any positions and content.
///
/// The first byte says how large they are, then come the reader's position and how far the writer is ahead; the rest
/// is content.
pub fn loader_rings(data: &[u8]) {
    let mut input = Input::new(data);
    let size = 8usize << (input.u8() % 8);
    let position = input.u64();
    let ahead = u64::from(input.u16());
    let content = input.rest();
    bpf_ring(size, position, position.wrapping_add(ahead), content);
    perf_buffer(size, position, position.wrapping_add(ahead), content);
}

fn bpf_ring(size: usize, position: u64, producer: u64, content: &[u8]) {
    let mut ring = HeapRing::new(size, position);
    for (n, chunk) in content.chunks(8).take(size / 8).enumerate() {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        ring.write_word((position as usize).wrapping_add(n * 8), word);
    }
    ring.set_producer(producer as usize);
    let mut reader = RingReader::new(ring);
    let mut taken = 0;
    // A record takes 8 bytes at least, so there are not more answers than these.
    for _ in 0..=size / 8 {
        match reader.next() {
            Ok(Next::Record(record)) => {
                taken += record.len() + 8;
                assert!(taken <= size, "records are longer than the ring");
                // Reads all of it.
                assert_eq!(record.iter().filter(|_| true).count(), record.len());
            }
            Ok(Next::Empty | Next::Busy) => {
                reader.prepare_to_sleep();
                return;
            }
            Err(fault) => {
                assert_eq!(reader.next(), Err(fault), "a fault stays");
                return;
            }
        }
    }
    panic!("the ring never ends");
}

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
        assert!(tail.wrapping_sub(self.tail) <= self.head.wrapping_sub(self.tail), "past the writer");
        self.tail = tail;
    }

    fn copy_out(&self, position: u64, to: &mut [u8]) -> Option<()> {
        if to.len() > self.data.len() {
            return None;
        }
        let from = self.data.iter().cycle().skip(position as usize & (self.data.len() - 1));
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        Some(())
    }
}

fn perf_buffer(size: usize, tail: u64, head: u64, content: &[u8]) {
    let mut data = vec![0; size];
    for (n, byte) in content.iter().take(size).enumerate() {
        data[(tail as usize).wrapping_add(n) & (size - 1)] = *byte;
    }
    let mut reader = PerfReader::new(Buffer { data, head, tail });
    let mut taken = 0;
    for _ in 0..=size / 8 {
        match reader.next() {
            Ok(Some(record)) => {
                assert_eq!(record.bytes.len(), record.body.len() + 8);
                taken += record.bytes.len();
                assert!(taken <= size, "records are longer than the buffer");
                let _ = (record.lost(), record.raw_sample());
            }
            Ok(None) => {
                assert!(reader.prepare_to_sleep());
                return;
            }
            Err(fault) => {
                assert_eq!(reader.next(), Err(fault), "a fault stays");
                return;
            }
        }
    }
    panic!("the buffer never ends");
}
