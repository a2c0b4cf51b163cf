use super::*;
use crate::btf::encode::{Builder, Field, SIGNED};
use crate::bytes::Endian;

fn sanitized(b: &Builder, features: BtfFeatures) -> Btf<'static> {
    let btf = Btf::parse(b.build()).unwrap();
    let out = Btf::parse(sanitize(&btf, &features).unwrap()).unwrap();
    out.validate().unwrap();
    out
}

/// Kind, name and size or referred type of a type.
fn shape<'b>(btf: &'b Btf<'_>, id: BtfId) -> (Kind, &'b str, u32) {
    let ty = btf.type_by_id(id).unwrap();
    (ty.kind(), ty.name().unwrap(), ty.size().or(ty.type_id().map(|id| id.0)).unwrap_or_default())
}

fn members<'b>(btf: &'b Btf<'_>, id: BtfId) -> Vec<(&'b str, BtfId, u32)> {
    let members = btf.type_by_id(id).unwrap().members();
    members.map(|m| (m.name().unwrap(), m.type_id, m.bit_offset)).collect()
}

#[test]
fn a_kernel_that_knows_everything_gets_the_same_types() {
    let mut b = Builder::new(Endian::Little);
    let int = b.int("int", 4, SIGNED);
    let proto = b.prototype(int, &[("x", int)]);
    b.function("f", proto, Linkage::Global);
    let var = b.variable("v", int, Linkage::Global);
    b.datasec("?.data", 4, &[(var, 0, 4)]);
    b.float("float", 4);
    b.enumeration("e", true, &[("A", -1)]);
    b.enumeration64("w", true, &[("B", 1)]);
    b.layout(0, 0);
    let btf = Btf::parse(b.build()).unwrap();
    assert_eq!(sanitize(&btf, &BtfFeatures::ALL).unwrap(), b.build());
}

#[test]
fn variables_and_sections_become_bytes_and_structures() {
    for endian in [Endian::Little, Endian::Big] {
        let mut b = Builder::new(endian);
        let short = b.int("short", 2, SIGNED);
        let (x, y) = (b.variable("x", short, Linkage::Global), b.variable("y", short, Linkage::Static));
        let sec = b.datasec("?.data.x", 4, &[(x, 0, 2), (y, 2, 2)]);
        let tag = b.decl_tag("tag", short, -1);
        let out = sanitized(&b, BtfFeatures { datasec: false, decl_tag: false, ..BtfFeatures::ALL });
        assert_eq!((shape(&out, x), shape(&out, tag)), ((Kind::Int, "x", 1), (Kind::Int, "tag", 1)));
        assert_eq!(out.type_by_id(x).unwrap().int().unwrap().bits, 8);
        assert_eq!(
            (shape(&out, sec), members(&out, sec)),
            ((Kind::Struct, "__data_x", 4), vec![("x", x, 0), ("y", y, 16)])
        );
        // The name was shared with nobody who would see it change.
        let original = Btf::parse(b.build()).unwrap();
        assert_eq!(shape(&original, sec).1, "?.data.x");
    }
}

#[test]
fn a_question_mark_alone_becomes_an_underscore() {
    let mut b = Builder::new(Endian::Little);
    let int = b.int("int", 4, SIGNED);
    let var = b.variable("x", int, Linkage::Global);
    let sec = b.datasec("?.struct_ops", 4, &[(var, 0, 4)]);
    let out = sanitized(&b, BtfFeatures { question_mark_datasec: false, ..BtfFeatures::ALL });
    assert_eq!(shape(&out, sec), (Kind::Datasec, "_.struct_ops", 4));
}

#[test]
fn functions_become_aliases_of_enumerations() {
    let mut b = Builder::new(Endian::Little);
    let int = b.int("int", 4, SIGNED);
    let proto = b.prototype(int, &[("x", int)]);
    let f = b.function("f", proto, Linkage::Global);
    let pointed_to = b.prototype(int, &[("", int), ("", BtfId::VOID)]);
    let out = sanitized(&b, BtfFeatures { func: false, ..BtfFeatures::ALL });
    let enumerators = out.type_by_id(pointed_to).unwrap().enumerators();
    assert_eq!(enumerators.map(|e| e.name().unwrap()).collect::<Vec<_>>(), ["arg", "arg"]);
    assert_eq!((shape(&out, f), shape(&out, proto)), ((Kind::Typedef, "f", proto.0), (Kind::Enum, "", 4)));
    assert_eq!((out.type_by_id(f).unwrap().vlen(), out.type_by_id(proto).unwrap().vlen()), (0, 1));

    let out = sanitized(&b, BtfFeatures { func_global: false, ..BtfFeatures::ALL });
    assert_eq!(out.type_by_id(f).unwrap().func_linkage(), Some(Linkage::Static));
}

#[test]
fn newer_kinds_become_older_ones_of_the_same_size() {
    let mut b = Builder::new(Endian::Big);
    let float = b.float("double", 8);
    let tag = b.refer(Kind::TypeTag, "user", float);
    let small = b.enumeration("e", true, &[("A", -1)]);
    let wide = b.enumeration64("w", true, &[("B", 1 << 40), ("C", 2)]);
    let wider = b.enumeration64("w2", true, &[("D", 3)]);
    let next = b.next_id();
    let old = BtfFeatures { float: false, type_tag: false, enum64: false, ..BtfFeatures::ALL };
    let out = sanitized(&b, old);
    assert_eq!((shape(&out, float), shape(&out, tag)), ((Kind::Struct, "", 8), (Kind::Const, "", float.0)));
    let values: Vec<_> = out.type_by_id(small).unwrap().enumerators().map(|e| e.value).collect();
    assert_eq!((out.type_by_id(small).unwrap().kflag(), values), (false, vec![0xffff_ffff]));
    assert_eq!(shape(&out, wide), (Kind::Union, "w", 8));
    assert_eq!(members(&out, wide), [("B", next, 0), ("C", next, 0)]);
    assert_eq!((members(&out, wider), out.count()), (vec![("D", next, 0)], next.0 + 1));
    assert_eq!(shape(&out, next), (Kind::Int, "enum64_placeholder", 1));
}

