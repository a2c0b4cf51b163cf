//! Where the threads of processes have the variable that points to their span.

use std::time::{Duration, Instant};

use bpf_programs::events::spans::SpanPlace;
use bpf_sys::clock::Clock;
use bpf_sys::{MapFd, map};

use super::context;
use crate::cpu_budget::CpuBudget;
use crate::sorted::SortedMap;
use crate::symbolize::elf::{Elf, ThreadVariable};
use crate::symbolize::maps;
use crate::symbolize::read_at::{ReadAt, read_vec};
use crate::symbolize::sideband::Record;
use crate::symbolize::{Code, FileNo, HostSymbolizer};

const VARIABLE: &str = "otel_thread_ctx_v1";
/// Processes of which is kept when they were looked at.
const MAX_PROCESSES: usize = 4096;
/// Files of which is kept where they have the variable. What comes then is read again.
const MAX_FILES: usize = 512;
/// Files of a process that are looked at.
const MAX_MAPPINGS: usize = 256;
/// Time between two looks at a process, at first and at most: what it publishes may come late, or in another library.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const MOST_WAIT: Duration = Duration::from_secs(64);
/// CPU time that looks may take in a second: hostile processes have many large files.
const MAX_NANOS: u32 = 50_000_000;
/// Distances from the thread pointer are smaller.
const MAX_DISTANCE: u64 = 1 << 28;
/// More modules than a process has; larger numbers are something else.
const MAX_MODULE: u64 = 1 << 20;

/// When a process is looked at.
#[derive(Debug, Clone, Copy)]
struct Look {
    next: Instant,
    /// Until the one after that.
    wait: Duration,
    /// Whether the program knows where its threads have the variable.
    is_told: bool,
}

/// The processes that publish spans.
pub(crate) struct SpanProcesses {
    /// The program's table of them.
    map: MapFd,
    processes: SortedMap<u32, Look>,
    files: SortedMap<FileNo, Option<ThreadVariable>>,
    budget: CpuBudget,
}

impl SpanProcesses {
    /// For a program that reads spans of the processes in this map.
    pub fn new(map: MapFd) -> Self {
        Self {
            map,
            processes: SortedMap::new(),
            files: SortedMap::new(),
            budget: CpuBudget::new(MAX_NANOS, MAX_NANOS),
        }
    }

    /// Takes in what the kernel reports, after the symbolizer has.
    pub fn observe(&mut self, record: &Record<'_>) {
        match *record {
            Record::Comm { pid, exec: true, .. } => self.forget(pid),
            // What is published is the parent's alone.
            Record::Fork { pid, parent_pid, .. } if pid != parent_pid => self.forget(pid),
            Record::Exit { pid, tid, .. } if pid == tid => self.forget(pid),
            Record::Lost { .. } => {
                let known: Vec<u32> = self.processes.keys().copied().collect();
                known.into_iter().for_each(|pid| self.forget(pid));
            }
            _ => {}
        }
    }

    /// A process was sampled: looks whether it publishes spans, if that is due.
    pub fn look(&mut self, symbolizer: &mut HostSymbolizer, pid: u32) {
        let (known, now) = (self.processes.get(&pid).copied(), Instant::now());
        if pid == 0 || known.is_some_and(|look| now < look.next) || self.budget.is_spent() {
            return;
        }
        if known.is_none() && self.processes.len() >= MAX_PROCESSES {
            // Of those that are not due, it is still known that they publish nothing.
            self.processes.retain(|_, look| look.is_told || now < look.next);
            if self.processes.len() >= MAX_PROCESSES {
                return;
            }
        }
        let start = Clock::ThreadCpu.nanos();
        let key = pid.to_ne_bytes();
        let place = self.find(symbolizer, pid);
        let told = place.is_some_and(|place| map::update(&self.map, &key, &place.encode(), 0).is_ok());
        if !told && known.is_some_and(|look| look.is_told) {
            // It is there, or nobody asks for it.
            let _ = map::delete(&self.map, &key);
        }
        let wait = known.map_or(FIRST_WAIT, |look| (look.wait * 2).min(MOST_WAIT));
        self.processes.insert(pid, Look { next: now + wait, wait, is_told: told });
        self.budget.spend_since(start);
    }

