//! The buffer of a perf event.

use std::os::fd::{AsFd, BorrowedFd};

use super::{SharedMapping, page_size};
use crate::errno::{Error, Result};
use crate::fd::PerfFd;
use crate::uapi::perf::control_page::{DATA_HEAD, DATA_TAIL};

/// The buffer of a perf event: a control page, then a power of two of pages with records.
///
/// Records are copied out, never lent: the pages are writable from here, and other mappings of the event may move the
/// tail.
#[derive(Debug)]
pub struct PerfMapping {
    pages: SharedMapping,
    data_offset: usize,
    data_len: usize,
    event: PerfFd,
}

impl PerfMapping {
    /// Maps the buffer of `event` with `data_pages` pages of records, a power of two.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`]: not a power of two. `EINVAL`: the event is inherited, or mapped with another size. `EPERM`:
    /// above `perf_event_mlock_kb`. `ENOMEM`.
    pub fn new(event: &PerfFd, data_pages: usize) -> Result<Self> {
        let page = page_size();
        let too_large = Error::Argument { call: "mmap", what: "the buffer is too large" };
        if !data_pages.is_power_of_two() {
            return Err(Error::Argument { call: "mmap", what: "a buffer's pages must be a power of two" });
        }
        let data_len = data_pages.checked_mul(page).ok_or(too_large)?;
        let len = data_len.checked_add(page).ok_or(too_large)?;
        let pages = SharedMapping::map(event.as_fd(), 0, len, true)?;
        Ok(Self { pages, data_offset: page, data_len, event: event.try_clone()? })
    }

    /// Bytes of records, a power of two.
    #[inline]
    pub const fn data_len(&self) -> usize {
        self.data_len
    }

    /// How far the kernel has written; what it wrote before is visible afterwards.
    #[inline]
    pub fn head(&self) -> u64 {
        self.pages.load_acquire_u64(DATA_HEAD).unwrap_or(0)
    }

    /// How far the reader has read.
    #[inline]
    pub fn tail(&self) -> u64 {
        self.pages.load_acquire_u64(DATA_TAIL).unwrap_or(0)
    }

    /// Frees what precedes `tail`; reads before it are finished.
    #[inline]
    pub fn set_tail(&mut self, tail: u64) {
        // The control page is always there and writable.
        let _ = self.pages.store_release_u64(DATA_TAIL, tail);
    }

    /// Copies the bytes at a position, around the end of the buffer; `None` if they are longer than the buffer.
    pub fn copy_out(&self, position: u64, to: &mut [u8]) -> Option<()> {
        if to.len() > self.data_len {
            return None;
        }
        let at = (position & (self.data_len as u64 - 1)) as usize;
        let first = to.len().min(self.data_len - at);
        let (head, rest) = to.split_at_mut(first);
        self.pages.copy_out(self.data_offset + at, head)?;
        self.pages.copy_out(self.data_offset, rest)
    }
}

/// Readable when the kernel has written past the wake-up mark.
impl AsFd for PerfMapping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
