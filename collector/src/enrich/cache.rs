//! Who processes are: read once, remembered past their end.
//!
//! A process is identified by its number and its start, so that a number that is used again is somebody else. What runs
//! another program is somebody else too: its name, and with it its resource, is another from then on.
//!
//! `/proc` is looked at when somebody is first heard of, and from then on once a window at most, to see whether it is still
//! the same. What lives too short for that is told by [`ProcessCache::started`], and takes from its parent what it cannot
//! have of its own: container, pod, unit and stated service.

use std::sync::Arc;

use super::users::Users;
use super::{ProcessInfo, parse_stat, read_process, service_name, unit_cgroup};
use crate::model::Process;
use crate::sorted::SortedMap;
use crate::symbolize::{Host, read_limited};

/// A process, and the program that it runs: never used twice.
pub type ProcessKey = u64;

/// What may be read of `/proc` in a window, in looks at one file.
const READS_PER_WINDOW: u32 = 4096;
/// What it takes to read all of a process.
const FULL_READ: u32 = 8;
/// Living processes that nobody mentions, and that are looked at in a window.
const SWEPT_PER_WINDOW: usize = 256;
/// Windows that a process is remembered after the one in which it ended: what was collected late has a name, too.
const GRACE: u32 = 2;
/// Start times in `/proc` are in ticks of 10 ms.
const TICK_NANOS: u64 = 10_000_000;
/// Bytes that are read of `stat`.
const MAX_STAT: usize = 4096;

/// Who a process is, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Number, names, container and stated service.
    pub process: Process,
    /// Last component of the executable's path.
    pub executable_name: Option<Arc<str>>,
    /// Name of the user that it acts as.
    pub owner: Option<Arc<str>>,
    /// Path of its control group.
    pub cgroup: Option<Arc<str>>,
    /// When it started, in nanoseconds of `CLOCK_BOOTTIME`; 0 if unknown.
    pub start_boot_nanos: u64,
}

impl Identity {
    /// `service.name`
    pub fn service(&self) -> &str {
        let process = &self.process;
        service_name(
            process.pid,
            process.service_name.as_deref(),
            self.executable_name.as_deref(),
            process.comm.as_deref(),
        )
    }

    /// The control group of the systemd service that it is, where it is in no container.
    pub fn unit(&self) -> Option<&str> {
        self.cgroup.as_deref().filter(|_| self.process.container_id.is_none()).and_then(unit_cgroup)
    }

    fn new(info: ProcessInfo, users: &mut Users) -> Self {
        Self {
            owner: info.uid.map(|uid| users.name(uid)),
            process: info.process,
            executable_name: info.executable_name,
            cgroup: info.cgroup,
            start_boot_nanos: info.start_ticks.saturating_mul(tick_nanos()),
        }
    }

    /// Of a process of which only the kernel's name for it is known.
    fn of_name(pid: u32, comm: &[u8]) -> Self {
        let process = Process { pid, comm: text(comm), ..Process::default() };
        Self { process, ..Self::default() }
    }

    /// Memory that it takes, about.
    fn cost(&self) -> usize {
        let Process { comm, executable_path, container_id, pod_uid, service_name, .. } = &self.process;
        let own = [&self.executable_name, pod_uid, &self.cgroup, comm, executable_path, container_id];
        let texts = own.into_iter().chain([service_name]).flatten();
        let texts: usize = texts.map(|text| text.len() + 16).sum();
        size_of::<Self>() + 2 * size_of::<Entry>() + texts
    }
}

/// What is known of a process from the kernel's events, however short it lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Started<'a> {
    /// Its number in the agent's pid namespace.
    pub pid: u32,
    /// Its parent's; 0 if unknown.
    pub parent: u32,
    /// When it started, in nanoseconds of `CLOCK_BOOTTIME`.
    pub start_boot_nanos: u64,
    /// The kernel's name for it; what follows a zero does not count.
    pub comm: &'a [u8],
    /// Path of the program, where it started one.
    pub executable_path: Option<&'a str>,
    /// The user.
    pub uid: Option<u32>,
}

