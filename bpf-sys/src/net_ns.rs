//! Network namespaces: which there are, and how to be in one for a moment.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::errno::{Errno, Error, Result};

/// A network namespace that is kept alive while this is.
#[derive(Debug)]
pub struct NetNs {
    inode: u64,
    file: File,
}

/// The namespaces of processes.
#[derive(Debug, Default)]
pub struct NetNsList {
    /// Each once.
    pub namespaces: Vec<NetNs>,
    /// Namespaces beyond the number that was asked for.
    pub left_out: usize,
}

impl NetNs {
    /// The namespaces that processes of this `/proc` are in, `most` of them at most. Those that no process is in, and those
    /// of processes that may not be looked at, are not among them.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read.
    pub fn list(most: usize) -> Result<NetNsList> {
        let mut list = NetNsList::default();
        // Sorted.
        let mut seen = Vec::new();
        let see = |seen: &mut Vec<u64>, inode: u64| match seen.binary_search(&inode) {
            Ok(_) => false,
            Err(at) => {
                seen.insert(at, inode);
                true
            }
        };
        let error = |e: std::io::Error| Error::Call {
            call: "open(/proc)",
            errno: Errno::from_raw(e.raw_os_error().unwrap_or(0)),
        };
        for entry in fs::read_dir("/proc").map_err(error)?.flatten() {
            let name = entry.file_name();
            if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                continue;
            }
            let path = entry.path().join("ns/net");
            // Its process may have ended, or be somebody else's.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if seen.binary_search(&metadata.ino()).is_ok() {
                continue;
            }
            if list.namespaces.len() >= most {
                see(&mut seen, metadata.ino());
                list.left_out += 1;
                continue;
            }
            // The number may be another process' by now, in a namespace that is known.
            let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.ino(), file)));
            if let Ok((inode, file)) = opened {
                if see(&mut seen, inode) {
                    list.namespaces.push(Self { inode, file });
                }
            }
        }
        Ok(list)
    }

    /// Its inode number.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Runs `work` on a thread of its own in this namespace: `setns(CLONE_NEWNET)`; on this thread where that is in it. A socket
    /// that it opens belongs to the namespace from then on, whatever thread uses it.
    ///
    /// # Errors
    ///
    /// `EPERM`: needs CAP_SYS_ADMIN, here and in the user namespace that the namespace belongs to, unless this thread is in it.
    /// `EAGAIN`: no more threads.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        // What is there already needs no privilege to get there.
        if fs::metadata("/proc/thread-self/ns/net").is_ok_and(|own| own.ino() == self.inode) {
            return Ok(work());
        }
        let enter = || {
            move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|e| Error::Call { call: "setns(CLONE_NEWNET)", errno: e.into() })
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, || enter().map(|()| work()));
            let thread = thread.map_err(|e| Error::Call {
                call: "clone",
                errno: Errno::from_raw(e.raw_os_error().unwrap_or(0)),
            })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn this_namespace_is_among_those_that_are_found_once() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let list = NetNs::list(1000).unwrap();
        assert_eq!(list.namespaces.iter().filter(|ns| ns.inode() == own).count(), 1);
        let distinct: HashSet<u64> = list.namespaces.iter().map(NetNs::inode).collect();
        assert_eq!(distinct.len(), list.namespaces.len());
        let none = NetNs::list(0).unwrap();
        assert!(none.namespaces.is_empty() && none.left_out > 0);
    }

    #[test]
    fn a_thread_enters_and_this_one_stays() {
        let own = || fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        let before = own();
        for ns in NetNs::list(8).unwrap().namespaces {
            match ns.enter(own) {
                Ok(inode) => assert_eq!(inode, ns.inode()),
                Err(error) => {
                    assert_ne!(ns.inode(), before, "nobody needs privileges to stay");
                    assert_eq!(error.errno(), Some(Errno::EPERM));
                }
            }
        }
        assert_eq!(own(), before);
    }
}
