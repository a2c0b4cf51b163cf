//! Reading what [`encode`](super::encode) writes, in both byte orders, and refusing what is broken.

use super::encode::{Builder, Field, SIGNED};
use super::*;

fn sample(endian: Endian) -> (Vec<u8>, [BtfId; 6]) {
    let mut b = Builder::new(endian);
    let int = b.int("int", 4, SIGNED);
    let long = b.int("long", 8, SIGNED);
    let array = b.array(int, int, 3);
    let fields = [Field::at("a", int, 0), Field::bits("flag", int, 35, 3), Field::at("", array, 8)];
    let s = b.structure("sample", 24, &fields);
    let constant = b.refer(Kind::Const, "", s);
    let alias = b.typedef("sample_t", constant);
    (b.build(), [int, long, array, s, constant, alias])
}

#[test]
fn reads_types_of_either_byte_order() {
    for endian in [Endian::Little, Endian::Big] {
        let (data, [int, long, array, s, _, alias]) = sample(endian);
        let btf = Btf::parse(&data[..]).unwrap();
        assert_eq!((btf.endian(), btf.count(), btf.pointer_size()), (endian, 7, 8));
        btf.validate().unwrap();

        let ty = btf.type_by_id(s).unwrap();
        assert_eq!((ty.kind(), ty.name(), ty.size(), ty.vlen()), (Kind::Struct, Ok("sample"), Some(24), 3));
        let members: Vec<_> =
            ty.members().map(|m| (m.name().unwrap(), m.type_id, m.bit_offset, m.bitfield_size)).collect();
        assert_eq!(members, [("a", int, 0, 0), ("flag", int, 35, 3), ("", array, 64, 0)]);
        assert_eq!(ty.member(2).unwrap().bit_offset, 64);
        assert!(ty.member(3).is_none() && ty.member(u32::MAX).is_none());

        let encoding = btf.type_by_id(long).unwrap().int().unwrap();
        assert!(encoding.signed && !encoding.bool && encoding.bits == 64);
        assert_eq!(btf.type_by_id(array).unwrap().array(), Some(Array { element: int, index: int, len: 3 }));
        assert_eq!(btf.skip_mods_and_typedefs(alias).unwrap().id(), s);
        assert_eq!((btf.resolve_size(alias), btf.resolve_size(array)), (Ok(24), Ok(12)));
        assert_eq!(btf.find_by_name("sample_t", Kind::Typedef), Some(alias));
        assert_eq!(btf.find_by_name("sample_t", Kind::Struct), None);
        assert_eq!(btf.type_by_id(BtfId::VOID).unwrap().kind(), Kind::Void);
        assert_eq!(*btf.type_by_id(BtfId(7)).unwrap_err(), Error::BtfTypeId { type_id: BtfId(7), count: 7 });
    }
}

#[test]
fn reads_what_is_not_a_structure() {
    let mut b = Builder::new(Endian::Big);
    let small = b.enumeration("e", false, &[("A", -1), ("B", 2)]);
    let signed = b.enumeration("s", true, &[("C", -1)]);
    let wide = b.enumeration64("w", false, &[("D", 1 << 40 | 1)]);
    let proto = b.prototype(small, &[("x", wide), ("", BtfId::VOID)]);
    let function = b.function("f", proto, Linkage::Extern);
    let var = b.variable("v", small, Linkage::Static);
    let sec = b.datasec(".data", 8, &[(var, 4, 4)]);
    let tag = b.decl_tag("t", function, 1);
    let fwd = b.forward("u", true);
    let data = b.build();
    let btf = Btf::parse(&data[..]).unwrap();
    btf.validate().unwrap();
    let ty = |id| btf.type_by_id(id).unwrap();
    let values = |id| ty(id).enumerators().map(|e| (e.name().unwrap(), e.value, e.bits)).collect::<Vec<_>>();
    assert_eq!(values(small), [("A", 0xffff_ffff, u64::MAX), ("B", 2, 2)]);
    assert_eq!(values(signed), [("C", -1, u64::MAX)]);
    assert_eq!(values(wide), [("D", 1 << 40 | 1, 1 << 40 | 1)]);
    let params: Vec<_> = ty(proto).params().map(|p| (p.name().unwrap(), p.type_id)).collect();
    assert_eq!((ty(proto).type_id(), params), (Some(small), vec![("x", wide), ("", BtfId::VOID)]));
    assert_eq!(
        (ty(function).func_linkage(), ty(var).var_linkage()),
        (Some(Linkage::Extern), Some(Linkage::Static))
    );
    let vars: Vec<_> = ty(sec).section_vars().collect();
    assert_eq!(vars, [SectionVar { type_id: var, offset: 4, size: 4 }]);
    assert_eq!((ty(tag).component(), ty(fwd).kflag(), ty(fwd).size()), (Some(1), true, None));
    assert_eq!((ty(small).members().count(), ty(proto).enumerators().count()), (0, 0));
}

