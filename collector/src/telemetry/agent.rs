//! What the agent tells about itself.

use super::{Definitions, Instrument, Metric, Subject};

const fn metric(
    name: &'static str,
    unit: &'static str,
    instrument: Instrument,
    attributes: &'static [&'static str],
    source: &'static str,
    description: &'static str,
) -> Metric {
    Metric { name, unit, description, instrument, subject: Subject::Agent, attributes, source }
}

const TRACER: &[&str] = &["ebpf.tracer"];
const DESTINATION: &[&str] = &["ebpf.destination", "ebpf.signal"];
const PROGRAMS: &str = "counters of the tracers' programs";
const EXPORTER: &str = "the exporter's own counts";
const PIPELINE: &str = "the pipeline's own counts";

/// `ebpf.agent.rung`
pub static RUNG: Metric = metric(
    "ebpf.agent.rung",
    "1",
    Instrument::Gauge,
    &["ebpf.tracer", "ebpf.ladder", "ebpf.rung"],
    "what the kernel took",
    "1 for the rung in use of each ladder; the rung is `unavailable` where the kernel took none",
);

/// `ebpf.agent.coverage`
pub static COVERAGE: Metric = metric(
    "ebpf.agent.coverage",
    "1",
    Instrument::Gauge,
    TRACER,
    "the governor",
    "Share of the window for which the tracer was attached: its counts are exact where it is 1",
);

/// `ebpf.agent.sampling`
pub static SAMPLING: Metric = metric(
    "ebpf.agent.sampling",
    "1",
    Instrument::Gauge,
    TRACER,
    "the governor",
    "One in so many is taken of what may be sampled (latencies, stacks, allocations); counts stay exact",
);

/// `ebpf.agent.hits`
pub static HITS: Metric = metric(
    "ebpf.agent.hits",
    "{hit}",
    Instrument::Counter,
    TRACER,
    PROGRAMS,
    "Times that the tracer's programs had something to count or tell",
);

/// `ebpf.agent.events.produced`
pub static PRODUCED: Metric = metric(
    "ebpf.agent.events.produced",
    "{event}",
    Instrument::Counter,
    TRACER,
    PROGRAMS,
    "Events that programs wanted to send",
);

/// `ebpf.agent.events.received`
pub static RECEIVED: Metric = metric(
    "ebpf.agent.events.received",
    "{event}",
    Instrument::Counter,
    TRACER,
    "the rings' readers",
    "Events that were read: with the drops for want of room in the ring, all that were produced",
);

/// `ebpf.agent.dropped`
pub static DROPPED: Metric = metric(
    "ebpf.agent.dropped",
    "{item}",
    Instrument::Counter,
    &["ebpf.tracer", "ebpf.cause"],
    PROGRAMS,
    "What is missing in the tracer's telemetry, by cause",
);

/// `ebpf.agent.ring.high_water`
pub static RING_HIGH_WATER: Metric = metric(
    "ebpf.agent.ring.high_water",
    "By",
    Instrument::Gauge,
    TRACER,
    "the rings' readers",
    "The fullest that a ring was when it was read, since the start",
);

/// `ebpf.agent.map.entries`
pub static MAP_ENTRIES: Metric = metric(
    "ebpf.agent.map.entries",
    "{entry}",
    Instrument::Gauge,
    &["ebpf.tracer", "ebpf.map"],
    "the tracers' maps",
    "Entries in use of a map",
);

/// `ebpf.agent.map.capacity`
pub static MAP_CAPACITY: Metric = metric(
    "ebpf.agent.map.capacity",
    "{entry}",
    Instrument::Gauge,
    &["ebpf.tracer", "ebpf.map"],
    "the tracers' maps",
    "Entries that a map has room for",
);

/// `ebpf.agent.map.memory`
pub static MAP_MEMORY: Metric = metric(
    "ebpf.agent.map.memory",
    "By",
    Instrument::Gauge,
    TRACER,
    "/proc/self/fdinfo",
    "Kernel memory of the tracer's maps and rings",
);

/// `ebpf.agent.program.time`
pub static PROGRAM_TIME: Metric = metric(
    "ebpf.agent.program.time",
    "s",
    Instrument::Counter,
    TRACER,
    "the kernel's statistics of BPF programs",
    "Time in the tracer's programs, in whatever process they ran; counted while the kernel's statistics are on",
);

/// `process.cpu.time`
pub static CPU_TIME: Metric = metric(
    "process.cpu.time",
    "s",
    Instrument::Counter,
    &["cpu.mode"],
    "/proc/self/stat",
    "CPU time of the agent's process",
);

