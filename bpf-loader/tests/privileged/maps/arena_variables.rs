//! Variables in an arena.

use bpf_loader::kernel::RunningKernel;
use bpf_loader::load::{LoadOptions, Object, Pinning};
use bpf_loader::map::{Arena, Map};
use bpf_loader::target::{RunningTarget, Target};
use bpf_sys::MapType;
use bpf_sys::prog::{TestRun, test_run};

use super::{Mount, map_of};
use crate::{parse, permitted};

const VARIABLES: &[u8] = include_bytes!("../../bpf/prebuilt/arena_variables.bpf.o");

fn load(pinning: Pinning<'_>) -> Option<Object> {
    let mut spec = parse(VARIABLES);
    spec.set_global("before", &100u64.to_ne_bytes()).unwrap();
    let arena = spec.map_mut("arena").unwrap();
    arena.pin_by_name = true;
    // So that it can be mapped again.
    arena.map_extra = if usize::BITS == 64 { 1 << 44 } else { 0x6000_0000 };
    let options = LoadOptions { pinning, ..LoadOptions::default() };
    let loaded = spec.plan(&RunningTarget::new()).unwrap().load_with(&RunningKernel::default(), &options);
    permitted(loaded.unwrap().into_object())
}

/// Counts once more; what has been counted then, which lies behind `before`: in the last of four pages where programs may name
/// it, else in the first.
fn count(object: &Object) -> Option<u64> {
    test_run(&object.program("count").unwrap().fd, &mut TestRun::default()).unwrap();
    let arena = Arena::new(object.map("arena").unwrap()).unwrap();
    let page = bpf_sys::page_size();
    let [first, last] = [8, 3 * page + 8].map(|at| arena.get::<u64>(at).unwrap());
    let counted = if RunningTarget::new().takes_far_places() { (0, last) } else { (first, 0) };
    assert_eq!((first, last), counted);
    assert_eq!(object.global::<u64>("counter").unwrap().get(), first + last);
    Some(first + last)
}

#[test]
fn variables_of_an_arena_have_their_values_once() {
    if map_of(MapType::ARENA).is_none() {
        return;
    }
    let Some(mount) = Mount::new("bpf", "arena") else { return };
    let Some(object) = load(Pinning::Directory(mount.path())) else { return };
    assert_eq!(count(&object), Some(107));
    drop(object);
    // What an earlier load left in a pinned arena stays.
    let Some(object) = load(Pinning::Directory(mount.path())) else { return };
    assert_eq!(count(&object), Some(207));
    drop(object);
    let pin = mount.path().join("arena");
    Map::from_pin(&pin).unwrap().unpin(&pin).unwrap();
    let Some(object) = load(Pinning::Ignored) else { return };
    assert_eq!(count(&object), Some(107));
}