/// A process that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Which.
    pub key: ProcessKey,
    /// Who it is.
    pub identity: &'a Identity,
    /// Whether it is not known to have ended.
    pub is_alive: bool,
}

/// What became of the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Processes now, ended ones included.
    pub processes: usize,
    /// Memory that they take, in bytes, estimated.
    pub bytes: usize,
    /// Processes that were forgotten for want of room.
    pub evicted: u64,
    /// Times that a process was not looked at, as enough was read in the window.
    pub skipped: u64,
    /// Processes that were gone before anything but their name was known.
    pub unknown: u64,
}

#[derive(Debug)]
struct Entry {
    key: ProcessKey,
    identity: Arc<Identity>,
    /// The window in which it ended.
    ended: Option<u32>,
    /// Whether it was read from `/proc`.
    complete: bool,
    /// Windows in which it was last looked at, and last asked for.
    verified: u32,
    used: u32,
}

/// All processes that were heard of lately.
#[derive(Debug)]
pub struct ProcessCache {
    host: Host,
    users: Users,
    max_bytes: usize,
    by_pid: SortedMap<u32, Entry>,
    window: u32,
    reads_left: u32,
    next_key: ProcessKey,
    ended: Vec<ProcessKey>,
    swept: u32,
    stats: CacheStats,
}

impl ProcessCache {
    /// An empty one that takes about so much memory at most.
    pub fn new(host: Host, max_bytes: usize) -> Self {
        Self {
            users: Users::new(&host),
            host,
            max_bytes,
            by_pid: SortedMap::new(),
            // 0 stands for never.
            window: 1,
            reads_left: READS_PER_WINDOW,
            next_key: 1,
            ended: Vec::new(),
            swept: 0,
            stats: CacheStats::default(),
        }
    }

    /// What became of everything.
    pub fn stats(&self) -> CacheStats {
        CacheStats { processes: self.by_pid.len(), ..self.stats }
    }

