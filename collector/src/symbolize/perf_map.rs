//! `/tmp/perf-PID.map`: the names that a just-in-time compiler gives to its code.

use std::io;

use super::maps::hex;
use super::read_at::{ReadAt, stream};

/// Entries that are kept of one file.
const MAX_ENTRIES: usize = 256 * 1024;
/// Bytes of names that are kept of one file.
const MAX_NAMES: usize = 16 << 20;
/// Bytes that are read of one file.
const MAX_FILE: u64 = 64 << 20;
/// Bytes of a name that are kept.
const MAX_NAME: usize = 1024;
/// Overlapping entries that are looked at.
const MAX_OVERLAP: usize = 16;

/// One compiled function. Later lines have higher name offsets, which tells which of two is newer.
#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u64,
    length: u32,
    name: u32,
}

/// The compiled functions of one process, sorted by address.
#[derive(Debug, Default)]
pub struct PerfMap {
    entries: Vec<Entry>,
    names: Vec<u8>,
    /// Bytes of the file that are parsed.
    parsed: u64,
    /// Functions that there was no room for.
    dropped: u64,
}

/// A function of a perf map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JitFunction<'a> {
    /// Its first address.
    pub start: u64,
    /// Its name, as the compiler wrote it.
    pub name: &'a str,
}

impl PerfMap {
    /// Parses more lines, `START SIZE NAME` with hexadecimal numbers, and returns how many bytes they were:
    /// a last line without its newline is left for later. Code that was compiled over older code replaces it.
    pub fn append(&mut self, text: &[u8]) -> usize {
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let before = self.entries.len();
        for line in text.get(..whole).unwrap_or_default().split(|&byte| byte == b'\n') {
            let Some((start, length, name)) = parse_line(line) else { continue };
            if self.entries.len() >= MAX_ENTRIES || self.names.len() >= MAX_NAMES {
                self.dropped += 1;
                continue;
            }
            self.entries.push(Entry { start, length, name: self.names.len() as u32 });
            self.names.extend_from_slice(name.get(..MAX_NAME).unwrap_or(name));
            self.names.push(b'\n');
        }
        if self.entries.len() > before {
            // Newest first among equal addresses, of which only the first stays.
            self.entries.sort_unstable_by_key(|entry| (entry.start, u32::MAX - entry.name));
            self.entries.dedup_by_key(|entry| entry.start);
        }
        whole
    }

    /// Parses what a file has grown by.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn read_more(&mut self, file: &dyn ReadAt) -> io::Result<()> {
        let end = file.size().min(MAX_FILE);
        let mut pending = Vec::new();
        let read = stream(file, self.parsed, end.saturating_sub(self.parsed), 1, "a perf map", |piece| {
            pending.extend_from_slice(piece);
            let parsed = self.append(&pending);
            // A line without an end is no line of a perf map.
            let drop = if pending.len() - parsed > 2 * MAX_NAME { pending.len() } else { parsed };
            self.parsed += drop as u64;
            pending.drain(..drop);
        });
        read.map_err(io::Error::other)
    }

    /// Bytes of the file that are parsed: a shorter file is a new one.
    pub fn parsed(&self) -> u64 {
        self.parsed
    }

    /// Functions that there was no room for since this was last asked.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
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
        self.entries.capacity() * size_of::<Entry>() + self.names.capacity()
    }

    /// The function that holds `address`, the newest where several do.
    pub fn find(&self, address: u64) -> Option<JitFunction<'_>> {
        let after = self.entries.partition_point(|entry| entry.start <= address);
        let before = self.entries.get(..after)?.iter().rev().take(MAX_OVERLAP);
        let found = before.filter(|entry| address - entry.start < u64::from(entry.length));
        let entry = found.max_by_key(|entry| entry.name)?;
        let rest = self.names.get(entry.name as usize..)?;
        let name = rest.split(|&byte| byte == b'\n').next()?;
        // Cut off in the middle of a character at worst.
        let name = name.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        Some(JitFunction { start: entry.start, name })
    }
}

fn parse_line(line: &[u8]) -> Option<(u64, u32, &[u8])> {
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let mut number = || words.next().and_then(|word| hex(word.strip_prefix(b"0x").unwrap_or(word)));
    let (start, length) = (number()?, number()?);
    let name = words.next()?.trim_ascii();
    let length = u32::try_from(length).ok().filter(|&length| length > 0)?;
    (!name.is_empty()).then_some((start, length, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_code_wins() {
        let mut map = PerfMap::default();
        assert_eq!(
            map.append(b"1000 100 old one\n1000 80 LazyCompile:*f a.js:1\nzz\n1040 10 inner\n2000 1"),
            64
        );
        assert_eq!(map.len(), 2);
        assert_eq!(map.find(0x1000).unwrap().name, "LazyCompile:*f a.js:1");
        assert_eq!(map.find(0x1045), Some(JitFunction { start: 0x1040, name: "inner" }));
        assert_eq!(map.find(0x107f).unwrap().start, 0x1000);
        assert_eq!(map.find(0x1080), None);
        assert_eq!(map.find(0xfff), None);
    }

    #[test]
    fn a_file_that_grows_is_read_on() {
        let mut text = b"1000 10 a\n20".to_vec();
        let mut map = PerfMap::default();
        map.read_more(&text.as_slice()).unwrap();
        assert_eq!((map.len(), map.parsed()), (1, 10));
        text.extend_from_slice(b"00 10 b\n0x3000 0x10 c\n");
        map.read_more(&text.as_slice()).unwrap();
        assert_eq!((map.len(), map.parsed()), (3, text.len() as u64));
        assert_eq!(map.find(0x300f).unwrap().name, "c");
    }

    #[test]
    fn hostile_files_are_bounded() {
        let mut map = PerfMap::default();
        map.read_more(&vec![b'a'; 3 << 20].as_slice()).unwrap();
        assert!(map.is_empty());
        let long = format!("1000 10 {}\n", "é".repeat(5000));
        map.append(long.as_bytes());
        assert_eq!(map.find(0x1000).unwrap().name.len(), MAX_NAME);
        assert_eq!(map.take_dropped(), 0);
        let many: String = (0x2000..302_000).map(|i| format!("{i:x} 1 f\n")).collect();
        map.append(many.as_bytes());
        assert_eq!(map.len(), MAX_ENTRIES);
        assert_eq!(map.take_dropped(), 302_000 - 0x2000 + 1 - MAX_ENTRIES as u64);
        assert_eq!(map.take_dropped(), 0);
    }
}
