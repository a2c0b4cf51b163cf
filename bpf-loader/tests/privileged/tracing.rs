//! Programs that the kernel's functions and security hooks call.

use std::os::fd::AsFd;

use bpf_loader::Error;
use bpf_loader::attach::CgroupOptions;
use bpf_loader::link::Link;
use bpf_loader::machine::Machine;
use bpf_loader::test_run::TestRun;

use crate::record::{cannot, fired};
use crate::subject::{
    Subject, attached, call_dup, calls_from_functions, fires, fires_times, kernel_symbol, load, load_since,
    traces_functions, try_load,
};
use crate::{kernel_has, kind_of, permitted, skip};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/tracing.bpf.o");

/// The program at the function that it was loaded for; or `None`, after a look whether a kernel that calls none from there says
/// so.
fn attached_to_function(subject: &Subject) -> Option<Link> {
    attached(subject.program().attach(), calls_from_functions())
}

#[test]
fn programs_at_functions_fire() {
    if !traces_functions() {
        return;
    }
    for (name, each) in [
        ("on_fentry", 1),
        ("on_fexit", 1),
        ("on_fsession", 2),
        ("on_fentry_sleepable", 1),
        ("on_fexit_sleepable", 1),
        ("on_fsession_sleepable", 2),
    ] {
        if without_sleepable(name) {
            continue;
        }
        let Some(subject) = load_since(OBJECT, name) else { continue };
        let Some(link) = attached_to_function(&subject) else { return };
        fires_times(&subject, link, call_dup, each);
    }
}

/// Only functions that may fail on purpose may sleep and have what they return replaced; of late, system calls of the kernel's own
/// width as well.
fn without_sleepable(name: &str) -> bool {
    let few = kernel_symbol("within_error_injection_list").is_none();
    let kind = kind_of(OBJECT, name);
    let are_system_calls_enough = kernel_has((7, 2)) && Machine::own() == Machine::running();
    let missing = kind.sleepable && few && !are_system_calls_enough && kernel_has(kind.min_kernel);
    if missing {
        skip::<()>("system calls: the kernel is built without CONFIG_FUNCTION_ERROR_INJECTION");
    }
    missing
}

#[test]
fn programs_that_may_sleep_fire_in_test_runs() {
    if !traces_functions() {
        return;
    }
    let Some(runner) = load(OBJECT, "on_test") else { return };
    let run = |times| {
        for _ in 0..times {
            runner.program().test_run(&TestRun::default()).unwrap();
        }
    };
    for name in ["on_test_fentry_sleepable", "on_test_fexit_sleepable", "on_test_fmod_ret_sleepable"] {
        let subject = try_load(OBJECT, name, &[]);
        if subject.is_err() && !kernel_has((6, 4)) {
            let kind = kind_of(OBJECT, name);
            cannot(&[kind.section], "the kernel is built without CONFIG_FUNCTION_ERROR_INJECTION");
            continue;
        }
        let Some(subject) = permitted(subject) else { return };
        let Some(link) = attached_to_function(&subject) else { return };
        fires(&subject, link, run);
    }
}

#[test]
fn a_program_for_many_functions_loads() {
    if !traces_functions() || !kernel_has((7, 2)) {
        return;
    }
    let Some(subject) = load(OBJECT, "on_many_functions") else { return };
    let error = subject.program().attach().unwrap_err();
    assert_eq!(*error, Error::AttachKind { kind: "fentry.multi" });
}

#[test]
fn a_program_at_a_function_is_attached_once_more_or_says_since_when() {
    if !traces_functions() {
        return;
    }
    let Some(subject) = load(OBJECT, "on_fentry") else { return };
    let Some(link) = attached_to_function(&subject) else { return };
    drop(link);
    if let Some(link) = attached(subject.program().attach(), (5, 13)) {
        fires(&subject, link, call_dup);
    }
}