    /// Who has that number now, or had it last. `comm` is what the kernel called it or one of its threads, in case that
    /// nothing else is known.
    pub fn look_up(&mut self, pid: u32, comm: &[u8]) -> Found<'_> {
        let window = self.window;
        if self.by_pid.get(&pid).is_none_or(|entry| entry.verified != window) {
            self.verify(pid, comm);
        }
        let key = self.next_key;
        let entry = self.by_pid.entry(pid).or_insert_with(|| {
            // Not reached: it was entered above.
            let identity = Arc::new(Identity::of_name(pid, comm));
            Entry { key, identity, ended: Some(window), complete: false, verified: window, used: window }
        });
        entry.used = window;
        Found { key: entry.key, identity: &entry.identity, is_alive: entry.ended.is_none() }
    }

    /// Looks at a process for the first time in a window.
    fn verify(&mut self, pid: u32, comm: &[u8]) {
        let window = self.window;
        let known = self.by_pid.contains_key(&pid);
        if self.reads_left < if known { 1 } else { FULL_READ } {
            self.stats.skipped += 1;
            match self.by_pid.get_mut(&pid) {
                Some(entry) => entry.verified = window,
                None => {
                    let identity = Identity::of_name(pid, comm);
                    self.insert(pid, identity, false, None);
                }
            }
            return;
        }
        if let Some(entry) = self.by_pid.get_mut(&pid) {
            self.reads_left -= 1;
            entry.verified = window;
            match look(&self.host, pid) {
                Look::Gone if entry.ended.is_none() => return self.end(pid),
                // The number may have been used again, by somebody who is gone too.
                Look::Gone if is_other_name(&entry.identity, comm) => {}
                Look::Gone => return,
                Look::There(start, name) => {
                    // It has ended, and nobody waited for it yet.
                    if entry.ended.is_some() && is_same_start(start, entry.identity.start_boot_nanos) {
                        return;
                    }
                    let same = entry.complete
                        && entry.ended.is_none()
                        && is_same_start(start, entry.identity.start_boot_nanos)
                        && entry.identity.process.comm == name;
                    if same {
                        return;
                    }
                }
            }
        }
        self.reads_left = self.reads_left.saturating_sub(FULL_READ);
        let Some(info) = read_process(&self.host, pid) else {
            if known {
                // What is known from its events is more than its name.
                let is_other = self
                    .by_pid
                    .get(&pid)
                    .is_some_and(|entry| entry.ended.is_some() && is_other_name(&entry.identity, comm));
                if !is_other {
                    return self.end(pid);
                }
            }
            self.stats.unknown += 1;
            return self.insert(pid, Identity::of_name(pid, comm), false, Some(window));
        };
        let identity = Identity::new(info, &mut self.users);
        self.insert(pid, identity, true, None);
    }

    /// Enters a process, or what it has become.
    fn insert(&mut self, pid: u32, identity: Identity, complete: bool, ended: Option<u32>) {
        let window = self.window;
        if let Some(entry) = self.by_pid.get_mut(&pid) {
            // A thread may have renamed itself, and what was known from events was right.
            let same = entry.ended == ended
                && is_same_start(identity.start_boot_nanos, entry.identity.start_boot_nanos)
                && is_same_resource(&identity, &entry.identity);
            if same {
                self.stats.bytes = (self.stats.bytes + identity.cost()).saturating_sub(entry.identity.cost());
                entry.identity = Arc::new(identity);
                entry.complete |= complete;
                return;
            }
        }
        self.remove(pid);
        let cost = identity.cost();
        if self.stats.bytes + cost > self.max_bytes {
            self.make_room(cost);
        }
        self.stats.bytes += cost;
        let key = self.next_key;
        self.next_key += 1;
        // What ended before anybody looked has a last window, this one.
        if ended.is_some() {
            self.ended.push(key);
        }
        // What is not complete is looked at again in the next window.
        let identity = Arc::new(identity);
        let entry = Entry { key, identity, ended, complete, verified: window, used: window };
        self.by_pid.insert(pid, entry);
    }

    /// Forgets those that ended first and were used least lately, until a quarter is free.
    fn make_room(&mut self, cost: usize) {
        let aim = (self.max_bytes - self.max_bytes / 4).saturating_sub(cost);
        let mut order: Vec<_> =
            self.by_pid.iter().map(|(pid, e)| (e.ended.is_none(), e.used, e.key, *pid)).collect();
        order.sort_unstable();
        for (.., pid) in order {
            if self.stats.bytes <= aim {
                break;
            }
            self.remove(pid);
            self.stats.evicted += 1;
        }
    }

    fn remove(&mut self, pid: u32) {
        if let Some(entry) = self.by_pid.remove(&pid) {
            self.stats.bytes = self.stats.bytes.saturating_sub(entry.identity.cost());
            if entry.ended.is_none() {
                self.ended.push(entry.key);
            }
        }
    }

    fn end(&mut self, pid: u32) {
        if let Some(entry) = self.by_pid.get_mut(&pid).filter(|entry| entry.ended.is_none()) {
            entry.ended = Some(self.window);
            self.ended.push(entry.key);
        }
    }

    /// A process was started, or runs another program now: an event of the kernel's.
    pub fn started(&mut self, started: &Started<'_>) {
        if started.pid == 0 {
            return;
        }
        // Half of what may be read is for those who are mentioned.
        let known = |cache: &Self, pid| cache.by_pid.contains_key(&pid);
        let is_cheap = self.reads_left > READS_PER_WINDOW / 2;
        if is_cheap && started.parent > 0 && !known(self, started.pid) && !known(self, started.parent) {
            self.verify(started.parent, &[]);
        }
        let own = self.by_pid.get(&started.pid).filter(|entry| {
            entry.ended.is_none() && is_same_start(entry.identity.start_boot_nanos, started.start_boot_nanos)
        });
        // Before it runs a program of its own, a process is what its parent is.
        let from = own.or_else(|| self.by_pid.get(&started.parent)).map(|entry| Arc::clone(&entry.identity));
        let mut identity = from.map(|from| (*from).clone()).unwrap_or_default();
        identity.process.pid = started.pid;
        identity.process.parent_pid = started.parent;
        identity.start_boot_nanos = started.start_boot_nanos;
        identity.process.comm = text(started.comm).or(identity.process.comm);
        if let Some(path) = started.executable_path {
            identity.executable_name =
                path.rsplit('/').next().filter(|name| !name.is_empty()).map(Into::into);
            // As it was named: that may be from a directory that nobody knows.
            identity.process.executable_path = path.starts_with('/').then(|| path.into());
        }
        if let Some(uid) = started.uid {
            identity.owner = Some(self.users.name(uid));
        }
        self.insert(started.pid, identity, false, None);
        // If it lives on, it is looked at when it is first mentioned.
        if let Some(entry) = self.by_pid.get_mut(&started.pid) {
            (entry.verified, entry.complete) = (0, false);
        }
    }

    /// A process ended: an event of the kernel's.
    pub fn exited(&mut self, pid: u32, start_boot_nanos: u64) {
        let own = self.by_pid.get_mut(&pid);
        let same = own.filter(|entry| {
            let known = entry.identity.start_boot_nanos;
            known == 0 || start_boot_nanos == 0 || is_same_start(known, start_boot_nanos)
        });
        if let Some(entry) = same {
            // Who has the number next is somebody else, even in the same window.
            entry.verified = 0;
            self.end(pid);
        }
    }

    /// Ends a window: finds out who is gone, and forgets who was before. What ended since it was asked last.
    pub fn end_window(&mut self) -> Vec<ProcessKey> {
        let mut silent: Vec<u32> = self
            .by_pid
            .iter()
            .filter(|(_, entry)| entry.ended.is_none() && entry.verified != self.window)
            .map(|(pid, _)| *pid)
            .collect();
        silent.sort_unstable();
        // From where the last window's look ended.
        let (before, after) = silent.split_at(silent.partition_point(|pid| *pid <= self.swept));
        for &pid in after.iter().chain(before).take(SWEPT_PER_WINDOW) {
            self.swept = pid;
            let Some(entry) = self.by_pid.get_mut(&pid) else { continue };
            let gone = match look(&self.host, pid) {
                Look::Gone => true,
                Look::There(start, _) => !is_same_start(start, entry.identity.start_boot_nanos),
            };
            if gone {
                self.end(pid);
            }
        }
        let window = self.window;
        let mut old: Vec<u32> = self
            .by_pid
            .iter()
            .filter(|(_, entry)| entry.ended.is_some_and(|ended| window.wrapping_sub(ended) >= GRACE))
            .map(|(pid, _)| *pid)
            .collect();
        old.sort_unstable();
        old.into_iter().for_each(|pid| self.remove(pid));
        self.window += 1;
        self.reads_left = READS_PER_WINDOW;
        std::mem::take(&mut self.ended)
    }
}

