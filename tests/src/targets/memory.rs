//! How much heap something takes at its peak.

use peak_alloc::PeakAlloc;
use std::sync::{Mutex, PoisonError};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The counters are the process's, so one measurement at a time.
static MEASURING: Mutex<()> = Mutex::new(());

/// The result of `run`, and the most bytes of heap that were in use during it beyond those before it. Threads that
/// allocate meanwhile are counted in.
pub fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let _alone = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let result = run();
    (result, ALLOCATOR.peak_usage().saturating_sub(before))
}
