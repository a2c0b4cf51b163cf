//! BTF by itself, and CO-RE relocations.

use super::input::Input;
use super::kernel;
use bpf_loader::btf::encode::Builder;
use bpf_loader::btf::ext::{BtfExt, CoreRelo};
use bpf_loader::btf::sanitize::{BtfFeatures, sanitize};
use bpf_loader::btf::{Btf, BtfId, Kind, Type, datasec, index};
use bpf_loader::core_relo;
use bpf_loader::fuel::Fuel;
use bpf_loader::insn::InsnIdx;
use bpf_sys::uapi::insn::{self, Insn};
use std::sync::Arc;

/// BTF: read, followed, filled in, and made fit for older kernels.
pub fn loader_btf(data: &[u8]) {
    let Ok(btf) = Btf::parse(data) else { return };
    // Without validation, too, every type can be followed.
    let _ = btf.validate();
    let mut next = btf.first_id();
    for ty in btf.types() {
        assert_eq!(ty.id(), next, "ids count up");
        next = BtfId(next.0 + 1);
        visit(&btf, &ty);
    }
    assert_eq!(next.0, btf.count());
    assert!(btf.type_by_id(next).is_err());
    index::find_all(&btf, &[("int", Kind::Int), ("task_struct", Kind::Struct)]).ok();

    let symbol = datasec::Symbol { offset: 8, hidden: data.len() % 2 == 1 };
    if let Ok(filled) = datasec::fill(&btf, |_| Some(64), |_, _| Some(symbol), |name| name.len() > 4) {
        let filled = Btf::parse(filled).expect("what was filled in parses");
        assert_eq!(filled.count(), btf.count());
        assert!(filled.types().all(|ty| ty.kind() != Kind::Datasec || ty.size() != Some(0)));
    }
    for missing in 0..512u16 {
        // All, none, and each alone.
        if missing.count_ones() <= 1 || missing == 511 {
            fit(&btf, missing);
        }
    }
    let split = {
        let mut builder = Builder::split(&btf);
        builder.ptr(btf.first_id());
        builder.build()
    };
    let count = btf.count();
    if let Ok(module) = Btf::parse_split(split, Arc::new(btf)) {
        assert_eq!((module.first_id(), module.count()), (BtfId(count), count + 1));
        let _ = module.validate();
    }
}

fn visit(btf: &Btf<'_>, ty: &Type<'_>) {
    let found = btf.type_by_id(ty.id()).expect("a type that iteration gave");
    assert_eq!((found.kind(), found.name_offset(), found.vlen()), (ty.kind(), ty.name_offset(), ty.vlen()));
    let _ = (ty.name(), ty.size(), ty.int(), ty.array(), ty.var_linkage());
    let _ = (btf.resolve_size(ty.id()), btf.skip_mods_and_typedefs(ty.id()));
    for member in ty.members() {
        let _ = member.name();
    }
    let _ = (ty.enumerators().count(), ty.params().count(), ty.section_vars().count());
}

/// Sanitizing keeps ids and leaves nothing that the kernel lacks; bit n of `missing` is a feature.
fn fit(btf: &Btf<'_>, missing: u16) {
    let has = |bit: u16| missing & 1 << bit == 0;
    let features = BtfFeatures {
        func: has(0),
        func_global: has(1),
        datasec: has(2),
        question_mark_datasec: has(3),
        float: has(4),
        decl_tag: has(5),
        type_tag: has(6),
        enum64: has(7),
        layout: has(8),
    };
    let Ok(bytes) = sanitize(btf, &features) else { return };
    let fit = Btf::parse(bytes).expect("sanitized BTF parses");
    assert!(fit.count() >= btf.count(), "types keep their ids");
    for ty in fit.types() {
        let allowed = match ty.kind() {
            Kind::Func | Kind::FuncProto => features.func,
            Kind::Var | Kind::Datasec => features.datasec,
            Kind::Float => features.float,
            Kind::DeclTag => features.decl_tag,
            Kind::TypeTag => features.type_tag,
            Kind::Enum64 => features.enum64,
            _ => true,
        };
        assert!(allowed, "{:?} {} is left", ty.kind(), ty.id());
    }
}

