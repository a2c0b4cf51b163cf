//! CPU time of a thread outside bpf(2), and the most memory that its process had resident.

use std::cell::Cell;
use std::ffi::{c_int, c_long, c_void};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Names of programs, and what their sections say that they attach to.
pub type Hooks = [(String, String)];

/// A program that does one load, of the object that it is called with, and prints the cost as [`Cost::parse`] reads it.
#[allow(dead_code, reason = "the parent does not call it")]
pub fn child(load: impl FnOnce(&Path, &Hooks) -> Result<()>) -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let object = arguments.next().ok_or("name an object")?;
    let hooks: Vec<(String, String)> = arguments
        .filter_map(|hook| hook.split_once('=').map(|(name, hook)| (name.to_owned(), hook.to_owned())))
        .collect();
    let (result, cost) = measure(|| load(Path::new(&object), &hooks))?;
    result?;
    let Cost { own, kernel, calls, peak_kib, anonymous_kib } = cost;
    println!("{} {} {calls} {peak_kib} {anonymous_kib}", own.as_nanos(), kernel.as_nanos());
    Ok(())
}

thread_local! {
    /// Time in bpf(2), and calls of it.
    static KERNEL: Cell<(Duration, u32)> = const { Cell::new((Duration::ZERO, 0)) };
}

type Syscall = unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;

/// libc's `syscall`, which all three loaders call bpf(2) through: this one is linked in its place.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    static NEXT: OnceLock<Syscall> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        // SAFETY: the name ends with a zero.
        let symbol = unsafe { libc::dlsym(libc::RTLD_NEXT, c"syscall".as_ptr()) };
        assert!(!symbol.is_null(), "libc has no syscall");
        // SAFETY: this is libc's `syscall`, which takes up to seven words in the registers or places of the stack that
        // the ABI gives to named arguments as well.
        unsafe { std::mem::transmute::<*mut c_void, Syscall>(symbol) }
    });
    let bpf = number == libc::SYS_bpf;
    let start = if bpf { cpu_time() } else { Duration::ZERO };
    // SAFETY: the caller's promise.
    let result = unsafe { next(number, a, b, c, d, e, f) };
    if bpf {
        let errno = errno();
        let (time, calls) = KERNEL.get();
        KERNEL.set((time + (cpu_time() - start), calls + 1));
        set_errno(errno);
    }
    result
}

fn errno() -> c_int {
    // SAFETY: the address is valid as long as the thread is.
    unsafe { *libc::__errno_location() }
}

fn set_errno(errno: c_int) {
    // SAFETY: the address is valid as long as the thread is.
    unsafe { *libc::__errno_location() = errno }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What one load cost.
pub struct Cost {
    /// CPU time outside bpf(2).
    pub own: Duration,
    /// CPU time in bpf(2).
    pub kernel: Duration,
    pub calls: u32,
    /// The most that was resident since the process began, in KiB.
    pub peak_kib: u64,
    /// What of it is not pages of files, such as the program's own, at the end.
    pub anonymous_kib: u64,
}

impl Cost {
    #[allow(dead_code, reason = "the children do not call it")]
    pub fn parse(text: &str) -> Option<Self> {
        let numbers: Vec<u64> = text.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let &[own, kernel, calls, peak_kib, anonymous_kib] = numbers.as_slice() else { return None };
        let [own, kernel] = [own, kernel].map(Duration::from_nanos);
        Some(Self { own, kernel, calls: calls as u32, peak_kib, anonymous_kib })
    }
}

/// Runs `load` and says what it cost this thread.
pub fn measure<T>(load: impl FnOnce() -> T) -> std::io::Result<(T, Cost)> {
    let (kernel, calls) = KERNEL.get();
    let start = cpu_time();
    let result = load();
    let all = cpu_time() - start;
    let (kernel, calls) = (KERNEL.get().0 - kernel, KERNEL.get().1 - calls);
    // Of this program image alone, whereas getrusage counts the process before exec in.
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = |what: &str| -> std::io::Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| std::io::Error::other(format!("no {what} in /proc/self/status")))
    };
    let (peak_kib, anonymous_kib) = (kib("VmHWM:")?, kib("RssAnon:")?);
    Ok((result, Cost { own: all - kernel, kernel, calls, peak_kib, anonymous_kib }))
}
