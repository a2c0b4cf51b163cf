//! `NETLINK_SOCK_DIAG`: the TCP sockets of a network namespace, as the kernel sees them.
//!
//! [`sock_diag(7)`](https://man7.org/linux/man-pages/man7/sock_diag.7.html). Anybody may ask.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::errno::Result;
use crate::netlink::message::{find, u16_at, u32_at, u64_at};
use crate::netlink::{Connection, Request};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `struct inet_diag_msg`: its size, and where its fields are.
const SOCKET: usize = 72;
const ID: usize = 4;
const ID_SIZE: usize = 48;
/// The attribute with the `struct tcp_info`.
const INET_DIAG_INFO: u16 = 2;
/// "No cookie", of either half.
const NO_COOKIE: u32 = u32::MAX;

/// Which sockets: of IPv4, or of IPv6 (those that talk IPv4 through it included).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `AF_INET`
    V4,
    /// `AF_INET6`
    V6,
}

impl Family {
    const fn number(self) -> u8 {
        match self {
            Self::V4 => libc::AF_INET as u8,
            Self::V6 => libc::AF_INET6 as u8,
        }
    }
}

/// States of TCP sockets as the kernel numbers them, and sets of them: bit n stands for state n.
pub mod state {
    /// Connected.
    pub const ESTABLISHED: u8 = 1;
    /// A SYN was sent.
    pub const SYN_SENT: u8 = 2;
    /// Closed by this end, which the other one has acknowledged.
    pub const FIN_WAIT2: u8 = 5;
    /// Closed by the other end.
    pub const CLOSE_WAIT: u8 = 8;
    /// Closed by the other end, and then by this one.
    pub const LAST_ACK: u8 = 9;
    /// Waits for connections.
    pub const LISTEN: u8 = 10;
    /// Closed by both ends at once.
    pub const CLOSING: u8 = 11;
    /// Every state.
    pub const ALL: u32 = 0x1fff;
}

/// A TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpSocket {
    /// One of [`state`].
    pub state: u8,
    /// Its own end.
    pub local: SocketAddr,
    /// The other end; all zero where there is none.
    pub remote: SocketAddr,
    /// The number that `bpf_get_socket_cookie` gives for it.
    pub cookie: u64,
    /// Inode number of its file, as `/proc/PID/fd` shows it; 0 where no process has it (any more).
    pub inode: u32,
    /// Whose it is.
    pub uid: u32,
    /// Counters; sockets that are nearly gone (TIME_WAIT) or nearly there have none.
    pub info: Option<TcpInfo>,
}

/// Of `struct tcp_info`, what there is to count. Kernels append to it, so that the last ones may be missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: u32,
    /// Segments that were sent again.
    pub total_retrans: u32,
    /// Payload that the other end has acknowledged.
    pub bytes_acked: Option<u64>,
    /// Payload received in order.
    pub bytes_received: Option<u64>,
    /// Segments sent.
    pub segs_out: Option<u32>,
    /// Segments received.
    pub segs_in: Option<u32>,
}

impl TcpInfo {
    /// Reads a `struct tcp_info`; `None` if it ends before what all kernels have.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            rtt_us: u32_at(bytes, 68)?,
            total_retrans: u32_at(bytes, 100)?,
            bytes_acked: u64_at(bytes, 120),
            bytes_received: u64_at(bytes, 128),
            segs_out: u32_at(bytes, 136),
            segs_in: u32_at(bytes, 140),
        })
    }
}

