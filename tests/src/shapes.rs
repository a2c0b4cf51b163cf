//! Types in words, so that those of two BTFs can be compared: by name, layout and what their members are, whatever the ids.

use std::collections::{BTreeMap, BTreeSet};

use bpf_loader::btf::{Btf, BtfId, Kind, index};

/// How deeply types without names are described.
const MAX_DEPTH: usize = 40;

/// By kind and name, the types that have them, in words. What declares, or stands for code and data, is left out.
pub type Shapes = BTreeMap<(String, String), BTreeSet<String>>;

/// All named types of a BTF.
pub fn shapes(btf: &Btf<'_>) -> Shapes {
    let mut shapes = Shapes::new();
    for ty in btf.types() {
        let name = ty.name().expect("a name");
        let is_type = matches!(
            ty.kind(),
            Kind::Int | Kind::Float | Kind::Typedef | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64
        );
        // A declared enumeration has no enumerators.
        if is_type && !name.is_empty() && !(ty.kind().is_enum() && ty.vlen() == 0) {
            let key = (index::kind_class(ty.kind()).to_string(), name.to_owned());
            shapes.entry(key).or_default().insert(shape(btf, ty.id(), MAX_DEPTH));
        }
    }
    shapes
}

/// A type with what it consists of; members' types by their names.
fn shape(btf: &Btf<'_>, id: BtfId, depth: usize) -> String {
    let ty = btf.type_by_id(id).expect("a type");
    let size = ty.size().map_or(String::new(), |size| format!("{size} bytes"));
    match ty.kind() {
        Kind::Typedef => mention(btf, ty.type_id().unwrap_or_default(), depth),
        Kind::Struct | Kind::Union => {
            let members = ty.members().map(|member| {
                let name = member.name().expect("a name");
                let of = mention(btf, member.type_id, depth);
                format!("{name}: {of} at {}, {} bits", member.bit_offset, member.bitfield_size)
            });
            format!("{} of {size} {{ {} }}", ty.kind(), members.collect::<Vec<_>>().join("; "))
        }
        Kind::Enum | Kind::Enum64 => {
            // Whether large values were meant as negative depends on who wrote the BTF; `bits` does not.
            let values = ty.enumerators().map(|e| format!("{} = {:#x}", e.name().expect("a name"), e.bits));
            format!("enum of {size} {{ {} }}", values.collect::<Vec<_>>().join(", "))
        }
        Kind::Int => format!("int of {size}, {:?}", ty.int()),
        kind => format!("{kind} of {size}"),
    }
}

/// A type as a member's declaration mentions it. Arrays of arrays and those of as many elements in all are one.
fn mention(btf: &Btf<'_>, id: BtfId, depth: usize) -> String {
    let Some(deeper) = depth.checked_sub(1) else { return "...".to_owned() };
    let ty = btf.type_by_id(id).expect("a type");
    let name = ty.name().expect("a name");
    let referred = |word: &str| format!("{word} {}", mention(btf, ty.type_id().unwrap_or_default(), deeper));
    match ty.kind() {
        Kind::Void => "void".to_owned(),
        Kind::Ptr => referred("*"),
        Kind::Const | Kind::Volatile | Kind::Restrict => referred(&ty.kind().to_string()),
        Kind::TypeTag => mention(btf, ty.type_id().unwrap_or_default(), deeper),
        Kind::Array => {
            let (mut elements, mut element) = (1, id);
            while let Some(array) = btf.type_by_id(element).expect("a type").array() {
                elements *= u64::from(array.len);
                element = array.element;
            }
            format!("[{elements}] {}", mention(btf, element, deeper))
        }
        Kind::FuncProto => {
            let params: Vec<_> = ty.params().map(|param| mention(btf, param.type_id, deeper)).collect();
            referred(&format!("({})", params.join(", ")))
        }
        Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 if name.is_empty() => shape(btf, id, deeper),
        Kind::Fwd if ty.kflag() => format!("union {name}"),
        Kind::Fwd => format!("struct {name}"),
        kind => format!("{} {name}", index::kind_class(kind)),
    }
}
