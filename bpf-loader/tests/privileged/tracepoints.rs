//! Tracepoints of all kinds.

use bpf_loader::Error;
use bpf_loader::machine::Machine;
use bpf_sys::prog::{self, ProgLoad, TestRun};
use bpf_sys::uapi::insn;
use bpf_sys::{Errno, Insn, ProgType};

use crate::record::fired;
use crate::subject::{attached, call_getppid, fires, load, load_with, try_load};
use crate::{kernel_has, permitted, skip};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/tracepoint.bpf.o");

/// The number of getppid(2) in this program.
pub const GETPPID: u64 = if cfg!(target_arch = "x86_64") {
    110
} else if cfg!(any(target_arch = "x86", target_arch = "arm")) {
    64
} else {
    173
};

/// Whether the kernel's tracepoints of single system calls see this program's: those of 32-bit programs, which have other
/// numbers, a 64-bit kernel passes over there (ARCH_TRACE_IGNORE_COMPAT_SYSCALLS).
fn are_calls_seen() -> bool {
    Machine::own() == Machine::running()
        || skip::<()>("tracepoints of single system calls are not passed by 32-bit programs").is_some()
}

#[test]
fn a_tracepoint_fires() {
    if !are_calls_seen() {
        return;
    }
    for name in ["on_tracepoint", "on_tracepoint_by_short_name"] {
        let Some(subject) = load(OBJECT, name) else { return };
        let Some(link) = permitted(subject.program().attach()) else { return };
        assert_eq!(link.fd().is_some(), kernel_has((5, 15)), "a BPF link where the kernel has them");
        fires(&subject, link, call_getppid);
    }
}

#[test]
fn a_tracepoint_has_a_cookie() {
    if !are_calls_seen() {
        return;
    }
    if !kernel_has((5, 15)) {
        let Some(subject) = load(OBJECT, "on_tracepoint") else { return };
        attached(subject.program().attach_tracepoint("syscalls", "sys_enter_getppid", 77), (5, 15));
        return;
    }
    let Some(subject) = load(OBJECT, "on_tracepoint_cookie") else { return };
    let link = subject.program().attach_tracepoint("syscalls", "sys_enter_getppid", 77);
    let Some(link) = permitted(link) else { return };
    fires(&subject, link, call_getppid);
    assert_eq!(subject.number("cookie"), 77);
}

#[test]
fn a_raw_tracepoint_fires() {
    for name in ["on_raw_tracepoint", "on_raw_tracepoint_by_long_name"] {
        let Some(subject) = load_with(OBJECT, name, &[("number", GETPPID)]) else { return };
        let Some(link) = permitted(subject.program().attach()) else { return };
        fires(&subject, link, call_getppid);
    }
}

#[test]
fn a_raw_tracepoint_has_a_cookie() {
    if !kernel_has((6, 10)) {
        let Some(subject) = load_with(OBJECT, "on_raw_tracepoint", &[("number", GETPPID)]) else { return };
        attached(subject.program().attach_raw_tracepoint_with("sys_enter", 78), (6, 10));
        return;
    }
    let Some(subject) = load_with(OBJECT, "on_raw_tracepoint_cookie", &[("number", GETPPID)]) else { return };
    let Some(link) = permitted(subject.program().attach_raw_tracepoint_with("sys_enter", 78)) else { return };
    fires(&subject, link, call_getppid);
    assert_eq!(subject.number("cookie"), 78);
}

#[test]
fn a_writable_tracepoint_fires_and_writes() {
    let insns = [Insn::new(insn::MOV64_IMM, 0, 0, 0, 0), Insn::new(insn::EXIT, 0, 0, 0, 0)];
    let filter =
        ProgLoad { prog_type: ProgType::SOCKET_FILTER, insns: &insns, license: c"GPL", ..Default::default() };
    let Some(filter) = permitted(prog::load(&filter, None).map_err(Box::<Error>::from)) else { return };
    let run = || prog::test_run(&filter, &mut TestRun { data_in: &[0; 64], ..TestRun::default() });
    for name in ["on_writable_tracepoint", "on_writable_tracepoint_by_long_name"] {
        let Some(subject) = load(OBJECT, name) else { return };
        let Some(link) = permitted(subject.program().attach()) else { return };
        assert_eq!(run().unwrap_err().errno(), Some(Errno::ENOMSG));
        drop(link);
        run().unwrap();
        assert_eq!(subject.hits(), 1);
        fired(subject.program());
    }
}

#[test]
fn a_typed_tracepoint_fires() {
    let Some(subject) = load_with(OBJECT, "on_tracepoint_btf", &[("number", GETPPID)]) else { return };
    let Some(link) = permitted(subject.program().attach()) else { return };
    fires(&subject, link, call_getppid);
}

#[test]
fn sleepable_tracepoints_fire() {
    for name in ["on_sleepable_tracepoint", "on_sleepable_raw_tracepoint", "on_sleepable_tracepoint_btf"] {
        let subject = try_load(OBJECT, name, &[("number", GETPPID)]);
        if !kernel_has((7, 2)) {
            let Err(Error::InProgram { error, .. }) = subject.as_ref().map_err(Box::as_ref) else {
                // Of typed ones, kernels did not look.
                assert!(name.ends_with("btf"), "{name} is loaded");
                continue;
            };
            assert!(matches!(**error, Error::ProgramLoad { min_kernel: (7, 2), .. }), "{name}: {error}");
            continue;
        }
        let Some(subject) = permitted(subject) else { return };
        if name == "on_sleepable_tracepoint" && !are_calls_seen() {
            continue;
        }
        let Some(link) = permitted(subject.program().attach()) else { return };
        fires(&subject, link, call_getppid);
    }
}

#[test]
fn tracepoints_that_are_not_there_are_named() {
    let Some(subject) = load(OBJECT, "on_tracepoint") else { return };
    match subject.program().attach_tracepoint("syscalls", "sys_enter_nothing", 0).map_err(|e| *e) {
        Err(Error::NoSuchTarget { name }) => assert!(name.contains("syscalls/sys_enter_nothing")),
        Err(Error::File { path, reason }) => {
            skip::<()>(&format!("{}: {reason}", path.display()));
        }
        other => panic!("{other:?}"),
    }
    let Some(subject) = load(OBJECT, "on_raw_tracepoint") else { return };
    let e = subject.program().attach_raw_tracepoint("nothing").unwrap_err();
    assert_eq!(*e, Error::NoSuchTarget { name: "tracepoint nothing".into() });
    if kernel_has((5, 15)) {
        let Some(subject) = load(OBJECT, "on_tracepoint_cookie") else { return };
        assert_eq!(*subject.program().attach().unwrap_err(), Error::NoAutoAttach { section: "tp".into() });
    }
}
