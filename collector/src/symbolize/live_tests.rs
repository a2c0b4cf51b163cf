//! Against this host: its compiler, its kernel, its processes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::*;

/// A directory that goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("symbolize-{name}-{}", std::process::id()));
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

/// A child that goes when the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Functions of the test program.
const FUNCTIONS: usize = 300;

/// A program that prints the addresses of its functions, then waits for its standard input to end.
fn program_source(prefix: &str) -> String {
    let mut source = String::from("#include <stdio.h>\n");
    for index in 0..FUNCTIONS {
        let linkage = if index % 3 == 0 { "static " } else { "" };
        source += &format!(
            "{linkage}__attribute__((noinline, used)) int {prefix}_{index}(int x) {{ return x * {index} + 1; }}\n"
        );
    }
    source += "int main(void) {\n";
    for index in 0..FUNCTIONS {
        source += &format!("printf(\"%p {prefix}_{index}\\n\", (void *){prefix}_{index});\n");
    }
    source + "puts(\"done\"); fflush(stdout); getchar(); return 0; }\n"
}

fn compile(directory: &Path, options: &[&str]) -> PathBuf {
    compile_named(directory, options, "function")
}

/// With functions whose names begin as told.
fn compile_named(directory: &Path, options: &[&str], prefix: &str) -> PathBuf {
    let (source, program) = (directory.join("program.c"), directory.join("program"));
    fs::write(&source, program_source(prefix)).unwrap();
    let compiler =
        Command::new("cc").arg("-O1").args(options).arg("-o").arg(&program).arg(&source).status().unwrap();
    assert!(compiler.success());
    program
}

/// Runs a program of ours, and returns the addresses that it printed.
fn start(command: &mut Command) -> (Process, Vec<(u64, String)>) {
    let mut child = Process(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let addresses = lines.take_while(|line| line != "done").map(|line| {
        let (address, name) = line.split_once(' ').unwrap();
        (maps::hex(address.trim_start_matches("0x").as_bytes()).unwrap(), name.to_owned())
    });
    let addresses = addresses.collect();
    (child, addresses)
}

fn user(pid: u32) -> AddressSpace {
    AddressSpace::User { pid, time: u64::MAX }
}

fn symbolizer() -> HostSymbolizer {
    let mut symbolizer = HostSymbolizer::new(Host::default());
    symbolizer.begin_window(1);
    symbolizer
}

/// What leads to files of other namespaces, or to deleted ones, takes privileges.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        println!("skipped: needs root");
    }
    root
}

#[track_caller]
fn assert_all_named(symbolizer: &mut HostSymbolizer, pid: u32, addresses: &[(u64, String)]) {
    assert_eq!(addresses.len(), FUNCTIONS);
    for (address, name) in addresses {
        let resolved = symbolizer.resolve(user(pid), address + 1);
        let function = resolved.lines.first().map(|line| &*line.function);
        assert_eq!(function, Some(name.as_str()), "{address:x} {resolved:?}");
        assert_eq!(resolved.kind, FrameKind::Native);
    }
}

/// Names and ELF addresses as `nm` tells them.
fn nm(program: &Path) -> Vec<(u64, String)> {
    let output = Command::new("nm").args(["-n", "--defined-only"]).arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let functions = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
        "tTwWi".contains(kind).then_some((maps::hex(address.as_bytes())?, name.to_owned()))
    });
    functions.collect()
}

#[test]
fn functions_of_a_program_by_name_and_by_elf_address() {
    for (name, options) in
        [("pie", &["-pie", "-fPIE"][..]), ("static", &["-static"]), ("nopie", &["-no-pie"])]
    {
        let scratch = Scratch::new(name);
        let program = compile(&scratch.0, options);
        let (process, addresses) = start(&mut Command::new(&program));
        let pid = process.0.id();
        let mut symbolizer = symbolizer();
        assert_all_named(&mut symbolizer, pid, &addresses);
        let by_name: std::collections::HashMap<String, u64> =
            nm(&program).into_iter().map(|(address, name)| (name, address)).collect();
        for (address, name) in &addresses {
            let resolved = symbolizer.resolve(user(pid), *address);
            assert_eq!(Some(&resolved.address), by_name.get(name), "{name}");
        }
        let mapping = symbolizer.resolve(user(pid), addresses[0].0).mapping.unwrap();
        assert_eq!(Path::new(&*mapping.path), program);
        assert_eq!(mapping.build_id.map(|id| id.len()), Some(20));
        assert!(mapping.memory_start <= addresses[0].0 && addresses[0].0 < mapping.memory_limit);
        // Closed files are opened again.
        symbolizer.end_window(0);
        symbolizer.begin_window(2);
        assert_all_named(&mut symbolizer, pid, &addresses);
    }
}

