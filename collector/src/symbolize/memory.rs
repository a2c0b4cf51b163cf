//! Memory of other processes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::host::Host;
use super::read_at::ReadAt;

/// Of an entry of `/proc/PID/pagemap`: the page is in memory (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const ENTRY: u64 = 8;
/// Pages that are looked up for one read.
const MAX_PAGES: u64 = 256;

/// The memory of a process that runs, by its addresses. What is not there already is not read: who maps it may never answer.
#[derive(Debug)]
pub(crate) struct ProcessMemory {
    memory: File,
    pages: File,
}

impl ProcessMemory {
    /// `None`: the process is gone, or may not be read.
    pub fn open(host: &Host, pid: u32) -> Option<Self> {
        let open = |name| File::open(host.process_file(pid, name)).ok();
        Some(Self { memory: open("mem")?, pages: open("pagemap")? })
    }

    fn is_there(&self, address: u64, size: usize) -> bool {
        let page = bpf_sys::page_size() as u64;
        let Some(last) = address.checked_add((size as u64).saturating_sub(1)) else { return false };
        let (first, count) = (address / page, last / page - address / page + 1);
        let mut entries = [0; (MAX_PAGES * ENTRY) as usize];
        let Some(entries) = entries.get_mut(..count.saturating_mul(ENTRY) as usize) else { return false };
        let is_read =
            first.checked_mul(ENTRY).is_some_and(|at| self.pages.read_exact_at(entries, at).is_ok());
        let mut words = entries.chunks_exact(ENTRY as usize).filter_map(<[u8]>::first_chunk);
        is_read && words.all(|word| u64::from_ne_bytes(*word) & PRESENT != 0)
    }
}

impl ReadAt for ProcessMemory {
    fn size(&self) -> u64 {
        u64::MAX
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_there(offset, buffer.len()) { self.memory.read_at(buffer, offset) } else { Ok(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_is_read_and_nothing_else() {
        let memory = ProcessMemory::open(&Host::default(), std::process::id()).unwrap();
        let text = vec![7u8; 3 * bpf_sys::page_size()];
        let mut read = vec![0; text.len()];
        assert_eq!(memory.read_at(text.as_ptr() as u64, &mut read).unwrap(), text.len());
        assert_eq!(read, text);
        for address in [0, 4096, u64::MAX, u64::MAX - 8, 1 << 63] {
            assert_eq!(memory.read_at(address, &mut read[..16]).unwrap(), 0, "{address:#x}");
        }
        // The kernel has made no page for it yet.
        let never_touched: Vec<u8> = Vec::with_capacity(64 << 20);
        let middle = never_touched.as_ptr() as u64 + (32 << 20);
        assert_eq!(memory.read_at(middle, &mut read[..16]).unwrap(), 0);
        assert_eq!(
            memory.read_at(text.as_ptr() as u64, &mut vec![0; 8 << 20]).unwrap(),
            0,
            "too much at once"
        );
    }
}
