//! The BPF programs of the TCP tracer and their maps.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::map::{Global, Hash, PerCpuArray};
use bpf_loader::object::ObjectSpec;
use bpf_programs::events::tcp::{Endpoints, Followed, Living, Series, SeriesKey, Stats, Traffic};
use bpf_sys::link::IterTarget;
use bpf_sys::net_ns::NetNs;

use super::ladders::{ACCEPTING, DROP_REASONS, LIVING, OLDER, SOCK_DIAG, STATES};
use super::ledger::{Account, Ended, Lives, traffic_amounts};
use super::listen::MAX_NAMESPACES;
use super::living::Diag;
use crate::error::{Error, Result};
use crate::objects;
use crate::sorted::SortedSet;
use crate::tracer::filter::{self, TaskFilter};
use crate::tracer::ladder::{Chosen, Forced, Ladder, Refused, Rung, climb};
use crate::tracer::programs::{add_counts, attach_by_section};
use crate::tracer::windows::Windows;
use crate::tracer::{Start, cost, ring};

/// Ladders that programs climb. What others rely on comes first.
static CLIMBED: &[&Ladder] = &[&STATES, &ACCEPTING, &LIVING, &OLDER];
/// The same with dropped packets.
static CLIMBED_WITH_DROPS: &[&Ladder] = &[&STATES, &ACCEPTING, &LIVING, &OLDER, &DROP_REASONS];

/// Entries read with one call.
const BATCH: usize = 128;
/// A peer of a [`SeriesKey`]: address and port.
const PEER: usize = 18;
/// What the kernel's hash tables need for an entry beside key and value.
const ENTRY_HEAD: usize = 56;
const CONNECTION_ENTRY: usize = size_of::<u64>() + Followed::SIZE + ENTRY_HEAD;
const ENDPOINTS_ENTRY: usize = size_of::<u64>() + Endpoints::SIZE + ENTRY_HEAD;
/// Bounds of tables, in entries: below, they are of no use.
const CONNECTIONS: std::ops::RangeInclusive<usize> = 1024..=65536;
const SERIES: std::ops::RangeInclusive<usize> = 64..=16384;

type SeriesTable = Hash<[u8; SeriesKey::SIZE], [u8; Series::SIZE]>;

/// How many entries tables have, for the memory there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Connections followed at once.
    pub connections: u32,
    /// Those whose ends are noted: none, or all.
    pub endpoints: u32,
    /// Series of one window.
    pub series: u32,
    /// Bytes of the ring.
    pub ring: usize,
}

impl Sizes {
    /// A quarter for connections, five eighths for both windows' series, an eighth for the ring.
    pub fn of(memory: usize) -> Self {
        let entries = |share: usize, entry: usize, bounds: &std::ops::RangeInclusive<usize>| {
            (share / entry).clamp(*bounds.start(), *bounds.end()) as u32
        };
        Self {
            connections: entries(memory / 4, CONNECTION_ENTRY, &CONNECTIONS),
            endpoints: 0,
            series: entries(memory / 16 * 5, SeriesKey::SIZE + Series::SIZE + ENTRY_HEAD, &SERIES),
            ring: (memory / 8).clamp(16 << 10, 256 << 10),
        }
    }

    /// With the ends of all connections, in the same memory.
    fn with_endpoints(self) -> Self {
        let shared = self.connections as usize * CONNECTION_ENTRY / (CONNECTION_ENTRY + ENDPOINTS_ENTRY);
        let connections = (shared as u32).max(*CONNECTIONS.start() as u32);
        Self { connections, endpoints: connections, ..self }
    }
}

/// What a window has collected.
pub type Collected = Vec<(SeriesKey, Series)>;

/// The programs in the kernel, attached.
#[derive(Debug)]
pub struct TcpProgram {
    object: Object,
    windows: Windows<SeriesTable>,
    filter: TaskFilter,
    stats: PerCpuArray<[u8; Stats::SIZE]>,
    drops: Hash<u32, u64>,
    peers: Hash<[u8; PEER], u8>,
    span_one_in: Global<u32>,
    chosen: Vec<Chosen>,
    links: Vec<Link>,
    iterators: Iterators,
    /// How large things are.
    pub sizes: Sizes,
}

/// Ways to the sockets that there are.
#[derive(Debug, Default)]
struct Iterators {
    living: Option<Link>,
    older: Option<Link>,
    diag: Option<Diag>,
}

