//! Programs of control groups.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;

use bpf_loader::Error;
use bpf_loader::attach::{CgroupOptions, Neighbour, Place, Position, Sharing, attached_programs};
use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::machine::Machine;
use bpf_loader::program::Program;
use bpf_sys::link::Target;
use bpf_sys::uapi::flags::BPF_F_ALLOW_MULTI;
use bpf_sys::{AttachType, Errno, LinkDetail};
use std::os::fd::AsFd;

use crate::namespace::in_namespace;
use crate::record::fired;
use crate::{kernel_has, load_possible, read_global, skip, thread_id};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/cgroup.bpf.o");

/// A control group of the test's own, for single threads, below the process's. Removed on drop.
struct Cgroup {
    dir: PathBuf,
    above: PathBuf,
}

impl Cgroup {
    fn new(name: &str) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let dir = words.next()?;
            (words.next()? == "cgroup2").then(|| PathBuf::from(dir))
        });
        let Some(root) = root else { return skip("there is no cgroup2 hierarchy") };
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("");
        let above = root.join(own);
        let dir = above.join(format!("bpf-loader-{name}-{}", std::process::id()));
        if let Err(e) = std::fs::create_dir(&dir) {
            return skip(&format!("needs root: {}: {e}", dir.display()));
        }
        let cgroup = Self { dir, above };
        std::fs::write(cgroup.dir.join("cgroup.type"), "threaded").unwrap();
        Some(cgroup)
    }

    fn open(&self) -> File {
        File::open(&self.dir).unwrap()
    }

    /// Does something in the group.
    fn inside(&self, act: impl FnOnce()) {
        let thread = thread_id().to_string();
        std::fs::write(self.dir.join("cgroup.threads"), &thread).unwrap();
        act();
        std::fs::write(self.above.join("cgroup.threads"), &thread).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::write(self.above.join("cgroup.threads"), thread_id().to_string());
        let _ = std::fs::remove_dir(&self.dir);
    }
}

fn runs(object: &Object, name: &str) -> u64 {
    read_global(OBJECT, object, &format!("{name}_runs"))
}

