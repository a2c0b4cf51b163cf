//! From what tracers tell to OTLP requests.
//!
//! [`Pipeline`] is a [`Sink`]: it finds out whose everything is, adds up what adds up, keeps the rest within bounds, and makes
//! requests of it when it is [flushed](Pipeline::flush). It has no thread, no timer and no socket, and asks the system for
//! nothing but who processes are; whoever drives it has the clock.
//!
//! | file | what it does |
//! |---|---|
//! | `clock.rs` | kernel time to wall time |
//! | `resources.rs` | whose it is: services, containers, processes, the machine, the agent |
//! | `store/` | series of metrics, cumulative or delta |
//! | `records.rs` | spans and log records that wait |
//! | `about_agent.rs` | what the agent tells about all this |
//! | `page.rs` | the same series as Prometheus reads them |
//! | `settings.rs` | what the specification lets users set, and the memory |

mod about_agent;
mod clock;
mod ids;
pub(crate) mod keep;
mod page;
mod records;
pub mod resources;
mod settings;
mod store;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bpf_programs::events::process::Lifecycle;
use bytes::Bytes;
use otlp_encode::{Limits, LogsRequest, MetricsRequest, ScopeBlob, ScopeInfo, TracesRequest};

use crate::convert::logs::LogItem;
use crate::convert::profiles::{ProfilesEncoder, SCHEMA_URL, SCOPE_NAME, VERSION};
use crate::convert::spans::SpanItem;
use crate::convert::{logs, metrics, spans};
use crate::enrich::cache::{CacheStats, ProcessCache, Started};
use crate::export::{Request, Signal};
use crate::model::Profile;
use crate::telemetry::{LogDef, LogRecord, Owner, Point, Sink, Span, SpanDef, SpanKind};
use records::Records;
use resources::{PER_RESOURCE, ResourceId, Resources};
use store::{PointOwner, Store};

pub use about_agent::AboutAgent;
pub use clock::{Clock, Reading};
pub use settings::{Memory, Settings};
pub use store::StoreStats;

/// What became of everything that was handed over, and what is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineStats {
    /// Series and points.
    pub series: StoreStats,
    /// Processes.
    pub processes: CacheStats,
    /// Resources now.
    pub resources: usize,
    /// Processes that share a resource with all others for whose resources there was no room.
    pub folded: u64,
    /// Spans, log records and profiles that are lost, by signal and cause.
    pub dropped: Vec<(Signal, &'static str, u64)>,
    /// Times that the wall clock was set.
    pub clock_steps: u64,
}

impl PipelineStats {
    /// What never became part of a request, with why. Points that were folded into the series for all others did.
    pub fn lost(&self) -> Vec<(Signal, &'static str, u64)> {
        let series = [
            (Signal::Metrics, "memory full", self.series.lost),
            (Signal::Metrics, "not valid", self.series.refused),
        ];
        let all = series.into_iter().chain(self.dropped.iter().copied());
        all.filter(|(_, _, count)| *count > 0).collect()
    }
}

