//! `perf_event_open(2)` and the ioctls of perf events.

use std::ffi::{CStr, c_int, c_long, c_ulong};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::ioctl::Opcode;

use super::{fd_u32, len_u32};
use crate::errno::{Error, Result};
use crate::fd::{PerfFd, above_standard_streams};
use crate::perf::{Group, Scope};
use crate::uapi::addr_str;
use crate::uapi::perf::{
    PERF_FLAG_FD_CLOEXEC, PERF_FLAG_FD_NO_GROUP, PERF_FLAG_FD_OUTPUT, PERF_FLAG_PID_CGROUP, PerfEventAttr,
    ioctl,
};

const OPEN: &str = "perf_event_open";

/// A copy whose size is right whatever the caller's says. The kernel writes its own size there when it refuses it.
fn sized(attr: &PerfEventAttr) -> PerfEventAttr {
    PerfEventAttr { size: size_of::<PerfEventAttr>() as u32, ..*attr }
}

pub(crate) fn open(
    attr: &PerfEventAttr,
    scope: Scope<'_>,
    cpu: Option<u32>,
    group: Option<Group<'_>>,
) -> Result<OwnedFd> {
    let (pid, scope_flag) = match scope {
        Scope::AllProcesses => (-1, 0),
        Scope::CallingThread => (0, 0),
        Scope::Thread(tid) => {
            let tid = i32::try_from(tid).ok().filter(|tid| *tid > 0);
            (tid.ok_or(Error::Argument { call: OPEN, what: "the thread id is out of range" })?, 0)
        }
        Scope::Cgroup(dir) => (dir.as_raw_fd(), PERF_FLAG_PID_CGROUP),
    };
    let cpu = match cpu {
        None => -1,
        Some(cpu) => i32::try_from(cpu)
            .map_err(|_| Error::Argument { call: OPEN, what: "the CPU number is out of range" })?,
    };
    let (group_fd, group_flag) = match group {
        None => (-1, 0),
        Some(Group::Member(leader)) => (leader.as_raw_fd(), 0),
        Some(Group::OutputTo(leader)) => (leader.as_raw_fd(), PERF_FLAG_FD_OUTPUT | PERF_FLAG_FD_NO_GROUP),
    };
    let flags = (PERF_FLAG_FD_CLOEXEC | scope_flag | group_flag) as c_ulong;
    let mut attr = sized(attr);
    let number: c_long = libc::SYS_perf_event_open;
    let attr = core::ptr::from_mut(&mut attr);
    // SAFETY: the kernel reads `attr.size` bytes at `attr`, the structure's own size, and may write that field. An
    // address in `config1` is only read, as a string, and a bad one gives `EFAULT`.
    let fd = unsafe { libc::syscall(number, attr, pid as c_int, cpu as c_int, group_fd as c_int, flags) };
    if fd < 0 {
        return Err(Error::last(OPEN));
    }
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
    above_standard_streams(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// Opens an event of the kprobe or uprobe PMU, whose target is a string.
pub(crate) fn open_named(
    attr: &PerfEventAttr,
    target: &CStr,
    scope: Scope<'_>,
    cpu: Option<u32>,
) -> Result<OwnedFd> {
    open(&PerfEventAttr { config1: addr_str(target), ..*attr }, scope, cpu, None)
}

/// An ioctl whose argument is a number.
///
/// # Safety
///
/// The kernel takes the argument of this ioctl on a perf event as a number.
unsafe fn by_value(fd: &PerfFd, call: &'static str, code: Opcode, value: c_ulong) -> Result<()> {
    // SAFETY: the caller's promise.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), code as _, value) };
    if ret < 0 { Err(Error::last(call)) } else { Ok(()) }
}

/// An ioctl whose argument is an address.
///
/// # Safety
///
/// The kernel takes the argument of this ioctl on a perf event as the address of a `T`, and reads and writes no more than
/// its bytes.
unsafe fn by_address<T: ?Sized>(fd: &PerfFd, call: &'static str, code: Opcode, value: &mut T) -> Result<()> {
    let address = core::ptr::from_mut(value).cast::<u8>();
    // SAFETY: the caller's promise; `value` is borrowed mutably.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), code as _, address) };
    if ret < 0 { Err(Error::last(call)) } else { Ok(()) }
}

macro_rules! simple {
    ($($name:ident($value:ident: $ty:ty) = $ioctl:ident, $convert:expr;)*) => {
        $(pub(crate) fn $name(fd: &PerfFd, $value: $ty) -> Result<()> {
            // SAFETY: include/uapi/linux/perf_event.h: the argument is a number.
            unsafe { by_value(fd, concat!("ioctl(PERF_EVENT_IOC_", stringify!($ioctl), ")"), ioctl::$ioctl, $convert) }
        })*
    };
}

simple! {
    enable(whole_group: bool) = ENABLE, c_ulong::from(whole_group);
    disable(whole_group: bool) = DISABLE, c_ulong::from(whole_group);
    refresh(overflows: u32) = REFRESH, overflows as c_ulong;
    reset(whole_group: bool) = RESET, c_ulong::from(whole_group);
    set_output(target: Option<BorrowedFd<'_>>) = SET_OUTPUT,
        target.map_or(-1, |fd| fd.as_raw_fd()) as c_ulong;
    set_bpf(prog: BorrowedFd<'_>) = SET_BPF, fd_u32(prog) as c_ulong;
    pause_output(pause: bool) = PAUSE_OUTPUT, c_ulong::from(pause);
}

pub(crate) fn set_period(fd: &PerfFd, mut period: u64) -> Result<()> {
    // SAFETY: the kernel reads a `u64`.
    unsafe { by_address(fd, "ioctl(PERF_EVENT_IOC_PERIOD)", ioctl::PERIOD, &mut period) }
}

pub(crate) fn set_filter(fd: &PerfFd, filter: &CStr) -> Result<()> {
    // SAFETY: the argument is the address of a string, which the kernel reads up to its terminating zero; as a number it
    // is passed on unchanged.
    unsafe {
        by_value(
            fd,
            "ioctl(PERF_EVENT_IOC_SET_FILTER)",
            ioctl::SET_FILTER,
            filter.as_ptr() as usize as c_ulong,
        )
    }
}

pub(crate) fn id(fd: &PerfFd) -> Result<u64> {
    let mut id = 0u64;
    // SAFETY: the kernel writes a `u64`.
    unsafe { by_address(fd, "ioctl(PERF_EVENT_IOC_ID)", ioctl::ID, &mut id) }?;
    Ok(id)
}

/// Fills `ids` with the programs on a tracepoint's event and returns how many there are.
pub(crate) fn query_bpf(fd: &PerfFd, ids: &mut [u32]) -> Result<u32> {
    const CALL: &str = "ioctl(PERF_EVENT_IOC_QUERY_BPF)";
    // `struct perf_event_query_bpf`: ids_len, prog_cnt, then the ids.
    let mut query = vec![0u32; ids.len() + 2];
    query[0] = len_u32(CALL, "ids", ids.len())?;
    let code = ioctl::QUERY_BPF;
    // SAFETY: the kernel reads and writes two words and at most `ids_len` more, which `query` has.
    let result = unsafe { by_address(fd, CALL, code, query.as_mut_slice()) };
    match result {
        // When they do not all fit, the kernel fills `ids` and tells how many there are.
        Ok(()) | Err(Error::Call { errno: crate::Errno::ENOSPC, .. }) => {}
        Err(e) => return Err(e),
    }
    ids.copy_from_slice(&query[2..]);
    Ok(query[1])
}

pub(crate) fn modify_attributes(fd: &PerfFd, attr: &PerfEventAttr) -> Result<()> {
    let mut attr = sized(attr);
    let code = ioctl::MODIFY_ATTRIBUTES;
    // SAFETY: the kernel reads `attr.size` bytes, the structure's own size, and may write that field.
    unsafe { by_address(fd, "ioctl(PERF_EVENT_IOC_MODIFY_ATTRIBUTES)", code, &mut attr) }
}