/// A program, and its counters with how often [`everything`] lets it run.
type Expected = (&'static str, &'static [(&'static str, u64)]);

const EXPECTED: &[Expected] = &[
    ("bind4", &[("bind4", 3)]),
    ("bind6", &[("bind6", 3)]),
    ("post_bind4", &[("post_bind4", 3)]),
    ("post_bind6", &[("post_bind6", 3)]),
    ("connect4", &[("connect4", 1)]),
    ("connect6", &[("connect6", 1)]),
    ("sendmsg4", &[("sendmsg4", 2)]),
    ("sendmsg6", &[("sendmsg6", 2)]),
    ("recvmsg4", &[("recvmsg4", 2)]),
    ("recvmsg6", &[("recvmsg6", 2)]),
    ("getpeername4", &[("getpeername4", 2)]),
    ("getpeername6", &[("getpeername6", 2)]),
    ("getsockname4", &[("getsockname4", 2)]),
    ("getsockname6", &[("getsockname6", 2)]),
    ("connect_unix", &[("connect_unix", 1)]),
    ("sendmsg_unix", &[("sendmsg_unix", 2)]),
    ("recvmsg_unix", &[("recvmsg_unix", 2)]),
    ("getpeername_unix", &[("getpeername_unix", 1)]),
    ("getsockname_unix", &[("getsockname_unix", 1)]),
    ("sysctl", &[("sysctl", 1)]),
    ("getsockopt", &[("getsockopt", 3)]),
    ("setsockopt", &[("setsockopt", 4)]),
    ("dev", &[("dev", 1)]),
    ("sock_ops", &[("active", 2), ("passive", 2)]),
    ("sock_create", &[("sock_create", 8)]),
    ("sock", &[("sock", 8)]),
    ("sock_release", &[("sock_release", 10)]),
];

/// Lets each hook happen (accepting asks for the peer's name, and makes a socket that is not created but released) as often as [`EXPECTED`] says.
fn everything() {
    for host in ["127.0.0.1", "[::1]"] {
        // Two sockets for datagrams and two for a connection; three of the four bind.
        let receiver = UdpSocket::bind(format!("{host}:5000")).unwrap();
        let sender = UdpSocket::bind(format!("{host}:5001")).unwrap();
        let mut buffer = [0; 8];
        for _ in 0..2 {
            sender.send_to(b"datagram", format!("{host}:5000")).unwrap();
            receiver.recv_from(&mut buffer).unwrap();
        }
        let listener = TcpListener::bind(format!("{host}:5002")).unwrap();
        let client = TcpStream::connect(format!("{host}:5002")).unwrap();
        client.peer_addr().unwrap();
        client.local_addr().unwrap();
        sender.local_addr().unwrap();
        let (mut server, _) = listener.accept().unwrap();
        (&client).write_all(b"stream").unwrap();
        server.read_exact(&mut buffer[..6]).unwrap();
    }

    let name = |suffix: &str| UnixAddr::from_abstract_name(format!("{}-{suffix}", thread_id())).unwrap();
    let receiver = UnixDatagram::bind_addr(&name("receiver")).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    let mut buffer = [0; 8];
    for _ in 0..2 {
        sender.send_to_addr(b"datagram", &name("receiver")).unwrap();
        receiver.recv_from(&mut buffer).unwrap();
    }
    let _listener = UnixListener::bind_addr(&name("listener")).unwrap();
    let client = UnixStream::connect_addr(&name("listener")).unwrap();
    client.peer_addr().unwrap();
    // A socket without a name is not asked for it.
    receiver.local_addr().unwrap();

    // Each read is a hook.
    let read = File::open("/proc/sys/kernel/ostype").unwrap().read(&mut buffer);
    assert_eq!(read.unwrap(), "Linux\n".len());
    File::open("/dev/null").unwrap();
    for _ in 0..3 {
        rustix::net::sockopt::socket_type(&sender).unwrap();
    }
    for _ in 0..2 {
        rustix::net::sockopt::set_socket_keepalive(&sender, true).unwrap();
    }
}

/// How often listening asks for a socket's name, which one security module (TOMOYO) does.
fn asked_by_listen(object: &Object, cgroup: &Cgroup) -> u64 {
    let program = object.program("getsockname4").unwrap();
    let _link = program.attach_cgroup(cgroup.open(), &CgroupOptions::default()).unwrap();
    cgroup.inside(|| drop(TcpListener::bind("127.0.0.1:0").unwrap()));
    runs(object, "getsockname4")
}

#[test]
fn every_hook_runs_its_program_as_often_as_it_is_passed() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        let Some(cgroup) = Cgroup::new("all") else { return };
        let asked = asked_by_listen(&object, &cgroup);
        assert!(asked <= 1, "{asked}");
        let (mut links, mut attached) = (Vec::new(), Vec::new());
        for (name, counters) in EXPECTED {
            // `load_possible` has seen that what is missing is of a later kernel.
            let Ok(program) = object.program(name) else { continue };
            let link = program.attach_cgroup(cgroup.open(), &CgroupOptions::default());
            let link = link.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(matches!(link.info().unwrap().detail(), LinkDetail::Cgroup(_)));
            attached.push((name, counters));
            links.push(link);
        }
        cgroup.inside(everything);
        let counts = |times| {
            for (name, counters) in &attached {
                for (counter, expected) in counters.iter() {
                    // The kernel runs these for no program of another width than its own.
                    let is_passed_over = name.ends_with("sockopt") && Machine::own() != Machine::running();
                    let expected = &if is_passed_over { 0 } else { *expected };
                    let by_listen = if name.starts_with("getsockname") { asked } else { 0 };
                    let before = if **name == "getsockname4" { asked } else { 0 };
                    let expected = before + times * (expected + by_listen);
                    assert_eq!(runs(&object, counter), expected, "{name}");
                }
            }
        };
        counts(1);
        // Outside, nothing runs.
        everything();
        counts(1);
        cgroup.inside(everything);
        counts(2);
        links.iter_mut().for_each(|link| link.detach().unwrap());
        cgroup.inside(everything);
        counts(2);
        attached.iter().for_each(|(name, _)| fired(object.program(name).unwrap()));
    });
}

#[test]
fn packets_of_a_group_are_seen() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        let Some(cgroup) = Cgroup::new("skb") else { return };
        let egress = Some(AttachType::CGROUP_INET_EGRESS);
        let links =
            [("skb_ingress", None), ("skb_egress", None), ("skb", egress)].map(|(name, attach_type)| {
                let options = CgroupOptions { attach_type, ..CgroupOptions::default() };
                object.program(name).unwrap().attach_cgroup(cgroup.open(), &options).unwrap()
            });
        cgroup.inside(|| assert_eq!(crate::namespace::datagrams(5), 5));
        drop(links);
        cgroup.inside(|| assert_eq!(crate::namespace::datagrams(5), 5));
        for name in ["skb_ingress", "skb_egress", "skb"] {
            assert_eq!(runs(&object, name), 5, "{name}");
            fired(object.program(name).unwrap());
        }
    });
}

