//! XDP, traffic control, tcx and netkit.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;

use bpf_loader::attach::{
    Direction, ExpectedXdp, FilterId, Neighbour, NetkitEnd, Place, Position, XdpMode, attached_programs,
};
use bpf_loader::load::Object;
use bpf_loader::program::Program;
use bpf_loader::{Error, attach};
use bpf_sys::link::Target;
use bpf_sys::netlink::RouteSocket;
use bpf_sys::{AttachType, Errno, LinkDetail};

use crate::namespace::{LOOPBACK, address, datagrams, in_namespace, pair, settle, without_ipv6};
use crate::record::{cannot, fired, refused_sections};
use crate::{kernel_has, load_possible, read_global};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/packets.bpf.o");
const SENT: usize = 5;

fn runs(object: &Object, program: &str) -> u64 {
    read_global(OBJECT, object, &format!("{program}_runs"))
}

fn id(program: &Program) -> u32 {
    bpf_sys::prog::info(&program.fd).unwrap().id
}

#[test]
fn an_xdp_link_sees_every_packet_until_it_is_dropped() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        let [pass, other, drop_all] =
            ["xdp_pass", "xdp_other", "xdp_drop"].map(|name| object.program(name).unwrap());
        let mut link = pass.attach_xdp(LOOPBACK, XdpMode::Skb).unwrap();
        assert!(matches!(link.info().unwrap().detail(), LinkDetail::Xdp { ifindex: LOOPBACK }));
        assert_eq!(datagrams(SENT), SENT);
        assert_eq!(runs(&object, "xdp_pass"), SENT as u64);
        let mut socket = RouteSocket::open().unwrap();
        assert_eq!(socket.xdp(LOOPBACK).unwrap().skb_prog_id, id(pass));
        // A link holds the device.
        let busy = other.attach_xdp(LOOPBACK, XdpMode::Skb).unwrap_err();
        assert_eq!(busy.errno(), Some(Errno::EBUSY));
        let busy = other.attach_xdp_netlink(LOOPBACK, XdpMode::Skb, ExpectedXdp::Anything).unwrap_err();
        assert_eq!(busy.errno(), Some(Errno::EBUSY));
        assert!(busy.to_string().contains("Can't replace active BPF XDP link"), "{busy}");
        link.update(drop_all).unwrap();
        assert_eq!(datagrams(SENT), 0);
        assert_eq!((runs(&object, "xdp_pass"), runs(&object, "xdp_drop")), (SENT as u64, SENT as u64));
        drop(link);
        assert_eq!(socket.xdp(LOOPBACK).unwrap().prog_id, 0);
        assert_eq!(datagrams(SENT), SENT);
        fired(pass);
    });
}

#[test]
fn xdp_by_netlink_replaces_what_is_expected() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        let [pass, other] = ["xdp_pass", "xdp_other"].map(|name| object.program(name).unwrap());
        let mut socket = RouteSocket::open().unwrap();
        let first = pass.attach_xdp_netlink(LOOPBACK, XdpMode::Skb, ExpectedXdp::Nothing).unwrap();
        assert_eq!(datagrams(SENT), SENT);
        assert_eq!(runs(&object, "xdp_pass"), SENT as u64);
        let busy = other.attach_xdp_netlink(LOOPBACK, XdpMode::Skb, ExpectedXdp::Nothing).unwrap_err();
        assert_eq!(busy.errno(), Some(Errno::EBUSY));
        let wrong = ExpectedXdp::Program(other.fd.as_fd());
        let wrong = other.attach_xdp_netlink(LOOPBACK, XdpMode::Skb, wrong).unwrap_err();
        assert_eq!(wrong.errno(), Some(Errno::EEXIST));
        let expected = ExpectedXdp::Program(pass.fd.as_fd());
        let mut second = other.attach_xdp_netlink(LOOPBACK, XdpMode::Skb, expected).unwrap();
        // Another's place is not taken away.
        drop(first);
        assert_eq!(socket.xdp(LOOPBACK).unwrap().prog_id, id(other));
        second.update(pass).unwrap();
        assert_eq!(socket.xdp(LOOPBACK).unwrap().prog_id, id(pass));
        second.detach().unwrap();
        assert_eq!(socket.xdp(LOOPBACK).unwrap(), Default::default());
        let nowhere = pass.attach_xdp_netlink(4000, XdpMode::Skb, ExpectedXdp::Nothing).unwrap_err();
        assert_eq!(nowhere.errno(), Some(Errno::ENODEV));
    });
}

