//! A simulated machine: a clock that jumps from event to event, a disk and a receiver that take time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::super::{Delivery, Limits, SaveStep, Step};
use crate::export::Request;
use crate::export::Signal;
use crate::export::error::Failure;
use crate::export::reply::Accepted;
use crate::export::stats::{Amount, PerSignal, SignalStats, Stats};
use crate::export::store::{AppendError, Appended, DroppedRecord, Held, RecordId, StoreError};
use crate::export::transport::Refusal;

/// Numbers that look random and are the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.below(most.as_micros() as u64 + 1))
    }
}

/// A request of `size` bytes that carries its number.
pub fn request(number: u32, items: u64, size: usize) -> Request {
    let mut body = vec![0; size.max(4)];
    body[..4].copy_from_slice(&number.to_be_bytes());
    Request { signal: Signal::ALL[number as usize % 4], items, body: Bytes::from(body) }
}

pub fn number(request: &Request) -> u32 {
    u32::from_be_bytes(request.body[..4].try_into().unwrap())
}

/// A disk with a spool on it. What is appended is there at once, and known to be when the operation ends.
pub struct Disk {
    records: BTreeMap<RecordId, Request>,
    bytes: usize,
    /// What the group at hand pushed out.
    pushed_out: Vec<DroppedRecord>,
    next: u64,
    pub capacity: usize,
    /// Appending fails.
    pub full: bool,
    /// Everything fails.
    pub broken: bool,
    pub latency: Duration,
    pub appends: u64,
}

impl Disk {
    pub fn new(capacity: usize) -> Self {
        Self {
            records: BTreeMap::new(),
            bytes: 0,
            pushed_out: Vec::new(),
            next: 0,
            capacity,
            full: false,
            broken: false,
            latency: Duration::ZERO,
            appends: 0,
        }
    }

    pub fn numbers(&self) -> Vec<u32> {
        self.records.values().map(number).collect()
    }

    fn append(&mut self, requests: &[Request]) -> Result<Appended, AppendError> {
        self.appends += 1;
        if self.full || self.broken {
            if self.bytes > self.capacity / 2 {
                self.push_out();
            }
            let dropped = std::mem::take(&mut self.pushed_out);
            return Err(AppendError { error: "no space left on device".into(), dropped });
        }
        let mut appended = Appended::default();
        for request in requests {
            self.next += 1;
            self.records.insert(RecordId(self.next), request.clone());
            self.bytes += request.body.len();
            appended.records.push(RecordId(self.next));
            while self.bytes > self.capacity {
                self.push_out();
            }
        }
        appended.dropped = std::mem::take(&mut self.pushed_out);
        Ok(appended)
    }

    fn push_out(&mut self) {
        let (record, oldest) = self.records.pop_first().unwrap();
        self.bytes -= oldest.body.len();
        let (signal, amount) = (oldest.signal, Amount::of(&oldest));
        self.pushed_out.push(DroppedRecord { record, signal, amount });
    }

    fn oldest(&self) -> Result<Option<(RecordId, Request)>, StoreError> {
        if self.broken {
            return Err("I/O error".into());
        }
        Ok(self.records.first_key_value().map(|(record, request)| (*record, request.clone())))
    }

    fn acknowledge(&mut self, records: &[RecordId]) -> Result<(), StoreError> {
        if self.broken {
            return Err("I/O error".into());
        }
        for record in records {
            if self.records.keys().next().is_some_and(|oldest| oldest < record)
                && self.records.contains_key(record)
            {
                return Err(OUT_OF_ORDER.into());
            }
            self.bytes -= self.records.remove(record).map_or(0, |request| request.body.len());
        }
        Ok(())
    }

    pub fn held(&self) -> Held {
        let mut waiting = PerSignal::default();
        self.records.values().for_each(|request| *waiting.get_mut(request.signal) += Amount::of(request));
        Held { waiting, ..Held::default() }
    }
}

const OUT_OF_ORDER: &str = "it is not the oldest";

pub type Outcome = Result<Accepted, Refusal>;

pub fn refused(code: u16, asked_to_wait: Option<Duration>) -> Outcome {
    Err(Refusal {
        failure: Box::new(Failure::Status { code, message: None }),
        asked_to_wait,
        ambiguous: false,
    })
}

pub fn unreachable() -> Outcome {
    let refused = std::io::ErrorKind::ConnectionRefused.into();
    Err(Refusal { failure: Box::new(Failure::Connect(refused)), asked_to_wait: None, ambiguous: false })
}

pub fn no_answer() -> Outcome {
    let failure = Failure::Timeout(Duration::from_secs(10));
    Err(Refusal { failure: Box::new(failure), asked_to_wait: None, ambiguous: true })
}

pub fn accepted() -> Outcome {
    Ok(Accepted::default())
}

/// What the receiver does with a request at a time: how long it takes, and what comes of it.
pub type Receiver<'a> = Box<dyn FnMut(Duration, &Request) -> (Duration, Outcome) + 'a>;

enum Sending {
    Attempt(Outcome),
    Read(Result<Option<(RecordId, Request)>, StoreError>),
    /// As late as possible: a group may push these records out meanwhile.
    Acknowledge(Vec<RecordId>),
}

enum Saving {
    Saved(Result<Appended, AppendError>),
    Acknowledged(Result<(), StoreError>),
}

