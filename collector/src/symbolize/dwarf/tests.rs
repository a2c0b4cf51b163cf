//! Against LLVM's symbolizer, over programs that this host's compilers make.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::model::Line;
use crate::symbolize::elf::Elf;
use crate::symbolize::files::{Candidate, DEFAULT_BUDGET, FileCache, FileNo};
use crate::symbolize::host::{Host, Place};
use crate::symbolize::process::MappedFile;

/// A directory that goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dwarf-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A function, file and line; of each frame of an address, innermost first.
type Frames = Vec<(String, String, u32)>;

struct Files {
    cache: FileCache,
    number: FileNo,
}

impl Files {
    fn open(path: &Path) -> Self {
        Self::open_below(path, &Host::default())
    }

    /// With files for debuggers below another root.
    fn open_below(path: &Path, host: &Host) -> Self {
        let mut cache = FileCache::new(DEFAULT_BUDGET);
        let file =
            MappedFile { path: path.to_str().unwrap().into(), device: (0, 0), inode: 0, build_id: None };
        let candidate = Candidate { place: Place::trusted(path.to_owned()), trusted: true };
        let number = cache.open(&file, std::iter::once(candidate)).unwrap();
        cache.open_details(number, path.to_str().unwrap(), &|path| vec![host.in_own_root(path)]);
        Self { cache, number }
    }

    fn lines(&mut self, address: u64) -> Arc<[Line]> {
        self.cache.lines(self.number, address).unwrap()
    }

    fn frames(&mut self, address: u64) -> Frames {
        let lines = self.lines(address);
        let frame = |line: &Line| {
            let name = line.system_name.as_ref().unwrap_or(&line.function);
            (name.to_string(), line.file.as_deref().unwrap_or_default().to_owned(), line.line)
        };
        lines.iter().map(frame).collect()
    }
}

/// What LLVM's symbolizer says of addresses.
fn expected(path: &Path, addresses: &[u64]) -> Option<Vec<Frames>> {
    let options = ["--inlines", "--no-demangle", "--functions=linkage", "--output-style=LLVM"];
    let command = Command::new("llvm-symbolizer-19")
        .args(options)
        .arg("--obj")
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = command else {
        println!("skipped: needs llvm-symbolizer-19");
        return None;
    };
    let mut input = child.stdin.take().unwrap();
    let questions = addresses.iter().fold(String::new(), |mut text, address| {
        writeln!(text, "{address:#x}").unwrap();
        text
    });
    let writer = std::thread::spawn(move || input.write_all(questions.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let frames = |block: &str| {
        let lines: Vec<&str> = block.lines().collect();
        let frames = lines.chunks_exact(2).map(|pair| {
            let mut parts = pair[1].rsplitn(3, ':');
            let (_column, line) = (parts.next().unwrap(), parts.next().unwrap());
            let file = parts.next().unwrap();
            let name = if pair[0] == "??" { "" } else { pair[0] };
            let file = if file == "??" { "" } else { file };
            (name.to_owned(), file.to_owned(), line.parse().unwrap())
        });
        frames.collect()
    };
    let blocks = text.split("\n\n").filter(|block| !block.trim().is_empty());
    Some(blocks.map(frames).collect())
}

/// `./` and doubled slashes are written as compilers do, and LLVM leaves some out. Constructors and destructors that share their
/// code have several names, of which we take another one.
fn plain(frames: &Frames) -> Frames {
    let path = |path: &str| path.replace("/./", "/").replace("//", "/");
    let name = |name: &str| name.replace("D2Ev", "D1Ev").replace("C2E", "C1E");
    frames.iter().map(|(function, file, line)| (name(function), path(file), *line)).collect()
}

/// Addresses all over the code of a file.
fn addresses(path: &Path, count: u64) -> Vec<u64> {
    let bytes = fs::read(path).unwrap();
    let (start, end) = Elf::read(&bytes.as_slice()).unwrap().code().unwrap();
    let step = ((end - start) / count).max(1);
    (0..count).map(|index| start + index * step).filter(|address| *address < end).collect()
}

/// How many of the addresses of a file have other lines than LLVM's symbolizer says, of how many.
fn differences(path: &Path, count: u64) -> Option<(usize, usize)> {
    let addresses = addresses(path, count);
    let expected = expected(path, &addresses)?;
    assert_eq!(expected.len(), addresses.len());
    let mut files = Files::open(path);
    let (mut different, mut compared) = (0, 0);
    let names_differ_only = std::env::var("NAMES").is_ok();
    let started = std::time::Instant::now();
    let found: Vec<Frames> = addresses
        .iter()
        .map(|address| {
            let f = files.frames(*address);
            if std::env::var("WINDOWS").is_ok() {
                files.cache.refill();
            }
            f
        })
        .collect();
    println!("{:?}, {} bytes", started.elapsed(), files.cache.memory());
    for ((address, expected), found) in addresses.iter().zip(&expected).zip(&found) {
        // Go's own table has no folder for what no file has, and assembly is named by it without its calling convention.
        let expected: &Frames = &expected
            .iter()
            .map(|(name, file, line)| {
                (
                    name.replace(".abi0", ""),
                    file.strip_prefix("./<").map_or(file.clone(), |f| format!("<{f}")),
                    *line,
                )
            })
            .collect();
        // Names from symbol tables alone follow rules of their own.
        let has_lines = |frames: &Frames| frames.iter().any(|(_, file, _)| file.contains('/'));
        if !has_lines(expected) && !has_lines(found) {
            continue;
        }
        // Nor does padding between functions have a line for us.
        if found.is_empty() && expected.iter().all(|(name, ..)| name.is_empty()) {
            continue;
        }
        compared += 1;
        let (expected, mut found) = (plain(expected), plain(found));
        // Of a function's names in the symbol table another one is taken, and there may be one where LLVM saw none.
        if let (Some(expected), Some(found)) = (expected.last(), found.last_mut()) {
            if names_differ_only {
                found.0.clone_from(&expected.0);
            }
        }
        if expected != found {
            different += 1;
            if different < 30 {
                println!("{address:#x}\n  expected {expected:?}\n  found    {found:?}");
            }
        }
    }
    println!("{}: {different} of {} differ", path.display(), compared);
    Some((different, compared))
}

#[test]
fn any_file() {
    let Ok(path) = std::env::var("SYMBOLIZE") else { return };
    let count = std::env::var("COUNT").map_or(10_000, |count| count.parse().unwrap());
    differences(Path::new(&path), count);
}
