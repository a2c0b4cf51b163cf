use std::time::Duration;

/// Fails only for clocks that the kernel does not know.
#[cfg(target_pointer_width = "64")]
pub(crate) fn now(clock: libc::clockid_t) -> Duration {
    // SAFETY: a timespec is of integers, with padding on some machines.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `time` is a valid timespec, borrowed mutably for the call.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    duration(time.tv_sec, time.tv_nsec)
}

/// The C library's function has the 32 bits that are full in 2038; this call has 64 (Linux 5.1), and the same number on every
/// machine of 32 bits (`include/uapi/asm-generic/unistd.h`).
#[cfg(target_pointer_width = "32")]
pub(crate) fn now(clock: libc::clockid_t) -> Duration {
    const CLOCK_GETTIME64: libc::c_long = 403;
    let mut time = [0i64; 2];
    // SAFETY: the kernel writes a `struct __kernel_timespec`, two numbers of 64 bits, to `time`, borrowed mutably for the call.
    unsafe { libc::syscall(CLOCK_GETTIME64, clock, time.as_mut_ptr()) };
    let [seconds, nanos] = time;
    duration(seconds, nanos)
}

fn duration(seconds: i64, nanos: i64) -> Duration {
    Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0))
}

/// A setting of the system that is always there and more than 0.
pub(crate) fn setting(name: libc::c_int) -> u64 {
    // SAFETY: no pointers.
    let value = unsafe { libc::sysconf(name) };
    u64::try_from(value).unwrap_or(1).max(1)
}
