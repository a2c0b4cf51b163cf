//! The profiler in a thread of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use mio::{Token, Waker};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::Profile;
use crate::tracer::profile::{FIRST_FOREIGN_TOKEN, Overhead, Session};

/// Samples in the background, and hands over a [`Profile`] at the end of each window.
///
/// Dropping it stops it. The callback must not ask the profiler anything but [`is_running`](Self::is_running), since the
/// profiler waits for it: other calls give [`Error::FromCallback`].
#[derive(Debug)]
pub struct Profiler {
    thread: Option<JoinHandle<Result<()>>>,
    waker: Arc<Waker>,
    commands: Sender<Command>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    running: AtomicBool,
    overhead: Mutex<Overhead>,
}

#[derive(Debug)]
enum Command {
    Pause(Sender<Result<()>>),
    Resume(Sender<Result<()>>),
    Overhead(Sender<Overhead>),
    Stop,
}

impl Profiler {
    /// Starts sampling. `each_window` runs in the profiler's thread, as soon as a window that has ended has its names, and should be
    /// quick: sampling goes on in the kernel meanwhile, but its tables are not read.
    ///
    /// # Errors
    ///
    /// As [`Session::start`]; nothing is left attached then.
    pub fn start(config: Config, each_window: impl FnMut(Profile) + Send + 'static) -> Result<Self> {
        let (commands, inbox) = mpsc::channel();
        let (report, started) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let in_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("ebpf-profiler".into())
            .spawn(move || run(config, each_window, &inbox, &report, &in_thread))
            .map_err(Error::io("starting a thread"))?;
        match started.recv() {
            Ok(Ok(waker)) => Ok(Self { thread: Some(thread), waker: Arc::new(waker), commands, shared }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Box::new(Error::ThreadPanicked)),
        }
    }

    /// Stops the timers until [`resume`](Self::resume). The window goes on, without samples.
    ///
    /// # Errors
    ///
    /// The profiler has stopped, or the kernel refuses.
    pub fn pause(&self) -> Result<()> {
        self.ask(Command::Pause)?
    }

    /// Goes on after [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// The profiler has stopped, or the kernel refuses.
    pub fn resume(&self) -> Result<()> {
        self.ask(Command::Resume)?
    }

    /// Whether samples are being taken: started, not paused, and not stopped by itself or its owner.
    pub fn is_running(&self) -> bool {
        self.shared.running.load(Ordering::Acquire)
    }

    /// What the profiler costs; its last words if it has stopped.
    pub fn overhead(&self) -> Overhead {
        self.ask(Command::Overhead)
            .unwrap_or_else(|_| *self.shared.overhead.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Stops sampling, hands over the last, shorter window, and detaches everything.
    ///
    /// # Errors
    ///
    /// Why the profiler had stopped by itself before, if it had.
    pub fn stop(mut self) -> Result<()> {
        self.join()
    }

    /// Whether the caller is the callback, for which the profiler's thread waits.
    fn is_own_thread(&self) -> bool {
        self.thread.as_ref().is_some_and(|own| own.thread().id() == thread::current().id())
    }

    fn join(&mut self) -> Result<()> {
        if self.is_own_thread() {
            // It cannot wait for itself; it stops when the callback returns.
            let _ = self.commands.send(Command::Stop);
            return Err(Box::new(Error::FromCallback));
        }
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // If the thread is gone, nobody listens, and there is nothing to stop.
        let _ = self.commands.send(Command::Stop);
        let _ = self.waker.wake();
        thread.join().unwrap_or_else(|_| Err(Box::new(Error::ThreadPanicked)))
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T> {
        if self.is_own_thread() {
            return Err(Box::new(Error::FromCallback));
        }
        let (sender, answer) = mpsc::channel();
        self.commands.send(command(sender)).map_err(|_| Error::Stopped)?;
        self.waker.wake().map_err(Error::io("waking the profiler"))?;
        answer.recv().map_err(|_| Box::new(Error::Stopped))
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        // There is nobody to tell why it had stopped.
        let _ = self.join();
    }
}

fn run(
    config: Config,
    mut each_window: impl FnMut(Profile),
    inbox: &Receiver<Command>,
    report: &Sender<Result<Waker>>,
    shared: &Shared,
) -> Result<()> {
    let window = config.window;
    let started = Session::start(config).and_then(|session| {
        let waker =
            Waker::new(session.registry(), Token(FIRST_FOREIGN_TOKEN)).map_err(Error::io("eventfd"))?;
        Ok((session, waker))
    });
    let mut session = match started {
        Ok((session, waker)) => {
            shared.running.store(true, Ordering::Release);
            let _ = report.send(Ok(waker));
            session
        }
        Err(error) => {
            let _ = report.send(Err(error));
            return Ok(());
        }
    };
    let running = Running(shared);
    let result = serve(&mut session, window, &mut each_window, inbox, shared);
    drop(running);
    if let Ok(mut overhead) = shared.overhead.lock() {
        *overhead = session.overhead();
    }
    result
}

/// Says that the profiler has stopped, however it does: a callback may panic.
struct Running<'s>(&'s Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Release);
    }
}

fn serve(
    session: &mut Session,
    window: std::time::Duration,
    each_window: &mut impl FnMut(Profile),
    inbox: &Receiver<Command>,
    shared: &Shared,
) -> Result<()> {
    let mut window_end = Instant::now() + window;
    loop {
        session.poll(window_end)?;
        session.named().into_iter().for_each(&mut *each_window);
        while let Ok(command) = inbox.try_recv() {
            // Whoever asked may have gone; then nobody hears the answer.
            match command {
                Command::Pause(answer) => {
                    let paused = session.pause();
                    shared.running.store(false, Ordering::Release);
                    let _ = answer.send(paused);
                }
                Command::Resume(answer) => {
                    let resumed = session.resume();
                    shared.running.store(resumed.is_ok(), Ordering::Release);
                    let _ = answer.send(resumed);
                }
                Command::Overhead(answer) => {
                    let _ = answer.send(session.overhead());
                }
                Command::Stop => {
                    session.pause()?;
                    session.end_window()?;
                    session.settle(None)?.into_iter().for_each(each_window);
                    return Ok(());
                }
            }
        }
        if Instant::now() >= window_end {
            session.end_window()?;
            // After a slow callback, not all at once the windows that it took.
            window_end = (window_end + window).max(Instant::now());
        }
    }
}
