//! `BPF_LINK_*`, `BPF_ITER_CREATE`, `BPF_TASK_FD_QUERY`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{bpf, bpf_fd, check_len, command, fd_u32, len_u32, opt_fd};
use crate::errno::Result;
use crate::fd::LinkFd;
use crate::link::{IterTarget, LinkCreate, LinkOptions, Probes, TaskFd};
use crate::uapi::attr::{self, LinkVariant};
use crate::uapi::flags::BPF_F_REPLACE;
use crate::uapi::kinds::TaskFdType;
use crate::uapi::{addr, addr_mut, addr_str};

/// Checks that an optional array has as many elements as the one that it goes with.
fn check_optional(call: &'static str, what: &'static str, len: usize, count: usize) -> Result<()> {
    if len == 0 { Ok(()) } else { check_len(call, what, len, count) }
}

fn iter_words(target: &IterTarget<'_>) -> [u32; 4] {
    match *target {
        IterTarget::Map(map) => [fd_u32(map), 0, 0, 0],
        IterTarget::Cgroup { order, cgroup } => [order, opt_fd(cgroup), 0, 0],
        IterTarget::CgroupId { order, id } => {
            let id = id.to_ne_bytes();
            let half = |at: usize| u32::from_ne_bytes([id[at], id[at + 1], id[at + 2], id[at + 3]]);
            [order, 0, half(0), half(4)]
        }
        IterTarget::Task { tid, pid } => [tid, pid, 0, 0],
        IterTarget::TaskPidFd(pidfd) => [0, 0, fd_u32(pidfd), 0],
    }
}

pub(crate) fn create(link: &LinkCreate<'_>) -> Result<OwnedFd> {
    let command = command!(LINK_CREATE);
    let call = command.call;
    let mut variant = LinkVariant::NONE;
    let mut extra_flags = 0;
    // What the addresses in `variant` point to and the caller does not own.
    let iter_words = if let LinkOptions::Iter(target) = &link.options { iter_words(target) } else { [0; 4] };
    let symbols: Vec<u64>;
    match &link.options {
        LinkOptions::None => {}
        LinkOptions::BtfId(id) => variant.target_btf_id = *id,
        LinkOptions::Iter(_) => {
            variant.iter =
                attr::LinkIter { info: addr(&iter_words), info_len: size_of_val(&iter_words) as u32, pad: 0 };
        }
        LinkOptions::PerfEvent { cookie } => variant.perf_event = *cookie,
        LinkOptions::KprobeMulti { probes, cookies, flags } => {
            let (cnt, syms, addrs) = match probes {
                Probes::Symbols(names) => {
                    symbols = names.iter().map(|name| addr_str(name)).collect();
                    (symbols.len(), addr(&symbols), 0)
                }
                Probes::Addresses(addresses) => (addresses.len(), 0, addr(addresses)),
            };
            check_optional(call, "cookies", cookies.len(), cnt)?;
            let cnt = len_u32(call, "probes", cnt)?;
            variant.kprobe_multi =
                attr::LinkKprobeMulti { flags: *flags, cnt, syms, addrs, cookies: addr(cookies) };
        }
        LinkOptions::Tracing { btf_id, cookie } => {
            variant.tracing = attr::LinkTracing { target_btf_id: *btf_id, pad: 0, cookie: *cookie };
        }
        LinkOptions::Netfilter { pf, hook, priority, flags } => {
            variant.netfilter =
                attr::LinkNetfilter { pf: *pf, hooknum: *hook, priority: *priority, flags: *flags };
        }
        LinkOptions::Ordered { relative, expected_revision } => {
            let (word, flag) = relative.word_and_flag();
            extra_flags = flag;
            variant.relative =
                attr::LinkRelative { relative: word, pad: 0, expected_revision: *expected_revision };
        }
        LinkOptions::UprobeMulti { path, offsets, ref_ctr_offsets, cookies, flags, pid } => {
            check_optional(call, "ref_ctr_offsets", ref_ctr_offsets.len(), offsets.len())?;
            check_optional(call, "cookies", cookies.len(), offsets.len())?;
            variant.uprobe_multi = attr::LinkUprobeMulti {
                path: addr_str(path),
                offsets: addr(offsets),
                ref_ctr_offsets: addr(ref_ctr_offsets),
                cookies: addr(cookies),
                cnt: len_u32(call, "offsets", offsets.len())?,
                flags: *flags,
                pid: *pid,
                pad: 0,
            };
        }
    }
    let mut attr = attr::LinkCreate {
        prog_fd: fd_u32(link.object),
        target: link.target.word(),
        attach_type: link.attach_type.0,
        flags: link.flags | extra_flags,
        variant: variant.words(),
    };
    // SAFETY: the kernel only reads: strings up to their zero, arrays of `cnt` elements, as checked, and the iterator's
    // words with their length beside them; all outlive the call.
    unsafe { bpf_fd(command, &mut attr) }
}

pub(crate) fn update(
    link: &LinkFd,
    new: BorrowedFd<'_>,
    flags: u32,
    old: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let mut attr = attr::LinkUpdate {
        link_fd: fd_u32(link.as_fd()),
        new_fd: fd_u32(new),
        flags: flags | if old.is_some() { BPF_F_REPLACE } else { 0 },
        old_fd: opt_fd(old),
    };
    // SAFETY: the kernel follows no address.
    unsafe { bpf(command!(LINK_UPDATE), &mut attr) }.map(drop)
}

pub(crate) fn detach(link: &LinkFd) -> Result<()> {
    let mut attr = attr::LinkDetach { link_fd: fd_u32(link.as_fd()) };
    // SAFETY: the kernel follows no address.
    unsafe { bpf(command!(LINK_DETACH), &mut attr) }.map(drop)
}

pub(crate) fn iter_create(link: &LinkFd) -> Result<OwnedFd> {
    let mut attr = attr::IterCreate { link_fd: fd_u32(link.as_fd()), flags: 0 };
    // SAFETY: the kernel follows no address.
    unsafe { bpf_fd(command!(ITER_CREATE), &mut attr) }
}

pub(crate) fn task_fd_query(pid: u32, fd: u32, name: &mut [u8]) -> Result<TaskFd> {
    let command = command!(TASK_FD_QUERY);
    let mut attr = attr::TaskFdQuery {
        pid,
        fd,
        buf_len: len_u32(command.call, "name", name.len())?,
        buf: addr_mut(name),
        ..Default::default()
    };
    // SAFETY: the kernel writes at most `buf_len` bytes of `name`.
    unsafe { bpf(command, &mut attr) }?;
    Ok(TaskFd {
        kind: TaskFdType(attr.fd_type),
        prog_id: attr.prog_id,
        name_len: attr.buf_len,
        probe_offset: attr.probe_offset,
        probe_addr: attr.probe_addr,
    })
}
