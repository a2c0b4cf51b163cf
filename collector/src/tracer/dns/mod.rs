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
use bpf_loader::map::PerCpuArray;
use bpf_loader::object::ObjectSpec;
use bpf_programs::events::dns::{Message, Stats as Counts};

use super::ladder::Chosen;
use super::programs::{Programs, Rungs, add_counts};
use super::ring::{self, EventRing};
use super::{Info, Overhead, Start, Stats, Tracer};
use crate::config::Filter;
use crate::error::{Error, Result};
use crate::key::{Key, Value};
use crate::telemetry::Sink;
use crate::tracer::Settings as AllSettings;

pub use define::{CONNECTIONS, INFO, LOOKUP, LOOKUP_DURATION, MESSAGES};
use lookups::Lookups;

/// What a packet costs that is no DNS message: an estimate from the program's length, not measured yet.
const NANOS_PER_HIT: f64 = 100.0;

/// Settings of the DNS tracer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How many names have series of their own: the first that come, and one more for all others.
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
static KEYS: &[Key<AllSettings>] = &[
    Key {
        name: "names",
        doc: "How many names have series of their own: the first that come, and one more series for all others.",
        get: |settings| Value::Int(settings.dns.names.into()),
        set: |settings, v| v.whole(0..=u32::MAX).map(|n| settings.dns.names = n),
    },
    Key {
        name: "spans_per_second",
        doc: "Most spans in a second; lookups beyond are counted all the same.",
        get: |settings| Value::Int(settings.dns.spans_per_second.into()),
        set: |settings, v| v.whole(0..=u32::MAX).map(|n| settings.dns.spans_per_second = n),
    },
];

/// Follows lookups.
#[derive(Debug)]
struct DnsTracer {
    programs: Programs,
    ring: EventRing,
    counts: PerCpuArray<[u8; Counts::SIZE]>,
    lookups: Lookups,
    /// Where the programs are attached, if not to the root.
    cgroup: Option<PathBuf>,
}

fn start(start: &Start<'_>) -> Result<Box<dyn Tracer>> {
    // Messages are few, and the table of TCP's sockets is small.
    let bytes = (start.memory / 2).min(1 << 20);
    let open = |object: &Object| {
        let counts = object.map("stats").and_then(PerCpuArray::new).map_err(Error::Load)?;
        Ok((EventRing::open(object)?, counts))
    };
    let prepare = |spec: &mut ObjectSpec<'_>, _: Rungs<'_>| ring::prepare(spec, bytes);
    let (programs, (ring, counts)) = Programs::start(bpf_programs::DNS, INFO.ladders, start, prepare, open)?;
    let settings = &start.settings.dns;
    let lookups = Lookups::new(settings.names, settings.spans_per_second);
    Ok(Box::new(DnsTracer { programs, ring, counts, lookups, cgroup: start.filter.cgroup.clone() }))
}

/// Nanoseconds of `CLOCK_BOOTTIME`, by which programs tell the time.
fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64)
}

impl DnsTracer {
    fn counts(&self) -> Result<Counts> {
        let counts = Counts::decode(&add_counts(&self.counts)?);
        counts.ok_or(Error::Load(bpf_loader::Error::Internal("size of dns_stats")))
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
        let now = now();
        let lookups = &mut self.lookups;
        self.ring.drain(|head, bytes| {
            if let Some(record) = Message::decode(bytes) {
                lookups.take_in(head, &record, sink);
            }
        })?;
        let (_, dropped) = self.ring.produced_and_dropped()?;
        self.lookups.expire(now, dropped, sink);
        Ok(())
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
            return Err(Error::FilterNeedsRestart);
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
                ("ring full", ring_full),
                ("answers lost", losses.answers_lost),
                ("too many waiting", losses.pending_full),
                ("series full", losses.series_full),
                ("span rate", losses.span_rate),
                ("malformed", losses.malformed),
                ("unknown TCP connection", counts.unknown_owners),
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
