//! Container ids in control group paths.

use bpf_loader::text;

/// Length of the ids that docker, containerd, CRI-O and podman give: SHA-256 in hexadecimal.
const ID_LENGTH: usize = 64;

/// The container id in the text of `/proc/PID/cgroup`: 64 lowercase hexadecimal digits that stand alone in a
/// component of a path, innermost first, as in `/docker/ID`, `/system.slice/docker-ID.scope`,
/// `/kubepods/besteffort/podUID/ID`, `/kubepods.slice/.../cri-containerd-ID.scope`, `crio-ID.scope`,
/// `libpod-ID.scope` and `...slice:cri-containerd:ID`. Monitors of containers (`crio-conmon-ID.scope`) are not
/// in them.
pub fn container_id(cgroups: &[u8]) -> Option<&str> {
    paths(cgroups).find_map(|(_, path)| id_in_path(path))
}

/// The uid of the Kubernetes pod in the text of `/proc/PID/cgroup`, with both drivers of kubelet: `/kubepods/burstable/podUID`
/// and `kubepods-burstable-podUID.slice`, whose dashes are underscores. Static pods have 32 hexadecimal digits.
pub fn pod_uid(cgroups: &[u8]) -> Option<String> {
    paths(cgroups).find_map(|(_, path)| pod_in_path(path))
}

fn pod_in_path(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    if !text::contains(path, "kubepods") {
        return None;
    }
    path.rsplit('/').find_map(|component| {
        let component = component.split(':').next().unwrap_or(component);
        let component = component.strip_suffix(".slice").unwrap_or(component);
        let start = text::rfind(component, "-pod").map(|at| at + 1).unwrap_or(0);
        let uid = component.get(start..)?.strip_prefix("pod")?.replace('_', "-");
        let is_dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let valid = match uid.len() {
            32 => uid.bytes().all(hex),
            36 => {
                uid.bytes().enumerate().all(|(at, byte)| if is_dash(at) { byte == b'-' } else { hex(byte) })
            }
            _ => false,
        };
        valid.then_some(uid)
    })
}

/// The control group of the systemd service that a path lies in: the path as far as the last component that names one.
pub fn unit_cgroup(path: &str) -> Option<&str> {
    let end = text::rfind(path, ".service")? + ".service".len();
    matches!(path.get(end..)?.chars().next(), None | Some('/')).then(|| path.get(..end))?
}

/// The path in the unified hierarchy (`0::PATH`), unless only another one names a container or there is no
/// unified one.
pub fn main_cgroup(cgroups: &[u8]) -> Option<&[u8]> {
    let unified = paths(cgroups).find(|(hierarchy, _)| *hierarchy == b"0").map(|(_, path)| path);
    let with_container = || paths(cgroups).map(|(_, path)| path).find(|path| id_in_path(path).is_some());
    match unified {
        Some(path) if id_in_path(path).is_some() => Some(path),
        _ => with_container().or(unified).or_else(|| paths(cgroups).next().map(|(_, path)| path)),
    }
}

/// Hierarchy number and path of each line `NUMBER:CONTROLLERS:PATH`.
fn paths(cgroups: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    cgroups.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.splitn(3, |&byte| byte == b':');
        let (hierarchy, _controllers) = (fields.next()?, fields.next()?);
        let mut path = fields.next()?;
        // Seen from a control group's own namespace, as containers are in, other groups' paths lead up first (cgroup_namespaces(7)).
        while let Some(rest) = path.strip_prefix(b"/..") {
            path = rest;
        }
        Some((hierarchy, path))
    })
}

fn id_in_path(path: &[u8]) -> Option<&str> {
    path.rsplit(|&byte| byte == b'/').find_map(|component| {
        if component.windows(6).any(|part| part == b"conmon") {
            return None;
        }
        let mut words = component.split(|byte| !byte.is_ascii_alphanumeric());
        let is_id = |word: &&[u8]| {
            word.len() == ID_LENGTH && word.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        words.find(is_id).and_then(|word| std::str::from_utf8(word).ok())
    })
}
