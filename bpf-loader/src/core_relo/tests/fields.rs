//! Relocations of fields.

use super::*;

const OFFSET: RelocKind = RelocKind::FieldByteOffset;
const EXISTS: RelocKind = RelocKind::FieldExists;

/// Offsets that accesses to `struct s` come to, if these are its fields in the object and in the kernel.
fn offsets(
    accesses: &[&str],
    object: impl Fn(&mut Builder, &Ints) -> BtfId,
    target: impl Fn(&mut Builder, &Ints) -> BtfId,
) -> Vec<Result<Option<u64>, Error>> {
    let mut local = Local::new();
    let own = ints(&mut local.types);
    let root = object(&mut local.types, &own);
    accesses.iter().for_each(|access| local.relo(OFFSET, root, access));
    let mut types = Builder::new(Endian::Little);
    let own = ints(&mut types);
    target(&mut types, &own);
    local.values(&kernel(&types))
}

#[test]
fn a_field_is_found_by_its_name() {
    let values = offsets(
        &["0:0", "0:1", "0:2", "1:0", "0"],
        |b, i| {
            b.structure(
                "s",
                12,
                &[Field::at("a", i.int, 0), Field::at("b", i.int, 4), Field::at("c", i.int, 8)],
            )
        },
        |b, i| b.structure("s", 24, &[Field::at("b", i.int, 16), Field::at("a", i.uint, 20)]),
    );
    assert_eq!(values, [Ok(Some(20)), Ok(Some(16)), Ok(None), Ok(Some(44)), Ok(Some(0))]);
}

#[test]
fn anonymous_structures_and_typedefs_are_looked_through() {
    let values = offsets(
        &["0:0:0", "0:1:0"],
        |b, i| {
            let inner = b.structure("", 4, &[Field::at("deep", i.int, 0)]);
            let named = b.structure("inner", 4, &[Field::at("x", i.int, 0)]);
            b.structure("s", 8, &[Field::at("", inner, 0), Field::at("named", named, 4)])
        },
        |b, i| {
            // The anonymous structure is a member of an anonymous union here; the named one a union behind a typedef.
            let inner = b.structure("", 12, &[Field::at("deep", i.int, 8)]);
            let outer = b.composite(Kind::Union, "", 12, &[Field::at("", inner, 0)]);
            let named = b.composite(Kind::Union, "other", 4, &[Field::at("x", i.int, 0)]);
            let alias = b.typedef("alias", named);
            let constant = b.refer(Kind::Const, "", alias);
            b.structure("s", 40, &[Field::at("named", constant, 32), Field::at("", outer, 16)])
        },
    );
    assert_eq!(values, [Ok(Some(24)), Ok(Some(32))]);
}

#[test]
fn array_elements_have_the_size_that_they_have_in_the_kernel() {
    let values = offsets(
        &["0:0:2", "0:0:3", "0:0:4"],
        |b, i| {
            let array = b.array(i.int, i.int, 5);
            b.structure("s", 20, &[Field::at("a", array, 0)])
        },
        |b, i| {
            let array = b.array(i.long, i.int, 4);
            b.structure("s", 48, &[Field::at("a", array, 8)])
        },
    );
    // The kernel's array is shorter by one.
    assert_eq!(values, [Ok(Some(24)), Ok(Some(32)), Ok(None)]);
}

#[test]
fn a_flexible_array_at_the_end_has_no_length() {
    let flexible = |last: bool| {
        move |b: &mut Builder, i: &Ints| {
            let array = b.array(i.int, i.int, 0);
            let fields = [Field::at("n", i.int, 0), Field::at("a", array, 4), Field::at("z", i.int, 4)];
            b.structure("s", 8, if last { &fields[..2] } else { &fields })
        }
    };
    assert_eq!(offsets(&["0:1:9"], flexible(true), flexible(true)), [Ok(Some(40))]);
    assert_eq!(offsets(&["0:1:9"], flexible(true), flexible(false)), [Ok(None)]);
    assert!(matches!(
        offsets(&["0:1:9"], flexible(false), flexible(true))[..],
        [Err(Error::CoreAccess { .. })]
    ));
}

