//! Links, and attachments by the older commands.

use std::os::fd::{AsFd, AsRawFd};

use bpf_sys::uapi::flags::BPF_F_ALLOW_MULTI;
use bpf_sys::{AttachType, Errno, Error, LinkDetail, ProgType, TaskFdType, link, prog};

use crate::{load, return_program};

#[test]
fn links_attach_tell_and_detach() {
    let Some(prog) = load(ProgType::RAW_TRACEPOINT, &return_program(0)) else { return };
    let missing = prog::raw_tracepoint_open(&prog, Some(c"no_such_tracepoint"), 0).unwrap_err();
    assert_eq!(missing, Error::Call { call: "bpf(BPF_RAW_TRACEPOINT_OPEN)", errno: Errno::ENOENT });
    let fd = prog::raw_tracepoint_open(&prog, Some(c"sched_process_fork"), 0).unwrap();
    let mut name = [0; 64];
    let info = link::info_name(&fd, &mut name).unwrap();
    assert_eq!(info.prog_id, prog::info(&prog).unwrap().id);
    assert!(name.starts_with(b"sched_process_fork\0"));
    let LinkDetail::RawTracepoint(detail) = info.detail() else { panic!("{:?}", info.detail()) };
    assert_eq!(detail.tp_name_len, 19);
    assert!(link::ids().any(|id| id == Ok(info.id)));
    let same = link::open_by_id(info.id).unwrap();
    assert_eq!(link::info(&same).unwrap().id, info.id);
    // Detaching at once is for other kinds of link.
    assert_eq!(link::detach(&fd).unwrap_err().errno(), Some(Errno::EOPNOTSUPP));
    assert!(matches!(link::info_arrays(&fd, &mut link::MultiArrays::default()), Err(Error::Argument { .. })));
    let other = load(ProgType::RAW_TRACEPOINT, &return_program(0)).unwrap();
    assert!(link::update(&fd, other.as_fd(), 0, None).is_err());

    let mut name = [0; 64];
    let task = link::task_fd_query(std::process::id(), fd.as_raw_fd() as u32, &mut name).unwrap();
    assert_eq!(task.prog_id, info.prog_id);
    assert_eq!(task.kind, TaskFdType::RAW_TRACEPOINT);
    assert!(name.starts_with(b"sched_process_fork\0"));
}

#[test]
fn a_cgroup_program_is_attached_queried_and_detached() {
    let Some(prog) = load(ProgType::CGROUP_SKB, &return_program(1)) else { return };
    let dir = Cgroup::new();
    let Some(cgroup) = dir.as_ref().and_then(|dir| std::fs::File::open(&dir.0).ok()) else {
        eprintln!("skip: no cgroup2 hierarchy that can be written");
        return;
    };
    let to = prog::Attach {
        target: link::Target::Fd(cgroup.as_fd()),
        attach_type: AttachType::CGROUP_INET_EGRESS,
        flags: BPF_F_ALLOW_MULTI,
        ..Default::default()
    };
    prog::attach(&prog, &to).unwrap();
    let mut ids = [0; 4];
    let mut arrays = prog::QueryArrays { prog_ids: &mut ids, ..Default::default() };
    let query = prog::query(to.target, to.attach_type, 0, &mut arrays).unwrap();
    assert_eq!((query.count, ids[0]), (1, prog::info(&prog).unwrap().id));
    let mut arrays = prog::QueryArrays { prog_ids: &mut ids, link_ids: &mut [0; 1], ..Default::default() };
    assert!(matches!(prog::query(to.target, to.attach_type, 0, &mut arrays), Err(Error::Length { .. })));
    prog::detach(Some(&prog), &prog::Attach { flags: 0, ..to.clone() }).unwrap();
    let query = prog::query(to.target, to.attach_type, 0, &mut prog::QueryArrays::default()).unwrap();
    assert_eq!(query.count, 0);

    let link = link::create(&link::LinkCreate {
        object: prog.as_fd(),
        target: to.target,
        attach_type: to.attach_type,
        flags: 0,
        options: link::LinkOptions::None,
    })
    .unwrap();
    assert!(matches!(
        link::info(&link).unwrap().detail(),
        LinkDetail::Cgroup(c) if c.cgroup_id != 0 && c.attach_type == AttachType::CGROUP_INET_EGRESS
    ));
    let other = load(ProgType::CGROUP_SKB, &return_program(0)).unwrap();
    link::update(&link, other.as_fd(), 0, Some(prog.as_fd())).unwrap();
    assert_eq!(link::info(&link).unwrap().prog_id, prog::info(&other).unwrap().id);
    link::detach(&link).unwrap();
}

/// A control group of its own, removed on drop.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    fn new() -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
        let root = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let dir = words.next()?;
            (words.next()? == "cgroup2").then(|| dir.to_owned())
        })?;
        let dir = std::path::Path::new(&root).join(format!("bpf-sys-test-{}", std::process::id()));
        std::fs::create_dir(&dir).ok()?;
        Some(Self(dir))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn iterators_need_an_iterator_program() {
    let Some(prog) = load(ProgType::RAW_TRACEPOINT, &return_program(0)) else { return };
    let link = prog::raw_tracepoint_open(&prog, Some(c"sched_process_fork"), 0).unwrap();
    let e = link::iter_create(&link).unwrap_err();
    assert_eq!(e, Error::Call { call: "bpf(BPF_ITER_CREATE)", errno: Errno::EINVAL });
}
