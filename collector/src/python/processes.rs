//! Which processes run CPython, and what their frames are of.

use std::sync::Arc;

use bpf_programs::events::python::{Python, PythonFrame};
use bpf_sys::{MapFd, map};

use super::code::Code;
use super::version::{DEBUG_OFFSETS, Version, built_in, minor_in, minor_of, told};
use crate::aggregate::ProcessId;
use crate::model::Line;
use crate::sorted::SortedMap;
use crate::symbolize::elf::Elf;
use crate::symbolize::read_at::{ReadAt, read_vec};
use crate::symbolize::sideband::Record;
use crate::symbolize::{self, FileNo, HostSymbolizer};

/// Files of which is kept whether they are CPython. What comes then is read again.
const MAX_FILES: usize = 128;
/// Processes of which is kept that they are none of CPython's.
const MAX_PROCESSES: usize = 4096;
/// Mappings of a process that are looked at: their names say that they are CPython's.
const MAX_MAPPINGS: usize = 8;
/// Functions of a window, and the bytes that they take.
const MAX_CODES: usize = 1 << 16;
const MAX_CODE_BYTES: usize = 8 << 20;
/// What a function goes by that could not be read.
const UNREAD: &str = "<python>";
const RUNTIME: &str = "_PyRuntime";
/// The function that runs functions; and its least size where it has the instructions itself.
pub(crate) const EVAL: &str = "_PyEval_EvalFrameDefault";
const LEAST_EVAL: u64 = 8 << 10;
const VERSION: &str = "Py_Version";

/// CPython in a file, or with the addresses of a process: its version, and where its state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Runtime {
    pub version: Version,
    pub address: u64,
    /// Each instruction has a function of its own, which the interpreter's function calls the first of.
    pub has_handlers: bool,
}

impl Runtime {
    /// `None`: the file is none of CPython, or of a version that is not known.
    pub fn read(source: &dyn ReadAt, name: &str) -> Option<Self> {
        let elf = Elf::read(source).ok().filter(|elf| elf.is_64() && elf.is_little_endian())?;
        let [runtime, number, eval] = elf.exported(source, [RUNTIME, VERSION, EVAL]).ok()?;
        let address = runtime?.value;
        let at = |address: u64, size: usize| {
            let (offset, left) = elf.offset_of(address)?;
            read_vec(source, offset, left.min(size as u64), size, "CPython's data").ok()
        };
        let version = at(address, DEBUG_OFFSETS).and_then(|bytes| told(&bytes)).or_else(|| {
            let number = number.and_then(|number| at(number.value, 8));
            let minor = match number {
                Some(bytes) => minor_of(u64::from_ne_bytes(*bytes.first_chunk()?)),
                // Before 3.11, names of files alone tell.
                None => minor_in(name).filter(|minor| *minor < 11),
            };
            built_in(minor?)
        })?;
        let has_handlers = eval.is_some_and(|eval| eval.size < LEAST_EVAL);
        Some(Self { version, address, has_handlers })
    }
}

/// Whether a file is called as CPython's are, and not as modules for it.
fn is_named(path: &[u8]) -> bool {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let has = |wanted: &[u8]| name.windows(wanted.len()).any(|part| part.eq_ignore_ascii_case(wanted));
    has(b"python") && !has(b".cpython-")
}

/// Processes that run CPython, and their functions.
pub(crate) struct Pythons {
    /// The program's table of processes.
    map: MapFd,
    /// `None`: it was looked at, and runs something else.
    processes: SortedMap<u32, Option<Runtime>>,
    files: SortedMap<FileNo, Option<Runtime>>,
    /// Of the window, by the address of their code. `None`: it could not be read.
    codes: SortedMap<(ProcessId, u64), Option<Code>>,
    code_bytes: usize,
    unread: u64,
}

impl Pythons {
    /// For a program that reads frames of the processes in this map.
    pub fn new(map: MapFd) -> Self {
        Self {
            map,
            processes: SortedMap::new(),
            files: SortedMap::new(),
            codes: SortedMap::new(),
            code_bytes: 0,
            unread: 0,
        }
    }

