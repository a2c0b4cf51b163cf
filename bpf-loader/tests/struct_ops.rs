//! Maps of operations, for kernels that are made up.

use std::sync::Arc;

use bpf_loader::attach_to::AttachTo;
use bpf_loader::btf::encode::{Builder, Field};
use bpf_loader::btf::{Btf, BtfId, Kind};
use bpf_loader::bytes::Endian;
use bpf_loader::features::Features;
use bpf_loader::object::ObjectSpec;
use bpf_loader::plan::LoadPlan;
use bpf_loader::struct_ops::KernelOps;
use bpf_loader::target::{ModuleBtf, Target, TargetBtf};
use bpf_loader::{Error, Result};

/// Offsets of the members: name 0, ssthresh 16, undo_cwnd 24, cong_avoid 32, flags 40, not_in_any_kernel 48.
const OBJECT: &[u8] = include_bytes!("bpf/prebuilt/tcp_congestion.bpf.o");

/// How many broken objects are tried.
const MUTATIONS: usize = 2_000;

struct Kernel {
    vmlinux: Arc<Btf<'static>>,
    modules: Vec<ModuleBtf<'static>>,
}

impl TargetBtf for Kernel {
    fn vmlinux(&self) -> Result<Option<&Btf<'_>>> {
        Ok(Some(&self.vmlinux))
    }

    fn modules(&self) -> Result<&[ModuleBtf<'_>]> {
        Ok(&self.modules)
    }
}

impl Target for Kernel {
    fn types(&self) -> &dyn TargetBtf {
        self
    }

    fn features(&self) -> &Features {
        &Features::ALL
    }

    fn page_size(&self) -> u32 {
        4096
    }

    fn possible_cpus(&self) -> u32 {
        1
    }
}

/// Types that a kernel's operations are made of.
struct Types {
    int: BtfId,
    function: BtfId,
    name: BtfId,
    long_name: BtfId,
}

/// Adds operations of 128 bytes with these members to `b`, 64 bytes into their map's value. Returns both types.
fn add_operations(
    b: &mut Builder,
    name: &str,
    members: impl Fn(&Types) -> Vec<Field<'static>>,
) -> (BtfId, BtfId) {
    let int = b.int("unsigned int", 4, 0);
    let char = b.int("char", 1, 0);
    let prototype = b.prototype(int, &[]);
    let types = Types {
        int,
        function: b.ptr(prototype),
        name: b.array(char, int, 16),
        long_name: b.array(char, int, 32),
    };
    let members = members(&types);
    let ops = b.structure(name, 128, &members);
    let value_name = format!("bpf_struct_ops_{name}");
    let value = b.structure(&value_name, 192, &[Field::at("state", int, 0), Field::at("data", ops, 64)]);
    (value, ops)
}

/// The members that the object names, elsewhere than there.
fn usual(types: &Types) -> Vec<Field<'static>> {
    vec![
        Field::at("key", types.int, 0),
        Field::at("flags", types.int, 4),
        Field::at("cong_avoid", types.function, 8),
        Field::at("undo_cwnd", types.function, 16),
        Field::at("ssthresh", types.function, 24),
        Field::at("name", types.name, 48),
    ]
}

/// `usual` with one member changed.
fn usual_but(name: &str, change: impl Fn(&Types, &mut Field<'static>)) -> Kernel {
    kernel(|types| {
        let mut members = usual(types);
        change(types, members.iter_mut().find(|m| m.name == name).unwrap());
        members
    })
}

fn kernel(members: impl Fn(&Types) -> Vec<Field<'static>>) -> Kernel {
    let mut b = Builder::new(Endian::Little);
    add_operations(&mut b, "tcp_congestion_ops", members);
    Kernel { vmlinux: Arc::new(Btf::parse(b.build()).unwrap()), modules: Vec::new() }
}

fn spec() -> ObjectSpec<'static> {
    ObjectSpec::parse(OBJECT).unwrap()
}

fn ops<'p>(plan: &'p LoadPlan<'_>, map: &str) -> &'p Result<KernelOps> {
    let (idx, _) = plan.maps.iter().find(|(_, m)| m.name == map).unwrap();
    plan.struct_ops.map(*idx).unwrap()
}

