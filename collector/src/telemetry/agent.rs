//! What the agent tells about its pipeline and its exporter.

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

const DESTINATION: &[&str] = &["ebpf.destination", "ebpf.signal"];
const EXPORTER: &str = "the exporter's own counts";
const PIPELINE: &str = "the pipeline's own counts";

/// `ebpf.agent.export.drops`
pub static EXPORT_DROPS: Metric = metric(
    "ebpf.agent.export.drops",
    "{item}",
    Instrument::Counter,
    &["ebpf.destination", "ebpf.signal", "ebpf.drop.cause"],
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
    &["ebpf.drop.cause"],
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
    &["ebpf.drop.cause"],
    PIPELINE,
    "Processes of which only the kernel's name is known as they were `gone`, looks at processes that were `skipped` as \
     enough was read, processes that were `evicted` for want of room, and those that were `folded` into the service \
     `other-services` for want of room for theirs",
);

/// `ebpf.agent.records.drops`
pub static RECORD_DROPS: Metric = metric(
    "ebpf.agent.records.drops",
    "{item}",
    Instrument::Counter,
    &["ebpf.signal", "ebpf.drop.cause"],
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
        &EXPORT_DROPS,
        &RETRIES,
        &QUEUED,
        &SPOOLED,
        &SERIES,
        &SERIES_OVERFLOW,
        &PROCESSES,
        &UNNAMED,
        &RECORD_DROPS,
        &CLOCK_STEPS,
    ],
    ..Definitions::NONE
};
