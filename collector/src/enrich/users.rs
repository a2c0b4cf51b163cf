//! Names of users.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::sorted::SortedMap;
use crate::symbolize::{Host, read_limited};

/// Bytes that are read of `/etc/passwd`.
const MAX_FILE: usize = 1 << 20;
/// Users that are kept.
const MAX_USERS: usize = 4096;
/// Bytes of a name that are kept: those that `useradd` allows, and some.
const MAX_NAME: usize = 64;

/// Numbers of users to names, as the host's `/etc/passwd` has them.
#[derive(Debug)]
pub(super) struct Users {
    path: PathBuf,
    names: SortedMap<u32, Arc<str>>,
    /// Of the file, when it was read.
    modified: Option<SystemTime>,
}

impl Users {
    pub(super) fn new(host: &Host) -> Self {
        Self { path: host.root.join("etc/passwd"), names: SortedMap::new(), modified: None }
    }

    /// The user's name, or the number where there is none.
    pub(super) fn name(&mut self, uid: u32) -> Arc<str> {
        if let Some(name) = self.names.get(&uid) {
            return Arc::clone(name);
        }
        // Somebody new: only where the file has changed can it be there.
        let modified = fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
        if modified != self.modified {
            self.modified = modified;
            self.names = parse(&read_limited(&self.path, MAX_FILE).unwrap_or_default());
        }
        let name = self.names.get(&uid).cloned().unwrap_or_else(|| uid.to_string().into());
        if self.names.len() < MAX_USERS {
            self.names.insert(uid, Arc::clone(&name));
        }
        name
    }
}

/// Lines `NAME:PASSWORD:UID:...`; of several names, the first counts, as for everyone else.
fn parse(text: &[u8]) -> SortedMap<u32, Arc<str>> {
    let mut names = SortedMap::new();
    for line in text.split(|&byte| byte == b'\n') {
        let mut fields = line.split(|&byte| byte == b':');
        let (Some(name), Some(_), Some(uid)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let uid = std::str::from_utf8(uid).ok().and_then(|uid| uid.parse().ok());
        let name = std::str::from_utf8(name).ok();
        let name = name.filter(|name| !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('#'));
        if let (Some(uid), Some(name), true) = (uid, name, names.len() < MAX_USERS) {
            names.entry(uid).or_insert_with(|| name.into());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_none_are_passed_over() {
        let text = b"root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:\n#off:x:7:7::\n:x:8:8\nshop:x:1000:1000\nx:y\n\xff:x:9:9\n\n";
        let names = parse(text);
        let mut names: Vec<_> = names.iter().map(|(uid, name)| (*uid, &**name)).collect();
        names.sort_unstable();
        assert_eq!(names, [(0, "root"), (1000, "shop")]);
    }

    #[test]
    fn a_user_without_a_name_is_a_number() {
        let host = Host { root: "/nonexistent".into(), ..Host::default() };
        let mut users = Users::new(&host);
        assert_eq!((&*users.name(4_000_000_000), &*users.name(0)), ("4000000000", "0"));
    }
}
