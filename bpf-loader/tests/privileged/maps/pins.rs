//! Pins, and maps of earlier loads.

use bpf_loader::Error;
use bpf_loader::kernel::RunningKernel;
use bpf_loader::load::{LoadOptions, Loaded, Pinning};
use bpf_loader::map::{Array, Hash, Map, MapOfMaps};
use bpf_loader::target::RunningTarget;
use bpf_sys::MapType;
use bpf_sys::uapi::flags::BPF_ANY;

use super::{Mount, TYPES, map_of};
use crate::parse;

/// Loads with one map declared as pinned.
fn load(options: &LoadOptions<'_>, change: impl Fn(&mut bpf_loader::map_def::MapSpec<'_>)) -> Loaded {
    let mut spec = parse(TYPES);
    spec.maps.retain(|map| map.name == "thousand" || map.name == "mapped");
    let map = spec.maps.iter_mut().find(|map| map.name == "thousand").unwrap();
    map.pin_by_name = true;
    change(map);
    spec.plan(&RunningTarget::new()).unwrap().load_with(&RunningKernel::default(), options).unwrap()
}

fn thousand(loaded: Loaded) -> Result<Map, Box<Error>> {
    loaded.maps.into_iter().find(|(name, _)| name == "thousand").unwrap().1
}

#[test]
fn a_map_that_is_declared_as_pinned_is_found_again() {
    if map_of(MapType::HASH).is_none() {
        return;
    }
    let Some(mount) = Mount::new("bpf", "pins") else { return };
    let directory = mount.path().join("made");
    let options = LoadOptions { pinning: Pinning::Directory(&directory), ..Default::default() };
    let first = thousand(load(&options, |_| {})).unwrap();
    let pin = directory.join("thousand");
    assert!(pin.exists() && !directory.join("mapped").exists());
    Hash::<u32, u64>::new(&first).unwrap().set(&1, &11, BPF_ANY).unwrap();
    let id = first.info().unwrap().id;
    drop(first);
    let second = thousand(load(&options, |_| {})).unwrap();
    assert_eq!(second.info().unwrap().id, id);
    assert_eq!(Hash::<u32, u64>::new(&second).unwrap().get(&1, 0), Ok(Some(11)));

    let error = thousand(load(&options, |map| map.max_entries = 5)).unwrap_err();
    let said =
        format!("map thousand: the existing map pinned at {} has max_entries 1000, not 5", pin.display());
    assert_eq!(error.to_string(), said);
    let unpinned = LoadOptions { pinning: Pinning::Ignored, ..Default::default() };
    let other = thousand(load(&unpinned, |map| map.max_entries = 5)).unwrap();
    assert_ne!(other.info().unwrap().id, id);

    assert!(
        matches!(other.unpin(&pin).map_err(|e| *e), Err(Error::OtherMapPinned { found, .. }) if found == id)
    );
    Map::from_pin(&pin).unwrap().unpin(&pin).unwrap();
    assert!(!pin.exists());
    other.pin(&pin).unwrap();
    assert_eq!(Map::from_pin(&pin).unwrap().max_entries(), 5);
    other.unpin(&pin).unwrap();
}

#[test]
fn a_map_takes_the_place_of_a_declared_one() {
    let Some(array) = map_of(MapType::ARRAY) else { return };
    let existing = thousand(load(&unpinned(Vec::new()), |map| map.max_entries = 7)).unwrap();
    let loaded = load(&unpinned(vec![("thousand", &existing)]), |_| {});
    let map = thousand(loaded).unwrap();
    assert_eq!((map.info().unwrap().id, map.max_entries()), (existing.info().unwrap().id, 7));
    let error = thousand(load(&unpinned(vec![("thousand", &array)]), |_| {})).unwrap_err();
    assert!(
        matches!(*error, Error::MapReuse { what: "type", expected: 1, found: 2, pin: None, .. }),
        "{error}"
    );
    assert!(Array::<u64>::new(&array).is_ok());
}

#[test]
fn a_map_of_maps_that_is_reused_keeps_its_entries() {
    if map_of(MapType::ARRAY_OF_MAPS).is_none() {
        return;
    }
    // Its map `outer` has `first` in it from the start.
    let bytes = include_bytes!("../../../../fuzz/seeds/loader_object/maps.bpf.o");
    let load = |reuse| {
        let plan = parse(bytes).plan_programs(&RunningTarget::new(), |_| false).unwrap();
        plan.load_with(&RunningKernel::default(), &unpinned(reuse)).unwrap().into_object().unwrap()
    };
    let entry = |outer: &Map| MapOfMaps::<u32>::new(outer).unwrap().id(&1).unwrap();
    let first = load(Vec::new());
    let held = entry(first.map("outer").unwrap());
    assert_eq!(held, Some(first.map("first").unwrap().info().unwrap().id));
    let second = load(vec![("outer", first.map("outer").unwrap())]);
    assert_ne!(Some(second.map("first").unwrap().info().unwrap().id), held);
    assert_eq!(entry(second.map("outer").unwrap()), held);
}

fn unpinned<'o>(reuse: Vec<(&'o str, &'o Map)>) -> LoadOptions<'o> {
    LoadOptions { pinning: Pinning::Ignored, reuse }
}
