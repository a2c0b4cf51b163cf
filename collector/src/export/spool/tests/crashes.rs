//! Any order of appends, acknowledgements and crashes, against what a spool promises.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::disk::{Crash, Disk, Numbers};
use super::{drain, id_of, request};
use crate::export::Request;
use crate::export::spool::{MAX_IDLE, MAX_UNSYNCED, Recovered, Spool};
use crate::export::store::RecordId;

/// A second or two in all without optimisation.
const RUNS: u64 = 1_000;

/// What the spool must hold, by what it said.
struct Model {
    disk: Disk,
    numbers: Numbers,
    max_bytes: u64,
    segment_bytes: u64,
    spool: Option<Spool>,
    next_id: u64,
    /// Accepted, and not acknowledged or dropped, in order.
    queue: VecDeque<u64>,
    /// Which request a record of an accepted group is.
    records: BTreeMap<RecordId, u64>,
    /// Handed over and not accepted: they may come.
    maybe: BTreeSet<u64>,
    acknowledged: BTreeSet<u64>,
    /// Acknowledged when nothing more could be written: they come again after any crash.
    unlogged: bool,
    /// A crash may have undone acknowledgements.
    may_repeat: u64,
    was_cut: bool,
    /// The oldest may have been dropped by an append that did not live to say so.
    may_lack: bool,
    faulty: bool,
    /// Records were given to requests that no spool of this size holds.
    has_gaps: bool,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let (max_bytes, segment_bytes) = (600 + numbers.below(8_000), 100 + numbers.below(2_000));
        Self {
            disk: Disk::new(seed),
            numbers,
            max_bytes,
            segment_bytes,
            spool: None,
            next_id: 1,
            queue: VecDeque::new(),
            records: BTreeMap::new(),
            maybe: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            unlogged: false,
            may_repeat: 0,
            was_cut: false,
            may_lack: false,
            faulty: false,
            has_gaps: false,
        }
    }

    /// Ends what runs and opens the spool again, in as many tries as it takes.
    fn restart(&mut self, crash: Crash) {
        self.clear_faults();
        let mut crash = crash;
        loop {
            self.disk.crash_after(0);
            drop(self.spool.take());
            self.disk.restart(crash);
            self.check_bound();
            self.was_cut |= crash == Crash::PowerCut;
            if self.numbers.one_in(6) {
                self.disk.crash_after(self.numbers.below(20));
            }
            if let Ok(opened) = Spool::open_on(self.disk.volume(), self.max_bytes, self.segment_bytes) {
                self.opened(opened);
                return;
            }
            assert!(self.disk.is_off(), "open failed without a reason");
            crash = if self.numbers.one_in(2) { Crash::Kill } else { Crash::PowerCut };
        }
    }

    fn opened(&mut self, (spool, recovered): (Spool, Recovered)) {
        // Killed, it lost no acknowledgement that it could write.
        if std::mem::take(&mut self.was_cut) && !self.unlogged {
            self.may_repeat += recovered.held.possible_duplicates;
        } else if self.unlogged {
            self.may_repeat = u64::MAX;
        }
        let waiting: u64 = recovered.held.waiting.iter().map(|(_, amount)| amount.requests).sum();
        assert_eq!(spool.stats().waiting, waiting);
        assert_eq!(recovered.held.dropped, Default::default());
        if !self.faulty && !self.has_gaps {
            assert_eq!(recovered.held.damaged_bytes, 0);
        }
        self.spool = Some(spool);
        self.check_bound();
    }

    fn check_bound(&self) {
        let used = self.disk.used();
        assert!(used <= self.max_bytes, "{used} bytes of {}", self.max_bytes);
        if let Some(spool) = self.spool.as_ref().filter(|_| !self.disk.is_off()) {
            assert!(spool.stats().bytes >= used, "{} counted of {used}", spool.stats().bytes);
        }
    }

    fn clear_faults(&mut self) {
        self.disk.leave_free(None);
        self.disk.fail_syncs(0);
    }

    /// After an error: if the machine went off, starts it again.
    fn survive(&mut self) {
        if self.disk.is_off() {
            let crash = if self.numbers.one_in(2) { Crash::Kill } else { Crash::PowerCut };
            self.restart(crash);
        }
    }

    fn append(&mut self) {
        let group: Vec<Request> = (0..1 + self.numbers.below(5))
            .map(|_| {
                self.next_id += 1;
                let most = if self.numbers.one_in(20) { 9_000 } else { 250 };
                request(self.next_id - 1, self.numbers.below(most) as usize)
            })
            .collect();
        let ids: Vec<u64> = group.iter().map(id_of).collect();
        self.has_gaps |= group.iter().any(|request| request.body.len() as u64 + 512 > self.max_bytes);
        let spool = self.spool.as_ref().unwrap();
        match spool.append(&group) {
            Ok(appended) => {
                assert_eq!(appended.records.len(), group.len());
                assert!(appended.records.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1));
                self.records.extend(appended.records.iter().copied().zip(ids.iter().copied()));
                self.queue.extend(ids);
                for dropped in appended.dropped {
                    let id = self.records.get(&dropped.record);
                    match id.filter(|id| self.queue.contains(*id)) {
                        Some(id) => self.drop_request(*id, dropped.amount.bytes),
                        // One of a group that had failed.
                        None => assert!(!self.maybe.is_empty() || self.may_repeat > 0, "{dropped:?}"),
                    }
                }
            }
            Err(_) => {
                assert!(self.faulty || self.disk.is_off(), "append failed without a reason");
                self.may_lack = true;
                self.maybe.extend(ids);
                self.survive();
            }
        }
    }

    fn drop_request(&mut self, id: u64, bytes: u64) {
        let too_large = bytes + 512 > self.max_bytes;
        let position = self.queue.iter().position(|waiting| *waiting == id).unwrap();
        assert!(too_large || self.may_lack || position == 0, "{id} was not the oldest");
        self.queue.remove(position);
    }

    fn take(&mut self) {
        let spool = self.spool.as_ref().unwrap();
        match spool.oldest() {
            Ok(Some((record, request))) => {
                let id = id_of(&request);
                assert_eq!(request, super::request(id, request.body.len() - 8), "its content is another");
                self.arrived(id);
                let acknowledged = self.spool.as_ref().unwrap().acknowledge(record);
                self.unlogged |= self.faulty;
                if acknowledged.is_err() {
                    assert!(self.faulty || self.disk.is_off(), "{:?}", acknowledged);
                    self.acknowledged.remove(&id);
                    self.maybe.insert(id);
                    self.survive();
                }
            }
            Ok(None) => {
                assert!(self.queue.is_empty() || self.may_lack, "{:?} are missing", self.queue);
                self.maybe.extend(self.queue.drain(..));
            }
            Err(_) => {
                assert!(self.disk.is_off(), "reading failed without a reason");
                self.survive();
            }
        }
    }

    /// The spool gave a request back.
    fn arrived(&mut self, id: u64) {
        if let Some(position) = self.queue.iter().position(|waiting| *waiting == id) {
            assert!(position == 0 || self.may_lack, "{id} came before {:?}", self.queue);
            // A file that is deleted for an append that fails may still come back.
            self.maybe.extend(self.queue.drain(..=position));
            self.maybe.remove(&id);
        } else if !self.maybe.remove(&id) {
            assert!(self.acknowledged.contains(&id), "{id} was never appended, or was dropped");
            assert!(self.may_repeat > 0, "{id} came again");
            self.may_repeat = self.may_repeat.saturating_sub(1);
        }
        self.acknowledged.insert(id);
    }

    fn step(&mut self) {
        match self.numbers.below(40) {
            0 => self.restart(Crash::Kill),
            1 => self.restart(Crash::PowerCut),
            2 => self.disk.crash_after(self.numbers.below(30)),
            3 => {
                self.faulty = true;
                self.disk.leave_free(Some(self.numbers.below(600)));
            }
            4 => self.clear_faults(),
            5 => {
                self.faulty = true;
                self.disk.fail_syncs(1);
            }
            6 => {
                if self.spool.as_ref().unwrap().sync().is_err() {
                    self.survive();
                } else if !self.unlogged {
                    assert_eq!(self.spool.as_ref().unwrap().stats().unsynced_acknowledgements, 0);
                }
            }
            7 if !self.disk.is_off() => {
                // An end in order: even a power cut undoes nothing.
                self.clear_faults();
                drop(self.spool.take());
                self.restart(Crash::PowerCut);
            }
            8..24 => self.append(),
            _ => self.take(),
        }
        if self.disk.is_off() {
            self.survive();
        }
        self.check_bound();
    }

    fn drain(&mut self) {
        self.restart(Crash::PowerCut);
        while self.disk.is_off() {
            self.restart(Crash::Kill);
        }
        self.disk.crash_after(u64::MAX);
        let mut steps = 0;
        while self.spool.as_ref().unwrap().oldest().unwrap().is_some() {
            self.take();
            steps += 1;
            assert!(steps < 10_000, "it never ends");
        }
        self.take();
        assert_eq!(self.spool.as_ref().unwrap().stats().waiting, 0);
        assert!(self.disk.names().len() <= 1 && self.disk.used() <= MAX_IDLE, "{:?}", self.disk.names());
        drop(self.spool.take());
        assert_eq!(self.disk.names(), Vec::<String>::new());
    }
}

