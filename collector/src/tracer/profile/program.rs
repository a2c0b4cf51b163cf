//! The profiler's BPF program and its maps, sized for the machine and the configuration.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bpf_loader::kernel::RunningKernel;
use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::map_def::MapSpec;
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;
use bpf_programs::events::profile::CpuStats;
use bpf_sys::shared::SharedMapping;
use bpf_sys::uapi::flags::{BPF_ANY, BPF_F_NO_PREALLOC};
use bpf_sys::{MapFd, map};

use super::window::Window;
use crate::aggregate::ProcessId;
use crate::config::{Config, Filter};
use crate::cpus;
use crate::error::{Error, Result};

/// Memory for the stacks of both windows, over all CPUs.
const REGIONS_BUDGET: usize = 16 << 20;
/// Bounds of one CPU's region. The smallest holds some twenty of the deepest stacks.
const REGION_BYTES: std::ops::RangeInclusive<usize> = 16 << 10..=128 << 10;
/// Bounds of the tables' sizes, in entries.
const TABLE_ENTRIES: std::ops::RangeInclusive<u32> = 1024..=65536;
/// Inode number of the initial pid namespace (`PROC_PID_INIT_INO`).
const INITIAL_PID_NS: u64 = 0xefff_fffc;

/// The program in the kernel, not attached to anything yet.
#[derive(Debug)]
pub struct ProfileProgram {
    object: Object,
    /// Name of the program that samples.
    sampler: &'static str,
    windows: [Window; 2],
    filling: usize,
    /// The `.bss` section, where `active` lies.
    globals: SharedMapping,
    active_at: usize,
    children_lost_at: usize,
    stats: SharedMapping,
    cpus: u32,
    /// Whether tables allocate as they fill.
    pub tables_grow: bool,
    _follow: Vec<Link>,
}

/// How large things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    cpus: u32,
    region_bytes: usize,
    table_entries: u32,
}

impl Sizes {
    /// Regions share a budget. Tables hold what all CPUs can sample between two reads, twice.
    fn of(cpus: u32, frequency: u32, reads_per_second: u32) -> Self {
        let cpus = cpus.max(1);
        let share = REGIONS_BUDGET / 2 / cpus as usize;
        // A power of two at most the share; whole pages, so that regions fill the mapping.
        let region = if share.is_power_of_two() { share } else { share.next_power_of_two() / 2 };
        let samples = u64::from(cpus) * u64::from(frequency) / u64::from(reads_per_second.max(1));
        let entries =
            u32::try_from(samples * 2).unwrap_or(u32::MAX).checked_next_power_of_two().unwrap_or(u32::MAX);
        Self {
            cpus,
            region_bytes: region.clamp(*REGION_BYTES.start(), *REGION_BYTES.end()),
            table_entries: entries.clamp(*TABLE_ENTRIES.start(), *TABLE_ENTRIES.end()),
        }
    }
}

impl ProfileProgram {
    /// Loads the program for this configuration. Tables that allocate as they fill are tried first; kernels before 6.1
    /// want those of perf programs allocated whole.
    ///
    /// # Errors
    ///
    /// The kernel refuses, or the filter names something that does not exist.
    pub fn load(config: &Config, target: &RunningTarget, reads_per_second: u32) -> Result<Self> {
        let cpus = cpus::read_present_limit().map_err(Error::io("/sys/devices/system/cpu/present"))?;
        let sizes = Sizes::of(cpus, config.frequency, reads_per_second);
        let filter = ResolvedFilter::resolve(&config.filter)?;
        let growing = Self::load_with(config, &filter, target, sizes, true);
        match growing {
            Err(Error::Load(e)) if e.errno() == Some(bpf_sys::Errno::EINVAL) => {
                Self::load_with(config, &filter, target, sizes, false)
            }
            other => other,
        }
    }

