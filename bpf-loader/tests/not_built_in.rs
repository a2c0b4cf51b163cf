//! What a build without the feature `all-objects` leaves out is refused, and never loaded as if it were not there.
#![cfg(not(feature = "all-objects"))]

mod support;

use bpf_loader::Error;
use bpf_loader::bytes::Endian;
use bpf_loader::object::ObjectSpec;
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