#[test]
fn broken_accesses_are_refused() {
    let structure = |b: &mut Builder, i: &Ints| {
        let array = b.array(i.int, i.int, 2);
        b.structure("s", 16, &[Field::at("a", i.int, 0), Field::at("b", array, 4)])
    };
    let long = ["0"; 65].join(":");
    let broken =
        ["", ":0", "0:", "0::1", "-1", "0:-1", "+0", " 0", "0x0", "0:2", "0:1:2", "0:0:0", "2147483648"];
    for access in broken {
        let values = offsets(&[access], structure, structure);
        assert!(matches!(values[..], [Err(Error::CoreAccess { .. })]), "{access}: {values:?}");
    }
    assert!(matches!(
        offsets(&[&long], structure, structure)[..],
        [Err(Error::CoreDepth { .. } | Error::CoreAccess { .. })]
    ));
    let endless = "0".repeat(10_000);
    let values = offsets(&[&endless], structure, structure);
    assert!(matches!(&values[..], [Err(Error::CoreAccess { access, .. })] if access.len() < 300));
    let values = offsets(&["2147483647"], structure, structure);
    assert!(matches!(values[..], [Err(Error::BtfSizeOverflow { .. })]), "{values:?}");
}

#[test]
fn types_of_fields_must_be_compatible() {
    /// A field of one of many types.
    fn of(which: &'static str) -> impl Fn(&mut Builder, &Ints) -> BtfId {
        move |b, i| {
            let inner = |b: &mut Builder, kind| b.composite(kind, "other", 4, &[]);
            let ty = match which {
                "int" => i.int,
                "char" => i.char,
                "ptr" => b.ptr(i.int),
                "ptr to char" => b.ptr(i.char),
                "struct" => inner(b, Kind::Struct),
                "union" => inner(b, Kind::Union),
                "float" => b.float("float", 4),
                "double" => b.float("double", 8),
                "enum e" => b.enumeration("e", false, &[("A", 1)]),
                "enum e flavoured" => b.enumeration("e___new", false, &[("A", 1)]),
                "enum64 e" => b.enumeration64("e", false, &[("A", 1)]),
                "enum f" => b.enumeration("f", false, &[("A", 1)]),
                "enum" => b.enumeration("", false, &[("A", 1)]),
                "int[2]" => b.array(i.int, i.int, 2),
                "ptr[2]" => {
                    let ptr = b.ptr(i.int);
                    b.array(ptr, i.int, 2)
                }
                "int[2][2]" => {
                    let inner = b.array(i.int, i.int, 2);
                    b.array(inner, i.int, 2)
                }
                "old bit-field" => {
                    let info = crate::btf::encode::info(Kind::Int, 0, false);
                    b.raw("bits", info, 4, &[1 << 24 | 3 << 16 | 5])
                }
                other => unreachable!("{other}"),
            };
            b.structure("s", 16, &[Field::at("a", ty, 0)])
        }
    }
    for (object, target, compatible) in [
        ("int", "char", true),
        ("int", "ptr", false),
        ("int", "enum e", false),
        ("int", "old bit-field", false),
        ("ptr", "ptr to char", true),
        ("struct", "union", true),
        ("struct", "ptr", false),
        ("float", "double", true),
        ("enum e", "enum e flavoured", true),
        ("enum e", "enum64 e", true),
        ("enum e", "enum f", false),
        ("enum e", "enum", true),
        ("int[2]", "int[2]", true),
        ("int[2]", "ptr[2]", false),
        ("int[2][2]", "int[2][2]", true),
        ("int[2]", "int[2][2]", false),
    ] {
        let expected = if compatible { Some(0) } else { None };
        assert_eq!(offsets(&["0:0"], of(object), of(target)), [Ok(expected)], "{object} as {target}");
    }
}

