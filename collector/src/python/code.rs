//! Code objects, out of the memory of the process that has them: whatever is there, reading it is harmless.

use std::sync::Arc;

use super::lines::{Format, line_of};
use super::version::CodeOffsets;
use crate::model::Line;
use crate::symbolize::read_at::ReadAt;

/// Bytes of a code object that are read.
const CODE: usize = 256;
/// Characters of a name, and of a path: what is longer is cut off.
const MAX_NAME: u64 = 1024;
const MAX_PATH: u64 = 4096;
/// Bytes of a table of lines, likewise.
const MAX_LINES: u64 = 64 << 10;
/// Where texts have their number of characters and how these are kept; and `bytes` their length and where they begin.
const LENGTH: u64 = 16;
const STATE: u64 = 32;
const BYTES: u64 = 32;

/// A function of a Python program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Code {
    name: Arc<str>,
    file: Arc<str>,
    first_line: i32,
    lines: Box<[u8]>,
    format: Format,
}

impl Code {
    /// Reads the code object at an address. `None`: there is none.
    pub fn read(memory: &dyn ReadAt, offsets: &CodeOffsets, address: u64) -> Option<Self> {
        let mut object = [0; CODE];
        read(memory, address, &mut object)?;
        let word = |at: u32| Some(u64::from_ne_bytes(*object.get(at as usize..)?.first_chunk()?));
        let first_line = i32::from_ne_bytes(*object.get(offsets.first_line as usize..)?.first_chunk()?);
        Some(Self {
            name: text(memory, offsets, word(offsets.name)?, MAX_NAME)?.into(),
            file: text(memory, offsets, word(offsets.file)?, MAX_PATH)?.into(),
            first_line,
            lines: bytes(memory, word(offsets.lines)?).unwrap_or_default().into(),
            format: offsets.format,
        })
    }

    /// Bytes that it takes.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.file.len() + self.lines.len()
    }

    /// The line of an instruction, or where the function begins.
    pub fn line(&self, instruction: Option<u32>) -> Line {
        let line = instruction.and_then(|at| line_of(self.format, &self.lines, self.first_line, at));
        Line {
            function: Arc::clone(&self.name),
            system_name: None,
            file: Some(Arc::clone(&self.file)),
            line: u32::try_from(line.unwrap_or(self.first_line)).unwrap_or(0),
        }
    }

    /// Whether it is none of the program's: what the interpreter puts between calls of its own.
    pub fn is_shim(&self) -> bool {
        self.file.is_empty() || &*self.file == "<shim>"
    }
}

fn read(memory: &dyn ReadAt, address: u64, bytes: &mut [u8]) -> Option<()> {
    let count = memory.read_at(address, bytes).ok()?;
    (count == bytes.len()).then_some(())
}

fn word(memory: &dyn ReadAt, address: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    read(memory, address, &mut bytes)?;
    Some(u64::from_ne_bytes(bytes))
}

fn vector(memory: &dyn ReadAt, address: u64, size: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    read(memory, address, &mut bytes)?;
    Some(bytes)
}

/// The bytes of a `bytes`.
fn bytes(memory: &dyn ReadAt, address: u64) -> Option<Vec<u8>> {
    let size = word(memory, address.checked_add(LENGTH)?)?.min(MAX_LINES);
    vector(memory, address.checked_add(BYTES)?, size)
}

/// The characters of a `str`, which are kept in one, two or four bytes each.
fn text(memory: &dyn ReadAt, offsets: &CodeOffsets, address: u64, most: u64) -> Option<String> {
    let length = word(memory, address.checked_add(LENGTH)?)?.min(most);
    // Two bits of interning, three of the bytes that a character has, whether they stand right here, and whether they are ASCII.
    let state = word(memory, address.checked_add(STATE)?)?;
    let (width, is_here, is_ascii) = (state >> 2 & 7, state >> 5 & 1 != 0, state >> 6 & 1 != 0);
    if !is_here || !matches!(width, 1 | 2 | 4) || (is_ascii && width != 1) {
        return None;
    }
    let start = address.checked_add(if is_ascii { offsets.ascii } else { offsets.compact }.into())?;
    let bytes = vector(memory, start, length * width)?;
    let characters = bytes.chunks_exact(width as usize).map(|character| {
        let value = character.iter().rev().fold(0u32, |value, byte| value << 8 | u32::from(*byte));
        char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER)
    });
    Some(characters.collect())
}

