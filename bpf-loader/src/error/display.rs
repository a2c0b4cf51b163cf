//! The errors in words.

use std::fmt;

use super::Error;

impl std::error::Error for Error {}

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
            Self::BtfRelocation { name, kind, candidates } => {
                write!(f, "the module needs {kind} {name} of the kernel, which has {candidates} that fit")
            }
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
            #[cfg(feature = "dwarf")]
            Self::Dwarf { section, offset, reason } => write!(f, "{section}, offset {offset:#x}: {reason}"),
            #[cfg(feature = "dwarf")]
            Self::NoDwarf { reason } => {
                write!(f, "{reason}: BTF is made of the debug information of a kernel built with CONFIG_DEBUG_INFO")
            }
            Self::BtfTooLarge => f.write_str("BTF would become larger than 16 MiB"),
            Self::CoreNoTarget => f.write_str(
                "the kernel has no BTF (CONFIG_DEBUG_INFO_BTF, Linux 5.4); a file with its BTF can be used instead",
            ),
            Self::CoreKind { kind } => write!(f, "unknown CO-RE relocation kind {kind}"),
            Self::CoreAccess { access, type_id, problem } => {
                write!(f, "CO-RE access `{access}` of type {type_id}: {problem}")
            }
            Self::CoreAnonymous { type_id } => {
                write!(f, "CO-RE relocation against type {type_id}, which has no name")
            }
            Self::CoreDepth { type_id } => write!(f, "type {type_id} is nested too deeply to be compared"),
            Self::TooComplex { what, limit } => write!(f, "too complex: more than {limit} {what}"),
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
            Self::Elf { what, reason } => write!(f, "ELF {what}: {reason}"),
            Self::NotAnObject { field, value } => {
                write!(f, "not a relocatable BPF object: {field} is {value}")
            }
            Self::Section { section, reason } => write!(f, "section {}: {reason}", section.0),
            Self::Symbol { symbol, reason } => write!(f, "symbol {}: {reason}", symbol.0),
            Self::FunctionBounds { symbol, name, section, value, size } => write!(
                f,
                "function {name} (symbol {}) at byte {value}, {size} bytes long, is not on whole instructions of section {section}",
                symbol.0
            ),
            Self::FunctionOverlap { name, section, start } => {
                write!(f, "function {name} at instruction {start} of section {section} begins inside another function")
            }
            Self::TruncatedLoad { function, insn } => {
                write!(f, "function {function} ends inside the 64-bit load at instruction {}", insn.0)
            }
            Self::Relocation { section, function, offset, symbol, reason } => {
                write!(f, "relocation at byte {offset} of section {section}")?;
                if !function.is_empty() {
                    write!(f, " (function {function})")?;
                }
                write!(f, " to symbol {}: {reason}", symbol.0)
            }
            Self::NoSuchCallee { function, insn, target, section } => write!(
                f,
                "function {function}, instruction {}: no function begins at instruction {target} of section {section}",
                insn.0
            ),
            Self::ExceptionCallback { callback } => {
                write!(f, "the object has no global function {callback}, the exception callback")
            }
            Self::CoreRelocation { what, function, error } => {
                write!(f, "function {function}, relocation of {what}: {error}")
            }
            Self::Extern { name, kind, reason } => write!(f, "{kind} {name}: {reason}"),
            Self::UnknownKind { section } => write!(f, "section {section} names no known kind of program"),
            Self::MissingTarget { section } => {
                write!(f, "section {section} must name what to attach to, as {section}/NAME")
            }
            Self::NoSuchTarget { name } => write!(f, "the kernel has no {name}"),
            Self::NoKernelBtf { needed_by } => {
                write!(f, "{needed_by} needs the kernel's BTF, and there is none")
            }
            Self::ReadBtf { reason } => write!(f, "the kernel's types: {reason}"),
            Self::ReadTarget { what, reason } => write!(f, "{what}: {reason}"),
            Self::ModuleBtf { module, error } => write!(f, "BTF of module {module}: {error}"),
            Self::NotAMap { section, offset } => {
                write!(f, "byte {offset} of section {} is neither a map nor data", section.0)
            }
            Self::MapWithoutBtf { map } => write!(f, "map {map} is not described by the object's BTF"),
            Self::StructOps { map, member, reason } if member.is_empty() => write!(f, "map {map}: {reason}"),
            Self::StructOps { map, member, reason } => write!(f, "map {map}, {member}: {reason}"),
            Self::StructOpsUnused { program } => {
                write!(f, "no map of operations names {program}, so what it implements is not known")
            }
            Self::NoTargetProgram { section } => {
                write!(f, "section {section} is for a function of another program: say of which (attach_to)")
            }
            Self::TargetProgramWithoutBtf { id } => {
                write!(f, "program {id} was loaded without BTF, so its functions cannot be found")
            }
            Self::MapMember { map, member, reason } if member.is_empty() => write!(f, "map {map}: {reason}"),
            Self::MapMember { map, member, reason } => write!(f, "map {map}, {member}: {reason}"),
            Self::DataSectionSize { section, size } => {
                write!(f, "data section {section} of {size} bytes: a map's value has 1 to {} bytes", u32::MAX)
            }
            Self::NoSuchVariable { name } => write!(f, "there is no global variable {name}"),
            Self::VariableSize { name, size, given } => {
                write!(f, "global variable {name} has {size} bytes, not {given}")
            }
            Self::NoSuchMap { name } => write!(f, "there is no map {name}"),
            Self::NoSuchProgram { name } => write!(f, "there is no program {name}"),
            Self::MapNotLoaded { map } => write!(f, "it uses map {map}, which could not be created"),
            Self::ForeignEndian => f.write_str("the object has the other byte order than this host"),
            Self::MissingFuncInfo { function } => write!(f, ".BTF.ext says nothing of subprogram {function}"),
            Self::BtfLoad { error, log } => {
                write!(f, "{error}")?;
                fmt::Display::fmt(log, f)
            }
            Self::MapCreate { map, map_type, error } => write!(f, "map {map} ({map_type}): {error}"),
            Self::ProgramLoad { error, min_kernel: (major, minor), log } => {
                write!(f, "{error}")?;
                if log.is_about_the_kind() {
                    write!(f, "; such programs need Linux {major}.{minor} and the right to load them")?;
                }
                fmt::Display::fmt(log, f)
            }
            Self::Unsupported { feature, min_kernel: (major, minor), error } => {
                write!(f, "{feature}: needs Linux {major}.{minor} ({error})")
            }
            Self::NotConfigured { feature, option } => {
                write!(f, "{feature}: the kernel is built without {option}")
            }
            Self::Token { bpffs, error } => {
                write!(f, "{bpffs} gives no BPF token, which needs Linux 6.9 and rights delegated to this user namespace ({error})")
            }
            Self::AttachKind { kind } => write!(f, "programs of kind {kind} are loaded, but cannot be attached"),
            Self::NoAutoAttach { section } => {
                write!(f, "section {section} does not say all about what to attach the program to")
            }
            Self::AttachTarget { target, reason } => write!(f, "{target}: {reason}"),
            Self::NoSuchSymbol { path, name } => write!(f, "{}: there is no {name}", path.display()),
            Self::WrongProgram { program_type, target } => {
                write!(f, "programs of type {program_type} cannot be attached to {target}")
            }
            Self::NotABpfLink { operation } => {
                write!(f, "the attachment cannot {operation}: it is no BPF link")
            }
            Self::AlreadyPinned { path } => write!(f, "already pinned at {}", path.display()),
            Self::NotPinned => f.write_str("not pinned"),
            Self::File { path, reason } => write!(f, "{}: {reason}", path.display()),
                        Self::MapType { map, found, expected } => {
                write!(f, "map {map} is a {found}, expected ")?;
                for (i, map_type) in expected.iter().enumerate() {
                    write!(f, "{}{map_type}", if i == 0 { "" } else { " or " })?;
                }
                Ok(())
            }
            Self::MapSize { map, what, expected, found } => {
                write!(f, "map {map}: a {what} has {found} bytes, not {expected}")
            }
            Self::MapWalk { steps } => {
                write!(f, "keys are deleted so fast that a walk has not ended after {steps} keys")
            }
            Self::InnerMap { map, inner_type, error } => write!(
                f,
                "map {map} does not take this {inner_type}, whose type, sizes or flags are not those of its inner maps: {error}"
            ),
            Self::MapReuse { map, pin, what, expected, found } => {
                write!(f, "map {map}: the existing map")?;
                if let Some(pin) = pin {
                    write!(f, " pinned at {}", pin.display())?;
                }
                write!(f, " has {what} {found}, not {expected}")
            }
            Self::MapPin { path, error } => write!(f, "map pin {}: {error}", path.display()),
            Self::OtherMapPinned { map, path, found } => {
                write!(f, "map {map} is not pinned at {}, but the map with id {found}", path.display())
            }
            Self::ReadOnlyVariable { name } => write!(f, "global variable {name} is read-only"),
            Self::ArenaFaults { map } => {
                write!(f, "map {map} has BPF_F_SEGV_ON_FAULT: a touch of a page that is not allocated would be fatal")
            }
            Self::RecordTooLong { len, most } => write!(f, "a record of {len} bytes, where at most {most} fit"),
            Self::Ring(fault) => fault.fmt(f),
            Self::Kernel(e) => e.fmt(f),
            Self::InMap { map, error } => write!(f, "map {map}: {error}"),
            Self::InProgram { program, error } => {
                write!(f, "program {program}: ")?;
                fmt::Display::fmt(error, f)
            }
            Self::NotBuiltIn { what } => {
                write!(f, "this build knows no {what}: it lacks the feature `all-objects` of bpf-loader")
            }
            Self::Internal(what) => write!(f, "internal error: {what}"),
        }
    }
}
