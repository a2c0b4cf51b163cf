//! Names for kernel addresses: `/proc/kallsyms`, with modules and BPF programs.
//!
//! A kernel has a hundred thousand symbols, of which a profile meets a few hundred. So the file is streamed past the
//! addresses that were sampled, and only the functions that hold them are kept: a table of all names would be most of
//! the agent's memory.

use crate::sorted::SortedMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::sync::Arc;

use super::error::SymbolizeError;
use super::host::Host;
use super::maps::hex;

/// Bytes of a line that are looked at; `KSYM_NAME_LEN` is 512 since Linux 6.1.
const MAX_LINE: usize = 1024;
/// The last function of the kernel, or of a module, reaches so far at most: nothing tells where it ends.
const MAX_LAST: u64 = 16 * 1024;
/// Any other reaches to the next function, but no further than this.
const MAX_LENGTH: u64 = 1 << 20;
/// The symbol that ends the kernel's own text.
const END_OF_TEXT: &str = "_etext";

/// The functions of a running kernel that were asked for.
#[derive(Debug, Default)]
pub struct KernelSymbols {
    /// By first address.
    functions: SortedMap<u64, Function>,
}

#[derive(Debug)]
struct Function {
    end: u64,
    name: Box<str>,
    module: Module,
}

/// The kernel's own text (no name), a module's, or that of all BPF programs (`bpf`).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Module {
    name: Option<Arc<str>>,
    start: u64,
    end: u64,
}

/// A kernel function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFunction<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its first address.
    pub start: u64,
    /// The module it is in, `bpf` for BPF programs, `None` for the kernel itself.
    pub module: Option<&'a Arc<str>>,
    /// First address of a function in the same module.
    pub range_start: u64,
    /// Where the last of them ends at most.
    pub range_end: u64,
}

impl KernelSymbols {
    /// Looks for the functions that hold the addresses in `wanted`, which ascend, in the format of `/proc/kallsyms`:
    /// lines of `ADDRESS TYPE NAME [MODULE]`, of which only text (`t`, `T`, `w`, `W`) counts. Of several names of one
    /// address the best is taken: global before weak before local, then the one with fewer leading underscores, then
    /// the shorter. `__pfx_` and `__cfi_` symbols name the padding before functions, and do not count.
    ///
    /// # Errors
    /// [`SymbolizeError::KernelAddressesHidden`] where all addresses are zero; [`SymbolizeError::Read`].
    pub fn parse(mut reader: impl BufRead, wanted: &[u64]) -> Result<Self, Box<SymbolizeError>> {
        let mut search = Search::new(wanted);
        let mut bytes = Vec::with_capacity(MAX_LINE);
        let (mut offset, mut hidden) = (0, false);
        loop {
            bytes.clear();
            let failed = |source| SymbolizeError::Read { what: "/proc/kallsyms", offset, source };
            let count =
                reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut bytes).map_err(failed)?;
            if count == 0 {
                break;
            }
            offset += count as u64;
            let Some(line) = parse_line(&bytes) else { continue };
            if line.address == 0 {
                hidden = true;
            } else if search.line(&line) {
                break;
            }
        }
        if hidden && search.modules.is_empty() {
            return Err(Box::new(SymbolizeError::KernelAddressesHidden));
        }
        Ok(search.finish())
    }

    /// Reads `/proc/kallsyms` for the addresses in `wanted`, which ascend.
    ///
    /// # Errors
    /// [`SymbolizeError::Open`] for a kernel without `CONFIG_KALLSYMS`; otherwise as [`KernelSymbols::parse`].
    pub fn read(host: &Host, wanted: &[u64]) -> Result<Self, Box<SymbolizeError>> {
        let path = host.proc.join("kallsyms");
        let file = File::open(&path).map_err(|source| SymbolizeError::Open { path, source })?;
        Self::parse(BufReader::with_capacity(64 * 1024, file), wanted)
    }

    /// Adds what a later reading found; where it differs, it is right.
    pub fn absorb(&mut self, later: Self) {
        for (start, function) in later.functions {
            self.forget(start..function.end);
            self.functions.insert(start, function);
        }
    }

    /// Forgets the functions that reach into these addresses.
    pub fn forget(&mut self, addresses: Range<u64>) {
        let Some(last) = addresses.end.checked_sub(1) else { return };
        while let Some((&start, function)) = self.functions.last_up_to(&last) {
            if function.end <= addresses.start {
                break;
            }
            self.functions.remove(&start);
        }
    }

    /// Forgets the functions of BPF programs, which come and go.
    pub fn forget_programs(&mut self) {
        self.functions.retain(|_, function| function.module.name.as_deref() != Some("bpf"));
    }

    /// Number of functions.
    pub fn len(&self) -> usize {
        self.functions.len()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// Heap memory, in bytes, about.
    pub fn memory(&self) -> usize {
        let names: usize = self.functions.values().map(|function| function.name.len()).sum();
        names + self.functions.len() * (size_of::<Function>() + size_of::<u64>())
    }

    /// The function that holds `address`, if that was asked for.
    pub fn find(&self, address: u64) -> Option<KernelFunction<'_>> {
        let (&start, function) = self.functions.last_up_to(&address)?;
        (address < function.end).then_some(KernelFunction {
            name: &function.name,
            start,
            module: function.module.name.as_ref(),
            range_start: function.module.start,
            range_end: function.module.end,
        })
    }
}

