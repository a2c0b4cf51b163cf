//! Names by files that a debuginfod server has, as users of the commands see them.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_ebpf-otlp");
const SOURCE: &str = r#"
#include <stdlib.h>
volatile unsigned long sum;
static inline __attribute__((always_inline)) unsigned long inlined(unsigned long n) { return n * n + sum; }
__attribute__((noinline)) void spin_of_server(void) { for (unsigned long n = 0; n < 100000; n++) sum = inlined(n); }
__attribute__((noinline)) void allocate_of_server(void) { char *p = malloc(1 << 20); *(volatile char *)p = 1; free(p); sum++; }
int main(void) { for (;;) { spin_of_server(); allocate_of_server(); } }
"#;

/// A program that keeps a CPU busy and has no names, and the server that has them. All of it goes with the test.
struct Busy {
    child: Child,
    folder: PathBuf,
    url: String,
}

impl Busy {
    /// The server takes so long to answer.
    fn start(name: &str, delay: Duration) -> Option<Self> {
        Self::start_with(name, delay, &[])
    }

    /// The same, with what is done to the program before its debug information is moved out of it.
    fn start_with(name: &str, delay: Duration, steps: &[&[&str]]) -> Option<Self> {
        let check = Command::new(BINARY).arg("check").output().unwrap();
        if !check.status.success() {
            eprintln!("skip: {name}: `ebpf-otlp check` says that profile cannot run here");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("ebpf-otlp-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let [source, program, debug] = ["busy.c", "busy", "debug"].map(|name| folder.join(name));
        std::fs::write(&source, SOURCE).unwrap();
        let id = "-Wl,--build-id=0x0123456789abcdef";
        let compile: &[&str] = &["cc", "-O1", "-g", "-gdwarf-4", id, "-o", "busy", "busy.c"];
        let split: [&[&str]; 2] = [
            &["objcopy", "--only-keep-debug", "busy", "debug"],
            &["strip", "-R", ".gnu_debugaltlink", "busy"],
        ];
        for step in [compile].iter().chain(steps).chain(&split) {
            let mut command = Command::new(step[0]);
            command.args(&step[1..]).current_dir(&folder);
            if !command.status().is_ok_and(|status| status.success()) {
                eprintln!("skip: {name}: needs {}", step[0]);
                let _ = std::fs::remove_dir_all(&folder);
                return None;
            }
        }
        let mut files = vec![("0123456789abcdef".to_owned(), std::fs::read(debug).unwrap())];
        if let Ok(shared) = std::fs::read(folder.join("shared")) {
            let notes = Command::new("readelf").arg("-n").arg(folder.join("shared")).output().unwrap();
            let notes = text(&notes.stdout);
            let (_, build_id) = notes.split_once("Build ID: ").unwrap();
            files.push((build_id.split_whitespace().next().unwrap().to_owned(), shared));
            std::fs::remove_file(folder.join("shared")).unwrap();
        }
        let url = serve(files, delay);
        let child = Command::new(&program).stdout(Stdio::null()).spawn().unwrap();
        Some(Self { child, folder, url })
    }

    /// Runs the command, whose cache is in the folder.
    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(args).args(["--pid", &self.child.id().to_string()]);
        command.env("CACHE_DIRECTORY", &self.folder).env("DEBUGINFOD_URLS", &self.url);
        command.env("DEBUGINFOD_TIMEOUT", "20").env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
        command
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A server that has these files, by build id. Its thread waits for connections until the tests are over.
fn serve(files: Vec<(String, Vec<u8>)>, delay: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap_or(0) > 0 {}
            std::thread::sleep(delay);
            let is_it = |id: &str| head.starts_with(&format!("GET /buildid/{id}/debuginfo HTTP/1.1\r\n"));
            let file = files.iter().find(|(id, _)| is_it(id));
            let (status, body) =
                file.map_or(("404 Not Found", &[][..]), |(_, file)| ("200 OK", file.as_slice()));
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.get_mut().write_all(&[head.as_bytes(), body].concat());
        }
    });
    url
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_profile_waits_for_the_files_that_its_names_take() {
    let Some(busy) = Busy::start("debuginfod-profile", Duration::from_secs(8)) else { return };
    let output = busy.file("out.folded");
    let said = |args: &[&str]| {
        let ran = busy.run(
            &[&["profile", "--duration", "1s", "--frequency", "199", "--output", &output], args].concat(),
        );
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        (text(&ran.stderr), std::fs::read_to_string(&output).unwrap())
    };
    // Nobody is asked unless the user says so, whatever the environment has.
    let (errors, folded) = said(&[]);
    assert!(!errors.contains("debuginfod: ") && !folded.contains("spin_of_server"), "{errors}{folded}");
    assert!(!busy.folder.join("debuginfod").exists());
    let (errors, folded) = said(&["--debuginfod", "env"]);
    assert!(errors.contains("waiting for ") && errors.contains("debuginfod: 1 files fetched"), "{errors}");
    assert!(folded.contains(";spin_of_server;inlined "), "{folded}");
    // The next one has it from the folder.
    let (errors, folded) = said(&["--debuginfod", "http://127.0.0.1:1"]);
    assert!(errors.contains("debuginfod: 0 files fetched"), "{errors}");
    assert!(folded.contains(";spin_of_server;inlined "), "{folded}");
}

#[test]
fn a_profile_waits_for_what_the_files_that_came_share() {
    let (second, shared): (&[&str], &[&str]) = (
        &["cc", "-O2", "-g", "-gdwarf-4", "-Wl,--build-id=sha1", "-o", "second", "busy.c"],
        &["dwz", "-m", "shared", "busy", "second"],
    );
    let (name, delay) = ("debuginfod-shared", Duration::from_secs(1));
    let Some(busy) = Busy::start_with(name, delay, &[second, shared]) else { return };
    let output = busy.file("out.folded");
    let ran = busy.run(&["profile", "--duration", "1s", "--debuginfod", &busy.url, "--output", &output]);
    let errors = text(&ran.stderr);
    assert!(ran.status.success() && errors.contains("debuginfod: 2 files fetched"), "{errors}");
    let folded = std::fs::read_to_string(&output).unwrap();
    assert!(folded.contains(";spin_of_server;inlined "), "{folded}");
}

#[test]
fn a_profile_that_a_signal_ends_does_not_wait() {
    let Some(busy) = Busy::start("debuginfod-signal", Duration::from_secs(20)) else { return };
    for signal in ["-INT", "-TERM"] {
        let output = busy.file("out.folded");
        let args = ["profile", "--duration", "60s", "--debuginfod", &busy.url, "--output", &output];
        let child = busy.command(&args).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(3));
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
        let at = Instant::now();
        assert!(sent.is_ok_and(|sent| sent.success()));
        let ran = child.wait_with_output().unwrap();
        let (errors, took) = (text(&ran.stderr), at.elapsed());
        assert!(ran.status.success() && std::fs::read(&output).is_ok(), "{errors}");
        assert!(took < Duration::from_secs(10) && !errors.contains("waiting for "), "{took:?}: {errors}");
    }
}

