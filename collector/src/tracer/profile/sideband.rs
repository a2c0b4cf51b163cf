//! Process starts, execs, mappings and exits, as the kernel reports them beside the samples.
//!
//! One dummy event a CPU writes them into a perf buffer of its own. They are read on the profiler's tick, and earlier when
//! a buffer is half full.

use std::time::Duration;

use bpf_loader::ring::PerfReader;
use bpf_sys::clock::Clock;
use bpf_sys::perf::{self, Scope};
use bpf_sys::uapi::perf::{PERF_COUNT_SW_DUMMY, PERF_SAMPLE_TID, PERF_SAMPLE_TIME, attr_flags};
use bpf_sys::{Errno, PerfEventAttr, PerfFd, PerfType};
use mio::Token;

use super::symbols::Symbols;
use crate::error::{Error, Result};
use crate::merge::Merge;
use crate::poll::EventLoop;
use crate::sorted::SortedMap;
use crate::symbolize::sideband::{Trailer, parse_record};

/// Memory for the records of one CPU: a thousand or so.
const BUFFER_BYTES: usize = 64 << 10;
const SAMPLE_TYPE: u64 = PERF_SAMPLE_TID | PERF_SAMPLE_TIME;
/// `CLOCK_MONOTONIC`, so that records of all CPUs have one clock, and the reader has it too.
const CLOCK: i32 = 1;

/// The sideband buffers of all CPUs online.
pub struct Sideband {
    attr: PerfEventAttr,
    buffers: SortedMap<u32, Buffer>,
    merge: Merge<Box<[u8]>>,
    lost: u64,
    latency: Duration,
    #[cfg(feature = "unwind")]
    known_until: u64,
}

struct Buffer {
    // The mapping goes before the event.
    reader: PerfReader,
    fd: PerfFd,
}

impl Sideband {
    /// No buffers yet; [`open_missing`](Self::open_missing) opens them.
    pub fn new() -> Self {
        Self {
            attr: PerfEventAttr {
                kind: PerfType::SOFTWARE,
                config: PERF_COUNT_SW_DUMMY,
                sample_type: SAMPLE_TYPE,
                wakeup: (BUFFER_BYTES / 2) as u32,
                clockid: CLOCK,
                flags: attr_flags::MMAP
                    | attr_flags::MMAP2
                    | attr_flags::COMM
                    | attr_flags::COMM_EXEC
                    | attr_flags::TASK
                    | attr_flags::SAMPLE_ID_ALL
                    | attr_flags::WATERMARK
                    | attr_flags::USE_CLOCKID
                    | attr_flags::BUILD_ID,
                ..PerfEventAttr::default()
            },
            buffers: SortedMap::new(),
            merge: Merge::default(),
            lost: 0,
            latency: Duration::ZERO,
            #[cfg(feature = "unwind")]
            known_until: 0,
        }
    }

    /// Closes the buffers of CPUs, after reading what is still in them.
    ///
    /// # Errors
    ///
    /// A buffer is not as the kernel writes it.
    pub fn close(&mut self, cpus: &[u32], events: &EventLoop) -> Result<()> {
        for cpu in cpus {
            if let Some(mut buffer) = self.buffers.remove(cpu) {
                self.lost += buffer.read_into(&mut self.merge)?;
                events.remove(&buffer.fd).map_err(Error::io("forgetting a sideband buffer"))?;
            }
        }
        Ok(())
    }

    /// Opens buffers on CPUs that have none. Where others have them, one that is refused counts as a loss. Their descriptors wake the loop with tokens from `first_token`.
    ///
    /// # Errors
    ///
    /// An event or its buffer cannot be had.
    pub fn open_missing(&mut self, online: &[u32], events: &EventLoop, first_token: usize) -> Result<()> {
        for &cpu in online {
            if self.buffers.contains_key(&cpu) {
                continue;
            }
            let opened = match self.open(cpu) {
                // What starts there is not seen: at least the process that would be sampled next.
                Err(_) if !self.buffers.is_empty() => {
                    self.lost += 1;
                    None
                }
                opened => opened?,
            };
            if let Some(buffer) = opened {
                let token = Token(first_token + cpu as usize);
                events.add(&buffer.fd, token).map_err(Error::io("polling a sideband buffer"))?;
                self.buffers.insert(cpu, buffer);
            }
        }
        Ok(())
    }

