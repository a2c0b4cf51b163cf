//! What walks by `unwind.h` read, and what `profile_walk.h` writes.

use super::profile::CountKey;
use super::spans::Span;
use super::{Field, Layout, record};

/// Bits of an address that are within a page of the tables, whatever pages the machine has.
pub const PAGE_BITS: u32 = 12;
/// Bits of an address that a process may have; above them is its number, in keys of pages.
pub const ADDRESS_BITS: u32 = 48;
/// Mappings of files that a program keeps of a process.
pub const MAX_MAPPINGS: usize = 64;
/// In so many bits, how many pages a mapping has.
const MAPPING_BITS: u32 = 27;
/// Numbers of files are smaller.
const FILE_BITS: u32 = 27;
/// Bytes below the stack pointer that a copy of the stack has, too; it begins at a multiple of [`PIECE`].
pub const BELOW: u64 = 128;
/// Bytes that are copied together.
pub const PIECE: u64 = 1024;
/// Most frames of a walk.
pub const MAX_FRAMES: usize = 127;

/// What a page is: [`Page::kind`].
pub mod page_kind {
    /// Code with rows.
    pub const ROWS: u8 = 0;
    /// Code without tables, that may have frame pointers.
    pub const FRAME_POINTERS: u8 = 1;
    /// No code.
    pub const NOT_MAPPED: u8 = 2;
}

record! {
    /// A page of code, of a file or of a process.
    pub struct Page = "page", 8 {
        /// Number of its first row.
        first: u32 = 0,
        /// How many rows.
        rows: u16 = 4,
        /// One of [`page_kind`].
        kind: u8 = 6,
    }
}

impl Page {
    /// The key of a process' page: `None` for addresses that processes do not have.
    pub fn key(tgid: u32, address: u64) -> Option<u64> {
        let page = address >> PAGE_BITS;
        (address >> ADDRESS_BITS == 0).then_some(u64::from(tgid) << (ADDRESS_BITS - PAGE_BITS) | page)
    }

    /// The key of a page of a file, by the file's number and an address in it: `None` where one of them is too large.
    pub fn key_in_file(file: u32, address: u64) -> Option<u64> {
        let fits = address >> ADDRESS_BITS == 0 && file >> FILE_BITS == 0;
        let key = 1 << 63 | u64::from(file) << (ADDRESS_BITS - PAGE_BITS) | address >> PAGE_BITS;
        fits.then_some(key)
    }

    /// Whether a key is that of a page of a file.
    pub fn is_in_file(key: u64) -> bool {
        key >> 63 == 1
    }

    /// As the program reads it.
    pub fn encode(self) -> [u8; Self::SIZE] {
        let ([a, b, c, d], [e, f]) = (self.first.to_ne_bytes(), self.rows.to_ne_bytes());
        [a, b, c, d, e, f, self.kind, 0]
    }
}

/// A file in an address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// The first address, which is a page's.
    pub start: u64,
    /// The one behind the last.
    pub end: u64,
    /// [`Page::key_in_file`] of the first.
    pub key: u64,
}

impl Mapping {
    /// Bytes of all mappings of a process, as the program reads them.
    pub const ALL_SIZE: usize = 16 * MAX_MAPPINGS;

    /// All mappings of a process, sorted by `start` and not over each other. `None`: there are more than are kept, or one is too large.
    pub fn encode_all(mappings: &[Self]) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(Self::ALL_SIZE);
        for mapping in mappings {
            let pages = mapping.end.checked_sub(mapping.start)? >> PAGE_BITS;
            if pages >> MAPPING_BITS != 0 || mapping.end >> ADDRESS_BITS != 0 {
                return None;
            }
            let word = mapping.start >> PAGE_BITS << MAPPING_BITS | pages;
            bytes.extend(word.to_ne_bytes().into_iter().chain(mapping.key.to_ne_bytes()));
        }
        while bytes.len() < Self::ALL_SIZE {
            bytes.extend((u64::MAX >> 1).to_ne_bytes().into_iter().chain([0; 8]));
        }
        (bytes.len() == Self::ALL_SIZE).then_some(bytes)
    }
}

