//! DNS lookups of this machine's processes: names, durations, failures.
//!
//! | file | what it does |
//! |---|---|
//! | `define.rs` | what it tells, and how it gets at it |
//! | `message.rs` | bytes of a message to its question |
//! | `lookups.rs` | pairs queries and responses |

mod define;
mod lookups;
pub mod message;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use bpf_loader::load::Object;
use bpf_loader::map::{Hash, PerCpuArray};
use bpf_loader::object::ObjectSpec;
use bpf_programs::events::dns::{Message, Stats as Counts};

use super::ladder::Chosen;
use super::programs::{Programs, Rungs, add_counts};
use super::ring::{self, EventRing};
use super::{Info, Overhead, Start, Stats, Tracer, boot_nanos, cause};
use crate::config::Filter;
use crate::error::{Error, Result};
use crate::key::{Key, Value};
use crate::objects;
use crate::telemetry::Sink;
use crate::tracer::Settings as AllSettings;

pub use define::{CONNECTIONS, INFO, LOOKUP, LOOKUP_DURATION, MESSAGES};
use lookups::Lookups;

/// What a packet costs that is no DNS message: an estimate from the program's length, not measured yet.
const NANOS_PER_HIT: f64 = 100.0;

/// How often queries without an answer make room.
const FORGET_EVERY_NANOS: u64 = 1_000_000_000;
/// And after how long: many resolvers ask again, with the same id, in the very moment of the timeout.
const FORGET_AFTER_NANOS: u64 = lookups::TIMEOUT_NANOS + 1_000_000_000;

/// Bytes of `struct asked`.
const ASKED: usize = 16;
/// What the kernel takes for a query that waits: head, key, value and a share of the buckets.
const ASKED_MEMORY: usize = 64 + ASKED + 8;

/// Settings of the DNS tracer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How many names have series of their own at once: the first that come, until they are not asked for any more, and one
    /// more for all others.
    pub names: u32,
    /// Most spans in a second; lookups beyond are counted all the same.
    pub spans_per_second: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { names: 256, spans_per_second: 100 }
    }
}

/// Its keys of the configuration.
static KEYS: &[Key<AllSettings>] = &Key::<AllSettings>::table([
    Key {
        name: "names",
        doc: "How many names have series of their own at once: the first that come, until nobody asks for them in ten windows, and one more series for all others.",
        get: |settings| Value::Int(settings.dns.names.into()),
        set: |settings, v| v.whole(0..=u32::MAX).map(|n| settings.dns.names = n),
    },
    Key {
        name: "spans_per_second",
        doc: "Most spans in a second; lookups beyond are counted all the same.",
        get: |settings| Value::Int(settings.dns.spans_per_second.into()),
        set: |settings, v| v.whole(0..=u32::MAX).map(|n| settings.dns.spans_per_second = n),
    },
]);

/// Follows lookups.
#[derive(Debug)]
struct DnsTracer {
    programs: Programs,
    ring: EventRing,
    counts: PerCpuArray<[u8; Counts::SIZE]>,
    /// When queries were sent whose answers the programs wait for.
    asked: Hash<[u8; ASKED], u64>,
    /// When those without an answer were last taken out of there.
    last_forgot: u64,
    lookups: Lookups,
    /// Where the programs are attached, if not to the root.
    cgroup: Option<PathBuf>,
}

/// Larger rings take more than what a busy resolver asks between two reads.
const MAX_RING: usize = 256 << 10;

fn start(start: &Start<'_>) -> Result<Box<dyn Tracer>> {
    // Messages are few, and the table of TCP's sockets is small.
    let bytes = (start.memory / 2).min(MAX_RING);
    let most_asked = (start.memory / 4 / ASKED_MEMORY).clamp(512, 2 * Lookups::most_waiting()) as u32;
    let open = |object: &Object| {
        let counts = object.map("stats").and_then(PerCpuArray::new).map_err(Error::load)?;
        let asked = object.map("asked").and_then(Hash::new).map_err(Error::load)?;
        Ok((EventRing::open(object)?, counts, asked))
    };
    let prepare = |spec: &mut ObjectSpec<'_>, _: Rungs<'_>| {
        let asked = spec.map_mut("asked");
        let no_map = || Error::no_map("asked");
        asked.ok_or_else(no_map)?.max_entries = most_asked;
        ring::prepare(spec, bytes)
    };
    let (programs, (ring, counts, asked)) =
        Programs::start(&objects::DNS.unpack()?, INFO.ladders, start, prepare, open)?;
    let settings = &start.settings.dns;
    let lookups = Lookups::new(settings.names, settings.spans_per_second);
    Ok(Box::new(DnsTracer {
        programs,
        ring,
        counts,
        asked,
        last_forgot: boot_nanos(),
        lookups,
        cgroup: start.filter.cgroup.clone(),
    }))
}

