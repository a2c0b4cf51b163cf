//! Time that threads wait off the CPU: what `offcpu.bpf.c` wants of user space, and what waits that do not end in their window
//! are counted under.

use std::ops::RangeInclusive;
use std::time::Duration;

use bpf_loader::link::Link;
use bpf_loader::object::ObjectSpec;
use bpf_loader::ring::RingReader;
use bpf_programs::events::offcpu::{Wait, Waited};
use bpf_sys::MapFd;
use bpf_sys::map::{self, BatchCursor};

use super::program::{ProfileProgram, Variant};
use super::window::{Finished, Window};
use crate::config::Stacks;
use crate::error::{Error, Result};
use crate::objects;
use crate::sorted::SortedMap;
use crate::unwind::walk::Machine;

/// The programs that are attached: where threads leave the CPU, and where they are woken.
const SWITCH: &str = "offcpu_switch";
const WAKING: &str = "offcpu_waking";
/// Threads whose waits are noted, at most; a note has 72 bytes, and what the hash table adds.
const THREADS: RangeInclusive<usize> = 1024..=32 << 10;
const THREAD_BYTES: usize = 128;
/// Bytes of the ring with waits that end in another window than they began.
const RING_BYTES: RangeInclusive<usize> = 64 << 10..=256 << 10;
/// Such waits that are kept until their window is read.
const MAX_TOLD: usize = 64 << 10;
/// Walks that are kept until their wait is over.
const MAX_WALKS: usize = 16 << 10;
/// Notes read with one call.
const BATCH: usize = 1024;

/// The programs that see threads leave the CPU, and what the last one is by that leaves stacks to the kernel.
pub(super) fn variants(least: Duration) -> (Vec<Variant>, Variant) {
    let variant = |stacks, task_pt_regs, has_next| Variant {
        object: objects::OFFCPU,
        sampler: SWITCH,
        kernel_types: true,
        stacks,
        stages: ["offcpu_walk", "offcpu_keep"],
        reads_spans: "offcpu_span",
        #[cfg(feature = "python")]
        python: false,
        least_wait: Some(least),
        task_pt_regs,
        has_next,
    };
    let mut better = Vec::new();
    if Machine::running().is_some() {
        for stacks in [Stacks::Tables, Stacks::Copies] {
            better.extend([variant(stacks, true, true), variant(stacks, false, false)]);
        }
    }
    (better, variant(Stacks::FramePointers, false, false))
}

/// Sets sizes and constants.
pub(super) fn prepare(
    spec: &mut ObjectSpec<'_>,
    stacks: Stacks,
    least: Duration,
    memory: usize,
) -> Result<()> {
    let threads = (memory / 8 / THREAD_BYTES).clamp(*THREADS.start(), *THREADS.end());
    let ring = (memory / 16).clamp(*RING_BYTES.start(), *RING_BYTES.end()).next_power_of_two();
    for (name, entries) in [("waits", threads), ("ended", ring)] {
        spec.map_mut(name).ok_or_else(|| Error::no_map(name))?.max_entries = entries as u32;
    }
    let by_kernel = u32::from(stacks == Stacks::FramePointers);
    let least = u64::try_from(least.as_nanos()).unwrap_or(u64::MAX);
    spec.program_mut(WAKING).ok_or_else(|| Error::no_program(WAKING))?.autoload = true;
    spec.set_global("by_kernel", &by_kernel.to_ne_bytes()).map_err(Error::load)?;
    spec.set_global("wake_threshold", &(ring as u64 / 2).to_ne_bytes()).map_err(Error::load)?;
    spec.set_global("min_nanos", &least.to_ne_bytes()).map_err(Error::load)
}

/// A wait that goes on after its window.
#[derive(Debug)]
struct Held {
    since: u64,
    /// Whether the user stack is among the walks, once it is finished.
    missed: bool,
    kernel: Option<Vec<u64>>,
    user: Option<Vec<u64>>,
}

/// The waits of a program that was loaded. It sees the scheduler from [`resume`](Self::resume) on.
#[derive(Debug)]
pub(super) struct Waits {
    links: Vec<Link>,
    notes: Notes,
    ended: RingReader,
    /// Waits that have ended, whose window was not read yet.
    told: Vec<Waited>,
    /// By the thread's number in the initial pid namespace.
    held: SortedMap<u32, Held>,
    /// User stacks by thread, in the agent's pid namespace, and time.
    walks: SortedMap<(u32, u64), Vec<u64>>,
    /// Waits without their stacks, and waits that were lost.
    pub no_stack: u64,
    pub lost: u64,
}

impl Waits {
    pub fn open(program: &ProfileProgram) -> Result<Self> {
        let map = |name: &str| program.object().map(name).map(|map| &map.fd).map_err(Error::load);
        Ok(Self {
            links: Vec::new(),
            notes: Notes::new(map("waits")?.try_clone().map_err(Error::kernel)?),
            ended: RingReader::open(map("ended")?).map_err(Error::kernel)?,
            told: Vec::new(),
            held: SortedMap::new(),
            walks: SortedMap::new(),
            no_stack: 0,
            lost: 0,
        })
    }

    /// The map to poll.
    pub fn map(program: &ProfileProgram) -> Result<&MapFd> {
        Ok(&program.object().map("ended").map_err(Error::load)?.fd)
    }

