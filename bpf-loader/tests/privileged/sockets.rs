//! Programs of sockets and socket maps.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_sys::{AttachType, Errno, LinkType, MapFd};
use rustix::net::{AddressFamily, SocketType};

use crate::namespace::{in_namespace, received};
use crate::record::{cannot, fired};
use crate::{kernel_has, load_possible, read_global};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/sockets.bpf.o");

fn runs(object: &Object, program: &str) -> u64 {
    read_global(OBJECT, object, &format!("{program}_runs"))
}

fn set(map: &MapFd, key: u32, socket: RawFd) {
    bpf_sys::map::update(map, &key.to_ne_bytes(), &(socket as u64).to_ne_bytes(), 0).unwrap();
}

#[test]
fn a_filter_decides_what_its_socket_gets() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let arrive = || {
            (0..5).for_each(|_| drop(sender.send_to(b"datagram", receiver.local_addr().unwrap())));
            received(&receiver)
        };
        object.program("filter_all").unwrap().attach_socket_filter(&receiver).unwrap();
        assert_eq!(arrive(), 5);
        object.program("filter_none").unwrap().attach_socket_filter(&receiver).unwrap();
        assert_eq!(arrive(), 0);
        assert_eq!((runs(&object, "filter_all"), runs(&object, "filter_none")), (5, 5));
        fired(object.program("filter_all").unwrap());
        bpf_sys::socket::detach_filter(receiver.as_fd()).unwrap();
        assert_eq!(
            bpf_sys::socket::detach_filter(receiver.as_fd()).unwrap_err().errno(),
            Some(Errno::ENOENT)
        );
        assert_eq!(arrive(), 5);
        let wrong = object.program("message").unwrap().attach_socket_filter(&receiver).unwrap_err();
        assert_eq!(wrong.errno(), Some(Errno::EINVAL));
    });
}

/// A datagram socket that shares a port.
fn sharing(port: u16) -> UdpSocket {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    rustix::net::sockopt::set_socket_reuseport(&socket, true).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port))).unwrap();
    UdpSocket::from(socket)
}

#[test]
fn a_program_chooses_among_sockets_that_share_a_port() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        for name in ["choose", "migrate"] {
            if name == "migrate" && !kernel_has((5, 14)) {
                continue;
            }
            let sockets = [sharing(7000), sharing(7000)];
            let group = &object.map("group").unwrap().fd;
            (0..2).for_each(|i| set(group, i, sockets[i as usize].as_raw_fd()));
            object.program(name).unwrap().attach_reuseport(&sockets[0]).unwrap();
            for _ in 0..20 {
                // Each from a port of its own, on which the kernel's own choice depends.
                let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
                sender.send_to(b"datagram", "127.0.0.1:7000").unwrap();
            }
            assert_eq!((received(&sockets[0]), received(&sockets[1])), (0, 20));
            assert_eq!(runs(&object, name), 20);
            fired(object.program(name).unwrap());
            bpf_sys::socket::detach_reuseport(sockets[0].as_fd()).unwrap();
            assert!(bpf_sys::socket::detach_reuseport(sockets[0].as_fd()).is_err());
        }
    });
}

/// The two ends of a connection.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// What comes within a short time.
fn read(mut socket: &TcpStream) -> Vec<u8> {
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut buffer = [0; 64];
    let len = socket.read(&mut buffer).unwrap_or(0);
    buffer[..len].to_vec()
}

fn check_link(link: &Link) {
    if kernel_has((6, 10)) {
        assert_eq!(link.info().unwrap().link_type, LinkType::SOCKMAP);
    } else {
        assert!(link.fd().is_none());
    }
}

#[test]
fn received_streams_are_redirected() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        let sockets = &object.map("sockets").unwrap().fd;
        let untold = AttachType::SK_SKB_STREAM_VERDICT;
        let variants = [
            (true, "stream_verdict", None),
            (true, "verdict_untold", Some(untold)),
            (false, "verdict", None),
        ];
        for (parsed, verdict, attach_type) in variants {
            if verdict == "verdict" && !kernel_has((5, 13)) {
                continue;
            }
            let (mut client, server) = connection();
            let (other_client, other_server) = connection();
            let parser =
                parsed.then(|| object.program("parser").unwrap().attach_sockmap(sockets, None).unwrap());
            let before = (runs(&object, "parser"), runs(&object, verdict));
            let link = object.program(verdict).unwrap().attach_sockmap(sockets, attach_type).unwrap();
            check_link(&link);
            set(sockets, 0, server.as_raw_fd());
            set(sockets, 1, other_server.as_raw_fd());
            client.write_all(b"redirected").unwrap();
            assert_eq!(read(&other_client), b"redirected", "{verdict}");
            assert_eq!(runs(&object, "parser"), before.0 + u64::from(parsed), "{verdict}");
            assert_eq!(runs(&object, verdict), before.1 + 1, "{verdict}");
            fired(object.program(verdict).unwrap());
            if parsed {
                fired(object.program("parser").unwrap());
            }
            for key in 0..2u32 {
                bpf_sys::map::delete(sockets, &key.to_ne_bytes()).unwrap();
            }
            drop((link, parser));
            // Without programs, a socket in the map is like others.
            let (mut client, server) = connection();
            set(sockets, 0, server.as_raw_fd());
            client.write_all(b"direct").unwrap();
            assert_eq!(read(&server), b"direct", "{verdict}");
            bpf_sys::map::delete(sockets, &[0; 4]).unwrap();
        }
    });
}

#[test]
fn sent_messages_are_redirected() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        let sockets = &object.map("sockets").unwrap().fd;
        let (mut client, server) = connection();
        let (_other_client, other_server) = connection();
        let mut link = object.program("message").unwrap().attach_sockmap(sockets, None).unwrap();
        check_link(&link);
        set(sockets, 0, client.as_raw_fd());
        set(sockets, 1, other_server.as_raw_fd());
        client.write_all(b"redirected").unwrap();
        assert_eq!(read(&other_server), b"redirected");
        assert_eq!(runs(&object, "message"), 1);
        if link.fd().is_none() {
            link.detach().unwrap();
        }
        drop(link);
        let (mut client, server) = (connection(), server).0;
        set(sockets, 0, client.as_raw_fd());
        client.write_all(b"direct").unwrap();
        assert_eq!(read(&server), b"direct");
        assert_eq!(runs(&object, "message"), 1);
        fired(object.program("message").unwrap());
    });
}

#[test]
fn infrared_programs_go_to_infrared_devices_only() {
    let Some(object) = load_possible(OBJECT) else { return };
    let Ok(program) = object.program("lirc") else {
        cannot(&["lirc_mode2"], "the kernel has no CONFIG_BPF_LIRC_MODE2");
        return;
    };
    // There is no such device to run it on.
    let e = program.attach_lirc(File::open("/dev/null").unwrap()).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL), "{e}");
    cannot(&["lirc_mode2"], "there is no infrared device");
}
