//! Links: attachments that last as long as their descriptor or pin.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::errno::Result;
use crate::fd::LinkFd;
use crate::raw::{self, IdKind, fd_u32};
use crate::uapi::flags::BPF_F_ID;
use crate::uapi::info::{Info, RawLinkInfo};
use crate::uapi::kinds::{AttachType, TaskFdType};

/// What a program is attached to.
#[derive(Debug, Clone, Copy, Default)]
pub enum Target<'a> {
    /// What the program was loaded for.
    #[default]
    None,
    /// Control group, network namespace, perf event, socket map, or program.
    Fd(BorrowedFd<'a>),
    /// Network device by index.
    Device(u32),
}

impl Target<'_> {
    pub(crate) fn word(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Fd(fd) => fd_u32(fd),
            Self::Device(index) => index,
        }
    }
}

/// A program or link beside which another goes; the flags say on which side (`BPF_F_BEFORE`, `BPF_F_AFTER`) and, with
/// `BPF_F_LINK`, that it is a link.
#[derive(Debug, Clone, Copy, Default)]
pub enum Relative<'a> {
    /// At either end.
    #[default]
    None,
    /// By descriptor.
    Fd(BorrowedFd<'a>),
    /// By id; `BPF_F_ID` is added.
    Id(u32),
}

impl Relative<'_> {
    pub(crate) fn word_and_flag(self) -> (u32, u32) {
        match self {
            Self::None => (0, 0),
            Self::Fd(fd) => (fd_u32(fd), 0),
            Self::Id(id) => (id, BPF_F_ID),
        }
    }
}

/// What an iterator goes over.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum IterTarget<'a> {
    /// A map's elements (Linux 5.9).
    Map(BorrowedFd<'a>),
    /// A tree of control groups (Linux 6.1), from a group or the root.
    Cgroup {
        /// `enum bpf_cgroup_iter_order`.
        order: u32,
        /// The group; none is the root.
        cgroup: Option<BorrowedFd<'a>>,
    },
    /// A tree of control groups (Linux 6.1), from a group by id.
    CgroupId {
        /// `enum bpf_cgroup_iter_order`.
        order: u32,
        /// The group.
        id: u64,
    },
    /// One thread, or the threads of one process (Linux 6.1); 0 is none.
    Task {
        /// Thread.
        tid: u32,
        /// Process.
        pid: u32,
    },
    /// One process (Linux 6.1).
    TaskPidFd(BorrowedFd<'a>),
}

/// Functions of a kprobe_multi link.
#[derive(Debug, Clone, Copy)]
pub enum Probes<'a> {
    /// By name.
    Symbols(&'a [&'a CStr]),
    /// By address.
    Addresses(&'a [u64]),
}

/// What is asked of a kind of link beyond its target.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum LinkOptions<'a> {
    /// Nothing.
    #[default]
    None,
    /// freplace: type of the function (Linux 5.10).
    BtfId(u32),
    /// Iterator over one target.
    Iter(IterTarget<'a>),
    /// Perf event (Linux 5.15).
    PerfEvent {
        /// `bpf_get_attach_cookie`.
        cookie: u64,
    },
    /// Many kprobes (Linux 5.18).
    KprobeMulti {
        /// Functions.
        probes: Probes<'a>,
        /// A cookie each, or none.
        cookies: &'a [u64],
        /// `BPF_F_KPROBE_MULTI_RETURN`.
        flags: u32,
    },
    /// fentry, fexit, LSM, tp_btf (Linux 5.19).
    Tracing {
        /// Type of the function, or 0 for the one the program was loaded for.
        btf_id: u32,
        /// `bpf_get_attach_cookie`.
        cookie: u64,
    },
    /// Netfilter hook (Linux 6.4).
    Netfilter {
        /// Protocol family.
        pf: u32,
        /// Hook.
        hook: u32,
        /// Priority.
        priority: i32,
        /// `BPF_F_NETFILTER_IP_DEFRAG`.
        flags: u32,
    },
    /// tcx (Linux 6.6), netkit (6.7), control groups (6.17): a place in the list of programs.
    Ordered {
        /// Beside which.
        relative: Relative<'a>,
        /// Revision that the list must have, or 0.
        expected_revision: u64,
    },
    /// Many uprobes (Linux 6.6).
    UprobeMulti {
        /// File.
        path: &'a CStr,
        /// Offsets in the file.
        offsets: &'a [u64],
        /// Offset of each semaphore, or none.
        ref_ctr_offsets: &'a [u64],
        /// A cookie each, or none.
        cookies: &'a [u64],
        /// `BPF_F_UPROBE_MULTI_RETURN`.
        flags: u32,
        /// Only this process, or 0.
        pid: u32,
    },
}

/// What [`create`] makes.
#[derive(Debug, Clone)]
pub struct LinkCreate<'a> {
    /// Program; for struct_ops, map.
    pub object: BorrowedFd<'a>,
    /// Target.
    pub target: Target<'a>,
    /// Attach type.
    pub attach_type: AttachType,
    /// `BPF_F_*`, XDP flags.
    pub flags: u32,
    /// What depends on the kind.
    pub options: LinkOptions<'a>,
}

