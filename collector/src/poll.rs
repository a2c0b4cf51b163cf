//! The event loop: one mio poll over the readers' descriptors, with deadlines instead of ticks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};

/// Descriptors that can be waited for at once, and how many of them one wait reports.
const EVENTS_PER_WAIT: usize = 64;

/// Waits for descriptors and deadlines. Sources are level-checked by their owner: after a wake-up the owner drains
/// what the token stands for, and what is left for later is found again at the next deadline.
#[derive(Debug)]
pub struct EventLoop {
    poll: Poll,
    events: Events,
}

impl EventLoop {
    /// An empty loop.
    ///
    /// # Errors
    ///
    /// The kernel has no epoll descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(EVENTS_PER_WAIT) })
    }

    /// Where sources of other kinds (signals, wakers) are registered.
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// The loop's own descriptor: readable when a source is ready.
    pub fn descriptor(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    /// Reports `token` when the descriptor becomes readable. The descriptor must be removed before it is closed.
    ///
    /// # Errors
    ///
    /// The descriptor cannot be polled, or is in the loop already.
    pub fn add(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        SourceFd(&fd.as_fd().as_raw_fd()).register(self.registry(), token, Interest::READABLE)
    }

    /// Forgets the descriptor.
    ///
    /// # Errors
    ///
    /// It is not in the loop.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        SourceFd(&fd.as_fd().as_raw_fd()).deregister(self.registry())
    }

    /// Sleeps until a source is ready or the deadline is reached, and hands the ready tokens over. A signal that
    /// interrupts the sleep ends it early, as if nothing were ready.
    ///
    /// # Errors
    ///
    /// epoll fails, which leaves nothing to do but stop.
    pub fn wait(&mut self, deadline: Option<Instant>, ready: &mut Vec<Token>) -> io::Result<()> {
        ready.clear();
        // epoll counts milliseconds; rounded up, or the last one would be spent spinning.
        let timeout = deadline.map(|d| {
            let left = d.saturating_duration_since(Instant::now());
            Duration::from_millis(left.as_nanos().div_ceil(1_000_000) as u64)
        });
        match self.poll.poll(&mut self.events, timeout) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(e),
            Ok(()) => {
                ready.extend(self.events.iter().map(|e| e.token()));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn readable_descriptors_and_deadlines_end_the_wait() {
        let mut events = EventLoop::new().unwrap();
        let (mut a, b) = UnixStream::pair().unwrap();
        events.add(&b, Token(7)).unwrap();
        let mut ready = Vec::new();

        let start = Instant::now();
        events.wait(Some(start + Duration::from_millis(20)), &mut ready).unwrap();
        assert!(ready.is_empty() && start.elapsed() >= Duration::from_millis(20));

        a.write_all(b"x").unwrap();
        events.wait(None, &mut ready).unwrap();
        assert_eq!(ready, [Token(7)]);
        events.remove(&b).unwrap();
        a.write_all(b"x").unwrap();
        events.wait(Some(Instant::now()), &mut ready).unwrap();
        assert!(ready.is_empty());
    }
}
