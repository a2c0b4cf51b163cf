//! Against LLVM's symbolizer, over programs that this host's compilers make.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::symbolize::elf::Elf;
use crate::symbolize::file_names::WORK_A_WINDOW;
use crate::symbolize::host::Host;
use crate::symbolize::testing::{Files, Frames, Scratch, addresses, expected, plain, run};

/// Compares the lines of addresses all over a file with what LLVM's symbolizer says: how many have some, and what differs.
fn differences(path: &Path, count: u64) -> Option<(usize, Vec<String>)> {
    let addresses = addresses(path, count);
    let expected = expected(path, &addresses)?;
    assert_eq!(expected.len(), addresses.len());
    let mut files = Files::open(path);
    let (mut compared, mut different) = (0, Vec::new());
    for (address, expected) in addresses.iter().zip(&expected) {
        // As if each was asked for in a window of its own: not one of them is left out.
        files.names.set_work(WORK_A_WINDOW);
        let found = plain(&files.frames(*address));
        let mut expected = plain(expected);
        // Names from symbol tables alone follow rules of their own, and padding between functions has no line for us.
        let has_lines = |frames: &Frames| frames.iter().any(|(_, file, _)| file.contains('/'));
        let is_padding = found.is_empty() && expected.iter().all(|(name, ..)| name.is_empty());
        if is_padding || !(has_lines(&expected) || has_lines(&found)) {
            continue;
        }
        // Of a function's names in the symbol table another one may be taken.
        if let (Some(expected), Some(found)) = (expected.last_mut(), found.last()) {
            if found.0.starts_with(&expected.0) {
                expected.0.clone_from(&found.0);
            }
        }
        compared += 1;
        if found != expected {
            different.push(format!("{address:#x} of {}: {found:?}, not {expected:?}", path.display()));
        }
    }
    println!("{}: {compared} addresses", path.display());
    Some((compared, different))
}

/// How many addresses have the lines that LLVM's symbolizer says: all of those that have any.
fn compare(path: &Path, count: u64) -> Option<usize> {
    let (compared, different) = differences(path, count)?;
    assert_eq!(different.first(), None);
    Some(compared)
}

/// What a file costs: `SYMBOLIZE=FILE cargo test --release -p collector --lib measure -- --ignored --nocapture`.
#[test]
#[ignore = "of a file that is named by hand"]
fn measure() {
    let Ok(path) = std::env::var("SYMBOLIZE").map(PathBuf::from) else { return };
    let asked = addresses(&path, 10_000);
    let peak = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().to_owned()
    };
    // Hundredths of a second, of this process alone: other things may run beside it.
    let cpu = || -> u64 {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split(' ').skip(12);
        (0..2).map(|_| fields.next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let before = cpu();
    println!("before: {}", peak());
    let mut files = Files::open(&path);
    let (mut windows, mut most) = (0, 0);
    let started = std::time::Instant::now();
    for address in &asked {
        if files.names.work() == 0 {
            files.names.set_work(WORK_A_WINDOW);
            windows += 1;
        }
        files.lines(*address);
        most = most.max(files.names.memory());
    }
    let spent = cpu() - before;
    println!(
        "{spent}0 ms of CPU in {:?}, {most} bytes at most, {windows} more windows; {}",
        started.elapsed(),
        peak()
    );
    if std::env::var("COMPARE").is_err() {
        return;
    }
    if let Some((compared, different)) = differences(&path, 10_000) {
        println!("{} of {compared} differ", different.len());
        different.iter().step_by(1 + different.len() / 20).for_each(|line| println!("{line}"));
    }
}

const C: &str = r"
int rand(void);
void qsort(void *, __SIZE_TYPE__, __SIZE_TYPE__, int (*)(const void *, const void *));
int printf(const char *, ...);
static inline int square(int x) { return x * x; }
static inline int cube(int x) { int y = square(x); if (y > 100) y -= rand(); return y * x; }
static int compare(const void *a, const void *b) { return *(int *)a - *(int *)b; }
__attribute__((noinline)) int work(int n)
{
	int values[64];
	for (int i = 0; i < 64; i++)
		values[i] = cube(n + i);
	qsort(values, 64, sizeof(int), compare);
	return values[3] + square(values[4]);
}
int main(int count, char **arguments)
{
	int sum = 0;
#ifdef WAIT
	int getchar(void);
	getchar();
#endif
	for (int i = 0; i < count * 100; i++) {
		sum += work(i);
		if (sum % 3 == 0)
			sum += cube(sum);
	}
	return printf(arguments[0], sum);
}
";

const CPP: &str = r"
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>
namespace shop {
template <class T> struct Cart {
	std::vector<T> items;
	void add(T item) { items.push_back(std::move(item)); }
	template <class F> void each(F call) { for (auto &item : items) call(item); }
};
static std::string name(int i) { return std::to_string(i); }
}
struct Base { virtual ~Base() = default; virtual int count(int) = 0; };
struct Counter : Base {
	std::map<std::string, int> counts;
	int count(int i) override { auto &n = counts[shop::name(i)]; n += i; return n; }
};
int main(int count, char **)
{
	shop::Cart<std::string> cart;
	for (int i = 0; i < 1000 * count; i++)
		cart.add(shop::name(i * 7919 % 1000));
	std::sort(cart.items.begin(), cart.items.end(), [](const auto &a, const auto &b) { return b < a; });
	size_t total = 0;
	cart.each([&](const std::string &item) { total += item.size(); });
	std::unique_ptr<Base> base(new Counter);
	for (int i = 0; i < 100; i++)
		total += base->count(i);
	return total;
}
";

/// Compiles a program; `None` without that compiler.
fn compile(scratch: &Scratch, compiler: &str, source: &str, options: &[&str]) -> Option<PathBuf> {
    let cpp = source == CPP;
    let (file, program) =
        (scratch.0.join(if cpp { "program.cc" } else { "program.c" }), scratch.0.join("program"));
    fs::write(&file, source).unwrap();
    let status = Command::new(compiler).args(options).arg("-o").arg(&program).arg(&file).status();
    let Ok(status) = status else {
        println!("skipped: needs {compiler}");
        return None;
    };
    assert!(status.success(), "{compiler} {options:?}");
    Some(program)
}

/// A program in C with debug information.
fn program(scratch: &Scratch, options: &[&str]) -> PathBuf {
    compile(scratch, "cc", C, &[&["-O2", "-g", "-Wl,--build-id=sha1"], options].concat()).unwrap()
}

#[test]
fn functions_files_and_lines_are_those_that_llvm_finds() {
    let scratch = Scratch::new("llvm");
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        for (compiler, source, count, least) in [
            ("gcc", C, 1000, 250),
            ("clang-19", C, 1000, 250),
            ("g++", CPP, 4000, 3000),
            ("clang++-19", CPP, 4000, 3000),
        ] {
            let Some(program) = compile(&scratch, compiler, source, &["-O2", version]) else { continue };
            let Some(compared) = compare(&program, count) else { return };
            assert!(compared >= least, "{compiler} {version}: {compared}");
        }
    }
}

