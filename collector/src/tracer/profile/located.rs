//! A window whose addresses are located: what must be read while processes are there. Names in files can be looked for later.

use std::sync::Arc;

#[cfg(feature = "python")]
use bpf_programs::events::python::PythonFrame;
#[cfg(feature = "unwind")]
use bpf_programs::events::spans::Span;

#[cfg(feature = "python")]
use super::naming::split_python;
use super::naming::{Named, Names, looked_up};
use super::symbols::Symbols;
use crate::aggregate::{ProcessId, Samples, StackId};
use crate::error::Result;
use crate::model::{Line, Process};
use crate::sorted::{SortedMap, SortedSet};
use crate::symbolize::{FileNames, FileNo, Located, MAX_OPEN, NamedFile};

/// Addresses whose names are to be looked for in files, which are open.
#[derive(Default)]
pub(super) struct Asked {
    files: SortedMap<FileNo, NamedFile>,
    addresses: Vec<(FileNo, u64)>,
}

impl Asked {
    /// Appends the lines of each address to those of the part of the window that came before; `go_on` is asked before each.
    pub fn answer(&self, names: &mut FileNames, lines: &mut Vec<Arc<[Line]>>, go_on: impl Fn() -> bool) {
        for (number, address) in self.addresses.iter().take_while(|_| go_on()) {
            let file = self.files.get(number);
            // A file that cannot be read has no names.
            lines.push(file.and_then(|file| names.lines(file, *address).ok()).unwrap_or_default());
        }
    }
}

/// What was at the addresses of a window, and who its processes were.
#[derive(Default)]
pub(super) struct LocatedWindow {
    processes: SortedMap<ProcessId, Process>,
    /// By process (`None` for the kernel) and address: what is known, and the number of the answer that has the lines.
    addresses: SortedMap<(Option<ProcessId>, u64), (Named, Option<usize>)>,
    #[cfg(feature = "python")]
    python: SortedMap<(ProcessId, PythonFrame), Option<Line>>,
    #[cfg(feature = "python")]
    handlers: SortedSet<ProcessId>,
    asked: usize,
}

impl LocatedWindow {
    /// Locates all addresses of a window. What is to be looked for in files goes to `ask`, in parts of as many files as may be open.
    ///
    /// # Errors
    ///
    /// That of `ask`.
    pub fn new(
        samples: &Samples,
        symbols: &mut Symbols,
        mut ask: impl FnMut(Asked) -> Result<()>,
    ) -> Result<Self> {
        let mut kernel: SortedSet<StackId> = SortedSet::default();
        let mut user: SortedSet<(ProcessId, StackId)> = SortedSet::default();
        let mut located = Self::default();
        for key in samples.counts.keys() {
            kernel.extend(key.kernel);
            user.extend(key.user.map(|stack| (key.process, stack)));
            if !located.processes.contains_key(&key.process) {
                located.processes.insert(key.process, symbols.process(key.process));
                #[cfg(feature = "python")]
                if symbols.has_handlers(key.process) {
                    located.handlers.insert(key.process);
                }
            }
        }
        let addresses = kernel.iter().flat_map(|&stack| looked_up_in(samples.stacks.get(stack)));
        symbols.prepare_kernel(addresses.collect());
        let mut asked = Asked::default();
        let kernel = kernel.iter().map(|&stack| (None, stack));
        for (process, stack) in kernel.chain(user.iter().map(|&(process, stack)| (Some(process), stack))) {
            let words = samples.stacks.get(stack);
            let words = match process {
                Some(process) => located.read_python(process, words, symbols),
                None => words,
            };
            for address in looked_up_in(words) {
                if symbols.wanted_files() >= MAX_OPEN {
                    ask(Asked { files: symbols.take_wanted(), ..std::mem::take(&mut asked) })?;
                }
                located.add(process, address, &mut asked, symbols);
            }
        }
        asked.files = symbols.take_wanted();
        ask(asked)?;
        Ok(located)
    }

    fn add(&mut self, process: Option<ProcessId>, address: u64, asked: &mut Asked, symbols: &mut Symbols) {
        if self.addresses.contains_key(&(process, address)) {
            return;
        }
        let Located { resolved, file } = symbols.locate(process, address);
        let in_file = resolved.address;
        let answer = file.map(|file| {
            asked.addresses.push((file, in_file));
            self.asked += 1;
            self.asked - 1
        });
        self.addresses.insert((process, address), (resolved.into(), answer));
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

fn looked_up_in(stack: &[u64]) -> impl Iterator<Item = u64> {
    stack.iter().enumerate().map(|(depth, &address)| looked_up(depth, address))
}

/// The names of a window that is located, whose answers are there.
pub(super) struct Answered<'w> {
    pub window: &'w LocatedWindow,
    pub lines: &'w [Arc<[Line]>],
}

impl Answered<'_> {
    fn named(&self, process: Option<ProcessId>, address: u64) -> Named {
        // All that are asked for were located.
        let Some((named, answer)) = self.window.addresses.get(&(process, address)) else {
            return Named::unknown(process.is_none(), address);
        };
        let mut named = named.clone();
        if let Some(lines) = answer.and_then(|number| self.lines.get(number)) {
            named.lines = lines.to_vec();
        }
        named
    }
}

impl Names for Answered<'_> {
    fn prepare_kernel(&mut self, _: Vec<u64>) {}

    fn process(&mut self, process: ProcessId) -> Process {
        self.window.processes.get(&process).cloned().unwrap_or_default()
    }

    fn kernel(&mut self, address: u64) -> Named {
        self.named(None, address)
    }

    fn user(&mut self, process: ProcessId, address: u64) -> Named {
        self.named(Some(process), address)
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
