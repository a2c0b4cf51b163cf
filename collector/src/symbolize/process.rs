//! Which files a process has mapped where, over time: from perf sideband records, and from `/proc/PID/maps`.

use std::collections::VecDeque;
use std::sync::Arc;

use super::maps;
use super::sideband::{FileId, Record, SampleId};
use crate::sorted::{SortedMap, SortedSet};

/// Executable mappings that are kept of a process.
const MAX_MAPPINGS: usize = 4096;
/// Generations that are kept.
const MAX_GENERATIONS: usize = 32 * 1024;
/// Mappings that are kept of all processes, 32 bytes each; those that generations share count once.
const MAX_ALL_MAPPINGS: usize = 256 * 1024;
/// Bytes of paths that are kept.
const MAX_PATHS: usize = 16 << 20;
/// Files that are shared before the first clean-up.
const MIN_FILES: usize = 4096;

/// A file, as a mapping knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MappedFile {
    /// Path as the process sees it (as the agent does, where `/proc/PID/maps` told it), or a `[name]`; empty for
    /// anonymous memory.
    pub path: Arc<str>,
    /// Device number, major and minor; zero where unknown.
    pub device: (u32, u32),
    /// Inode, 0 where unknown or no file.
    pub inode: u64,
    /// GNU build id that the kernel read when the file was mapped.
    pub build_id: Option<Arc<[u8]>>,
}

impl MappedFile {
    /// True where a path leads to a file.
    pub fn is_file(&self) -> bool {
        let names_memory = ["/memfd:", "/SYSV", "/dev/zero", "/anon_hugepage", "//"];
        self.path.starts_with('/') && !names_memory.iter().any(|name| self.path.starts_with(name))
    }
}

/// Executable memory of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmMapping {
    /// First address.
    pub start: u64,
    /// First address past it.
    pub end: u64,
    /// Offset in the file.
    pub offset: u64,
    /// What it shows.
    pub file: Arc<MappedFile>,
}

/// A process from its start, or from the execution of a program, to the next or to its end.
#[derive(Debug, Clone)]
pub struct Generation {
    /// When it began; 0 where that was before the records did.
    pub started: u64,
    /// When it ended.
    pub ended: Option<u64>,
    /// Process id of its parent, 0 where unknown.
    pub parent: u32,
    /// Name of the leading thread.
    pub comm: Option<Arc<str>>,
    /// Path of the program, where it was seen to execute it.
    pub executable: Option<Arc<str>>,
    /// Sorted, without overlap; shared with a parent until one of them changes it.
    mappings: Arc<Vec<VmMapping>>,
    /// Records of its whole life were seen, so `/proc` has nothing to add.
    complete: bool,
}

impl Generation {
    fn new(started: u64) -> Self {
        Self {
            started,
            ended: None,
            parent: 0,
            comm: None,
            executable: None,
            mappings: Arc::default(),
            complete: false,
        }
    }

    /// The mapping that holds `address`.
    pub fn find(&self, address: u64) -> Option<&VmMapping> {
        let after = self.mappings.partition_point(|mapping| mapping.start <= address);
        let mapping = self.mappings.get(after.checked_sub(1)?)?;
        (address < mapping.end).then_some(mapping)
    }

    /// All mappings, by address.
    pub fn mappings(&self) -> &[VmMapping] {
        &self.mappings
    }

    /// Puts a mapping over those that it overlaps; false where there is no room.
    fn map(&mut self, new: VmMapping) -> bool {
        if new.start >= new.end {
            return true;
        }
        let first = self.mappings.partition_point(|old| old.end <= new.start);
        let last = self.mappings.partition_point(|old| old.start < new.end).max(first);
        let overlapped = self.mappings.get(first..last).unwrap_or_default();
        if overlapped == std::slice::from_ref(&new) {
            return true;
        }
        let head = overlapped.first().filter(|old| old.start < new.start);
        let head = head.map(|old| VmMapping { end: new.start, ..old.clone() });
        let tail = overlapped.last().filter(|old| old.end > new.end).map(|old| VmMapping {
            start: new.end,
            offset: old.offset.wrapping_add(new.end - old.start),
            ..old.clone()
        });
        let pieces = 1 + usize::from(head.is_some()) + usize::from(tail.is_some());
        if self.mappings.len() - overlapped.len() + pieces > MAX_MAPPINGS {
            return false;
        }
        // (`splice` would be 1.5 KB more.)
        let mappings = Arc::make_mut(&mut self.mappings);
        let after = mappings.split_off(last);
        mappings.truncate(first);
        mappings.extend(head);
        mappings.push(new);
        mappings.extend(tail);
        mappings.extend(after);
        true
    }

