//! Line programs: the file and line of an address, from a checkpoint that is near.

use gimli::{Error, Reader, ReaderOffsetId, Result};

use super::pages::{Bytes, Section, Store};
use super::root::{MAX_PATH, Root};
use super::units::in_code;

/// Rows between two checkpoints.
const STEP: u32 = 64;
/// Checkpoints of a unit: 24 bytes each.
const MAX_CHECKPOINTS: usize = 1 << 16;
/// Checkpoints that overlap an address and are looked at.
const MAX_OVERLAP: usize = 16;

const DW_LNS_COPY: u8 = 1;
const DW_LNS_ADVANCE_PC: u8 = 2;
const DW_LNS_ADVANCE_LINE: u8 = 3;
const DW_LNS_SET_FILE: u8 = 4;
const DW_LNS_CONST_ADD_PC: u8 = 8;
const DW_LNS_FIXED_ADVANCE_PC: u8 = 9;
const DW_LNE_END_SEQUENCE: u8 = 1;
const DW_LNE_SET_ADDRESS: u8 = 2;
const DW_LNCT_PATH: u64 = 1;
const DW_LNCT_DIRECTORY_INDEX: u64 = 2;

/// Where the machine stood, just after a row.
#[derive(Debug, Clone, Copy)]
struct Checkpoint {
    /// Addresses from this row to the next checkpoint's, or to the end of the sequence, from the begin of the file's code.
    start: u32,
    end: u32,
    /// Where the program goes on, from its begin.
    next: u32,
    file: u32,
    line: u32,
}

/// The line program of a unit.
#[derive(Debug)]
pub(super) struct Lines {
    header: Header,
    checkpoints: Vec<Checkpoint>,
}

#[derive(Debug)]
struct Header {
    version: u16,
    word: u8,
    instruction: u8,
    line_base: i8,
    line_range: u8,
    opcode_base: u8,
    /// Operands of the standard operations.
    operands: Box<[u8]>,
    /// Where the tables of folders and files begin.
    tables: u64,
    /// Where the program begins and ends.
    program: (u64, u64),
}

/// The state of the machine that a line program is for.
#[derive(Debug, Clone, Copy)]
struct Registers {
    address: u64,
    file: u32,
    line: u32,
}

impl Registers {
    const START: Self = Self { address: 0, file: 1, line: 1 };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Emitted {
    Row,
    EndOfSequence,
}

impl Header {
    fn read(store: &Store, offset: u64) -> Result<Self> {
        let mut bytes = store.at(Section::Line, offset)?;
        let (length, format) = bytes.read_initial_length()?;
        let end = bytes.position().checked_add(length).ok_or(Error::OffsetOutOfBounds)?;
        bytes.truncate(length)?;
        let version = bytes.read_u16()?;
        if !(2..=5).contains(&version) {
            return Err(Error::UnknownVersion(version.into()));
        }
        if version >= 5 {
            // Sizes of addresses and of segment selectors.
            bytes.skip(2)?;
        }
        let header_length = bytes.read_word(format)?;
        let start = bytes.position().checked_add(header_length).filter(|start| *start <= end);
        let start = start.ok_or(Error::OffsetOutOfBounds)?;
        let instruction = bytes.read_u8()?;
        if version >= 4 {
            // Operations of an instruction: machines with more than one are not known here.
            bytes.skip(1)?;
        }
        let _default_is_statement = bytes.read_u8()?;
        let (line_base, line_range, opcode_base) = (bytes.read_i8()?, bytes.read_u8()?, bytes.read_u8()?);
        if line_range == 0 || opcode_base == 0 {
            return Err(Error::LineRangeZero);
        }
        let mut operands = vec![0; usize::from(opcode_base - 1)];
        bytes.read_slice(&mut operands)?;
        Ok(Self {
            version,
            word: format.word_size(),
            instruction,
            line_base,
            line_range,
            opcode_base,
            operands: operands.into(),
            tables: bytes.position(),
            program: (start, end),
        })
    }