impl TcpSocket {
    /// Reads a `struct inet_diag_msg` and the attributes that follow; `None` if it is cut or of another family.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..SOCKET)?;
        let id = head.get(ID..ID + ID_SIZE)?;
        let address = |at: usize| -> Option<IpAddr> {
            let octets: [u8; 16] = id.get(at..at + 16)?.try_into().ok()?;
            let [a, b, c, d, ..] = octets;
            match i32::from(*head.first()?) {
                libc::AF_INET => Some(Ipv4Addr::new(a, b, c, d).into()),
                libc::AF_INET6 => Some(Ipv6Addr::from(octets).into()),
                _ => None,
            }
        };
        let port = |at| u16_at(id, at).map(u16::from_be);
        let cookie = u64::from(u32_at(id, 44)?) << 32 | u64::from(u32_at(id, 40)?);
        let info = find(bytes.get(SOCKET..)?, INET_DIAG_INFO);
        Some(Self {
            state: *head.get(1)?,
            local: SocketAddr::new(address(4)?, port(0)?),
            remote: SocketAddr::new(address(20)?, port(2)?),
            cookie,
            uid: u32_at(head, 64)?,
            inode: u32_at(head, 68)?,
            info: info.and_then(TcpInfo::decode),
        })
    }
}

/// A connection to one network namespace, to ask for its sockets.
#[derive(Debug)]
pub struct SockDiag(Connection);

impl SockDiag {
    /// `socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG)`, in the network namespace of the calling thread, to which it belongs
    /// from then on, whatever thread uses it.
    ///
    /// # Errors
    ///
    /// `EMFILE`: too many open descriptors. `EPROTONOSUPPORT`: the kernel is built without (`CONFIG_INET_DIAG`).
    pub fn open() -> Result<Self> {
        Connection::open(Some(rustix::net::netlink::SOCK_DIAG)).map(Self)
    }

    /// `SOCK_DIAG_BY_FAMILY`: hands every TCP socket in one of the states (bit n of `states` for state n) to `each`. Sockets
    /// come in parts of some kilobytes, and those that come and go meanwhile may or may not be among them.
    ///
    /// Returns how many of the kernel's answers made no sense and were left out: 0, unless it has changed its ABI.
    ///
    /// # Errors
    ///
    /// `ENOENT`: the kernel has no module `tcp_diag`.
    pub fn tcp_sockets(
        &mut self,
        family: Family,
        states: u32,
        mut each: impl FnMut(&TcpSocket),
    ) -> Result<u64> {
        let mut malformed = 0;
        let request = Request::new(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP as u16, &request(family, states));
        self.0.ask("SOCK_DIAG_BY_FAMILY (TCP)", request, |reply| {
            match TcpSocket::decode(reply.payload).filter(|_| reply.kind == SOCK_DIAG_BY_FAMILY) {
                Some(socket) => each(&socket),
                None => malformed += 1,
            }
        })?;
        Ok(malformed)
    }
}

