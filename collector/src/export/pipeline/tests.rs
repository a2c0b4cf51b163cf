use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};

use bytes::Bytes;

use super::*;
use crate::export::error::Failure;
use crate::export::reply::Accepted;
use crate::export::retry::RetryPolicy;
use crate::export::stats::{Amount, DropReason, SignalStats};
use crate::export::store::{Appended, RecordId};
use crate::export::transport::Refusal;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than any test may take.
const LONG: Duration = Duration::from_secs(60);

fn request(number: u8) -> Request {
    Request { signal: Signal::Logs, items: 2, body: Bytes::copy_from_slice(&[number]) }
}

fn outlet(name: &str, transport: impl Transport + Send + 'static) -> Outlet {
    Outlet {
        name: name.to_owned(),
        signals: vec![Signal::Logs],
        timeout: None,
        limits: Limits::default(),
        transport: Box::new(transport),
        spool: None,
    }
}

/// Tells of each request, and then waits for what to do with it.
struct Scripted {
    sent: Sender<u8>,
    answers: Receiver<Result<Accepted, Refusal>>,
}

impl Scripted {
    fn new() -> (Self, Receiver<u8>, Sender<Result<Accepted, Refusal>>) {
        let (sent, seen) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        (Self { sent, answers }, seen, answer)
    }
}

impl Transport for Scripted {
    fn attempt(
        &mut self,
        request: &Request,
        _: Option<Duration>,
        _: SystemTime,
    ) -> Result<Accepted, Refusal> {
        let _ = self.sent.send(request.body[0]);
        let closed =
            |_| Err(Refusal { failure: Box::new(Failure::NotHttp), asked_to_wait: None, ambiguous: false });
        self.answers.recv().unwrap_or_else(closed)
    }
}

/// Takes or panics.
struct Takes {
    panics_at: Option<u8>,
}

impl Transport for Takes {
    fn attempt(
        &mut self,
        request: &Request,
        _: Option<Duration>,
        _: SystemTime,
    ) -> Result<Accepted, Refusal> {
        assert_ne!(self.panics_at, Some(request.body[0]), "asked for by a test");
        Ok(Accepted::default())
    }
}

/// A spool in memory.
#[derive(Default)]
struct MemoryStore {
    records: Mutex<Vec<(RecordId, Request)>>,
    appended: AtomicUsize,
    synced: AtomicUsize,
    panics: bool,
    /// Appending hangs until something is there.
    waits_for: Option<Arc<MemoryStore>>,
}

impl Store for MemoryStore {
    fn append(&self, requests: &[Request]) -> Result<Appended, AppendError> {
        assert!(!self.panics, "asked for by a test");
        let started = Instant::now();
        while self.waits_for.as_ref().is_some_and(|other| other.appended.load(Ordering::Relaxed) == 0) {
            assert!(started.elapsed() < 10 * SECOND, "the other is not written");
            thread::sleep(Duration::from_millis(1));
        }
        let mut records = self.records.lock().unwrap();
        let mut appended = Appended::default();
        for request in requests {
            let record = RecordId(self.appended.fetch_add(1, Ordering::Relaxed) as u64);
            records.push((record, request.clone()));
            appended.records.push(record);
        }
        Ok(appended)
    }

    fn oldest(&self) -> Result<Option<(RecordId, Request)>, StoreError> {
        Ok(self.records.lock().unwrap().first().cloned())
    }

