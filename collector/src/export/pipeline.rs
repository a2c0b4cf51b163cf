//! The threads that deliver: for each destination one that sends, and with a spool one that writes it.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::delivery::{Delivery, Limits, SaveStep, Step};
use super::file::{ConsoleExporter, FileExporter};
use super::retry::jitter;
use super::spool::{Spool, SpoolConfig, SpoolError};
use super::stats::Stats;
use super::store::{AppendError, Held, RecordId, Store, StoreError};
use super::transport::{self, Transport};
use super::{Destination, ExportError, Request, Signal, Sink};

/// How long to send at the end, where nothing says otherwise.
pub const DEFAULT_FLUSH: Duration = Duration::from_secs(5);
/// How long a disk may take at the end for what is left. Then that is dropped.
const MAX_SAVING: Duration = Duration::from_secs(30);

/// Where requests go, and how.
pub struct Outlet {
    /// What it is called in [`Stats`]; without secrets.
    pub name: String,
    /// What goes there.
    pub signals: Vec<Signal>,
    /// How long one attempt may take; `None` for as long as it takes.
    pub timeout: Option<Duration>,
    /// The bounds of its queue.
    pub limits: Limits,
    /// What carries a request.
    pub transport: Box<dyn Transport + Send>,
    /// Its spool, if it has one, and what was in it.
    pub spool: Option<(Arc<dyn Store>, Held)>,
}

impl Outlet {
    /// A receiver, without a spool.
    ///
    /// # Errors
    ///
    /// As [`transport::new`].
    pub fn to(destination: &Destination, limits: Limits) -> Result<Self, Box<ExportError>> {
        Ok(Self {
            name: destination.name(),
            signals: destination.targets.iter().map(|(signal, _)| *signal).collect(),
            timeout: destination.timeout,
            limits,
            transport: transport::new(destination)?,
            spool: None,
        })
    }

    /// Any sink, without a spool. Files and standard output may be slow, too.
    ///
    /// # Errors
    ///
    /// As [`transport::new`].
    pub fn to_sink(sink: &Sink, limits: Limits) -> Result<Self, Box<ExportError>> {
        let (name, transport) = match sink {
            Sink::Otlp(destination) => return Self::to(destination, limits),
            Sink::File(settings) => ("files", FileExporter::new(settings).map(|files| Box::new(files) as _)),
            Sink::Console(_) => {
                ("standard output", ConsoleExporter::stdout().map(|console| Box::new(console) as _))
            }
        };
        let transport = transport.ok_or_else(|| ExportError::Json { variable: name.to_owned() })?;
        let signals = Signal::ALL.into_iter().filter(|signal| sink.takes(*signal)).collect();
        Ok(Self { name: name.to_owned(), signals, timeout: None, limits, transport, spool: None })
    }

    /// With a spool, and what is in it.
    ///
    /// # Errors
    ///
    /// As [`Spool::open`].
    pub fn with_spool(mut self, config: &SpoolConfig) -> Result<Self, Box<SpoolError>> {
        let (spool, recovered) = Spool::open(config)?;
        self.spool = Some((Arc::new(spool), recovered.held));
        Ok(self)
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet")
            .field("name", &self.name)
            .field("signals", &self.signals)
            .finish_non_exhaustive()
    }
}

/// Delivers requests to any number of destinations, each at its own pace.
///
/// Without [`Exporter::shut_down`], dropping it spools or drops at once what is not delivered. An attempt that hangs
/// keeps its thread until its timeout, and nobody waits for it.
#[derive(Debug)]
pub struct Exporter {
    lanes: Vec<Lane>,
}

/// One destination.
#[derive(Debug)]
struct Lane {
    signals: Vec<Signal>,
    shared: Arc<Shared>,
}

/// What the threads of a destination share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something has happened that a thread may wait for.
    changed: Condvar,
    started: Instant,
    /// Whether the sending thread waits for a receiver.
    is_attempting: AtomicBool,
}

#[derive(Debug)]
struct State {
    delivery: Delivery,
    sending: bool,
    saving: bool,
}

