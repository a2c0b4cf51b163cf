//! Gives up what the agent does not need once it traces.
//!
//! Capabilities belong to threads: [`Privileges::confined`] starts what starts threads, and [`Privileges::give_up`] is called by
//! the thread that traces, which inherits to what it starts later.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs};

/// What is kept, as far as it is held (capabilities(7)): tracers are attached again when a CPU comes, when the governor makes
/// room and when the configuration changes, and processes start all the time.
const KEPT: [(CapabilitySet, &str); 7] = [
    // Programs, maps, and counters of programs that are attached later.
    (CapabilitySet::BPF, "CAP_BPF"),
    // Attaching them, and sampling CPUs that come.
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
    // Programs on control groups.
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    // Mappings and files of processes of others, below /proc.
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
    (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
    // Files behind mappings whose name is gone: /proc/PID/map_files, Linux 5.9.
    (CapabilitySet::CHECKPOINT_RESTORE, "CAP_CHECKPOINT_RESTORE"),
    // Addresses in /proc/kallsyms.
    (CapabilitySet::SYSLOG, "CAP_SYSLOG"),
];
/// Only where it writes to what belongs to somebody else.
const TO_WRITE: (CapabilitySet, &str) = (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE");

/// What is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privileges {
    held: CapabilitySet,
    keep: CapabilitySet,
    /// Where it may write with more than it would keep.
    foreign: Option<PathBuf>,
    /// Whether sampling takes CAP_SYS_ADMIN: Debian and Ubuntu let `kernel.perf_event_paranoid` be above 2, and ask for it then.
    paranoid: bool,
}

impl Privileges {
    /// Looks at what this thread has, and needs in order to write to these files and folders later.
    ///
    /// # Errors
    ///
    /// The kernel does not let a thread change its own capabilities, as below some seccomp filters.
    pub fn look<'p>(writes: impl IntoIterator<Item = &'p Path>) -> io::Result<Self> {
        let held = capabilities(None)?;
        let all = KEPT.iter().fold(CapabilitySet::empty(), |all, (capability, _)| all | *capability);
        let mut keep = held.permitted & all;
        // With the effective ones of later, and back again.
        set_capabilities(None, CapabilitySets { effective: held.effective & keep, ..held })?;
        let foreign = writes.into_iter().find(|path| !can_write(path)).map(Path::to_path_buf);
        set_capabilities(None, held)?;
        if foreign.is_some() {
            keep |= held.permitted & TO_WRITE.0;
        }
        let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
        let paranoid = paranoid.is_ok_and(|level| level.trim().parse::<i32>().is_ok_and(|level| level > 2));
        Ok(Self { held: held.permitted, keep, foreign, paranoid })
    }

    /// Gives up, in this thread and those that it will start, everything else, and the way back: `capset(2)`, and
    /// `PR_SET_NO_NEW_PRIVS` (Linux 3.5) for what they might execute.
    ///
    /// # Errors
    ///
    /// The kernel refuses, which it has no reason to.
    pub fn give_up(&self) -> io::Result<()> {
        set_no_new_privs(true)?;
        let sets = CapabilitySets {
            effective: self.keep,
            permitted: self.keep,
            inheritable: CapabilitySet::empty(),
        };
        Ok(set_capabilities(None, sets)?)
    }

    /// Does something without them. Threads that it starts have none of them either.
    ///
    /// # Errors
    ///
    /// As of [`give_up`](Self::give_up), or no thread is left.
    pub fn confined<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let confined = || self.give_up().map(|()| work());
            let thread = std::thread::Builder::new().spawn_scoped(scope, confined)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// What was given up, and what that costs; for people.
    pub fn told(&self) -> String {
        let names = KEPT.iter().chain([&TO_WRITE]).filter(|(capability, _)| self.keep.contains(*capability));
        let names: Vec<&str> = names.map(|(_, name)| *name).collect();
        let mut text = match names.as_slice() {
            [] => "privileges: none".to_owned(),
            names => format!("privileges: only {} from here on", names.join(", ")),
        };
        if let Some(path) = self.foreign.as_ref().filter(|_| self.keep.contains(TO_WRITE.0)) {
            text.push_str(&format!(", the last for {}", path.display()));
        }
        if self.loses_admin() {
            text.push_str(
                "; without CAP_SYS_ADMIN, bytes of TCP connections in other network namespaces are told when they end, and \
                 what a run of a program costs is measured in the first seconds alone",
            );
        }
        if self.loses_admin() && self.paranoid {
            text.push_str(
                "; kernel.perf_event_paranoid is above 2, so that sampling cannot start again: neither after a reload that changes it \
                 nor when a CPU comes",
            );
        }
        text
    }

    fn loses_admin(&self) -> bool {
        self.held.contains(CapabilitySet::SYS_ADMIN)
    }
}

