//! What is told about disks, and how it is got at.

use crate::telemetry::{Column, Definitions, Instrument, Metric, Show, Subject, View};
use crate::tracer::Info;
use crate::tracer::ladder::{Ladder, Rung};

/// How long devices take.
pub static REQUEST_DURATION: Metric = Metric {
    name: "ebpf.disk.request.duration",
    unit: "s",
    description: "Time from when a request was issued to a device's driver to when all of it was done; disk.io.direction may also be flush and discard",
    instrument: Instrument::Histogram,
    subject: Subject::Host,
    attributes: &["system.device", "disk.io.direction"],
    source: REQUESTS.what,
};

/// How long requests wait.
pub static QUEUE_DURATION: Metric = Metric {
    name: "ebpf.disk.queue.duration",
    unit: "s",
    description: "Time from when a request was put into the queue of an I/O scheduler or of the CPU to when it was issued to the device's driver; those that were issued at once are none",
    instrument: Instrument::Histogram,
    subject: Subject::Host,
    attributes: &["system.device", "disk.io.direction"],
    source: REQUESTS.what,
};

/// Bytes.
pub static DISK_IO: Metric = Metric {
    name: "system.disk.io",
    unit: "By",
    description: "Bytes that a device has read or written",
    instrument: Instrument::Counter,
    subject: Subject::Host,
    attributes: &["system.device", "disk.io.direction"],
    source: REQUESTS.what,
};

/// Requests.
pub static DISK_OPERATIONS: Metric = Metric {
    name: "system.disk.operations",
    unit: "{operation}",
    description: "Requests to read or write that a device has done, after merging and splitting",
    instrument: Instrument::Counter,
    subject: Subject::Host,
    attributes: &["system.device", "disk.io.direction"],
    source: REQUESTS.what,
};

/// The ways to see requests.
pub static REQUESTS: Ladder = Ladder {
    what: "disk requests",
    rungs: &[
        Rung {
            name: "tp_btf",
            programs: &["complete_btf", "requeue_btf", "insert_btf", "issue_btf"],
            since: "5.8",
            drawback: "",
        },
        Rung {
            name: "raw_tp",
            programs: &["complete_raw", "requeue_raw", "insert_raw", "issue_raw"],
            since: "5.8",
            drawback: "a little slower",
        },
        Rung {
            name: "tracepoint",
            programs: &["complete_classic", "requeue_classic", "insert_classic", "issue_classic"],
            since: "5.8",
            drawback: "tells two requests for the same sectors at once not apart; keeps CPU samples from being taken meanwhile",
        },
    ],
    required: true,
};

/// The ways to see that a request which waits becomes part of another.
pub static MERGES: Ladder = Ladder {
    what: "merged disk requests",
    rungs: &[
        Rung { name: "tp_btf", programs: &["merge_btf"], since: "5.9", drawback: "" },
        Rung { name: "raw_tp", programs: &["merge_raw"], since: "5.9", drawback: "as of disk requests" },
        Rung {
            name: "tracepoint",
            programs: &["merge_classic"],
            since: "5.9",
            drawback: "as of disk requests",
        },
    ],
    required: false,
};

/// Which devices are slow or busy.
static DEVICES: View = View {
    title: "Disks",
    rows: "devices and directions",
    by_process: false,
    by: &[("system.device", "DEVICE"), ("disk.io.direction", "DIRECTION")],
    columns: &[
        Column { heading: "REQUEST/S", metric: &REQUEST_DURATION, only: &[], show: Show::CountRate },
        Column { heading: "BYTES/S", metric: &DISK_IO, only: &[], show: Show::ByteRate },
        Column { heading: "MEAN", metric: &REQUEST_DURATION, only: &[], show: Show::Mean },
        Column { heading: "P50", metric: &REQUEST_DURATION, only: &[], show: Show::Percentile(50) },
        Column { heading: "P99", metric: &REQUEST_DURATION, only: &[], show: Show::Percentile(99) },
        Column { heading: "QUEUED", metric: &QUEUE_DURATION, only: &[], show: Show::Mean },
    ],
};

/// Disks.
pub static INFO: Info = Info {
    name: "disk",
    command: "disk",
    about: "requests to block devices: how long, how many, how large",
    telemetry: Definitions {
        metrics: &[&REQUEST_DURATION, &QUEUE_DURATION, &DISK_IO, &DISK_OPERATIONS],
        ..Definitions::NONE
    },
    views: &[&DEVICES],
    ladders: &[&REQUESTS, &MERGES],
    on_by_default: true,
    keys: &[],
    start: super::start,
};
