//! The numbers of a round of the workload `known-work`, and the peer that it has.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::OnceLock;
use std::time::Duration;

/// Calls of getppid.
pub const GETPPID: u64 = 1_000;
/// The system call by which this architecture removes directories.
pub const RMDIR: &str =
    if cfg!(any(target_arch = "aarch64", target_arch = "riscv64")) { "unlinkat" } else { "rmdir" };
/// Calls of rmdir that fail with ENOENT.
pub const RMDIR_ENOENT: u64 = 300;
/// Calls of rmdir that fail with ENOTDIR.
pub const RMDIR_ENOTDIR: u64 = 70;
/// TCP connections, one after the other.
pub const CONNECTIONS: u64 = 25;
/// Bytes that the workload sends over each.
pub const SENT: usize = 3_000;
/// Bytes that it gets over each.
pub const ANSWERED: usize = 70_000;
/// TCP connections that are refused.
pub const REFUSED: u64 = 5;
/// UDP datagrams.
pub const DATAGRAMS: u64 = 40;
/// Bytes in each.
pub const DATAGRAM: usize = 100;
/// DNS lookups, if there is a name server; none has such a name.
pub const LOOKUPS: u64 = 6;
/// Blocks that it writes to the block device, if it has one, each in a request of its own.
pub const BLOCKS_WRITTEN: u64 = 12;
/// Blocks that it reads from there in the same way.
pub const BLOCKS_READ: u64 = 7;
/// Bytes in each.
pub const BLOCK: usize = 4096;
/// Processes, each of which ends with the code 7.
pub const CHILDREN: u64 = 4;
/// Pieces of memory that it keeps.
pub const HELD: u64 = 4;
/// And so many bytes each: little beside what a board has, and enough to be mapped.
pub const HELD_BYTES: usize = 256 << 10;
/// CPU time.
pub const BUSY: Duration = Duration::from_millis(400);
/// The name that it asks for.
pub const NAME: &str = "none.example";

/// A query for the address of [`NAME`].
pub fn dns_query(id: u16) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    // Recursion is desired; one question.
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in NAME.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    // The root; type A, class IN.
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// Takes connections and datagrams of the workload until the process ends; the TCP and UDP port.
pub fn serve() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("the same port");
    std::thread::spawn(move || while datagrams.recv(&mut [0; 512]).is_ok() {});
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut request = Vec::new();
            // A workload that is gone is no matter here.
            let _ = stream.read_to_end(&mut request).and_then(|_| stream.write_all(&[4; ANSWERED]));
        }
    });
    port
}

/// A name server that knows no name, until the process ends; `None` where its port cannot be had.
pub fn serve_names() -> Option<SocketAddrV4> {
    // One for all tests of a process.
    static SERVER: OnceLock<Option<SocketAddrV4>> = OnceLock::new();
    *SERVER.get_or_init(|| {
        let address = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 77), 53);
        let socket = UdpSocket::bind(address).ok()?;
        std::thread::spawn(move || answer(&socket));
        Some(address)
    })
}

fn answer(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        // A response, NXDOMAIN.
        (buffer[2], buffer[3]) = (0x81, 0x83);
        let _ = socket.send_to(&buffer[..length], from);
    }
}
