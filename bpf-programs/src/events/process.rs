//! What `process.bpf.c` writes.

use super::record;

record! {
    /// Begins every event: a process, and what the kernel knows of it. A fork's is the child.
    pub struct Process = "process", 56 {
        /// [`FORK`], [`EXEC`], [`EXIT`].
        kind: u32 = 0,
        /// Its number in the agent's pid namespace; 0 if it has none there.
        tgid: u32 = 4,
        /// When it happened, in nanoseconds of `CLOCK_BOOTTIME`.
        boot_ns: u64 = 8,
        /// When the process was started, in the same clock; 0 if not known.
        start_boot_ns: u64 = 16,
        /// Inode number of its cgroup v2.
        cgroup_id: u64 = 24,
        /// Its parent, by its number in the agent's pid namespace; 0 if it has none there.
        parent_tgid: u32 = 32,
        /// Its real user.
        uid: u32 = 36,
        /// Its name, zero-terminated.
        comm: [u8; 16] = 40,
    }
}

record! {
    /// What an exec adds.
    pub struct ExecFields = "exec_event", 256 {
        /// Bytes of the path, its terminating zero included.
        path_bytes: u32 = 56,
        /// What was executed, as it was named.
        path: [u8; 192] = 64,
    }
}

record! {
    /// What an end adds.
    pub struct ExitFields = "exit_event", 64 {
        /// As `wait(2)` has it.
        status: u32 = 56,
    }
}

record! {
    /// How many there were on one CPU since the start.
    pub struct Counts = "process_counts", 24 {
        /// New processes.
        forks: u64 = 0,
        /// Execs.
        execs: u64 = 8,
        /// Processes that ended.
        exits: u64 = 16,
    }
}

/// A new process.
pub const FORK: u32 = 1;
/// A process began to execute another file.
pub const EXEC: u32 = 2;
/// A process ended.
pub const EXIT: u32 = 3;

/// Something that happened to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// It came to be, as a copy of its parent.
    Fork(Process),
    /// It executes another file.
    Exec(Process, Path),
    /// It ended.
    Exit(Process, Status),
}

/// A path, as far as an event holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    bytes: [u8; 192],
    len: u8,
}

impl Path {
    /// Its bytes: at most 191.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether there is more of it.
    pub fn is_cut(&self) -> bool {
        usize::from(self.len) + 1 >= self.bytes.len()
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// What it passed to `exit`; `None` if a signal ended it.
    pub fn code(self) -> Option<u8> {
        (self.0 & 0x7f == 0).then_some((self.0 >> 8) as u8)
    }

    /// The signal that ended it.
    pub fn signal(self) -> Option<u8> {
        let signal = (self.0 & 0x7f) as u8;
        (signal != 0).then_some(signal)
    }

    /// Whether its memory was dumped.
    pub fn dumped_core(self) -> bool {
        self.0 & 0x80 != 0
    }
}

impl Lifecycle {
    /// Decodes an event; `None` if it is none, or there are too few bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let process = Process::decode(bytes)?;
        match process.kind {
            FORK => Some(Self::Fork(process)),
            EXEC => {
                let exec = ExecFields::decode(bytes)?;
                let len = exec.path_bytes.saturating_sub(1).min(exec.path.len() as u32 - 1);
                Some(Self::Exec(process, Path { bytes: exec.path, len: len as u8 }))
            }
            EXIT => Some(Self::Exit(process, Status(ExitFields::decode(bytes)?.status))),
            _ => None,
        }
    }

    /// The process.
    pub fn process(&self) -> &Process {
        match self {
            Self::Fork(process) | Self::Exec(process, _) | Self::Exit(process, _) => process,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(kind: u32, rest: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        [100u64, 90, 1].iter().for_each(|n| bytes.extend(n.to_ne_bytes()));
        [6u32, 1000].iter().for_each(|n| bytes.extend(n.to_ne_bytes()));
        bytes.extend(b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn an_exit_has_a_code_or_a_signal() {
        let exit = |status: u64| match Lifecycle::decode(&bytes(EXIT, &status.to_ne_bytes())) {
            Some(Lifecycle::Exit(process, status)) => {
                assert_eq!((process.tgid, process.parent_tgid, process.start_boot_ns), (7, 6, 90));
                (status.code(), status.signal(), status.dumped_core())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(exit(3 << 8), (Some(3), None, false));
        assert_eq!(exit(9), (None, Some(9), false));
        assert_eq!(exit(11 | 0x80), (None, Some(11), true));
        assert_eq!(Lifecycle::decode(&bytes(EXIT, &[0; 7])), None, "too short");
        assert_eq!(Lifecycle::decode(&bytes(4, &[0; 200])), None, "of no kind");
    }

    #[test]
    fn a_path_is_as_long_as_it_says_and_no_longer_than_there_is_room() {
        let exec = |len: u64| {
            let mut rest = len.to_ne_bytes().to_vec();
            rest.extend([b'a'; 192]);
            match Lifecycle::decode(&bytes(EXEC, &rest)) {
                Some(Lifecycle::Exec(_, path)) => (path.bytes().len(), path.is_cut()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(exec(0), (0, false));
        assert_eq!(exec(8), (7, false));
        assert_eq!(exec(192), (191, true));
        assert_eq!(exec(1000), (191, true));
    }

    #[test]
    fn a_fork_is_its_head() {
        let fork = Lifecycle::decode(&bytes(FORK, &[]));
        assert!(matches!(fork, Some(Lifecycle::Fork(Process { tgid: 7, uid: 1000, cgroup_id: 1, .. }))));
        assert_eq!(Lifecycle::decode(&[]), None);
    }
}
