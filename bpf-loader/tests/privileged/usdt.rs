//! Probes that this program brings with it.

use std::path::Path;
use std::sync::atomic::Ordering;

use bpf_loader::Error;
use bpf_loader::attach::usdt::{Usdt, UsdtOptions};
use bpf_sys::Errno;

use crate::subject::{fires, load, load_since};
use crate::{kernel_has, permitted, skip};

#[path = "../support/probe.rs"]
mod probe;

use probe::{EBPF_OTLP_TEST_SEMAPHORE, probe};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/usdt.bpf.o");

fn call(times: u64) {
    for _ in 0..times {
        probe(-5, 0x1234_5678_9abc_def0, &-300);
    }
}

fn this() -> &'static Path {
    Path::new("/proc/self/exe")
}

#[test]
fn a_probe_fires_with_its_arguments() {
    let Some(subject) = load(OBJECT, "on_usdt") else { return };
    let usdt = Usdt::new(&subject.object).unwrap();
    // Other tests may watch, too.
    let watchers = || EBPF_OTLP_TEST_SEMAPHORE.0.load(Ordering::Relaxed);
    for cookie in 1..=3 {
        let options = UsdtOptions { pid: Some(std::process::id()), cookie };
        let link = usdt.attach(subject.program(), this(), "ebpf_otlp_test", "counted", &options);
        let Some(link) = permitted(link) else { return };
        assert!(watchers() > 0);
        fires(&subject, link, call);
        assert_eq!(subject.number("cookie"), cookie);
    }
    let specs = subject.object.map("__bpf_usdt_specs").unwrap();
    let mut spec = vec![0; specs.fd.value_size()];
    bpf_sys::map::lookup(&specs.fd, &1u32.to_ne_bytes(), &mut spec, 0).unwrap();
    assert!(spec.iter().all(|b| *b == 0), "the first one is given back and used again");
    assert_eq!(subject.number("arg_count"), 4);
    assert_eq!(subject.number("first") as i64, -5);
    assert_eq!(subject.number("second"), 0x1234_5678_9abc_def0);
    assert_eq!(subject.number("third"), 71);
    assert_eq!(subject.number("fourth") as i64, -300);
    assert_eq!(subject.number("missing") as i32, -2, "there is no fifth");
}

#[test]
fn two_accounts_of_one_object_do_not_overwrite_each_other() {
    let Some(subject) = load(OBJECT, "on_usdt") else { return };
    let attach = |cookie| {
        let options = UsdtOptions { pid: Some(std::process::id()), cookie };
        let usdt = Usdt::new(&subject.object).unwrap();
        usdt.attach(subject.program(), this(), "ebpf_otlp_test", "counted", &options)
    };
    let Some(link) = permitted(attach(1)) else { return };
    let second = attach(2);
    // Before, programs know where they are by the address alone, of which there is one.
    let refused = second.as_ref().is_err_and(|e| e.errno() == Some(Errno::EEXIST));
    assert!(second.is_ok() || refused && !kernel_has((5, 15)), "{second:?}");
    drop(second);
    fires(&subject, link, call);
    assert_eq!(subject.number("cookie"), 1);
}

/// Whether this program lies at any address, and not at the one that its file says: `e_type` is `ET_DYN`.
fn is_relocated() -> bool {
    std::fs::read(this()).is_ok_and(|file| file[16..18] == 3u16.to_ne_bytes())
}

#[test]
fn a_probe_fires_in_any_process() {
    for name in ["on_usdt_by_section", "on_usdt_sleepable"] {
        let Some(subject) = load_since(OBJECT, name) else { continue };
        let usdt = Usdt::new(&subject.object).unwrap();
        let link = usdt.attach_by_section(subject.program());
        if !kernel_has((5, 15)) && is_relocated() {
            assert!(
                matches!(
                    link.as_ref().map_err(Box::as_ref),
                    Err(Error::Unsupported { min_kernel: (5, 15), .. })
                ),
                "{link:?}"
            );
            continue;
        }
        let Some(link) = permitted(link) else { return };
        fires(&subject, link, call);
    }
}

/// As our own program, with the header of libbpf.
const WITH_LIBBPFS_HEADER: &str = r#"
#define __TARGET_ARCH_x86
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <bpf/usdt.bpf.h>
char LICENSE[] SEC("license") = "GPL";
__u32 wanted;
__u64 hits, second;
SEC("usdt")
int BPF_USDT(on_usdt, int first, __u64 value)
{
    if ((__u32)bpf_get_current_pid_tgid() == wanted) {
        __sync_fetch_and_add(&hits, 1);
        second = value;
    }
    return 0;
}
"#;

#[test]
fn a_program_with_libbpfs_header_fires() {
    if !Path::new("/usr/include/bpf/usdt.bpf.h").exists() {
        skip::<()>("no usdt.bpf.h of libbpf's");
        return;
    }
    let directory = std::env::temp_dir().join(format!("bpf-loader-usdt-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("usdt.bpf.c"), WITH_LIBBPFS_HEADER).unwrap();
    let arguments = "-target bpfel -mcpu=v3 -O2 -g -I /usr/include/x86_64-linux-gnu -c usdt.bpf.c";
    let made =
        std::process::Command::new("clang-19").args(arguments.split(' ')).current_dir(&directory).status();
    let object = std::fs::read(directory.join("usdt.bpf.o"));
    std::fs::remove_dir_all(&directory).unwrap();
    if made.is_err() {
        skip::<()>("no clang-19");
        return;
    }
    let Some(subject) = load(object.unwrap().leak(), "on_usdt") else { return };
    let usdt = Usdt::new(&subject.object).unwrap();
    let options = UsdtOptions { pid: Some(std::process::id()), cookie: 0 };
    let link = usdt.attach(subject.program(), this(), "ebpf_otlp_test", "counted", &options);
    let Some(link) = permitted(link) else { return };
    fires(&subject, link, call);
    assert_eq!(subject.number("second"), 0x1234_5678_9abc_def0);
}

#[test]
fn probes_that_are_not_there_are_named() {
    let Some(subject) = load(OBJECT, "on_usdt") else { return };
    let usdt = Usdt::new(&subject.object).unwrap();
    let options = UsdtOptions::default();
    let e = usdt.attach(subject.program(), this(), "ebpf_otlp_test", "nothing", &options).unwrap_err();
    assert!(matches!(&*e, Error::NoSuchSymbol { name, .. } if name == "ebpf_otlp_test:nothing"), "{e:?}");
    let e = subject.program().attach().unwrap_err();
    assert_eq!(*e, Error::NoAutoAttach { section: "usdt".into() });
}
