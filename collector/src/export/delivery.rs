//! What is sent when, to one destination: decisions only.
//!
//! No threads, clocks, sockets or files: time is an argument (since some start that never changes), and so are the
//! outcomes of what [`Delivery::step`] and [`Delivery::save_step`] ask for. Two threads drive it: one that sends and
//! reads the spool, and with a spool one that writes it, since a disk may take seconds for what a receiver takes
//! milliseconds.
//!
//! Requests wait in memory for at most [`Limits::max_time_at_risk`] and are spooled then, so that a receiver that is
//! there costs no write. What is in the spool is older than what is in memory, and is sent first.

use std::time::Duration;

use super::queue::{Entry, Queue, cost};
use super::reply::Accepted;
use super::retry::RetryPolicy;
use super::stats::{Amount, DropReason, Stats};
use super::store::{Held, RecordId, StoreError};
use super::transport::Refusal;
use super::{MAX_REQUEST, Request};
use spooled::Spooled;

mod spooled;

/// Bounds of one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of requests that wait in memory, the one in flight included. One that is read back from the spool comes on top.
    pub queue_bytes: usize,
    /// With a spool: how long a request may wait in memory alone. Zero: every request is spooled at once.
    pub max_time_at_risk: Duration,
    /// When to try again.
    pub retry: RetryPolicy,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_bytes: 16 << 20,
            max_time_at_risk: Duration::from_secs(1),
            retry: RetryPolicy::default(),
        }
    }
}

/// What the sending thread does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this, wait at most as long as that (`None`: as the destination says), and report to [`Delivery::sent`].
    Send(Request, Option<Duration>),
    /// Read the oldest record of the spool, and report to [`Delivery::loaded`].
    Load,
    /// Acknowledge these records in the spool, and report to [`Delivery::acknowledged`].
    Acknowledge(Vec<RecordId>),
    /// Ask again at that time, or when something has happened.
    Wait(Option<Duration>),
    /// End: nothing will be sent any more.
    Done,
}

/// What the saving thread does next.
#[derive(Debug, PartialEq, Eq)]
pub enum SaveStep {
    /// Append this group to the spool, and report to [`Delivery::saved`].
    Save(Vec<Request>),
    /// Acknowledge these records in the spool, and report to [`Delivery::acknowledged`].
    Acknowledge(Vec<RecordId>),
    /// Ask again at that time, or when something has happened.
    Wait(Option<Duration>),
    /// End: everything is in the spool or counted.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// Nothing new is taken; what waits is sent until then.
    Flushing {
        until: Duration,
    },
    /// What is left is spooled.
    Closing,
    Closed,
}

/// The request that is being sent, or is about to be.
#[derive(Debug)]
struct Flight {
    entry: Entry,
    place: Place,
    /// Whether it has left.
    sending: bool,
}

/// Where a request is besides being in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nowhere.
    Memory,
    /// In the spool.
    Spool(RecordId),
    /// It was in the spool, and had to make room: this attempt is its last chance.
    PushedOut,
}

/// The queue of one destination.
#[derive(Debug)]
pub struct Delivery {
    limits: Limits,
    phase: Phase,
    queue: Queue,
    flight: Option<Flight>,
    spooled: Option<Spooled>,
    next_id: u64,
    /// Attempts that failed since the last answer that was none to try again.
    failures: u32,
    /// No attempt before this time.
    next_attempt: Duration,
    /// All but what waits, which is counted when asked for.
    counts: Stats,
}

impl Delivery {
    /// A queue for the destination `name`; with a spool, `held` is what it held when it was opened.
    pub fn new(name: String, limits: Limits, held: Option<&Held>) -> Self {
        let mut counts = Stats { name, ..Stats::default() };
        let spooled = held.and_then(|held| Spooled::new(held, &mut counts));
        Self {
            limits,
            phase: Phase::Running,
            queue: Queue::default(),
            flight: None,
            spooled,
            next_id: 0,
            failures: 0,
            next_attempt: Duration::ZERO,
            counts,
        }
    }

    /// Takes a request, at the expense of the oldest if there is no room.
    pub fn push(&mut self, request: Request, now: Duration) {
        let amount = Amount::of(&request);
        self.counts.signals.get_mut(request.signal).accepted += amount;
        let cost = cost(&request);
        if self.phase != Phase::Running {
            return self.drop_request(&request, DropReason::ShutDown);
        }
        if request.body.len() > MAX_REQUEST || cost > self.limits.queue_bytes {
            return self.drop_request(&request, DropReason::TooLarge);
        }
        while self.memory().saturating_add(cost) > self.limits.queue_bytes {
            match self.queue.pop_oldest_droppable() {
                Some(oldest) => self.drop_request(&oldest.request, DropReason::QueueFull),
                // What is left is in flight or on its way to the disk.
                None => return self.drop_request(&request, DropReason::QueueFull),
            }
        }
        let entry = Entry { id: self.new_id(), request, since: now, saving: false };
        self.queue.push_back(entry);
    }

