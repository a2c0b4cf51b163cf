use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::folder::hex;
use super::*;
use crate::export::Endpoint;
use crate::export::http::download::tests::{Client as Asking, Server, ok};
use crate::symbolize::elf::Elf;
use crate::symbolize::host::Host;
use crate::symbolize::testing::{Files, Frames, Scratch, addresses, run};

const SOURCE: &str = r#"
int rand(void);
static inline int square(int x) { return x * x; }
static inline int cube(int x) { int y = square(x); if (y > 100) y -= rand(); return y * x; }
__attribute__((noinline)) int work(int n) { int s = 0; for (int i = 0; i < n; i++) s += cube(i ^ rand()); return s; }
int main(int argc, char **argv) { return work(argc) & 1; }
"#;

const MISSING: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

/// A program whose debug information is nowhere on this host.
struct Program {
    path: PathBuf,
    build_id: Vec<u8>,
    /// What a server has of it.
    debug: Vec<u8>,
    /// What is known with it.
    expected: Vec<Frames>,
    scratch: Scratch,
}

impl Program {
    fn new(name: &str, options: &[&str]) -> Option<Self> {
        let scratch = Scratch::new(&format!("debuginfod-{name}"));
        let [source, path, debug] = ["program.c", "program", "debug"].map(|name| scratch.0.join(name));
        fs::write(&source, SOURCE).unwrap();
        let options = ["-O2", "-g", "-Wl,--build-id=sha1"].iter().chain(options);
        if !run(Command::new("cc").args(options).arg("-o").args([&path, &source]))
            || !run(Command::new("objcopy").arg("--only-keep-debug").args([&path, &debug]))
        {
            println!("skipped: needs cc and objcopy");
            return None;
        }
        let expected = frames(&mut Files::open(&path), &path);
        assert!(run(Command::new("strip").arg(&path)));
        let bytes = fs::read(&path).unwrap();
        let build_id = Elf::read(&bytes.as_slice()).unwrap().build_id(&bytes.as_slice()).unwrap();
        let debug_bytes = fs::read(&debug).unwrap();
        fs::remove_file(debug).unwrap();
        Some(Self { path, build_id, debug: debug_bytes, expected, scratch })
    }

    fn cache(&self) -> PathBuf {
        self.scratch.0.join("cache")
    }

    fn settings(&self, servers: &[&str]) -> Settings {
        Settings {
            servers: servers.iter().map(|server| Endpoint::parse(server).unwrap()).collect(),
            folder: self.cache(),
            others: Some(self.scratch.0.join("others")),
            capacity: 64 << 20,
            max_file: 32 << 20,
            timeout: Duration::from_secs(20),
            max_time: Duration::from_secs(20),
        }
    }

    fn client(&self, servers: &[&str]) -> Debuginfod {
        Debuginfod::new(self.settings(servers))
    }

    /// The file in a window, as one that makes names has it, who has looked for what there is.
    fn open(&self, client: &Debuginfod) -> Files {
        let host = Host { root: self.scratch.0.clone(), ..Host::default() };
        let mut files = Files::open_below(&self.path, &host);
        files.names.fetch_with(client.clone());
        files.lines(0);
        files
    }

    fn has_lines(&self, files: &mut Files) -> bool {
        frames(files, &self.path) == self.expected
    }

