//! The files that a process has mapped to execute, as far as they allocate.

use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use bpf_loader::machine::Machine;
use bpf_programs::events::heap::Sort;

use super::functions::{self, Probe};
use crate::error::{Error, Result};
use crate::sorted::{SortedMap, SortedSet};
use crate::symbolize::elf::Elf;
use crate::symbolize::maps;
use crate::symbolize::read_at::FileReader;
use crate::symbolize::{Host, Place, SymbolizeError, read_limited};

/// Bytes of `/proc/PID/maps` that are read.
const MAX_MAPS: usize = 64 << 20;

/// A file by device and inode, as the process' mappings have them.
type FileKey = ((u32, u32), u64);

/// A file with functions to probe. It stays open, so that the probes go where the functions were found.
#[derive(Debug)]
pub struct ProbedFile {
    file: FileReader,
    key: FileKey,
    /// Where the probes go.
    pub probes: Vec<Probe>,
}

impl ProbedFile {
    /// A path that leads to the open file, whatever has become of its name.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.file().as_raw_fd()))
    }
}

/// Most looks between two at a file that cannot be probed.
const MAX_PAUSE: u64 = 64;

/// Files of one process that have been looked at.
#[derive(Debug, Default)]
pub struct KnownFiles {
    seen: SortedSet<FileKey>,
    /// Those that could not be probed: how many looks it is, and at which one they are new again.
    put_off: SortedMap<FileKey, (u64, u64)>,
    looks: u64,
}

impl KnownFiles {
    /// Looks at what the process has mapped since the last look: the files that allocate. Files that are no programs have no
    /// functions to probe; those that cannot be opened are new the next time too.
    pub fn read_new(&mut self, host: &Host, pid: u32) -> Vec<ProbedFile> {
        self.looks += 1;
        let text = read_limited(&host.process_file(pid, "maps"), MAX_MAPS).unwrap_or_default();
        let mut found = Vec::new();
        for line in maps::parse(&text).filter(|line| line.executable && line.inode != 0) {
            let key = (line.device, line.inode);
            let is_put_off = self.put_off.get(&key).is_some_and(|(_, until)| *until > self.looks);
            if is_put_off || self.seen.contains(&key) {
                continue;
            }
            let in_kernel = host.process_file(pid, &format!("map_files/{:x}-{:x}", line.start, line.end));
            // Where the links of mappings may not be followed, the path must lead to the same inode.
            let file = FileReader::open(&Place::trusted(in_kernel)).ok().or_else(|| {
                use std::os::unix::fs::MetadataExt;
                let path = std::str::from_utf8(line.path).ok()?;
                let opened = FileReader::open(&host.in_process_root(pid, path)).ok();
                opened.filter(|(_, metadata)| metadata.ino() == line.inode)
            });
            let Some((file, _)) = file else { continue };
            self.seen.insert(key);
            match functions::find_probes(&file) {
                Ok(probes) if !probes.is_empty() => found.push(ProbedFile { file, key, probes }),
                _ => {}
            }
        }
        found
    }

    /// Lets a file be new again, at the next look, and each time it is after twice as many: looking into it is not cheap.
    pub fn put_off(&mut self, file: &ProbedFile) {
        self.seen.remove(&file.key);
        let (pause, until) = self.put_off.entry(file.key).or_insert((0, 0));
        *pause = (*pause * 2).clamp(1, MAX_PAUSE);
        *until = self.looks + *pause;
    }
}

/// What a process' program is for; `None` if it cannot be read, or is none that is known.
pub fn machine_of_program(host: &Host, pid: u32) -> Option<Machine> {
    let (file, _) = FileReader::open(&Place::trusted(host.process_file(pid, "exe"))).ok()?;
    let elf = Elf::read(&file).ok()?;
    Machine::of_elf(elf.machine().0, elf.is_64())
}

/// Where a process' program begins, as a function that allocates would be.
///
/// # Errors
///
/// What reading the program met.
pub fn beginning(host: &Host, pid: u32) -> Result<ProbedFile> {
    let error = |reason: String| Error::Io { what: "the program's file", error: io::Error::other(reason) };
    let broken = |e: Box<SymbolizeError>| error(e.to_string());
    let (file, _) = FileReader::open(&Place::trusted(host.process_file(pid, "exe"))).map_err(broken)?;
    let offset = Elf::read(&file).map_err(broken)?.entry_offset();
    let offset = offset.ok_or_else(|| error("it says no beginning".into()))?;
    Ok(ProbedFile { file, key: ((0, 0), 0), probes: vec![Probe { sort: Sort::Malloc, offset }] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_new_once_unless_it_is_put_off() {
        let (mut known, host) = (KnownFiles::default(), Host::default());
        let own = std::process::id();
        let first = known.read_new(&host, own);
        let Some(file) = first.first() else {
            eprintln!("SKIP nothing that this test has mapped allocates");
            return;
        };
        assert!(known.read_new(&host, own).is_empty());
        known.put_off(file);
        let again = known.read_new(&host, own);
        assert_eq!(again.iter().map(|file| file.key).collect::<Vec<_>>(), [file.key]);
        // What cannot be probed ever is looked into less and less.
        known.put_off(file);
        let looks = (0..130).filter(|_| {
            let is_new = !known.read_new(&host, own).is_empty();
            if is_new {
                known.put_off(file);
            }
            is_new
        });
        assert_eq!(looks.count(), 6, "after 2, 4, 8, 16, 32 and 64 looks");
    }
}
