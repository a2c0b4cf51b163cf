//! Connections that found no room in a listening socket's queue, from the counters that each network namespace keeps.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Most namespaces that are looked at.
const MAX_NAMESPACES: usize = 1024;

/// A namespace's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// `ListenOverflows`.
    pub overflows: u64,
    /// `ListenDrops`, overflows included.
    pub drops: u64,
}

/// The counters of all namespaces, as they were when they were read last.
#[derive(Debug, Default)]
pub struct ListenCounters {
    /// By inode number. Namespaces that seem to be gone stay, in case a process enters them again; the kernel may give their
    /// number to another, whose counters begin at 0.
    last: HashMap<u64, Counters>,
}

impl ListenCounters {
    /// What they are now, from which growth is counted.
    pub fn read() -> Self {
        let mut counters = Self::default();
        counters.grow();
        counters
    }

    /// Growth over all namespaces since the last call. A namespace that was not there before has counted from 0.
    pub fn grow(&mut self) -> Counters {
        let mut sum = Counters::default();
        for (namespace, directory) in namespaces() {
            let Ok(text) = fs::read_to_string(directory.join("net/netstat")) else { continue };
            let Some(now) = parse(&text) else { continue };
            let is_known = self.last.contains_key(&namespace);
            if !is_known && self.last.len() >= MAX_NAMESPACES {
                continue;
            }
            let last = self.last.entry(namespace).or_default();
            if now.overflows < last.overflows || now.drops < last.drops {
                *last = Counters::default();
            }
            sum.overflows += now.overflows - last.overflows;
            sum.drops += now.drops - last.drops;
            *last = now;
        }
        sum
    }
}

/// The network namespaces that processes are in: inode number, and the directory of one such process.
pub fn namespaces() -> HashMap<u64, PathBuf> {
    let mut found = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let Ok(namespace) = fs::metadata(entry.path().join("ns/net")) else { continue };
        found.entry(namespace.ino()).or_insert_with(|| entry.path());
    }
    found
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
}