#[test]
fn module_types_continue_those_of_the_base() {
    let (data, [int, _, _, s, ..]) = sample(Endian::Little);
    let base = Arc::new(Btf::parse(data).unwrap());
    let mut b = Builder::split(&base);
    let pointer = b.ptr(s);
    let own = b.structure("own", 8, &[Field::at("p", pointer, 0)]);
    let data = b.build();
    let module = Btf::parse_split(&data[..], base.clone()).unwrap();
    module.validate().unwrap();
    assert_eq!((pointer, module.first_id(), module.count()), (BtfId(7), BtfId(7), 9));
    assert_eq!(module.type_by_id(own).unwrap().name(), Ok("own"));
    assert_eq!(module.type_by_id(int).unwrap().name(), Ok("int"));
    assert_eq!(module.find_by_name("sample", Kind::Struct), Some(s));
    assert_eq!(module.types().count(), 2);
    assert_eq!(*module.type_by_id(BtfId(9)).unwrap_err(), Error::BtfTypeId { type_id: BtfId(9), count: 9 });

    // No name of its own: no strings at all.
    let mut b = Builder::split(&base);
    b.ptr(s);
    Btf::parse_split(b.build(), base.clone()).unwrap().validate().unwrap();
    assert_eq!(*Btf::parse(b.build()).unwrap_err(), Error::BtfStrings);

    let (other, _) = sample(Endian::Big);
    assert_eq!(*Btf::parse_split(other, base).unwrap_err(), Error::BtfBase);
}

/// Puts `extra` bytes after the header's known 24, and says so in its length.
fn lengthen_header(data: &[u8], extra: &[u8]) -> Vec<u8> {
    let mut out = data[..24].to_vec();
    out[4] += extra.len() as u8;
    out.extend_from_slice(extra);
    out.extend_from_slice(&data[24..]);
    out
}

#[test]
fn longer_headers_are_accepted() {
    let (data, [.., s, _, _]) = sample(Endian::Little);
    for extra in [&[0; 4][..], &[0; 8], &[0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]] {
        let data = lengthen_header(&data, extra);
        let btf = Btf::parse(&data[..]).unwrap();
        assert_eq!(btf.type_by_id(s).unwrap().name(), Ok("sample"), "{extra:?}");
    }
}

#[test]
fn unknown_kinds_are_sized_by_the_layout() {
    let build = |with_layout: bool| {
        let mut b = Builder::new(Endian::Big);
        b.raw("new", encode::info(Kind::Unknown(21), 2, false), 0, &[7, 1, 2, 3, 4]);
        let after = b.int("after", 4, 0);
        if with_layout {
            (0..21).for_each(|_| b.layout(0, 0));
            b.layout(4, 8);
        }
        (b.build(), after)
    };
    let (data, after) = build(true);
    let btf = Btf::parse(&data[..]).unwrap();
    assert_eq!(btf.type_by_id(after).unwrap().name(), Ok("after"));
    let new = btf.type_by_id(BtfId(1)).unwrap();
    assert_eq!((new.kind(), new.size(), new.type_id()), (Kind::Unknown(21), None, None));
    assert_eq!(
        btf.resolve_size(BtfId(1)),
        Err(Box::new(Error::BtfSizeless { type_id: BtfId(1), kind: Kind::Unknown(21) }))
    );

    let unknown = Error::BtfKind { type_id: BtfId(1), kind: 21 };
    assert_eq!(*Btf::parse(build(false).0).unwrap_err(), unknown);
}

#[test]
fn counts_of_24_bits_are_read() {
    let mut b = Builder::new(Endian::Little);
    let values: Vec<_> = (0..70_000).map(|value| ("V", value)).collect();
    let e = b.enumeration("large", false, &values);
    let data = b.build();
    let btf = Btf::parse(&data[..]).unwrap();
    assert_eq!(btf.type_by_id(e).unwrap().enumerators().count(), 70_000);
}