fn bind4(cgroup: &File) -> Vec<u32> {
    let target = Target::Fd(cgroup.as_fd());
    attached_programs(target, AttachType::CGROUP_INET4_BIND, false).unwrap().program_ids
}

fn id(program: &Program) -> u32 {
    bpf_sys::prog::info(&program.fd).unwrap().id
}

#[test]
fn without_a_link_a_program_shares_or_not() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        let Some(cgroup) = Cgroup::new("older") else { return };
        let dir = cgroup.open();
        let [bind, other, forbid] = ["bind4", "first", "no_bind4"].map(|name| object.program(name).unwrap());
        let attach = |program: &Program, sharing, replaced| {
            program.attach_cgroup_without_link(&dir, None, sharing, replaced)
        };
        let mut link = attach(bind, Sharing::Exclusive, None).unwrap();
        cgroup.inside(|| drop(UdpSocket::bind("127.0.0.1:0").unwrap()));
        assert_eq!(runs(&object, "bind4"), 1);
        assert_eq!(attach(other, Sharing::Multi, None).unwrap_err().errno(), Some(Errno::EPERM));
        assert_eq!(bind.attach_cgroup(&dir, &Default::default()).unwrap_err().errno(), Some(Errno::EPERM));
        link.update(forbid).unwrap();
        assert_eq!(bind4(&dir), [id(forbid)]);
        cgroup.inside(|| drop(UdpSocket::bind("127.0.0.1:0").unwrap_err()));
        assert_eq!(runs(&object, "no_bind4"), 1);
        drop(link);
        assert_eq!(bind4(&dir), []);

        let overridden = attach(bind, Sharing::Override, None).unwrap();
        drop(overridden);
        let one = attach(bind, Sharing::Multi, None).unwrap();
        let mut two = attach(other, Sharing::Multi, None).unwrap();
        assert_eq!(bind4(&dir), [id(bind), id(other)]);
        let target = Target::Fd(dir.as_fd());
        let list = attached_programs(target, AttachType::CGROUP_INET4_BIND, true).unwrap();
        assert_eq!(list.program_ids, [id(bind), id(other)]);
        two.update(forbid).unwrap();
        assert_eq!(bind4(&dir), [id(bind), id(forbid)]);
        let three = attach(other, Sharing::Multi, Some(forbid)).unwrap();
        assert_eq!(bind4(&dir), [id(bind), id(other)]);
        assert!(two.detach().is_err(), "another took its place");
        drop((one, three));
        let list = attached_programs(target, AttachType::CGROUP_INET4_BIND, false).unwrap();
        assert_eq!(list.program_ids, []);
        assert_eq!(BPF_F_ALLOW_MULTI & list.flags, 0, "nothing is left");
    });
}

#[test]
fn links_of_a_group_have_an_order() {
    let Some(object) = load_possible(OBJECT) else { return };
    in_namespace(move || {
        let Some(cgroup) = Cgroup::new("order") else { return };
        let dir = cgroup.open();
        let [first, second, third] = ["first", "second", "third"].map(|name| object.program(name).unwrap());
        let attach = |program: &Program, position| -> bpf_loader::Result<Link> {
            let place = Place { position, expected_revision: 0 };
            program.attach_cgroup(&dir, &CgroupOptions { place, ..CgroupOptions::default() })
        };
        let preorder = CgroupOptions { preorder: true, ..CgroupOptions::default() };
        match first.attach_cgroup(&dir, &preorder).map_err(|e| *e) {
            // Stable kernels may have got it earlier.
            Ok(link) => drop(link),
            Err(Error::Unsupported { min_kernel: (6, 15), .. }) => assert!(!kernel_has((6, 15))),
            Err(e) => panic!("{e}"),
        }
        match attach(first, Position::First).map_err(|e| *e) {
            Ok(link) => drop(link),
            Err(Error::Unsupported { min_kernel: (6, 17), .. }) => {
                assert!(!kernel_has((6, 17)));
                return;
            }
            Err(e) => panic!("{e}"),
        }
        let three = attach(third, Position::Default).unwrap();
        let _one = attach(first, Position::First).unwrap();
        let two = attach(second, Position::Before(Neighbour::Link(&three))).unwrap();
        assert_eq!(bind4(&dir), [first, second, third].map(id));
        cgroup.inside(|| drop(UdpSocket::bind("127.0.0.1:0").unwrap()));
        assert_eq!(read_global(OBJECT, &object, "order"), 123);
        drop(two);
        let early = second.attach_cgroup(&dir, &preorder).unwrap();
        cgroup.inside(|| drop(UdpSocket::bind("127.0.0.1:0").unwrap()));
        assert_eq!(read_global(OBJECT, &object, "order"), 123_213);
        drop(early);
    });
}
