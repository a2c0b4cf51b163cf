//! The decoders' layouts are those of the structures in the objects' own BTF.

use bpf_loader::btf::{Btf, Kind};
use bpf_loader::object::ObjectSpec;
use bpf_programs::events::{Layout, disk, process, profile, sched};

fn check(btf: &Btf<'_>, layout: Layout) {
    let id =
        btf.find_by_name(layout.name, Kind::Struct).unwrap_or_else(|| panic!("no struct {}", layout.name));
    let ty = btf.type_by_id(id).unwrap();
    assert_eq!(ty.size(), Some(layout.size as u32), "size of {}", layout.name);
    for field in layout.fields {
        let member = ty.members().find(|m| m.name().unwrap() == field.name);
        let member = member.unwrap_or_else(|| panic!("no member {}.{}", layout.name, field.name));
        let size = btf.resolve_size(member.type_id).unwrap();
        assert_eq!(
            (member.bit_offset as usize, size as usize),
            (field.offset * 8, field.size),
            "place of {}.{}",
            layout.name,
            field.name
        );
    }
}

#[test]
fn profile_records_are_laid_out_as_decoded() {
    let spec = ObjectSpec::parse(bpf_programs::PROFILE).unwrap();
    let btf = spec.btf.as_ref().unwrap();
    for layout in [
        profile::CountKey::LAYOUT,
        profile::Count::LAYOUT,
        profile::Region::LAYOUT,
        profile::CpuStats::LAYOUT,
        profile::Fill::LAYOUT,
    ] {
        check(btf, layout);
    }
}

#[test]
fn process_records_are_laid_out_as_decoded() {
    let spec = ObjectSpec::parse(bpf_programs::PROCESS).unwrap();
    let btf = spec.btf.as_ref().unwrap();
    for layout in [process::ExecFields::LAYOUT, process::ExitFields::LAYOUT, process::Counts::LAYOUT] {
        check(btf, layout);
    }
    // The head is a structure of its own.
    let own = process::Process::LAYOUT.fields.get(3..).unwrap();
    check(btf, Layout { fields: own, ..process::Process::LAYOUT });
}

#[test]
fn sched_records_are_laid_out_as_decoded() {
    let spec = ObjectSpec::parse(bpf_programs::SCHED).unwrap();
    let btf = spec.btf.as_ref().unwrap();
    for layout in [sched::Sums::LAYOUT, sched::Counts::LAYOUT] {
        check(btf, layout);
    }
    let sums = spec.map("processes").unwrap().inner.as_deref().unwrap();
    assert_eq!((sums.key_size, sums.value_size as usize), (4, sched::Sums::SIZE));
}

#[test]
fn disk_records_are_laid_out_as_decoded() {
    let spec = ObjectSpec::parse(bpf_programs::DISK).unwrap();
    let btf = spec.btf.as_ref().unwrap();
    for layout in [disk::SumsKey::LAYOUT, disk::Sums::LAYOUT, disk::Counts::LAYOUT, disk::RequestNote::LAYOUT]
    {
        check(btf, layout);
    }
    let sums = spec.map("sums").unwrap().inner.as_deref().unwrap();
    assert_eq!((sums.key_size as usize, sums.value_size as usize), (disk::SumsKey::SIZE, disk::Sums::SIZE));
}

#[test]
fn a_wrong_layout_is_noticed() {
    let spec = ObjectSpec::parse(bpf_programs::PROFILE).unwrap();
    let btf = spec.btf.as_ref().unwrap();
    let wrong = Layout { size: 32, ..profile::CountKey::LAYOUT };
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(btf, wrong))).is_err());
}

#[test]
fn every_program_and_map_of_the_profiler_is_understood() {
    let spec = ObjectSpec::parse(bpf_programs::PROFILE).unwrap();
    assert!(spec.broken_maps.is_empty(), "{:?}", spec.broken_maps);
    let programs: Vec<(&str, bool)> = spec.programs.iter().map(|p| (p.name, p.autoload)).collect();
    let expected =
        ["profile", "profile_by_kernel_types", "follow_fork", "forget_exit"].map(|name| (name, false));
    assert!(expected.iter().all(|e| programs.contains(e)) && programs.len() == 4, "{programs:?}");
    assert!(spec.programs.iter().all(|p| p.kind.kind.is_some()));
    let counts = spec.map("counts").unwrap().inner.as_deref().unwrap();
    assert_eq!(
        (counts.key_size as usize, counts.value_size as usize),
        (profile::CountKey::SIZE, profile::Count::SIZE)
    );
}