    fn forget(&mut self, pid: u32) {
        if self.processes.remove(&pid).is_some_and(|look| look.is_told) {
            let _ = map::delete(&self.map, &pid.to_ne_bytes());
        }
    }

    fn find(&mut self, symbolizer: &mut HostSymbolizer, pid: u32) -> Option<SpanPlace> {
        let started = Clock::ThreadCpu.nanos();
        let text = symbolizer.maps_of(pid)?;
        let context = context::mapping(maps::parse(&text))?;
        let memory = symbolizer.memory_of(pid)?;
        if !context::publishes_spans(&memory, context) {
            return None;
        }
        // The address of code tells the file, and how far away from its own addresses it is.
        let code = maps::parse(&text).filter(|line| line.executable && line.path.starts_with(b"/"));
        let library = Library::of(maps::parse(&text).map(|line| line.path));
        for start in code.map(|line| line.start).take(MAX_MAPPINGS) {
            if Clock::ThreadCpu.nanos().saturating_sub(started) > MAX_NANOS.into() {
                break;
            }
            let Code::InFile { file, address, source, .. } = symbolizer.code(pid, u64::MAX, start) else {
                continue;
            };
            if self.files.len() >= MAX_FILES && !self.files.contains_key(&file) {
                self.files.clear();
            }
            let read =
                || Elf::read(source).and_then(|elf| elf.thread_variable(source, VARIABLE)).ok().flatten();
            if let Some(variable) = *self.files.entry(file).or_insert_with(read) {
                return place(variable, start.wrapping_sub(address), &memory, library);
            }
        }
        None
    }
}

/// Whose tables of modules threads have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Library {
    Glibc,
    Musl,
}

impl Library {
    fn of<'p>(mut paths: impl Iterator<Item = &'p [u8]>) -> Self {
        // Musl's is called in many ways.
        let is_glibc = |name: &[u8]| name == b"libc.so.6" || name.starts_with(b"ld-linux");
        let is_file = |path: &[u8]| path.rsplit(|&byte| byte == b'/').next().is_some_and(is_glibc);
        if paths.any(is_file) { Self::Glibc } else { Self::Musl }
    }

    /// A place in a module's data, on this machine.
    ///
    /// Of glibc, `tcbhead_t` has the table's address (sysdeps/x86_64/nptl/tls.h, sysdeps/aarch64/nptl/tls.h), an entry has two words, and
    /// the number of entries is in the one before the first (elf/dl-tls.c). Of musl, `struct pthread` has the address, on arm64 right before
    /// the thread pointer, and an entry is a word, the first the number (src/internal/pthread_impl.h).
    fn place(self, module: u32, offset: u64) -> SpanPlace {
        let is_arm64 = cfg!(target_arch = "aarch64");
        let (entry, table, entries) = match self {
            Self::Glibc => (16, if is_arm64 { 0 } else { 8 }, -16i32),
            Self::Musl => (8, if is_arm64 { -8 } else { 8 }, 0),
        };
        SpanPlace { offset, module, entry, table: table as u32, entries: entries as u32 }
    }
}