#[test]
fn flavours_are_ignored_in_names_of_types() {
    let mut local = Local::new();
    let int = local.types.int("int", 4, SIGNED);
    for name in ["s___mine", "s", "s___a___b"] {
        let id = local.types.structure(name, 4, &[Field::at("a", int, 0)]);
        local.relo(OFFSET, id, "0:0");
    }
    let mut types = Builder::new(Endian::Little);
    let int = types.int("int", 4, SIGNED);
    types.structure("s___2", 8, &[Field::at("a", int, 4)]);
    types.structure("s___a", 16, &[Field::at("a", int, 8)]);
    types.structure("s___a___c", 16, &[Field::at("a", int, 12)]);
    let values = local.values(&kernel(&types));
    assert!(matches!(values[0], Err(Error::CoreAmbiguous { what: "bit offset", .. })), "{values:?}");
    assert_eq!(values[2], Ok(Some(12)));
}

#[test]
fn candidates_must_agree_and_misfits_are_ruled_out_for_good() {
    let mut local = Local::new();
    let int = local.types.int("int", 4, SIGNED);
    let s = local.types.structure("s", 8, &[Field::at("a", int, 0), Field::at("only", int, 4)]);
    let t = local.types.structure("s___t", 4, &[Field::at("a", int, 0)]);
    local.relo(OFFSET, s, "0:1");
    local.relo(OFFSET, s, "0:0");
    local.relo(OFFSET, t, "0:0");
    local.relo(EXISTS, t, "0:0");
    let mut types = Builder::new(Endian::Little);
    let int = types.int("int", 4, SIGNED);
    types.structure("s", 8, &[Field::at("a", int, 4)]);
    let second = types.structure("s", 24, &[Field::at("a", int, 16), Field::at("only", int, 20)]);
    let values = local.values(&kernel(&types));
    // `only` rules the first candidate out, for `struct s` but not for its flavour.
    assert_eq!(values[..2], [Ok(Some(20)), Ok(Some(16))]);
    let ambiguous =
        |what| Error::CoreAmbiguous { what, first: Some(32), candidate: second, second: Some(128) };
    assert_eq!(values[2..], [Err(ambiguous("bit offset")), Err(ambiguous("bit offset"))]);
}

#[test]
fn candidates_are_of_the_same_kind() {
    let mut local = Local::new();
    let int = local.types.int("int", 4, SIGNED);
    let s = local.types.structure("bpf_sk_lookup", 4, &[Field::at("a", int, 0)]);
    local.relo(OFFSET, s, "0:0");
    let mut types = Builder::new(Endian::Little);
    let int = types.int("int", 4, SIGNED);
    let proto = types.prototype(int, &[]);
    types.function("bpf_sk_lookup", proto, Linkage::Static);
    types.composite(Kind::Union, "bpf_sk_lookup", 4, &[Field::at("a", int, 0)]);
    types.structure("bpf_sk_lookup", 8, &[Field::at("a", int, 4)]);
    assert_eq!(local.values(&kernel(&types)), [Ok(Some(4))]);
}

/// All that can be asked about a field, in the order of the kinds.
const ABOUT_FIELDS: [RelocKind; 6] = [
    RelocKind::FieldByteOffset,
    RelocKind::FieldByteSize,
    RelocKind::FieldExists,
    RelocKind::FieldSigned,
    RelocKind::FieldLshift,
    RelocKind::FieldRshift,
];

fn about(endian: Endian, field: impl Fn(&mut Builder, &Ints) -> Field<'static>) -> Vec<Resolution> {
    let mut local = Local::new();
    let own = ints(&mut local.types);
    let s = local.types.structure("s", 64, &[Field::at("f", own.int, 0)]);
    ABOUT_FIELDS.iter().for_each(|&kind| local.relo(kind, s, "0:0"));
    let mut types = Builder::new(endian);
    let own = ints(&mut types);
    let field = field(&mut types, &own);
    types.structure("s", 64, &[field]);
    local.resolve(&kernel(&types)).into_iter().map(Result::unwrap).collect()
}

