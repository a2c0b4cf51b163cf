//! What the programs sum up.

use bpf_loader::load::Object;
use bpf_loader::map::Hash;
use bpf_loader::object::ObjectSpec;
use bpf_programs::events::memory::{STALL_SCALE, Sum, SumKey, What};

use crate::error::{Error, Result};
use crate::sorted::SortedMap;
use crate::telemetry::Exponential;
use crate::tracer::windows::Windows;

/// Sums read at a time.
const BATCH: usize = 512;
/// Bytes of an entry, as the kernel counts them.
const ENTRY_BYTES: usize = 128;
/// Bounds of a table's size.
const ENTRIES: std::ops::RangeInclusive<usize> = 512..=32768;

/// What a window has of one process and kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Total {
    pub count: u64,
    pub total: u64,
    pub comm: [u8; 16],
    /// Of stalls.
    pub durations: Exponential,
}

/// Both tables.
#[derive(Debug)]
pub struct Sums {
    windows: Windows<Hash<[u8; SumKey::SIZE], [u8; Sum::SIZE]>>,
    entries: u32,
    /// Entries in use at the last look.
    used: u64,
}

/// Sizes both tables, of together at most `bytes`, before the object is planned. How many entries each has.
///
/// # Errors
///
/// The object has no such table, which is a defect.
pub fn prepare(spec: &mut ObjectSpec<'_>, bytes: usize) -> Result<u32> {
    let no_map = || Error::no_map("sums");
    let inner = spec.map_mut("sums").and_then(|map| map.inner.as_deref_mut()).ok_or_else(no_map)?;
    inner.max_entries = (bytes / 2 / ENTRY_BYTES).clamp(*ENTRIES.start(), *ENTRIES.end()) as u32;
    Ok(inner.max_entries)
}

impl Sums {
    /// Makes the tables and puts them in their places.
    ///
    /// # Errors
    ///
    /// The kernel has no room.
    pub fn create(spec: &mut ObjectSpec<'_>, object: &Object, bytes: usize) -> Result<Self> {
        let entries = prepare(spec, bytes)?;
        let windows = Windows::create(spec, object, "sums", Hash::new)?;
        Ok(Self { windows, entries, used: 0 })
    }

    /// Ends the window and takes out what is in it, by process and kind. An entry that makes no sense, which is a defect, is
    /// left out.
    ///
    /// # Errors
    ///
    /// The tables cannot be read.
    pub fn take(&mut self) -> Result<SortedMap<(u32, What), Total>> {
        let mut totals = SortedMap::new();
        let mut used = 0;
        let mut batches = self.windows.swap()?.take_batches(BATCH);
        while let Some((keys, values)) = batches.next().map_err(Error::kernel)? {
            used += keys.len() as u64;
            for (key, value) in keys.iter().zip(values) {
                if let (Some(key), Some(sum)) = (SumKey::decode(key), Sum::decode(value)) {
                    add(&mut totals, key, sum);
                }
            }
        }
        self.used = used;
        Ok(totals)
    }

    /// Entries in use when the window ended, and entries that there are.
    pub fn fill(&self) -> (u64, u64) {
        (self.used, u64::from(self.entries))
    }

    /// Kernel memory of both tables.
    pub fn bytes(&self) -> u64 {
        self.windows.map_bytes()
    }
}

fn add(totals: &mut SortedMap<(u32, What), Total>, key: SumKey, sum: Sum) {
    let Some(what) = What::decode(key.what) else { return };
    let total = totals.entry((key.tgid, what)).or_default();
    total.count += sum.count;
    total.total += sum.total;
    total.comm = sum.comm;
    if matches!(what, What::MachineReclaim | What::CgroupReclaim) {
        total.durations.scale = STALL_SCALE;
        total.durations.sum_nanos += sum.total;
        match u32::try_from(key.slot) {
            Ok(slot) => total.durations.add_slot(slot, sum.count),
            Err(_) => total.durations.zero += sum.count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_stalls_make_a_histogram() {
        let mut totals = SortedMap::new();
        let key = SumKey { tgid: 7, what: 7, slot: 40 };
        add(&mut totals, key, Sum { count: 2, total: 100, comm: [1; 16] });
        add(&mut totals, SumKey { slot: 42, ..key }, Sum { count: 1, total: 300, comm: [1; 16] });
        add(&mut totals, SumKey { slot: -1, ..key }, Sum { count: 5, total: 0, comm: [1; 16] });
        add(&mut totals, SumKey { what: 99, ..key }, Sum { count: 1, total: 1, comm: [1; 16] });
        assert_eq!(totals.len(), 1);
        let stalls = totals.get(&(7, What::MachineReclaim)).unwrap();
        assert_eq!((stalls.count, stalls.total, stalls.durations.zero), (8, 400, 5));
        assert_eq!(
            (stalls.durations.first_slot, stalls.durations.buckets.as_slice()),
            (40, [2, 0, 1].as_slice())
        );
    }
}
