//! Finds and keeps perf maps.

use std::os::unix::fs::MetadataExt;

use super::host::{Host, read_limited};
use super::host_symbolizer::Owner;
use super::perf_map::{JitFunction, PerfMap};
use super::read_at::FileReader;
use crate::enrich::{namespace_pids, status_field};
use crate::sorted::SortedMap;

/// Memory for all perf maps.
const BUDGET: usize = 32 << 20;

#[derive(Debug, Default)]
struct Known {
    map: PerfMap,
    inode: u64,
    window: u64,
    used: u64,
}

/// Perf maps of processes.
#[derive(Debug, Default)]
pub(super) struct JitMaps {
    /// By process, and when its generation began: another program writes a map of its own.
    maps: SortedMap<(u32, u64), Known>,
    window: u64,
    clock: u64,
    dropped: u64,
}

impl JitMaps {
    /// Lets every map be looked at again.
    pub fn begin_window(&mut self) {
        self.window += 1;
    }

    /// Forgets the maps of generations that are gone.
    pub fn retain(&mut self, is_known: impl Fn(u32, u64) -> bool) {
        self.maps.retain(|&(pid, started), _| is_known(pid, started));
    }

    /// The function that holds `address` in a generation of a process. Its map is read on once a window, as long as it
    /// is alive.
    pub fn find(&mut self, host: &Host, owner: Owner, address: u64) -> Option<JitFunction<'_>> {
        let Owner { pid, started, alive, .. } = owner;
        let key = (pid, started);
        self.clock += 1;
        let (window, clock) = (self.window, self.clock);
        let known = self.maps.entry(key).or_default();
        known.used = clock;
        if alive && known.window != window {
            known.window = window;
            refresh(known, host, pid);
            self.dropped += known.map.take_dropped();
            self.enforce_budget(key);
        }
        self.maps.get(&key)?.map.find(address)
    }

    /// Functions that there was no room for.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn enforce_budget(&mut self, in_use: (u32, u64)) {
        while self.maps.values().map(|known| known.map.memory()).sum::<usize>() > BUDGET {
            let others = self.maps.iter_mut();
            let others = others.filter(|(key, known)| **key != in_use && !known.map.is_empty());
            let Some((_, oldest)) = others.min_by_key(|(_, known)| known.used) else { return };
            // It stays known that it was read, so that it is read again in the next window, not for the next address.
            self.dropped += oldest.map.len() as u64;
            oldest.map = PerfMap::default();
            oldest.inode = 0;
        }
    }
}

/// Reads what the map has grown by. The map is of the process' own making: it counts only if it is a regular
/// file of the process' user, or root's, and no link leads to it.
fn refresh(known: &mut Known, host: &Host, pid: u32) -> Option<()> {
    let status = read_limited(&host.process_file(pid, "status"), 16 * 1024).ok()?;
    let own_pid = namespace_pids(&status).last().copied().unwrap_or(pid);
    let place = host.in_process_root(pid, &format!("/tmp/perf-{own_pid}.map")).without_links();
    let (file, metadata) = FileReader::open(&place).ok()?;
    let effective_user = status_field(&status, b"Uid:").and_then(|mut ids| ids.nth(1));
    if metadata.uid() != 0 && Some(metadata.uid()) != effective_user {
        return None;
    }
    if metadata.ino() != known.inode || metadata.len() < known.map.parsed() {
        known.map = PerfMap::default();
        known.inode = metadata.ino();
    }
    known.map.read_more(&file).ok()
}
