//! The agent beside a test.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The `ebpf-otlp` that was built with the test that asks.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a file");
    test.ancestors().nth(2).expect("it is in a folder of the target folder").join("ebpf-otlp")
}

/// Whether the agent can trace here; says so if not.
pub fn can_trace() -> bool {
    let agent = binary();
    if !agent.exists() {
        println!("skipped: {} is not built", agent.display());
        return false;
    }
    let usable = Command::new(agent).arg("check").output().expect("the agent runs").status.success();
    if !usable {
        assert!(
            !rustix::process::geteuid().is_root() || fs::metadata("/sys/fs/bpf").is_err(),
            "root can trace"
        );
        println!("skipped: `ebpf-otlp check` says that nothing can be traced here");
    }
    usable
}
