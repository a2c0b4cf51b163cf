//! Connections that found no room in a listening socket's queue, from the counters that each network namespace keeps.

use crate::sorted::{SortedMap, SortedSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most namespaces that are looked at.
pub const MAX_NAMESPACES: usize = 1024;
/// Calls after which all processes are looked at again: one may have changed its namespace.
const CALLS_PER_SCAN: u32 = 60;

/// A namespace's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// `ListenOverflows`.
    pub overflows: u64,
    /// `ListenDrops`, overflows included.
    pub drops: u64,
}

/// The counters of all namespaces, as they were when they were read last.
#[derive(Debug)]
pub struct ListenCounters {
    namespaces: Namespaces,
    /// By inode number. Namespaces that seem to be gone stay while there is room, in case a process enters them again; the
    /// kernel may give their number to another, whose counters begin at 0.
    last: SortedMap<u64, Counters>,
    /// Namespaces that were there at the start and were not read: without a process, or beyond the limit.
    older: SortedSet<u64>,
    left_out: u64,
}

impl ListenCounters {
    /// What they are now, from which growth is counted.
    pub fn read() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self::read_from(PathBuf::from("/proc"), &mounts)
    }

    fn read_from(proc: PathBuf, mounts: &str) -> Self {
        let mut counters = Self {
            namespaces: Namespaces::new(proc),
            last: SortedMap::new(),
            older: mounted(mounts).collect(),
            left_out: 0,
        };
        counters.grow();
        let left_out =
            counters.namespaces.found.keys().filter(|namespace| !counters.last.contains_key(namespace));
        counters.older.extend(left_out.copied());
        counters
    }

    /// Growth over all namespaces since the last call. A namespace that is newer than this has counted from 0; of one that was
    /// there and is met only now, nobody knows when it counted what it has.
    pub fn grow(&mut self) -> Counters {
        let mut sum = Counters::default();
        self.namespaces.find();
        let found = &self.namespaces.found;
        if self.last.len() >= MAX_NAMESPACES {
            self.last.retain(|namespace, _| found.contains_key(namespace));
        }
        for (namespace, pid) in found {
            let path = self.namespaces.proc.join(format!("{pid}/net/netstat"));
            let Some(now) = fs::read_to_string(path).ok().and_then(|text| parse(&text)) else { continue };
            if !self.last.contains_key(namespace) && self.last.len() >= MAX_NAMESPACES {
                self.left_out += 1;
                continue;
            }
            let first = if self.older.remove(namespace) { now } else { Counters::default() };
            let last = self.last.entry(*namespace).or_insert(first);
            if now.overflows < last.overflows || now.drops < last.drops {
                *last = Counters::default();
            }
            sum.overflows += now.overflows - last.overflows;
            sum.drops += now.drops - last.drops;
            *last = now;
        }
        sum
    }

    /// How often a namespace was not looked at, since there were too many.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

/// The network namespaces that processes are in: of each, by its inode number, one process. To find them all, every process has
/// to be looked at; so those that were are remembered.
#[derive(Debug)]
struct Namespaces {
    proc: PathBuf,
    found: SortedMap<u64, u32>,
    looked_at: SortedSet<u32>,
    calls: u32,
}

impl Namespaces {
    fn new(proc: PathBuf) -> Self {
        Self { proc, found: SortedMap::new(), looked_at: SortedSet::new(), calls: 0 }
    }

    fn find(&mut self) {
        let is_there = |(namespace, pid): (&u64, &u32)| namespace_of(&self.proc, *pid) == Some(*namespace);
        if self.calls % CALLS_PER_SCAN == 0 || !self.found.iter().all(is_there) {
            self.found.clear();
            self.looked_at.clear();
        }
        self.calls = self.calls.wrapping_add(1);
        let entries = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let pids: SortedSet<u32> = pids.collect();
        for pid in pids.iter().filter(|pid| !self.looked_at.contains(pid)) {
            if let Some(namespace) = namespace_of(&self.proc, *pid) {
                self.found.entry(namespace).or_insert(*pid);
            }
        }
        self.looked_at = pids;
    }
}

fn namespace_of(proc: &Path, pid: u32) -> Option<u64> {
    fs::metadata(proc.join(format!("{pid}/ns/net"))).ok().map(|namespace| namespace.ino())
}

/// The network namespaces that are kept by a mount, as `ip netns` does, from a `mountinfo`.
fn mounted(mounts: &str) -> impl Iterator<Item = u64> + '_ {
    mounts.lines().filter_map(|line| {
        let root = line.split_whitespace().nth(3)?;
        root.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
    })
}