    pub fn pause(&mut self) {
        self.links.clear();
    }

    /// What was noted before a pause is not what threads did meanwhile.
    pub fn resume(&mut self, program: &ProfileProgram) -> Result<()> {
        if self.links.is_empty() {
            self.notes.forget()?;
            self.held.clear();
            for name in [SWITCH, WAKING] {
                let program = program.object().program(name).map_err(Error::load)?;
                self.links.push(program.attach().map_err(Error::load)?);
            }
        }
        Ok(())
    }

    /// Takes what has ended.
    pub fn drain(&mut self) -> Result<()> {
        let Self { ended, told, lost, .. } = self;
        let each = |record: &[u8]| match Waited::decode(record) {
            Some(waited) if told.len() < MAX_TOLD => told.push(waited),
            _ => *lost += 1,
        };
        ended.drain(usize::MAX, each).map_err(Error::Ring)?;
        Ok(())
    }

    /// What has ended of the window, which was the one of that number, and of earlier ones, and is not counted in it; `walks` were finished
    /// meanwhile. What still waits is kept. No program may be using the window.
    pub fn end_window(&mut self, epoch: u32, window: &Window, walks: Vec<Finished>) -> Result<Vec<Finished>> {
        for Finished { key, time, user, .. } in walks {
            if self.walks.len() >= MAX_WALKS {
                self.no_stack += 1;
            } else {
                self.walks.insert((key.tid, time), user.unwrap_or_default());
            }
        }
        // In this order: what does not wait any more has been told.
        let waiting = self.notes.read()?;
        self.drain()?;
        let mut finished = Vec::new();
        for waited in std::mem::take(&mut self.told) {
            // One of the next window: it is not over.
            if epoch.wrapping_sub(waited.epoch) > u32::MAX / 2 {
                self.told.push(waited);
            } else {
                finished.extend(self.finish(&waited, waited.epoch == epoch));
            }
        }
        self.held.retain(|thread, held| waiting.get(thread).is_some_and(|wait| wait.since == held.since));
        for (&thread, wait) in waiting.iter().filter(|(_, wait)| wait.epoch == epoch) {
            let Some(key) = wait.key() else { continue };
            let held = Held {
                since: wait.since,
                missed: wait.missed != 0,
                kernel: window.stack(key.kernel_stack),
                user: window.stack(key.user_stack),
            };
            self.held.insert(thread, held);
        }
        let mut times: Vec<u64> = waiting.iter().map(|(_, wait)| wait.since).collect();
        times.extend(self.told.iter().map(|waited| waited.since));
        times.sort_unstable();
        self.walks.retain(|(_, time), _| times.binary_search(time).is_ok());
        Ok(finished)
    }

    /// What a wait counts under; `in_window`: its stacks are in the window at hand.
    fn finish(&mut self, waited: &Waited, in_window: bool) -> Option<Finished> {
        let mut key = waited.key()?;
        let Waited { comm, since: time, nanos: samples, waker, .. } = *waited;
        let walk = self.walks.remove(&(key.tid, time));
        let held = self.held.remove(&waited.thread).filter(|held| held.since == time);
        let missed = held.as_ref().map_or(waited.missed != 0, |held| held.missed);
        let (mut kernel, mut user) = (None, None);
        if !in_window {
            (key.kernel_stack, key.user_stack) = (0, 0);
            self.no_stack += u64::from(held.is_none());
            (kernel, user) = held.map_or((None, None), |held| (held.kernel, held.user));
        }
        if missed {
            self.no_stack += u64::from(walk.is_none());
            user = walk;
        }
        Some(Finished { key, comm, time, samples, kernel, user, waker })
    }
}

/// The map of what threads wait for.
#[derive(Debug)]
struct Notes {
    map: MapFd,
    cursor: BatchCursor,
}

impl Notes {
    fn new(map: MapFd) -> Self {
        Self { cursor: BatchCursor::new(&map), map }
    }

    /// All that wait, by their threads' numbers in the initial pid namespace.
    fn read(&mut self) -> Result<SortedMap<u32, Wait>> {
        let mut waiting = Vec::new();
        self.batches(false, |thread, wait| {
            let thread = thread.try_into().map(u32::from_ne_bytes);
            if let (Ok(thread), Some(wait)) = (thread, Wait::decode(wait).filter(|wait| wait.since != 0)) {
                waiting.push((thread, wait));
            }
        })?;
        Ok(waiting.into_iter().collect())
    }

    /// Empties it. Nothing may be adding to it.
    fn forget(&mut self) -> Result<()> {
        self.batches(true, |_, _| {})
    }

    fn batches(&mut self, remove: bool, mut each: impl FnMut(&[u8], &[u8])) -> Result<()> {
        let next = if remove { map::lookup_and_delete_batch } else { map::lookup_batch };
        let mut keys = vec![0; BATCH * size_of::<u32>()];
        let mut values = vec![0; BATCH * Wait::SIZE];
        self.cursor.restart();
        loop {
            let read = next(&self.map, &mut self.cursor, &mut keys, &mut values, 0).map_err(Error::kernel)?;
            let entries = keys.chunks_exact(size_of::<u32>()).zip(values.chunks_exact(Wait::SIZE));
            entries.take(read.count as usize).for_each(|(thread, wait)| each(thread, wait));
            if read.end {
                return Ok(());
            }
        }
    }
}
