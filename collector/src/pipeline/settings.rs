//! What a pipeline is made with.

use std::time::Duration;

use crate::convert::profiles::DEFAULT_MAX_REQUEST;
use crate::enrich::host::{HostFacts, own_pod};
use crate::export::Signal;
use crate::export::config::{AgentResource, SdkSettings};
use crate::export::stats::PerSignal;
use crate::symbolize::Host;

/// Memory of a pipeline, by what it is for, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Series of metrics.
    pub series: usize,
    /// Who processes are: half for them, half for their resources.
    pub processes: usize,
    /// Spans and log records that wait, half each.
    pub records: usize,
    /// Encoded profiles that wait; a single one may be larger.
    pub profiles: usize,
}

impl Memory {
    /// Half for series, which are most telling and most; a quarter for processes, an eighth for records and profiles each.
    pub fn split(total: usize) -> Self {
        Self { series: total / 2, processes: total / 4, records: total / 8, profiles: total / 8 }
    }
}

/// What a pipeline is made with.
#[derive(Debug)]
pub struct Settings {
    /// `OTEL_*`.
    pub sdk: SdkSettings,
    /// Where processes are looked at.
    pub host: Host,
    /// What is true of the machine.
    pub facts: HostFacts,
    /// What the agent says about itself.
    pub agent: AgentResource,
    /// More of that, where nothing else is said: its pod and its process.
    pub own: Vec<(&'static str, String)>,
    /// Whether every process is a resource.
    pub per_process: bool,
    /// Largest request in bytes; one with a single item may be larger.
    pub max_request: usize,
    /// How much memory it takes.
    pub memory: Memory,
}

impl Settings {
    /// Settings from the environment and the host's files. `instance` is random; `memory` is the whole, in bytes. Also a line
    /// for each variable that was ignored.
    pub fn read(
        env: &dyn Fn(&str) -> Option<String>,
        executable: &str,
        instance: u128,
        memory: usize,
    ) -> (Self, Vec<String>) {
        let host = Host::default();
        let sdk = SdkSettings::from_env(env);
        let (agent, mut warnings) = AgentResource::from_env(env, executable, instance);
        warnings.extend(sdk.warnings.iter().cloned());
        let mut own = own_pod(env);
        own.push(("process.executable.name", executable.to_owned()));
        let facts = HostFacts::read(&host, env);
        let memory = Memory::split(memory);
        let max_request = DEFAULT_MAX_REQUEST - (64 << 10);
        (Self { sdk, host, facts, agent, own, per_process: false, max_request, memory }, warnings)
    }
}

/// When what is flushed.
#[derive(Debug)]
pub(super) struct Schedule {
    delays: PerSignal<u64>,
    /// How many fill a request.
    batches: PerSignal<usize>,
    next: PerSignal<u64>,
}

impl Schedule {
    pub(super) fn new(sdk: &SdkSettings, boot_nanos: u64) -> Self {
        let nanos = |delay: Duration| u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        let mut schedule =
            Self { delays: PerSignal::default(), batches: PerSignal::default(), next: PerSignal::default() };
        for (signal, delay, batch) in [
            (Signal::Metrics, sdk.metrics.interval, usize::MAX),
            (Signal::Traces, sdk.spans.delay, sdk.spans.max_batch_items),
            (Signal::Logs, sdk.logs.delay, sdk.logs.max_batch_items),
            (Signal::Profiles, sdk.metrics.interval, 1),
        ] {
            *schedule.delays.get_mut(signal) = nanos(delay);
            *schedule.batches.get_mut(signal) = batch;
        }
        schedule.flushed(&Signal::ALL, boot_nanos);
        schedule
    }

    pub(super) fn is_due(&self, signal: Signal, waiting: usize, boot_nanos: u64) -> bool {
        waiting > 0 && (*self.next.get(signal) <= boot_nanos || waiting >= *self.batches.get(signal))
    }

    pub(super) fn next(&self, signal: Signal) -> u64 {
        *self.next.get(signal)
    }

    pub(super) fn flushed(&mut self, signals: &[Signal], boot_nanos: u64) {
        for &signal in signals {
            let delay = *self.delays.get(signal);
            // At a distance that stays, however late it was; what was missed is not made up for.
            let kept = self.next.get(signal).saturating_add(delay);
            let fits = kept > boot_nanos && kept <= boot_nanos.saturating_add(delay);
            *self.next.get_mut(signal) = if fits { kept } else { boot_nanos.saturating_add(delay) };
        }
    }
}
