//! What tests of files and lines share: this host's compilers, and LLVM's symbolizer.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::DEFAULT_BUDGET;
use super::elf::Elf;
use super::file_names::{FileNames, NamedFile};
use super::files::{Candidate, FileCache};
use super::host::{Host, Place, Roots};
use super::process::MappedFile;
use super::read_at::FileReader;
use crate::model::Line;

/// A directory that goes when the test ends.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lines-{name}-{}", std::process::id()));
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
pub type Frames = Vec<(String, String, u32)>;

pub struct Files {
    pub names: FileNames,
    file: NamedFile,
}

impl Files {
    pub fn open(path: &Path) -> Self {
        Self::open_below(path, &Host::default())
    }

    /// With files for debuggers below another root.
    pub fn open_below(path: &Path, host: &Host) -> Self {
        let mut cache = FileCache::new();
        let file =
            MappedFile { path: path.to_str().unwrap().into(), device: (0, 0), inode: 0, build_id: None };
        let candidate = Candidate { place: Place::trusted(path.to_owned()), trusted: true };
        let number = cache.open(&file, std::iter::once(candidate)).unwrap();
        let file = NamedFile {
            key: cache.key(number),
            source: cache.source(number).cloned(),
            build_id: cache.build_id(number).cloned(),
            path: file.path,
            roots: Some(Roots::new(host.clone(), Vec::new())),
        };
        Self { names: FileNames::new(DEFAULT_BUDGET), file }
    }

    pub fn lines(&mut self, address: u64) -> Arc<[Line]> {
        self.names.lines(&self.file, address).unwrap()
    }

    pub fn frames(&mut self, address: u64) -> Frames {
        let lines = self.lines(address);
        let frame = |line: &Line| {
            let name = line.system_name.as_ref().unwrap_or(&line.function);
            (name.to_string(), line.file.as_deref().unwrap_or_default().to_owned(), line.line)
        };
        lines.iter().map(frame).collect()
    }
}

/// What LLVM's symbolizer says of addresses.
pub fn expected(path: &Path, addresses: &[u64]) -> Option<Vec<Frames>> {
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
pub fn plain(frames: &Frames) -> Frames {
    let path = |path: &str| path.replace("/./", "/").replace("//", "/");
    let name = |name: &str| name.replace("D2Ev", "D1Ev").replace("C2E", "C1E");
    frames.iter().map(|(function, file, line)| (name(function), path(file), *line)).collect()
}

/// Addresses all over the code of a file.
pub fn addresses(path: &Path, count: u64) -> Vec<u64> {
    let (file, _) = FileReader::open(&Place::trusted(path.to_owned())).unwrap();
    let (start, end) = Elf::read(&file).unwrap().code().unwrap();
    let count = count.min(end - start);
    (0..count).map(|index| start + index * (end - start) / count).collect()
}

/// Runs a command; false where it is not there.
pub fn run(command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => {
            assert!(status.success(), "{command:?}");
            true
        }
        Err(_) => {
            println!("skipped: needs {}", command.get_program().to_string_lossy());
            false
        }
    }
}
