//! A ring's reader beside a writer in another thread that does what the kernel does (`__bpf_ringbuf_reserve` and
//! `bpf_ringbuf_commit` of kernel/bpf/ringbuf.c): no record is torn, lost or doubled, and no wake-up is lost.
//!
//! Below ThreadSanitizer (`tests/run rings`) an order of loads and stores that is too weak is an error even where this
//! machine's is stronger.

use bpf_sys::shared::{RingCursor, RingMemory, RingParts, Slot, full_fence};
use bpf_sys::uapi::flags::{BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT};
use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Words of the ring: so few that it is full and empty all the time.
const WORDS: usize = 16;
const BYTES: usize = 8 * WORDS;
/// Records that the writer makes.
const RECORDS: u64 = if cfg!(miri) { 300 } else { 20_000 };
/// A wake-up takes microseconds.
const LOST: Duration = Duration::from_secs(20);

struct Ring {
    consumer: AtomicU64,
    producer: AtomicUsize,
    /// The data, twice.
    data: [UnsafeCell<u64>; 2 * WORDS],
    /// Stands for the reader's wait queue.
    woken: AtomicBool,
}

// SAFETY: the data is written and read by the rules of a ring, which is what is tested.
unsafe impl Sync for Ring {}

#[derive(Clone)]
struct Shared(Arc<Ring>);

// SAFETY: the allocation lives as long as `self`; the data is there twice, as `Writer` writes it; `Writer` reserves and
// commits as the kernel does; the one cursor alone moves the consumer position.
unsafe impl RingMemory for Shared {
    fn parts(&self) -> RingParts<'_> {
        let ring = &*self.0;
        let data = NonNull::from(&ring.data).cast();
        RingParts { consumer: &ring.consumer, producer: &ring.producer, data, mask: BYTES - 1 }
    }
}

/// What a program does in the kernel.
struct Writer(Shared);

impl Writer {
    /// The word at a position, in its first or second copy.
    fn word(&self, position: usize, copy: usize) -> *mut u64 {
        self.0.0.data[position / 8 % WORDS + copy * WORDS].get()
    }

    fn header(&self, position: usize) -> &AtomicU32 {
        // SAFETY: the word is inside the ring and aligned for an atomic; headers are reached through atomics only, but
        // where they were data before, which the consumer position orders.
        unsafe { AtomicU32::from_ptr(self.word(position, 0).cast()) }
    }

    /// Reserves a record of so many words once there is room; its position.
    fn reserve(&self, words: usize) -> usize {
        let ring = &*self.0.0;
        let position = ring.producer.load(Ordering::Relaxed);
        let end = position + 8 + 8 * words;
        while end - ring.consumer.load(Ordering::Acquire) as usize > BYTES {
            thread::yield_now();
        }
        self.header(position).store((8 * words as u32) | BPF_RINGBUF_BUSY_BIT, Ordering::Relaxed);
        ring.producer.store(end, Ordering::Release);
        position
    }

    fn fill(&self, position: usize, words: usize, number: u64) {
        for word in 1..=words {
            for copy in [0, 1] {
                // SAFETY: the space is reserved and not committed, so nobody else uses it.
                unsafe { self.word(position + 8 * word, copy).write(number) };
            }
        }
    }

    fn commit(&self, position: usize, words: usize, discard: bool) {
        let ring = &*self.0.0;
        let len = (8 * words as u32) | if discard { BPF_RINGBUF_DISCARD_BIT } else { 0 };
        self.header(position).swap(len, Ordering::SeqCst);
        // The kernel's exchange is a full barrier.
        full_fence();
        if ring.consumer.load(Ordering::Acquire) as usize == position {
            ring.woken.store(true, Ordering::Release);
        }
    }

    fn run(self) {
        let mut number = 0;
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        while number < RECORDS {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let sizes = [random as usize % 4, (random >> 8) as usize % 4];
            if random >> 16 & 3 == 0 {
                // Two at once, of which the second is committed first.
                let places = sizes.map(|words| self.reserve(words));
                for at in [1, 0] {
                    self.fill(places[at], sizes[at], number + at as u64);
                    self.commit(places[at], sizes[at], false);
                }
                number += 2;
            } else {
                let discard = random >> 20 & 7 == 0;
                let place = self.reserve(sizes[0]);
                self.fill(place, sizes[0], number);
                self.commit(place, sizes[0], discard);
                number += u64::from(!discard);
            }
        }
    }
}

/// Waits as below `epoll_wait`; the kernel's side decides whether it ends.
fn sleep(ring: &Ring) {
    let asleep = Instant::now();
    while !ring.woken.swap(false, Ordering::Acquire) {
        assert!(cfg!(miri) || asleep.elapsed() < LOST, "a wake-up was lost");
        thread::yield_now();
    }
}

fn main() {
    let ring = Shared(Arc::new(Ring {
        consumer: AtomicU64::new(0),
        producer: AtomicUsize::new(0),
        data: [const { UnsafeCell::new(0) }; 2 * WORDS],
        woken: AtomicBool::new(false),
    }));
    let writer = Writer(ring.clone());
    let mut cursor = RingCursor::new(ring.clone());
    let (mut number, mut sleeps) = (0, 0u64);
    let writing = thread::spawn(move || writer.run());
    while number < RECORDS {
        match cursor.next_slot() {
            Slot::Record => {
                let words = cursor.record().chunks_exact(8);
                assert!(words.remainder().is_empty());
                for word in words {
                    assert_eq!(word, number.to_ne_bytes(), "record {number}");
                }
                number += 1;
            }
            Slot::Discarded => {}
            Slot::Empty | Slot::Busy => {
                if cursor.may_sleep() {
                    sleeps += 1;
                    sleep(&ring.0);
                }
            }
            Slot::Fault(fault) => panic!("record {number}: {fault}"),
        }
    }
    writing.join().expect("the writer does not panic");
    assert!(sleeps > 0, "the reader never slept");
    println!("ring_race: {number} records, {sleeps} sleeps, none torn, lost or overslept");
}
