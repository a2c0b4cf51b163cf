//! `ebpf-otlp compare` as a user runs it, on files that Go wrote.

use std::path::PathBuf;
use std::process::{Command, Output};

fn seed(name: &str) -> String {
    format!("{}/../fuzz/seeds/read_profile/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn compare(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ebpf-otlp")).arg("compare").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder of this test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("ebpf-otlp-compare-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The shares are what `go tool pprof -top` prints of each file.
#[test]
fn tables_and_json_say_what_changed() {
    let (before, after) = (seed("go-cpu.pb.gz"), seed("go-cpu-2.pb.gz"));
    let table = compare(&[&before, &after, "--top", "2"]);
    assert_eq!((table.status.code(), &*text(&table.stderr)), (Some(0), ""));
    let table = text(&table.stdout);
    assert!(table.contains("  93.2   58.0  -35.2    93.2   58.0  -35.2  crypto/sha256.block\n"), "{table}");
    assert!(table.contains("   2.7   14.7  +12.0     4.1   29.3  +25.2  sort.partition\n"), "{table}");
    assert!(table.contains("(and 12 more functions)"), "{table}");

    let json = compare(&[&before, &after, "--json", "--top", "1"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["before"]["total"], &json["after"]["total"]), (&148.into(), &150.into()));
    assert_eq!(json["functions"].as_array().unwrap().len(), 1);
    let function = &json["functions"][0];
    assert_eq!((&function["name"], &function["module"]), (&"crypto/sha256.block".into(), &"work".into()));
    assert_eq!((&function["before"]["own"], &function["own_may_be_chance"]), (&138.into(), &false.into()));
}

#[test]
fn pictures_are_files() {
    let folder = Folder::new();
    let path = |name: &str| folder.0.join(name).to_str().unwrap().to_owned();
    let (svg, html, folded) = (path("d.svg"), path("d.html"), path("d.folded"));
    let (before, after) = (seed("go-cpu.pb.gz"), seed("go-cpu-2.pb.gz"));
    let output = compare(&[&before, &after, "--output", &svg, "--output", &html, "--output", &folded]);
    assert_eq!((output.status.code(), &*text(&output.stdout)), (Some(0), ""), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("d.html: go-cpu-2.pb.gz compared with go-cpu.pb.gz\n"));
    assert!(std::fs::read_to_string(svg).unwrap().contains("data-before=\"148\""));
    assert!(std::fs::read_to_string(html).unwrap().starts_with("<!DOCTYPE html>"));
    let folded = std::fs::read_to_string(folded).unwrap();
    let sums = folded.lines().fold((0, 0), |(before, after), line| {
        let mut counts = line.rsplit(' ').map(|count| count.parse::<u64>().unwrap());
        let (now, then) = (counts.next().unwrap(), counts.next().unwrap());
        (before + then, after + now)
    });
    assert_eq!(sums, (148, 150));
}

#[test]
fn what_cannot_be_compared_is_said() {
    let (cpu, heap) = (seed("go-cpu.pb.gz"), seed("go-heap.pb.gz"));
    for (args, code, part) in [
        (&[&*cpu, "/nonexistent/x.otlp"] as &[&str], 1, "cannot read /nonexistent/x.otlp: No such file"),
        (
            &[&cpu, &heap, "--sample-type", "cpu"],
            1,
            "go-heap.pb.gz: has no sample type \"cpu\", but alloc_objects",
        ),
        (&[&cpu], 2, "name two files"),
        (&[&cpu, "x.svg"], 2, ".pb.gz, .pprof"),
        (&[&cpu, &cpu, "--output", "x.otlp"], 2, "cannot hold two profiles"),
    ] {
        let output = compare(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert!(text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
    let unlike = compare(&[&cpu, &heap]);
    assert!(text(&unlike.stdout).contains("count different things"), "{}", text(&unlike.stdout));
}
