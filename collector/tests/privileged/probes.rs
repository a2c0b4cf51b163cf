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
    probes.load("again", STARTS, &RunningTarget::new()).unwrap();
    let first = probes.attach("starts", "count_start").unwrap();
    let second = probes.attach("again", "count_start").unwrap();
    // The kernel does not attach a program to the same event twice.
    assert!(matches!(probes.attach("starts", "count_start"), Err(ProbeError::Bpf(_))));
    assert!(matches!(probes.attach("ends", "count_start"), Err(ProbeError::NoSuchObject(_))));
    assert!(probes.attach("starts", "count_end").is_err());

    let list = probes.list();
    assert_eq!((list.len(), probes.count()), (2, 2));
    assert_eq!((list[0].id, list[1].id), (first, second));
    assert_eq!(
        (&*list[1].object, &*list[1].program, &*list[1].section),
        ("again", "count_start", "tracepoint/sched/sched_process_exec")
    );

    // Each start of this program, which nobody else starts under this name, is counted by whatever is attached.
    let copy = std::env::temp_dir().join(format!("probed-{}", std::process::id()));
    std::fs::copy("/proc/self/exe", &copy).unwrap();
    let name = copy.file_name().unwrap().as_encoded_bytes();
    let key = |at: usize| name.get(at).copied().filter(|_| at < 15).unwrap_or(0);
    let key: Vec<u8> = (0..16).map(key).collect();
    let start_and_count = |probes: &ProbeManager| {
        std::process::Command::new(&copy).arg("--list").output().unwrap();
        ["starts", "again"].map(|object| {
            let count = probes.map(object, "starts").unwrap().read(&key).unwrap();
            count.map_or(0, |count| u64::from_ne_bytes(count.try_into().unwrap()))
        })
    };
    assert_eq!(start_and_count(&probes), [1, 1]);
    probes.detach(first).unwrap();
    assert!(matches!(probes.detach(first), Err(ProbeError::NoSuchProbe(_))));
    assert_eq!(start_and_count(&probes), [1, 2]);
    assert_eq!((probes.detach_all(), probes.count()), (1, 0));
    assert_eq!(start_and_count(&probes), [1, 2]);
    std::fs::remove_file(&copy).unwrap();
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
