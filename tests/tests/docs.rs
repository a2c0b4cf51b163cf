//! The documentation is true: its commands run, its configurations are taken, its links lead somewhere, and the messages that
//! it explains are what the programs say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use collector::agent::config::AgentConfig;
use tests::faults::{Behaviour, Options, Server};
use tests::pages::{self, Block, Page};
use tests::receivers::TempDir;

/// Blocks at a time: agents that start and end at once wait for the same locks of the kernel.
const AT_A_TIME: usize = 2;
/// What durations are replaced by.
const SHORT: &str = "500ms";
/// Commands that run until they are interrupted, unless they are told how long.
const ENDLESS: [&str; 7] = ["run", "profile", "network", "syscalls", "memory", "sched", "disk"];

fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("ebpf-otlp")
}

/// Failures of a kind, all of which are told.
#[derive(Default)]
struct Failures(Mutex<Vec<String>>);

impl Failures {
    fn add(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }
}

impl Drop for Failures {
    fn drop(&mut self) {
        let failures = self.0.get_mut().unwrap();
        assert!(failures.is_empty() || std::thread::panicking(), "\n{}", failures.join("\n"));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A shell in a folder, with the binary as `ebpf-otlp`.
fn shell(command: &str, folder: &Path) -> Output {
    let path =
        format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("timeout");
    shell.args(["--signal=INT", "60", "bash", "-euo", "pipefail", "-c", command]);
    shell.current_dir(folder).env("PATH", path).stdin(Stdio::null());
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("OTEL_") || name.starts_with("EBPF_OTLP_"))
    {
        shell.env_remove(name);
    }
    shell.output().unwrap()
}

/// The words of our own command in a line of shell, up to what is the shell's again.
fn own_command(line: &str) -> Option<Vec<&str>> {
    let is_name = |word: &str| word.trim_start_matches(['<', '$', '(']) == "ebpf-otlp";
    if line.contains("cargo ") {
        return None;
    }
    let mut words = line.split_whitespace().skip_while(|word| !is_name(word));
    words.next()?;
    let words = words.take_while(|word| !word.starts_with(['|', '>', '<', '&', ';', ')']));
    Some(words.map(|word| word.trim_end_matches([')', ';'])).collect())
}

/// That a command line is right, without doing what it says.
fn parses(line: &str) -> Result<(), String> {
    let Some(mut words) = own_command(line) else { return Ok(()) };
    // All that comes before it is read before it.
    words.push("--help");
    let output = Command::new(binary()).args(words).stdin(Stdio::null()).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
}

/// What documents name, and what there is here in its place.
struct Places {
    folder: TempDir,
    pins: PathBuf,
    busy: std::process::Child,
    server: Server,
}

impl Places {
    fn new() -> Self {
        let folder = TempDir::new("docs");
        let options = Options { unnumbered: true, ..Options::default() };
        let server = Server::with(options, |_| Behaviour::default()).unwrap();
        let busy = Command::new("sh").args(["-c", "while :; do sleep 0.01; done"]).spawn().unwrap();
        let pins = PathBuf::from(format!("/sys/fs/bpf/ebpf-otlp-docs-{}", std::process::id()));
        Self { folder, pins, busy, server }
    }

    /// A folder for a block, with the files that documents speak of.
    fn folder(&self, number: usize) -> PathBuf {
        let folder = self.folder.join(number.to_string());
        fs::create_dir(&folder).unwrap();
        let object = pages::root().join("bpf-loader/examples/bpf/prebuilt/tracepoint.bpf.o");
        fs::copy(object, folder.join("program.bpf.o")).unwrap();
        let seeds = pages::root().join("fuzz/seeds/read_profile");
        fs::copy(seeds.join("go-cpu.pb.gz"), folder.join("before.pb.gz")).unwrap();
        fs::copy(seeds.join("go-cpu-2.pb.gz"), folder.join("after.pb.gz")).unwrap();
        let _ = fs::copy("/sys/kernel/btf/vmlinux", folder.join("vmlinux.btf"));
        folder
    }

