//! Values that belong to sockets, tasks and control groups, and entries that are such.

use std::fs::File;
use std::net::{TcpListener, TcpStream};

use bpf_loader::machine::Machine;
use bpf_loader::map::{CgroupArray, CpuMap, DevMap, MapOfMaps, SocketMap, Storage};
use bpf_loader::{Error, map::Map};
use bpf_sys::uapi::flags::{BPF_ANY, BPF_EXIST, BPF_NOEXIST};
use bpf_sys::{Errno, MapType};

use super::{Mount, map_of};
use crate::skip;

/// Sets, reads and removes a value.
fn round_trip(storage: &Map, owner: impl std::os::fd::AsFd + Copy) {
    let storage = Storage::<u64>::new(storage).unwrap();
    assert_eq!(storage.get(owner), Ok(None));
    let set = storage.set(owner, &5, BPF_NOEXIST);
    if Machine::running() == Some(Machine::Riscv64)
        && set.as_ref().is_err_and(|e| e.errno() == Some(Errno::ENOMEM))
    {
        // From Linux 7.0 on, it is allocated without a lock, where the machine can exchange 16 bytes at once.
        skip::<()>("storage of owners: this machine cannot allocate it without a lock (ENOMEM)");
        return;
    }
    set.unwrap();
    assert_eq!(storage.set(owner, &5, BPF_NOEXIST).unwrap_err().errno(), Some(Errno::EEXIST));
    assert_eq!(storage.get(owner), Ok(Some(5)));
    assert_eq!((storage.delete(owner), storage.delete(owner)), (Ok(true), Ok(false)));
}

#[test]
fn socket_storage() {
    let Some(map) = map_of(MapType::SK_STORAGE) else { return };
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    round_trip(&map, &socket);
    let file = File::open("/proc/self/exe").unwrap();
    assert!(Storage::<u64>::new(&map).unwrap().get(&file).is_err(), "no socket");
}

#[test]
fn task_storage() {
    let Some(map) = map_of(MapType::TASK_STORAGE) else { return };
    let process = rustix::process::getpid();
    let pidfd = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty()).unwrap();
    round_trip(&map, &pidfd);
}

#[test]
fn inode_storage() {
    let Some(map) = map_of(MapType::INODE_STORAGE) else { return };
    let Some(security) = Mount::new("securityfs", "security") else { return };
    let lsm = std::fs::read_to_string(security.path().join("lsm")).unwrap();
    if !lsm.split(',').any(|name| name.trim() == "bpf") {
        return skip("inodes have no storage: the BPF LSM is not active").unwrap_or(());
    }
    round_trip(&map, &File::open("/proc/self/exe").unwrap());
}

#[test]
fn cgroup_storage_and_arrays() {
    let (Some(array), Some(cgroups)) = (map_of(MapType::CGROUP_ARRAY), Mount::new("cgroup2", "cgroups"))
    else {
        return;
    };
    let root = File::open(cgroups.path()).unwrap();
    let array = CgroupArray::new(&array).unwrap();
    array.set(1, &root).unwrap();
    assert_eq!((array.clear(1), array.clear(1)), (Ok(true), Ok(false)));
    assert!(array.set(1, File::open("/").unwrap()).is_err());
    let Some(map) = map_of(MapType::CGRP_STORAGE) else { return };
    round_trip(&map, &root);
}

#[test]
fn sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    for map_type in [MapType::SOCKMAP, MapType::SOCKHASH] {
        let Some(map) = map_of(map_type) else { return };
        let sockets = SocketMap::<u32>::new(&map).unwrap();
        assert_eq!(sockets.cookie(&2), Ok(None), "{map_type}");
        sockets.set(&2, &stream, BPF_NOEXIST).unwrap();
        assert!(sockets.cookie(&2).unwrap().is_some_and(|cookie| cookie != 0), "{map_type}");
        assert_eq!((sockets.delete(&2), sockets.delete(&2)), (Ok(true), Ok(false)), "{map_type}");
    }
}