/// Sends a datagram out of a device to all hosts of its network.
fn broadcasts(from: Ipv4Addr, count: usize) {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.set_broadcast(true).unwrap();
    let everyone = Ipv4Addr::from(u32::from(from) | 0xff);
    for _ in 0..count {
        socket.send_to(b"datagram", (everyone, 9)).unwrap();
    }
}

#[test]
fn drivers_run_xdp_with_and_without_frags() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        without_ipv6();
        let Some((one, two)) = pair("veth") else { return };
        address(one, Ipv4Addr::new(10, 0, 1, 1).into(), 24);
        for name in ["xdp_pass", "xdp_frags"] {
            if name == "xdp_frags" && !kernel_has((5, 18)) {
                continue;
            }
            let program = object.program(name).unwrap();
            let link = program.attach_xdp(two, XdpMode::Driver).unwrap();
            let mut socket = RouteSocket::open().unwrap();
            assert_eq!(socket.xdp(two).unwrap().driver_prog_id, id(program));
            broadcasts(Ipv4Addr::new(10, 0, 1, 1), SENT);
            settle(name, || runs(&object, name), SENT as u64);
            fired(program);
            drop(link);
            assert_eq!(socket.xdp(two).unwrap().prog_id, 0);
        }
    });
}

#[test]
fn programs_of_maps_run_for_what_is_redirected() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        without_ipv6();
        let Some((one, two)) = pair("veth") else { return };
        address(one, Ipv4Addr::new(10, 0, 1, 1).into(), 24);
        let by_map = [
            ("to_cpu", "cpus", "on_cpu", (5, 9)),
            ("to_device", "devices", "on_device", (5, 8)),
            ("to_cpu_frags", "cpus_frags", "on_cpu_frags", (5, 18)),
            ("to_device_frags", "devices_frags", "on_device_frags", (5, 18)),
        ];
        for (redirect, map, target, since) in by_map {
            if !kernel_has(since) {
                continue;
            }
            let program = object.program(target).unwrap();
            let value = match map {
                "cpus" | "cpus_frags" => program.cpumap_value(64),
                // What goes out of the first device comes in by the second, whose driver takes frames.
                _ => program.devmap_value(one),
            };
            let map = object.map(map).unwrap();
            bpf_sys::map::update(&map.fd, &[0; 4], &value, 0).unwrap();
            let link = object.program(redirect).unwrap().attach_xdp(two, XdpMode::Driver).unwrap();
            broadcasts(Ipv4Addr::new(10, 0, 1, 1), SENT);
            settle(target, || runs(&object, target), SENT as u64);
            fired(program);
            drop(link);
        }
    });
}

