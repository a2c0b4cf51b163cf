//! What tracing the heap costs: a pair of malloc and free, bare and traced.
//!
//!     cargo bench -p tests --bench heap
//!
//! Needs root, gcc, and for the last lines bpftrace and bcc's memleak. Each line is the median of rounds, all of one run;
//! the ratio is to no-op programs at the best sites.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use bpf_loader::attach::{BinaryFunctions, BinaryPlace, UprobeMultiOptions, UprobeOptions};
use bpf_loader::kernel::RunningKernel;
use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;
use bpf_programs::events::heap::Sort;
use collector::config::Filter;
use collector::symbolize::Place;
use collector::symbolize::read_at::FileReader;
use collector::tracer::heap::functions::{Probe, find_probes};
use collector::tracer::heap::{INFO, Settings as HeapSettings};
use collector::tracer::ladder::Forced;
use collector::tracer::{Settings, Start, Tracer};

const NOOP: &[u8] = include_bytes!("prebuilt/noop.bpf.o");
const ROUNDS: usize = 5;

fn main() {
    let folder = std::env::temp_dir().join(format!("bench-heap-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join("leak");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads/leak.c");
    let options = ["-O2", "-fno-omit-frame-pointer", "-pthread", "-o"];
    assert!(Command::new("gcc").args(options).arg(&program).arg(source).status().unwrap().success());
    let mut leak = Leak::start(&program);
    run(&mut leak);
    drop(leak);
    std::fs::remove_dir_all(&folder).unwrap();
}

fn run(leak: &mut Leak) {
    let pid = leak.child.id();
    let libc = libc_of(pid);
    println!("{:54}{:>10}{:>10}", "pair of malloc and free", "ns", "ratio");
    line("bare", leak.time('P'), None);
    let object = noop(false).unwrap();
    let entries = [("malloc", Sort::Malloc), ("free", Sort::Free)];
    let at_entries = entries.map(|(name, sort)| (BinaryPlace::from(name), sort));
    let links = probe(&object, &libc, &at_entries, pid);
    let at_entries = leak.time('p');
    drop(links);
    let probes = pair_of(&libc);
    let best = probes.map(|probe| (BinaryPlace::Offset(probe.offset), probe.sort));
    let links = probe(&object, &libc, &best, pid);
    let floor = leak.time('p');
    drop(links);
    line("no-op at the entries, and malloc's return", at_entries, Some(floor));
    line("no-op at the best sites, and malloc's return", floor, Some(floor));
    let session = noop(true);
    if let Some(object) = &session {
        let links = probe_by_session(object, &libc, &probes, pid);
        line("the same in one program and link", leak.time('p'), Some(floor));
        drop(links);
    }
    for (rung, stacks, sample_bytes, what) in [
        ("session", "tables", 0, "ours, every allocation with its stack"),
        ("session", "frame-pointers", 0, "ours, by frame pointers"),
        ("uprobe", "tables", 0, "ours on the rung `uprobe`"),
        ("uprobe", "frame-pointers", 0, "ours on the rung `uprobe`, by frame pointers"),
        ("session", "tables", 512 << 10, "ours, sampled every 512 KiB"),
        ("uprobe", "tables", 512 << 10, "ours on the rung `uprobe`, sampled"),
    ] {
        match start(pid, rung, stacks, sample_bytes) {
            Ok(tracer) => {
                line(what, leak.time('p'), Some(floor));
                drop(tracer);
            }
            Err(error) => println!("{what}: {error}"),
        }
    }
    peer("bpftrace", &["-p", "PID", "-e", BPFTRACE], leak, floor);
    for memleak in ["memleak-bpfcc", "memleak"] {
        peer(memleak, &["-p", "PID", "3600"], leak, floor);
    }
}

/// What memleak does, in bpftrace: every allocation and its stack.
const BPFTRACE: &str = "
uprobe:/proc/PID/root/LIBC:malloc { @size[tid] = arg0; }
uretprobe:/proc/PID/root/LIBC:malloc /@size[tid]/ {
    @bytes[ustack] = sum(@size[tid]); @held[retval] = @size[tid]; delete(@size[tid]);
}
uprobe:/proc/PID/root/LIBC:free { delete(@held[arg0]); }";

fn line(what: &str, nanoseconds: f64, floor: Option<f64>) {
    match floor {
        Some(floor) => println!("{what:54}{nanoseconds:>10.0}{:>10.2}", nanoseconds / floor),
        None => println!("{what:54}{nanoseconds:>10.1}"),
    }
}

/// The programs that do nothing; None where the kernel has no sessions.
fn noop(session: bool) -> Option<Object> {
    let mut spec = ObjectSpec::parse(NOOP).unwrap();
    if session {
        spec.program_mut("session").unwrap().autoload = true;
    }
    let plan = spec.plan(&RunningTarget::new()).unwrap();
    plan.load(&RunningKernel::default()).unwrap().into_object().ok()
}

fn probe(object: &Object, file: &Path, places: &[(BinaryPlace<'_>, Sort)], pid: u32) -> Vec<Link> {
    let mut links = Vec::new();
    for (place, sort) in places {
        let options = UprobeOptions { pid: Some(pid), ..Default::default() };
        links.push(object.program("entry").unwrap().attach_uprobe(file, *place, &options).unwrap());
        if *sort != Sort::Free {
            let options = UprobeOptions { ret: true, ..options };
            links.push(object.program("leave").unwrap().attach_uprobe(file, *place, &options).unwrap());
        }
    }
    links
}

fn probe_by_session(object: &Object, file: &Path, probes: &[Probe], pid: u32) -> Vec<Link> {
    let session = object.program("session").unwrap();
    let offsets: Vec<u64> = probes.iter().map(|probe| probe.offset).collect();
    let cookies: Vec<u64> = probes.iter().map(|probe| probe.sort as u64).collect();
    let options = UprobeMultiOptions { pid: Some(pid), cookies: &cookies, ..Default::default() };
    vec![session.attach_uprobe_multi(file, BinaryFunctions::Offsets(&offsets), &options).unwrap()]
}

/// The C library of a process.
fn libc_of(pid: u32) -> std::path::PathBuf {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let path =
        maps.lines().find_map(|line| line.split_whitespace().nth(5).filter(|path| path.contains("/libc.so")));
    path.unwrap().into()
}

/// The best sites of malloc and free.
fn pair_of(libc: &Path) -> [Probe; 2] {
    let (file, _) = FileReader::open(&Place::trusted(libc.to_owned())).unwrap();
    let probes = find_probes(&file).unwrap();
    [Sort::Malloc, Sort::Free].map(|sort| *probes.iter().find(|probe| probe.sort == sort).unwrap())
}

fn start(pid: u32, rung: &str, stacks: &str, sample_bytes: u32) -> collector::error::Result<Box<dyn Tracer>> {
    (INFO.start)(&Start {
        filter: &Filter { pids: vec![pid], ..Filter::default() },
        settings: &Settings { heap: HeapSettings { sample_bytes }, ..Settings::default() },
        memory: 8 << 20,
        forced: &Forced(
            [("allocations", rung), ("user stacks", stacks)]
                .map(|(what, rung)| (what.to_owned(), rung.to_owned()))
                .into(),
        ),
        target: &RunningTarget::new(),
    })
}

/// Another program that traces, where it is installed.
fn peer(name: &str, arguments: &[&str], leak: &mut Leak, floor: f64) {
    let pid = leak.child.id();
    let libc = libc_of(pid);
    let fill = |text: &&str| {
        text.replace("LIBC", libc.to_str().unwrap().trim_start_matches('/')).replace("PID", &pid.to_string())
    };
    let piped = Command::new(name)
        .args(arguments.iter().map(fill))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut peer) = piped else { return println!("{name}: not installed") };
    std::thread::sleep(Duration::from_secs(8));
    match peer.try_wait().unwrap() {
        None => line(name, leak.time('p'), Some(floor)),
        Some(status) => println!("{name}: {status}"),
    }
    let _ = peer.kill();
    let _ = peer.wait();
}

/// The program that is traced.
struct Leak {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Leak {
    fn start(program: &Path) -> Self {
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (commands, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut leak = Self { child, commands, answers };
        leak.listen();
        leak
    }

    fn listen(&mut self) -> f64 {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
        answer["pair_ns"].as_f64().unwrap()
    }

    /// Nanoseconds of a pair.
    fn time(&mut self, command: char) -> f64 {
        let mut round = || {
            self.commands.as_mut().unwrap().write_all(&[command as u8]).unwrap();
            self.listen()
        };
        let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round()).collect();
        rounds.sort_by(f64::total_cmp);
        rounds[ROUNDS / 2]
    }
}

impl Drop for Leak {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.child.wait();
    }
}
