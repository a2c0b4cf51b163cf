//! Compressed sections, from any offset: some states of the decoder are kept on the way, so that going back costs
//! a piece of the section and not all of it.

use std::fmt;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_PARSE_ZLIB_HEADER};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use crate::symbolize::elf::Elf;
use crate::symbolize::read_at::{ReadAt, read_exact_at};

/// What the decoder looks back into.
const WINDOW: usize = 32 * 1024;
/// Compressed bytes that are read at once.
const PIECE: usize = 16 * 1024;
/// Kept states of a section, and how far they are apart at least.
const MAX_STATES: u64 = 12;
const MIN_DISTANCE: u64 = 1 << 20;
/// Decompressed bytes that take the time of parsing one.
const WORK: u64 = 4;
/// `ch_type` of zlib.
const ELFCOMPRESS_ZLIB: u32 = 1;

#[derive(Clone)]
struct State {
    decoder: Box<DecompressorOxide>,
    window: Box<[u8]>,
    /// Bytes taken and given.
    input: u64,
    output: u64,
}

impl State {
    fn new() -> Self {
        Self { decoder: Box::default(), window: vec![0; WINDOW].into(), input: 0, output: 0 }
    }

    fn memory() -> usize {
        WINDOW + size_of::<DecompressorOxide>()
    }
}

/// A section that is compressed with zlib.
pub(super) struct Inflater {
    start: u64,
    compressed: u64,
    size: u64,
    state: Option<State>,
    kept: Vec<State>,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes from {} at {:#x}", self.size, self.compressed, self.start)
    }
}

impl Inflater {
    /// Reads the header of a compressed section: `None` if it is broken, or not zlib's (zstd is not read).
    pub fn open(elf: &Elf, source: &dyn ReadAt, offset: u64, size: u64) -> Option<Self> {
        let header: u64 = if elf.is_64() { 24 } else { 12 };
        let mut bytes = [0; 24];
        let bytes = bytes.get_mut(..header as usize)?;
        read_exact_at(source, offset, bytes, "a compressed section").ok()?;
        let little = elf.is_little_endian();
        let word = |at: usize| {
            let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
        };
        let decompressed = if elf.is_64() {
            let bytes: [u8; 8] = bytes.get(8..16)?.try_into().ok()?;
            if little { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) }
        } else {
            u64::from(word(4)?)
        };
        let start = offset.checked_add(header)?;
        let compressed = size.checked_sub(header)?;
        let is_there = start.checked_add(compressed)? <= source.size();
        (word(0)? == ELFCOMPRESS_ZLIB && is_there).then_some(Self {
            start,
            compressed,
            size: decompressed,
            state: None,
            kept: Vec::new(),
        })
    }

    /// Bytes of the section.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Gives up the state of now, but not those that were kept.
    pub fn rest(&mut self) {
        self.state = None;
    }

    /// Heap memory, in bytes.
    pub fn memory(&self) -> usize {
        (self.kept.len() + usize::from(self.state.is_some())) * State::memory()
    }

    /// Reads bytes at an offset, and returns how much work that was; `None` if the section is damaged or it were too much.
    /// They lie in one window of the decoder: what is read begins at a multiple of its own size, which divides the window's.
    pub fn read(&mut self, source: &dyn ReadAt, offset: u64, buffer: &mut [u8], fuel: u64) -> Option<u64> {
        let end = offset.checked_add(buffer.len() as u64)?;
        let oldest = |state: &State| state.output.saturating_sub(WINDOW as u64);
        // The nearest state that is not past it.
        let before = self.kept.iter().rev().find(|state| oldest(state) <= offset);
        let now = self.state.take().filter(|state| oldest(state) <= offset);
        let nearer = before.filter(|before| now.as_ref().is_none_or(|now| now.output < before.output));
        self.state = nearer.cloned().or(now).or_else(|| Some(State::new()));
        let distance = MIN_DISTANCE.max(self.size / MAX_STATES);
        let state = self.state.as_mut()?;
        let from = state.output;
        let mut piece = vec![0; PIECE];
        while state.output < end {
            if (state.output - from) / WORK > fuel {
                return None;
            }
            let left = self.compressed.checked_sub(state.input)?;
            let input = piece.get_mut(..left.min(PIECE as u64) as usize)?;
            read_exact_at(source, self.start + state.input, input, "a compressed section").ok()?;
            let more = if left > input.len() as u64 { TINFL_FLAG_HAS_MORE_INPUT } else { 0 };
            let position = (state.output % WINDOW as u64) as usize;
            let flags = TINFL_FLAG_PARSE_ZLIB_HEADER | more;
            let (status, taken, given) =
                decompress(&mut state.decoder, input, &mut state.window, position, flags);
            state.input += taken as u64;
            state.output += given as u64;
            let goes_on = matches!(status, TINFLStatus::HasMoreOutput | TINFLStatus::NeedsMoreInput);
            if !(goes_on && taken + given > 0) && state.output < end {
                return None;
            }
            let last = self.kept.last().map_or(0, |state| state.output);
            if state.output >= last + distance && (self.kept.len() as u64) < MAX_STATES {
                self.kept.push(state.clone());
            }
        }
        // The window has what was given last.
        let at = (offset % WINDOW as u64) as usize;
        buffer.copy_from_slice(state.window.get(at..at + buffer.len())?);
        Some((state.output - from) / WORK)
    }
}