/// Two lines a group, names and then numbers, both after the group's name.
fn parse(netstat: &str) -> Option<Counters> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let names = lines.next()?.split_whitespace();
    let numbers = lines.next()?.split_whitespace();
    let mut counters = Counters::default();
    for (name, number) in names.zip(numbers) {
        match name {
            "ListenOverflows" => counters.overflows = number.parse().ok()?,
            "ListenDrops" => counters.drops = number.parse().ok()?,
            _ => {}
        }
    }
    Some(counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 22 333\nIpExt: InNoRoutes\nIpExt: 4\n";
        assert_eq!(parse(text), Some(Counters { overflows: 22, drops: 333 }));
        assert_eq!(parse("TcpExt: ListenDrops\n"), None);
        assert_eq!(parse("TcpExt: ListenDrops\nTcpExt: x\n"), None);
        assert_eq!(parse(""), None);
    }

    /// A `/proc` in which each process has a namespace that counted so many drops.
    struct Proc(PathBuf);

    impl Proc {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("listen-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("namespaces")).unwrap();
            Self(path)
        }

        /// The inode number.
        fn namespace(&self, name: &str) -> u64 {
            let path = self.0.join("namespaces").join(name);
            fs::write(&path, "").unwrap();
            fs::metadata(path).unwrap().ino()
        }

        fn process(&self, pid: u32, namespace: &str, drops: u64) {
            let process = self.0.join(pid.to_string());
            let _ = fs::remove_dir_all(&process);
            fs::create_dir_all(process.join("ns")).unwrap();
            fs::create_dir_all(process.join("net")).unwrap();
            fs::hard_link(self.0.join("namespaces").join(namespace), process.join("ns/net")).unwrap();
            let netstat = format!("TcpExt: ListenOverflows ListenDrops\nTcpExt: 0 {drops}\n");
            fs::write(process.join("net/netstat"), netstat).unwrap();
        }

        fn end(&self, pid: u32) {
            fs::remove_dir_all(self.0.join(pid.to_string())).unwrap();
        }
    }

    impl Drop for Proc {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn namespaces_from_before_count_from_their_first_sight_and_newer_ones_from_nothing() {
        let proc = Proc::new("first-sight");
        let kept = proc.namespace("kept");
        proc.namespace("own");
        proc.process(1, "own", 100);
        let mounts = format!("36 35 0:4 net:[{kept}] /run/netns/a rw shared:1 - nsfs nsfs rw\n");
        let mut counters = ListenCounters::read_from(proc.0.clone(), &mounts);
        assert_eq!(counters.grow().drops, 0);
        // A process enters the one that was kept by a mount.
        proc.process(2, "kept", 50);
        assert_eq!(counters.grow().drops, 0);
        proc.process(2, "kept", 53);
        assert_eq!(counters.grow().drops, 3);
        proc.namespace("new");
        proc.process(3, "new", 7);
        assert_eq!(counters.grow().drops, 7);
        // Nothing is lost when its process ends and it has another.
        proc.end(2);
        proc.process(4, "kept", 54);
        assert_eq!(counters.grow().drops, 1);
        // Nor if it has none for a while.
        proc.end(4);
        assert_eq!(counters.grow().drops, 0);
        proc.process(5, "kept", 56);
        assert_eq!(counters.grow().drops, 2);
        assert_eq!(counters.left_out(), 0);
    }

    #[test]
    fn namespaces_beyond_the_limit_count_from_their_first_sight() {
        let proc = Proc::new("limit");
        for pid in 0..=MAX_NAMESPACES as u32 {
            proc.namespace(&pid.to_string());
            proc.process(pid, &pid.to_string(), 100);
        }
        let mut counters = ListenCounters::read_from(proc.0.clone(), "");
        assert_eq!(counters.left_out(), 1);
        let (known, left_out): (Vec<_>, Vec<_>) = counters
            .namespaces
            .found
            .iter()
            .partition(|(namespace, _)| counters.last.contains_key(*namespace));
        let (known, left_out) = (*known[0].1, *left_out[0].1);
        // There is room for it from now on.
        proc.end(known);
        assert_eq!(counters.grow().drops, 0);
        proc.process(left_out, &left_out.to_string(), 103);
        assert_eq!(counters.grow().drops, 3);
    }

    #[test]
    fn processes_that_change_their_namespace_are_found() {
        let proc = Proc::new("change");
        proc.namespace("own");
        proc.namespace("other");
        proc.process(1, "own", 0);
        proc.process(2, "own", 0);
        let mut counters = ListenCounters::read_from(proc.0.clone(), "");
        // Whichever of the two is remembered.
        for pid in [1, 2] {
            proc.process(pid, "other", 9);
            for _ in 0..CALLS_PER_SCAN {
                counters.grow();
            }
            assert_eq!(counters.last.len(), 2);
            proc.process(pid, "own", 0);
        }
    }

    #[test]
    fn mounts_tell_of_namespaces() {
        let text = "1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 0:4 net:[42] /run/netns/a rw - nsfs nsfs rw\n\
                    3 1 0:4 mnt:[43] /x rw - nsfs nsfs rw\nx\n";
        assert_eq!(mounted(text).collect::<Vec<_>>(), [42]);
    }
}
