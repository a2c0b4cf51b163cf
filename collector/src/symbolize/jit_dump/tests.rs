use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::model::FrameKind;
use crate::symbolize::testing::Scratch;
use crate::symbolize::{AddressSpace, Host, HostSymbolizer, Symbolizer};

/// Writes dumps of either byte order.
struct Maker {
    bytes: Vec<u8>,
    big: bool,
}

impl Maker {
    fn new(big: bool) -> Self {
        let mut maker = Self { bytes: Vec::new(), big };
        let header =
            maker.numbers(&[(MAGIC.into(), 4), (1, 4), (40, 4), (62, 4), (0, 4), (7, 4), (1, 8), (0, 8)]);
        maker.bytes = header;
        maker
    }

    fn numbers(&self, numbers: &[(u64, usize)]) -> Vec<u8> {
        let number = |&(value, size): &(u64, usize)| {
            let mut bytes = value.to_be_bytes()[8 - size..].to_vec();
            if !self.big {
                bytes.reverse();
            }
            bytes
        };
        numbers.iter().flat_map(number).collect()
    }

    fn record(&mut self, kind: u32, body: &[u8]) {
        let prefix = self.numbers(&[(kind.into(), 4), (16 + body.len() as u64, 4), (5, 8)]);
        self.bytes.extend(prefix);
        self.bytes.extend(body);
    }

    fn load(&mut self, start: u64, length: u64, name: &str) {
        let mut body = self.numbers(&[(7, 4), (7, 4), (start, 8), (start, 8), (length, 8), (1, 8)]);
        body.extend(name.as_bytes());
        body.push(0);
        body.extend(vec![0xcc; length.min(64) as usize]);
        self.record(CODE_LOAD, &body);
    }

    fn lines(&mut self, start: u64, lines: &[(u64, u32, &[u8])]) {
        let mut body = self.numbers(&[(start, 8), (lines.len() as u64, 8)]);
        for (address, line, file) in lines {
            body.extend(self.numbers(&[(*address, 8), ((*line).into(), 4), (0, 4)]));
            body.extend(*file);
            body.push(0);
        }
        self.record(CODE_DEBUG_INFO, &body);
    }

    fn relocate(&mut self, from: u64, to: u64, length: u64) {
        let body = self.numbers(&[(7, 4), (7, 4), (from, 8), (from, 8), (to, 8), (length, 8), (1, 8)]);
        self.record(CODE_MOVE, &body);
    }

    fn parse(&self) -> JitDump {
        let mut dump = JitDump::default();
        dump.read_more(&self.bytes.as_slice()).unwrap();
        dump
    }
}

fn found(dump: &JitDump, address: u64) -> Option<(String, Option<(String, u32)>)> {
    let found = dump.find(address)?;
    Some((found.name.to_string(), found.place.map(|(file, line)| (file.to_string(), line))))
}

fn line(name: &str, file: &str, line: u32) -> Option<(String, Option<(String, u32)>)> {
    Some((name.to_owned(), Some((file.to_owned(), line))))
}

#[test]
fn names_and_lines_are_found() {
    for big in [false, true] {
        let mut maker = Maker::new(big);
        maker.lines(0x1000, &[(0x1000, 3, b"a.js"), (0x1010, 5, b"\xff"), (0x1020, 9, b"b.js")]);
        maker.load(0x1000, 0x100, "work");
        maker.load(0x2000, 0x10, "plain");
        let dump = maker.parse();
        assert_eq!(found(&dump, 0xfff), None);
        assert_eq!(found(&dump, 0x1000), line("work", "a.js", 3));
        assert_eq!(found(&dump, 0x101f), line("work", "a.js", 5));
        assert_eq!(found(&dump, 0x10ff), line("work", "b.js", 9));
        assert_eq!(found(&dump, 0x1100), None);
        assert_eq!(found(&dump, 0x2001), Some(("plain".to_owned(), None)));
    }
}

#[test]
fn lines_that_v8_writes_begin_past_a_header() {
    let mut maker = Maker::new(false);
    maker.lines(0x1000, &[(0x1040, 3, b"a.js"), (0x1050, 5, b"a.js")]);
    maker.load(0x1000, 0x20, "work");
    // And of these it has lost the name.
    maker.lines(0x2000, &[(0x2040, 3, b"\xe1\x16\x01")]);
    maker.load(0x2000, 0x20, "other");
    let dump = maker.parse();
    assert_eq!(found(&dump, 0x1000), line("work", "a.js", 3));
    assert_eq!(found(&dump, 0x1010), line("work", "a.js", 5));
    assert_eq!(found(&dump, 0x2000), Some(("other".to_owned(), None)));
}

