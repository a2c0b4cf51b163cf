//! What programs see of what user space sets, and the other way round.

use bpf_loader::kernel::RunningKernel;
use bpf_loader::load::Object;
use bpf_loader::map::{Arena, Array, MapOfMaps, PerCpuArray, ProgramArray, StackTraces};
use bpf_loader::ring::UserRing;
use bpf_loader::target::RunningTarget;
use bpf_loader::{Error, map::Map};
use bpf_sys::MapType;
use bpf_sys::prog::{TestRun, test_run};
use bpf_sys::uapi::flags::BPF_ANY;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::map_of;
use crate::{kernel_has, parse, permitted, skip};

const USE: &[u8] = include_bytes!("../../bpf/prebuilt/map_use.bpf.o");
const USER_RING: &[u8] = include_bytes!("../../bpf/prebuilt/user_ring.bpf.o");
const ARENA: &[u8] = include_bytes!("../../bpf/prebuilt/arena.bpf.o");

fn load(bytes: &[u8]) -> Option<Object> {
    let plan = parse(bytes).plan(&RunningTarget::new()).unwrap();
    permitted(plan.load(&RunningKernel::default()).unwrap().into_object())
}

fn run(object: &Object, program: &str, context: &mut [u8]) {
    let mut run = TestRun { ctx_in: context, ..Default::default() };
    test_run(&object.program(program).unwrap().fd, &mut run).unwrap();
}

#[test]
fn globals_before_and_after_loading() {
    if !kernel_has((5, 10)) {
        return skip("raw tracepoints cannot be run before Linux 5.10").unwrap_or(());
    }
    let mut spec = parse(USE);
    spec.set_global("step", &5u32.to_ne_bytes()).unwrap();
    let loaded = spec.plan(&RunningTarget::new()).unwrap().load(&RunningKernel::default()).unwrap();
    let Some(object) = permitted(loaded.into_object()) else { return };
    let (total, bytes) = (object.global::<u64>("total").unwrap(), object.global::<[u8; 3]>("bytes").unwrap());
    assert_eq!(total.get(), 100);
    bytes.set(&[1, 2, 8]).unwrap();
    run(&object, "use_maps", &mut []);
    assert_eq!((total.get(), bytes.get()), (105, [1, 9, 8]));
    total.set(&1000).unwrap();
    run(&object, "use_maps", &mut []);
    assert_eq!(total.get(), 1005);
    let step = object.global::<u32>("step").unwrap();
    assert_eq!(step.get(), 5);
    assert_eq!(step.set(&6), Err(Box::new(Error::ReadOnlyVariable { name: "step".into() })));
    assert!(matches!(
        object.global::<u32>("total").map_err(|e| *e),
        Err(Error::VariableSize { size: 8, given: 4, .. })
    ));
    assert!(matches!(object.global::<u32>("totals").map_err(|e| *e), Err(Error::NoSuchVariable { .. })));
}

#[test]
fn maps_by_program() {
    if !kernel_has((5, 10)) {
        return skip("raw tracepoints cannot be run before Linux 5.10").unwrap_or(());
    }
    let Some(object) = load(USE) else { return };
    let plan = parse(USE).plan(&RunningTarget::new()).unwrap();
    let (_, outer) = plan.maps.iter().find(|(_, map)| map.name == "outer").unwrap();
    let inner = outer.inner.as_ref().unwrap().create(&RunningKernel::default()).unwrap();
    let inner = Map::new("inner".into(), inner);
    let values = Array::<u32>::new(&inner).unwrap();
    values.set(0, &41).unwrap();
    let outer = MapOfMaps::<u32>::new(object.map("outer").unwrap()).unwrap();
    outer.set(&1, &inner, BPF_ANY).unwrap();

    run(&object, "use_maps", &mut []);
    run(&object, "use_maps", &mut []);
    assert_eq!(object.global::<u32>("inner_value").unwrap().get(), 42, "as found the second time");
    assert_eq!(values.get(0), Ok(Some(43)));

    let counts = PerCpuArray::<u32>::new(object.map("per_cpu").unwrap()).unwrap();
    assert_eq!(counts.get(1).unwrap().unwrap().iter().sum::<u32>(), 2);
    assert_eq!(counts.get(0).unwrap().unwrap().iter().sum::<u32>(), 0);

    let stacks = StackTraces::new(object.map("stacks").unwrap()).unwrap();
    let id = object.global::<i64>("stack_id").unwrap().get();
    let id = u32::try_from(id).expect("a stack");
    let frames = stacks.get(id).unwrap().expect("frames");
    assert!(!frames.is_empty() && frames.len() <= stacks.depth() && frames.iter().all(|&frame| frame != 0));
    assert!(stacks.ids().any(|found| found == Ok(id)));
    assert_eq!((stacks.delete(id), stacks.get(id)), (Ok(true), Ok(None)));

    let Some(table) = map_of(MapType::PROG_ARRAY) else { return };
    let (table, program) = (ProgramArray::new(&table).unwrap(), object.program("use_maps").unwrap());
    table.set(5, program).unwrap();
    assert_eq!(table.id(5), Ok(Some(bpf_sys::prog::info(&program.fd).unwrap().id)));
    assert_eq!((table.clear(5), table.id(5)), (Ok(true), Ok(None)));
}

#[test]
fn a_program_drains_the_user_ring() {
    if map_of(MapType::USER_RINGBUF).is_none() {
        return;
    }
    let Some(object) = load(USER_RING) else { return };
    let number = |name: &str| object.global::<u64>(name).unwrap().get();
    let mut ring = UserRing::open(&object.map("ring").unwrap().fd).unwrap();
    assert!(UserRing::open(&object.map("ring").unwrap().fd).is_err(), "one producer a process");

    run(&object, "drain", &mut []);
    assert_eq!(number("records"), 0);
    for value in [10u32, 20, 30] {
        assert_eq!(ring.send_value(&value), Ok(true));
        drop(ring.reserve(100).unwrap());
    }
    run(&object, "drain", &mut []);
    assert_eq!((number("records"), number("sum"), number("drained")), (3, 60, 3));
    assert_eq!(ring.discarded(), 3);

    // More than fits, many times: what the program gets and what is counted as not sent is all.
    let mut sent = 0;
    for round in 0..50u64 {
        for value in 0..100u32 {
            let mut record = [0; 60];
            record[..4].copy_from_slice(&value.to_ne_bytes());
            sent += u64::from(ring.send(&record).unwrap());
        }
        assert_eq!(sent + ring.full(), 100 * (round + 1));
        run(&object, "drain", &mut []);
        assert_eq!(number("records"), 3 + sent, "round {round}");
    }
    assert!(ring.full() > 0 && sent > 50);

    let mut fds = [PollFd::new(&ring, PollFlags::OUT)];
    assert_eq!(poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })), Ok(1), "writable when drained");
}

#[test]
fn a_program_and_user_space_share_an_arena() {
    if map_of(MapType::ARENA).is_none() {
        return;
    }
    let Some(object) = load(ARENA) else { return };
    let arena = Arena::new(object.map("arena").unwrap()).unwrap();
    let offset = bpf_sys::page_size() + 16;
    assert_eq!(arena.set(offset, &21u64), Some(()));
    let address = (arena.address() + offset) as u64;
    run(&object, "twice", &mut address.to_ne_bytes());
    assert_eq!(arena.get::<u64>(offset), Some(42));
}