/// Every function that `nm` lists, at its first and at its last byte, through the table alone.
#[test]
fn every_function_of_a_static_program_as_nm_lists_it() {
    let scratch = Scratch::new("nm");
    let program = compile(&scratch.0, &["-static"]);
    let (reader, _) = read_at::FileReader::open(&Place::trusted(program.clone())).unwrap();
    let table = elf::symbols::SymbolTable::read(&elf::Elf::read(&reader).unwrap(), &reader).unwrap();
    let mut expected: std::collections::BTreeMap<u64, Vec<String>> = std::collections::BTreeMap::new();
    for (address, name) in nm(&program) {
        expected.entry(address).or_default().push(name);
    }
    let (mut checked, mut unnamed) = (0, 0);
    for (address, names) in &expected {
        // Labels inside of functions have no function of their own.
        let Some(function) = table.find(*address).filter(|function| function.start == *address) else {
            unnamed += 1;
            continue;
        };
        let name = table.name(&reader, function).unwrap();
        let versionless = |known: &String| known.split('@').next() == Some(&name);
        assert!(names.iter().any(versionless), "{address:x}: {name} is none of {names:?}");
        checked += 1;
    }
    assert!(checked > 1000 && unnamed * 50 < checked, "{checked} checked, {unnamed} unnamed");
}

#[test]
fn a_program_that_was_deleted_or_replaced() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("deleted");
    let program = compile(&scratch.0, &[]);
    let (process, addresses) = start(&mut Command::new(&program));
    // The other name keeps the inode from being given to the file that comes in its place.
    fs::hard_link(&program, scratch.0.join("kept")).unwrap();
    fs::remove_file(&program).unwrap();
    assert_all_named(&mut symbolizer(), process.0.id(), &addresses);
    // Another file in its place names nothing once the process is dead, and the mapping leads nowhere.
    let maps = fs::read(format!("/proc/{}/maps", process.0.id())).unwrap();
    let pid = process.0.id();
    drop(process);
    fs::copy("/bin/true", &program).unwrap();
    let mut symbolizer = symbolizer();
    symbolizer.processes.observe_maps(pid, &maps);
    let resolved = symbolizer.resolve(user(pid), addresses[0].0);
    assert_eq!((resolved.miss, resolved.lines.len()), (Some(Miss::FileUnavailable), 0));
}

#[test]
fn a_truncated_program_is_a_miss_and_no_signal() {
    let scratch = Scratch::new("truncated");
    let program = compile(&scratch.0, &[]);
    let (process, addresses) = start(&mut Command::new(&program));
    let pid = process.0.id();
    let maps = fs::read(format!("/proc/{pid}/maps")).unwrap();
    drop(process);
    let mut symbolizer = symbolizer();
    symbolizer.processes.observe_maps(pid, &maps);
    symbolizer.resolve(user(pid), addresses[0].0);
    fs::OpenOptions::new().write(true).open(&program).unwrap().set_len(100).unwrap();
    let resolved = symbolizer.resolve(user(pid), addresses[200].0);
    assert_eq!(resolved.miss, Some(Miss::FileUnavailable));
}

