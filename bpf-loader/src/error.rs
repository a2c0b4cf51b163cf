//! The crate's one error type.

use std::path::PathBuf;

use bpf_sys::shared::RingFault;
use bpf_sys::{MapType, ProgType};

use crate::btf::{BtfId, Kind};
use crate::core_relo::RelocKind;
use crate::elf::{SectionIdx, SymbolIdx};
use crate::externs::{ExternFault, ExternKind};
use crate::insn::InsnIdx;
use crate::verifier_log::VerifierLog;

mod display;
mod excerpt;
mod kernel;

pub(crate) use excerpt::excerpt;

/// Result of this crate's functions. The error is in a box, which keeps results small.
pub type Result<T, E = Box<Error>> = std::result::Result<T, E>;

/// Why an object cannot be parsed, planned or loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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
    /// A type that a module's BTF needs of the kernel's is not there, or there are several.
    BtfRelocation {
        /// Its name.
        name: String,
        /// Its kind.
        kind: Kind,
        /// How many would do.
        candidates: usize,
    },
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
    /// Debug information that makes no sense.
    #[cfg(feature = "dwarf")]
    Dwarf {
        /// The section: `.debug_info`, ...
        section: &'static str,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A file without debug information that types could be made of.
    #[cfg(feature = "dwarf")]
    NoDwarf {
        /// Why not.
        reason: &'static str,
    },
    /// BTF that would become larger than 16 MiB, which no kernel takes.
    BtfTooLarge,
    /// The object has CO-RE relocations and the kernel no BTF: it needs CONFIG_DEBUG_INFO_BTF (Linux 5.4), or a file with
    /// its BTF.
    CoreNoTarget,
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
    /// The object asks for more than any real one needs, which would take too much time or memory.
    TooComplex {
        /// What there is too much of.
        what: &'static str,
        /// The most.
        limit: u64,
    },
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
    /// The ELF file is broken.
    Elf {
        /// Which part of it.
        what: &'static str,
        /// What is wrong there.
        reason: String,
    },
    /// An ELF file, but not a relocatable BPF object.
    NotAnObject {
        /// Header field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A section is broken.
    Section {
        /// Which.
        section: SectionIdx,
        /// What is wrong with it.
        reason: String,
    },
    /// A symbol is broken.
    Symbol {
        /// Which.
        symbol: SymbolIdx,
        /// What is wrong with it.
        reason: String,
    },
    /// A function does not lie on whole instructions of its section.
    FunctionBounds {
        /// Its symbol.
        symbol: SymbolIdx,
        /// Its name.
        name: String,
        /// Its section.
        section: String,
        /// First byte.
        value: u64,
        /// Bytes.
        size: u64,
    },
    /// A function begins inside another: only one name for the same instructions is a legitimate overlap.
    FunctionOverlap {
        /// Its name.
        name: String,
        /// Its section.
        section: String,
        /// The instruction that it begins at.
        start: InsnIdx,
    },
    /// A function ends in the first half of a 64-bit load.
    TruncatedLoad {
        /// Which function.
        function: String,
        /// Instruction in its section.
        insn: InsnIdx,
    },
    /// A relocation cannot be applied.
    Relocation {
        /// Section that it applies to.
        section: String,
        /// Function that it lies in, if any.
        function: String,
        /// Byte of the section.
        offset: u64,
        /// Symbol that it names.
        symbol: SymbolIdx,
        /// Why not.
        reason: String,
    },
    /// A call or function address that is no function's start.
    NoSuchCallee {
        /// Calling function.
        function: String,
        /// Calling instruction in its section.
        insn: InsnIdx,
        /// Instruction that it points to.
        target: u64,
        /// Section that it points into.
        section: String,
    },
    /// A program names an exception callback that is no global function of the object's `.text`.
    ExceptionCallback {
        /// The callback.
        callback: String,
    },
    /// A CO-RE relocation cannot be resolved or applied.
    CoreRelocation {
        /// What it asks for.
        what: String,
        /// Function that it lies in.
        function: String,
        /// Why not.
        error: Box<Error>,
    },
    /// A program refers to something outside the object that cannot be resolved.
    Extern {
        /// The symbol's name.
        name: String,
        /// What it is.
        kind: ExternKind,
        /// Why not.
        reason: ExternFault,
    },
    /// The section's name is in no table of program kinds, so nobody knows how to load what is in it.
    UnknownKind {
        /// The section.
        section: String,
    },
    /// The program's section name lacks what to attach to, which this kind needs at load.
    MissingTarget {
        /// The section.
        section: String,
    },
    /// The kernel has no such function, tracepoint or hook.
    NoSuchTarget {
        /// The name that BTF was searched for.
        name: String,
    },
    /// The kernel carries no BTF, which this needs.
    NoKernelBtf {
        /// What needs it.
        needed_by: String,
    },
    /// The kernel's BTF files cannot be listed, or its own cannot be read although it is there.
    ReadBtf {
        /// Why not.
        reason: String,
    },
    /// What the kernel tells of itself cannot be read although it is there.
    ReadTarget {
        /// The file.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// The BTF of a module that a program refers to cannot be opened (Linux 5.11; needs CAP_SYS_ADMIN).
    ModuleBtf {
        /// The module.
        module: String,
        /// What the kernel says.
        error: bpf_sys::Error,
    },
    /// A place that holds neither maps nor data.
    NotAMap {
        /// Section.
        section: SectionIdx,
        /// Byte of the section.
        offset: u64,
    },
    /// A map is declared in `.maps`, but the object's BTF does not describe it.
    MapWithoutBtf {
        /// The map.
        map: String,
    },
    /// A map of operations (`struct_ops`) makes no sense, or does not fit the kernel.
    StructOps {
        /// The map.
        map: String,
        /// The member; empty for the whole.
        member: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A `struct_ops` program that no map of operations names: what it implements is not known.
    StructOpsUnused {
        /// The program.
        program: String,
    },
    /// The program replaces a function of another program, which is not given.
    NoTargetProgram {
        /// The program's section.
        section: String,
    },
    /// A program of which a function is to be replaced or traced has no BTF to find it in.
    TargetProgramWithoutBtf {
        /// Its id.
        id: u32,
    },
    /// A member of a map's declaration makes no sense.
    MapMember {
        /// The map.
        map: String,
        /// The member; empty for the declaration itself.
        member: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A data section is empty, or larger than a map value can be.
    DataSectionSize {
        /// The section.
        section: String,
        /// Its size.
        size: u64,
    },
    /// The object has no global variable of that name in a data section.
    NoSuchVariable {
        /// The name.
        name: String,
    },
    /// A global variable has another size than the value given for it.
    VariableSize {
        /// The variable.
        name: String,
        /// Its size.
        size: u64,
        /// The value's size.
        given: usize,
    },
    /// The object has no map of that name.
    NoSuchMap {
        /// The name.
        name: String,
    },
    /// The object has no program of that name.
    NoSuchProgram {
        /// The name.
        name: String,
    },
    /// A program uses a map that could not be created.
    MapNotLoaded {
        /// The map.
        map: String,
    },
    /// The object's byte order is not the host's: it can be inspected, not loaded.
    ForeignEndian,
    /// A subprogram has no `func_info`, although the program that calls it has.
    MissingFuncInfo {
        /// The subprogram.
        function: String,
    },
    /// The kernel refuses the object's BTF.
    BtfLoad {
        /// What the kernel says.
        error: bpf_sys::Error,
        /// What the verifier says.
        log: Box<VerifierLog>,
    },
    /// The kernel refuses a map, or what it shall hold at first.
    MapCreate {
        /// The map.
        map: String,
        /// Its type.
        map_type: MapType,
        /// What the kernel says.
        error: bpf_sys::Error,
    },
    /// The kernel refuses a program.
    ProgramLoad {
        /// What the kernel says.
        error: bpf_sys::Error,
        /// First Linux version that has such programs.
        min_kernel: (u8, u8),
        /// What the verifier says.
        log: Box<VerifierLog>,
    },
    /// The kernel lacks a feature.
    Unsupported {
        /// Which.
        feature: &'static str,
        /// First Linux version that has it.
        min_kernel: (u8, u8),
        /// What the kernel says.
        error: bpf_sys::Error,
    },
    /// The kernel is new enough, but built without something.
    NotConfigured {
        /// What is missing.
        feature: &'static str,
        /// The option of the kernel's configuration.
        option: &'static str,
    },
    /// A BPF file system delegates no rights to the caller's user namespace (Linux 6.9).
    Token {
        /// Where it is mounted.
        bpffs: String,
        /// What the kernel says.
        error: bpf_sys::Error,
    },
    /// A map of a type that a handle is not for.
    MapType {
        /// The map.
        map: String,
        /// Its type.
        found: MapType,
        /// The types that the handle takes.
        expected: &'static [MapType],
    },
    /// A Rust type that is not as long as the map's keys or values.
    MapSize {
        /// The map.
        map: String,
        /// `key` or `value`.
        what: &'static str,
        /// Size of the Rust type in bytes.
        expected: usize,
        /// Size in the map in bytes.
        found: usize,
    },
    /// A walk over a map's keys that began again and again, since keys were deleted under it.
    MapWalk {
        /// How many keys it has given.
        steps: u64,
    },
    /// A map that a map of maps does not take.
    InnerMap {
        /// The map of maps.
        map: String,
        /// Type of the other.
        inner_type: MapType,
        /// What the kernel says.
        error: bpf_sys::Error,
    },
    /// An existing map that cannot take the place of one of the object.
    MapReuse {
        /// The map.
        map: String,
        /// Where it is pinned, if it was found by its pin.
        pin: Option<PathBuf>,
        /// What is another: `type`, `key_size`, `value_size`, `max_entries`, `map_flags`, `map_extra`.
        what: &'static str,
        /// Its value in the object.
        expected: u64,
        /// Its value in the existing map.
        found: u64,
    },
    /// A map cannot be pinned, or its pin not opened.
    MapPin {
        /// The pin, which has the map's name.
        path: PathBuf,
        /// What the kernel says.
        error: bpf_sys::Error,
    },
    /// A pin of another map.
    OtherMapPinned {
        /// The map that was to be there.
        map: String,
        /// The pin.
        path: PathBuf,
        /// Id of the map that is there.
        found: u32,
    },
    /// This library loads programs of this kind, and cannot attach them.
    AttachKind {
        /// The kind: the first part of the section's name.
        kind: &'static str,
    },
    /// The name of the program's section does not say what to attach it to, or not all of it.
    NoAutoAttach {
        /// The section.
        section: String,
    },
    /// What to attach to makes no sense.
    AttachTarget {
        /// What.
        target: String,
        /// Why not.
        reason: &'static str,
    },
    /// A file has no function or probe of that name.
    NoSuchSymbol {
        /// The file.
        path: PathBuf,
        /// The name, or a pattern of names.
        name: String,
    },
    /// A program is attached where programs of its type do not go.
    WrongProgram {
        /// Its type.
        program_type: ProgType,
        /// Where.
        target: &'static str,
    },
    /// Something that only BPF links can was asked of an attachment by older means.
    NotABpfLink {
        /// What, as in "the attachment cannot ...".
        operation: &'static str,
    },
    /// The link has a pin, and can have only one.
    AlreadyPinned {
        /// Where.
        path: PathBuf,
    },
    /// The link has no pin.
    NotPinned,
    /// A file cannot be read, written or removed.
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A variable in a section that is frozen.
    ReadOnlyVariable {
        /// The name.
        name: String,
    },
    /// An arena in which touching a page that no program has allocated ends the process (`BPF_F_SEGV_ON_FAULT`).
    ArenaFaults {
        /// The map.
        map: String,
    },
    /// A record that the ring can never hold.
    RecordTooLong {
        /// Its length in bytes.
        len: usize,
        /// The most.
        most: usize,
    },
    /// A ring whose memory breaks the rules.
    Ring(RingFault),
    /// A kernel call failed.
    Kernel(bpf_sys::Error),
    /// Something that concerns one map.
    InMap {
        /// The map.
        map: String,
        /// What.
        error: Box<Error>,
    },
    /// Something that concerns one program.
    InProgram {
        /// The program.
        program: String,
        /// What.
        error: Box<Error>,
    },
    /// What needs the crate's feature `all-objects`, which is not built in.
    NotBuiltIn {
        /// What it is.
        what: &'static str,
    },
    /// A defect of this crate, not of its input.
    Internal(&'static str),
}
