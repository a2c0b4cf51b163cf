//! Fetching one file from the first server that has it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

use super::Settings;
use super::folder::{Folder, hex};
use crate::export::Endpoint;
use crate::export::config::process_env;
use crate::export::http::download::{DownloadError, Limits, download};
use crate::sorted::SortedMap;

/// How long a server is left alone that does not answer.
const DOWN_FOR: Duration = Duration::from_secs(300);
/// Requests to servers in an [`HOUR`]: a watched program chooses its build id, and so has a request sent. Files of an hour have as many
/// bytes as the folder may take, and the last of them.
const MAX_REQUESTS: u32 = 2000;
const HOUR: Duration = Duration::from_secs(3600);
/// The least that the scheduler gives.
const NICE: i32 = 19;

/// Makes this thread one that nobody notices, and that can do little: it reads what servers of others say.
pub(super) fn step_back() {
    // On Linux it is of this thread alone. Where the kernel refuses any of these, fetching goes on without.
    let _ = rustix::process::setpriority_process(None, NICE);
    let none = CapabilitySet::empty();
    let _ = set_no_new_privs(true);
    let _ = set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none });
}

/// What became of a file.
pub(super) enum Fetched {
    Yes {
        /// Another process has fetched it.
        was_here: bool,
    },
    /// No server has it.
    NotFound,
    Failed(String),
    /// Nobody is asked until then: what may be spent in an hour is.
    Spent(Instant),
}

/// Fetches files, one at a time.
pub(super) struct Fetcher<'c> {
    settings: &'c Settings,
    folder: &'c Folder,
    down: &'c Down,
    budget: &'c Budget,
    bytes: u64,
}

/// Until when servers are left alone, by their place among them.
#[derive(Default)]
pub(super) struct Down(Mutex<SortedMap<usize, Instant>>);

impl Down {
    fn is_down(&self, server: usize) -> bool {
        let until = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&server).copied();
        until.is_some_and(|until| Instant::now() < until)
    }

    fn note(&self, server: usize) {
        let until = Instant::now() + DOWN_FOR;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(server, until);
    }
}

/// What was spent in this hour.
#[derive(Default)]
pub(super) struct Budget(Mutex<Spent>);

#[derive(Default)]
struct Spent {
    until: Option<Instant>,
    requests: u32,
    bytes: u64,
}

impl Budget {
    fn spent(&self) -> MutexGuard<'_, Spent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request out of it, or says when there are more.
    fn take_request(&self, max_bytes: u64, now: Instant) -> Result<(), Instant> {
        let mut spent = self.spent();
        let until = spent.until.filter(|until| now < *until).unwrap_or_else(|| {
            *spent = Spent::default();
            now + HOUR
        });
        spent.until = Some(until);
        if spent.requests >= MAX_REQUESTS || spent.bytes >= max_bytes {
            return Err(until);
        }
        spent.requests += 1;
        Ok(())
    }

    fn take_bytes(&self, bytes: u64) {
        let mut spent = self.spent();
        spent.bytes = spent.bytes.saturating_add(bytes);
    }
}

impl<'c> Fetcher<'c> {
    pub fn new(settings: &'c Settings, folder: &'c Folder, down: &'c Down, budget: &'c Budget) -> Self {
        Self { settings, folder, down, budget, bytes: 0 }
    }

    /// Bytes that came since this was asked last.
    pub fn take_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }

    pub fn fetch(&mut self, build_id: &[u8], stopped: &dyn Fn() -> bool) -> Fetched {
        if self.folder.is_here(build_id) {
            return Fetched::Yes { was_here: true };
        }
        if self.folder.is_missing(build_id) {
            return Fetched::NotFound;
        }
        let mut failure = None;
        for (index, server) in self.settings.servers.iter().enumerate() {
            if self.down.is_down(index) {
                failure.get_or_insert_with(|| format!("{server} did not answer before"));
                continue;
            }
            if let Err(until) = self.budget.take_request(self.settings.capacity, Instant::now()) {
                return Fetched::Spent(until);
            }
            let before = self.bytes;
            let came = self.fetch_from(server, build_id, stopped);
            self.budget.take_bytes(self.bytes.saturating_sub(before));
            match came {
                Ok(()) => return Fetched::Yes { was_here: false },
                Err(Refused { is_missing: true, .. }) => {}
                Err(Refused { why, is_down, .. }) => {
                    if is_down {
                        self.down.note(index);
                    }
                    failure = Some(format!("{server}: {why}"));
                }
            }
        }
        match failure {
            Some(why) => Fetched::Failed(why),
            None => {
                // Who asks next asks again.
                let _ = self.folder.note_missing(build_id);
                Fetched::NotFound
            }
        }
    }

    fn fetch_from(
        &mut self,
        server: &Endpoint,
        build_id: &[u8],
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), Refused> {
        let Settings { timeout, max_time, max_file, .. } = *self.settings;
        let url = server.clone().join(&format!("/buildid/{}/debuginfo", hex(build_id)));
        let mut part = None;
        let limits = Limits { timeout, end: Instant::now() + max_time, bytes: max_file };
        let bytes = &mut self.bytes;
        let folder = self.folder;
        let came = download(&url, &process_env, limits, &mut |piece| {
            *bytes += piece.len() as u64;
            if stopped() {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            // Only what exists has a file.
            match &mut part {
                Some(part) => part,
                none => none.insert(folder.begin(build_id)?),
            }
            .write(piece)
        });
        came.map_err(|error| Refused::of(&error))?;
        let Some(part) = part else { return Err(Refused::because("the server sent nothing".to_owned())) };
        part.check_and_finish(build_id).map_err(|unfit| Refused::because(unfit.to_string()))
    }
}

/// A server that has not given the file.
struct Refused {
    why: String,
    /// It has no such file.
    is_missing: bool,
    /// It does not answer at all.
    is_down: bool,
}

impl Refused {
    fn because(why: String) -> Self {
        Self { why, is_missing: false, is_down: false }
    }

    fn of(error: &DownloadError) -> Self {
        Self {
            is_missing: matches!(error, DownloadError::Status(404 | 410)),
            is_down: error.is_of_server(),
            ..Self::because(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_has_so_many_requests_and_bytes() {
        let (budget, start) = (Budget::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!((0..MAX_REQUESTS).all(|_| budget.take_request(100, start).is_ok()));
        assert_eq!(budget.take_request(100, later(3599)), Err(later(3600)));
        assert_eq!(budget.take_request(100, later(3600)), Ok(()));
        budget.take_bytes(99);
        assert_eq!(budget.take_request(100, later(3700)), Ok(()));
        budget.take_bytes(u64::MAX);
        assert_eq!(budget.take_request(100, later(3800)), Err(later(7200)));
        assert_eq!(budget.take_request(100, later(7200)), Ok(()));
    }
}
