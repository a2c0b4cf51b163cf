//! What one window has collected, out of the kernel's tables and into [`Samples`].

#[cfg(feature = "unwind")]
use bpf_programs::events::offcpu::WaitKey;
use bpf_programs::events::profile::{Count, CountKey, Region, stack_at};
use bpf_sys::map::{self, BatchCursor};
use bpf_sys::shared::SharedMapping;
use bpf_sys::{Errno, MapFd};

use crate::aggregate::{ProcessId, SampleKey, Samples, StackId, StackTable};
use crate::error::{Error, Result};
use crate::sorted::SortedMap;

/// Entries read with one call. A call must hold the largest bucket of the kernel's hash table, which it does by far.
const BATCH: usize = 1024;

/// The tables of one of the two windows.
#[derive(Debug)]
pub struct Window {
    counts: Table,
    places: Table,
    regions_map: MapFd,
    regions: SharedMapping,
    /// Bytes of one CPU's region.
    region_bytes: usize,
}

/// A sample that is counted in user space, because its walk was finished there, or its window was another.
#[derive(Debug)]
pub struct Finished {
    /// What it is counted under.
    pub key: CountKey,
    /// The thread's name.
    pub comm: [u8; 16],
    /// When it was taken, in nanoseconds of `CLOCK_MONOTONIC`.
    #[cfg(feature = "unwind")]
    pub time: u64,
    /// How much it counts.
    pub samples: u64,
    /// The kernel stack, leaf first, where it is not at its place in the window.
    pub kernel: Option<Vec<u64>>,
    /// The user stack, likewise.
    pub user: Option<Vec<u64>>,
    /// Who has ended the wait.
    #[cfg(feature = "unwind")]
    pub waker: [u8; 16],
}

/// Who knows the processes that were sampled.
pub trait Processes {
    /// Which program of a process a sample belongs to, by its number and the thread's name.
    fn meet(&mut self, key: &CountKey, comm: &[u8; 16]) -> ProcessId;
    /// It had this stack.
    #[cfg(feature = "unwind")]
    fn sampled(&mut self, process: ProcessId, stack: &[u64]);
}

/// What [`Window::drain`] met on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Keys read.
    pub keys: u64,
    /// Samples that keep no stack: the window has too many, or their place holds none, which is a defect.
    pub no_stack: u64,
    /// Samples that are lost: the window has too many keys.
    pub table_full: u64,
}

/// Who has ended a wait, as the key of its count says behind all others'.
#[cfg(feature = "unwind")]
type Waker = [u8; 16];
#[cfg(not(feature = "unwind"))]
type Waker = crate::aggregate::WakerId;

#[cfg(feature = "unwind")]
fn waker_of(key: &[u8]) -> Waker {
    WaitKey::decode(key).map_or([0; 16], |key| key.waker)
}

#[cfg(not(feature = "unwind"))]
fn waker_of(_key: &[u8]) -> Waker {
    Waker::default()
}

/// How a count that is lost is counted itself: as samples, or as one where it is an amount of something else.
pub type Lost = fn(u64) -> u64;

impl Window {
    /// Maps the regions, and checks that the tables are what the program writes.
    ///
    /// # Errors
    ///
    /// The kernel does not map the regions, or the maps have other sizes.
    pub fn new(counts: MapFd, places: MapFd, regions_map: MapFd, region_bytes: usize) -> Result<Self> {
        let regions = SharedMapping::array(&regions_map, true).map_err(Error::kernel)?;
        let window = Self {
            counts: Table::new(counts),
            places: Table::new(places),
            regions_map,
            regions,
            region_bytes,
        };
        window.reset_regions();
        Ok(window)
    }

    /// The table of counts.
    pub fn counts_map(&self) -> &MapFd {
        &self.counts.map
    }

    /// Whether the kernel has batch operations, as far as the last drain found out.
    pub fn has_batches(&self) -> bool {
        self.counts.batches
    }

    /// All maps of the window.
    pub fn maps(&self) -> [&MapFd; 3] {
        [&self.counts.map, &self.places.map, &self.regions_map]
    }

    fn reset_regions(&self) {
        for start in (0..self.regions.len()).step_by(self.region_bytes) {
            self.regions.copy_in(start, &Region::EMPTY);
        }
    }

    /// The stack at a place, leaf first; `None`: there is none. No program may be using the window.
    #[cfg(feature = "unwind")]
    pub fn stack(&self, place: u32) -> Option<Vec<u64>> {
        let mut frames = Vec::new();
        stack_at(place, |word| self.regions.load_acquire_u64(word.checked_mul(8)?), &mut frames)?;
        Some(frames)
    }

