//! `BPF_PROG_*`.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use super::{bpf, bpf_fd, check_len, command, fd_u32, len_u32, opt_fd};
use crate::errno::{Errno, Error, Result};
use crate::fd::{MapFd, ProgFd};
use crate::link::Target;
use crate::prog::{Attach, ExtRecords, Log, ProgLoad, Query, QueryArrays, TestRun, TestRunOutput};
use crate::uapi::flags::{BPF_F_REPLACE, BPF_F_TOKEN_FD};
use crate::uapi::insn::{Insn, PSEUDO_KFUNC_CALL, PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE};
use crate::uapi::{addr, addr_mut, addr_str, attr};

/// As libbpf: a pending signal interrupts the verifier with `EAGAIN`.
const LOAD_ATTEMPTS: usize = 5;

pub(crate) fn load(prog: &ProgLoad<'_>, log: Option<&mut Log<'_>>) -> Result<OwnedFd> {
    let command = command!(PROG_LOAD);
    let call = command.call;
    check_fd_array(call, prog)?;
    let mut attr = attr::ProgLoad {
        prog_type: prog.prog_type.0,
        insn_cnt: len_u32(call, "insns", prog.insns.len())?,
        insns: addr(prog.insns),
        license: addr_str(prog.license),
        kern_version: prog.kern_version,
        prog_flags: prog.flags | if prog.token.is_some() { BPF_F_TOKEN_FD } else { 0 },
        prog_name: prog.name,
        prog_ifindex: prog.ifindex,
        expected_attach_type: prog.expected_attach_type.0,
        prog_btf_fd: opt_fd(prog.btf),
        func_info_rec_size: prog.func_info.record_size,
        func_info: addr(prog.func_info.bytes),
        func_info_cnt: record_count(call, "func_info", &prog.func_info)?,
        line_info_rec_size: prog.line_info.record_size,
        line_info: addr(prog.line_info.bytes),
        line_info_cnt: record_count(call, "line_info", &prog.line_info)?,
        attach_btf_id: prog.attach_btf_id,
        attach_fd: opt_fd(prog.attach_to),
        core_relos: addr(prog.core_relos.bytes),
        core_relo_rec_size: prog.core_relos.record_size,
        core_relo_cnt: record_count(call, "core_relos", &prog.core_relos)?,
        fd_array: addr(prog.fd_array),
        fd_array_cnt: if prog.bind_fd_array { len_u32(call, "fd_array", prog.fd_array.len())? } else { 0 },
        prog_token_fd: opt_fd(prog.token) as i32,
        signature: addr(prog.signature),
        signature_size: len_u32(call, "signature", prog.signature.len())?,
        keyring_id: prog.keyring_id,
        ..Default::default()
    };
    let mut log = log;
    if let Some(log) = log.as_deref_mut() {
        attr.log_level = log.level;
        attr.log_size = len_u32(call, "log", log.buf.len())?;
        attr.log_buf = addr_mut(log.buf);
    }
    let mut result = Err(Error::Call { call, errno: Errno::EAGAIN });
    for _ in 0..LOAD_ATTEMPTS {
        // SAFETY: each address has its slice's length beside it (records: count times size, as checked; the licence ends
        // with zero; `fd_array` is read at the indices checked above); the kernel writes the log, which is borrowed
        // mutably, and the attribute.
        result = unsafe { bpf_fd(command, &mut attr) };
        if !matches!(result, Err(Error::Call { errno: Errno::EAGAIN, .. })) {
            break;
        }
    }
    if let Some(log) = log {
        log.true_size = attr.log_true_size;
    }
    result
}

fn record_count(call: &'static str, what: &'static str, records: &ExtRecords<'_>) -> Result<u32> {
    let (len, size) = (records.bytes.len(), records.record_size as usize);
    let count = len.checked_div(size).unwrap_or(0);
    check_len(call, what, len, count * size)?;
    len_u32(call, what, count)
}

/// The kernel reads `fd_array` at whatever index an instruction names, so each index is checked here.
fn check_fd_array(call: &'static str, prog: &ProgLoad<'_>) -> Result<()> {
    let len = prog.fd_array.len();
    let inside = |insn: &Insn| {
        let index = if insn.is_ld_imm64() && matches!(insn.src(), PSEUDO_MAP_IDX | PSEUDO_MAP_IDX_VALUE) {
            usize::try_from(insn.imm)
        } else if insn.is_call() && insn.src() == PSEUDO_KFUNC_CALL && insn.off != 0 {
            usize::try_from(insn.off)
        } else {
            return true;
        };
        index.is_ok_and(|i| i < len)
    };
    // Without an array, the kernel itself refuses such instructions.
    if len == 0 || prog.insns.iter().all(inside) {
        Ok(())
    } else {
        Err(Error::Argument { call, what: "an instruction's index is outside fd_array" })
    }
}

