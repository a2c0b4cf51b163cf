use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use rustix::process::Signal;

use crate::errno::{Error, Result};

/// Signals that came and were not taken yet, a bit each: the first 31 have names.
pub(crate) static CAME: AtomicU32 = AtomicU32::new(0);
/// Signals that end the process.
pub(crate) static ENDING: AtomicU32 = AtomicU32::new(0);
/// What they end it with.
pub(crate) static STATUS: AtomicI32 = AtomicI32::new(0);
/// The event that is told of the others; open as long as the process lives, or not yet.
pub(crate) static EVENT: AtomicI32 = AtomicI32::new(-1);

/// A signal in those sets.
pub(crate) fn bit(signal: i32) -> u32 {
    1u32.checked_shl(signal as u32).unwrap_or(0)
}

/// Does nothing but what is safe in a handler: `signal-safety(7)`.
extern "C" fn handle(signal: libc::c_int) {
    if ENDING.load(Ordering::SeqCst) & bit(signal) != 0 {
        // SAFETY: no pointers, and nothing of this process runs afterwards.
        unsafe { libc::_exit(STATUS.load(Ordering::SeqCst)) }
    }
    CAME.fetch_or(bit(signal), Ordering::SeqCst);
    // SAFETY: every thread has an `errno`, as long as it lives.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: it is this thread's own.
    let before = unsafe { *errno };
    let one = 1u64.to_ne_bytes();
    // SAFETY: `one` is borrowed for the call. Where the event is full, it is readable already.
    unsafe { libc::write(EVENT.load(Ordering::SeqCst), one.as_ptr().cast(), one.len()) };
    // SAFETY: as above.
    unsafe { *errno = before };
}

fn set_action(signal: Signal, handler: libc::sighandler_t) -> Result<()> {
    // SAFETY: a sigaction is of integers and of pointers that may be null.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is borrowed for the call, its handler does what handlers may, and the old one is not asked for.
    match unsafe { libc::sigaction(signal.as_raw(), &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(Error::last("sigaction")),
    }
}

pub(crate) fn catch(signal: Signal) -> Result<()> {
    set_action(signal, handle as extern "C" fn(libc::c_int) as libc::sighandler_t)
}

pub(crate) fn ignore(signal: Signal) -> Result<()> {
    set_action(signal, libc::SIG_IGN)
}
