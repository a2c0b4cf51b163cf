//! The part of a queue that is in the spool, and the ways there and back.

use std::time::Duration;

use super::{Delivery, Flight, Phase, Place, SaveStep};
use crate::built_in::SpoolBuiltIn;
use crate::export::queue::Entry;
use crate::export::retry::RetryPolicy;
use crate::export::stats::{Amount, DropReason, PerSignal, Stats};
use crate::export::store::{AppendError, Appended, DroppedRecord, Held, RecordId, StoreError};
use crate::export::{Request, Signal};
use crate::sorted::SortedSet;

/// When to look again after what was read may be of before.
const READ_AGAIN: Duration = Duration::from_millis(100);
/// The time at risk once the end has begun, at most: whoever ends a process may lose patience.
const AT_RISK_AT_THE_END: Duration = Duration::from_millis(100);

/// Tries of the spool after it failed.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
    not_before: Duration,
}

impl Backoff {
    fn failed(&mut self, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        // One process uses the spool: nothing to spread.
        self.not_before = now.saturating_add(RetryPolicy::default().backoff(self.failures, 0.0));
    }

    fn succeeded(&mut self) {
        *self = Self::default();
    }
}

/// A request of the group that is on its way to the disk.
#[derive(Debug)]
struct Member {
    id: u64,
    signal: Signal,
    amount: Amount,
    /// Whether it was delivered or given up meanwhile.
    finished: bool,
}

/// When to read the spool.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Load {
    Now,
    At(Duration),
    Nothing,
}

/// What is known of the spool.
#[derive(Debug)]
pub(super) struct Spooled {
    _built_in: SpoolBuiltIn,
    waiting: PerSignal<Amount>,
    saving: Option<Vec<Member>>,
    /// Memory that the finished ones of them take until the disk has answered.
    finished_in_memory: usize,
    /// Records that were finished when the group left for the disk or since. What it pushes out may be among them.
    finished_meanwhile: Vec<RecordId>,
    loading: bool,
    /// Records that were dropped since reading began, and groups that were saved: what is read may be of before.
    dropped_meanwhile: Vec<RecordId>,
    saved_meanwhile: bool,
    /// Everything that was there is counted as unreadable, and so is every record before that one.
    is_all_counted: bool,
    counted_before: Option<RecordId>,
    to_acknowledge: Vec<RecordId>,
    acknowledging: Vec<RecordId>,
    reading: Backoff,
    writing: Backoff,
}

impl Spooled {
    /// What was in it, if the feature `spool` is built in.
    pub fn new(held: &Held, counts: &mut Stats) -> Option<Self> {
        let mut spooled = Self {
            _built_in: SpoolBuiltIn::get()?,
            waiting: PerSignal::default(),
            saving: None,
            finished_in_memory: 0,
            finished_meanwhile: Vec::new(),
            loading: false,
            dropped_meanwhile: Vec::new(),
            saved_meanwhile: false,
            is_all_counted: false,
            counted_before: None,
            to_acknowledge: Vec::new(),
            acknowledging: Vec::new(),
            reading: Backoff::default(),
            writing: Backoff::default(),
        };
        for (signal, waiting) in held.waiting.iter() {
            let counts = counts.signals.get_mut(signal);
            let lost = [
                (DropReason::UnreadableSpool, *held.unreadable.get(signal)),
                (DropReason::SpoolFull, *held.dropped.get(signal)),
            ];
            counts.recovered = *waiting;
            for (reason, amount) in lost {
                counts.recovered += amount;
                counts.dropped.add(reason, amount);
            }
            *spooled.waiting.get_mut(signal) = *waiting;
        }
        counts.possible_duplicates = held.possible_duplicates;
        if held.damaged_bytes > 0 {
            counts.spool_error = Some(format!("{} damaged bytes were passed over", held.damaged_bytes));
        }
        Some(spooled)
    }

    /// What is in the spool and not delivered.
    pub fn waiting(&self) -> &PerSignal<Amount> {
        &self.waiting
    }

    /// Whether it holds nothing to send.
    pub fn is_empty(&self) -> bool {
        self.waiting.iter().all(|(_, waiting)| waiting.requests == 0)
    }

    /// Whether there is nothing to send and nothing on its way.
    pub fn is_idle(&self) -> bool {
        self.is_empty() && self.is_settled()
    }

    /// Whether nothing is on its way to the disk.
    pub fn is_settled(&self) -> bool {
        self.saving.is_none() && self.to_acknowledge.is_empty() && self.acknowledging.is_empty()
    }

