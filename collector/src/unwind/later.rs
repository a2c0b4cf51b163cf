//! What a stack has beyond the copy of it: read from the process' memory, which has run on since.
//!
//! The outer frames of a deep stack live long: as long as the thread has not returned to the last one that was copied, those beyond are as
//! they were. So where that one's address was found, it must still be, before they are read and after.

use bpf_programs::events::unwind::PIECE;

use super::walk::{End, Slice};
use crate::symbolize::memory::ProcessMemory;
use crate::symbolize::read_at::ReadAt;

/// Bytes that are read at once.
const CHUNK: u64 = 4096;

/// A stack: a copy of a piece of it, and the process' memory for what is beyond.
pub(crate) struct Later<'a> {
    copy: Slice<'a>,
    memory: ProcessMemory,
    /// The last return address that was found in the copy, and where.
    last: Option<(u64, u64)>,
    chunk: Vec<u8>,
    start: u64,
}

impl<'a> Later<'a> {
    /// `last`: where the last return address was found in the copy, and which. `None`: it is another now.
    pub fn new(memory: ProcessMemory, copy: Slice<'a>, last: Option<(u64, u64)>) -> Option<Self> {
        let stack = Self { copy, memory, last, chunk: vec![0; CHUNK as usize], start: 1 };
        stack.is_unchanged().then_some(stack)
    }

    /// Whether what is beyond the copy is still as it was.
    pub fn is_unchanged(&self) -> bool {
        let Some((address, word)) = self.last else { return self.has_last_piece() };
        let mut now = [0; size_of::<u64>()];
        self.read(address, &mut now) && u64::from_ne_bytes(now) == word
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        self.memory.read_at(address, bytes).is_ok_and(|count| count == bytes.len())
    }

    /// A word of the stack.
    pub fn word(&mut self, address: u64) -> Result<u64, End> {
        match self.copy.word(address) {
            Err(End::Slice) => self.beyond(address).ok_or(End::Slice),
            word => word,
        }
    }

    fn beyond(&mut self, address: u64) -> Option<u64> {
        let start = address & !(CHUNK - 1);
        if start != self.start {
            self.start = 1;
            let is_read =
                self.memory.read_at(start, &mut self.chunk).is_ok_and(|count| count as u64 == CHUNK);
            self.start = is_read.then_some(start)?;
        }
        // Words are aligned, and so within one chunk.
        let bytes = self.chunk.get((address - start) as usize..)?.first_chunk()?;
        Some(u64::from_ne_bytes(*bytes))
    }

    /// Whether the last piece of the copy is what the memory still has: a frame may have all of the copy.
    fn has_last_piece(&self) -> bool {
        let bytes = self.copy.bytes;
        let at = bytes.len().saturating_sub(PIECE as usize);
        let mut now = vec![0; bytes.len() - at];
        let is_read = self.read(self.copy.start.wrapping_add(at as u64), &mut now);
        !now.is_empty() && is_read && bytes.get(at..) == Some(&*now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbolize::Host;

    fn later(start: u64, bytes: &[u8], last: Option<(u64, u64)>) -> Option<Later<'_>> {
        let memory = ProcessMemory::open(&Host::default(), std::process::id()).unwrap();
        Later::new(memory, Slice { start, bytes }, last)
    }

    #[test]
    fn what_is_beyond_the_copy_is_read_while_its_end_is_unchanged() {
        let words: Vec<u64> = (0..4096).collect();
        let start = words.as_ptr() as u64;
        let mut copy: Vec<u8> = words.iter().take(512).flat_map(|word| word.to_ne_bytes()).collect();
        let last = Some((start + 8 * 7, 7));
        let mut stack = later(start, &copy, last).unwrap();
        for word in [1, 512, 600, 4095, 513] {
            assert_eq!(stack.word(start + word * 8), Ok(word));
        }
        assert_eq!(stack.word(start.wrapping_sub(8)), Err(End::BadCfa));
        assert_eq!(stack.word(u64::MAX - 7), Err(End::Slice));
        assert_eq!(stack.word(start + 8 * 600), Ok(600));
        assert!(later(start, &copy, Some((start + 8 * 7, 8))).is_none());
        assert!(later(start, &[], None).is_none(), "nothing to compare");
        // The first piece may have changed, the last one not.
        copy[0] = 99;
        assert_eq!(later(start, &copy, None).unwrap().word(start + 4096), Ok(512));
        *copy.last_mut().unwrap() = 99;
        assert!(later(start, &copy, None).is_none());
        assert!(later(start, &copy, last).is_some());
    }
}
