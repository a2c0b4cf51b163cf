//! Functions that take the context, by a tag that only Linux 6.8 and later know.

use bpf_loader::features::Features;
use bpf_loader::kernel::RunningKernel;
use bpf_loader::object::ObjectSpec;
use bpf_loader::plan::LoadPlan;
use bpf_loader::target::{RunningTarget, Target, TargetBtf};
use bpf_loader::test_run::TestRun;

use crate::{kernel_has, load_possible, permitted};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/context_arguments.bpf.o");
const PROGRAMS: usize = 6;

#[test]
fn all_kinds_of_programs_load_and_run() {
    let Some(object) = load_possible(OBJECT) else { return };
    assert_eq!(object.programs.len(), PROGRAMS);
    let run = TestRun { data: &[0; 64], ..TestRun::default() };
    let result = |program| object.program(program).unwrap().test_run(&run).unwrap().return_value;
    // A link layer header is no part of what a socket filter sees.
    assert_eq!((result("tc_length"), result("socket_length"), result("xdp_is_empty")), (64, 50, 2));
}

/// Programs as they are with the tag alone or with the copies of functions, whatever the kernel knows.
fn plan<'a>(spec: &ObjectSpec<'a>, target: &RunningTarget, knows_tag: bool) -> LoadPlan<'a> {
    spec.plan(&Pretending { target, knows_tag }).unwrap()
}

/// The running kernel, but for whether it knows the tag.
struct Pretending<'t> {
    target: &'t RunningTarget,
    knows_tag: bool,
}

impl Target for Pretending<'_> {
    fn types(&self) -> &dyn TargetBtf {
        self.target.types()
    }

    fn features(&self) -> &Features {
        self.target.features()
    }

    fn page_size(&self) -> u32 {
        self.target.page_size()
    }

    fn possible_cpus(&self) -> u32 {
        self.target.possible_cpus()
    }

    fn knows_context_tag(&self) -> bool {
        self.knows_tag
    }
}

#[test]
fn the_copies_are_what_older_kernels_need() {
    let target = RunningTarget::new();
    let spec = ObjectSpec::parse(OBJECT).unwrap();
    let loaded = plan(&spec, &target, false).load(&RunningKernel::default()).unwrap();
    for (name, program) in loaded.programs {
        let Some(_) = permitted(program) else { return };
        assert!(spec.programs.iter().any(|p| p.name == name));
    }
    let tagged = plan(&spec, &target, true).load(&RunningKernel::default()).unwrap();
    for (name, program) in tagged.programs {
        assert_eq!(program.is_ok(), kernel_has((6, 8)), "{name}");
    }
    assert_eq!(target.knows_context_tag(), kernel_has((6, 8)));
}
