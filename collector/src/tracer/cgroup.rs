//! Where programs on packets are attached: a control group of version 2.

use bpf_loader::text;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// `CGROUP2_SUPER_MAGIC` (include/uapi/linux/magic.h).
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// The directory of a filter's control group if it is one of version 2; otherwise that of all.
///
/// # Errors
///
/// None is mounted; the directory cannot be opened.
pub(crate) fn directory(filter: Option<&Path>) -> Result<File> {
    if let Some(path) = filter {
        let directory = File::open(path).map_err(|e| bad(path, &e.to_string()))?;
        let magic = rustix::fs::fstatfs(&directory).map_err(|e| bad(path, &e.to_string()))?.f_type as u64;
        if magic == CGROUP2_MAGIC {
            return Ok(directory);
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(Error::io("/proc/self/mountinfo"))?;
    let none = || bad(Path::new("/sys/fs/cgroup"), "no file system of version 2 (cgroup2) is mounted");
    let root = root_mount(&mounts).ok_or_else(none)?;
    File::open(&root).map_err(|e| bad(&root, &e.to_string()))
}

fn bad(path: &Path, reason: &str) -> Box<Error> {
    Box::new(Error::Cgroup { path: path.to_owned(), reason: reason.to_owned() })
}

/// Where the hierarchy of version 2 is mounted with its root: `/`, or, seen from a control group's own namespace, as containers are in,
/// as many steps up as there are (cgroup_namespaces(7)).
fn root_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = text::split_once(line, " - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        (filesystem.split(' ').next() == Some("cgroup2") && is_root(root)).then(|| unescape(place))
    })
}

fn is_root(path: &str) -> bool {
    path.split('/').all(|step| step.is_empty() || step == "..")
}

/// Spaces, tabs, newlines and backslashes are octal there.
fn unescape(text: &str) -> PathBuf {
    let octal = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    octal.into_iter().fold(text.to_owned(), |text, (code, plain)| text::replace(&text, code, plain)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_version_2_is_found_among_mounts() {
        let v1 = "30 25 0:26 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n";
        let part = "31 25 0:27 /system.slice /mnt/part rw - cgroup2 cgroup2 rw\n";
        let v2 = "32 25 0:27 / /sys/fs/a\\040group rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(root_mount(&[v1, part, v2].concat()), Some("/sys/fs/a group".into()));
        assert_eq!(root_mount(&[v1, part].concat()), None);
        assert_eq!(root_mount("x\n - \n"), None);
        let from_container = "40 25 0:27 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(root_mount(from_container), Some("/sys/fs/cgroup".into()));
        let beside = "40 25 0:27 /../system.slice /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(root_mount(beside), None);
    }
}
