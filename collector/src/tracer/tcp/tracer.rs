//! The TCP tracer as one among others.

use std::os::fd::BorrowedFd;

use bpf_loader::btf::Kind;
use bpf_loader::target::{RunningTarget, TargetBtf};
use bpf_programs::events::tcp::{CONNECTION as CONNECTION_EVENT, Connection, SCALE, Series, SeriesKey};
use otlp_encode::Value;

use super::define::{self, CONNECTION};
use super::ladders::{ACCEPTING, DROP_REASONS, LISTEN, LIVING, OLDER, STATES};
use super::ledger::{Ended, Ledger, Lives};
use super::listen::ListenCounters;
use super::program::{Collected, TcpProgram, check_forced};
use super::tell::{self, LivingRtt};
use super::views;
use super::{
    CONNECT_DURATION, CONNECTION_DURATION, CONNECTIONS, DROPS, LISTEN_DROPS, LISTEN_OVERFLOWS, NETWORK_IO,
    RETRANSMITS, RTT, SEGMENTS,
};
use crate::config::Filter;
use crate::error::Result;
use crate::sorted::SortedMap;
use crate::telemetry::{Definitions, Exponential, Sink};
use crate::tracer::ladder::Chosen;
use crate::tracer::ring::EventRing;
use crate::tracer::{Info, Overhead, Start, Stats, Tracer, cause, cost};

/// The TCP tracer.
pub static INFO: Info = Info {
    name: "tcp",
    command: "network",
    about: "TCP connections: bytes, latencies, failures, retransmits",
    telemetry: Definitions {
        metrics: &[
            &CONNECTIONS,
            &CONNECT_DURATION,
            &CONNECTION_DURATION,
            &RTT,
            &RETRANSMITS,
            &SEGMENTS,
            &NETWORK_IO,
            &LISTEN_OVERFLOWS,
            &LISTEN_DROPS,
            &DROPS,
        ],
        spans: &[&CONNECTION],
        ..Definitions::NONE
    },
    views: &[&views::PROCESSES, &views::TRAFFIC, &views::LISTENERS],
    ladders: &[&STATES, &ACCEPTING, &LIVING, &OLDER, &LISTEN, &DROP_REASONS],
    on_by_default: true,
    keys: super::KEYS,
    start,
};

/// What one run of a program costs, entry included: an estimate from its length, not measured yet.
const NANOS_PER_HIT: f64 = 200.0;

fn start(start: &Start<'_>) -> Result<Box<dyn Tracer>> {
    let listen = check_forced(start.forced, &LISTEN)?;
    let program = TcpProgram::load(start)?;
    let mut chosen = program.chosen().to_vec();
    let counters = listen.rung.map(|_| ListenCounters::read());
    chosen.push(listen);
    Ok(Box::new(TcpTracer {
        ring: EventRing::open(program.object())?,
        reasons: if start.settings.tcp.drops { drop_reasons(start.target) } else { SortedMap::new() },
        program,
        chosen,
        ledger: Ledger::default(),
        counters,
        dropped: SortedMap::new(),
        running: true,
        tells_peers: start.settings.tcp.peers > 0,
        fill: Vec::new(),
    }))
}

#[derive(Debug)]
struct TcpTracer {
    program: TcpProgram,
    ring: EventRing,
    chosen: Vec<Chosen>,
    ledger: Ledger,
    counters: Option<ListenCounters>,
    /// Names of the reasons for which packets are dropped.
    reasons: SortedMap<u32, String>,
    /// Packets dropped so far, by reason.
    dropped: SortedMap<u32, u64>,
    running: bool,
    tells_peers: bool,
    fill: Vec<(&'static str, u64, u64)>,
}

/// The kernel's reasons by number.
fn drop_reasons(target: &RunningTarget) -> SortedMap<u32, String> {
    let Ok(Some(btf)) = target.vmlinux() else { return SortedMap::new() };
    let id = btf.find_by_name("skb_drop_reason", Kind::Enum);
    let Some(reasons) = id.and_then(|id| btf.type_by_id(id).ok()) else { return SortedMap::new() };
    let named = reasons.enumerators().filter_map(|reason| {
        let name = reason.name().ok()?;
        Some((
            u32::try_from(reason.value).ok()?,
            name.strip_prefix("SKB_DROP_REASON_").unwrap_or(name).to_owned(),
        ))
    });
    named.collect()
}

/// What ended, for the ledger.
fn ended(collected: &[(SeriesKey, Series)]) -> impl Iterator<Item = Ended> + '_ {
    collected.iter().map(|(key, series)| Ended {
        account: SeriesKey { error: 0, ..*key }.encode(),
        comm: series.comm,
        amounts: [
            series.sent,
            series.received,
            series.retransmits,
            series.segments_sent,
            series.segments_received,
        ],
    })
}