    fn files_of_cache(&self) -> Vec<String> {
        let entries = fs::read_dir(self.cache()).into_iter().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn frames(files: &mut Files, path: &Path) -> Vec<Frames> {
    addresses(path, 400).iter().map(|address| files.frames(*address)).collect()
}

fn wait(client: &Debuginfod) {
    client.wait(Instant::now() + Duration::from_secs(60), |_| true);
    assert_eq!(client.pending(), 0);
}

/// A server that has this file.
fn server_of(program: &Program) -> Server {
    let wanted = format!("/base/buildid/{}/debuginfo", hex(&program.build_id));
    let body = ok(&program.debug);
    Server::new(move |path, client| {
        client.say(if path == wanted { &body } else { MISSING });
    })
}

#[test]
fn names_are_there_once_the_file_has_come_and_then_without_the_server() {
    let Some(program) = Program::new("come", &[]) else { return };
    assert!(program.expected.iter().any(|frames| frames.len() == 3), "nothing is inlined");
    let server = server_of(&program);
    let url = format!("{}/base", server.url);
    let client = program.client(&[&url]);
    let mut files = program.open(&client);
    assert!(!program.has_lines(&mut files), "before anything came");
    wait(&client);
    // In the window that goes on, and in the next.
    assert!(program.has_lines(&mut files));
    files.names.end_window();
    assert!(program.has_lines(&mut files));
    let size = program.debug.len() as u64;
    assert_eq!(client.counts(), Counts { fetched: 1, bytes: size, ..Counts::default() });
    let head = server.seen.lock().unwrap().concat();
    assert!(!head.contains("program") && !head.contains(program.scratch.0.to_str().unwrap()), "{head}");
    assert_eq!(server.requests(), 1);
    assert_eq!(program.files_of_cache(), [format!("{}.debug", hex(&program.build_id))]);
    drop((server, client, files));

    let client = program.client(&[&url]);
    assert!(program.has_lines(&mut program.open(&client)));
    assert_eq!((client.counts(), client.pending()), (Counts::default(), 0));
}

#[test]
fn files_that_other_clients_fetched_are_used_and_stay() {
    let Some(program) = Program::new("others", &[]) else { return };
    let folder = program.scratch.0.join("others").join(hex(&program.build_id));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("debuginfo"), &program.debug).unwrap();
    let client = program.client(&["http://127.0.0.1:1"]);
    assert!(program.has_lines(&mut program.open(&client)));
    assert_eq!(client.counts(), Counts::default());
    // That there is none, as others remember it, is their opinion.
    fs::write(folder.join("debuginfo"), "").unwrap();
    let server = server_of(&program);
    let client = program.client(&[&format!("{}/base", server.url)]);
    program.open(&client);
    wait(&client);
    assert!(program.has_lines(&mut program.open(&client)));
    assert!(folder.join("debuginfo").exists());
}

#[test]
fn files_of_others_are_refused() {
    let Some(program) = Program::new("wrong", &[]) else { return };
    let Some(other) = Program::new("other", &["-DOTHER", "-O1"]) else { return };
    assert_ne!(program.build_id, other.build_id);
    let cut = program.debug[..program.debug.len() / 2].to_vec();
    for (body, why) in [
        (other.debug.clone(), "the server sent a file with another build id"),
        (b"<html>".to_vec(), "not an ELF file"),
        (fs::read(&program.path).unwrap(), "the server sent a file without symbols and debug information"),
        (cut, "the server sent a file without symbols and debug information"),
        (Vec::new(), "the server sent nothing"),
    ] {
        let server = Server::new(move |_, client| {
            client.say(&ok(&body));
        });
        let client = program.client(&[&server.url]);
        let mut files = program.open(&client);
        wait(&client);
        assert!(!program.has_lines(&mut files));
        assert_eq!((client.counts().failed, client.counts().fetched), (1, 0));
        let failure = client.take_failure().unwrap();
        assert!(failure.starts_with(&server.url) && failure.contains(why), "{failure}");
        assert_eq!(client.take_failure(), None);
        assert_eq!(program.files_of_cache(), [""; 0]);
    }
}

#[test]
fn what_no_server_has_is_remembered() {
    let Some(program) = Program::new("missing", &[]) else { return };
    let server = Server::new(|_, client| {
        client.say(MISSING);
    });
    let servers = [&*server.url, &format!("{}/more", server.url)];
    let client = program.client(&servers);
    for _ in 0..3 {
        program.open(&client);
        wait(&client);
    }
    assert_eq!((server.requests(), client.counts().not_found), (2, 1));
    // In the next run, too, unless others are asked.
    let client = program.client(&servers);
    program.open(&client);
    wait(&client);
    assert_eq!((server.requests(), client.counts().not_found), (2, 1));
    let client = program.client(&servers[..1]);
    program.open(&client);
    wait(&client);
    assert_eq!(server.requests(), 3);
    // The time is over.
    let marker = program.cache().join(format!("{}.missing", hex(&program.build_id)));
    let file = fs::File::options().write(true).open(&marker).unwrap();
    file.set_modified(std::time::SystemTime::now() - MISSING_FOR - Duration::from_secs(1)).unwrap();
    let client = program.client(&servers[..1]);
    program.open(&client);
    wait(&client);
    assert_eq!(server.requests(), 4);
}

#[test]
fn hostile_and_dead_servers_cost_no_more_than_the_limits() {
    let Some(program) = Program::new("hostile", &[]) else { return };
    let endless = |_: &str, client: &mut Asking| {
        client.say(b"HTTP/1.1 200 OK\r\n\r\n\x7fELF");
        while client.say(&[1; 65_536]) {}
    };
    let good = server_of(&program);
    let good_url = format!("{}/base", good.url);
    let endless = Server::new(endless);
    let client = Debuginfod::new(Settings {
        max_file: 1 << 20,
        timeout: Duration::from_millis(500),
        ..program.settings(&[&endless.url, &good_url])
    });
    let mut files = program.open(&client);
    wait(&client);
    assert!(program.has_lines(&mut files), "the next server was not asked");
    assert!(client.counts().bytes < 3 << 20);

    // A server that hangs or is not there is asked once, not for every file.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let client = Debuginfod::new(Settings {
        timeout: Duration::from_millis(300),
        folder: program.scratch.0.join("second"),
        ..program.settings(&[&silent, "http://127.0.0.1:1"])
    });
    let started = Instant::now();
    (0..50_u8).for_each(|number| client.want(&[number; 20]));
    wait(&client);
    assert_eq!(client.counts().failed, 50);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(client.take_failure().is_some());
}