/// Sizes tables and sets constants.
fn prepare(spec: &mut ObjectSpec<'_>, start: &Start<'_>, sizes: Sizes) -> Result<()> {
    let settings = &start.settings.tcp;
    filter::prepare(spec, start.filter)?;
    ring::prepare(spec, sizes.ring)?;
    for (name, entries) in [("connections", sizes.connections), ("endpoints", sizes.endpoints)] {
        spec.map_mut(name).ok_or_else(|| Error::no_map(name))?.max_entries = entries.max(1);
    }
    let note = u32::from(sizes.endpoints > 0);
    spec.set_global("note_endpoints", &note.to_ne_bytes()).map_err(Error::load)?;
    let series = spec.map_mut("series").and_then(|map| map.inner.as_deref_mut());
    series.ok_or_else(|| Error::no_map("series"))?.max_entries = sizes.series;
    spec.map_mut("peers").ok_or_else(|| Error::no_map("peers"))?.max_entries = settings.peers.max(1);
    spec.set_global("span_rate", &settings.spans_per_second.to_ne_bytes()).map_err(Error::load)?;
    spec.set_global("tell_peers", &u32::from(settings.peers > 0).to_ne_bytes()).map_err(Error::load)
}

impl TcpProgram {
    /// Loads and attaches the programs, and takes up the connections that there are.
    ///
    /// # Errors
    ///
    /// As [`climb`]; the filter names something that does not exist.
    pub fn load(start: &Start<'_>) -> Result<Self> {
        let mut sizes = Sizes::of(start.memory);
        let ladders = if start.settings.tcp.drops { CLIMBED_WITH_DROPS } else { CLIMBED };
        let bytes = objects::TCP.unpack()?;
        let mut sized = ObjectSpec::parse(&bytes).map_err(Error::load)?;
        prepare(&mut sized, start, sizes)?;
        let mut iterators = Iterators::default();
        let mut parts = None;
        let climbed = climb(
            &bytes,
            ladders,
            start.forced,
            start.target,
            &mut |spec, rungs| {
                let asks = rungs(LIVING.what) == Some(SOCK_DIAG);
                sizes = if asks { Sizes::of(start.memory).with_endpoints() } else { Sizes::of(start.memory) };
                prepare(spec, start, sizes)
            },
            &mut |object, name| {
                // Once for each object that is tried, and before anything of it is attached.
                if STATES.rungs.iter().any(|rung| rung.programs.contains(&name)) {
                    let mut filter = TaskFilter::new(object)?;
                    filter.set(object, start.filter)?;
                    parts = Some((Windows::create(&sized, object, "series", Hash::new)?, filter));
                }
                attach(object, name, &mut iterators)
            },
        )?;
        let object = climbed.object;
        let mut chosen = climbed.chosen;
        if sizes.endpoints > 0 {
            match Diag::open(&object) {
                Ok(diag) => iterators.diag = Some(diag),
                Err(error) => refuse(&mut chosen, LIVING.what, &error),
            }
        }
        let (windows, filter) = parts.ok_or_else(|| Error::internal("no states"))?;
        let program = Self {
            windows,
            filter,
            stats: PerCpuArray::new(object.map("stats").map_err(Error::load)?).map_err(Error::load)?,
            drops: Hash::new(object.map("drops").map_err(Error::load)?).map_err(Error::load)?,
            peers: Hash::new(object.map("peers").map_err(Error::load)?).map_err(Error::load)?,
            span_one_in: object.global("span_one_in").map_err(Error::load)?,
            chosen,
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

    /// Kernel memory of all maps, those of the windows too.
    pub fn map_bytes(&self) -> u64 {
        cost::object_map_bytes(&self.object) + self.windows.map_bytes()
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
        self.span_one_in.set(&one_in.max(1)).map_err(Error::kernel)
    }

    /// Takes out what a window has collected.
    ///
    /// # Errors
    ///
    /// The kernel's tables cannot be read.
    pub fn take(&mut self) -> Result<Collected> {
        let mut collected = Collected::new();
        let mut batches = self.windows.swap()?.take_batches(BATCH);
        while let Some((keys, values)) = batches.next().map_err(Error::kernel)? {
            let entries = keys.iter().zip(values);
            collected.extend(entries.filter_map(|(k, v)| Some((SeriesKey::decode(k)?, Series::decode(v)?))));
        }
        Ok(collected)
    }

    /// The connections that live and whose process is known.
    ///
    /// # Errors
    ///
    /// The kernel's tables cannot be read.
    pub fn living(&mut self) -> Result<Vec<Lives>> {
        if let Some(diag) = &mut self.iterators.diag {
            return diag.living();
        }
        let Some(link) = &self.iterators.living else { return Ok(Vec::new()) };
        let bytes = read_all(link)?;
        let records = bytes.chunks_exact(Living::SIZE).filter_map(Living::decode);
        let mut living: Vec<Lives> = records.filter_map(|living| lives(&living)).collect();
        // A table that changes while it is walked over may show an entry twice.
        living.sort_unstable_by_key(|lives| lives.connection);
        living.dedup_by_key(|lives| lives.connection.0);
        Ok(living)
    }

    /// Takes up the connections that are there already, in every network namespace that some process is in and that can be
    /// entered.
    fn take_up_older(&self) {
        let Some(link) = &self.iterators.older else { return };
        let own = std::fs::metadata("/proc/thread-self/ns/net").map_or(0, |own| own.ino());
        // What the program writes is nothing; reading is what makes it run.
        let _ = read_all(link);
        let namespaces = NetNs::list(MAX_NAMESPACES).unwrap_or_default().namespaces;
        for namespace in namespaces.iter().filter(|namespace| namespace.inode() != own) {
            // An iterator walks over the namespace of the thread that opens it.
            let _ = namespace.enter(|| read_all(link));
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
        empty::<{ Followed::SIZE }>(&self.object, "connections")?;
        empty::<{ Endpoints::SIZE }>(&self.object, "endpoints")
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
        let counts = Stats::decode(&add_counts(&self.stats)?);
        counts.ok_or_else(|| Error::internal("size of tcp_stats"))
    }

    /// Gives the room of peers that nobody talks to any more to others. `seen` are the keys of a window, those of connections
    /// that live included: a connection keeps the key that it was first told under.
    ///
    /// # Errors
    ///
    /// The kernel's table cannot be read.
    pub fn keep_peers(&self, seen: impl Iterator<Item = Account>) -> Result<()> {
        let seen: SortedSet<[u8; PEER]> = seen.filter_map(peer).collect();
        let peers: Vec<[u8; PEER]> =
            self.peers.keys().collect::<bpf_loader::Result<_>>().map_err(Error::kernel)?;
        let mut gone = peers.iter().filter(|peer| !seen.contains(*peer));
        gone.try_for_each(|peer| self.peers.delete(peer).map(drop)).map_err(Error::kernel)
    }

    /// Packets dropped by reason, since the start.
    ///
    /// # Errors
    ///
    /// The kernel's table cannot be read.
    pub fn drops(&self) -> Result<Vec<(u32, u64)>> {
        self.drops.entries().collect::<bpf_loader::Result<_>>().map_err(Error::kernel)
    }
}

fn lives(living: &Living) -> Option<Lives> {
    let traffic = Traffic::decode(&living.traffic)?;
    let so_far = Ended { account: living.key, comm: living.comm, amounts: traffic_amounts(&traffic) };
    Some(Lives { connection: (living.socket, living.start_ns), so_far, rtt_us: traffic.rtt_us })
}

/// Takes all sockets out of a table.
fn empty<const SIZE: usize>(object: &Object, name: &str) -> Result<()> {
    let table: Hash<u64, [u8; SIZE]> = object.map(name).and_then(Hash::new).map_err(Error::load)?;
    let sockets: Vec<u64> = table.keys().collect::<bpf_loader::Result<_>>().map_err(Error::kernel)?;
    sockets.iter().try_for_each(|socket| table.delete(socket).map(drop)).map_err(Error::kernel)
}

/// The last rung of a ladder is of no use after all.
fn refuse(chosen: &mut [Chosen], what: &str, error: &Error) {
    for chosen in chosen.iter_mut().filter(|chosen| chosen.what == what) {
        let refused = chosen.rung.take().map(|rung| Refused { rung, reason: error.to_string() });
        chosen.refused.extend(refused);
    }
}

/// The peer that a key names, as the table of peers has it.
fn peer(key: Account) -> Option<[u8; PEER]> {
    let key = SeriesKey::decode(&key)?;
    let mut peer = [0; PEER];
    let (address, port) = peer.split_at_mut(key.peer.len());
    address.copy_from_slice(&key.peer);
    port.copy_from_slice(&key.peer_port.to_ne_bytes());
    Some(peer)
}

/// Attaches one program; iterators, which only run when they are read, are kept apart.
fn attach(object: &Object, name: &str, iterators: &mut Iterators) -> Result<Vec<Link>> {
    let program = object.program(name).map_err(Error::load)?;
    match name {
        "living_connections" => {
            let connections = object.map("connections").map_err(Error::load)?;
            let target = IterTarget::Map(connections.fd.as_fd());
            iterators.living = Some(program.attach_iter(Some(target)).map_err(Error::load)?);
        }
        "older_connections" => iterators.older = Some(program.attach_iter(None).map_err(Error::load)?),
        _ => return Ok(vec![attach_by_section(program)?]),
    }
    Ok(Vec::new())
}

fn read_all(iterator: &Link) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = iterator.iter().map_err(Error::kernel)?;
    file.read_to_end(&mut bytes).map_err(Error::io("an iterator"))?;
    Ok(bytes)
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
            + sizes.ring;
        assert!(bytes <= 8 << 20, "{bytes}");
        assert!(bytes >= 7 << 20, "{bytes}");
        assert_eq!(Sizes::of(0), Sizes { connections: 1024, endpoints: 0, series: 64, ring: 16 << 10 });
    }
}
