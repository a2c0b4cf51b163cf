//! What a binary says of the features that it was built without: run with and without default features.

use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebpf-otlp"));
    command.args(args).env_remove("OTEL_EXPORTER_OTLP_ENDPOINT").output().unwrap()
}

/// Whether there are pictures, or no command that would write them.
const PICTURES: bool = cfg!(feature = "pictures") || !cfg!(feature = "terminal");

const REFUSALS: [(&str, bool, &[&str]); 24] = [
    ("terminal", cfg!(feature = "terminal"), &["profile", "--duration", "1ms"]),
    ("terminal", cfg!(feature = "terminal"), &["network", "--duration", "1ms"]),
    ("terminal", cfg!(feature = "terminal"), &["run", "--duration", "1ms", "--only", "process"]),
    ("terminal", cfg!(feature = "terminal"), &["completions", "bash"]),
    ("terminal", cfg!(feature = "terminal"), &["config", "--example"]),
    ("json", cfg!(feature = "json"), &["check", "--json"]),
    ("json", cfg!(feature = "json"), &["run", "--output", "/nonexistent/x.jsonl"]),
    ("json", cfg!(feature = "json"), &["run", "--endpoint", "file:///nonexistent"]),
    ("json", cfg!(feature = "json"), &["run", "--endpoint", "http://127.0.0.1:9"]),
    ("inspect", cfg!(feature = "inspect"), &["inspect", "/dev/null"]),
    ("compare", cfg!(feature = "compare"), &["compare", "a.otlp", "b.otlp"]),
    ("load", cfg!(feature = "load"), &["load", "/dev/null"]),
    ("listen", cfg!(feature = "listen"), &["run", "--set", "agent.listen=127.0.0.1:0"]),
    (
        "spool",
        cfg!(feature = "spool"),
        &["run", "--endpoint", "http://127.0.0.1:9", "--spool", "/nonexistent"],
    ),
    (
        "spool",
        cfg!(feature = "spool") || cfg!(not(feature = "terminal")),
        &["profile", "--endpoint", "http://127.0.0.1:9", "--spool", "/nonexistent", "--duration", "1ms"],
    ),
    ("btf-generate", cfg!(feature = "btf-generate"), &["btf", "minimize", "--output", "/nonexistent/x.btf"]),
    ("pictures", PICTURES, &["profile", "--output", "/nonexistent/x.svg"]),
    ("pictures", PICTURES, &["profile", "--output", "/nonexistent/x.folded"]),
    ("pictures", PICTURES, &["memory", "--output", "/nonexistent/x.pb.gz"]),
    ("proxy", cfg!(feature = "proxy"), &["run", "--endpoint", "http://192.0.2.1:4318"]),
    ("tls", cfg!(feature = "tls"), &["run", "--endpoint", "https://127.0.0.1:9"]),
    ("tls", cfg!(feature = "tls"), &["run", "--set", "export.endpoints=https://127.0.0.1:9"]),
    ("grpc", cfg!(feature = "grpc"), &["run", "--endpoint", "http://127.0.0.1:9"]),
    ("grpc", cfg!(feature = "grpc"), &["run", "--endpoint", "http://127.0.0.1:9", "--duration", "1ms"]),
];

#[test]
fn what_is_left_out_is_refused_by_name() {
    for (feature, built_in, args) in REFUSALS {
        if built_in {
            continue;
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_ebpf-otlp"));
        if ["grpc", "json"].contains(&feature) {
            let protocol = if feature == "grpc" { "grpc" } else { "http/json" };
            command.env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        }
        // Of no effect on all the others, whose receivers are on this host.
        command.env("http_proxy", "http://127.0.0.1:9");
        let output = command.args(args).env_remove("OTEL_EXPORTER_OTLP_ENDPOINT").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(&format!("feature `{feature}`")), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    }
}

#[test]
fn the_version_lists_features() {
    let output = run(&["--version"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let [version, built_in, left_out] = lines[..] else { panic!("{text}") };
    assert_eq!(version, concat!("ebpf-otlp ", env!("CARGO_PKG_VERSION")));
    for (feature, is) in [
        ("btf-generate", cfg!(feature = "btf-generate")),
        ("compare", cfg!(feature = "compare")),
        ("demangle-cpp", cfg!(feature = "demangle-cpp")),
        ("dwarf", cfg!(feature = "dwarf")),
        ("grpc", cfg!(feature = "grpc")),
        ("gzip", cfg!(feature = "gzip")),
        ("inspect", cfg!(feature = "inspect")),
        ("json", cfg!(feature = "json")),
        ("listen", cfg!(feature = "listen")),
        ("load", cfg!(feature = "load")),
        ("pictures", cfg!(feature = "pictures")),
        ("proxy", cfg!(feature = "proxy")),
        ("service", cfg!(feature = "service")),
        ("source-lines", cfg!(feature = "source-lines")),
        ("spool", cfg!(feature = "spool")),
        ("symbols", cfg!(feature = "symbols")),
        ("terminal", cfg!(feature = "terminal")),
        ("tls", cfg!(feature = "tls")),
    ] {
        assert_eq!(built_in.contains(feature), is, "{text}");
        assert_eq!(left_out.contains(feature), !is, "{text}");
    }
}
