//! CO-RE against types that do not come from the running kernel.

use bpf_loader::Error;
use bpf_loader::btf::Btf;
use bpf_loader::btf::encode::{Builder, Field, SIGNED};
use bpf_loader::bytes::Endian;
use bpf_loader::features::Features;
use bpf_loader::object::ObjectSpec;
use bpf_loader::object_file::read_object;
use bpf_loader::plan::LoadPlan;
use bpf_loader::target::{ModuleBtf, RunningTarget, Target, TargetBtf};
use bpf_sys::Insn;

/// A kernel without BTF, as many were built before 2021, for which the user may have types.
#[derive(Default)]
struct WithoutBtf(Option<Types>);

struct Types(Option<Btf<'static>>);

const NONE: Types = Types(None);

impl TargetBtf for Types {
    fn vmlinux(&self) -> Result<Option<&Btf<'_>>, Box<Error>> {
        Ok(self.0.as_ref())
    }

    fn modules(&self) -> Result<&[ModuleBtf<'_>], Box<Error>> {
        Ok(&[])
    }
}

impl Target for WithoutBtf {
    fn types(&self) -> &dyn TargetBtf {
        &NONE
    }

    fn external_types(&self) -> Option<&dyn TargetBtf> {
        self.0.as_ref().map(|types| types as &dyn TargetBtf)
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

fn profiler() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../bpf-programs/prebuilt/profile.bpf.o");
    read_object(path.as_ref()).unwrap()
}

/// Everything, also what the object makes optional.
fn plan<'a>(spec: &ObjectSpec<'a>, target: &dyn Target) -> LoadPlan<'a> {
    spec.plan_programs(target, |_| true).unwrap()
}

fn instructions(plan: &LoadPlan<'_>) -> Vec<Option<Vec<Insn>>> {
    plan.programs.iter().map(|p| p.code.as_ref().ok().map(|code| code.insns.clone())).collect()
}

#[test]
fn a_kernel_without_types_takes_what_needs_none() {
    let bytes = include_bytes!("bpf/prebuilt/tracepoint.bpf.o").to_vec();
    let spec = ObjectSpec::parse(&bytes).unwrap();
    let external = Types(Some(Btf::parse(Builder::new(Endian::Little).build()).unwrap()));
    for target in [WithoutBtf::default(), WithoutBtf(Some(external))] {
        let plan = plan(&spec, &target);
        let (named, others): (Vec<_>, Vec<_>) =
            plan.programs.iter().partition(|p| p.section.starts_with("tp_btf"));
        assert!(!named.is_empty() && !others.is_empty());
        // Types from elsewhere have other numbers than the kernel's own.
        assert!(
            named
                .iter()
                .all(|p| matches!(p.code.as_ref().map_err(Box::as_ref), Err(Error::NoKernelBtf { .. })))
        );
        for program in others {
            assert!(program.code.is_ok(), "{}: {:?}", program.name, program.code.as_ref().err());
        }
    }
}

#[test]
fn relocations_need_types_and_take_the_users() {
    let bytes = profiler();
    let spec = ObjectSpec::parse(&bytes).unwrap();
    let none = plan(&spec, &WithoutBtf::default());
    let refused = none.programs.iter().filter_map(|p| p.code.as_ref().err());
    assert!(refused.into_iter().any(|e| format!("{e:?}").contains("CoreNoTarget")));

    // Of a kernel whose tasks have nothing that the programs look for: they are answered, with poison.
    let mut b = Builder::new(Endian::Little);
    let int = b.int("int", 4, SIGNED);
    b.structure("task_struct", 8, &[Field::at("nothing", int, 0)]);
    let poor = WithoutBtf(Some(Types(Some(Btf::parse(b.build()).unwrap()))));
    let poor = plan(&spec, &poor);
    assert!(poor.programs.iter().all(|p| p.code.is_ok()));
    let poisoned = poor.programs.iter().filter_map(|p| p.code.as_ref().ok()).any(|c| !c.poisoned.is_empty());
    assert!(poisoned || instructions(&poor) != instructions(&none));
}

#[test]
fn the_same_types_from_a_file_give_the_same_program() {
    let Ok(own) = bpf_loader::object_file::read_btf("/sys/kernel/btf/vmlinux".as_ref()) else {
        eprintln!("SKIP the kernel has no BTF");
        return;
    };
    let bytes = profiler();
    let spec = ObjectSpec::parse(&bytes).unwrap();
    let here = plan(&spec, &RunningTarget::new().with_features(Features::ALL));
    let there = plan(&spec, &RunningTarget::new().with_features(Features::ALL).with_btf(own));
    assert!(here.programs.iter().any(|p| p.code.is_ok()));
    assert_eq!(instructions(&here), instructions(&there));
}
