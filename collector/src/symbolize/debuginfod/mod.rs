//! Files for debuggers from debuginfod servers: <https://sourceware.org/elfutils/Debuginfod.html>.
//!
//! Whoever makes names never waits for a server. What is in the folder is used; what is not is wanted, and a thread of low
//! priority and without capabilities fetches it, so that names of later windows find it. Build ids are all that leaves this host.

mod fetch;
mod folder;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fetch::{Budget, Down, Fetched, Fetcher};
use folder::Folder;
pub use settings::{Settings, SettingsError};

use super::host::Place;
use crate::sorted::SortedMap;

/// Files that wait to be fetched; what finds no room is wanted again by the next window.
const MAX_WAITING: usize = 256;
/// Build ids that are remembered, with what became of them.
const MAX_KNOWN: usize = 4096;
/// Bytes of a build id: 8 of xxhash to 64 of SHA-512. Shorter ones would be no proof.
const BUILD_ID: std::ops::RangeInclusive<usize> = 8..=64;
/// How long a file is not asked for again that no server has.
const MISSING_FOR: Duration = Duration::from_secs(3600);
/// The same of one that could not be fetched.
const FAILED_FOR: Duration = Duration::from_secs(300);
/// And of one that was fetched, and went for want of room.
const KEPT_FOR: Duration = Duration::from_secs(3600);
/// How long the thread waits for more to do before it ends.
const IDLE: Duration = Duration::from_secs(10);
/// How often who waits is asked whether to go on.
const LOOK: Duration = Duration::from_millis(200);

/// What became of files so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files that were fetched.
    pub fetched: u64,
    /// Files that no server has.
    pub not_found: u64,
    /// Files that could not be fetched.
    pub failed: u64,
    /// Files that nobody was asked for, each time that they were wanted: too many were wanted at once, or in an hour.
    pub dropped: u64,
    /// Bytes of files that came, also of those that were not taken in the end.
    pub bytes: u64,
}

/// A client of debuginfod servers; its clones are the same one. Dropping the last stops what it does.
#[derive(Clone)]
pub struct Debuginfod(Arc<Owner>);

/// Who wants files; the thread has the rest.
struct Owner(Arc<Client>);

impl Drop for Owner {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.stopped = true;
        state.waiting.clear();
        // What was begun goes with its folder's next user if not now: the thread may wait for a server.
        self.0.folder.give_up();
        self.0.changed.notify_all();
    }
}

/// What a thread fetches with, and what it tells.
struct Client {
    settings: Settings,
    folder: Folder,
    down: Down,
    budget: Budget,
    /// How often it was known what became of a file.
    news: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// First wanted, first fetched.
    waiting: VecDeque<BuildId>,
    known: SortedMap<BuildId, Known>,
    /// It is being fetched.
    busy: Option<BuildId>,
    /// There is a thread.
    running: bool,
    stopped: bool,
    counts: Counts,
    /// Why the last file failed that did.
    failure: Option<String>,
}

type BuildId = Box<[u8]>;

/// What is known of a file that was wanted.
#[derive(Debug, Clone, Copy)]
enum Known {
    /// It waits, or is being fetched.
    Waiting,
    /// It came, and is not wanted again before that.
    Here(Instant),
    /// It did not come, and is not wanted again before that.
    NotHere(Instant),
}

impl Known {
    /// Until when it is known, and, before that, whether others are forgotten rather: those that did not come.
    fn until(self) -> Option<(bool, Instant)> {
        match self {
            Self::Waiting => None,
            Self::Here(until) => Some((true, until)),
            Self::NotHere(until) => Some((false, until)),
        }
    }
}

/// Has nobody wait for a thread that panicked.
struct Unwinding<'c>(&'c Client);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        // Otherwise it came to its end, and another may have begun.
        if state.busy.is_some() {
            let why = "the thread that fetches has panicked".to_owned();
            state.done(Fetched::Failed(why.clone()), 0);
            state.give_up(why);
            self.0.tell_news();
        }
    }
}

impl Client {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches what waits, until nothing does for a while.
    fn work(&self) {
        fetch::step_back();
        let mut fetcher = Fetcher::new(&self.settings, &self.folder, &self.down, &self.budget);
        self.work_with(&mut |build_id| {
            let fetched = fetcher.fetch(build_id, &|| self.state().stopped);
            (fetched, fetcher.take_bytes())
        });
    }

    /// Does so with who fetches a file, and says what became of it and how many bytes came.
    fn work_with(&self, fetch: &mut dyn FnMut(&[u8]) -> (Fetched, u64)) {
        let _unwinding = Unwinding(self);
        while let Some(build_id) = self.next() {
            let (fetched, bytes) = fetch(&build_id);
            self.state().done(fetched, bytes);
            self.tell_news();
        }
    }

    fn tell_news(&self) {
        self.news.fetch_add(1, Ordering::Release);
        self.changed.notify_all();
    }

