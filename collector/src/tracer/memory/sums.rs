//! What the programs sum up.
//!
//! There are two tables, of which the programs fill one. To take the sums out, they are sent to the other; once none can still be
//! in the old one, that is read and emptied, so that nothing is lost or counted twice.

use std::collections::BTreeMap;

use bpf_loader::kernel::RunningKernel;
use bpf_loader::load::Object;
use bpf_loader::map::{Global, Hash, Map, MapOfMaps};
use bpf_loader::object::ObjectSpec;
use bpf_programs::events::memory::{STALL_SCALE, Sum, SumKey, What};
use bpf_sys::uapi::flags::BPF_ANY;

use crate::error::{Error, Result};
use crate::telemetry::Exponential;
use crate::tracer::cost;

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
    outer: MapOfMaps<u32>,
    maps: [Map; 2],
    active: Global<u32>,
    filling: u32,
    /// Entries in use at the last look.
    used: u64,
}

/// Makes both tables, of together at most `bytes`, before the object is planned.
///
/// # Errors
///
/// The object has no such table, which is a defect; the kernel has no room.
pub fn prepare(spec: &mut ObjectSpec<'_>, bytes: usize) -> Result<[Map; 2]> {
    let no_map = || Error::Load(bpf_loader::Error::NoSuchMap { name: "sums".into() });
    let inner = spec.map_mut("sums").and_then(|map| map.inner.as_deref_mut()).ok_or_else(no_map)?;
    inner.max_entries = (bytes / 2 / ENTRY_BYTES).clamp(*ENTRIES.start(), *ENTRIES.end()) as u32;
    let make = || -> Result<Map> {
        let fd = inner.create(&RunningKernel::default()).map_err(Error::Load)?;
        Ok(Map::new("sums".into(), fd))
    };
    Ok([make()?, make()?])
}

impl Sums {
    /// Puts the tables in their places.
    ///
    /// # Errors
    ///
    /// The object is not the one that they were made for, which is a defect.
    pub fn open(object: &Object, maps: [Map; 2]) -> Result<Self> {
        let outer = MapOfMaps::new(object.map("sums").map_err(Error::Load)?).map_err(Error::Load)?;
        for (index, map) in (0..).zip(&maps) {
            outer.set(&index, map, BPF_ANY).map_err(Error::Load)?;
        }
        let active = object.global("active").map_err(Error::Load)?;
        Ok(Self { outer, maps, active, filling: 0, used: 0 })
    }

    /// Ends the window and takes out what is in it, by process and kind. An entry that makes no sense, which is a defect, is
    /// left out.
    ///
    /// # Errors
    ///
    /// The tables cannot be read.
    pub fn take(&mut self) -> Result<BTreeMap<(u32, What), Total>> {
        let full = self.filling;
        self.filling ^= 1;
        self.active.set(&self.filling).map_err(Error::Load)?;
        let [first, second] = &self.maps;
        let map = if full == 0 { first } else { second };
        // Updating a map of maps returns only after every program that may have read the old value has ended
        // (`maybe_wait_bpf_programs`, Linux 5.0), so setting what is already there is a wait for our own flip.
        self.outer.set(&full, map, BPF_ANY).map_err(Error::Kernel)?;
        let table: Hash<[u8; SumKey::SIZE], [u8; Sum::SIZE]> = Hash::new(map).map_err(Error::Kernel)?;
        let mut totals = BTreeMap::new();
        self.used = 0;
        let mut batches = table.take_batches(BATCH);
        while let Some((keys, values)) = batches.next().map_err(Error::Kernel)? {
            self.used += keys.len() as u64;
            for (key, value) in keys.iter().zip(values) {
                if let (Some(key), Some(sum)) = (SumKey::decode(key), Sum::decode(value)) {
                    add(&mut totals, key, sum);
                }
            }
        }
        Ok(totals)
    }

    /// Entries in use when the window ended, and entries that there are.
    pub fn fill(&self) -> (u64, u64) {
        (self.used, u64::from(self.maps[0].max_entries()))
    }

    /// Kernel memory of both tables.
    pub fn bytes(&self) -> u64 {
        self.maps.iter().map(|map| cost::map_bytes(&map.fd)).sum()
    }
}

fn add(totals: &mut BTreeMap<(u32, What), Total>, key: SumKey, sum: Sum) {
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
        let mut totals = BTreeMap::new();
        let key = SumKey { tgid: 7, what: 7, slot: 40 };
        add(&mut totals, key, Sum { count: 2, total: 100, comm: [1; 16] });
        add(&mut totals, SumKey { slot: 42, ..key }, Sum { count: 1, total: 300, comm: [1; 16] });
        add(&mut totals, SumKey { slot: -1, ..key }, Sum { count: 5, total: 0, comm: [1; 16] });
        add(&mut totals, SumKey { what: 99, ..key }, Sum { count: 1, total: 1, comm: [1; 16] });
        assert_eq!(totals.len(), 1);
        let stalls = &totals[&(7, What::MachineReclaim)];
        assert_eq!((stalls.count, stalls.total, stalls.durations.zero), (8, 400, 5));
        assert_eq!(
            (stalls.durations.first_slot, stalls.durations.buckets.as_slice()),
            (40, [2, 0, 1].as_slice())
        );
    }
}
