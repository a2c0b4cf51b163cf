//! Finds and keeps perf maps, and dumps of just-in-time compilers.

use std::os::unix::fs::MetadataExt;

use super::host::{Host, Place, read_limited};
use super::host_symbolizer::Owner;
#[cfg(feature = "dwarf")]
use super::jit_dump::JitDump;
use super::perf_map::PerfMap;
#[cfg(feature = "dwarf")]
use super::process::Generation;
use super::read_at::FileReader;
use crate::enrich::{namespace_pids, status_field};
use crate::model::Line;
use crate::sorted::SortedMap;

/// Memory for all perf maps and dumps.
const BUDGET: usize = 32 << 20;

#[derive(Debug, Default)]
struct Known {
    map: PerfMap,
    inode: u64,
    #[cfg(feature = "dwarf")]
    dump: JitDump,
    #[cfg(feature = "dwarf")]
    dump_inode: u64,
    window: u64,
    used: u64,
}

impl Known {
    fn memory(&self) -> usize {
        let memory = self.map.memory();
        #[cfg(feature = "dwarf")]
        let memory = memory + self.dump.memory();
        memory
    }

    /// Functions that it has.
    fn len(&self) -> usize {
        let count = self.map.len();
        #[cfg(feature = "dwarf")]
        let count = count + self.dump.len();
        count
    }

    fn take_dropped(&mut self) -> u64 {
        let dropped = self.map.take_dropped();
        #[cfg(feature = "dwarf")]
        let dropped = dropped + self.dump.take_dropped();
        dropped
    }

    /// Keeps when it was read, so that it is read again in the next window, not for the next address.
    fn forget(&mut self) {
        *self = Self { window: self.window, used: self.used, ..Self::default() };
    }

    /// The function that holds an address: a dump tells more than a map.
    fn find(&self, address: u64) -> Option<Line> {
        #[cfg(feature = "dwarf")]
        if let Some(found) = self.dump.find(address) {
            let (file, line) = found.place.map_or((None, 0), |(file, line)| (Some(file), line));
            return Some(Line { function: found.name, system_name: None, file, line });
        }
        let function = self.map.find(address)?;
        Some(Line { function: function.name.into(), system_name: None, file: None, line: 0 })
    }
}

/// Perf maps and dumps of processes.
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

    /// The function that holds `address` in a generation of a process. Its map, and the dump that may be at one of `dumps`, are read
    /// on once a window, as long as it is alive.
    pub fn find(
        &mut self,
        host: &Host,
        owner: Owner,
        address: u64,
        dumps: impl FnOnce() -> Vec<Place>,
    ) -> Option<Line> {
        let Owner { pid, started, alive, .. } = owner;
        let key = (pid, started);
        self.clock += 1;
        let (window, clock) = (self.window, self.clock);
        let known = self.maps.entry(key).or_default();
        known.used = clock;
        if alive && known.window != window {
            known.window = window;
            refresh(known, host, pid, dumps());
            self.dropped += known.take_dropped();
            self.enforce_budget(key);
        }
        self.maps.get(&key)?.find(address)
    }

    /// Functions that there was no room for.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn enforce_budget(&mut self, in_use: (u32, u64)) {
        while self.maps.values().map(Known::memory).sum::<usize>() > BUDGET {
            let others = self.maps.iter_mut();
            let others = others.filter(|(key, known)| **key != in_use && known.len() > 0);
            let Some((_, oldest)) = others.min_by_key(|(_, known)| known.used) else { return };
            self.dropped += oldest.len() as u64;
            oldest.forget();
        }
    }
}

/// Reads what map and dump have grown by. They are of the process' own making: they count only if they are regular
/// files of the process' user, or root's, and no link leads to them.
#[cfg_attr(not(feature = "dwarf"), allow(unused_variables))]
fn refresh(known: &mut Known, host: &Host, pid: u32, dumps: Vec<Place>) -> Option<()> {
    let status = read_limited(&host.process_file(pid, "status"), 16 * 1024).ok()?;
    let own_pid = namespace_pids(&status).last().copied().unwrap_or(pid);
    let effective_user = status_field(&status, b"Uid:").and_then(|mut ids| ids.nth(1));
    let open = |place: &Place| {
        let opened = FileReader::open(place).ok();
        opened.filter(|(_, metadata)| metadata.uid() == 0 || Some(metadata.uid()) == effective_user)
    };
    #[cfg(feature = "dwarf")]
    if let Some((file, metadata)) = dumps.iter().find_map(open) {
        if metadata.ino() != known.dump_inode || metadata.len() < known.dump.parsed() {
            known.dump = JitDump::default();
            known.dump_inode = metadata.ino();
        }
        // What was read before it failed stays.
        let _ = known.dump.read_more(&file);
    }
    let place = host.in_process_root(pid, &format!("/tmp/perf-{own_pid}.map")).without_links();
    let (file, metadata) = open(&place)?;
    if metadata.ino() != known.inode || metadata.len() < known.map.parsed() {
        known.map = PerfMap::default();
        known.inode = metadata.ino();
    }
    known.map.read_more(&file).ok()
}

/// Where the dump may be that a process maps, so that others find it: `jit-PID.dump` in any folder.
#[cfg(feature = "dwarf")]
pub(super) fn dumps(host: &Host, pid: u32, generation: &Generation) -> Vec<Place> {
    let is_dump = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let number = name.strip_prefix("jit-").and_then(|name| name.strip_suffix(".dump"));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let found = generation.mappings().iter().find(|mapping| is_dump(&mapping.file.path));
    found.map_or_else(Vec::new, |mapping| {
        let name = format!("map_files/{:x}-{:x}", mapping.start, mapping.end);
        let in_root = host.in_process_root(pid, &mapping.file.path).without_links();
        vec![Place::trusted(host.process_file(pid, &name)), in_root]
    })
}
