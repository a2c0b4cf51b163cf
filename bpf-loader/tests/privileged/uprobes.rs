//! Probes of functions of this program.

use std::hint::black_box;
use std::path::Path;

use bpf_loader::Error;
use bpf_loader::attach::{AttachMode, BinaryFunctions, BinaryPlace, UprobeMultiOptions, UprobeOptions};
use bpf_loader::machine::Machine;

use crate::subject::{attached, attached_since, fires, fires_times, load, load_since};
use crate::{kernel_has, permitted, skip};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/uprobe.bpf.o");
const FUNCTION: &str = "probed_function";

/// What probes go to, found by its name.
// SAFETY: no library has a function of that name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn probed_function(value: u64) -> u64 {
    black_box(value).wrapping_mul(3)
}

/// Another one that the pattern finds.
// SAFETY: no library has a function of that name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn probed_other(value: u64) -> u64 {
    black_box(value).wrapping_mul(5)
}

fn call(times: u64) {
    for n in 0..times {
        black_box(probed_function(n));
    }
}

fn this() -> &'static Path {
    Path::new("/proc/self/exe")
}

/// Does the kernel put probes into this program?
fn is_probed() -> bool {
    // `arch_uprobe_analyze_insn` of arm64 refuses such programs.
    (Machine::own(), Machine::running()) != (Some(Machine::Arm), Some(Machine::Aarch64))
        || skip::<()>("kernels of arm64 put no probes into 32-bit programs").is_some()
}

#[test]
fn uprobes_fire() {
    if !is_probed() {
        return;
    }
    for name in ["on_uprobe", "on_uretprobe", "on_uprobe_sleepable", "on_uretprobe_sleepable"] {
        let Some(subject) = load_since(OBJECT, name) else { continue };
        let Some(link) = permitted(subject.program().attach()) else { return };
        fires(&subject, link, call);
    }
}

#[test]
fn every_interface_of_uprobes_fires() {
    if !is_probed() {
        return;
    }
    for mode in [AttachMode::TraceFs, AttachMode::PerfEvent, AttachMode::Link] {
        for ret in [false, true] {
            let Some(subject) = load(OBJECT, "on_uprobe") else { return };
            let options = UprobeOptions { mode, ret, ..UprobeOptions::default() };
            let min_kernel = if mode == AttachMode::Link { (5, 15) } else { (4, 17) };
            let path = std::env::current_exe().unwrap();
            let link = subject.program().attach_uprobe(&path, FUNCTION, &options);
            if mode == AttachMode::TraceFs
                && matches!(link.as_ref().map_err(Box::as_ref), Err(Error::File { .. }))
            {
                skip::<()>(&format!("no tracefs: {}", link.unwrap_err()));
                continue;
            }
            let Some(link) = attached(link, min_kernel) else { continue };
            fires(&subject, link, call);
        }
    }
}

#[test]
fn a_uprobe_has_a_cookie_and_one_process() {
    if !is_probed() {
        return;
    }
    let options = |cookie, pid| UprobeOptions { cookie, pid: Some(pid), ..UprobeOptions::default() };
    let own = std::process::id();
    if !kernel_has((5, 15)) {
        let Some(subject) = load(OBJECT, "on_uprobe") else { return };
        attached(subject.program().attach_uprobe(this(), FUNCTION, &options(80, own)), (5, 15));
        return;
    }
    let Some(subject) = load(OBJECT, "on_uprobe_cookie") else { return };
    let link = subject.program().attach_uprobe(this(), FUNCTION, &options(80, own));
    let Some(link) = permitted(link) else { return };
    fires(&subject, link, call);
    assert_eq!(subject.number("cookie"), 80);
    // Nothing of this process's.
    let link = subject.program().attach_uprobe(this(), FUNCTION, &options(81, 1)).unwrap();
    fires_times(&subject, link, call, 0);
}

#[test]
fn a_uprobe_goes_to_an_offset_and_into_a_library() {
    let Some(subject) = load(OBJECT, "on_uprobe") else { return };
    let options = UprobeOptions::default();
    let e = subject.program().attach_uprobe(this(), "no_such_function", &options).unwrap_err();
    assert!(matches!(*e, Error::NoSuchSymbol { .. }), "{e:?}");
    let e = subject.program().attach_uprobe(Path::new("no-such-program"), "main", &options).unwrap_err();
    assert!(matches!(*e, Error::File { .. }), "{e:?}");
    if !Path::new("/lib/x86_64-linux-gnu/libc.so.6").exists() || cfg!(target_feature = "crt-static") {
        return;
    }
    let place = BinaryPlace::Function { name: "getppid", offset: 0 };
    let link = subject.program().attach_uprobe(Path::new("libc.so.6"), place, &options);
    let Some(link) = permitted(link) else { return };
    fires(&subject, link, crate::subject::call_getppid);
    let place = BinaryPlace::from("getppid@GLIBC_2.2.5");
    let link = subject.program().attach_uprobe(Path::new("libc.so.6"), place, &options).unwrap();
    fires(&subject, link, crate::subject::call_getppid);
    let wrong = subject.program().attach_uprobe(Path::new("libc.so.6"), "getppid@GLIBC_9.9", &options);
    assert!(matches!(wrong.as_ref().map_err(Box::as_ref), Err(Error::NoSuchSymbol { .. })), "{wrong:?}");
}

#[test]
fn many_uprobes_fire() {
    if !is_probed() {
        return;
    }
    for (name, each) in [
        ("on_uprobe_multi", 1),
        ("on_uretprobe_multi", 1),
        ("on_uprobe_session", 2),
        ("on_uprobe_multi_sleepable", 1),
        ("on_uretprobe_multi_sleepable", 1),
        ("on_uprobe_session_sleepable", 2),
    ] {
        let Some(subject) = load_since(OBJECT, name) else { continue };
        let link = subject.program().attach();
        let Some(link) = attached_since(subject.program(), link) else { continue };
        fires_times(&subject, link, call, each);
    }
}

#[test]
fn many_uprobes_have_a_cookie_each() {
    if !is_probed() {
        return;
    }
    if !kernel_has((6, 6)) {
        return;
    }
    let Some(subject) = load(OBJECT, "on_uprobe_multi_cookie") else { return };
    let functions = BinaryFunctions::Names(&["probed_other", FUNCTION]);
    let options = UprobeMultiOptions { cookies: &[8, 9], ..UprobeMultiOptions::default() };
    let link = subject.program().attach_uprobe_multi(this(), functions, &options);
    let Some(link) = permitted(link) else { return };
    fires(&subject, link, call);
    assert_eq!(subject.number("cookie"), 9);
    let link = subject.program().attach_uprobe_multi(this(), functions, &options).unwrap();
    black_box(probed_other(1));
    assert_eq!(subject.number("cookie"), 8);
    drop(link);
}