/// `bpf(BPF_LINK_CREATE)`: attaches a program.
///
/// # Errors
///
/// [`Error::Length`](crate::Error::Length): arrays of different length. `EINVAL`: the kernel does not know the kind, or the
/// program does not go there. `EBUSY`: the place is taken. `ENOENT`, `ESRCH`: a function or process is not there.
/// `ENOTSUPP`: the architecture cannot.
///
/// Linux 5.7 for control groups; see [`LinkOptions`] for others.
pub fn create(link: &LinkCreate<'_>) -> Result<LinkFd> {
    raw::link::create(link).map(LinkFd::created)
}

/// `bpf(BPF_LINK_UPDATE)`: replaces the program (for struct_ops, the map); with `old`, only if it is the present one.
///
/// # Errors
///
/// `EPERM`: another program is present. `EINVAL`: the kind of link cannot. Linux 5.7.
pub fn update(link: &LinkFd, new: BorrowedFd<'_>, flags: u32, old: Option<BorrowedFd<'_>>) -> Result<()> {
    raw::link::update(link, new, flags, old)
}

/// `bpf(BPF_LINK_DETACH)`: detaches at once, whoever else holds the link.
///
/// # Errors
///
/// `EOPNOTSUPP`: the kind of link cannot. Linux 5.9.
pub fn detach(link: &LinkFd) -> Result<()> {
    raw::link::detach(link)
}

/// `bpf(BPF_OBJ_GET_INFO_BY_FD)` of a link, without names and arrays.
///
/// # Errors
///
/// `EINVAL`: the kernel is older than Linux 5.8.
pub fn info(link: &LinkFd) -> Result<Info<RawLinkInfo>> {
    raw::info::get(link.as_fd())
}

/// As [`info`], with the name of the tracepoint, iterator's target, probed function or file in `name`, ended by zero.
///
/// # Errors
///
/// [`Error::Argument`](crate::Error::Argument): links of this type have no name. `ENOSPC`: cut.
pub fn info_name(link: &LinkFd, name: &mut [u8]) -> Result<Info<RawLinkInfo>> {
    raw::info::link_name(link, name)
}

/// Buffers of [`info_arrays`]; the last two are empty or as long as the first.
#[derive(Debug, Default)]
pub struct MultiArrays<'a> {
    /// Addresses of kprobes, offsets of uprobes.
    pub locations: &'a mut [u64],
    /// Cookies.
    pub cookies: &'a mut [u64],
    /// Offsets of semaphores, uprobes only.
    pub ref_ctr_offsets: &'a mut [u64],
}

/// As [`info`], with the arrays of a kprobe_multi or uprobe_multi link.
///
/// # Errors
///
/// [`Error::Argument`](crate::Error::Argument): another type of link. `ENOSPC`: cut. Linux 6.6 and 6.8.
pub fn info_arrays(link: &LinkFd, arrays: &mut MultiArrays<'_>) -> Result<Info<RawLinkInfo>> {
    raw::info::link_multi(link, arrays)
}

/// `bpf(BPF_LINK_GET_NEXT_ID)`: the ids of all links of the system.
///
/// # Errors
///
/// `EPERM`: needs CAP_SYS_ADMIN. Linux 5.8.
pub fn ids() -> crate::Ids {
    crate::Ids::new(IdKind::Link)
}

/// `bpf(BPF_LINK_GET_FD_BY_ID)`: opens a link.
///
/// # Errors
///
/// `ENOENT`: it is gone. `EPERM`: needs CAP_SYS_ADMIN. Linux 5.8.
pub fn open_by_id(id: u32) -> Result<LinkFd> {
    raw::fd_by_id(IdKind::Link, id, 0, None).map(LinkFd::created)
}

/// `bpf(BPF_ITER_CREATE)`: a descriptor from which the iterator's output is read, once.
///
/// # Errors
///
/// `EINVAL`: not an iterator. Linux 5.8.
pub fn iter_create(link: &LinkFd) -> Result<OwnedFd> {
    raw::link::iter_create(link)
}

/// What [`task_fd_query`] gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskFd {
    /// What it traces.
    pub kind: TaskFdType,
    /// Program.
    pub prog_id: u32,
    /// Length of the name without its zero.
    pub name_len: u32,
    /// Offset of the probe.
    pub probe_offset: u64,
    /// Address of the probe.
    pub probe_addr: u64,
}

/// `bpf(BPF_TASK_FD_QUERY)`: what the descriptor `fd` of process `pid` traces; `name` gets the tracepoint, function or
/// file.
///
/// # Errors
///
/// `ENOENT`, `EBADF`: no such process or descriptor. `ENOTSUPP`: not a tracing descriptor. `ENOSPC`: the name was cut.
/// `EPERM`: needs CAP_SYS_ADMIN. Linux 4.18.
pub fn task_fd_query(pid: u32, fd: u32, name: &mut [u8]) -> Result<TaskFd> {
    raw::link::task_fd_query(pid, fd, name)
}