#[test]
fn the_layout_goes_and_the_strings_move_up() {
    let mut b = Builder::new(Endian::Little);
    let int = b.int("int", 4, SIGNED);
    b.layout(0, 0);
    b.layout(4, 0);
    let btf = Btf::parse(b.build()).unwrap();
    let out = sanitize(&btf, &BtfFeatures { layout: false, ..BtfFeatures::ALL }).unwrap();
    assert_eq!(out.len(), b.build().len() - 8 - 8);
    assert_eq!(shape(&Btf::parse(out).unwrap(), int), (Kind::Int, "int", 4));
}

#[test]
fn externals_are_given_types_that_the_kernel_takes() {
    let mut b = Builder::new(Endian::Little);
    let long = b.int("long", 8, SIGNED);
    let proto = b.prototype(long, &[("", long), ("named", long)]);
    let f = b.function("bpf_kfunc", proto, Linkage::Extern);
    let v = b.variable("jiffies", long, Linkage::Extern);
    let sec = b.datasec(".ksyms", 0, &[(f, 0, 0), (v, 0, 8)]);
    let option = b.variable("CONFIG_HZ", long, Linkage::Extern);
    b.datasec(".kconfig", 8, &[(option, 0, 8)]);
    let int = b.next_id();
    let dummy = BtfId(int.0 + 1);
    let out = sanitized(&b, BtfFeatures::ALL);
    assert_eq!(shape(&out, int), (Kind::Int, "int", 4));
    assert_eq!(shape(&out, dummy), (Kind::Var, "dummy_ksym", int.0));
    let vars: Vec<_> =
        out.type_by_id(sec).unwrap().section_vars().map(|v| (v.type_id, v.offset, v.size)).collect();
    assert_eq!((shape(&out, sec).2, vars), (8, vec![(dummy, 0, 4), (v, 4, 4)]));
    assert_eq!(shape(&out, v), (Kind::Var, "jiffies", int.0));
    let linkage = |id| out.type_by_id(id).unwrap().var_linkage();
    assert_eq!([linkage(dummy), linkage(v), linkage(option)], [Some(Linkage::Global); 3]);
    assert_eq!(out.type_by_id(f).unwrap().func_linkage(), Some(Linkage::Global));
    let names: Vec<_> = out.type_by_id(proto).unwrap().params().map(|p| p.name().unwrap()).collect();
    assert_eq!(names, ["arg", "named"]);

    let out = sanitized(&b, BtfFeatures { datasec: false, ..BtfFeatures::ALL });
    assert_eq!(members(&out, sec), [("dummy_ksym", dummy, 0), ("jiffies", v, 32)]);
    assert_eq!((shape(&out, dummy).0, shape(&out, v).0), (Kind::Int, Kind::Int));
}

#[test]
fn what_rustc_writes_is_evened_out() {
    let mut b = Builder::new(Endian::Little);
    let byte = b.int("u8", 1, 0);
    let pointer = b.refer(Kind::Ptr, "*mut u8", byte);
    let proto = b.prototype(pointer, &[("", pointer)]);
    let memset = b.function("memset", proto, Linkage::Global);
    let mine = b.function("mine", proto, Linkage::Global);
    b.structure("s", 8, &[Field::at("p", pointer, 0)]);
    let out = sanitized(&b, BtfFeatures::ALL);
    assert_eq!(shape(&out, pointer).1, "");
    let linkage = |id| out.type_by_id(id).unwrap().func_linkage();
    assert_eq!((linkage(memset), linkage(mine)), (Some(Linkage::Static), Some(Linkage::Global)));
}

#[test]
fn a_kind_that_only_the_layout_explains_needs_it() {
    for kind in [0, 25] {
        let mut b = Builder::new(Endian::HOST);
        b.raw("new", u32::from(kind) << 24, 0, &[]);
        for _ in 0..=kind {
            b.layout(0, 0);
        }
        let bytes = b.build();
        let btf = Btf::parse(bytes.as_slice()).unwrap();
        assert!(sanitize(&btf, &BtfFeatures::ALL).is_ok());
        let old = BtfFeatures { layout: false, ..BtfFeatures::ALL };
        assert_eq!(sanitize(&btf, &old), Err(Box::new(Error::BtfKind { type_id: BtfId(1), kind })));
    }
}

#[test]
fn renaming_cannot_fill_memory() {
    let mut b = Builder::new(Endian::Little);
    let name = ".".repeat(10_000);
    for _ in 0..2_000 {
        b.datasec(&name, 4, &[]);
    }
    let btf = Btf::parse(b.build()).unwrap();
    assert!(sanitize(&btf, &BtfFeatures::ALL).is_ok());
    let old = BtfFeatures { datasec: false, ..BtfFeatures::ALL };
    assert_eq!(sanitize(&btf, &old), Err(Box::new(Error::BtfTooLarge)));
}
