//! What became of everything that was handed over, for each destination and signal.

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

use super::{Request, Signal};

/// A number of requests, and what is in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Requests.
    pub requests: u64,
    /// Data points, spans, log records or profiles.
    pub items: u64,
    /// Bytes of their messages, before compression.
    pub bytes: u64,
}

impl Amount {
    /// One request.
    pub fn of(request: &Request) -> Self {
        Self { requests: 1, items: request.items, bytes: request.body.len() as u64 }
    }

    /// Takes `other` out, or what there is of it; returns that.
    pub(super) fn subtract(&mut self, other: Self) -> Self {
        let taken = Self {
            requests: self.requests.min(other.requests),
            items: self.items.min(other.items),
            bytes: self.bytes.min(other.bytes),
        };
        self.requests -= taken.requests;
        self.items -= taken.items;
        self.bytes -= taken.bytes;
        taken
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.items = self.items.saturating_add(other.items);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// Something of each signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerSignal<T> {
    metrics: T,
    traces: T,
    logs: T,
    profiles: T,
}

impl<T> PerSignal<T> {
    /// That of `signal`.
    pub fn get(&self, signal: Signal) -> &T {
        match signal {
            Signal::Metrics => &self.metrics,
            Signal::Traces => &self.traces,
            Signal::Logs => &self.logs,
            Signal::Profiles => &self.profiles,
        }
    }

    /// That of `signal`, to change.
    pub fn get_mut(&mut self, signal: Signal) -> &mut T {
        match signal {
            Signal::Metrics => &mut self.metrics,
            Signal::Traces => &mut self.traces,
            Signal::Logs => &mut self.logs,
            Signal::Profiles => &mut self.profiles,
        }
    }

    /// All of them, each with its signal.
    pub fn iter(&self) -> impl Iterator<Item = (Signal, &T)> {
        Signal::ALL.into_iter().map(|signal| (signal, self.get(signal)))
    }
}

/// Why a request was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The queue in memory was full: the oldest made room.
    QueueFull,
    /// The spool was full: the oldest made room.
    SpoolFull,
    /// The receiver refused it for good, or OTLP allows no other attempt.
    NotRetryable,
    /// It is larger than OTLP allows, or than the whole queue.
    TooLarge,
    /// It was not delivered by the end, and there is no spool to keep it.
    ShutDown,
    /// It was in the spool, which could not give it back.
    UnreadableSpool,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::QueueFull,
        Self::SpoolFull,
        Self::NotRetryable,
        Self::TooLarge,
        Self::ShutDown,
        Self::UnreadableSpool,
    ];

    /// Its name in JSON and in telemetry.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::SpoolFull => "spool_full",
            Self::NotRetryable => "not_retryable",
            Self::TooLarge => "too_large",
            Self::ShutDown => "shut_down",
            Self::UnreadableSpool => "unreadable_spool",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "the queue was full",
            Self::SpoolFull => "the spool was full",
            Self::NotRetryable => "refused for good",
            Self::TooLarge => "too large",
            Self::ShutDown => "not delivered by the end",
            Self::UnreadableSpool => "unreadable in the spool",
        })
    }
}

/// What was given up, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    by_reason: [Amount; DropReason::ALL.len()],
}

impl Dropped {
    /// What was given up for `reason`.
    pub fn get(&self, reason: DropReason) -> Amount {
        self.by_reason.get(reason as usize).copied().unwrap_or_default()
    }

    /// What was given up in all.
    pub fn total(&self) -> Amount {
        self.by_reason.iter().fold(Amount::default(), |mut sum, amount| {
            sum += *amount;
            sum
        })
    }

    pub(super) fn add(&mut self, reason: DropReason, amount: Amount) {
        if let Some(sum) = self.by_reason.get_mut(reason as usize) {
            *sum += amount;
        }
    }
}

/// Counts of one signal at one destination.
///
/// In items, `accepted + recovered = delivered + rejected + dropped.total() + in_memory + in_spool`, at any time. In
/// requests the same holds without `rejected`: what a receiver took in part is delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SignalStats {
    /// Handed over in this run.
    pub accepted: Amount,
    /// Found in the spool at the start.
    pub recovered: Amount,
    /// Taken by the receiver, without the items that it rejected.
    pub delivered: Amount,
    /// Refused in the partial success of a request that was taken otherwise: never sent again. Bytes are not known.
    pub rejected: Amount,
    /// Given up.
    pub dropped: Dropped,
    /// Failed attempts after which the request waits for another one.
    pub retries: u64,
    /// Attempts whose end is not known: all was sent and no answer came. The receiver may hold these items twice.
    pub ambiguous: Amount,
    /// Waiting in memory alone, the request in flight included: lost if the process is killed.
    pub in_memory: Amount,
    /// Waiting in the spool: kept if the process is killed.
    pub in_spool: Amount,
}

/// Counts of one destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// The destination, without secrets.
    pub name: String,
    /// By signal.
    pub signals: PerSignal<SignalStats>,
    /// How many requests that were in the spool at the start may have been delivered by the process before; they are sent
    /// again. What was delivered while it was being written to the spool is not among them.
    pub possible_duplicates: u64,
    /// Age of the oldest request in memory. The spool keeps no times.
    pub oldest_in_memory: Option<Duration>,
    /// What last went wrong with an attempt.
    pub last_error: Option<String>,
    /// What the receiver last said about a request that it took: why it rejected a part, or a warning.
    pub last_message: Option<String>,
    /// What last went wrong with the spool.
    pub spool_error: Option<String>,
    /// Panics of the transport or the spool that were contained: each is a bug.
    pub panics: u64,
}

impl Stats {
    /// The sum of something over all signals.
    pub fn total(&self, of: impl Fn(&SignalStats) -> Amount) -> Amount {
        self.signals.iter().fold(Amount::default(), |mut sum, (_, stats)| {
            sum += of(stats);
            sum
        })
    }
}
