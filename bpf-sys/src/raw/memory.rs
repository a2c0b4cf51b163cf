//! Memory of this process: its program's segments, and its heap.

use std::ffi::{c_int, c_void};
use std::ops::Range;

/// A segment of the program or of a library that nothing may write: code, or constants. It stays mapped, as nothing here closes
/// libraries.
#[derive(Debug)]
pub(crate) struct CodeSegment(Range<usize>);

impl CodeSegment {
    /// Its pages, by their number.
    pub(crate) fn pages(&self, page: usize) -> Range<usize> {
        self.0.start / page..self.0.end.div_ceil(page)
    }

    /// Unmaps pages that are those of the file; how many bytes that were.
    pub(crate) fn discard(&self, pages: Range<usize>, page: usize) -> usize {
        let own = self.pages(page);
        let (start, end) = (pages.start.max(own.start), pages.end.min(own.end));
        let len = end.saturating_sub(start) * page;
        let address = std::ptr::without_provenance_mut::<c_void>(start * page);
        // SAFETY: the range is inside a private, read-only mapping of a file, so that whoever reads it next finds the same
        // bytes, from the file.
        let result = unsafe { libc::madvise(address, len, libc::MADV_DONTNEED) };
        if result == 0 { len } else { 0 }
    }
}

/// All of them.
pub(crate) fn code_segments() -> Vec<CodeSegment> {
    let mut segments: Vec<CodeSegment> = Vec::new();
    // SAFETY: `add` takes a vector of segments, which lives until the call returns.
    unsafe { libc::dl_iterate_phdr(Some(add), (&raw mut segments).cast()) };
    segments
}

/// # Safety
///
/// `info` is the C library's; `to` is a `Vec<CodeSegment>` that nobody else uses.
unsafe extern "C" fn add(info: *mut libc::dl_phdr_info, _: usize, to: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    let info = unsafe { &*info };
    // SAFETY: the caller's promise.
    let to = unsafe { &mut *to.cast::<Vec<CodeSegment>>() };
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the C library has so many headers there, for as long as the object is loaded.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let constant = |kind: u32, flags: u32| kind == libc::PT_LOAD && flags & libc::PF_W == 0;
    to.extend(headers.iter().filter(|header| constant(header.p_type, header.p_flags)).map(|header| {
        let start = (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
        CodeSegment(start..start.saturating_add(header.p_memsz as usize))
    }));
    0
}

/// Tells the C library to give large pieces of the heap back to the system as soon as they are freed, always: glibc otherwise
/// learns from each that it should keep the next. Other C libraries do so anyway.
pub fn keep_heap_small() {
    #[cfg(target_env = "gnu")]
    for (parameter, bytes) in [(libc::M_MMAP_THRESHOLD, 128 << 10), (libc::M_TRIM_THRESHOLD, 128 << 10)] {
        // SAFETY: takes two numbers, and may be called at any time.
        unsafe { libc::mallopt(parameter, bytes) };
    }
}

/// Gives the pages of the heap that hold nothing back to the system, where the C library is glibc; others keep few.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and may be called at any time.
    unsafe {
        libc::malloc_trim(0)
    };
}