    /// The program from a place on.
    fn program<'s>(&self, store: &'s Store, from: u64) -> Result<Bytes<'s>> {
        let (start, end) = self.program;
        let mut bytes = store.at(Section::Line, start.saturating_add(from))?;
        bytes.truncate(end.saturating_sub(bytes.position()))?;
        Ok(bytes)
    }

    /// Runs until a row is complete.
    fn run(&self, bytes: &mut Bytes<'_>, registers: &mut Registers) -> Result<Option<Emitted>> {
        let advance = |registers: &mut Registers, count: u64| {
            let distance = count.wrapping_mul(self.instruction.into());
            registers.address = registers.address.wrapping_add(distance);
        };
        while !bytes.is_empty() {
            let operation = bytes.read_u8()?;
            if let Some(special) = operation.checked_sub(self.opcode_base) {
                advance(registers, (special / self.line_range).into());
                let lines = i32::from(self.line_base) + i32::from(special % self.line_range);
                registers.line = registers.line.wrapping_add_signed(lines);
                return Ok(Some(Emitted::Row));
            }
            match operation {
                0 => {
                    let length = bytes.read_uleb128()?;
                    let mut operands = bytes.split(length)?;
                    if length == 0 {
                        continue;
                    }
                    match operands.read_u8()? {
                        DW_LNE_END_SEQUENCE => return Ok(Some(Emitted::EndOfSequence)),
                        DW_LNE_SET_ADDRESS => {
                            let size = u8::try_from(operands.len()).unwrap_or(u8::MAX);
                            registers.address = operands.read_address(size)?;
                        }
                        _ => {}
                    }
                }
                DW_LNS_COPY => return Ok(Some(Emitted::Row)),
                DW_LNS_ADVANCE_PC => advance(registers, bytes.read_uleb128()?),
                DW_LNS_ADVANCE_LINE => {
                    registers.line = registers.line.wrapping_add(bytes.read_sleb128()? as u32);
                }
                DW_LNS_SET_FILE => registers.file = u32::try_from(bytes.read_uleb128()?).unwrap_or(u32::MAX),
                DW_LNS_CONST_ADD_PC => {
                    advance(registers, ((u8::MAX - self.opcode_base) / self.line_range).into());
                }
                DW_LNS_FIXED_ADVANCE_PC => {
                    registers.address = registers.address.wrapping_add(bytes.read_u16()?.into());
                }
                _ => {
                    let operands = self.operands.get(usize::from(operation) - 1).copied().unwrap_or(0);
                    for _ in 0..operands {
                        bytes.skip_leb128()?;
                    }
                }
            }
        }
        Ok(None)
    }
}

impl Lines {
    /// Runs the whole line program of a unit, and keeps checkpoints of it.
    ///
    /// # Errors
    /// It is damaged at its begin, or the work was too much.
    pub fn read(store: &Store, offset: u64, code: (u64, u64)) -> Result<Self> {
        let header = Header::read(store, offset)?;
        let mut checkpoints = Vec::new();
        let mut bytes = header.program(store, 0)?;
        let mut registers = Registers::START;
        let mut last: Option<(Checkpoint, u64)> = None;
        let mut rows = 0;
        while checkpoints.len() < MAX_CHECKPOINTS {
            let emitted = match header.run(&mut bytes, &mut registers) {
                Ok(Some(emitted)) => emitted,
                Err(error) if store.fuel() == 0 => return Err(error),
                // What came before stands.
                Ok(None) | Err(_) => break,
            };
            let is_end = emitted == Emitted::EndOfSequence;
            if is_end || rows % STEP == 0 {
                if let Some((checkpoint, start)) = last.take() {
                    if let Some((start, end)) = in_code(code, (start, registers.address)) {
                        checkpoints.push(Checkpoint { start, end, ..checkpoint });
                    }
                }
                let next = u32::try_from(bytes.position().saturating_sub(header.program.0));
                if let (false, Ok(next)) = (is_end, next) {
                    let Registers { address, file, line } = registers;
                    last = Some((Checkpoint { start: 0, end: 0, next, file, line }, address));
                }
            }
            rows += 1;
            if is_end {
                registers = Registers::START;
                rows = 0;
            }
        }
        checkpoints.sort_by_key(|checkpoint| checkpoint.start);
        checkpoints.shrink_to_fit();
        Ok(Self { header, checkpoints })
    }

