//! Delivery to an OTLP receiver.
//!
//! [`config`] turns flags and `OTEL_EXPORTER_OTLP_*` into destinations, a [`transport`] carries one request to one of
//! them, [`reply`] reads what the receiver answered, [`retry`] says when to try again, [`delivery`] decides what is sent,
//! kept and dropped, and [`Exporter`] does it, on threads of its own. Bytes come encoded: nothing here knows what is in them.

use bytes::Bytes;

pub mod config;
pub mod delivery;
pub mod destination;
pub mod endpoint;
mod error;
pub mod file;
pub mod grpc;
mod gzip;
pub mod http;
pub mod net;
pub mod pipeline;
mod queue;
mod redact;
pub mod reply;
pub mod retry;
pub mod spool;
pub mod stats;
pub mod store;
pub mod transport;

pub use config::{Compression, ExportConfig, Sink};
pub use destination::{Destination, Protocol};
pub use endpoint::{Endpoint, Scheme};
pub use error::{EndpointProblem, ExportError, Failure, TlsFileProblem, TlsProblem};
pub use pipeline::{Exporter, Outlet};

/// Largest request that OTLP allows, before compression.
pub const MAX_REQUEST: usize = 64 << 20;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Metrics.
    Metrics,
    /// Traces.
    Traces,
    /// Logs.
    Logs,
    /// Profiles, of which OTLP 1.11 says `v1development`.
    Profiles,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Metrics, Self::Traces, Self::Logs, Self::Profiles];

    /// Path under a base endpoint of OTLP/HTTP.
    pub fn path(self) -> &'static str {
        match self {
            Self::Metrics => "/v1/metrics",
            Self::Traces => "/v1/traces",
            Self::Logs => "/v1/logs",
            Self::Profiles => "/v1development/profiles",
        }
    }

    /// Path of the method of OTLP/gRPC.
    pub fn grpc_path(self) -> &'static str {
        match self {
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Self::Profiles => "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
        }
    }

    /// The part of `OTEL_EXPORTER_OTLP_<SIGNAL>_ENDPOINT` that names the signal. The specification (1.60) has no
    /// such variables for profiles yet; these follow the pattern of the other signals.
    pub fn variable_part(self) -> &'static str {
        match self {
            Self::Metrics => "METRICS",
            Self::Traces => "TRACES",
            Self::Logs => "LOGS",
            Self::Profiles => "PROFILES",
        }
    }

    /// What people call it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Traces => "traces",
            Self::Logs => "logs",
            Self::Profiles => "profiles",
        }
    }

    /// What is counted of it: what a receiver counts that rejects some.
    pub fn item_noun(self) -> &'static str {
        match self {
            Self::Metrics => "data points",
            Self::Traces => "spans",
            Self::Logs => "log records",
            Self::Profiles => "profiles",
        }
    }
}

/// An encoded export request on its way to a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is in it.
    pub signal: Signal,
    /// How many data points, spans, log records or profiles.
    pub items: u64,
    /// The message, not compressed. Cheap to clone: every destination has its own queue of the same bytes.
    pub body: Bytes,
}
