//! Names of windows, made in a thread of low priority: symbol tables and debug information are read there, and what is sampled
//! meanwhile does not wait for it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bpf_sys::clock::Clock;
use mio::Token;
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{
    Pid, Resource, Rlimit, getpriority_process, getrlimit, setpriority_process, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, gettid, set_capabilities, set_no_new_privs,
};

use super::located::{Answered, Asked, LocatedWindow};
use super::naming::{self, WindowInfo};
use super::symbols::Symbols;
use crate::aggregate::{Counts, Samples};
use crate::error::{Error, Result};
use crate::model::Profile;
use crate::poll::EventLoop;
use crate::symbolize::{Debuginfod, FileNames, Host, KernelNames};

/// How much nicer than its owner the thread is: beside another that wants all of the CPU, it gets a tenth.
const NICER: i32 = 10;
/// The nicest.
const NICEST: i32 = 19;
/// What it needs to read the files of other users' processes, and addresses in `/proc/kallsyms` (capabilities(7)).
const KEPT: CapabilitySet =
    CapabilitySet::DAC_READ_SEARCH.union(CapabilitySet::SYS_PTRACE).union(CapabilitySet::SYSLOG);
/// What serves where the first of them is not held, as in most containers.
const INSTEAD: CapabilitySet = CapabilitySet::DAC_OVERRIDE;
/// What waits for the thread before its owner does: some two windows.
const MESSAGES: usize = 4;

enum Message {
    /// A part of the next window's questions; of one without any there is none.
    Asked(Asked),
    /// What was asked for was no window's: who wants to know that it was looked for.
    #[cfg(feature = "debuginfod")]
    Looked(mpsc::Sender<()>),
    /// Who is asked for files for debuggers from here on.
    FetchWith(Debuginfod),
    /// The rest of the window.
    Window(Box<Window>),
}

struct Window {
    /// Without what is counted under their keys.
    samples: Samples,
    profiles: Vec<(Counts, WindowInfo)>,
    located: LocatedWindow,
}

/// Names windows in a thread of its own. Dropping it ends that.
pub(in crate::tracer) struct Namer {
    messages: Option<SyncSender<Message>>,
    named: Receiver<Vec<Profile>>,
    /// Readable when a window is done. (Of wakers, an event loop has one, which is its owner's.)
    done: OwnedFd,
    thread: Option<JoinHandle<()>>,
    /// The thread, as the kernel knows it.
    tid: Pid,
    shared: Arc<Shared>,
    /// Windows that it has, and has not given back.
    in_work: usize,
    /// It had some when others were begun with.
    is_late: bool,
    /// It is as nice as its owner.
    is_raised: bool,
    /// Windows that were given back when another was waited for.
    early: Vec<Profile>,
}

/// What the thread and its owner tell each other at any time.
#[derive(Default)]
struct Shared {
    /// It is wanted no more.
    stop: AtomicBool,
    /// What is late goes without names in files.
    hurry: AtomicBool,
    /// CPU time that it has taken.
    cpu_nanos: AtomicU64,
    /// Addresses that it did not look for.
    late: AtomicU64,
}

impl Shared {
    fn looks_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed) && !self.hurry.load(Ordering::Relaxed)
    }
}

impl Namer {
    /// Starts the thread, with so many bytes for symbol tables.
    ///
    /// # Errors
    ///
    /// There is no room for a thread, or no descriptor left.
    pub fn start(budget: usize) -> Result<Self> {
        let event = || eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map_err(io::Error::from);
        let told = event().map_err(Error::io("eventfd"))?;
        let tells = told.try_clone().map_err(Error::io("eventfd"))?;
        let (messages, inbox) = mpsc::sync_channel(MESSAGES);
        let (done, named) = mpsc::channel();
        let (report, started) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let in_thread = Arc::clone(&shared);
        let work = move || {
            let confined = confine();
            let is_confined = confined.is_ok();
            let _ = report.send(confined.map(|()| gettid()));
            if !is_confined {
                return;
            }
            let wake = |profiles| {
                // Whoever has gone needs neither.
                let _ = done.send(profiles);
                let _ = rustix::io::write(&tells, &1u64.to_ne_bytes());
            };
            serve(&inbox, FileNames::new(budget), &in_thread, wake);
        };
        let thread = thread::Builder::new().name("ebpf-names".into()).spawn(work);
        let thread = thread.map_err(Error::io("starting a thread"))?;
        let tid = started.recv().map_err(|_| Error::ThreadPanicked)?;
        allow_own_priority();
        let namer = Self {
            messages: Some(messages),
            named,
            done: told,
            thread: Some(thread),
            tid: tid.map_err(Error::io("giving up privileges"))?,
            shared,
            in_work: 0,
            is_late: false,
            is_raised: false,
            early: Vec::new(),
        };
        namer.set_priority(NICER);
        Ok(namer)
    }