    fn acknowledge(&self, record: RecordId) -> Result<(), StoreError> {
        self.records.lock().unwrap().retain(|(other, _)| *other != record);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.synced.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn logs(stats: &[Stats], lane: usize) -> SignalStats {
    *stats[lane].signals.get(Signal::Logs)
}

fn amount(requests: u64) -> Amount {
    Amount { requests, items: 2 * requests, bytes: requests }
}

#[test]
fn a_receiver_that_hangs_holds_nobody_up() {
    let (hanging, seen, _answer) = Scripted::new();
    let exporter =
        Exporter::start(vec![outlet("hangs", hanging), outlet("takes", Takes { panics_at: None })]).unwrap();
    let started = Instant::now();
    (0..200).for_each(|number| exporter.push(&request(number)));
    // Another signal goes to none of them.
    exporter.push(&Request { signal: Signal::Traces, ..request(0) });
    assert!(started.elapsed() < SECOND);
    assert_eq!(seen.recv_timeout(LONG).unwrap(), 0);
    assert_eq!(logs(&exporter.stats(), 0).in_memory, amount(200));
    // The end does not wait for it either.
    let started = Instant::now();
    let stats = exporter.shut_down(SECOND / 5);
    assert!(started.elapsed() < 10 * SECOND);
    let (hangs, takes) = (logs(&stats, 0), logs(&stats, 1));
    assert_eq!(hangs.dropped.get(DropReason::ShutDown), amount(200));
    assert_eq!(hangs.ambiguous, amount(1));
    assert_eq!((takes.accepted, takes.delivered), (amount(200), amount(200)));
    assert_eq!((&*stats[0].name, &*stats[1].name), ("hangs", "takes"));
}

#[test]
fn the_end_waits_for_what_is_being_sent() {
    let (scripted, seen, answer) = Scripted::new();
    let exporter = Exporter::start(vec![outlet("slow", scripted)]).unwrap();
    (0..3).for_each(|number| exporter.push(&request(number)));
    let answering = thread::spawn(move || {
        for number in 0..3 {
            assert_eq!(seen.recv_timeout(LONG).unwrap(), number);
            answer.send(Ok(Accepted::default())).unwrap();
        }
    });
    let stats = exporter.shut_down(LONG);
    answering.join().unwrap();
    assert_eq!(logs(&stats, 0).delivered, amount(3));
}

#[test]
fn panics_are_contained_and_counted() {
    let exporter = Exporter::start(vec![outlet("panics", Takes { panics_at: Some(1) })]).unwrap();
    (0..3).for_each(|number| exporter.push(&request(number)));
    let stats = exporter.shut_down(LONG);
    assert_eq!(stats[0].panics, 1);
    assert_eq!(logs(&stats, 0).delivered, amount(2));
    assert_eq!(logs(&stats, 0).dropped.get(DropReason::NotRetryable), amount(1));
}

fn spooled(transport: impl Transport + Send + 'static, store: &Arc<MemoryStore>) -> Outlet {
    let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(store);
    Outlet { spool: Some((store, Held::default())), ..outlet("spooled", transport) }
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn what_is_not_delivered_is_in_the_spool_and_then_delivered() {
    let store = Arc::new(MemoryStore::default());
    let (hanging, seen, _answer) = Scripted::new();
    let exporter = Exporter::start(vec![spooled(hanging, &store)]).unwrap();
    (0..3).for_each(|number| exporter.push(&request(number)));
    seen.recv_timeout(LONG).unwrap();
    let stats = exporter.shut_down(Duration::ZERO);
    assert_eq!(logs(&stats, 0).in_spool, amount(3));
    assert_eq!(store.records.lock().unwrap().len(), 3);
    assert_eq!(store.synced.load(Ordering::Relaxed), 1);

    let mut held = Held::default();
    *held.waiting.get_mut(Signal::Logs) = amount(3);
    let mut outlet = spooled(Takes { panics_at: None }, &store);
    outlet.spool.as_mut().unwrap().1 = held;
    let exporter = Exporter::start(vec![outlet]).unwrap();
    let stats = exporter.shut_down(LONG);
    assert_eq!((logs(&stats, 0).recovered, logs(&stats, 0).delivered), (amount(3), amount(3)));
    assert!(store.records.lock().unwrap().is_empty());
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn a_spool_is_written_while_a_request_is_on_its_way() {
    let store = Arc::new(MemoryStore::default());
    let (hanging, seen, answer) = Scripted::new();
    let mut outlet = spooled(hanging, &store);
    outlet.limits.max_time_at_risk = Duration::ZERO;
    let exporter = Exporter::start(vec![outlet]).unwrap();
    (0..3).for_each(|number| exporter.push(&request(number)));
    seen.recv_timeout(LONG).unwrap();
    let started = Instant::now();
    while logs(&exporter.stats(), 0).in_spool != amount(3) {
        assert!(started.elapsed() < LONG);
        thread::sleep(Duration::from_millis(1));
    }
    (0..3).for_each(|_| answer.send(Ok(Accepted::default())).unwrap());
    let stats = exporter.shut_down(LONG);
    assert_eq!(logs(&stats, 0).delivered, amount(3));
    assert!(store.records.lock().unwrap().is_empty());
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn a_spool_that_panics_is_a_spool_that_fails() {
    let store = Arc::new(MemoryStore { panics: true, ..MemoryStore::default() });
    let (hanging, seen, _answer) = Scripted::new();
    let exporter = Exporter::start(vec![spooled(hanging, &store)]).unwrap();
    exporter.push(&request(0));
    seen.recv_timeout(LONG).unwrap();
    let stats = exporter.shut_down(Duration::ZERO);
    assert_eq!(stats[0].panics, 1);
    assert_eq!(stats[0].spool_error.as_deref(), Some("cannot write the spool: it panicked"));
    assert_eq!(logs(&stats, 0).dropped.get(DropReason::ShutDown), amount(1));
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn a_disk_that_hangs_takes_no_time_from_other_destinations() {
    let second = Arc::new(MemoryStore::default());
    let first = Arc::new(MemoryStore { waits_for: Some(Arc::clone(&second)), ..MemoryStore::default() });
    let ((one, one_seen, _one), (two, two_seen, _two)) = (Scripted::new(), Scripted::new());
    let mut outlets = vec![spooled(one, &first), spooled(two, &second)];
    outlets.iter_mut().for_each(|outlet| outlet.limits.max_time_at_risk = LONG);
    let exporter = Exporter::start(outlets).unwrap();
    exporter.push(&request(0));
    [one_seen, two_seen].iter().for_each(|seen| assert_eq!(seen.recv_timeout(LONG).unwrap(), 0));
    let stats = exporter.shut_down(SECOND / 10);
    assert_eq!((logs(&stats, 0).in_spool, logs(&stats, 1).in_spool), (amount(1), amount(1)));
}

#[test]
fn dropping_ends_the_threads() {
    let store = Arc::new(MemoryStore::default());
    let outlet = spooled(Takes { panics_at: None }, &store);
    let exporter = Exporter::start(vec![outlet]).unwrap();
    let shared = Arc::clone(&exporter.lanes[0].shared);
    exporter.push(&request(0));
    drop(exporter);
    shared.wait(Instant::now().checked_add(LONG), |state| !state.sending && !state.saving);
    let state = shared.lock();
    assert!(!state.sending && !state.saving && state.delivery.is_closed());
}

/// A directory that is gone after the test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ebpf-otlp-pipeline-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Refuses two of three, and keeps what it takes.
struct Flaky {
    attempts: usize,
    taken: Arc<Mutex<Vec<u32>>>,
}

impl Transport for Flaky {
    fn attempt(
        &mut self,
        request: &Request,
        _: Option<Duration>,
        _: SystemTime,
    ) -> Result<Accepted, Refusal> {
        self.attempts += 1;
        if self.attempts % 3 != 0 {
            let failure = Failure::Status { code: 503, message: None };
            return Err(Refusal { failure: Box::new(failure), asked_to_wait: None, ambiguous: false });
        }
        let number = u32::from_be_bytes(request.body[..4].try_into().unwrap());
        self.taken.lock().unwrap().push(number);
        Ok(Accepted::default())
    }
}

/// Pushes 90 requests in three runs, each ended while some wait, through a spool of so many bytes; what was taken, and
/// the sum of all dropped.
fn through_a_spool(name: &str, max_bytes: u64) -> (Vec<u32>, u64) {
    let folder = Folder::new(name);
    let taken = Arc::new(Mutex::new(Vec::new()));
    let mut dropped = 0;
    for run in 0..4_u32 {
        let mut outlet = outlet("flaky", Flaky { attempts: 0, taken: Arc::clone(&taken) });
        let millisecond = Duration::from_millis(1);
        let retry = RetryPolicy { first_delay: millisecond, max_delay: millisecond };
        outlet.limits = Limits { max_time_at_risk: Duration::ZERO, retry, ..Limits::default() };
        let config = SpoolConfig { max_bytes, ..SpoolConfig::new(folder.0.clone()) };
        let exporter = Exporter::start(vec![outlet.with_spool(&config).unwrap()]).unwrap();
        for number in (0..30).filter(|_| run < 3) {
            let mut body = vec![0; 2000];
            body[..4].copy_from_slice(&(30 * run + number).to_be_bytes());
            exporter.push(&Request { signal: Signal::Logs, items: 2, body: body.into() });
            if number % 10 == 0 {
                thread::sleep(millisecond);
            }
        }
        let stats = exporter.shut_down(if run < 3 { Duration::ZERO } else { LONG });
        let of = logs(&stats, 0);
        assert_eq!(stats[0].spool_error, None);
        assert_eq!(
            of.accepted.items + of.recovered.items,
            of.delivered.items + of.dropped.total().items + of.in_spool.items,
            "{of:#?}"
        );
        assert_eq!(of.dropped.total(), of.dropped.get(DropReason::SpoolFull));
        dropped += of.dropped.total().requests;
    }
    let mut taken = std::mem::take(&mut *taken.lock().unwrap());
    taken.sort_unstable();
    (taken, dropped)
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn a_spool_keeps_all_over_runs_that_end_early() {
    let (mut taken, dropped) = through_a_spool("keeps", 64 << 20);
    taken.dedup();
    assert_eq!((taken, dropped), ((0..90).collect(), 0));
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn a_small_spool_counts_what_it_drops() {
    let (mut taken, dropped) = through_a_spool("drops", 20_000);
    taken.dedup();
    assert!(dropped > 0);
    assert!(90 - taken.len() as u64 <= dropped, "{} arrived, {dropped} dropped", taken.len());
}