#[test]
fn filters_of_traffic_control_run_and_go() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        let [ok, ingress, egress, shot] =
            ["tc_ok", "tc_ingress", "tc_egress", "tc_shot"].map(|name| object.program(name).unwrap());
        let id_of = |priority, handle| FilterId { priority, handle };
        let (chosen, in_5, in_1) = (FilterId::default(), id_of(5, 7), id_of(1, 1));
        let on_egress = egress.attach_tc(LOOPBACK, Direction::Egress, chosen, false).unwrap();
        let on_ingress = ingress.attach_tc(LOOPBACK, Direction::Ingress, in_5, false).unwrap();
        assert_eq!(datagrams(SENT), SENT);
        assert_eq!((runs(&object, "tc_ingress"), runs(&object, "tc_egress")), (SENT as u64, SENT as u64));
        let mut socket = RouteSocket::open().unwrap();
        let filter = socket.get_filter(LOOPBACK, Direction::Ingress, in_5).unwrap().unwrap();
        assert_eq!((filter.id, filter.prog_id, filter.direct_action), (in_5, id(ingress), true));
        assert_eq!(filter.name, "tc_ingress");
        let taken = ok.attach_tc(LOOPBACK, Direction::Ingress, in_5, false).unwrap_err();
        assert_eq!(taken.errno(), Some(Errno::EEXIST), "{taken}");

        // A lower priority comes first, and its verdict is the last word.
        let mut before = shot.attach_tc(LOOPBACK, Direction::Ingress, in_1, false).unwrap();
        assert_eq!(datagrams(SENT), 0);
        before.update(ok).unwrap();
        assert_eq!(datagrams(SENT), SENT);
        assert_eq!((runs(&object, "tc_shot"), runs(&object, "tc_ok")), (SENT as u64, SENT as u64));
        assert_eq!(runs(&object, "tc_ingress"), SENT as u64, "not reached any more");
        let replaced = shot.attach_tc(LOOPBACK, Direction::Ingress, in_1, true).unwrap();
        assert_eq!(datagrams(1), 0);
        drop(replaced);
        assert!(before.detach().is_err(), "it was replaced, and is gone");
        assert_eq!(datagrams(SENT), SENT);
        drop((on_egress, on_ingress));
        assert_eq!(datagrams(SENT), SENT);
        assert_eq!(runs(&object, "tc_ingress"), 2 * SENT as u64);
        [ok, ingress, egress, shot].into_iter().for_each(|program| fired(program));
        assert!(socket.get_filter(LOOPBACK, Direction::Ingress, in_5).is_err());
        socket.delete_clsact(LOOPBACK).unwrap();
        assert!(socket.delete_clsact(LOOPBACK).is_err());
    });
}

#[test]
fn actions_of_traffic_control_run_and_go() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        let [ok, shot] = ["action_ok", "action_shot"].map(|name| object.program(name).unwrap());
        let last = FilterId { priority: 9, handle: 1 };
        let mut link = match ok.attach_tc(LOOPBACK, Direction::Ingress, last, false) {
            Err(e) if e.errno() == Some(Errno::ENOENT) => {
                cannot(&["action"], "the kernel has no CONFIG_NET_CLS_MATCHALL or CONFIG_NET_ACT_BPF");
                return;
            }
            link => link.unwrap(),
        };
        assert_eq!(datagrams(SENT), SENT);
        assert_eq!(runs(&object, "action_ok"), SENT as u64);
        assert!(matches!(link.update(shot).map_err(|e| *e), Err(Error::NotABpfLink { .. })));
        let taken = shot.attach_tc(LOOPBACK, Direction::Ingress, last, false).unwrap_err();
        assert_eq!(taken.errno(), Some(Errno::EEXIST));
        let first = FilterId { priority: 1, handle: 1 };
        let refusing = shot.attach_tc(LOOPBACK, Direction::Ingress, first, false).unwrap();
        assert_eq!(datagrams(SENT), 0);
        assert_eq!((runs(&object, "action_ok"), runs(&object, "action_shot")), (SENT as u64, SENT as u64));
        drop(refusing);
        link.detach().unwrap();
        assert_eq!(datagrams(SENT), SENT);
        assert_eq!((runs(&object, "action_ok"), runs(&object, "action_shot")), (SENT as u64, SENT as u64));
        fired(ok);
    });
}