    /// Moves everything into `samples`, and leaves the window empty. No program may be using it. `finished` are samples of this window that were counted elsewhere.
    ///
    /// # Errors
    ///
    /// The kernel's tables cannot be read.
    pub fn drain(
        &mut self,
        samples: &mut Samples,
        processes: &mut dyn Processes,
        finished: Vec<Finished>,
        lost: Lost,
    ) -> Result<Drained> {
        let Self { counts, places, regions, .. } = self;
        let mut drained = Drained::default();
        let mut known: SortedMap<u32, Option<StackId>> = SortedMap::new();
        let mut frames = Vec::new();
        let mut stack = |stacks: &mut StackTable, place: u32| match place {
            0 => None,
            _ => *known.entry(place).or_insert_with(|| {
                stack_at(place, |word| regions.load_acquire_u64(word.checked_mul(8)?), &mut frames)?;
                stacks.intern(&frames)
            }),
        };
        let mut add =
            |key: CountKey, kernel: Option<&[u64]>, user: Option<&[u64]>, waker: Waker, count: Count| {
                let mut find = |frames: Option<&[u64]>, place: u32| {
                    let found = match frames {
                        Some(frames) => samples.stacks.intern(frames),
                        None => stack(&mut samples.stacks, place),
                    };
                    (found, found.is_none() && (place != 0 || frames.is_some()))
                };
                let (kernel, no_kernel) = find(kernel, key.kernel_stack);
                let (user, no_user) = find(user, key.user_stack);
                if no_kernel || no_user {
                    drained.no_stack += lost(count.samples);
                }
                let process = processes.meet(&key, &count.comm);
                #[cfg(feature = "unwind")]
                processes.sampled(process, user.map(|user| samples.stacks.get(user)).unwrap_or_default());
                let key = SampleKey {
                    process,
                    tid: key.tid,
                    kernel,
                    user,
                    #[cfg(feature = "unwind")]
                    waker: samples.waker(waker),
                    #[cfg(not(feature = "unwind"))]
                    waker,
                };
                if !samples.add(key, count.comm, count.samples) {
                    drained.table_full += lost(count.samples);
                }
            };
        let mut keys = 0;
        counts.drain(|key, value| {
            if let (Some(counted), Some(count)) = (CountKey::decode(key), Count::decode(value)) {
                keys += 1;
                add(counted, None, None, waker_of(key), count);
            }
        })?;
        for finished in finished {
            let count = Count { samples: finished.samples, comm: finished.comm };
            #[cfg(feature = "unwind")]
            let waker = finished.waker;
            #[cfg(not(feature = "unwind"))]
            let waker = Waker::default();
            add(finished.key, finished.kernel.as_deref(), finished.user.as_deref(), waker, count);
        }
        drained.keys = keys;
        places.drain(|_, _| {})?;
        self.reset_regions();
        Ok(drained)
    }
}

/// A hash table that is emptied as it is read: in batches, or entry by entry where the kernel has none.
#[derive(Debug)]
struct Table {
    map: MapFd,
    cursor: BatchCursor,
    batches: bool,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl Table {
    fn new(map: MapFd) -> Self {
        let cursor = BatchCursor::new(&map);
        let (keys, values) = (vec![0; BATCH * map.key_size()], vec![0; BATCH * map.value_size()]);
        Self { map, cursor, batches: true, keys, values }
    }

    fn drain(&mut self, mut each: impl FnMut(&[u8], &[u8])) -> Result<()> {
        let (key_size, value_size) = (self.map.key_size(), self.map.value_size());
        self.cursor.restart();
        while self.batches {
            match map::lookup_and_delete_batch(
                &self.map,
                &mut self.cursor,
                &mut self.keys,
                &mut self.values,
                0,
            ) {
                Ok(read) => {
                    let entries = self.keys.chunks_exact(key_size).zip(self.values.chunks_exact(value_size));
                    entries.take(read.count as usize).for_each(|(key, value)| each(key, value));
                    if read.end {
                        return Ok(());
                    }
                }
                // The type has no batches on this kernel.
                Err(e) if matches!(e.errno(), Some(Errno::EINVAL | Errno::ENOTSUPP | Errno::EOPNOTSUPP)) => {
                    self.batches = false;
                }
                Err(e) => return Err(Error::kernel(e)),
            }
        }
        let (key, value) = (&mut self.keys[..key_size], &mut self.values[..value_size]);
        while map::next_key(&self.map, None, key).map_err(Error::kernel)? {
            if map::lookup(&self.map, key, value, 0).map_err(Error::kernel)? {
                each(key, value);
            }
            map::delete(&self.map, key).map_err(Error::kernel)?;
        }
        Ok(())
    }
}