/// A `struct inet_diag_req_v2` for all TCP sockets in these states, with their counters.
fn request(family: Family, states: u32) -> Vec<u8> {
    let mut bytes = vec![family.number(), libc::IPPROTO_TCP as u8, 1 << (INET_DIAG_INFO - 1), 0];
    bytes.extend(states.to_ne_bytes());
    bytes.extend([0; ID_SIZE - 8]);
    bytes.extend([NO_COOKIE.to_ne_bytes(), NO_COOKIE.to_ne_bytes()].concat());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt;

    fn socket(family: u8, info: &[u8]) -> Vec<u8> {
        let mut bytes = vec![family, state::ESTABLISHED, 0, 0];
        bytes.extend([80u16.to_be_bytes(), 40000u16.to_be_bytes()].concat());
        bytes.extend([10, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 1]);
        bytes.extend([10, 0, 0, 2, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 2]);
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend([7u32.to_ne_bytes(), 1u32.to_ne_bytes()].concat());
        for n in [0u32, 0, 0, 1000, 4711] {
            bytes.extend(n.to_ne_bytes());
        }
        bytes.extend((info.len() as u16 + 4).to_ne_bytes());
        bytes.extend(INET_DIAG_INFO.to_ne_bytes());
        bytes.extend(info);
        bytes
    }

    fn info() -> Vec<u8> {
        let mut bytes = vec![0; 160];
        bytes[68..72].copy_from_slice(&250u32.to_ne_bytes());
        bytes[100..104].copy_from_slice(&3u32.to_ne_bytes());
        bytes[120..128].copy_from_slice(&(5u64 << 32).to_ne_bytes());
        bytes[128..136].copy_from_slice(&6u64.to_ne_bytes());
        bytes[136..140].copy_from_slice(&7u32.to_ne_bytes());
        bytes[140..144].copy_from_slice(&8u32.to_ne_bytes());
        bytes
    }

    #[test]
    fn sockets_of_both_families_are_read() {
        let v4 = TcpSocket::decode(&socket(2, &info())).unwrap();
        assert_eq!(
            (v4.local, v4.remote),
            ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:40000".parse().unwrap())
        );
        assert_eq!((v4.state, v4.cookie, v4.uid, v4.inode), (1, 1 << 32 | 7, 1000, 4711));
        let expected = TcpInfo {
            rtt_us: 250,
            total_retrans: 3,
            bytes_acked: Some(5 << 32),
            bytes_received: Some(6),
            segs_out: Some(7),
            segs_in: Some(8),
        };
        assert_eq!(v4.info, Some(expected));
        let v6 = TcpSocket::decode(&socket(10, &info())).unwrap();
        assert_eq!(v6.local, "[a00:1:203:405:607:809:0:1]:80".parse().unwrap());
        assert_eq!(TcpSocket::decode(&socket(1, &info())), None, "neither family");
    }

    #[test]
    fn what_is_cut_is_missing_and_nothing_else() {
        let whole = socket(2, &info());
        for len in 0..whole.len() {
            let read = TcpSocket::decode(&whole[..len]);
            assert_eq!(read.is_some(), len >= SOCKET, "{len}");
            // The attribute says how long it is: cut, it is no attribute.
            assert_eq!(read.and_then(|socket| socket.info), None, "{len}");
        }
        for len in 0..info().len() {
            let read = TcpInfo::decode(&info()[..len]);
            assert_eq!(read.is_some(), len >= 104, "{len}");
            let read = read.unwrap_or_default();
            assert_eq!((read.bytes_acked.is_some(), read.bytes_received.is_some()), (len >= 128, len >= 136));
            assert_eq!((read.segs_out.is_some(), read.segs_in.is_some()), (len >= 140, len >= 144));
        }
    }

    #[test]
    fn requests_are_as_long_as_the_kernel_wants() {
        let bytes = request(Family::V6, 1 << state::LISTEN);
        assert_eq!((bytes.len(), &bytes[..8]), (56, [10, 6, 2, 0, 0, 4, 0, 0].as_slice()));
    }

    #[test]
    fn a_connection_of_this_process_is_found_with_its_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut server = listener.accept().unwrap().0;
        client.write_all(&[1; 1000]).unwrap();
        server.read_exact(&mut [0; 1000]).unwrap();
        server.write_all(&[1; 300]).unwrap();
        client.read_exact(&mut [0; 300]).unwrap();

        let mut diag = match SockDiag::open() {
            Err(_) if std::env::var_os("EMULATED").is_some() => {
                eprintln!("SKIP the emulator has no sockets of NETLINK_SOCK_DIAG");
                return;
            }
            opened => opened.unwrap(),
        };
        let mut dump = |states| {
            let mut found = Vec::new();
            assert_eq!(diag.tcp_sockets(Family::V4, states, |socket| found.push(*socket)).unwrap(), 0);
            found
        };
        let local = client.local_addr().unwrap();
        let found = dump(1 << state::ESTABLISHED);
        let ours = found.iter().find(|socket| socket.local == local).unwrap();
        let info = ours.info.unwrap();
        assert_eq!(ours.remote, client.peer_addr().unwrap());
        assert_eq!((info.bytes_received, info.total_retrans), (Some(300), 0));
        assert!(info.bytes_acked.is_some_and(|n| n >= 1000), "{info:?}");
        assert!(info.segs_in.is_some_and(|n| n >= 2) && info.segs_out.is_some_and(|n| n >= 2));
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&client));
        assert_eq!(u64::from(ours.inode), std::fs::metadata(path).unwrap().ino());
        assert_ne!(ours.cookie, 0);
        assert!(dump(1 << state::LISTEN).iter().any(|s| s.local == listener.local_addr().unwrap()));
        assert!(dump(1 << state::SYN_SENT).iter().all(|s| s.local != local));
    }
}
