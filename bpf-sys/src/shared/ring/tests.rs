use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar};
use std::time::Duration;

use super::*;

const BUSY: u32 = BPF_RINGBUF_BUSY_BIT;
const DISCARD: u32 = BPF_RINGBUF_DISCARD_BIT;

fn ring(size: usize, position: u64) -> RingCursor<HeapRing> {
    RingCursor::new(HeapRing::new(size, position))
}

/// The next record, which must be there.
fn found(cursor: &mut RingCursor<HeapRing>) -> Vec<u8> {
    assert_eq!(cursor.next_slot(), Slot::Record);
    cursor.record().to_vec()
}

#[test]
fn records_come_in_order_and_then_nothing() {
    let mut cursor = ring(64, 0);
    assert_eq!(cursor.next_slot(), Slot::Empty);
    cursor.memory_mut().push(b"one").unwrap();
    cursor.memory_mut().push(b"").unwrap();
    cursor.memory_mut().push(b"thirteen byte").unwrap();
    assert_eq!(found(&mut cursor), b"one");
    assert_eq!(found(&mut cursor), b"");
    assert_eq!(found(&mut cursor), b"thirteen byte");
    assert_eq!(cursor.next_slot(), Slot::Empty);
    assert_eq!(cursor.next_slot(), Slot::Empty);
    assert_eq!(cursor.record(), b"", "nothing is lent any more");
}

#[test]
fn space_is_free_only_after_release() {
    let mut cursor = ring(32, 0);
    cursor.memory_mut().push(&[1; 8]).unwrap();
    cursor.memory_mut().push(&[2; 8]).unwrap();
    assert_eq!(cursor.memory_mut().push(&[3; 8]), None, "full");
    assert_eq!(found(&mut cursor), &[1; 8]);
    assert_eq!((cursor.memory().consumer(), cursor.unreleased()), (0, 16));
    assert_eq!(cursor.memory_mut().push(&[3; 8]), None, "still full");
    cursor.release();
    assert_eq!((cursor.memory().consumer(), cursor.unreleased()), (16, 0));
    cursor.memory_mut().push(&[3; 8]).unwrap();
    assert_eq!(found(&mut cursor), &[2; 8]);
    assert_eq!(found(&mut cursor), &[3; 8]);
}

#[test]
fn a_busy_record_stops_the_walk_even_if_later_ones_are_committed() {
    let mut cursor = ring(64, 0);
    let at = cursor.memory_mut().reserve(8).unwrap();
    cursor.memory_mut().push(&[2; 8]).unwrap();
    assert_eq!(cursor.next_slot(), Slot::Busy);
    assert_eq!(cursor.next_slot(), Slot::Busy);
    assert!(cursor.may_sleep());
    cursor.memory_mut().write_word(at + 8, [1; 8]);
    cursor.memory_mut().write_header(at, 8);
    assert!(!cursor.may_sleep());
    assert_eq!(found(&mut cursor), &[1; 8]);
    assert_eq!(found(&mut cursor), &[2; 8]);
}

#[test]
fn looking_before_sleep_takes_nothing() {
    let mut cursor = ring(64, 0);
    assert!(cursor.may_sleep());
    cursor.memory_mut().push(&[1; 8]).unwrap();
    assert!(!cursor.may_sleep());
    assert!(!cursor.may_sleep());
    assert_eq!(cursor.memory().consumer(), 0);
    assert_eq!(found(&mut cursor), &[1; 8]);
    assert!(cursor.may_sleep());
    assert_eq!(cursor.memory().consumer(), 16, "released before the sleep");
}

#[test]
fn a_discarded_record_is_passed() {
    let mut cursor = ring(64, 0);
    let at = cursor.memory_mut().reserve(20).unwrap();
    cursor.memory_mut().write_header(at, 20 | DISCARD);
    cursor.memory_mut().push(&[1; 8]).unwrap();
    assert_eq!(cursor.next_slot(), Slot::Discarded);
    assert_eq!(cursor.record(), b"");
    assert_eq!(found(&mut cursor), &[1; 8]);
    let at = cursor.memory_mut().reserve(0).unwrap();
    cursor.memory_mut().write_header(at, BUSY | DISCARD);
    assert_eq!(cursor.next_slot(), Slot::Busy, "a busy record is busy whatever else its header says");
}

#[test]
fn a_record_across_the_end_is_one_slice() {
    let mut cursor = ring(64, 0);
    cursor.memory_mut().push(&[1; 40]).unwrap();
    assert_eq!(found(&mut cursor), &[1; 40]);
    cursor.release();
    let record: Vec<u8> = (0..32).collect();
    cursor.memory_mut().push(&record).unwrap();
    assert_eq!(found(&mut cursor), record);
}

#[test]
fn a_record_as_long_as_the_ring() {
    let mut cursor = ring(64, 24);
    cursor.memory_mut().push(&[9; 56]).unwrap();
    assert_eq!(found(&mut cursor), &[9; 56]);
    assert_eq!(cursor.next_slot(), Slot::Empty);
}

