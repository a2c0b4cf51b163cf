use std::time::Duration;

/// Fails only for clocks that the kernel does not know.
pub(crate) fn now(clock: libc::clockid_t) -> Duration {
    // SAFETY: a timespec is of integers, with padding on some machines.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `time` is a valid timespec, borrowed mutably for the call.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A setting of the system that is always there and more than 0.
pub(crate) fn setting(name: libc::c_int) -> u64 {
    // SAFETY: no pointers.
    let value = unsafe { libc::sysconf(name) };
    u64::try_from(value).unwrap_or(1).max(1)
}
