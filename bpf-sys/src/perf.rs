//! Perf events.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use crate::errno::{Error, Result};
use crate::fd::{PerfFd, ProgFd};
use crate::raw;
use crate::uapi::perf::PerfEventAttr;

/// Whom an event watches.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// Everything on the given CPU.
    AllProcesses,
    /// The calling thread.
    CallingThread,
    /// A thread by id.
    Thread(u32),
    /// A control group by its directory, on the given CPU.
    Cgroup(BorrowedFd<'a>),
}

/// How an event belongs to another.
#[derive(Debug, Clone, Copy)]
pub enum Group<'a> {
    /// Counted together with the leader.
    Member(BorrowedFd<'a>),
    /// Counted alone; records go into the other event's buffer.
    OutputTo(BorrowedFd<'a>),
}

/// `perf_event_open`: opens an event on a CPU, or for [`Scope::CallingThread`] and [`Scope::Thread`] on any.
///
/// # Errors
///
/// `EACCES`, `EPERM`: no CAP_PERFMON, or `perf_event_paranoid`. `ENOENT`, `EOPNOTSUPP`: the machine has no such event.
/// `ESRCH`: no such thread. `ENODEV`: the CPU is offline. `E2BIG`: a field that the kernel does not know.
/// `EMFILE`: too many open descriptors.
///
/// [`perf_event_open(2)`](https://man7.org/linux/man-pages/man2/perf_event_open.2.html).
pub fn open(
    attr: &PerfEventAttr,
    scope: Scope<'_>,
    cpu: Option<u32>,
    group: Option<Group<'_>>,
) -> Result<PerfFd> {
    raw::perf::open(attr, scope, cpu, group).map(PerfFd::created)
}

/// `perf_event_open` of a kprobe on `function` at `attr.config2` bytes from it; `attr.kind` is the number of the kprobe PMU.
///
/// # Errors
///
/// As [`open`]; `ENOENT`: no such function. Linux 4.17.
pub fn open_kprobe(
    attr: &PerfEventAttr,
    function: &CStr,
    scope: Scope<'_>,
    cpu: Option<u32>,
) -> Result<PerfFd> {
    raw::perf::open_named(attr, function, scope, cpu).map(PerfFd::created)
}

/// `perf_event_open` of a uprobe in the file `path` at offset `attr.config2`; `attr.kind` is the number of the uprobe PMU.
///
/// # Errors
///
/// As [`open`]; `ENOENT`: no such file. Linux 4.17.
pub fn open_uprobe(attr: &PerfEventAttr, path: &CStr, scope: Scope<'_>, cpu: Option<u32>) -> Result<PerfFd> {
    raw::perf::open_named(attr, path, scope, cpu).map(PerfFd::created)
}

impl PerfFd {
    /// `ioctl(PERF_EVENT_IOC_ENABLE)`: starts counting, of the whole group if asked.
    ///
    /// # Errors
    ///
    /// None that the caller can cause.
    pub fn enable(&self, whole_group: bool) -> Result<()> {
        raw::perf::enable(self, whole_group)
    }

    /// `ioctl(PERF_EVENT_IOC_DISABLE)`: stops counting, of the whole group if asked.
    ///
    /// # Errors
    ///
    /// None that the caller can cause.
    pub fn disable(&self, whole_group: bool) -> Result<()> {
        raw::perf::disable(self, whole_group)
    }

    /// `ioctl(PERF_EVENT_IOC_REFRESH)`: counts until so many more overflows.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the event is inherited or does not sample.
    pub fn refresh(&self, overflows: u32) -> Result<()> {
        raw::perf::refresh(self, overflows)
    }

    /// `ioctl(PERF_EVENT_IOC_RESET)`: sets the count to 0, of the whole group if asked.
    ///
    /// # Errors
    ///
    /// None that the caller can cause.
    pub fn reset(&self, whole_group: bool) -> Result<()> {
        raw::perf::reset(self, whole_group)
    }

    /// `ioctl(PERF_EVENT_IOC_PERIOD)`: sets the period, or with `FREQ` the frequency.
    ///
    /// # Errors
    ///
    /// `EINVAL`: 0, above `perf_event_max_sample_rate`, or the event does not sample.
    pub fn set_period(&self, period: u64) -> Result<()> {
        raw::perf::set_period(self, period)
    }

    /// `ioctl(PERF_EVENT_IOC_SET_OUTPUT)`: sends records to another event's buffer, or back to none.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the events are on different CPUs, or this one's own buffer is mapped. `EBADF`: back to none, of a 32-bit
    /// process below a 64-bit kernel, which takes its -1 for a descriptor (perf_compat_ioctl).
    pub fn set_output(&self, target: Option<&PerfFd>) -> Result<()> {
        raw::perf::set_output(self, target.map(AsFd::as_fd))
    }

    /// `ioctl(PERF_EVENT_IOC_SET_FILTER)`: filters a tracepoint's events.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the filter is wrong, or the event takes none.
    pub fn set_filter(&self, filter: &CStr) -> Result<()> {
        raw::perf::set_filter(self, filter)
    }

    /// `ioctl(PERF_EVENT_IOC_ID)`: the event's id, unique in the system.
    ///
    /// # Errors
    ///
    /// None that the caller can cause.
    pub fn id(&self) -> Result<u64> {
        raw::perf::id(self)
    }

    /// `ioctl(PERF_EVENT_IOC_SET_BPF)`: runs a program at each overflow, probe hit or tracepoint.
    ///
    /// # Errors
    ///
    /// `EEXIST`: one is there. `EINVAL`: the program's type does not fit the event. `EPROTO`: it asks for a stack that the
    /// event does not sample.
    pub fn set_bpf(&self, prog: &ProgFd) -> Result<()> {
        raw::perf::set_bpf(self, prog.as_fd())
    }

    /// `ioctl(PERF_EVENT_IOC_PAUSE_OUTPUT)`: stops or resumes writing to the buffer.
    ///
    /// # Errors
    ///
    /// `EINVAL`: there is no buffer.
    pub fn pause_output(&self, pause: bool) -> Result<()> {
        raw::perf::pause_output(self, pause)
    }

    /// `ioctl(PERF_EVENT_IOC_QUERY_BPF)`: the ids of the programs on a tracepoint, as far as they fit; returns how many
    /// there are.
    ///
    /// # Errors
    ///
    /// `EINVAL`: not a tracepoint. `EPERM`: no CAP_PERFMON. `E2BIG`: more than 64 ids are asked for.
    pub fn query_bpf(&self, ids: &mut [u32]) -> Result<u32> {
        raw::perf::query_bpf(self, ids)
    }

    /// `ioctl(PERF_EVENT_IOC_MODIFY_ATTRIBUTES)`: changes a breakpoint's attribute.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP`: not a breakpoint. `EINVAL`: something else than the breakpoint differs. Linux 4.17.
    pub fn modify_attributes(&self, attr: &PerfEventAttr) -> Result<()> {
        raw::perf::modify_attributes(self, attr)
    }

    /// `read`: the counter, in the layout that `read_format` asks for; returns the number of words.
    ///
    /// # Errors
    ///
    /// `ENOSPC`: `words` is too short.
    pub fn read(&self, words: &mut [u64]) -> Result<usize> {
        let mut bytes = [0u8; 256];
        let len = size_of_val(words).min(bytes.len());
        let read = rustix::io::read(self, &mut bytes[..len])
            .map_err(|e| Error::Call { call: "read(perf event)", errno: e.into() })?;
        let mut count = 0;
        for (word, chunk) in words.iter_mut().zip(bytes[..read.min(len)].chunks_exact(8)) {
            let mut raw = [0; 8];
            raw.copy_from_slice(chunk);
            *word = u64::from_ne_bytes(raw);
            count += 1;
        }
        Ok(count)
    }
}