    fn load_with(
        config: &Config,
        filter: &ResolvedFilter,
        target: &RunningTarget,
        sizes: Sizes,
        tables_grow: bool,
    ) -> Result<Self> {
        let mut spec = ObjectSpec::parse(bpf_programs::PROFILE).map_err(Error::Load)?;
        size_maps(&mut spec, sizes, tables_grow)?;
        set_globals(&mut spec, &config.filter, filter, sizes).map_err(Error::Load)?;
        let sampler = if filter.needs_kernel_types { "profile_by_kernel_types" } else { "profile" };
        let followers: &[&str] = if config.filter.children { &["follow_fork", "forget_exit"] } else { &[] };
        for name in followers.iter().copied().chain([sampler]) {
            spec.program_mut(name).ok_or_else(|| missing(name))?.autoload = true;
        }
        let (active_map, active_at) = place(&spec, "active")?;
        let (_, children_lost_at) = place(&spec, "children_lost")?;
        let kernel = RunningKernel::default();
        let plan = spec.plan(target).map_err(Error::Load)?;
        let object = plan.load(&kernel).and_then(|loaded| loaded.into_object()).map_err(Error::Load)?;

        let window = |index: usize| -> Result<Window> {
            let inner = |outer: &str| -> Result<MapFd> {
                let fd = inner_spec(&spec, outer)?.create(&kernel).map_err(Error::Load)?;
                set_inner(&object.map(outer).map_err(Error::Load)?.fd, index, &fd)?;
                Ok(fd)
            };
            Window::new(inner("counts")?, inner("stack_places")?, inner("regions")?, sizes.region_bytes)
        };
        let windows = [window(0)?, window(1)?];
        let shared = |name: &str, writable| -> Result<SharedMapping> {
            SharedMapping::array(&object.map(name).map_err(Error::Load)?.fd, writable)
                .map_err(|e| Error::Kernel(e.into()))
        };
        let mut program = Self {
            sampler,
            globals: shared(&active_map, true)?,
            active_at,
            children_lost_at,
            stats: shared("stats", false)?,
            windows,
            filling: 0,
            object,
            cpus: sizes.cpus,
            tables_grow,
            _follow: Vec::new(),
        };
        // In this order: a child that is born between the two is then followed.
        if config.filter.children {
            program.follow_children()?;
        }
        program.fill_filters(filter)?;
        Ok(program)
    }

    fn map(&self, name: &str) -> Result<&MapFd> {
        Ok(&self.object.map(name).map_err(Error::Load)?.fd)
    }

    fn fill_filters(&self, filter: &ResolvedFilter) -> Result<()> {
        for pid in &filter.pids {
            map::update(self.map("pids")?, &pid.to_ne_bytes(), &[1], BPF_ANY)
                .map_err(|e| Error::Kernel(e.into()))?;
        }
        if let Some(CgroupFilter::V2(directory)) = &filter.cgroup {
            let fd = directory.as_fd().as_raw_fd().to_ne_bytes();
            map::update(self.map("cgroup")?, &[0; 4], &fd, BPF_ANY).map_err(|e| Error::Kernel(e.into()))?;
        }
        Ok(())
    }

    /// Takes a process that is gone out of the filter: its number will be another's.
    ///
    /// # Errors
    ///
    /// The kernel does not take it.
    pub fn forget_pid(&self, pid: u32) -> Result<()> {
        map::delete(self.map("pids")?, &pid.to_ne_bytes()).map(drop).map_err(|e| Error::Kernel(e.into()))
    }

    fn follow_children(&mut self) -> Result<()> {
        for (name, tracepoint) in
            [("follow_fork", "sched_process_fork"), ("forget_exit", "sched_process_exit")]
        {
            let program = self.object.program(name).map_err(Error::Load)?;
            self._follow.push(program.attach_raw_tracepoint(tracepoint).map_err(Error::Load)?);
        }
        Ok(())
    }

    /// The program to attach to the sampling events.
    ///
    /// # Errors
    ///
    /// The object has none, which is a defect.
    pub fn sampler(&self) -> Result<&bpf_loader::program::Program> {
        self.object.program(self.sampler).map_err(Error::Load)
    }

    /// The ring buffer with fill records.
    ///
    /// # Errors
    ///
    /// The object has none, which is a defect.
    pub fn events(&self) -> Result<&MapFd> {
        self.map("events")
    }

    /// Makes the program fill the other window, waits until no CPU is still in the old one, and lends that.
    ///
    /// # Errors
    ///
    /// The kernel does not take the update that waits.
    pub fn swap(&mut self) -> Result<&mut Window> {
        let full = self.filling;
        self.filling ^= 1;
        let stored = self.globals.store_release_u32(self.active_at, self.filling as u32);
        stored.ok_or(Error::Load(bpf_loader::Error::Internal("place of `active`")))?;
        // Updating a map of maps returns only after every program that may have read the old value has ended
        // (`maybe_wait_bpf_programs`, Linux 5.0), so setting what is already there is a wait for our own flip.
        let window = &self.windows[full & 1];
        set_inner(self.map("counts")?, full, window.counts_map())?;
        Ok(&mut self.windows[full & 1])
    }