    /// How many mappings no other generation shares.
    fn own_mappings(&self) -> usize {
        if Arc::strong_count(&self.mappings) == 1 { self.mappings.len() } else { 0 }
    }

    /// How many mappings there may be more once one was put over the others: it cuts one in three at worst, and what is
    /// shared is copied first.
    fn growth(&self) -> usize {
        self.mappings.len() - self.own_mappings() + 2
    }
}

/// What the table had to leave out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessLosses {
    /// Generations that were forgotten, or not taken, for want of room.
    pub generations: u64,
    /// Mappings that were not taken, because their process, or all that live, have too many.
    pub mappings: u64,
}

/// The processes that were seen. Feed it records in the order of their time.
#[derive(Debug, Default)]
pub struct ProcessTable {
    /// Generations by process, oldest first.
    processes: SortedMap<u32, VecDeque<Generation>>,
    generations: usize,
    /// The process of each generation that ended, in the order of their ends.
    ended: VecDeque<u32>,
    /// Mappings of all generations; those that are shared count once.
    mappings: usize,
    files: SortedSet<Arc<MappedFile>>,
    /// Bytes of the paths of `files`.
    paths: usize,
    /// There was no room for a path, and no generation was forgotten since.
    paths_full: bool,
    files_limit: usize,
    losses: ProcessLosses,
    /// Records were lost, an exit perhaps.
    lost: bool,
}

impl ProcessTable {
    /// Takes a record in.
    pub fn observe(&mut self, record: &Record<'_>, id: &SampleId) {
        let now = id.time.unwrap_or(0);
        match *record {
            Record::Mmap { pid, start, length, offset, file, path } => {
                let Some(file) = self.intern(mapped_file(path, file)) else {
                    self.losses.mappings += 1;
                    return;
                };
                let mapping = VmMapping { start, end: start.saturating_add(length), offset, file };
                let Some(generation) = self.latest_or_new(pid) else { return };
                if generation.executable.is_none() && generation.complete && mapping.file.is_file() {
                    generation.executable = Some(Arc::clone(&mapping.file.path));
                }
                self.map(pid, mapping);
            }
            Record::Comm { pid, exec: true, comm, .. } => {
                let parent = self.latest(pid).map_or(0, |generation| generation.parent);
                let comm = Some(text(comm));
                self.begin(pid, Generation { parent, comm, complete: true, ..Generation::new(now) });
            }
            Record::Comm { pid, tid, comm, .. } if pid == tid => {
                if let Some(generation) = self.latest_or_new(pid) {
                    generation.comm = Some(text(comm));
                }
            }
            Record::Fork { pid, parent_pid, time, .. } if pid != parent_pid => {
                let parent = self.latest(parent_pid).cloned();
                let parent = parent.unwrap_or_else(|| Generation::new(time));
                self.begin(pid, Generation { started: time, ended: None, parent: parent_pid, ..parent });
            }
            Record::Exit { pid, tid, time } if pid == tid => {
                self.end(pid, time);
            }
            Record::Lost { .. } => {
                self.lost = true;
                for generation in self.processes.values_mut().flatten() {
                    generation.complete = false;
                }
            }
            _ => {}
        }
    }

