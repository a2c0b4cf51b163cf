//! The memory budget: what `run` takes with every tracer on, measured from outside.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use super::helper::agent;
use super::{is_emulated, is_root, skip};

const MIB: u64 = 1 << 20;

/// What the smallest maps take, on the two to four CPUs of machines that tests run on.
const LEAST_MAPS: u64 = 4 * MIB;
/// What the process takes if it keeps next to nothing. Code that is not optimised is three times as large, and names of its
/// own functions are among those that it keeps.
const LEAST_PROCESS: u64 = if cfg!(debug_assertions) { 24 * MIB } else { 9 * MIB };

/// An agent that ends with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Number after a key in the lines of a file of `/proc`.
fn number(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}

/// Bytes of maps and rings, each counted once.
fn maps(pid: u32) -> u64 {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        if let Some(id) = number(&text, "map_id:") {
            maps.insert(id, number(&text, "memlock:").unwrap_or(0));
        }
    }
    maps.values().sum()
}

/// Resident bytes of a process, without the maps that it has mapped.
fn resident(pid: u32) -> u64 {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut is_map, mut sum) = (false, 0);
    for line in smaps.lines() {
        if let Some(size) = number(line, "Rss:") {
            sum += if is_map { 0 } else { size * 1024 };
        } else if !line.starts_with(|c: char| c.is_ascii_uppercase()) {
            is_map = line.ends_with("anon_inode:bpf-map");
        }
    }
    sum
}

/// Process and maps of an agent that has started with a budget.
fn measure(budget: u64) -> (u64, u64) {
    let mebi = budget / MIB;
    let mut command = agent();
    // Only what this test does, which waits: other processes' symbols are no part of what is measured.
    command.args(["--pid", &std::process::id().to_string()]);
    command.args(["--interval", "1s", "--duration", "60s", "--memory-budget", &format!("{mebi}M")]);
    let mut agent = Agent(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let pid = agent.0.id();
    let said = BufReader::new(agent.0.stderr.take().unwrap());
    let split = format!("ebpf-otlp: memory: {mebi}M: ");
    assert!(said.lines().map_while(Result::ok).any(|line| line.starts_with(&split)), "the split is told");
    // Two windows, after which it has given back what it does not need.
    let shown = BufReader::new(agent.0.stdout.take().unwrap());
    let heads = shown.lines().map_while(Result::ok).filter(|line| line.contains(": tracing costs "));
    assert!(heads.take(2).count() == 2, "windows are shown");
    (resident(pid), maps(pid))
}

#[test]
fn maps_and_process_keep_within_the_budget() {
    if !is_root() {
        return skip("the agent needs the right to trace").unwrap_or(());
    }
    let mut before = 0;
    // Each start takes an emulated CPU half a minute.
    let budgets: &[u64] = if is_emulated() { &[4, 32] } else { &[4, 16, 32] };
    for budget in budgets.iter().map(|mebi| mebi * MIB) {
        let (process, maps) = measure(budget);
        println!("{} MiB: process {process}, maps {maps}", budget / MIB);
        assert!(maps <= (budget / 100 * 62).max(LEAST_MAPS), "maps take {maps} of {budget}");
        assert!(process + maps <= budget.max(LEAST_PROCESS + LEAST_MAPS), "{process} + {maps} of {budget}");
        // Some tables grow as they fill.
        assert!(maps + MIB / 4 >= before, "more budget, more maps: {maps}, before {before}");
        before = maps;
    }
    assert!(cfg!(debug_assertions) || before > 8 * MIB, "a budget is used: {before}");
}
