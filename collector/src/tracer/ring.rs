//! The ring of a tracer's events: `events.h`, which every object that has events includes.

use std::os::fd::{AsFd, BorrowedFd};

use bpf_loader::load::Object;
use bpf_loader::map::PerCpuArray;
use bpf_loader::object::ObjectSpec;
use bpf_loader::ring::RingReader;
use bpf_programs::events::ring::{Event, EventStats};

use super::RingFill;
use crate::error::{Error, Result};

/// Bytes before each record (`BPF_RINGBUF_HDR_SZ`).
const RECORD_HEADER: usize = 8;

/// Reads a tracer's events and counts what became of them.
#[derive(Debug)]
pub struct EventRing {
    reader: RingReader,
    map: bpf_loader::map::Map,
    stats: PerCpuArray<[u8; EventStats::SIZE]>,
    received: u64,
    high_water: RingFill,
}

/// Sets the ring's size before the object is planned: the largest power of two in `bytes`, one page at least. The ring wakes
/// the agent when it is half full.
///
/// # Errors
///
/// The object does not include `events.h`, which is a defect.
pub fn prepare(spec: &mut ObjectSpec<'_>, bytes: usize) -> Result<()> {
    let page = bpf_sys::page_size();
    let bytes = bytes.clamp(page, 1 << 30);
    let size = if bytes.is_power_of_two() { bytes } else { bytes.next_power_of_two() / 2 };
    let ring = spec.map_mut("events");
    ring.ok_or_else(|| Error::no_map("events"))?.max_entries = size as u32;
    spec.set_global("wake_threshold", &(size as u64 / 2).to_ne_bytes()).map_err(Error::load)
}

impl EventRing {
    /// Takes hold of the ring of an object that is loaded.
    ///
    /// # Errors
    ///
    /// The object does not include `events.h`, which is a defect; its memory cannot be mapped.
    pub fn open(object: &Object) -> Result<Self> {
        let map = object.map("events").and_then(|map| map.try_clone()).map_err(Error::load)?;
        Ok(Self {
            reader: RingReader::open(&map.fd).map_err(Error::kernel)?,
            stats: PerCpuArray::new(object.map("event_stats").map_err(Error::load)?).map_err(Error::load)?,
            map,
            received: 0,
            high_water: RingFill::default(),
        })
    }

    /// What becomes readable when the ring is filling up.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.map.fd.as_fd()
    }

    /// Hands every event that is there by now to `each`, and not many that come meanwhile, so that a flood of them keeps nobody here: its head, and the whole record. A record without a whole head is a defect of
    /// its program, and counted as received.
    ///
    /// # Errors
    ///
    /// The ring is not as the kernel writes it.
    pub fn drain(&mut self, mut each: impl FnMut(Event, &[u8])) -> Result<()> {
        let fill = RingFill { bytes: self.reader.used() as u64, size: self.reader.capacity() as u64 };
        self.high_water = self.high_water.max(fill);
        // A ring holds no more than this: each record has a header of its own.
        let most = self.map.max_entries() as usize / (RECORD_HEADER + Event::SIZE) + 1;
        let drained = self.reader.drain(most, |record| {
            if let Some(head) = Event::decode(record) {
                each(head, record);
            }
        });
        let drained = drained.map_err(Error::Ring)?;
        self.received += drained.records as u64;
        Ok(())
    }

    /// Events that were read.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The fullest that the ring was when [`drain`](Self::drain) came.
    pub fn high_water(&self) -> RingFill {
        self.high_water
    }

    /// Events that there were, and those of them for which the ring had no room, over all CPUs.
    ///
    /// # Errors
    ///
    /// The kernel's counters cannot be read.
    pub fn produced_and_dropped(&self) -> Result<(u64, u64)> {
        let values = self.stats.get(0).map_err(Error::kernel)?;
        let stats = values.iter().flat_map(|values| values.iter()).filter_map(|b| EventStats::decode(&b));
        Ok(stats.fold((0, 0), |(produced, dropped), s| (produced + s.produced, dropped + s.dropped)))
    }
}