enum Look {
    Gone,
    /// Start in nanoseconds of `CLOCK_BOOTTIME`, and name.
    There(u64, Option<Arc<str>>),
}

fn look(host: &Host, pid: u32) -> Look {
    let stat = read_limited(&host.process_file(pid, "stat"), MAX_STAT).unwrap_or_default();
    match parse_stat(&stat) {
        Some(stat) => Look::There(stat.start_ticks.saturating_mul(tick_nanos()), text(stat.comm)),
        None => Look::Gone,
    }
}

fn tick_nanos() -> u64 {
    1_000_000_000 / bpf_sys::clock::ticks_per_second().max(1)
}

fn text(comm: &[u8]) -> Option<Arc<str>> {
    let name = comm.split(|byte| *byte == 0).next().unwrap_or_default();
    (!name.is_empty()).then(|| String::from_utf8_lossy(name).into())
}

/// `/proc` has ticks where the kernel's events have nanoseconds.
fn is_same_start(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= TICK_NANOS
}

fn is_other_name(identity: &Identity, comm: &[u8]) -> bool {
    let comm = text(comm);
    comm.is_some() && comm != identity.process.comm
}

/// Whether telemetry says the same of both.
fn is_same_resource(a: &Identity, b: &Identity) -> bool {
    let texts = |i: &Identity| {
        (
            i.executable_name.clone(),
            i.owner.clone(),
            i.process.pod_uid.clone(),
            i.process.executable_path.clone(),
        )
    };
    a.service() == b.service()
        && a.process.container_id == b.process.container_id
        && a.unit() == b.unit()
        && texts(a) == texts(b)
}