    /// Takes in the text of `/proc/PID/maps`. The process is as old as the text tells nothing about: its
    /// generation reaches back to the start, if no record told otherwise.
    pub fn observe_maps(&mut self, pid: u32, text: &[u8]) {
        if self.latest_or_new(pid).is_none() {
            return;
        }
        for line in maps::parse(text).filter(|line| line.executable) {
            let known = self.latest(pid).and_then(|generation| generation.find(line.start));
            // A record knows the build id, and the path as the process sees it.
            if known.is_some_and(|known| known.end >= line.end && known.file.inode == line.inode) {
                continue;
            }
            let path = self::text(line.path);
            let file = MappedFile { path, device: line.device, inode: line.inode, build_id: None };
            match self.intern(file) {
                Some(file) => {
                    let (start, end, offset) = (line.start, line.end, line.offset);
                    self.map(pid, VmMapping { start, end, offset, file });
                }
                None => self.losses.mappings += 1,
            }
        }
        if let Some(generation) = self.latest_mut(pid) {
            generation.complete = true;
        }
    }

    /// The generation of `pid` at `time` (`u64::MAX` for the latest), or the first where all are later.
    pub fn generation(&self, pid: u32, time: u64) -> Option<&Generation> {
        let all = self.processes.get(&pid)?;
        all.get(index_at(all, time))
    }

    /// The mapping that held `address` of `pid` at `time`, in its generation then, or else in the nearest one before,
    /// or else after: a sample that is counted in the kernel is older than the time when it is read.
    pub fn find(&self, pid: u32, time: u64, address: u64) -> Option<(&Generation, &VmMapping)> {
        let found = |generation| Generation::find(generation, address).map(|mapping| (generation, mapping));
        let all = self.processes.get(&pid)?;
        let then = index_at(all, time);
        let before = all.range(..all.len().min(then + 1)).rev().find_map(found);
        before.or_else(|| all.iter().skip(then + 1).find_map(found))
    }

    /// True where `/proc/PID/maps` may tell more than the records did: it is not known, or not from its start.
    pub fn wants_maps(&self, pid: u32) -> bool {
        self.latest(pid).is_none_or(|generation| generation.ended.is_none() && !generation.complete)
    }

    /// The process that `pid` at `time` is a copy of, and when it was copied, where neither records nor `/proc` told
    /// its mappings.
    pub fn unread_parent(&self, pid: u32, time: u64) -> Option<(u32, u64)> {
        let generation = self.generation(pid, time)?;
        (!generation.complete && generation.parent != 0).then_some((generation.parent, generation.started))
    }

    /// True where it was not seen to end.
    pub fn may_live(&self, pid: u32) -> bool {
        self.latest(pid).is_none_or(|generation| generation.ended.is_none())
    }

    /// Forgets generations that ended before `before`, and after a loss those for which `alive` says no.
    pub fn end_window(&mut self, before: u64, alive: impl Fn(u32) -> bool) {
        let check = std::mem::take(&mut self.lost);
        self.processes.retain(|&pid, all| {
            all.retain(|generation| generation.ended.is_none_or(|ended| ended >= before));
            !all.is_empty() && (!check || alive(pid))
        });
        self.recount();
    }

    /// What was left out so far.
    pub fn losses(&self) -> ProcessLosses {
        self.losses
    }

    /// Number of generations.
    pub fn len(&self) -> usize {
        self.generations
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.generations == 0
    }

    fn latest(&self, pid: u32) -> Option<&Generation> {
        self.processes.get(&pid)?.back()
    }

    /// The latest generation of `pid`, which began before the records did if there was none.
    fn latest_or_new(&mut self, pid: u32) -> Option<&mut Generation> {
        if self.latest(pid).is_none() {
            self.begin(pid, Generation::new(0));
        }
        self.latest_mut(pid)
    }

    fn latest_mut(&mut self, pid: u32) -> Option<&mut Generation> {
        self.processes.get_mut(&pid)?.back_mut()
    }

    fn begin(&mut self, pid: u32, generation: Generation) {
        self.end(pid, generation.started);
        while self.generations >= MAX_GENERATIONS {
            if !self.forget_oldest() {
                self.losses.generations += 1;
                return;
            }
        }
        self.processes.entry(pid).or_default().push_back(generation);
        self.generations += 1;
    }

    /// Ends the latest generation of `pid`, if it has not yet.
    fn end(&mut self, pid: u32, time: u64) {
        let latest = self.processes.get_mut(&pid).and_then(VecDeque::back_mut);
        if let Some(generation) = latest.filter(|generation| generation.ended.is_none()) {
            generation.ended = Some(time);
            self.ended.push_back(pid);
        }
    }

