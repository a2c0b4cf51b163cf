//! Relocations of whole types and of enumerators.

use super::*;

const EXISTS: RelocKind = RelocKind::TypeExists;
const MATCHES: RelocKind = RelocKind::TypeMatches;

/// Does the object's type exist in the kernel, and match the kernel's?
fn exists_and_matches(
    object: impl Fn(&mut Builder, &Ints) -> BtfId,
    target: impl Fn(&mut Builder, &Ints) -> BtfId,
) -> (bool, bool) {
    let mut local = Local::new();
    let own = ints(&mut local.types);
    let root = object(&mut local.types, &own);
    local.relo(EXISTS, root, "0");
    local.relo(MATCHES, root, "0");
    let mut types = Builder::new(Endian::Little);
    let own = ints(&mut types);
    target(&mut types, &own);
    let values: Vec<_> =
        local.values(&kernel(&types)).into_iter().map(|value| value.unwrap().unwrap()).collect();
    (values[0] == 1, values[1] == 1)
}

#[test]
fn a_type_exists_if_one_of_its_name_and_kind_does() {
    let empty = |kind| move |b: &mut Builder, _: &Ints| b.composite(kind, "s", 0, &[]);
    let alias = |b: &mut Builder, i: &Ints| b.typedef("s", i.int);
    assert_eq!(exists_and_matches(empty(Kind::Struct), empty(Kind::Struct)), (true, true));
    assert_eq!(exists_and_matches(empty(Kind::Struct), empty(Kind::Union)), (false, false));
    assert_eq!(exists_and_matches(alias, empty(Kind::Struct)), (false, false));
    let pointer = |b: &mut Builder, i: &Ints| {
        let pointer = b.ptr(i.int);
        b.typedef("s", pointer)
    };
    assert_eq!(exists_and_matches(alias, pointer), (false, false));
    let constant = |b: &mut Builder, i: &Ints| {
        let constant = b.refer(Kind::Const, "", i.int);
        b.typedef("s", constant)
    };
    assert_eq!(exists_and_matches(alias, constant), (true, true));
}

#[test]
fn existence_ignores_sizes_and_signs_and_matching_does_not() {
    let alias = |of: fn(&Ints) -> BtfId| move |b: &mut Builder, i: &Ints| b.typedef("t", of(i));
    assert_eq!(exists_and_matches(alias(|i| i.int), alias(|i| i.int)), (true, true));
    // Names of integers count, too.
    assert_eq!(exists_and_matches(alias(|i| i.int), alias(|i| i.uint)), (true, false));
    assert_eq!(exists_and_matches(alias(|i| i.int), alias(|i| i.long)), (true, false));
    let array = |len| {
        move |b: &mut Builder, i: &Ints| {
            let array = b.array(i.int, i.int, len);
            b.typedef("t", array)
        }
    };
    assert_eq!(exists_and_matches(array(2), array(2)), (true, true));
    assert_eq!(exists_and_matches(array(2), array(3)), (true, false));
}

#[test]
fn prototypes_have_as_many_parameters_of_the_same_types() {
    let prototype = |count: usize, pointer: bool| {
        move |b: &mut Builder, i: &Ints| {
            let param = if pointer { b.ptr(i.int) } else { i.int };
            let params = vec![("x", param); count];
            let proto = b.prototype(i.int, &params);
            let function = b.ptr(proto);
            b.typedef("fn_t", function)
        }
    };
    assert_eq!(exists_and_matches(prototype(2, false), prototype(2, false)), (true, true));
    assert_eq!(exists_and_matches(prototype(2, false), prototype(1, false)), (false, false));
    assert_eq!(exists_and_matches(prototype(1, true), prototype(1, false)), (false, false));
}

#[test]
fn matching_structures_have_all_members_and_may_have_more() {
    let structure = |names: &'static [&'static str]| {
        move |b: &mut Builder, i: &Ints| {
            let fields: Vec<_> =
                names.iter().zip(0..).map(|(name, at)| Field::at(name, i.int, at * 4)).collect();
            b.structure("s", 16, &fields)
        }
    };
    assert_eq!(exists_and_matches(structure(&["a", "b"]), structure(&["c", "b", "a"])), (true, true));
    assert_eq!(exists_and_matches(structure(&["a", "b"]), structure(&["a", "c", "d"])), (true, false));
    assert_eq!(exists_and_matches(structure(&["a", "b"]), structure(&["a"])), (true, false));
}

