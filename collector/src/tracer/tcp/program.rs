//! The BPF programs of the TCP tracer and their maps.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bpf_loader::kernel::RunningKernel;
use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::map::{Global, Hash, Map, MapOfMaps, PerCpuArray};
use bpf_loader::object::ObjectSpec;
use bpf_programs::events::tcp::{End, EndKey, Followed, Living, Series, SeriesKey, Stats};
use bpf_sys::link::IterTarget;
use bpf_sys::uapi::flags::BPF_ANY;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::ladders::{ACCEPTING, DROP_REASONS, LIVING, OLDER, STATES};
use super::listen;
use crate::error::{Error, Result};
use crate::tracer::filter::{self, TaskFilter};
use crate::tracer::ladder::{Chosen, Forced, Ladder, Rung, climb};
use crate::tracer::programs::attach_by_section;
use crate::tracer::{Start, ring};

/// Ladders that programs climb. What others rely on comes first.
static CLIMBED: &[&Ladder] = &[&STATES, &ACCEPTING, &LIVING, &OLDER];
/// The same with dropped packets.
static CLIMBED_WITH_DROPS: &[&Ladder] = &[&STATES, &ACCEPTING, &LIVING, &OLDER, &DROP_REASONS];

/// Entries read with one call.
const BATCH: usize = 128;
/// What the kernel's hash tables need for an entry beside key and value.
const ENTRY_HEAD: usize = 56;
const CONNECTION_ENTRY: usize = size_of::<u64>() + Followed::SIZE + ENTRY_HEAD;
/// Bounds of tables, in entries: below, they are of no use.
const CONNECTIONS: std::ops::RangeInclusive<usize> = 1024..=65536;
const SERIES: std::ops::RangeInclusive<usize> = 64..=16384;
const ENDS: std::ops::RangeInclusive<usize> = 256..=32768;

type SeriesTable = Hash<[u8; SeriesKey::SIZE], [u8; Series::SIZE]>;
type EndTable = Hash<[u8; EndKey::SIZE], [u8; End::SIZE]>;

/// How many entries tables have, for the memory there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Connections followed at once.
    pub connections: u32,
    /// Series of one window.
    pub series: u32,
    /// Ends of one window.
    pub ends: u32,
    /// Bytes of the ring.
    pub ring: usize,
}

impl Sizes {
    /// A quarter for connections, half for both windows' series, an eighth for their ends and for the ring.
    pub fn of(memory: usize) -> Self {
        let entries = |share: usize, entry: usize, bounds: &std::ops::RangeInclusive<usize>| {
            (share / entry).clamp(*bounds.start(), *bounds.end()) as u32
        };
        Self {
            connections: entries(memory / 4, CONNECTION_ENTRY, &CONNECTIONS),
            series: entries(memory / 4, SeriesKey::SIZE + Series::SIZE + ENTRY_HEAD, &SERIES),
            ends: entries(memory / 16, EndKey::SIZE + End::SIZE + ENTRY_HEAD, &ENDS),
            ring: (memory / 8).clamp(16 << 10, 256 << 10),
        }
    }
}

/// What a window has collected.
#[derive(Debug)]
struct Window {
    series: SeriesTable,
    ends: EndTable,
    /// To be set into the outer map once more, which waits.
    series_map: Map,
}

/// The maps that the programs fill.
#[derive(Debug)]
struct Tables {
    windows: [Window; 2],
    outer: MapOfMaps<u32>,
    active: Global<u32>,
    filling: u32,
    /// To keep the inner maps in the statistics of memory.
    ends_maps: [Map; 2],
}

/// What the kernel tells of a window.
#[derive(Debug, Default)]
pub struct Collected {
    /// Sums.
    pub series: Vec<(SeriesKey, Series)>,
    /// Ends.
    pub ends: Vec<(EndKey, End)>,
}

/// The programs in the kernel, attached.
#[derive(Debug)]
pub struct TcpProgram {
    object: Object,
    tables: Tables,
    filter: TaskFilter,
    stats: PerCpuArray<[u8; Stats::SIZE]>,
    drops: Hash<u32, u64>,
    span_one_in: Global<u32>,
    chosen: Vec<Chosen>,
    links: Vec<Link>,
    iterators: Iterators,
    /// How large things are.
    pub sizes: Sizes,
}

#[derive(Debug, Default)]
struct Iterators {
    living: Option<Link>,
    older: Option<Link>,
}

fn no_map(name: &str) -> Error {
    Error::Load(bpf_loader::Error::NoSuchMap { name: name.into() })
}