#[test]
fn a_program_at_a_function_has_a_cookie() {
    if !traces_functions() {
        return;
    }
    if !kernel_has((5, 19)) {
        let Some(subject) = load(OBJECT, "on_fentry") else { return };
        attached(subject.program().attach_tracing_with(82), (5, 19));
        return;
    }
    let Some(subject) = load(OBJECT, "on_fentry_cookie") else { return };
    let link = attached(subject.program().attach_tracing_with(82), calls_from_functions());
    let Some(link) = link else { return };
    fires(&subject, link, call_dup);
    assert_eq!(subject.number("cookie"), 82);
}

#[test]
fn a_program_replaces_what_a_function_returns() {
    if !traces_functions() {
        return;
    }
    let dup = || rustix::io::dup(std::io::stderr()).map(drop);
    if !without_sleepable("on_fmod_ret_sleepable") {
        let Some(subject) = load_since(OBJECT, "on_fmod_ret_sleepable") else { return };
        let Some(link) = attached_to_function(&subject) else { return };
        assert_eq!(dup(), Err(rustix::io::Errno::PERM));
        drop(link);
        assert_eq!((dup(), subject.hits()), (Ok(()), 1));
        fired(subject.program());
    }
    let Some(subject) = load(OBJECT, "on_fmod_ret") else { return };
    let open = || std::fs::File::open("/proc/self/exe").map(drop).map_err(|e| e.kind());
    let Some(link) = attached_to_function(&subject) else { return };
    assert_eq!(open(), Err(std::io::ErrorKind::PermissionDenied));
    drop(link);
    assert_eq!((open(), subject.hits()), (Ok(()), 1));
    fired(subject.program());
}

/// Programs at security hooks load and attach anyway, but run only where the kernel has them active.
fn bpf_lsm() -> bool {
    let mount = || {
        std::process::Command::new("mount")
            .args(["-t", "securityfs", "none", "/sys/kernel/security"])
            .status()
    };
    let path = "/sys/kernel/security/lsm";
    if !std::path::Path::new(path).exists() {
        let _ = mount();
    }
    std::fs::read_to_string(path).is_ok_and(|list| list.trim().split(',').any(|lsm| lsm == "bpf"))
}

#[test]
fn a_security_hook_fires() {
    if !traces_functions() {
        return;
    }
    for name in ["on_lsm", "on_lsm_sleepable"] {
        // Which hooks may sleep is known since 5.11.
        if name == "on_lsm_sleepable" && !kernel_has((5, 11)) {
            continue;
        }
        let Some(subject) = load(OBJECT, name) else { return };
        let Some(link) = attached_to_function(&subject) else { return };
        if !bpf_lsm() {
            cannot(&[subject.program().kind.section], "the BPF security module is not active");
            continue;
        }
        fires(&subject, link, |times| {
            for _ in 0..times {
                std::fs::File::open("/proc/self/exe").unwrap();
            }
        });
    }
}

#[test]
fn a_security_hook_of_a_control_group_fires() {
    if !traces_functions() {
        return;
    }
    let Some(subject) = load_since(OBJECT, "on_lsm_cgroup") else { return };
    let cgroup = std::fs::File::open("/sys/fs/cgroup/").unwrap();
    if !std::path::Path::new("/sys/fs/cgroup/cgroup.procs").exists() {
        skip::<()>("no control groups of version 2");
        return;
    }
    let link = subject.program().attach_cgroup(cgroup.as_fd(), &CgroupOptions::default());
    let Some(link) = attached(link, calls_from_functions()) else { return };
    if !bpf_lsm() {
        cannot(&["lsm_cgroup"], "the BPF security module is not active");
        return;
    }
    fires(&subject, link, |times| {
        for _ in 0..times {
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        }
    });
}

#[test]
fn a_tracepoint_by_types_has_a_cookie_or_says_since_when() {
    const TRACEPOINTS: &[u8] = include_bytes!("../bpf/prebuilt/tracepoint.bpf.o");
    let Some(subject) = load(TRACEPOINTS, "on_tracepoint_btf") else { return };
    let link = subject.program().attach_tracing_with(7);
    if kernel_has((6, 10)) {
        permitted(link);
        return;
    }
    let error = link.unwrap_err();
    assert!(matches!(*error, Error::Unsupported { min_kernel: (6, 10), .. }), "{error}");
}
