use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

#[test]
fn container_ids_of_every_runtime() {
    let with_id = [
        "0::/docker/ID",
        "0::/system.slice/docker-ID.scope",
        "0::/system.slice/docker-ID.scope/init.scope",
        "12:memory:/docker/ID\n11:cpu:/docker/ID\n0::/",
        "0::/kubepods/besteffort/pod0f0e0d0c-0b0a-0908-0706-050403020100/ID",
        "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_34.slice/cri-containerd-ID.scope",
        "0::/kubepods.slice/kubepods-pod12.slice/crio-ID.scope/container",
        "1:name=systemd:/system.slice/containerd.service/kubepods-burstable-pod12.slice:cri-containerd:ID",
        "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
        "0::/machine.slice/libpod-payload-ID",
        "0::/../../kubepods/podx/ID",
        "0::/docker/OTHER/kubelet/kubepods/podx/ID",
    ];
    for text in with_id {
        let text = text.replace("ID", ID).replace("OTHER", OTHER);
        assert_eq!(container_id(text.as_bytes()), Some(ID), "{text}");
    }
    let without = [
        "0::/",
        "0::/user.slice/user-0.slice/session-1.scope",
        "0::/system.slice/crio-conmon-ID.scope",
        "0::/docker/aID",
        "0::/docker/IDf",
        "0::/docker/0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF",
        "garbage",
        "",
    ];
    for text in without {
        let text = text.replace("ID", ID);
        assert_eq!(container_id(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn pods_with_both_drivers() {
    const UID: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";
    let of = |text: &str| pod_uid(text.replace("ID", ID).as_bytes());
    for text in [
        "0::/kubepods/besteffort/pod0f0e0d0c-0b0a-0908-0706-050403020100/ID",
        "0::/kubepods/pod0f0e0d0c-0b0a-0908-0706-050403020100",
        "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f0e0d0c_0b0a_0908_0706_050403020100.slice/cri-containerd-ID.scope",
        "1:cpu:/system.slice/containerd.service/kubepods-pod0f0e0d0c_0b0a_0908_0706_050403020100.slice:cri-containerd:ID",
        "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod0f0e0d0c_0b0a_0908_0706_050403020100.slice/crio-ID.scope/container",
    ] {
        assert_eq!(of(text).as_deref(), Some(UID), "{text}");
    }
    let fixed = "0::/kubepods/burstable/pod0123456789abcdef0123456789abcdef/ID";
    assert_eq!(of(fixed).as_deref(), Some("0123456789abcdef0123456789abcdef"));
    for text in [
        "0::/docker/ID",
        "0::/machine.slice/libpod-ID.scope",
        "0::/kubepods/podx/ID",
        "0::/kubepods/pod0f0e0d0c-0b0a-0908-0706-05040302010/ID",
        "0::/pod0f0e0d0c-0b0a-0908-0706-050403020100/ID",
        "",
    ] {
        assert_eq!(of(text), None, "{text}");
    }
}

#[test]
fn services_of_systemd() {
    assert_eq!(unit_cgroup("/system.slice/nginx.service"), Some("/system.slice/nginx.service"));
    let user = "/user.slice/user-1000.slice/user@1000.service/app.slice/app-editor.service/worker";
    assert_eq!(unit_cgroup(user), user.strip_suffix("/worker"));
    assert_eq!(unit_cgroup("/user.slice/user-0.slice/session-1.scope"), None);
    assert_eq!(unit_cgroup("/a.serviced"), None);
}

#[test]
fn the_main_cgroup() {
    assert_eq!(main_cgroup(b"1:cpu:/a\n0::/b\n"), Some(&b"/b"[..]));
    // From a container, whose own group is the root that it sees.
    assert_eq!(main_cgroup(b"0::/../../system.slice/a.service\n"), Some(&b"/system.slice/a.service"[..]));
    assert_eq!(main_cgroup(b"0::/..\n"), Some(&b""[..]));
    assert_eq!(main_cgroup(b"4:cpu:/a\n3:memory:/c\n"), Some(&b"/a"[..]));
    let hybrid = format!("4:cpu:/docker/{ID}\n0::/init.scope\n");
    assert_eq!(main_cgroup(hybrid.as_bytes()), Some(format!("/docker/{ID}").as_bytes()));
    assert_eq!(main_cgroup(b""), None);
}

#[test]
fn service_names() {
    let name = |text: &str| stated_service_name(text.as_bytes());
    assert_eq!(name("A=1\0OTEL_SERVICE_NAME=shop\0").as_deref(), Some("shop"));
    assert_eq!(name("OTEL_SERVICE_NAME=last, without a NUL").as_deref(), Some("last, without a NUL"));
    assert_eq!(
        name("OTEL_RESOURCE_ATTRIBUTES=a=b, service.name = my%20shop ,service.namex=n\0").as_deref(),
        Some("my shop")
    );
    // The variable of its own wins, wherever it stands; an empty one says nothing.
    assert_eq!(name("OTEL_RESOURCE_ATTRIBUTES=service.name=a\0OTEL_SERVICE_NAME=b\0").as_deref(), Some("b"));
    assert_eq!(name("OTEL_RESOURCE_ATTRIBUTES=service.name=a\0OTEL_SERVICE_NAME= \0").as_deref(), Some("a"));
    assert_eq!(name("OTEL_RESOURCE_ATTRIBUTES=service.name=100%,x=%zz\0").as_deref(), Some("100%"));
    assert_eq!(name("XOTEL_SERVICE_NAME=x\0PATH=/bin\0"), None);
    assert_eq!(name(""), None);
    let long = format!("OTEL_SERVICE_NAME={}\0", "é".repeat(300));
    assert_eq!(name(&long).unwrap().len(), 254);
    assert_eq!(stated_service_name(&b"OTEL_SERVICE_NAME=a\nb\xff\0"[..]).as_deref(), Some("ab\u{fffd}"));
}

#[test]
fn stat_with_a_hostile_name() {
    let text = b"42 (a) R 1 (b) S 7 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 0 0\n";
    assert_eq!(parse_stat(text), Some(Stat { comm: b"a) R 1 (b", parent: 7, start_ticks: 987_654 }));
    assert_eq!(parse_stat(b"42 (a"), None);
    assert_eq!(parse_stat(b"42 )a("), None);
    assert_eq!(parse_stat(b"42 (a) S 7"), None);
}

#[test]
fn namespace_pids_from_outside_in() {
    assert_eq!(namespace_pids(b"Name:\tx\nNSpid:\t100\t7\t1\nNSpgid:\t1\n"), [100, 7, 1]);
    assert_eq!(namespace_pids(b"Name:\tx\n"), [] as [u32; 0]);
}

#[test]
fn a_process_of_this_host() {
    let mut child =
        std::process::Command::new("sleep").arg("60").env("OTEL_SERVICE_NAME", "sleeper").spawn().unwrap();
    let host = Host::default();
    // Until it has executed, it is a copy of this process.
    let info = (0..500).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        read_process(&host, child.id()).filter(|info| info.process.service_name.is_some())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let info = info.unwrap();
    assert_eq!(info.process.comm.as_deref(), Some("sleep"));
    assert_eq!(info.process.service_name.as_deref(), Some("sleeper"));
    assert!(info.executable_name.is_some());
    assert!(info.process.executable_path.unwrap().starts_with('/'));
    assert_eq!(info.namespace_pids.first(), Some(&child.id()));
    assert!(info.start_ticks > 0 && info.cgroup.is_some());
    assert_eq!(read_process(&host, child.id()), None);
}