    /// What to do next, for the thread that sends. It reports what came of it before it asks again.
    pub fn step(&mut self, now: Duration) -> Step {
        self.advance(now);
        match self.phase {
            Phase::Closed => return Step::Done,
            Phase::Closing => return Step::Wait(None),
            Phase::Running | Phase::Flushing { .. } => {}
        }
        let flush_end = match self.phase {
            Phase::Flushing { until } => Some(until),
            _ => None,
        };
        if let Some(records) = self.spooled.as_mut().and_then(|spooled| spooled.start_acknowledging(now)) {
            return Step::Acknowledge(records);
        }
        if now < self.next_attempt {
            return Step::Wait(Some(flush_end.map_or(self.next_attempt, |end| end.min(self.next_attempt))));
        }
        let mut wake = flush_end;
        if self.flight.is_none() {
            match self.spooled.as_mut().map(|spooled| spooled.start_loading(now)) {
                Some(spooled::Load::Now) => return Step::Load,
                Some(spooled::Load::At(at)) => wake = Some(wake.map_or(at, |wake| wake.min(at))),
                Some(spooled::Load::Nothing) | None => {}
            }
            // While the spool cannot be read, what is younger need not wait. But its records are acknowledged in order.
            let skips_older = self.spooled.as_ref().is_some_and(|spooled| !spooled.is_empty());
            if !(skips_older && self.queue.iter().next().is_some_and(|oldest| oldest.saving)) {
                let oldest = self.queue.pop_front();
                self.flight = oldest.map(|entry| Flight { entry, place: Place::Memory, sending: false });
            }
        }
        match &mut self.flight {
            Some(flight) if !flight.sending => {
                flight.sending = true;
                Step::Send(flight.entry.request.clone(), flush_end.map(|end| end.saturating_sub(now)))
            }
            _ => Step::Wait(wake),
        }
    }

    /// How an attempt ended. `jitter`, in 0..1, spreads the next one.
    pub fn sent(&mut self, now: Duration, outcome: Result<Accepted, Refusal>, jitter: f64) {
        // After the end it is too late: what was in flight is spooled or counted.
        let Some(flight) = self.flight.take() else { return };
        let amount = Amount::of(&flight.entry.request);
        let counts = self.counts.signals.get_mut(flight.entry.request.signal);
        match outcome {
            Ok(Accepted { rejected, message }) => {
                let rejected = rejected.min(amount.items);
                counts.delivered += Amount { items: amount.items - rejected, ..amount };
                if rejected > 0 {
                    counts.rejected += Amount { requests: 1, items: rejected, bytes: 0 };
                }
                if let Some(message) = message {
                    self.counts.last_message = Some(message);
                }
                self.failures = 0;
                self.finish(flight);
            }
            Err(refusal) => {
                if refusal.ambiguous {
                    counts.ambiguous += amount;
                }
                let retryable = refusal.failure.is_retryable();
                let mut error = refusal.failure.describe(flight.entry.request.signal);
                if retryable {
                    counts.retries = counts.retries.saturating_add(1);
                    self.failures = self.failures.saturating_add(1);
                    let delay = self.limits.retry.delay(self.failures, refusal.asked_to_wait, jitter);
                    self.next_attempt = now.saturating_add(delay);
                    if let Some(asked) = refusal.asked_to_wait.filter(|asked| *asked > delay) {
                        error += &format!(
                            "; it asks to wait {} s, which is cut to {} s",
                            asked.as_secs(),
                            delay.as_secs()
                        );
                    }
                    self.put_back(flight);
                } else {
                    self.failures = 0;
                    self.drop_request(&flight.entry.request, DropReason::NotRetryable);
                    self.finish(flight);
                }
                self.counts.last_error = Some(error);
            }
        }
    }

    /// The attempt ended in a panic. The request that causes such a thing would cause it again: it is given up.
    pub fn panicked(&mut self) {
        self.count_panic();
        // What the panic says may hold anything.
        self.counts.last_error = Some("the exporter panicked".to_owned());
        if let Some(flight) = self.flight.take() {
            self.drop_request(&flight.entry.request, DropReason::NotRetryable);
            self.finish(flight);
        }
    }

