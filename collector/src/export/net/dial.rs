//! Making connections: names to addresses, TCP, unix sockets.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::Deadline;
use crate::export::Failure;

/// Connects to the first address of `host` that answers.
pub(super) fn tcp(host: &str, port: u16, deadline: Deadline) -> Result<OwnedFd, Failure> {
    let addresses = resolve(host, port, deadline).map_err(Failure::Resolve)?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        // Each address has its share of what is left, so that a silent one does not use it all.
        let connected = deadline.remaining().and_then(|remaining| match remaining {
            Some(remaining) => {
                TcpStream::connect_timeout(&address, (remaining / left).max(Duration::from_millis(1)))
            }
            None => TcpStream::connect(address),
        });
        match connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => return Ok(stream.into()),
            Err(error) => last = error,
        }
        left = left.saturating_sub(1).max(1);
    }
    Err(Failure::Connect(last))
}

/// Connects to a unix socket.
pub(super) fn unix(path: &Path, deadline: Deadline) -> Result<OwnedFd, Failure> {
    let connect = || {
        let remaining = deadline.remaining()?;
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // connect(2) waits for room in the listener's backlog, as long as a send may take.
        set_socket_timeout(&fd, Timeout::Send, remaining)?;
        connect(&fd, &SocketAddrUnix::new(path)?)?;
        Ok(fd)
    };
    connect().map_err(|error: io::Error| {
        let full = error.kind() == io::ErrorKind::WouldBlock;
        Failure::Connect(if full { io::ErrorKind::TimedOut.into() } else { error })
    })
}

/// Addresses of a host. The system's resolver knows no deadline, so it has a thread to be late in.
fn resolve(host: &str, port: u16, deadline: Deadline) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let host = host.to_owned();
    let Some(remaining) = deadline.remaining()? else {
        return (host, port).to_socket_addrs().map(Iterator::collect);
    };
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("resolver".to_owned()).spawn(move || {
        // Nobody listens any more if it took too long.
        let _ = sender.send((host, port).to_socket_addrs().map(Iterator::collect));
    })?;
    receiver.recv_timeout(remaining).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