    /// Has the loop told when a window is done.
    ///
    /// # Errors
    ///
    /// The loop has no room.
    pub fn watch(&self, events: &EventLoop, token: Token) -> Result<()> {
        events.add(&self.done, token).map_err(Error::io("polling an eventfd"))
    }

    /// Takes a window. What has to be read while its processes are there is read now.
    ///
    /// # Errors
    ///
    /// [`Error::ThreadPanicked`].
    pub fn take(&mut self, mut samples: Samples, info: WindowInfo, symbols: &mut Symbols) -> Result<()> {
        self.raise_if_late();
        let counts = std::mem::take(&mut samples.counts);
        self.take_all(samples, vec![(counts, info)], symbols)
    }

    /// Lends the thread its owner's priority while it has windows, before others are taken: on a busy machine it may get too little of
    /// the CPU to keep up.
    pub fn raise_if_late(&mut self) {
        self.is_late = self.in_work > 0;
        if self.is_late && !self.is_raised {
            self.is_raised = self.set_priority(0);
        }
    }

    /// As [`take`](Self::take), of the same stacks as many profiles as there are different counts.
    ///
    /// # Errors
    ///
    /// [`Error::ThreadPanicked`].
    pub fn take_all(
        &mut self,
        samples: Samples,
        profiles: Vec<(Counts, WindowInfo)>,
        symbols: &mut Symbols,
    ) -> Result<()> {
        let changes = symbols.take_kernel_changes();
        let keys = profiles.iter().flat_map(|(counts, _)| counts.keys());
        let ask = |asked| self.send(Message::Asked(asked));
        let located = LocatedWindow::new(&samples.stacks, keys, symbols, changes, ask)?;
        self.send(Message::Window(Box::new(Window { samples, profiles, located })))?;
        self.in_work += 1;
        Ok(())
    }

    /// Has files for debuggers fetched from now on.
    ///
    /// # Errors
    ///
    /// [`Error::ThreadPanicked`].
    pub fn fetch_with(&mut self, servers: Debuginfod) -> Result<()> {
        self.send(Message::FetchWith(servers))
    }

    /// Looks for the names of a window that goes on, so that files are fetched which it takes, and waits until they were looked for.
    ///
    /// # Errors
    ///
    /// [`Error::ThreadPanicked`].
    #[cfg(feature = "debuginfod")]
    pub fn look(&mut self, samples: &Samples, symbols: &mut Symbols) -> Result<()> {
        // What has changed in the kernel is for the window itself.
        let ask = |asked| self.send(Message::Asked(asked));
        LocatedWindow::new(&samples.stacks, samples.counts.keys(), symbols, Vec::new(), ask)?;
        let (done, looked) = mpsc::channel();
        self.send(Message::Looked(done))?;
        self.set_priority(0);
        let looked = looked.recv().map_err(|_| Box::new(Error::ThreadPanicked));
        self.set_priority(NICER);
        looked
    }

    /// The windows that are done, in their order.
    pub fn named(&mut self) -> Vec<Profile> {
        // What is told from here on is told again.
        let _ = rustix::io::read(&self.done, &mut [0; 8]);
        let mut done = std::mem::take(&mut self.early);
        for window in self.named.try_iter() {
            done.extend(window);
            self.in_work = self.in_work.saturating_sub(1);
        }
        if self.in_work == 0 && self.is_raised {
            self.is_raised = !self.set_priority(NICER);
        }
        done
    }

    /// All windows, once they are done. The thread has the caller's priority meanwhile, where the kernel allows that; after `until` it
    /// looks for no more names in files.
    ///
    /// # Errors
    ///
    /// [`Error::ThreadPanicked`].
    pub fn settle(&mut self, until: Option<Instant>) -> Result<Vec<Profile>> {
        let mut done = self.named();
        if self.in_work == 0 {
            return Ok(done);
        }
        self.set_priority(0);
        while self.in_work > 0 {
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            match self.named.recv_timeout(left) {
                Ok(window) => {
                    done.extend(window);
                    self.in_work -= 1;
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.shared.hurry.store(true, Ordering::Relaxed);
                    done.extend(self.named.recv().map_err(|_| Error::ThreadPanicked)?);
                    self.in_work -= 1;
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Box::new(Error::ThreadPanicked)),
            }
        }
        self.shared.hurry.store(false, Ordering::Relaxed);
        self.is_raised = !self.set_priority(NICER);
        Ok(done)
    }

