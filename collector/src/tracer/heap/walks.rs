//! Stacks without frame pointers: what `heap_unwind.bpf.c` wants of user space.
//!
//! An allocation whose walk has missed a page is counted under a stack of its own, whose frames are found out here, from what was
//! copied of it. So sums never depend on it; and such a stack is given up once what it stands for is freed and told.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use bpf_loader::load::Object;
use bpf_loader::map::{Global, PerCpuArray, ProgramArray};
use bpf_loader::map_def::MapSpec;
use bpf_loader::object::ObjectSpec;
use bpf_loader::ring::RingReader;
use bpf_programs::events::heap::MissedAllocation;
use bpf_programs::events::unwind::WalkEnds;
use bpf_sys::MapFd;
use bpf_sys::clock::Clock;

use super::INFO;
use super::object::Allocated;
use crate::error::{Error, Result};
use crate::sorted::SortedMap;
use crate::symbolize::maps;
use crate::telemetry::Sink;
use crate::tracer::profile::Walks;
use crate::tracer::profile::stacks::Told;
use crate::tracer::profile::symbols::Symbols;
use crate::tracer::programs::add_counts;
use crate::unwind::tables::{Sizes, Tables};
use crate::unwind::unwinder::Unwinder;
use crate::unwind::walk::Machine;

/// What walks where a call returns, by the program that sees that.
const STAGES: [(&str, [&str; 2]); 2] =
    [("session", ["session_walk", "session_count"]), ("leave", ["leave_walk", "leave_count"])];
/// Bytes of the ring with walks that missed a page, of 18 KiB each.
const RING_BYTES: RangeInclusive<usize> = 64 << 10..=1 << 20;
/// Walks that are finished before anything else is looked at: more than the ring holds.
const MAX_AT_ONCE: usize = 64;
/// Of the memory, what is for tables, and for the ring.
const TABLES_SHARE: usize = 8;
const RING_SHARE: usize = 16;
/// Of the stacks, those that may be found out here.
const MISSED_SHARE: u32 = 4;
/// Time between two looks at the process' mappings while it misses pages: so long, and so many times what a look takes.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
const TIMES_A_LOOK: u32 = 20;

/// CPU time for pages before anything is probed: programs of usual size are known then.
const AHEAD: Duration = Duration::from_millis(50);

/// Whether programs here are walked by tables at all.
pub fn is_possible() -> bool {
    Machine::running().is_some()
}

/// What is left of the memory for everything else.
pub fn memory_besides(memory: usize) -> usize {
    memory - memory / TABLES_SHARE - memory / RING_SHARE
}

fn sizes(memory: usize) -> Sizes {
    // One process.
    Sizes { processes: 1, ..Sizes::of(memory / TABLES_SHARE) }
}

/// Sets sizes and constants, for a process and so many stacks, on that rung of the probes.
pub fn prepare(
    spec: &mut ObjectSpec<'_>,
    memory: usize,
    pid: u32,
    stacks: u32,
    rung: Option<&str>,
) -> Result<()> {
    let [(session, by_session), (_, by_return)] = STAGES;
    for name in if rung == Some(session) { by_session } else { by_return } {
        spec.program_mut(name).ok_or_else(|| Error::no_program(name))?.autoload = true;
    }
    let sizes = sizes(memory);
    let ring = (memory / RING_SHARE).clamp(*RING_BYTES.start(), *RING_BYTES.end());
    let ring = if ring.is_power_of_two() { ring } else { ring.next_power_of_two() / 2 };
    let mut map = |name: &'static str, set: &dyn Fn(&mut MapSpec<'_>)| {
        spec.map_mut(name).map(set).ok_or_else(|| Error::no_map(name))
    };
    map("rows", &|map| map.value_size = sizes.rows_bytes())?;
    map("rules", &|map| map.value_size = sizes.rules_bytes())?;
    map("pages", &|map| map.max_entries = sizes.pages)?;
    map("processes", &|map| map.max_entries = sizes.processes)?;
    map("misses", &|map| map.max_entries = ring as u32)?;
    let constants = [("rows_mask", sizes.rows - 1), ("rules_mask", sizes.rules - 1), ("process", pid)];
    for (name, value) in constants {
        spec.set_global(name, &value.to_ne_bytes()).map_err(Error::load)?;
    }
    let most = u64::from((stacks / MISSED_SHARE).max(1));
    spec.set_global("max_missed", &most.to_ne_bytes()).map_err(Error::load)
}

/// Lets the program that sees calls return call the others. False, if it is another program.
pub fn connect(object: &Object, program: &str) -> Result<bool> {
    let Some((_, stages)) = STAGES.iter().find(|(name, _)| *name == program) else { return Ok(false) };
    let to = ProgramArray::new(object.map("stages").map_err(Error::load)?).map_err(Error::load)?;
    for (stage, name) in (0..).zip(stages) {
        to.set(stage, object.program(name).map_err(Error::load)?).map_err(Error::load)?;
    }
    Ok(true)
}

