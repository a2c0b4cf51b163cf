//! What tracing system calls costs each call: this project's tracer, its rungs and settings, beside its peers, in one run.
//!
//!     cargo bench -p tests --bench syscalls [-- ROUNDS]
//!
//! A loop of getppid runs on one CPU; every line is the median over rounds, which go through all tracers in turn, and its
//! ratio to programs that do nothing on the same two tracepoints. Numbers, no verdict. Needs root and gcc; the peers
//! are Debian's bpftrace, if it is installed, and libbpf-tools, which is unpacked into the cache.

use std::any::Any;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use bpf_loader::target::RunningTarget;
use bpf_sys::prog::{self, ProgLoad};
use bpf_sys::uapi::insn::Insn;
use bpf_sys::{LinkFd, ProgFd, ProgType};
use collector::config::Filter;
use collector::tracer::ladder::Forced;
use collector::tracer::syscalls::{INFO, Settings};
use collector::tracer::{self, Start};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The loop of getppid.
struct Workload {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Workload {
    fn start(directory: &Path) -> Result<Self> {
        let program = directory.join("getppid");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/syscalls/getppid.c");
        let compiled = Command::new("gcc").args(["-O2", "-o"]).arg(&program).arg(source).status()?;
        if !compiled.success() {
            return Err(format!("gcc: {compiled}").into());
        }
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Self { child, output })
    }

