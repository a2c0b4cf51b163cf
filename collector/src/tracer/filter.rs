//! Which tasks a tracer's programs look at: `task_filter.h`, which every object of ours includes.

use bpf_loader::text;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::map::{Global, Hash};
use bpf_loader::object::ObjectSpec;
use bpf_programs::events::filter;
use bpf_sys::uapi::flags::{BPF_ANY, BPF_F_NO_PREALLOC};
use bpf_sys::{Errno, map};

use crate::config::Filter;
use crate::enrich::parse_stat;
use crate::error::{Error, Result};

/// Inode number of the initial pid namespace (`PROC_PID_INIT_INO`).
const INITIAL_PID_NS: u64 = 0xefff_fffc;

/// The filter of one object's programs, changed while they run.
///
/// The kernel side has two filters. A change is written into the one that is not in use, which then becomes the one in use:
/// a program sees the old one or the new one, and nothing between.
#[derive(Debug)]
pub struct TaskFilter {
    pids: Hash<u32, u8>,
    filters: Global<[u8; 2 * filter::TaskFilter::SIZE]>,
    in_use: Global<u32>,
    children_lost: Global<u64>,
    /// Processes of the filter that are still there, and when they started.
    watched: Vec<(u32, Option<u64>)>,
    /// Follow forks and forget ends, where the object was loaded for that.
    follow: Vec<Link>,
}

/// Whether the filter, as its programs see it, needs the kernel's BTF: conditions on names and on cgroup v1, and numbers
/// in a pid namespace that is not the initial one, are found through fields of the kernel's structures.
///
/// # Errors
///
/// The cgroup cannot be looked at.
pub fn needs_kernel_types(filter: &Filter) -> Result<bool> {
    Ok(ResolvedFilter::resolve(filter)?.needs_kernel_types())
}

/// Prepares an object's filter before it is planned: what cannot be changed later.
///
/// # Errors
///
/// The object does not include `task_filter.h`, which is a defect; `/proc` cannot be read.
pub fn prepare(spec: &mut ObjectSpec<'_>, filter: &Filter) -> Result<()> {
    spec.set_global("pid_ns", &own_pid_ns()?.to_ne_bytes()).map_err(Error::load)?;
    let pids = spec.map_mut("pids");
    let pids = pids.ok_or_else(|| Error::no_map("pids"))?;
    // Mostly empty. Older kernels cannot allocate elements in every context that a process is born in.
    if bpf_sys::kernel_version() >= (6, 1) {
        pids.flags |= BPF_F_NO_PREALLOC;
    }
    if filter.children {
        pids.max_entries = MAX_FOLLOWED;
        for (name, _) in FOLLOWERS {
            let program = spec.program_mut(name);
            let missing = || Error::no_program(name);
            program.ok_or_else(missing)?.autoload = true;
        }
    }
    Ok(())
}

/// Processes that can be followed at once, children included. (Where none are followed, `pids` holds what a filter may name.)
const MAX_FOLLOWED: u32 = 4096;

/// Programs that follow forks, and the tracepoints that they run on. In this order: a child that is born between the two is
/// then followed.
const FOLLOWERS: [(&str, &str); 2] = [("follow_fork", "sched_process_fork"), FORGETTER];
const FORGETTER: (&str, &str) = ("forget_exit", "sched_process_exit");

impl TaskFilter {
    /// Takes hold of the filter of an object that is loaded, and lets everything pass.
    ///
    /// # Errors
    ///
    /// The object does not include `task_filter.h`, which is a defect; its memory cannot be mapped.
    pub fn new(object: &Object) -> Result<Self> {
        Ok(Self {
            pids: Hash::new(object.map("pids").map_err(Error::load)?).map_err(Error::load)?,
            filters: object.global("filters").map_err(Error::load)?,
            in_use: object.global("filter_in_use").map_err(Error::load)?,
            children_lost: object.global("children_lost").map_err(Error::load)?,
            watched: Vec::new(),
            follow: Vec::new(),
        })
    }

