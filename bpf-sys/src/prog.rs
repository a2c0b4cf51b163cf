//! Programs: loading, running, attaching by the older commands, and what the kernel tells about them.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::errno::Result;
use crate::fd::{LinkFd, MapFd, ProgFd};
use crate::link::{Relative, Target};
use crate::raw::{self, IdKind};
use crate::uapi::ObjName;
use crate::uapi::info::{FuncInfo, Info, LineInfo, ProgInfo};
use crate::uapi::insn::Insn;
use crate::uapi::kinds::{AttachType, ProgType, StatsType};

/// Where the verifier writes.
#[derive(Debug)]
pub struct Log<'a> {
    /// 1: of a failure, 2: every state, 4: statistics; to be combined. Not 0.
    pub level: u32,
    /// Filled with text that ends with a zero byte.
    pub buf: &'a mut [u8],
    /// Set by the call: the length of the whole log with its zero byte, whatever fitted. 0 before Linux 6.4, where
    /// `ENOSPC` tells that the buffer is too small.
    pub true_size: u32,
}

impl<'a> Log<'a> {
    /// A log in `buf`.
    pub fn new(level: u32, buf: &'a mut [u8]) -> Self {
        Self { level, buf, true_size: 0 }
    }

    /// The text up to its zero byte.
    pub fn text(&self) -> &[u8] {
        self.buf.split(|b| *b == 0).next().unwrap_or_default()
    }
}

/// Records of `.BTF.ext` in the kernel's form: their bytes, and the size of one, which the object tells.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtRecords<'a> {
    /// All records.
    pub bytes: &'a [u8],
    /// Bytes of one.
    pub record_size: u32,
}

/// What [`load`] loads. Fields left at their default are "none".
#[derive(Debug, Clone, Default)]
pub struct ProgLoad<'a> {
    /// Type.
    pub prog_type: ProgType,
    /// Instructions.
    pub insns: &'a [Insn],
    /// Licence; helpers may ask for one compatible with the GPL.
    pub license: &'a CStr,
    /// Kernel version, checked for kprobes before Linux 5.0.
    pub kern_version: u32,
    /// `BPF_F_*`. The flag for a token is added.
    pub flags: u32,
    /// Name (Linux 4.15).
    pub name: ObjName,
    /// Device to offload to or bind to.
    pub ifindex: u32,
    /// Where it will be attached, for the types that ask at loading.
    pub expected_attach_type: AttachType,
    /// BTF of the program.
    pub btf: Option<BorrowedFd<'a>>,
    /// `struct bpf_func_info`.
    pub func_info: ExtRecords<'a>,
    /// `struct bpf_line_info`.
    pub line_info: ExtRecords<'a>,
    /// `struct bpf_core_relo` (Linux 5.17).
    pub core_relos: ExtRecords<'a>,
    /// Type of the function to attach to.
    pub attach_btf_id: u32,
    /// Program (freplace, fentry on BPF) or module's BTF that has the function.
    pub attach_to: Option<BorrowedFd<'a>>,
    /// Descriptors that instructions name by index (Linux 5.14). All indices in `insns` are checked.
    pub fd_array: &'a [i32],
    /// Bind all maps of `fd_array` to the program (Linux 6.14).
    pub bind_fd_array: bool,
    /// Token (Linux 6.9).
    pub token: Option<BorrowedFd<'a>>,
    /// Signature (Linux 6.18).
    pub signature: &'a [u8],
    /// Keyring of the signature (Linux 6.18).
    pub keyring_id: i32,
}

/// `bpf(BPF_PROG_LOAD)`: verifies and loads a program.
///
/// Whether it succeeds or not, the verifier's text is left in `log`, with its whole length in
/// [`true_size`](Log::true_size). `EAGAIN`, which a signal causes, is tried again four times.
///
/// # Errors
///
/// [`Error::Length`](crate::Error::Length): records that are no multiple of their size.
/// [`Error::Argument`](crate::Error::Argument): an index outside `fd_array`. `EACCES`, `EINVAL`: the verifier refuses,
/// see the log. `EPERM`: no CAP_BPF, or CAP_PERFMON for tracing, or lockdown. `ENOSPC`: the log is too small. `E2BIG`: too
/// large, or a field that the kernel does not know.
///
/// Linux 5.8; older for most types. [`bpf(2)`](https://man7.org/linux/man-pages/man2/bpf.2.html).
pub fn load(prog: &ProgLoad<'_>, log: Option<&mut Log<'_>>) -> Result<ProgFd> {
    raw::prog::load(prog, log).map(ProgFd::created)
}

