//! What the DNS tracer tells, and how it gets at it.

use crate::telemetry::{Column, Definitions, Instrument, Metric, Show, SpanDef, Subject, View};
use crate::tracer::Info;
use crate::tracer::ladder::{Ladder, Rung};

pub(super) const QUESTION: &str = "dns.question.name";
pub(super) const QUESTION_TYPE: &str = "ebpf.dns.question.type";
pub(super) const ERROR_TYPE: &str = "error.type";
pub(super) const PEER_ADDRESS: &str = "network.peer.address";
pub(super) const PEER_PORT: &str = "network.peer.port";
pub(super) const TRANSPORT: &str = "network.transport";

/// The DNS tracer.
pub static INFO: Info = Info {
    name: "dns",
    command: "network",
    about: "DNS lookups: names, durations, failures by process",
    telemetry: Definitions { metrics: &[&LOOKUP_DURATION], spans: &[&LOOKUP], ..Definitions::NONE },
    views: &[&NAMES],
    ladders: &[&MESSAGES, &CONNECTIONS],
    on_by_default: true,
    keys: super::KEYS,
    start: super::start,
};

/// From query to response.
pub static LOOKUP_DURATION: Metric = Metric {
    name: "dns.lookup.duration",
    unit: "s",
    description: "Time from a DNS query to its response; error.type is the response code, or timeout after 5 s, and the name _OTHER stands for all beyond the bound of names at once",
    instrument: Instrument::Histogram,
    subject: Subject::Process,
    attributes: &[QUESTION, ERROR_TYPE],
    source: MESSAGES.what,
};

/// A lookup.
pub static LOOKUP: SpanDef = SpanDef {
    name: "dns.lookup",
    description: "A DNS query, to its response or for 5 s; there is a bound of spans in a second",
    attributes: &[QUESTION, QUESTION_TYPE, PEER_ADDRESS, PEER_PORT, TRANSPORT, ERROR_TYPE],
    source: MESSAGES.what,
};

/// Where messages pass.
pub static MESSAGES: Ladder = Ladder {
    what: "DNS messages",
    rungs: &[Rung {
        name: "cgroup_skb",
        programs: &["dns_egress", "dns_ingress"],
        since: "5.8",
        drawback: "needs cgroup v2; costs every packet a little; port 53 only, encrypted DNS is not seen",
    }],
    required: true,
};

/// Whose sockets of TCP are.
pub static CONNECTIONS: Ladder = Ladder {
    what: "DNS over TCP",
    rungs: &[Rung {
        name: "cgroup",
        programs: &["dns_connect4", "dns_connect6"],
        since: "5.8",
        drawback: "connections from before the tracer are left out",
    }],
    required: false,
};

/// A row for each process and name.
static NAMES: View = View {
    title: "DNS lookups by process and name",
    rows: "names",
    by_process: true,
    by: &[(QUESTION, "NAME")],
    columns: &[
        Column { heading: "LOOKUPS", metric: &LOOKUP_DURATION, only: &[], show: Show::Count },
        Column { heading: "MEDIAN", metric: &LOOKUP_DURATION, only: &[], show: Show::Percentile(50) },
        Column { heading: "P99", metric: &LOOKUP_DURATION, only: &[], show: Show::Percentile(99) },
    ],
};