record! {
    /// How far a walk has come.
    pub struct Walk = "walk", 48 {
        /// Where execution goes on.
        pc: u64 = 0,
        /// Stack pointer.
        sp: u64 = 8,
        /// Frame pointer.
        fp: u64 = 16,
        /// Link register of arm64.
        link: u64 = 24,
        /// Process.
        tgid: u32 = 32,
        /// Frames that were found.
        frames: u32 = 36,
        /// Not 0: `pc` is where execution goes on by itself, not behind a call.
        exact: u8 = 40,
        /// Not 0: `link` holds the return address.
        has_link: u8 = 41,
        /// Frames of CPython that stand behind the others.
        python: u8 = 43,
        /// Words of a span that stand behind all frames.
        span: u8 = 45,
    }
}

record! {
    /// Head of a walk that has missed a page; [`MissedWalk`] has the rest.
    pub struct MissedHead = "missed_walk", 18520 {
        /// A [`Walk`].
        walk: [u8; 48] = 0,
        /// When, in the clock of `bpf_ktime_get_ns`, which is `CLOCK_MONOTONIC`.
        time: u64 = 48,
        /// How much of the stack was read.
        bytes: u64 = 56,
    }
}

const STACK: Field = Field { name: "stack", offset: 64, size: (MAX_FRAMES + Span::WORDS) * 8 };
const SLICE: Field = Field { name: "slice", offset: STACK.offset + STACK.size, size: 17 * PIECE as usize };

/// Where the parts of [`MissedHead`] lie that are not decoded.
pub const MISSED_PARTS: Layout =
    Layout { name: MissedHead::LAYOUT.name, size: MissedHead::SIZE, fields: &[STACK, SLICE] };

/// A walk that has missed a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissedWalk<'a> {
    /// Where the walk is. Its page is the one that was missed.
    pub walk: Walk,
    /// When it began, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Frames so far, 8 bytes each, leaf first.
    pub frames: &'a [u8],
    /// Frames of CPython, likewise: see [`PythonFrame`](super::python::PythonFrame).
    pub python: &'a [u8],
    /// The span that the thread works for, likewise: see [`Span`].
    pub span: &'a [u8],
    /// The stack, from [`start`](Self::start) on.
    pub slice: &'a [u8],
}

impl<'a> MissedWalk<'a> {
    /// Decodes it; `None` if it is shorter than it should be, or says so of its parts.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let head = MissedHead::decode(bytes)?;
        let walk = Walk::decode(&head.walk)?;
        let part =
            |part: Field, size: usize| bytes.get(part.offset..)?.get(..size).filter(|_| size <= part.size);
        let frames = (walk.frames as usize).min(MAX_FRAMES) * 8;
        let (python, span) = (usize::from(walk.python) * 8, usize::from(walk.span) * 8);
        let all = part(STACK, frames + python + span)?;
        let (frames, rest) = all.split_at_checked(frames)?;
        let (python, span) = rest.split_at_checked(python)?;
        let slice = part(SLICE, usize::try_from(head.bytes).ok()?)?;
        Some(Self { walk, time: head.time, frames, python, span, slice })
    }

    /// Where the copy of the stack begins.
    pub fn start(&self) -> u64 {
        self.walk.sp.wrapping_sub(BELOW) & !(PIECE - 1)
    }
}

record! {
    /// Head of a sample whose walk has missed a page; [`MissedSample`] has the rest.
    pub struct Missed = "missed", 18560 {
        /// What it is counted under, a [`CountKey`]; its user stack is 0.
        key: [u8; 16] = 0,
        /// The thread's name, zero-terminated.
        comm: [u8; 16] = 16,
        /// Whose window's kernel stack it is.
        window: u64 = 32,
    }
}

const AT: Field = Field { name: "at", offset: 40, size: MissedHead::SIZE };

/// Where the part of [`Missed`] lies that is not decoded.
pub const MISSED_AT: Layout = Layout { name: Missed::LAYOUT.name, size: Missed::SIZE, fields: &[AT] };

/// A sample whose walk has missed a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissedSample<'a> {
    /// What it is counted under; its user stack is 0.
    pub key: CountKey,
    /// The thread's name, zero-terminated.
    pub comm: [u8; 16],
    /// Whose window's kernel stack it is.
    pub window: u32,
    /// Its walk.
    pub at: MissedWalk<'a>,
}

