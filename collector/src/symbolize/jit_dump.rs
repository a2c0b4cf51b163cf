//! `jit-PID.dump`: the code that a just-in-time compiler made, with its names, files and lines, as records in a file that it grows.
//!
//! The format: <https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/tools/perf/Documentation/jitdump-specification.txt>.

use std::io;
use std::sync::Arc;

use super::read_at::{ReadAt, read_exact_at, read_vec};
use crate::sorted::{SortedMap, SortedSet};

/// Functions that are kept of one file.
const MAX_FUNCTIONS: usize = 128 * 1024;
/// Memory for functions, names and lines of one file.
const MAX_MEMORY: usize = 16 << 20;
/// Bytes that a file may have: it holds all the code, which is passed over.
const MAX_FILE: u64 = 4 << 30;
/// Bytes that are read of it in a window.
const MAX_READ: u64 = 64 << 20;
/// Records that are looked at in a window.
const MAX_RECORDS: usize = 1 << 20;
/// Bytes of a record's lines, and of a name.
const MAX_LINES: usize = 1 << 20;
const MAX_NAME: usize = 1024;
/// Functions that overlap an address and are looked at.
const MAX_OVERLAP: usize = 16;
/// What a function takes beside its names and lines.
const FUNCTION: usize = 96;

const MAGIC: u32 = 0x4a69_5444;
const HEADER: u64 = 40;
/// Kind, size and time of a record.
const PREFIX: u64 = 16;
const CODE_LOAD: u32 = 0;
const CODE_MOVE: u32 = 1;
const CODE_DEBUG_INFO: u32 = 2;
const CODE_CLOSE: u32 = 3;
/// What V8 adds to the addresses of lines: the header of the ELF file that `perf inject` makes.
const ELF_HEADER: u64 = 64;

/// Where a line begins in a function.
#[derive(Debug, Clone)]
struct Row {
    offset: u32,
    line: u32,
    file: Arc<str>,
}

/// Addresses with their lines, as they are told.
type Told = Vec<(u64, u32, Arc<str>)>;

#[derive(Debug, Clone)]
struct Function {
    length: u64,
    /// Which was made later.
    order: u64,
    name: Arc<str>,
    rows: Arc<[Row]>,
}

/// A function of a dump, at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub name: Arc<str>,
    /// File and line, where the compiler told them.
    pub place: Option<(Arc<str>, u32)>,
}

/// The code of one process, as far as its dump was read.
#[derive(Debug, Default)]
pub(super) struct JitDump {
    functions: SortedMap<u64, Function>,
    files: SortedSet<Arc<str>>,
    /// Lines that were told of the function that comes next, and where that begins.
    pending: Option<(u64, Told)>,
    /// Whether numbers in it begin with their lowest byte, once its header was read.
    little: Option<bool>,
    parsed: u64,
    order: u64,
    memory: usize,
    dropped: u64,
    /// It has no header of such a file, or ended.
    closed: bool,
}

/// Numbers one after the other.
struct Fields<'a> {
    bytes: &'a [u8],
    little: bool,
}

impl<'a> Fields<'a> {
    fn number(&mut self, size: usize) -> Option<u64> {
        let (number, rest) = self.bytes.split_at_checked(size)?;
        self.bytes = rest;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if self.little { number.iter().rev().fold(0, add) } else { number.iter().fold(0, add) })
    }

    fn u32(&mut self) -> Option<u32> {
        self.number(4)?.try_into().ok()
    }

    fn u64(&mut self) -> Option<u64> {
        self.number(8)
    }

    /// What ends with a zero.
    fn name(&mut self) -> Option<&'a [u8]> {
        let end = self.bytes.iter().position(|byte| *byte == 0)?;
        let (name, rest) = self.bytes.split_at_checked(end)?;
        self.bytes = rest.get(1..)?;
        Some(name)
    }
}