#[test]
fn parts_that_are_compressed_or_in_pieces_are_read_alike() {
    let scratch = Scratch::new("alike");
    for options in [
        &["-O2", "-g", "-gz=zlib"][..],
        &["-O2", "-g", "-ffunction-sections", "-fdebug-types-section", "-gdwarf-4"],
        &["-O2", "-g", "-gdwarf64"],
        &["-O2", "-g", "-flto"],
        &[
            "-O2",
            "-g",
            "-m32",
            "-fno-pie",
            "-no-pie",
            "-nostdlib",
            "-nostartfiles",
            "-Wl,-e,main",
            "-Wl,--unresolved-symbols=ignore-all",
        ],
    ] {
        let program = compile(&scratch, "gcc", C, options).unwrap();
        if compare(&program, 1000).is_none_or(|compared| compared > 250) {
            continue;
        }
        panic!("{options:?}");
    }
    // Code apart from what describes it: the line is there, and no inlined function.
    let program = compile(&scratch, "gcc", C, &["-O2", "-g", "-gsplit-dwarf"]).unwrap();
    let mut files = Files::open(&program);
    let lines: Vec<Frames> = addresses(&program, 500).iter().map(|address| files.frames(*address)).collect();
    assert!(lines.iter().all(|frames| frames.len() <= 1));
    assert!(
        lines
            .iter()
            .flatten()
            .any(|(name, file, line)| name == "work" && file.ends_with("program.c") && *line > 8)
    );
}

/// The lines of a few addresses of the program in C: what is inlined into `work`, and in which lines.
fn assert_has_lines(files: &mut Files, program: &Path) {
    let inlined: Vec<Frames> = addresses(program, 1000)
        .iter()
        .map(|address| files.frames(*address))
        .filter(|frames| frames.len() > 2)
        .collect();
    let frames = inlined.first().expect("a function inlined into one that is inlined");
    let names: Vec<&str> = frames.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names[..2], ["square", "cube"]);
    assert!(["work", "main"].contains(&names[2]));
    assert!(frames.iter().all(|(_, file, line)| file.ends_with("/program.c") && *line > 3), "{frames:?}");
}

/// A program without its debug information, which is moved to `to` below a root.
fn separate(scratch: &Scratch, options: &[&str], to: &str, link: bool) -> (PathBuf, PathBuf, Host) {
    let program = program(scratch, options);
    let root = scratch.0.join("root");
    let debug = root.join(to.trim_start_matches('/'));
    fs::create_dir_all(debug.parent().unwrap()).unwrap();
    assert!(run(Command::new("objcopy").arg("--only-keep-debug").args([&program, &debug])));
    let mut strip = Command::new("objcopy");
    strip.arg("--strip-all").arg(&program);
    if link {
        strip.arg(format!("--add-gnu-debuglink={}", debug.display()));
    }
    assert!(run(&mut strip));
    (program, debug, Host { root, ..Host::default() })
}