#[test]
fn sockets_that_programs_choose() {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let Some(map) = map_of(MapType::REUSEPORT_SOCKARRAY) else { return };
    let udp = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_reuseport(&udp, true).unwrap();
    rustix::net::bind(&udp, &any).unwrap();
    let sockets = SocketMap::<u32>::new(&map).unwrap();
    sockets.set(&7, &udp, BPF_ANY).unwrap();
    assert!(sockets.cookie(&7).unwrap().is_some_and(|cookie| cookie != 0));
    assert_eq!((sockets.delete(&7), sockets.delete(&7)), (Ok(true), Ok(false)));

    let Some(map) = map_of(MapType::XSKMAP) else { return };
    let sockets = SocketMap::<u32>::new(&map).unwrap();
    assert_eq!(sockets.set(&1, &udp, BPF_ANY).unwrap_err().errno(), Some(Errno::EOPNOTSUPP));
    match socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None) {
        Ok(xdp) => {
            sockopt::set_xdp_rx_ring_size(&xdp, 64).unwrap();
            sockets.set(&1, &xdp, BPF_NOEXIST).unwrap();
            assert_eq!(sockets.set(&2, &xdp, BPF_EXIST).unwrap_err().errno(), Some(Errno::ENOENT));
            assert_eq!(sockets.delete(&1), Ok(true));
        }
        Err(error) => skip(&format!("no AF_XDP sockets: {error}")).unwrap_or(()),
    }
}

#[test]
fn devices_and_cpus() {
    const LOOPBACK: u32 = 1;
    for map_type in [MapType::DEVMAP, MapType::DEVMAP_HASH] {
        let Some(map) = map_of(map_type) else { return };
        let devices = DevMap::new(&map).unwrap();
        devices.set(3, LOOPBACK, None).unwrap();
        assert_eq!(devices.get(3), Ok(Some((LOOPBACK, None))), "{map_type}");
        assert_eq!(devices.set(3, 0x7fff_ffff, None).unwrap_err().errno(), Some(Errno::EINVAL));
        assert_eq!(devices.delete(3), Ok(true));
        assert_eq!(devices.get(3), Ok(None), "{map_type}");
    }
    let Some(map) = map_of(MapType::CPUMAP) else { return };
    let cpus = CpuMap::new(&map).unwrap();
    cpus.set(0, 32, None).unwrap();
    assert_eq!(cpus.get(0), Ok(Some((32, None))));
    assert_eq!(cpus.delete(0), Ok(true));
    assert_eq!(cpus.get(0), Ok(None));
}

#[test]
fn maps_of_maps() {
    for map_type in [MapType::ARRAY_OF_MAPS, MapType::HASH_OF_MAPS] {
        let Some(outer) = map_of(map_type) else { return };
        let inner = bpf_sys::map::create(&bpf_sys::map::MapCreate {
            map_type: MapType::ARRAY,
            key_size: 4,
            value_size: 8,
            max_entries: 1,
            ..Default::default()
        });
        let inner = Map::new("inner".into(), inner.unwrap());
        let maps = MapOfMaps::<u32>::new(&outer).unwrap();
        assert_eq!(maps.id(&1), Ok(None));
        maps.set(&1, &inner, BPF_ANY).unwrap();
        assert_eq!(maps.id(&1), Ok(Some(inner.info().unwrap().id)), "{map_type}");
        assert_eq!(maps.get(&1).unwrap().unwrap().value_size(), 8);
        let Some(other) = map_of(MapType::HASH) else { return };
        let error = maps.set(&2, &other, BPF_ANY).unwrap_err();
        assert!(matches!(*error, Error::InnerMap { inner_type: MapType::HASH, .. }), "{error}");
        assert_eq!(maps.delete(&1), Ok(true));
        assert_eq!(maps.id(&1), Ok(None));
    }
}
