//! Maps: each type created, what is put in found again, by system calls and by programs.

mod arena_variables;
mod elements;
mod owners;
mod pins;
mod programs;

use std::path::{Path, PathBuf};
use std::process::Command;

use bpf_loader::Error;
use bpf_loader::kernel::RunningKernel;
use bpf_loader::load::Loaded;
use bpf_loader::map::Map;
use bpf_loader::target::RunningTarget;
use bpf_sys::MapType;

use crate::{is_not_for_machine, kernel_has, may_not, parse, skip};

const TYPES: &[u8] = include_bytes!("../../bpf/prebuilt/map_types.bpf.o");

fn load_types() -> Option<Loaded> {
    let loaded = parse(TYPES).plan(&RunningTarget::new()).unwrap().load(&RunningKernel::default()).unwrap();
    let refused = loaded.maps.iter().find_map(|(_, map)| map.as_ref().err().filter(|e| may_not(e)));
    match refused {
        Some(error) => skip(&format!("needs root: {error}")),
        None => Some(loaded),
    }
}

/// The map of that name, unless this kernel is too old for it.
fn map(name: &str) -> Option<Map> {
    let (_, map) = load_types()?.maps.into_iter().find(|(other, _)| other == name).unwrap();
    match map.map_err(|e| *e) {
        Err(error @ Error::Unsupported { min_kernel, .. }) if !kernel_has(min_kernel) => {
            skip(&error.to_string())
        }
        Err(error) if is_not_for_machine(&error) => skip(&error.to_string()),
        Err(error) => panic!("{name}: {error}"),
        Ok(map) => Some(map),
    }
}

fn map_of(map_type: MapType) -> Option<Map> {
    map(&format!("type_{}", map_type.0))
}

/// A file system of a type, mounted for a test.
struct Mount(PathBuf);

impl Mount {
    fn new(file_system: &str, name: &str) -> Option<Self> {
        let path = std::env::temp_dir().join(format!("bpf-loader-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let mounted = Command::new("mount").args(["-t", file_system, "none"]).arg(&path).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(path));
        }
        std::fs::remove_dir(&path).unwrap();
        skip(&format!("{file_system} cannot be mounted"))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
        std::fs::remove_dir(&self.0).unwrap();
    }
}

#[test]
fn every_type_is_created_or_newer_than_the_kernel() {
    let Some(loaded) = load_types() else { return };
    for (name, map) in &loaded.maps {
        match map.as_ref().map_err(Box::as_ref) {
            Ok(map) => {
                let spec_type = name.strip_prefix("type_").map(|number| MapType(number.parse().unwrap()));
                assert!(spec_type.is_none_or(|map_type| map_type == map.map_type()), "{name}");
                let min = map.map_type().min_kernel().unwrap();
                assert!(kernel_has(min), "{name} needs {min:?}, it says");
            }
            Err(error @ Error::Unsupported { min_kernel, .. }) => {
                assert!(!kernel_has(*min_kernel), "{name}: {error}");
                assert!(error.to_string().contains("needs Linux"), "{error}");
            }
            Err(error) if is_not_for_machine(error) => drop(skip::<()>(&error.to_string())),
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

#[test]
fn a_handle_fits_its_map_or_is_not_made() {
    use bpf_loader::map::{Array, Hash, PerCpuHash};
    let Some(hash) = map_of(MapType::HASH) else { return };
    let Err(Error::MapSize { what: "key", expected: 8, found: 4, .. }) =
        Hash::<u64, u64>::new(&hash).map_err(|e| *e)
    else {
        panic!("a key of another size");
    };
    let Err(Error::MapSize { what: "value", expected: 4, found: 8, .. }) =
        Hash::<u32, u32>::new(&hash).map_err(|e| *e)
    else {
        panic!("a value of another size");
    };
    let error = Array::<u64>::new(&hash).unwrap_err();
    assert_eq!(error.to_string(), "map type_1 is a BPF_MAP_TYPE_HASH, expected BPF_MAP_TYPE_ARRAY");
    assert!(matches!(PerCpuHash::<u32, u64>::new(&hash).map_err(|e| *e), Err(Error::MapType { .. })));
}

#[test]
fn a_map_is_found_among_all_by_its_id() {
    let Some(hash) = map_of(MapType::HASH) else { return };
    let info = hash.info().unwrap();
    let all: Result<Vec<_>, Box<Error>> = bpf_loader::walk::maps().collect();
    let all = all.unwrap();
    let (found, _) = all.iter().find(|(_, i)| i.id == info.id).expect("it is listed");
    assert_eq!((found.name.as_str(), found.map_type(), found.key_size()), ("type_1", MapType::HASH, 4));
    assert_eq!(Map::from_id(info.id).unwrap().info().unwrap().id, info.id);
    let clone = Map::from_fd(hash.try_clone().unwrap().fd.into()).unwrap();
    assert_eq!((clone.name.as_str(), clone.max_entries(), clone.flags()), ("type_1", 8, 0));
    // Types came with the map.
    let btfs: Result<Vec<_>, Box<Error>> = bpf_loader::walk::btfs().collect();
    assert!(info.btf_id != 0 && btfs.unwrap().iter().any(|(_, btf)| btf.id == info.btf_id));
}
