//! What one window has collected, out of the kernel's cells and tables.

use bpf_loader::load::Object;
use bpf_loader::map::{Hash, MappedArray};
use bpf_loader::object::ObjectSpec;
use bpf_programs::events::syscalls::{CellCount, CellKey, Cells, Place, What};

use crate::error::{Error, Result};
use crate::sorted::SortedMap;
use crate::telemetry::Exponential;
use crate::tracer::windows::Windows;

/// Entries read with one call. A call must hold the largest bucket of the kernel's hash table, which it does by far.
const BATCH: usize = 1024;

type Table = Hash<[u8; CellKey::SIZE], [u8; CellCount::SIZE]>;

/// What programs count in: tables and cells of two windows, of which one is filled while the other is read.
#[derive(Debug)]
pub(super) struct Counts {
    tables: Windows<Table>,
    cells: MappedArray<[u8; Cells::SIZE]>,
    scale: u8,
    /// Entries of the table that was read last, and those that each has.
    fill: (u64, u64),
}

/// What one process made of one call.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) calls: u64,
    /// By number.
    pub(super) errors: SortedMap<u16, u64>,
    pub(super) durations: Exponential,
}

/// What a window collected.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// By process and call; errors and places of these are 0.
    pub(super) calls: SortedMap<(u32, What), Call>,
    /// Names of a thread of each process.
    pub(super) names: SortedMap<u32, [u8; 16]>,
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

impl Counts {
    /// `spec` has the sizes of the object's maps.
    pub(super) fn new(spec: &ObjectSpec<'_>, object: &Object, scale: u8) -> Result<Self> {
        let entries =
            spec.map("counts").and_then(|map| map.inner.as_deref()).map_or(0, |map| map.max_entries);
        Ok(Self {
            tables: Windows::create(spec, object, "counts", Table::new)?,
            cells: object.map("cells").and_then(|map| MappedArray::new(map, true)).map_err(Error::load)?,
            scale,
            fill: (0, entries.into()),
        })
    }

    /// Kernel memory of the tables, in bytes.
    pub(super) fn map_bytes(&self) -> u64 {
        self.tables.map_bytes()
    }

    /// Entries used and entries there are, of the table that was read last.
    pub(super) fn fill(&self) -> (u64, u64) {
        self.fill
    }

    /// Waits until every program that runs now has ended.
    pub(super) fn wait(&self) -> Result<()> {
        self.tables.wait()
    }

    /// Makes the programs fill the other window, waits until no CPU is still in the old one, and takes everything out of that.
    pub(super) fn take(&mut self) -> Result<Collected> {
        let full = self.tables.filling();
        let table = self.tables.swap()?;
        let mut collected = Collected::default();
        let cpus = self.cells.len() / 2;
        for at in full * cpus..(full + 1) * cpus {
            let Some(bytes) = self.cells.get(at) else { continue };
            Cells::used(&bytes).for_each(|(key, count)| collected.add(self.scale, key, &count));
            self.cells.set(at, &[0; Cells::SIZE]);
        }
        self.fill.0 = 0;
        let mut batches = table.take_batches(BATCH);
        while let Some((keys, counts)) = batches.next().map_err(Error::kernel)? {
            self.fill.0 += keys.len() as u64;
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
        let call = collected.calls.get(&(7, What::unpack(110))).unwrap();
        assert_eq!((call.calls, call.errors.clone()), (108, SortedMap::from([(4, 2)])));
        let durations = &call.durations;
        assert_eq!((durations.first_slot, &*durations.buckets, durations.zero), (10, &[52][..], 1));
        assert_eq!((durations.count(), durations.sum_nanos), (53, 74));
        assert_eq!(&collected.names.get(&7).unwrap()[..5], b"name\0");
    }
}