    /// The line as it is run: soon over, and beside no one's way.
    fn line(&self, line: &str, folder: &Path) -> String {
        let folder = folder.to_str().unwrap();
        let mut line = line.to_owned();
        for (named, ours) in [
            ("http://localhost:4318", self.server.url().trim_end_matches('/')),
            ("127.0.0.1:9464", "127.0.0.1:0"),
            ("/var/lib/ebpf-otlp", &format!("{folder}/spool")),
            ("/sys/fs/bpf/mine", &format!("{}-{}", self.pins.display(), folder.rsplit('/').next().unwrap())),
            ("--pid 1234", &format!("--pid {}", self.busy.id())),
            ("sudo ", ""),
        ] {
            line = line.replace(named, ours);
        }
        let words: Vec<&str> = line.split(' ').collect();
        let mut short: Vec<&str> = Vec::new();
        for word in words {
            let is_value = short.last() == Some(&"--duration");
            short.push(if is_value { SHORT } else { word });
        }
        let is_short = short.contains(&"--duration");
        let mut line = short.join(" ");
        let own = own_command(&line).unwrap_or_default();
        let command = own.first().copied().unwrap_or_default();
        let endless = ENDLESS.contains(&command) || own.contains(&"--attach");
        if endless && !is_short && !own.contains(&"--help") {
            let (end, with) =
                (format!("ebpf-otlp {command}"), format!("ebpf-otlp {command} --duration {SHORT}"));
            line = line.replacen(&end, &with, 1);
        }
        line
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let _ = self.busy.kill();
        let _ = self.busy.wait();
        let name = self.pins.file_name().unwrap().to_string_lossy().into_owned();
        for entry in fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&name) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Whether the commands can trace here; fails where they must be able to.
fn can_trace() -> bool {
    let usable = Command::new(binary()).arg("check").output().unwrap().status.success();
    let must = rustix::process::geteuid().is_root() && Path::new("/sys/fs/bpf").exists();
    assert!(usable || !must, "root can trace");
    usable
}

/// What commands of the project itself must name: parts of the test command, scripts, examples.
fn names_what_exists(line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let root = pages::root();
    let first = words.first().copied().unwrap_or_default();
    if is_script(first) && !root.join(first).is_file() {
        return Err(format!("there is no {first}"));
    }
    if first == "tests/run" {
        let script = fs::read_to_string(root.join(first)).unwrap();
        let parts: Vec<&str> = script
            .lines()
            .filter_map(|line| line.strip_prefix("ALL_PARTS=").or(line.strip_prefix("NAMED_PARTS=")))
            .chain(script.lines().filter_map(|line| line.strip_prefix("ALL_VERSIONS=")))
            .flat_map(|line| line.trim_matches('"').split(' '))
            .collect();
        if let Some(part) = words.iter().skip(1).find(|word| !parts.contains(word)) {
            return Err(format!("tests/run has no part {part}"));
        }
    }
    if first == "cargo" {
        let mut pairs = words.windows(2);
        if let Some([_, name]) = pairs.find(|pair| pair[0] == "--example") {
            let folders = ["bpf-loader", "collector", "bpf-sys", "otlp-encode"];
            if !folders.iter().any(|folder| root.join(folder).join(format!("examples/{name}.rs")).is_file()) {
                return Err(format!("there is no example {name}"));
            }
        } else if let Some((_, own)) = line.split_once(" -- ").filter(|_| words.get(1) == Some(&"run")) {
            return parses(&format!("ebpf-otlp {own}"));
        }
    }
    Ok(())
}

/// What `cargo run` runs, by the name of the binary, which is built already.
fn built(line: &str) -> Option<String> {
    let (cargo, own) = line.split_once(" -- ")?;
    let is_binary = cargo.starts_with("cargo run") && !cargo.contains("--example");
    is_binary.then(|| format!("ebpf-otlp {own}"))
}

/// Whether a command is a script of the project.
fn is_script(command: &str) -> bool {
    command.starts_with("tests/") || command.starts_with("bpf-programs/")
}

fn is_shell(block: &&Block<'_>) -> bool {
    matches!(block.language, "sh" | "bash" | "console")
}

#[test]
fn commands_run() {
    if !binary().exists() {
        println!("SKIP commands: {} is not built", binary().display());
        return;
    }
    let pages = pages::all();
    let blocks: Vec<Block<'_>> = pages.iter().flat_map(Page::blocks).collect();
    let blocks: Vec<&Block<'_>> = blocks.iter().filter(is_shell).collect();
    assert!(!blocks.is_empty());
    let failures = Failures::default();
    let mut runnable = Vec::new();
    for block in &blocks {
        if let Some(reason) = block.not_run {
            println!("only looked at: {}: {reason}", block.place(0));
        } else {
            runnable.push(*block);
        }
        for (at, line) in block.commands() {
            if let Err(error) = parses(&line).and_then(|()| names_what_exists(&line)) {
                failures.add(format!("{}: {line}: {error}", block.place(at)));
            }
        }
    }
    if !can_trace() {
        println!(
            "SKIP running {} blocks: `ebpf-otlp check` says that nothing can be traced here",
            runnable.len()
        );
        return;
    }
    let places = Places::new();
    // What several pages say is run once.
    let done = Mutex::new(BTreeSet::new());
    let queue = Mutex::new(runnable.into_iter().enumerate());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().next();
                    let Some((number, block)) = next else { return };
                    run_block(block, number, &places, &done, &failures);
                }
            });
        }
    });
}

