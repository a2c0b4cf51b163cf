//! A tracer that runs, with what the agent keeps of it.

use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::governor::{Allowance, Change};
use super::meter::{Meter, thread_time};
use super::report::TracerReport;
use crate::error::{Error, Result};
use crate::tracer::{Info, Tracer};
use crate::units::share_of;

/// A tracer that runs.
#[derive(Debug)]
pub(super) struct Slot {
    pub info: &'static Info,
    pub tracer: Box<dyn Tracer>,
    pub meter: Meter,
    /// What the governor allows.
    pub allowance: Allowance,
    /// Whether its sampling can be changed.
    pub samples: bool,
    /// Descriptors in the event loop.
    descriptors: Vec<RawFd>,
    attached_since: Option<Instant>,
    /// How long it was attached in this window, before it was attached last.
    attached: Duration,
    window_start: Instant,
    /// When it was detached for good: the window ended then.
    ended: Option<Instant>,
}

impl Slot {
    /// Takes a tracer that has started. Its descriptors come into the loop.
    pub fn new(
        info: &'static Info,
        mut tracer: Box<dyn Tracer>,
        registry: &Registry,
        token: Token,
        window_start: Instant,
    ) -> Result<Self> {
        let mut descriptors: Vec<RawFd> = tracer.descriptors().iter().map(AsRawFd::as_raw_fd).collect();
        descriptors.extend(tracer.event_loop());
        for fd in &descriptors {
            let added = registry.register(&mut SourceFd(fd), token, Interest::READABLE);
            added.map_err(Error::io("epoll"))?;
        }
        let samples = tracer.set_sampling(Allowance::FULL.one_in).is_ok();
        Ok(Self {
            info,
            tracer,
            meter: Meter::default(),
            allowance: Allowance::FULL,
            samples,
            descriptors,
            attached_since: Some(Instant::now()),
            attached: Duration::ZERO,
            window_start,
            ended: None,
        })
    }

    /// Takes its descriptors out of the loop, as must be done before it is dropped.
    pub fn leave(&mut self, registry: &Registry) {
        for fd in self.descriptors.drain(..) {
            // It is in there.
            let _ = registry.deregister(&mut SourceFd(&fd));
        }
    }

    /// Does something with the tracer, on its account.
    pub fn timed<R>(&mut self, work: impl FnOnce(&mut dyn Tracer) -> R) -> R {
        let before = thread_time();
        let result = work(&mut *self.tracer);
        self.meter.spent(thread_time().saturating_sub(before));
        result
    }

    /// Attaches or detaches it, if it is not yet as wanted.
    pub fn set_attached(&mut self, wanted: bool) -> Result<()> {
        if wanted == self.attached_since.is_some() {
            return Ok(());
        }
        if wanted {
            self.timed(|tracer| tracer.resume())?;
            self.attached_since = Some(Instant::now());
        } else {
            self.timed(|tracer| tracer.pause())?;
            self.account(Instant::now());
        }
        Ok(())
    }

    /// Detaches it for good.
    pub fn end_tracing(&mut self, now: Instant) -> Result<()> {
        if self.attached_since.is_some() {
            self.timed(|tracer| tracer.pause())?;
            self.account(now);
        }
        self.ended = Some(now);
        Ok(())
    }

    /// It was attached until now. Time before the window belongs to those before.
    fn account(&mut self, now: Instant) {
        if let Some(since) = self.attached_since.take() {
            self.attached += now.saturating_duration_since(since.max(self.window_start));
        }
    }

    /// Whether it is to be attached now, so long after its cycle began.
    pub fn wants_attached(&self, into_cycle: Duration, cycle: Duration) -> bool {
        self.allowance.attached >= 1.0 || into_cycle < share_of(cycle, self.allowance.attached)
    }

    /// Carries out what the governor decided, as far as the tracer can.
    pub fn apply(&mut self, change: &Change) -> Result<()> {
        let mut allowance = change.to;
        self.meter.attached_changes(allowance.attached / self.allowance.attached.max(f64::MIN_POSITIVE));
        if change.to.one_in != self.allowance.one_in {
            allowance.one_in = self.timed(|tracer| tracer.set_sampling(change.to.one_in))?;
            self.meter.forget();
        }
        self.allowance = allowance;
        Ok(())
    }

    /// Share of the window for which it was attached; 1 exactly where it was never detached.
    pub fn coverage(&self, now: Instant) -> f64 {
        let now = self.ended.unwrap_or(now);
        let window = now.saturating_duration_since(self.window_start);
        match self.attached_since {
            Some(since) if since <= self.window_start && self.attached.is_zero() => 1.0,
            since => {
                let now_attached = since.map_or(Duration::ZERO, |since| {
                    now.saturating_duration_since(since.max(self.window_start))
                });
                let share = (self.attached + now_attached).as_secs_f64() / window.as_secs_f64().max(1e-9);
                share.clamp(0.0, 1.0)
            }
        }
    }

    /// What there is to tell of the window until now.
    pub fn report(&mut self, now: Instant) -> Result<TracerReport> {
        Ok(TracerReport {
            name: self.info.name,
            coverage: self.coverage(now),
            one_in: self.allowance.one_in,
            rungs: self.tracer.rungs().to_vec(),
            stats: self.tracer.stats()?,
            overhead: self.tracer.overhead()?,
            map_bytes: self.tracer.map_bytes(),
            cost: 0.0,
        })
    }

    /// Another window begins.
    pub fn begin_window(&mut self, now: Instant) {
        self.attached = Duration::ZERO;
        self.window_start = now;
    }
}
