//! The agent that takes another configuration while it runs.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use collector::agent::Agent;
use collector::agent::config::AgentConfig;
use collector::telemetry::Recorder;

use super::{is_emulated, is_root, skip};

/// A shell that signals itself as often as it is told, which is a system call each.
struct Shell {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Shell {
    fn start() -> Self {
        let script =
            "while read n; do i=0; while [ $i -lt $n ]; do kill -0 $$; i=$((i+1)); done; echo done; done";
        let mut command = Command::new("/bin/sh");
        let mut process =
            command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { process, to, from: BufReader::new(from) }
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }

    fn signal(&mut self, times: u32) {
        writeln!(self.to, "{times}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Nothing is counted while a tracer starts again; what was counted before is there, and what comes then.
#[test]
fn numbers_go_on_over_reloads() {
    if !is_root() {
        skip::<()>("reload: needs root");
        return;
    }
    let (mut a, mut b) = (Shell::start(), Shell::start());
    let mut config = AgentConfig::default();
    // To check all programs twice takes an emulated CPU two minutes.
    let only: &[&str] = if is_emulated() {
        &["syscalls", "process"]
    } else {
        &["syscalls", "tcp", "udp", "sched", "process"]
    };
    config.enable_only(&only.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    config.agent.cpu_limit = 0.0;
    config.filter.pids = vec![a.pid()];
    let mut agent = Agent::start(config.clone(), Duration::from_secs(60)).unwrap();
    assert!(agent.failures().is_empty(), "{:?}", agent.failures());
    let mut recorder = Recorder::default();
    let mut hits = Vec::new();
    let mut after = |agent: &mut Agent, a: &mut Shell, b: &mut Shell, times| {
        a.signal(times);
        b.signal(times);
        let report = agent.report();
        assert_eq!((report.tracers.len(), report.ended.len()), (only.len(), 0), "{:?}", agent.failures());
        hits.extend(report.tracers.iter().filter(|tracer| tracer.name == "syscalls").map(|t| t.stats.hits));
    };
    after(&mut agent, &mut a, &mut b, 100);
    // Another filter: some take it while they run.
    config.filter.pids = vec![a.pid(), b.pid()];
    agent.reload(config.clone(), &mut recorder).unwrap();
    after(&mut agent, &mut a, &mut b, 10);
    // Another budget: all start again.
    config.agent.memory_budget = Some(16 << 20);
    agent.reload(config.clone(), &mut recorder).unwrap();
    after(&mut agent, &mut a, &mut b, 1);
    agent.poll(Instant::now() + Duration::from_millis(50), &mut recorder).unwrap();
    // One setting of one of them.
    config.settings.syscalls.every_duration = !config.settings.syscalls.every_duration;
    agent.reload(config.clone(), &mut recorder).unwrap();
    after(&mut agent, &mut a, &mut b, 1000);
    config.filter.pids = vec![b.pid()];
    agent.reload(config.clone(), &mut recorder).unwrap();
    after(&mut agent, &mut a, &mut b, 10_000);
    agent.detach();
    let last = agent.collect(&mut recorder);
    let kill = [("ebpf.syscall.name", "kill")];
    let counted = [&a, &b].map(|shell| recorder.number("ebpf.syscall.calls", shell.pid(), &kill));
    assert_eq!(counted, [1111.0, 11_011.0]);
    hits.extend(last.tracers.iter().filter(|tracer| tracer.name == "syscalls").map(|t| t.stats.hits));
    assert!(hits.is_sorted() && hits.len() == 6 && hits[5] > 12_000, "{hits:?}");
    assert!(agent.failures().is_empty(), "{:?}", agent.failures());
}