#[test]
fn a_process_in_namespaces_of_its_own_with_another_root() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("container");
    let program = compile(&scratch.0, &["-static"]);
    // The file is visible in the container alone, under a path that leads to another file outside.
    let inner = scratch.0.join("root/bin");
    fs::create_dir_all(&inner).unwrap();
    fs::create_dir_all(scratch.0.join("root/tmp")).unwrap();
    fs::rename(&program, inner.join("true")).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--kill-child", "chroot"])
        .arg(scratch.0.join("root"))
        .arg("/bin/true");
    let (process, addresses) = start(&mut command);
    let pid = fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.0.id())).unwrap();
    let pid: u32 = pid.trim().parse().unwrap();
    let mut symbolizer = symbolizer();
    assert_all_named(&mut symbolizer, pid, &addresses);
    // As perf records tell its path: as the process sees it.
    let mut symbolizer = self::symbolizer();
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let root = scratch.0.join("root");
    symbolizer.processes.observe_maps(pid, text.replace(root.to_str().unwrap(), "").as_bytes());
    assert_all_named(&mut symbolizer, pid, &addresses);
    assert_eq!(
        symbolizer.resolve(user(pid), addresses[0].0).mapping.map(|m| m.path),
        Some("/bin/true".into())
    );
    // It knows itself as process 1, so its perf map is called that.
    fs::write(root.join("tmp/perf-1.map"), "123000 1000 jitted\n").unwrap();
    symbolizer.processes.observe_maps(pid, b"123000-124000 rwxp 00000000 00:00 0\n");
    let resolved = symbolizer.resolve(user(pid), 0x12_3fff);
    assert_eq!((resolved.kind, &*resolved.lines[0].function), (FrameKind::Jit, "jitted"));
}

#[test]
fn a_perf_map_that_grows() {
    let scratch = Scratch::new("perf-map");
    let (proc, pid) = (scratch.0.join("proc"), 4242);
    let tmp = proc.join("4242/root/tmp");
    fs::create_dir_all(&tmp).unwrap();
    fs::write(proc.join("4242/maps"), "10000-20000 rwxp 00000000 00:00 0 \n").unwrap();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let uid = own.lines().find(|line| line.starts_with("Uid:")).unwrap();
    fs::write(proc.join("4242/status"), format!("NSpid:\t4242\t7\n{uid}\n")).unwrap();
    let map = tmp.join("perf-7.map");
    fs::write(&map, "10000 10 first\n").unwrap();
    let mut symbolizer = HostSymbolizer::new(Host { proc, ..Host::default() });
    symbolizer.begin_window(1);
    let name = |symbolizer: &mut HostSymbolizer, address| {
        let resolved = symbolizer.resolve(user(pid), address);
        resolved.lines.first().map(|line| line.function.to_string())
    };
    assert_eq!(name(&mut symbolizer, 0x10008).as_deref(), Some("first"));
    assert_eq!(symbolizer.resolve(user(pid), 0x10010).miss, Some(Miss::Anonymous));
    assert_eq!(symbolizer.resolve(user(pid), 0x20000).miss, Some(Miss::NotMapped));
    fs::OpenOptions::new().append(true).open(&map).unwrap().write_all(b"10010 10 second\n").unwrap();
    symbolizer.begin_window(2);
    assert_eq!(name(&mut symbolizer, 0x10010).as_deref(), Some("second"));
    // A link may lead anywhere.
    fs::rename(&map, scratch.0.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(scratch.0.join("elsewhere"), &map).unwrap();
    let mut symbolizer = HostSymbolizer::new(Host { proc: scratch.0.join("proc"), ..Host::default() });
    symbolizer.begin_window(1);
    assert_eq!(symbolizer.resolve(user(pid), 0x10008).miss, Some(Miss::Anonymous));
}

#[test]
fn perf_maps_over_the_budget_are_read_once_a_window() {
    let scratch = Scratch::new("perf-map-budget");
    let proc = scratch.0.join("proc");
    let uid = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&scratch.0).unwrap());
    let functions: String = (0..17_000).map(|i| format!("{i:x} 1 {}\n", "f".repeat(1020))).collect();
    for pid in ["1", "2", "3"] {
        let directory = proc.join(pid);
        fs::create_dir_all(directory.join("root/tmp")).unwrap();
        fs::write(directory.join("status"), format!("Uid:\t{uid}\t{uid}\n")).unwrap();
        fs::write(directory.join("maps"), "0-10000 rwxp 0 00:00 0\n").unwrap();
        fs::write(directory.join(format!("root/tmp/perf-{pid}.map")), &functions).unwrap();
    }
    let mut symbolizer = HostSymbolizer::new(Host { proc, ..Host::default() });
    symbolizer.begin_window(1);
    let misses = |symbolizer: &mut HostSymbolizer, pids: [u32; 4]| {
        pids.map(|pid| symbolizer.resolve(user(pid), 5).miss.is_some())
    };
    assert_eq!(misses(&mut symbolizer, [1, 2, 3, 1]), [false, false, false, true]);
    assert!(symbolizer.losses().jit_functions >= 16_000);
    symbolizer.begin_window(2);
    assert_eq!(misses(&mut symbolizer, [1, 1, 1, 1]), [false; 4]);
}

