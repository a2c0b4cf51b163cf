//! Where each version of CPython has what it keeps of threads, frames and code, on machines of 64 bits.
//!
//! Versions up to 3.12 have it fixed with the first release of 3.N; later ones tell it (`_Py_DebugOffsets`). A test compares the tables with
//! the headers of versions that are installed.

use bpf_programs::events::python::{Python, flags};

use super::lines::Format;

/// Bytes of `_Py_DebugOffsets` that are read.
pub(super) const DEBUG_OFFSETS: usize = 8 * (2 + WORDS);
const WORDS: usize = 79;
const COOKIE: &[u8; 8] = b"xdebugpy";
/// Offsets are smaller: into the runtime and interpreters, and into all else.
const MAX_LARGE: u64 = 1 << 20;
const MAX_SMALL: u64 = 1 << 12;

/// Where a code object has what names it, and how texts are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CodeOffsets {
    pub file: u32,
    pub name: u32,
    pub first_line: u32,
    pub lines: u32,
    pub format: Format,
    /// Bytes of texts of ASCII before their characters, and of others.
    pub ascii: u32,
    pub compact: u32,
}

/// What is known of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    /// Without the address of the runtime.
    pub frames: Python,
    pub code: CodeOffsets,
}

/// The table of 3.`minor`, as far as it is built in.
pub(super) fn built_in(minor: u8) -> Option<Version> {
    let before_3_11 = Version {
        frames: Python {
            flags: flags::FRAME_OBJECTS,
            first_interpreter: 32,
            next_interpreter: 0,
            first_thread: 8,
            next_thread: 8,
            thread_id: 176,
            thread_frame: 24,
            previous: 24,
            code: 32,
            instruction: 96,
            ..NONE
        },
        code: CodeOffsets {
            file: 104,
            name: 112,
            first_line: 40,
            lines: 120,
            format: Format::Ranges,
            ascii: 48,
            compact: 72,
        },
    };
    let (frames, code) = (before_3_11.frames, before_3_11.code);
    Some(match minor {
        9 => Version {
            frames: Python { flags: frames.flags | flags::IN_BYTES, instruction: 104, ..frames },
            code: CodeOffsets { format: Format::Steps, ..code },
        },
        10 => before_3_11,
        11 => Version {
            frames: Python {
                flags: flags::CFRAME | flags::ENTRY_FLAG,
                first_interpreter: 40,
                first_thread: 16,
                thread_id: 152,
                thread_frame: 56,
                cframe_frame: 8,
                previous: 48,
                code: 32,
                instruction: 56,
                owner: 68,
                instructions: 184,
                ..frames
            },
            code: CodeOffsets {
                file: 112,
                name: 128,
                first_line: 72,
                lines: 136,
                format: Format::Locations,
                ..code
            },
        },
        12 => Version {
            frames: Python {
                flags: flags::CFRAME,
                first_interpreter: 40,
                first_thread: 72,
                thread_id: 136,
                thread_frame: 56,
                cframe_frame: 0,
                previous: 8,
                code: 0,
                instruction: 56,
                owner: 70,
                instructions: 192,
                ..frames
            },
            code: CodeOffsets {
                file: 112,
                name: 128,
                first_line: 68,
                lines: 136,
                format: Format::Locations,
                ascii: 40,
                compact: 56,
            },
        },
        _ => return None,
    })
}

const NONE: Python = Python {
    runtime: 0,
    flags: 0,
    first_interpreter: 0,
    next_interpreter: 0,
    first_thread: 0,
    next_thread: 0,
    thread_id: 0,
    thread_frame: 0,
    cframe_frame: 0,
    previous: 0,
    code: 0,
    instruction: 0,
    owner: 0,
    instructions: 0,
};

/// The numbers of the words behind cookie and version in which `_Py_DebugOffsets` has what is read.
struct Places {
    next_interpreter: usize,
    first_thread: usize,
    next_thread: usize,
    thread_frame: usize,
    thread_id: usize,
    previous: usize,
    code: usize,
    instruction: usize,
    owner: usize,
    file: usize,
    qualified_name: usize,
    lines: usize,
    first_line: usize,
    instructions: usize,
    ascii: usize,
}

