//! What the running kernel has, by trying and by its version.

use bpf_loader::features::probes::{Feature, Probes};
use bpf_loader::kernel::RunningKernel;
use bpf_loader::machine::Machine;
use bpf_sys::{AttachType, Errno, MapType, ProgType};

/// Asks, and says why there is no answer.
fn has(probes: &Probes<'_>, feature: Feature) -> Option<bool> {
    match probes.has(feature) {
        Ok(answer) => Some(answer),
        Err(e) if e.errno() == Some(Errno::EPERM) => crate::skip(&format!("{feature:?}: {e}")),
        Err(e) => panic!("{feature:?}: {e}"),
    }
}

#[test]
fn what_is_found_is_what_the_version_says() {
    let kernel = RunningKernel::default();
    let probes = Probes::new(&kernel);
    let helper = |number| Feature::Helper(ProgType::KPROBE, number);
    let expected = [
        (Feature::MapType(MapType::HASH), (3, 19)),
        (Feature::MapType(MapType::HASH_OF_MAPS), (4, 12)),
        (Feature::MapType(MapType::SK_STORAGE), (5, 2)),
        (Feature::MapType(MapType::STRUCT_OPS), (5, 6)),
        (Feature::MapType(MapType::RINGBUF), (5, 8)),
        (Feature::MapType(MapType::TASK_STORAGE), (5, 11)),
        (Feature::MapType(MapType::BLOOM_FILTER), (5, 16)),
        (Feature::MapType(MapType::USER_RINGBUF), (6, 1)),
        (Feature::MapType(MapType::CGRP_STORAGE), (6, 2)),
        (Feature::MapType(MapType::ARENA), (6, 9)),
        (Feature::ProgType(ProgType::SOCKET_FILTER), (3, 19)),
        (Feature::ProgType(ProgType::STRUCT_OPS), (5, 6)),
        (Feature::ProgType(ProgType::EXT), (5, 6)),
        (Feature::ProgType(ProgType::SK_LOOKUP), (5, 9)),
        (Feature::ProgType(ProgType::SYSCALL), (5, 14)),
        (Feature::ProgType(ProgType::TRACING), (5, 5)),
        (Feature::AttachType(ProgType::CGROUP_SOCK_ADDR, AttachType::CGROUP_INET4_CONNECT), (4, 17)),
        (Feature::AttachType(ProgType::CGROUP_SOCK_ADDR, AttachType::CGROUP_UNIX_CONNECT), (6, 7)),
        // probe_read_kernel, get_func_ip, get_attach_cookie.
        (helper(113), (5, 5)),
        (helper(173), (5, 15)),
        (helper(174), (5, 15)),
    ];
    for (feature, since) in expected {
        let Some(found) = has(&probes, feature) else { continue };
        if feature == Feature::MapType(MapType::ARENA) && Machine::running() == Some(Machine::Riscv64) {
            crate::skip::<()>("arenas: kernels of riscv64 have none");
            continue;
        }
        assert_eq!(found, crate::kernel_has(since), "{feature:?}");
    }
    assert!(!has(&probes, helper(60_000)).unwrap_or(false));
    // bpf_get_socket_cookie is none of a kprobe's.
    assert!(!has(&probes, helper(46)).unwrap_or(false));
}