/// A stack that is found out here.
#[derive(Debug)]
struct Found {
    /// From the caller of the allocator's function on.
    frames: Vec<u64>,
    /// Looks, one after another, at which nothing was left of what it stands for.
    idle_looks: u8,
}

/// Looks after which nothing can be on its way to a stack any more.
const IDLE_LOOKS: u8 = 2;

/// Stacks that are found out here, by their keys.
#[derive(Debug, Default)]
struct FoundStacks {
    found: SortedMap<u64, Found>,
    /// How many have been given up.
    given_up: u64,
}

impl FoundStacks {
    fn insert(&mut self, key: u64, frames: Vec<u64>) {
        self.found.insert(key, Found { frames, idle_looks: 0 });
    }

    /// Puts them in their place, and gives up those of which nothing is left.
    fn put_in(
        &mut self,
        stacks: &mut [(u64, Allocated)],
        give_up: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        self.found.values_mut().for_each(|found| found.idle_looks += 1);
        for (key, stack) in stacks {
            let Some(found) = self.found.get_mut(key) else { continue };
            stack.frames.truncate(1);
            stack.frames.extend(&found.frames);
            // As long as it has not been counted, it has not been freed either.
            if stack.sums.count != 0 || stack.sums.allocated_count == 0 {
                found.idle_looks = 0;
            }
        }
        let gone = self.found.iter().filter(|(_, found)| found.idle_looks >= IDLE_LOOKS);
        let gone: Vec<u64> = gone.map(|(key, _)| *key).collect();
        gone.iter().for_each(|key| drop(self.found.remove(key)));
        self.given_up += gone.len() as u64;
        // All of them, whatever becomes of one: they are forgotten here.
        gone.into_iter().map(give_up).fold(Ok(()), Result::and)
    }
}

/// Walks of a process.
pub struct ProcessWalks {
    ring: RingReader,
    misses: MapFd,
    ends: PerCpuArray<[u8; WalkEnds::SIZE]>,
    taken_away: Global<u64>,
    found: FoundStacks,
    /// Of the process, what it maps to execute, and when that was seen.
    mapped: Vec<(u64, u64, u64, u64)>,
    next_look: Instant,
    told: Told,
}

impl ProcessWalks {
    /// Of an object that was just loaded, for a process; `symbols` finishes its walks from now on.
    pub fn open(object: &Object, memory: usize, pid: u32, symbols: &mut Symbols) -> Result<Self> {
        let map = |name: &str| object.map(name).map_err(Error::load);
        let tables = Tables::of(object, sizes(memory))?;
        let machine =
            Machine::running().ok_or_else(|| Error::internal("tables for a machine that has none"))?;
        symbols.unwind_with(Unwinder::new(machine, tables));
        let mut walks = Self {
            ring: RingReader::open(&map("misses")?.fd).map_err(Error::kernel)?,
            misses: map("misses")?.fd.try_clone().map_err(Error::kernel)?,
            ends: PerCpuArray::new(map("walk_ends")?).map_err(Error::load)?,
            taken_away: object.global("taken_away").map_err(Error::load)?,
            found: FoundStacks::default(),
            mapped: Vec::new(),
            next_look: Instant::now(),
            told: Told::default(),
        };
        walks.follow_maps(pid, symbols);
        let end = Clock::ThreadCpu.nanos() + AHEAD.as_nanos() as u64;
        // The program itself is in front.
        walks.mapped.iter().for_each(|(start, until, ..)| symbols.make_ahead(pid, *start..*until, end));
        Ok(walks)
    }

    /// What becomes readable when a walk has missed a page.
    pub fn descriptor(&self) -> &MapFd {
        &self.misses
    }

    /// Whether something was missed, and that may be for what the process has mapped since the last look.
    pub fn wants_maps(&self) -> bool {
        self.ring.used() > 0 && Instant::now() >= self.next_look
    }

    /// Finishes what was missed; [`follow_maps`](Self::follow_maps) first, if it [`wants_maps`](Self::wants_maps).
    pub fn finish(&mut self, symbols: &mut Symbols) -> Result<()> {
        let found = &mut self.found;
        let each = |record: &[u8]| {
            // One that is broken stays as far as it was walked.
            if let Some(missed) = MissedAllocation::decode(record) {
                if missed.stack == 0 {
                    symbols.fill_tables(&missed.at);
                } else {
                    found.insert(missed.stack, symbols.finish_walk(&missed.at));
                }
            }
        };
        // Not without end, however fast they come.
        self.ring.drain(MAX_AT_ONCE, each).map_err(Error::Ring)?;
        Ok(())
    }

    /// Looks at what the process maps, which nobody tells here.
    pub fn follow_maps(&mut self, pid: u32, symbols: &mut Symbols) {
        let start = Instant::now();
        let time = Clock::Monotonic.nanos();
        if let Some(text) = symbols.maps_of(pid) {
            let lines = maps::parse(&text).filter(|line| line.executable);
            let mapped: Vec<_> = lines.map(|line| (line.start, line.end, line.offset, line.inode)).collect();
            if mapped != self.mapped {
                symbols.follow_maps(pid, &text);
                self.mapped = mapped;
            }
            symbols.know_until(time);
        }
        self.next_look = Instant::now() + BETWEEN_LOOKS.max(start.elapsed() * TIMES_A_LOOK);
    }