    /// Nanoseconds of a call.
    fn measure(&mut self) -> Result<f64> {
        self.child.stdin.as_mut().ok_or("no input")?.write_all(b"x")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Programs that do nothing.
fn no_op(tracepoints: &[&std::ffi::CStr]) -> Result<Box<dyn Any>> {
    let insns = [Insn::new(0xb7, 0, 0, 0, 0), Insn::new(0x95, 0, 0, 0, 0)];
    let mut attached: Vec<(ProgFd, LinkFd)> = Vec::new();
    for tracepoint in tracepoints {
        let load = ProgLoad {
            prog_type: ProgType::RAW_TRACEPOINT,
            insns: &insns,
            license: c"GPL",
            ..ProgLoad::default()
        };
        let program = prog::load(&load, None)?;
        let link = prog::raw_tracepoint_open(&program, Some(tracepoint), 0)?;
        attached.push((program, link));
    }
    Ok(Box::new(attached))
}

/// Our tracer, of one process or all.
fn ours(rung: &str, settings: Settings, one_in: u32, pid: Option<u32>) -> Result<Box<dyn Any>> {
    let settings = tracer::Settings { syscalls: settings, ..tracer::Settings::default() };
    let forced = Forced([("system calls".to_owned(), rung.to_owned())].into());
    let filter = Filter { pids: pid.into_iter().collect(), ..Filter::default() };
    let start = Start {
        filter: &filter,
        settings: &settings,
        memory: 4 << 20,
        forced: &forced,
        target: &RunningTarget::new(),
    };
    let mut tracer = (INFO.start)(&start)?;
    tracer.set_sampling(one_in)?;
    Ok(Box::new(tracer))
}

/// A peer that runs until it is dropped.
struct Peer(Child);

impl Peer {
    /// None of them says reliably when it is attached, so all are given the same time.
    fn start(command: &[String]) -> Result<Box<dyn Any>> {
        let (program, arguments) = command.split_first().ok_or("no command")?;
        let mut command = Command::new(program);
        let child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut peer = Self(child);
        std::thread::sleep(Duration::from_secs(5));
        match peer.0.try_wait()? {
            Some(status) => Err(format!("it ended: {status}").into()),
            None => Ok(Box::new(peer)),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Debian trixie's syscount, unpacked.
fn syscount() -> Result<Vec<String>> {
    let packages = ["trixie", "libbpf-tools", "libc6", "libelf1t64", "zlib1g", "libzstd1"];
    let unpack = Path::new(env!("CARGO_MANIFEST_DIR")).join("lib/apt-unpack");
    let output = Command::new(unpack).args(packages).stderr(Stdio::null()).output()?;
    let root = String::from_utf8(output.stdout)?;
    let root = root.trim();
    let program = ["syscount", "syscount-libbpf"].map(|name| format!("{root}/usr/sbin/{name}"));
    let program = program.into_iter().find(|path| Path::new(path).exists()).ok_or("not in libbpf-tools")?;
    let loader = format!("{root}/usr/lib64/ld-linux-x86-64.so.2");
    // Its results are no use here: an hour between two of them.
    let options = ["-P", "-i", "3600"].map(String::from);
    let start = [loader, "--library-path".into(), format!("{root}/usr/lib/x86_64-linux-gnu"), program];
    Ok(start.into_iter().chain(options).collect())
}

const BPFTRACE_COUNT: &str = "tracepoint:raw_syscalls:sys_exit { @[pid, args->id] = count(); }";
const BPFTRACE_LATENCY: &str = "tracepoint:raw_syscalls:sys_enter { @s[tid] = nsecs; } \
     tracepoint:raw_syscalls:sys_exit /@s[tid]/ { @[pid, args->id] = hist(nsecs - @s[tid]); delete(@s[tid]); }";

type Attach = Box<dyn Fn(u32) -> Result<Box<dyn Any>>>;

fn cases() -> Vec<(&'static str, Attach)> {
    let exact = |scale| Settings { every_duration: true, scale, ..Settings::default() };
    let mut cases: Vec<(&'static str, Attach)> = vec![
        ("bare", Box::new(|_| Ok(Box::new(())))),
        ("programs that do nothing, both tracepoints", Box::new(|_| no_op(&[c"sys_enter", c"sys_exit"]))),
        ("one that does nothing, return alone", Box::new(|_| no_op(&[c"sys_exit"]))),
        ("ours, as it comes", Box::new(|_| ours("tp_btf", Settings::default(), 1, None))),
        (
            "ours, as it comes, of one process",
            Box::new(|pid| ours("tp_btf", Settings::default(), 1, Some(pid))),
        ),
        ("ours, every duration", Box::new(move |_| ours("tp_btf", exact(2), 1, None))),
        ("ours, every duration, scale 0", Box::new(move |_| ours("tp_btf", exact(0), 1, None))),
        ("ours, every duration, scale 3", Box::new(move |_| ours("tp_btf", exact(3), 1, None))),
        ("ours, every duration, of one process", Box::new(move |pid| ours("tp_btf", exact(2), 1, Some(pid)))),
        ("ours, of another process", Box::new(|_| ours("tp_btf", Settings::default(), 1, Some(1)))),
        ("ours, raw_tp, as it comes", Box::new(|_| ours("raw_tp", Settings::default(), 1, None))),
        ("ours, raw_tp, every duration", Box::new(move |_| ours("raw_tp", exact(2), 1, None))),
        ("ours, tracepoint, as it comes", Box::new(|_| ours("tracepoint", Settings::default(), 1, None))),
        ("ours, tracepoint, every duration", Box::new(move |_| ours("tracepoint", exact(2), 1, None))),
    ];
    let bpftrace = |script: &'static str| -> Attach {
        Box::new(move |_| Peer::start(&["bpftrace", "-e", script].map(String::from)))
    };
    cases.push(("bpftrace, counts", bpftrace(BPFTRACE_COUNT)));
    cases.push(("bpftrace, histogram of durations", bpftrace(BPFTRACE_LATENCY)));
    match syscount() {
        Ok(command) => {
            let latency: Vec<String> = command.iter().cloned().chain(["-L".to_owned()]).collect();
            cases.push(("libbpf-tools syscount", Box::new(move |_| Peer::start(&command))));
            cases.push(("libbpf-tools syscount -L (sums)", Box::new(move |_| Peer::start(&latency))));
        }
        Err(error) => eprintln!("not measured: libbpf-tools syscount: {error}"),
    }
    cases
}

fn main() -> Result<()> {
    let rounds: usize = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(5);
    let directory = std::env::temp_dir().join(format!("bench-syscalls-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let workload = Workload::start(&directory);
    std::fs::remove_dir_all(&directory)?;
    let mut workload = workload?;
    let cases = cases();
    let mut times = vec![Vec::new(); cases.len()];
    for round in 0..rounds {
        for ((name, attach), times) in cases.iter().zip(&mut times) {
            match attach(workload.child.id()) {
                Ok(attached) => {
                    times.push(workload.measure()?);
                    drop(attached);
                }
                Err(error) if round == 0 => eprintln!("not measured: {name}: {error}"),
                Err(_) => {}
            }
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied()
    };
    let medians: Vec<Option<f64>> = times.iter_mut().map(median).collect();
    let no_op = medians.get(1).copied().flatten().unwrap_or(f64::NAN);
    println!("{:48}{:>8}{:>12}", "getppid", "ns", "x no-op");
    for ((name, _), time) in cases.iter().zip(medians) {
        if let Some(time) = time {
            println!("{name:48}{time:>8.0}{:>12.2}", time / no_op);
        }
    }
    Ok(())
}
