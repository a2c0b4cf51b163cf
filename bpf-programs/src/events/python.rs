//! What `python.h` reads, and the words that it writes for frames of CPython.

use super::record;

/// How a version keeps its frames: bits of [`Python::flags`].
pub mod flags {
    /// Objects on the heap, one for each call of the interpreter's function (before 3.11).
    pub const FRAME_OBJECTS: u32 = 1;
    /// The number of an instruction is in bytes (before 3.10).
    pub const IN_BYTES: u32 = 2;
    /// What the thread has points to what has the frame (3.11, 3.12).
    pub const CFRAME: u32 = 4;
    /// A frame tells itself whether the interpreter's function was entered for it (3.11).
    pub const ENTRY_FLAG: u32 = 8;
}

record! {
    /// A process that runs CPython, and where its version has what.
    #[derive(Default, PartialOrd, Ord)]
    pub struct Python = "python", 64 {
        /// Address of `_PyRuntime`.
        runtime: u64 = 0,
        /// [`flags`].
        flags: u32 = 8,
        /// In the runtime: the first interpreter.
        first_interpreter: u32 = 12,
        /// In an interpreter: the next one.
        next_interpreter: u32 = 16,
        /// In an interpreter: its first thread.
        first_thread: u32 = 20,
        /// In a thread's state: the next thread.
        next_thread: u32 = 24,
        /// In a thread's state: what `pthread_self` says.
        thread_id: u32 = 28,
        /// In a thread's state: its frame.
        thread_frame: u32 = 32,
        /// In what [`flags::CFRAME`] is of: the frame.
        cframe_frame: u32 = 36,
        /// In a frame: the one that called it.
        previous: u32 = 40,
        /// In a frame: its code object.
        code: u32 = 44,
        /// In a frame: where it is.
        instruction: u32 = 48,
        /// In a frame, a byte: who has it, or with [`flags::ENTRY_FLAG`] whether it was entered.
        owner: u32 = 52,
        /// In a code object: its instructions.
        instructions: u32 = 56,
    }
}

impl Python {
    /// As the program reads it.
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let numbers = [
            self.flags,
            self.first_interpreter,
            self.next_interpreter,
            self.first_thread,
            self.next_thread,
            self.thread_id,
            self.thread_frame,
            self.cframe_frame,
            self.previous,
            self.code,
            self.instruction,
            self.owner,
            self.instructions,
        ];
        let words =
            self.runtime.to_ne_bytes().into_iter().chain(numbers.into_iter().flat_map(u32::to_ne_bytes));
        bytes.iter_mut().zip(words).for_each(|(byte, value)| *byte = value);
        bytes
    }
}

/// A frame of CPython, as it stands behind a stack's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PythonFrame {
    /// Address of the code object.
    pub code: u64,
    /// Number of the instruction in it, two bytes each, where it is known.
    pub instruction: Option<u32>,
    /// The interpreter's function was entered for this frame.
    pub entry: bool,
}

const MARK: u64 = 1 << 63;
const ENTRY: u64 = 1 << 62;
const INSTRUCTION_SHIFT: u32 = 45;
const NO_INSTRUCTION: u64 = 0x1_ffff;

impl PythonFrame {
    /// `None`: the word is an address.
    pub fn of(word: u64) -> Option<Self> {
        let number = word >> INSTRUCTION_SHIFT & NO_INSTRUCTION;
        (word & MARK != 0).then_some(Self {
            code: (word & ((1 << INSTRUCTION_SHIFT) - 1)) << 3,
            instruction: (number != NO_INSTRUCTION).then_some(number as u32),
            entry: word & ENTRY != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let python = Python { runtime: 7, flags: 1, instructions: 200, previous: 3, ..Python::default() };
        assert_eq!(Python::decode(&python.encode()), Some(python));
    }

    #[test]
    fn words_are_frames_or_addresses() {
        assert_eq!(PythonFrame::of(0x7fff_ffff_ffff), None);
        let word = MARK | ENTRY | 5 << INSTRUCTION_SHIFT | 0x7fff_1234_5678 >> 3;
        assert_eq!(
            PythonFrame::of(word),
            Some(PythonFrame { code: 0x7fff_1234_5678, instruction: Some(5), entry: true })
        );
        let word = MARK | NO_INSTRUCTION << INSTRUCTION_SHIFT | 2;
        assert_eq!(PythonFrame::of(word), Some(PythonFrame { code: 16, instruction: None, entry: false }));
    }
}