    /// Sets another filter. Programs see the old one or the new one.
    ///
    /// # Errors
    ///
    /// The filter names something that does not exist; it follows children, and the object was loaded with one that did not
    /// (see [`prepare`]). The old filter stays then.
    pub fn set(&mut self, object: &Object, filter: &Filter) -> Result<()> {
        let resolved = ResolvedFilter::resolve(filter)?;
        if filter.children && self.follow.is_empty() {
            self.follow = FOLLOWERS
                .into_iter()
                .map(|follower| attach_follower(object, follower))
                .collect::<Result<_>>()?;
        }
        // 0, and then 1 and 2 in turn.
        let next: u32 = if self.in_use.get() == 1 { 2 } else { 1 };
        let bit = 1u8 << (next - 1);
        for entry in self.pids.entries().collect::<Vec<_>>() {
            let (pid, bits) = entry.map_err(Error::kernel)?;
            if bits == bit {
                self.pids.delete(&pid).map_err(Error::kernel)?;
            } else if bits & bit != 0 {
                self.pids.set(&pid, &(bits & !bit), BPF_ANY).map_err(Error::kernel)?;
            }
        }
        for pid in &resolved.pids {
            let bits = self.pids.get(pid, 0).map_err(Error::kernel)?.unwrap_or(0);
            self.pids.set(pid, &(bits | bit), BPF_ANY).map_err(Error::kernel)?;
        }
        if let Some(CgroupFilter::V2(directory)) = &resolved.cgroup {
            let cgroups = &object.map("cgroups").map_err(Error::load)?.fd;
            let fd = directory.as_fd().as_raw_fd().to_ne_bytes();
            map::update(cgroups, &(next - 1).to_ne_bytes(), &fd, BPF_ANY).map_err(Error::kernel)?;
        }
        let mut filters = self.filters.get();
        let at = (next - 1) as usize * filter::TaskFilter::SIZE;
        if let Some(place) = filters.get_mut(at..at + filter::TaskFilter::SIZE) {
            place.copy_from_slice(&resolved.encode(filter.comm.as_deref()));
        }
        self.filters.set(&filters).map_err(Error::kernel)?;
        let in_use = if resolved.conditions(filter.comm.as_deref()) == 0 { 0 } else { next };
        self.in_use.set(&in_use).map_err(Error::kernel)?;
        self.watched = resolved.pids.into_iter().map(|pid| (pid, start_ticks(pid))).collect();
        Ok(())
    }

    /// Attaches what forgets ends anew, if it is attached: it then runs after what was attached meanwhile to the same
    /// tracepoint.
    ///
    /// # Errors
    ///
    /// The kernel does not take the program any more.
    pub fn forget_last(&mut self, object: &Object) -> Result<()> {
        if self.follow.pop().is_some() {
            self.follow.push(attach_again(|| attach_follower(object, FORGETTER))?);
        }
        Ok(())
    }

    /// Takes processes that are gone out of the filter, since their numbers will be others'. Call it now and then.
    ///
    /// # Errors
    ///
    /// The kernel does not take it.
    pub fn forget_ended(&mut self) -> Result<()> {
        let (ended, left): (Vec<_>, Vec<_>) =
            self.watched.iter().copied().partition(|&(pid, start)| has_ended(pid, start));
        self.watched = left;
        ended.iter().try_for_each(|(pid, _)| self.pids.delete(pid).map(drop)).map_err(Error::kernel)
    }

    /// Whether none of the processes that the filter names is left; false where it names none, or follows children.
    pub fn is_exhausted(&self, filter: &Filter) -> bool {
        !filter.pids.is_empty() && !filter.children && self.watched.is_empty()
    }

    /// Children that could not be followed, as there were too many at once.
    pub fn children_lost(&self) -> u64 {
        self.children_lost.get()
    }
}

/// Attaches what was attached until now. A program is attached to a tracepoint or function only once, and a child of this process that
/// is about to execute something may hold the old link a moment longer: then it is tried again, for a tenth of a second.
pub(super) fn attach_again<T>(mut attach: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..100 {
        match attach() {
            Err(error) if matches!(error.load_errno(), Some(Errno::EEXIST | Errno::EBUSY)) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            attached => return attached,
        }
    }
    attach()
}

fn attach_follower(object: &Object, (name, tracepoint): (&str, &str)) -> Result<Link> {
    object.program(name).and_then(|p| p.attach_raw_tracepoint(tracepoint)).map_err(Error::load)
}

/// When a process started, in clock ticks since boot.
pub(super) fn start_ticks(pid: u32) -> Option<u64> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?).map(|stat| stat.start_ticks)
}

/// Whether a process that started then has ended, though its parent may not have taken notice yet, or its number may be
/// another's by now.
fn has_ended(pid: u32, start: Option<u64>) -> bool {
    if start.is_some() && start_ticks(pid) != start {
        return true;
    }
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // After the name, which may hold anything: state is the first field, the number of threads the 18th. A first thread
    // that ended before the others is a zombie too.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let is_zombie = matches!(fields.next(), Some("Z" | "X"));
    let threads = fields.nth(16).and_then(|n| n.parse::<u32>().ok());
    is_zombie && threads.is_none_or(|n| n <= 1)
}

/// Inode of the agent's pid namespace; 0 for the initial one.
fn own_pid_ns() -> Result<u32> {
    let inode = fs::metadata("/proc/self/ns/pid").map_err(Error::io("/proc/self/ns/pid"))?.ino();
    Ok(if inode == INITIAL_PID_NS { 0 } else { inode as u32 })
}

/// A filter whose names are looked up.
#[derive(Debug)]
struct ResolvedFilter {
    pids: Vec<u32>,
    cgroup: Option<CgroupFilter>,
    has_comm: bool,
    pid_ns: u32,
}

#[derive(Debug)]
enum CgroupFilter {
    /// The directory, open.
    V2(File),
    /// The directory's inode number, which is its kernfs id, and the number of its hierarchy.
    V1 { id: u64, hierarchy: i32 },
}

/// `CGROUP2_SUPER_MAGIC` and `CGROUP_SUPER_MAGIC` (include/uapi/linux/magic.h).
const CGROUP2_MAGIC: u64 = 0x6367_7270;
const CGROUP1_MAGIC: u64 = 0x0027_e0eb;