fn living_rtt(living: &[Lives]) -> LivingRtt {
    let mut all = LivingRtt::new();
    for Lives { so_far, rtt_us, .. } in living.iter().filter(|lives| lives.rtt_us > 0) {
        let (_, histogram) =
            all.entry(so_far.account).or_insert_with(|| (so_far.comm, Exponential::new(SCALE)));
        histogram.add_nanos(u64::from(*rtt_us) * 1000);
    }
    all
}

impl TcpTracer {
    /// Takes a window out. First what ended, then what lives: see the ledger.
    fn take(&mut self) -> Result<(Collected, Vec<Lives>)> {
        let collected = self.program.take()?;
        let living = self.program.living()?;
        let sizes = self.program.sizes;
        self.fill = vec![
            ("connections", living.len() as u64, sizes.connections.into()),
            ("series", collected.len() as u64, sizes.series.into()),
        ];
        Ok((collected, living))
    }

    fn tell_drops(&mut self, sink: &mut dyn Sink) -> Result<()> {
        for (reason, count) in self.program.drops()? {
            let last = self.dropped.insert(reason, count).unwrap_or(0);
            let number = reason.to_string();
            let name = self.reasons.get(&reason).unwrap_or(&number);
            tell::host(&DROPS, count.saturating_sub(last), &[(define::DROP_REASON, Value::Str(name))], sink);
        }
        Ok(())
    }
}

impl Tracer for TcpTracer {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn rungs(&self) -> &[Chosen] {
        &self.chosen
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.ring.descriptor()]
    }

    fn drain(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.ring.drain(|head, bytes| {
            if head.kind == CONNECTION_EVENT {
                if let Some(record) = Connection::decode(bytes) {
                    tell::connection(head, &record, sink);
                }
            }
        })
    }

    fn collect(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.drain(sink)?;
        let (collected, living) = self.take()?;
        for (key, series) in &collected {
            tell::ended(key, series, sink);
            tell::durations(key, series, sink);
        }
        for (key, (comm, histogram)) in &living_rtt(&living) {
            if let Some(key) = SeriesKey::decode(key) {
                tell::histogram(&RTT, &key, *comm, histogram, sink);
            }
        }
        tell::amounts(&self.ledger.enter(ended(&collected), living.iter().copied()), sink);
        if self.tells_peers {
            let seen = collected.iter().map(|(key, _)| key.encode());
            self.program.keep_peers(seen.chain(living.iter().map(|lives| lives.so_far.account)))?;
        }
        if let Some(counters) = &mut self.counters {
            let grown = counters.grow();
            tell::host(&LISTEN_OVERFLOWS, grown.overflows, &[], sink);
            tell::host(&LISTEN_DROPS, grown.drops, &[], sink);
        }
        self.tell_drops(sink)?;
        self.program.filter().0.forget_ended()
    }

    fn pause(&mut self) -> Result<()> {
        if self.running {
            self.program.detach();
            self.running = false;
            // What connections do from now on is not counted, and neither are their ends seen.
            let living = self.program.living()?;
            self.ledger.close(living.into_iter());
            self.program.forget_all()?;
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        if !self.running {
            self.program.attach_again()?;
            self.running = true;
        }
        Ok(())
    }

    fn is_running(&self) -> bool {
        self.running
    }

    fn set_filter(&mut self, filter: &Filter) -> Result<()> {
        let (current, object) = self.program.filter();
        current.set(object, filter)
    }

    /// Of spans only.
    fn set_sampling(&mut self, one_in: u32) -> Result<u32> {
        self.program.set_span_sampling(one_in)?;
        Ok(one_in)
    }

    fn stats(&mut self) -> Result<Stats> {
        let stats = self.program.stats()?;
        let (produced, ring_full) = self.ring.produced_and_dropped()?;
        Ok(Stats {
            hits: stats.runs,
            produced,
            received: self.ring.received(),
            dropped: vec![
                (cause::RING_FULL, ring_full),
                (cause::SPAN_RATE, stats.span_rate),
                (cause::SPAN_SAMPLING, stats.span_sampling),
                (cause::TOO_MANY_AT_ONCE, stats.connections_full),
                (cause::TABLE_FULL, stats.series_full),
                (cause::REASONS, stats.reasons_full),
                (cause::PEERS, stats.peers_full),
                (cause::NAMESPACES, self.counters.as_ref().map_or(0, ListenCounters::left_out)),
                (cause::SKIPPED, cost::object_missed_runs(self.program.object())?),
                (cause::CHILDREN, self.program.filter().0.children_lost()),
            ],
            ring_high_water: self.ring.high_water(),
            map_fill: self.fill.clone(),
        })
    }

    fn overhead(&self) -> Result<Overhead> {
        let (program_time, runs) = cost::object_run_time(self.program.object())?;
        Ok(Overhead {
            hits: self.program.stats()?.runs,
            nanos_per_hit: cost::on_this_machine(NANOS_PER_HIT),
            program_time,
            runs,
        })
    }

    fn map_bytes(&self) -> u64 {
        self.program.map_bytes()
    }
}
