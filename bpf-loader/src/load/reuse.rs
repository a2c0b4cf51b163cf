//! Whether an existing map can take the place of a declared one.

use bpf_sys::uapi::flags::{BPF_F_NUMA_NODE, BPF_F_RDONLY_PROG};
use bpf_sys::{MapInfo, MapType};

use crate::map_def::MapSpec;

/// What is another in an existing map: name, value in the declaration, value in the map.
pub(super) type Difference = (&'static str, u64, u64);

/// What programs that were compiled for the declared map rely on: type and sizes.
pub(super) fn shape_differs(spec: &MapSpec<'_>, map: &MapInfo) -> Option<Difference> {
    first_difference(&[
        ("type", spec.map_type.0, map.map_type.0),
        ("key_size", spec.key_size, map.key_size),
        ("value_size", spec.value_size, map.value_size),
    ])
}

/// All that the declaration says.
pub(super) fn differs(spec: &MapSpec<'_>, map: &MapInfo) -> Option<Difference> {
    // The kernel adds this one to each device map.
    let added = match spec.map_type {
        MapType::DEVMAP | MapType::DEVMAP_HASH => BPF_F_RDONLY_PROG & !spec.flags,
        _ => 0,
    };
    let flags = spec.flags | if spec.numa_node.is_some() { BPF_F_NUMA_NODE } else { 0 };
    let extra = (spec.map_extra != map.map_extra).then_some(("map_extra", spec.map_extra, map.map_extra));
    let rest = [("max_entries", spec.max_entries, map.max_entries), ("map_flags", flags, map.flags & !added)];
    shape_differs(spec, map).or_else(|| first_difference(&rest)).or(extra)
}

fn first_difference(values: &[(&'static str, u32, u32)]) -> Option<Difference> {
    let differs = values.iter().find(|(_, declared, found)| declared != found);
    differs.map(|&(what, declared, found)| (what, declared.into(), found.into()))
}

#[cfg(test)]
mod tests {
    use bpf_sys::MapType;

    use super::*;

    fn declared(map_type: MapType) -> MapSpec<'static> {
        let mut map = MapSpec::empty("m".into());
        map.map_type = map_type;
        (map.key_size, map.value_size, map.max_entries, map.flags) = (4, 8, 16, 1);
        map
    }

    fn existing(map_type: MapType) -> MapInfo {
        let mut map = MapInfo::default();
        map.map_type = map_type;
        (map.key_size, map.value_size, map.max_entries, map.flags) = (4, 8, 16, 1);
        map
    }

    #[test]
    fn each_member_counts() {
        assert_eq!(differs(&declared(MapType::HASH), &existing(MapType::HASH)), None);
        let with = |change: fn(&mut MapInfo)| {
            let (declared, mut map) = (declared(MapType::HASH), existing(MapType::HASH));
            change(&mut map);
            (differs(&declared, &map), shape_differs(&declared, &map))
        };
        let both = |difference| (Some(difference), Some(difference));
        assert_eq!(with(|m| m.map_type = MapType::LRU_HASH), both(("type", 1, 9)));
        assert_eq!(with(|m| m.key_size = 5), both(("key_size", 4, 5)));
        assert_eq!(with(|m| m.value_size = 9), both(("value_size", 8, 9)));
        assert_eq!(with(|m| m.max_entries = 17), (Some(("max_entries", 16, 17)), None));
        assert_eq!(with(|m| m.flags = 0), (Some(("map_flags", 1, 0)), None));
        assert_eq!(with(|m| m.map_extra = 1 << 32), (Some(("map_extra", 0, 1 << 32)), None));
    }

    #[test]
    fn what_the_kernel_adds_is_no_difference() {
        let (mut spec, mut map) = (declared(MapType::DEVMAP), existing(MapType::DEVMAP));
        map.flags |= BPF_F_RDONLY_PROG;
        assert_eq!(differs(&spec, &map), None);
        spec.flags |= BPF_F_RDONLY_PROG;
        assert_eq!(differs(&spec, &map), None);
        let (mut spec, mut map) = (declared(MapType::HASH), existing(MapType::HASH));
        map.flags |= BPF_F_RDONLY_PROG;
        let found = u64::from(map.flags);
        assert_eq!(differs(&spec, &map), Some(("map_flags", 1, found)), "of other maps it is one");
        map.flags = BPF_F_NUMA_NODE | 1;
        spec.numa_node = Some(0);
        assert_eq!(differs(&spec, &map), None);
    }
}