fn run(seed: u64, with_faults: bool) {
    let mut model = Model::new(seed);
    model.restart(Crash::Kill);
    for _ in 0..60 {
        if !with_faults {
            // The numbers of the faults mean appending instead.
            while matches!(model.numbers.clone().below(40), 3 | 5) {
                model.numbers.below(40);
            }
        }
        model.step();
    }
    model.drain();
}

#[test]
fn accepted_requests_survive_crashes_in_order() {
    for seed in 0..RUNS {
        println!("seed {seed}");
        run(seed, false);
    }
}

#[test]
fn accepted_requests_survive_crashes_of_disks_that_fail() {
    for seed in 0..RUNS {
        println!("seed {seed}");
        run(seed, true);
    }
}

#[test]
fn a_power_cut_while_an_empty_spool_is_deleted_undoes_little() {
    for seed in 0..400 {
        let disk = Disk::new(seed);
        let spool = Spool::open_on(disk.volume(), 100_000, 1_000).unwrap().0;
        spool.append(&(0..200).map(|id| request(id, 0)).collect::<Vec<_>>()).unwrap();
        drain(&spool);
        disk.crash_after(seed % 8);
        drop(spool);
        disk.restart(Crash::PowerCut);
        let (spool, recovered) = Spool::open_on(disk.volume(), 100_000, 1_000).unwrap();
        let waiting = spool.stats().waiting;
        assert!(waiting <= MAX_UNSYNCED, "{waiting} come again");
        assert!(waiting <= recovered.held.possible_duplicates);
    }
}
