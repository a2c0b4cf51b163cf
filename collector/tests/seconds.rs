//! What `profile` shows of each second: `--top`, and the page in which a part of the time can be chosen.

use std::process::{Child, Command, Output};

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebpf-otlp"));
    command.args(args).env_remove("OTEL_EXPORTER_OTLP_ENDPOINT").output().unwrap()
}

/// A program that keeps one CPU busy, and is ended with the test.
struct Busy(Child);

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn seconds_are_shown_and_kept() {
    let check = run(&["check", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&check.stdout).unwrap();
    if report["usable"] != true {
        eprintln!("skip: `ebpf-otlp check` says that profile cannot run here");
        return;
    }
    let busy = Busy(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap());
    let path = std::env::temp_dir().join(format!("ebpf-otlp-seconds-{}.html", std::process::id()));
    let pid = busy.0.id().to_string();
    let args = ["profile", "--pid", &pid, "--duration", "3s", "--top", "--output", path.to_str().unwrap()];
    let output = run(&args);
    let page = std::fs::read_to_string(&path);
    let _ = std::fs::remove_file(&path);
    let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    // No terminal: one text after the other.
    assert!(!shown.contains('\x1b'), "{shown}");
    let heads: Vec<&str> = shown.lines().filter(|line| line.contains(" cores busy, ")).collect();
    assert!((3..=4).contains(&heads.len()), "{shown}");
    assert!(heads[0].starts_with("1 s: ") && heads[2].starts_with("3 s: "), "{shown}");
    let page = page.unwrap();
    let number = |name: &str| -> u64 {
        let value = page.split(&format!(" {name}=\"")).nth(1).unwrap_or_else(|| panic!("no {name}"));
        value.split('"').next().unwrap().parse().unwrap()
    };
    assert!((3..=4).contains(&number("data-slots")));
    assert_eq!(number("data-slot-seconds"), 1);
    // Of all samples, and those of each second.
    let times = page.split(" data-t=\"").nth(1).unwrap().split('"').next().unwrap();
    let sum: u64 = times.split(' ').map(|slot| slot.split_once(':').unwrap().1.parse::<u64>().unwrap()).sum();
    assert_eq!(sum, number("data-n"));
    assert!(said.contains(&format!("{sum} samples")), "{said}");
}