pub struct Machine<'a> {
    pub now: Duration,
    pub delivery: Delivery,
    pub disk: Option<&'a RefCell<Disk>>,
    receiver: Receiver<'a>,
    sending: Option<(Duration, Sending)>,
    saving: Option<(Duration, Saving)>,
    /// When each attempt began, and the number of its request.
    pub attempts: Vec<(Duration, u32)>,
}

impl<'a> Machine<'a> {
    pub fn new(limits: Limits, disk: Option<&'a RefCell<Disk>>, receiver: Receiver<'a>) -> Self {
        let held = disk.map(|disk| disk.borrow().held());
        Self {
            now: Duration::ZERO,
            delivery: Delivery::new("there".to_owned(), limits, held.as_ref()),
            disk,
            receiver,
            sending: None,
            saving: None,
            attempts: Vec::new(),
        }
    }

    pub fn push(&mut self, request: Request) {
        self.delivery.push(request, self.now);
    }

    pub fn stats(&self) -> Stats {
        self.delivery.stats(self.now)
    }

    /// The sum of something over all signals, in requests.
    pub fn requests(&self, of: impl Fn(&SignalStats) -> Amount) -> u64 {
        self.stats().total(of).requests
    }

    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let next = [self.run_sender(), self.run_saver()].into_iter().flatten().min();
            check(&self.stats());
            match next.filter(|next| *next <= end) {
                Some(next) => self.now = self.now.max(next),
                None => break,
            }
        }
        self.now = end;
    }

    /// Starts and ends what the sending thread does now; when it will do more.
    fn run_sender(&mut self) -> Option<Duration> {
        loop {
            if let Some((end, _)) = &self.sending {
                if *end > self.now {
                    return Some(*end);
                }
            }
            match self.sending.take() {
                Some((_, Sending::Attempt(outcome))) => self.delivery.sent(self.now, outcome, 0.0),
                Some((_, Sending::Read(oldest))) => self.delivery.loaded(self.now, oldest),
                Some((_, Sending::Acknowledge(records))) => {
                    let result = self.disk.unwrap().borrow_mut().acknowledge(&records);
                    let in_order = result.as_ref().err().is_none_or(|e| e.to_string() != OUT_OF_ORDER);
                    assert!(in_order, "{records:?}");
                    self.delivery.acknowledged(self.now, result);
                }
                None => {}
            }
            let (latency, sending) = match self.delivery.step(self.now) {
                Step::Send(request, timeout) => {
                    self.attempts.push((self.now, number(&request)));
                    let (latency, outcome) = (self.receiver)(self.now, &request);
                    match timeout.filter(|timeout| *timeout < latency) {
                        Some(timeout) => (timeout, Sending::Attempt(no_answer())),
                        None => (latency, Sending::Attempt(outcome)),
                    }
                }
                Step::Load => {
                    let disk = self.disk.unwrap().borrow();
                    (disk.latency, Sending::Read(disk.oldest()))
                }
                Step::Acknowledge(records) => {
                    (self.disk.unwrap().borrow().latency, Sending::Acknowledge(records))
                }
                Step::Wait(Some(until)) => {
                    assert!(until > self.now, "the sender would spin");
                    return Some(until);
                }
                Step::Wait(None) | Step::Done => return None,
            };
            self.sending = Some((self.now + latency, sending));
        }
    }

    fn run_saver(&mut self) -> Option<Duration> {
        let disk = self.disk?;
        loop {
            if let Some((end, _)) = &self.saving {
                if *end > self.now {
                    return Some(*end);
                }
            }
            match self.saving.take() {
                Some((_, Saving::Saved(result))) => self.delivery.saved(self.now, result),
                Some((_, Saving::Acknowledged(result))) => self.delivery.acknowledged(self.now, result),
                None => {}
            }
            let mut disk = disk.borrow_mut();
            let saving = match self.delivery.save_step(self.now) {
                SaveStep::Save(group) => Saving::Saved(disk.append(&group)),
                SaveStep::Acknowledge(records) => Saving::Acknowledged(disk.acknowledge(&records)),
                SaveStep::Wait(Some(until)) => {
                    assert!(until > self.now, "the saver would spin");
                    return Some(until);
                }
                SaveStep::Wait(None) | SaveStep::Done => return None,
            };
            self.saving = Some((self.now + disk.latency, saving));
        }
    }

    /// Whether the memory of waiting requests is within its bound.
    pub fn fits(&self, limits: Limits) -> bool {
        self.delivery.memory() <= limits.queue_bytes
    }
}

/// Nothing is lost without being counted.
pub fn check(stats: &Stats) {
    for (signal, of) in stats.signals.iter() {
        let SignalStats { accepted, recovered, delivered, rejected, .. } = *of;
        let dropped = of.dropped.total();
        let waiting = (of.in_memory.items + of.in_spool.items, of.in_memory.requests + of.in_spool.requests);
        assert_eq!(
            accepted.items + recovered.items,
            delivered.items + rejected.items + dropped.items + waiting.0,
            "items of {signal:?}: {of:#?}"
        );
        assert_eq!(
            accepted.requests + recovered.requests,
            delivered.requests + dropped.requests + waiting.1,
            "requests of {signal:?}: {of:#?}"
        );
    }
}