    /// The file's number and the line of an address.
    ///
    /// # Errors
    /// The line program is damaged, or the work was too much.
    pub fn find(&self, store: &Store, code: (u64, u64), address: u64) -> Result<Option<(u32, u32)>> {
        let Some(at) = address.checked_sub(code.0).and_then(|at| u32::try_from(at).ok()) else {
            return Ok(None);
        };
        let after = self.checkpoints.partition_point(|checkpoint| checkpoint.start <= at);
        let mut before = self.checkpoints.iter().take(after).rev().take(MAX_OVERLAP);
        let Some(checkpoint) = before.find(|checkpoint| at < checkpoint.end) else { return Ok(None) };
        let mut bytes = self.header.program(store, checkpoint.next.into())?;
        let (mut file, mut line) = (checkpoint.file, checkpoint.line);
        let mut registers = Registers { address: code.0 + u64::from(checkpoint.start), file, line };
        while self.header.run(&mut bytes, &mut registers)? == Some(Emitted::Row)
            && registers.address <= address
        {
            (file, line) = (registers.file, registers.line);
        }
        Ok(Some((file, line)))
    }

    /// The path of a file by its number.
    ///
    /// # Errors
    /// There is none, or the table is damaged.
    pub fn path(&self, store: &Store, root: &Root, file: u32) -> Result<String> {
        let mut bytes = store.at(Section::Line, self.header.tables)?;
        bytes.truncate(self.header.program.0.saturating_sub(self.header.tables))?;
        let (name, number, directory) = if self.header.version >= 5 {
            self.path_in_tables(store, root, &mut bytes, file)?
        } else {
            path_in_lists(&mut bytes, file)?
        };
        let mut path = name;
        // Of DWARF 5, folder 0 is that of the unit.
        let is_in_unit = self.header.version < 5 || number > 0;
        let unit = root.directory.as_deref().filter(|_| is_in_unit);
        for folder in [directory.as_str(), unit.unwrap_or_default()] {
            if !path.starts_with('/') && !folder.is_empty() {
                path = format!("{}/{path}", folder.trim_end_matches('/'));
            }
        }
        Ok(path)
    }

    /// DWARF 5: tables that say what is in them.
    fn path_in_tables(
        &self,
        store: &Store,
        root: &Root,
        bytes: &mut Bytes<'_>,
        file: u32,
    ) -> Result<(String, u64, String)> {
        let directories = bytes.clone();
        let none = |_: u64| false;
        self.visit_table(store, root, bytes, &none)?;
        let found = self.visit_table(store, root, bytes, &|index| index == u64::from(file))?;
        let (name, directory) = found.ok_or(Error::UnexpectedEof(ReaderOffsetId(bytes.position())))?;
        let found = self.visit_table(store, root, &mut directories.clone(), &|index| index == directory)?;
        Ok((name, directory, found.map(|(name, _)| name).unwrap_or_default()))
    }

    /// Name and folder of the entry that is wanted; the whole table is read past if there is none.
    fn visit_table(
        &self,
        store: &Store,
        root: &Root,
        bytes: &mut Bytes<'_>,
        wanted: &dyn Fn(u64) -> bool,
    ) -> Result<Option<(String, u64)>> {
        let mut formats = Vec::new();
        for _ in 0..bytes.read_u8()? {
            formats.push((bytes.read_uleb128()?, gimli::DwForm(bytes.read_uleb128_u16()?)));
        }
        for index in 0..bytes.read_uleb128()? {
            // An entry may take no bytes.
            store.charge(1)?;
            let is_wanted = wanted(index);
            let (mut name, mut directory) = (String::new(), 0);
            for (content, form) in &formats {
                let value = self.value(store, root, bytes, *form, is_wanted && *content == DW_LNCT_PATH)?;
                match (*content, value) {
                    (DW_LNCT_PATH, Field::Text(text)) => name = text,
                    (DW_LNCT_DIRECTORY_INDEX, Field::Number(number)) => directory = number,
                    _ => {}
                }
            }
            if is_wanted {
                return Ok(Some((name, directory)));
            }
        }
        Ok(None)
    }

