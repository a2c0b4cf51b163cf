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
    assert!(expected.frames[0].lines[0].function.ends_with("windows_have_the_names_that_they_had_at_once"));
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
    let told: Vec<_> = done.iter().map(|p| (p.period_nanos, p.samples.first().map(|s| s.count))).collect();
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
        assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), (held & (KEPT | instead)).bits(), "{set}");
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
        let at = built.windows(8).position(|bytes| bytes == 0x0123_4567_89ab_cdef_u64.to_be_bytes()).unwrap();
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
    assert!(profile.frames.iter().all(|frame| &*frame.lines[0].function == "work"), "{:?}", profile.frames);
    // Somebody else's first file is not the first one of these.
    let here = of_many_files_some_are_asked_for_at_a_time as fn() as usize as u64;
    let mut others = Symbols::new();
    let samples = window(&mut others, std::process::id(), &[here]);
    namer.take(samples, WindowInfo::default(), &mut others).unwrap();
    let profile = namer.settle(None).unwrap().pop().unwrap();
    let line = &profile.frames[0].lines[0];
    assert!(line.function.ends_with("of_many_files_some_are_asked_for_at_a_time"), "{line:?}");
}
