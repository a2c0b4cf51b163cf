//! What `disk.bpf.c` writes.

use super::record;

record! {
    /// What requests are summed up under.
    pub struct SumsKey = "sums_key", 8 {
        /// The device: [`SumsKey::device_numbers`].
        device: u32 = 0,
        /// [`READ`], [`WRITE`], [`FLUSH`], [`DISCARD`].
        operation: u32 = 4,
    }
}

record! {
    /// Sums of a device and an operation in a window.
    pub struct Sums = "disk_sums", 2856 {
        /// Durations: 176 counters of 64 bits, one a slot of `exponential.h` at scale 2.
        slots: [u8; 1408] = 0,
        /// Durations too short for a slot.
        zero: u64 = 1408,
        /// Sum of the durations.
        sum_ns: u64 = 1416,
        /// Times in the queue, as `slots`.
        queue_slots: [u8; 1408] = 1424,
        /// Times in the queue too short for a slot.
        queue_zero: u64 = 2832,
        /// Sum of the times in the queue.
        queue_sum_ns: u64 = 2840,
        /// Bytes.
        bytes: u64 = 2848,
    }
}

record! {
    /// What became of it all on one CPU, since the start.
    pub struct Counts = "disk_counts", 32 {
        /// Requests that were issued.
        issued: u64 = 0,
        /// Requests that were done.
        done: u64 = 8,
        /// Requests that found no room.
        requests_full: u64 = 16,
        /// Requests whose device's sums found no room, each once.
        sums_full: u64 = 24,
    }
}

record! {
    /// A request on its way.
    pub struct RequestNote = "request_note", 32 {
        /// When it was issued, in nanoseconds of `CLOCK_BOOTTIME`; 0 while it waits in a queue.
        issued: u64 = 0,
        /// When it was put into a queue; 0 where it was not.
        inserted: u64 = 8,
    }
}

/// The scale of the durations' slots.
pub const SCALE: u8 = 2;

/// Input.
pub const READ: u32 = 0;
/// Output; erasing and writing zeros too.
pub const WRITE: u32 = 1;
/// To write down what is in the device's cache.
pub const FLUSH: u32 = 2;
/// To forget what is there.
pub const DISCARD: u32 = 3;

impl SumsKey {
    /// Major and minor number.
    pub fn device_numbers(&self) -> (u32, u32) {
        (self.device >> 20, self.device & 0xf_ffff)
    }
}

impl RequestNote {
    /// When something happened to it last.
    pub fn last(&self) -> u64 {
        self.issued.max(self.inserted)
    }
}

impl Sums {
    /// The counters of the slots of durations.
    pub fn slots(&self) -> impl Iterator<Item = u64> + '_ {
        counters(&self.slots)
    }

    /// The counters of the slots of times in the queue.
    pub fn queue_slots(&self) -> impl Iterator<Item = u64> + '_ {
        counters(&self.queue_slots)
    }
}

fn counters(slots: &[u8]) -> impl Iterator<Item = u64> + '_ {
    slots.chunks_exact(8).filter_map(|slot| Some(u64::from_ne_bytes(slot.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_waits_is_as_old_as_its_wait() {
        assert_eq!(RequestNote { issued: 0, inserted: 7 }.last(), 7);
        assert_eq!(RequestNote { issued: 9, inserted: 7 }.last(), 9);
        assert_eq!(RequestNote { issued: 9, inserted: 0 }.last(), 9);
    }

    #[test]
    fn a_device_has_two_numbers() {
        let key = SumsKey { device: 259 << 20 | 0x12345, operation: READ };
        assert_eq!(key.device_numbers(), (259, 0x12345));
    }
}
