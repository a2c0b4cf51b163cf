//! `otlp-generate` as a process that may be killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use collector::export::Signal;
use serde_json::Value;

use crate::client::{HEADERS, SECRET};

/// A running generator, killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    kept: Vec<(Signal, u64)>,
}

impl Running {
    /// Starts `generator`, maybe below another command, with these arguments.
    pub fn start(mut command: Command, generator: &Path, arguments: &[&str]) -> Self {
        if command.get_program().is_empty() {
            command = Command::new(generator);
        } else {
            command.arg(generator);
        }
        command.args(arguments).env("OTEL_EXPORTER_OTLP_HEADERS", HEADERS).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the generator runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines, kept: Vec::new() }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many items of `signal` it said that it kept.
    pub fn kept(&self, signal: Signal) -> u64 {
        self.kept.iter().rev().find(|(own, _)| *own == signal).map_or(0, |(_, items)| *items)
    }

    /// The next line that is not about what is kept.
    fn next_other(&mut self, enough: impl Fn(&Self) -> bool) -> Option<String> {
        while !enough(self) {
            let line = self.lines.next()?.expect("text");
            assert!(!line.contains(SECRET), "{line}");
            let words: Vec<&str> = line.split(' ').collect();
            let ["kept", signal, items] = words[..] else { return Some(line) };
            let signal = Signal::ALL.into_iter().find(|own| own.noun() == signal).expect("a signal");
            self.kept.push((signal, items.parse().expect("a number")));
        }
        None
    }

    /// Waits until it has kept `items` of every one of `signals`.
    pub fn wait_kept(&mut self, signals: &[Signal], items: u64) {
        let other = self.next_other(|own| signals.iter().all(|signal| own.kept(*signal) >= items));
        assert_eq!(other, None, "it ended too early");
    }

    /// Kills it as `kill -9` does, and reads what it had said.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        let other = self.next_other(|_| false);
        assert_eq!(other, None, "it ended too early");
        self.child.wait().expect("its end");
    }

    /// Waits for its end: what became of everything, by destination.
    pub fn finish(mut self) -> Value {
        let summary = self.next_other(|_| false).expect("a summary");
        assert!(self.child.wait().expect("its end").success());
        serde_json::from_str(&summary).expect("JSON")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sum of `items` of these counts, `dropped` being all reasons, over all signals of a destination.
pub fn items(destination: &Value, counts: &[&str]) -> u64 {
    let own = |amount: &Value| amount["items"].as_u64().expect("a number");
    let of = |signal: &Value, count: &str| match count {
        "dropped" => signal[count].as_object().expect("reasons").values().map(own).sum(),
        _ => own(&signal[count]),
    };
    let signals = destination["signals"].as_object().expect("signals");
    signals.values().flat_map(|signal| counts.iter().map(move |count| of(signal, count))).sum()
}