#[test]
fn losses_of_every_kind_are_told() {
    let scratch = Scratch::new("losses");
    let (proc, pid) = (scratch.0.join("proc"), 4242);
    fs::create_dir_all(proc.join("4242/root/tmp")).unwrap();
    let uid = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&proc).unwrap());
    fs::write(proc.join("4242/status"), format!("Uid:\t{uid}\t{uid}\n")).unwrap();
    let functions: String = (0..300_000).map(|i| format!("{i:x} 1 f\n")).collect();
    fs::write(proc.join("4242/root/tmp/perf-4242.map"), functions).unwrap();
    let mappings = (0..5000).map(|i| format!("{:x}-{:x} r-xp 0 00:00 0\n", i * 0x2000, i * 0x2000 + 0x1000));
    fs::write(proc.join("4242/maps"), mappings.collect::<String>()).unwrap();
    let mut symbolizer = HostSymbolizer::new(Host { proc, ..Host::default() });
    for window in 1..3 {
        symbolizer.begin_window(window);
        assert_eq!(&*symbolizer.resolve(user(pid), 5).lines[0].function, "f");
        let losses = symbolizer.losses();
        let expected =
            SymbolizerLosses { generations: 0, mappings: 904, jit_functions: 300_000 - (256 << 10) };
        assert_eq!((losses, losses.total()), (expected, 904 + 300_000 - (256 << 10)));
    }
    for pid in 0..33_000 {
        let record = sideband::Record::Fork { pid, parent_pid: u32::MAX, tid: pid, time: 1 };
        symbolizer.observe(&record, &sideband::SampleId::default());
    }
    assert!(symbolizer.losses().generations > 200);
}

#[test]
fn pipes_and_devices_are_not_opened() {
    let scratch = Scratch::new("pipe");
    let pipe = scratch.0.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe, "/dev/zero".into(), "/".into()] {
        assert!(matches!(
            read_at::FileReader::open(&Place::trusted(path)).map_err(|e| *e),
            Err(SymbolizeError::Open { .. })
        ));
    }
}

#[test]
fn own_functions_and_the_vdso() {
    let pid = std::process::id();
    let mut symbolizer = symbolizer();
    let resolved = symbolizer.resolve(user(pid), own_functions_and_the_vdso as fn() as usize as u64);
    let line = &resolved.lines[0];
    assert!(line.function.ends_with("own_functions_and_the_vdso"), "{line:?}");
    assert!(line.system_name.as_deref().unwrap().starts_with("_"));
    let text = fs::read("/proc/self/maps").unwrap();
    let Some(vdso) = maps::parse(&text).find(|line| line.path == b"[vdso]") else {
        println!("skipped: this process has no vDSO");
        return;
    };
    let found: std::collections::BTreeSet<String> = (vdso.start..vdso.end)
        .step_by(16)
        .filter_map(|address| {
            symbolizer.resolve(user(pid), address).lines.first().map(|l| l.function.to_string())
        })
        .collect();
    assert!(found.iter().any(|name| name.contains("clock_gettime")), "{found:?}");
}

#[test]
fn kernel_functions() {
    let mut symbolizer = symbolizer();
    let text = fs::read_to_string("/proc/kallsyms").unwrap();
    let line = text.lines().find(|line| line.ends_with(" T schedule")).unwrap();
    let address = maps::hex(line.split(' ').next().unwrap().as_bytes()).unwrap();
    let resolved = symbolizer.resolve(AddressSpace::Kernel, address + 4);
    if resolved.miss == Some(Miss::KernelHidden) {
        println!("skipped: kernel addresses are hidden from this user");
        return;
    }
    assert_eq!((resolved.kind, &*resolved.lines[0].function), (FrameKind::Kernel, "schedule"));
    let mapping = resolved.mapping.unwrap();
    assert_eq!(&*mapping.path, "[kernel]");
    assert!(mapping.memory_start <= address && address < mapping.memory_limit);
    assert!(mapping.build_id.is_some());
    assert_eq!(symbolizer.resolve(AddressSpace::Kernel, 4096).miss, Some(Miss::KernelUnknown));
}

