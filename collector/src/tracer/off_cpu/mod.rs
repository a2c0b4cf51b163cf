//! Where threads wait, and how long: the off-CPU profiler as one tracer among others.
//!
//! How waits are noted and counted is the profiler's: see [`profile`](super::profile).

mod define;

use std::os::fd::RawFd;
use std::time::Instant;

pub use self::define::{INFO, OFF_CPU_PROFILE, Settings, WAITS};

use self::define::SCHEDULER;
use crate::config::{Config, Filter};
use crate::error::Result;
use crate::model::Profile;
use crate::telemetry::{Owner, Point, PointValue, Sink};
use crate::tracer::ladder::Chosen;
use crate::tracer::profile::{Counters, Session, WINDOW_IS_ANOTHERS, hand_over, stacks};
use crate::tracer::{Info, Overhead, Start, Stats, Tracer, cause, cost};

/// What a wait costs that is not noted: two switches and a wake-up, and the entries into their programs (docs/benchmarks.md).
const NANOS_PER_WAIT: f64 = 900.0;
/// As how many of these the stacks of one that is noted cost (17 to 23 µs).
const WAITS_PER_WALK: u64 = 18;
/// Sparsest sampling: what is sparser says nothing of any thread.
const MAX_SAMPLING: u32 = 1024;

fn start(start: &Start<'_>) -> Result<Box<dyn Tracer>> {
    start.forced.check(&SCHEDULER)?;
    let config = Config {
        window: WINDOW_IS_ANOTHERS,
        filter: start.filter.clone(),
        stacks: stacks::wanted(start.forced)?,
        ..Config::default()
    };
    let minimum = start.settings.off_cpu.minimum;
    let mut session = Session::start_off_cpu(config, minimum, start.memory, start.target)?;
    session.fetch_debug_files_with(start.settings.debuginfod.as_ref())?;
    let rung = SCHEDULER.rungs.first().map(|rung| rung.name);
    let scheduler = Chosen { what: SCHEDULER.what, rung, refused: Vec::new() };
    let chosen = Box::new([scheduler, stacks::chosen(&session)]);
    Ok(Box::new(OffCpuTracer {
        session,
        chosen,
        running: true,
        told: Ended::default(),
        stacks: stacks::Told::default(),
    }))
}

#[derive(Debug)]
struct OffCpuTracer {
    session: Session,
    chosen: Box<[Chosen]>,
    running: bool,
    /// What had become of waits when it was told last.
    told: Ended,
    stacks: stacks::Told,
}

/// What has become of the waits that were noted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ended {
    counted: u64,
    short: u64,
}

impl Ended {
    fn of(counters: &Counters) -> Self {
        // Those that found no room were taken too.
        let counted = counters.samples.saturating_sub(counters.losses.table_full);
        Self { counted, short: counters.too_short }
    }

    /// Tells what is new.
    fn tell(&mut self, now: Self, sink: &mut dyn Sink) {
        let told = std::mem::replace(self, now);
        for (end, count, before) in
            [("counted", now.counted, told.counted), ("too short", now.short, told.short)]
        {
            let attributes = [("ebpf.off_cpu.wait", end.into())];
            let value = PointValue::Int(count.saturating_sub(before) as i64);
            sink.point(Point { metric: &WAITS, owner: Owner::Agent, attributes: &attributes, value });
        }
    }
}

impl Tracer for OffCpuTracer {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn rungs(&self) -> &[Chosen] {
        &self.chosen
    }

    fn event_loop(&self) -> Option<RawFd> {
        Some(self.session.event_loop())
    }

    fn drain(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.session.poll(Instant::now())?;
        hand_over(self.session.named(), sink);
        Ok(())
    }

    fn collect(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.session.end_window()?;
        hand_over(self.session.named(), sink);
        let counters = self.session.counters()?;
        self.told.tell(Ended::of(&counters), sink);
        self.stacks.tell(INFO.name, counters.walks, sink);
        Ok(())
    }

    fn settle(&mut self, until: Option<Instant>) -> Result<Vec<Profile>> {
        self.session.settle(until)
    }

    fn pause(&mut self) -> Result<()> {
        self.session.pause()?;
        self.running = false;
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        self.session.resume()?;
        self.running = true;
        Ok(())
    }

    fn is_running(&self) -> bool {
        self.running
    }

    fn set_filter(&mut self, filter: &Filter) -> Result<()> {
        self.session.set_filter(filter.clone())
    }

    /// Waits that are not noted are made up for: those that are count for as many.
    fn set_sampling(&mut self, one_in: u32) -> Result<u32> {
        let one_in = one_in.clamp(1, MAX_SAMPLING);
        self.session.thin_waits(one_in)?;
        Ok(one_in)
    }

    fn stats(&mut self) -> Result<Stats> {
        let counters = self.session.counters()?;
        let losses = counters.losses;
        Ok(Stats {
            hits: counters.runs,
            dropped: vec![
                (cause::TABLE_FULL, losses.table_full),
                (cause::NO_STACK, losses.no_stack),
                (cause::PROCESS_RECORDS, losses.sideband),
                (cause::LATE_NAMES, counters.late_names),
                (cause::CHILDREN, counters.children_lost),
            ],
            ..Stats::default()
        })
    }

    /// Stacks are most of it where all waits are noted, and next to nothing where few are: they are as many hits as they cost.
    fn overhead(&self) -> Result<Overhead> {
        let (program_time, runs) = self.session.program_cost()?;
        Ok(Overhead {
            hits: self.session.program_runs() + WAITS_PER_WALK * self.session.waits_noted(),
            nanos_per_hit: cost::on_this_machine(NANOS_PER_WAIT),
            program_time,
            runs,
        })
    }

    fn map_bytes(&self) -> u64 {
        self.session.map_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Recorder;

    #[test]
    fn what_became_of_waits_is_told_once() {
        let (mut told, mut sink) = (Ended::default(), Recorder::default());
        told.tell(Ended { counted: 7, short: 100 }, &mut sink);
        told.tell(Ended { counted: 9, short: 100 }, &mut sink);
        let told: Vec<_> = sink
            .numbers
            .iter()
            .map(|(series, n)| (series.metric, series.attributes[0].1.as_str(), *n))
            .collect();
        assert_eq!(
            told,
            [("ebpf.off_cpu.waits", "counted", 9.0), ("ebpf.off_cpu.waits", "too short", 100.0)]
        );
    }
}