#[test]
fn who_wants_files_does_not_wait_for_them() {
    let Some(program) = Program::new("wait", &[]) else { return };
    let server = Server::new(|_, client| {
        client.say(b"HTTP/1.1 200 OK\r\n\r\n\x7fELF");
        while client.say(b"x") {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let started = Instant::now();
    let client = program.client(&[&server.url]);
    program.open(&client);
    (0..1000_u16).for_each(|number| client.want(&[&number.to_le_bytes()[..], &[9; 18]].concat()));
    assert!((1..=MAX_WAITING + 1).contains(&client.pending()));
    // Names with what there is meanwhile.
    program.open(&client);
    let mut asked = 0;
    client.wait(Instant::now() + Duration::from_secs(60), |pending| {
        assert!(pending > 0);
        asked += 1;
        asked < 2
    });
    client.wait(Instant::now() + Duration::from_millis(50), |_| true);
    assert!(client.pending() > 0 && started.elapsed() < Duration::from_secs(10));
    // Whatever the server does, nothing is left of what was begun.
    let end = Instant::now() + Duration::from_secs(10);
    while program.files_of_cache().is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(program.files_of_cache()[0].ends_with(".part"));
    drop(client);
    assert_eq!(program.files_of_cache(), [""; 0]);
}

#[test]
fn the_folder_stays_within_its_size() {
    let Some(program) = Program::new("size", &[]) else { return };
    let cache = program.cache();
    fs::create_dir_all(&cache).unwrap();
    let old = ["aa", "bb", "cc"].map(|name| cache.join(format!("{name}.debug")));
    let foreign = cache.join("notes.txt");
    for path in old.iter().chain([&foreign]) {
        fs::File::create(path).unwrap().set_len(6 << 20).unwrap();
    }
    let left_over = cache.join("dd.1.part");
    fs::write(&left_over, "x").unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(100_000);
    fs::File::options().write(true).open(&left_over).unwrap().set_modified(long_ago).unwrap();
    for (age, path) in [(50, &old[0]), (10, &old[1]), (30, &old[2])] {
        let used = long_ago + Duration::from_secs(100 - age);
        let times = fs::FileTimes::new().set_accessed(used).set_modified(long_ago);
        fs::File::options().write(true).open(path).unwrap().set_times(times).unwrap();
    }
    let server = server_of(&program);
    let settings = program.settings(&[&format!("{}/base", server.url)]);
    // With what is coming, of which the size is not told at first, there is room for one of the old ones.
    let client = Debuginfod::new(Settings { capacity: 23 << 20, max_file: 8 << 20, ..settings });
    program.open(&client);
    wait(&client);
    assert_eq!(client.counts().fetched, 1, "{:?}", client.take_failure());
    let own = format!("{}.debug", hex(&program.build_id));
    let mut expected = vec![own.clone(), "bb.debug".to_owned(), "notes.txt".to_owned()];
    expected.sort();
    assert_eq!(program.files_of_cache(), expected);
    // What is used is what stays: access is noted, and what proves the file is left alone.
    let before = fs::metadata(cache.join(&own)).unwrap();
    let times = fs::FileTimes::new().set_accessed(long_ago);
    fs::File::options().write(true).open(cache.join(&own)).unwrap().set_times(times).unwrap();
    assert!(program.has_lines(&mut program.open(&client)));
    let after = fs::metadata(cache.join(&own)).unwrap();
    assert!(after.accessed().unwrap() > long_ago + Duration::from_secs(1000));
    assert_eq!(after.modified().unwrap(), before.modified().unwrap());
    // One that went is awaited again when it is time, and until then nobody is asked.
    fs::remove_file(cache.join(&own)).unwrap();
    let requests = server.requests();
    program.open(&client);
    assert_eq!((server.requests(), client.pending()), (requests, 0));
    assert!(!client.has_come(&program.build_id));
}

#[test]
fn files_that_are_shared_are_fetched_too() {
    let Some(program) = Program::new("dwz", &[]) else { return };
    let [first, second, shared] = ["first", "second", "shared"].map(|name| program.scratch.0.join(name));
    let source = program.scratch.0.join("program.c");
    for (path, option) in [(&first, "-O2"), (&second, "-O1")] {
        let options = ["-g", "-gdwarf-4", option, "-Wl,--build-id=sha1", "-o"];
        assert!(run(Command::new("cc").args(options).args([path, &source])));
    }
    let expected = frames(&mut Files::open(&first), &first);
    if !run(Command::new("dwz").arg("-m").arg(&shared).args([&first, &second])) || !shared.exists() {
        println!("skipped: needs dwz");
        return;
    }
    let shared_body = fs::read(&shared).unwrap();
    fs::remove_file(&shared).unwrap();
    let debug = program.scratch.0.join("debug");
    assert!(run(Command::new("objcopy").arg("--only-keep-debug").args([&first, &debug])));
    let (elf, debug_body) = (fs::read(&first).unwrap(), fs::read(&debug).unwrap());
    fs::remove_file(debug).unwrap();
    let build_id = Elf::read(&elf.as_slice()).unwrap().build_id(&elf.as_slice()).unwrap();
    let wanted = format!("/buildid/{}/debuginfo", hex(&build_id));
    let server = Server::new(move |path, client| {
        let is_first = path == wanted;
        if !is_first {
            std::thread::sleep(Duration::from_millis(500));
        }
        client.say(&ok(if is_first { &debug_body } else { &shared_body }));
    });
    let program = Program { path: first, expected, ..program };
    let client = program.client(&[&server.url]);
    let mut files = program.open(&client);
    wait(&client);
    assert_eq!(client.counts().fetched, 1, "{:?}", client.take_failure());
    assert!(program.has_lines(&mut files));

    // Where the debug file comes from a server itself, what it shares is wanted when it has come.
    assert!(run(Command::new("strip").args(["-R", ".gnu_debugaltlink"]).arg(&program.path)));
    fs::remove_dir_all(program.cache()).unwrap();
    let client = program.client(&[&server.url]);
    let mut files = program.open(&client);
    wait(&client);
    assert_eq!((client.counts().fetched, program.has_lines(&mut files)), (1, false));
    assert_eq!(client.pending(), 1);
    wait(&client);
    assert_eq!((client.counts().fetched, program.has_lines(&mut files)), (2, true));
}

#[test]
fn files_in_the_folder_must_be_the_ones_that_they_are_named_after() {
    let Some(program) = Program::new("here", &[]) else { return };
    let Some(other) = Program::new("not-here", &["-DOTHER", "-O1"]) else { return };
    let foreign = program.scratch.0.join("others").join(hex(&program.build_id));
    fs::create_dir_all(&foreign).unwrap();
    fs::create_dir_all(program.cache()).unwrap();
    let own = program.cache().join(format!("{}.debug", hex(&program.build_id)));
    let foreign = foreign.join("debuginfo");
    for path in [&own, &foreign] {
        fs::write(path, &other.debug).unwrap();
    }
    let nobody = Server::new(|_, client| {
        client.say(MISSING);
    });
    let client = program.client(&[&nobody.url]);
    program.open(&client);
    wait(&client);
    assert_eq!((client.counts().not_found, nobody.requests()), (1, 1));
    assert!(!own.exists() && foreign.exists());
    let server = server_of(&program);
    let client = program.client(&[&format!("{}/base", server.url)]);
    let mut files = program.open(&client);
    wait(&client);
    assert_eq!(client.counts().fetched, 1);
    assert!(program.has_lines(&mut files) && foreign.exists());
}

#[test]
fn what_a_program_makes_up_keeps_no_file_from_being_fetched() {
    let (mut state, now) = (State::default(), Instant::now());
    let id = |number: usize| [&number.to_le_bytes()[..], &[7; 12]].concat();
    let fetch = |state: &mut State, number, fetched| {
        let is_new = state.want(&id(number), now);
        state.busy = state.waiting.pop_front();
        state.done(fetched, 0);
        is_new
    };
    assert!(fetch(&mut state, 0, Fetched::Yes { was_here: false }));
    assert!((1..=2 * MAX_KNOWN).all(|number| fetch(&mut state, number, Fetched::NotFound)));
    assert_eq!(state.known.len(), MAX_KNOWN);
    // The oldest went, and none that came.
    assert!(matches!(state.known.get(&*id(0)), Some(Known::Here(_))));
    assert!(state.known.get(&*id(1)).is_none());
    assert!(state.known.get(&*id(2 * MAX_KNOWN)).is_some());
    // What finds no room in the queue is counted.
    let wanted = (0..MAX_WAITING + 10).filter(|number| state.want(&id(1 << 20 | number), now));
    assert_eq!(wanted.count(), MAX_WAITING);
    assert_eq!((state.counts.dropped, state.waiting.len()), (10, MAX_WAITING));
}

#[test]
fn bytes_of_an_hour_are_as_many_as_the_folder_has() {
    let Some(program) = Program::new("budget", &[]) else { return };
    let server = server_of(&program);
    let capacity = program.debug.len() as u64;
    let settings = program.settings(&[&format!("{}/base", server.url)]);
    let client = Debuginfod::new(Settings { capacity, ..settings });
    client.want(&program.build_id);
    client.want(&[1; 20]);
    wait(&client);
    let counts = Counts { fetched: 1, dropped: 1, bytes: capacity, ..Counts::default() };
    assert_eq!((client.counts(), server.requests()), (counts, 1), "{:?}", client.take_failure());
    assert!(client.take_failure().unwrap().contains("of an hour"));
    assert!(!client.has_come(&[1; 20]) && client.pending() == 0);
}

#[test]
fn servers_with_too_much_to_do_are_left_alone() {
    let Some(program) = Program::new("busy", &[]) else { return };
    for status in ["429 Too Many Requests", "500 Internal Server Error", "503 Service Unavailable"] {
        let answer = format!("HTTP/1.1 {status}\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n");
        let server = Server::new(move |_, client| {
            client.say(answer.as_bytes());
        });
        let client = program.client(&[&server.url]);
        (0..5_u8).for_each(|number| client.want(&[number; 20]));
        wait(&client);
        assert_eq!((client.counts().failed, server.requests()), (5, 1), "{status}");
    }
}

#[test]
fn files_are_wanted_once_a_window_and_not_for_each_address() {
    let Some(program) = Program::new("often", &[]) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = program.client(&[&format!("http://{}", listener.local_addr().unwrap())]);
    let mut number = 0_u32;
    while client.counts().dropped == 0 {
        client.want(&[&number.to_le_bytes()[..], &[9; 16]].concat());
        number += 1;
        assert!(number < 10_000);
    }
    // The thread may take one out of the queue yet.
    let end = Instant::now() + Duration::from_secs(10);
    while client.client().state().busy.is_none() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(2));
    }
    client.want(&[8; 20]);
    let before = client.counts().dropped;
    let mut files = program.open(&client);
    frames(&mut files, &program.path);
    assert_eq!(client.counts().dropped, before + 1);
    files.names.end_window();
    frames(&mut files, &program.path);
    assert_eq!(client.counts().dropped, before + 2);
}

#[test]
fn nobody_waits_for_a_thread_that_panicked() {
    let Some(program) = Program::new("panic", &[]) else { return };
    let client = program.client(&["http://127.0.0.1:1"]);
    let owner = Arc::clone(client.client());
    {
        let mut state = owner.state();
        assert!((1..=3).all(|number| state.want(&[number; 20], Instant::now())));
        state.running = true;
    }
    let thread = std::thread::spawn(move || owner.work_with(&mut |_| panic!("as the test has it")));
    assert!(thread.join().is_err());
    assert_eq!((client.pending(), client.counts().failed), (0, 3));
    assert!(client.take_failure().unwrap().contains("panicked"));
    // The one that it panicked at is not for the next.
    assert!(!client.has_come(&[1; 20]) && client.pending() == 0);
    client.want(&[2; 20]);
    wait(&client);
    assert_eq!(client.counts().failed, 4);
}

#[test]
fn the_thread_is_one_that_nobody_notices() {
    let Some(program) = Program::new("nice", &[]) else { return };
    let server = Server::new(|_, client| while client.say(b"HTTP") && client.say(b"") {});
    let client = program.client(&[&server.url]);
    client.want(&program.build_id);
    let end = Instant::now() + Duration::from_secs(10);
    while server.requests() == 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut found = 0;
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").trim() != "debuginfod" {
            continue;
        }
        let stat = read("stat");
        let nice = stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().to_owned();
        let status = read("status");
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        // Those of other tests may have just begun.
        found +=
            u32::from(nice == "19" && line("CapPrm:") == "0000000000000000" && line("NoNewPrivs:") == "1");
    }
    assert!(found > 0);
}

