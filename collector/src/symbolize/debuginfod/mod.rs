//! Files for debuggers from debuginfod servers: <https://sourceware.org/elfutils/Debuginfod.html>.
//!
//! Whoever makes names never waits for a server. What is in the folder is used; what is not is wanted, and a thread of low
//! priority and without privileges fetches it, so that names of later windows find it. Build ids are all that leaves this host.

mod fetch;
mod folder;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fetch::{Down, Fetched, Fetcher};
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
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// First wanted, first fetched.
    waiting: VecDeque<BuildId>,
    known: SortedMap<BuildId, Known>,
    /// A file is being fetched.
    busy: bool,
    /// There is a thread.
    running: bool,
    stopped: bool,
    counts: Counts,
    /// Why the last file failed that did.
    failure: Option<String>,
}

type BuildId = Box<[u8]>;

/// What is known of a file that was wanted.
#[derive(Clone, Copy)]
enum Known {
    /// It waits, or is being fetched.
    Waiting,
    /// It came, and is not wanted again before that.
    Here(Instant),
    /// It did not come, and is not wanted again before that.
    NotHere(Instant),
}

impl Client {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches what waits, until nothing does for a while.
    fn work(&self) {
        fetch::step_back();
        let mut fetcher = Fetcher::new(&self.settings, &self.folder, &self.down);
        while let Some(build_id) = self.next() {
            let fetched = fetcher.fetch(&build_id, &|| self.state().stopped);
            let mut state = self.state();
            state.busy = false;
            state.counts.bytes += fetcher.take_bytes();
            let now = Instant::now();
            let known = match fetched {
                Fetched::Yes { was_here } => {
                    state.counts.fetched += u64::from(!was_here);
                    Known::Here(now + KEPT_FOR)
                }
                Fetched::NotFound => {
                    state.counts.not_found += 1;
                    Known::NotHere(now + MISSING_FOR)
                }
                Fetched::Failed(why) => {
                    state.counts.failed += 1;
                    state.failure = Some(why);
                    Known::NotHere(now + FAILED_FOR)
                }
            };
            state.known.insert(build_id, known);
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<BuildId> {
        let mut state = self.state();
        let end = Instant::now() + IDLE;
        loop {
            if let Some(build_id) = state.waiting.pop_front() {
                state.busy = true;
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
        self.waiting.len() + usize::from(self.busy)
    }

    /// Has the file fetched, which is not there, unless it is not the time for that.
    fn want(&mut self, build_id: &[u8], now: Instant) {
        match self.known.get(build_id) {
            Some(Known::Waiting) => return,
            Some(Known::Here(until) | Known::NotHere(until)) if now < *until => {
                let known = Known::NotHere(*until);
                self.known.insert(build_id.into(), known);
                return;
            }
            _ => {}
        }
        if self.stopped || self.waiting.len() >= MAX_WAITING {
            return;
        }
        if self.known.len() >= MAX_KNOWN {
            self.known.retain(|_, known| match known {
                Known::Waiting => true,
                Known::Here(until) | Known::NotHere(until) => now < *until,
            });
        }
        if self.known.len() < MAX_KNOWN {
            self.known.insert(build_id.into(), Known::Waiting);
            self.waiting.push_back(build_id.into());
        }
    }
}

impl Debuginfod {
    /// A client; nothing is asked, read or written yet.
    pub fn new(settings: Settings) -> Self {
        let folder = Folder::new(&settings);
        let (down, state, changed) = (Down::default(), Mutex::default(), Condvar::new());
        Self(Arc::new(Owner(Arc::new(Client { settings, folder, down, state, changed }))))
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
        state.want(build_id, Instant::now());
        if state.waiting.is_empty() {
            return;
        }
        client.changed.notify_all();
        if !state.running {
            let own = Arc::clone(client);
            let name = "debuginfod".to_owned();
            let spawned = std::thread::Builder::new().name(name).spawn(move || own.work());
            state.running = spawned.is_ok();
            if let Err(error) = spawned {
                let count = state.waiting.len() as u64;
                state.waiting.clear();
                state.known.retain(|_, known| !matches!(known, Known::Waiting));
                state.counts.failed += count;
                state.failure = Some(format!("no thread: {error}"));
            }
        }
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