/// Makes OTLP requests of what tracers tell.
#[derive(Debug)]
pub struct Pipeline {
    clock: Clock,
    /// The clock as it was, if the wall clock was set since the last flush of metrics.
    before: Option<Clock>,
    clock_steps: u64,
    /// When the window of metrics began, by both clocks.
    window: Reading,
    processes: ProcessCache,
    resources: Resources,
    /// Whom the last point was of: they come in groups.
    last: Option<(u32, PointOwner)>,
    per_process: bool,
    store: Store,
    spans: Records<(&'static SpanDef, SpanKind)>,
    logs: Records<&'static LogDef>,
    ids: ids::Ids,
    profiles: VecDeque<Request>,
    profile_bytes: usize,
    /// Profiles that found no room, and those that were not valid.
    profiles_full: u64,
    refused: [u64; 3],
    encoder: ProfilesEncoder,
    page: Option<page::Served>,
    requests: (MetricsRequest, TracesRequest, LogsRequest),
    scope: ScopeBlob,
    schedule: settings::Schedule,
    max_profile_bytes: usize,
}

impl Pipeline {
    /// A pipeline whose first window begins now.
    ///
    /// # Errors
    ///
    /// The agent's own attributes cannot be encoded: one is longer than a request may be.
    pub fn new(settings: Settings, now: Reading) -> Result<Self, otlp_encode::Error> {
        let Settings { sdk, host, facts, agent, own, per_process, max_request, memory } = settings;
        let max_resources = (memory.processes / PER_RESOURCE).max(64);
        let scope = ScopeInfo { version: VERSION, schema_url: SCHEMA_URL, ..ScopeInfo::default() };
        let limits = |max_items: usize| Limits { max_bytes: max_request, max_items: max_items as u64 };
        let traces = TracesRequest::new(limits(sdk.spans.max_batch_items)).with_span_limits(sdk.limits.span);
        let logs =
            LogsRequest::new(limits(sdk.logs.max_batch_items)).with_attribute_limits(sdk.limits.log_record);
        let seed = bpf_sys::random::number();
        Ok(Self {
            clock: Clock::new(now),
            before: None,
            clock_steps: 0,
            window: now,
            processes: ProcessCache::new(host, memory.processes / 2),
            resources: Resources::new(per_process, max_resources, &agent, &own, &facts)?,
            last: None,
            per_process,
            store: Store::new(sdk.metrics.temporality, memory.series),
            spans: Records::new(sdk.spans.max_queue_items, memory.records / 2),
            logs: Records::new(sdk.logs.max_queue_items, memory.records / 2),
            ids: ids::Ids::new(),
            profiles: VecDeque::new(),
            profile_bytes: 0,
            profiles_full: 0,
            refused: [0; 3],
            encoder: ProfilesEncoder::new(seed, max_request)
                .with_attributes(resources::shared(&agent, &facts)),
            page: None,
            requests: (MetricsRequest::new(limits(usize::MAX)), traces, logs),
            scope: ScopeBlob::new(SCOPE_NAME, &(), &scope)?,
            schedule: settings::Schedule::new(&sdk, now.boot_nanos),
            max_profile_bytes: memory.profiles,
        })
    }

    /// What is due for a flush at a time of `CLOCK_BOOTTIME`, in nanoseconds: metrics at their interval, spans and log
    /// records after their delay or when a request is full, profiles at once.
    pub fn due(&self, boot_nanos: u64) -> Vec<Signal> {
        let is_due = |signal: &Signal| self.schedule.is_due(*signal, self.waiting(*signal), boot_nanos);
        Signal::ALL.into_iter().filter(is_due).collect()
    }

    /// When something that waits now is due at the latest, in nanoseconds of `CLOCK_BOOTTIME`.
    pub fn deadline(&self) -> u64 {
        let waiting = Signal::ALL.into_iter().filter(|signal| self.waiting(*signal) > 0);
        let times = waiting.map(|signal| self.schedule.next(signal));
        times.min().unwrap_or(u64::MAX)
    }

    /// How much there is to flush. A window of metrics ends even if nothing was counted.
    fn waiting(&self, signal: Signal) -> usize {
        match signal {
            Signal::Metrics => 1,
            Signal::Traces => self.spans.len(),
            Signal::Logs => self.logs.len(),
            Signal::Profiles => self.profiles.len(),
        }
    }

    /// Hands out requests of these signals: of metrics, the window ends.
    pub fn flush(&mut self, now: Reading, due: &[Signal], out: &mut dyn FnMut(Request)) {
        let before = self.clock;
        if self.clock.synchronise(now) {
            self.before.get_or_insert(before);
            self.clock_steps += 1;
        }
        self.last = None;
        self.schedule.flushed(due, now.boot_nanos);
        self.resources.encode_new();
        for signal in due {
            match signal {
                Signal::Metrics => self.flush_metrics(now, out),
                Signal::Traces => self.flush_spans(out),
                Signal::Logs => self.flush_logs(now, out),
                Signal::Profiles => {
                    self.profile_bytes = 0;
                    self.profiles.drain(..).for_each(&mut *out);
                }
            }
        }
    }

