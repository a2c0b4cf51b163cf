//! Functions of other programs, replaced and traced.

use bpf_loader::Error;
use bpf_loader::attach_to::TargetProgram;
use bpf_loader::kernel::RunningKernel;
use bpf_loader::load::{Loaded, Object};
use bpf_loader::target::RunningTarget;
use bpf_sys::prog::{TestRun, test_run};

use crate::record::fired;
use crate::subject::{attached, calls_from_functions, calls_from_programs};
use crate::{kernel_has, parse, permitted, read_global};

const TARGET: &[u8] = include_bytes!("../bpf/prebuilt/freplace_target.bpf.o");
const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/freplace.bpf.o");

fn load_target() -> Option<Object> {
    let plan = parse(TARGET).plan(&RunningTarget::new()).unwrap();
    permitted(plan.load(&RunningKernel::default()).unwrap().into_object())
}

/// What the program with the functions returns.
fn run(object: &Object) -> u32 {
    let packet = [0; 64];
    let mut run = TestRun { data_in: &packet, ..TestRun::default() };
    test_run(&object.program("target").unwrap().fd, &mut run).unwrap().return_value
}

/// Loads one of the programs, for functions of `target`.
fn load(program: &str, function: Option<&str>, target: Option<&Object>) -> Loaded {
    let mut spec = parse(OBJECT);
    let chosen = spec.program_mut(program).unwrap();
    chosen.attach_to = target.map(|t| TargetProgram::new(&t.program("target").unwrap().fd).unwrap());
    chosen.attach_function = function.map(String::from);
    let plan = spec.plan_programs(&RunningTarget::new(), |p| p.name == program).unwrap();
    plan.load(&RunningKernel::default()).unwrap()
}

#[test]
fn a_function_is_replaced_until_the_link_is_dropped() {
    let Some(target) = load_target() else { return };
    assert_eq!(run(&target), 11);
    let Some(object) = permitted(load("replacement", None, Some(&target)).into_object()) else { return };
    let link = object.program("replacement").unwrap().attach();
    let Some(link) = attached(link, calls_from_programs()) else { return };
    assert_eq!(run(&target), 71);
    drop(link);
    assert_eq!(run(&target), 11);
    fired(object.program("replacement").unwrap());
}

#[test]
fn the_function_need_not_be_the_one_of_the_section() {
    let Some(target) = load_target() else { return };
    let loaded = load("replacement", Some("units"), Some(&target));
    let Some(object) = permitted(loaded.into_object()) else { return };
    let link = object.program("replacement").unwrap().attach_freplace();
    let Some(link) = attached(link, calls_from_programs()) else { return };
    assert_eq!(run(&target), 80);
    drop(link);
}

#[test]
fn another_program_than_at_loading_can_be_changed() {
    let (Some(first), Some(second)) = (load_target(), load_target()) else { return };
    let Some(object) = permitted(load("replacement", None, Some(&first)).into_object()) else { return };
    let replacement = object.program("replacement").unwrap();
    let to = TargetProgram::new(&second.program("target").unwrap().fd).unwrap();
    let link = replacement.attach_freplace_to(&to, "tens");
    let Some(link) = attached(link, calls_from_programs().max((5, 10))) else { return };
    assert_eq!((run(&first), run(&second)), (11, 71));
    drop(link);
    assert_eq!(run(&second), 11);
    let missing = replacement.attach_freplace_to(&to, "no_such_function");
    assert!(matches!(missing.as_ref().map_err(Box::as_ref), Err(Error::NoSuchTarget { .. })), "{missing:?}");
}

#[test]
fn a_program_is_traced() {
    let Some(target) = load_target() else { return };
    let Some(object) = permitted(load("traced", None, Some(&target)).into_object()) else { return };
    let link = object.program("traced").unwrap().attach();
    // The loader does not know whose function it was.
    if link.is_err() && !kernel_has(calls_from_programs()) {
        attached(link, calls_from_functions());
        return;
    }
    let Some(link) = permitted(link) else { return };
    run(&target);
    assert_eq!(read_global(OBJECT, &object, "traced_runs"), 1);
    drop(link);
    run(&target);
    assert_eq!(read_global(OBJECT, &object, "traced_runs"), 1);
}

#[test]
fn a_program_to_replace_must_be_named() {
    let loaded = load("replacement", None, None);
    let (_, program) = loaded.programs.into_iter().next().unwrap();
    let Err(Error::InProgram { error, .. }) = program.as_ref().map_err(Box::as_ref) else {
        panic!("{program:?}")
    };
    assert_eq!(**error, Error::NoTargetProgram { section: "freplace/tens".into() });
}
