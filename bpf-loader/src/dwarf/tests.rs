//! Debug information made by hand: a table of abbreviations for all tests, and units of entries that use them.

use super::*;
use crate::btf::{Btf, Kind};
use crate::bytes::Endian;

/// Tag, whether there are children, and attributes with forms. All numbers are below 128.
type Abbreviation = (u8, bool, &'static [(u8, u8)]);

/// Numbered from 1.
const ABBREVIATIONS: &[Abbreviation] = &[
    (0x11, true, &[(0x13, 0x0b)]),
    (0x24, false, &[(0x03, 0x08), (0x3e, 0x0b), (0x0b, 0x0b)]),
    (0x13, true, &[(0x03, 0x08), (0x0b, 0x0b)]),
    (0x0d, false, &[(0x03, 0x08), (0x49, 0x13), (0x38, 0x0b)]),
    (0x0f, false, &[(0x49, 0x13)]),
    (0x16, false, &[(0x03, 0x08), (0x49, 0x13)]),
    (0x13, false, &[(0x03, 0x08), (0x3c, 0x19)]),
    (0x0f, false, &[(0x49, 0x10)]),
    (0x0d, false, &[(0x03, 0x08), (0x49, 0x13), (0x0b, 0x0b), (0x0d, 0x0b), (0x0c, 0x0b), (0x38, 0x0b)]),
    (0x26, false, &[(0x49, 0x13)]),
    (0x04, true, &[(0x03, 0x08), (0x0b, 0x0b)]),
    (0x28, false, &[(0x03, 0x08), (0x1c, 0x0d)]),
    (0x11, true, &[(0x76, 0x08)]),
    (0x01, true, &[(0x49, 0x13)]),
    (0x21, false, &[(0x2f, 0x0b)]),
    (0x11, true, &[(0x03, 0x08), (0x13, 0x0b)]),
    (0x24, false, &[(0x03, 0x25), (0x3e, 0x0b), (0x0b, 0x0b)]),
    (0x21, false, &[(0x2f, 0x07)]),
    (0x0d, false, &[(0x03, 0x08), (0x49, 0x13), (0x38, 0x18)]),
    (0x13, true, &[(0x03, 0x08), (0x0b, 0x0f)]),
    (0x0d, false, &[(0x03, 0x08), (0x49, 0x13), (0x38, 0x0f)]),
    (0x0d, false, &[(0x03, 0x08), (0x49, 0x13), (0x0d, 0x0b), (0x6b, 0x0f)]),
    (0x28, false, &[(0x03, 0x08), (0x1c, 0x0a)]),
    (0x34, false, &[(0x3f, 0x19); 200]),
];

const UNIT: u8 = 1;
const BASE: u8 = 2;
const STRUCT: u8 = 3;
const MEMBER: u8 = 4;
const POINTER: u8 = 5;
const TYPEDEF: u8 = 6;
const DECLARATION: u8 = 7;
const POINTER_ANYWHERE: u8 = 8;
const BITS: u8 = 9;
const CONST: u8 = 10;
const ENUM: u8 = 11;
const ENUMERATOR: u8 = 12;
const SPLIT_UNIT: u8 = 13;
const ARRAY: u8 = 14;
const DIMENSION: u8 = 15;
const NAMED_UNIT: u8 = 16;
const NUMBERED_NAME: u8 = 17;
const WIDE_DIMENSION: u8 = 18;
const COMPUTED_MEMBER: u8 = 19;
const LARGE_STRUCT: u8 = 20;
const FAR_MEMBER: u8 = 21;
const FAR_BITS: u8 = 22;
const BLOCK_ENUMERATOR: u8 = 23;
const VARIABLE_OF_NO_BYTES: u8 = 24;
const END: &[u8] = &[0];

/// C99.
const C: u8 = 0x0c;
const SIGNED: u8 = 5;

struct Info {
    endian: Endian,
    bytes: Vec<u8>,
    /// Start of the last unit.
    start: usize,
}

impl Info {
    fn new(endian: Endian) -> Self {
        Self { endian, bytes: Vec::new(), start: 0 }
    }

    /// Begins a unit, DWARF 4 of 32 bits.
    fn unit(&mut self, entry: &[u8]) {
        self.start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(self.endian.put_u16(4));
        self.bytes.extend([0, 0, 0, 0, 8]);
        self.entry(entry);
    }

    /// Adds an entry; where it is in its unit.
    fn entry(&mut self, bytes: &[u8]) -> u32 {
        let at = self.bytes.len() - self.start;
        self.bytes.extend(bytes);
        at as u32
    }

    /// Adds an entry whose second attribute, or only one, refers to a place.
    fn referring(&mut self, abbreviation: u8, name: &str, to: u32, rest: &[u8]) -> u32 {
        let name = if name.is_empty() { Vec::new() } else { text(name) };
        self.entry(&[&[abbreviation], &name[..], &self.endian.put_u32(to), rest].concat())
    }

    fn int(&mut self) -> u32 {
        self.entry(&[&[BASE], &text("int")[..], &[SIGNED, 4]].concat())
    }

    fn structure(&mut self, name: &str, size: u8) -> u32 {
        self.entry(&[&[STRUCT], &text(name)[..], &[size]].concat())
    }

    fn end(&mut self) {
        self.entry(END);
        let len = (self.bytes.len() - self.start - 4) as u32;
        self.bytes[self.start..self.start + 4].copy_from_slice(&self.endian.put_u32(len));
    }

    fn convert(&self) -> Result<Converted> {
        let mut abbrev = Vec::new();
        for (number, (tag, children, attributes)) in (1..).zip(ABBREVIATIONS) {
            abbrev.extend([number, *tag, u8::from(*children)]);
            abbrev.extend(attributes.iter().flat_map(|(name, form)| [*name, *form]));
            abbrev.extend([0, 0]);
        }
        abbrev.push(0);
        // Behind a header, the place of `named` in the strings.
        let offsets = [&[0; 8], &self.endian.put_u32(1)[..]].concat();
        convert_sections(&Sections::made(self.endian, [&self.bytes, &abbrev, b"\0named\0", &offsets]))
    }

    fn btf(&self) -> Btf<'static> {
        let btf = Btf::parse(self.convert().unwrap().btf).unwrap();
        btf.validate().unwrap();
        btf
    }
}

fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

fn kinds(btf: &Btf<'_>, kind: Kind) -> usize {
    btf.types_of(kind).count()
}

#[test]
fn what_is_declared_here_and_defined_there_is_one_type() {
    let mut info = Info::new(Endian::HOST);
    info.unit(&[UNIT, C]);
    let declared = info.entry(&[&[DECLARATION], &text("s")[..]].concat());
    let constant = info.referring(CONST, "", declared, &[]);
    info.referring(POINTER, "", constant, &[]);
    info.end();
    info.unit(&[UNIT, C]);
    let int = info.int();
    let defined = info.structure("s", 16);
    info.referring(MEMBER, "i", int, &[0]);
    // The pointer behind this entry, which is a byte, and the end of the structure.
    let pointer = info.bytes.len() - info.start + 1 + 2 + 4 + 1 + 1;
    info.referring(MEMBER, "p", pointer as u32, &[8]);
    info.entry(END);
    let constant = pointer as u32 + 5;
    assert_eq!(info.referring(POINTER, "", constant, &[]), pointer as u32);
    info.referring(CONST, "", defined, &[]);
    info.end();
    // In another language, nothing is read.
    info.unit(&[UNIT, 0x1c]);
    info.structure("rust", 1);
    info.entry(END);
    info.end();

    let btf = info.btf();
    let (s, int) =
        (btf.find_by_name("s", Kind::Struct).unwrap(), btf.find_by_name("int", Kind::Int).unwrap());
    assert_eq!(btf.count(), 1 + 4, "int, s, const s, pointer");
    let members: Vec<_> = btf.type_by_id(s).unwrap().members().map(|m| (m.type_id, m.bit_offset)).collect();
    assert_eq!((members[0], members[1].1), ((int, 0), 64));
    let constant = btf.type_by_id(btf.type_by_id(members[1].0).unwrap().referred()).unwrap();
    assert_eq!((constant.kind(), constant.referred()), (Kind::Const, s));
}

#[test]
fn what_is_nowhere_defined_is_declared() {
    let mut info = Info::new(Endian::HOST);
    info.unit(&[UNIT, C]);
    let declared = info.entry(&[&[DECLARATION], &text("s")[..]].concat());
    info.referring(POINTER, "", declared, &[]);
    info.end();
    let btf = info.btf();
    let forward = btf.find_by_name("s", Kind::Fwd).unwrap();
    assert!(btf.types_of(Kind::Ptr).all(|pointer| pointer.referred() == forward));
    assert_eq!(btf.count(), 3);
}