/// What [`test_run`] runs a program on.
#[derive(Debug, Default)]
pub struct TestRun<'a> {
    /// Packet.
    pub data_in: &'a [u8],
    /// Where the packet goes.
    pub data_out: &'a mut [u8],
    /// Context. Programs of type SYSCALL have it written back.
    pub ctx_in: &'a mut [u8],
    /// Where the context goes.
    pub ctx_out: &'a mut [u8],
    /// How often; 0 is once.
    pub repeat: u32,
    /// `BPF_F_TEST_*`.
    pub flags: u32,
    /// The CPU, with `BPF_F_TEST_RUN_ON_CPU`.
    pub cpu: u32,
    /// Frames at a time, with `BPF_F_TEST_XDP_LIVE_FRAMES`.
    pub batch_size: u32,
}

/// What [`test_run`] gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TestRunOutput {
    /// The program's.
    pub return_value: u32,
    /// Mean time of a run in nanoseconds.
    pub duration_ns: u32,
    /// Bytes of the packet.
    pub data_len: u32,
    /// Bytes of the context.
    pub ctx_len: u32,
}

/// `bpf(BPF_PROG_TEST_RUN)`, also called `BPF_PROG_RUN`: runs a program.
///
/// # Errors
///
/// `ENOSPC`: an output does not fit. `ENOTSUPP`: the type cannot be run. `EINVAL`: a packet or context of the wrong size.
///
/// Linux 4.12; raw tracepoints 5.10.
pub fn test_run(prog: &ProgFd, run: &mut TestRun<'_>) -> Result<TestRunOutput> {
    raw::prog::test_run(prog, run)
}

/// Where [`attach`] attaches. Fields left at their default are "none".
#[derive(Debug, Clone, Default)]
pub struct Attach<'a> {
    /// Control group, socket map, network namespace or device.
    pub target: Target<'a>,
    /// Attach type.
    pub attach_type: AttachType,
    /// `BPF_F_*`. The flags for the fields below are added.
    pub flags: u32,
    /// Program to replace.
    pub replace: Option<BorrowedFd<'a>>,
    /// Program beside which it goes (Linux 6.6).
    pub relative: Relative<'a>,
    /// Revision that the list of programs must have, or 0 (Linux 6.6).
    pub expected_revision: u64,
}

/// `bpf(BPF_PROG_ATTACH)`: attaches a program until [`detach`], beyond the life of the process.
///
/// # Errors
///
/// `EINVAL`: the type does not go there. `EPERM`: a program is there that does not allow another. `ESTALE`: another
/// revision.
pub fn attach(prog: &ProgFd, to: &Attach<'_>) -> Result<()> {
    raw::prog::attach(prog.as_fd(), to)
}

/// `bpf(BPF_PROG_DETACH)`: removes a program, or the only one.
///
/// # Errors
///
/// `ENOENT`: it is not there.
pub fn detach(prog: Option<&ProgFd>, from: &Attach<'_>) -> Result<()> {
    raw::prog::detach(prog, from)
}

/// Buffers of [`query`]; the last three are empty or as long as the first.
#[derive(Debug, Default)]
pub struct QueryArrays<'a> {
    /// Programs.
    pub prog_ids: &'a mut [u32],
    /// Flags of each program (Linux 6.0).
    pub prog_attach_flags: &'a mut [u32],
    /// Links (Linux 6.6).
    pub link_ids: &'a mut [u32],
    /// Flags of each link (Linux 6.6).
    pub link_attach_flags: &'a mut [u32],
}

/// What [`query`] gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// How many programs there are, more than were written if the buffers are short.
    pub count: u32,
    /// Flags of the attach point.
    pub attach_flags: u32,
    /// Revision of the list (Linux 6.6).
    pub revision: u64,
}

/// `bpf(BPF_PROG_QUERY)`: the programs at an attach point.
///
/// # Errors
///
/// [`Error::Length`](crate::Error::Length): arrays of different length. `EINVAL`: no such attach type or flag.
pub fn query(
    target: Target<'_>,
    attach_type: AttachType,
    flags: u32,
    arrays: &mut QueryArrays<'_>,
) -> Result<Query> {
    raw::prog::query(target, attach_type.0, flags, arrays)
}