/// Sizes tables and sets constants.
fn prepare(spec: &mut ObjectSpec<'_>, start: &Start<'_>, sizes: Sizes) -> Result<()> {
    let settings = &start.settings.tcp;
    filter::prepare(spec, start.filter)?;
    ring::prepare(spec, sizes.ring)?;
    spec.map_mut("connections").ok_or_else(|| no_map("connections"))?.max_entries = sizes.connections;
    for (name, entries) in [("series", sizes.series), ("ends", sizes.ends)] {
        let inner =
            spec.map_mut(name).and_then(|map| map.inner.as_deref_mut()).ok_or_else(|| no_map(name))?;
        inner.max_entries = entries;
    }
    spec.map_mut("peers").ok_or_else(|| no_map("peers"))?.max_entries = settings.peers.max(1);
    spec.set_global("span_rate", &settings.spans_per_second.to_ne_bytes()).map_err(Error::Load)?;
    spec.set_global("tell_peers", &u32::from(settings.peers > 0).to_ne_bytes()).map_err(Error::Load)
}

impl Tables {
    /// Makes the inner maps, and gives them to the object, whose programs must not be attached yet.
    fn new(object: &Object, spec: &ObjectSpec<'_>) -> Result<Self> {
        let kernel = RunningKernel::default();
        let outer = |name: &str| MapOfMaps::new(object.map(name).map_err(Error::Load)?).map_err(Error::Load);
        let (series, ends): (MapOfMaps<u32>, MapOfMaps<u32>) = (outer("series")?, outer("ends")?);
        let inner = |name: &str, outer: &MapOfMaps<u32>, index: u32| -> Result<Map> {
            let inner = spec.map(name).and_then(|map| map.inner.as_deref()).ok_or_else(|| no_map(name))?;
            let map = Map::new(name.into(), inner.create(&kernel).map_err(Error::Load)?);
            outer.set(&index, &map, BPF_ANY).map_err(Error::Load)?;
            Ok(map)
        };
        let window = |index: u32| -> Result<(Window, Map)> {
            let (series_map, ends_map) = (inner("series", &series, index)?, inner("ends", &ends, index)?);
            let window = Window {
                series: Hash::new(&series_map).map_err(Error::Load)?,
                ends: Hash::new(&ends_map).map_err(Error::Load)?,
                series_map,
            };
            Ok((window, ends_map))
        };
        let ((first, first_ends), (second, second_ends)) = (window(0)?, window(1)?);
        Ok(Self {
            windows: [first, second],
            ends_maps: [first_ends, second_ends],
            active: object.global("active").map_err(Error::Load)?,
            outer: series,
            filling: 0,
        })
    }

    /// Makes programs fill the other window, waits until none is still in the old one, and takes out what that has.
    fn take(&mut self) -> Result<Collected> {
        let [first, second] = &self.windows;
        let (old, full) = if self.filling == 0 { (0, first) } else { (1, second) };
        self.filling ^= 1;
        self.active.set(&self.filling).map_err(Error::Kernel)?;
        // Updating a map of maps returns only after every program that may have read the old value has ended
        // (`maybe_wait_bpf_programs`, Linux 5.0), so setting what is already there is a wait for our own flip.
        self.outer.set(&old, &full.series_map, BPF_ANY).map_err(Error::Kernel)?;
        let mut collected = Collected::default();
        let mut batches = full.series.take_batches(BATCH);
        while let Some((keys, values)) = batches.next().map_err(Error::Kernel)? {
            let entries = keys.iter().zip(values);
            collected
                .series
                .extend(entries.filter_map(|(k, v)| Some((SeriesKey::decode(k)?, Series::decode(v)?))));
        }
        let mut batches = full.ends.take_batches(BATCH);
        while let Some((keys, values)) = batches.next().map_err(Error::Kernel)? {
            let entries = keys.iter().zip(values);
            collected.ends.extend(entries.filter_map(|(k, v)| Some((EndKey::decode(k)?, End::decode(v)?))));
        }
        Ok(collected)
    }

    fn maps(&self) -> impl Iterator<Item = &Map> {
        self.windows.iter().map(|window| &window.series_map).chain(&self.ends_maps)
    }
}

