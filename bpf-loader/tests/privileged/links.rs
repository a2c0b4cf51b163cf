//! What can be done with a link.

use std::fs;
use std::path::PathBuf;

use bpf_loader::Error;
use bpf_loader::link::Link;
use bpf_sys::{Errno, LinkType};

use crate::permitted;
use crate::subject::{call_getppid, fires, load_with};
use crate::tracepoints::GETPPID;

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/tracepoint.bpf.o");

fn pin_path(name: &str) -> PathBuf {
    PathBuf::from(format!("/sys/fs/bpf/bpf-loader-{name}-{}", std::process::id()))
}

#[test]
fn a_pinned_link_outlives_its_handle_and_is_adopted() {
    let Some(subject) = load_with(OBJECT, "on_raw_tracepoint", &[("number", GETPPID)]) else { return };
    let Some(mut link) = permitted(subject.program().attach()) else { return };
    let info = link.info().unwrap();
    assert_eq!(info.link_type, LinkType::RAW_TRACEPOINT);
    let pin = pin_path("link");
    link.pin(&pin).unwrap();
    assert_eq!(link.pin_path(), Some(pin.as_path()));
    assert_eq!(*link.pin(&pin_path("other")).unwrap_err(), Error::AlreadyPinned { path: pin.clone() });
    drop(link);
    call_getppid(10);
    assert_eq!(subject.hits(), 10);
    let mut link = Link::from_pin(&pin).unwrap();
    assert_eq!(link.info().unwrap().id, info.id);
    link.unpin().unwrap();
    assert!(fs::metadata(&pin).is_err());
    assert_eq!(*link.unpin().unwrap_err(), Error::NotPinned);
    drop(link);
    // The kernel lets go of the pin's file a little later.
    let mut tries = 0;
    while bpf_sys::link::open_by_id(info.id).is_ok() {
        tries += 1;
        assert!(tries < 1000, "the link is still there");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    call_getppid(10);
    assert_eq!(subject.hits(), 10);
    assert_eq!(Link::from_pin(&pin).unwrap_err().errno(), Some(Errno::ENOENT));
}

#[test]
fn what_a_kind_of_link_cannot_is_said() {
    let Some(subject) = load_with(OBJECT, "on_raw_tracepoint", &[("number", GETPPID)]) else { return };
    let Some(mut link) = permitted(subject.program().attach()) else { return };
    // Programs of raw tracepoints are neither replaced nor detached but by closing.
    assert!(matches!(*link.update(subject.program()).unwrap_err(), Error::Kernel(_)));
    assert_eq!(link.detach().unwrap_err().errno(), Some(Errno::EOPNOTSUPP));
    assert!(link.iter().is_err());
    fires(&subject, link, call_getppid);
}