fn values(resolutions: &[Resolution]) -> Vec<u64> {
    resolutions.iter().map(|resolution| resolution.value.unwrap()).collect()
}

#[test]
fn plain_fields_answer_all_questions() {
    let plain = about(Endian::Little, |_, i| Field::at("f", i.long, 24));
    assert_eq!(values(&plain), [24, 8, 1, 1, 0, 0]);
    let expected: Vec<_> = plain.iter().map(|resolution| resolution.expected.unwrap()).collect();
    assert_eq!(expected, [0, 4, 1, 1, 32, 32]);
    assert_eq!(values(&about(Endian::Big, |_, i| Field::at("f", i.char, 5))), [5, 1, 1, 1, 56, 56]);
    assert_eq!(values(&about(Endian::Little, |_, i| Field::at("f", i.uint, 5)))[3], 0);
}

#[test]
fn bit_fields_are_read_by_the_smallest_load_that_covers_them() {
    // Bits 35 to 37: in the second 32-bit word.
    let le = about(Endian::Little, |_, i| Field::bits("f", i.uint, 35, 3));
    assert_eq!(values(&le), [4, 4, 1, 0, 64 - 6, 61]);
    // Of a big-endian machine, the first bit is the uppermost.
    let be = about(Endian::Big, |_, i| Field::bits("f", i.uint, 35, 3));
    assert_eq!(values(&be), [4, 4, 1, 0, 32 + 3, 61]);
    // Across two words: 8 bytes from 0.
    let wide = about(Endian::Little, |_, i| Field::bits("f", i.int, 30, 4));
    assert_eq!(values(&wide), [0, 8, 1, 1, 64 - 34, 60]);
    assert_eq!(wide[0].width, Width::Unsafe { local: 4, target: 0 });
}

#[test]
fn enumerations_are_signed_by_their_flag() {
    let mut local = Local::new();
    for (name, signed) in [("s", true), ("u", false)] {
        let e = local.types.enumeration("", signed, &[("A", 1)]);
        let s = local.types.structure(name, 4, &[Field::at("e", e, 0)]);
        local.relo(RelocKind::FieldSigned, s, "0:0");
    }
    assert_eq!(local.values(&kernel(&local.types)), [Ok(Some(1)), Ok(Some(0))]);
}

#[test]
fn a_compiler_s_guess_about_bit_fields_is_not_held_against_it() {
    let mut local = Local::new();
    let own = ints(&mut local.types);
    let s = local.types.structure("s", 8, &[Field::bits("f", own.uint, 3, 5)]);
    ABOUT_FIELDS.iter().for_each(|&kind| local.relo(kind, s, "0:0"));
    let resolutions = local.resolve(&kernel(&local.types));
    let expected: Vec<_> = resolutions.iter().map(|r| r.as_ref().unwrap().expected).collect();
    assert_eq!(expected, [None, None, Some(1), Some(0), None, Some(59)]);
}

#[test]
fn bit_fields_that_no_load_covers_are_errors() {
    let refused = |field: Field<'static>, size| {
        let mut local = Local::new();
        let own = ints(&mut local.types);
        let s = local.types.structure("s", 64, &[Field::at("f", own.int, 0)]);
        local.relo(OFFSET, s, "0:0");
        let mut types = Builder::new(Endian::Little);
        let ty = types.int("odd", size, 0);
        types.structure("s", 64, &[Field { type_id: ty, ..field }]);
        matches!(local.values(&kernel(&types))[..], [Err(Error::CoreUnsupported { .. })])
    };
    let field = |at, bits| Field::bits("f", BtfId::VOID, at, bits);
    assert!(refused(field(60, 8), 8), "across two 64-bit words");
    assert!(refused(field(0, 8), 0), "of a type of no size");
    assert!(refused(field(0, 8), 3), "of a type of three bytes");
    assert!(!refused(field(56, 8), 8));
}

