//! Probes of kernel functions.

use bpf_loader::Error;
use bpf_loader::attach::{AttachMode, KernelFunctions, KernelPlace, KprobeMultiOptions, KprobeOptions};
use bpf_loader::machine::Machine;

use crate::record::cannot;
use crate::subject::{
    attached, attached_since, call_dup, call_getppid, fires, fires_times, kernel_symbol, load, load_since,
    syscall_function, traces_functions,
};
use crate::{kernel_has, permitted, skip};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/kprobe.bpf.o");

/// Does the kernel take probes where functions begin? On riscv64, one that can trace functions takes none at those.
fn probes_functions() -> bool {
    if !traces_functions() {
        return false;
    }
    if Machine::running() != Some(Machine::Riscv64) {
        return true;
    }
    let Some(subject) = load(OBJECT, "on_kprobe") else { return false };
    let link = subject.program().attach_kprobe("vfs_read", &KprobeOptions::default());
    let refused = matches!(link.as_ref().map_err(Box::as_ref), Err(Error::AttachTarget { .. }));
    if refused {
        skip::<()>("this kernel of riscv64 takes no probes where functions begin");
    }
    !refused
}

#[test]
fn kprobes_fire() {
    if !probes_functions() {
        return;
    }
    for name in ["on_kprobe", "on_kretprobe", "on_ksyscall", "on_kretsyscall"] {
        let Some(subject) = load(OBJECT, name) else { return };
        let Some(link) = permitted(subject.program().attach()) else { return };
        fires(&subject, link, call_getppid);
    }
}

#[test]
fn every_interface_of_kprobes_fires() {
    if !probes_functions() {
        return;
    }
    let function = syscall_function("getppid");
    for mode in [AttachMode::TraceFs, AttachMode::PerfEvent, AttachMode::Link] {
        for ret in [false, true] {
            let Some(subject) = load(OBJECT, "on_kprobe") else { return };
            let options = KprobeOptions { mode, ret, ..KprobeOptions::default() };
            let min_kernel = if mode == AttachMode::Link { (5, 15) } else { (4, 17) };
            let Some(link) = attached(subject.program().attach_kprobe(&*function, &options), min_kernel)
            else {
                continue;
            };
            assert_eq!(link.fd().is_some(), mode == AttachMode::Link);
            fires(&subject, link, call_getppid);
        }
    }
    let events = std::fs::read_to_string("/sys/kernel/tracing/kprobe_events").unwrap_or_default();
    assert!(!events.contains(&format!("ebpf_otlp/p{}_", std::process::id())), "left behind: {events}");
}

#[test]
fn a_kprobe_goes_to_an_address() {
    if !probes_functions() {
        return;
    }
    let address = kernel_symbol(&syscall_function("getppid")).unwrap();
    let Some(subject) = load(OBJECT, "on_kprobe") else { return };
    let options = KprobeOptions::default();
    let link = subject.program().attach_kprobe(KernelPlace::Address(address), &options);
    let Some(link) = permitted(link) else { return };
    fires(&subject, link, call_getppid);
}

#[test]
fn a_kprobe_has_a_cookie() {
    if !probes_functions() {
        return;
    }
    let function = syscall_function("getppid");
    let options = KprobeOptions { cookie: 79, ..KprobeOptions::default() };
    if !kernel_has((5, 15)) {
        let Some(subject) = load(OBJECT, "on_kprobe") else { return };
        attached(subject.program().attach_kprobe(&*function, &options), (5, 15));
        return;
    }
    let Some(subject) = load(OBJECT, "on_kprobe_cookie") else { return };
    let Some(link) = permitted(subject.program().attach_kprobe(&*function, &options)) else { return };
    fires(&subject, link, call_getppid);
    assert_eq!(subject.number("cookie"), 79);
}

#[test]
fn functions_that_are_not_there_are_named() {
    if !traces_functions() {
        return;
    }
    let Some(subject) = load(OBJECT, "on_kprobe") else { return };
    let e = subject.program().attach_kprobe("no_such_function", &KprobeOptions::default()).unwrap_err();
    assert!(matches!(&*e, Error::NoSuchTarget { name } if name.contains("no_such_function")), "{e:?}");
}

/// Without it, the kernel has no links of many kprobes, whatever its version.
fn has_fprobe() -> bool {
    let found = !kernel_has((5, 18)) || kernel_symbol("register_fprobe_ips").is_some();
    if !found {
        let kinds: &[&str] = match kernel_has((6, 10)) {
            true => &["kprobe.multi", "kretprobe.multi", "kprobe.session"],
            false => &["kprobe.multi", "kretprobe.multi"],
        };
        cannot(kinds, "the kernel is built without CONFIG_FPROBE");
    }
    found
}

#[test]
fn many_kprobes_fire() {
    if !traces_functions() {
        return;
    }
    let has_fprobe = has_fprobe();
    for (name, each) in [("on_kprobe_multi", 1), ("on_kretprobe_multi", 1), ("on_kprobe_session", 2)] {
        let Some(subject) = load_since(OBJECT, name) else { continue };
        if kernel_has(subject.program().kind.min_kernel) && !has_fprobe {
            continue;
        }
        let link = subject.program().attach();
        let Some(link) = attached_since(subject.program(), link) else { continue };
        fires_times(&subject, link, call_dup, each);
    }
}

#[test]
fn many_kprobes_have_a_cookie_each() {
    if !traces_functions() {
        return;
    }
    if !kernel_has((5, 18)) || !has_fprobe() {
        return;
    }
    let Some(subject) = load(OBJECT, "on_kprobe_multi_cookie") else { return };
    let names = ["getpid", "getppid", "getuid"].map(syscall_function);
    let names = names.each_ref().map(String::as_str);
    let names = KernelFunctions::Names(&names);
    let options = KprobeMultiOptions { cookies: &[5, 6, 7], ret: false };
    let Some(link) = permitted(subject.program().attach_kprobe_multi(names, &options)) else { return };
    fires(&subject, link, call_getppid);
    assert_eq!(subject.number("cookie"), 6);

    let none = KernelFunctions::Names(&["no_such_function"]);
    let e = subject.program().attach_kprobe_multi(none, &KprobeMultiOptions::default()).unwrap_err();
    assert!(matches!(*e, Error::NoSuchTarget { .. }), "{e:?}");
    let e = subject
        .program()
        .attach_kprobe_multi(KernelFunctions::Pattern("no_such_function_*"), &KprobeMultiOptions::default());
    assert!(matches!(e.as_ref().map_err(Box::as_ref), Err(Error::NoSuchTarget { .. })), "{e:?}");
}

#[test]
fn a_kernel_without_kprobes_says_so() {
    let there = |path: &str| std::path::Path::new(path).exists();
    if there("/sys/bus/event_source/devices/kprobe") || there("/sys/kernel/tracing/kprobe_events") {
        return;
    }
    let Some(subject) = load(OBJECT, "on_kprobe") else { return };
    let error = subject.program().attach_kprobe("do_exit", &KprobeOptions::default()).unwrap_err();
    let named = matches!(*error, Error::NotConfigured { option: "CONFIG_KPROBE_EVENTS", .. });
    assert!(named || !there("/sys/kernel/tracing/events"), "{error}");
}
