//! Programs of routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use bpf_loader::Error;
use bpf_loader::attach::Route;
use bpf_sys::Errno;
use bpf_sys::netlink::{Request, RouteSocket};

use crate::namespace::{LOOPBACK, address, in_namespace, pair, settle};
use crate::record::{cannot, fired};
use crate::{load_possible, read_global};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/packets.bpf.o");

#[test]
fn programs_of_routes_see_what_takes_the_route() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let destination = Ipv4Addr::new(10, 0, 3, 1);
        let route = Route { destination: IpAddr::V4(destination), prefix_len: 32, device: LOOPBACK };
        for name in ["route_in", "route_out", "route_xmit"] {
            let program = object.program(name).unwrap();
            let link = program.attach_route(route).unwrap();
            assert_eq!(program.attach_route(route).unwrap_err().errno(), Some(Errno::EEXIST));
            for _ in 0..5 {
                socket.send_to(b"datagram", (destination, 9)).unwrap();
            }
            assert_eq!(read_global(OBJECT, &object, &format!("{name}_runs")), 5, "{name}");
            fired(program);
            drop(link);
            let mut routes = RouteSocket::open().unwrap();
            assert_eq!(routes.delete_route(&route).unwrap_err().errno(), Some(Errno::ESRCH));
        }
        let e = object.program("xdp_pass").unwrap().attach_route(route).unwrap_err();
        assert!(matches!(*e, Error::WrongProgram { .. }), "{e}");
    });
}

/// Makes a route that sends what goes to `network` out of a device, by way of two segments.
fn segments(device: u32, network: Ipv6Addr, first: Ipv6Addr, second: Ipv6Addr) -> Option<()> {
    const RTM_NEWROUTE: u16 = 24;
    // struct rtmsg: IPv6, 128 bits, table main, static, unicast.
    let fixed = [10, 128, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
    // struct seg6_iptunnel_encap: the mode (1: encapsulate), then a segment routing header in the order of the last first,
    // with a place for the destination.
    let mut encap = 1u32.to_ne_bytes().to_vec();
    encap.extend([0, 4, 4, 1, 1, 0, 0, 0]);
    encap.extend(second.octets());
    encap.extend(first.octets());
    let request = Request::new(RTM_NEWROUTE, 0x600, &fixed)
        .attr(1, &network.octets())
        .attr_u32(4, device)
        .attr(21, &5u16.to_ne_bytes())
        .nest(22, |r| r.attr(1, &encap));
    match RouteSocket::open().unwrap().request("RTM_NEWROUTE", request) {
        Err(e) if e.errno() == Some(Errno::EOPNOTSUPP) => None,
        result => {
            result.unwrap();
            Some(())
        }
    }
}

/// Lets what goes to an address out of a device reach every neighbour.
fn everyone_is(device: u32, address: Ipv6Addr) {
    const RTM_NEWNEIGH: u16 = 28;
    // struct ndmsg: IPv6, NUD_PERMANENT
    let mut fixed = [10, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0];
    fixed[4..8].copy_from_slice(&device.to_ne_bytes());
    let request = Request::new(RTM_NEWNEIGH, 0x500, &fixed).attr(1, &address.octets()).attr(2, &[0xff; 6]);
    RouteSocket::open().unwrap().request("RTM_NEWNEIGH", request).unwrap();
}

#[test]
fn a_program_ends_a_segment() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        let [network, first, second] = [1, 2, 3].map(|n| Ipv6Addr::new(0xfd00, n, 0, 0, 0, 0, 0, 1));
        let Some((device, _)) = pair("veth") else { return };
        address(device, Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1).into(), 64);
        let Some(()) = segments(device, network, first, second) else {
            return cannot(&["lwt_seg6local"], "the kernel has no CONFIG_IPV6_SEG6_LWTUNNEL");
        };
        let route = Route { destination: IpAddr::V6(first), prefix_len: 128, device };
        let link = object.program("route_seg6local").unwrap().attach_route(route).unwrap();
        everyone_is(device, first);
        let socket = UdpSocket::bind("[::]:0").unwrap();
        for _ in 0..5 {
            socket.send_to(b"datagram", (network, 9)).unwrap();
        }
        settle("route_seg6local", || read_global(OBJECT, &object, "route_seg6local_runs"), 5);
        fired(object.program("route_seg6local").unwrap());
        drop(link);
        let mut routes = RouteSocket::open().unwrap();
        assert_eq!(routes.delete_route(&route).unwrap_err().errno(), Some(Errno::ESRCH));
    });
}
