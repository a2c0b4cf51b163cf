//! The examples, run as a user runs them. `cargo test` builds them.

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

#[cfg(target_arch = "x86_64")]
#[path = "support/probe.rs"]
mod probe;

/// An example that is running, or `None`, with the reason printed, for want of rights.
fn start(name: &str, args: &[&str]) -> Option<Child> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP {name}: needs root");
        return None;
    }
    // Beside the directory of the test programs.
    let this = std::env::current_exe().unwrap();
    let path: PathBuf = this.parent().unwrap().parent().unwrap().join("examples").join(name);
    let child = Command::new(&path).args(args).stdout(Stdio::piped()).spawn();
    Some(child.unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// Waits for the example's end, and gives what it printed.
fn finish(example: Child) -> String {
    let output = example.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

/// A program of a name that nobody else's has, started `times` times.
fn run_named(name: &str, times: u32) {
    let program = std::env::temp_dir().join(name);
    std::fs::copy("/bin/true", &program).unwrap();
    for _ in 0..times {
        assert!(Command::new(&program).status().unwrap().success());
    }
    std::fs::remove_file(&program).unwrap();
}

#[test]
fn tracepoint() {
    let Some(mut example) = start("tracepoint", &["3"]) else { return };
    let mut out = BufReader::new(example.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "counting for 3 seconds\n");
    let name = format!("tp-{}", std::process::id());
    run_named(&name, 5);
    // All lines, since the example cannot write to a pipe that nobody reads.
    let lines: Vec<String> = out.lines().map(Result::unwrap).collect();
    assert!(lines.contains(&format!("     5 {name}")), "{lines:?}");
    assert!(example.wait().unwrap().success());
}

#[test]
fn ring_buffer() {
    let Some(example) = start("ring_buffer", &["3"]) else { return };
    sleep(Duration::from_millis(1500));
    let name = format!("rb-{}", std::process::id());
    run_named(&name, 5);
    let text = finish(example);
    assert_eq!(text.lines().filter(|line| line.ends_with(&name)).count(), 5, "{text}");
    assert!(text.ends_with("0 records lost: the ring was full\n"), "{text}");
}

#[test]
fn xdp() {
    let Some(example) = start("xdp", &["lo", "3"]) else { return };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..30 {
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        sleep(Duration::from_millis(100));
    }
    let text = finish(example);
    let udp =
        text.lines().filter_map(|line| line.split_once("UDP: ")?.1.split(' ').next()?.parse::<u32>().ok());
    // Others use the device too, and the example needs a moment to start.
    assert!(udp.sum::<u32>() >= 15, "{text}");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn usdt() {
    let path = std::env::current_exe().unwrap();
    let path = path.to_str().unwrap();
    let Some(mut example) = start("usdt", &[path, "ebpf_otlp_test", "counted", "3"]) else { return };
    while probe::EBPF_OTLP_TEST_SEMAPHORE.0.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        assert!(example.try_wait().unwrap().is_none(), "the example ended before it watched");
        sleep(Duration::from_millis(10));
    }
    for _ in 0..7 {
        probe::probe(-5, 0, &0);
    }
    let text = finish(example);
    assert!(text.ends_with("passed 7 times; first argument 0xfffffffffffffffb\n"), "{text}");
}
