//! What a build without the feature `all-objects` leaves out is refused, and never loaded as if it were not there.
#![cfg(not(feature = "all-objects"))]

mod support;

use bpf_loader::Error;
use bpf_loader::bytes::Endian;
use bpf_loader::kernel::RunningKernel;
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;
use support::MadeUp;

fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::NotBuiltIn { .. }) && error.to_string().contains("`all-objects`")
}

#[test]
fn externs() {
    let spec = ObjectSpec::parse(include_bytes!("bpf/prebuilt/externs.bpf.o")).unwrap();
    let plan = spec.plan(&MadeUp::new()).unwrap();
    let refused = plan.programs.iter().filter(|p| p.code.as_ref().is_err_and(|e| is_refusal(e)));
    let uses: Vec<_> = refused.map(|p| p.name).collect();
    assert!(!uses.is_empty() && spec.externs().is_empty());
    // What refers to none is planned as ever.
    let others = plan.programs.iter().filter(|p| !uses.contains(&p.name));
    assert!(
        others.clone().all(|p| p.code.is_ok()),
        "{:?}",
        others.map(|p| (p.name, &p.code)).collect::<Vec<_>>()
    );
}

#[test]
fn operations() {
    let spec = ObjectSpec::parse(include_bytes!("bpf/prebuilt/tcp_congestion.bpf.o")).unwrap();
    assert!(!spec.broken_maps.is_empty() && spec.broken_maps.iter().all(|(_, error)| is_refusal(error)));
    let plan = spec.plan(&MadeUp::new()).unwrap();
    let mut operations = plan.programs.iter().filter(|p| p.section.starts_with("struct_ops")).peekable();
    assert!(operations.peek().is_some());
    for program in operations {
        assert!(program.code.as_ref().is_err_and(|e| is_refusal(e)), "{}: {:?}", program.name, program.code);
    }
}

#[test]
fn maps_of_before_btf() {
    if !support::has_clang() {
        return;
    }
    let text = r#"
struct bpf_map_def { unsigned type, key_size, value_size, max_entries, map_flags; };
struct bpf_map_def counts __attribute__((section("maps"), used)) = { 1, 4, 8, 16, 1 };
"#;
    let object = support::clang_bpf(std::path::Path::new("."), Endian::Little, &[], text);
    let spec = ObjectSpec::parse(&object).unwrap();
    assert!(spec.map("counts").is_none());
    let [("counts", error)] = &spec.broken_maps[..] else { panic!("{:?}", spec.broken_maps) };
    assert!(is_refusal(error), "{error}");
}

/// The kernel is asked for the programs alone: which it knows depends on its version.
#[test]
fn attaching_by_sections() {
    let target = RunningTarget::new();
    let mut refused = 0;
    for object in
        [&include_bytes!("bpf/prebuilt/uprobe.bpf.o")[..], include_bytes!("bpf/prebuilt/kprobe.bpf.o")]
    {
        let spec = ObjectSpec::parse(object).unwrap();
        let loaded = spec.plan(&target).unwrap().load(&RunningKernel::default()).unwrap();
        for program in loaded.programs.iter().filter_map(|(_, program)| program.as_ref().ok()) {
            let section = &program.section;
            let is_left_out =
                section.contains('/') && (section.starts_with('u') || section.contains(".multi"));
            if is_left_out {
                let error = program.attach().unwrap_err();
                assert!(is_refusal(&error), "{section}: {error}");
                refused += 1;
            }
        }
    }
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("SKIP attaching_by_sections: it takes root to load programs");
    }
    assert_eq!(refused > 0, is_root);
}