    /// What became of the program's runs on each CPU, since it was loaded.
    pub fn stats(&self) -> impl Iterator<Item = (u32, CpuStats)> + '_ {
        (0..self.cpus).filter_map(|cpu| {
            let mut bytes = [0; CpuStats::SIZE];
            self.stats.copy_out(cpu as usize * CpuStats::SIZE, &mut bytes)?;
            Some((cpu, CpuStats::decode(&bytes)?))
        })
    }

    /// Children that could not be followed, for want of room in the table of processes.
    pub fn children_lost(&self) -> u64 {
        self.globals.load_acquire_u64(self.children_lost_at).unwrap_or(0)
    }

    /// Runs that the kernel reports as missed (`recursion_misses`, Linux 5.12).
    ///
    /// # Errors
    ///
    /// The kernel does not tell about the program.
    pub fn recursion_misses(&self) -> Result<u64> {
        let info = bpf_sys::prog::info(&self.sampler()?.fd).map_err(|e| Error::Kernel(e.into()))?;
        Ok(info.recursion_misses().unwrap_or(0))
    }

    /// Instructions that the verifier walked (Linux 5.16; 0 before).
    ///
    /// # Errors
    ///
    /// The kernel does not tell about the program.
    pub fn verified_insns(&self) -> Result<u32> {
        let info = bpf_sys::prog::info(&self.sampler()?.fd).map_err(|e| Error::Kernel(e.into()))?;
        Ok(info.verified_insns)
    }

    /// Whether the kernel reads hash tables in batches, found by reading an empty one: for a program that is not attached.
    ///
    /// # Errors
    ///
    /// The tables cannot be read.
    pub fn has_batches(&mut self) -> Result<bool> {
        let mut samples = crate::aggregate::Samples::default();
        let window = self.swap()?;
        window.drain(&mut samples, |key, _| ProcessId { pid: key.tgid, started: 0 })?;
        Ok(window.has_batches())
    }

    /// Kernel memory of the maps in bytes, as far as the kernel says (`memlock` of their fdinfo).
    pub fn map_bytes(&self) -> u64 {
        let outer = self.object.maps.iter().map(|m| &m.fd);
        let inner = self.windows.iter().flat_map(Window::maps);
        outer.chain(inner).map(|fd| memlock(fd).unwrap_or(0)).sum()
    }
}

/// `memlock` of `/proc/self/fdinfo/FD`.
fn memlock(map: &MapFd) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd())).ok()?;
    text.lines().find_map(|l| l.strip_prefix("memlock:")?.trim().parse().ok())
}

fn set_inner(outer: &MapFd, index: usize, inner: &MapFd) -> Result<()> {
    let (key, value) = ((index as u32).to_ne_bytes(), inner.as_fd().as_raw_fd().to_ne_bytes());
    map::update(outer, &key, &value, BPF_ANY).map_err(|e| Error::Kernel(e.into()))
}

fn missing(what: &str) -> Error {
    Error::Load(bpf_loader::Error::NoSuchProgram { name: what.into() })
}

fn inner_spec<'s, 'a>(spec: &'s ObjectSpec<'a>, outer: &str) -> Result<&'s MapSpec<'a>> {
    let no_map = || Error::Load(bpf_loader::Error::NoSuchMap { name: outer.into() });
    spec.map(outer).and_then(|m| m.inner.as_deref()).ok_or_else(no_map)
}

/// Map and place of a global variable.
fn place(spec: &ObjectSpec<'_>, variable: &str) -> Result<(String, usize)> {
    let (map, offset) = spec.variable(variable).map_err(Error::Load)?;
    Ok((map.name.to_string(), offset as usize))
}

