//! Requests to block devices: how long they wait in a queue, how long the device takes, how many there are, how many bytes.
//!
//! A filter chooses requests by the task that puts them into the device's queue or issues them itself. That is the one that
//! wants the data where it reads, or writes around the page cache; what the cache holds is written by threads of the kernel,
//! and passes no filter. For the same reason nothing is told by process: `process.disk.io` is what a process reads and writes,
//! as `/proc/PID/io` has it, which is not what reaches a device on its behalf.

mod define;
mod device;

use bpf_loader::load::Object;
use bpf_loader::map::{Hash, PerCpuArray};
use bpf_loader::object::ObjectSpec;
use bpf_programs::events::disk::{self, Counts, RequestNote, Sums, SumsKey};
use otlp_encode::Value;

use super::ladder::Chosen;
use super::programs::{Programs, Rungs, add_counts};
use super::windows::Windows;
use super::{Info, Overhead, Start, Stats, Tracer, boot_nanos, cause};
use crate::config::Filter;
use crate::error::{Error, Result};
use crate::objects;
use crate::telemetry::{Attribute, Exponential, Owner, Point, PointValue, Sink};

pub use define::{DISK_IO, DISK_OPERATIONS, INFO, MERGES, QUEUE_DURATION, REQUEST_DURATION, REQUESTS};
use device::DeviceNames;

/// What a request costs, both hooks together, as the kernel's statistics of programs had it.
const NANOS_PER_HIT: f64 = 1300.0;
/// A request that takes longer is taken for one whose end was not seen: of a device that was pulled out.
const LOST_AFTER_NANOS: u64 = 10 * 60 * 1_000_000_000;
/// One that waits for longer may have been merged into another without that being seen. It is then not lost.
const STALE_AFTER_NANOS: u64 = 60 * 1_000_000_000;

/// Sizes of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    requests: u32,
    sums: u32,
}

impl Sizes {
    /// What the hash tables take for an element beside its value.
    const ELEMENT: usize = 64;

    fn of(memory: usize) -> Self {
        Self {
            requests: (memory / 4 / (RequestNote::SIZE + Self::ELEMENT)).clamp(64, 16 << 10) as u32,
            sums: (memory / 4 * 3 / 2 / (Sums::SIZE + Self::ELEMENT)).clamp(16, 1024) as u32,
        }
    }

    fn apply(self, spec: &mut ObjectSpec<'_>) -> Result<()> {
        spec.map_mut("requests").ok_or_else(|| Error::no_map("requests"))?.max_entries = self.requests;
        let sums = spec.map_mut("sums").and_then(|map| map.inner.as_deref_mut());
        sums.ok_or_else(|| Error::no_map("sums"))?.max_entries = self.sums;
        Ok(())
    }
}

type RequestTable = Hash<[u8; 16], [u8; RequestNote::SIZE]>;

/// Watches block devices.
#[derive(Debug)]
struct DiskTracer {
    programs: Programs,
    windows: Windows<Hash<[u8; SumsKey::SIZE], [u8; Sums::SIZE]>>,
    requests: RequestTable,
    counts: PerCpuArray<[u8; Counts::SIZE]>,
    sizes: Sizes,
    names: DeviceNames,
    /// Rows of the last window.
    seen: u64,
    /// `requests_full` as of the last window.
    requests_full: u64,
    /// Requests whose end was not seen.
    lost: u64,
}

fn start(start: &Start<'_>) -> Result<Box<dyn Tracer>> {
    let sizes = Sizes::of(start.memory);
    let bytes = objects::DISK.unpack()?;
    let open = |object: &Object| {
        let mut spec = ObjectSpec::parse(&bytes).map_err(Error::load)?;
        sizes.apply(&mut spec)?;
        let windows = Windows::create(&spec, object, "sums", Hash::new)?;
        let counts = object.map("counts").and_then(PerCpuArray::new).map_err(Error::load)?;
        Ok((windows, counts, object.map("requests").and_then(Hash::new).map_err(Error::load)?))
    };
    let prepare = |spec: &mut ObjectSpec<'_>, _: Rungs<'_>| sizes.apply(spec);
    let (programs, (windows, counts, requests)) =
        Programs::start(&bytes, INFO.ladders, start, prepare, open)?;
    Ok(Box::new(DiskTracer {
        programs,
        windows,
        requests,
        counts,
        sizes,
        names: DeviceNames::default(),
        seen: 0,
        requests_full: 0,
        lost: 0,
    }))
}

impl DiskTracer {
    fn counts(&self) -> Result<Counts> {
        let counts = Counts::decode(&add_counts(&self.counts)?);
        counts.ok_or_else(|| Error::internal("size of disk_counts"))
    }

    /// Makes room, where some was missing, by forgetting requests whose end will not be seen any more.
    fn forget_lost(&mut self) -> Result<()> {
        let full = self.counts()?.requests_full;
        if full == std::mem::replace(&mut self.requests_full, full) {
            return Ok(());
        }
        let now = boot_nanos();
        let mut old = Vec::new();
        let mut batches = self.requests.batches(1024);
        while let Some((keys, notes)) = batches.next().map_err(Error::kernel)? {
            let notes = notes.iter().filter_map(|note| RequestNote::decode(note));
            old.extend(keys.iter().copied().zip(notes).filter(|(_, note)| is_over(note, now)));
        }
        for (key, note) in &old {
            let deleted = self.requests.delete(key).map_err(Error::kernel)?;
            self.lost += u64::from(deleted && note.issued > 0);
        }
        Ok(())
    }
}

impl Tracer for DiskTracer {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn rungs(&self) -> &[Chosen] {
        self.programs.chosen()
    }

