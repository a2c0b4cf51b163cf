//! Resident memory of this process: giving back what it does not need any more.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::{page_size, raw};

pub use crate::raw::memory::{keep_heap_small, trim_heap};

/// Bits of a page's 8 bytes in `/proc/self/pagemap`: it is mapped; it is a file's, not a private copy.
const PRESENT: u64 = 1 << 63;
const OF_FILE: u64 = 1 << 61;
const ENTRY: usize = size_of::<u64>();
/// Pages that one read asks about.
const CHUNK: usize = 512;

/// Unmaps the code and the constants of the program and its libraries, and returns how many bytes that were. What is used again
/// is mapped again from the page cache, by a minor fault for some pages at once.
///
/// What a program needs to start is often several times what it needs to go on. Pages that differ from the file are left alone:
/// data with relocations, and instructions in which a debugger or a uprobe has set a breakpoint.
///
/// `madvise(MADV_DONTNEED)` on what `dl_iterate_phdr(3)` and `/proc/self/pagemap` name (Linux 4.2).
///
/// # Errors
///
/// `/proc` is not there, or does not say.
///
/// [`madvise(2)`](https://man7.org/linux/man-pages/man2/madvise.2.html),
/// [`proc_pid_pagemap(5)`](https://man7.org/linux/man-pages/man5/proc_pid_pagemap.5.html).
pub fn release_code() -> std::io::Result<usize> {
    let pagemap = File::open("/proc/self/pagemap")?;
    let page = page_size();
    let mut buffer = [0; CHUNK * ENTRY];
    let mut released = 0;
    for segment in raw::memory::code_segments() {
        let pages = segment.pages(page);
        for first in pages.clone().step_by(CHUNK) {
            let entries = &mut buffer[..CHUNK.min(pages.end - first) * ENTRY];
            pagemap.read_exact_at(entries, (first * ENTRY) as u64)?;
            for run in unchanged(entries) {
                released += segment.discard(first + run.start..first + run.end, page);
            }
        }
    }
    Ok(released)
}

/// Runs of pages that are mapped and as they are in the file.
fn unchanged(entries: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (at, entry) in entries.chunks_exact(ENTRY).enumerate() {
        let entry = entry.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        let entry = if cfg!(target_endian = "big") { entry.swap_bytes() } else { entry };
        if entry & (PRESENT | OF_FILE) != PRESENT | OF_FILE {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.end == at => run.end += 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_absent_or_copies_are_left_out() {
        let entries = [PRESENT | OF_FILE, PRESENT | OF_FILE | 7, PRESENT, OF_FILE, 0, PRESENT | OF_FILE];
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_ne_bytes()).collect();
        assert_eq!(unchanged(&bytes), [0..2, 5..6]);
        assert!(unchanged(&bytes[..7]).is_empty());
    }

    fn file_pages() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    #[test]
    fn code_is_given_back_and_comes_back() {
        static MARK: [u8; 1 << 16] = [0x5a; 1 << 16];
        let sum = || MARK.iter().map(|byte| u64::from(*std::hint::black_box(byte))).sum::<u64>();
        let expected = sum();
        let before = file_pages();
        // Tests in other threads use code all the while.
        let released = release_code().unwrap();
        let after = file_pages();
        assert!(released > MARK.len(), "{released}");
        assert!(after < before, "{before} kB, {after} kB");
        assert_eq!(sum(), expected);
        keep_heap_small();
        trim_heap();
    }
}