    fn value(
        &self,
        store: &Store,
        root: &Root,
        bytes: &mut Bytes<'_>,
        form: gimli::DwForm,
        read: bool,
    ) -> Result<Field> {
        let text = |section, offset| {
            if !read {
                return Ok(Field::Other);
            }
            store.string(section, offset, MAX_PATH).map(Field::Text)
        };
        let indexed = |index| {
            if !read {
                return Ok(Field::Other);
            }
            root.indexed_string(store, index, MAX_PATH).map(Field::Text)
        };
        let block = |bytes: &mut Bytes<'_>, length| bytes.skip(length).map(|()| Field::Other);
        match form {
            gimli::DW_FORM_string if read => bytes.string(MAX_PATH).map(Field::Text),
            gimli::DW_FORM_string => bytes.read_null_terminated_slice().map(|_| Field::Other),
            gimli::DW_FORM_line_strp => text(Section::LineStr, bytes.read_address(self.header.word)?),
            gimli::DW_FORM_strp => text(Section::Str, bytes.read_address(self.header.word)?),
            gimli::DW_FORM_strx => indexed(bytes.read_uleb128()?),
            gimli::DW_FORM_strx1 => indexed(bytes.read_u8()?.into()),
            gimli::DW_FORM_strx2 => indexed(bytes.read_u16()?.into()),
            gimli::DW_FORM_strx3 => indexed(bytes.read_uint(3)?),
            gimli::DW_FORM_strx4 => indexed(bytes.read_u32()?.into()),
            gimli::DW_FORM_udata => bytes.read_uleb128().map(Field::Number),
            gimli::DW_FORM_data1 => Ok(Field::Number(bytes.read_u8()?.into())),
            gimli::DW_FORM_data2 => Ok(Field::Number(bytes.read_u16()?.into())),
            gimli::DW_FORM_data4 => Ok(Field::Number(bytes.read_u32()?.into())),
            gimli::DW_FORM_data8 => bytes.read_u64().map(Field::Number),
            gimli::DW_FORM_data16 => block(bytes, 16),
            gimli::DW_FORM_block => {
                let length = bytes.read_uleb128()?;
                block(bytes, length)
            }
            gimli::DW_FORM_block1 => {
                let length = bytes.read_u8()?;
                block(bytes, length.into())
            }
            // Of the text in another file.
            gimli::DW_FORM_strp_sup => block(bytes, self.header.word.into()),
            _ => Err(Error::UnknownForm(form)),
        }
    }

    /// Heap memory, in bytes.
    pub fn memory(&self) -> usize {
        self.checkpoints.capacity() * size_of::<Checkpoint>()
    }
}

/// A field of an entry in a table.
enum Field {
    Text(String),
    Number(u64),
    Other,
}

/// DWARF 2 to 4: two lists of strings, whose numbers begin with 1. Folder 0 is that of the unit.
fn path_in_lists(bytes: &mut Bytes<'_>, file: u32) -> Result<(String, u64, String)> {
    let directories = bytes.clone();
    while !bytes.read_null_terminated_slice()?.is_empty() {}
    let mut index = 1;
    loop {
        let mut entry = bytes.clone();
        let is_end = bytes.read_null_terminated_slice()?.is_empty();
        if is_end {
            return Err(Error::UnexpectedEof(ReaderOffsetId(bytes.position())));
        }
        let directory = bytes.read_uleb128()?;
        // Time and length.
        bytes.skip_leb128()?;
        bytes.skip_leb128()?;
        if index == file {
            return Ok((entry.string(MAX_PATH)?, directory, directory_in_list(directories, directory)?));
        }
        index += 1;
    }
}

fn directory_in_list(mut bytes: Bytes<'_>, wanted: u64) -> Result<String> {
    for index in 1..=wanted {
        let mut entry = bytes.clone();
        if bytes.read_null_terminated_slice()?.is_empty() {
            break;
        }
        if index == wanted {
            return entry.string(MAX_PATH);
        }
    }
    Ok(String::new())
}