#[test]
fn kernel_symbols_are_read_again_when_an_address_misses_but_not_often() {
    let scratch = Scratch::new("kallsyms");
    let path = scratch.0.join("kallsyms");
    fs::write(&path, "ffffffff81000000 T first\n").unwrap();
    let mut symbolizer = HostSymbolizer::new(Host { proc: scratch.0.clone(), ..Host::default() });
    let second = 1_000_000_000;
    let late = 0xffff_ffff_c000_0004;
    symbolizer.begin_window(second);
    assert_eq!(symbolizer.resolve(AddressSpace::Kernel, late).miss, Some(Miss::KernelUnknown));
    fs::write(&path, "ffffffff81000000 T first\nffffffffc0000000 t loaded [late]\n").unwrap();
    symbolizer.begin_window(2 * second);
    assert_eq!(symbolizer.resolve(AddressSpace::Kernel, late).miss, Some(Miss::KernelUnknown));
    symbolizer.begin_window(8 * second);
    let resolved = symbolizer.resolve(AddressSpace::Kernel, late);
    assert_eq!(&*resolved.lines[0].function, "loaded");
    assert_eq!(&*resolved.mapping.unwrap().path, "[late]");
}

#[test]
fn kernel_code_that_comes_and_goes_takes_only_its_own_names_along() {
    let scratch = Scratch::new("programs");
    let path = scratch.0.join("kallsyms");
    let (stays, goes) = (0xffff_ffff_c000_0000, 0xffff_ffff_c000_1000);
    let write = |name: &str| {
        let kernel = "ffffffff81000000 T first\nffffffff81001000 T _etext\n";
        let programs = format!("{stays:x} t bpf_prog_stays\t[bpf]\n{goes:x} t {name}\t[bpf]\n");
        fs::write(&path, format!("{kernel}{programs}")).unwrap();
    };
    write("bpf_prog_old");
    let mut symbolizer = HostSymbolizer::new(Host { proc: scratch.0.clone(), ..Host::default() });
    symbolizer.begin_window(1);
    symbolizer.prepare_kernel(vec![stays, goes + 8]);
    let name = |symbolizer: &mut HostSymbolizer, address| {
        let resolved = symbolizer.resolve(AddressSpace::Kernel, address);
        resolved.lines.first().map(|line| line.function.to_string())
    };
    assert_eq!(name(&mut symbolizer, goes + 8).as_deref(), Some("bpf_prog_old"));
    // What is read again would have these names.
    write("bpf_prog_new");
    let told = |symbolizer: &mut HostSymbolizer, address| {
        let record = sideband::Record::KernelSymbol { address, length: 256, removed: false };
        symbolizer.observe(&record, &sideband::SampleId::default());
    };
    told(&mut symbolizer, goes + 0x10_0000);
    assert_eq!(name(&mut symbolizer, goes + 8).as_deref(), Some("bpf_prog_old"), "not read again");
    told(&mut symbolizer, goes);
    assert_eq!(name(&mut symbolizer, goes + 8).as_deref(), Some("bpf_prog_new"));
    assert_eq!(name(&mut symbolizer, stays).as_deref(), Some("bpf_prog_stays"));
}