impl Exporter {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn start(outlets: Vec<Outlet>) -> io::Result<Self> {
        // Dropped on an error, it ends the threads that were started already.
        let mut exporter = Self { lanes: Vec::new() };
        for Outlet { name, signals, timeout, limits, mut transport, spool } in outlets {
            let (store, held) = spool.filter(|_| cfg!(feature = "spool")).unzip();
            let shared = Arc::new(Shared::new(Delivery::new(name, limits, held.as_ref())));
            exporter.lanes.push(Lane { signals, shared: Arc::clone(&shared) });
            if let Some(store) = store.clone() {
                let save = move |shared: &Shared| save_all(shared, &*store);
                spawn("otlp-save", &shared, |state| &mut state.saving, save)?;
            }
            let send = move |shared: &Shared| send_all(shared, &mut *transport, store.as_deref(), timeout);
            spawn("otlp-send", &shared, |state| &mut state.sending, send)?;
        }
        Ok(exporter)
    }

    /// Hands a request to every destination of its signal. Never waits for a receiver or a disk.
    pub fn push(&self, request: &Request) {
        for lane in self.lanes.iter().filter(|lane| lane.signals.contains(&request.signal)) {
            lane.shared.change(|state, now| state.delivery.push(request.clone(), now));
        }
    }

    /// What became of everything so far, for each destination in the order of the outlets.
    pub fn stats(&self) -> Vec<Stats> {
        self.lanes.iter().map(|Lane { shared, .. }| shared.lock().delivery.stats(shared.now())).collect()
    }

    /// Takes nothing more, sends what waits for at most `flush_for` (not at all for [`Duration::ZERO`]), spools or drops
    /// what is left, and ends. Waits longer than that for disks only, at most 30 s. Returns what became of everything.
    pub fn shut_down(self, flush_for: Duration) -> Vec<Stats> {
        self.close(flush_for);
        self.stats()
    }

