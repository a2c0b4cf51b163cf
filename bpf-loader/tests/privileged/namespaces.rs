//! Programs of network namespaces: socket lookup, flow dissector, netfilter.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use bpf_loader::Error;
use bpf_loader::attach::{Direction, FilterId, NetfilterHook};
use bpf_sys::{Errno, LinkDetail};

use crate::namespace::{LOOPBACK, datagrams, in_namespace};
use crate::record::fired;
use crate::{kernel_has, load_possible, read_global};

const PACKETS: &[u8] = include_bytes!("../bpf/prebuilt/packets.bpf.o");
const SOCKETS: &[u8] = include_bytes!("../bpf/prebuilt/sockets.bpf.o");
const NF_INET_LOCAL_IN: u32 = 1;
const NFPROTO_IPV4: u32 = 2;

/// The calling thread's network namespace.
fn netns() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

#[test]
fn socket_lookup_steers_a_port_to_a_socket() {
    let Some(object) = load_possible(SOCKETS) else { return };
    in_namespace(move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = &object.map("sockets").unwrap().fd;
        let value = (listener.as_raw_fd() as u64).to_ne_bytes();
        bpf_sys::map::update(sockets, &[0; 4], &value, 0).unwrap();
        let mut link = object.program("lookup").unwrap().attach_netns(netns()).unwrap();
        assert!(matches!(link.info().unwrap().detail(), LinkDetail::Netns(_)));
        let mut client = TcpStream::connect("127.0.0.1:7777").unwrap();
        client.write_all(b"steered").unwrap();
        let mut text = [0; 7];
        listener.accept().unwrap().0.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"steered");
        // Once for the connection request; what follows finds the connection.
        assert_eq!(read_global(SOCKETS, &object, "lookup_runs"), 1);
        link.detach().unwrap();
        assert!(TcpStream::connect("127.0.0.1:7777").is_err());
        fired(object.program("lookup").unwrap());
    });
}

#[test]
fn the_flow_dissector_sees_what_is_dissected() {
    let Some(object) = load_possible(PACKETS) else { return };
    in_namespace(move || {
        let runs = || read_global(PACKETS, &object, "dissect_runs");
        let dissector = object.program("dissect").unwrap();
        let link = dissector.attach_netns(netns()).unwrap();
        let taken = dissector.attach_netns(netns()).unwrap_err();
        assert_eq!(taken.errno(), Some(Errno::E2BIG), "{taken}");
        let hash = object.program("hash").unwrap();
        let filter = hash.attach_tc(LOOPBACK, Direction::Ingress, FilterId::default(), false).unwrap();
        let before = runs();
        assert_eq!(datagrams(5), 5);
        assert_eq!(runs(), before + 5);
        drop(link);
        assert_eq!(datagrams(5), 5);
        assert_eq!(runs(), before + 5);
        drop(filter);
        fired(dissector);
    });
}

#[test]
fn netfilter_counts_and_drops() {
    let Some(object) = load_possible(PACKETS) else { return };
    in_namespace(move || {
        let hook =
            NetfilterHook { family: NFPROTO_IPV4, hook: NF_INET_LOCAL_IN, priority: 1, defragment: false };
        if !kernel_has((6, 4)) {
            // Neither can the program be loaded there.
            let e = object.program("hash").unwrap().attach_netfilter(hook).unwrap_err();
            assert!(
                matches!(*e, Error::Unsupported { feature: "netfilter programs", min_kernel: (6, 4), .. }),
                "{e}"
            );
            return;
        }
        let [accept, refuse] = ["nf_accept", "nf_drop"].map(|name| object.program(name).unwrap());
        let accepting = accept.attach_netfilter(hook).unwrap();
        assert!(matches!(accepting.info().unwrap().detail(), LinkDetail::Netfilter(nf) if nf.priority == 1));
        assert_eq!(datagrams(5), 5);
        assert_eq!(read_global(PACKETS, &object, "nf_accept_runs"), 5);
        let taken = refuse.attach_netfilter(hook).unwrap_err();
        assert_eq!(taken.errno(), Some(Errno::EBUSY));
        let refusing = refuse.attach_netfilter(NetfilterHook { priority: 2, ..hook }).unwrap();
        assert_eq!(datagrams(5), 0);
        drop(refusing);
        assert_eq!(datagrams(5), 5);
        assert_eq!(read_global(PACKETS, &object, "nf_drop_runs"), 5);
        assert_eq!(read_global(PACKETS, &object, "nf_accept_runs"), 15);
        drop(accepting);
        datagrams(5);
        assert_eq!(read_global(PACKETS, &object, "nf_accept_runs"), 15);
        fired(accept);

        let late = accept.attach_netfilter(NetfilterHook { defragment: true, ..hook });
        match late.map_err(|e| *e) {
            Ok(_) => assert!(kernel_has((6, 6))),
            Err(Error::Unsupported { min_kernel, .. }) => {
                assert!(!kernel_has((6, 6)) && min_kernel == (6, 6));
            }
            // The module that reassembles is not there.
            Err(e) => assert!(matches!(e.errno(), Some(Errno::EOPNOTSUPP | Errno::ENOENT)), "{e}"),
        }
    });
}