#[test]
fn short_lived_processes_are_named_from_records() {
    let scratch = Scratch::new("short");
    let program = compile(&scratch.0, &[]);
    let (process, addresses) = start(&mut Command::new(&program));
    let pid = process.0.id();
    let text = fs::read(format!("/proc/{pid}/maps")).unwrap();
    drop(process);
    let mut symbolizer = symbolizer();
    let at = |time| sideband::SampleId { time: Some(time), ..Default::default() };
    symbolizer.observe(&sideband::Record::Comm { pid, tid: pid, exec: true, comm: b"program" }, &at(10));
    for line in maps::parse(&text).filter(|line| line.executable) {
        let file = sideband::FileId::Inode { device: line.device, inode: line.inode, generation: 0 };
        let (start, length, offset, path) = (line.start, line.end - line.start, line.offset, line.path);
        symbolizer.observe(&sideband::Record::Mmap { pid, start, length, offset, file, path }, &at(11));
    }
    symbolizer.observe(&sideband::Record::Exit { pid, tid: pid, time: 12 }, &at(12));
    assert_all_named(&mut symbolizer, pid, &addresses);
    assert_eq!(symbolizer.known_files(), 1);
    symbolizer.end_window(13);
    assert_eq!(symbolizer.known_files(), 0, "nothing is kept of a process that ended");
    symbolizer.begin_window(2);
    assert_eq!(symbolizer.resolve(user(pid), addresses[0].0).miss, Some(Miss::UnknownProcess));
}

#[test]
fn programs_of_one_process_are_told_apart_by_time() {
    let (scratches, pid) = ([Scratch::new("before"), Scratch::new("after")], u32::MAX - 4);
    let mut symbolizer = symbolizer();
    let mut samples = Vec::new();
    for (scratch, (prefix, begin)) in scratches.iter().zip([("before", 10), ("afters", 20)]) {
        let program = compile_named(&scratch.0, &["-no-pie"], prefix);
        let (process, addresses) = start(&mut Command::new(&program));
        let text = fs::read(format!("/proc/{}/maps", process.0.id())).unwrap();
        let id = sideband::SampleId { time: Some(begin), ..Default::default() };
        let comm = prefix.as_bytes();
        symbolizer.observe(&sideband::Record::Comm { pid, tid: pid, exec: true, comm }, &id);
        for line in maps::parse(&text).filter(|line| line.executable) {
            let file = sideband::FileId::Inode { device: line.device, inode: line.inode, generation: 0 };
            let (start, length, offset, path) = (line.start, line.end - line.start, line.offset, line.path);
            symbolizer.observe(&sideband::Record::Mmap { pid, start, length, offset, file, path }, &id);
        }
        samples.push(addresses);
    }
    assert!(samples[0].iter().zip(&samples[1]).all(|(before, after)| before.0 == after.0));
    // In turns, so that nothing that is kept of one answers for the other.
    for (index, &(address, _)) in samples[0].iter().enumerate() {
        for (time, prefix) in [(15, "before"), (19, "before"), (20, "afters"), (u64::MAX, "afters")] {
            let resolved = symbolizer.resolve(AddressSpace::User { pid, time }, address);
            assert_eq!(&*resolved.lines[0].function, format!("{prefix}_{index}"));
            let generation = symbolizer.processes().generation(pid, time).unwrap();
            assert_eq!(generation.comm.as_deref(), Some(prefix));
            assert_eq!(generation.executable, resolved.mapping.map(|mapping| mapping.path));
        }
    }
}

#[test]
fn perf_maps_of_programs_of_one_process_are_told_apart_by_time() {
    let scratch = Scratch::new("perf-map-time");
    let (proc, pid) = (scratch.0.join("proc"), 4242);
    fs::create_dir_all(proc.join("4242/root/tmp")).unwrap();
    let uid = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&proc).unwrap());
    fs::write(proc.join("4242/status"), format!("Uid:\t{uid}\t{uid}\n")).unwrap();
    let mut symbolizer = HostSymbolizer::new(Host { proc: proc.clone(), ..Host::default() });
    for (begin, name) in [(10, "first"), (20, "second")] {
        let id = sideband::SampleId { time: Some(begin), ..Default::default() };
        symbolizer.observe(&sideband::Record::Comm { pid, tid: pid, exec: true, comm: b"java" }, &id);
        let (file, path) = (sideband::FileId::Unknown, &b"//anon"[..]);
        let memory = sideband::Record::Mmap { pid, start: 0x1000, length: 0x1000, offset: 0, file, path };
        symbolizer.observe(&memory, &id);
        fs::write(proc.join("4242/root/tmp/perf-4242.map"), format!("1000 1000 {name}\n")).unwrap();
        symbolizer.begin_window(begin);
        let resolved = symbolizer.resolve(AddressSpace::User { pid, time: begin + 5 }, 0x1800);
        assert_eq!(&*resolved.lines[0].function, name);
        symbolizer.end_window(0);
    }
    symbolizer.begin_window(30);
    let resolved = symbolizer.resolve(AddressSpace::User { pid, time: 15 }, 0x1800);
    assert_eq!(&*resolved.lines[0].function, "first");
    symbolizer.end_window(25);
    let resolved = symbolizer.resolve(AddressSpace::User { pid, time: 15 }, 0x1800);
    assert_eq!(&*resolved.lines[0].function, "second", "only the second is known any more");
}

