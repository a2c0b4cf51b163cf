//! Processes that tests look at: this test program again, running one of its tests that is ignored otherwise.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The name of what the helper is to do; only helpers have it.
const VARIABLE: &str = "PRIVILEGED_TEST_HELPER";

/// The agent's program, which is to run `run`.
pub fn agent() -> Command {
    let built = env!("CARGO_BIN_EXE_ebpf-otlp");
    // Tests that run on another machine than they were built on find it in the path.
    let mut command = Command::new(if Path::new(built).exists() { built } else { "ebpf-otlp" });
    command.arg("run");
    command
}

/// A helper. It begins when it is told, and is killed at the end.
pub struct Helper(pub Child);

impl Helper {
    /// Starts the test of that name, to do `what`.
    pub fn start(test: &str, what: &str) -> Self {
        let mut helper = Command::new(std::env::current_exe().unwrap());
        helper.args(["--exact", "--ignored", "--nocapture", "--test-threads=1", test]).env(VARIABLE, what);
        Self(helper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Lets it begin.
    pub fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Waits until it says READY, and returns what it said.
    pub fn wait_ready(&mut self) -> String {
        let mut out = Vec::new();
        let mut byte = [0];
        while !out.ends_with(b"READY\n") {
            self.0.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
            out.push(byte[0]);
        }
        String::from_utf8(out).unwrap()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In a helper: waits for the word to begin, and returns what is to be done. `None`: this is no helper.
pub fn task() -> Option<String> {
    let what = std::env::var(VARIABLE).ok()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    Some(what)
}
