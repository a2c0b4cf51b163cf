//! What watching the scheduler costs whoever is switched: two processes that wake each other through pipes, alone and beside
//! each tool, in one run. Rounds are interleaved; the fastest pass of a round and the median of the rounds are shown. Needs
//! root and a C compiler; the peers are bpftrace's `runqlat.bt` and, where `tests/bench/profile` has unpacked it, `runqlat` of
//! libbpf-tools.
//!
//!     cargo bench -p tests --bench sched [-- ROUNDS]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use collector::config::Filter;
use collector::telemetry::Recorder;
use collector::tracer::ladder::Forced;
use collector::tracer::sched::{INFO, SWITCHES};
use collector::tracer::{Settings, Start, Tracer};

/// Round trips of a pass, and passes of a round.
const TRIPS: &str = "20000";
const PASSES: &str = "10";

/// What runs beside the two.
enum Beside {
    Nothing,
    /// The tracer on this rung, with times of one switch in so many.
    Ours(&'static str, u32),
    Bpftrace,
    LibbpfTools,
}

const VARIANTS: &[(&str, Beside)] = &[
    ("bare", Beside::Nothing),
    ("ours, tp_btf", Beside::Ours("tp_btf", 1)),
    ("ours, tp_btf, times of one in 16", Beside::Ours("tp_btf", 16)),
    ("ours, raw_tp", Beside::Ours("raw_tp", 1)),
    ("ours, tracepoint", Beside::Ours("tracepoint", 1)),
    ("bpftrace runqlat.bt", Beside::Bpftrace),
    ("libbpf-tools runqlat", Beside::LibbpfTools),
    ("libbpf-tools runqlat -P, by process", Beside::LibbpfTools),
];

fn main() {
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(5);
    let pingpong = compile();
    let mut found: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for (index, (name, beside)) in VARIANTS.iter().enumerate() {
            match measure(&pingpong, beside, name.contains("-P")) {
                Ok(nanos) => found.entry(index).or_default().push(nanos),
                Err(reason) => eprintln!("not measured: {name}: {reason}"),
            }
        }
    }
    let _ = std::fs::remove_file(&pingpong);
    let bare = found.get_mut(&0).map_or(f64::NAN, |rounds| median(rounds));
    println!("{:<40} {:>12} {:>8} {:>8}", "", "ns a switch", "more", "of bare");
    for (index, rounds) in &mut found {
        let nanos = median(rounds);
        let name = VARIANTS[*index].0;
        println!("{name:<40} {nanos:>12.0} {:>8.0} {:>7.2}x", nanos - bare, nanos / bare);
    }
}

fn compile() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/sched/pingpong.c");
    let to = std::env::temp_dir().join(format!("pingpong-{}", std::process::id()));
    let done = Command::new("cc").arg("-O2").arg("-o").arg(&to).arg(source).status();
    assert!(done.is_ok_and(|status| status.success()), "cc is needed");
    to
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn start(rung: &str, one_in: u32) -> Result<Box<dyn Tracer>, String> {
    let tracer = (INFO.start)(&Start {
        filter: &Filter::default(),
        settings: &Settings::default(),
        memory: 4 << 20,
        forced: &Forced([(SWITCHES.what.to_owned(), rung.to_owned())].into()),
        target: &RunningTarget::new(),
    });
    let mut tracer = tracer.map_err(|error| error.to_string())?;
    tracer.set_sampling(one_in).map_err(|error| error.to_string())?;
    Ok(tracer)
}

fn measure(pingpong: &Path, beside: &Beside, by_process: bool) -> Result<f64, String> {
    match beside {
        Beside::Nothing => run(pingpong, None),
        Beside::Ours(rung, one_in) => run(pingpong, Some(&mut *start(rung, *one_in)?)),
        Beside::Bpftrace => within(pingpong, Command::new("bpftrace").arg("/usr/sbin/runqlat.bt")),
        Beside::LibbpfTools => {
            let mut runqlat = libbpf_tools("runqlat-libbpf")?;
            within(pingpong, if by_process { runqlat.arg("-P") } else { &mut runqlat })
        }
    }
}

/// A command of libbpf-tools, which needs its own C library.
fn libbpf_tools(name: &str) -> Result<Command, String> {
    let cache = std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| "/root/.cache".to_owned());
    let packages = std::fs::read_dir(Path::new(&cache).join("ebpf-otlp/packages"));
    let packages = packages.map_err(|error| error.to_string())?.flatten().map(|entry| entry.path());
    let root = packages.into_iter().find(|path| path.join("usr/sbin").join(name).exists());
    let root = root.ok_or("libbpf-tools are not unpacked")?;
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(&libraries).arg(root.join("usr/sbin").join(name));
    Ok(command)
}

/// Runs the two beside a command that watches until it is stopped.
fn within(pingpong: &Path, command: &mut Command) -> Result<f64, String> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child: Child = child.map_err(|error| error.to_string())?;
    // Neither says when it is ready in a way that a pipe passes on.
    sleep(Duration::from_secs(4));
    let ended = child.try_wait().map_err(|error| error.to_string())?;
    let nanos = run(pingpong, None);
    let _ = child.kill();
    let _ = child.wait();
    if ended.is_some() { Err("it ended".to_owned()) } else { nanos }
}

/// Nanoseconds of a switch in the fastest pass. The tracer collects every second meanwhile, as the agent does.
fn run(pingpong: &Path, mut tracer: Option<&mut dyn Tracer>) -> Result<f64, String> {
    let child = Command::new(pingpong).args([TRIPS, PASSES]).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| error.to_string())?;
    let mut last = Instant::now();
    while child.try_wait().map_err(|error| error.to_string())?.is_none() {
        sleep(Duration::from_millis(20));
        if let Some(tracer) = tracer.as_deref_mut().filter(|_| last.elapsed() >= Duration::from_secs(1)) {
            tracer.collect(&mut Recorder::default()).map_err(|error| error.to_string())?;
            last = Instant::now();
        }
    }
    let mut text = String::new();
    child.stdout.take().ok_or("no output")?.read_to_string(&mut text).map_err(|error| error.to_string())?;
    let passes = text.lines().filter_map(|line| line.parse::<f64>().ok());
    passes.min_by(f64::total_cmp).ok_or_else(|| "it failed".to_owned())
}
