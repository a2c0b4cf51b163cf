//! A non-blocking stream under HTTP/2, and the loop that waits for it.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::export::net::Deadline;

/// Length and type of the first frame and its stream: what tells HTTP/2 from other protocols.
const FRAME_HEAD: usize = 9;

/// Most bytes of parts that are joined at a time: a frame of the usual size.
const MAX_JOINED: usize = FRAME_HEAD + (16 << 10);

/// A stream, shared by the connection that reads and writes it and the loop that waits for it. No task is woken by it:
/// it remembers what could not be done yet, and the loop waits for that.
pub(super) struct Socket<S>(Arc<Mutex<Inner<S>>>);

impl<S> Clone for Socket<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<S> {
    stream: S,
    /// After it, nothing is read or written, so that a receiver which never stops sending cannot hold the loop.
    deadline: Deadline,
    wants_read: bool,
    wants_write: bool,
    written: u64,
    first: Vec<u8>,
    /// What went wrong last: HTTP/2 keeps no more of it than its kind.
    error: Option<io::Error>,
    /// Where the parts of a frame are joined.
    joined: Vec<u8>,
}

/// The first bytes that came from the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// None, or too few to tell.
    Nothing,
    /// `SETTINGS`, with which HTTP/2 begins.
    Http2,
    /// HTTP/1.
    Http1,
    /// Something else.
    Other,
}

impl<S: Read + Write + AsFd> Socket<S> {
    /// `stream` must be non-blocking.
    pub(super) fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            stream,
            deadline: Deadline::NEVER,
            wants_read: false,
            wants_write: false,
            written: 0,
            first: Vec::new(),
            error: None,
            joined: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that were written so far.
    pub(super) fn written(&self) -> u64 {
        self.lock().written
    }

    /// What went wrong with the stream; its end, if nothing else did.
    pub(super) fn take_error(&self) -> io::Error {
        self.lock().error.take().unwrap_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    /// What the other side said first.
    pub(super) fn heard(&self) -> Heard {
        let mut inner = self.lock();
        if inner.first.is_empty() {
            // An answer may lie there although writing failed.
            let mut buffer = [0; FRAME_HEAD];
            if let Ok(count) = inner.stream.read(&mut buffer) {
                inner.first.extend_from_slice(buffer.get(..count).unwrap_or_default());
            }
        }
        match &*inner.first {
            [_, _, _, 4, _, 0, 0, 0, 0] => Heard::Http2,
            // Some answer what they do not understand with a page alone, as before HTTP/1.
            first if first.starts_with(b"HTTP/1") || first.starts_with(b"<") => Heard::Http1,
            first if first.len() < FRAME_HEAD && first.get(3).is_none_or(|kind| *kind == 4) => Heard::Nothing,
            _ => Heard::Other,
        }
    }

    /// Polls `step` until it is ready, waiting for the stream between.
    ///
    /// # Errors
    ///
    /// `TimedOut` at the deadline, and what poll(2) says.
    pub(super) fn block_on<T>(
        &self,
        deadline: Deadline,
        mut step: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> io::Result<T> {
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        self.lock().deadline = deadline;
        loop {
            let mut inner = self.lock();
            (inner.wants_read, inner.wants_write) = (false, false);
            drop(inner);
            if let Poll::Ready(value) = step(&mut context) {
                return Ok(value);
            }
            if !woken.0.swap(false, Ordering::Relaxed) {
                self.lock().wait()?;
            }
        }
    }
}

impl<S: Read + Write + AsFd> Inner<S> {
    /// Waits until something that could not be done can be tried again.
    fn wait(&self) -> io::Result<()> {
        let mut events = if self.wants_write { PollFlags::OUT } else { PollFlags::empty() };
        // With nothing else to wait for, the other side has to say something.
        if self.wants_read || !self.wants_write {
            events |= PollFlags::IN;
        }
        loop {
            let remaining = self.deadline.remaining()?;
            // A time too long to be said is as good as none.
            let timeout = remaining.and_then(|remaining| Timespec::try_from(remaining).ok());
            let stream = self.stream.as_fd();
            match rustix::event::poll(&mut [PollFd::from_borrowed_fd(stream, events)], timeout.as_ref()) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Does `operation` as far as it goes without waiting.
    fn attempt<T>(&mut self, mut operation: impl FnMut(&mut S) -> io::Result<T>) -> Poll<io::Result<T>> {
        let result = loop {
            match self.deadline.remaining().and_then(|_| operation(&mut self.stream)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        Poll::Ready(result.map_err(|error| {
            let kind = error.kind();
            self.error = Some(error);
            kind.into()
        }))
    }

    fn write(&mut self, operation: impl FnMut(&mut S) -> io::Result<usize>) -> Poll<io::Result<usize>> {
        let result = self.attempt(operation);
        match &result {
            Poll::Ready(Ok(count)) => self.written += *count as u64,
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.wants_write = true,
        }
        result
    }
}

impl<S: Read + Write + AsFd> AsyncRead for Socket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        let result = inner.attempt(|stream| stream.read(buffer.initialize_unfilled()));
        match result {
            Poll::Ready(Ok(count)) => {
                let missing = FRAME_HEAD.saturating_sub(inner.first.len()).min(count);
                inner.first.extend(buffer.initialize_unfilled().iter().take(missing));
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                inner.wants_read = true;
                Poll::Pending
            }
        }
    }
}

impl<S: Read + Write + AsFd> AsyncWrite for Socket<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.lock().write(|stream| stream.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A frame's head by itself would be a packet, and a record of TLS, of nine bytes.
        let mut inner = self.lock();
        let mut joined = std::mem::take(&mut inner.joined);
        joined.clear();
        for part in parts {
            let room = MAX_JOINED.saturating_sub(joined.len());
            joined.extend_from_slice(part.get(..room).unwrap_or(part));
        }
        let result = inner.write(|stream| stream.write(&joined));
        inner.joined = joined;
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().write(|stream| stream.flush().map(|()| 0)).map_ok(|_| ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The stream closes when it is dropped.
        self.poll_flush(context)
    }
}

/// Whether something was woken since the last look.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