impl ResolvedFilter {
    fn resolve(filter: &Filter) -> Result<Self> {
        filter.pids.iter().try_for_each(|&pid| check_process(pid))?;
        let cgroup = filter.cgroup.as_ref().map(|path| CgroupFilter::open(path)).transpose()?;
        Ok(Self { pids: filter.pids.clone(), cgroup, has_comm: filter.comm.is_some(), pid_ns: own_pid_ns()? })
    }

    fn needs_kernel_types(&self) -> bool {
        self.pid_ns != 0 || self.has_comm || matches!(self.cgroup, Some(CgroupFilter::V1 { .. }))
    }

    fn conditions(&self, comm: Option<&str>) -> u32 {
        let cgroup = match self.cgroup {
            Some(CgroupFilter::V2(_)) => filter::CGROUP_V2,
            Some(CgroupFilter::V1 { .. }) => filter::CGROUP_V1,
            None => 0,
        };
        let pids = if self.pids.is_empty() { 0 } else { filter::PIDS };
        pids | cgroup | if comm.is_some() { filter::COMM } else { 0 }
    }

    fn encode(&self, comm: Option<&str>) -> [u8; filter::TaskFilter::SIZE] {
        let (id, hierarchy) = match self.cgroup {
            Some(CgroupFilter::V1 { id, hierarchy }) => (id, hierarchy),
            // For programs that look at others than the current task. The hierarchy of v2 has number 0.
            Some(CgroupFilter::V2(ref directory)) => (directory.metadata().map_or(0, |m| m.ino()), 0),
            None => (0, 0),
        };
        filter::encode(self.conditions(comm), hierarchy, id, comm.unwrap_or_default().as_bytes())
    }
}

/// That there is such a process, and that the number is not one of its threads'.
pub(super) fn check_process(pid: u32) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|_| Error::NoSuchProcess(pid))?;
    let tgid = status.lines().find_map(|l| l.strip_prefix("Tgid:")?.trim().parse().ok());
    match tgid {
        Some(process) if process != pid => Err(Box::new(Error::IsThread { tid: pid, process })),
        _ => Ok(()),
    }
}

impl CgroupFilter {
    fn open(path: &Path) -> Result<Self> {
        let bad = |reason: String| Box::new(Error::Cgroup { path: path.to_owned(), reason });
        let directory = File::open(path).map_err(|e| bad(e.to_string()))?;
        let magic = rustix::fs::fstatfs(&directory).map_err(|e| bad(e.to_string()))?.f_type as u64;
        match magic {
            CGROUP2_MAGIC => Ok(Self::V2(directory)),
            CGROUP1_MAGIC => {
                let metadata = directory.metadata().map_err(|e| bad(e.to_string()))?;
                let hierarchy = v1_hierarchy(&metadata).ok_or_else(|| {
                    bad("its hierarchy has no controller, so tasks cannot be looked up in it: name a directory of one that has".into())
                })?;
                Ok(Self::V1 { id: metadata.ino(), hierarchy })
            }
            _ => Err(bad("it is not a directory of a cgroup file system".into())),
        }
    }
}

/// Whether a process is in the cgroup directory or below it, for programs that cannot tell; `None` if it is gone.
pub(super) fn is_in_cgroup(pid: u32, directory: &Path) -> Option<bool> {
    let hierarchy = match CgroupFilter::open(directory).ok()? {
        CgroupFilter::V2(_) => 0,
        CgroupFilter::V1 { hierarchy, .. } => hierarchy,
    };
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let of_process = groups.lines().find_map(|line| {
        let (number, rest) = line.split_once(':')?;
        (number.parse() == Ok(hierarchy)).then(|| rest.split_once(':'))?.map(|(_, path)| path)
    })?;
    // One that is ending has left its cgroup of version 1.
    if hierarchy != 0 && of_process == "/" {
        return None;
    }
    let directory = directory.canonicalize().ok()?;
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let mount = directory.ancestors().take_while(|path| device(path) == device(&directory)).last()?;
    Some(mount.join(of_process.trim_start_matches('/')).starts_with(&directory))
}

/// The number of the v1 hierarchy that a directory lies in: its device is that of a mount, whose options name a controller,
/// whose hierarchy `/proc/cgroups` tells.
fn v1_hierarchy(directory: &fs::Metadata) -> Option<i32> {
    let device = directory.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let options = mounts.lines().find_map(|line| {
        let (mount, filesystem) = text::split_once(line, " - ")?;
        let same = mount.split(' ').nth(2)? == format!("{major}:{minor}");
        same.then(|| filesystem.split(' ').nth(2)).flatten()
    })?;
    let controllers = fs::read_to_string("/proc/cgroups").ok()?;
    controllers.lines().find_map(|line| {
        let mut fields = line.split('\t');
        let (name, hierarchy) = (fields.next()?, fields.next()?.parse().ok()?);
        options.split(',').any(|option| option == name).then_some(hierarchy)
    })
}