    /// Memory of requests that are finished and still on their way to the disk.
    pub fn finished_in_memory(&self) -> usize {
        self.finished_in_memory
    }

    /// Records to acknowledge now.
    pub fn start_acknowledging(&mut self, now: Duration) -> Option<Vec<RecordId>> {
        let due = !self.to_acknowledge.is_empty()
            && self.acknowledging.is_empty()
            && now >= self.reading.not_before;
        due.then(|| {
            self.acknowledging = std::mem::take(&mut self.to_acknowledge);
            self.acknowledging.clone()
        })
    }

    /// Whether to read the oldest record now. Not before all that are finished are acknowledged: it would be one of these.
    pub fn start_loading(&mut self, now: Duration) -> Load {
        if now < self.reading.not_before {
            return Load::At(self.reading.not_before);
        }
        let acknowledged = self.to_acknowledge.is_empty() && self.acknowledging.is_empty();
        if self.is_empty() || !acknowledged {
            return Load::Nothing;
        }
        self.loading = true;
        self.dropped_meanwhile.clear();
        self.saved_meanwhile = false;
        Load::Now
    }

    /// A request is delivered or given up: its record is done, the one that it has or the one that it will get.
    pub fn finish(&mut self, flight: &Flight) {
        let request = &flight.entry.request;
        if let Place::Spool(record) = flight.place {
            self.waiting.get_mut(request.signal).subtract(Amount::of(request));
            self.to_acknowledge.push(record);
            if self.saving.is_some() {
                self.finished_meanwhile.push(record);
            }
        } else if let Some(member) =
            self.saving.iter_mut().flatten().find(|member| member.id == flight.entry.id)
        {
            member.finished = true;
            self.finished_in_memory += flight.entry.cost();
        }
    }
}

impl Delivery {
    /// What the spool's oldest record is. `None`: there is none that can be read.
    pub fn loaded(&mut self, now: Duration, oldest: Result<Option<(RecordId, Request)>, StoreError>) {
        let id = self.new_id();
        let Some(spooled) = &mut self.spooled else { return };
        spooled.loading = false;
        match oldest {
            Ok(Some((record, request))) => {
                spooled.reading.succeeded();
                // What made room meanwhile is counted as dropped, and not sent any more.
                if !spooled.dropped_meanwhile.contains(&record) && self.phase != Phase::Closed {
                    let entry = Entry { id, request, since: now, saving: false };
                    self.flight = Some(Flight { entry, place: Place::Spool(record), sending: false });
                }
            }
            // It may have been read before what is there now was.
            Ok(None) if spooled.saved_meanwhile || spooled.saving.is_some() => {
                spooled.reading.not_before = now.saturating_add(READ_AGAIN);
            }
            Ok(None) => {
                spooled.is_all_counted = true;
                for (signal, lost) in std::mem::take(&mut spooled.waiting).iter() {
                    self.counts.signals.get_mut(signal).dropped.add(DropReason::UnreadableSpool, *lost);
                }
            }
            Err(error) => {
                spooled.reading.failed(now);
                self.counts.spool_error = Some(format!("cannot read the spool: {error}"));
            }
        }
    }

    /// How acknowledging ended. After an error all are acknowledged again.
    pub fn acknowledged(&mut self, now: Duration, result: Result<(), StoreError>) {
        let Some(spooled) = &mut self.spooled else { return };
        let records = std::mem::take(&mut spooled.acknowledging);
        let Err(error) = result else {
            spooled.reading.succeeded();
            return;
        };
        spooled.reading.failed(now);
        self.counts.spool_error = Some(format!("cannot acknowledge in the spool: {error}"));
        // At the end there is no later: these come again in the next run.
        if self.phase != Phase::Closing {
            spooled.to_acknowledge.splice(0..0, records);
        }
    }