impl<'a> MissedSample<'a> {
    /// Decodes a record; `None` if it is shorter than it should be, or says so of its parts.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let Missed { key, comm, window } = Missed::decode(bytes)?;
        let at = MissedWalk::decode(bytes.get(AT.offset..)?)?;
        Some(Self { key: CountKey::decode(&key)?, comm, window: window as u32, at })
    }
}

record! {
    /// How the walks of a CPU have ended.
    pub struct WalkEnds = "walk_ends", 128 {
        /// How many, by [`walk_end`].
        counts: [u8; 128] = 0,
    }
}

impl WalkEnds {
    /// How many ended so.
    pub fn count(&self, end: usize) -> u64 {
        let bytes = end.checked_mul(8).and_then(|at| self.counts.get(at..)?.first_chunk());
        bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }
}

/// How walks in the kernel end.
pub mod walk_end {
    /// At the first function of the thread.
    pub const WHOLE: usize = 1;
    /// The page is not in the tables yet: user space goes on.
    pub const MISSED: usize = 2;
    /// There is no rule, and what is in the frame pointer is none.
    pub const NO_TABLE: usize = 3;
    /// The rule leads nowhere.
    pub const BAD_CFA: usize = 4;
    /// There are more frames than are kept.
    pub const DEPTH: usize = 5;
    /// There is no code at a return address.
    pub const NOT_MAPPED: usize = 6;
    /// The page is not in the tables, and there was no room to tell user space of it.
    pub const LOST: usize = 7;
    /// The kernel has walked by frame pointers, of which nobody knows how it ended: code of 32 bits, processes that cannot be seen, registers
    /// that nobody knows.
    pub const BY_KERNEL: usize = 8;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_as_long_as_it_says() {
        let mut bytes = vec![0; Missed::SIZE];
        (bytes[0], bytes[32]) = (3, 1);
        let at = AT.offset;
        bytes[at + 36] = 2;
        bytes[at + 57] = 4;
        bytes[at + 64] = 7;
        (bytes[at + 43], bytes[at + 64 + 16]) = (1, 8);
        (bytes[at + 45], bytes[at + 64 + 24]) = (4, 5);
        bytes[at + SLICE.offset] = 9;
        let MissedSample { key, window, at: sample, .. } = MissedSample::decode(&bytes).unwrap();
        assert_eq!((key.tgid, window), (3, 1));
        assert_eq!((sample.frames.len(), sample.frames[0]), (16, 7));
        assert_eq!((sample.python.len(), sample.python[0]), (8, 8));
        assert_eq!((sample.span.len(), sample.span[0]), (32, 5));
        assert_eq!((sample.slice.len(), sample.slice[0]), (1024, 9));
        bytes[at + 58] = 1;
        assert_eq!(MissedSample::decode(&bytes), None, "more than there is room for");
        assert_eq!(MissedSample::decode(&bytes[1..]), None);
    }

    #[test]
    fn keys_of_pages() {
        assert_eq!(Page::key(1, 0x7fff_ffff_f123), Some(1 << 36 | 0x7_ffff_ffff));
        assert_eq!(Page::key(1, 1 << 48), None);
        assert_eq!(Page::key_in_file(5, 0x1234), Some(1 << 63 | 5 << 36 | 1));
        assert_eq!((Page::key_in_file(1 << 27, 0), Page::key_in_file(0, 1 << 48)), (None, None));
        assert!(Page::is_in_file(1 << 63) && !Page::is_in_file(Page::key(u32::MAX >> 5, 0).unwrap()));
    }

    #[test]
    fn mappings_are_bounded() {
        let mapping = Mapping { start: 0x7f00_0000_1000, end: 0x7f00_0000_3000, key: 1 << 63 | 7 };
        let bytes = Mapping::encode_all(&[mapping; 2]).unwrap();
        let words: Vec<u64> =
            bytes.chunks(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words.len(), 2 * MAX_MAPPINGS);
        assert_eq!(words[..5], [0x7_f000_0001u64 << 27 | 2, 1 << 63 | 7, words[0], words[1], u64::MAX >> 1]);
        assert_eq!(Mapping::encode_all(&[mapping; MAX_MAPPINGS + 1]), None);
        assert_eq!(Mapping::encode_all(&[Mapping { start: 0, end: 1 << 39, key: 0 }]), None);
        assert_eq!(Mapping::encode_all(&[Mapping { start: 2 << 12, end: 1 << 12, key: 0 }]), None);
    }
}
