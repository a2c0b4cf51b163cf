//! A tracer's programs in the kernel: what all tracers that climb ladders do alike.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use bpf_loader::attach::CgroupOptions;
use bpf_loader::link::Link;
use bpf_loader::load::Object;
use bpf_loader::map::{Hash, PerCpuArray};
use bpf_loader::object::ObjectSpec;
use bpf_loader::program::Program;

use super::filter::{self, TaskFilter};
use super::ladder::{self, Attach, Chosen, Ladder, Prepare};
use super::{Overhead, Start, cause, cost};
use crate::config::Filter;
use crate::error::{Error, Result};

/// The rungs' names by [`Ladder::what`], as a search stands.
pub(crate) type Rungs<'a> = &'a dyn Fn(&str) -> Option<&'static str>;

/// An object with its filter and what is attached of it.
#[derive(Debug)]
pub(crate) struct Programs {
    links: Vec<Link>,
    running: bool,
    ladders: &'static [&'static Ladder],
    chosen: Vec<Chosen>,
    filter: TaskFilter,
    follows_children: bool,
    /// The control group that the filter named at first.
    cgroup: Option<PathBuf>,
    object: Object,
}

/// Attaches a program as its section says; those of control groups to the filter's, or to all.
fn attach(object: &Object, name: &str, cgroup: Option<&Path>) -> Result<Link> {
    let program = object.program(name).map_err(Error::load)?;
    if program.kind.section.starts_with("cgroup") {
        let directory = super::cgroup::directory(cgroup)?;
        return program.attach_cgroup(directory, &CgroupOptions::default()).map_err(Error::load);
    }
    attach_by_section(program)
}

/// Attaches a program as its section says. Before Linux 5.13, one at a function of the kernel can be attached only once: that
/// is found out at once, for a tracer that is paused has to be resumed.
pub(super) fn attach_by_section(program: &Program) -> Result<Link> {
    let attach = || program.attach().map_err(Error::load);
    if program.kind.section.starts_with("fentry") || program.kind.section.starts_with("fexit") {
        drop(attach()?);
        return filter::attach_again(attach);
    }
    attach()
}

