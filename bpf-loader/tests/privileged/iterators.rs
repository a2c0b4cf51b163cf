//! Iterators, read through a file and through a pin.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;

use bpf_loader::Error;
use bpf_sys::link::IterTarget;

use crate::record::fired;
use crate::subject::{attached, load, load_since, try_load};
use crate::{kernel_has, permitted, skip, thread_id};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/iter.bpf.o");

fn threads(mut file: File) -> Vec<u32> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes.chunks_exact(4).map(|id| u32::from_ne_bytes(id.try_into().unwrap())).collect()
}

#[test]
fn an_iterator_lists_all_threads_as_often_as_it_is_read() {
    for name in ["iter_task", "iter_task_sleepable"] {
        let Some(subject) = load_since(OBJECT, name) else { continue };
        let Some(link) = permitted(subject.program().attach()) else { return };
        for _ in 0..2 {
            let all = threads(link.iter().unwrap());
            assert!(all.contains(&thread_id()) && all.len() > 1, "{all:?}");
        }
        fired(subject.program());
    }
}

#[test]
fn an_iterator_is_read_through_its_pin() {
    let Some(subject) = load(OBJECT, "iter_task") else { return };
    let Some(mut link) = permitted(subject.program().attach()) else { return };
    let pin = std::path::PathBuf::from(format!("/sys/fs/bpf/bpf-loader-iter-{}", std::process::id()));
    link.pin(&pin).unwrap();
    assert!(threads(File::open(&pin).unwrap()).contains(&thread_id()));
    link.unpin().unwrap();
    assert!(fs::metadata(&pin).is_err());
}

#[test]
fn an_iterator_goes_over_one_thread() {
    let Some(subject) = load(OBJECT, "iter_task") else { return };
    let own = IterTarget::Task { tid: thread_id(), pid: 0 };
    let Some(link) = attached(subject.program().attach_iter(Some(own)), (6, 1)) else { return };
    assert_eq!(threads(link.iter().unwrap()), [thread_id()]);
}

#[test]
fn an_iterator_goes_over_a_map() {
    let Some(subject) = load(OBJECT, "iter_map") else { return };
    assert!(subject.program().attach_iter(None).is_err(), "needs a map");
    let map = subject.object.map("numbers").unwrap();
    for (key, value) in [(0u32, 10u64), (1, 11), (2, 12)] {
        bpf_sys::map::update(&map.fd, &key.to_ne_bytes(), &value.to_ne_bytes(), 0).unwrap();
    }
    let link = subject.program().attach_iter(Some(IterTarget::Map(map.fd.as_fd()))).unwrap();
    let mut bytes = Vec::new();
    link.iter().unwrap().read_to_end(&mut bytes).unwrap();
    let values: Vec<u64> = bytes.chunks_exact(8).map(|v| u64::from_ne_bytes(v.try_into().unwrap())).collect();
    assert_eq!(values, [10, 11, 12]);
    fired(subject.program());
}

#[test]
fn an_iterator_goes_over_one_control_group() {
    /// `BPF_CGROUP_ITER_SELF_ONLY`
    const SELF_ONLY: u32 = 1;
    if !kernel_has((6, 1)) {
        return;
    }
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let root = roots.iter().find(|root| fs::metadata(format!("{root}/cgroup.controllers")).is_ok());
    let Some(root) = root.and_then(|root| File::open(root).ok()) else {
        skip::<()>("no control groups of version 2");
        return;
    };
    let Some(subject) = load(OBJECT, "iter_cgroup") else { return };
    let target = IterTarget::Cgroup { order: SELF_ONLY, cgroup: Some(root.as_fd()) };
    let Some(link) = permitted(subject.program().attach_iter(Some(target))) else { return };
    let mut bytes = Vec::new();
    link.iter().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"g");
    fired(subject.program());
}

#[test]
fn iterators_go_over_all_things_of_a_sort() {
    let targets = [
        ("iter_task_file", (5, 8)),
        ("iter_task_vma", (5, 12)),
        ("iter_bpf_map", (5, 8)),
        ("iter_bpf_prog", (5, 9)),
        ("iter_bpf_link", (5, 19)),
        ("iter_netlink", (5, 8)),
        ("iter_ipv6_route", (5, 8)),
        ("iter_tcp", (5, 9)),
        ("iter_udp", (5, 9)),
        ("iter_unix", (5, 15)),
        ("iter_ksym", (6, 0)),
        ("iter_kmem_cache", (6, 13)),
    ];
    for (name, min_kernel) in targets {
        let subject = try_load(OBJECT, name, &[]);
        if !kernel_has(min_kernel) {
            let Err(Error::InProgram { error, .. }) = subject.map(drop).map_err(|e| *e) else {
                panic!("{name} loaded")
            };
            assert!(matches!(*error, Error::NoSuchTarget { .. }), "{error:?}");
            continue;
        }
        let Some(subject) = permitted(subject) else { return };
        let Some(link) = permitted(subject.program().attach()) else { return };
        let runs = format!("{name}_runs");
        let read = || link.iter().unwrap().read_to_end(&mut Vec::new()).unwrap();
        read();
        let first = subject.number(&runs);
        read();
        assert!(first > 0 && subject.number(&runs) > first, "{name}: {first}");
        fired(subject.program());
    }
}
