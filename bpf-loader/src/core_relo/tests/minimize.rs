//! Of a kernel's types, those that relocations need: every one of them comes to the same as with all.

use super::super::minimize::of_relocations;
use super::*;

/// A kernel with more than anybody asks for.
fn everything() -> Builder {
    let mut b = Builder::new(Endian::Little);
    b.structure("unrelated", 8, &[]);
    let i = ints(&mut b);
    let constant = b.refer(Kind::Const, "", i.int);
    let b_fwd = b.forward("b", false);
    let pointer = b.ptr(b_fwd);
    let other_pointer = b.ptr(constant);
    let matrix = b.array(i.char, i.uint, 8);
    let inner = b.structure("inner", 8, &[Field::at("i", i.int, 0), Field::at("unused", i.int, 4)]);
    let inners = b.array(inner, i.uint, 4);
    let color = b.enumeration("color", false, &[("RED", 1), ("GREEN", 2), ("BLUE", 3)]);
    let wide = b.enumeration64("wide", false, &[("SMALL", 1), ("LARGE", 1 << 40)]);
    let hidden = b.structure("", 16, &[Field::at("y", i.long, 0), Field::at("z", matrix, 8)]);
    let choice = b.composite(Kind::Union, "", 16, &[Field::at("", hidden, 0), Field::at("word", i.uint, 0)]);
    let alias = b.typedef("alias", inners);
    b.structure(
        "a",
        96,
        &[
            Field::at("x", constant, 0),
            Field::at("", choice, 8),
            Field::at("in", alias, 24),
            Field::at("en", color, 56),
            Field::at("p", pointer, 64),
            Field::at("q", other_pointer, 72),
            Field::at("unused", wide, 80),
        ],
    );
    b.structure("bits", 8, &[Field::bits("low", i.uint, 0, 3), Field::bits("high", i.uint, 3, 7)]);
    let prototype = b.prototype(i.int, &[("a", pointer), ("b", i.long)]);
    let callback = b.ptr(prototype);
    b.typedef("callback_t", callback);
    // Two of a name, which differ in what a program may ask.
    b.structure("twice", 8, &[Field::at("first", i.int, 0)]);
    b.structure("twice", 8, &[Field::at("first", i.int, 0), Field::at("second", i.int, 4)]);
    b
}

/// What a program may ask of it, and of what it does not have.
fn questions() -> Local {
    let mut local = Local::new();
    let b = &mut local.types;
    let i = ints(b);
    let other = b.forward("b", false);
    let pointer = b.ptr(other);
    let row = b.array(i.char, i.uint, 8);
    let inner = b.structure("inner", 4, &[Field::at("i", i.int, 0)]);
    let inners = b.array(inner, i.uint, 4);
    let color = b.enumeration("color", false, &[("BLUE", 0), ("NONE", 0)]);
    let wide = b.enumeration64("wide", false, &[("LARGE", 0)]);
    let members = [
        Field::at("x", i.int, 0),
        Field::at("z", row, 4),
        Field::at("in", inners, 12),
        Field::at("en", color, 28),
        Field::at("p", pointer, 32),
        Field::at("q", pointer, 40),
        Field::at("missing", i.int, 48),
    ];
    let a = b.structure("a", 56, &members);
    let bits = b.structure("bits", 4, &[Field::bits("high", i.uint, 0, 7)]);
    let prototype = b.prototype(i.int, &[("a", pointer), ("b", i.long)]);
    let callback = b.ptr(prototype);
    let callback = b.typedef("callback_t", callback);
    let twice = b.structure("twice", 4, &[Field::at("second", i.int, 0)]);
    let absent = b.structure("absent", 4, &[]);
    let few = b.structure("inner___few", 4, &[Field::at("i", i.int, 0)]);
    for access in ["0:0", "0:1:5", "0:2:1:0", "0:3", "0:4", "0:5", "0:6"] {
        for kind in [RelocKind::FieldByteOffset, RelocKind::FieldByteSize, RelocKind::FieldExists] {
            local.relo(kind, a, access);
        }
    }
    for kind in
        [RelocKind::FieldByteOffset, RelocKind::FieldLshift, RelocKind::FieldRshift, RelocKind::FieldSigned]
    {
        local.relo(kind, bits, "0:0");
    }
    for (enumeration, access) in [(color, "0"), (color, "1"), (wide, "0")] {
        local.relo(RelocKind::EnumvalExists, enumeration, access);
        local.relo(RelocKind::EnumvalValue, enumeration, access);
    }
    for kind in [RelocKind::TypeExists, RelocKind::TypeSize, RelocKind::TypeMatches] {
        for ty in [callback, few, absent, color] {
            local.relo(kind, ty, "0");
        }
    }
    local.relo(RelocKind::FieldByteOffset, twice, "0:0");
    local
}

#[test]
fn relocations_come_to_the_same_with_fewer_types() {
    let all = kernel(&everything());
    let local = questions();
    let own = Btf::parse(local.types.build()).unwrap().with_pointer_size(8);
    let vmlinux = all.vmlinux.as_ref().unwrap();
    let bytes = of_relocations(vmlinux, [(&own, local.relos.clone())]).unwrap();
    let few = Btf::parse(bytes).unwrap();
    few.validate().unwrap();
    assert!(few.as_bytes().len() < vmlinux.as_bytes().len());
    for gone in ["unrelated", "alias"] {
        assert!(few.types().all(|ty| ty.name() != Ok(gone)), "{gone}");
    }
    let members = |name| -> Vec<&str> {
        let ty = few.types().find(|ty| ty.name() == Ok(name)).unwrap();
        ty.members().map(|m| m.name().unwrap()).chain(ty.enumerators().map(|e| e.name().unwrap())).collect()
    };
    assert_eq!(members("a"), ["x", "", "in", "en", "p", "q"]);
    assert_eq!(members("wide"), ["LARGE"]);
    let small = Kernel { vmlinux: Some(few), modules: Vec::new() };
    assert_eq!(local.resolve(&small), local.resolve(&all));
    let values: Vec<_> = local.values(&small);
    assert!(values.contains(&Ok(Some(24 + 8))), "the second of `in`");
    assert_eq!(values.last(), Some(&Ok(Some(4))));
}

#[test]
fn a_relocation_keeps_no_more_than_it_needs() {
    let all = kernel(&everything());
    let mut local = Local::new();
    let i = ints(&mut local.types);
    let a = local.types.structure("a", 4, &[Field::at("x", i.int, 0)]);
    local.relo(RelocKind::FieldByteOffset, a, "0:0");
    let own = Btf::parse(local.types.build()).unwrap();
    let vmlinux = all.vmlinux.as_ref().unwrap();
    let few = Btf::parse(of_relocations(vmlinux, [(&own, local.relos.clone())]).unwrap()).unwrap();
    let names: Vec<_> = few.types().map(|ty| (ty.kind(), ty.name().unwrap().to_owned(), ty.vlen())).collect();
    let long = (Kind::Int, "long".to_owned(), 0);
    assert_eq!(names, [(Kind::Int, "int".to_owned(), 0), long, (Kind::Struct, "a".to_owned(), 1)]);
    // Of an object without relocations, there is nothing.
    let none = Btf::parse(of_relocations(vmlinux, [(&own, Vec::new())]).unwrap()).unwrap();
    assert_eq!(none.count(), 1);
}
