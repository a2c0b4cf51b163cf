//! Perf sideband records: bytes to [`Record`]. The layouts are those of `enum perf_event_type` in
//! `linux/perf_event.h`; integers are in the host's byte order.

use std::fmt;

const MMAP: u32 = 1;
const LOST: u32 = 2;
const COMM: u32 = 3;
const EXIT: u32 = 4;
const FORK: u32 = 7;
const MMAP2: u32 = 10;
const LOST_SAMPLES: u32 = 13;
const KSYMBOL: u32 = 17;

const MISC_COMM_EXEC: u16 = 1 << 13;
const MISC_MMAP_BUILD_ID: u16 = 1 << 14;
const MISC_CPUMODE_MASK: u16 = 7;
const MISC_KERNEL: u16 = 1;
const KSYMBOL_FLAG_UNREGISTER: u16 = 1;
const PROT_EXEC: u32 = 4;

const SAMPLE_TID: u64 = 1 << 1;
const SAMPLE_TIME: u64 = 1 << 2;
const SAMPLE_ID: u64 = 1 << 6;
const SAMPLE_CPU: u64 = 1 << 7;
const SAMPLE_STREAM_ID: u64 = 1 << 9;
const SAMPLE_IDENTIFIER: u64 = 1 << 16;

/// Bytes of the header of every record.
const HEADER: usize = 8;
/// Bytes of the device, inode and generation of an `MMAP2` record, or of its build id.
const MMAP2_FILE: usize = 24;
/// Room for a build id in it.
const BUILD_ID: usize = 20;

/// What stands behind each record, for an event with `sample_id_all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    size: usize,
    tid: Option<usize>,
    time: Option<usize>,
}

impl Trailer {
    /// The trailer of an event with this `sample_type`; for one without `sample_id_all`, give 0.
    pub fn new(sample_type: u64) -> Self {
        let mut trailer = Self { size: 0, tid: None, time: None };
        for field in [SAMPLE_TID, SAMPLE_TIME, SAMPLE_ID, SAMPLE_STREAM_ID, SAMPLE_CPU, SAMPLE_IDENTIFIER] {
            if sample_type & field == 0 {
                continue;
            }
            match field {
                SAMPLE_TID => trailer.tid = Some(trailer.size),
                SAMPLE_TIME => trailer.time = Some(trailer.size),
                _ => {}
            }
            trailer.size += 8;
        }
        trailer
    }
}

/// Who caused a record, and when; what the event's `sample_type` leaves out is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SampleId {
    /// Process id.
    pub pid: Option<u32>,
    /// Thread id.
    pub tid: Option<u32>,
    /// Nanoseconds of the event's clock.
    pub time: Option<u64>,
}

/// What file a mapping shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileId<'a> {
    /// Device and inode.
    Inode {
        /// Device number, major and minor.
        device: (u32, u32),
        /// Inode number.
        inode: u64,
        /// Generation of the inode, where the file system counts it.
        generation: u64,
    },
    /// GNU build id (Linux 5.12 and later, with `attr.build_id`).
    BuildId(&'a [u8]),
    /// An `MMAP` record tells neither.
    Unknown,
}

/// One sideband record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record<'a> {
    /// A process mapped memory that it can execute.
    Mmap {
        /// Process id.
        pid: u32,
        /// First address.
        start: u64,
        /// Bytes.
        length: u64,
        /// Offset in the file.
        offset: u64,
        /// Which file.
        file: FileId<'a>,
        /// Path as the process sees it, `//anon`, or a `[name]`.
        path: &'a [u8],
    },
    /// A thread got a name.
    Comm {
        /// Process id.
        pid: u32,
        /// Thread id.
        tid: u32,
        /// True where that is because it executed a new program.
        exec: bool,
        /// The name.
        comm: &'a [u8],
    },
    /// A process or thread started.
    Fork {
        /// Process id of the new one.
        pid: u32,
        /// Process id of the one that started it; equal to `pid` for a thread.
        parent_pid: u32,
        /// Thread id of the new one.
        tid: u32,
        /// When.
        time: u64,
    },
    /// A thread ended.
    Exit {
        /// Process id.
        pid: u32,
        /// Thread id.
        tid: u32,
        /// When.
        time: u64,
    },
    /// Records were lost for want of room.
    Lost {
        /// How many.
        count: u64,
    },
    /// Kernel code came or went: BPF programs, trampolines (Linux 5.1 and later).
    KernelSymbol {
        /// First address.
        address: u64,
        /// Bytes.
        length: u32,
        /// True where it went.
        removed: bool,
    },
    /// A record that names nothing: the kernel's own mappings, data mappings, other types.
    Other,
}

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// Fewer bytes than a header, or than the header says.
    Truncated {
        /// Bytes at hand.
        have: usize,
        /// Bytes wanted.
        want: usize,
    },
    /// The record's own size has no room for its fields.
    TooShort {
        /// `perf_event_header.type`.
        kind: u32,
        /// `perf_event_header.size`.
        size: u16,
    },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { have, want } => write!(f, "perf record cut off: {have} of {want} bytes"),
            Self::TooShort { kind, size } => {
                write!(f, "perf record of type {kind} is too short: {size} bytes")
            }
        }
    }
}