    /// Puts a mapping into the latest generation of `pid`, if there is room.
    fn map(&mut self, pid: u32, mapping: VmMapping) {
        let mut room = true;
        while room && self.mappings + self.latest(pid).map_or(0, Generation::growth) > MAX_ALL_MAPPINGS {
            room = self.forget_oldest();
        }
        let generation = self.processes.get_mut(&pid).and_then(VecDeque::back_mut).filter(|_| room);
        let Some(generation) = generation else {
            self.losses.mappings += 1;
            return;
        };
        let before = generation.own_mappings();
        let taken = generation.map(mapping);
        self.mappings = self.mappings - before + generation.own_mappings();
        self.losses.mappings += u64::from(!taken);
    }

    /// Forgets the generation that ended first; false where none has ended.
    fn forget_oldest(&mut self) -> bool {
        let Some(pid) = self.ended.pop_front() else { return false };
        if let Some(all) = self.processes.get_mut(&pid) {
            if let Some(oldest) = all.pop_front() {
                self.mappings -= oldest.own_mappings();
                self.generations -= 1;
                self.losses.generations += 1;
            }
            if all.is_empty() {
                self.processes.remove(&pid);
            }
        }
        self.paths_full = false;
        true
    }

    fn recount(&mut self) {
        self.generations = self.processes.values().map(VecDeque::len).sum();
        let all = || self.processes.values().flatten();
        let distinct: SortedMap<_, _> =
            all().map(|generation| (Arc::as_ptr(&generation.mappings), generation.mappings.len())).collect();
        self.mappings = distinct.values().sum();
        let mut ends: Vec<(u64, u32)> = Vec::new();
        for (&pid, all) in self.processes.iter() {
            ends.extend(all.iter().filter_map(|one| Some((one.ended?, pid))));
        }
        ends.sort_unstable();
        self.ended = ends.into_iter().map(|(_, pid)| pid).collect();
        self.forget_files();
        self.paths_full = false;
    }

    /// The one copy of a file's description; `None` where there is no room for its path.
    fn intern(&mut self, file: MappedFile) -> Option<Arc<MappedFile>> {
        if let Some(known) = self.files.get(&file) {
            return Some(Arc::clone(known));
        }
        // What no mapping shows any more goes when the set has doubled, at the latest.
        if self.files.len() >= self.files_limit {
            self.forget_files();
            self.files_limit = (2 * self.files.len()).max(MIN_FILES);
        }
        let paths = |table: &Self| table.paths + file.path.len();
        while paths(self) > MAX_PATHS {
            if !self.paths_full {
                self.forget_files();
                self.paths_full = paths(self) > MAX_PATHS;
            } else {
                // Half of them, because looking which files were theirs takes a while.
                let count = self.ended.len().div_ceil(2);
                if count == 0 {
                    return None;
                }
                (0..count).for_each(|_| _ = self.forget_oldest());
            }
        }
        self.paths += file.path.len();
        let file = Arc::new(file);
        self.files.insert(Arc::clone(&file));
        Some(file)
    }

    /// Drops files that no mapping shows.
    fn forget_files(&mut self) {
        self.files.retain(|file| Arc::strong_count(file) > 1);
        self.paths = self.files.iter().map(|file| file.path.len()).sum();
    }
}

/// Where the generation at `time` is: the last that began by then, or the first.
fn index_at(all: &VecDeque<Generation>, time: u64) -> usize {
    all.iter().rposition(|generation| generation.started <= time).unwrap_or(0)
}

fn mapped_file(path: &[u8], file: FileId<'_>) -> MappedFile {
    let anonymous = path.starts_with(b"//") || path.starts_with(b"[heap]") || path.starts_with(b"[stack");
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let path = if anonymous { text(b"") } else { text(path) };
    let (device, inode, build_id) = match file {
        FileId::Inode { device, inode, .. } => (device, inode, None),
        FileId::BuildId(id) if !id.is_empty() => ((0, 0), 0, Some(id.into())),
        FileId::BuildId(_) | FileId::Unknown => ((0, 0), 0, None),
    };
    MappedFile { path, device, inode, build_id }
}

fn text(bytes: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(bytes).into()
}

#[cfg(test)]
mod tests;