/// Runs what is ours, line by line, in a folder of the block's own.
fn run_block(
    block: &Block<'_>,
    number: usize,
    places: &Places,
    done: &Mutex<BTreeSet<String>>,
    failures: &Failures,
) {
    let folder = places.folder(number);
    for (at, line) in block.commands() {
        let line = built(&line).unwrap_or(line);
        let first = line.split_whitespace().next().unwrap_or_default();
        if first == "cargo" || is_script(first) {
            // Looked at already: to build anew from within a test is too long.
            continue;
        }
        if own_command(&line).is_none() {
            failures.add(format!("{}: {line}: not ours to run: mark the block", block.place(at)));
            continue;
        }
        let short = places.line(&line, &folder);
        // What writes a file may be what the next line reads.
        let anew = line.contains('>') || done.lock().unwrap().insert(essence(&short));
        if !anew {
            continue;
        }
        let start = std::time::Instant::now();
        let mut output = shell(&short, &folder);
        println!("{:>5} ms {}: {short}", start.elapsed().as_millis(), block.place(at));
        if !output.status.success() {
            // A machine that is busy with other tests may be too slow to send all by the end; not so twice.
            println!("again: {}", text(&output.stderr));
            output = shell(&short, &folder);
        }
        if !output.status.success() {
            let (code, signal) = (output.status.code(), output.status.signal());
            let said = text(&output.stderr);
            failures.add(format!("{}: {short}: exit {code:?}, signal {signal:?}\n{said}", block.place(at)));
        }
        if line.contains(" --json") {
            let undocumented = undocumented_fields(&line, &text(&output.stdout));
            undocumented.into_iter().for_each(|field| {
                failures.add(format!("{line}: docs/json.md does not say what {field} is"));
            });
        }
    }
}

/// Fields of what a command printed that its part of docs/json.md does not have.
fn undocumented_fields(line: &str, printed: &str) -> BTreeSet<String> {
    let command = own_command(line).and_then(|words| words.first().copied()).unwrap_or_default();
    let page = fs::read_to_string(pages::root().join("docs/json.md")).unwrap();
    let part = page.split("\n## ").find(|part| {
        part.lines().next().is_some_and(|heading| heading.contains(&format!("`{command} --json`")))
    });
    let part = part.unwrap_or_else(|| panic!("docs/json.md has nothing of {command}"));
    let mut fields = BTreeSet::new();
    for line in printed.lines() {
        collect_fields(&serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")), &mut fields);
    }
    assert!(!fields.is_empty(), "{line} printed nothing");
    let is_said = |field: &String| {
        ["`", "`.", "`lost.", "`overhead.", ".", "[]."].iter().any(|before| {
            ["`", "[]", "."].iter().any(|after| part.contains(&format!("{before}{field}{after}")))
        })
    };
    fields.into_iter().filter(|field| !is_said(field)).collect()
}

/// Names of fields, but for those of objects whose names are data.
fn collect_fields(value: &serde_json::Value, to: &mut BTreeSet<String>) {
    const OPEN: [&str; 4] = ["attributes", "dropped", "kinds", "rungs"];
    match value {
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect_fields(value, to)),
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                to.insert(name.clone());
                if !OPEN.contains(&&**name) {
                    collect_fields(value, to);
                }
            }
        }
        _ => {}
    }
}