#[test]
fn structures_behind_pointers_match_by_name_and_kind() {
    let points_to = |what: &'static str| {
        move |b: &mut Builder, i: &Ints| {
            let inner = match what {
                "struct" => b.structure("inner", 4, &[Field::at("a", i.int, 0)]),
                "other members" => b.structure("inner", 8, &[Field::at("b", i.long, 0)]),
                "union" => b.composite(Kind::Union, "inner", 4, &[]),
                "struct forward" => b.forward("inner", false),
                "union forward" => b.forward("inner", true),
                "other name" => b.structure("other", 4, &[Field::at("a", i.int, 0)]),
                other => unreachable!("{other}"),
            };
            let pointer = b.ptr(inner);
            b.structure("s", 8, &[Field::at("p", pointer, 0)])
        }
    };
    for (object, target, matches) in [
        ("struct", "other members", true),
        ("struct", "union", false),
        ("struct", "struct forward", true),
        ("struct", "union forward", false),
        ("struct forward", "struct", true),
        ("union forward", "struct", false),
        ("union forward", "union", true),
        ("struct forward", "struct forward", true),
        ("struct forward", "union forward", false),
        ("struct", "other name", false),
    ] {
        let found = exists_and_matches(points_to(object), points_to(target));
        assert_eq!(found, (true, matches), "{object} as {target}");
    }
}

#[test]
fn matching_enumerations_have_all_names_whatever_their_values() {
    let enumeration = |values: &'static [(&'static str, i32)]| {
        move |b: &mut Builder, _: &Ints| b.enumeration("e", false, values)
    };
    assert_eq!(
        exists_and_matches(enumeration(&[("A", 1)]), enumeration(&[("B", 1), ("A___old", 2)])),
        (true, true)
    );
    assert_eq!(
        exists_and_matches(enumeration(&[("A", 1)]), enumeration(&[("B", 1), ("C", 2)])),
        (true, false)
    );
    let wide = |b: &mut Builder, _: &Ints| b.enumeration64("e", false, &[("A", 1)]);
    // Sizes differ.
    assert_eq!(exists_and_matches(enumeration(&[("A", 1)]), wide), (true, false));
}

#[test]
fn types_nested_without_end_are_an_error() {
    let mut local = Local::new();
    let next = local.types.next_id();
    let pointer = local.types.ptr(BtfId(next.0 + 1));
    let alias = local.types.typedef("t", pointer);
    local.relo(EXISTS, alias, "0");
    local.relo(MATCHES, alias, "0");
    let values = local.values(&kernel(&local.types));
    assert!(values.iter().all(|value| matches!(value, Err(Error::CoreDepth { .. }))), "{values:?}");
}

#[test]
fn ids_and_sizes_of_types() {
    let mut local = Local::new();
    let own = ints(&mut local.types);
    let s = local.types.structure("s", 4, &[Field::at("a", own.int, 0)]);
    let gone = local.types.structure("gone", 4, &[]);
    let kinds = [RelocKind::TypeIdLocal, RelocKind::TypeIdTarget, RelocKind::TypeSize, EXISTS];
    for id in [s, gone] {
        kinds.iter().for_each(|&kind| local.relo(kind, id, "0"));
    }
    let mut types = Builder::new(Endian::Little);
    let other = types.structure("s", 96, &[]);
    let resolutions: Vec<_> = local.resolve(&kernel(&types)).into_iter().map(Result::unwrap).collect();
    let values: Vec<_> = resolutions.iter().map(|r| r.value.unwrap()).collect();
    let [s, gone, other] = [s, gone, other].map(|id| u64::from(id.0));
    assert_eq!(values, [s, other, 96, 1, gone, 0, 0, 0]);
    // Linkers renumber types without touching instructions.
    let expected: Vec<_> = resolutions.iter().take(4).map(|r| r.expected).collect();
    assert_eq!(expected, [None, None, Some(4), Some(1)]);

    local.relos.clear();
    local.relo(EXISTS, BtfId(s as u32), "0:0");
    assert!(matches!(local.values(&kernel(&types))[..], [Err(Error::CoreAccess { .. })]));
}

#[test]
fn enumerators_are_found_by_name_in_either_width() {
    let mut local = Local::new();
    let e = local.types.enumeration("e", false, &[("A", 1), ("B", -2), ("GONE", 3)]);
    for index in ["0:0", "0", "1", "2", "3"] {
        local.relo(RelocKind::EnumvalValue, e, index);
    }
    local.relo(RelocKind::EnumvalExists, e, "1");
    local.relo(RelocKind::EnumvalExists, e, "2");
    let mut types = Builder::new(Endian::Little);
    types.enumeration64("e", false, &[("B___x", 1 << 40), ("A", 7)]);
    let values = local.values(&kernel(&types));
    assert!(matches!(values[0], Err(Error::CoreAccess { .. })));
    assert_eq!(values[1..4], [Ok(Some(7)), Ok(Some(1 << 40)), Ok(None)]);
    assert!(matches!(values[4], Err(Error::CoreAccess { .. })));
    assert_eq!(values[5..], [Ok(Some(1)), Ok(Some(0))]);
    // As clang fills the instruction in.
    assert_eq!(local.resolve(&kernel(&types))[2].as_ref().unwrap().expected, Some(-2i64 as u64));

    let mut types = Builder::new(Endian::Little);
    types.structure("e", 4, &[]);
    assert_eq!(local.values(&kernel(&types))[1], Ok(None));
}