/// `process.memory.usage`
pub static MEMORY_USAGE: Metric = metric(
    "process.memory.usage",
    "By",
    Instrument::UpDownCounter,
    &[],
    "/proc/self/statm",
    "Resident memory of the agent's process; BPF maps are not in it",
);

/// `ebpf.agent.export.delivered`
pub static DELIVERED: Metric = metric(
    "ebpf.agent.export.delivered",
    "{item}",
    Instrument::Counter,
    DESTINATION,
    EXPORTER,
    "Data points, spans, log records and profiles that the receiver took",
);

/// `ebpf.agent.export.rejected`
pub static REJECTED: Metric = metric(
    "ebpf.agent.export.rejected",
    "{item}",
    Instrument::Counter,
    DESTINATION,
    EXPORTER,
    "Items that the receiver refused of requests that it took otherwise",
);

/// `ebpf.agent.export.dropped`
pub static EXPORT_DROPPED: Metric = metric(
    "ebpf.agent.export.dropped",
    "{item}",
    Instrument::Counter,
    &["ebpf.destination", "ebpf.signal", "ebpf.cause"],
    EXPORTER,
    "Items that were given up, by cause",
);

/// `ebpf.agent.export.retries`
pub static RETRIES: Metric = metric(
    "ebpf.agent.export.retries",
    "{attempt}",
    Instrument::Counter,
    DESTINATION,
    EXPORTER,
    "Failed attempts after which a request waits for another one",
);

/// `ebpf.agent.export.queued`
pub static QUEUED: Metric = metric(
    "ebpf.agent.export.queued",
    "By",
    Instrument::Gauge,
    DESTINATION,
    EXPORTER,
    "Requests that wait in memory",
);

/// `ebpf.agent.export.spooled`
pub static SPOOLED: Metric = metric(
    "ebpf.agent.export.spooled",
    "By",
    Instrument::Gauge,
    DESTINATION,
    EXPORTER,
    "Requests that wait in the spool",
);

/// `ebpf.agent.series`
pub static SERIES: Metric =
    metric("ebpf.agent.series", "{series}", Instrument::Gauge, &[], PIPELINE, "Series that are kept");

/// `ebpf.agent.series.overflow`
pub static SERIES_OVERFLOW: Metric = metric(
    "ebpf.agent.series.overflow",
    "{point}",
    Instrument::Counter,
    &["ebpf.cause"],
    PIPELINE,
    "Points without a series of their own: `folded` into the one with `otel.metric.overflow`, `lost` where states cannot \
     be added up, or `not valid`",
);

/// `ebpf.agent.processes`
pub static PROCESSES: Metric = metric(
    "ebpf.agent.processes",
    "{process}",
    Instrument::Gauge,
    &[],
    PIPELINE,
    "Processes whose names are kept",
);

/// `ebpf.agent.processes.unnamed`
pub static UNNAMED: Metric = metric(
    "ebpf.agent.processes.unnamed",
    "{process}",
    Instrument::Counter,
    &["ebpf.cause"],
    PIPELINE,
    "Processes of which only the kernel's name is known as they were `gone`, looks at processes that were `skipped` as \
     enough was read, and processes that were `evicted` for want of room",
);

/// `ebpf.agent.records.dropped`
pub static RECORDS_DROPPED: Metric = metric(
    "ebpf.agent.records.dropped",
    "{item}",
    Instrument::Counter,
    &["ebpf.signal", "ebpf.cause"],
    PIPELINE,
    "Spans, log records and profiles that found no room before they were requests, by cause",
);

/// `ebpf.agent.clock.steps`
pub static CLOCK_STEPS: Metric = metric(
    "ebpf.agent.clock.steps",
    "{step}",
    Instrument::Counter,
    &[],
    PIPELINE,
    "Times that the machine's wall clock was set",
);

/// All of it.
pub static AGENT: Definitions = Definitions {
    metrics: &[
        &RUNG,
        &COVERAGE,
        &SAMPLING,
        &HITS,
        &PRODUCED,
        &RECEIVED,
        &DROPPED,
        &RING_HIGH_WATER,
        &MAP_ENTRIES,
        &MAP_CAPACITY,
        &MAP_MEMORY,
        &PROGRAM_TIME,
        &CPU_TIME,
        &MEMORY_USAGE,
        &DELIVERED,
        &REJECTED,
        &EXPORT_DROPPED,
        &RETRIES,
        &QUEUED,
        &SPOOLED,
        &SERIES,
        &SERIES_OVERFLOW,
        &PROCESSES,
        &UNNAMED,
        &RECORDS_DROPPED,
        &CLOCK_STEPS,
    ],
    ..Definitions::NONE
};