    /// `None` if the CPU went offline meanwhile.
    fn open(&mut self, cpu: u32) -> Result<Option<Buffer>> {
        let refused = |error: bpf_sys::Error| Error::sampling(cpu, error);
        let mut opened = perf::open(&self.attr, Scope::AllProcesses, Some(cpu), None);
        let with_build_ids = self.attr.flags & attr_flags::BUILD_ID != 0;
        if with_build_ids
            && opened.as_ref().is_err_and(|e| matches!(e.errno(), Some(Errno::EINVAL | Errno::E2BIG)))
        {
            // Before Linux 5.12 there are no build ids in records; they are read from the files.
            self.attr.flags &= !attr_flags::BUILD_ID;
            opened = perf::open(&self.attr, Scope::AllProcesses, Some(cpu), None);
        }
        let fd = match opened {
            Ok(fd) => fd,
            Err(e) if e.errno() == Some(Errno::ENODEV) => return Ok(None),
            Err(e) => return Err(refused(e)),
        };
        let reader =
            PerfReader::open(&fd, BUFFER_BYTES / bpf_sys::page_size().min(BUFFER_BYTES)).map_err(refused)?;
        Ok(Some(Buffer { reader, fd }))
    }

    /// Reads all buffers, and tells `symbols` what happened, in order.
    ///
    /// # Errors
    ///
    /// A buffer is not as the kernel writes it.
    pub fn drain(&mut self, symbols: &mut Symbols) -> Result<()> {
        let now = monotonic_nanos();
        #[cfg(feature = "unwind")]
        {
            self.known_until = now;
        }
        for buffer in self.buffers.values_mut() {
            self.lost += buffer.read_into(&mut self.merge)?;
        }
        let trailer = Trailer::new(SAMPLE_TYPE);
        let (mut count, mut waited) = (0u32, Duration::ZERO);
        for (time, bytes) in self.merge.drain(now) {
            waited += Duration::from_nanos(now.saturating_sub(time));
            count += 1;
            match parse_record(&bytes, trailer) {
                Ok((record, id)) => symbols.observe(&record, &id),
                Err(_) => self.lost += 1,
            }
        }
        if count > 0 {
            self.latency = waited / count;
        }
        Ok(())
    }

    /// Up to when what was recorded has been told, in the clock of the records.
    #[cfg(feature = "unwind")]
    pub fn known_until(&self) -> u64 {
        self.known_until
    }

    /// Records that found their buffer full, or that make no sense.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Mean time from an event to its handling, over the last read that found any.
    pub fn latency(&self) -> Duration {
        self.latency
    }
}

impl Buffer {
    /// Moves all records into `merge`; how many the kernel has lost since the last time.
    fn read_into(&mut self, merge: &mut Merge<Box<[u8]>>) -> Result<u64> {
        let trailer = Trailer::new(SAMPLE_TYPE);
        let mut lost = 0;
        while let Some(record) = self.reader.next().map_err(Error::Sideband)? {
            lost += record.lost().unwrap_or(0);
            // What cannot be parsed has no time, and is counted as lost when its turn comes.
            let time = parse_record(record.bytes, trailer).ok().and_then(|(_, id)| id.time);
            merge.push(time.unwrap_or(0), record.bytes.into());
        }
        Ok(lost)
    }
}

/// The clock of the records.
pub(super) fn monotonic_nanos() -> u64 {
    Clock::Monotonic.nanos()
}
