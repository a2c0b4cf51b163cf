//! Names for kernel addresses: `/proc/kallsyms`, with modules and BPF programs.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use super::error::SymbolizeError;
use super::host::Host;
use super::maps::hex;

/// Bytes of a line that are looked at; `KSYM_NAME_LEN` is 512 since Linux 6.1.
const MAX_LINE: usize = 1024;
/// Functions that are kept.
const MAX_SYMBOLS: usize = 2 << 20;
/// Bytes of names that are kept.
const MAX_NAMES: usize = 64 << 20;
/// The last function of the kernel, or of a module, reaches so far at most: nothing tells where it ends.
const MAX_LAST: u64 = 16 * 1024;
/// Any other reaches to the next function, but no further than this.
const MAX_LENGTH: u64 = 1 << 20;

/// One function: 8 bytes, and its name with a NUL.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Offset from the base of its segment.
    offset: u32,
    /// Offset in the names.
    name: u32,
}

/// Functions within 4 GiB of an address.
#[derive(Debug, Clone, Copy)]
struct Segment {
    base: u64,
    first: u32,
}

/// Functions in a row that belong to one module.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: u32,
    module: u16,
}

/// A parsed line, until all lines are sorted.
#[derive(Debug, Clone, Copy)]
struct Line {
    address: u64,
    name: u32,
    module: u16,
    rank: u8,
}

/// The functions of a running kernel, sorted by address.
#[derive(Debug, Default)]
pub struct KernelSymbols {
    segments: Vec<Segment>,
    entries: Vec<Entry>,
    runs: Vec<Run>,
    names: Vec<u8>,
    /// Number 0 is the kernel itself.
    modules: Vec<Arc<str>>,
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
    /// First address of the functions around it that are in the same module.
    pub range_start: u64,
    /// Where the last of them ends at most.
    pub range_end: u64,
}