    /// What to do next, for the thread that writes the spool. It reports what came of it before it asks again.
    pub fn save_step(&mut self, now: Duration) -> SaveStep {
        self.advance(now);
        let Some(spooled) = &mut self.spooled else { return SaveStep::Done };
        if self.phase == Phase::Closed {
            return SaveStep::Done;
        }
        if spooled.saving.is_some() {
            return SaveStep::Wait(None);
        }
        let closing = self.phase == Phase::Closing;
        if closing {
            // The sending thread may hang in its last attempt.
            spooled.reading.not_before = now;
            if let Some(records) = spooled.start_acknowledging(now) {
                return SaveStep::Acknowledge(records);
            }
        }
        // What skips older records cannot be acknowledged before them: it is not spooled while it is in flight.
        let in_order = spooled.is_empty() || closing;
        let flying = self.flight.as_mut().filter(|flight| flight.place == Place::Memory && in_order);
        let oldest = flying.iter().map(|flight| flight.entry.since).chain(self.queue.iter().map(|e| e.since));
        let Some(oldest) = oldest.min() else { return SaveStep::Wait(None) };
        let crowded = self.queue.cost() > self.limits.queue_bytes / 2;
        let at_risk = match self.phase {
            Phase::Flushing { .. } => self.limits.max_time_at_risk.min(AT_RISK_AT_THE_END),
            _ => self.limits.max_time_at_risk,
        };
        let due = if crowded { now } else { oldest.saturating_add(at_risk) };
        let due = due.max(spooled.writing.not_before);
        if now < due && !closing {
            return SaveStep::Wait(Some(due));
        }
        let mut group = Vec::new();
        if let Some(flight) = flying {
            flight.entry.saving = true;
            group.push(flight.entry.clone());
        }
        group.extend(self.queue.start_saving(self.limits.queue_bytes / 2));
        let member = |entry: &Entry| Member {
            id: entry.id,
            signal: entry.request.signal,
            amount: Amount::of(&entry.request),
            finished: false,
        };
        spooled.saving = Some(group.iter().map(member).collect());
        spooled.finished_meanwhile.clone_from(&spooled.acknowledging);
        spooled.finished_meanwhile.extend(&spooled.to_acknowledge);
        SaveStep::Save(group.into_iter().map(|entry| entry.request).collect())
    }

    /// How saving the group ended.
    pub fn saved(&mut self, now: Duration, result: Result<Appended, AppendError>) {
        let Some(spooled) = &mut self.spooled else { return };
        let group = spooled.saving.take().unwrap_or_default();
        spooled.finished_in_memory = 0;
        // Too late: all of it is counted already.
        if self.phase == Phase::Closed {
            return;
        }
        let mut saved = SortedSet::new();
        match result {
            Ok(Appended { records, dropped }) => {
                spooled.writing.succeeded();
                spooled.saved_meanwhile = true;
                if std::mem::take(&mut spooled.is_all_counted) {
                    spooled.counted_before = records.first().copied();
                }
                for (member, record) in group.into_iter().zip(records) {
                    saved.insert(member.id);
                    if member.finished {
                        spooled.to_acknowledge.push(record);
                        continue;
                    }
                    *spooled.waiting.get_mut(member.signal) += member.amount;
                    if let Some(flight) = self.flight.as_mut().filter(|flight| flight.entry.id == member.id) {
                        flight.place = Place::Spool(record);
                    }
                }
                self.queue.end_saving(&saved);
                dropped.into_iter().for_each(|dropped| self.dropped_from_spool(dropped));
            }
            Err(AppendError { error, dropped }) => {
                spooled.writing.failed(now);
                self.counts.spool_error = Some(format!("cannot write the spool: {error}"));
                self.queue.end_saving(&saved);
                dropped.into_iter().for_each(|dropped| self.dropped_from_spool(dropped));
                // There is no later.
                if self.phase == Phase::Closing {
                    self.abandon();
                }
            }
        }
        if let Some(flight) = &mut self.flight {
            flight.entry.saving = false;
        }
    }

    fn dropped_from_spool(&mut self, dropped: DroppedRecord) {
        let DroppedRecord { record, signal, amount } = dropped;
        let Some(spooled) = &mut self.spooled else { return };
        let before = spooled.to_acknowledge.len();
        spooled.to_acknowledge.retain(|finished| *finished != record);
        let is_finished =
            spooled.to_acknowledge.len() < before || spooled.finished_meanwhile.contains(&record);
        if is_finished || spooled.counted_before.is_some_and(|before| record < before) {
            return;
        }
        spooled.waiting.get_mut(signal).subtract(amount);
        if let Some(flight) = self.flight.as_mut().filter(|flight| flight.place == Place::Spool(record)) {
            flight.place = Place::PushedOut;
            return;
        }
        if spooled.loading {
            spooled.dropped_meanwhile.push(record);
        }
        self.counts.signals.get_mut(signal).dropped.add(DropReason::SpoolFull, amount);
    }
}