#[test]
fn broken_files_are_refused() {
    let (good, _) = sample(Endian::Little);
    let broken = |at: usize, bytes: &[u8]| {
        let mut data = good.clone();
        data[at..at + bytes.len()].copy_from_slice(bytes);
        Btf::parse(data).unwrap_err()
    };
    assert_eq!(*broken(0, &[0, 0]), Error::BtfMagic { found: [0, 0] });
    assert_eq!(*broken(2, &[2]), Error::BtfVersion { found: 2 });
    assert_eq!(*broken(4, &[23]), Error::BtfHeader { section: ".BTF", len: 23 });
    assert_eq!(*broken(4, &[0, 0, 1]), Error::BtfHeader { section: ".BTF", len: 65536 });
    assert!(matches!(*broken(8, &[1]), Error::BtfSection { section: "types", offset: 1, .. }));
    // Sums that wrap around in 32 bits.
    assert!(matches!(*broken(8, &[0xfc, 0xff, 0xff, 0xff]), Error::BtfSection { section: "types", .. }));
    assert!(matches!(*broken(16, &[0xff; 8]), Error::BtfSection { section: "strings", .. }));
    // The string section cut by one byte ends in a letter; a member count larger than the section.
    assert_eq!(*broken(20, &[good[20] - 1]), Error::BtfStrings);
    assert_eq!(*broken(28, &[0xff, 0xff, 0xff, 4]), Error::BtfTypeTruncated { type_id: BtfId(1) });
    for len in 0..good.len() {
        assert!(Btf::parse(&good[..len]).is_err(), "{len}");
    }
    let not_utf8 = good.iter().position(|&b| b == b's').unwrap();
    let mut data = good.clone();
    data[not_utf8] = 0xff;
    let btf = Btf::parse(data).unwrap();
    assert!(btf.types().any(|ty| matches!(ty.name().map_err(|e| *e), Err(Error::BtfStringUtf8 { .. }))));
}

#[test]
fn loops_and_huge_sizes_end() {
    let mut b = Builder::new(Endian::Little);
    let me = b.next_id();
    b.typedef("loop", me);
    let ring = b.next_id();
    b.array(ring, me, 1);
    let byte = b.int("byte", 1, 0);
    let inner = b.array(byte, byte, 0x10000);
    let outer = b.array(inner, byte, 0x10000);
    let empty = b.array(outer, byte, 0);
    let far = b.ptr(BtfId(999));
    let data = b.build();
    let btf = Btf::parse(&data[..]).unwrap();
    assert_eq!(*btf.skip_mods_and_typedefs(me).unwrap_err(), Error::BtfTypeLoop { type_id: me });
    assert_eq!(btf.resolve_size(me), Err(Box::new(Error::BtfTypeLoop { type_id: me })));
    assert_eq!(btf.resolve_size(ring), Err(Box::new(Error::BtfTypeLoop { type_id: ring })));
    assert_eq!(btf.resolve_size(inner), Ok(0x10000));
    assert_eq!(btf.resolve_size(outer), Err(Box::new(Error::BtfSizeOverflow { type_id: outer })));
    assert_eq!(btf.resolve_size(empty), Ok(0));
    assert_eq!(btf.resolve_size(far), Ok(8));
    assert_eq!(btf.validate(), Err(Box::new(Error::BtfTypeId { type_id: BtfId(999), count: 8 })));
    assert_eq!(
        btf.resolve_size(BtfId::VOID),
        Err(Box::new(Error::BtfSizeless { type_id: BtfId::VOID, kind: Kind::Void }))
    );
}

#[test]
fn pointers_are_as_wide_as_long() {
    for (size, name, expected) in [(4, "long unsigned int", 4), (8, "long", 8), (4, "int", 8), (2, "long", 8)]
    {
        let mut b = Builder::new(Endian::Little);
        b.int(name, size, 0);
        let btf = Btf::parse(b.build()).unwrap();
        assert_eq!(btf.pointer_size(), expected, "{name} of {size}");
        assert_eq!(btf.with_pointer_size(8).pointer_size(), 8);
    }
}

#[test]
fn every_type_is_found_in_small_and_large_files() {
    for (count, index) in [(5_000, 5_001), (6_000, 751)] {
        let mut b = Builder::new(Endian::Little);
        let int = b.int("int", 4, 0);
        for size in 0..count {
            b.structure("s", size, &[]);
        }
        let btf = Btf::parse(b.build()).unwrap();
        assert_eq!(btf.index_size(), 4 * index);
        for size in 0..count {
            let ty = btf.type_by_id(BtfId(int.0 + 1 + size)).unwrap();
            assert_eq!((ty.id().0, ty.size()), (int.0 + 1 + size, Some(size)));
        }
        assert!(btf.type_by_id(BtfId(btf.count())).is_err());
    }
}
