//! Making connections: names to addresses, TCP, unix sockets.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::{
    Timeout, set_socket_keepalive, set_socket_timeout, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl,
};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::Deadline;
use crate::export::Failure;

/// Threads that look names up, of all destinations. A resolver that never answers would be asked by more and more.
const MAX_RESOLVERS: usize = 32;
static RESOLVERS: AtomicUsize = AtomicUsize::new(0);

/// When a silent peer is asked whether it is still there, how often, and how many times.
const KEEP_IDLE: Duration = Duration::from_secs(60);
const KEEP_INTERVAL: Duration = Duration::from_secs(15);
const KEEP_COUNT: u32 = 4;

/// Connects to the first address of `host` that answers.
pub(super) fn tcp(host: &str, port: u16, deadline: Deadline) -> Result<OwnedFd, Box<Failure>> {
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
        match connected.and_then(|stream| prepare(&stream).map(|()| stream)) {
            Ok(stream) => return Ok(stream.into()),
            Err(error) => last = error,
        }
        left = left.saturating_sub(1).max(1);
    }
    Err(Box::new(Failure::Connect(last)))
}

/// Sends at once what is written, and finds out about peers that went without a word: no timeout may be set.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    set_tcp_keepidle(stream, KEEP_IDLE)?;
    set_tcp_keepintvl(stream, KEEP_INTERVAL)?;
    set_tcp_keepcnt(stream, KEEP_COUNT)?;
    set_socket_keepalive(stream, true)?;
    Ok(())
}

/// Connects to a unix socket.
pub(super) fn unix(path: &Path, deadline: Deadline) -> Result<OwnedFd, Box<Failure>> {
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
        Box::new(Failure::Connect(if full { io::ErrorKind::TimedOut.into() } else { error }))
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
    let slot = Slot::take(&RESOLVERS).ok_or_else(|| io::Error::other("the resolver does not answer"))?;
    // A place for one answer, which takes less code than a channel.
    let place = Arc::new((Mutex::new(None), Condvar::new()));
    let there = Arc::clone(&place);
    std::thread::Builder::new().name("resolver".to_owned()).spawn(move || {
        let _slot = slot;
        let found = (host, port).to_socket_addrs().map(Iterator::collect);
        // Nobody waits any more if it took too long.
        *there.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        there.1.notify_one();
    })?;
    let (answer, told) = &*place;
    let answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = told.wait_timeout_while(answer, remaining, |answer| answer.is_none());
    let (mut answer, _) = waited.unwrap_or_else(PoisonError::into_inner);
    answer.take().unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

/// One of [`MAX_RESOLVERS`], given back when it is dropped.
struct Slot<'a>(&'a AtomicUsize);

impl<'a> Slot<'a> {
    fn take(taken: &'a AtomicUsize) -> Option<Self> {
        let more = |taken| (taken < MAX_RESOLVERS).then_some(taken + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(taken))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_that_never_end_are_few() {
        let taken = AtomicUsize::new(0);
        let mut slots: Vec<Slot<'_>> = std::iter::from_fn(|| Slot::take(&taken)).collect();
        assert_eq!(slots.len(), MAX_RESOLVERS);
        slots.pop();
        assert!(Slot::take(&taken).is_some() && Slot::take(&taken).is_some());
        drop(slots);
        assert_eq!(taken.into_inner(), 0);
    }
}
