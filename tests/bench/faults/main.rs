//! What counting page faults costs the process that has them: a loop that touches fresh pages, alone and beside each tool, in
//! one run. Rounds are interleaved; the fastest pass of a round and the median of the rounds are shown. Needs root and a C
//! compiler; the peers are `perf` and `bpftrace`, where they are installed. Beside it, what a look at all threads takes.
//!
//!     cargo bench -p tests --bench faults [-- ROUNDS]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use collector::config::Filter;
use collector::sorted::SortedMap;
use collector::telemetry::Recorder;
use collector::tracer::ladder::Forced;
use collector::tracer::memory::{FAULT_COUNTS, FAULT_STACKS, INFO, Settings as Memory};
use collector::tracer::{Settings, Start, Tracer};

/// Pages of a pass, and passes of a round.
const PAGES: &str = "1000";
const PASSES: &str = "500";

/// What runs beside the loop.
enum Beside {
    Nothing,
    /// The tracer with this rung for faults, and stacks of one in so many.
    Ours(&'static str, u64),
    /// The loop runs within this command.
    Within(&'static [&'static str]),
    /// This command runs too, and says on its output when it is ready.
    Command(&'static [&'static str]),
}

const VARIANTS: &[(&str, Beside)] = &[
    ("bare", Beside::Nothing),
    ("ours, accounting", Beside::Ours("accounting", 0)),
    ("ours, accounting and stacks of one in 1000", Beside::Ours("accounting", 1000)),
    ("ours, perf", Beside::Ours("perf", 0)),
    ("perf stat -e page-faults, of the loop", Beside::Within(&["perf", "stat", "-e", "page-faults", "--"])),
    ("perf stat -e page-faults -a", Beside::Within(&["perf", "stat", "-a", "-e", "page-faults", "--"])),
    (
        "bpftrace software:page-faults:1",
        Beside::Command(&[
            "bpftrace",
            "-e",
            "BEGIN { printf(\"ready\\n\"); } software:page-faults:1 { @[pid, comm] = count(); }",
        ]),
    ),
];

fn main() {
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(5);
    let touch = compile();
    let mut found: SortedMap<usize, Vec<f64>> = SortedMap::new();
    for _ in 0..rounds {
        for (index, (name, beside)) in VARIANTS.iter().enumerate() {
            match measure(&touch, beside) {
                Ok(nanos) => found.entry(index).or_default().push(nanos),
                Err(reason) => eprintln!("not measured: {name}: {reason}"),
            }
        }
    }
    let bare = found.get_mut(&0).map_or(f64::NAN, |rounds| median(rounds));
    println!("{:<46} {:>10} {:>8}", "", "ns a fault", "of bare");
    for (index, rounds) in &mut found {
        let nanos = median(rounds);
        println!("{:<46} {nanos:>10.1} {:>7.2}x", VARIANTS[*index].0, nanos / bare);
    }
    look();
}

fn compile() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/faults/touch.c");
    let to = std::env::temp_dir().join(format!("touch-{}", std::process::id()));
    let done = Command::new("cc").arg("-O2").arg("-o").arg(&to).arg(source).status();
    assert!(done.is_ok_and(|status| status.success()), "cc is needed");
    to
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn start(rung: &str, fault_stacks: u64) -> Result<Box<dyn Tracer>, String> {
    let forced = SortedMap::from([(FAULT_COUNTS.what.to_owned(), rung.to_owned())]);
    let tracer = (INFO.start)(&Start {
        filter: &Filter::default(),
        settings: &Settings { memory: Memory { fault_stacks, ..Memory::default() }, ..Settings::default() },
        memory: 4 << 20,
        forced: &Forced(forced),
        target: &RunningTarget::new(),
    });
    let tracer = tracer.map_err(|error| error.to_string())?;
    let lacks = |what: &str| tracer.rungs().iter().any(|chosen| chosen.what == what && chosen.rung.is_none());
    if lacks(FAULT_COUNTS.what) || (fault_stacks > 0 && lacks(FAULT_STACKS.what)) {
        return Err("the kernel lacks it".to_owned());
    }
    Ok(tracer)
}

fn measure(touch: &Path, beside: &Beside) -> Result<f64, String> {
    let mut loop_alone = Command::new(touch);
    match beside {
        Beside::Nothing => run(&mut loop_alone, None),
        Beside::Ours(rung, stacks) => {
            let mut tracer = start(rung, *stacks)?;
            run(&mut loop_alone, Some(&mut *tracer))
        }
        Beside::Within(command) => {
            let mut within = Command::new(command[0]);
            within.args(&command[1..]).arg(touch);
            run(&mut within, None)
        }
        Beside::Command(command) => {
            let mut beside = Beside::spawn(command)?;
            let nanos = run(&mut loop_alone, None);
            let _ = beside.kill();
            let _ = beside.wait();
            nanos
        }
    }
}

impl Beside {
    fn spawn(command: &[&str]) -> Result<Child, String> {
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut out = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            if out.read_line(&mut line).map_err(|error| error.to_string())? == 0 {
                return Err("it ended before it was ready".to_owned());
            }
        }
        // Whatever else it says is read, so that it does not wait for that.
        std::thread::spawn(move || out.read_to_end(&mut Vec::new()));
        Ok(child)
    }
}

/// Nanoseconds of a fault in the fastest pass. The tracer collects every second meanwhile, as the agent does.
fn run(command: &mut Command, mut tracer: Option<&mut dyn Tracer>) -> Result<f64, String> {
    let command = command.args([PAGES, PASSES]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
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

/// What a window's end costs the agent, by how many threads there are.
fn look() {
    let mut tracer = match start("accounting", 0) {
        Ok(tracer) => tracer,
        Err(reason) => return println!("not measured: a look at all threads: {reason}"),
    };
    let threads = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let threads = threads.split('/').nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("?").to_owned();
    const LOOKS: u64 = 50;
    let began = cpu_nanos();
    for _ in 0..LOOKS {
        let _ = tracer.collect(&mut Recorder::default());
    }
    let micros = (cpu_nanos() - began) / LOOKS / 1000;
    let maps = tracer.map_bytes() / 1024;
    println!("the end of a window, {threads} threads: {micros} us of CPU time; {maps} KiB of maps");
}

/// CPU time of this thread.
fn cpu_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}
