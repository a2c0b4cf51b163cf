//! Operations that programs implement: congestion controls of TCP.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use bpf_loader::Error;
use bpf_loader::kernel::RunningKernel;
use bpf_loader::load::{Loaded, Object};
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;

use crate::record::{cannot, fired};
use crate::subject::{attached, calls_from_programs};
use crate::{kernel_has, parse, permitted, read_global};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/tcp_congestion.bpf.o");

/// First Linux version with `.struct_ops.link`.
const LINKS: (u8, u8) = (6, 4);

fn load(spec: &ObjectSpec<'_>) -> Loaded {
    spec.plan(&RunningTarget::new()).unwrap().load(&RunningKernel::default()).unwrap()
}

/// The object, changed by `change`, without what this kernel cannot have.
fn load_possible(change: impl FnOnce(&mut ObjectSpec<'_>)) -> Option<Object> {
    let mut spec = parse(OBJECT);
    for map in ["first", "second"] {
        spec.map_mut(map).unwrap().autocreate = kernel_has(LINKS);
    }
    change(&mut spec);
    permitted(load(&spec).into_object())
}

fn is_available(name: &str) -> bool {
    let names = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap();
    names.split_whitespace().any(|n| n == name)
}

/// Sends something under this congestion control.
fn send(congestion_control: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut from = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    rustix::net::sockopt::set_tcp_congestion(&from, congestion_control).unwrap();
    let (mut to, _) = listener.accept().unwrap();
    let sender = std::thread::spawn(move || from.write_all(&[1; 100_000]).unwrap());
    let mut received = Vec::new();
    to.read_to_end(&mut received).unwrap();
    sender.join().unwrap();
    assert_eq!(received.len(), 100_000);
}

#[test]
fn operations_are_registered_until_their_link_is_dropped() {
    let Some(object) = load_possible(|_| ()) else { return };
    assert!(!is_available("bpf_plain"));
    let link = object.struct_ops("plain").unwrap().attach();
    let Some(link) = attached(link, calls_from_programs()) else { return };
    assert!(is_available("bpf_plain"));
    send("bpf_plain");
    assert!(read_global(OBJECT, &object, "plain_runs") > 0);
    assert_eq!(read_global(OBJECT, &object, "first_runs"), 0);
    fired(object.program("plain_avoid").unwrap());
    drop(link);
    assert!(!is_available("bpf_plain"));
}

#[test]
fn members_are_changed_before_planning() {
    let object = load_possible(|spec| {
        assert_eq!(spec.struct_ops_member("plain", "name"), Ok(&b"bpf_plain\0\0\0\0\0\0\0"[..]));
        spec.set_struct_ops_member("plain", "name", b"bpf_changed\0\0\0\0\0").unwrap();
        spec.set_struct_ops_program("plain", "cong_avoid", Some("second_avoid")).unwrap();
    });
    let Some(object) = object else { return };
    assert!(object.program("plain_avoid").is_err(), "no map names it any more");
    let link = object.struct_ops("plain").unwrap().attach();
    let Some(mut link) = attached(link, calls_from_programs()) else { return };
    send("bpf_changed");
    assert!(read_global(OBJECT, &object, "second_runs") > 0);
    assert!(!is_available("bpf_plain"));
    link.detach().unwrap();
    assert!(!is_available("bpf_changed"));
}

#[test]
fn links_change_from_one_map_to_another() {
    if !kernel_has(LINKS) {
        let loaded = load(&parse(OBJECT));
        let (_, first) = loaded.maps.into_iter().find(|(name, _)| name == "first").unwrap();
        match permitted(Ok(*first.unwrap_err())) {
            Some(Error::InMap { error, .. }) => {
                assert!(matches!(*error, Error::Unsupported { min_kernel: LINKS, .. }), "{error}");
            }
            other => panic!("{other:?}"),
        }
        return;
    }
    let Some(object) = load_possible(|_| ()) else { return };
    let (first, second) = (object.struct_ops("first").unwrap(), object.struct_ops("second").unwrap());
    let mut link = first.attach().unwrap();
    send("bpf_linked");
    let runs = read_global(OBJECT, &object, "first_runs");
    assert!(runs > 0);
    assert_eq!(read_global(OBJECT, &object, "second_runs"), 0);

    link.update_struct_ops(second).unwrap();
    send("bpf_linked");
    assert_eq!(read_global(OBJECT, &object, "first_runs"), runs);
    assert!(read_global(OBJECT, &object, "second_runs") > 0);
    link.update_struct_ops(first).unwrap();
    assert!(matches!(
        link.update_struct_ops(object.struct_ops("plain").unwrap()).map_err(|e| *e),
        Err(Error::NotABpfLink { .. })
    ));

    drop(link);
    assert!(!is_available("bpf_linked"));
    drop(second.attach().unwrap());
}

#[test]
fn what_no_created_map_names_is_an_error_only_if_asked_for() {
    let Some(object) = load_possible(|_| ()) else { return };
    let loaded: Vec<_> = object.programs.iter().map(|p| p.name.as_str()).collect();
    assert!(loaded.contains(&"ssthresh") && loaded.contains(&"plain_avoid"), "{loaded:?}");
    assert_eq!(loaded.contains(&"second_avoid"), kernel_has(LINKS));
    assert!(!loaded.contains(&"named_by_none") && !loaded.contains(&"of_no_kernel"), "{loaded:?}");

    let object = load_possible(|spec| spec.map_mut("plain").unwrap().autocreate = false).unwrap();
    assert!(object.struct_ops("plain").is_err() && object.program("plain_avoid").is_err());
}

#[test]
fn a_scheduler_is_there_until_its_link_is_dropped() {
    const SCHEDULER: &[u8] = include_bytes!("../bpf/prebuilt/scheduler.bpf.o");
    // Since Linux 6.12, where it is configured.
    let state = || std::fs::read_to_string("/sys/kernel/sched_ext/state");
    if state().is_err() {
        cannot(
            &["struct_ops.s"],
            "no structure of this kernel's has operations that may sleep: it is built without sched_ext",
        );
        return;
    }
    let Some(object) = permitted(load(&parse(SCHEDULER)).into_object()) else { return };
    let mut link = object.struct_ops("scheduler").unwrap().attach().unwrap();
    assert_eq!(read_global(SCHEDULER, &object, "initialized"), 1);
    fired(object.program("init").unwrap());
    assert_eq!(state().unwrap().trim(), "enabled");
    assert_eq!(std::fs::read_to_string("/sys/kernel/sched_ext/root/ops").unwrap().trim(), "bpf_loader");
    link.detach().unwrap();
    assert_eq!(state().unwrap().trim(), "disabled");
}