impl TcpProgram {
    /// Loads and attaches the programs, and takes up the connections that there are.
    ///
    /// # Errors
    ///
    /// As [`climb`]; the filter names something that does not exist.
    pub fn load(start: &Start<'_>) -> Result<Self> {
        let sizes = Sizes::of(start.memory);
        let ladders = if start.settings.tcp.drops { CLIMBED_WITH_DROPS } else { CLIMBED };
        let mut sized = ObjectSpec::parse(bpf_programs::TCP).map_err(Error::Load)?;
        prepare(&mut sized, start, sizes)?;
        let mut iterators = Iterators::default();
        let mut parts = None;
        let climbed = climb(
            bpf_programs::TCP,
            ladders,
            start.forced,
            start.target,
            |spec, _| prepare(spec, start, sizes),
            |object, name| {
                // Once for each object that is tried, and before anything of it is attached.
                if STATES.rungs.iter().any(|rung| rung.programs.contains(&name)) {
                    let mut filter = TaskFilter::new(object)?;
                    filter.set(object, start.filter)?;
                    parts = Some((Tables::new(object, &sized)?, filter));
                }
                attach(object, name, &mut iterators)
            },
        )?;
        let object = climbed.object;
        let (tables, filter) = parts.ok_or(Error::Load(bpf_loader::Error::Internal("no states")))?;
        let program = Self {
            tables,
            filter,
            stats: PerCpuArray::new(object.map("stats").map_err(Error::Load)?).map_err(Error::Load)?,
            drops: Hash::new(object.map("drops").map_err(Error::Load)?).map_err(Error::Load)?,
            span_one_in: object.global("span_one_in").map_err(Error::Load)?,
            chosen: climbed.chosen,
            links: climbed.links,
            object,
            iterators,
            sizes,
        };
        program.take_up_older();
        Ok(program)
    }

    /// The object.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// All maps, those of the windows too.
    pub fn maps(&self) -> impl Iterator<Item = &Map> {
        self.object.maps.iter().chain(self.tables.maps())
    }

    /// The rung in use of each ladder that programs climb.
    pub fn chosen(&self) -> &[Chosen] {
        &self.chosen
    }

    /// The filter, and the object that it is to be set in.
    pub fn filter(&mut self) -> (&mut TaskFilter, &Object) {
        (&mut self.filter, &self.object)
    }

    /// Sends one of so many spans.
    ///
    /// # Errors
    ///
    /// None that the kernel has a reason for.
    pub fn set_span_sampling(&mut self, one_in: u32) -> Result<()> {
        self.span_one_in.set(&one_in.max(1)).map_err(Error::Kernel)
    }

    /// Takes out what a window has collected.
    ///
    /// # Errors
    ///
    /// The kernel's tables cannot be read.
    pub fn take(&mut self) -> Result<Collected> {
        self.tables.take()
    }

    /// The connections that live and whose process is known.
    ///
    /// # Errors
    ///
    /// The iterator cannot be read.
    pub fn living(&self) -> Result<Vec<Living>> {
        let Some(link) = &self.iterators.living else { return Ok(Vec::new()) };
        let bytes = read_all(link)?;
        let mut living: Vec<Living> = bytes.chunks_exact(Living::SIZE).filter_map(Living::decode).collect();
        // A table that changes while it is walked over may show an entry twice.
        living.sort_unstable_by_key(|living| living.socket);
        living.dedup_by_key(|living| living.socket);
        Ok(living)
    }

    /// Takes up the connections that are there already, in every network namespace that some process is in and that can be
    /// entered.
    fn take_up_older(&self) {
        let Some(link) = &self.iterators.older else { return };
        let own = std::fs::metadata("/proc/thread-self/ns/net").map_or(0, |own| own.ino());
        // What the program writes is nothing; reading is what makes it run.
        let _ = read_all(link);
        for (namespace, directory) in listen::namespaces() {
            if namespace == own {
                continue;
            }
            // An iterator walks over the namespace of the thread that opens it.
            std::thread::scope(|scope| {
                let entered = scope.spawn(|| enter_and_read(link, &directory));
                let _ = entered.join();
            });
        }
    }

    /// Detaches what slows anything down.
    pub fn detach(&mut self) {
        self.links.clear();
    }

    /// Follows no connection any more, for a time in which nobody sees them end.
    ///
    /// # Errors
    ///
    /// The kernel's table cannot be read.
    pub fn forget_all(&self) -> Result<()> {
        let connections = self.object.map("connections").map_err(Error::Load)?;
        let table: Hash<u64, [u8; Followed::SIZE]> = Hash::new(connections).map_err(Error::Load)?;
        let sockets: Vec<u64> = table.keys().collect::<bpf_loader::Result<_>>().map_err(Error::Kernel)?;
        sockets.iter().try_for_each(|socket| table.delete(socket).map(drop)).map_err(Error::Kernel)
    }

    /// Attaches the same rungs again, and takes up the connections that there are.
    ///
    /// # Errors
    ///
    /// The kernel does not take the programs any more.
    pub fn attach_again(&mut self) -> Result<()> {
        let mut links = Vec::new();
        for name in self.programs() {
            links.extend(attach(&self.object, name, &mut self.iterators)?);
        }
        self.links = links;
        self.take_up_older();
        Ok(())
    }

