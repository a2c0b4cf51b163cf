//! The profiler as one tracer among others.

use std::os::fd::RawFd;
use std::time::Instant;

use super::session::{Session, WINDOW_IS_ANOTHERS};
#[cfg(feature = "unwind")]
use super::stacks::{self, STACKS, USER_STACKS};
use crate::config::{Config, FREQUENCY_RANGE, Filter, period_nanos};
use crate::error::Result;
use crate::key::{Key, Value};
use crate::model::{Profile, SampleType};
use crate::telemetry::{Definitions, ProfileDef, Sink};
use crate::tracer::ladder::{Chosen, Ladder, Rung};
use crate::tracer::{Info, Overhead, Start, Stats, Tracer, cause};

/// Where CPU time goes.
pub static CPU_PROFILE: ProfileDef = ProfileDef {
    sample_type: SampleType::CPU,
    description: "Stacks, kernel and user, of what runs, at intervals of CPU time",
    source: CPU_CLOCK.what,
};

/// The timer that samples.
static CPU_CLOCK: Ladder = Ladder {
    what: "CPU samples",
    rungs: &[Rung { name: "cpu-clock", programs: &[], since: "5.8", drawback: "" }],
    required: true,
};

/// The CPU profiler.
pub static INFO: Info = Info {
    name: "profile",
    command: "profile",
    about: "where CPU time goes, kernel and user, by function",
    telemetry: Definitions {
        #[cfg(feature = "unwind")]
        metrics: &[&STACKS],
        profiles: &[&CPU_PROFILE],
        ..Definitions::NONE
    },
    views: &[],
    ladders: &[
        &CPU_CLOCK,
        #[cfg(feature = "unwind")]
        &USER_STACKS,
    ],
    on_by_default: true,
    keys: &Key::<crate::tracer::Settings>::table([Key {
        name: "frequency",
        doc: "Samples a second on each CPU, 1 to 1000.",
        get: |settings| Value::Int(settings.profile.frequency.into()),
        set: |settings, v| v.whole(FREQUENCY_RANGE).map(|hz| settings.profile.frequency = hz),
    }]),
    start,
};

/// Settings of the profiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Samples a second on each CPU.
    pub frequency: u32,
}

impl Default for Settings {
    /// Slow enough not to be noticed, and no divisor of what other timers run at.
    fn default() -> Self {
        Self { frequency: 19 }
    }
}

fn start(start: &Start<'_>) -> Result<Box<dyn Tracer>> {
    let config = Config {
        frequency: start.settings.profile.frequency,
        window: WINDOW_IS_ANOTHERS,
        filter: start.filter.clone(),
        #[cfg(feature = "unwind")]
        stacks: stacks::wanted(start.forced)?,
        #[cfg(not(feature = "unwind"))]
        stacks: None,
    };
    start.forced.check(&CPU_CLOCK)?;
    let mut session = Session::start_within(config, start.memory, start.target)?;
    session.fetch_debug_files_with(start.settings.debuginfod.as_ref())?;
    let chosen = Box::new([
        Chosen { what: CPU_CLOCK.what, rung: Some("cpu-clock"), refused: Vec::new() },
        #[cfg(feature = "unwind")]
        stacks::chosen(&session),
    ]);
    Ok(Box::new(ProfileTracer {
        session,
        chosen,
        running: true,
        frequency: start.settings.profile.frequency,
        one_in: 1,
        #[cfg(feature = "unwind")]
        told: stacks::Told::default(),
    }))
}

#[derive(Debug)]
struct ProfileTracer {
    session: Session,
    chosen: Box<[Chosen]>,
    running: bool,
    /// Samples a second that the configuration asks for, and one in how many of these is taken.
    frequency: u32,
    one_in: u32,
    /// How many stacks had ended in each way when it was told last.
    #[cfg(feature = "unwind")]
    told: stacks::Told,
}

/// Hands over what has samples.
pub(crate) fn hand_over(profiles: Vec<Profile>, sink: &mut dyn Sink) {
    profiles
        .into_iter()
        .filter(|profile| !profile.samples.is_empty())
        .for_each(|profile| sink.profile(profile));
}

impl Tracer for ProfileTracer {
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
        #[cfg(feature = "unwind")]
        self.told.tell(INFO.name, self.session.counters()?.walks, sink);
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

    /// Lowers the frequency, to one sample a second at least. A profile has one period: it ends here, and another begins.
    fn set_sampling(&mut self, one_in: u32) -> Result<u32> {
        let one_in = one_in.clamp(1, self.frequency.max(1));
        if one_in != self.one_in {
            self.session.end_window()?;
            self.session.set_period(period_nanos(self.frequency).saturating_mul(one_in.into()))?;
            self.one_in = one_in;
        }
        Ok(one_in)
    }

    fn stats(&mut self) -> Result<Stats> {
        let counters = self.session.counters()?;
        let losses = counters.losses;
        Ok(Stats {
            hits: counters.runs,
            dropped: vec![
                (cause::SKIPPED, losses.skipped),
                (cause::TABLE_FULL, losses.table_full),
                (cause::NO_STACK, losses.no_stack),
                (cause::PROCESS_RECORDS, losses.sideband),
                (cause::LATE_NAMES, counters.late_names),
            ],
            ..Stats::default()
        })
    }

    fn overhead(&self) -> Result<Overhead> {
        let (program_time, runs) = self.session.program_cost()?;
        Ok(Overhead { hits: self.session.program_runs(), nanos_per_hit: 0.0, program_time, runs })
    }

    fn map_bytes(&self) -> u64 {
        self.session.map_bytes()
    }
}