#[test]
fn positions_wrap_where_a_pointer_does() {
    // On 64-bit machines this is the end of the u64, on 32-bit ones the end of the kernel's unsigned long.
    let start = (usize::MAX - 23) as u64;
    let mut cursor = ring(64, start);
    for round in 0..10u8 {
        cursor.memory_mut().push(&[round; 16]).unwrap();
        assert_eq!(found(&mut cursor), &[round; 16]);
        assert_eq!(cursor.next_slot(), Slot::Empty);
        cursor.release();
    }
    assert_eq!(cursor.memory().consumer(), start.wrapping_add(240));
}

#[test]
fn a_length_past_the_writers_position_is_a_fault() {
    let mut cursor = ring(64, 0);
    let at = cursor.memory_mut().reserve(8).unwrap();
    for len in [9, 57, 64, 1 << 20, DISCARD - 1] {
        cursor.memory_mut().write_header(at, len);
        let fault = Slot::Fault(RingFault::Length { position: 0, len, available: 16 });
        assert_eq!(cursor.next_slot(), fault);
        assert_eq!(cursor.next_slot(), fault, "the cursor stays");
        assert!(!cursor.may_sleep());
    }
    cursor.memory_mut().write_header(at, 8);
    assert_eq!(found(&mut cursor), &[0; 8]);
}

#[test]
fn positions_that_do_not_fit_are_a_fault() {
    for (consumer, producer) in [(0, 72), (64, 0), (0, 4), (3, 11), (8, 0), (0, usize::MAX - 7)] {
        let mut cursor = ring(64, consumer);
        cursor.memory_mut().set_producer(producer);
        let fault = Slot::Fault(RingFault::Positions { consumer, producer });
        assert_eq!(cursor.next_slot(), fault);
        assert_eq!(cursor.next_slot(), fault);
    }
    // Not after the memory was replaced by a shorter one either.
    let mut cursor = ring(64, 0);
    cursor.memory_mut().push(&[0; 48]).unwrap();
    cursor.memory_mut().push(&[0; 0]).unwrap();
    assert_eq!(found(&mut cursor), &[0; 48]);
    *cursor.memory_mut() = HeapRing::new(8, 0);
    cursor.memory_mut().set_producer(64);
    cursor.memory_mut().write_header(0, 0);
    assert_eq!(found(&mut cursor), &[]);
}

/// A ring that threads write as the kernel does.
struct ThreadRing {
    consumer: AtomicU64,
    producer: AtomicUsize,
    /// The data, twice; the reader takes headers from the first half.
    data: Vec<AtomicU64>,
    /// Held while reserving, as the kernel's spin lock.
    reserving: Mutex<()>,
    readable: (Mutex<bool>, Condvar),
}

const THREAD_RING: usize = 256;

impl ThreadRing {
    fn write(&self, position: usize, word: u64) {
        let at = position / HEADER % (THREAD_RING / HEADER);
        self.data[at].store(word, Ordering::Relaxed);
        self.data[at + THREAD_RING / HEADER].store(word, Ordering::Relaxed);
    }

    fn header(&self, position: usize) -> &AtomicU32 {
        let at = position / HEADER % (THREAD_RING / HEADER);
        // SAFETY: an aligned place inside `data`, which is only reached through atomics while it is a header.
        unsafe { &*self.data[at].as_ptr().cast::<AtomicU32>() }
    }

    /// `__bpf_ringbuf_reserve`.
    fn reserve(&self, words: usize) -> Option<usize> {
        let _guard = self.reserving.lock().unwrap();
        let consumer = self.consumer.load(Ordering::Acquire) as usize;
        let producer = self.producer.load(Ordering::Relaxed);
        let next = producer + HEADER * (words + 1);
        if next - consumer > THREAD_RING {
            return None;
        }
        self.header(producer).store((words * HEADER) as u32 | BUSY, Ordering::Relaxed);
        self.producer.store(next, Ordering::Release);
        Some(producer)
    }

    fn new() -> Arc<Self> {
        Arc::new(Self {
            consumer: AtomicU64::new(0),
            producer: AtomicUsize::new(0),
            data: (0..THREAD_RING / HEADER * 2).map(|_| AtomicU64::new(0)).collect(),
            reserving: Mutex::new(()),
            readable: (Mutex::new(false), Condvar::new()),
        })
    }

    /// `bpf_ringbuf_commit`: a full barrier, then a look whether the reader waits here.
    fn commit(&self, position: usize, header: u32) -> bool {
        self.header(position).swap(header, Ordering::SeqCst);
        full_fence();
        self.consumer.load(Ordering::Acquire) as usize % THREAD_RING == position % THREAD_RING
    }

    fn commit_and_wake(&self, position: usize, header: u32) {
        if self.commit(position, header) {
            *self.readable.0.lock().unwrap() = true;
            self.readable.1.notify_one();
        }
    }
}

// SAFETY: the vector is never resized; writers keep the kernel's rules; only the cursor moves the consumer position.
unsafe impl RingMemory for Arc<ThreadRing> {
    fn parts(&self) -> RingParts<'_> {
        RingParts {
            consumer: &self.consumer,
            producer: &self.producer,
            data: NonNull::from(self.data.as_slice()).cast(),
            mask: THREAD_RING - 1,
        }
    }
}