    fn flush_metrics(&mut self, now: Reading, out: &mut dyn FnMut(Request)) {
        let ended = self.processes.end_window();
        self.store.end_processes(&ended);
        if let Some(totals) = self.page.as_mut().and_then(page::Served::totals) {
            totals.end_processes(&ended);
        }
        ended.iter().for_each(|key| self.resources.leave(*key));
        let time = self.clock.unix(now.boot_nanos);
        // Windows follow each other without a gap, unless the clock was set: then the old times mean nothing.
        let started = self.window.unix_nanos;
        let before = self.before.take().map(|clock| {
            let time = clock.unix(now.boot_nanos).max(started);
            store::Before { start: started, time, clock }
        });
        let start = if before.is_some() { self.clock.unix(self.window.boot_nanos) } else { started };
        self.store.sort(&store::Window { start, time, clock: self.clock, before });
        let refused = metrics::encode(
            &mut self.requests.0,
            &self.scope,
            self.store.len(),
            |position| self.store.get(position),
            |id| self.resources.encoded(id),
            |batch| out(request(Signal::Metrics, batch)),
        );
        self.store.count_refused(refused);
        // What ends now is on the page once more.
        self.refresh_page();
        let fate = |id| self.resources.fate(id);
        self.store.finish(fate);
        if let Some(totals) = self.page.as_mut().and_then(page::Served::totals) {
            totals.finish(fate);
        }
        self.resources.forget_ended();
        self.window = Reading { boot_nanos: now.boot_nanos, unix_nanos: time };
    }

    fn flush_spans(&mut self, out: &mut dyn FnMut(Request)) {
        self.spans.sort();
        let items = self.spans.iter().map(|record| SpanItem {
            resource: record.resource,
            span: record.definition.0,
            kind: record.definition.1,
            trace_id: record.trace_id,
            span_id: record.span_id,
            unix_nanos: (self.clock.unix(record.boot_nanos.0), self.clock.unix(record.boot_nanos.1)),
            error: self.spans.text(record),
            attributes: self.spans.attributes(record),
        });
        let [refused, ..] = &mut self.refused;
        *refused += spans::encode(
            &mut self.requests.1,
            &self.scope,
            items,
            |id| self.resources.encoded(id),
            |batch| out(request(Signal::Traces, batch)),
        );
        self.spans.iter().for_each(|record| self.resources.release(record.resource));
        self.spans.clear();
    }

    fn flush_logs(&mut self, now: Reading, out: &mut dyn FnMut(Request)) {
        self.logs.sort();
        let items = self.logs.iter().map(|record| LogItem {
            resource: record.resource,
            log: record.definition,
            unix_nanos: self.clock.unix(record.boot_nanos.0),
            body: self.logs.text(record).unwrap_or_default(),
            attributes: self.logs.attributes(record),
        });
        let [_, refused, _] = &mut self.refused;
        *refused += logs::encode(
            &mut self.requests.2,
            &self.scope,
            self.clock.unix(now.boot_nanos),
            items,
            |id| self.resources.encoded(id),
            |batch| out(request(Signal::Logs, batch)),
        );
        self.logs.iter().for_each(|record| self.resources.release(record.resource));
        self.logs.clear();
    }

    /// What became of everything.
    pub fn stats(&self) -> PipelineStats {
        let [spans, logs, profiles] = self.refused;
        PipelineStats {
            series: self.store.stats(),
            processes: self.processes.stats(),
            resources: self.resources.len(),
            folded: self.resources.folded(),
            dropped: vec![
                (Signal::Traces, "queue full", self.spans.queue_full),
                (Signal::Traces, "memory full", self.spans.memory_full),
                (Signal::Traces, "not valid", spans),
                (Signal::Logs, "queue full", self.logs.queue_full),
                (Signal::Logs, "memory full", self.logs.memory_full),
                (Signal::Logs, "not valid", logs),
                (Signal::Profiles, "memory full", self.profiles_full),
                (Signal::Profiles, "not valid", profiles),
            ],
            clock_steps: self.clock_steps,
        }
    }