/// Why the map "plain" does not fit the kernel, as member and reason.
fn reason(spec: &ObjectSpec<'_>, kernel: &Kernel) -> (String, String) {
    let plan = spec.plan(kernel).unwrap();
    match ops(&plan, "plain").as_ref().map_err(Box::as_ref) {
        Err(Error::StructOps { map, member, reason }) if map == "plain" => (member.clone(), reason.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn members_go_where_the_kernel_has_them() {
    let mut spec = spec();
    spec.set_struct_ops_member("plain", "flags", &[1, 2, 3, 4]).unwrap();
    let kernel = kernel(usual);
    let plan = spec.plan(&kernel).unwrap();
    let ops = ops(&plan, "plain").as_ref().unwrap();
    let find = |name| kernel.vmlinux.find_by_name(name, Kind::Struct).unwrap();
    assert_eq!(ops.value_type, find("bpf_struct_ops_tcp_congestion_ops"));
    assert_eq!(ops.ops_type, find("tcp_congestion_ops"));
    assert_eq!(ops.module, None);
    let mut value = [0; 192];
    value[64 + 4..64 + 8].copy_from_slice(&[1, 2, 3, 4]);
    value[64 + 48..64 + 57].copy_from_slice(b"bpf_plain");
    assert_eq!(ops.value, value);
    let slots: Vec<_> = ops.functions.iter().map(|slot| (slot.offset, slot.member)).collect();
    assert_eq!(slots, [(64 + 24, 4), (64 + 16, 3), (64 + 8, 2)]);

    let (_, map) = plan.maps.iter().find(|(_, m)| m.name == "plain").unwrap();
    assert_eq!((map.key_size, map.value_size, map.max_entries, map.flags), (4, 192, 1, 0));
    let (_, map) = plan.maps.iter().find(|(_, m)| m.name == "first").unwrap();
    assert_eq!(map.flags, 1 << 13);
    let attach: Vec<_> = plan
        .programs
        .iter()
        .map(|p| {
            let attach = &p.code.as_ref().unwrap().attach;
            assert_eq!((attach.btf_id, &attach.to), (ops.ops_type, &AttachTo::Kernel));
            (p.name, attach.attach_type.0)
        })
        .collect();
    let expected =
        [("ssthresh", 4), ("plain_avoid", 2), ("first_avoid", 2), ("second_avoid", 2), ("undo_cwnd", 3)];
    assert!(expected.iter().all(|e| attach.contains(e)) && attach.len() == expected.len(), "{attach:?}");
}

#[test]
fn operations_may_be_a_modules() {
    let base = Btf::parse(Builder::new(Endian::Little).build()).unwrap();
    let mut b = Builder::split(&base);
    let (value, operations) = add_operations(&mut b, "tcp_congestion_ops", usual);
    let vmlinux = Arc::new(base);
    let btf = Btf::parse_split(b.build(), Arc::clone(&vmlinux)).unwrap();
    let kernel = Kernel { vmlinux, modules: vec![ModuleBtf { name: "tcp_new".into(), btf }] };
    let plan = spec().plan(&kernel).unwrap();
    let ops = ops(&plan, "plain").as_ref().unwrap();
    assert_eq!((ops.value_type, ops.ops_type), (value, operations));
    assert_eq!(ops.module.as_deref(), Some("tcp_new"));
    for program in &plan.programs {
        assert_eq!(program.code.as_ref().unwrap().attach.to, AttachTo::Module("tcp_new".into()));
    }
}

#[test]
fn members_must_fit() {
    let grown = usual_but("name", |types, m| m.type_id = types.long_name);
    assert_eq!(reason(&spec(), &grown), ("name".into(), "it has another size in the kernel".into()));
    let bits = usual_but("flags", |_, m| m.bitfield_size = 3);
    assert_eq!(reason(&spec(), &bits), ("flags".into(), "it is a bit-field".into()));
    let other_kind = usual_but("undo_cwnd", |types, m| m.type_id = types.int);
    let expected = "the kernel has a member of another kind";
    assert_eq!(reason(&spec(), &other_kind), ("undo_cwnd".into(), expected.into()));
    let outside = usual_but("name", |_, m| m.bit_offset = 120 * 8);
    let expected = "it lies outside the kernel's structure";
    assert_eq!(reason(&spec(), &outside), ("name".into(), expected.into()));
}

#[test]
fn what_the_kernel_lacks_must_be_zero() {
    let lacking = "the kernel has no such member, and it is not zero";
    let mut spec = spec();
    spec.set_struct_ops_member("plain", "not_in_any_kernel", &1u64.to_le_bytes()).unwrap();
    assert_eq!(reason(&spec, &kernel(usual)), ("not_in_any_kernel".into(), lacking.into()));
    spec.set_struct_ops_member("plain", "not_in_any_kernel", &0u64.to_le_bytes()).unwrap();

    // So must functions; then their programs are not loaded.
    let without = usual_but("cong_avoid", |_, m| m.name = "renamed");
    assert_eq!(reason(&spec, &without), ("cong_avoid".into(), lacking.into()));
    let plan = spec.plan(&without).unwrap();
    let program = plan.programs.iter().find(|p| p.name == "plain_avoid").unwrap();
    assert!(
        matches!(program.code.as_ref().map_err(Box::as_ref), Err(Error::StructOps { .. })),
        "{:?}",
        program.code
    );
    for map in ["plain", "first", "second"] {
        spec.set_struct_ops_program(map, "cong_avoid", None).unwrap();
    }
    let plan = spec.plan(&without).unwrap();
    assert_eq!(ops(&plan, "plain").as_ref().unwrap().functions.len(), 2);
    let mut names: Vec<_> = plan.programs.iter().map(|p| p.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["ssthresh", "undo_cwnd"]);
    assert!(plan.programs.iter().all(|p| p.code.is_ok()));
}

#[test]
fn a_program_implements_one_operation() {
    let mut spec = spec();
    spec.set_struct_ops_program("first", "undo_cwnd", Some("ssthresh")).unwrap();
    let plan = spec.plan(&kernel(usual)).unwrap();
    let expected = "program ssthresh implements another operation already";
    assert!(ops(&plan, "plain").is_ok() && ops(&plan, "second").is_ok());
    match ops(&plan, "first").as_ref().map_err(Box::as_ref) {
        Err(Error::StructOps { map, reason, .. }) => assert_eq!((&**map, &**reason), ("first", expected)),
        other => panic!("{other:?}"),
    }
    // In one map too.
    let (_, reason) = {
        spec.set_struct_ops_program("plain", "undo_cwnd", Some("ssthresh")).unwrap();
        reason(&spec, &kernel(usual))
    };
    assert_eq!(reason, expected);
}

#[test]
fn operations_that_the_kernel_does_not_know_concern_nothing_else() {
    let mut b = Builder::new(Endian::Little);
    add_operations(&mut b, "other_ops", usual);
    let kernel = Kernel { vmlinux: Arc::new(Btf::parse(b.build()).unwrap()), modules: Vec::new() };
    let plan = spec().plan(&kernel).unwrap();
    let unknown = Box::new(Error::NoSuchTarget { name: "struct bpf_struct_ops_tcp_congestion_ops".into() });
    let in_map = |map: &str| Box::new(Error::InMap { map: map.into(), error: unknown.clone() });
    assert_eq!(ops(&plan, "plain"), &Err(in_map("plain")));
    let program = plan.programs.iter().find(|p| p.name == "second_avoid").unwrap();
    assert_eq!(program.code.as_ref().err(), Some(&in_map("second")));
}

#[test]
fn optional_maps_and_unused_programs_are_planned_if_asked_for() {
    let kernel = kernel(usual);
    let planned = |spec: &ObjectSpec<'_>, name: &str| {
        let plan = spec.plan_programs(&kernel, |p| p.name == name).unwrap();
        plan.programs.into_iter().next().unwrap().code
    };
    let mut spec = spec();
    let plan = spec.plan(&kernel).unwrap();
    let maps: Vec<_> = plan.maps.iter().map(|(_, m)| &*m.name).collect();
    assert!(!maps.contains(&"optional") && maps.contains(&"second"), "{maps:?}");
    let unused = planned(&spec, "named_by_none");
    assert_eq!(unused.err(), Some(Error::StructOpsUnused { program: "named_by_none".into() }.into()));
    assert!(matches!(planned(&spec, "of_no_kernel").map_err(|e| *e), Err(Error::InMap { .. })));

    // A map that is not created still says what its programs implement.
    for map in ["plain", "first", "second"] {
        spec.map_mut(map).unwrap().autocreate = false;
    }
    assert!(spec.plan(&kernel).unwrap().programs.is_empty());
    assert_eq!(planned(&spec, "plain_avoid").unwrap().attach.attach_type.0, 2);
}

#[test]
fn members_are_set_as_what_they_are() {
    let mut spec = spec();
    assert!(matches!(
        spec.struct_ops_member("plain", "ssthresh").map_err(|e| *e),
        Err(Error::StructOps { .. })
    ));
    assert!(matches!(
        spec.struct_ops_member("plain", "nothing").map_err(|e| *e),
        Err(Error::StructOps { .. })
    ));
    assert!(matches!(spec.struct_ops_member("none", "name").map_err(|e| *e), Err(Error::NoSuchMap { .. })));
    let short = spec.set_struct_ops_member("plain", "name", b"x");
    assert_eq!(short, Err(Box::new(Error::VariableSize { name: "plain.name".into(), size: 16, given: 1 })));
    let data = spec.set_struct_ops_program("plain", "flags", Some("ssthresh"));
    assert!(matches!(data.as_ref().map_err(Box::as_ref), Err(Error::StructOps { .. })));
    let missing = spec.set_struct_ops_program("plain", "ssthresh", Some("none"));
    assert!(matches!(missing.as_ref().map_err(Box::as_ref), Err(Error::NoSuchProgram { .. })));
}

#[test]
fn broken_objects_are_planned_or_refused() {
    let kernel = kernel(usual);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut planned, mut misfits) = (0, 0);
    for _ in 0..MUTATIONS {
        let mut object = OBJECT.to_vec();
        for _ in 0..1 + random(8) {
            object[random(OBJECT.len())] = random(256) as u8;
        }
        let Ok(spec) = ObjectSpec::parse(&object) else { continue };
        let Ok(plan) = spec.plan_programs(&kernel, |_| true) else { continue };
        planned += 1;
        let ops = plan.maps.iter().filter_map(|(idx, _)| plan.struct_ops.map(*idx));
        for ops in ops {
            match ops {
                Ok(ops) => {
                    assert!(ops.functions.iter().all(|slot| slot.offset as usize + 8 <= ops.value.len()))
                }
                Err(_) => misfits += 1,
            }
        }
    }
    assert!(planned > MUTATIONS / 10 && misfits > 0, "{planned} planned, {misfits} maps that do not fit");
}
