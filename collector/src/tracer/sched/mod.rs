//! Scheduling: how long threads wait for a CPU, how long and why they are off it, and how often they are switched, by
//! process.

mod define;
mod window;

use bpf_loader::load::Object;
use bpf_loader::map::{Global, PerCpuArray, PerCpuHash};
use bpf_loader::object::ObjectSpec;
use bpf_programs::events::sched::{Counts, Sums};

use super::ladder::Chosen;
use super::programs::{Programs, add_counts};
use super::windows::Windows;
use super::{Info, Overhead, Start, Stats, Tracer, cause};
use crate::config::Filter;
use crate::error::{Error, Result};
use crate::objects;
use crate::telemetry::Sink;

pub use define::{CONTEXT_SWITCHES, INFO, OFF_CPU_TIME, RUN_QUEUE_DURATION, SWITCHES};
use window::ProcessSums;

/// What a hit costs whoever is switched, on average over switches and wake-ups (`tests/bench/sched`).
const NANOS_PER_HIT: f64 = 170.0;
/// More than this in one sample, and a thread's note does not hold it.
const MAX_SAMPLING: u32 = u16::MAX as u32;

/// Sizes of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    threads: u32,
    processes: u32,
}

impl Sizes {
    /// What a thread's note takes in the kernel, with the hash table's own.
    const THREAD: usize = 96;
    /// What the hash table takes for a process beside its sums.
    const PROCESS: usize = 80;

    /// A quarter for the threads, the rest for processes, of which there are two tables with sums for each CPU.
    fn of(memory: usize, cpus: usize) -> Self {
        let process = 2 * (Self::PROCESS + Sums::SIZE * cpus.max(1));
        Self {
            threads: (memory / 4 / Self::THREAD).clamp(256, 32 << 10) as u32,
            processes: (memory / 4 * 3 / process).clamp(64, 8 << 10) as u32,
        }
    }

    fn apply(self, spec: &mut ObjectSpec<'_>) -> Result<()> {
        spec.map_mut("threads").ok_or_else(|| Error::no_map("threads"))?.max_entries = self.threads;
        let processes = spec.map_mut("processes").and_then(|map| map.inner.as_deref_mut());
        processes.ok_or_else(|| Error::no_map("processes"))?.max_entries = self.processes;
        Ok(())
    }
}

/// Watches the scheduler.
#[derive(Debug)]
struct SchedTracer {
    programs: Programs,
    windows: Windows<PerCpuHash<u32, [u8; Sums::SIZE]>>,
    counts: PerCpuArray<[u8; Counts::SIZE]>,
    sampling: Global<u32>,
    sizes: Sizes,
    /// Processes in the last window.
    seen: u64,
}

fn start(start: &Start<'_>) -> Result<Box<dyn Tracer>> {
    let cpus = bpf_sys::possible_cpus().map_err(Error::kernel)?;
    let sizes = Sizes::of(start.memory, cpus);
    let bytes = objects::SCHED.unpack()?;
    let open = |object: &Object| {
        let mut spec = ObjectSpec::parse(&bytes).map_err(Error::load)?;
        sizes.apply(&mut spec)?;
        let windows = Windows::create(&spec, object, "processes", PerCpuHash::new)?;
        let counts = object.map("counts").and_then(PerCpuArray::new).map_err(Error::load)?;
        Ok((windows, counts, object.global("sampling").map_err(Error::load)?))
    };
    let prepare = |spec: &mut ObjectSpec<'_>, _: super::programs::Rungs<'_>| sizes.apply(spec);
    let (programs, (windows, counts, sampling)) =
        Programs::start(&bytes, INFO.ladders, start, prepare, open)?;
    Ok(Box::new(SchedTracer { programs, windows, counts, sampling, sizes, seen: 0 }))
}

impl SchedTracer {
    fn counts(&self) -> Result<Counts> {
        let counts = Counts::decode(&add_counts(&self.counts)?);
        counts.ok_or_else(|| Error::internal("size of cpu_counts"))
    }
}

impl Tracer for SchedTracer {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn rungs(&self) -> &[Chosen] {
        self.programs.chosen()
    }

    fn collect(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.programs.forget_ended()?;
        self.seen = 0;
        let window = self.windows.swap()?;
        let mut batches = window.take_batches(256).map_err(Error::kernel)?;
        while let Some(batch) = batches.next().map_err(Error::kernel)? {
            for (pid, of_cpus) in batch {
                let mut sums = ProcessSums::default();
                of_cpus.filter_map(|bytes| Sums::decode(&bytes)).for_each(|of_cpu| sums.add(&of_cpu));
                sums.tell(pid, sink);
                self.seen += 1;
            }
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<()> {
        self.programs.pause();
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        // What threads noted before the pause is not what they did meanwhile.
        let threads = self.programs.object().map("threads").map_err(Error::load)?;
        let threads = bpf_loader::map::Hash::<u32, [u8; 24]>::new(threads).map_err(Error::load)?;
        let mut batches = threads.take_batches(1024);
        while batches.next().map_err(Error::kernel)?.is_some() {}
        self.programs.resume()
    }

    fn is_running(&self) -> bool {
        self.programs.is_running()
    }

    fn set_filter(&mut self, filter: &Filter) -> Result<()> {
        self.programs.set_filter(filter)
    }

    /// Times that are not measured are made up for: those that are count as many. Switches stay exact.
    fn set_sampling(&mut self, one_in: u32) -> Result<u32> {
        let one_in = one_in.clamp(1, MAX_SAMPLING);
        self.sampling.set(&one_in).map_err(Error::kernel)?;
        Ok(one_in)
    }

    fn stats(&mut self) -> Result<Stats> {
        let counts = self.counts()?;
        Ok(Stats {
            hits: counts.hits,
            dropped: vec![
                (cause::TOO_MANY_AT_ONCE, counts.threads_full),
                (cause::TABLE_FULL, counts.processes_full),
                self.programs.missed()?,
                self.programs.children_lost(),
            ],
            map_fill: vec![("processes", self.seen, self.sizes.processes.into())],
            ..Stats::default()
        })
    }

    fn overhead(&self) -> Result<Overhead> {
        self.programs.overhead(self.counts()?.hits, NANOS_PER_HIT)
    }

    fn map_bytes(&self) -> u64 {
        self.programs.map_bytes() + self.windows.map_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_fit_the_memory_and_the_cpus() {
        assert_eq!(Sizes::of(0, 2), Sizes { threads: 256, processes: 64 });
        assert_eq!(Sizes::of(usize::MAX, 1), Sizes { threads: 32 << 10, processes: 8 << 10 });
        let memory = 4 << 20;
        for cpus in [1, 2, 64] {
            let sizes = Sizes::of(memory, cpus);
            let processes = sizes.processes as usize * 2 * (Sizes::PROCESS + Sums::SIZE * cpus);
            assert!(processes + sizes.threads as usize * Sizes::THREAD <= memory, "{cpus}");
        }
    }
}