    fn next(&self) -> Option<BuildId> {
        let mut state = self.state();
        let end = Instant::now() + IDLE;
        loop {
            if let Some(build_id) = state.waiting.pop_front() {
                state.busy = Some(build_id.clone());
                return Some(build_id);
            }
            let left = end.saturating_duration_since(Instant::now());
            if state.stopped || left.is_zero() {
                state.running = false;
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    fn pending(&self) -> usize {
        self.waiting.len() + usize::from(self.busy.is_some())
    }

    /// Notes what became of the file that was being fetched.
    fn done(&mut self, fetched: Fetched, bytes: u64) {
        let Some(build_id) = self.busy.take() else { return };
        self.counts.bytes += bytes;
        let now = Instant::now();
        let known = match fetched {
            Fetched::Yes { was_here } => {
                self.counts.fetched += u64::from(!was_here);
                Known::Here(now + KEPT_FOR)
            }
            Fetched::NotFound => {
                self.counts.not_found += 1;
                Known::NotHere(now + MISSING_FOR)
            }
            Fetched::Failed(why) => {
                self.counts.failed += 1;
                self.failure = Some(why);
                Known::NotHere(now + FAILED_FOR)
            }
            Fetched::Spent(until) => {
                self.counts.dropped += 1;
                self.failure = Some("the requests or bytes of an hour are spent".to_owned());
                Known::NotHere(until)
            }
        };
        self.known.insert(build_id, known);
    }

    /// There is no thread, and nobody who waits for one.
    fn give_up(&mut self, why: String) {
        self.running = false;
        self.counts.failed += self.waiting.len() as u64;
        self.waiting.clear();
        self.known.retain(|_, known| !matches!(known, Known::Waiting));
        self.failure = Some(why);
    }

    /// Has the file fetched, which is not there, unless it is not the time for that: whether it waits from now on.
    fn want(&mut self, build_id: &[u8], now: Instant) -> bool {
        match self.known.get(build_id) {
            Some(Known::Waiting) => return false,
            Some(Known::Here(until) | Known::NotHere(until)) if now < *until => {
                let known = Known::NotHere(*until);
                self.known.insert(build_id.into(), known);
                return false;
            }
            _ => {}
        }
        if self.stopped {
            return false;
        }
        if self.waiting.len() >= MAX_WAITING {
            self.counts.dropped += 1;
            return false;
        }
        if self.known.len() >= MAX_KNOWN {
            self.forget_one(now);
        }
        self.known.insert(build_id.into(), Known::Waiting);
        self.waiting.push_back(build_id.into());
        true
    }

    /// Forgets what is over, or else the oldest, so that what was made up keeps no file from being fetched.
    fn forget_one(&mut self, now: Instant) {
        self.known.retain(|_, known| known.until().is_none_or(|(_, until)| now < until));
        if self.known.len() < MAX_KNOWN {
            return;
        }
        let oldest = self.known.iter().filter_map(|(build_id, known)| Some((known.until()?, build_id))).min();
        if let Some(build_id) = oldest.map(|(_, build_id)| build_id.clone()) {
            self.known.remove(&build_id);
        }
    }
}

impl Debuginfod {
    /// A client; nothing is asked, read or written yet.
    pub fn new(settings: Settings) -> Self {
        let folder = Folder::new(&settings);
        Self(Arc::new(Owner(Arc::new(Client {
            settings,
            folder,
            down: Down::default(),
            budget: Budget::default(),
            news: AtomicU64::new(0),
            state: Mutex::default(),
            changed: Condvar::new(),
        }))))
    }

    fn client(&self) -> &Arc<Client> {
        &self.0.0
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.client().settings
    }

    /// Where the debug file of a build id is if it was fetched, by this program or by others.
    pub(super) fn places(&self, build_id: &[u8]) -> Vec<Place> {
        if !BUILD_ID.contains(&build_id.len()) {
            return Vec::new();
        }
        self.client().folder.places(build_id)
    }

    /// Has a debug file fetched that is in none of these places, if it was not asked for lately. Does not wait.
    pub(super) fn want(&self, build_id: &[u8]) {
        if !BUILD_ID.contains(&build_id.len()) {
            return;
        }
        let client = self.client();
        let mut state = client.state();
        if !state.want(build_id, Instant::now()) {
            return;
        }
        client.changed.notify_all();
        if !state.running {
            let own = Arc::clone(client);
            let name = "debuginfod".to_owned();
            let spawned = std::thread::Builder::new().name(name).spawn(move || own.work());
            state.running = spawned.is_ok();
            if let Err(error) = spawned {
                state.give_up(format!("no thread: {error}"));
            }
        }
    }

    /// A number that is another one as soon as more is known of files that were wanted.
    pub(super) fn news(&self) -> u64 {
        self.client().news.load(Ordering::Acquire)
    }

    /// Whether a debug file has come that was wanted. One that did not is wanted again when it is time.
    pub(super) fn has_come(&self, build_id: &[u8]) -> bool {
        let come = matches!(self.client().state().known.get(build_id), Some(Known::Here(_)));
        if !come {
            self.want(build_id);
        }
        come
    }

    /// Notes that a file is used, so that others go before it for want of room.
    pub(super) fn used(&self, place: &Place) {
        self.client().folder.used(&place.display_path());
    }

    /// Files that are still to come.
    pub fn pending(&self) -> usize {
        self.client().state().pending()
    }

    /// Waits for all files that are still to come, as long as `go_on` says so of their number, which it is asked now and then.
    pub fn wait(&self, end: Instant, mut go_on: impl FnMut(usize) -> bool) {
        loop {
            let client = self.client();
            let state = client.state();
            let left = end.saturating_duration_since(Instant::now());
            let pending = state.pending();
            if pending == 0 || left.is_zero() {
                return;
            }
            let waited = client.changed.wait_timeout(state, left.min(LOOK));
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            if !go_on(pending) {
                return;
            }
        }
    }

    /// What became of files so far.
    pub fn counts(&self) -> Counts {
        self.client().state().counts
    }

    /// Why a file could not be fetched, if one could not since this was asked last.
    pub fn take_failure(&self) -> Option<String> {
        self.client().state().failure.take()
    }

    /// Where files are kept.
    pub fn folder(&self) -> PathBuf {
        self.settings().folder.clone()
    }
}

impl PartialEq for Debuginfod {
    /// Whether it is the same client.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Debuginfod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Debuginfod").field("settings", self.settings()).finish_non_exhaustive()
    }
}