    /// The programs of the rungs in use.
    fn programs(&self) -> Vec<&'static str> {
        let rung_of = |chosen: &Chosen| -> Option<&'static Rung> {
            let ladder = CLIMBED_WITH_DROPS.iter().find(|ladder| ladder.what == chosen.what)?;
            ladder.rungs.iter().find(|rung| Some(rung.name) == chosen.rung)
        };
        self.chosen.iter().filter_map(rung_of).flat_map(|rung| rung.programs).copied().collect()
    }

    /// What became of everything, over all CPUs.
    ///
    /// # Errors
    ///
    /// The kernel's counters cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        let values = self.stats.get(0).map_err(Error::Kernel)?;
        let mut all = Stats {
            runs: 0,
            connections_full: 0,
            series_full: 0,
            span_rate: 0,
            span_sampling: 0,
            reasons_full: 0,
        };
        for stats in values.iter().flat_map(|values| values.iter()).filter_map(|bytes| Stats::decode(&bytes))
        {
            all.runs += stats.runs;
            all.connections_full += stats.connections_full;
            all.series_full += stats.series_full;
            all.span_rate += stats.span_rate;
            all.span_sampling += stats.span_sampling;
            all.reasons_full += stats.reasons_full;
        }
        Ok(all)
    }

    /// Runs that the kernel left out, since the program was running already on the CPU (`recursion_misses`, Linux 5.12).
    ///
    /// # Errors
    ///
    /// The kernel does not tell about a program.
    pub fn skipped(&self) -> Result<u64> {
        self.object.programs.iter().try_fold(0, |sum, program| {
            let info = bpf_sys::prog::info(&program.fd).map_err(|e| Error::Kernel(e.into()))?;
            Ok(sum + info.recursion_misses().unwrap_or(0))
        })
    }

    /// Packets dropped by reason, since the start.
    ///
    /// # Errors
    ///
    /// The kernel's table cannot be read.
    pub fn drops(&self) -> Result<Vec<(u32, u64)>> {
        self.drops.entries().collect::<bpf_loader::Result<_>>().map_err(Error::Kernel)
    }
}

/// Attaches one program; iterators, which only run when they are read, are kept apart.
fn attach(object: &Object, name: &str, iterators: &mut Iterators) -> Result<Vec<Link>> {
    let program = object.program(name).map_err(Error::Load)?;
    match name {
        "living_connections" => {
            let connections = object.map("connections").map_err(Error::Load)?;
            let target = IterTarget::Map(connections.fd.as_fd());
            iterators.living = Some(program.attach_iter(Some(target)).map_err(Error::Load)?);
        }
        "older_connections" => iterators.older = Some(program.attach_iter(None).map_err(Error::Load)?),
        _ => return Ok(vec![attach_by_section(program)?]),
    }
    Ok(Vec::new())
}

fn read_all(iterator: &Link) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = iterator.iter().map_err(Error::Kernel)?;
    file.read_to_end(&mut bytes).map_err(Error::io("an iterator"))?;
    Ok(bytes)
}

/// Reads an iterator in the network namespace of the process that the directory of `/proc` is of. Changes the thread's own.
fn enter_and_read(iterator: &Link, process: &Path) -> Result<()> {
    let namespace = File::open(process.join("ns/net")).map_err(Error::io("/proc/PID/ns/net"))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|e| Error::io("/proc/PID/ns/net")(e.into()))?;
    read_all(iterator).map(drop)
}

/// That the rung asked for, if any, is one of the ladder's that no program climbs.
pub fn check_forced(forced: &Forced, ladder: &'static Ladder) -> Result<Chosen> {
    forced.check(ladder)?;
    let none = forced.0.get(ladder.what).is_some_and(String::is_empty);
    let rung = ladder.rungs.first().filter(|_| !none).map(|rung| rung.name);
    Ok(Chosen { what: ladder.what, rung, refused: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_keep_within_the_memory() {
        let sizes = Sizes::of(8 << 20);
        let bytes = sizes.connections as usize * CONNECTION_ENTRY
            + 2 * sizes.series as usize * (SeriesKey::SIZE + Series::SIZE + ENTRY_HEAD)
            + 2 * sizes.ends as usize * (EndKey::SIZE + End::SIZE + ENTRY_HEAD)
            + sizes.ring;
        assert!(bytes <= 8 << 20, "{bytes}");
        assert!(bytes >= 7 << 20, "{bytes}");
        assert_eq!(Sizes::of(0), Sizes { connections: 1024, series: 64, ends: 256, ring: 16 << 10 });
    }
}