/// Whether this thread may write there; true where there is nothing yet: what it makes is its own.
fn can_write(path: &Path) -> bool {
    let access = if path.is_dir() { Access::WRITE_OK | Access::EXEC_OK } else { Access::WRITE_OK };
    match accessat(CWD, path, access, AtFlags::EACCESS) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => true,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> CapabilitySets {
        capabilities(None).unwrap()
    }

    #[test]
    fn a_thread_that_gave_up_has_no_way_back() {
        let before = own();
        let privileges = Privileges::look([]).unwrap();
        assert_eq!(own(), before, "looking changes nothing");
        let (after, inherited, back) = privileges
            .confined(|| {
                let inherited = std::thread::spawn(own).join().unwrap();
                (own(), inherited, set_capabilities(None, before))
            })
            .unwrap();
        assert_eq!(own(), before, "other threads keep theirs");
        assert_eq!((after.permitted, after.effective), (privileges.keep, privileges.keep));
        assert_eq!(inherited, after);
        assert!(!after.permitted.contains(CapabilitySet::SYS_ADMIN) && after.inheritable.is_empty());
        if before.permitted.is_empty() {
            println!("skip: this user has no capabilities that could be given up");
            return;
        }
        assert!(before.permitted.contains(after.permitted));
        assert_eq!(back.is_err(), after.permitted != before.permitted);
    }

    #[test]
    fn foreign_folders_are_written_to_all_the_same() {
        if !own().effective.contains(CapabilitySet::DAC_OVERRIDE | CapabilitySet::CHOWN) {
            println!("skip: needs root, to make a folder of somebody else");
            return;
        }
        let folder = std::env::temp_dir().join(format!("ebpf-otlp-privileges-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let of = |path: &Path| Privileges::look([path]).unwrap();
        assert_eq!(of(&folder).foreign, None, "our own");
        assert_eq!(of(&folder.join("new")).foreign, None, "to be made");
        std::os::unix::fs::chown(&folder, Some(65534), None).unwrap();
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let privileges = of(&folder);
        assert_eq!(privileges.foreign.as_deref(), Some(&*folder));
        let creates = |privileges: &Privileges, name: &str| {
            let file = folder.join(name);
            privileges.confined(|| std::fs::write(&file, "x").is_ok()).unwrap()
        };
        assert!(creates(&privileges, "one") && !creates(&Privileges::look([]).unwrap(), "another"));
        assert!(
            privileges.told().contains("CAP_DAC_OVERRIDE")
                && privileges.told().contains("ebpf-otlp-privileges")
        );
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_kept_is_named() {
        let keep = CapabilitySet::BPF | CapabilitySet::PERFMON;
        let mut privileges = Privileges { held: keep, keep, foreign: None, paranoid: true };
        assert_eq!(privileges.told(), "privileges: only CAP_BPF, CAP_PERFMON from here on");
        privileges.held |= CapabilitySet::SYS_ADMIN;
        assert!(
            privileges.told().contains("other network namespaces")
                && privileges.told().contains("perf_event_paranoid")
        );
        let none = CapabilitySet::empty();
        assert_eq!(
            Privileges { held: none, keep: none, foreign: None, paranoid: true }.told(),
            "privileges: none"
        );
    }
}