/// `bpf(BPF_OBJ_GET_INFO_BY_FD)` of a program, without arrays.
///
/// # Errors
///
/// None that the caller can cause.
pub fn info(prog: &ProgFd) -> Result<Info<ProgInfo>> {
    raw::info::get(prog.as_fd())
}

/// Buffers of [`info_arrays`]; each is filled as far as it goes.
#[derive(Debug, Default)]
pub struct ProgArrays<'a> {
    /// Ids of the maps.
    pub map_ids: &'a mut [u32],
    /// Instructions after the verifier's rewriting.
    pub xlated: &'a mut [u8],
    /// Machine code.
    pub jited: &'a mut [u8],
    /// Address of each function.
    pub jited_ksyms: &'a mut [u64],
    /// Bytes of each function.
    pub jited_func_lens: &'a mut [u32],
    /// Functions.
    pub func_info: &'a mut [FuncInfo],
    /// Lines.
    pub line_info: &'a mut [LineInfo],
    /// Address of each line.
    pub jited_line_info: &'a mut [u64],
    /// Tag of each function.
    pub tags: &'a mut [[u8; 8]],
}

/// `bpf(BPF_OBJ_GET_INFO_BY_FD)` of a program, with arrays.
///
/// The counts in the result are what the program has. What the caller may not see (addresses, without CAP_SYSLOG) counts 0.
///
/// # Errors
///
/// `EFAULT`: some buffer was written in part.
pub fn info_arrays(prog: &ProgFd, arrays: &mut ProgArrays<'_>) -> Result<Info<ProgInfo>> {
    raw::info::prog(prog, arrays)
}

/// `bpf(BPF_PROG_GET_NEXT_ID)`: the ids of all programs of the system.
///
/// # Errors
///
/// `EPERM`: needs CAP_SYS_ADMIN.
pub fn ids() -> crate::Ids {
    crate::Ids::new(IdKind::Prog)
}

/// `bpf(BPF_PROG_GET_FD_BY_ID)`: opens a program.
///
/// # Errors
///
/// `ENOENT`: it is gone. `EPERM`: needs CAP_SYS_ADMIN.
pub fn open_by_id(id: u32, token: Option<BorrowedFd<'_>>) -> Result<ProgFd> {
    raw::fd_by_id(IdKind::Prog, id, 0, token).map(ProgFd::created)
}

/// `bpf(BPF_RAW_TRACEPOINT_OPEN)`: attaches to a raw tracepoint by name, or, without a name, a tracing or LSM program to
/// the function that it was loaded for. `cookie` is for Linux 6.10 and later, else 0.
///
/// # Errors
///
/// `ENOENT`: no such tracepoint. `EPERM`: no CAP_PERFMON.
pub fn raw_tracepoint_open(prog: &ProgFd, name: Option<&CStr>, cookie: u64) -> Result<LinkFd> {
    raw::prog::raw_tracepoint_open(prog, name, cookie).map(LinkFd::created)
}

/// `bpf(BPF_PROG_BIND_MAP)`: keeps a map alive as long as a program that does not use it.
///
/// # Errors
///
/// `EINVAL`: the kernel is older than Linux 5.10.
pub fn bind_map(prog: &ProgFd, map: &MapFd) -> Result<()> {
    raw::prog::bind_map(prog, map)
}

/// `bpf(BPF_ENABLE_STATS)`: counts run time and runs of all programs while the descriptor is open.
///
/// # Errors
///
/// `EPERM`: needs CAP_SYS_ADMIN. Linux 5.8.
pub fn enable_stats(kind: StatsType) -> Result<OwnedFd> {
    raw::enable_stats(kind.0)
}

/// `bpf(BPF_PROG_STREAM_READ_BY_FD)`: reads what a program wrote to its stream (`BPF_STREAM_STDOUT`,
/// `BPF_STREAM_STDERR`); returns the number of bytes.
///
/// # Errors
///
/// `ENOENT`: no such stream. `EINVAL`: the kernel is older than Linux 6.17.
pub fn stream_read(prog: &ProgFd, stream: u32, buf: &mut [u8]) -> Result<usize> {
    raw::prog::stream_read(prog, stream, buf)
}