#[test]
fn widths_of_loads_follow_the_elements() {
    let width = |own: &dyn Fn(&mut Builder, &Ints) -> BtfId,
                 other: &dyn Fn(&mut Builder, &Ints) -> BtfId,
                 pointers| {
        let mut local = Local::new();
        let i = ints(&mut local.types);
        let ty = own(&mut local.types, &i);
        let s = local.types.structure("s", 64, &[Field::at("f", ty, 0)]);
        local.relo(OFFSET, s, "0:0");
        let mut types = Builder::new(Endian::Little);
        let i = ints(&mut types);
        let ty = other(&mut types, &i);
        types.structure("s", 64, &[Field::at("f", ty, 0)]);
        let mut target = kernel(&types);
        target.vmlinux = target.vmlinux.map(|btf| btf.with_pointer_size(pointers));
        local.resolve(&target)[0].as_ref().unwrap().width
    };
    let int = |_: &mut Builder, i: &Ints| i.int;
    let long = |_: &mut Builder, i: &Ints| i.long;
    let uint = |_: &mut Builder, i: &Ints| i.uint;
    let ushort = |b: &mut Builder, _: &Ints| b.int("unsigned short", 2, 0);
    let pointer = |b: &mut Builder, i: &Ints| b.ptr(i.int);
    let array = |b: &mut Builder, i: &Ints| b.array(i.int, i.int, 3);
    let longer = |b: &mut Builder, i: &Ints| b.array(i.int, i.int, 9);
    let wider = |b: &mut Builder, i: &Ints| b.array(i.long, i.int, 3);
    let flat = |b: &mut Builder, i: &Ints| {
        let inner = b.array(i.int, i.int, 3);
        b.array(inner, i.int, 3)
    };
    assert_eq!(width(&int, &int, 8), Width::Same);
    assert_eq!(width(&int, &uint, 8), Width::Same);
    assert_eq!(width(&uint, &ushort, 8), Width::Change { local: 4, target: 2 });
    assert_eq!(width(&int, &long, 8), Width::Unsafe { local: 4, target: 8 });
    assert_eq!(width(&pointer, &pointer, 4), Width::Change { local: 8, target: 4 });
    // Arrays of different lengths have elements of the same size.
    assert_eq!(width(&array, &longer, 8), Width::Same);
    assert_eq!(width(&flat, &flat, 8), Width::Same);
    assert_eq!(width(&array, &wider, 8), Width::Unsafe { local: 4, target: 8 });
}

#[test]
fn missing_fields_are_poison_but_for_their_existence() {
    let mut local = Local::new();
    let own = ints(&mut local.types);
    let s = local.types.structure("s", 4, &[Field::at("gone", own.int, 0)]);
    let nowhere = local.types.structure("nowhere", 4, &[Field::at("f", own.int, 0)]);
    for id in [s, nowhere] {
        ABOUT_FIELDS.iter().for_each(|&kind| local.relo(kind, id, "0:0"));
    }
    let mut types = Builder::new(Endian::Little);
    let own = ints(&mut types);
    types.structure("s", 4, &[Field::at("f", own.int, 0)]);
    let poison: Vec<_> = local.values(&kernel(&types)).into_iter().map(Result::unwrap).collect();
    assert_eq!(poison, [[None, None, Some(0), None, None, None]; 2].concat());
}

#[test]
fn array_elements_answer_offset_size_and_existence_only() {
    let mut local = Local::new();
    let own = ints(&mut local.types);
    let array = local.types.array(own.int, own.int, 4);
    let s = local.types.structure("s", 16, &[Field::at("a", array, 0)]);
    ABOUT_FIELDS.iter().for_each(|&kind| local.relo(kind, s, "0:0:2"));
    let answers = local.values(&kernel(&local.types));
    assert_eq!(answers[..3], [Ok(Some(8)), Ok(Some(4)), Ok(Some(1))]);
    assert!(
        answers[3..].iter().all(|answer| matches!(answer, Err(Error::CoreUnsupported { .. }))),
        "{answers:?}"
    );
}
