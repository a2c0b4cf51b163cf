//! Loading inside a user namespace, with the rights that a BPF file system delegates to it (Linux 6.9).

use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bpf_loader::Error;
use bpf_loader::features::Features;
use bpf_loader::kernel::{Kernel, RunningKernel};
use bpf_loader::object::ProgramSpec;
use bpf_loader::target::RunningTarget;
use bpf_sys::map::MapCreate;
use bpf_sys::{Errno, MapType};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use rustix::thread::UnshareFlags;

/// The test that [`a_user_namespace_has_the_rights_delegated_to_it`] runs in the namespace, and what tells it that it does.
const INSIDE: &str = "tokens::inside";
const IS_INSIDE: &str = "TOKEN_TEST_INSIDE";

/// This test program again, root of a user namespace of its own, with a socket for its input.
fn spawn_inside(input: UnixStream) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", INSIDE, "--ignored", "--nocapture"]).env(IS_INSIDE, "");
    command.stdin(Stdio::from(OwnedFd::from(input))).stdout(Stdio::piped());
    let enter = || {
        // SAFETY: the process has one thread, and shares no descriptors.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)? };
        let map = rustix::fs::openat(CWD, c"/proc/self/uid_map", OFlags::WRONLY, Mode::empty())?;
        rustix::io::write(map, b"0 0 1")?;
        Ok(())
    };
    // SAFETY: between fork and exec, only system calls are made.
    unsafe { command.pre_exec(enter) };
    command.spawn()
}

fn send_fd(socket: &UnixStream, fd: BorrowedFd<'_>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    assert!(message.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(socket, &[IoSlice::new(b"fd")], &mut message, SendFlags::empty()).unwrap();
}

fn receive_fd(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; 2];
    recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut message, RecvFlags::empty()).unwrap();
    message.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

#[test]
fn a_user_namespace_has_the_rights_delegated_to_it() {
    if !crate::kernel_has((6, 9)) {
        // There is no token, and that is said.
        let directory = std::env::temp_dir();
        let refused = RunningKernel::delegated(Some(&directory)).unwrap_err();
        assert!(matches!(*refused, Error::Token { .. }) && refused.to_string().contains("6.9"), "{refused}");
        crate::skip::<()>("needs Linux 6.9: BPF tokens");
        return;
    }
    let (socket, input) = UnixStream::pair().unwrap();
    let mut child = match spawn_inside(input) {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            crate::skip::<()>("needs root: user namespace");
            return;
        }
        other => other.unwrap(),
    };
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let context = loop {
        let mut line = String::new();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the child said nothing");
        if let Some((_, number)) = line.split_once("context ") {
            break number.trim().parse().unwrap();
        }
    };
    // The file system belongs to the namespace of whoever opened it; only the initial one's root may delegate.
    let pid = Pid::from_child(&child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let context = pidfd_getfd(pidfd, context, PidfdGetfdFlags::empty()).unwrap();
    for right in ["delegate_cmds", "delegate_maps", "delegate_progs", "delegate_attachs"] {
        match fsconfig_set_string(context.as_fd(), right, "any") {
            Err(rustix::io::Errno::PERM) => {
                drop(socket);
                let _ = child.wait();
                crate::skip::<()>("needs root: delegation");
                return;
            }
            result => result.unwrap(),
        }
    }
    fsconfig_create(context.as_fd()).unwrap();
    let made = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    send_fd(&socket, made.as_fd());
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
}

#[test]
#[ignore = "runs inside a namespace that another test makes"]
fn inside() {
    // Run by hand, there is nothing to test.
    if std::env::var_os(IS_INSIDE).is_none() {
        return;
    }
    let context = fsopen(c"bpf", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    println!("context {}", context.as_raw_fd());
    let Some(mount) = receive_fd(std::io::stdin().as_fd()) else { return };
    let path = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));

    let map = MapCreate {
        map_type: MapType::HASH,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        ..Default::default()
    };
    let plain = RunningKernel::default();
    assert_eq!(plain.create_map(&map).unwrap_err().errno(), Some(Errno::EPERM));
    let nothing = RunningKernel::delegated(Some(Path::new("/proc"))).unwrap_err();
    assert!(matches!(*nothing, Error::Token { .. }), "{nothing}");
    // Asked for nothing: no token, and no error.
    let none = RunningKernel::delegated(Some(Path::new(""))).unwrap();
    assert!(none.create_map(&map).is_err());

    let kernel = RunningKernel::delegated(Some(&path)).unwrap();
    kernel.create_map(&map).unwrap();
    let features = Features::probe_through(&kernel);
    assert!(features.btf.func && features.btf.datasec && features.btf.enum64, "{features:?}");
    let target = RunningTarget::new().with_features(features);
    let spec = crate::parse(include_bytes!("../bpf/prebuilt/tracepoint.bpf.o"));
    // Sleepable programs of tracepoints are younger than tokens.
    let old = |p: &ProgramSpec<'_>| p.kind.kind.is_some_and(|kind| !kind.sleepable);
    let loaded = spec.plan_programs(&target, old).unwrap().load(&kernel).unwrap();
    assert!(loaded.btf_error.is_none(), "{:?}", loaded.btf_error);
    let object = loaded.into_object().unwrap();
    assert!(!object.programs.is_empty());
}
