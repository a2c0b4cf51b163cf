//! Container ids in control group paths.

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
        Some((hierarchy, fields.next()?))
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