impl JitDump {
    /// Reads what the file has grown by.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn read_more(&mut self, file: &dyn ReadAt) -> io::Result<()> {
        let end = file.size().min(MAX_FILE);
        let mut left = MAX_READ;
        for _ in 0..MAX_RECORDS {
            if self.closed || left == 0 {
                break;
            }
            let Some(little) = self.little else {
                if end < HEADER {
                    break;
                }
                let header =
                    read_vec(file, 0, HEADER, HEADER as usize, "a jitdump").map_err(io::Error::other)?;
                self.read_header(&header);
                continue;
            };
            let rest = end.saturating_sub(self.parsed);
            let mut prefix = [0; PREFIX as usize];
            if rest < PREFIX {
                break;
            }
            read_exact_at(file, self.parsed, &mut prefix, "a jitdump").map_err(io::Error::other)?;
            let mut fields = Fields { bytes: &prefix, little };
            let (Some(kind), Some(size)) = (fields.u32(), fields.u32().map(u64::from)) else { break };
            if size < PREFIX {
                // Nobody knows where the next one is.
                self.closed = true;
                break;
            }
            if rest < size {
                // It is being written.
                break;
            }
            // Of code only what comes before it is read.
            let most = match kind {
                CODE_LOAD => 40 + MAX_NAME as u64 + 1,
                CODE_MOVE => 48,
                CODE_DEBUG_INFO => MAX_LINES as u64,
                _ => 0,
            };
            let count = most.min(size - PREFIX);
            let bytes = read_vec(file, self.parsed + PREFIX, count, MAX_LINES, "a jitdump")
                .map_err(io::Error::other)?;
            left = left.saturating_sub(count + PREFIX);
            self.parsed += size;
            self.read_record(kind, Fields { bytes: &bytes, little });
        }
        Ok(())
    }

    fn read_header(&mut self, header: &[u8]) {
        let found = [true, false].into_iter().find_map(|little| {
            let mut fields = Fields { bytes: header, little };
            let is_dump = fields.u32()? == MAGIC && fields.u32()? == 1;
            let size = fields.u32().filter(|size| u64::from(*size) >= HEADER)?;
            is_dump.then_some((little, size))
        });
        match found {
            Some((little, size)) => (self.little, self.parsed) = (Some(little), size.into()),
            None => self.closed = true,
        }
    }

    /// A record that makes no sense is passed over.
    fn read_record(&mut self, kind: u32, mut fields: Fields<'_>) {
        match kind {
            CODE_LOAD => self.load(&mut fields),
            CODE_MOVE => self.relocate(&mut fields),
            CODE_DEBUG_INFO => {
                self.pending = None;
                self.pending = self.lines(&mut fields);
                return;
            }
            CODE_CLOSE => {
                self.closed = true;
                Some(())
            }
            _ => return,
        };
        self.pending = None;
    }

    fn load(&mut self, fields: &mut Fields<'_>) -> Option<()> {
        // Process, thread, and where it was to be.
        fields.u64()?;
        fields.u64()?;
        let (start, length, _index) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let bytes = fields.bytes;
        let name = fields.name().unwrap_or(bytes);
        let name = String::from_utf8_lossy(name.get(..MAX_NAME).unwrap_or(name));
        let rows = self.pending.take().filter(|(code, _)| *code == start).map(|(_, rows)| rows);
        let rows = rows_of(start, length, rows.unwrap_or_default());
        self.insert(start, length, name.trim().into(), rows)
    }

    fn relocate(&mut self, fields: &mut Fields<'_>) -> Option<()> {
        fields.u64()?;
        fields.u64()?;
        let (from, to, length) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let Function { name, rows, .. } = self.functions.remove(&from)?;
        self.memory = self.memory.saturating_sub(memory_of(&name, &rows));
        self.insert(to, length, name, rows)
    }

    /// The code that lies there now.
    fn insert(&mut self, start: u64, length: u64, name: Arc<str>, rows: Arc<[Row]>) -> Option<()> {
        start.checked_add(length).filter(|_| length > 0 && !name.is_empty())?;
        let bytes = memory_of(&name, &rows);
        if self.functions.len() >= MAX_FUNCTIONS || self.memory + bytes > MAX_MEMORY {
            self.dropped += 1;
            return None;
        }
        self.order += 1;
        self.memory += bytes;
        if let Some(old) = self.functions.insert(start, Function { length, order: self.order, name, rows }) {
            self.memory = self.memory.saturating_sub(memory_of(&old.name, &old.rows));
        }
        Some(())
    }

    /// The lines of a function that is told of next.
    fn lines(&mut self, fields: &mut Fields<'_>) -> Option<(u64, Told)> {
        let (start, count) = (fields.u64()?, fields.u64()?);
        let mut rows = Vec::new();
        let mut file: Option<Arc<str>> = None;
        for _ in 0..count {
            let Some((address, line)) = fields.u64().zip(fields.u32()) else { break };
            let Some(name) = fields.u32().and_then(|_column| fields.name()) else { break };
            if name != b"\xff" {
                // V8 takes some names from where they no longer are.
                let is_path =
                    |name: &&str| (1..=MAX_NAME).contains(&name.len()) && !name.contains(char::is_control);
                let name = std::str::from_utf8(name).ok().filter(is_path)?;
                file = Some(self.file(name)?);
            }
            rows.push((address, line, Arc::clone(file.as_ref()?)));
        }
        Some((start, rows))
    }

    fn file(&mut self, name: &str) -> Option<Arc<str>> {
        if let Some(name) = self.files.get(name) {
            return Some(Arc::clone(name));
        }
        self.memory += name.len() + FUNCTION;
        if self.memory > MAX_MEMORY {
            return None;
        }
        let name: Arc<str> = name.into();
        self.files.insert(Arc::clone(&name));
        Some(name)
    }

    /// Bytes of the file that were parsed: a shorter file is a new one.
    pub fn parsed(&self) -> u64 {
        self.parsed
    }

    /// Functions that there was no room for since this was last asked.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Number of functions.
    pub fn len(&self) -> usize {
        self.functions.len()
    }

    /// Heap memory, in bytes.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// The function that holds an address, the newest where several do.
    pub fn find(&self, address: u64) -> Option<Found> {
        let mut found: Option<(u64, &Function)> = None;
        let mut before = address;
        for _ in 0..MAX_OVERLAP {
            let Some((start, function)) = self.functions.last_up_to(&before) else { break };
            if address - start < function.length
                && found.is_none_or(|(_, other)| other.order < function.order)
            {
                found = Some((*start, function));
            }
            let Some(next) = start.checked_sub(1) else { break };
            before = next;
        }
        let (start, function) = found?;
        let after = function.rows.partition_point(|row| u64::from(row.offset) <= address - start);
        let row = after.checked_sub(1).and_then(|index| function.rows.get(index));
        Some(Found {
            name: Arc::clone(&function.name),
            place: row.map(|row| (Arc::clone(&row.file), row.line)),
        })
    }
}

fn memory_of(name: &str, rows: &[Row]) -> usize {
    FUNCTION + name.len() + size_of_val(rows)
}

/// Lines by their distance from the begin of the function.
fn rows_of(start: u64, length: u64, lines: Told) -> Arc<[Row]> {
    let first = lines.iter().map(|(address, ..)| *address).min().unwrap_or(0);
    let moved = if first >= start.saturating_add(ELF_HEADER) { ELF_HEADER } else { 0 };
    let row = |(address, line, file): (u64, u32, Arc<str>)| {
        let offset = address.checked_sub(start)?.checked_sub(moved).filter(|offset| *offset < length)?;
        Some(Row { offset: u32::try_from(offset).ok()?, line, file })
    };
    let mut rows: Vec<Row> = lines.into_iter().filter_map(row).collect();
    rows.sort_by_key(|row| row.offset);
    rows.into()
}

#[cfg(test)]
mod tests;