    /// The spool failed in something that changes nothing here.
    pub fn spool_failed(&mut self, error: &StoreError) {
        self.counts.spool_error = Some(format!("cannot sync the spool: {error}"));
    }

    /// Something else of this destination panicked, which was contained.
    pub fn count_panic(&mut self) {
        self.counts.panics = self.counts.panics.saturating_add(1);
    }

    /// Takes nothing more, and sends what waits for at most `flush_for`. What is left then is spooled, or dropped.
    /// Only the first call counts.
    pub fn shut_down(&mut self, now: Duration, flush_for: Duration) {
        if self.phase == Phase::Running {
            self.phase = Phase::Flushing { until: now.saturating_add(flush_for) };
        }
        self.advance(now);
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the end is reached: everything is delivered, spooled or dropped.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Ends now: what is neither delivered nor spooled is dropped. For a disk that does not answer.
    pub fn abandon(&mut self) {
        if self.phase == Phase::Closed {
            return;
        }
        if let Some(flight) = self.flight.take() {
            if flight.sending {
                let counts = self.counts.signals.get_mut(flight.entry.request.signal);
                counts.ambiguous += Amount::of(&flight.entry.request);
                self.counts.last_error = Some("no answer came before the end".to_owned());
            }
            match flight.place {
                Place::Memory => self.drop_request(&flight.entry.request, DropReason::ShutDown),
                Place::PushedOut => self.drop_request(&flight.entry.request, DropReason::SpoolFull),
                Place::Spool(_) => {}
            }
        }
        while let Some(entry) = self.queue.pop_front() {
            self.drop_request(&entry.request, DropReason::ShutDown);
        }
        self.phase = Phase::Closed;
    }

    /// What became of everything so far.
    pub fn stats(&self, now: Duration) -> Stats {
        let mut stats = self.counts.clone();
        let flight = self.flight.as_ref().filter(|flight| !matches!(flight.place, Place::Spool(_)));
        for entry in flight.map(|flight| &flight.entry).into_iter().chain(self.queue.iter()) {
            stats.signals.get_mut(entry.request.signal).in_memory += Amount::of(&entry.request);
            let age = now.saturating_sub(entry.since);
            stats.oldest_in_memory = Some(stats.oldest_in_memory.map_or(age, |oldest| oldest.max(age)));
        }
        if let Some(spooled) = &self.spooled {
            for (signal, waiting) in spooled.waiting().iter() {
                stats.signals.get_mut(signal).in_spool = *waiting;
            }
        }
        stats
    }

    /// Goes on to the next phase when it is time.
    fn advance(&mut self, now: Duration) {
        if let Phase::Flushing { until } = self.phase {
            let idle = self.flight.as_ref().is_none_or(|flight| !flight.sending);
            let nothing_left = self.flight.is_none()
                && self.queue.is_empty()
                && self.spooled.as_ref().is_none_or(Spooled::is_idle);
            // Who waits for the end need not wait for an attempt that comes after it.
            if now >= until || nothing_left || (idle && self.next_attempt > until) {
                self.phase = Phase::Closing;
            }
        }
        if self.phase == Phase::Closing {
            let unsaved = !self.queue.is_empty()
                || self.flight.as_ref().is_some_and(|flight| flight.place == Place::Memory);
            match &self.spooled {
                Some(spooled) if unsaved || !spooled.is_settled() => {}
                _ => self.abandon(),
            }
        }
    }

    /// Memory that requests take which are not in the spool, and those that a group on its way to the disk still holds.
    fn memory(&self) -> usize {
        let flight = self.flight.as_ref().filter(|flight| flight.place == Place::Memory);
        let finished = self.spooled.as_ref().map_or(0, Spooled::finished_in_memory);
        self.queue
            .cost()
            .saturating_add(flight.map_or(0, |flight| flight.entry.cost()))
            .saturating_add(finished)
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn drop_request(&mut self, request: &Request, reason: DropReason) {
        self.counts.signals.get_mut(request.signal).dropped.add(reason, Amount::of(request));
    }

    /// Nothing more is to be done for a request, wherever it is.
    fn finish(&mut self, flight: Flight) {
        if let Some(spooled) = &mut self.spooled {
            spooled.finish(&flight);
        }
    }

    /// The request waits for another attempt: in the spool, if it is there.
    fn put_back(&mut self, flight: Flight) {
        match flight.place {
            Place::Memory => self.queue.push_front(flight.entry),
            Place::PushedOut => self.drop_request(&flight.entry.request, DropReason::SpoolFull),
            Place::Spool(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