fn size_maps(spec: &mut ObjectSpec<'_>, sizes: Sizes, tables_grow: bool) -> Result<()> {
    let no_map = |name: &str| Error::Load(bpf_loader::Error::NoSuchMap { name: name.into() });
    let grow = if tables_grow { BPF_F_NO_PREALLOC } else { 0 };
    // A sample has two stacks.
    for (name, entries) in [("counts", sizes.table_entries), ("stack_places", sizes.table_entries * 2)] {
        let inner = spec.map_mut(name).and_then(|m| m.inner.as_deref_mut()).ok_or_else(|| no_map(name))?;
        inner.max_entries = entries;
        inner.flags |= grow;
    }
    let regions =
        spec.map_mut("regions").and_then(|m| m.inner.as_deref_mut()).ok_or_else(|| no_map("regions"))?;
    regions.max_entries = sizes.cpus;
    regions.value_size = sizes.region_bytes as u32;
    spec.map_mut("stats").ok_or_else(|| no_map("stats"))?.max_entries = sizes.cpus;
    spec.map_mut("pids").ok_or_else(|| no_map("pids"))?.flags |= grow;
    Ok(())
}

fn set_globals(
    spec: &mut ObjectSpec<'_>,
    filter: &Filter,
    resolved: &ResolvedFilter,
    sizes: Sizes,
) -> bpf_loader::Result<()> {
    spec.set_global("region_bytes", &(sizes.region_bytes as u64).to_ne_bytes())?;
    spec.set_global("hash_seed", &RandomState::new().hash_one(0u8).to_ne_bytes())?;
    spec.set_global("filter_pids", &[u8::from(!resolved.pids.is_empty())])?;
    if let Some(name) = &filter.comm {
        let mut comm = [0; 16];
        comm.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        spec.set_global("comm", &comm)?;
        spec.set_global("filter_comm", &[1])?;
    }
    match &resolved.cgroup {
        Some(CgroupFilter::V2(_)) => spec.set_global("filter_cgroup_v2", &[1])?,
        Some(CgroupFilter::V1 { id, hierarchy }) => {
            spec.set_global("cgroup_v1_id", &id.to_ne_bytes())?;
            spec.set_global("cgroup_v1_hierarchy", &hierarchy.to_ne_bytes())?;
        }
        None => {}
    }
    spec.set_global("pid_ns", &resolved.pid_ns.to_ne_bytes())
}

/// A filter whose names are looked up.
#[derive(Debug)]
struct ResolvedFilter {
    pids: Vec<u32>,
    cgroup: Option<CgroupFilter>,
    /// Inode of the agent's pid namespace; 0 for the initial one.
    pid_ns: u32,
    /// Whether the program must read the kernel's structures, and so needs its BTF.
    needs_kernel_types: bool,
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
        let pid_ns = fs::metadata("/proc/self/ns/pid").map_err(Error::io("/proc/self/ns/pid"))?.ino();
        let pid_ns = if pid_ns == INITIAL_PID_NS { 0 } else { pid_ns as u32 };
        let needs_kernel_types =
            pid_ns != 0 || filter.comm.is_some() || matches!(cgroup, Some(CgroupFilter::V1 { .. }));
        Ok(Self { pids: filter.pids.clone(), cgroup, pid_ns, needs_kernel_types })
    }
}

/// That there is such a process, and that the number is not one of its threads'.
fn check_process(pid: u32) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|_| Error::NoSuchProcess(pid))?;
    let tgid = status.lines().find_map(|l| l.strip_prefix("Tgid:")?.trim().parse().ok());
    match tgid {
        Some(process) if process != pid => Err(Error::IsThread { tid: pid, process }),
        _ => Ok(()),
    }
}

impl CgroupFilter {
    fn open(path: &Path) -> Result<Self> {
        let bad = |reason: String| Error::Cgroup { path: path.to_owned(), reason };
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

/// The number of the v1 hierarchy that a directory lies in: its device is that of a mount, whose options name a controller,
/// whose hierarchy `/proc/cgroups` tells.
fn v1_hierarchy(directory: &fs::Metadata) -> Option<i32> {
    let device = directory.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let options = mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_machine() {
        let small = Sizes::of(2, 99, 1);
        assert_eq!(small, Sizes { cpus: 2, region_bytes: 128 << 10, table_entries: 1024 });
        let large = Sizes::of(256, 99, 1);
        assert_eq!(large, Sizes { cpus: 256, region_bytes: 32 << 10, table_entries: 65536 });
        assert_eq!(Sizes::of(4096, 1000, 1).region_bytes, 16 << 10);
        assert_eq!(Sizes::of(0, 1, 1).cpus, 1);
    }
}
