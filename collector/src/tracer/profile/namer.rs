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
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};

    use super::super::located::FILES_A_PART;
    use super::*;
    use crate::aggregate::{SampleKey, WakerId};
    use crate::symbolize::maps;

    const NAMED: Token = Token(7);

    fn start(events: &EventLoop) -> Namer {
        let namer = Namer::start(1 << 20).unwrap();
        namer.watch(events, NAMED).unwrap();
        namer
    }

    /// A window of one sample of a process, whose stack has these addresses.
    fn window(symbols: &mut Symbols, pid: u32, addresses: &[u64]) -> Samples {
        let process = symbols.meet(pid, b"program\0\0\0\0\0\0\0\0\0", 0);
        let mut samples = Samples::default();
        let user = samples.stacks.intern(addresses);
        let key = SampleKey { process, tid: pid, kernel: None, user, waker: WakerId::default() };
        samples.add(key, *b"thread\0\0\0\0\0\0\0\0\0\0", 3);
        samples
    }

    fn nice_of(tid: Pid) -> i32 {
        let stat = fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn windows_have_the_names_that_they_had_at_once() {
        let mut events = EventLoop::new().unwrap();
        let mut namer = start(&events);
        let own = nice_of(rustix::thread::gettid());
        assert_eq!(nice_of(namer.tid), (own + NICER).min(NICEST));
        let here = windows_have_the_names_that_they_had_at_once as fn() as usize as u64;
        let mut symbols = Symbols::new();
        let info = WindowInfo { duration_nanos: 9, ..WindowInfo::default() };
        let expected = {
            let samples = window(&mut symbols, std::process::id(), &[here, here + 1, 8]);
            symbols.begin_window();
            naming::name(&samples, info, &mut symbols)
        };
        assert_eq!(expected.stacks[0].len(), 2, "the last address is none of code");
        assert!(
            expected.frames[0].lines[0].function.ends_with("windows_have_the_names_that_they_had_at_once")
        );
        for _ in 0..2 {
            let samples = window(&mut symbols, std::process::id(), &[here, here + 1, 8]);
            symbols.begin_window();
            namer.take(samples, info, &mut symbols).unwrap();
            symbols.end_window();
            let (mut ready, until) = (Vec::new(), Instant::now() + Duration::from_secs(60));
            while !ready.contains(&NAMED) {
                events.wait(Some(until), &mut ready).unwrap();
                assert!(Instant::now() < until);
            }
            assert_eq!(namer.named(), std::slice::from_ref(&expected));
        }
        assert_eq!(namer.settle(None).unwrap(), []);
    }

    #[test]
    fn the_same_stacks_are_several_profiles() {
        let mut namer = start(&EventLoop::new().unwrap());
        let mut symbols = Symbols::new();
        let here = the_same_stacks_are_several_profiles as fn() as usize as u64;
        let mut samples = window(&mut symbols, std::process::id(), &[here]);
        let first = std::mem::take(&mut samples.counts);
        let mut second = first.clone();
        second.values_mut().for_each(|count| *count *= 5);
        let info = |period_nanos| WindowInfo { period_nanos, ..WindowInfo::default() };
        let profiles = vec![(first, info(1)), (second, info(2)), (Counts::new(), info(3))];
        namer.take_all(samples, profiles, &mut symbols).unwrap();
        let done = namer.settle(None).unwrap();
        let told: Vec<_> =
            done.iter().map(|p| (p.period_nanos, p.samples.first().map(|s| s.count))).collect();
        assert_eq!(told, [(1, Some(3)), (2, Some(15)), (3, None)]);
        let name = "the_same_stacks_are_several_profiles";
        assert!(done[..2].iter().all(|p| p.frames[0].lines[0].function.ends_with(name)));
    }

    #[test]
    fn the_thread_can_read_and_nothing_else() {
        let namer = start(&EventLoop::new().unwrap());
        let status = fs::read_to_string(format!("/proc/self/task/{}/status", namer.tid)).unwrap();
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let held = capabilities(None).unwrap().permitted;
        let instead =
            if held.contains(CapabilitySet::DAC_READ_SEARCH) { CapabilitySet::empty() } else { INSTEAD };
        for set in ["CapPrm:", "CapEff:"] {
            assert_eq!(
                u64::from_str_radix(&field(set), 16).unwrap(),
                (held & (KEPT | instead)).bits(),
                "{set}"
            );
        }
        assert_eq!(u64::from_str_radix(&field("CapInh:"), 16).unwrap(), 0);
        assert_eq!(field("NoNewPrivs:"), "1");
    }

    #[test]
    fn windows_come_in_their_order_and_the_last_one_can_be_waited_for() {
        let events = EventLoop::new().unwrap();
        let mut namer = start(&events);
        let mut symbols = Symbols::new();
        for start_unix_nanos in 1..=9 {
            let info = WindowInfo { start_unix_nanos, ..WindowInfo::default() };
            namer.take(window(&mut symbols, 0, &[1]), info, &mut symbols).unwrap();
        }
        let mut done = namer.settle(None).unwrap();
        let own = nice_of(rustix::thread::gettid());
        assert_eq!(nice_of(namer.tid), (own + NICER).min(NICEST), "it is low again");
        assert_eq!(done.pop().unwrap().start_unix_nanos, 9);
        namer.keep(done);
        let early: Vec<u64> = namer.named().iter().map(|profile| profile.start_unix_nanos).collect();
        assert_eq!(early, [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn who_waits_for_it_lends_it_its_priority() {
        let namer = start(&EventLoop::new().unwrap());
        let own = nice_of(rustix::thread::gettid());
        if !namer.set_priority(0) {
            println!("skip: nobody may lower a nice value here");
            return;
        }
        assert_eq!(nice_of(namer.tid), own);
        assert!(namer.set_priority(NICER));
        assert_eq!(nice_of(namer.tid), (own + NICER).min(NICEST));
    }

    #[test]
    fn what_is_late_comes_without_names_and_what_follows_has_them() {
        let events = EventLoop::new().unwrap();
        let mut namer = start(&events);
        let here = what_is_late_comes_without_names_and_what_follows_has_them as fn() as usize as u64;
        let mut symbols = Symbols::new();
        let mut take = |namer: &mut Namer| {
            let samples = window(&mut symbols, std::process::id(), &[here]);
            symbols.begin_window();
            namer.take(samples, WindowInfo::default(), &mut symbols).unwrap();
            symbols.end_window();
        };
        // As if the time were over when it begins.
        namer.shared.hurry.store(true, Ordering::Relaxed);
        take(&mut namer);
        let late = namer.settle(Some(Instant::now())).unwrap().pop().unwrap();
        // Which it says itself where it has waited for the window.
        namer.shared.hurry.store(false, Ordering::Relaxed);
        assert!(late.frames[0].lines.is_empty() && late.frames[0].mapping.is_some(), "{:?}", late.frames);
        assert_eq!(late.samples[0].count, 3);
        assert_eq!(namer.late(), 1);
        take(&mut namer);
        let profile = namer.settle(None).unwrap().pop().unwrap();
        assert_eq!((profile.frames[0].lines.len(), namer.late()), (1, 1));
        assert!(namer.cpu_nanos() > 0);
    }

    /// A program with more libraries than may be open at a time.
    struct Loaded {
        folder: PathBuf,
        child: Child,
    }

    impl Loaded {
        fn start(libraries: usize) -> Self {
            let folder = std::env::temp_dir().join(format!("names-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            let source = folder.join("library.c");
            fs::write(&source, "int work(int n) { return n * 3; }").unwrap();
            let build = |name: &Path| {
                let options = ["-shared", "-fPIC", "-Wl,--build-id=0x0123456789abcdef", "-o"];
                let built = Command::new("cc").args(options).arg(name).arg(&source).status().unwrap();
                assert!(built.success());
                fs::read(name).unwrap()
            };
            let built = build(&folder.join("library.so"));
            let at =
                built.windows(8).position(|bytes| bytes == 0x0123_4567_89ab_cdef_u64.to_be_bytes()).unwrap();
            let paths: Vec<String> = (0..libraries)
                .map(|number| {
                    let path = folder.join(format!("library-{number}.so"));
                    let mut bytes = built.clone();
                    bytes[at..at + 8].copy_from_slice(&(number as u64).to_be_bytes());
                    fs::write(&path, bytes).unwrap();
                    path.display().to_string()
                })
                .collect();
            let child =
                Command::new("cat").env("LD_PRELOAD", paths.join(":")).stdin(Stdio::piped()).spawn().unwrap();
            Self { folder, child }
        }

        /// Where `work` is in each library.
        fn addresses(&self) -> Vec<u64> {
            let library = fs::read(self.folder.join("library.so")).unwrap();
            let elf = crate::symbolize::elf::Elf::read(&library.as_slice()).unwrap();
            let offset = elf.functions_named(&library.as_slice(), |name| name == "work").unwrap()[0].offset;
            let text = fs::read(format!("/proc/{}/maps", self.child.id())).unwrap();
            let has_it = |line: &maps::MapsLine<'_>| {
                let is_library = line.path.windows(9).any(|part| part == b"/library-");
                is_library && (line.offset..line.offset + line.end - line.start).contains(&offset)
            };
            maps::parse(&text)
                .filter(|line| line.executable && has_it(line))
                .map(|line| line.start + offset - line.offset + 1)
                .collect()
        }
    }

    impl Drop for Loaded {
        fn drop(&mut self) {
            drop(self.child.stdin.take());
            let _ = self.child.wait();
            let _ = fs::remove_dir_all(&self.folder);
        }
    }

    #[test]
    fn of_many_files_some_are_asked_for_at_a_time() {
        const LIBRARIES: usize = 2 * FILES_A_PART + 9;
        let loaded = Loaded::start(LIBRARIES);
        let until = Instant::now() + Duration::from_secs(60);
        let addresses = loop {
            let addresses = loaded.addresses();
            if addresses.len() == LIBRARIES {
                break addresses;
            }
            assert!(Instant::now() < until, "{}", addresses.len());
            thread::sleep(Duration::from_millis(10));
        };
        let events = EventLoop::new().unwrap();
        let mut namer = start(&events);
        let mut symbols = Symbols::new();
        let samples = window(&mut symbols, loaded.child.id(), &addresses);
        namer.take(samples, WindowInfo::default(), &mut symbols).unwrap();
        let profile = namer.settle(None).unwrap().pop().unwrap();
        assert_eq!((profile.stacks[0].len(), profile.mappings.len()), (LIBRARIES, LIBRARIES));
        assert!(
            profile.frames.iter().all(|frame| &*frame.lines[0].function == "work"),
            "{:?}",
            profile.frames
        );
        // Somebody else's first file is not the first one of these.
        let here = of_many_files_some_are_asked_for_at_a_time as fn() as usize as u64;
        let mut others = Symbols::new();
        let samples = window(&mut others, std::process::id(), &[here]);
        namer.take(samples, WindowInfo::default(), &mut others).unwrap();
        let profile = namer.settle(None).unwrap().pop().unwrap();
        let line = &profile.frames[0].lines[0];
        assert!(line.function.ends_with("of_many_files_some_are_asked_for_at_a_time"), "{line:?}");
    }
}