/// Where a process' threads have a variable of a file that is so far from the file's own addresses.
fn place(variable: ThreadVariable, base: u64, memory: &dyn ReadAt, library: Library) -> Option<SpanPlace> {
    let at_pointer = |offset: u64| SpanPlace { offset, ..SpanPlace::default() };
    let words = |address: u64| {
        let bytes = read_vec(memory, address, 16, 16, "a table of offsets").ok()?;
        let (first, second) = bytes.split_first_chunk()?;
        Some((u64::from_ne_bytes(*first), u64::from_ne_bytes(*second.first_chunk()?)))
    };
    let in_module = |(module, offset): (u64, u64)| {
        // Others are not set yet.
        let module =
            u32::try_from(module).ok().filter(|module| *module > 0 && u64::from(*module) < MAX_MODULE)?;
        Some(library.place(module, offset))
    };
    match variable {
        ThreadVariable::Static(offset) => Some(at_pointer(offset)),
        ThreadVariable::Distance(at) => {
            let bytes = read_vec(memory, base.wrapping_add(at), 8, 8, "a table of offsets").ok()?;
            let distance = u64::from_ne_bytes(*bytes.first_chunk()?);
            // Nor is this, as long as it is 0.
            (distance != 0).then(|| at_pointer(distance))
        }
        ThreadVariable::Module(at, known) => {
            let (module, offset) = words(base.wrapping_add(at))?;
            in_module((module, known.unwrap_or(offset)))
        }
        ThreadVariable::Descriptor(at) => {
            let (function, argument) = words(base.wrapping_add(at))?;
            match function {
                0 => None,
                _ if argument.wrapping_neg() < MAX_DISTANCE => Some(at_pointer(argument)),
                // An address may be as small as a distance of arm64, where programs lie low.
                _ => words(argument).and_then(in_module).or_else(|| {
                    let is_distance = cfg!(target_arch = "aarch64") && argument < MAX_DISTANCE;
                    is_distance.then(|| at_pointer(argument))
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_told_by_its_files() {
        let of = |paths: &[&str]| Library::of(paths.iter().map(|path| path.as_bytes()));
        assert_eq!(of(&["/lib/ld-musl-x86_64.so.1", "/usr/bin/a"]), Library::Musl);
        assert_eq!(of(&["/usr/lib/x86_64-linux-musl/libc.so", "/usr/bin/a"]), Library::Musl);
        assert_eq!(of(&["/opt/libmusl.so", "/lib/x86_64-linux-gnu/libc.so.6"]), Library::Glibc);
        assert_eq!(of(&["/usr/bin/a", "/lib/ld-linux-aarch64.so.1"]), Library::Glibc);
    }

    const BASE: u64 = 0x7100_0000_0000;

    /// Words from an address on.
    struct Words(Vec<u64>);

    impl ReadAt for Words {
        fn size(&self) -> u64 {
            u64::MAX
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
            let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let found = offset.checked_sub(BASE).and_then(|at| bytes.get(at as usize..)?.get(..buffer.len()));
            found.map_or(Ok(0), |found| {
                buffer.copy_from_slice(found);
                Ok(found.len())
            })
        }
    }

    #[test]
    fn places_are_what_the_process_has_in_its_tables() {
        let memory = Words(vec![-64i64 as u64, 0x7000_0000_0000, 3, 0x18, 0x7000_0000_0000, BASE + 16, 0, 0]);
        let of = |variable| place(variable, BASE, &memory, Library::Glibc);
        let at_pointer = |offset| Some(SpanPlace { offset, ..SpanPlace::default() });
        let in_module = |offset| Some(Library::Glibc.place(3, offset));
        assert_eq!(of(ThreadVariable::Static(8)), at_pointer(8));
        assert_eq!(of(ThreadVariable::Distance(0)), at_pointer(-64i64 as u64));
        assert_eq!(of(ThreadVariable::Module(16, None)), in_module(0x18));
        assert_eq!(of(ThreadVariable::Module(16, Some(0x20))), in_module(0x20));
        assert_eq!(of(ThreadVariable::Module(8, None)), None, "an address is no module");
        assert_eq!(of(ThreadVariable::Descriptor(32)), in_module(0x18));
        assert_eq!(of(ThreadVariable::Descriptor(24)), None, "where there is nothing");
        assert_eq!(of(ThreadVariable::Descriptor(48)), None, "which is not set yet");
        assert_eq!(of(ThreadVariable::Descriptor(1 << 40)), None);
        let near = Words(vec![0x7000_0000_0000, -16i64 as u64]);
        assert_eq!(
            place(ThreadVariable::Descriptor(0), BASE, &near, Library::Musl),
            at_pointer(-16i64 as u64)
        );
        let entry = Library::Musl.place(3, 4);
        assert_eq!((entry.entry, entry.entries), (8, 0));
    }
}
