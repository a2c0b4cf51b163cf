//! What `syscalls.bpf.c` writes.

use super::record;

record! {
    /// What calls are counted under.
    pub struct CellKey = "cell_key", 8 {
        /// Process.
        tgid: u32 = 0,
        /// See [`What`].
        what: u32 = 4,
    }
}

record! {
    /// How often, and how long it took.
    pub struct CellCount = "cell_count", 40 {
        /// Calls.
        calls: u64 = 0,
        /// Calls that those of them that were timed stand for.
        weight: u64 = 8,
        /// Nanoseconds of all that they stand for.
        sum_ns: u64 = 16,
        /// The thread's name, zero-terminated.
        comm: [u8; 16] = 24,
    }
}

record! {
    /// The cells of one CPU and window: [`CELLS`] pairs of a key and a count.
    pub struct Cells = "cells", 3072 {
        /// All of them.
        cells: [u8; 3072] = 0,
    }
}

/// Cells of one CPU and window.
pub const CELLS: usize = 64;

impl Cells {
    /// Those that count something, in the bytes of one CPU's cells.
    pub fn used(bytes: &[u8]) -> impl Iterator<Item = (CellKey, CellCount)> + '_ {
        bytes.chunks_exact(CellKey::SIZE + CellCount::SIZE).filter_map(|cell| {
            let (key, count) = cell.split_at_checked(CellKey::SIZE)?;
            let count = CellCount::decode(count).filter(|count| count.calls > 0)?;
            Some((CellKey::decode(key)?, count))
        })
    }
}

record! {
    /// The beginning of a call that is under way.
    pub struct Start = "start", 16 {
        /// 0 where there is none.
        word: u64 = 0,
        /// Its number, and the calls that it stands for.
        call: u32 = 8,
        /// Threads that use this place or should.
        threads: u32 = 12,
    }
}

record! {
    /// What became of calls on one CPU, since the programs were loaded.
    pub struct CpuState = "cpu_state", 64 {
        /// Returns from system calls, whatever became of them.
        runs: u64 = 0,
        /// Calls that are missing, as the table was full.
        table_full: u64 = 8,
        /// Calls without a duration, as there was no place for their beginning.
        starts_full: u64 = 16,
        /// Calls that should have been timed, and whose beginning was not seen.
        no_start: u64 = 24,
    }
}

record! {
    /// A call that took longer than the threshold.
    pub struct SlowCall = "slow_call", 48 {
        /// How long.
        duration_ns: u64 = 16,
        /// See [`What`]; without a place.
        what: u32 = 24,
        /// The thread's name, zero-terminated.
        comm: [u8; 16] = 32,
    }
}

/// [`Event::kind`](super::ring::Event::kind) of a [`SlowCall`].
pub const SLOW_CALL: u32 = 1;

/// Bits of a set of calls: one a number, those of 64-bit programs first.
pub const SET_WORDS: usize = 32;
/// Numbers of each of the two. The last stands for what cannot be a call.
pub const NUMBERS: u16 = 1024;

/// Which machine the programs run on.
pub mod machine {
    /// x86_64.
    pub const X86: u32 = 1;
    /// arm64.
    pub const ARM64: u32 = 2;
    /// riscv64.
    pub const RISCV: u32 = 3;
    /// A 32-bit kernel of ARM.
    pub const ARM: u32 = 4;
    /// A 32-bit kernel of x86.
    pub const I386: u32 = 5;
}

/// A call, what it returned, and how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct What {
    /// The number, below [`NUMBERS`].
    pub number: u16,
    /// Whether it is one of a 32-bit program.
    pub compat: bool,
    /// The error; 0 for none.
    pub error: u16,
    /// The place in the histogram.
    pub place: Place,
}

/// A place in a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Nobody knows how long it took.
    NotTimed,
    /// OTLP's zero bucket.
    Zero,
    /// A slot.
    Slot(u32),
}

impl What {
    /// Takes apart what the kernel put into one number.
    pub const fn unpack(what: u32) -> Self {
        Self {
            number: (what & 0x3ff) as u16,
            compat: what >> 10 & 1 != 0,
            place: match what >> 11 & 0x1ff {
                0 => Place::NotTimed,
                1 => Place::Zero,
                place => Place::Slot(place - 2),
            },
            error: (what >> 20) as u16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_taken_apart() {
        let what = 257 | 1 << 10 | (2 + 351) << 11 | 2 << 20;
        let expected = What { number: 257, compat: true, place: Place::Slot(351), error: 2 };
        assert_eq!(What::unpack(what), expected);
        assert_eq!(What::unpack(0).place, Place::NotTimed);
        assert_eq!(What::unpack(1 << 11).place, Place::Zero);
        assert_eq!(What::unpack(u32::MAX).error, 4095);
    }

    #[test]
    fn cells_that_count_nothing_are_left_out() {
        let mut bytes = [0; Cells::SIZE];
        assert_eq!(Cells::used(&bytes).count(), 0);
        (bytes[48], bytes[52], bytes[56]) = (7, 3, 9);
        let cells: Vec<_> = Cells::used(&bytes).collect();
        assert_eq!(cells.len(), 1);
        assert_eq!((cells[0].0, cells[0].1.calls), (CellKey { tgid: 7, what: 3 }, 9));
        assert_eq!(bytes.len(), CELLS * 48);
    }
}