#[cfg(test)]
mod tests {
    use super::super::version::built_in;
    use super::*;

    const NAME: u64 = 0x1000;
    const PATH: u64 = 0x1100;
    const LINES: u64 = 0x1200;

    fn put(memory: &mut [u8], at: u64, bytes: &[u8]) {
        memory[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    /// A `str`, as 3.12 keeps it.
    fn put_text(memory: &mut [u8], at: u64, text: &str) {
        let most = text.chars().map(u32::from).max().unwrap_or(0);
        let width = if most < 0x100 {
            1
        } else if most < 0x1_0000 {
            2
        } else {
            4
        };
        let is_ascii = text.is_ascii();
        let state = (width as u64) << 2 | 1 << 5 | u64::from(is_ascii) << 6;
        put(memory, at + LENGTH, &(text.chars().count() as u64).to_ne_bytes());
        put(memory, at + STATE, &state.to_ne_bytes());
        let bytes: Vec<u8> =
            text.chars().flat_map(|c| u32::from(c).to_le_bytes().into_iter().take(width)).collect();
        put(memory, at + if is_ascii { 40 } else { 56 }, &bytes);
    }

    fn process(name: &str) -> Vec<u8> {
        let mut memory = vec![0; 0x2000];
        put(&mut memory, 128, &NAME.to_ne_bytes());
        put(&mut memory, 112, &PATH.to_ne_bytes());
        put(&mut memory, 136, &LINES.to_ne_bytes());
        put(&mut memory, 68, &20i32.to_ne_bytes());
        put_text(&mut memory, NAME, name);
        put_text(&mut memory, PATH, "/srv/app.py");
        put(&mut memory, LINES + LENGTH, &4u64.to_ne_bytes());
        put(&mut memory, LINES + BYTES, &[0x80 | 12 << 3, 0, 5, 0x80 | 15 << 3]);
        memory
    }

    fn read_code(memory: &[u8]) -> Option<Code> {
        Code::read(&memory, &built_in(12)?.code, 0)
    }

    #[test]
    fn names_of_any_characters() {
        for name in ["Shop.pay", "größe", "заказ.<locals>.имя", "𝒻", ""] {
            let code = read_code(&process(name)).unwrap();
            let line = code.line(Some(0));
            assert_eq!((&*line.function, line.file.as_deref(), line.line), (name, Some("/srv/app.py"), 22));
            assert_eq!([Some(1), None].map(|at| code.line(at).line), [20, 20], "where it begins");
        }
    }

    #[test]
    fn texts_are_cut_off() {
        let mut memory = process("a");
        put(&mut memory, NAME + LENGTH, &u64::MAX.to_ne_bytes());
        assert_eq!(read_code(&memory).unwrap().name.chars().count(), MAX_NAME as usize);
    }

    #[test]
    fn memory_that_has_no_code_is_none() {
        let memory = process("a");
        assert_eq!(read_code(&memory[..100]), None);
        for (at, value) in
            [(128, u64::MAX), (112, 0x1ff0), (NAME + STATE, 0), (NAME + STATE, 3 << 2 | 1 << 5)]
        {
            let mut memory = memory.clone();
            put(&mut memory, at, &value.to_ne_bytes());
            assert_eq!(read_code(&memory), None, "{value:#x} at {at:#x}");
        }
        let mut seed = 1u64;
        for _ in 0..1000 {
            let noise: Vec<u8> = (0..0x400)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 56) as u8 & 3
                })
                .collect();
            if let Some(code) = read_code(&noise) {
                code.line(Some(7));
            }
        }
    }
}
