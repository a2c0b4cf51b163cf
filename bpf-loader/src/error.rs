//! What can go wrong, with the evidence.

use core::fmt;

use crate::btf::{BtfId, Kind};
use crate::core_relo::RelocKind;
use crate::insn::InsnIdx;

/// Why an object, or a kernel's type information, could not be used.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Too short for the header of BTF or BTF.ext.
    BtfHeader {
        /// `.BTF` or `.BTF.ext`.
        section: &'static str,
        /// Header length that the file states, or its whole length if it doesn't reach that far.
        len: usize,
    },
    /// The first two bytes are no BTF magic in either byte order.
    BtfMagic {
        /// The bytes.
        found: [u8; 2],
    },
    /// A version of the format other than 1.
    BtfVersion {
        /// The version stated.
        found: u8,
    },
    /// Part of BTF or BTF.ext lies outside it, is unaligned or not made of whole elements.
    BtfSection {
        /// `types`, `strings`, `layout`, `func_info`, `line_info` or `core_relo`.
        section: &'static str,
        /// Where it starts, in bytes after the header.
        offset: u32,
        /// How long it claims to be, in bytes.
        len: u32,
    },
    /// The string section does not start (base BTF) and end with a NUL.
    BtfStrings,
    /// Module BTF whose byte order is not that of its base, or with more types or strings than can be numbered.
    BtfBase,
    /// A kind that this library does not know and the file's layout section does not describe.
    BtfKind {
        /// Type of that kind.
        type_id: BtfId,
        /// The kind's number.
        kind: u8,
    },
    /// A type whose members end outside the type section.
    BtfTypeTruncated {
        /// The type.
        type_id: BtfId,
    },
    /// An id that names no type.
    BtfTypeId {
        /// The id.
        type_id: BtfId,
        /// The number of ids, void included.
        count: u32,
    },
    /// A type of another kind than what refers to it requires.
    BtfUnexpectedKind {
        /// The type.
        type_id: BtfId,
        /// Its kind.
        kind: Kind,
        /// What was looked for.
        expected: &'static str,
    },
    /// A string offset outside the string section.
    BtfString {
        /// The offset.
        offset: u32,
    },
    /// A name that is not UTF-8.
    BtfStringUtf8 {
        /// Its offset in the string section.
        offset: u32,
    },
    /// Types that refer to each other without end, or nested beyond what any compiler writes.
    BtfTypeLoop {
        /// Where the walk started.
        type_id: BtfId,
    },
    /// A type without a size: void, a function, a forward declaration.
    BtfSizeless {
        /// The type.
        type_id: BtfId,
        /// Its kind.
        kind: Kind,
    },
    /// The size in bytes does not fit 32 bits.
    BtfSizeOverflow {
        /// The type.
        type_id: BtfId,
    },
    /// A variable of a data section has no symbol, or the section no size.
    BtfDatasec {
        /// The data section.
        section: String,
        /// The variable, if one was being looked for.
        variable: Option<String>,
    },
    /// BTF that would exceed what 32-bit offsets can name.
    BtfTooLarge,
    /// A CO-RE relocation of a kind that this library does not know.
    CoreKind {
        /// The kind's number.
        kind: u32,
    },
    /// A CO-RE relocation whose access string is malformed or does not fit its type.
    CoreAccess {
        /// The access string.
        access: String,
        /// The local type that it applies to.
        type_id: BtfId,
        /// What is wrong.
        problem: &'static str,
    },
    /// A CO-RE relocation against a type without a name, for which no candidates can be looked up.
    CoreAnonymous {
        /// The local type.
        type_id: BtfId,
    },
    /// Types nested beyond the depth that CO-RE compares.
    CoreDepth {
        /// The local type where comparison gave up.
        type_id: BtfId,
    },
    /// Resolving the object's CO-RE relocations took more comparisons than any real object needs.
    CoreFuel,
    /// Candidate types in the kernel disagree about the relocation's result.
    CoreAmbiguous {
        /// What disagrees: a bit offset or a value.
        what: &'static str,
        /// Result for the first candidate, `None` if it must not be executed.
        first: Option<u64>,
        /// The candidate that disagrees, by its id in the kernel's (or a module's) BTF.
        candidate: BtfId,
        /// Its result.
        second: Option<u64>,
    },
    /// A relocation kind that cannot be applied to what its access string names.
    CoreUnsupported {
        /// The kind.
        kind: RelocKind,
        /// The type reached.
        type_id: BtfId,
        /// Why not.
        problem: &'static str,
    },
    /// A relocation that lies outside its program, or on an instruction that cannot hold it.
    CoreInsn {
        /// The instruction.
        insn: InsnIdx,
        /// Its opcode, `None` outside the program.
        code: Option<u8>,
    },
    /// The instruction does not hold the value that the compiler should have put there.
    CoreInsnValue {
        /// The instruction.
        insn: InsnIdx,
        /// The value found.
        found: u64,
        /// The value expected.
        expected: u64,
    },
    /// A result that the instruction's field cannot hold.
    CoreInsnRange {
        /// The instruction.
        insn: InsnIdx,
        /// The value.
        value: u64,
    },
    /// A load or store whose width is not that of the field, or cannot become that of the kernel's field.
    CoreInsnWidth {
        /// The instruction.
        insn: InsnIdx,
        /// Bytes that the instruction accesses.
        width: u32,
        /// Size in bytes of the field, as compiled.
        local: u32,
        /// Size in bytes of the field in the kernel.
        target: u32,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BtfHeader { section, len } => write!(f, "{section}: header of {len} bytes is too short"),
            Self::BtfMagic { found: [a, b] } => write!(f, "not BTF: starts with bytes {a:#04x} {b:#04x}"),
            Self::BtfVersion { found } => write!(f, "BTF version {found}, expected 1"),
            Self::BtfSection { section, offset, len } => {
                write!(f, "BTF {section} section malformed ({len} bytes at offset {offset})")
            }
            Self::BtfStrings => f.write_str("BTF string section does not start and end with NUL"),
            Self::BtfBase => f.write_str("BTF does not fit the base BTF it was given"),
            Self::BtfKind { type_id, kind } => write!(f, "BTF type {type_id} is of unknown kind {kind}"),
            Self::BtfTypeTruncated { type_id } => {
                write!(f, "BTF type {type_id} does not fit the type section")
            }
            Self::BtfTypeId { type_id, count } => write!(f, "no BTF type {type_id}: there are {count}"),
            Self::BtfUnexpectedKind { type_id, kind, expected } => {
                write!(f, "BTF type {type_id} is a {kind}, expected {expected}")
            }
            Self::BtfString { offset } => write!(f, "no BTF string at offset {offset}"),
            Self::BtfStringUtf8 { offset } => write!(f, "BTF string at offset {offset} is not UTF-8"),
            Self::BtfTypeLoop { type_id } => write!(f, "BTF type {type_id} is nested without end"),
            Self::BtfSizeless { type_id, kind } => write!(f, "BTF type {type_id} ({kind}) has no size"),
            Self::BtfSizeOverflow { type_id } => write!(f, "BTF type {type_id} is larger than 4 GiB"),
            Self::BtfDatasec { section, variable: Some(variable) } => {
                write!(f, "no symbol for variable `{variable}` of data section `{section}`")
            }
            Self::BtfDatasec { section, variable: None } => write!(f, "data section `{section}` has no size"),
            Self::BtfTooLarge => f.write_str("BTF is larger than 4 GiB"),
            Self::CoreKind { kind } => write!(f, "unknown CO-RE relocation kind {kind}"),
            Self::CoreAccess { access, type_id, problem } => {
                write!(f, "CO-RE access `{access}` of type {type_id}: {problem}")
            }
            Self::CoreAnonymous { type_id } => {
                write!(f, "CO-RE relocation against type {type_id}, which has no name")
            }
            Self::CoreDepth { type_id } => write!(f, "type {type_id} is nested too deeply to be compared"),
            Self::CoreFuel => f.write_str("CO-RE relocations need too many type comparisons"),
            Self::CoreAmbiguous { what, first, candidate, second } => {
                let show = |v: &Option<u64>| v.map_or_else(|| "none".to_owned(), |v| v.to_string());
                write!(f, "ambiguous {what}: {}, but {} by type {candidate}", show(first), show(second))
            }
            Self::CoreUnsupported { kind, type_id, problem } => {
                write!(f, "relocation {kind} of type {type_id}: {problem}")
            }
            Self::CoreInsn { insn, code: Some(code) } => {
                write!(f, "instruction {insn} (opcode {code:#04x}) cannot be relocated")
            }
            Self::CoreInsn { insn, code: None } => write!(f, "no instruction {insn} to relocate"),
            Self::CoreInsnValue { insn, found, expected } => {
                write!(f, "instruction {insn} holds {found}, expected {expected}")
            }
            Self::CoreInsnRange { insn, value } => write!(f, "value {value} does not fit instruction {insn}"),
            Self::CoreInsnWidth { insn, width, local, target } => write!(
                f,
                "instruction {insn} accesses {width} bytes of a {local}-byte field that has {target} in the kernel"
            ),
        }
    }
}

impl std::error::Error for Error {}