    /// Puts frames that were found out here into the stacks that were read; [`finish`](Self::finish) first.
    ///
    /// # Errors
    ///
    /// The kernel refuses to give one up.
    pub fn put_in(
        &mut self,
        stacks: &mut [(u64, Allocated)],
        give_up: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let given_up = self.found.put_in(stacks, give_up);
        self.taken_away.set(&self.found.given_up).map_err(Error::kernel)?;
        given_up
    }

    /// Tells how walks have ended since it was told last.
    ///
    /// # Errors
    ///
    /// The kernel's counters cannot be read.
    pub fn tell(&mut self, symbols: &Symbols, sink: &mut dyn Sink) -> Result<()> {
        let walks = self.walks(symbols)?;
        self.told.tell(INFO.name, walks, sink);
        Ok(())
    }

    fn walks(&self, symbols: &Symbols) -> Result<Option<Walks>> {
        let ends =
            WalkEnds::decode(&add_counts(&self.ends)?).ok_or_else(|| Error::internal("size of walk_ends"))?;
        Ok(symbols.unwinder().map(|unwinder| Walks::of(|end| ends.count(end), unwinder)))
    }
}

#[cfg(test)]
mod tests {
    use bpf_programs::events::heap::{COUNT_ONE, Stack};

    use super::*;

    fn allocated(count: u64, allocated_count: u64) -> Allocated {
        let sums = Stack {
            bytes: 8 * count,
            count: COUNT_ONE * count,
            allocated_bytes: 8 * allocated_count,
            allocated_count: COUNT_ONE * allocated_count,
            frame_count: 3,
        };
        Allocated { sums, frames: vec![1, 2, 3] }
    }

    #[test]
    fn what_was_found_out_is_in_its_place_until_nothing_is_left_of_it() {
        let mut found = FoundStacks::default();
        for key in [5, 6, 7] {
            found.insert(key, vec![20, 30, 40]);
        }

        // Of 7, nothing is in the kernel yet; 8 is another.
        let look = |found: &mut FoundStacks, of_5: u64, of_7: Option<(u64, u64)>| {
            let mut stacks = vec![(5, allocated(of_5, 1)), (6, allocated(0, 0)), (8, allocated(0, 4))];
            stacks.extend(of_7.map(|(count, all)| (7, allocated(count, all))));
            let mut gone = Vec::new();
            let give_up = |key| {
                gone.push(key);
                Ok(())
            };
            found.put_in(&mut stacks, give_up).unwrap();
            let frames: Vec<_> = stacks.into_iter().map(|(_, stack)| stack.frames).collect();
            (gone, frames)
        };
        let (gone, frames) = look(&mut found, 1, None);
        assert_eq!((gone, &frames[0], &frames[2]), (vec![], &vec![1, 20, 30, 40], &vec![1, 2, 3]));
        assert_eq!(look(&mut found, 0, Some((1, 1))).0, [0; 0]);
        let (gone, frames) = look(&mut found, 0, Some((0, 1)));
        assert_eq!((gone, &frames[0][..]), (vec![5], &[1, 20, 30, 40][..]), "it is told once more");
        assert_eq!(look(&mut found, 0, Some((0, 1))).0, [7]);
        assert_eq!(found.found.len(), 1, "what is on its way is waited for");
        assert_eq!((look(&mut found, 0, None).0, found.found.len()), (vec![], 1));
        assert_eq!(found.given_up, 2);
    }

    #[test]
    fn what_the_kernel_does_not_take_away_is_given_up_all_the_same() {
        let mut found = FoundStacks::default();
        for key in [5, 6] {
            found.insert(key, vec![20]);
        }
        let mut asked = Vec::new();
        let mut give_up = |key| {
            asked.push(key);
            if key == 5 { Err(Error::internal("no")) } else { Ok(()) }
        };
        found.put_in(&mut [], &mut give_up).unwrap();
        found.put_in(&mut [], &mut give_up).unwrap_err();
        assert_eq!((asked, found.found.len(), found.given_up), (vec![5, 6], 0, 2));
    }

    #[test]
    fn what_is_not_for_tables_is_for_the_rest() {
        let memory = 8 << 20;
        let Sizes { pages, rows, rules, processes } = sizes(memory);
        // As docs/stacks.md has them: 16 bytes and a hash table's head for a page, 8 for a rule, 1 KiB for a process.
        let tables = pages as usize * 80 + rows as usize * 4 + rules as usize * 8 + processes as usize * 1024;
        assert!(memory_besides(memory) + memory / RING_SHARE + tables <= memory + (64 << 10), "{tables}");
        assert_eq!(memory_besides(0), 0);
    }
}