    /// CPU time that the thread had taken when it was done with something last.
    pub fn cpu_nanos(&self) -> u64 {
        self.shared.cpu_nanos.load(Ordering::Relaxed)
    }

    /// Addresses whose names were not looked for, since that would have come too late.
    pub fn late(&self) -> u64 {
        self.shared.late.load(Ordering::Relaxed)
    }

    /// Keeps windows that were done before the one that was asked for.
    pub fn keep(&mut self, early: Vec<Profile>) {
        self.early = early;
    }

    fn send(&mut self, message: Message) -> Result<()> {
        let gone = || Box::new(Error::ThreadPanicked);
        let messages = self.messages.as_ref().ok_or_else(gone)?;
        let waiting = match messages.try_send(message) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Disconnected(_)) => return Err(gone()),
            Err(TrySendError::Full(waiting)) => waiting,
        };
        // From here on it is not the thread alone that is late: it gets the caller's priority. Where it may not, and is at what was begun
        // with before, that goes without names.
        let is_raised = self.set_priority(0);
        self.shared.hurry.store(self.is_late && !is_raised, Ordering::Relaxed);
        let sent = messages.send(waiting).map_err(|_| gone());
        self.shared.hurry.store(false, Ordering::Relaxed);
        // Until it has caught up.
        self.is_raised = is_raised;
        sent
    }

    /// Makes the thread so much nicer than the caller is; whether it is. To make it less nice again takes `CAP_SYS_NICE`, or a limit
    /// that allows it (`RLIMIT_NICE`, getrlimit(2)).
    fn set_priority(&self, nicer: i32) -> bool {
        let own = getpriority_process(None);
        own.is_ok_and(|own| setpriority_process(Some(self.tid), (own + nicer).min(NICEST)).is_ok())
    }
}

impl Drop for Namer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.messages = None;
        if let Some(thread) = self.thread.take() {
            // What it was at is wanted no more.
            let _ = thread.join();
        }
    }
}

/// Lets threads of this process have its own priority again that had a lower one, where the process may still raise its limits.
fn allow_own_priority() {
    let limit = getrlimit(Resource::Nice);
    // What is stored is 20 less the nice value (getrlimit(2)).
    let own = getpriority_process(None).ok().and_then(|nice| u64::try_from(20 - nice).ok());
    if let Some(own) = own.filter(|own| limit.current.is_some_and(|current| current < *own)) {
        let maximum = limit.maximum.map(|maximum| maximum.max(own));
        let _ = setrlimit(Resource::Nice, Rlimit { current: Some(own), maximum });
    }
}

/// Gives up, in this thread, whatever is not for reading files of others: it reads what anybody has written.
fn confine() -> io::Result<()> {
    let held = capabilities(None)?;
    let mut keep = held.permitted & KEPT;
    if !keep.contains(CapabilitySet::DAC_READ_SEARCH) {
        keep |= held.permitted & INSTEAD;
    }
    set_no_new_privs(true)?;
    let inheritable = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: keep, permitted: keep, inheritable })?)
}

fn serve(inbox: &Receiver<Message>, mut names: FileNames, shared: &Shared, give: impl Fn(Vec<Profile>)) {
    let mut kernel = KernelNames::new(Host::default());
    let mut lines = Vec::new();
    while let Ok(message) = inbox.recv() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        match message {
            Message::Asked(asked) => {
                let late = asked.answer(&mut names, &mut lines, || shared.looks_on());
                shared.late.fetch_add(late, Ordering::Relaxed);
            }
            Message::FetchWith(servers) => names.fetch_with(servers),
            #[cfg(feature = "debuginfod")]
            Message::Looked(done) => {
                lines.clear();
                names.renew_work();
                let _ = done.send(());
            }
            Message::Window(window) => {
                let Window { mut samples, profiles, located } = *window;
                let lines = std::mem::take(&mut lines);
                let mut answered = Answered::new(&located, &lines, &mut kernel);
                let name = |(counts, info)| {
                    samples.counts = counts;
                    naming::name(&samples, info, &mut answered)
                };
                give(profiles.into_iter().map(name).collect());
                names.end_window();
            }
        }
        shared.cpu_nanos.store(Clock::ThreadCpu.nanos(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