/// Units have different structures `s`, and something that holds one.
#[test]
fn different_structures_of_one_name_stay_apart() {
    let mut info = Info::new(Endian::HOST);
    for size in [4, 8, 4] {
        info.unit(&[UNIT, C]);
        let int = info.int();
        let s = info.structure("s", size);
        info.referring(MEMBER, "i", int, &[size - 4]);
        info.entry(END);
        info.structure("holder", 8);
        info.referring(MEMBER, "s", s, &[0]);
        info.entry(END);
        let array = info.referring(ARRAY, "", s, &[]);
        // Greatest indices, not lengths.
        info.entry(&[DIMENSION, 1]);
        info.entry(&[DIMENSION, 2]);
        info.entry(END);
        info.referring(TYPEDEF, "t", array, &[]);
        info.end();
    }
    let btf = info.btf();
    assert_eq!(kinds(&btf, Kind::Struct), 4);
    let holders = btf.types_of(Kind::Struct).filter(|ty| ty.name_is(b"holder"));
    let held: Vec<_> = holders.map(|ty| btf.resolve_size(ty.member(0).unwrap().type_id).unwrap()).collect();
    assert_eq!(held, [4, 8]);
    let arrays = btf.types_of(Kind::Typedef).map(|ty| btf.resolve_size(ty.id()).unwrap());
    assert_eq!(arrays.collect::<Vec<_>>(), [24, 48]);
}

#[test]
fn units_may_refer_to_each_other() {
    let mut info = Info::new(Endian::HOST);
    info.unit(&[UNIT, C]);
    let int = info.int();
    info.end();
    info.unit(&[UNIT, C]);
    info.referring(POINTER_ANYWHERE, "", int, &[]);
    info.end();
    let btf = info.btf();
    let int = btf.find_by_name("int", Kind::Int);
    assert_eq!(btf.types_of(Kind::Ptr).map(|ty| ty.referred()).next(), int);
    assert_eq!(btf.count(), 3);
}

#[test]
fn bit_fields_were_once_counted_from_the_top() {
    for (endian, expected) in [(Endian::Little, [32, 35]), (Endian::Big, [61, 32])] {
        let mut info = Info::new(endian);
        info.unit(&[UNIT, C]);
        let int = info.int();
        info.structure("s", 8);
        // Storage of 4 bytes at 4: the low 3 bits, and all above them.
        info.referring(BITS, "low", int, &[4, 3, 29, 4]);
        info.referring(BITS, "high", int, &[0, 29, 0, 4]);
        info.entry(END);
        info.end();
        let btf = info.btf();
        let s = btf.types_of(Kind::Struct).next().unwrap();
        let members: Vec<_> = s.members().map(|m| (m.bit_offset, m.bitfield_size)).collect();
        assert_eq!(members, [(expected[0], 3), (expected[1], 29)], "{endian:?}");
    }
}

#[test]
fn enumerations_have_a_sign_and_a_width() {
    let mut info = Info::new(Endian::HOST);
    info.unit(&[UNIT, C]);
    for (name, size, values) in
        [("narrow", 4, [&[0x7f][..], &[2]]), ("wide", 8, [&[1], &[0x80, 0x80, 0x80, 0x80, 0x20]])]
    {
        info.entry(&[&[ENUM], &text(name)[..], &[size]].concat());
        for (name, value) in ["a", "b"].iter().zip(values) {
            info.entry(&[&[ENUMERATOR], &text(name)[..], value].concat());
        }
        info.entry(END);
    }
    info.end();
    let btf = info.btf();
    let found = |kind| -> Vec<(bool, Vec<i128>)> {
        btf.types_of(kind).map(|ty| (ty.kflag(), ty.enumerators().map(|e| e.value).collect())).collect()
    };
    assert_eq!(found(Kind::Enum), [(true, vec![-1, 2])]);
    assert_eq!(found(Kind::Enum64), [(false, vec![1, 1 << 33])]);
}

#[test]
fn a_units_own_name_is_not_kept_and_numbered_names_are() {
    let mut info = Info::new(Endian::HOST);
    info.unit(&[&[NAMED_UNIT], &text("source.c")[..], &[C]].concat());
    info.entry(&[NUMBERED_NAME, 0, SIGNED, 4]);
    info.end();
    let btf = info.btf();
    assert!(btf.find_by_name("named", Kind::Int).is_some());
    assert!(!btf.as_bytes().windows(8).any(|text| text == b"source.c"));
}

#[test]
fn lengths_of_arrays_are_never_cut() {
    let of_bound = |bound: u64| {
        let mut info = Info::new(Endian::HOST);
        info.unit(&[UNIT, C]);
        let int = info.int();
        info.referring(ARRAY, "", int, &[]);
        let bound = if info.endian == Endian::Big { bound.to_be_bytes() } else { bound.to_le_bytes() };
        info.entry(&[&[WIDE_DIMENSION], &bound[..]].concat());
        info.entry(END);
        info.end();
        let btf = Btf::parse(info.convert()?.btf)?;
        let array = btf.types_of(Kind::Array).next().unwrap();
        btf.resolve_size(array.id())
    };
    assert_eq!(of_bound(4).unwrap(), 20);
    for none in [u32::MAX.into(), u64::MAX] {
        assert_eq!(of_bound(none).unwrap(), 0);
    }
    let long = of_bound(0x1_0000_0005).unwrap_err();
    assert!(matches!(&*long, Error::Dwarf { reason, .. } if reason.contains("2^32 elements")), "{long}");
}