pub(crate) fn test_run(prog: &ProgFd, run: &mut TestRun<'_>) -> Result<TestRunOutput> {
    let command = command!(PROG_TEST_RUN);
    let call = command.call;
    let mut attr = attr::TestRun {
        prog_fd: fd_u32(prog.as_fd()),
        data_size_in: len_u32(call, "data_in", run.data_in.len())?,
        data_in: addr(run.data_in),
        data_size_out: len_u32(call, "data_out", run.data_out.len())?,
        data_out: addr_mut(run.data_out),
        ctx_size_in: len_u32(call, "ctx_in", run.ctx_in.len())?,
        ctx_in: addr_mut(run.ctx_in),
        ctx_size_out: len_u32(call, "ctx_out", run.ctx_out.len())?,
        ctx_out: addr_mut(run.ctx_out),
        repeat: run.repeat,
        flags: run.flags,
        cpu: run.cpu,
        batch_size: run.batch_size,
        ..Default::default()
    };
    // SAFETY: each address has its slice's length beside it and an empty slice has address 0 (the kernel takes a length
    // of 0 beside an output's address as "all of it"); `ctx_in`, which programs of type SYSCALL have written back, is
    // borrowed mutably like the outputs.
    unsafe { bpf(command, &mut attr) }?;
    Ok(TestRunOutput {
        return_value: attr.retval,
        duration_ns: attr.duration,
        data_len: attr.data_size_out,
        ctx_len: attr.ctx_size_out,
    })
}

fn attach_attr(attach: &Attach<'_>, prog: u32) -> attr::ProgAttach {
    let (relative, relative_flag) = attach.relative.word_and_flag();
    attr::ProgAttach {
        target: attach.target.word(),
        attach_bpf_fd: prog,
        attach_type: attach.attach_type.0,
        attach_flags: attach.flags | relative_flag | if attach.replace.is_some() { BPF_F_REPLACE } else { 0 },
        replace_bpf_fd: opt_fd(attach.replace),
        relative,
        expected_revision: attach.expected_revision,
    }
}

pub(crate) fn attach(prog: std::os::fd::BorrowedFd<'_>, attach: &Attach<'_>) -> Result<()> {
    // SAFETY: the kernel follows no address.
    unsafe { bpf(command!(PROG_ATTACH), &mut attach_attr(attach, fd_u32(prog))) }.map(drop)
}

pub(crate) fn detach(prog: Option<&ProgFd>, attach: &Attach<'_>) -> Result<()> {
    let mut attr = attach_attr(attach, opt_fd(prog.map(AsFd::as_fd)));
    // SAFETY: the kernel follows no address.
    unsafe { bpf(command!(PROG_DETACH), &mut attr) }.map(drop)
}

pub(crate) fn query(
    target: Target<'_>,
    attach_type: u32,
    flags: u32,
    arrays: &mut QueryArrays<'_>,
) -> Result<Query> {
    let command = command!(PROG_QUERY);
    let len = arrays.prog_ids.len();
    for (what, other) in [
        ("prog_attach_flags", arrays.prog_attach_flags.len()),
        ("link_ids", arrays.link_ids.len()),
        ("link_attach_flags", arrays.link_attach_flags.len()),
    ] {
        if other != 0 {
            check_len(command.call, what, other, len)?;
        }
    }
    let mut attr = attr::ProgQuery {
        target: target.word(),
        attach_type,
        query_flags: flags,
        prog_ids: addr_mut(arrays.prog_ids),
        count: len_u32(command.call, "prog_ids", len)?,
        prog_attach_flags: addr_mut(arrays.prog_attach_flags),
        link_ids: addr_mut(arrays.link_ids),
        link_attach_flags: addr_mut(arrays.link_attach_flags),
        ..Default::default()
    };
    // SAFETY: the kernel writes at most `count` elements of each array that is there, and each has so many.
    match unsafe { bpf(command, &mut attr) } {
        // When they do not all fit, the kernel fills the arrays and tells how many there are.
        Ok(_) | Err(Error::Call { errno: Errno::ENOSPC, .. }) => {
            Ok(Query { count: attr.count, attach_flags: attr.attach_flags, revision: attr.revision })
        }
        Err(e) => Err(e),
    }
}

pub(crate) fn bind_map(prog: &ProgFd, map: &MapFd) -> Result<()> {
    let mut attr = attr::ProgBindMap { prog_fd: fd_u32(prog.as_fd()), map_fd: fd_u32(map.as_fd()), flags: 0 };
    // SAFETY: the kernel follows no address.
    unsafe { bpf(command!(PROG_BIND_MAP), &mut attr) }.map(drop)
}

pub(crate) fn stream_read(prog: &ProgFd, stream_id: u32, buf: &mut [u8]) -> Result<usize> {
    let command = command!(PROG_STREAM_READ_BY_FD);
    let mut attr = attr::StreamRead {
        stream_buf: addr_mut(buf),
        stream_buf_len: len_u32(command.call, "buffer", buf.len())?,
        stream_id,
        prog_fd: fd_u32(prog.as_fd()),
        pad: 0,
    };
    // SAFETY: the kernel writes at most `stream_buf_len` bytes of `buf`.
    unsafe { bpf(command, &mut attr) }.map(|n| n as usize)
}

pub(crate) fn raw_tracepoint_open(prog: &ProgFd, name: Option<&CStr>, cookie: u64) -> Result<OwnedFd> {
    let mut attr =
        attr::RawTracepoint { name: name.map_or(0, addr_str), prog_fd: fd_u32(prog.as_fd()), pad: 0, cookie };
    // SAFETY: the kernel reads `name` up to its terminating zero.
    unsafe { bpf_fd(command!(RAW_TRACEPOINT_OPEN), &mut attr) }
}