/// A command line without its duration, wherever that stands.
fn essence(line: &str) -> String {
    let words = line.split_whitespace().filter(|word| !["--duration", SHORT].contains(word));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn configurations_are_taken() {
    let failures = Failures::default();
    let mut seen = 0;
    for page in pages::all() {
        for block in page.blocks().iter().filter(|block| block.language == "toml") {
            seen += 1;
            let text = block.lines.join("\n");
            let result = if text.contains("[dependencies]") {
                manifest(&text)
            } else {
                let file = Some(("toml", &*text));
                AgentConfig::resolve(file, std::iter::empty(), &[]).map(|_| ()).map_err(|e| e.to_string())
            };
            result.err().into_iter().for_each(|error| failures.add(format!("{}: {error}", block.place(0))));
        }
    }
    assert!(seen > 0);
}

/// A piece of somebody's Cargo.toml names our crates with their versions and features.
fn manifest(text: &str) -> Result<(), String> {
    for line in text.lines().filter(|line| line.contains('=')) {
        let name = line.split('=').next().unwrap_or_default().trim();
        let path = pages::root().join(name).join("Cargo.toml");
        let manifest = fs::read_to_string(path).map_err(|_| format!("{name} is no crate of ours"))?;
        let features = line.split_once("features").map(|(_, rest)| rest.split('"').skip(1).step_by(2));
        for feature in features.into_iter().flatten() {
            if !manifest.lines().any(|line| line.starts_with(&format!("{feature} = ["))) {
                return Err(format!("{name} has no feature {feature}"));
            }
        }
    }
    Ok(())
}

#[test]
fn links_lead_somewhere() {
    let failures = Failures::default();
    let pages = pages::all();
    let root = pages::root();
    let anchors: BTreeMap<PathBuf, Vec<String>> =
        pages.iter().map(|page| (root.join(&page.path), page.anchors())).collect();
    for page in &pages {
        for link in page.links() {
            let place = format!("{}:{}", page.path.display(), link.line);
            let Ok(file) = root.join(&link.file).canonicalize() else {
                failures.add(format!("{place}: there is no {}", link.file.display()));
                continue;
            };
            let Some(anchor) = link.anchor else { continue };
            if !anchors.get(&file).is_some_and(|anchors| anchors.contains(&anchor)) {
                failures.add(format!("{place}: {} has no #{anchor}", link.file.display()));
            }
        }
    }
}

/// Every page can be found from the index, and the index from the README.
#[test]
fn every_page_is_in_the_index() {
    let pages = pages::all();
    let links_of = |path: &str| -> BTreeSet<PathBuf> {
        let page = pages.iter().find(|page| page.path == Path::new(path)).unwrap();
        page.links()
            .into_iter()
            .filter_map(|link| pages::root().join(link.file).canonicalize().ok())
            .collect()
    };
    let index = links_of("docs/README.md");
    for page in pages.iter().filter(|page| page.path.starts_with("docs") && !page.path.ends_with("README.md"))
    {
        assert!(
            index.contains(&pages::root().join(&page.path)),
            "docs/README.md lacks {}",
            page.path.display()
        );
    }
    assert!(links_of("README.md").contains(&pages::root().join("docs/README.md")));
}

/// Rust in documents is compiled as tests of documentation, of the crate that includes the page.
#[test]
fn rust_is_compiled() {
    let sources: Vec<String> = ["collector", "bpf-sys", "bpf-loader", "bpf-programs", "otlp-encode"]
        .iter()
        .map(|name| fs::read_to_string(pages::root().join(name).join("src/lib.rs")).unwrap())
        .collect();
    for page in pages::all() {
        let compiles =
            |block: &Block<'_>| block.language.starts_with("rust") && !block.language.contains("ignore");
        if !page.blocks().iter().any(compiles) {
            continue;
        }
        let parent = page.path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let name = page.path.file_name().unwrap().to_string_lossy();
        let from_outside = page.path.parent() == Some(Path::new("")) || parent == "docs";
        let include = match (from_outside, &*parent) {
            (true, "") => format!("\"../../{name}\""),
            (true, folder) => format!("\"../../{folder}/{name}\""),
            (false, _) => format!("\"../{name}\""),
        };
        let is_included = sources.iter().any(|source| source.contains(&format!("include_str!({include})")));
        assert!(is_included, "no crate includes {}: {include}", page.path.display());
    }
}

/// The texts of all programs, as they are said: continued literals in one line.
fn sources() -> Vec<String> {
    let mut folders: Vec<PathBuf> = ["collector/src", "bpf-loader/src", "bpf-sys/src", "otlp-encode/src"]
        .iter()
        .map(|f| pages::root().join(f))
        .collect();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let lines = text.split("\\\n").enumerate();
                sources.push(lines.map(|(i, line)| if i > 0 { line.trim_start() } else { line }).collect());
            }
        }
    }
    sources
}

/// Headings of the page are messages; `…` stands for what differs.
#[test]
fn messages_that_are_explained_exist() {
    let page = fs::read_to_string(pages::root().join("docs/troubleshooting.md")).unwrap();
    let sources = sources();
    let mut messages = 0;
    for heading in page.lines().filter_map(|line| line.strip_prefix("### ")) {
        for message in heading.split('`').skip(1).step_by(2) {
            messages += 1;
            let parts: Vec<String> = message
                .split('…')
                .map(|part| part.trim().replace('"', "\\\""))
                .filter(|part| part.len() > 3)
                .collect();
            assert!(!parts.is_empty(), "{message} says too little");
            for part in parts {
                let known =
                    |source: &String| source.contains(&part) || source.contains(&part.replace("\\\"", "\""));
                assert!(sources.iter().any(known), "nothing says {part:?} ({message})");
            }
        }
    }
    assert!(messages > 20);
}
