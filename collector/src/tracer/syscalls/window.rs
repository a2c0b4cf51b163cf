//! What one window has collected, out of the kernel's cells and tables.

use std::collections::{BTreeMap, HashMap};

use bpf_loader::load::Object;
use bpf_loader::map::{Global, Hash, Map, MapOfMaps, MappedArray};
use bpf_programs::events::syscalls::{CellCount, CellKey, Cells, Place, What};
use bpf_sys::uapi::flags::BPF_ANY;

use super::program::map;
use crate::error::{Error, Result};
use crate::telemetry::Exponential;

/// Entries read with one call. A call must hold the largest bucket of the kernel's hash table, which it does by far.
const BATCH: usize = 1024;

/// The two windows: one is filled while the other is read.
#[derive(Debug)]
pub(super) struct Windows {
    active: Global<u32>,
    /// The outer map, updated to wait for programs.
    outer: MapOfMaps<u32>,
    tables: [Table; 2],
    cells: MappedArray<[u8; Cells::SIZE]>,
    cpus: u32,
    filling: u32,
    scale: u8,
    /// Entries of the table that was read last.
    used: u64,
}

#[derive(Debug)]
struct Table {
    map: Map,
    counts: Hash<[u8; CellKey::SIZE], [u8; CellCount::SIZE]>,
}

/// What one process made of one call.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) calls: u64,
    /// By number.
    pub(super) errors: BTreeMap<u16, u64>,
    pub(super) durations: Exponential,
}

/// What a window collected.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// By process and call; errors and places of these are 0.
    pub(super) calls: HashMap<(u32, What), Call>,
    /// Names of a thread of each process.
    pub(super) names: HashMap<u32, [u8; 16]>,
}

impl Collected {
    fn add(&mut self, scale: u8, key: CellKey, count: &CellCount) {
        let what = What::unpack(key.what);
        let call = What { error: 0, place: Place::NotTimed, ..what };
        let call = self
            .calls
            .entry((key.tgid, call))
            .or_insert_with(|| Call { durations: Exponential::new(scale), ..Call::default() });
        call.calls += count.calls;
        if what.error != 0 {
            *call.errors.entry(what.error).or_insert(0) += count.calls;
        }
        match what.place {
            Place::NotTimed => {}
            Place::Zero => call.durations.zero += count.weight,
            Place::Slot(slot) => call.durations.add_slot(slot, count.weight),
        }
        call.durations.sum_nanos = call.durations.sum_nanos.saturating_add(count.sum_ns);
        self.names.insert(key.tgid, count.comm);
    }

    /// All calls.
    pub(super) fn total(&self) -> u64 {
        self.calls.values().map(|call| call.calls).sum()
    }
}

impl Windows {
    pub(super) fn new(object: &Object, tables: [Map; 2], cpus: u32, scale: u8) -> Result<Self> {
        let table = |map: Map| -> Result<Table> {
            let counts = Hash::new(&map).map_err(Error::Load)?;
            Ok(Table { map, counts })
        };
        let [first, second] = tables;
        let windows = Self {
            active: object.global("active").map_err(Error::Load)?,
            outer: MapOfMaps::new(map(object, "counts")?).map_err(Error::Load)?,
            tables: [table(first)?, table(second)?],
            cells: MappedArray::new(map(object, "cells")?, true).map_err(Error::Load)?,
            cpus,
            filling: 0,
            scale,
            used: 0,
        };
        for (table, at) in windows.tables.iter().zip(0u32..) {
            windows.outer.set(&at, &table.map, BPF_ANY).map_err(Error::Load)?;
        }
        Ok(windows)
    }

    /// Both tables, which the object does not list.
    pub(super) fn tables(&self) -> impl Iterator<Item = &Map> {
        self.tables.iter().map(|table| &table.map)
    }

    /// Entries used and entries there are, of the table that was read last.
    pub(super) fn fill(&self) -> (u64, u64) {
        (self.used, self.tables.iter().map(|table| u64::from(table.map.max_entries())).max().unwrap_or(0))
    }

    /// Makes the programs fill the other window, waits until no CPU is still in the old one, and takes everything out of that.
    pub(super) fn take(&mut self) -> Result<Collected> {
        let full = self.filling;
        let Some(table) = self.tables.get(full as usize) else { return Ok(Collected::default()) };
        self.filling ^= 1;
        self.active.set(&self.filling).map_err(Error::Kernel)?;
        // Updating a map of maps returns only after every program that may have read the old value has ended
        // (`maybe_wait_bpf_programs`, Linux 5.0), so setting what is already there is a wait for our own flip.
        self.outer.set(&full, &table.map, BPF_ANY).map_err(Error::Kernel)?;
        let mut collected = Collected::default();
        for at in full * self.cpus..(full + 1) * self.cpus {
            let Some(bytes) = self.cells.get(at) else { continue };
            Cells::used(&bytes).for_each(|(key, count)| collected.add(self.scale, key, &count));
            self.cells.set(at, &[0; Cells::SIZE]);
        }
        self.used = 0;
        let mut batches = table.counts.take_batches(BATCH);
        while let Some((keys, counts)) = batches.next().map_err(Error::Kernel)? {
            self.used += keys.len() as u64;
            for (key, count) in keys.iter().zip(counts) {
                if let (Some(key), Some(count)) = (CellKey::decode(key), CellCount::decode(count)) {
                    collected.add(self.scale, key, &count);
                }
            }
        }
        Ok(collected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_one_call_add_up() {
        let mut collected = Collected::default();
        let mut add = |what: u32, calls, weight, sum_ns| {
            let count = CellCount { calls, weight, sum_ns, comm: *b"name\0\0\0\0\0\0\0\0\0\0\0\0" };
            collected.add(0, CellKey { tgid: 7, what }, &count);
        };
        // getppid: not timed; in slot 10 with and without an error; and one of a 32-bit program.
        add(110, 100, 0, 0);
        add(110 | 12 << 11, 5, 50, 70);
        add(110 | 12 << 11 | 4 << 20, 2, 2, 3);
        add(110 | 1 << 11, 1, 1, 1);
        add(110 | 1 << 10, 1, 0, 0);
        assert_eq!((collected.calls.len(), collected.total()), (2, 109));
        let call = &collected.calls[&(7, What::unpack(110))];
        assert_eq!((call.calls, call.errors.clone()), (108, BTreeMap::from([(4, 2)])));
        let durations = &call.durations;
        assert_eq!((durations.first_slot, &*durations.buckets, durations.zero), (10, &[52][..], 1));
        assert_eq!((durations.count(), durations.sum_nanos), (53, 74));
        assert_eq!(&collected.names[&7][..5], b"name\0");
    }
}
