//! A window whose addresses are located: what must be read while processes are there. Names in files can be looked for later.

use std::sync::Arc;

#[cfg(feature = "python")]
use bpf_programs::events::python::PythonFrame;
#[cfg(feature = "unwind")]
use bpf_programs::events::spans::Span;

#[cfg(feature = "python")]
use super::naming::split_python;
use super::naming::{Named, Names, looked_up};
use super::sideband::monotonic_nanos;
use super::symbols::Symbols;
use crate::aggregate::{ProcessId, SampleKey, StackId, StackTable};
use crate::error::Result;
use crate::model::{FrameKind, Line, Process};
use crate::sorted::{SortedMap, SortedSet};
use crate::symbolize::{FileNames, FileNo, KernelChange, KernelNames, Located, NamedFile};

/// Files that are open for a part of a window. Some parts wait for the thread that names them.
pub(super) const FILES_A_PART: usize = 32;

/// Addresses whose names are to be looked for in files, which are open.
#[derive(Default)]
pub(super) struct Asked {
    files: SortedMap<FileNo, NamedFile>,
    addresses: Vec<(FileNo, u64)>,
}

impl Asked {
    /// Appends the lines of each address to those of the part of the window that came before; once `go_on` says
    /// no, they have none. How many were not looked for.
    pub fn answer(
        &self,
        names: &mut FileNames,
        lines: &mut Vec<Arc<[Line]>>,
        go_on: impl Fn() -> bool,
    ) -> u64 {
        let mut late = 0;
        for (number, address) in &self.addresses {
            let goes_on = go_on();
            late += u64::from(!goes_on);
            let file = self.files.get(number).filter(|_| goes_on);
            // A file that cannot be read has no names.
            lines.push(file.and_then(|file| names.lines(file, *address).ok()).unwrap_or_default());
        }
        late
    }
}

/// What was at the addresses of a window, and who its processes were.
#[derive(Default)]
pub(super) struct LocatedWindow {
    processes: SortedMap<ProcessId, Process>,
    /// What is known of an address, and the number of the answer that has the lines.
    addresses: SortedMap<(ProcessId, u64), (Named, Option<usize>)>,
    kernel_changes: Vec<KernelChange>,
    #[cfg(feature = "python")]
    python: SortedMap<(ProcessId, PythonFrame), Option<Line>>,
    #[cfg(feature = "python")]
    handlers: SortedSet<ProcessId>,
    asked: usize,
}

impl LocatedWindow {
    /// Locates all addresses of the stacks under these keys. What is to be looked for in files goes to `ask`, in parts of a few files each.
    ///
    /// # Errors
    ///
    /// That of `ask`.
    pub fn new<'k>(
        table: &StackTable,
        keys: impl Iterator<Item = &'k SampleKey>,
        symbols: &mut Symbols,
        kernel_changes: Vec<KernelChange>,
        mut ask: impl FnMut(Asked) -> Result<()>,
    ) -> Result<Self> {
        let mut located = Self { kernel_changes, ..Self::default() };
        let mut stacks: SortedSet<(ProcessId, StackId)> = SortedSet::default();
        for key in keys {
            stacks.extend(key.user.map(|stack| (key.process, stack)));
            if !located.processes.contains_key(&key.process) {
                located.processes.insert(key.process, symbols.process(key.process));
                #[cfg(feature = "python")]
                if symbols.has_handlers(key.process) {
                    located.handlers.insert(key.process);
                }
            }
        }
        let mut asked = Asked::default();
        for &(process, stack) in stacks.iter() {
            let addresses = located.read_python(process, table.get(stack), symbols);
            for (depth, &address) in addresses.iter().enumerate() {
                if symbols.wanted_files() >= FILES_A_PART {
                    ask(Asked { files: symbols.take_wanted(), ..std::mem::take(&mut asked) })?;
                }
                let is_code = located.add(process, looked_up(depth, address), &mut asked, symbols);
                // Names end there, too.
                if depth > 0 && !is_code {
                    break;
                }
            }
        }
        asked.files = symbols.take_wanted();
        if !asked.addresses.is_empty() {
            ask(asked)?;
        }
        Ok(located)
    }

    /// Whether there is code at an address of a process, which is looked up now.
    fn add(&mut self, process: ProcessId, address: u64, asked: &mut Asked, symbols: &mut Symbols) -> bool {
        if let Some((named, _)) = self.addresses.get(&(process, address)) {
            return !named.not_code;
        }
        let Located { resolved, file } = symbols.locate(process, address);
        let in_file = resolved.address;
        let answer = file.map(|file| {
            asked.addresses.push((file, in_file));
            self.asked += 1;
            self.asked - 1
        });
        let named = Named::from(resolved);
        let is_code = !named.not_code;
        self.addresses.insert((process, address), (named, answer));
        is_code
    }

    /// Reads the functions of Python in a stack; the rest of it is addresses.
    fn read_python<'w>(&mut self, process: ProcessId, words: &'w [u64], symbols: &mut Symbols) -> &'w [u64] {
        #[cfg(feature = "unwind")]
        let words = Span::split(words).0;
        #[cfg(feature = "python")]
        let words = {
            let (words, python) = split_python(words);
            for frame in python.iter().filter_map(|word| PythonFrame::of(*word)) {
                let key = (process, frame);
                if !self.python.contains_key(&key) {
                    self.python.insert(key, symbols.python(process, frame));
                }
            }
            words
        };
        #[cfg(not(feature = "python"))]
        let _ = (process, symbols);
        words
    }
}

/// The names of a window that is located, whose answers are there.
pub(super) struct Answered<'w> {
    window: &'w LocatedWindow,
    lines: &'w [Arc<[Line]>],
    kernel: &'w mut KernelNames,
}

impl<'w> Answered<'w> {
    /// With the names of the kernel's functions, of which those that changed are looked up again.
    pub fn new(window: &'w LocatedWindow, lines: &'w [Arc<[Line]>], kernel: &'w mut KernelNames) -> Self {
        kernel.begin_window(monotonic_nanos());
        window.kernel_changes.iter().for_each(|change| kernel.change(change));
        Self { window, lines, kernel }
    }
}

impl Names for Answered<'_> {
    fn prepare_kernel(&mut self, addresses: Vec<u64>) {
        self.kernel.prepare(addresses);
    }

    fn process(&mut self, process: ProcessId) -> Process {
        self.window.processes.get(&process).cloned().unwrap_or_default()
    }

    fn kernel(&mut self, address: u64) -> Named {
        self.kernel.resolve(address).into()
    }

    fn user(&mut self, process: ProcessId, address: u64) -> Named {
        // All that are asked for were located.
        let Some((named, answer)) = self.window.addresses.get(&(process, address)) else {
            let kind = FrameKind::Native;
            return Named { kind, address, mapping: None, lines: Vec::new(), not_code: false };
        };
        let lines = answer.and_then(|number| self.lines.get(number));
        Named { lines: lines.map_or_else(Vec::new, |lines| lines.to_vec()), ..named.clone() }
    }

    #[cfg(feature = "python")]
    fn python(&mut self, process: ProcessId, frame: PythonFrame) -> Option<Line> {
        self.window.python.get(&(process, frame)).cloned().flatten()
    }

    #[cfg(feature = "python")]
    fn has_handlers(&self, process: ProcessId) -> bool {
        self.window.handlers.contains(&process)
    }
}
