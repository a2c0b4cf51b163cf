//! The decoders' layouts are those of the structures in the objects' own BTF.

use bpf_loader::btf::{Btf, Kind};
use bpf_loader::object::ObjectSpec;
use bpf_programs::events::{
    Layout, disk, dns, filter, heap, memory, offcpu, process, profile, python, ring, sched, spans, syscalls,
    tcp, udp, unwind,
};

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

/// Every object, and the records of it that are decoded or written.
const RECORDS: &[(&[u8], &[Layout])] = &[
    (
        bpf_programs::PROFILE,
        &[
            profile::CountKey::LAYOUT,
            profile::Count::LAYOUT,
            profile::Region::LAYOUT,
            profile::CpuStats::LAYOUT,
            profile::Fill::LAYOUT,
            filter::TaskFilter::LAYOUT,
        ],
    ),
    (
        bpf_programs::PROFILE_UNWIND,
        &[
            profile::CountKey::LAYOUT,
            profile::Count::LAYOUT,
            profile::Region::LAYOUT,
            profile::CpuStats::LAYOUT,
            profile::Fill::LAYOUT,
            filter::TaskFilter::LAYOUT,
            unwind::Page::LAYOUT,
            unwind::Walk::LAYOUT,
            unwind::Missed::LAYOUT,
            unwind::MISSED_AT,
            unwind::MissedHead::LAYOUT,
            unwind::MISSED_PARTS,
            unwind::WalkEnds::LAYOUT,
            python::Python::LAYOUT,
            spans::SpanPlace::LAYOUT,
        ],
    ),
    (
        bpf_programs::OFFCPU,
        &[
            profile::CountKey::LAYOUT,
            profile::Count::LAYOUT,
            profile::Region::LAYOUT,
            profile::CpuStats::LAYOUT,
            profile::Fill::LAYOUT,
            filter::TaskFilter::LAYOUT,
            unwind::Page::LAYOUT,
            unwind::Walk::LAYOUT,
            unwind::Missed::LAYOUT,
            unwind::MISSED_AT,
            unwind::MissedHead::LAYOUT,
            unwind::MISSED_PARTS,
            unwind::WalkEnds::LAYOUT,
            spans::SpanPlace::LAYOUT,
            offcpu::WaitKey::LAYOUT,
            offcpu::Wait::LAYOUT,
            offcpu::Waited::LAYOUT,
        ],
    ),
    (
        bpf_programs::MEMORY,
        &[
            memory::SumKey::LAYOUT,
            memory::Sum::LAYOUT,
            memory::ThreadKey::LAYOUT,
            memory::ThreadFaults::LAYOUT,
            memory::OomKill::LAYOUT,
            memory::MemoryStats::LAYOUT,
            ring::Event::LAYOUT,
            ring::EventStats::LAYOUT,
        ],
    ),
    (
        bpf_programs::HEAP,
        &[
            Layout { size: heap::Stack::BY_FRAME_POINTERS, ..heap::Stack::LAYOUT },
            heap::Allocation::LAYOUT,
            Layout { name: "thread", size: heap::thread::BY_FRAME_POINTERS, fields: &[] },
            heap::HeapStats::LAYOUT,
        ],
    ),
    (
        bpf_programs::HEAP_UNWIND,
        &[
            Layout { size: heap::Stack::BY_TABLES, ..heap::Stack::LAYOUT },
            heap::Allocation::LAYOUT,
            Layout { name: "thread", size: heap::thread::BY_TABLES, fields: &[] },
            heap::HeapStats::LAYOUT,
            heap::MissedStack::LAYOUT,
            heap::MISSED_AT,
            unwind::MissedHead::LAYOUT,
            unwind::MISSED_PARTS,
            unwind::Page::LAYOUT,
            unwind::Walk::LAYOUT,
            unwind::WalkEnds::LAYOUT,
        ],
    ),
    (
        bpf_programs::TCP,
        &[
            tcp::Followed::LAYOUT,
            tcp::SeriesKey::LAYOUT,
            tcp::Endpoints::LAYOUT,
            tcp::Durations::LAYOUT,
            tcp::Series::LAYOUT,
            tcp::Connection::LAYOUT,
            tcp::Traffic::LAYOUT,
            tcp::Living::LAYOUT,
            tcp::Stats::LAYOUT,
        ],
    ),
    (
        bpf_programs::PROCESS,
        &[process::ExecFields::LAYOUT, process::ExitFields::LAYOUT, process::Counts::LAYOUT],
    ),
    (
        bpf_programs::SYSCALLS,
        &[
            syscalls::CellKey::LAYOUT,
            syscalls::CellCount::LAYOUT,
            syscalls::Cells::LAYOUT,
            syscalls::Start::LAYOUT,
            syscalls::CpuState::LAYOUT,
            syscalls::SlowCall::LAYOUT,
        ],
    ),
    (bpf_programs::DNS, &[dns::Message::LAYOUT, dns::Stats::LAYOUT]),
    (bpf_programs::UDP, &[udp::Sums::LAYOUT, udp::Stats::LAYOUT, udp::WaitingDrops::LAYOUT]),
    (bpf_programs::SCHED, &[sched::Sums::LAYOUT, sched::Counts::LAYOUT]),
    (
        bpf_programs::DISK,
        &[disk::SumsKey::LAYOUT, disk::Sums::LAYOUT, disk::Counts::LAYOUT, disk::RequestNote::LAYOUT],
    ),
];

#[test]
fn records_are_laid_out_as_decoded() {
    for (object, layouts) in RECORDS {
        let spec = ObjectSpec::parse(object).unwrap();
        let btf = spec.btf.as_ref().unwrap();
        layouts.iter().for_each(|layout| check(btf, *layout));
    }
}

#[test]
fn heads_of_process_events_are_a_structure_of_their_own() {
    let spec = ObjectSpec::parse(bpf_programs::PROCESS).unwrap();
    let own = process::Process::LAYOUT.fields.get(3..).unwrap();
    check(spec.btf.as_ref().unwrap(), Layout { fields: own, ..process::Process::LAYOUT });
}

#[test]
fn every_map_is_understood_and_every_program_waits_for_its_rung() {
    for (object, _) in RECORDS {
        let spec = ObjectSpec::parse(object).unwrap();
        assert!(spec.broken_maps.is_empty(), "{:?}", spec.broken_maps);
        for program in &spec.programs {
            assert!(program.kind.kind.is_some() && !program.autoload, "{}", program.name);
        }
    }
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

/// See `KEEP_OWN_STACK` in `heap.h`: without it, threads would share stacks on new kernels.
#[test]
fn every_program_of_the_heap_tracer_holds_a_tail_call() {
    // BPF_JMP | BPF_CALL, of BPF_FUNC_tail_call.
    let tail_call = [0x85, 0, 0, 0, 12, 0, 0, 0];
    for object in [bpf_programs::HEAP, bpf_programs::HEAP_UNWIND] {
        let programs = ObjectSpec::parse(object).unwrap().programs.len();
        let calls = object.windows(8).filter(|bytes| **bytes == tail_call).count();
        assert!(calls >= programs && programs > 0, "{calls} of {programs}");
    }
}
