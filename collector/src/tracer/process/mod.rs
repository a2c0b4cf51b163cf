//! Processes: every exec and every end, as log records, and for the cache of processes all that identifies one that nobody
//! had the time to look at.

mod records;

use std::os::fd::BorrowedFd;

use bpf_loader::map::PerCpuArray;
use bpf_programs::events::process::{Counts, Lifecycle};

use super::ladder::{Chosen, Ladder, Rung};
use super::programs::{Programs, add_counts};
use super::ring::{self, EventRing};
use super::{Info, Overhead, Start, Stats, Tracer, cause};
use crate::config::Filter;
use crate::error::{Error, Result};
use crate::objects;
use crate::telemetry::{
    Definitions, Instrument, LogDef, Metric, Owner, Point, PointValue, Severity, Sink, Subject,
};

/// New processes.
pub static PROCESSES_CREATED: Metric = Metric {
    name: "system.process.created",
    unit: "{process}",
    description: "Processes that came to be; threads are none",
    instrument: Instrument::Counter,
    subject: Subject::Host,
    attributes: &[],
    source: LIFE.what,
};

/// A process executes a file.
pub static EXEC: LogDef = LogDef {
    name: "ebpf.process.exec",
    description: "A process began to execute a file; its arguments are not recorded",
    severity: Severity::Info,
    attributes: &[
        "process.pid",
        "process.parent_pid",
        "process.real_user.id",
        "process.executable.name",
        "process.executable.path",
    ],
    source: LIFE.what,
};

/// A process ended.
pub static EXIT: LogDef = LogDef {
    name: "ebpf.process.exit",
    description: "A process ended with its last thread: with a code, or by a signal",
    severity: Severity::Info,
    attributes: &[
        "process.pid",
        "process.parent_pid",
        "process.real_user.id",
        "process.executable.name",
        "process.exit.code",
        "ebpf.process.exit.signal",
        "ebpf.process.core_dumped",
        "ebpf.process.lifetime",
    ],
    source: LIFE.what,
};

/// The ways to see processes come and go.
pub static LIFE: Ladder = Ladder {
    what: "process life",
    rungs: &[
        Rung { name: "raw_tp", programs: &["fork_raw", "exec_raw", "exit_raw"], since: "5.8", drawback: "" },
        Rung {
            name: "tracepoint",
            programs: &["fork_classic", "exec_classic", "exit_classic"],
            since: "5.8",
            drawback: "keeps CPU samples from being taken meanwhile; forks without the child's start",
        },
    ],
    required: true,
};

/// Processes.
pub static INFO: Info = Info {
    name: "process",
    command: "process",
    about: "processes: execs, ends, exit codes",
    telemetry: Definitions { metrics: &[&PROCESSES_CREATED], logs: &[&EXEC, &EXIT], ..Definitions::NONE },
    views: &[],
    ladders: &[&LIFE],
    on_by_default: true,
    keys: &[],
    start: |start| Ok(Box::new(ProcessTracer::start(start)?)),
};

/// Larger rings take more than a storm of execs fills between two reads.
const MAX_RING: usize = 128 << 10;
/// Bounds of the table of processes that end, in entries, and what one takes.
const ENDED: std::ops::RangeInclusive<usize> = 1024..=4096;
const ENDED_BYTES: usize = 96;
/// What a hit costs, as the kernel's statistics of programs had it: 600 a fork, 700 an exec, 1,500 an end.
const NANOS_PER_HIT: f64 = 1000.0;

/// Watches processes.
#[derive(Debug)]
pub struct ProcessTracer {
    programs: Programs,
    ring: EventRing,
    counts: PerCpuArray<[u8; Counts::SIZE]>,
    /// As of the last window.
    forks: u64,
}

impl ProcessTracer {
    /// Loads and attaches the programs.
    ///
    /// # Errors
    ///
    /// No rung works here; the filter names something that does not exist.
    pub fn start(start: &Start<'_>) -> Result<Self> {
        let prepare = |spec: &mut bpf_loader::object::ObjectSpec<'_>| {
            ring::prepare(spec, (start.memory / 2).min(MAX_RING))?;
            let ended = spec.map_mut("ended");
            let ended = ended.ok_or_else(|| Error::no_map("ended"))?;
            ended.max_entries = (start.memory / 4 / ENDED_BYTES).clamp(*ENDED.start(), *ENDED.end()) as u32;
            Ok(())
        };
        let open = |object: &bpf_loader::load::Object| {
            let counts = object.map("counts").and_then(PerCpuArray::new).map_err(Error::load)?;
            Ok((EventRing::open(object)?, counts))
        };
        let (programs, (ring, counts)) =
            Programs::start(&objects::PROCESS.unpack()?, INFO.ladders, start, |spec, _| prepare(spec), open)?;
        Ok(Self { programs, ring, counts, forks: 0 })
    }

    fn counts(&self) -> Result<Counts> {
        let counts = Counts::decode(&add_counts(&self.counts)?);
        counts.ok_or_else(|| Error::internal("size of process_counts"))
    }
}

impl Tracer for ProcessTracer {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn rungs(&self) -> &[Chosen] {
        self.programs.chosen()
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.ring.descriptor()]
    }

    fn drain(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.ring.drain(|_, record| {
            let Some(event) = Lifecycle::decode(record) else { return };
            // First who it is, so that the record has a name.
            sink.lifecycle(&event);
            records::tell(&event, sink);
        })
    }

    fn collect(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.drain(sink)?;
        self.programs.forget_ended()?;
        // The kernel's count only grows.
        let forks = self.counts()?.forks;
        let new = forks.saturating_sub(self.forks);
        self.forks = forks;
        if new > 0 {
            sink.point(Point {
                metric: &PROCESSES_CREATED,
                owner: Owner::Host,
                attributes: &[],
                value: PointValue::Int(i64::try_from(new).unwrap_or(i64::MAX)),
            });
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<()> {
        self.programs.pause();
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        self.programs.resume()
    }

    fn is_running(&self) -> bool {
        self.programs.is_running()
    }

    fn set_filter(&mut self, filter: &Filter) -> Result<()> {
        self.programs.set_filter(filter)
    }

    fn stats(&mut self) -> Result<Stats> {
        let counts = self.counts()?;
        let (produced, dropped) = self.ring.produced_and_dropped()?;
        Ok(Stats {
            hits: counts.forks + counts.execs + counts.exits,
            produced,
            received: self.ring.received(),
            dropped: vec![
                (cause::RING_FULL, dropped),
                self.programs.missed()?,
                self.programs.children_lost(),
            ],
            ring_high_water: self.ring.high_water(),
            map_fill: Vec::new(),
        })
    }

    fn overhead(&self) -> Result<Overhead> {
        let counts = self.counts()?;
        self.programs.overhead(counts.forks + counts.execs + counts.exits, NANOS_PER_HIT)
    }

    fn map_bytes(&self) -> u64 {
        self.programs.map_bytes()
    }
}
