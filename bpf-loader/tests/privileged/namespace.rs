//! Network namespaces and devices that tests make for themselves.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use bpf_sys::netlink::{Request, RouteSocket};
use bpf_sys::{Errno, Error};
use rustix::thread::UnshareFlags;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const CREATE: u16 = 0x400 | 0x200;
const IFF_UP: u32 = 1;
pub const LOOPBACK: u32 = 1;

/// Runs a test in a thread of its own, with a network namespace of its own in which the loopback device is up. It is gone
/// afterwards, with all that is in it.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: only the network namespace of this thread changes; no descriptors are unshared.
        match unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) } {
            Err(rustix::io::Errno::PERM) => {
                crate::skip::<()>("needs root: network namespace");
                return;
            }
            result => result.unwrap(),
        }
        // No packets but the test's own.
        for scope in ["all", "default"] {
            let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0");
        }
        up(LOOPBACK);
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// No IPv6, which sends packets of its own when devices come up.
pub fn without_ipv6() {
    for scope in ["all", "default"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1").unwrap();
    }
}

/// `struct ifinfomsg`
fn interface(device: u32, flags: u32) -> [u8; 16] {
    let mut out = [0; 16];
    out[4..8].copy_from_slice(&device.to_ne_bytes());
    out[8..12].copy_from_slice(&flags.to_ne_bytes());
    out[12..].copy_from_slice(&flags.to_ne_bytes());
    out
}

pub fn up(device: u32) {
    let mut socket = RouteSocket::open().unwrap();
    socket.request("RTM_NEWLINK (up)", Request::new(RTM_NEWLINK, 0, &interface(device, IFF_UP))).unwrap();
}

/// Gives a device an address with so many bits of network, and brings it up.
pub fn address(device: u32, address: IpAddr, prefix_len: u8) {
    const IFA_F_NODAD: u8 = 2;
    let (family, octets) = match address {
        IpAddr::V4(address) => (2, address.octets().to_vec()),
        IpAddr::V6(address) => (10, address.octets().to_vec()),
    };
    let mut fixed = [family, prefix_len, IFA_F_NODAD, 0, 0, 0, 0, 0];
    fixed[4..].copy_from_slice(&device.to_ne_bytes());
    let request = Request::new(RTM_NEWADDR, CREATE, &fixed).attr(1, &octets).attr(2, &octets);
    RouteSocket::open().unwrap().request("RTM_NEWADDR", request).unwrap();
    up(device);
}

/// Makes a pair of devices of this kind, of which the second is up, and gives their indices; `None`, with the reason
/// printed, if the kernel has none such.
pub fn pair(kind: &str) -> Option<(u32, u32)> {
    let request = Request::new(RTM_NEWLINK, CREATE, &interface(0, 0)).attr_str(3, "one").nest(18, |info| {
        info.attr_str(1, kind).nest(2, |data| {
            // VETH_INFO_PEER and IFLA_NETKIT_PEER_INFO are both 1, and hold a message without its header.
            let peer = Request::new(0, 0, &interface(0, 0)).attr_str(3, "two");
            data.attr(1, peer.body())
        })
    });
    let mut socket = RouteSocket::open().unwrap();
    match socket.request("RTM_NEWLINK", request) {
        Err(Error::Netlink { errno: Errno::EOPNOTSUPP, .. }) => {
            return crate::skip(&format!("the kernel has no {kind} devices"));
        }
        result => result.unwrap(),
    }
    let pair = (socket.device("one").unwrap(), socket.device("two").unwrap());
    up(pair.1);
    Some(pair)
}

/// Sends so many datagrams from one socket to another over the loopback device, and gives how many come.
pub fn datagrams(count: usize) -> usize {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..count {
        // What a program forbids on the way out is an error to the sender.
        let _ = sender.send_to(b"datagram", receiver.local_addr().unwrap());
    }
    received(&receiver)
}

/// How many datagrams wait, or come within a short time.
pub fn received(socket: &UdpSocket) -> usize {
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut buffer = [0; 64];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()
}

/// Waits until a count that another CPU's softirq or a kernel thread makes is there.
pub fn settle(what: &str, count: impl Fn() -> u64, expected: u64) {
    for _ in 0..100 {
        if count() >= expected {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(count(), expected, "{what}");
}