/// A line that names a function.
struct Line<'a> {
    address: u64,
    /// 0 for global, 1 for weak, 2 for local.
    rank: u8,
    name: &'a str,
    module: Option<&'a str>,
}

impl Line<'_> {
    /// Smaller is better.
    fn preference(&self) -> (u8, usize, usize) {
        (self.rank, self.name.len() - self.name.trim_start_matches('_').len(), self.name.len())
    }
}

/// What lies between two wanted addresses: after the one before, up to and with the slot's own.
#[derive(Debug, Clone, Default)]
struct Slot {
    /// The lowest function, which ends the one before: its address and module.
    first: Option<(u64, u16)>,
    /// The highest function: its address, how good its name is, and its module.
    last: Option<(u64, (u8, usize, usize), u16)>,
    /// Its name.
    name: String,
}

/// Lines streamed past the wanted addresses. They mostly ascend, but need not: modules lie where they are loaded.
struct Search<'w> {
    wanted: &'w [u64],
    /// One for each wanted address, and one for what lies above them all.
    slots: Vec<Slot>,
    modules: Vec<Module>,
}

impl<'w> Search<'w> {
    fn new(wanted: &'w [u64]) -> Self {
        Self { wanted, slots: vec![Slot::default(); wanted.len() + 1], modules: Vec::new() }
    }

    /// Takes a line in; true where no later line can matter.
    fn line(&mut self, line: &Line<'_>) -> bool {
        let module = self.module(line);
        let index = self.wanted.partition_point(|&wanted| wanted < line.address);
        let Some(slot) = self.slots.get_mut(index) else { return false };
        if slot.first.is_none_or(|(first, _)| line.address < first) {
            slot.first = Some((line.address, module));
        }
        let preference = line.preference();
        let better = match slot.last {
            None => true,
            Some((last, known, _)) => {
                (last, std::cmp::Reverse(known)) < (line.address, std::cmp::Reverse(preference))
            }
        };
        if better && index < self.wanted.len() {
            slot.last = Some((line.address, preference, module));
            slot.name.clear();
            slot.name.push_str(line.name);
        }
        line.module.is_none() && line.name == END_OF_TEXT && self.all_within(module, line.address)
    }

    /// Whether every wanted address is in the kernel's own text, which ends here. Its lines come first, in order.
    fn all_within(&self, kernel: u16, end: u64) -> bool {
        let start = self.modules.get(usize::from(kernel)).map_or(u64::MAX, |module| module.start);
        self.wanted.first().is_none_or(|&first| first >= start)
            && self.wanted.last().is_none_or(|&last| last < end)
    }

    /// The line's module, which is widened to hold it. Lines of a module follow each other, so the last ones are looked at
    /// first.
    fn module(&mut self, line: &Line<'_>) -> u16 {
        let found = self.modules.iter().rposition(|known| known.name.as_deref() == line.module);
        let index = found.unwrap_or_else(|| {
            if self.modules.len() <= usize::from(u16::MAX) {
                let name = line.module.map(Into::into);
                self.modules.push(Module { name, start: line.address, end: 0 });
            }
            self.modules.len() - 1
        });
        if let Some(module) = self.modules.get_mut(index) {
            module.start = module.start.min(line.address);
            let end =
                if line.name == END_OF_TEXT { line.address } else { line.address.saturating_add(MAX_LAST) };
            module.end = module.end.max(end);
        }
        index as u16
    }

    fn finish(self) -> KernelSymbols {
        // What follows each wanted address.
        let mut following = Vec::with_capacity(self.wanted.len());
        let mut next = self.slots.last().and_then(|slot| slot.first);
        for slot in self.slots.iter().rev().skip(1) {
            following.push(next);
            next = slot.first.or(next);
        }
        let mut symbols = KernelSymbols::default();
        let mut below: Option<(&Slot, u64, u16)> = None;
        for ((&wanted, slot), next) in self.wanted.iter().zip(&self.slots).zip(following.into_iter().rev()) {
            if let Some((start, _, module)) = slot.last {
                below = Some((slot, start, module));
            }
            let Some((slot, start, number)) = below else { continue };
            let Some(module) = self.modules.get(usize::from(number)) else { continue };
            let (next, same_module) = next.map_or((u64::MAX, false), |(next, of)| (next, of == number));
            let end = next.min(start.saturating_add(if same_module { MAX_LENGTH } else { MAX_LAST }));
            if wanted < end {
                let name = slot.name.as_str().into();
                symbols.functions.insert(start, Function { end, name, module: module.clone() });
            }
        }
        symbols
    }
}

/// A line that names a function.
fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    // Half of the lines are data; a look at the type tells.
    let space = line.iter().position(|&byte| byte == b' ')?;
    let rank = match line.get(space + 1)? {
        b'T' => 0,
        b'w' | b'W' => 1,
        b't' => 2,
        _ => return None,
    };
    let address = hex(line.get(..space)?)?;
    let mut words = std::str::from_utf8(line.get(space + 2..)?).ok()?.split_ascii_whitespace();
    let name = words.next()?;
    if name.starts_with("__pfx_") || name.starts_with("__cfi_") {
        return None;
    }
    let module = words.next().and_then(|word| word.strip_prefix('[')?.strip_suffix(']'));
    Some(Line { address, rank, name, module })
}

#[cfg(test)]
mod tests;