#[test]
fn the_agents_later_windows_have_the_names() {
    let Some(busy) = Busy::start("debuginfod-agent", Duration::ZERO) else { return };
    let output = busy.file("out.jsonl");
    let set = format!("symbols.debuginfod={}", busy.url);
    // Of other machines, the heap tracer knows no arguments.
    let has_heap = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
    let ran = busy.run(&[
        "run",
        "--only",
        if has_heap { "profile,heap" } else { "profile" },
        "--interval",
        "1s",
        "--duration",
        "6s",
        "--cpu-limit",
        "0",
        "--set",
        &set,
        "--output",
        &output,
    ]);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let told = std::fs::read_to_string(&output).unwrap();
    let profiles: Vec<&str> = told.lines().filter(|line| line.contains("resourceProfiles")).collect();
    for name in ["spin_of_server", "allocate_of_server"].into_iter().take(1 + usize::from(has_heap)) {
        let named: Vec<bool> = profiles.iter().map(|line| line.contains(name)).collect();
        assert!(named.contains(&true), "{name}: {named:?}: {}", text(&ran.stderr));
    }
    assert!(told.contains("ebpf.agent.debuginfod.files") && told.contains("ebpf.agent.debuginfod.io"));
}

#[test]
fn servers_that_cannot_be_asked_are_wrong_usage() {
    for (server, part) in [
        ("localhost", "debuginfod: it must begin with http://"),
        ("unix:///run/x.sock", "http:// or https://"),
        ("env", "DEBUGINFOD_URLS"),
    ] {
        for command in ["profile", "run"] {
            let mut asked = Command::new(BINARY);
            asked.args([command, "--debuginfod", server, "--duration", "1ms"]).env_remove("DEBUGINFOD_URLS");
            let output = asked.output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{command} {server}: {}", text(&output.stderr));
            assert!(text(&output.stderr).contains(part), "{}", text(&output.stderr));
        }
    }
}