    fn collect(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.programs.forget_ended()?;
        self.forget_lost()?;
        self.seen = 0;
        let window = self.windows.swap()?;
        let mut batches = window.take_batches(64);
        while let Some((keys, values)) = batches.next().map_err(Error::kernel)? {
            for (key, sums) in keys.iter().zip(values) {
                let Some((key, sums)) = SumsKey::decode(key).zip(Sums::decode(sums)) else { continue };
                tell(self.names.get(key.device_numbers()), key.operation, &sums, sink);
                self.seen += 1;
            }
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<()> {
        self.programs.pause();
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        if !self.is_running() {
            // Of those that were on their way then, the ends were not seen; and new ones may lie where they lay.
            let mut batches = self.requests.take_batches(1024);
            while batches.next().map_err(Error::kernel)?.is_some() {}
        }
        self.programs.resume()
    }

    fn is_running(&self) -> bool {
        self.programs.is_running()
    }

    fn set_filter(&mut self, filter: &Filter) -> Result<()> {
        self.programs.set_filter(filter)
    }

    fn stats(&mut self) -> Result<Stats> {
        let counts = self.counts()?;
        Ok(Stats {
            hits: counts.issued,
            dropped: vec![
                (cause::TOO_MANY_AT_ONCE, counts.requests_full),
                (cause::TABLE_FULL, counts.sums_full),
                (cause::END_NOT_SEEN, self.lost),
                self.programs.missed()?,
                self.programs.children_lost(),
            ],
            map_fill: vec![("devices", self.seen, self.sizes.sums.into())],
            ..Stats::default()
        })
    }

    fn overhead(&self) -> Result<Overhead> {
        self.programs.overhead(self.counts()?.issued, NANOS_PER_HIT)
    }

    fn map_bytes(&self) -> u64 {
        self.programs.map_bytes() + self.windows.map_bytes()
    }
}

/// Whether nothing will be seen of a request any more.
fn is_over(note: &RequestNote, now: u64) -> bool {
    let after = if note.issued > 0 { LOST_AFTER_NANOS } else { STALE_AFTER_NANOS };
    now.saturating_sub(note.last()) > after
}

/// Hands over a device's sums for an operation.
fn tell(device: &str, operation: u32, sums: &Sums, sink: &mut dyn Sink) {
    let direction = match operation {
        disk::READ => "read",
        disk::FLUSH => "flush",
        disk::DISCARD => "discard",
        _ => "write",
    };
    let attributes: [Attribute<'_>; 2] =
        [("system.device", Value::Str(device)), ("disk.io.direction", Value::Str(direction))];
    let (slots, queue_slots): (Vec<u64>, Vec<u64>) = (sums.slots().collect(), sums.queue_slots().collect());
    let queued = Exponential::from_slots(disk::SCALE, sums.queue_zero, &queue_slots, sums.queue_sum_ns);
    let durations = Exponential::from_slots(disk::SCALE, sums.zero, &slots, sums.sum_ns);
    let mut point = |metric, value| {
        sink.point(Point { metric, owner: Owner::Host, attributes: &attributes, value });
    };
    let int = |n: u64| PointValue::Int(i64::try_from(n).unwrap_or(i64::MAX));
    if queued.count() > 0 {
        point(&QUEUE_DURATION, PointValue::Histogram(&queued));
    }
    let requests = durations.count();
    if requests > 0 {
        point(&REQUEST_DURATION, PointValue::Histogram(&durations));
    }
    // By convention, these two are about reading and writing.
    if matches!(operation, disk::READ | disk::WRITE) {
        if requests > 0 {
            point(&DISK_OPERATIONS, int(requests));
        }
        if sums.bytes > 0 {
            point(&DISK_IO, int(sums.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Recorder;

    fn sums(bytes: u64) -> Sums {
        let mut slots = [0; 1408];
        slots[80..88].copy_from_slice(&3u64.to_ne_bytes());
        Sums { slots, zero: 0, sum_ns: 3000, queue_slots: [0; 1408], queue_zero: 0, queue_sum_ns: 0, bytes }
    }

    #[test]
    fn flushes_are_no_operations_by_convention_but_have_their_durations() {
        let mut recorder = Recorder::default();
        tell("sda", disk::WRITE, &sums(4096), &mut recorder);
        tell("sda", disk::FLUSH, &sums(0), &mut recorder);
        let numbers: Vec<(&str, f64)> = recorder.numbers.iter().map(|(s, n)| (s.metric, *n)).collect();
        assert_eq!(numbers, [("system.disk.io", 4096.0), ("system.disk.operations", 3.0)]);
        let directions: Vec<&str> =
            recorder.histograms.keys().map(|series| series.attributes[1].1.as_str()).collect();
        assert_eq!(directions, ["flush", "write"]);
        assert!(recorder.histograms.values().all(|h| h.count() == 3 && h.offset() == 10 - 120));
    }

    #[test]
    fn what_waits_is_over_sooner_than_what_the_device_has() {
        let waits = RequestNote { issued: 0, inserted: 1 };
        let issued = RequestNote { issued: 1, inserted: 1 };
        let over = |now| (is_over(&waits, now), is_over(&issued, now));
        assert_eq!(over(1 + STALE_AFTER_NANOS), (false, false));
        assert_eq!(over(2 + STALE_AFTER_NANOS), (true, false));
        assert_eq!(over(2 + LOST_AFTER_NANOS), (true, true));
    }

    #[test]
    fn tables_fit_the_memory() {
        let memory = 1 << 20;
        let sizes = Sizes::of(memory);
        let requests = sizes.requests as usize * (RequestNote::SIZE + Sizes::ELEMENT);
        assert!(requests + 2 * sizes.sums as usize * (Sums::SIZE + Sizes::ELEMENT) <= memory);
        assert_eq!(Sizes::of(0), Sizes { requests: 64, sums: 16 });
    }
}