impl KernelSymbols {
    /// Reads the format of `/proc/kallsyms` line by line: `ADDRESS TYPE NAME [MODULE]`, of which only text (`t`,
    /// `T`, `w`, `W`) is kept, and one name an address: global before weak before local, then the one with
    /// fewer leading underscores, then the shorter. `__pfx_` and `__cfi_` symbols name the padding before
    /// functions, as many again, and are left out.
    ///
    /// # Errors
    /// [`SymbolizeError::KernelAddressesHidden`] where all addresses are zero; [`SymbolizeError::Read`].
    pub fn parse(mut reader: impl BufRead) -> Result<Self, SymbolizeError> {
        let mut symbols = Self { modules: vec!["[kernel]".into()], ..Self::default() };
        let mut lines: Vec<Line> = Vec::new();
        let mut hidden = false;
        let mut bytes = Vec::with_capacity(MAX_LINE);
        let mut offset = 0;
        loop {
            bytes.clear();
            let failed = |source| SymbolizeError::Read { what: "/proc/kallsyms", offset, source };
            let count =
                reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut bytes).map_err(failed)?;
            if count == 0 || lines.len() >= MAX_SYMBOLS || symbols.names.len() >= MAX_NAMES {
                break;
            }
            offset += count as u64;
            let Some((address, kind, name, module)) = parse_line(&bytes) else { continue };
            if address == 0 {
                hidden = true;
                continue;
            }
            let rank = match kind {
                b'T' => 0,
                b'w' | b'W' => 1,
                _ => 2,
            };
            let module = symbols.module_index(module);
            lines.push(Line { address, name: symbols.names.len() as u32, module, rank });
            symbols.names.extend_from_slice(name.as_bytes());
            symbols.names.push(0);
        }
        if lines.is_empty() && hidden {
            return Err(SymbolizeError::KernelAddressesHidden);
        }
        symbols.build(lines);
        Ok(symbols)
    }

    /// Reads `/proc/kallsyms`.
    ///
    /// # Errors
    /// [`SymbolizeError::Open`] for a kernel without `CONFIG_KALLSYMS`; otherwise as [`KernelSymbols::parse`].
    pub fn read(host: &Host) -> Result<Self, SymbolizeError> {
        let path = host.proc.join("kallsyms");
        let file = File::open(&path).map_err(|source| SymbolizeError::Open { path, source })?;
        Self::parse(BufReader::with_capacity(64 * 1024, file))
    }

    /// Number of functions.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Heap memory, in bytes.
    pub fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.names.capacity()
            + self.runs.capacity() * size_of::<Run>()
            + self.segments.capacity() * size_of::<Segment>()
    }

    /// The function that holds `address`.
    pub fn find(&self, address: u64) -> Option<KernelFunction<'_>> {
        let segment = self.segments.partition_point(|segment| segment.base <= address).checked_sub(1)?;
        let base = self.segments.get(segment)?;
        let first = base.first as usize;
        let last = self.segments.get(segment + 1).map_or(self.entries.len(), |next| next.first as usize);
        let offset = address - base.base;
        let inside = self.entries.get(first..last)?;
        let index =
            first + inside.partition_point(|entry| u64::from(entry.offset) <= offset).checked_sub(1)?;
        let start = self.address(index)?;
        let run = self.runs.partition_point(|run| run.first as usize <= index).checked_sub(1)?;
        let module = self.runs.get(run)?;
        let run_end = self.runs.get(run + 1).map_or(self.entries.len(), |next| next.first as usize);
        let limit = if index + 1 == run_end { MAX_LAST } else { MAX_LENGTH };
        if address - start >= limit {
            return None;
        }
        Some(KernelFunction {
            name: self.name(self.entries.get(index)?.name),
            start,
            module: self.modules.get(usize::from(module.module)).filter(|_| module.module != 0),
            range_start: self.address(module.first as usize)?,
            range_end: self.address(run_end - 1)?.saturating_add(MAX_LAST),
        })
    }

    fn address(&self, index: usize) -> Option<u64> {
        let segment =
            self.segments.partition_point(|segment| segment.first as usize <= index).checked_sub(1)?;
        Some(self.segments.get(segment)?.base + u64::from(self.entries.get(index)?.offset))
    }

    fn name(&self, offset: u32) -> &str {
        let rest = self.names.get(offset as usize..).unwrap_or_default();
        let name = rest.split(|&byte| byte == 0).next().unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }

    /// Lines of a module follow each other, so the last ones are looked at first.
    fn module_index(&mut self, module: Option<&str>) -> u16 {
        let Some(module) = module else { return 0 };
        if let Some(index) = self.modules.iter().rposition(|known| &**known == module) {
            return index as u16;
        }
        if self.modules.len() > usize::from(u16::MAX) {
            return 0;
        }
        self.modules.push(module.into());
        (self.modules.len() - 1) as u16
    }

    fn build(&mut self, mut lines: Vec<Line>) {
        self.names.shrink_to_fit();
        lines.sort_unstable_by(|a, b| {
            let preference = |line: &Line| {
                let name = self.name(line.name);
                (line.rank, name.len() - name.trim_start_matches('_').len(), name.len(), line.name)
            };
            a.address.cmp(&b.address).then_with(|| preference(a).cmp(&preference(b)))
        });
        lines.dedup_by_key(|line| line.address);
        self.entries.reserve_exact(lines.len());
        for (index, line) in lines.iter().enumerate() {
            let index = index as u32;
            let base = self.segments.last().map(|segment| segment.base);
            let near = base.and_then(|base| u32::try_from(line.address - base).ok());
            let offset = near.unwrap_or_else(|| {
                self.segments.push(Segment { base: line.address, first: index });
                0
            });
            self.entries.push(Entry { offset, name: line.name });
            if self.runs.last().is_none_or(|run| run.module != line.module) {
                self.runs.push(Run { first: index, module: line.module });
            }
        }
    }
}

/// Address, type, name and module of a line that names a function.
fn parse_line(line: &[u8]) -> Option<(u64, u8, &str, Option<&str>)> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let address = hex(words.next()?.as_bytes())?;
    let kind = match words.next()?.as_bytes() {
        &[kind @ (b't' | b'T' | b'w' | b'W')] => kind,
        _ => return None,
    };
    let name = words.next()?;
    if name.starts_with("__pfx_") || name.starts_with("__cfi_") {
        return None;
    }
    let module = words.next().and_then(|word| word.strip_prefix('[')?.strip_suffix(']'));
    Some((address, kind, name, module))
}

#[cfg(test)]
mod tests;
