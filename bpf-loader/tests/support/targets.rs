//! What a fuzzer feeds with arbitrary bytes. Nothing here may panic, hang or reserve memory by a number in the input.

use std::sync::Arc;

use bpf_loader::Error;
use bpf_loader::btf::datasec::{self, Symbol};
use bpf_loader::btf::encode::{Builder, Field, SIGNED};
use bpf_loader::btf::ext::BtfExt;
use bpf_loader::btf::index::find_all;
use bpf_loader::btf::sanitize::{BtfFeatures, sanitize};
use bpf_loader::btf::{Btf, BtfId, Kind};
use bpf_loader::bytes::Endian;
use bpf_loader::core_relo::{describe, patch, resolve_within};
use bpf_loader::fuel::Fuel;
use bpf_loader::insn::InsnIdx;
use bpf_loader::target::{ModuleBtf, TargetBtf};
use bpf_sys::uapi::insn::{self, Insn};

/// A kernel that knows no kind newer than Linux 4.18.
const OLDEST: BtfFeatures = BtfFeatures {
    func: false,
    func_global: false,
    datasec: false,
    question_mark_datasec: false,
    float: false,
    decl_tag: false,
    type_tag: false,
    enum64: false,
    layout: false,
};

/// Asks everything about every type.
fn read_all(btf: &Btf<'_>) {
    for ty in btf.types() {
        let _ =
            (ty.name(), ty.size(), ty.int(), ty.array(), ty.var_linkage(), ty.func_linkage(), ty.component());
        let members = ty.members().map(|m| m.name().map_or(0, str::len) as u64 + u64::from(m.bit_offset));
        let enumerators = ty.enumerators().map(|e| e.name().map_or(0, str::len) as u64 ^ e.bits);
        let params = ty.params().map(|p| p.name().map_or(0, str::len) as u64);
        let vars = ty.section_vars().map(|v| u64::from(v.size));
        let sum = members.chain(enumerators).chain(params).chain(vars).fold(0, u64::wrapping_add);
        std::hint::black_box(sum);
        let same = btf.type_by_id(ty.id()).expect("a type that was walked over can be looked up");
        assert_eq!((same.id(), same.name_offset(), same.vlen()), (ty.id(), ty.name_offset(), ty.vlen()));
        let _ = (btf.resolve_size(ty.id()), btf.skip_mods_and_typedefs(ty.id()));
    }
    let _ = (btf.validate(), btf.find_by_name("s", Kind::Struct), btf.type_by_id(BtfId(btf.count())));
    let _ = find_all(btf, &[("s", Kind::Struct), ("int", Kind::Int)]);
}

/// `.BTF`, of an object or a kernel.
pub fn btf(data: &[u8]) {
    let Ok(btf) = Btf::parse(data) else { return };
    read_all(&btf);
    for features in [OLDEST, BtfFeatures::ALL] {
        if let Ok(out) = sanitize(&btf, &features) {
            read_all(&Btf::parse(out).expect("what was written can be read"));
        }
    }
    let symbol =
        |_: &str, name: &str| Some(Symbol { offset: name.len() as u32, hidden: name.len() % 2 == 0 });
    if let Ok(out) = datasec::fill(&btf, |name| Some(name.len() as u32), symbol, |_| false) {
        read_all(&Btf::parse(out).expect("what was written can be read"));
    }
}

/// `.BTF` of a kernel module, on top of a small kernel's.
pub fn btf_split(data: &[u8]) {
    let mut base = Builder::new(Endian::Little);
    let int = base.int("int", 4, SIGNED);
    base.structure("s", 4, &[Field::at("a", int, 0)]);
    let base = Btf::parse(base.build()).expect("made here");
    if let Ok(btf) = Btf::parse_split(data, Arc::new(base)) {
        read_all(&btf);
    }
}

/// `.BTF.ext`.
pub fn btf_ext(data: &[u8]) {
    let Ok(ext) = BtfExt::parse(data) else { return };
    let strings = Btf::parse(Builder::new(ext.endian()).build()).expect("made here");
    let (mut records, len) = (0, data.len());
    for section in ext.func_info() {
        let _ = section.name(&strings);
        assert!(section.records.as_bytes().data.len() <= len);
        records += section.records.count();
    }
    records += ext.line_info().flat_map(|section| section.records).count();
    records += ext.core_relos().flat_map(|section| section.records).count();
    assert!(records <= len * 3);
}

struct Kernel<'a>(Btf<'a>);

impl TargetBtf for Kernel<'_> {
    fn vmlinux(&self) -> Result<Option<&Btf<'_>>, Box<Error>> {
        Ok(Some(&self.0))
    }

    fn modules(&self) -> Result<&[ModuleBtf<'_>], Box<Error>> {
        Ok(&[])
    }
}

/// An object's `.BTF` and `.BTF.ext` and a kernel's BTF: the lengths of the first two as 16 bits each, then the three.
pub fn core_relo(data: &[u8]) {
    let Some((lens, rest)) = data.split_at_checked(4) else { return };
    let len = |at: usize| usize::from(u16::from_le_bytes([lens[at], lens[at + 1]]));
    let Some((local, rest)) = rest.split_at_checked(len(0)) else { return };
    let Some((ext, target)) = rest.split_at_checked(len(2)) else { return };
    let (Ok(local), Ok(ext), Ok(target)) = (Btf::parse(local), BtfExt::parse(ext), Btf::parse(target)) else {
        return;
    };
    let relos: Vec<_> = ext.core_relos().flat_map(|section| section.records).collect();
    let results = resolve_within(&local, relos.iter().copied(), &Kernel(target), &mut Fuel::new(200_000));
    let Ok(results) = results else { return };
    assert_eq!(results.len(), relos.len());
    for (relo, result) in relos.iter().zip(results) {
        std::hint::black_box((describe(&local, relo), relo.insn()));
        let Ok(resolution) = result else { continue };
        let mut program = [
            Insn::new(insn::MOV64_IMM, 1, 0, 0, 4),
            Insn::new(insn::LDX | insn::MEM | insn::DW, 1, 2, 4, 0),
            Insn::new(insn::LD_IMM64, 1, 0, 0, 4),
            Insn::default(),
            Insn::new(insn::EXIT, 0, 0, 0, 0),
        ];
        for at in 0..6 {
            let _ = patch(&mut program, InsnIdx(at), &resolution);
        }
    }
}