#[test]
fn tcx_keeps_an_order() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        if !kernel_has((6, 6)) {
            let e = object.program("tc_ok").unwrap();
            let e = e.attach_tcx(LOOPBACK, Direction::Ingress, Place::default()).unwrap_err();
            assert!(matches!(*e, Error::Unsupported { feature: "tcx", min_kernel: (6, 6), .. }), "{e}");
            refused_sections(&["tcx/ingress", "tcx/egress"], &e);
            return;
        }
        let [first, second, third] = ["first", "second", "third"].map(|name| object.program(name).unwrap());
        let attach = |program: &Program, position, expected_revision| {
            program.attach_tcx(LOOPBACK, Direction::Ingress, Place { position, expected_revision })
        };
        let mut three = attach(third, Position::Default, 0).unwrap();
        let one = attach(first, Position::First, 0).unwrap();
        let _two = attach(second, Position::After(Neighbour::Link(&one)), 0).unwrap();
        assert_eq!(datagrams(1), 1);
        assert_eq!(read_global(OBJECT, &object, "order"), 123);
        let list = || attached_programs(Target::Device(LOOPBACK), AttachType::TCX_INGRESS, false).unwrap();
        assert_eq!(list().program_ids, [first, second, third].map(id));
        let stale = attach(first, Position::Last, list().revision + 1).unwrap_err();
        assert_eq!(stale.errno(), Some(Errno::ESTALE));
        let before = Position::Before(Neighbour::LinkId(three.info().unwrap().id));
        let fourth = object.program("tcx_ingress").unwrap();
        let again = attach(fourth, before, list().revision).unwrap();
        assert_eq!(list().program_ids, [first, second, fourth, third].map(id));
        assert_eq!(datagrams(SENT), SENT);
        assert_eq!(runs(&object, "tcx_ingress"), SENT as u64);
        drop(again);
        three.update(fourth).unwrap();
        assert_eq!(list().program_ids, [first, second, fourth].map(id));
        three.detach().unwrap();
        drop(one);
        assert_eq!(list().program_ids, [id(second)]);
        let egress = object.program("tcx_egress").unwrap();
        let link = egress.attach_tcx(LOOPBACK, Direction::Egress, Place::default()).unwrap();
        assert_eq!(datagrams(SENT), SENT);
        assert_eq!(runs(&object, "tcx_egress"), SENT as u64);
        [fourth, egress].into_iter().for_each(|program| fired(program));
        drop(link);
    });
}

#[test]
fn netkit_runs_for_what_its_ends_send() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        if !kernel_has((6, 7)) {
            let e = object.program("tc_ok").unwrap();
            let e = e.attach_netkit(LOOPBACK, NetkitEnd::Primary, attach::Place::default()).unwrap_err();
            assert!(matches!(*e, Error::Unsupported { feature: "netkit", min_kernel: (6, 7), .. }), "{e}");
            refused_sections(&["netkit/primary", "netkit/peer"], &e);
            return;
        }
        without_ipv6();
        let Some((one, two)) = pair("netkit") else {
            return cannot(&["netkit/primary", "netkit/peer"], "the kernel has no netkit devices");
        };
        address(one, Ipv4Addr::new(10, 0, 1, 1).into(), 24);
        address(two, Ipv4Addr::new(10, 0, 2, 1).into(), 24);
        let [primary, peer] = ["netkit_primary", "netkit_peer"].map(|name| object.program(name).unwrap());
        let on_primary = primary.attach_netkit(one, NetkitEnd::Primary, Place::default()).unwrap();
        let on_peer = peer.attach_netkit(one, NetkitEnd::Peer, Place::default()).unwrap();
        for (network, name) in [(1, "netkit_primary"), (2, "netkit_peer")] {
            let socket = UdpSocket::bind((Ipv4Addr::new(10, 0, network, 1), 0)).unwrap();
            let send = || drop(socket.send_to(b"datagram", (Ipv4Addr::new(10, 0, network, 2), 9)));
            // The other end came up a moment ago, and its queue may have to be told yet.
            for _ in 0..100 {
                send();
                if runs(&object, name) != 0 {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            let before = runs(&object, name);
            assert_ne!(before, 0, "{name}");
            (0..SENT).for_each(|_| send());
            assert_eq!(runs(&object, name), before + SENT as u64, "{name}");
            fired(object.program(name).unwrap());
        }
        drop((on_primary, on_peer));
        let target = Target::Device(one);
        let left = attached_programs(target, AttachType::NETKIT_PRIMARY, false).unwrap();
        assert_eq!(left.program_ids, []);
    });
}