fn build_id(program: &Path) -> String {
    let bytes = fs::read(program).unwrap();
    let id = Elf::read(&bytes.as_slice()).unwrap().build_id(&bytes.as_slice()).unwrap();
    id.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn has_no_files(files: &mut Files, program: &Path) -> bool {
    addresses(program, 100).iter().all(|address| files.lines(*address).iter().all(|line| line.file.is_none()))
}

#[test]
fn files_for_debuggers_are_found_by_build_id() {
    let scratch = Scratch::new("id");
    let id = build_id(&program(&scratch, &[]));
    let place = format!("/usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]);
    let (program, debug, host) = separate(&scratch, &[], &place, false);
    let mut files = Files::open_below(&program, &host);
    assert_has_lines(&mut files, &program);
    // After a window, the file is opened again when it is needed.
    files.names.end_window();
    assert_has_lines(&mut files, &program);
    // That of another program in its place.
    let other = scratch.0.join("other.c");
    fs::write(&other, "int main(void) { return 3; }").unwrap();
    assert!(run(Command::new("cc").args(["-g", "-Wl,--build-id=sha1", "-o"]).args([&debug, &other])));
    let mut files = Files::open_below(&program, &host);
    assert!(has_no_files(&mut files, &program));
}

#[test]
fn files_for_debuggers_are_found_by_their_link() {
    for to in ["{}/program.debug", "{}/.debug/program.debug", "/usr/lib/debug{}/program.debug"] {
        let scratch = Scratch::new("link");
        let folder = scratch.0.to_str().unwrap();
        let (program, debug, host) =
            separate(&scratch, &["-Wl,--build-id=none"], &to.replace("{}", folder), true);
        let mut files = Files::open_below(&program, &host);
        assert_has_lines(&mut files, &program);
        // Without a build id its checksum must be right.
        let mut bytes = fs::read(&debug).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&debug, bytes).unwrap();
        let mut files = Files::open_below(&program, &host);
        assert!(has_no_files(&mut files, &program));
    }
}

#[test]
fn entries_in_a_file_that_several_share_are_found() {
    let scratch = Scratch::new("dwz");
    let (first, second) = (scratch.0.join("first"), scratch.0.join("second"));
    fs::rename(program(&scratch, &["-gdwarf-4"]), &first).unwrap();
    fs::rename(program(&scratch, &["-gdwarf-4", "-DOTHER"]), &second).unwrap();
    let mut before = Files::open(&first);
    let expected: Vec<Frames> =
        addresses(&first, 500).iter().map(|address| before.frames(*address)).collect();
    let shared = scratch.0.join("shared.debug");
    if !run(Command::new("dwz").arg("-m").arg(&shared).args([&first, &second])) {
        return;
    }
    assert!(shared.exists());
    let mut after = Files::open(&first);
    let found: Vec<Frames> = addresses(&first, 500).iter().map(|address| after.frames(*address)).collect();
    assert_eq!(found, expected);
    // Without that file there is no name that is wrong.
    fs::remove_file(&shared).unwrap();
    let mut without = Files::open(&first);
    for (address, expected) in addresses(&first, 500).iter().zip(&expected) {
        let frames = without.frames(*address);
        assert!(
            frames.iter().zip(expected).all(|(found, expected)| found.0.is_empty() || found.0 == expected.0)
        );
    }
}

#[test]
fn addresses_of_a_process_have_lines() {
    use crate::symbolize::{AddressSpace, HostSymbolizer, Symbolizer, maps};
    let scratch = Scratch::new("process");
    let program = program(&scratch, &["-DWAIT"]);
    let mut child = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let text = loop {
        let text = fs::read(format!("/proc/{}/maps", child.id())).unwrap();
        if maps::parse(&text).any(|line| line.path.ends_with(b"/program")) {
            break text;
        }
    };
    let bytes = fs::read(&program).unwrap();
    let function = Elf::read(&bytes.as_slice())
        .unwrap()
        .functions_named(&bytes.as_slice(), |name| name == "work")
        .unwrap();
    let (offset, size) = (function[0].offset, function[0].size);
    let inside = |line: &maps::MapsLine<'_>| {
        line.path.ends_with(b"/program")
            && (line.offset..line.offset + (line.end - line.start)).contains(&offset)
    };
    let mapping = maps::parse(&text).find(inside).unwrap();
    let start = mapping.start + offset - mapping.offset;
    let mut symbolizer = HostSymbolizer::new(Host::default());
    for window in 1..3 {
        symbolizer.begin_window(window);
        let space = AddressSpace::User { pid: child.id(), time: u64::MAX };
        let resolved: Vec<_> =
            (start..start + size).map(|address| symbolizer.resolve(space, address)).collect();
        let deepest = resolved.iter().max_by_key(|resolved| resolved.lines.len()).unwrap();
        let names: Vec<&str> = deepest.lines.iter().map(|line| &*line.function).collect();
        assert_eq!(names, ["square", "cube", "work"]);
        assert!(deepest.lines.iter().all(|line| line.file.as_deref().unwrap().ends_with("/program.c")));
        symbolizer.end_window(0);
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn work_goes_on_in_the_next_window() {
    let scratch = Scratch::new("work");
    let Some(program) = compile(&scratch, "g++", CPP, &["-O2", "-g"]) else { return };
    let asked = addresses(&program, 200);
    let mut files = Files::open(&program);
    let expected: Vec<Frames> = asked.iter().map(|address| files.frames(*address)).collect();
    let mut slow = Files::open(&program);
    slow.names.set_work(100_000);
    assert!(asked.iter().any(|address| slow.frames(*address).iter().all(|(_, file, _)| file.is_empty())));
    slow.names.set_work(1_000_000);
    let found: Vec<Frames> = asked.iter().map(|address| slow.frames(*address)).collect();
    assert_eq!(found, expected);
}

#[test]
fn memory_stays_bounded() {
    let scratch = Scratch::new("memory");
    let Some(program) = compile(&scratch, "g++", CPP, &["-O2", "-g"]) else { return };
    let mut files = Files::open(&program);
    let mut most = 0;
    for address in addresses(&program, 20_000) {
        files.lines(address);
        most = most.max(files.names.memory());
    }
    assert!((1 << 20..8 << 20).contains(&most), "{most}");
    files.names.end_window();
    assert!(files.names.memory() < most);
}

#[test]
fn damaged_files_end() {
    let scratch = Scratch::new("damage");
    for options in [&["-gdwarf-4"][..], &["-gdwarf-5"], &["-gz=zlib"]] {
        let good = fs::read(program(&scratch, options)).unwrap();
        let elf = Elf::read(&good.as_slice()).unwrap();
        let sections =
            [&b".debug_info"[..], b".debug_abbrev", b".debug_line", b".debug_rnglists", b".debug_ranges"];
        let sections: Vec<_> = sections.iter().filter_map(|name| elf.section(name)).collect();
        let mut random = 1_u64;
        let mut next = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % limit
        };
        for round in 0..200 {
            let mut bytes = good.clone();
            let section = sections[round % sections.len()];
            for _ in 0..1 + next(4) {
                let at = section.offset + next(section.size);
                bytes[at as usize] = next(256) as u8;
            }
            if round % 5 == 0 {
                bytes.truncate((section.offset + next(section.size)) as usize);
            }
            crate::symbolize::fuzz::elf_symbols(&bytes);
        }
    }
}

/// A section of a file that is compressed, read in any order.
#[test]
fn compressed_sections_are_read_from_anywhere() {
    use crate::symbolize::elf::tests::X86_64;
    use crate::symbolize::read_at::Source;
    let mut random = 7_u32;
    let content: Vec<u8> = (0..6 << 20)
        .map(|index: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if random >> 29 == 0 { (random >> 20) as u8 } else { (index >> 6) as u8 }
        })
        .collect();
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&content).unwrap();
    let mut section =
        [1_u64.to_le_bytes(), (content.len() as u64).to_le_bytes(), 1_u64.to_le_bytes()].concat();
    section.extend(encoder.finish().unwrap());
    let abbreviations = (".debug_abbrev", 1, 0, 0, 0, vec![0; 16]);
    let file = X86_64.file(&[abbreviations, (".debug_info", 1, 0x800, 0, 0, section)], &[]);
    let elf = Elf::read(&file.as_slice()).unwrap();
    let source: Source = Arc::new(file);
    let store = super::pages::Store::open(&elf, &source).unwrap();
    store.set_fuel(u64::MAX);
    let mut at = 1_u64;
    for round in 0..100 {
        at = if round < 50 { round * 5000 } else { (at * 7_919 + 104_729) % (content.len() as u64 - 100) };
        let mut bytes = [0; 100];
        gimli::Reader::read_slice(&mut store.at(super::pages::Section::Info, at).unwrap(), &mut bytes)
            .unwrap();
        assert_eq!(bytes, content[at as usize..at as usize + 100], "{at}");
    }
    assert!(store.memory() < 2 << 20, "{}", store.memory());
    // A bomb is work.
    store.set_fuel(1000);
    assert!(gimli::Reader::read_u8(&mut store.at(super::pages::Section::Info, 5 << 20).unwrap()).is_err());
}
