//! A connected socket on which no operation outlasts a deadline.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::Deadline;

/// A TCP or unix socket. The descriptor itself never blocks: waiting is done by poll(2), up to the deadline.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    deadline: Deadline,
    waits: bool,
}

impl Socket {
    /// Takes over a connected socket.
    pub(super) fn new(fd: OwnedFd, deadline: Deadline) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd, deadline, waits: true })
    }

    pub(super) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    pub(super) fn set_nonblocking(&mut self, nonblocking: bool) {
        self.waits = !nonblocking;
    }

    /// Does `operation`, which would block, as often as it takes.
    fn until_ready(
        &self,
        events: PollFlags,
        mut operation: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> io::Result<usize> {
        loop {
            // Checked first too: a peer that drips a byte at a time is always ready.
            let remaining = if self.waits { self.deadline.remaining()? } else { None };
            match operation(self.fd.as_fd()) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) if self.waits => {}
                result => return Ok(result?),
            }
            // A time too long to be said is as good as none.
            let timeout = remaining.and_then(|remaining| Timespec::try_from(remaining).ok());
            match poll(&mut [PollFd::new(&self.fd, events)], timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.until_ready(PollFlags::IN, |fd| recv(fd, &mut *buffer, RecvFlags::empty()).map(|(read, _)| read))
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.until_ready(PollFlags::OUT, |fd| send(fd, bytes, SendFlags::NOSIGNAL))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
