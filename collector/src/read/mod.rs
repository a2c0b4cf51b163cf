//! Profiles from files: what this program wrote, and what other tools did.
//!
//! | ending | what is read |
//! |---|---|
//! | `.pb.gz`, `.pprof`, `.pb` | pprof, gzipped or not, of any tool |
//! | `.otlp` | one OTLP request as `profile` writes it, or several behind their lengths as `run` does |
//! | `.jsonl` | OTLP JSON, a request a line |
//! | `.folded` | folded stacks |
//!
//! Pure functions of bytes that nobody vouches for: nothing panics, and memory stays in proportion to the file, whose size is
//! bounded, unpacked too. A text is read as people will see it: [clean](crate::output::names::clean), and cut where it is very long.
//! Threads are not told apart.

mod build;
mod folded;
mod json;
mod otlp;
mod pprof;
mod wire;

use std::io::Read;
use std::path::Path;
use std::{error, fmt, io};

use crate::key::Quoted;
use crate::model::Profile;

/// Bytes of a file that are read, unpacked.
pub const MAX_BYTES: usize = 256 << 20;
/// Types of values in a file.
const MAX_TYPES: usize = 64;
/// Entries of any of a file's tables.
const MAX_ENTRIES: usize = 1 << 22;
/// Frames of a stack that are kept, from its leaf on.
const MAX_DEPTH: usize = 1024;
/// Calls of all different stacks of all processes together: what a picture has to go through.
const MAX_CALLS: u64 = 1 << 26;
/// Characters of a text.
const MAX_TEXT: usize = 8192;

/// What a file holds, told by its ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// pprof, gzipped or not.
    Pprof,
    /// OTLP requests.
    Otlp,
    /// OTLP JSON lines.
    OtlpJsonLines,
    /// Folded stacks.
    Folded,
}

impl Source {
    /// Every ending that is known.
    pub const ENDINGS: [(&'static str, Self); 6] = [
        (".pb.gz", Self::Pprof),
        (".pprof", Self::Pprof),
        (".pb", Self::Pprof),
        (".otlp", Self::Otlp),
        (".jsonl", Self::OtlpJsonLines),
        (".folded", Self::Folded),
    ];

    /// What the ending of `path` says; `None` where it is not known.
    pub fn from_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy();
        Self::ENDINGS.iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, source)| *source)
    }
}

/// What the samples of a file count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ValueType {
    /// As `samples`, `cpu`, `inuse_space`.
    pub kind: String,
    /// As `count`, `nanoseconds`, `bytes`.
    pub unit: String,
    /// What there is a period of, as `cpu`; empty if unknown.
    pub per: String,
}

impl ValueType {
    /// Nanoseconds that one of the unit stands for, of times.
    fn nanos(&self) -> Option<u64> {
        match &*self.unit {
            "nanoseconds" | "ns" => Some(1),
            "microseconds" | "us" => Some(1_000),
            "milliseconds" | "ms" => Some(1_000_000),
            "seconds" | "s" => Some(1_000_000_000),
            _ => None,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if self.kind == "samples" && !self.per.is_empty() {
            write!(f, " of {}", self.per)?;
        }
        if self.unit.is_empty() || self.unit == "count" { Ok(()) } else { write!(f, " ({})", self.unit) }
    }
}

/// A profile as a file has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recording {
    /// Its samples count `value`; `period_nanos` is 0 where that stands for no CPU time.
    pub profile: Profile,
    /// Which of the file's types was taken.
    pub value: ValueType,
    /// The file's other types.
    pub others: Vec<ValueType>,
    /// Samples with a negative value, which are left out.
    pub negative: u64,
    /// Stacks that were cut: those of more than 1024 frames.
    pub cut: u64,
}