    /// Takes in what the kernel reports, after `symbolizer` has.
    pub fn observe(&mut self, symbolizer: &mut HostSymbolizer, record: &Record<'_>) {
        match *record {
            Record::Mmap { pid, path, .. } if is_named(path) => {
                if matches!(self.processes.get(&pid), Some(None)) {
                    self.processes.remove(&pid);
                }
                self.look(symbolizer, pid);
            }
            Record::Comm { pid, exec: true, .. } => self.forget(pid),
            Record::Fork { pid, parent_pid, .. } if pid != parent_pid => {
                self.forget(pid);
                if let Some(&Some(runtime)) = self.processes.get(&parent_pid) {
                    self.set(pid, runtime);
                }
            }
            Record::Exit { pid, tid, .. } if pid == tid => self.forget(pid),
            // Whatever has ended, or runs something else.
            Record::Lost { .. } => {
                let known: Vec<u32> = self.processes.keys().copied().collect();
                known.into_iter().for_each(|pid| self.forget(pid));
            }
            _ => {}
        }
    }

    /// Looks whether a process runs CPython.
    pub fn look(&mut self, symbolizer: &mut HostSymbolizer, pid: u32) {
        if self.processes.contains_key(&pid) {
            return;
        }
        let Some(generation) = symbolizer.processes().generation(pid, u64::MAX) else { return };
        if self.processes.len() >= MAX_PROCESSES {
            self.processes.retain(|_, known| known.is_some());
        }
        self.processes.insert(pid, None);
        let named = generation.mappings().iter().filter(|mapping| is_named(mapping.file.path.as_bytes()));
        let places: Vec<(u64, Arc<str>)> =
            named.take(MAX_MAPPINGS).map(|mapping| (mapping.start, Arc::clone(&mapping.file.path))).collect();
        for (start, path) in places {
            let symbolize::Code::InFile { file, address, source, .. } = symbolizer.code(pid, u64::MAX, start)
            else {
                continue;
            };
            if self.files.len() >= MAX_FILES && !self.files.contains_key(&file) {
                self.files.clear();
            }
            let read = || Runtime::read(source, path.rsplit('/').next().unwrap_or_default());
            if let Some(runtime) = *self.files.entry(file).or_insert_with(read) {
                let address = start.wrapping_sub(address).wrapping_add(runtime.address);
                return self.set(pid, Runtime { address, ..runtime });
            }
        }
    }

    fn set(&mut self, pid: u32, runtime: Runtime) {
        let value = Python { runtime: runtime.address, ..runtime.version.frames };
        if map::update(&self.map, &pid.to_ne_bytes(), &value.encode(), 0).is_ok() {
            self.processes.insert(pid, Some(runtime));
        } else {
            // Where there is no room, its stacks stay native, until there is.
            self.processes.remove(&pid);
        }
    }

    fn forget(&mut self, pid: u32) {
        if let Some(Some(_)) = self.processes.remove(&pid) {
            // It is there, or nobody asks for it.
            let _ = map::delete(&self.map, &pid.to_ne_bytes());
        }
    }

    /// Reads what functions the frames of a process are of, while it is there.
    pub fn meet(
        &mut self,
        symbolizer: &HostSymbolizer,
        process: ProcessId,
        frames: impl Iterator<Item = PythonFrame>,
    ) {
        let Some(&Some(Runtime { version, .. })) = self.processes.get(&process.pid) else { return };
        let mut memory = None;
        for PythonFrame { code, .. } in frames {
            let key = (process, code);
            if self.codes.contains_key(&key)
                || self.codes.len() >= MAX_CODES
                || self.code_bytes >= MAX_CODE_BYTES
                || !symbolizer.is_same_program(process.pid, process.started)
            {
                continue;
            }
            let memory = memory.get_or_insert_with(|| symbolizer.memory_of(process.pid));
            let read = memory.as_ref().and_then(|memory| Code::read(memory, &version.code, code));
            self.code_bytes += read.as_ref().map_or(0, Code::memory);
            self.codes.insert(key, read);
        }
    }

    /// The function of a frame, and its line. `None`: it is none of the program's.
    pub fn line(&mut self, process: ProcessId, frame: PythonFrame) -> Option<Line> {
        match self.codes.get(&(process, frame.code)) {
            Some(Some(code)) => (!code.is_shim()).then(|| code.line(frame.instruction)),
            _ => {
                self.unread += 1;
                Some(Line { function: UNREAD.into(), system_name: None, file: None, line: 0 })
            }
        }
    }

    /// Whether a process' interpreter has functions for its instructions.
    pub fn has_handlers(&self, process: ProcessId) -> bool {
        matches!(self.processes.get(&process.pid), Some(Some(runtime)) if runtime.has_handlers)
    }

    /// Functions that could not be read, in all windows: each counts once for each place in a window.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    /// After the names of a window: code is freed, and its place used for other.
    pub fn end_window(&mut self) {
        self.codes.clear();
        self.code_bytes = 0;
    }
}