impl std::error::Error for RecordError {}

/// Parses the record at the start of `bytes`, header included.
///
/// # Errors
/// [`RecordError`].
pub fn parse_record(bytes: &[u8], trailer: Trailer) -> Result<(Record<'_>, SampleId), RecordError> {
    let truncated = RecordError::Truncated { have: bytes.len(), want: HEADER };
    let mut header = Fields(bytes);
    let kind = header.u32().ok_or(truncated)?;
    let misc = header.u16().ok_or(truncated)?;
    let size = header.u16().ok_or(truncated)?;
    let too_short = RecordError::TooShort { kind, size };
    let want = usize::from(size);
    let record = bytes.get(..want).ok_or(RecordError::Truncated { have: bytes.len(), want })?;
    let body = record.get(HEADER..).ok_or(too_short)?;
    let split = body.len().checked_sub(trailer.size).ok_or(too_short)?;
    let (body, tail) = body.split_at_checked(split).ok_or(too_short)?;
    let record = parse_body(kind, misc, Fields(body)).ok_or(too_short)?;
    let mut tid = trailer.tid.map(|at| Fields(tail.get(at..).unwrap_or_default()));
    let mut time = trailer.time.map(|at| Fields(tail.get(at..).unwrap_or_default()));
    let sample_id = SampleId {
        pid: tid.as_mut().and_then(Fields::u32),
        tid: tid.as_mut().and_then(Fields::u32),
        time: time.as_mut().and_then(Fields::u64),
    };
    Ok((record, sample_id))
}

fn parse_body(kind: u32, misc: u16, mut body: Fields<'_>) -> Option<Record<'_>> {
    Some(match kind {
        MMAP | MMAP2 => {
            let (pid, _tid) = (body.u32()?, body.u32()?);
            let (start, length, offset) = (body.u64()?, body.u64()?, body.u64()?);
            let (mut file, mut executable) = (FileId::Unknown, true);
            if kind == MMAP2 {
                file = parse_file(misc, Fields(body.take(MMAP2_FILE)?))?;
                executable = body.u32()? & PROT_EXEC != 0;
                let _flags = body.u32()?;
            }
            let path = body.string();
            if misc & MISC_CPUMODE_MASK == MISC_KERNEL || !executable {
                return Some(Record::Other);
            }
            Record::Mmap { pid, start, length, offset, file, path }
        }
        COMM => {
            let (pid, tid) = (body.u32()?, body.u32()?);
            Record::Comm { pid, tid, exec: misc & MISC_COMM_EXEC != 0, comm: body.string() }
        }
        FORK | EXIT => {
            let (pid, parent_pid, tid, _parent_tid) = (body.u32()?, body.u32()?, body.u32()?, body.u32()?);
            let time = body.u64()?;
            match kind {
                FORK => Record::Fork { pid, parent_pid, tid, time },
                _ => Record::Exit { pid, tid, time },
            }
        }
        LOST => {
            let _id = body.u64()?;
            Record::Lost { count: body.u64()? }
        }
        LOST_SAMPLES => Record::Lost { count: body.u64()? },
        KSYMBOL => {
            let (address, length) = (body.u64()?, body.u32()?);
            let (_type, flags) = (body.u16()?, body.u16()?);
            Record::KernelSymbol { address, length, removed: flags & KSYMBOL_FLAG_UNREGISTER != 0 }
        }
        _ => Record::Other,
    })
}

fn parse_file(misc: u16, mut bytes: Fields<'_>) -> Option<FileId<'_>> {
    if misc & MISC_MMAP_BUILD_ID != 0 {
        let size = usize::from(*bytes.take(4)?.first()?);
        return Some(FileId::BuildId(bytes.take(size.min(BUILD_ID))?));
    }
    let device = (bytes.u32()?, bytes.u32()?);
    Some(FileId::Inode { device, inode: bytes.u64()?, generation: bytes.u64()? })
}

/// Takes fields off the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    /// What is left, up to the first NUL.
    fn string(&self) -> &'a [u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
