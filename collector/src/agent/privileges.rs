//! Gives up what the agent does not need once it traces.
//!
//! Capabilities belong to threads: [`Privileges::confined`] starts what starts threads, and [`Privileges::give_up`] is called by
//! the thread that traces, which inherits to what it starts later.

use bpf_loader::text::join;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs};

use crate::check::probe;

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
/// Only where nothing less serves; see [`Admin`].
const ADMIN: (CapabilitySet, &str) = (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN");

/// What CAP_SYS_ADMIN is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admin {
    /// It stands in for CAP_BPF and CAP_PERFMON, one of which is not held.
    Instead,
    /// The kernel refuses perf events without it, as Debian's and Ubuntu's do where `kernel.perf_event_paranoid` is above 2: all
    /// of them, those of kprobes, uprobes and tracepoints too.
    PerfEvents,
}

/// What is kept of what is permitted, as far as that alone tells.
fn kept(permitted: CapabilitySet) -> (CapabilitySet, Option<Admin>) {
    let keep = KEPT.iter().fold(CapabilitySet::empty(), |all, (capability, _)| all | *capability) & permitted;
    let tracing = CapabilitySet::BPF | CapabilitySet::PERFMON;
    if !permitted.contains(tracing) && permitted.contains(ADMIN.0) {
        return (keep | ADMIN.0, Some(Admin::Instead));
    }
    (keep, None)
}

/// Whether perf events can be opened with CAP_SYS_ADMIN alone; `opens` tries with these effective.
fn perf_needs_admin(
    permitted: CapabilitySet,
    keep: CapabilitySet,
    mut opens: impl FnMut(CapabilitySet) -> io::Result<bool>,
) -> io::Result<bool> {
    if keep.contains(ADMIN.0) || !permitted.contains(ADMIN.0) {
        return Ok(false);
    }
    // What is refused even so, by a seccomp filter perhaps, is nothing to keep it for.
    Ok(!opens(keep)? && opens(keep | ADMIN.0)?)
}

/// What is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privileges {
    held: CapabilitySet,
    keep: CapabilitySet,
    /// Where it may write with more than it would keep.
    foreign: Option<PathBuf>,
    admin: Option<Admin>,
}

impl Privileges {
    /// Looks at what this thread has, and needs in order to write to these files and folders later.
    ///
    /// # Errors
    ///
    /// The kernel does not let a thread change its own capabilities, as below some seccomp filters.
    pub fn look<'p>(writes: impl IntoIterator<Item = &'p Path>) -> io::Result<Self> {
        let held = capabilities(None)?;
        let (mut keep, mut admin) = kept(held.permitted);
        let opens = |effective| with(held, effective, || probe::cpu_clock().is_ok());
        if perf_needs_admin(held.permitted, keep, opens)? {
            keep |= ADMIN.0;
            admin = Some(Admin::PerfEvents);
        }
        let foreign = with(held, held.effective & keep, || {
            writes.into_iter().find(|path| !can_write(path)).map(Path::to_path_buf)
        })?;
        if foreign.is_some() {
            keep |= held.permitted & TO_WRITE.0;
        }
        Ok(Self { held: held.permitted, keep, foreign, admin })
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
        let names =
            KEPT.iter().chain([&ADMIN, &TO_WRITE]).filter(|(capability, _)| self.keep.contains(*capability));
        let names: Vec<&str> = names.map(|(_, name)| *name).collect();
        let mut text = match names.as_slice() {
            [] => "privileges: none".to_owned(),
            names => format!("privileges: only {} from here on", join(names, ", ")),
        };
        if let Some(path) = self.foreign.as_ref().filter(|_| self.keep.contains(TO_WRITE.0)) {
            text.push_str(&format!(", the last for {}", path.display()));
        }
        match self.admin {
            Some(Admin::Instead) => text.push_str("; CAP_SYS_ADMIN because CAP_BPF or CAP_PERFMON is not held"),
            Some(Admin::PerfEvents) => text.push_str(
                "; CAP_SYS_ADMIN because this kernel opens no perf events without it: kernel.perf_event_paranoid=2 would do",
            ),
            None if self.held.contains(ADMIN.0) => text.push_str(
                "; without CAP_SYS_ADMIN, bytes of TCP connections in other network namespaces are told when they end, and \
                 what a run of a program costs is measured in the first seconds alone",
            ),
            None => {}
        }
        text
    }
}

/// Does something with these of the thread's capabilities effective, and takes back the others.
fn with<T>(held: CapabilitySets, effective: CapabilitySet, work: impl FnOnce() -> T) -> io::Result<T> {
    set_capabilities(None, CapabilitySets { effective, ..held })?;
    let result = work();
    set_capabilities(None, held)?;
    Ok(result)
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
        assert_eq!(after.permitted.contains(ADMIN.0), privileges.admin.is_some());
        assert!(after.inheritable.is_empty());
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
        let mut privileges = Privileges { held: keep, keep, foreign: None, admin: None };
        assert_eq!(privileges.told(), "privileges: only CAP_BPF, CAP_PERFMON from here on");
        privileges.held |= ADMIN.0;
        assert!(privileges.told().contains("other network namespaces"));
        privileges.keep |= ADMIN.0;
        privileges.admin = Some(Admin::PerfEvents);
        let told = privileges.told();
        assert!(told.contains("CAP_PERFMON, CAP_SYS_ADMIN from") && told.contains("paranoid=2"), "{told}");
        assert!(!told.contains("other network namespaces"), "{told}");
        let none = CapabilitySet::empty();
        assert_eq!(
            Privileges { held: none, keep: none, foreign: None, admin: None }.told(),
            "privileges: none"
        );
    }

    #[test]
    fn what_may_stand_in_for_others_is_kept_where_they_are_not_held() {
        let (bpf, perfmon) = (CapabilitySet::BPF, CapabilitySet::PERFMON);
        for (permitted, keep, admin) in [
            (ADMIN.0, ADMIN.0, Some(Admin::Instead)),
            (ADMIN.0 | bpf, ADMIN.0 | bpf, Some(Admin::Instead)),
            (ADMIN.0 | perfmon | CapabilitySet::CHOWN, ADMIN.0 | perfmon, Some(Admin::Instead)),
            (ADMIN.0 | bpf | perfmon, bpf | perfmon, None),
            (bpf, bpf, None),
            (CapabilitySet::CHOWN, CapabilitySet::empty(), None),
        ] {
            assert_eq!(kept(permitted), (keep, admin), "{permitted:?}");
        }
    }

    #[test]
    fn perf_events_keep_what_they_need() {
        let keep = CapabilitySet::BPF | CapabilitySet::PERFMON;
        let all = keep | ADMIN.0;
        let needs = |held, keep, enough: fn(CapabilitySet) -> bool| {
            perf_needs_admin(held, keep, |effective| Ok(enough(effective))).unwrap()
        };
        // As Debian's kernels above level 2, all others, and below a seccomp filter.
        assert!(needs(all, keep, |effective| effective.contains(ADMIN.0)));
        assert!(!needs(all, keep, |effective| effective.contains(CapabilitySet::PERFMON)));
        assert!(!needs(all, keep, |_| false));
        assert!(!needs(keep, keep, |_| false), "not held");
    }
}
