//! `NETLINK_ROUTE`: what attaches programs to network devices and routes without a link.
//!
//! | module | what it has |
//! |---|---|
//! | [`xdp`] | a program for all that a device receives |
//! | [`tc`] | the clsact queueing discipline and its BPF filters |
//! | [`route`] | routes whose packets a program sees (`LWT_*`) |
//!
//! The messages themselves serve [`sock_diag`](crate::sock_diag) too.
//!
//! Such an attachment stays when the process ends. [`rtnetlink(7)`](https://man7.org/linux/man-pages/man7/rtnetlink.7.html).

pub(crate) mod message;
pub mod route;
pub mod tc;
pub mod xdp;

use std::os::fd::{AsFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

pub use message::Request;
use message::{Reply, replies};

use crate::errno::{Errno, Error, Result};
use crate::raw::socket::set_u32;

/// A connection to one network namespace.
#[derive(Debug)]
pub struct RouteSocket(Connection);

/// A netlink socket of any protocol.
#[derive(Debug)]
pub(crate) struct Connection {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl RouteSocket {
    /// `socket(AF_NETLINK)`, in the network namespace of the calling thread, to which it belongs from then on.
    ///
    /// # Errors
    ///
    /// `EMFILE`: too many open descriptors.
    pub fn open() -> Result<Self> {
        // NETLINK_ROUTE is protocol 0.
        Connection::open(None).map(Self)
    }

    /// The index of the device of that name.
    ///
    /// # Errors
    ///
    /// `ENODEV`: there is none in the socket's namespace.
    pub fn device(&self, name: &str) -> Result<u32> {
        rustix::net::netdevice::name_to_index(&self.0.fd, name)
            .map_err(|e| Error::Call { call: "ioctl(SIOCGIFINDEX)", errno: e.into() })
    }

    /// Sends a request and waits until the kernel has done it. Errors name `call`.
    ///
    /// # Errors
    ///
    /// [`Error::Netlink`], with the kernel's own words where it has some. `EPERM`: needs CAP_NET_ADMIN.
    pub fn request(&mut self, call: &'static str, request: Request) -> Result<()> {
        self.ask(call, request, |_| ())
    }

    /// As [`request`](Self::request), with what the kernel says before it is done.
    fn ask(&mut self, call: &'static str, request: Request, answer: impl FnMut(&Reply<'_>)) -> Result<()> {
        self.0.ask(call, request, answer)
    }
}

impl Connection {
    /// `socket(AF_NETLINK)` in the network namespace of the calling thread.
    pub(crate) fn open(protocol: Option<Protocol>) -> Result<Self> {
        let call = |call| move |e: rustix::io::Errno| Error::Call { call, errno: e.into() };
        let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
        let fd = rustix::net::socket_with(family, SocketType::RAW, flags, protocol)
            .map_err(call("socket(AF_NETLINK)"))?;
        // Only the kernel, which is port 0, may answer.
        rustix::net::connect(&fd, &SocketAddrNetlink::new(0, 0)).map_err(call("connect(AF_NETLINK)"))?;
        for (name, option) in [
            ("setsockopt(NETLINK_EXT_ACK)", libc::NETLINK_EXT_ACK),
            ("setsockopt(NETLINK_CAP_ACK)", libc::NETLINK_CAP_ACK),
        ] {
            set_u32(fd.as_fd(), name, libc::SOL_NETLINK, option, 1)?;
        }
        Ok(Self { fd, sequence: 0, buffer: vec![0; 32 << 10] })
    }

    /// Sends a request, and hands over what the kernel says before it is done.
    pub(crate) fn ask(
        &mut self,
        call: &'static str,
        mut request: Request,
        mut answer: impl FnMut(&Reply<'_>),
    ) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let error = |e: rustix::io::Errno| Error::Call { call, errno: e.into() };
        let bytes = request.finish(call, self.sequence)?;
        retry(|| rustix::net::send(&self.fd, bytes, SendFlags::empty())).map_err(error)?;
        loop {
            let (len, _) = retry(|| rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::empty()))
                .map_err(error)?;
            // An answer that was cut is malformed; so is none at all, which would be waited for without end.
            let bytes = self.buffer.get(..len).filter(|b| !b.is_empty()).unwrap_or(&[0]);
            for reply in replies(bytes) {
                let malformed = Error::Netlink {
                    call,
                    errno: Errno::EBADMSG,
                    message: crate::errno::Message::new(b"the answer is malformed"),
                };
                let reply = reply.ok_or(malformed)?;
                // The rest of the answer to an earlier request that failed half-way.
                if reply.sequence != self.sequence {
                    continue;
                }
                match reply.end() {
                    None => answer(&reply),
                    Some(Ok(())) => return Ok(()),
                    Some(Err((errno, message))) => {
                        return Err(Error::Netlink { call, errno: Errno::from_raw(errno), message });
                    }
                }
            }
        }
    }
}

/// Again when a signal interrupts.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}
