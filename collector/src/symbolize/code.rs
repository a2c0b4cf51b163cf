//! Files by the code that processes run of them: for whoever reads more of them than names.

use std::ops::Range;

use super::files::FileNo;
use super::host::read_limited;
use super::host_symbolizer::{HostSymbolizer, MAX_MAPS};
use super::memory::ProcessMemory;
use super::read_at::ReadAt;

/// Pages are of this size, or a multiple of it.
const PAGE: u64 = 4096;

/// What a process has at an address.
pub(crate) enum Code<'s> {
    /// Code of a file.
    InFile {
        /// Which: one number for all files with the same build id and size.
        file: FileNo,
        /// The address in the file's own address space.
        address: u64,
        /// Its bytes.
        source: &'s dyn ReadAt,
        /// Pages of the process around it whose addresses are those of the file and a constant.
        mapping: Option<Range<u64>>,
    },
    /// Code of no file, or of one that cannot be read.
    Elsewhere,
    /// Nothing that can be executed.
    NotMapped,
}

impl HostSymbolizer {
    /// Whether a process runs still what it ran at a time, and has not ended.
    pub(crate) fn is_same_program(&self, pid: u32, time: u64) -> bool {
        let latest = self.processes.generation(pid, u64::MAX);
        latest.is_none_or(|latest| latest.started <= time && latest.ended.is_none())
    }

    /// The memory of a process that runs, to be read at addresses.
    pub(crate) fn memory_of(&self, pid: u32) -> Option<ProcessMemory> {
        ProcessMemory::open(&self.host, pid)
    }

    /// The text of `/proc/PID/maps` as it is now; `None`: the process is gone, or may not be read.
    pub(crate) fn maps_of(&self, pid: u32) -> Option<Vec<u8>> {
        read_limited(&self.host.process_file(pid, "maps"), MAX_MAPS).ok()
    }

    /// Takes in what a process maps now, in the text of its `maps`, where no records tell of it.
    pub(crate) fn follow_maps(&mut self, pid: u32, text: &[u8]) {
        self.processes.observe_maps(pid, text);
    }

    /// What a process had at an address at a time, in the clock of the records.
    pub(crate) fn code(&mut self, pid: u32, time: u64, address: u64) -> Code<'_> {
        let Some((owner, mapping)) = self.find_or_read_mapping(pid, time, address) else {
            return Code::NotMapped;
        };
        let distance = address - mapping.start;
        let (file, offset) = if &*mapping.file.path == "[vdso]" {
            (self.vdso_of(&mapping), distance)
        } else if mapping.file.is_file() {
            (self.file_of(owner, &mapping).ok(), mapping.offset.wrapping_add(distance))
        } else {
            return Code::Elsewhere;
        };
        let found = file.and_then(|file| Some((file, self.files.address_of(file, offset)?)));
        match found.and_then(|(file, address)| Some((file, address, &**self.files.source(file)?))) {
            Some((file, address, source)) => {
                let mapping = self.files.range_around(file, offset).and_then(|segment| {
                    let mapped = offset.checked_sub(distance)?;
                    let at = |offset: u64| mapping.start.checked_add(offset.saturating_sub(mapped));
                    let end = at(segment.end.checked_next_multiple_of(PAGE)?)?;
                    Some(at(segment.start & !(PAGE - 1))?..end.min(mapping.end))
                });
                Code::InFile { file, address, source, mapping }
            }
            None => Code::Elsewhere,
        }
    }
}