/// What BTF has no room for costs its own place, not all other types.
#[test]
fn what_btf_cannot_say_is_left_out_and_counted() {
    let mut info = Info::new(Endian::HOST);
    info.unit(&[UNIT, C]);
    let int = info.int();
    info.entry(&[&[LARGE_STRUCT], &text("large")[..], &[0x80, 0x80, 0x80, 2]].concat());
    info.referring(FAR_BITS, "near", int, &[3, 5]);
    info.referring(FAR_MEMBER, "far", int, &[0x80, 0x80, 0x80, 1]);
    // DW_OP_lit0.
    info.referring(COMPUTED_MEMBER, "computed", int, &[1, 0x30]);
    info.entry(END);
    info.entry(&[&[ENUM], &text("e")[..], &[4]].concat());
    info.entry(&[&[ENUMERATOR], &text("small")[..], &[1]].concat());
    info.entry(&[&[BLOCK_ENUMERATOR], &text("large")[..], &[1, 1]].concat());
    info.entry(END);
    info.end();
    assert_eq!(info.convert().unwrap().left_out, 3);
    let btf = info.btf();
    let large = btf.types_of(Kind::Struct).next().unwrap();
    let members: Vec<_> = large.members().map(|m| (m.bit_offset, m.bitfield_size)).collect();
    assert_eq!((large.size(), members), (Some(4 << 20), vec![(5, 3)]));
    let values: Vec<_> = btf.types_of(Kind::Enum).flat_map(|e| e.enumerators()).map(|e| e.value).collect();
    assert_eq!(values, [1]);
}

#[test]
fn entries_of_no_bytes_are_not_read_without_end() {
    let mut info = Info::new(Endian::HOST);
    info.unit(&[UNIT, C]);
    info.int();
    info.bytes.extend([VARIABLE_OF_NO_BYTES; 20_000]);
    info.end();
    let error = info.convert().unwrap_err();
    assert!(matches!(*error, Error::TooComplex { what: "attributes", .. }), "{error}");
}

#[test]
fn a_file_without_types_of_c_is_an_error() {
    let mut info = Info::new(Endian::HOST);
    // Assembly.
    info.unit(&[UNIT, 1]);
    info.end();
    assert!(matches!(
        info.convert().map_err(|e| *e),
        Err(Error::NoDwarf { reason: "no unit of C has types" })
    ));
}

#[test]
fn what_makes_no_sense_is_an_error_with_its_place() {
    let fault = |fill: &dyn Fn(&mut Info)| {
        let mut info = Info::new(Endian::HOST);
        info.unit(&[UNIT, C]);
        fill(&mut info);
        info.end();
        info.convert().unwrap_err()
    };
    let loops = fault(&|info| {
        let at = (info.bytes.len() - info.start) as u32;
        info.referring(CONST, "", at, &[]);
    });
    assert!(
        matches!(&*loops, Error::Dwarf { offset: 13, reason, .. } if reason.contains("without end")),
        "{loops}"
    );
    let nothing = fault(&|info| {
        info.referring(POINTER, "", 12, &[]);
    });
    assert!(matches!(*nothing, Error::Dwarf { section: ".debug_info", offset: 12, .. }), "{nothing}");
    let elsewhere = fault(&|info| {
        info.referring(POINTER_ANYWHERE, "", 0x7fff_ffff, &[]);
    });
    assert!(matches!(*elsewhere, Error::Dwarf { offset: 0x7fff_ffff, .. }), "{elsewhere}");
    let unknown = fault(&|info| {
        info.entry(&[99]);
    });
    assert!(matches!(*unknown, Error::Dwarf { offset: 13, .. }), "{unknown}");

    let mut broken = Info::new(Endian::HOST);
    broken.unit(&[UNIT, C]);
    broken.int();
    broken.end();
    let end = broken.bytes.len() as u64;
    broken.unit(&[UNIT, C]);
    broken.end();
    // A version that is none.
    broken.bytes[end as usize + 4..][..2].fill(0xff);
    let broken = broken.convert().unwrap_err();
    assert!(matches!(*broken, Error::Dwarf { offset, .. } if offset == end), "{broken}");

    let mut split = Info::new(Endian::HOST);
    split.unit(&[&[SPLIT_UNIT], &text("a.dwo")[..]].concat());
    split.end();
    assert!(matches!(split.convert().map_err(|e| *e), Err(Error::NoDwarf { .. })));
    assert!(matches!(dwarf_to_btf(b"\x7fELF").map_err(|e| *e), Err(Error::Elf { .. })));
}
