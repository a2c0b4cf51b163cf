//! Signals that wait until they are taken, or end the process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use rustix::event::{EventfdFlags, eventfd};

use crate::errno::{Errno, Error, Result};
use crate::fd::above_standard_streams;
use crate::raw;
use crate::raw::signal::{CAME, ENDING, EVENT, STATUS, bit};

pub use rustix::process::Signal;

static DESCRIPTOR: OnceLock<OwnedFd> = OnceLock::new();

/// This process's signals: the descriptor is readable once some came, until [`take`](Self::take) was called.
#[derive(Debug, Clone, Copy)]
pub struct Signals(&'static OwnedFd);

impl Signals {
    /// From now on these signals wait until they are taken, whatever thread they interrupt.
    ///
    /// # Errors
    ///
    /// There are too many descriptors; the kernel lets nobody catch `SIGKILL` and `SIGSTOP` (`EINVAL`); signals of real time, which queue up,
    /// are not kept here.
    ///
    /// [`sigaction(2)`](https://man7.org/linux/man-pages/man2/sigaction.2.html),
    /// [`eventfd(2)`](https://man7.org/linux/man-pages/man2/eventfd.2.html).
    pub fn catch(signals: &[Signal]) -> Result<Self> {
        let created = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let created = created.map_err(|e| Error::Call { call: "eventfd", errno: Errno::from(e) })?;
        let created = above_standard_streams(created)?;
        // One is enough for all: the handler knows one.
        let descriptor = DESCRIPTOR.get_or_init(|| created);
        EVENT.store(descriptor.as_raw_fd(), Ordering::SeqCst);
        for signal in signals {
            if bit(signal.as_raw()) == 0 {
                return Err(Error::Argument { call: "sigaction", what: "signals of real time queue up" });
            }
            raw::signal::catch(*signal)?;
        }
        Ok(Self(descriptor))
    }

    /// A signal that waits, if there is one, lowest number first. Several of a kind that came before one was taken are one. Whoever
    /// sleeps on the descriptor takes all first: until there is none.
    pub fn take(&self) -> Option<Signal> {
        // Before it is looked: what comes from here on makes the descriptor readable again.
        let _ = rustix::io::read(self.0, &mut [0; 8]);
        loop {
            let signal = Signal::from_named_raw(CAME.load(Ordering::SeqCst).trailing_zeros() as i32)?;
            let bit = bit(signal.as_raw());
            // Otherwise another thread has taken it.
            if CAME.fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
                return Some(signal);
            }
        }
    }

    /// From now on, those of the caught signals that are named here end the process at once, with that status, and the others
    /// wait. It makes no difference to those that wait already.
    pub fn end_process_at(&self, signals: &[Signal], status: i32) {
        STATUS.store(status, Ordering::SeqCst);
        let bits = signals.iter().fold(0, |bits, signal| bits | bit(signal.as_raw()));
        ENDING.store(bits, Ordering::SeqCst);
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// From now on, that signal does nothing, nor in programs that this process executes: of `SIGXFSZ`, the call that went too far
/// fails with `EFBIG`.
///
/// # Errors
///
/// The kernel refuses this for `SIGKILL` and `SIGSTOP`.
///
/// [`sigaction(2)`](https://man7.org/linux/man-pages/man2/sigaction.2.html).
pub fn ignore(signal: Signal) -> Result<()> {
    raw::signal::ignore(signal)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Resource, Rlimit, getpid, getrlimit, kill_process, setrlimit};

    use super::*;

    /// Any thread of the process may be interrupted.
    fn raise(signal: Signal) {
        kill_process(getpid(), signal).unwrap();
        while CAME.load(Ordering::SeqCst) & bit(signal.as_raw()) == 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    #[ignore = "a process of its own, which the next test starts"]
    fn child() {
        let signals = Signals::catch(&[Signal::USR1, Signal::USR2]).unwrap();
        let readable =
            || poll(&mut [PollFd::new(&signals, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1;
        assert!(!readable());
        assert_eq!(signals.take(), None);
        [Signal::USR2, Signal::USR1].into_iter().for_each(raise);
        assert!(readable());
        assert_eq!([(); 3].map(|()| signals.take()), [Some(Signal::USR1), Some(Signal::USR2), None]);
        assert!(!readable());
        raise(Signal::USR1);
        signals.end_process_at(&[Signal::USR1], 7);
        raise(Signal::USR2);
        assert_eq!([(); 3].map(|()| signals.take()), [Some(Signal::USR1), Some(Signal::USR2), None]);

        ignore(Signal::XFSZ).unwrap();
        let mut file = tempfile();
        let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
        setrlimit(Resource::Fsize, Rlimit { current: Some(0), maximum }).unwrap();
        let error = file.write_all(b"too much").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
        setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum }).unwrap();
        println!("went on");
        raise(Signal::USR1);
    }

    fn tempfile() -> std::fs::File {
        rustix::fs::memfd_create("signals", rustix::fs::MemfdFlags::CLOEXEC).unwrap().into()
    }

    #[test]
    fn signals_wait_until_they_are_taken_or_end_the_process() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "signal::tests::child", "--ignored", "--nocapture"]);
        let output = command.output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("went on"), "{output:?}");
        assert_eq!(output.status.code(), Some(7));
    }

    #[test]
    fn the_kernel_refuses_an_action_for_what_cannot_be_caught() {
        assert_eq!(ignore(Signal::KILL).unwrap_err().errno(), Some(crate::Errno::EINVAL));
    }
}