impl DnsTracer {
    fn counts(&self) -> Result<Counts> {
        let counts = Counts::decode(&add_counts(&self.counts)?);
        counts.ok_or_else(|| Error::internal("size of dns_stats"))
    }

    /// Makes room by forgetting queries whose answers nobody waits for any more.
    fn forget_unanswered(&mut self, now: u64) -> Result<()> {
        if now.saturating_sub(self.last_forgot) < FORGET_EVERY_NANOS {
            return Ok(());
        }
        self.last_forgot = now;
        let mut over = Vec::new();
        let mut batches = self.asked.batches(1024);
        while let Some((queries, sent)) = batches.next().map_err(Error::kernel)? {
            let is_over = |sent: &u64| now.saturating_sub(*sent) > FORGET_AFTER_NANOS;
            over.extend(queries.iter().zip(sent).filter(|(_, sent)| is_over(sent)).map(|(query, _)| *query));
        }
        for query in &over {
            self.asked.delete(query).map_err(Error::kernel)?;
        }
        Ok(())
    }
}

impl Tracer for DnsTracer {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn rungs(&self) -> &[Chosen] {
        self.programs.chosen()
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.ring.descriptor()]
    }

    fn drain(&mut self, sink: &mut dyn Sink) -> Result<()> {
        // Of what came before now, the ring has all.
        let now = boot_nanos();
        let lookups = &mut self.lookups;
        self.ring.drain(|head, bytes| {
            if let Some(record) = Message::decode(bytes) {
                lookups.take_in(head, &record, sink);
            }
        })?;
        let (_, dropped) = self.ring.produced_and_dropped()?;
        self.lookups.expire(now, dropped, sink);
        // Not only once a window: where a server is silent, all others' queries would soon find no room.
        self.forget_unanswered(now)
    }

    fn collect(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.drain(sink)?;
        self.lookups.tell(sink);
        self.programs.forget_ended()
    }

    fn pause(&mut self) -> Result<()> {
        self.programs.pause();
        self.lookups.lose_answers();
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        self.programs.resume()
    }

    fn is_running(&self) -> bool {
        self.programs.is_running()
    }

    fn set_filter(&mut self, filter: &Filter) -> Result<()> {
        // The programs are attached to the group.
        if filter.cgroup != self.cgroup {
            return Err(Box::new(Error::FilterNeedsRestart));
        }
        self.programs.set_filter(filter)
    }

    fn stats(&mut self) -> Result<Stats> {
        let (produced, ring_full) = self.ring.produced_and_dropped()?;
        let counts = self.counts()?;
        let losses = self.lookups.losses;
        Ok(Stats {
            hits: counts.packets,
            produced,
            received: self.ring.received(),
            dropped: vec![
                (cause::RING_FULL, ring_full),
                (cause::END_NOT_SEEN, losses.answers_lost),
                (cause::TOO_MANY_AT_ONCE, losses.pending_full + counts.asked_full),
                (cause::TABLE_FULL, losses.series_full),
                (cause::SPAN_RATE, losses.span_rate),
                (cause::MALFORMED, losses.malformed),
                (cause::OWNER_NOT_KNOWN, counts.unknown_owners),
                self.programs.missed()?,
                self.programs.children_lost(),
            ],
            ring_high_water: self.ring.high_water(),
            map_fill: vec![("waiting", self.lookups.waiting() as u64, Lookups::most_waiting() as u64)],
        })
    }

    fn overhead(&self) -> Result<Overhead> {
        self.programs.overhead(self.counts()?.packets, NANOS_PER_HIT)
    }

    fn map_bytes(&self) -> u64 {
        self.programs.map_bytes()
    }
}