/// By build id, which is how newer kernels tell what was mapped.
#[test]
fn a_file_with_another_build_id_is_not_the_one_that_was_mapped() {
    let scratch = Scratch::new("build-id");
    let program = compile(&scratch.0, &[]);
    let (process, addresses) = start(&mut Command::new(&program));
    let mut symbolizer = symbolizer();
    let living = symbolizer.resolve(user(process.0.id()), addresses[0].0).mapping.unwrap();
    drop(process);
    let id = living.build_id.unwrap();
    let mut wrong = id.to_vec();
    wrong[0] ^= 1;
    let at = |time| sideband::SampleId { time: Some(time), ..Default::default() };
    for (pid, id, miss) in [(u32::MAX - 2, &*id, None), (u32::MAX - 3, &*wrong, Some(Miss::FileUnavailable))]
    {
        let (start, length) = (living.memory_start, living.memory_limit - living.memory_start);
        let (offset, path) = (living.file_offset, program.to_str().unwrap().as_bytes());
        let file = sideband::FileId::BuildId(id);
        symbolizer.observe(&sideband::Record::Comm { pid, tid: pid, exec: true, comm: b"x" }, &at(1));
        symbolizer.observe(&sideband::Record::Mmap { pid, start, length, offset, file, path }, &at(2));
        symbolizer.observe(&sideband::Record::Exit { pid, tid: pid, time: 3 }, &at(3));
        let resolved = symbolizer.resolve(user(pid), addresses[0].0);
        assert_eq!(resolved.miss, miss);
        assert_eq!(resolved.mapping.unwrap().build_id.as_deref(), Some(id));
    }
}

#[test]
fn tables_are_dropped_over_the_budget_and_read_again() {
    let (first, second) = (Scratch::new("budget-a"), Scratch::new("budget-b"));
    let (a, addresses_a) = start(&mut Command::new(compile(&first.0, &[])));
    let (b, addresses_b) = start(&mut Command::new(compile(&second.0, &["-static"])));
    let mut symbolizer = HostSymbolizer::with_budget(Host::default(), 20_000);
    symbolizer.begin_window(1);
    for _ in 0..2 {
        assert_all_named(&mut symbolizer, a.0.id(), &addresses_a);
        let small = symbolizer.memory().0;
        assert_all_named(&mut symbolizer, b.0.id(), &addresses_b);
        // The larger one alone is over the budget, and the smaller one is gone.
        let large = symbolizer.memory().0;
        assert!(large > 20_000 && small > 0, "{small} {large}");
        symbolizer.resolve(user(a.0.id()), addresses_a[0].0);
        assert!(symbolizer.memory().0 < small, "{small} {}", symbolizer.memory().0);
    }
}

#[test]
fn a_copy_of_a_process_that_ended_before_it_was_asked_about() {
    let scratch = Scratch::new("copy");
    let program = compile(&scratch.0, &[]);
    let (process, addresses) = start(&mut Command::new(&program));
    let (parent, pid) = (process.0.id(), u32::MAX - 1);
    let mut symbolizer = symbolizer();
    let id = sideband::SampleId::default();
    symbolizer.observe(&sideband::Record::Fork { pid, parent_pid: parent, tid: pid, time: 10 }, &id);
    symbolizer.observe(&sideband::Record::Exit { pid, tid: pid, time: 11 }, &id);
    assert_all_named(&mut symbolizer, pid, &addresses);
}

/// The profiler may give it to a thread of its own.
#[test]
fn a_symbolizer_can_change_threads() {
    let mut symbolizer = symbolizer();
    let address = a_symbolizer_can_change_threads as fn() as usize as u64;
    let resolved =
        std::thread::spawn(move || symbolizer.resolve(user(std::process::id()), address)).join().unwrap();
    assert_eq!(resolved.miss, None);
}