    fn owner(&mut self, owner: Owner) -> PointOwner {
        let fixed = |resource| PointOwner { resource, process: None, start_boot_nanos: 0 };
        match owner {
            Owner::Host => fixed(ResourceId::HOST),
            Owner::Agent => fixed(ResourceId::AGENT),
            Owner::Process { pid: 0, .. } => fixed(ResourceId::HIDDEN),
            Owner::Process { pid, comm } => {
                if let Some((_, last)) = self.last.filter(|(last, _)| *last == pid) {
                    return last;
                }
                let found = self.processes.look_up(pid, &comm);
                let owner = PointOwner {
                    resource: self.resources.join(found.key, found.identity, found.is_alive),
                    process: Some(found.key),
                    start_boot_nanos: found.identity.start_boot_nanos,
                };
                self.last = Some((pid, owner));
                owner
            }
        }
    }

    /// The number of a process, for records whose resource does not have it.
    fn pid(&self, owner: Owner) -> Option<u32> {
        match owner {
            Owner::Process { pid, .. } if pid > 0 && !self.per_process => Some(pid),
            _ => None,
        }
    }
}

impl Sink for Pipeline {
    fn point(&mut self, point: Point<'_>) {
        let owner = self.owner(point.owner);
        self.store.point(&point, owner);
        if let Some(totals) = self.page.as_mut().and_then(page::Served::totals) {
            totals.point(&point, owner);
        }
    }

    fn span(&mut self, span: Span<'_>) {
        let (pid, resource) = (self.pid(span.owner), self.owner(span.owner).resource);
        let definition = ((span.span, span.kind), resource);
        if self.spans.push(definition, span.boot_nanos, span.attributes, pid, span.error, Some(&mut self.ids))
        {
            self.resources.hold(resource);
        }
    }

    fn log(&mut self, record: LogRecord<'_>) {
        let (pid, resource) = (self.pid(record.owner), self.owner(record.owner).resource);
        let boot_nanos = (record.boot_nanos, record.boot_nanos);
        let body = Some(record.body);
        if self.logs.push((record.log, resource), boot_nanos, record.attributes, pid, body, None) {
            self.resources.hold(resource);
        }
    }

    fn profile(&mut self, profile: Profile) {
        let Self { encoder, profiles, profile_bytes, profiles_full, .. } = self;
        // One is there before anybody asks how large it is: what waits is bounded, and not a single one.
        let is_only = profiles.is_empty();
        let encoded = encoder.encode(&profile, self.ids.trace(), |bytes, items| {
            if !is_only && *profile_bytes + bytes.len() > self.max_profile_bytes {
                *profiles_full += items;
                return;
            }
            *profile_bytes += bytes.len();
            let body = Bytes::copy_from_slice(bytes);
            profiles.push_back(Request { signal: Signal::Profiles, items, body });
        });
        let [.., refused] = &mut self.refused;
        *refused += u64::from(encoded.is_err());
    }

    fn lifecycle(&mut self, event: &Lifecycle) {
        self.last = None;
        let process = event.process();
        let path = match event {
            Lifecycle::Exit(..) => return self.processes.exited(process.tgid, process.start_boot_ns),
            Lifecycle::Fork(_) => None,
            Lifecycle::Exec(_, path) => std::str::from_utf8(path.bytes()).ok(),
        };
        self.processes.started(&Started {
            pid: process.tgid,
            parent: process.parent_tgid,
            start_boot_nanos: process.start_boot_ns,
            comm: &process.comm,
            executable_path: path,
            uid: Some(process.uid),
        });
    }
}

fn request(signal: Signal, batch: otlp_encode::Batch<'_>) -> Request {
    Request { signal, items: batch.items, body: Bytes::copy_from_slice(batch.bytes) }
}
