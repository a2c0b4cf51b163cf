//! What watching TCP costs a connection: two processes that connect over loopback, one connection after the other, alone and
//! beside each tool, in one run; and what a system call costs meanwhile that has nothing to do with it. Rounds are interleaved;
//! medians are shown, and medians of each round's ratio to bare. Needs root and a C compiler; the peer is what bpftrace's
//! `tcplife.bt` does, on a tracepoint (`tcplife.bt` itself needs kprobes), and, where there are kprobes, `tcplife.bt`.
//!
//!     cargo bench -p tests --bench tcp [-- ROUNDS [CONNECTIONS]]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use bpf_sys::prog::{self, ProgLoad};
use bpf_sys::uapi::insn::Insn;
use bpf_sys::{LinkFd, ProgFd, ProgType};
use collector::config::Filter;
use collector::telemetry::Recorder;
use collector::tracer::ladder::Forced;
use collector::tracer::tcp::{INFO, STATES};
use collector::tracer::{Info, Settings, Start, Tracer, dns, udp};

/// The calls of which one is timed.
const CALLS: &str = "300000";

/// What runs beside the two.
enum Beside {
    Nothing,
    /// Programs that do nothing, where ours are.
    NoOp,
    /// These tracers, that of TCP on this rung.
    Ours(&'static [&'static Info], &'static str),
    Bpftrace(&'static str),
}

const VARIANTS: &[(&str, Beside)] = &[
    ("bare", Beside::Nothing),
    ("bare again", Beside::Nothing),
    ("programs that do nothing", Beside::NoOp),
    ("tcp, tp_btf", Beside::Ours(&[&INFO], "tp_btf")),
    ("tcp, raw_tp", Beside::Ours(&[&INFO], "raw_tp")),
    ("tcp, udp and dns (`network`)", Beside::Ours(&[&INFO, &udp::INFO, &dns::INFO], "tp_btf")),
    ("bpftrace, tcplife on a tracepoint", Beside::Bpftrace("tcplife.bt")),
    ("bpftrace's tcplife.bt", Beside::Bpftrace("/usr/sbin/tcplife.bt")),
];

/// Microseconds of a connection by the clock and of CPU time, and nanoseconds of a call.
type Measured = [f64; 3];

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<usize>().ok());
    let (rounds, connections) = (numbers.next().unwrap_or(9), numbers.next().unwrap_or(5000).to_string());
    let connect = compile();
    let mut found: BTreeMap<usize, Vec<Measured>> = BTreeMap::new();
    let mut refused = vec![false; VARIANTS.len()];
    for _ in 0..rounds {
        for (index, (name, beside)) in VARIANTS.iter().enumerate() {
            if refused[index] {
                continue;
            }
            match measure(&connect, &connections, beside) {
                Ok(measured) => found.entry(index).or_default().push(measured),
                Err(reason) => {
                    refused[index] = true;
                    eprintln!("not measured: {name}: {reason}");
                }
            }
        }
    }
    let _ = std::fs::remove_file(&connect);
    println!("{:36} {:>8} {:>8} {:>8} {:>8} {:>8}", "", "us", "of bare", "CPU us", "of bare", "call ns");
    let bare = found.get(&0).cloned().unwrap_or_default();
    for (index, rounds) in &found {
        let at = |which: usize| median(rounds.iter().map(|measured| measured[which]).collect());
        let ratio = |which: usize| {
            median(rounds.iter().zip(&bare).map(|(ours, bare)| ours[which] / bare[which]).collect())
        };
        println!(
            "{:36} {:8.2} {:7.3}x {:8.2} {:7.3}x {:8.1}",
            VARIANTS[*index].0,
            at(0),
            ratio(0),
            at(1),
            ratio(1),
            at(2)
        );
    }
}

fn compile() -> PathBuf {
    let source = bench("connect.c");
    let to = std::env::temp_dir().join(format!("connect-{}", std::process::id()));
    let done = Command::new("cc").arg("-O2").arg("-o").arg(&to).arg(source).status();
    assert!(done.is_ok_and(|status| status.success()), "cc is needed");
    to
}

fn bench(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/tcp").join(file)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn start(info: &'static Info, rung: &str) -> Result<Box<dyn Tracer>, String> {
    let forced = if info.name == INFO.name { Some((STATES.what.to_owned(), rung.to_owned())) } else { None };
    let tracer = (info.start)(&Start {
        filter: &Filter::default(),
        settings: &Settings::default(),
        memory: 4 << 20,
        forced: &Forced(forced.into_iter().collect()),
        target: &RunningTarget::new(),
    });
    tracer.map_err(|error| error.to_string())
}

/// Programs that do nothing, at the tracepoints that a connection hits.
fn no_op() -> Result<Vec<(ProgFd, LinkFd)>, String> {
    let insns = [Insn::new(0xb7, 0, 0, 0, 0), Insn::new(0x95, 0, 0, 0, 0)];
    let attach = |tracepoint| {
        let load = ProgLoad {
            prog_type: ProgType::RAW_TRACEPOINT,
            insns: &insns,
            license: c"GPL",
            ..ProgLoad::default()
        };
        let program = prog::load(&load, None)?;
        let link = prog::raw_tracepoint_open(&program, Some(tracepoint), 0)?;
        Ok((program, link))
    };
    let tracepoints = [c"inet_sock_set_state", c"tcp_rcv_space_adjust", c"sock_send_length"];
    let attached: bpf_sys::Result<Vec<_>> = tracepoints.into_iter().map(attach).collect();
    attached.map_err(|error| error.to_string())
}

fn measure(connect: &Path, connections: &str, beside: &Beside) -> Result<Measured, String> {
    let run = |tracers: &mut [Box<dyn Tracer>]| run(connect, connections, tracers);
    match beside {
        Beside::Nothing => run(&mut []),
        Beside::NoOp => {
            let _attached = no_op()?;
            run(&mut [])
        }
        Beside::Ours(infos, rung) => {
            let tracers: Result<Vec<_>, String> = infos.iter().map(|info| start(info, rung)).collect();
            run(&mut tracers?)
        }
        Beside::Bpftrace(script) => {
            let script = if script.starts_with('/') { PathBuf::from(script) } else { bench(script) };
            let mut command = Command::new("bpftrace");
            let command =
                command.arg(script).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().map_err(|error| error.to_string())?;
            // It does not say when it is ready in a way that a pipe passes on.
            sleep(Duration::from_secs(4));
            let ended = child.try_wait().map_err(|error| error.to_string())?;
            let measured = run(&mut []);
            let _ = child.kill();
            let _ = child.wait();
            if let Some(status) = ended { Err(format!("it ended: {status}")) } else { measured }
        }
    }
}

/// The tracers collect every second meanwhile, as in the agent.
fn run(connect: &Path, connections: &str, tracers: &mut [Box<dyn Tracer>]) -> Result<Measured, String> {
    let child = Command::new(connect).args([connections, CALLS]).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| error.to_string())?;
    let mut last = Instant::now();
    while child.try_wait().map_err(|error| error.to_string())?.is_none() {
        sleep(Duration::from_millis(20));
        if last.elapsed() >= Duration::from_secs(1) {
            for tracer in &mut *tracers {
                tracer.collect(&mut Recorder::default()).map_err(|error| error.to_string())?;
            }
            last = Instant::now();
        }
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().map_err(|_| "the workload failed".to_owned())
}