    fn close(&self, flush_for: Duration) {
        if self.lanes.iter().all(|lane| lane.shared.lock().delivery.is_closed()) {
            return;
        }
        let shut_down = |state: &mut State, now| state.delivery.shut_down(now, flush_for);
        self.lanes.iter().for_each(|lane| lane.shared.change(shut_down));
        let flushed = Instant::now().checked_add(flush_for);
        let saved = flushed.and_then(|flushed| flushed.checked_add(MAX_SAVING));
        for Lane { shared, .. } in &self.lanes {
            shared.wait(flushed, |state| state.delivery.is_closed());
            // The sending thread may hang in an attempt: that the time is over is seen here.
            shared.change(shut_down);
        }
        // Only now, so that a disk that hangs takes no time from the others.
        for Lane { shared, .. } in &self.lanes {
            shared.wait(saved, |state| state.delivery.is_closed());
            shared.change(|state, _| state.delivery.abandon());
            shared.wait(saved, |state| !state.saving);
            // It ends soon, or when its attempt does.
            let hangs = |shared: &Shared| shared.is_attempting.load(Ordering::Acquire);
            shared.wait(saved, |state| !state.sending || hangs(shared));
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}

impl Shared {
    fn new(delivery: Delivery) -> Self {
        let state = State { delivery, sending: false, saving: false };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            started: Instant::now(),
            is_attempting: AtomicBool::new(false),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Held for moments only. A panic with it is contained and counted like any other.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and tells all threads.
    fn change(&self, change: impl FnOnce(&mut State, Duration)) {
        change(&mut self.lock(), self.now());
        self.changed.notify_all();
    }

    /// Asks until there is something to do. `ask` returns either that or when to ask again.
    fn next<T>(&self, ask: impl Fn(&mut Delivery, Duration) -> Result<T, Option<Duration>>) -> T {
        let mut state = self.lock();
        loop {
            let now = self.now();
            let phase = state.delivery.phase();
            let answer = ask(&mut state.delivery, now);
            if state.delivery.phase() != phase {
                self.changed.notify_all();
            }
            state = match answer {
                Ok(next) => return next,
                Err(None) => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Err(Some(until)) => {
                    let waited = self.changed.wait_timeout(state, until.saturating_sub(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Waits until `is_over`, or until then (`None`: for ever).
    fn wait(&self, until: Option<Instant>, is_over: impl Fn(&State) -> bool) {
        let mut state = self.lock();
        while !is_over(&state) {
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return,
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// What a store says. Its panic is an error like others, but counted.
    fn ask_store<T>(&self, ask: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|_| Err(self.store_panicked()))
    }

    fn store_panicked(&self) -> StoreError {
        self.lock().delivery.count_panic();
        "it panicked".into()
    }
}

/// Starts a thread that shows in a flag that it runs. If it panics, all that waits is counted as dropped.
fn spawn(
    name: &str,
    shared: &Arc<Shared>,
    flag: fn(&mut State) -> &mut bool,
    body: impl FnOnce(&Shared) + Send + 'static,
) -> io::Result<()> {
    *flag(&mut shared.lock()) = true;
    let of_thread = Arc::clone(shared);
    let run = move || {
        let shared = &*of_thread;
        let panicked = catch_unwind(AssertUnwindSafe(|| body(shared))).is_err();
        shared.change(|state, _| {
            if panicked {
                state.delivery.count_panic();
                state.delivery.abandon();
            }
            *flag(state) = false;
        });
    };
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map(drop).inspect_err(|_| *flag(&mut shared.lock()) = false)
}

/// What the sending thread does.
fn send_all(
    shared: &Shared,
    transport: &mut dyn Transport,
    store: Option<&dyn Store>,
    timeout: Option<Duration>,
) {
    loop {
        let step = shared.next(|delivery, now| match delivery.step(now) {
            Step::Wait(until) => Err(until),
            step => {
                // While the state is locked, so that nobody waits for what has begun.
                shared.is_attempting.store(matches!(step, Step::Send(..)), Ordering::Release);
                Ok(step)
            }
        });
        match (step, store) {
            (Step::Send(request, at_most), _) => {
                let timeout = timeout.into_iter().chain(at_most).min();
                let attempt = || transport.attempt(&request, timeout, SystemTime::now());
                let outcome = catch_unwind(AssertUnwindSafe(attempt));
                shared.is_attempting.store(false, Ordering::Release);
                shared.change(|state, now| match outcome {
                    Ok(outcome) => state.delivery.sent(now, outcome, jitter()),
                    Err(_) => state.delivery.panicked(),
                });
            }
            (Step::Load, Some(store)) => {
                let oldest = shared.ask_store(|| store.oldest());
                shared.change(|state, now| state.delivery.loaded(now, oldest));
            }
            (Step::Acknowledge(records), Some(store)) => acknowledge(shared, store, &records),
            (Step::Load | Step::Acknowledge(_) | Step::Wait(_) | Step::Done, _) => return,
        }
    }
}

/// What the saving thread does.
fn save_all(shared: &Shared, store: &dyn Store) {
    loop {
        let step = shared.next(|delivery, now| match delivery.save_step(now) {
            SaveStep::Wait(until) => Err(until),
            step => Ok(step),
        });
        match step {
            SaveStep::Save(group) => {
                let append = AssertUnwindSafe(|| store.append(&group));
                let appended = catch_unwind(append).unwrap_or_else(|_| {
                    Err(AppendError { error: shared.store_panicked(), dropped: Vec::new() })
                });
                drop(group);
                shared.change(|state, now| state.delivery.saved(now, appended));
            }
            SaveStep::Acknowledge(records) => acknowledge(shared, store, &records),
            SaveStep::Wait(_) | SaveStep::Done => break,
        }
    }
    if let Err(error) = shared.ask_store(|| store.sync()) {
        shared.change(|state, _| state.delivery.spool_failed(&error));
    }
}

fn acknowledge(shared: &Shared, store: &dyn Store, records: &[RecordId]) {
    let result = shared.ask_store(|| records.iter().try_for_each(|record| store.acknowledge(*record)));
    shared.change(|state, now| state.delivery.acknowledged(now, result));
}

#[cfg(test)]
mod tests;
