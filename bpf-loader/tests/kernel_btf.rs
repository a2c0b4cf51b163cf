//! The running kernel's BTF as this library reads it, compared with what bpftool says.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::process::Command;

use bpf_loader::btf::index::find_all;
use bpf_loader::btf::{Btf, Kind, Linkage, Type};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

fn vmlinux() -> Option<Vec<u8>> {
    let data = std::fs::read(VMLINUX).ok();
    if data.is_none() {
        println!("skipped: the kernel has no {VMLINUX}");
    }
    data
}

/// A type as `bpftool btf dump format raw` shows it.
fn raw(ty: &Type<'_>) -> String {
    let name = |name: &str| if name.is_empty() { "(anon)".to_owned() } else { name.to_owned() };
    let kind = match ty.kind() {
        Kind::DeclTag => "DECL_TAG".to_owned(),
        Kind::TypeTag => "TYPE_TAG".to_owned(),
        kind => kind.to_string().to_uppercase(),
    };
    let mut out = format!("[{}] {kind} '{}'", ty.id().0, name(ty.name().unwrap()));
    let refers = ty.type_id().map(|id| id.0);
    match ty.kind() {
        Kind::Int => {
            let int = ty.int().unwrap();
            let encoding = match (int.signed, int.char, int.bool) {
                (true, false, false) => "SIGNED",
                (false, true, false) => "CHAR",
                (false, false, true) => "BOOL",
                _ => "(none)",
            };
            write!(
                out,
                " size={} bits_offset={} nr_bits={} encoding={encoding}",
                ty.size().unwrap(),
                int.offset,
                int.bits
            )
        }
        Kind::Array => {
            let array = ty.array().unwrap();
            let (element, index) = (array.element.0, array.index.0);
            write!(out, " type_id={element} index_type_id={index} nr_elems={}", array.len)
        }
        Kind::Struct | Kind::Union => {
            write!(out, " size={} vlen={}", ty.size().unwrap(), ty.vlen()).unwrap();
            for member in ty.members() {
                let (name, id) = (name(member.name().unwrap()), member.type_id.0);
                write!(out, "\n\t'{name}' type_id={id} bits_offset={}", member.bit_offset).unwrap();
                if member.bitfield_size != 0 {
                    write!(out, " bitfield_size={}", member.bitfield_size).unwrap();
                }
            }
            Ok(())
        }
        Kind::Enum | Kind::Enum64 => {
            let encoding = if ty.kflag() { "SIGNED" } else { "UNSIGNED" };
            write!(out, " encoding={encoding} size={} vlen={}", ty.size().unwrap(), ty.vlen()).unwrap();
            let suffix = match ty.kind() {
                Kind::Enum => "",
                _ if ty.kflag() => "LL",
                _ => "ULL",
            };
            for enumerator in ty.enumerators() {
                let (name, value) = (enumerator.name().unwrap(), enumerator.value);
                write!(out, "\n\t'{name}' val={value}{suffix}").unwrap();
            }
            Ok(())
        }
        Kind::Fwd => write!(out, " fwd_kind={}", if ty.kflag() { "union" } else { "struct" }),
        Kind::Func => {
            let linkage = match ty.func_linkage() {
                Some(Linkage::Static) => "static",
                Some(Linkage::Global) => "global",
                Some(Linkage::Extern) => "extern",
                _ => "(unknown)",
            };
            write!(out, " type_id={} linkage={linkage}", refers.unwrap())
        }
        Kind::FuncProto => {
            write!(out, " ret_type_id={} vlen={}", refers.unwrap(), ty.vlen()).unwrap();
            for param in ty.params() {
                write!(out, "\n\t'{}' type_id={}", name(param.name().unwrap()), param.type_id.0).unwrap();
            }
            Ok(())
        }
        Kind::Var => {
            let linkage = match ty.var_linkage() {
                Some(Linkage::Static) => "static",
                Some(Linkage::Global) => "global",
                Some(Linkage::Extern) => "extern",
                _ => "(unknown)",
            };
            write!(out, " type_id={}, linkage={linkage}", refers.unwrap())
        }
        Kind::Datasec => {
            write!(out, " size={} vlen={}", ty.size().unwrap(), ty.vlen()).unwrap();
            for var in ty.section_vars() {
                let variable = ty.btf().type_by_id(var.type_id).unwrap();
                write!(out, "\n\ttype_id={} offset={} size={}", var.type_id.0, var.offset, var.size).unwrap();
                // bpftool names the variable as an afterthought.
                write!(out, " (VAR '{}')", variable.name().unwrap()).unwrap();
            }
            Ok(())
        }
        Kind::Float => write!(out, " size={}", ty.size().unwrap()),
        Kind::DeclTag => {
            write!(out, " type_id={} component_idx={}", refers.unwrap(), ty.component().unwrap())
        }
        _ => write!(out, " type_id={}", refers.unwrap()),
    }
    .unwrap();
    out
}

#[test]
fn every_type_is_read_as_bpftool_reads_it() {
    let Some(data) = vmlinux() else { return };
    let dump = Command::new("bpftool").args(["btf", "dump", "file", VMLINUX, "format", "raw"]).output();
    let Ok(dump) = dump else {
        println!("skipped: no bpftool");
        return;
    };
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let btf = Btf::parse(data).unwrap();
    btf.validate().unwrap();
    let dump = String::from_utf8(dump.stdout).unwrap();
    let mut theirs = dump.trim_end().split("\n[");
    for (number, ty) in btf.types().enumerate() {
        let bracket = if number == 0 { "" } else { "[" };
        let expected = format!("{bracket}{}", theirs.next().expect("bpftool shows fewer types"));
        assert_eq!(raw(&ty), expected);
        // A look-up leads to the same type as the walk.
        assert_eq!(raw(&btf.type_by_id(ty.id()).unwrap()), expected);
    }
    assert_eq!(theirs.next(), None, "bpftool shows more types");
    assert!(btf.count() > 1000);
}

#[test]
fn one_pass_finds_what_linear_searches_find() {
    let Some(data) = vmlinux() else { return };
    let btf = Btf::parse(data).unwrap();
    let wanted = [
        ("task_struct", Kind::Struct),
        ("schedule", Kind::Func),
        ("bpf_cmd", Kind::Enum),
        ("pid_t", Kind::Typedef),
        ("int", Kind::Int),
        ("no_such_type", Kind::Struct),
    ];
    let found = find_all(&btf, &wanted).unwrap();
    let linear = wanted.map(|(name, kind)| btf.find_by_name(name, kind));
    assert_eq!(found, linear);
    assert_eq!(found.iter().flatten().count(), 5);
}

#[test]
fn sizes_are_those_that_the_kernel_s_own_types_imply() {
    let Some(data) = vmlinux() else { return };
    let btf = Btf::parse(data).unwrap();
    let mut checked = HashMap::new();
    // A member ends before its structure does, and its size is known.
    for ty in btf.types().filter(|ty| ty.kind() == Kind::Struct) {
        for member in ty.members().filter(|member| member.bitfield_size == 0) {
            let size =
                *checked.entry(member.type_id).or_insert_with(|| btf.resolve_size(member.type_id).unwrap());
            let end = u64::from(member.bit_offset) / 8 + u64::from(size);
            assert!(end <= u64::from(ty.size().unwrap()), "{ty:?} {}", member.name().unwrap());
        }
    }
    assert!(checked.len() > 1000);
}