/// What a version says itself, at the beginning of `_PyRuntime`. `None`: it says nothing, is not known, has no global lock, or makes no sense.
pub(super) fn told(bytes: &[u8]) -> Option<Version> {
    let (cookie, rest) = bytes.split_first_chunk::<8>()?;
    let mut words = rest.chunks_exact(8).filter_map(|word| Some(u64::from_ne_bytes(*word.first_chunk()?)));
    let version = words.next().filter(|_| cookie == COOKIE)?;
    let words: Vec<u64> = words.take(WORDS).collect();
    let places = match minor_of(version)? {
        13 => Places {
            next_interpreter: 6,
            first_thread: 7,
            next_thread: 19,
            thread_frame: 21,
            thread_id: 22,
            previous: 27,
            code: 28,
            instruction: 29,
            owner: 31,
            file: 33,
            qualified_name: 35,
            lines: 36,
            first_line: 37,
            instructions: 41,
            ascii: 68,
        },
        14 => Places {
            next_interpreter: 6,
            first_thread: 7,
            next_thread: 22,
            thread_frame: 24,
            thread_id: 25,
            previous: 30,
            code: 31,
            instruction: 32,
            owner: 34,
            file: 38,
            qualified_name: 40,
            lines: 41,
            first_line: 42,
            instructions: 46,
            ascii: 78,
        },
        _ => return None,
    };
    let word =
        |at: usize, most: u64| words.get(at).copied().filter(|word| *word < most).map(|word| word as u32);
    let (large, small) = (|at| word(at, MAX_LARGE), |at| word(at, MAX_SMALL));
    // Frames and instructions of builds without a global lock are kept otherwise.
    word(0, 1)?;
    let ascii = small(places.ascii)?;
    Some(Version {
        frames: Python {
            first_interpreter: large(3)?,
            next_interpreter: large(places.next_interpreter)?,
            first_thread: large(places.first_thread)?,
            next_thread: small(places.next_thread)?,
            thread_id: small(places.thread_id)?,
            thread_frame: small(places.thread_frame)?,
            previous: small(places.previous)?,
            code: small(places.code)?,
            instruction: small(places.instruction)?,
            owner: small(places.owner)?,
            instructions: small(places.instructions)?,
            ..NONE
        },
        code: CodeOffsets {
            file: small(places.file)?,
            name: small(places.qualified_name)?,
            first_line: small(places.first_line)?,
            lines: small(places.lines)?,
            format: Format::Locations,
            ascii,
            // The text of other characters has its length in UTF-8 and where that is, too.
            compact: ascii + 16,
        },
    })
}

/// N of 3.N, of what `Py_Version` has: a release, or a candidate, whose structures do not change any more.
pub(super) fn minor_of(version: u64) -> Option<u8> {
    let is_3 = version >> 24 == 3;
    let is_candidate = version >> 4 & 15 >= 12;
    (is_3 && is_candidate).then_some((version >> 16) as u8)
}

/// N of a file that is called `python3.N` or `libpython3.N.so`.
pub(super) fn minor_in(name: &str) -> Option<u8> {
    let (_, rest) = name.split_once("python3.")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    // Others have a letter behind it: builds for debugging have other structures.
    let (digits, rest) = rest.split_at_checked(digits)?;
    digits.parse().ok().filter(|_| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a release of 3.13, with what stands before it.
    fn of_3_13() -> Vec<u8> {
        let mut words = vec![0u64; WORDS];
        for (at, value) in [
            (3, 632),
            (6, 7264),
            (7, 7344),
            (19, 8),
            (21, 72),
            (22, 152),
            (27, 8),
            (29, 56),
            (31, 70),
            (33, 112),
            (35, 128),
            (36, 136),
            (37, 68),
            (41, 200),
            (68, 40),
        ] {
            words[at] = value;
        }
        let head = [u64::from_ne_bytes(*COOKIE), 0x030d_00f0];
        head.into_iter().chain(words).flat_map(u64::to_ne_bytes).collect()
    }

    #[test]
    fn a_version_tells_where_it_has_what() {
        let bytes = of_3_13();
        assert_eq!(bytes.len(), DEBUG_OFFSETS);
        let version = told(&bytes).unwrap();
        assert_eq!((version.frames.first_interpreter, version.frames.owner), (632, 70));
        assert_eq!((version.code.name, version.code.compact), (128, 56));
        assert_eq!(told(&bytes[..bytes.len() - 100]), None, "cut off");
        let changed = |word: usize, value: u64| {
            let mut bytes = bytes.clone();
            bytes[word * 8..][..8].copy_from_slice(&value.to_ne_bytes());
            told(&bytes)
        };
        assert_eq!(changed(0, 7), None, "another cookie");
        assert_eq!(changed(1, 0x030f_00f0), None, "a version of the future");
        assert_eq!(changed(1, 0x030d_00a1), None, "an early one");
        assert_eq!(changed(2, 1), None, "without a global lock");
        assert_eq!(changed(2 + 31, 4096), None, "an offset that no frame has");
        assert_eq!(changed(2 + 7, u64::MAX), None, "or no interpreter");
    }

    #[test]
    fn versions_by_number_and_by_name() {
        assert_eq!(
            [0x030b_02f0, 0x030b_00c1, 0x030b_00b3, 0x0207_12f0].map(minor_of),
            [Some(11), Some(11), None, None]
        );
        for (name, minor) in [
            ("python3.9", Some(9)),
            ("libpython3.10.so.1.0", Some(10)),
            ("libpython3.11d.so.1.0", None),
            ("python3", None),
            ("libpython3.so", None),
            ("python3.999", None),
        ] {
            assert_eq!(minor_in(name), minor, "{name}");
        }
        assert_eq!((built_in(8), built_in(13)), (None, None));
    }
}