/// The real server, over a folder with a debug file.
struct RealServer(Child);

impl Drop for RealServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn elfutils_server_is_understood() {
    let Some(program) = Program::new("real", &[]) else { return };
    let folder = program.scratch.0.join("served");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("program.debug"), &program.debug).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("debuginfod");
    command.args(["-F", "-d", ":memory:", "-p", &port.to_string()]).arg(&folder);
    // Without servers of its own to ask.
    command.env_remove("DEBUGINFOD_URLS").env("HOME", &program.scratch.0);
    let Ok(child) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        println!("skipped: needs debuginfod");
        return;
    };
    let _server = RealServer(child);
    let url = format!("http://127.0.0.1:{port}");
    // It reads the folder when it has started, and each client remembers what was not there.
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let client = program.client(&[&url]);
        let mut files = program.open(&client);
        wait(&client);
        if client.counts().fetched == 1 {
            assert!(program.has_lines(&mut files));
            // What it does not have.
            client.want(&[7; 20]);
            wait(&client);
            assert_eq!(client.counts().not_found, 1, "{:?}", client.take_failure());
            return;
        }
        assert!(Instant::now() < end, "{:?}, {:?}", client.counts(), client.take_failure());
        let _ = fs::remove_dir_all(program.cache());
        std::thread::sleep(Duration::from_millis(200));
    }
}
