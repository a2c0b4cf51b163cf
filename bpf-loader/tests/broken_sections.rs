//! Objects with a section that makes no sense: only what needs it suffers.

#[path = "support/mod.rs"]
mod support;

use bpf_loader::Error;
use bpf_loader::object::ObjectSpec;
use bpf_loader::plan::LoadPlan;
use object::{Object as _, ObjectSection as _};
use support::MadeUp;

/// Its programs use `.bss`.
const OBJECT: &[u8] = include_bytes!("bpf/prebuilt/tracepoint.bpf.o");

fn plan<'a>(spec: &ObjectSpec<'a>) -> LoadPlan<'a> {
    spec.plan_programs(&MadeUp::new(), |p| p.name == "on_tracepoint").unwrap()
}

/// The object with the first bytes of a section overwritten.
fn with_section(name: &str, start: &[u8]) -> Vec<u8> {
    let file = object::File::parse(OBJECT).unwrap();
    let (at, _) = file.section_by_name(name).unwrap().file_range().unwrap();
    let mut bytes = OBJECT.to_vec();
    bytes[at as usize..][..start.len()].copy_from_slice(start);
    bytes
}

#[test]
fn an_intact_object_has_none() {
    let spec = ObjectSpec::parse(OBJECT).unwrap();
    assert!(spec.broken_sections.is_empty() && plan(&spec).btf.is_some());
    assert!(plan(&spec).programs[0].code.is_ok());
}

#[test]
fn a_license_that_is_no_text_is_the_programs_alone() {
    let bytes = with_section("license", b"\xff");
    let spec = ObjectSpec::parse(&bytes).unwrap();
    let plan = plan(&spec);
    assert!(
        matches!(plan.programs[0].code.as_ref().map_err(Box::as_ref), Err(Error::Section { .. })),
        "{:?}",
        plan.programs[0].code
    );
    assert!(plan.btf.is_some());
}

#[test]
fn what_says_nothing_of_instructions_is_the_programs_alone() {
    for (section, start) in [(".BTF.ext", &b"\0\0"[..]), (".BTF.ext", b"\x9f\xeb\x01\0\xff\xff\xff\xff")] {
        let bytes = with_section(section, start);
        let spec = ObjectSpec::parse(&bytes).unwrap();
        let plan = plan(&spec);
        let error = plan.programs[0].code.as_ref().unwrap_err();
        assert!(matches!(**error, Error::BtfMagic { .. } | Error::BtfHeader { .. }), "{error:?}");
        assert!(plan.btf.is_some() && !spec.maps.is_empty());
    }
}

#[test]
fn types_that_make_no_sense_are_missing_to_what_needs_them() {
    let bytes = with_section(".BTF", b"\0\0");
    let spec = ObjectSpec::parse(&bytes).unwrap();
    assert_eq!(spec.programs.len(), ObjectSpec::parse(OBJECT).unwrap().programs.len());
    let plan = plan(&spec);
    let error = plan.btf_error.as_ref().unwrap();
    assert!(matches!(**error, Error::BtfMagic { .. }), "{error:?}");
    assert_eq!(plan.programs[0].code.as_ref().unwrap_err(), error);
    // What CO-RE relocations there are is not told any more, so `.BTF.ext` counts as broken too.
    let broken: Vec<&str> = spec.broken_sections.iter().map(|(name, _)| *name).collect();
    assert_eq!(broken, [".BTF", ".BTF.ext"]);
    // Data sections need no types.
    assert!(spec.map(".bss").is_some());
}

#[test]
fn programs_that_no_types_say_anything_of_do_without() {
    let mut bytes = with_section(".BTF", b"\0\0");
    let name = bytes.windows(9).position(|name| name == b".BTF.ext\0").unwrap();
    bytes[name] = b'_';
    let spec = ObjectSpec::parse(&bytes).unwrap();
    let plan = plan(&spec);
    let code = plan.programs[0].code.as_ref().unwrap();
    assert!(code.func_info.is_empty() && plan.btf.is_none() && plan.btf_error.is_some());
}
