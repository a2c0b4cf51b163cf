use super::*;
use crate::btf::encode::{Builder, SIGNED};
use crate::btf::{BtfId, SectionVar};
use crate::bytes::Endian;

/// `.data` as clang leaves it: two global variables at 0 in the wrong order, and a static one.
fn unfilled(endian: Endian) -> Vec<u8> {
    let mut b = Builder::new(endian);
    let int = b.int("int", 4, SIGNED);
    let vars = [("high", Linkage::Global), ("low", Linkage::Global), ("own", Linkage::Static)];
    let [high, low, own] = vars.map(|(name, linkage)| b.variable(name, int, linkage));
    b.datasec(".data", 0, &[(high, 0, 4), (own, 4, 4), (low, 0, 4)]);
    let outside = b.variable("outside", int, Linkage::Extern);
    b.datasec(".ksyms", 0, &[(outside, 0, 0)]);
    let prototype = b.prototype(int, &[]);
    b.function("hidden", prototype, Linkage::Global);
    b.function("seen", prototype, Linkage::Global);
    b.build()
}

fn size_of(section: &str) -> Option<u32> {
    (section == ".data").then_some(12)
}

#[test]
fn sizes_offsets_and_order_are_filled_in() {
    for endian in [Endian::Little, Endian::Big] {
        let btf = Btf::parse(unfilled(endian)).unwrap();
        let symbol_of = |section: &str, var: &str| match (section, var) {
            (".data", "low") => Some(Symbol { offset: 0, hidden: true }),
            (".data", "high") => Some(Symbol { offset: 8, hidden: false }),
            _ => None,
        };
        let filled = fill(&btf, size_of, symbol_of, |name| name == b"hidden");
        let filled = Btf::parse(filled.unwrap()).unwrap();
        let section = filled.type_by_id(BtfId(5)).unwrap();
        let var = |id, offset| SectionVar { type_id: BtfId(id), offset, size: 4 };
        let vars: Vec<_> = section.section_vars().collect();
        assert_eq!((section.size(), vars), (Some(12), vec![var(3, 0), var(4, 4), var(2, 8)]));
        let linkage = |id| filled.type_by_id(BtfId(id)).unwrap().var_linkage().unwrap();
        assert_eq!((linkage(2), linkage(3)), (Linkage::Global, Linkage::Static));
        assert_eq!(filled.find_by_name(".ksyms", Kind::Datasec), Some(BtfId(7)));
        let linkage = |id| filled.type_by_id(BtfId(id)).unwrap().func_linkage().unwrap();
        assert_eq!((linkage(9), linkage(10)), (Linkage::Static, Linkage::Global));
    }
}

#[test]
fn what_a_linker_filled_is_only_sorted() {
    let mut b = Builder::new(Endian::Little);
    let int = b.int("int", 4, SIGNED);
    let (x, y) = (b.variable("x", int, Linkage::Global), b.variable("y", int, Linkage::Global));
    let sec = b.datasec(".bss", 8, &[(x, 4, 4), (y, 0, 4)]);
    let btf = Btf::parse(b.build()).unwrap();
    let filled = Btf::parse(fill(&btf, |_| None, |_, _| None, |_| false).unwrap()).unwrap();
    let offsets: Vec<_> =
        filled.type_by_id(sec).unwrap().section_vars().map(|v| (v.type_id, v.offset)).collect();
    assert_eq!(offsets, [(y, 0), (x, 4)]);
}

#[test]
fn what_cannot_be_filled_is_an_error() {
    let btf = Btf::parse(unfilled(Endian::Little)).unwrap();
    let section = || ".data".to_owned();
    let none = fill(&btf, |_| None, |_, _| None, |_| false);
    assert_eq!(none, Err(Box::new(Error::BtfDatasec { section: section(), variable: None })));
    let zero = fill(&btf, |_| Some(0), |_, _| None, |_| false);
    assert_eq!(zero, Err(Box::new(Error::BtfDatasec { section: section(), variable: None })));
    let no_symbol = fill(&btf, size_of, |_, _| None, |_| false);
    assert_eq!(
        no_symbol,
        Err(Box::new(Error::BtfDatasec { section: section(), variable: Some("high".to_owned()) }))
    );

    let mut b = Builder::new(Endian::Little);
    let int = b.int("int", 4, SIGNED);
    b.datasec(".data", 4, &[(int, 0, 4)]);
    let btf = Btf::parse(b.build()).unwrap();
    assert!(matches!(
        fill(&btf, size_of, |_, _| None, |_| false).map_err(|e| *e),
        Err(Error::BtfUnexpectedKind { .. })
    ));
}
