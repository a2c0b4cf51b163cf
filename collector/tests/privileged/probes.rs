//! The probe manager, with objects of the loader's own.

use bpf_loader::target::RunningTarget;
use collector::probes::{ProbeError, ProbeManager};

use super::skip;

const STARTS: &[u8] = include_bytes!("../../../bpf-loader/examples/bpf/prebuilt/tracepoint.bpf.o");

fn manager() -> Option<ProbeManager> {
    let mut probes = ProbeManager::new();
    match probes.load("starts", STARTS, &RunningTarget::new()) {
        Err(ProbeError::Bpf(error))
            if error.errno() == Some(bpf_sys::Errno::EPERM) && !rustix::process::geteuid().is_root() =>
        {
            skip(&format!("probes: {error}"))
        }
        loaded => {
            loaded.unwrap();
            Some(probes)
        }
    }
}

#[test]
fn probes_are_attached_listed_and_detached() {
    let Some(mut probes) = manager() else { return };
    assert!(matches!(probes.load("starts", STARTS, &RunningTarget::new()), Err(ProbeError::NameTaken(_))));
    let first = probes.attach("starts", "count_start").unwrap();
    let second = probes.attach("starts", "count_start").unwrap();
    assert!(matches!(probes.attach("ends", "count_start"), Err(ProbeError::NoSuchObject(_))));
    assert!(probes.attach("starts", "count_end").is_err());

    let list = probes.list();
    assert_eq!((list.len(), probes.count()), (2, 2));
    assert_eq!((list[0].id, list[1].id), (first, second));
    assert_eq!(
        (&*list[0].object, &*list[0].program, &*list[0].section),
        ("starts", "count_start", "tracepoint/sched/sched_process_exec")
    );

    // Each start is counted by both, then by one, then by none.
    let counted = |probes: &ProbeManager| {
        std::process::Command::new("/proc/self/exe").arg("--list").output().unwrap();
        let entries = probes.map("starts", "starts").unwrap().entries().unwrap();
        let ours = entries.iter().find(|(name, _)| name.starts_with(b"exe\0"));
        ours.map_or(0, |(_, count)| u64::from_ne_bytes(count.as_slice().try_into().unwrap()))
    };
    let both = counted(&probes);
    assert!(both >= 2, "{both}");
    probes.detach(first).unwrap();
    assert!(matches!(probes.detach(first), Err(ProbeError::NoSuchProbe(_))));
    assert!(counted(&probes) > both);
    assert_eq!((probes.detach_all(), probes.count()), (1, 0));
    let before = counted(&probes);
    assert_eq!(counted(&probes), before);
    probes.unload("starts").unwrap();
    assert!(matches!(probes.map("starts", "starts"), Err(ProbeError::NoSuchObject(_))));
}

#[test]
fn maps_are_read_and_written_by_name() {
    let Some(probes) = manager() else { return };
    let maps = probes.maps();
    assert!(
        maps.iter().any(|(object, map)| *object == "starts" && map.name == "starts" && map.key_size == 16)
    );
    let starts = probes.map("starts", "starts").unwrap();
    let (key, value) = (*b"a name of sixtee", 7u64.to_ne_bytes());
    assert_eq!(starts.read(&key).unwrap(), None);
    starts.write(&key, &value).unwrap();
    assert_eq!(starts.read(&key).unwrap().as_deref(), Some(value.as_slice()));
    assert_eq!(starts.entries().unwrap(), [(key.to_vec(), value.to_vec())]);
    assert!(starts.delete(&key).unwrap() && !starts.delete(&key).unwrap());
    assert!(matches!(
        starts.read(b"short"),
        Err(ProbeError::Size { what: "key", expected: 16, given: 5, .. })
    ));
    assert!(matches!(starts.write(&key, b"short"), Err(ProbeError::Size { what: "value", expected: 8, .. })));
    assert!(probes.map("starts", "ends").is_err());
}