impl Recording {
    /// Reads what `bytes` hold; of several types of values the one that is called `wanted`, else the one that counts CPU time.
    ///
    /// # Errors
    ///
    /// The bytes are no such file, or hold too much, or have no values of that type.
    pub fn parse(bytes: &[u8], source: Source, wanted: Option<&str>) -> Result<Self, ReadError> {
        if bytes.len() > MAX_BYTES {
            return Err(ReadError::TooLarge { what: "bytes", limit: MAX_BYTES });
        }
        match source {
            Source::Pprof if bytes.starts_with(&GZIP) => pprof::parse(&unpack(bytes)?, wanted),
            Source::Pprof => pprof::parse(bytes, wanted),
            Source::Otlp => otlp::parse(bytes, wanted),
            Source::OtlpJsonLines => json::parse(bytes, wanted),
            Source::Folded => folded::parse(bytes),
        }
    }
}

/// How gzip begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, ReadError> {
    let mut unpacked = Vec::new();
    let limit = MAX_BYTES as u64 + 1;
    flate2::read::MultiGzDecoder::new(bytes)
        .take(limit)
        .read_to_end(&mut unpacked)
        .map_err(ReadError::Gzip)?;
    if unpacked.len() > MAX_BYTES {
        return Err(ReadError::TooLarge { what: "bytes unpacked", limit: MAX_BYTES });
    }
    Ok(unpacked)
}

/// Which of a file's types is wanted.
fn choose(types: &[ValueType], stated: Option<&str>, wanted: Option<&str>) -> Result<usize, ReadError> {
    // `page_faults` is samples of those.
    let called = |name: &str| {
        let kind = types.iter().position(|value| value.kind == name);
        kind.or_else(|| types.iter().position(|value| value.per == name))
    };
    if let Some(wanted) = wanted {
        return called(wanted)
            .ok_or_else(|| ReadError::NoSuchType { wanted: wanted.to_owned(), has: types.to_vec() });
    }
    let samples_of_cpu = || types.iter().position(|value| value.kind == "samples" && value.per == "cpu");
    stated
        .and_then(called)
        .or_else(samples_of_cpu)
        .or_else(|| called("samples"))
        .or_else(|| called("cpu"))
        // As pprof itself does.
        .or(types.len().checked_sub(1))
        .ok_or(ReadError::NoProfile)
}

/// Why a file is no profile.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// Its gzip is broken.
    Gzip(io::Error),
    /// It holds more than is read.
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How much is.
        limit: usize,
    },
    /// It is not encoded as it should be.
    Malformed {
        /// What was being read.
        what: &'static str,
        /// Where, in the message as it is unpacked.
        offset: usize,
    },
    /// A reference leads nowhere.
    Index {
        /// The table.
        table: &'static str,
        /// Its entry, or id.
        index: u64,
    },
    /// A line of a text is not as it should be.
    Line {
        /// Which, from 1.
        line: usize,
        /// What it should be.
        expected: &'static str,
    },
    /// A line is no JSON of the kind.
    Json {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// There is no profile in it.
    NoProfile,
    /// It has no values of the type that was asked for.
    NoSuchType {
        /// The type.
        wanted: String,
        /// Those that it has.
        has: Vec<ValueType>,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gzip(_) => f.write_str("cannot be unpacked"),
            Self::TooLarge { what, limit } => write!(f, "has more than {limit} {what}, which is too much"),
            Self::Malformed { what, offset } => write!(f, "the {what} at byte {offset} is malformed"),
            Self::Index { table, index } => write!(f, "refers to {index} of its {table}, which is not there"),
            Self::Line { line, expected } => write!(f, "line {line} is not {expected}"),
            Self::Json { line, .. } => write!(f, "line {line} is no profile in OTLP JSON"),
            Self::NoProfile => f.write_str("holds no profile"),
            Self::NoSuchType { wanted, has } => {
                write!(f, "has no sample type {}, but ", Quoted(wanted))?;
                for (position, value) in has.iter().enumerate() {
                    write!(f, "{}{}", if position == 0 { "" } else { ", " }, value)?;
                }
                Ok(())
            }
        }
    }
}

impl error::Error for ReadError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Gzip(source) => Some(source),
            Self::Json { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