#[test]
#[cfg_attr(
    miri,
    ignore = "Miri cannot follow atomics of two sizes in one place; tests/ring_race.rs has none"
)]
fn two_writers_and_a_sleeping_reader_lose_nothing() {
    const EACH: u64 = 40_000;
    let shared = ThreadRing::new();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2u64)
        .map(|id| {
            let (shared, stop) = (shared.clone(), stop.clone());
            std::thread::spawn(move || {
                for i in 0..EACH {
                    let words = 1 + (i % 5) as usize;
                    let position = loop {
                        if let Some(position) = shared.reserve(words) {
                            break position;
                        }
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        std::thread::yield_now();
                    };
                    for word in 1..=words {
                        shared.write(position + HEADER * word, id << 32 | i);
                    }
                    let discard = if i % 7 == 0 { DISCARD } else { 0 };
                    shared.commit_and_wake(position, (words * HEADER) as u32 | discard);
                }
            })
        })
        .collect();

    let mut cursor = RingCursor::new(shared.clone());
    let mut next = [0u64; 2];
    let (mut records, mut discarded, mut asleep) = (0, 0, 0);
    let wanted = 2 * EACH;
    let failure = loop {
        match cursor.next_slot() {
            Slot::Record => {
                let bytes = cursor.record();
                let words: Vec<u64> =
                    bytes.chunks(8).map(|c| u64::from_ne_bytes(c.try_into().unwrap())).collect();
                let (id, i) = ((words[0] >> 32) as usize, words[0] & 0xffff_ffff);
                if words.iter().any(|w| *w != words[0]) || words.len() as u64 != 1 + i % 5 {
                    break Some(format!("torn record {words:x?}"));
                }
                next[id] += u64::from(next[id] % 7 == 0);
                if i != next[id] {
                    break Some(format!("writer {id}: {i} where {} should be", next[id]));
                }
                next[id] += 1;
                records += 1;
                if cursor.unreleased() >= THREAD_RING / 4 {
                    cursor.release();
                }
            }
            Slot::Discarded => discarded += 1,
            Slot::Empty | Slot::Busy if records + discarded == wanted => break None,
            Slot::Empty | Slot::Busy => {
                if cursor.may_sleep() {
                    asleep += 1;
                    let (lock, condvar) = &shared.readable;
                    let mut readable = lock.lock().unwrap();
                    while !*readable {
                        let (guard, timeout) =
                            condvar.wait_timeout(readable, Duration::from_secs(20)).unwrap();
                        readable = guard;
                        if timeout.timed_out() {
                            break;
                        }
                    }
                    if !*readable {
                        break Some("a wake-up was lost".into());
                    }
                    *readable = false;
                }
            }
            Slot::Fault(fault) => break Some(fault.to_string()),
        }
    };
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(failure, None);
    assert_eq!(discarded, 2 * EACH.div_ceil(7));
    assert!(asleep > 0);
}

/// Two threads that meet, again and again, as close in time as they can.
struct Meeting(AtomicUsize);

impl Meeting {
    fn meet(&self, round: &mut usize) {
        *round += 2;
        self.0.fetch_add(1, Ordering::AcqRel);
        while self.0.load(Ordering::Acquire) < *round {
            std::hint::spin_loop();
        }
    }
}

/// The race that loses wake-ups: the reader publishes its position and looks at a record, while the record is committed and
/// its writer looks at the position. One of them must see the other.
#[test]
fn a_commit_and_a_reader_about_to_sleep_see_each_other() {
    let shared = ThreadRing::new();
    let meeting = Arc::new(Meeting(AtomicUsize::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let woke = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (shared, meeting, stop, woke) = (shared.clone(), meeting.clone(), stop.clone(), woke.clone());
        move || {
            let mut round = 0;
            while !stop.load(Ordering::Acquire) {
                let before = shared.reserve(1).unwrap();
                let racing = shared.reserve(1).unwrap();
                shared.commit(before, HEADER as u32);
                meeting.meet(&mut round);
                // The reader reads the first record.
                meeting.meet(&mut round);
                woke.store(shared.commit(racing, HEADER as u32), Ordering::Release);
                meeting.meet(&mut round);
                meeting.meet(&mut round);
            }
        }
    });
    let mut cursor = RingCursor::new(shared.clone());
    let start = std::time::Instant::now();
    let (mut round, mut races, mut lost) = (0, 0, 0);
    loop {
        meeting.meet(&mut round);
        assert_eq!(cursor.next_slot(), Slot::Record);
        meeting.meet(&mut round);
        let asleep = cursor.may_sleep();
        meeting.meet(&mut round);
        races += 1;
        lost += usize::from(asleep && !woke.load(Ordering::Acquire));
        assert_eq!(cursor.next_slot(), Slot::Record);
        cursor.release();
        let last = start.elapsed() > Duration::from_millis(300) && races > 100;
        stop.store(last, Ordering::Release);
        meeting.meet(&mut round);
        if last {
            break;
        }
    }
    writer.join().unwrap();
    assert_eq!(lost, 0, "of {races}");
}