/// A kernel's BTF and a module's on it. The first two bytes say how long the first is.
pub fn loader_split_btf(data: &[u8]) {
    let mut input = Input::new(data);
    let len = input.u16().into();
    let Ok(base) = Btf::parse(input.bytes(len)) else { return };
    let first = base.count();
    let Ok(module) = Btf::parse_split(input.rest(), Arc::new(base)) else { return };
    let _ = module.validate();
    assert_eq!(module.first_id(), BtfId(first));
    for ty in module.types() {
        assert!(ty.id() >= module.first_id());
        visit(&module, &ty);
    }
    // Types of the base are the module's, too.
    for id in 1..first.min(64) {
        visit(&module, &module.type_by_id(BtfId(id)).expect("a type of the base"));
    }
    index::find_all(&module, &[("int", Kind::Int), ("task_struct", Kind::Struct)]).ok();
    let relo = CoreRelo { insn_offset: 0, type_id: module.first_id(), access: 0, kind: 8 };
    core_relo::describe(&module, &relo);
    let target = kernel::MadeUp(&module);
    core_relo::resolve_within(kernel::types(), [relo], &target, &mut Fuel::new(STEPS)).ok();
}

/// `.BTF.ext` by itself.
pub fn loader_btf_ext(data: &[u8]) {
    let Ok(ext) = BtfExt::parse(data) else { return };
    // Tables may overlap, so each is bounded by the file alone.
    let functions = ext.func_info().flat_map(|section| section.records).count();
    let lines = ext.line_info().flat_map(|section| section.records).count();
    let relocations = ext.core_relos().flat_map(|section| section.records);
    let described =
        relocations.map(|relo| core_relo::describe(kernel::types(), &relo)).filter(|d| !d.is_empty());
    assert!(functions * 8 <= data.len() && lines * 16 <= data.len());
    assert!(described.count() * 16 <= data.len());
}

/// Steps that an input may take: some milliseconds.
const STEPS: u64 = 200_000;

/// CO-RE relocations and the object's types, resolved against a made-up kernel or against the types themselves, and
/// applied to instructions.
///
/// The first byte says which, and how many relocations of 5 bytes follow; the rest is BTF.
pub fn loader_core_relo(data: &[u8]) {
    let mut input = Input::new(data);
    let head = input.u8();
    let relos: Vec<CoreRelo> = (0..head >> 1 & 31)
        .map(|n| CoreRelo {
            insn_offset: u32::from(n) * 8,
            type_id: BtfId(input.u16().into()),
            access: input.u16().into(),
            kind: input.u8().into(),
        })
        .collect();
    let own = input.rest();
    let (Ok(local), Ok(copy)) = (Btf::parse(own), Btf::parse(own)) else { return };
    let local = local.with_pointer_size(8);
    let target = kernel::MadeUp(if head & 1 == 0 { kernel::types() } else { &copy });
    let fuel = &mut Fuel::new(STEPS);
    let Ok(resolutions) = core_relo::resolve_within(&local, relos.iter().copied(), &target, fuel) else {
        return;
    };
    assert_eq!(resolutions.len(), relos.len(), "an answer for each");
    for (relo, resolution) in relos.iter().zip(resolutions) {
        core_relo::describe(&local, relo);
        let Ok(resolution) = resolution else { continue };
        let expected = resolution.expected.unwrap_or(0);
        let imm = expected as i32;
        for insns in [
            [Insn::new(insn::MOV64_IMM, 1, 0, 0, imm), Insn::default()],
            [Insn::new(insn::ALU | 0xb0, 1, 0, 0, imm), Insn::default()],
            [Insn::new(insn::LDX | insn::MEM | insn::W, 1, 2, imm as i16, 0), Insn::default()],
            [Insn::new(insn::LD_IMM64, 1, 0, 0, imm), Insn::new(0, 0, 0, 0, (expected >> 32) as i32)],
            [Insn::new(insn::EXIT, 0, 0, 0, 0), Insn::default()],
        ] {
            let mut patched = insns;
            if core_relo::patch(&mut patched, InsnIdx(0), &resolution).is_err() {
                assert_eq!(patched, insns, "an error changes nothing");
            }
            let mut at_end = insns;
            let _ = core_relo::patch(&mut at_end, InsnIdx(1), &resolution);
            assert!(core_relo::patch(&mut at_end, InsnIdx(2), &resolution).is_err());
        }
    }
}
