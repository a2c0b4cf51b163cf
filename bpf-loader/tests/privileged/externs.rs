//! What programs refer to outside their object.

use std::path::Path;

use bpf_loader::Error;
use bpf_loader::attach::syscall_function;
use bpf_loader::externs::{ExternFault, ExternKind, kconfig};
use bpf_loader::kernel::RunningKernel;
use bpf_loader::load::Loaded;
use bpf_loader::target::{RunningTarget, Target as _};
use bpf_sys::prog::{TestRun, test_run};

use crate::{kernel_has, may_not, parse, read_global, skip};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/externs.bpf.o");

fn load(program: &str) -> Loaded {
    let spec = parse(OBJECT);
    let plan = spec.plan_programs(&RunningTarget::new(), |p| p.name == program).unwrap();
    let loaded = plan.load(&RunningKernel::default()).unwrap();
    assert!(loaded.btf_error.as_ref().is_none_or(|e| may_not(e)), "{:#}", loaded.btf_error.unwrap());
    loaded
}

/// Runs one of the object's programs alone, and reads variables that it sets; why it cannot be loaded.
fn run<const N: usize>(program: &str, variables: [&str; N]) -> Result<Option<[u64; N]>, Box<Error>> {
    let object = match load(program).into_object() {
        Err(e) if may_not(&e) => return Ok(skip(&format!("needs root: {e}"))),
        other => other?,
    };
    let mut run = TestRun { data_in: &[0; 64], ..TestRun::default() };
    test_run(&object.program(program)?.fd, &mut run).unwrap();
    Ok(Some(variables.map(|name| read_global(OBJECT, &object, name))))
}

#[test]
fn the_loader_answers_what_no_configuration_does() {
    let Some([version, cookie, none]) = run("of_loader", ["version", "cookie", "no_such_thing"]).unwrap()
    else {
        return;
    };
    assert_eq!(Some(version), RunningTarget::new().kernel_version().map(u64::from));
    assert_eq!(version >= 5 << 16 | 15 << 8, cookie == 1);
    assert!(kernel_has(((version >> 16) as u8, (version >> 8) as u8)));
    assert_eq!(none, 0);
}

#[test]
fn the_configuration_is_read_where_the_kernel_has_one() {
    let target = RunningTarget::new();
    let run = run("of_configuration", ["hz", "no_such_option"]).map_err(|e| *e);
    let Some(text) = target.kconfig().unwrap() else {
        let Err(Error::InProgram { error, .. }) = run else { panic!("{run:?}") };
        assert!(matches!(
            *error,
            Error::Extern { kind: ExternKind::Kconfig, reason: ExternFault::NowhereToLook { .. }, .. }
        ));
        return;
    };
    let Some([hz, none]) = run.unwrap() else { return };
    let (_, expected) = kconfig::parse(text).find(|(name, _)| *name == b"CONFIG_HZ").unwrap();
    assert_eq!(hz.to_string().as_bytes(), expected);
    assert_eq!(none, 0);
}

#[test]
fn symbols_have_addresses() {
    let Some([sys_bpf, none]) = run("addresses", ["sys_bpf", "symbol"]).unwrap() else { return };
    let list = std::fs::read_to_string("/proc/kallsyms").unwrap();
    let name = syscall_function("bpf");
    let expected = list.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap();
    let expected = expected.split(' ').next().unwrap();
    assert_eq!(Ok(sys_bpf), u64::from_str_radix(expected, 16));
    assert_ne!(sys_bpf, 0, "hidden from root?");
    assert_eq!(none, 0);
}

#[test]
fn variables_are_read_by_their_type() {
    let list = std::fs::read_to_string("/proc/kallsyms").unwrap();
    if !list.lines().any(|line| line.ends_with(" runqueues")) {
        return skip("the kernel has no addresses of variables (CONFIG_KALLSYMS_ALL)").unwrap_or_default();
    }
    // Debian's 5.10 was built with a pahole that did not know variables of each CPU.
    let found = match run("variables", ["has_runqueue", "has_variable"]).map_err(|e| *e) {
        Err(Error::InProgram { error, .. }) if !kernel_has((5, 11)) => {
            assert!(matches!(*error, Error::Extern { kind: ExternKind::Variable, .. }), "{error}");
            return;
        }
        other => other.unwrap(),
    };
    assert!(found.is_none_or(|found| found == [1, 0]));
}

#[test]
fn functions_are_called() {
    // `bpf_rcu_read_lock` came with Linux 6.2.
    let found = run("functions", ["called", "has_flavour", "has_other", "has_function"]).map_err(|e| *e);
    if !kernel_has((6, 2)) {
        let Err(Error::InProgram { error, .. }) = found else { panic!("{found:?}") };
        let Error::Extern { name, kind, reason } = *error else { panic!("{error}") };
        assert_eq!((name.as_str(), kind), ("bpf_rcu_read_lock", ExternKind::Function));
        assert!(matches!(reason, ExternFault::NotFound { .. }));
        return;
    }
    let Some(found) = found.unwrap() else { return };
    assert_eq!(found, [1, 1, 0, 0]);
}

#[test]
fn a_missing_function_that_is_called_is_named() {
    let result = load("calls_what_is_missing").into_object();
    let Err(error) = result else { panic!("loaded") };
    if may_not(&error) {
        return skip(&format!("needs root: {error}")).unwrap_or_default();
    }
    let Error::InProgram { error, .. } = *error else { panic!("{error}") };
    let Error::ProgramLoad { log, .. } = *error else { panic!("{error}") };
    assert_eq!(log.missing(), ["kernel function bpf_no_such_function"]);
}

#[test]
fn functions_of_modules_are_called() {
    const ENOENT: u64 = 2;
    let result = run("functions_of_module", ["lookup_error"]);
    if kernel_has((6, 1)) && Path::new("/sys/kernel/btf/nf_conntrack").exists() {
        let Some(found) = result.unwrap() else { return };
        assert_eq!(found, [ENOENT]);
        return;
    }
    // In a module that is not there, or in a kernel that has it built in.
    match result.map_err(|e| *e) {
        Ok(found) => assert!(found.is_none_or(|found| found == [ENOENT])),
        Err(Error::InProgram { error, .. }) => {
            skip::<()>(&format!("needs the module nf_conntrack of Linux 6.1: {error}"));
            assert!(matches!(*error, Error::Extern { kind: ExternKind::Function, .. }), "{error}");
        }
        Err(error) => panic!("{error}"),
    }
}