impl Programs {
    /// As [`start_with`](Self::start_with), of programs that are all attached as their sections say.
    ///
    /// # Errors
    ///
    /// As [`start_with`](Self::start_with).
    pub fn start<T>(
        bytes: &[u8],
        ladders: &'static [&'static Ladder],
        start: &Start<'_>,
        prepare: impl FnMut(&mut ObjectSpec<'_>, Rungs<'_>) -> Result<()>,
        open: impl FnMut(&Object) -> Result<T>,
    ) -> Result<(Self, T)> {
        let cgroup = start.filter.cgroup.as_deref();
        let mut attach = |object: &Object, name: &str| attach(object, name, cgroup).map(|link| vec![link]);
        Self::start_with(bytes, ladders, start, prepare, open, &mut attach)
    }

    /// Climbs the ladders. `prepare` and `attach` are as of [`ladder::climb`]; `open` takes hold of the maps of an object that is about to
    /// be attached, and what it returns for the one that stays is returned. The filter is set before anything is attached.
    ///
    /// # Errors
    ///
    /// As of [`ladder::climb`]; [`Error::NoRung`] where no ladder has one; the filter names something that does not exist.
    pub fn start_with<T>(
        bytes: &[u8],
        ladders: &'static [&'static Ladder],
        start: &Start<'_>,
        mut prepare: impl FnMut(&mut ObjectSpec<'_>, Rungs<'_>) -> Result<()>,
        mut open: impl FnMut(&Object) -> Result<T>,
        attach: &mut Attach<'_>,
    ) -> Result<(Self, T)> {
        let opened = RefCell::new(None);
        let mut prepare = |spec: &mut ObjectSpec<'_>, rungs: Rungs<'_>| {
            // What an earlier attempt left.
            *opened.borrow_mut() = None;
            prepare(spec, rungs)
        };
        let mut open = |object: &Object| {
            *opened.borrow_mut() = Some(open(object)?);
            Ok(())
        };
        let programs = Self::start_opening(bytes, ladders, start, &mut prepare, &mut open, attach)?;
        let opened = opened.into_inner().ok_or_else(|| Error::internal("a tracer that opened nothing"))?;
        Ok((programs, opened))
    }

    /// As [`start_with`](Self::start_with), once for all tracers.
    fn start_opening(
        bytes: &[u8],
        ladders: &'static [&'static Ladder],
        start: &Start<'_>,
        prepare: &mut Prepare<'_>,
        open: &mut dyn FnMut(&Object) -> Result<()>,
        attach: &mut Attach<'_>,
    ) -> Result<Self> {
        // What is wrong with the filter is no rung's fault.
        filter::needs_kernel_types(start.filter)?;
        let not_following = Filter { children: false, ..start.filter.clone() };
        let opened = RefCell::new(None);
        let climbed = ladder::climb(
            bytes,
            ladders,
            start.forced,
            start.target,
            &mut |spec, rungs| {
                *opened.borrow_mut() = None;
                filter::prepare(spec, start.filter)?;
                prepare(spec, rungs)
            },
            &mut |object, program| {
                let mut opened = opened.borrow_mut();
                if opened.is_none() {
                    let mut filter = TaskFilter::new(object)?;
                    filter.set(object, &not_following)?;
                    open(object)?;
                    *opened = Some(filter);
                }
                attach(object, program)
            },
        )?;
        let Some(mut filter) = opened.into_inner() else {
            let what = ladders.first().map_or_else(Default::default, |ladder| ladder.what);
            let refused = climbed.chosen.into_iter().flat_map(|chosen| chosen.refused).collect();
            return Err(Box::new(Error::NoRung { what, refused }));
        };
        if start.filter.children {
            // What forgets processes that end comes after the tracer's own programs, and runs after them: to those, a process that
            // ends is still one of the filter's.
            filter.set(&climbed.object, start.filter)?;
        }
        Ok(Self {
            links: climbed.links,
            running: true,
            ladders,
            chosen: climbed.chosen,
            filter,
            follows_children: start.filter.children,
            cgroup: start.filter.cgroup.clone(),
            object: climbed.object,
        })
    }

    /// The rung in use of each ladder.
    pub fn chosen(&self) -> &[Chosen] {
        &self.chosen
    }

    /// Its maps and programs.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// Detaches.
    pub fn pause(&mut self) {
        self.links.clear();
        self.running = false;
    }

    /// Attaches again what was attached as its section says.
    ///
    /// # Errors
    ///
    /// The kernel does not take the programs any more; nothing is attached then.
    pub fn resume(&mut self) -> Result<()> {
        let cgroup = self.cgroup.clone();
        self.resume_with(&mut |object, name| attach(object, name, cgroup.as_deref()).map(|link| vec![link]))
    }

    /// Attaches again. `attach` is as of [`start_with`](Self::start_with).
    ///
    /// # Errors
    ///
    /// The kernel does not take the programs any more; nothing is attached then.
    pub fn resume_with(&mut self, attach: &mut Attach<'_>) -> Result<()> {
        if self.running {
            return Ok(());
        }
        let mut links = Vec::new();
        for (ladder, chosen) in self.ladders.iter().zip(&self.chosen) {
            let rung = ladder.rungs.iter().find(|rung| Some(rung.name) == chosen.rung);
            for name in rung.iter().flat_map(|rung| rung.programs) {
                links.extend(filter::attach_again(|| attach(&self.object, name))?);
            }
        }
        // As at the start: after the tracer's own.
        self.filter.forget_last(&self.object)?;
        self.links = links;
        self.running = true;
        Ok(())
    }

    /// Whether it is attached.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Sets another filter.
    ///
    /// # Errors
    ///
    /// The filter names something that does not exist; [`Error::FilterNeedsRestart`] where it follows children and the programs
    /// that do were not loaded.
    pub fn set_filter(&mut self, filter: &Filter) -> Result<()> {
        if filter.children && !self.follows_children {
            return Err(Box::new(Error::FilterNeedsRestart));
        }
        self.filter.set(&self.object, filter)
    }

    /// Takes ended processes out of the filter. Call it now and then.
    ///
    /// # Errors
    ///
    /// The kernel does not take it.
    pub fn forget_ended(&mut self) -> Result<()> {
        self.filter.forget_ended()
    }

    /// Children that could not be followed, as a loss.
    pub fn children_lost(&self) -> (&'static str, u64) {
        (cause::CHILDREN, self.filter.children_lost())
    }

    /// Runs that the kernel left out, as a loss.
    ///
    /// # Errors
    ///
    /// The kernel does not tell about a program.
    pub fn missed(&self) -> Result<(&'static str, u64)> {
        Ok((cause::SKIPPED, cost::object_missed_runs(&self.object)?))
    }

    /// Empties a table of what is under way, whose end a tracer that is paused does not see.
    ///
    /// # Errors
    ///
    /// There is no such table, which is a defect; the kernel does not give it out.
    pub fn forget<const KEY: usize, const VALUE: usize>(&self, map: &str) -> Result<()> {
        let table = self.object.map(map).map_err(Error::load)?;
        let table: Hash<[u8; KEY], [u8; VALUE]> = Hash::new(table).map_err(Error::load)?;
        for key in table.keys().collect::<Vec<_>>() {
            table.delete(&key.map_err(Error::kernel)?).map_err(Error::kernel)?;
        }
        Ok(())
    }

    /// What it costs. `hits` is as the tracer counts them, and what one takes as of [`cost::on_this_machine`].
    ///
    /// # Errors
    ///
    /// The kernel does not tell about a program.
    pub fn overhead(&self, hits: u64, nanos_per_hit: f64) -> Result<Overhead> {
        let (program_time, runs) = cost::object_run_time(&self.object)?;
        Ok(Overhead { hits, nanos_per_hit: cost::on_this_machine(nanos_per_hit), program_time, runs })
    }

    /// Kernel memory of the object's own maps, in bytes.
    pub fn map_bytes(&self) -> u64 {
        cost::object_map_bytes(&self.object)
    }
}

/// Counters of all CPUs, added up: a record of 64-bit words, each of them a count, in the only element of a per-CPU array.
///
/// # Errors
///
/// The kernel's counters cannot be read.
pub(crate) fn add_counts<const SIZE: usize>(counts: &PerCpuArray<[u8; SIZE]>) -> Result<[u8; SIZE]> {
    let mut sums = [0; SIZE];
    let of_cpus = counts.get(0).map_err(Error::kernel)?;
    for of_cpu in of_cpus.iter().flat_map(|values| values.iter()) {
        for (sum, word) in sums.chunks_exact_mut(8).zip(of_cpu.chunks_exact(8)) {
            if let (Ok(a), Ok(b)) = (<[u8; 8]>::try_from(&*sum), word.try_into()) {
                let both = u64::from_ne_bytes(a).wrapping_add(u64::from_ne_bytes(b));
                sum.copy_from_slice(&both.to_ne_bytes());
            }
        }
    }
    Ok(sums)
}