#[test]
fn code_that_moves_and_is_replaced_is_the_newest() {
    let mut maker = Maker::new(false);
    maker.lines(0x1000, &[(0x1000, 3, b"a.js")]);
    maker.load(0x1000, 0x100, "moved");
    maker.relocate(0x1000, 0x5000, 0x100);
    maker.load(0x3000, 0x100, "old");
    maker.load(0x3080, 0x10, "inner");
    maker.load(0x2f00, 0x120, "over both");
    maker.relocate(0x9000, 0xa000, 0x10);
    let mut dump = maker.parse();
    assert_eq!(found(&dump, 0x1000), None);
    assert_eq!(found(&dump, 0x5001), line("moved", "a.js", 3));
    assert_eq!(found(&dump, 0x3010).unwrap().0, "over both");
    assert_eq!(found(&dump, 0x3020).unwrap().0, "old");
    assert_eq!(found(&dump, 0x3085).unwrap().0, "inner");
    // It goes on where it stopped.
    maker.load(0x3080, 0x10, "newer");
    let whole = maker.bytes.len();
    maker.load(0x7000, 0x10, "later");
    dump.read_more(&&maker.bytes[..whole + 20]).unwrap();
    assert_eq!((dump.parsed(), found(&dump, 0x7000)), (whole as u64, None));
    assert_eq!(found(&dump, 0x3085).unwrap().0, "newer");
    dump.read_more(&maker.bytes.as_slice()).unwrap();
    assert_eq!(found(&dump, 0x7000).unwrap().0, "later");
    assert_eq!(dump.len(), 5);
}

#[test]
fn hostile_files_are_bounded() {
    let mut maker = Maker::new(false);
    for index in 0..40_000 {
        maker.load(0x1000 + index * 16, 16, &"x".repeat(800));
    }
    let mut dump = maker.parse();
    while dump.parsed() < maker.bytes.len() as u64 {
        dump.read_more(&maker.bytes.as_slice()).unwrap();
    }
    assert!(dump.memory() <= MAX_MEMORY);
    assert_eq!(dump.len() as u64 + dump.take_dropped(), 40_000);
    // A name without an end, a function past the end of memory, lines that are not there, a record without a size.
    let mut maker = Maker::new(false);
    let body = maker.numbers(&[(7, 4), (7, 4), (1, 8), (0x1000, 8), (16, 8), (1, 8)]);
    maker.record(CODE_LOAD, &[&body[..], &[b'n'; 5000]].concat());
    maker.load(u64::MAX - 4, 16, "end");
    let body = maker.numbers(&[(0x1000, 8), (u64::MAX, 8)]);
    maker.record(CODE_DEBUG_INFO, &body);
    maker.load(0x3000, 16, "before");
    maker.bytes.extend([0; 16]);
    maker.load(0x4000, 16, "after");
    let dump = maker.parse();
    assert_eq!(found(&dump, 0x1000).unwrap().0.len(), MAX_NAME);
    assert_eq!((found(&dump, u64::MAX), found(&dump, 0x4000)), (None, None));
    assert_eq!(found(&dump, 0x3000).unwrap().0, "before");
}

#[test]
fn damaged_files_end() {
    let mut maker = Maker::new(false);
    maker.lines(0x1000, &[(0x1000, 3, b"a.js"), (0x1010, 5, b"\xff")]);
    maker.load(0x1000, 0x20, "work");
    maker.relocate(0x1000, 0x2000, 0x20);
    for at in 0..maker.bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = maker.bytes.clone();
            bytes[at] = value;
            crate::symbolize::fuzz::jit_dump(&bytes);
        }
        crate::symbolize::fuzz::jit_dump(&maker.bytes[..at]);
    }
}

const SCRIPT: &str = "
function square(x) { return x * x; }
function work(n) { let sum = 0; for (let i = 0; i < n; i++) sum += square(i) % 7; return sum; }
for (;;) work(100000);
";

#[test]
fn code_of_a_process_that_dumps_it_has_names() {
    let scratch = Scratch::new("dump");
    fs::write(scratch.0.join("loop.js"), SCRIPT).unwrap();
    let mut node = Command::new("node");
    node.args(["--perf-prof", "loop.js"]).current_dir(&scratch.0).stdout(Stdio::null());
    let Ok(mut child) = node.spawn() else {
        println!("skipped: needs node");
        return;
    };
    let pid = child.id();
    let path = scratch.0.join(format!("jit-{pid}.dump"));
    let until = Instant::now() + Duration::from_secs(60);
    // Where the compiler says that it put the function.
    let address = loop {
        let mut dump = JitDump::default();
        let bytes = fs::read(&path).unwrap_or_default();
        dump.read_more(&bytes.as_slice()).unwrap();
        let found = dump.functions.iter().find(|(_, function)| function.name.contains("work"));
        match found {
            Some((start, _)) => break Some(*start),
            None if Instant::now() > until => break None,
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let resolved = address.map(|address| {
        let mut symbolizer = HostSymbolizer::new(Host::default());
        symbolizer.begin_window(1);
        symbolizer.resolve(AddressSpace::User { pid, time: u64::MAX }, address)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let resolved = resolved.expect("node names its functions");
    assert_eq!(resolved.kind, FrameKind::Jit);
    let name = &resolved.lines[0].function;
    assert!(name.contains("work") && name.contains("loop.js:3"), "{name}");
}
